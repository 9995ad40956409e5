/* Members of the checkpoint record: how they are read, checked and written (docs/RECORD.md). */
#ifndef ROUTER_RECORD_KEY_H
#define ROUTER_RECORD_KEY_H

#include <stddef.h>

enum record_type {
  RECORD_INT,
  RECORD_NUMBER,
  RECORD_CHOICE,  /* an int with names */
  RECORD_INTS,    /* one for all layers, or one for each; of models only, as the next are */
  RECORD_NUMBERS, /* one for each channel */
  RECORD_TEXT,
  RECORD_TEXTS,
  RECORD_OBJECT,
  RECORD_KIND
};

struct record_choice {
  const char *name; /* NULL ends a list */
  int value;
};

struct record_key {
  const char *name, *alias; /* alias: another spelling, or NULL            */
  const char *flag;         /* the option that gives it, for messages      */
  enum record_type type;
  size_t offset;    /* in the structure that keeps it                      */
  double low, high; /* of numbers; a choice with low > high has names only */
  const struct record_choice *choices;
  const char *need; /* what is unknown without it; NULL: it has a default  */
};

#endif
