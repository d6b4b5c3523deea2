// Failing system calls, for tests only.
//
// A program that has this file in it, or is started with it as LD_PRELOAD, calls the functions below in
// the place of the C library's. While counting is on, each call about a file of the directory under test
// has a number; the chosen one is failed once, or cut short, and everything else goes through. So every
// call that a workload makes can be failed in turn, with no change to the product.
//
//     faults_begin(dir, position 17, EIO)   open  pread  pread  ...  pwrite (17: EIO)  ...  close
//
// A flush is not carried out: nobody pulls the plug here, and the disk's time is what most runs would be.
//
// As LD_PRELOAD it is steered from outside: CHAINFS_FAULTS names a directory, and as long as the file
// `.faults` is there with a line such as `fdatasync 5 image.qcow2`, calls of that name on files with that
// end to their name fail with that errno.
#define _GNU_SOURCE
#include "faults.h"

#include <dirent.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DEPTH 48
#define TRACES 200000

struct trace {
  const char *call;
  void *frames[DEPTH];
  int count;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int is_on, is_tracing, was_hit, is_over;
static char directory[512], also[512];
static long calls, chosen;
static int kind, number;
static struct trace hit, *traces;
static char hit_path[512];
static char standing_call[32];
static int standing_number;
static const char *outside;
static __thread int inside;

static ssize_t link_of(int descriptor, char *path, size_t size) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, size - 1);
  if (length > 0) path[length] = 0;
  return length;
}

static int begins(const char *path, const char *prefix) {
  return prefix[0] && strncmp(path, prefix, strlen(prefix)) == 0;
}

// Where a call's file is; nonzero if it is one of those that count.
static int place(int descriptor, const char *name, char *path, size_t size) {
  path[0] = 0;
  if (name) {
    int other;
    if (sscanf(name, "/proc/self/fd/%d", &other) == 1) return place(other, NULL, path, size);
    if (name[0] != '/') {
      // Relative: the driver's working directory is the one under test.
      snprintf(path, size, "%s/%s", directory, name);
      return 1;
    }
    snprintf(path, size, "%s", name);
  } else if (link_of(descriptor, path, size) <= 0) {
    return 0;
  }
  return begins(path, directory) || begins(path, also);
}

// What is ordered from outside: the errno for this call, 0 for none.
static int order_from_outside(const char *call, const char *path) {
  char name[600], text[256] = "";
  snprintf(name, sizeof name, "%s/.faults", outside);
  int file = syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC, 0);
  if (file < 0) return 0;
  ssize_t count = syscall(SYS_read, file, text, sizeof text - 1);
  syscall(SYS_close, file);
  char wanted[64], end[128];
  int value;
  if (count <= 0 || sscanf(text, "%63s %d %127s", wanted, &value, end) != 3) return 0;
  size_t length = strlen(path), tail = strlen(end);
  if (strcmp(wanted, call) || tail > length || strcmp(path + length - tail, end)) return 0;
  return value;
}

enum verdict { goes_through, fails, is_short };

// Counts a call and says what becomes of it; errno is set if it fails.
static enum verdict judge(const char *call, int descriptor, const char *name, int can_be_short) {
  if ((!is_on && !outside) || inside) return goes_through;
  char path[512];
  int saved = errno;
  inside = 1;
  enum verdict verdict = goes_through;
  if (outside && !directory[0]) snprintf(directory, sizeof directory, "%s", outside);
  if (place(descriptor, name, path, sizeof path)) {
    if (outside) {
      int value = order_from_outside(call, path);
      if (value) verdict = fails, saved = value;
    } else {
      pthread_mutex_lock(&lock);
      calls++;
      if (standing_number && begins(call, standing_call)) verdict = fails, saved = standing_number;
      if (is_over && strcmp(call, "close")) verdict = fails, saved = EIO;
      if (is_tracing && calls < TRACES) {
        traces[calls].call = call;
        traces[calls].count = backtrace(traces[calls].frames, DEPTH);
      }
      if (calls == chosen && verdict == goes_through && !was_hit && (kind == faults_kind_fails || can_be_short)) {
        was_hit = 1;
        hit.call = call;
        hit.count = backtrace(hit.frames, DEPTH);
        snprintf(hit_path, sizeof hit_path, "%s", path);
        verdict = kind == faults_kind_fails ? fails : is_short;
        if (verdict == fails) saved = number;
      }
      pthread_mutex_unlock(&lock);
    }
  }
  inside = 0;
  errno = saved;
  return verdict;
}

static size_t half(size_t count) { return count > 1 ? count / 2 : count; }

// MARK: - Steering

void faults_begin(const char *in, const char *and_in, long position, int new_kind, int errno_value) {
  pthread_mutex_lock(&lock);
  snprintf(directory, sizeof directory, "%s", in);
  snprintf(also, sizeof also, "%s", and_in ? and_in : "");
  calls = 0, chosen = position, kind = new_kind, number = errno_value, was_hit = 0;
  hit.call = "", hit.count = 0, hit_path[0] = 0;
  is_over = 0, standing_number = 0, is_on = 1;
  pthread_mutex_unlock(&lock);
}

long faults_end(void) {
  pthread_mutex_lock(&lock);
  is_on = 0;
  long count = calls;
  pthread_mutex_unlock(&lock);
  return count;
}

void faults_fail_all(void) {
  pthread_mutex_lock(&lock);
  is_over = 1;
  pthread_mutex_unlock(&lock);
}

void faults_stand(const char *call, int errno_value) {
  pthread_mutex_lock(&lock);
  snprintf(standing_call, sizeof standing_call, "%s", call);
  standing_number = errno_value;
  pthread_mutex_unlock(&lock);
}

void faults_pass(int on) { inside = on; }

int faults_was_hit(void) {
  pthread_mutex_lock(&lock);
  int answer = was_hit;
  pthread_mutex_unlock(&lock);
  return answer;
}

const char *faults_hit_call(void) { return hit.call; }
const char *faults_hit_path(void) { return hit_path; }

void faults_trace(int on) {
  if (on && !traces) traces = calloc(TRACES, sizeof *traces);
  is_tracing = on;
}

const char *faults_traced_call(long position) {
  return position < TRACES && traces[position].call ? traces[position].call : "";
}

__attribute__((constructor)) static void start(void) { outside = getenv("CHAINFS_FAULTS"); }

// MARK: - Names of functions

// The program's own table of symbols: most of its functions are not exported.
static const Elf64_Sym *symbols;
static size_t symbol_count;
static const char *symbol_names;
static uintptr_t load_offset;
static const Elf64_Sym **sorted;
static size_t sorted_count;

static int by_value(const void *one, const void *other) {
  const Elf64_Sym *a = *(const Elf64_Sym *const *)one, *b = *(const Elf64_Sym *const *)other;
  return a->st_value < b->st_value ? -1 : a->st_value > b->st_value;
}

static void read_symbols(void) {
  static int is_read;
  if (is_read) return;
  is_read = 1;
  int file = syscall(SYS_openat, AT_FDCWD, "/proc/self/exe", O_RDONLY | O_CLOEXEC, 0);
  off_t length = syscall(SYS_lseek, file, 0, SEEK_END);
  char *start = mmap(NULL, length, PROT_READ, MAP_PRIVATE, file, 0);
  syscall(SYS_close, file);
  if (start == MAP_FAILED) return;
  const Elf64_Ehdr *header = (const void *)start;
  const Elf64_Shdr *sections = (const void *)(start + header->e_shoff);
  for (int index = 0; index < header->e_shnum; index++) {
    if (sections[index].sh_type != SHT_SYMTAB) continue;
    symbols = (const void *)(start + sections[index].sh_offset);
    symbol_count = sections[index].sh_size / sizeof *symbols;
    symbol_names = start + sections[sections[index].sh_link].sh_offset;
  }
  sorted = malloc((symbol_count + 1) * sizeof *sorted);
  for (size_t index = 0; index < symbol_count; index++)
    if (ELF64_ST_TYPE(symbols[index].st_info) == STT_FUNC && symbols[index].st_value)
      sorted[sorted_count++] = &symbols[index];
  qsort(sorted, sorted_count, sizeof *sorted, by_value);
  // Where the program was put: the difference between this function's place and the table's.
  for (size_t index = 0; index < sorted_count; index++)
    if (strcmp(symbol_names + sorted[index]->st_name, "faults_was_hit") == 0)
      load_offset = (uintptr_t)faults_was_hit - sorted[index]->st_value;
}

static const char *name_of(void *address) {
  read_symbols();
  // A return address may lie behind a function that ends with its call.
  uintptr_t place = (uintptr_t)address - 1 - load_offset;
  size_t low = 0, high = sorted_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (sorted[middle]->st_value <= place) low = middle + 1; else high = middle;
  }
  if (low == 0) return "?";
  const Elf64_Sym *found = sorted[low - 1];
  if (place >= found->st_value + (found->st_size ? found->st_size : 1)) return "?";
  return symbol_names + found->st_name;
}

const char *faults_hit_frame(int index) {
  return index < hit.count ? name_of(hit.frames[index]) : NULL;
}

const char *faults_traced_frame(long position, int index) {
  if (position >= TRACES || index >= traces[position].count) return NULL;
  return name_of(traces[position].frames[index]);
}

char *faults_demangled(const char *mangled) {
  typedef char *demangle(const char *, size_t, char *, size_t *, uint32_t);
  static demangle *found;
  if (!found) found = (demangle *)dlsym(RTLD_DEFAULT, "swift_demangle");
  char *name = found ? found(mangled, strlen(mangled), NULL, NULL, 0) : NULL;
  return name ? name : strdup(mangled);
}

// MARK: - The calls

#define NEXT(name) \
  static __typeof__(&name) next; \
  if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int open(const char *path, int flags, ...) {
  mode_t mode = 0;
  if (flags & (O_CREAT | O_TMPFILE)) {
    va_list list;
    va_start(list, flags);
    mode = va_arg(list, mode_t);
    va_end(list);
  }
  if (judge("open", -1, path, 0) == fails) return -1;
  return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

ssize_t pread(int descriptor, void *bytes, size_t count, off_t offset) {
  enum verdict verdict = judge("pread", descriptor, NULL, count > 1);
  if (verdict == fails) return -1;
  return syscall(SYS_pread64, descriptor, bytes, verdict == is_short ? half(count) : count, offset);
}

ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t offset) {
  enum verdict verdict = judge("pwrite", descriptor, NULL, count > 1);
  if (verdict == fails) return -1;
  return syscall(SYS_pwrite64, descriptor, bytes, verdict == is_short ? half(count) : count, offset);
}

int fdatasync(int descriptor) {
  if (judge("fdatasync", descriptor, NULL, 0) == fails) return -1;
  return is_on ? 0 : syscall(SYS_fdatasync, descriptor);
}

int fsync(int descriptor) {
  if (judge("fsync", descriptor, NULL, 0) == fails) return -1;
  return is_on ? 0 : syscall(SYS_fsync, descriptor);
}

int ftruncate(int descriptor, off_t length) {
  if (judge("ftruncate", descriptor, NULL, 0) == fails) return -1;
  return syscall(SYS_ftruncate, descriptor, length);
}

int fallocate(int descriptor, int mode, off_t offset, off_t length) {
  const char *call = mode & FALLOC_FL_PUNCH_HOLE ? "fallocate-punch"
                     : mode & FALLOC_FL_ZERO_RANGE ? "fallocate-zero" : "fallocate";
  if (judge(call, descriptor, NULL, 0) == fails) return -1;
  return syscall(SYS_fallocate, descriptor, mode, offset, length);
}

off_t lseek(int descriptor, off_t offset, int whence) {
  if (judge("lseek", descriptor, NULL, 0) == fails) return -1;
  return syscall(SYS_lseek, descriptor, offset, whence);
}

int ioctl(int descriptor, unsigned long request, ...) {
  va_list list;
  va_start(list, request);
  void *argument = va_arg(list, void *);
  va_end(list);
  if (request == FICLONERANGE && judge("FICLONERANGE", descriptor, NULL, 0) == fails) return -1;
  return syscall(SYS_ioctl, descriptor, request, argument);
}

int fcntl(int descriptor, int command, ...) {
  va_list list;
  va_start(list, command);
  void *argument = va_arg(list, void *);
  va_end(list);
  if (command == F_OFD_SETLK || command == F_OFD_GETLK)
    if (judge("fcntl", descriptor, NULL, 0) == fails) return -1;
  return syscall(SYS_fcntl, descriptor, command, argument);
}

int fstat(int descriptor, struct stat *status) {
  if (judge("fstat", descriptor, NULL, 0) == fails) return -1;
  NEXT(fstat);
  return next(descriptor, status);
}

int stat(const char *path, struct stat *status) {
  if (judge("stat", -1, path, 0) == fails) return -1;
  NEXT(stat);
  return next(path, status);
}

int statx(int at, const char *path, int flags, unsigned mask, struct statx *status) {
  if (judge("statx", at, path[0] ? path : NULL, 0) == fails) return -1;
  return syscall(SYS_statx, at, path, flags, mask, status);
}

int fstatfs(int descriptor, struct statfs *status) {
  if (judge("fstatfs", descriptor, NULL, 0) == fails) return -1;
  return syscall(SYS_fstatfs, descriptor, status);
}

int statvfs(const char *path, struct statvfs *status) {
  if (judge("statvfs", -1, path, 0) == fails) return -1;
  NEXT(statvfs);
  return next(path, status);
}

int rename(const char *old, const char *new) {
  if (judge("rename", -1, new, 0) == fails) return -1;
  return syscall(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, new, 0);
}

int unlink(const char *path) {
  if (judge("unlink", -1, path, 0) == fails) return -1;
  return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int chmod(const char *path, mode_t mode) {
  if (judge("chmod", -1, path, 0) == fails) return -1;
  return syscall(SYS_fchmodat, AT_FDCWD, path, mode);
}

int fchmod(int descriptor, mode_t mode) {
  if (judge("fchmod", descriptor, NULL, 0) == fails) return -1;
  return syscall(SYS_fchmod, descriptor, mode);
}

ssize_t readlink(const char *path, char *buffer, size_t size) {
  if (judge("readlink", -1, path, 0) == fails) return -1;
  return syscall(SYS_readlinkat, AT_FDCWD, path, buffer, size);
}

int close(int descriptor) {
  // Linux closes before it can fail, and so does this.
  enum verdict verdict = judge("close", descriptor, NULL, 0);
  int value = errno, result = syscall(SYS_close, descriptor);
  if (verdict != fails) return result;
  errno = value;
  return -1;
}

char *realpath(const char *path, char *buffer) {
  if (judge("realpath", -1, path, 0) == fails) return NULL;
  NEXT(realpath);
  return next(path, buffer);
}

char *getcwd(char *buffer, size_t size) {
  // The name itself is what is asked for.
  if (judge("getcwd", -1, ".", 0) == fails) return NULL;
  NEXT(getcwd);
  return next(buffer, size);
}

DIR *opendir(const char *path) {
  if (judge("opendir", -1, path, 0) == fails) return NULL;
  NEXT(opendir);
  return next(path);
}
