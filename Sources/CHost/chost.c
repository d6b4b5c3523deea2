#define _GNU_SOURCE
#include "chost.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/prctl.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

const int chainfs_o_direct = O_DIRECT;
const int chainfs_o_path = O_PATH;
const int chainfs_seek_data = SEEK_DATA;
const int chainfs_seek_hole = SEEK_HOLE;
const int chainfs_falloc_keep_size = FALLOC_FL_KEEP_SIZE;
const int chainfs_falloc_punch_hole = FALLOC_FL_PUNCH_HOLE;
const int chainfs_falloc_zero_range = FALLOC_FL_ZERO_RANGE;

int chainfs_open(const char *path, int flags, mode_t mode) {
  return open(path, flags, mode);
}

int chainfs_fallocate(int descriptor, int mode, int64_t offset, int64_t length) {
  return fallocate(descriptor, mode, offset, length);
}

int chainfs_clone_range(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t length) {
  struct file_clone_range range = {
      .src_fd = from, .src_offset = from_offset, .src_length = length, .dest_offset = to_offset};
  return ioctl(to, FICLONERANGE, &range);
}

int chainfs_block_device_size(int descriptor, uint64_t *bytes) {
  return ioctl(descriptor, BLKGETSIZE64, bytes);
}

int chainfs_direct_io_alignment(int descriptor, uint32_t *memory, uint32_t *offset) {
  struct statfs system;
  // A tmpfs takes O_DIRECT and passes nothing by: its files are the page cache.
  if (fstatfs(descriptor, &system) == 0 && system.f_type == TMPFS_MAGIC) {
    *memory = *offset = 0;
    return 0;
  }
#ifdef STATX_DIOALIGN
  struct statx status;
  if (statx(descriptor, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0
      && (status.stx_mask & STATX_DIOALIGN)) {
    *memory = status.stx_dio_mem_align;
    *offset = status.stx_dio_offset_align;
    return 0;
  }
#endif
  return -1;
}

const char *chainfs_entry_name(const struct dirent *entry) {
  return entry->d_name;
}

static struct flock one_byte(short type, int64_t byte) {
  struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
  return lock;
}

int chainfs_ofd_share(int descriptor, int64_t byte) {
  struct flock lock = one_byte(F_RDLCK, byte);
  return fcntl(descriptor, F_OFD_SETLK, &lock);
}

int chainfs_ofd_unlock(int descriptor, int64_t byte) {
  struct flock lock = one_byte(F_UNLCK, byte);
  return fcntl(descriptor, F_OFD_SETLK, &lock);
}

int chainfs_ofd_test(int descriptor, int64_t byte, pid_t *holder) {
  struct flock lock = one_byte(F_WRLCK, byte);
  if (fcntl(descriptor, F_OFD_GETLK, &lock) != 0) return -1;
  *holder = lock.l_pid;
  return lock.l_type != F_UNLCK;
}

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

int chainfs_set_io_flusher(void) {
  return prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
}

int chainfs_keep_heap(size_t stack, size_t reserve) {
  // The largest threshold that malloc takes: what is larger is mapped apart, and unmapped when freed.
  enum { piece = 16 << 20, threshold = 32 << 20 };
  if (mallopt(M_ARENA_MAX, 1) != 1 || mallopt(M_MMAP_THRESHOLD, threshold) != 1
      || mallopt(M_TRIM_THRESHOLD, -1) != 1 || mallopt(M_TOP_PAD, 1 << 20) != 1)
    return EINVAL;
  pthread_attr_t attributes;
  int status = pthread_attr_init(&attributes);
  if (status == 0) status = pthread_attr_setstacksize(&attributes, stack);
  if (status == 0) status = pthread_setattr_default_np(&attributes);
  if (status != 0) return status;
  // A chain of pieces, freed together: they are neighbours, and one free range again then.
  void *last = NULL;
  for (size_t held = 0; held < reserve; held += piece) {
    void **next = malloc(piece);
    if (next == NULL) break;
    // A plain memset of memory that is freed unread may be left out.
    explicit_bzero(next, piece);
    *next = last;
    last = next;
  }
  if (last == NULL && reserve > 0) return ENOMEM;
  while (last != NULL) {
    void *before = *(void **)last;
    free(last);
    last = before;
  }
  return 0;
}

pid_t chainfs_fork(void) {
  return fork();
}

struct replacement {
  void *(*body)(void *);
  void *argument;
  sigset_t signals;
};

static void *replace(void *argument) {
  struct replacement start = *(struct replacement *)argument;
  pthread_sigmask(SIG_SETMASK, &start.signals, NULL);
  return start.body(start.argument);
}

int chainfs_replace_thread(void *(*body)(void *), void *argument) {
  struct replacement start = {body, argument};
  sigset_t all;
  pthread_t thread;
  sigfillset(&all);
  // The caller's thread takes no signal from here on; the new one does as the old one did.
  int status = pthread_sigmask(SIG_BLOCK, &all, &start.signals);
  if (status == 0) status = pthread_create(&thread, NULL, replace, &start);
  if (status == 0) status = pthread_join(thread, NULL);
  return status;
}

int chainfs_condition_init(pthread_cond_t *condition) {
  pthread_condattr_t attributes;
  int status = pthread_condattr_init(&attributes);
  if (status != 0) return status;
  status = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  if (status == 0) status = pthread_cond_init(condition, &attributes);
  pthread_condattr_destroy(&attributes);
  return status;
}

int chainfs_gate_init(pthread_rwlock_t *lock) {
  pthread_rwlockattr_t attributes;
  int status = pthread_rwlockattr_init(&attributes);
  if (status != 0) return status;
  status = pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  if (status == 0) status = pthread_rwlock_init(lock, &attributes);
  pthread_rwlockattr_destroy(&attributes);
  return status;
}

int chainfs_thread_name(pthread_t thread, const char *name) {
  return pthread_setname_np(thread, name);
}

unsigned int chainfs_thread_index(void) {
  static atomic_uint next;
  static _Thread_local unsigned int own;
  if (own == 0) own = atomic_fetch_add_explicit(&next, 1, memory_order_relaxed) + 1;
  return own;
}

#define SLOTS 7
static pthread_key_t slots[SLOTS];

__attribute__((constructor)) static void make_slots(void) {
  for (int slot = 0; slot < SLOTS; slot++)
    if (pthread_key_create(&slots[slot], free) != 0) abort();
}

void *chainfs_thread_slot_get(int slot) {
  return slot >= 0 && slot < SLOTS ? pthread_getspecific(slots[slot]) : NULL;
}

int chainfs_thread_slot_set(int slot, void *memory) {
  if (slot < 0 || slot >= SLOTS) return EINVAL;
  void *old = pthread_getspecific(slots[slot]);
  int status = pthread_setspecific(slots[slot], memory);
  if (status == 0 && old != memory) free(old);
  return status;
}
