#!/usr/bin/env bash
# kill_runs.sh [SAMPLES [KILLS [BUILD]]]: a run of SAMPLES images (2000) of the default model is
# killed KILLS times (30) at random moments and resumed each time, by 1 rank and by 4, into PNG files
# and into an .npz; the result must have the bytes of a run that nobody disturbed.
set -uo pipefail
samples=${1:-2000} kills=${2:-30} build=${3:-build/release}
cd "$(dirname "$0")/.." || exit 1
sample=$(realpath "$build/ditmoe-sample") model=$PWD/assets/default/model.pth
work=$(mktemp -d)
trap 'kill -9 $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
cd "$work" || exit 1
export OMP_WAIT_POLICY=passive
RANDOM=1

run() { # output, ranks, further options
  local output=$1 ranks=$2 status=0 pids=() rank share=()
  shift 2
  for ((rank = 0; rank < ranks; rank++)); do
    [[ $ranks -gt 1 ]] && share=(--ranks "$ranks" --rank "$rank" --rank-timeout 20)
    "$sample" -q -m "$model" -n "$samples" --steps 4 --cfg-scale 2 -o "$output" "${share[@]}" \
      "$@" >/dev/null 2>>messages &
    pids+=($!)
  done
  if [[ -n ${delay:-} ]]; then
    sleep "$delay"
    kill -9 "${pids[@]}" 2>/dev/null
  fi
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || status=$?; done
  return $status
}

sums() { # of every image, or of the npz
  if [[ -d $1 ]]; then (cd "$1" && sha256sum ./*.png | sha256sum); else sha256sum <"$1"; fi
}

failed=0
start=$(date +%s.%N)
run whole/ 1 && run whole.npz 1 || { cat messages; exit 1; }
seconds=$(perl -e "printf '%.1f', ($(date +%s.%N) - $start) / 2")
echo "$samples images undisturbed: $seconds s"
for ranks in 1 4; do
  for output in killed$ranks/ killed$ranks.npz; do
    undisturbed=whole${output#killed"$ranks"}
    for ((i = 0; i < kills; i++)); do
      delay=$(perl -e "printf '%.2f', 0.1 + 2 * $seconds / $kills * $RANDOM / 32768")
      run "$output" "$ranks" --resume
    done
    delay=
    run "$output" "$ranks" --resume || { failed=1; tail -3 messages; }
    if [[ $(sums "$output") == "$(sums "$undisturbed")" ]]; then
      echo "$ranks ranks, $kills kills, $output: the same bytes"
    else
      echo "$ranks ranks, $kills kills, $output: OTHER BYTES" && failed=1
    fi
  done
done
exit $failed
