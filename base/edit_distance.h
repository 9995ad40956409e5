/* How far a name is from another one, for "did you mean". The programs include this, too. */
#ifndef BASE_EDIT_DISTANCE_H
#define BASE_EDIT_DISTANCE_H

enum { EDIT_LONGEST = 200 };

/* Damerau-Levenshtein distance (optimal string alignment): insertions, deletions, replacements and
 * swaps of neighbours from a to b, ignoring case. EDIT_LONGEST if one of them is longer than
 * that. */
int edit_distance(const char *a, const char *b);

#endif
