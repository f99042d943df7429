#!/bin/bash
# Say which lines and branches the tests reach.
#
#     tools/coverage.sh [python|kernels]
#
#     python   of spcy/, by all tests that are not thorough, in subprocesses too, with the portable kernels
#     kernels  of src/cpu and src/common, by the tests that run them: of the SIMD levels that this machine has, compiled
#              without optimization, since a compiler that moves lines leaves none to count
#
# Without an argument, both. Branches of kernels are counted in each instantiation of a template. Those of src/cuda are
# not counted: the emulated GPU keeps what it compiled. It needs Linux, g++ with gcov, and a Python (PYTHON, default
# python3) of 3.11 or more. It works in build/coverage, and leaves pages there that show the lines.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh
root=$PWD work=$PWD/build/coverage
# What starts clusters and programs, and what draws, takes long and runs no kernel that others do not.
skipped="$elsewhere or dask or faults or fuzz or html or page or plot or openmp"

sources() { # sources NAME: a copy of its own
    rm -rf "${work:?}/$1"
    copy "$work/$1"
    cd "$work/$1"
}

python_lines() {
    say "build python"
    sources python
    SPCY_PORTABLE=1 pip install -q -e '.[test]' >build.log 2>&1
    mkdir data
    cat >coverage.ini <<INI
[run]
branch = true
parallel = true
patch = subprocess
source = $PWD/spcy
data_file = $PWD/data/coverage
disable_warnings = no-data-collected,module-not-measured,module-not-imported
INI
    say "test python"
    COVERAGE_PROCESS_START=$PWD/coverage.ini pytest -q -p no:cacheprovider -n "$(nproc)"
    coverage combine -q --rcfile coverage.ini
    coverage html -q --rcfile coverage.ini -d "$work/python-pages"
    coverage report --rcfile coverage.ini --skip-covered --precision 1
    cd "$root"
}

kernel_lines() {
    say "build kernels"
    sources kernels
    CXXFLAGS="-O0 --coverage -fprofile-update=atomic" LDFLAGS=--coverage \
        python setup.py -q build_ext --inplace >build.log
    say "test kernels"
    PYTHONPATH=$PWD pytest -q -p no:cacheprovider -n "$(nproc)" -m "not torch and not thorough" -k "not ($skipped)"
    mkdir -p "$work/kernel-pages"
    gcovr -r . -f 'src/(cpu|common)/.*\.(h|cpp)' --exclude-throw-branches --merge-lines \
        --gcov-suspicious-hits-threshold 0 -j "$(nproc)" \
        --html-details "$work/kernel-pages/index.html" --txt-summary --txt - build
    cd "$root"
}

mkdir -p "$work"
environment "$work/environment"
export PATH="$work/environment/bin:$PATH"
command -v gcovr >/dev/null || pip install -q torch==2.13.0 coverage gcovr
case ${1:-} in
    python) python_lines ;;
    kernels) kernel_lines ;;
    *)
        python_lines
        kernel_lines
        ;;
esac
