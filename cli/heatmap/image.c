/* The image of --overlay, and its index in the run. */
#include "cli/heatmap/heatmap.h"
#include "cli/text.h"
#include "ditmoe_eval.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { METADATA_LIMIT = 1 << 20, INDEX_DIGITS = 15 };

/* The library's message is about the link. */
static enum ditmoe_status explain(const struct heatmap *heatmap, enum ditmoe_status status,
                                  const char *link) {
  const char *message = ditmoe_errmsg(heatmap->ctx), *place = strstr(message, link);
  if (status == DITMOE_OK) return DITMOE_OK;
  return report_error(status, "--overlay %s%s", heatmap->settings.overlay,
                      place ? place + strlen(link) : message);
}

static enum ditmoe_status decode(struct heatmap *heatmap, const char *folder, const char *link) {
  struct ditmoe_images *images = NULL;
  const uint8_t *pixels = NULL;
  enum ditmoe_status status = ditmoe_images_open(heatmap->ctx, folder, NULL, &images);
  if (status == DITMOE_OK)
    status = ditmoe_images_read(heatmap->ctx, images, 0, &pixels, &heatmap->image_width,
                                &heatmap->image_height);
  if (status == DITMOE_OK) {
    const size_t bytes = 3 * (size_t)heatmap->image_width * (size_t)heatmap->image_height;
    heatmap->image = memory_get(bytes, 1);
    memcpy(heatmap->image, pixels, bytes);
  }
  status = explain(heatmap, status, link);
  ditmoe_images_close(images);
  return status;
}

/* The library reads images of folders: through one of our own with a link in it. */
static enum ditmoe_status read_image(struct heatmap *heatmap) {
  const char *parent = getenv("TMPDIR"), *path = heatmap->settings.overlay;
  char *target = realpath(path, NULL);
  struct stat info;
  if (!target || stat(target, &info) != 0) {
    free(target);
    return report_error(DITMOE_FORMAT, "--overlay %s: %s", path, strerror(errno));
  }
  if (!S_ISREG(info.st_mode)) {
    free(target);
    return report_error(DITMOE_FORMAT, "--overlay %s: not a file", path);
  }
  char *folder = text_format("%s/ditmoe-heatmap-XXXXXX", parent && *parent ? parent : "/tmp");
  char *made = mkdtemp(folder), *link = text_format("%s/image.png", folder);
  enum ditmoe_status status =
      made && symlink(target, link) == 0
          ? decode(heatmap, folder, link)
          : report_error(DITMOE_OUTPUT, "%s: a temporary folder: %s", folder, strerror(errno));
  if (made) {
    unlink(link);
    rmdir(folder);
  }
  free(link);
  free(folder);
  free(target);
  return status;
}

/* Member "index" of the object that ditmoe-sample leaves in its images; -1 without one. */
static int64_t index_of_metadata(const struct heatmap *heatmap) {
  char *text = memory_get(METADATA_LIMIT, 1);
  int64_t index = -1;
  if (ditmoe_image_text(heatmap->ctx, heatmap->settings.overlay, "ditmoe", text, METADATA_LIMIT) ==
      DITMOE_OK) {
    cJSON *object = cJSON_Parse(text);
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(object, "index");
    if (cJSON_IsNumber(member) && member->valuedouble >= 0 && member->valuedouble < 1e15)
      index = (int64_t)member->valuedouble;
    cJSON_Delete(object);
  }
  free(text);
  return index;
}

/* "000012.png", "img000012_class3.png"; -1 for other names. */
static int64_t index_of_name(const char *path) {
  const char *name = path_name(path);
  if (strncmp(name, "img", 3) == 0) name += 3;
  const size_t digits = strspn(name, "0123456789");
  if (digits == 0 || digits > INDEX_DIGITS) return -1;
  return name[digits] == '.' || name[digits] == '_' ? strtoll(name, NULL, 10) : -1;
}

enum ditmoe_status heatmap_read_overlay(struct heatmap *heatmap) {
  const struct heatmap_settings *s = &heatmap->settings;
  TRY(read_image(heatmap));
  heatmap->image_index = option_given(&heatmap->options, &s->overlay_index)
                             ? s->overlay_index
                             : index_of_metadata(heatmap);
  if (heatmap->image_index < 0) heatmap->image_index = index_of_name(s->overlay);
  return DITMOE_OK;
}

enum ditmoe_status heatmap_check_overlay(const struct heatmap *heatmap) {
  const struct heatmap_settings *s = &heatmap->settings;
  const char *run = heatmap->run.path;
  if (!heatmap->trace && option_given(&heatmap->options, &s->overlay_index))
    return report_error(DITMOE_USAGE,
                        "--overlay-index has no effect: %s has tables of all images together, "
                        "only a trace tells them apart",
                        run);
  if (!heatmap->trace) return DITMOE_OK;
  if (heatmap->image_index < 0)
    return report_error(DITMOE_USAGE,
                        "--overlay %s: neither its metadata nor its name has an "
                        "index; give --overlay-index",
                        s->overlay);
  if (!ditmoe_routing_has(heatmap->image_routing, heatmap->image_index))
    return report_error(DITMOE_USAGE, "--overlay %s: image %lld is not in %s", s->overlay,
                        (long long)heatmap->image_index, run);
  return DITMOE_OK;
}
