/* Which timesteps of a long chain a short run visits: the respacings "ddimN" and "a,b,c" of Nichol
 * and Dhariwal, "Improved denoising diffusion probabilistic models" (2021), section 4. */
#include "sampler/schedule.h"

#include <math.h>
#include <string.h>

enum { COUNT_LIMIT = 100000000 };

/* Digits at *text, which moves behind them; false if there are none. Larger values are cut. */
static bool parse_count(const char **text, int *value) {
  const char *p = *text;
  int sum = 0;
  for (; *p >= '0' && *p <= '9'; p++)
    sum = sum >= COUNT_LIMIT / 10 ? COUNT_LIMIT : sum * 10 + *p - '0';
  bool any = p != *text;
  *text = p;
  *value = sum;
  return any;
}

/* The smallest stride that visits exactly `wanted` of the timesteps. */
static enum ditmoe_status space_by_stride(struct ditmoe_ctx *ctx, int train_steps,
                                          const char *respacing, int *timesteps, int *count) {
  const char *p = respacing + strlen("ddim");
  int wanted, stride = 1;
  if (!parse_count(&p, &wanted) || *p)
    return fail(ctx, DITMOE_USAGE, "respacing \"%s\": expected a number after \"ddim\"", respacing);
  while (stride < train_steps && (train_steps + stride - 1) / stride != wanted) stride++;
  if (stride >= train_steps)
    return fail(ctx, DITMOE_USAGE,
                "respacing \"%s\": no integer stride visits exactly %d of %d timesteps; "
                "the number without \"ddim\" needs none",
                respacing, wanted, train_steps);
  *count = wanted;
  for (int i = 0; i < wanted; i++) timesteps[i] = i * stride;
  return DITMOE_OK;
}

/* `steps` of the timesteps start .. start + size - 1, both ends included. The position is a running
 * sum, rounded half to even, as in the original. */
static void space_section(int start, int size, int steps, int *timesteps) {
  double stride = steps <= 1 ? 1 : (double)(size - 1) / (steps - 1), position = 0;
  for (int i = 0; i < steps; i++, position += stride) timesteps[i] = start + (int)rint(position);
}

static enum ditmoe_status space_by_sections(struct ditmoe_ctx *ctx, int train_steps,
                                            const char *respacing, int *timesteps, int *count) {
  int sections = 1, start = 0;
  for (const char *p = respacing; (p = strchr(p, ',')); p++) sections++;
  const char *p = respacing;
  *count = 0;
  for (int i = 0; i < sections; i++, p++) {
    int steps, size = train_steps / sections + (i < train_steps % sections);
    if (!parse_count(&p, &steps) || *p != (i + 1 < sections ? ',' : '\0'))
      return fail(ctx, DITMOE_USAGE, "respacing \"%s\": expected ddimN or numbers joined by commas",
                  respacing);
    if (steps > size)
      return fail(ctx, DITMOE_USAGE, "respacing \"%s\": cannot take %d steps out of %d timesteps",
                  respacing, steps, size);
    space_section(start, size, steps, timesteps + *count);
    *count += steps;
    start += size;
  }
  if (*count == 0) return fail(ctx, DITMOE_USAGE, "respacing \"%s\": no steps", respacing);
  return DITMOE_OK;
}

enum ditmoe_status schedule_space_timesteps(struct ditmoe_ctx *ctx, int train_steps,
                                            const char *respacing, int **timesteps, int *count) {
  int *list;
  TRY(mem_alloc(ctx, (size_t)train_steps, sizeof *list, "timesteps", &list));
  enum ditmoe_status status = DITMOE_OK;
  if (!*respacing) {
    *count = train_steps;
    for (int i = 0; i < train_steps; i++) list[i] = i;
  } else {
    bool by_stride = !strncmp(respacing, "ddim", strlen("ddim"));
    status =
        (by_stride ? space_by_stride : space_by_sections)(ctx, train_steps, respacing, list, count);
  }
  if (status == DITMOE_OK)
    *timesteps = list;
  else
    mem_free(ctx, list);
  return status;
}

int schedule_spaced_timestep(enum spacing spacing, int train_steps, int points, int k) {
  if (spacing == SPACING_LEADING) return k * (train_steps / points);
  if (spacing == SPACING_TRAILING)
    return (int)rint(train_steps - (points - 1 - k) * (train_steps / (double)points)) - 1;
  return points == 1 ? 0 : (int)rint(k * ((train_steps - 1) / (double)(points - 1)));
}
