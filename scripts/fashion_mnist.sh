#!/usr/bin/env bash
# fashion_mnist.sh OUT.npz: the test split of Fashion-MNIST (Debian's dataset-fashion-mnist) as a
# reference for ditmoe-eval, in the form that the default model was trained on: 28 x 28 with two
# zeros on each side, grey in all three channels. arr_0 uint8 [10000, 32, 32, 3], arr_1 int64.
set -euo pipefail
[[ $# -eq 1 ]] || { echo "usage: $0 OUT.npz" >&2; exit 2; }
data=/usr/share/datasets/fashion-mnist
[[ -d $data ]] || data=$(dirname "$(dpkg -L dataset-fashion-mnist | grep t10k-images)")
out=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

header='sub header { my $h = "{\x27descr\x27: \x27$_[0]\x27, \x27fortran_order\x27: False, \x27shape\x27: ($_[1]), }";
  $h .= " " x (63 - (10 + length $h) % 64) . "\n";
  print "\x93NUMPY\1\0" . pack("v", length $h) . $h; }'
zcat "$data"/t10k-images*.gz | perl -e "$header"'
  binmode STDIN; binmode STDOUT; local $/; my $d = <STDIN>;
  my ($magic, $n, $h, $w) = unpack "N4", $d;
  die "not images of 28 x 28\n" unless $magic == 2051 && $h == 28 && $w == 28;
  header("|u1", "$n, 32, 32, 3");
  my $edge = "\0" x (2 * 32 * 3);
  for my $i (0 .. $n - 1) {
    print $edge;
    for my $y (0 .. 27) {
      my $row = substr $d, 16 + ($i * 28 + $y) * 28, 28;
      $row =~ s/(.)/$1$1$1/gs;
      print "\0" x 6, $row, "\0" x 6;
    }
    print $edge;
  }' >"$work/arr_0.npy"
zcat "$data"/t10k-labels*.gz | perl -e "$header"'
  binmode STDIN; binmode STDOUT; local $/; my $d = <STDIN>;
  my ($magic, $n) = unpack "N2", $d;
  die "not labels\n" unless $magic == 2049;
  header("<i8", "$n,");
  print pack "q<*", unpack "x8C*", $d;' >"$work/arr_1.npy"
rm -f "$out"
(cd "$work" && zip -q -0 -X "$out" arr_0.npy arr_1.npy)
echo "$out"
