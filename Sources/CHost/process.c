#define _GNU_SOURCE
#include "process.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

int chainfs_unmount(const char *path) { return umount2(path, 0); }

int chainfs_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

int chainfs_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC); }

int chainfs_ioctl_int(int descriptor, unsigned int request, int *value) {
  return ioctl(descriptor, request, value);
}

void chainfs_syslog(int priority, const char *text) { syslog(priority, "%s", text); }
