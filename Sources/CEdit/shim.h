#pragma once
#include <histedit.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

// el_set, el_get and history are variadic; the streams are variables.

// What is typed is UTF-8, also where nobody has said so; libedit asks the locale.
static inline EditLine *chainfs_edit_open(void) {
  if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
  return el_init("chainfs", stdin, stdout, stderr);
}

static inline char *chainfs_edit_prompt(EditLine *edit) {
  static char prompt[] = "(chainfs) ";
  (void)edit;
  return prompt;
}

// Keys as in Emacs and as ~/.editrc says, with functions of ours on Tab, Ctrl-C and Ctrl-Z. The terminal
// makes no signals of keys while a line is edited: libedit 3.1 cannot switch off that of Ctrl-C alone.
static inline void chainfs_edit_prepare(EditLine *edit, History *lines, void *owner,
                                        unsigned char (*complete)(EditLine *, int),
                                        unsigned char (*clear)(EditLine *, int),
                                        unsigned char (*suspend)(EditLine *, int)) {
  el_set(edit, EL_CLIENTDATA, owner);
  el_set(edit, EL_PROMPT, chainfs_edit_prompt);
  el_set(edit, EL_EDITOR, "emacs");
  el_set(edit, EL_SIGNAL, 1);
  el_set(edit, EL_HIST, history, lines);
  el_set(edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
  el_set(edit, EL_BIND, "\\e[3~", "ed-delete-next-char", NULL);
  el_set(edit, EL_BIND, "\\e[1~", "ed-move-to-beg", NULL);
  el_set(edit, EL_BIND, "\\e[4~", "ed-move-to-end", NULL);
  el_set(edit, EL_BIND, "\\e[1;5D", "ed-prev-word", NULL);
  el_set(edit, EL_BIND, "\\e[1;5C", "em-next-word", NULL);
  el_source(edit, NULL);
  el_set(edit, EL_ADDFN, "chainfs-complete", "Completes a word", complete);
  el_set(edit, EL_BIND, "^I", "chainfs-complete", NULL);
  el_set(edit, EL_ADDFN, "chainfs-clear", "Drops the line", clear);
  el_set(edit, EL_BIND, "^C", "chainfs-clear", NULL);
  el_set(edit, EL_ADDFN, "chainfs-suspend", "Stops the program", suspend);
  el_set(edit, EL_BIND, "^Z", "chainfs-suspend", NULL);
  el_set(edit, EL_SETTY, "-d", "-isig", NULL);
}

static inline void *chainfs_edit_owner(EditLine *edit) {
  void *owner = NULL;
  el_get(edit, EL_CLIENTDATA, &owner);
  return owner;
}

// Keeps so many lines, and none that is the same as the one before.
static inline void chainfs_history_prepare(History *lines, int limit) {
  HistEvent event;
  history(lines, &event, H_SETSIZE, limit);
  history(lines, &event, H_SETUNIQUE, 1);
}

static inline void chainfs_history_add(History *lines, const char *line) {
  HistEvent event;
  history(lines, &event, H_ENTER, line);
}
