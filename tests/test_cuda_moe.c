/* The kernels of products and of mixture-of-experts layers, on the emulated device. */
#include "tests/cuda/emulator.h"
#include "tests/cuda/moe_checks.h"
#include "tests/support.h"

/* With few multiprocessors every block goes over several tiles. */
static void check(int (*checks)(int verbose), int major) {
  emulator_reset();
  emulator_device(major, 3);
  assert_int_equal(checks(0), 0);
  assert_string_equal(emulator_fault(), "");
  assert_int_equal(emulator_allocated(), 0);
}

static void test_products(void **state) {
  (void)state;
  check(check_products, 9);
  check(check_products, 8);
}

static void test_plans(void **state) {
  (void)state;
  check(check_plans, 9);
}

static void test_rows(void **state) {
  (void)state;
  check(check_rows, 9);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_products),
      cmocka_unit_test(test_plans),
      cmocka_unit_test(test_rows),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
