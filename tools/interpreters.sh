#!/bin/bash
# Run the tests of the CPU on the oldest and on the newest CPython of this machine, unless one is PYTHON's own.
#
#     tools/interpreters.sh
#
# It looks on PATH, among pyenv's and beside PYTHON (default python3) itself, for those that spcy supports. Their kernels
# are the portable ones: the others do not depend on the interpreter, and take most of the time to compile. Packages that
# spcy can do without are left out, and tests of them and of CUDA. It needs g++, venv and the headers of each
# interpreter, and works in build/interpreters.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh

found() { # print the version and the path of each that counts
    "${PYTHON:-python3}" - <<'PYTHON'
import os, re, subprocess, sys, tomllib
from pathlib import Path

least = re.search(r">=\s*3\.(\d+)", tomllib.loads(Path("pyproject.toml").read_text())["project"]["requires-python"])
tell = "import sys, sysconfig, venv; print(*sys.version_info[:2], sysconfig.get_config_var('Py_GIL_DISABLED') or 0, " \
    "sys.implementation.name, sysconfig.get_path('include'))"
pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
folders = [*map(Path, os.get_exec_path()), *pyenv.glob("*/bin"), *Path(sys.base_prefix).parent.glob("*/bin")]
paths = {python for folder in folders for python in folder.glob("python3.*") if re.fullmatch(r"python3\.\d+", python.name)}
versions = {}
for path in sorted(paths):
    told = subprocess.run([path, "-c", tell], capture_output=True, text=True)
    if told.returncode:
        continue  # a shim of a version that is not chosen, or without venv
    major, minor, no_gil, kind, headers = told.stdout.split(maxsplit=4)
    if no_gil == "0" and kind == "cpython" and int(minor) >= int(least[1]) and Path(headers.strip(), "Python.h").exists():
        versions.setdefault(int(minor), path)
own = sys.version_info.minor
ends = {min(versions, default=own), max(versions, default=own)} - {own}
print(*(f"3.{minor} {versions[minor]}" for minor in sorted(ends)), sep="\n")
PYTHON
}

files=()
for file in tests/test_*.py; do
    case $file in
        *_build.py | *_busy_bench.py | *_config.py | *_convert_run.py | *_dask.py | *_demo.py | *_docs.py) ;;
        *_docstrings.py | *_html.py | *_page.py | *_plot.py | *_readme.py | *_roofline.py | *_scan.py | *_torch*.py | *_train_demo.py) ;;
        *) files+=("$file") ;;
    esac
done

while read -r version python; do
    [ -n "$version" ] || { say "there is no other interpreter" && break; }
    work=$PWD/build/interpreters/$version
    say "CPython $version"
    [ -x "$work/environment/bin/pip" ] || "$python" -m venv "$work/environment"
    python=$work/environment/bin/python
    "$python" -m pip install -q --only-binary :all: "cython>=3.1" "setuptools>=77" "numpy>=2" pytest pytest-xdist hypothesis ml_dtypes
    rm -rf "$work/spcy"
    copy "$work/spcy"
    (
        cd "$work/spcy"
        SPCY_PORTABLE=1 "$python" setup.py -q build_ext --inplace >build.log 2>&1 || { tail build.log && exit 1; }
        "$python" -m pytest -q -n auto -p no:cacheprovider -k "not emulated and not cuda and not gpu" "${files[@]}" </dev/null
    )
done < <(found)
