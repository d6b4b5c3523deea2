#pragma once
#define FUSE_USE_VERSION 314
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <unistd.h>

// The bytes before those of a write, as the kernel sends it.
enum { chainfs_write_headers = sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in) };

// A plain function in one build of libfuse and a function-like macro in another.
static inline int chainfs_session_io(struct fuse_session *session, const struct fuse_custom_io *calls,
                                     int descriptor) {
  return fuse_session_custom_io(session, calls, descriptor);
}

// FUSE_DEV_IOC_CLONE: one more descriptor of the connection that `session` belongs to, or -1.
static inline int chainfs_clone_device(int session) {
  int clone = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (clone < 0) return -1;
  uint32_t number = (uint32_t)session;
  if (ioctl(clone, _IOR(229, 0, uint32_t), &number) == 0) return clone;
  close(clone);
  return -1;
}

// Declared by unistd.h under _GNU_SOURCE only.
extern int syncfs(int descriptor);
