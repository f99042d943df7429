#!/bin/bash
# Build CPython without the GIL, build spcy for it and run the tests of the CPU there.
#
#     tools/freethreaded.sh [PYTEST'S ARGUMENTS ..]
#
# CPython's source is Debian's, of the first suite below whose archive has it. It is not optimised by profiles, so
# that speeds cannot be told. spcy must be imported without the GIL coming back; the tests then run where it cannot.
# It needs Debian and its root (it installs a compiler and headers of libraries, and leaves apt's settings alone)
# and takes half an hour on two cores. It works in build/freethreaded.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh
work=$PWD/build/freethreaded
sources=(sid:python3.14 trixie:python3.13)
# Compilers, other devices and documents are not what is checked, nor are packages that spcy can do without; and
# 3.13 falls when an object of its own gets no memory while it imports.
skipped="$elsewhere or under_stress or torch or refused_once"
left_out=(--ignore=tests/peers)
for each in config convert_run page plot roofline scan; do left_out+=("--ignore=tests/test_$each.py"); done
mkdir -p "$work"

source_of() { # source_of SUITE PACKAGE: its original archive, from the mirror that the machine's own packages are from
    local apt=$work/apt mirror keys
    mkdir -p "$apt/lists/partial"
    rm -f "$apt"/*.orig.tar.xz
    mirror=$(apt-get indextargets --format '$(LABEL)|$(REPO_URI)' | sed -n 's/^Debian|//p' | sort -u | head -n 1)
    keys=$(dpkg -L debian-archive-keyring | grep -m 1 -E '/debian-archive-keyring\.(gpg|pgp)$')
    echo "deb-src [signed-by=$keys] $mirror $1 main" >"$apt/sources.list"
    local where=(-o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::lists=$apt/lists"
        -o APT::Sandbox::User=root)
    apt-get "${where[@]}" -qq update
    (cd "$apt" && apt-get "${where[@]}" -qq source --download-only "$2")
}

if [ ! -x "$work/python/bin/python3" ]; then
    say "CPython's source"
    apt-get -qq update
    needs gcc=gcc g++=g++ make=make
    apt-get install -qq -y --no-install-recommends libc6-dev libffi-dev libssl-dev zlib1g-dev >/dev/null
    for each in "${sources[@]}"; do
        ! source_of "${each%:*}" "${each#*:}" >"$work/source.log" 2>&1 || break
        say "no ${each#*:} of ${each%:*}"
    done
    say "build of $(basename "$work"/apt/*.orig.tar.xz)"
    rm -rf "$work/cpython"
    mkdir "$work/cpython"
    tar -xf "$work"/apt/*.orig.tar.xz -C "$work/cpython" --strip-components=1
    (
        cd "$work/cpython"
        ./configure -q --disable-gil --disable-test-modules --prefix="$work/python"
        make -s -j"$(nproc)"
        make -s install
    ) >"$work/build.log" 2>&1 || { tail "$work/build.log" && exit 1; }
fi
python=$work/environment/bin/python
[ -x "$python" ] || "$work/python/bin/python3" -m venv "$work/environment"
"$python" -m pip install -q --only-binary :all: "cython>=3.1" "setuptools>=77" numpy pytest pytest-xdist hypothesis
"$python" -m pip install -q --only-binary :all: ml_dtypes || say "no ml_dtypes: without the tests of bfloat16"

say "build"
rm -rf "$work/spcy"
copy "$work/spcy"
cd "$work/spcy"
"$python" setup.py -q build_ext --inplace >build.log 2>&1 || { tail build.log && exit 1; }
export PYTHONPATH=$PWD

say "test"
"$python" -W error -c "
import sys, sysconfig, numpy, spcy
assert sysconfig.get_config_var('Py_GIL_DISABLED') == 1 and spcy._cpu.threads.has_openmp()
assert not sys._is_gil_enabled(), 'the GIL came back'
print(sys.version, 'NumPy', numpy.__version__, spcy.__file__, sep='\n')"
PYTHON_GIL=0 "$python" -m pytest -q -n "$(nproc)" -p no:cacheprovider -m "not torch and not cuda and not thorough" \
    -k "not ($skipped)" "${left_out[@]}" "$@"
