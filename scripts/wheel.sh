#!/usr/bin/env bash
# wheel.sh BUILD_FOLDER OUTPUT_FOLDER: the Python package with the shared library of a build inside,
# as a wheel. Needs python3 alone, no network. Prints its path.
set -euo pipefail
[[ $# -eq 2 ]] || { echo "usage: wheel.sh BUILD_FOLDER OUTPUT_FOLDER" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
library=$1/libditmoe.so
[[ -e $library ]] || { echo "wheel.sh: $library is missing: build the target ditmoe" >&2; exit 3; }
version=$(sed -n 's/^#define DITMOE_VERSION "\(.*\)"/\1/p' "$root/include/ditmoe.h")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

tag=py3-none-linux_$(uname -m)
information=$work/ditmoe-$version.dist-info
mkdir -p "$work/ditmoe" "$information" "$2"
cp "$root"/python/ditmoe/*.py "$work/ditmoe/"
cp "$root/LICENSE" "$information/"
strip --strip-unneeded -o "$work/ditmoe/libditmoe.so" "$library"
cat >"$information/METADATA" <<END
Metadata-Version: 2.1
Name: ditmoe
Version: $version
Summary: Sample mixture-of-experts diffusion transformers
License: MIT
Requires-Python: >=3.9
Requires-Dist: numpy
END
cat >"$information/WHEEL" <<END
Wheel-Version: 1.0
Generator: ditmoe
Root-Is-Purelib: false
Tag: $tag
END
python3 - "$work" "$2/ditmoe-$version-$tag.whl" "${information##*/}/RECORD" <<'END'
import base64, hashlib, os, pathlib, sys, zipfile
root, wheel, record = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
lines = []
with zipfile.ZipFile(wheel + ".tmp", "w", zipfile.ZIP_DEFLATED) as archive:
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name, data = path.relative_to(root).as_posix(), path.read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
        archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    archive.writestr(zipfile.ZipInfo(record), "".join(lines) + f"{record},,\n")
os.replace(wheel + ".tmp", wheel)
print(wheel)
END
