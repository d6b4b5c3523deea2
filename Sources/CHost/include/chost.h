// What Swift cannot call by itself: constants and calls that glibc hides without _GNU_SOURCE,
// variadic calls, the layout of Linux structures, and memory that belongs to a thread.
#ifndef CHAINFS_CHOST_H
#define CHAINFS_CHOST_H

#include <dirent.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// Constants.
extern const int chainfs_o_direct;
extern const int chainfs_o_path;
extern const int chainfs_seek_data;
extern const int chainfs_seek_hole;
extern const int chainfs_falloc_keep_size;
extern const int chainfs_falloc_punch_hole;
extern const int chainfs_falloc_zero_range;

// Files.
int chainfs_open(const char *path, int flags, mode_t mode);
int chainfs_fallocate(int descriptor, int mode, int64_t offset, int64_t length);
int chainfs_clone_range(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t length);
int chainfs_block_device_size(int descriptor, uint64_t *bytes);
int chainfs_direct_io_alignment(int descriptor, uint32_t *memory, uint32_t *offset);

const char *chainfs_entry_name(const struct dirent *entry);

// OFD locks of one byte. `chainfs_ofd_test` gives 1 if another holder exists, 0 if none, -1 on error;
// `holder` is the process that holds it, or -1 where the kernel cannot say.
int chainfs_ofd_share(int descriptor, int64_t byte);
int chainfs_ofd_unlock(int descriptor, int64_t byte);
int chainfs_ofd_test(int descriptor, int64_t byte, pid_t *holder);

// Memory. `chainfs_set_io_flusher` is prctl(PR_SET_IO_FLUSHER). `chainfs_keep_heap` has the C library
// give no memory back and take it from one heap, gives new threads stacks of `stack` bytes, and holds
// `reserve` bytes of the heap ready; 0 or an errno. Both are for a process with one thread.
int chainfs_set_io_flusher(void);
int chainfs_keep_heap(size_t stack, size_t reserve);

// Processes and threads.
pid_t chainfs_fork(void);
// Runs a function on a new thread that takes over the caller's signals; the caller only waits for its end.
int chainfs_replace_thread(void *(*body)(void *), void *argument);
int chainfs_condition_init(pthread_cond_t *condition);
int chainfs_gate_init(pthread_rwlock_t *lock);
int chainfs_thread_name(pthread_t thread, const char *name);
unsigned int chainfs_thread_index(void);

// Seven pointers that belong to the calling thread; each is given to free() when the thread ends or
// when the slot is set to something else.
void *chainfs_thread_slot_get(int slot);
int chainfs_thread_slot_set(int slot, void *memory);

#endif
