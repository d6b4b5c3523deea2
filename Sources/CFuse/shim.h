#pragma once
#define FUSE_USE_VERSION 314
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <unistd.h>

// What follows knows two libraries: Debian 12's (3.14), and from 3.18 on one that can take requests
// through io_uring. Both are spoken to as 3.14.

// A plain function in one build of libfuse and a function-like macro in another.
static inline struct fuse_session *chainfs_session_new(struct fuse_args *arguments,
                                                       const struct fuse_lowlevel_ops *calls,
                                                       size_t size, void *user_data) {
  return fuse_session_new(arguments, calls, size, user_data);
}

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

// Asks for a FUSE_CAP_ of the connection, if the kernel has it, or does without: the newer library keeps
// 64 bits of them, and complains of who sets the older 32 beside them.
static inline void chainfs_want(struct fuse_conn_info *connection, uint64_t capability, int is_wanted) {
#ifdef FUSE_CAP_OVER_IO_URING
  if (!is_wanted || !fuse_set_feature_flag(connection, capability))
    fuse_unset_feature_flag(connection, capability);
#else
  if (is_wanted && connection->capable & capability)
    connection->want |= (uint32_t)capability;
  else
    connection->want &= ~(uint32_t)capability;
#endif
}

// The library takes requests through io_uring where it is told to and the kernel can.
static inline int chainfs_library_has_rings(void) {
#ifdef FUSE_CAP_OVER_IO_URING
  return 1;
#else
  return 0;
#endif
}

// The request came through io_uring.
static inline int chainfs_is_on_ring(fuse_req_t request) {
#ifdef FUSE_CAP_OVER_IO_URING
  return fuse_req_is_uring(request);
#else
  (void)request;
  return 0;
#endif
}

// The memory that the answer of a request is sent from without being copied, and its size; NULL unless the
// request came through io_uring.
static inline void *chainfs_ring_payload(fuse_req_t request, size_t *size) {
  char *payload = NULL;
#ifdef FUSE_CAP_OVER_IO_URING
  if (!fuse_req_is_uring(request) || fuse_req_get_payload(request, &payload, size, NULL) != 0)
    return NULL;
#else
  (void)request, (void)size;
#endif
  return payload;
}

// The kernel's number of a request that came through io_uring; 0 where it cannot be told. libfuse has no
// call for it. In all versions it is the second word of a request, with a count and a lock between it and
// the context, which libfuse does give: a request whose context lies elsewhere is laid out differently.
static inline uint64_t chainfs_ring_number(fuse_req_t request) {
#ifdef FUSE_CAP_OVER_IO_URING
  const struct { void *session; uint64_t number; int references; pthread_mutex_t lock; } *known =
      (const void *)request;
  if ((const void *)fuse_req_ctx(request) == (const void *)(known + 1)) return known->number;
#else
  (void)request;
#endif
  return 0;
}

// Gives back what libfuse keeps for io_uring, which only its own loop does. The session has ended, so that
// the loop serves nothing.
static inline void chainfs_end_rings(struct fuse_session *session) {
#ifdef FUSE_CAP_OVER_IO_URING
  fuse_session_loop_mt(session, NULL);
#else
  (void)session;
#endif
}

// Declared by unistd.h and signal.h under _GNU_SOURCE only.
extern int syncfs(int descriptor);
extern int tgkill(pid_t process, pid_t thread, int signal);
