/* The report: one HTML file that needs no network and no script. */
#include "cli/eval/eval.h"
#include "cli/json.h"
#include "cli/text.h"
#include "plot/html.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char STYLE[] =
    ":root{color-scheme:light dark;--ink:#1d2430;--soft:#5b6675;--line:#d9dee6;--paper:#fff;"
    "--card:#f5f7fa;--warn:#fff6e0;--edge:#d99a00}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#9aa6b5;--line:#39424f;"
    "--paper:#14181e;--card:#1d232c;--warn:#33290f;--edge:#d99a00}}"
    "*{box-sizing:border-box}"
    "body{margin:0 auto;padding:2rem 1.25rem 4rem;max-width:84rem;background:var(--paper);"
    "color:var(--ink);font:16px/1.5 system-ui,sans-serif}"
    "h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2.2rem 0 .6rem}"
    "p{margin:.3rem 0;color:var(--soft)}"
    ".cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:.8rem;"
    "margin-top:1.5rem}"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;"
    "padding:.8rem 1rem}"
    ".card b{display:block;font-size:1.7rem;font-variant-numeric:tabular-nums}"
    ".card span{color:var(--soft);font-size:.85rem;overflow-wrap:anywhere}"
    "ul{background:var(--warn);border-left:.3rem solid var(--edge);margin:0;"
    "padding:.7rem 1rem .7rem 2rem}"
    "table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;vertical-align:top;border-top:1px solid var(--line);"
    "padding:.35rem .8rem .35rem 0;overflow-wrap:anywhere}"
    "th{font-weight:500;color:var(--soft);width:16rem}"
    "td{font-family:ui-monospace,monospace;font-size:.85rem}"
    "img{max-width:100%;image-rendering:pixelated;border:1px solid var(--line)}"
    "@media print{body{max-width:none}}";

static void add_row(struct html *html, const char *name, const char *text) {
  html_raw(html, "<tr>");
  html_element(html, "th", name);
  html_element(html, "td", text);
  html_raw(html, "</tr>\n");
}

static void add_numbers(const struct eval *eval, struct html *html) {
  html_raw(html, "<div class=cards>\n");
  for (int i = 0; i < EVAL_MEASURES; i++) {
    if (!(eval->measures & eval_measures[i].bit)) continue;
    char *title = eval_title(eval, &eval_measures[i]);
    char *value = text_format("%.6g", eval_value(eval, &eval_measures[i]));
    char *note = text_format("%s is better", eval_measures[i].better);
    html_raw(html, "<div class=card>");
    html_element(html, "span", title);
    html_element(html, "b", value);
    html_element(html, "span", note);
    html_raw(html, "</div>\n");
    free(title);
    free(value);
    free(note);
  }
  html_raw(html, "</div>\n");
}

static void add_warnings(const struct eval *eval, struct html *html) {
  if (!eval->warning_count) return;
  html_raw(html, "<h2>Warnings</h2>\n<ul>\n");
  for (size_t i = 0; i < eval->warning_count; i++) html_element(html, "li", eval->warnings[i]);
  html_raw(html, "</ul>\n");
}

static void add_protocol(const struct eval *eval, struct html *html) {
  cJSON *protocol = eval_protocol(eval), *item;
  html_raw(html, "<h2>Protocol</h2>\n<table>\n");
  cJSON_ArrayForEach(item, protocol) add_row(html, item->string, item->valuestring);
  html_raw(html, "</table>\n");
  cJSON_Delete(protocol);
}

static enum ditmoe_status add_sheet(const struct eval *eval, struct html *html) {
  char *bytes, *title;
  size_t size;
  int64_t count;
  TRY(eval_sheet(eval, &bytes, &size, &count));
  if (!bytes) return DITMOE_OK;
  title = text_format("The first %lld samples", (long long)count);
  html_element(html, "h2", title);
  html_raw(html, "\n<img alt=\"contact sheet\" src=\"data:image/png;base64,");
  html_base64(html, bytes, size);
  html_raw(html, "\">\n");
  free(title);
  free(bytes);
  return DITMOE_OK;
}

/* One row for each value, "a.b"; lists in short. */
static void add_settings(struct html *html, const cJSON *object, const char *prefix, int depth) {
  enum { VALUE_MAX = 400, DEPTH_MAX = 8 };
  const cJSON *item;
  cJSON_ArrayForEach(item, object) {
    char *name = text_format("%s%s", prefix, item->string);
    if (cJSON_IsObject(item) && depth < DEPTH_MAX) {
      char *inner = text_format("%s.", name);
      add_settings(html, item, inner, depth + 1);
      free(inner);
    } else {
      char *value = json_value_text(item);
      char *shown =
          text_format("%.*s%s", VALUE_MAX, value, strlen(value) > VALUE_MAX ? " ..." : "");
      add_row(html, name, shown);
      free(shown);
      free(value);
    }
    free(name);
  }
}

static void add_run(const struct eval *eval, struct html *html) {
  if (!eval->run) return;
  char *title = text_format("Settings of the run, from %s", eval->run_path);
  html_element(html, "h2", title);
  html_raw(html, "\n<table>\n");
  add_settings(html, eval->run, "", 0);
  html_raw(html, "</table>\n");
  free(title);
}

static enum ditmoe_status compose(const struct eval *eval, struct html *html) {
  const char *samples = eval->samples.path, *reference = eval->reference.path;
  char *title = reference ? text_format("%s against %s", samples, reference) : text_copy(samples);
  html_raw(html, "<!DOCTYPE html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n"
                 "<meta name=viewport content=\"width=device-width\">\n");
  html_element(html, "title", title);
  html_raw(html, "\n<style>");
  html_raw(html, STYLE);
  html_raw(html, "</style>\n</head>\n<body>\n");
  html_element(html, "h1", title);
  html_raw(html, "\n");
  html_element(html, "p", reference ? "samples against reference" : "samples alone");
  html_raw(html, "\n");
  add_numbers(eval, html);
  add_warnings(eval, html);
  add_protocol(eval, html);
  enum ditmoe_status status = add_sheet(eval, html);
  add_run(eval, html);
  html_raw(html, "</body>\n</html>\n");
  free(title);
  return status;
}

enum ditmoe_status eval_write_report(const struct eval *eval) {
  struct html html = {0};
  if (!eval->settings.report) return DITMOE_OK;
  enum ditmoe_status status = compose(eval, &html);
  if (status == DITMOE_OK)
    status = report_call(eval->ctx,
                         ditmoe_file_write(eval->ctx, eval->settings.report, html.text, html.size));
  free(html.text);
  return status;
}
