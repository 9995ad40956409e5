#!/bin/sh
# Builds bench_moe into the folder named, a program that needs only a driver: products and plans of
# backend/cuda checked and timed on a GPU. Usage: cuda_bench.sh FOLDER
set -eu
cd "$(dirname "$0")/.."
out=$1
nvcc=${NVCC:-nvcc}
command -v "$nvcc" > /dev/null || { echo "cuda_bench.sh: no nvcc" >&2; exit 1; }
mkdir -p "$out"
for source in backend/cuda/gemm_*.cu backend/cuda/plan*.cu backend/cuda/moe_rows.cu \
  bench/cuda/bench_moe.cu tests/cuda/moe_checks.cpp tests/cuda/moe_checks_plan.cpp \
  base/tensor.c backend/cuda/tensor_map.c bench/cuda/peer_lt.c; do
  object=$out/$(basename "$source").o
  case $source in
    *.c) echo "${CC:-gcc} -std=gnu17 -O2 -I. -I$(dirname "$(command -v "$nvcc")")/../include -c -o $object $source" ;;
    *) echo "$nvcc -std=c++17 -O3 -I. -Werror all-warnings" \
        "-gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a" \
        "-c -o $object $source" ;;
  esac
done | xargs -P "$(nproc)" -I{} sh -c '{}'
"$nvcc" -o "$out/bench_moe" "$out"/*.o -ldl
