#!/usr/bin/env bash
# setup.sh GROUP...: installs the Debian packages of the groups (build, test, fuzz) that are
# missing, as root or through sudo. Does nothing where all are there; elsewhere than on Debian it
# only says what is needed.
set -euo pipefail

declare -A packages=(
  [build]="gcc libc6-dev make cmake libcjson-dev libpng-dev zlib1g-dev libstb-dev libssl-dev
    libjpeg62-turbo-dev libopenblas-openmp-dev liblapacke-dev"
  [test]="libcmocka-dev g++ pkg-config python3-numpy python3-venv"
  [fuzz]="clang"
)
missing=()
for group; do
  [[ -n ${packages[$group]:-} ]] || { echo "setup.sh: no group $group" >&2; exit 2; }
  for package in ${packages[$group]}; do
    command -v dpkg-query >/dev/null || { missing+=("$package"); continue; }
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ $status == installed ]] || missing+=("$package")
  done
done
[[ ${#missing[@]} -eq 0 ]] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "setup.sh: no apt-get here; the build needs what Debian calls: ${missing[*]}" >&2
  exit 0
fi
as_root=()
if [[ $EUID -ne 0 ]]; then
  command -v sudo >/dev/null ||
    { echo "setup.sh: run as root, or install sudo, to get: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
