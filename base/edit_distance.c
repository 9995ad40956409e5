/* Names that are nearly the same. */
#include "base/edit_distance.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

static int least(int a, int b) { return a < b ? a : b; }

int edit_distance(const char *a, const char *b) {
  int rows[3][EDIT_LONGEST + 1];
  int length_a = (int)strnlen(a, EDIT_LONGEST + 1), length_b = (int)strnlen(b, EDIT_LONGEST + 1);
  if (length_a > EDIT_LONGEST || length_b > EDIT_LONGEST) return EDIT_LONGEST;
  int *two_back = rows[0], *last = rows[1], *now = rows[2];
  for (int j = 0; j <= length_b; j++) last[j] = j;
  for (int i = 1; i <= length_a; i++) {
    now[0] = i;
    for (int j = 1; j <= length_b; j++) {
      int ca = tolower((unsigned char)a[i - 1]), cb = tolower((unsigned char)b[j - 1]);
      now[j] = least(last[j - 1] + (ca != cb), least(last[j], now[j - 1]) + 1);
      bool swapped = i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
                     cb == tolower((unsigned char)a[i - 2]);
      if (swapped) now[j] = least(now[j], two_back[j - 2] + 1);
    }
    int *free_row = two_back;
    two_back = last;
    last = now;
    now = free_row;
  }
  return last[length_b];
}
