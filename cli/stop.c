/* SIGINT and SIGTERM. */
#include "cli/stop.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t caught;

static void on_signal(int signal_number) { caught = signal_number; }

void stop_on_signals(void) {
  static const int signals[] = {SIGINT, SIGTERM};
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | (int)SA_RESETHAND};
  struct sigaction before;
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
    if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
      sigaction(signals[i], &action, NULL);
}

bool stop_asked(void) { return caught != 0; }

int stop_exit_code(enum ditmoe_status status) {
  return status == DITMOE_CANCELLED && caught ? 128 + caught : (int)status;
}
