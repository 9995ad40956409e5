#!/bin/sh
# Builds bench_moe and bench_attention into the folder named, programs that need only a driver:
# kernels of backend/cuda checked and timed on a GPU. Usage: cuda_bench.sh FOLDER
set -eu
cd "$(dirname "$0")/.."
out=$1
nvcc=${NVCC:-nvcc}
command -v "$nvcc" > /dev/null || { echo "cuda_bench.sh: no nvcc" >&2; exit 1; }
mkdir -p "$out"
object_of() { echo "$out/$(basename "$1").o"; }
link() {
  program=$1
  shift
  objects=
  for source in "$@"; do objects="$objects $(object_of "$source")"; done
  "$nvcc" -o "$out/$program" $objects -ldl
}
moe="backend/cuda/gemm_*.cu backend/cuda/plan*.cu backend/cuda/moe_rows.cu bench/cuda/bench_moe.cu
  tests/cuda/moe_checks.cpp tests/cuda/moe_checks_plan.cpp base/tensor.c backend/cuda/tensor_map.c
  bench/cuda/peer_lt.c"
attention="backend/cuda/attention*.cu backend/cuda/noise.cu bench/cuda/bench_attention.cu
  base/normal.c"
for source in $moe $attention; do
  object=$(object_of "$source")
  case $source in
    *.c) echo "${CC:-gcc} -std=gnu17 -O2 -I. -I$(dirname "$(command -v "$nvcc")")/../include -c -o $object $source" ;;
    *) echo "$nvcc -std=c++17 -O3 -I. -Werror all-warnings" \
        "-gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a" \
        "-c -o $object $source" ;;
  esac
done | xargs -P "$(nproc)" -I{} sh -c '{}'
link bench_moe $moe
link bench_attention $attention
