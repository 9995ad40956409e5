#!/usr/bin/env bash
# Checks and times the CUDA backend on a machine that has a GPU and little else.
#
#   gpu_check.sh pack FOLDER          here: programs, module, small libraries, golden cases
#   gpu_check.sh run FOLDER OUT [PART:SECONDS ...]   there: each part within its time
#
# pack takes build/release (make release), the module of `make cuda` and the programs of
# scripts/cuda_bench.sh. Of OpenBLAS and LAPACK, which only evaluation calls, it packs stand-ins.
# run writes OUT/PART.log, or .jsonl, as soon as a part has ended; parts that are named run in the
# order given, each can be run alone. PEER, if set, is a PyTorch program to time beside ours.
set -u
parts="facts:20 operations:100 golden:100 memcheck:120 products:100 attention:60 step_s:60 step_xl:120
  step_g:200 peer:120"

pack() {
  local root out=$1 library
  root=$(cd "$(dirname "$0")/.." && pwd)
  mkdir -p "$out/lib" "$out/fixtures"
  cp "$root"/build/release/{ditmoe-bench,ditmoe-sample,libditmoe_cuda.so} \
    "$root"/build/release/tests/{test_ops,golden_check} \
    "$root"/build/cuda-bench/{bench_moe,bench_attention} "$0" "$out/" || return 1
  ldd "$out/ditmoe-sample" "$out/test_ops" |
    awk '/=> .*lib(cjson|jpeg|png16|z|crypto|gomp|cmocka)\./ { print $3 }' | sort -u |
    while read -r library; do cp -L "$library" "$out/lib/"; done
  for library in libopenblas.so.0 liblapacke.so.3; do
    echo 'int stand_in;' | cc -shared -fPIC "-Wl,-soname,$library" -o "$out/lib/$library" -xc - || return 1
  done
  strip "$out"/{ditmoe-bench,ditmoe-sample,test_ops,golden_check,bench_moe,bench_attention}
  cp -r "$root"/build/release/fixtures/{dit_moe,promoe} "$out/fixtures/"
}

# The command of a part, without its time limit.
command_of() {
  local step="./ditmoe-bench --backend cuda --dtype bf16 --no-share --format jsonl"
  case $1 in
    facts) echo "nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,memory.total --format=csv" ;;
    operations) echo "./test_ops cuda" ;;
    golden) echo "./golden_check --backend cuda --dtype f32 fixtures/dit_moe/* fixtures/promoe/* &&
      ./golden_check --backend cuda --dtype bf16 fixtures/dit_moe/* fixtures/promoe/*" ;;
    memcheck) echo "for op in bf16/moe bf16/linear bf16/attention f32/dispatch_order bf16/conv2d_3x3
      f32/group_norm; do compute-sanitizer --error-exitcode 9 ./test_ops cuda/sm_90/\$op || exit; done" ;;
    products) echo ./bench_moe ;;
    attention) echo ./bench_attention ;;
    step_s) echo "$step --step S/2 -b 64 --profile" ;;
    step_xl) echo "$step --step XL/2 -b 64 --profile" ;;
    step_g) echo "$step --step G/2 --experts 16 -b 32 -r 5" ;;
    peer) [ -z "${PEER-}" ] || echo "for how in '' --grouped '--grouped --compile'; do
      python3 $PEER XL bf16 64 --device cuda \$how; done" ;;
  esac
}

run() {
  local folder=$1 out=$2 part limit name log command
  shift 2
  mkdir -p "$out" && out=$(cd "$out" && pwd) && cd "$folder" || return 1
  export LD_LIBRARY_PATH=$PWD/lib:/usr/local/cuda/lib64:${LD_LIBRARY_PATH-}
  export DITMOE_FIXTURES=$PWD/fixtures DITMOE_SOURCE=$PWD
  for part in ${*:-$parts}; do
    name=${part%:*} limit=${part#*:}
    command=$(command_of "$name")
    [ -n "$command" ] || { echo "$name: nothing to run"; continue; }
    log=$out/$name.log
    case $name in step_* | products | attention) log=$out/$name.jsonl ;; esac
    SECONDS=0
    timeout "$limit" bash -c "$command" > "$log" 2> "$log.err"
    echo "$name: exit $?, $SECONDS s"
    [ -s "$log.err" ] || rm -f "$log.err"
  done
}

case ${1-} in
  pack) pack "${2:?}" ;;
  run) shift && run "$@" ;;
  *) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
