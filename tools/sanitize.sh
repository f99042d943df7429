#!/bin/bash
# Run the CPU kernels under sanitizers.
#
#     tools/sanitize.sh [quick]
#
#     address   a build with AddressSanitizer and UndefinedBehaviorSanitizer: the tests of the CPU
#     thread    a build with ThreadSanitizer: the tests of threads
#     memcheck  the team under stress, and valgrind on a dozen cases of the portable kernels: it knows no AVX-512
#
# quick: the first alone, of the portable kernels and a part of the tests. It needs Linux, g++, setarch, valgrind
# (which it installs on Debian) and a Python (PYTHON, default python3) of 3.11 or more. It works in build/sanitize.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh
root=$PWD work=$PWD/build/sanitize optimize=-O1
# Compilers, PyTorch and documents are not what is checked, nor is what starts processes to look at their times.
skipped="$elsewhere or under_stress or torch"

build() { # build NAME FLAGS ..: in a copy; the probe of setup.py must find OpenMP with these flags too
    local name=$1
    shift
    say "build $name"
    rm -rf "${work:?}/$name"
    copy "$work/$name"
    cd "$work/$name"
    CXXFLAGS="$optimize $*" LDFLAGS="$*" python setup.py -q build_ext --inplace >build.log
    cd "$root"
}

under() { # under LIBRARY NAME COMMAND ..: with a sanitizer's library in an interpreter that was built without it
    local library=$1 name=$2
    shift 2
    cd "$work/$name"
    # What Python's own allocator hands out has no red zones; an interpreter leaves memory behind on purpose. pytest
    # would keep what a dying process says to itself.
    LD_PRELOAD="$(g++ -print-file-name="$library") $(g++ -print-file-name=libstdc++.so)" PYTHONMALLOC=malloc \
        PYTHONPATH=$PWD OPENBLAS_NUM_THREADS=1 ASAN_OPTIONS=detect_leaks=0:log_path=report UBSAN_OPTIONS=log_path=report \
        TSAN_OPTIONS="halt_on_error=1 exitcode=66 log_path=report" "$@" || { cat report.* && return 1; }
    cd "$root"
}

threaded="import spcy; assert spcy._cpu.threads.has_openmp(), 'no OpenMP in a build under sanitizers'"

address() { # address PYTEST'S ARGUMENTS ..
    build address -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
    say "test address"
    under libasan.so address python -c "$threaded"
    under libasan.so address pytest -q -p no:cacheprovider "$@"
}

thread() {
    SPCY_PORTABLE=1 build thread -fsanitize=thread # threads share the same in all kernels
    say "test thread"
    # Addresses as random as recent kernels make them are not in the places that this sanitizer knows.
    under libtsan.so thread setarch -R python -c "$threaded"
    under libtsan.so thread setarch -R pytest -q -p no:cacheprovider -n 0 -k "4threads and not ($skipped)" \
        tests/test_conv.py tests/test_rulebook.py tests/test_hashmap.py tests/test_pool.py tests/test_grad.py tests/test_voxel.py \
        tests/test_interpolate.py
}

memcheck() {
    needs valgrind=valgrind
    SPCY_PORTABLE=1 build memcheck -g
    say "test memcheck"
    cd "$work/memcheck"
    # It builds its programs with sanitizers itself, and an interpreter with one would not start them.
    PYTHONPATH=$PWD pytest -q -p no:cacheprovider -n 0 -m "" -k under_stress tests/test_threads.py
    PYTHONPATH=$PWD PYTHONMALLOC=malloc OPENBLAS_NUM_THREADS=1 \
        valgrind -q --error-exitcode=1 --suppressions="$root/tools/memcheck.supp" python "$root/tools/memcheck.py"
    cd "$root"
}

mkdir -p "$work"
environment "$work/environment"
export PATH="$work/environment/bin:$PATH"
case ${1:-} in
    quick)
        export SPCY_PORTABLE=1
        optimize=-O0 # compiled in a third of the time
        address -n "$(nproc)" -k "not ($skipped) and (float16 or 3threads)" tests/test_conv.py tests/test_grad.py tests/test_pool.py \
            tests/test_rulebook.py tests/test_hashmap.py tests/test_interpolate.py
        ;;
    *)
        address -n "$(nproc)" -k "not ($skipped)"
        thread
        memcheck
        ;;
esac
