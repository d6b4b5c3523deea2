#pragma once
#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

// A plain function in one build of libfuse and a function-like macro in another.
static inline int chainfs_session_loop_mt(struct fuse_session *session,
                                          struct fuse_loop_config *config) {
  return fuse_session_loop_mt(session, config);
}

// Declared by unistd.h under _GNU_SOURCE only.
extern int syncfs(int descriptor);
