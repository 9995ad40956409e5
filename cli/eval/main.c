/* ditmoe-eval: images against a reference. */
#include "cli/eval/eval.h"
#include "cli/stop.h"

#include <stdlib.h>

static enum ditmoe_status evaluate(struct eval *eval) {
  TRY(eval_inspect(eval));
  if (eval->settings.info) return eval_info(eval);
  TRY(eval_open_network(eval));
  TRY(eval_measure(eval));
  eval_find_run(eval);
  eval_warn_of_numbers(eval);
  TRY(eval_print(eval));
  TRY(eval_save(eval));
  return eval_write_report(eval);
}

static enum ditmoe_status run(struct eval *eval) {
  const bool two = eval->options.second != NULL;
  eval->reference = (struct eval_side){.role = "reference"};
  eval->samples = (struct eval_side){.role = "samples"};
  eval->reference.path = two ? eval->options.operand : NULL;
  eval->samples.path = two ? eval->options.second : eval->options.operand;
  TRY(eval_read_environment(eval));
  TRY(eval_check_options(eval));
  eval->ctx = report_context();
  return eval->ctx ? evaluate(eval) : DITMOE_NOMEM;
}

static void eval_free(struct eval *eval) {
  ditmoe_set_close(eval->reference.set);
  ditmoe_set_close(eval->samples.set);
  ditmoe_features_close(eval->network);
  ditmoe_ctx_destroy(eval->ctx);
  for (size_t i = 0; i < eval->warning_count; i++) free(eval->warnings[i]);
  free(eval->warnings);
  cJSON_Delete(eval->run);
  free(eval->run_path);
  options_free(&eval->options);
}

int main(int argc, char **argv) {
  static struct eval eval;
  int code = options_read(&eval.options, &eval_program, &eval.settings, argc, argv);
  if (code < 0) code = stop_exit_code(report_finish(run(&eval)));
  eval_free(&eval);
  return code;
}
