// What the program itself needs from Linux beyond what Swift can call: calls that glibc declares
// outside of its module map, and variadic ones.
#ifndef CHAINFS_PROCESS_H
#define CHAINFS_PROCESS_H

#include <sys/types.h>

// umount2(2) without flags: EBUSY while anything is open.
int chainfs_unmount(const char *path);
// A descriptor that becomes readable when the process has ended.
int chainfs_pidfd_open(pid_t pid);
// pipe2(2) with O_CLOEXEC: the read end, then the write end.
int chainfs_pipe(int ends[2]);
// ioctl(2) with a request that fills an int.
int chainfs_ioctl_int(int descriptor, unsigned int request, int *value);
// syslog(3) with the text as it is.
void chainfs_syslog(int priority, const char *text);

#endif
