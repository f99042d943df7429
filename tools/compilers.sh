#!/bin/bash
# Build spcy by other compilers and with other flags, and run a part of the tests with each.
#
#     tools/compilers.sh [BUILD ..]
#
# Builds: gcc-11 .. gcc-14, clang-14 and clang-19 with LLVM's OpenMP, as far as Debian has them; debug, -O0 with the
# standard library's assertions; single, without OpenMP; portable, without x86-64's vectors. The default is all. A
# warning about a file of src is a failure. It needs Debian, its root where a compiler is to be installed, and a
# Python (PYTHON, default python3) of 3.11 or more. It works in build/compilers.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh
root=$PWD work=$PWD/build/compilers
tests=(tests/test_conv.py tests/test_rulebook.py tests/test_hashmap.py tests/test_pool.py tests/test_grad.py tests/test_pointwise.py)
part="(2threads or avx512 or float16) and not emulated and not cuda"

build() { # build NAME: with the compilers and flags in the environment, and test
    say "build $1"
    rm -rf "${work:?}/$1"
    copy "$work/$1"
    cd "$work/$1"
    python setup.py -q build_ext --inplace >build.log 2>&1 || { tail build.log && return 1; }
    if grep -E "(^|[^/])src/cpu/.*warning:" build.log; then return 1; fi
    say "test $1"
    export PYTHONPATH=$PWD
    python -c "
import os, spcy
single = os.environ.get('SPCY_NO_OPENMP') == '1'
assert spcy._cpu.threads.has_openmp() != single, 'OpenMP was not found'
print(spcy._cpu.simd.available())"
    pytest -q -p no:cacheprovider -n "$(nproc)" -k "$part" "${tests[@]}"
    cd "$root"
}

gcc() {
    needs "g++-$1=g++-$1"
    CC=gcc-$1 CXX=g++-$1 build "gcc-$1"
}

clang() { # LLVM's runtimes of two versions cannot be installed together: unpack them
    needs "clang-$1=clang-$1"
    local omp=$work/libomp-$1
    if [ ! -d "$omp" ]; then
        mkdir -p "$omp"
        (cd "$omp" && apt-get download -qq "libomp5-$1" "libomp-$1-dev")
        for package in "$omp"/*.deb; do dpkg-deb -x "$package" "$omp"; done
    fi
    local include=("$omp/usr/lib/llvm-$1"/lib/clang/*/include) lib=$omp/usr/lib/llvm-$1/lib
    CC=clang-$1 CXX=clang++-$1 CXXFLAGS="-idirafter ${include[0]}" LDFLAGS="-L$lib -Wl,-rpath,$lib" build "clang-$1"
}

available() { apt-cache policy "$1" | grep -q "Candidate: [^(]"; }

mkdir -p "$work"
environment "$work/environment"
export PATH="$work/environment/bin:$PATH"
builds=("$@")
if [ $# -eq 0 ]; then
    for version in 11 12 13 14; do ! available "g++-$version" || builds+=("gcc-$version"); done
    for version in 14 19; do ! available "clang-$version" || builds+=("clang-$version"); done
    builds+=(debug single portable)
fi
for name in "${builds[@]}"; do
    case $name in
        gcc-*) gcc "${name#gcc-}" ;;
        clang-*) clang "${name#clang-}" ;;
        debug) CXXFLAGS="-O0 -D_GLIBCXX_ASSERTIONS" build debug ;;
        single) SPCY_NO_OPENMP=1 build single ;;
        portable) SPCY_PORTABLE=1 build portable ;;
        *) say "there is no build $name" && exit 2 ;;
    esac
done
