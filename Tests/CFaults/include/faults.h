// Failing system calls, for tests only: see faults.c.
#ifndef CHAINFS_FAULTS_H
#define CHAINFS_FAULTS_H

#include <stddef.h>

// What befalls the chosen call.
enum {
  // It is not made, and says this errno.
  faults_kind_fails = 0,
  // It is made with half of its length, one byte at least.
  faults_kind_short = 1,
};

// Begins to count the calls on files in `directory`, and on those named by `also` if it is not NULL.
// The call of number `position`, from 1 on, is failed if it can be in this way; none if it is 0.
void faults_begin(const char *directory, const char *also, long position, int kind, int number);
// Ends it: all calls go through and none is counted. Gives how many there were.
long faults_end(void);
// From now on every call fails with EIO, as for a process that is killed.
void faults_fail_all(void);
// From now on calls whose name begins so fail with that errno, besides the chosen one; 0 ends it.
void faults_stand(const char *call, int errno_value);

// Lets the calling thread's calls through uncounted.
void faults_pass(int on);

// Whether the chosen call was reached and failed.
int faults_was_hit(void);
// The chosen call's name, and the file that it was about.
const char *faults_hit_call(void);
const char *faults_hit_path(void);
// The functions that led to it, innermost first, as mangled names; NULL behind the last.
const char *faults_hit_frame(int number);

// Notes for each call from now on which functions led to it. Slow.
void faults_trace(int on);
// The name of the call of this number, from 1 on, and its frames.
const char *faults_traced_call(long position);
const char *faults_traced_frame(long position, int number);

// The readable form of a mangled name; the caller frees it.
char *faults_demangled(const char *mangled);

#endif
