/* Long runs of ditmoe-sample: killed, damaged, on a full disk or with ranks lost, they go on, and
 * the result has the same bytes as if nothing had happened. */
#include "tests/programs.h"

#include "ditmoe_eval.h"
#include "io/npz.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A model of random weights that makes 16 x 16 pixels, some milliseconds each. */
#define MODEL                                                                                      \
  "@sample -q --progress none -m @fixtures/dit_moe/b_mixed/bare.safetensors --vae none --heads 6 " \
  "--top-k 1 --objective ddpm "
#define RUN  MODEL "--steps 20 -n 64 "
#define SLOW MODEL "--steps 250 -n 640 -t 1 "
#define ALL  "--grid g.png -o d/ "
#define NPZ  "--grid g.png -o x.npz "

/* What an undisturbed run makes: full/ and full.npz. */
static int make_full(void **state) {
  (void)state;
  assert_exit(run(RUN "-b 5 -t 1 -o full/ --grid full.png"), 0, "");
  assert_exit(run(RUN "-b 7 -t 2 -o full.npz --grid same.png"), 0, "");
  assert_shell("cmp full.png same.png && test ! -e full.npz.parts");
  return 0;
}

static int clean(void **state) {
  (void)state;
  return run("rm -rf d x.* g.png").code;
}

/* All images are there, as they should be, and nothing that was left. */
static void assert_folder(void) {
  assert_shell("for i in full/*.png; do cmp $i d/${i#full/} || exit 1; done; cmp full.png g.png && "
               "test $(ls d/*.png | wc -l) = 64 && ! ls -d .ditmoe* 2>/dev/null && "
               "test -z \"$(ls -A d | grep -v '\\.png$\\|^run.*\\.journal$\\|^run.json$')\" && "
               "grep -q '\"status\":.*\"complete\"' d/run.json");
}

static void assert_npz(void) {
  assert_shell("cmp full.npz x.npz && cmp full.png g.png && "
               "test \"$(ls -Ad x.* .ditmoe*)\" = \"$(printf 'x.json\\nx.npz')\" && "
               "grep -q '\"status\":.*\"complete\"' x.json");
}

/* Killing. */

static void killed_runs_go_on(void **state) {
  (void)state;
  for (int ranks = 1; ranks <= 2; ranks++) {
    clean(state);
    kill_and_resume(ranks, RUN, ALL);
    assert_folder();
  }
}

static void killed_npz_runs_go_on(void **state) {
  (void)state;
  for (int ranks = 1; ranks <= 2; ranks++) {
    clean(state);
    kill_and_resume(ranks, RUN, NPZ);
    assert_npz();
  }
}

/* What one number of ranks has begun, another one ends. */
static void ranks_may_change(void **state) {
  (void)state;
  static const int ranks[] = {3, 1, 2};
  for (int i = 0; i < 3; i++)
    run_ranks(ranks[i], "sleep 0.25; kill -9 $p", RUN "--resume -b 3 -t 1 " NPZ);
  assert_exit(run_ranks(4, ":", RUN "--resume -b 2 -t 1 " NPZ), 0, "");
  assert_npz();
}

/* Damage. */

static void damaged_files_are_made_again(void **state) {
  (void)state;
  static const char *const damages[][2] = {
      {"truncate -s 500 d/000005.png", "1 images are missing or damaged"},
      {"printf x | dd of=d/000006.png bs=1 seek=700 conv=notrunc 2>/dev/null",
       "1 images are missing"},
      {"rm d/00001?.png", "10 images are missing"},
      {"truncate -s -20 d/run.journal", "run.journal: the last"},
      {"printf 'image 63 1 10' >> d/run.journal", "the last 13 bytes"},
      {"head -c 3000 /dev/urandom >> d/run.journal", "the last 3000 bytes"},
      {"printf x | dd of=d/run.journal bs=1 seek=900 conv=notrunc 2>/dev/null",
       "run.journal: the last"},
      {"printf x | dd of=d/run.journal bs=1 seek=3 conv=notrunc 2>/dev/null",
       "run.journal: the last"},
      {"rm d/run.journal", ""},
      {"rm g.png", ""},
  };
  assert_exit(run(RUN ALL), 0, "");
  for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
    assert_shell(damages[i][0]);
    assert_exit(run(RUN "--resume -b 3 " ALL), 0, damages[i][1]);
    assert_folder();
  }
  assert_shell("cp d/run.json was.json");
  assert_exit(run(RUN "--resume " ALL), 0, "");
  assert_shell("cmp d/run.json was.json");
  assert_exit(run("rm d/run.json; " RUN "--resume " ALL), DITMOE_FORMAT, "d/run.json: is missing");
  assert_exit(run("echo '{}' > d/run.json; " RUN "--resume " ALL), DITMOE_FORMAT,
              "d/run.json: not the record of a run");
}

/* A limit on the size of files stops the run when the shards become one file. */
static void leave_shards(void) {
  assert_exit(run("ulimit -f 40; " RUN "-b 4 " NPZ), DITMOE_OUTPUT, "x.npz");
  assert_shell("test ! -e x.npz && test $(ls x.npz.parts/*.raw | wc -l) = 16 && "
               "grep -q '\"status\":.*\"failed\"' x.json");
}

static void damaged_shards_are_made_again(void **state) {
  static const char *const damages[][2] = {
      {":", ""},
      {"truncate -s 500 x.npz.parts/000000000016+4.raw", "4 images are missing or damaged"},
      {"printf xyz | dd of=x.npz.parts/000000000020+4.raw bs=1 seek=99 conv=notrunc 2>/dev/null",
       "4 images are missing or damaged"},
      {"rm x.npz.parts/*4.raw", "64 images are missing or damaged"},
      {"truncate -s -5 x.npz.parts/run.journal", "run.journal: the last"},
  };
  for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
    clean(state);
    leave_shards();
    assert_shell(damages[i][0]);
    assert_exit(run(RUN "--resume -b 3 " NPZ), 0, damages[i][1]);
    assert_npz();
  }
  assert_exit(run(RUN "--resume " NPZ), 0, "");
  assert_exit(run("truncate -s 40000 x.npz; " RUN "--resume " NPZ), 0, "64 images are missing");
  assert_npz();
}

/* A small file system of our own, where the system lets us make one. */
static void full_disks_are_survived(void **state) {
  (void)state;
  assert_exit(run("ulimit -f 20; " RUN "-b 4 " NPZ), DITMOE_OUTPUT, "x.npz");
  assert_exit(run("ulimit -f 40; " RUN "-b 64 --resume " NPZ), DITMOE_OUTPUT, "x.npz");
  assert_exit(run(RUN "--resume " NPZ), 0, "");
  assert_npz();
  if (run("mkdir d; unshare -rm mount -t tmpfs none d").code != 0) return;
  struct outcome outcome =
      run("unshare -rm sh -c 'mount -t tmpfs -o size=180k none d && cd d && " RUN "-b 4 -o e/; "
          "test $? = 6 && test $(ls e/*.png | wc -l) -lt 64 && mount -o remount,size=4m none && "
          "" RUN "-b 4 --resume -o e/ --grid ../g.png && cp -r e ..'");
  assert_int_equal(outcome.code, 0);
  assert_shell("rmdir d && mv e d");
  assert_folder();
  assert_exit(run("rm -r d x.*; mkdir d; unshare -rm sh -c 'mount -t tmpfs -o size=80k none d && "
                  "exec " RUN "-o d/x.npz'"),
              DITMOE_OUTPUT, "d/x.npz needs 0.1 MiB of disk");
}

/* Refusals. */

static void other_runs_are_refused(void **state) {
  (void)state;
  static const char *const others[][2] = {
      {"--resume --seed 3 --cfg-scale 2", "seed (0, now 3), cfg-scale (4, now 2)"},
      {"--resume --eta 0.5 --sampler ddim", "eta (none, now 0.5)"},
      {"--resume --tier generic --dtype bf16", "tier ("},
      {"--resume --format bmp", "output (png, now bmp)"},
      {"--resume --class 1,2", "classes (17, now 2)"},
      {"--resume --label-sampling list", "label-sampling (random, now list)"},
      {"--resume --disable-image-metadata", "image-metadata (true, now false)"},
      {"--resume --norm-eps 1e-3", "norm-eps (none, now 0.001)"},
  };
  assert_exit(run(RUN "-o d/"), 0, "");
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
    assert_exit(run(RUN "-o d/ %s", others[i][0]), DITMOE_MISMATCH, others[i][1]);
  assert_exit(run(MODEL "--steps 20 -n 65 -o d/ --resume"), DITMOE_MISMATCH,
              "num-samples (64, now 65)");
  assert_exit(run(RUN "-o d/"), DITMOE_OUTPUT, "d/run.json: holds a run; --resume continues it");
  assert_exit(run(RUN "-o d/ --rank 0 --ranks 2"), DITMOE_OUTPUT, "holds a run");
  assert_exit(run(RUN "-o d/ --rank 1 --ranks 2"), DITMOE_OUTPUT, "");
  assert_exit(run(RUN "-o d/ --rank 0 --ranks 2 --force"), DITMOE_OUTPUT, "holds a run");
  assert_exit(run("@sample -q -o d/ --resume --reproduce d/000001.png"), DITMOE_USAGE, "--resume");
  assert_exit(run(RUN "-o d/ --resume --format bmp --grid h.png --force"), DITMOE_USAGE,
              "--grid with --resume");
  assert_shell("for i in full/*.png; do cmp $i d/${i#full/} || exit 1; done; test ! -e h.png");
}

static void active_runs_are_left_alone(void **state) {
  (void)state;
  static const char *const outputs[][2] = {{"-o d/", "d/run.journal"},
                                           {"-o x.npz", "x.npz.parts/run.journal"}};
  for (int i = 0; i < 2; i++) {
    struct outcome outcome =
        run("{ exec " SLOW
            "%s; } & p=$!; until grep -q ^session %s 2>/dev/null; do sleep 0.02; done; " SLOW
            "%s --resume; c=$?; kill -9 $p; wait $p; exit $c",
            outputs[i][0], outputs[i][1], outputs[i][0]);
    assert_int_equal(outcome.code, DITMOE_OUTPUT);
    assert_non_null(strstr(outcome.err, "this run is active, in process "));
  }
}

static void force_replaces_a_run(void **state) {
  (void)state;
  leave_shards();
  assert_exit(run_ranks(2, ":", RUN "-o d/"), 0, "");
  assert_exit(run(MODEL "--steps 3 -n 5 -o d/ --force"), 0, "");
  assert_shell("test $(ls d/*.png | wc -l) = 5 && test ! -e d/run.1.journal");
  assert_exit(run(RUN "--force " NPZ), 0, "");
  assert_npz();
}

/* Signals. */

/* In a shell: until a journal has some images. */
#define UNTIL(journal)                                                                             \
  "until test $(grep -c ^image " journal ") -ge 3 2>/dev/null; do sleep 0.02; done; "

static void stopped_runs_go_on(void **state) {
  (void)state;
  assert_exit(run("{ exec " RUN "-t 1 -b 1 " ALL
                  "; } & p=$!; " UNTIL("d/run.journal") "kill -TERM $p; wait $p"),
              128 + SIGTERM, "");
  assert_shell("grep -q '\"status\":.*\"stopped\"' d/run.json && "
               "test $(grep -c ^image d/run.journal) = $(ls d/*.png | wc -l)");
  assert_exit(run(RUN "--resume " ALL), 0, "");
  assert_folder();
  assert_shell("grep -q '\"resumes\":.*1' d/run.json");
  clean(state);
  struct outcome outcome =
      run_ranks(2, UNTIL("d/run.journal") UNTIL("d/run.1.journal") "kill -TERM $p", SLOW "-o d/");
  assert_int_equal(outcome.code, 128 + SIGTERM);
}

/* Ranks. */

/* A rank is killed when both have made some images. */
static struct outcome lose(int rank, const char *command) {
  char then[256];
  snprintf(then, sizeof then,
           UNTIL("d/run.journal") UNTIL("d/run.1.journal") "set -- $p; kill -9 $%d; p=$%d",
           rank + 1, 2 - rank);
  return run_ranks(2, then, command);
}

#define LONG MODEL "--steps 250 -n 24 -b 1 -t 1 "

static void lost_ranks_are_named(void **state) {
  static const char same[] = "for i in x.d/*.png; do cmp $i ${i#x.} || exit 1; done";
  assert_exit(run(LONG "-o x.d/"), 0, "");
  assert_exit(lose(1, LONG "-o d/"), DITMOE_INCOMPLETE, "rank 1 ended early: ");
  assert_shell("grep -q '\"status\":.*\"incomplete\"' d/run.json");
  assert_exit(run(LONG "--resume -o d/"), 0, "");
  assert_shell(same);
  assert_int_equal(run("rm -r d").code, 0);
  assert_exit(lose(0, LONG "-o d/"), DITMOE_INCOMPLETE, "rank 0 has ended");
  assert_exit(run_ranks(3, ":", LONG "--resume -o d/"), 0, "");
  assert_shell(same);
  clean(state);
  assert_exit(run(RUN "-o d/ --rank 0 --ranks 3 --rank-timeout 1"), DITMOE_INCOMPLETE,
              "rank 1, 2 ended early: 43 images are missing, the first 21 to 63");
}

static void ranks_come_from_launchers(void **state) {
  (void)state;
  static const struct {
    const char *environment;
    int code;
    const char *text;
  } launchers[] = {
      {"OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=3 PMI_RANK=x", 0, "ranks: 3 (environment)"},
      {"PMI_RANK=1 PMI_SIZE=4 SLURM_PROCID=5", 0, "ranks: 4 (environment)"},
      {"SLURM_PROCID=2 SLURM_NTASKS=5 RANK=1", 0, "ranks: 5 (environment)"},
      {"RANK=1 WORLD_SIZE=6", 0, "ranks: 6 (environment)"},
      {"SLURM_NTASKS=5 RANK=1 WORLD_SIZE=1024", 0, "rank: 1 (environment)"},
      {"RANK=1 WORLD_SIZE=2 LOCAL_WORLD_SIZE=1000", 0, "1 threads: "},
      {"RANK=1 WORLD_SIZE=2 SLURM_STEP_TASKS_PER_NODE='900(x2)'", 0, "1 threads: "},
      {"RANK=0 WORLD_SIZE=1", 0, "ranks: 1 (environment)"},
      {"RANK=1", DITMOE_USAGE, "RANK is set, but WORLD_SIZE is not: --ranks 1"},
      {"SLURM_PROCID=3 SLURM_JOB_ID=1", DITMOE_USAGE, "SLURM_PROCID is set, but SLURM_NTASKS"},
      {"SLURM_PROCID=3 RANK=1 WORLD_SIZE=6", 0, "ranks: 6 (environment)"},
      {"SLURM_JOB_ID=1 SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_STEP_ID=0", 0, "ranks: 4 (environ"},
      {"RANK=2 WORLD_SIZE=2", DITMOE_USAGE, "rank 2: of 2 ranks the last is 1"},
      {"RANK=-1 WORLD_SIZE=2", DITMOE_USAGE, "RANK: \"-1\" is not"},
      {"RANK=0 WORLD_SIZE=two", DITMOE_USAGE, "WORLD_SIZE: \"two\" is not"},
      {"RANK=0 WORLD_SIZE=0", DITMOE_USAGE, "WORLD_SIZE: \"0\" is not"},
  };
  static const char *const alone[] = {
      "SLURM_JOB_ID=1 SLURM_PROCID=0 SLURM_NNODES=1",
      "SLURM_JOB_ID=1 SLURM_PROCID=0 SLURM_NTASKS=4",
      "SLURM_JOB_ID=1 SLURM_PROCID=0 SLURM_NTASKS=0",
      "PMI_RANK=0",
      "OMPI_COMM_WORLD_RANK=0",
      "RANK=0",
      "RANK=A",
      "PMI_SIZE=2 WORLD_SIZE=x SLURM_NTASKS_PER_NODE=x",
  };
  for (size_t i = 0; i < sizeof alone / sizeof alone[0]; i++) {
    struct outcome outcome = run("%s @sample -v -m @fixtures/dit_moe/b_mixed/bare.safetensors "
                                 "--vae none --heads 6 --top-k 1 --objective ddpm --dry-run",
                                 alone[i]);
    assert_exit(outcome, 0, "");
    assert_null(strstr(outcome.err, "rank"));
  }
  for (size_t i = 0; i < sizeof launchers / sizeof launchers[0]; i++)
    assert_exit(run("%s @sample -v -m @fixtures/dit_moe/b_mixed/bare.safetensors --vae none "
                    "--heads 6 --top-k 1 --objective ddpm --dry-run",
                    launchers[i].environment),
                launchers[i].code, launchers[i].text);
}

/* More ranks than images, and images that depend on each other. */
static void shares_are_whole_blocks(void **state) {
  (void)state;
#define BLOCKS MODEL "--steps 3 -n 30 --rng torch-cpu --index-block 8 "
  assert_exit(run(BLOCKS "-o x.npz --grid x.png --grid-samples 9"), 0, "");
  assert_exit(run_ranks(3, ":", BLOCKS "-o d/ --grid g.png --grid-samples 16"), 0, "");
  assert_shell("cmp x.png g.png && cp -r d x.d && rm x.d/000003.png");
  assert_exit(run_ranks(7, ":", BLOCKS "-o x.d/ --resume"), 0, "1 images are missing");
  assert_shell("for i in d/*.png; do cmp $i x.${i#} || exit 1; done");
  assert_exit(run("@sample -q --reproduce x.png -o x.r/ --grid x.r.png"), 0, "");
  assert_shell("cmp x.png x.r.png");
}

static void parts_share_a_folder(void **state) {
  (void)state;
  assert_exit(run(RUN "-o d/ --index-range 0:30"), 0, "");
  assert_exit(run_ranks(2, ":", RUN "-o d/ --index-range 30:64"), 0, "");
  assert_shell("for i in full/*.png; do cmp $i d/${i#full/} || exit 1; done; "
               "test -f d/run.0-29.journal -a -f d/run.30-63.1.journal -a -f d/run.30-63.json");
  assert_exit(run("rm d/000031.png; " RUN "-o d/ --index-range 30:64 --resume"), 0, "1 images");
}

/* What is recorded. */

static void failures_are_recorded(void **state) {
  (void)state;
  assert_exit(run("@sample -q -m @fixtures/bad/ck_nan.safetensors --vae none --heads 2 --top-k 1 "
                  "--objective ddpm --steps 2 -n 8 -o d/ --rank 0 --ranks 2"),
              DITMOE_NONFINITE, "step");
  assert_shell("grep -q '\"status\":.*\"failed\"' d/run.json && "
               "grep -q '\"message\":.*finite' d/run.json && grep -q '^failure 0 4 7 ' "
               "d/run.journal");
}

/* Many images are counted, not listed; labels are random unless a class is given. */
static void an_npz_has_images_and_labels(void **state) {
  (void)state;
  const uint8_t *image;
  int width, height;
  struct npz *npz;
  struct ditmoe_images *images;
  enum { N = 1100 };
  static double labels[N];
  assert_exit(run(MODEL "--steps 1 -n 1100 -b 64 -s 5 -o x.npz"), 0, "");
  assert_shell("! grep -q '\"images\"' x.json && grep -q '\"made\":.*1100' x.json");
  assert_ok(test_ctx(), npz_open(test_ctx(), temporary_path("x.npz"), &npz));
  const struct npz_array *array = npz_find(npz, "arr_1");
  assert_true(array && array->dtype == DT_I64 && array->rank == 1 && array->shape[0] == N);
  assert_ok(test_ctx(), npz_read_f64(test_ctx(), npz, array, labels));
  for (int i = 0; i < N; i++) assert_int_equal((int)labels[i], ditmoe_random_label(5, i, 17));
  npz_close(npz);
  assert_exit(run(MODEL "--steps 1 -n 1100 -b 3 -s 5 --index-range 1080:1100 -o d/"), 0, "");
  assert_ok(test_ctx(), ditmoe_images_open(test_ctx(), temporary_path("x.npz"), NULL, &images));
  assert_ok(test_ctx(), ditmoe_images_read(test_ctx(), images, 1099, &image, &width, &height));
  uint8_t copy[16 * 16 * 3];
  memcpy(copy, image, sizeof copy);
  ditmoe_images_close(images);
  assert_ok(test_ctx(), ditmoe_images_open(test_ctx(), temporary_path("d"), NULL, &images));
  assert_ok(test_ctx(), ditmoe_images_read(test_ctx(), images, 19, &image, &width, &height));
  assert_memory_equal(copy, image, sizeof copy);
  ditmoe_images_close(images);
}

#define CLEAN(test) cmocka_unit_test_setup(test, clean)

int main(void) {
  const struct CMUnitTest tests[] = {
      CLEAN(killed_runs_go_on),
      CLEAN(killed_npz_runs_go_on),
      CLEAN(ranks_may_change),
      CLEAN(damaged_files_are_made_again),
      CLEAN(damaged_shards_are_made_again),
      CLEAN(full_disks_are_survived),
      CLEAN(other_runs_are_refused),
      CLEAN(active_runs_are_left_alone),
      CLEAN(force_replaces_a_run),
      CLEAN(stopped_runs_go_on),
      CLEAN(lost_ranks_are_named),
      CLEAN(ranks_come_from_launchers),
      CLEAN(shares_are_whole_blocks),
      CLEAN(parts_share_a_folder),
      CLEAN(failures_are_recorded),
      CLEAN(an_npz_has_images_and_labels),
  };
  return cmocka_run_group_tests(tests, make_full, NULL);
}
