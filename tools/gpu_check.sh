#!/bin/bash
# Check spcy on a machine with a CUDA GPU, stage by stage: from a fresh checkout, without network.
#
#     tools/gpu_check.sh [-o FOLDER] [STAGE ..]
#
# Stages, in order of worth, each with a limit of its own; one that fails or is cut does not stop the next:
#
#     build     90 s   spcy into FOLDER/site, the kernels of smoke into FOLDER/kernel_cache, by parallel processes
#     smoke     60 s   each kernel at a small size beside the CPU
#     speed    120 s   asv_bench/gpu.py speed
#     tests    240 s   pytest -m cuda
#     sanitize  90 s   memcheck and racecheck of compute-sanitizer over a part of smoke
#     profile   60 s   ncu on the convolution, the weight's gradient and the rulebook
#     cpu       90 s   how the CPU engine scales with threads
#     table            at most 60 lines about all that FOLDER holds; always the last
#
# Results are the files of FOLDER (default: gpu_check) itself, written line by line: gpu_check.log,
# results.jsonl, speed.jsonl, profile.txt, kernel_cache.tar.gz. Its subfolders are for work.
# It needs a Python (PYTHON, default python3) of 3.11 or more with pip, setuptools, cython, numpy, cupy and pytest,
# and a C++ compiler; pytest-xdist, hypothesis, ml_dtypes, PyTorch and spconv-triton add to it. Compiled kernels are
# taken from SPCY_KERNEL_CACHE (default: .gpu/kernel_cache.tar.gz), if it is there; an installed spcy from the folder
# SPCY_SITE, which then is not built; SPCY_BENCH_SCAN names a scan. SPCY_CHECK_TINY=1 makes all sizes tiny.
# The exit status is 0 if all stages went well; a tool that is absent is no failure.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 2
usage() {
    sed -n '/^#  *tools/,/^set/{/^#/s/^# \{0,1\}//p}' "tools/$(basename "$0")" >&2
    exit 2
}
declare -A limits=([build]=90 [smoke]=60 [speed]=120 [tests]=240 [sanitize]=90 [profile]=60 [cpu]=90 [table]=20)
output=gpu_check
while getopts o: option; do
    [ "$option" = o ] || usage
    output=$OPTARG
done
shift $((OPTIND - 1))
stages=("$@")
[ $# -gt 0 ] || stages=(build smoke speed tests sanitize profile cpu)
for stage in "${stages[@]}"; do
    [ -n "${limits[$stage]:-}" ] || usage
done

export FOLDER TOOLS=$PWD/tools/gpu_check PYTHON=${PYTHON:-python3} PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1
mkdir -p "$output" || exit 2
FOLDER=$(cd "$output" && pwd)
# The checkout's own spcy has no compiled stages, and stays out by PYTHONSAFEPATH.
export PYTHONPATH=${SPCY_SITE:-$FOLDER/site}:$TOOLS${PYTHONPATH:+:$PYTHONPATH} CUPY_CACHE_DIR=$FOLDER/kernel_cache
results=$FOLDER/results.jsonl

build() {
    local given=${SPCY_KERNEL_CACHE:-.gpu/kernel_cache.tar.gz} built=0
    nvidia-smi || echo "there is no nvidia-smi"
    "$PYTHON" -VV
    if [ -z "${SPCY_SITE:-}" ]; then
        "$PYTHON" -m pip install -q --no-build-isolation --no-deps --no-index --upgrade \
            --target "$FOLDER/site" . || built=1
    fi
    [ ! -e "$given" ] || tar -xzf "$given" -C "$FOLDER" || echo "cannot read $given"
    "$PYTHON" "$TOOLS/compile_kernels.py" || built=1
    [ -n "${SPCY_CHECK_TINY:-}" ] || ! "$PYTHON" -c "import spconv_triton" 2>/dev/null || "$PYTHON" asv_bench/gpu.py warm
    pack
    return "$built"
}
pack() { # other stages compile kernels too
    [ -d "$CUPY_CACHE_DIR" ] || return 0
    tar -czf "$FOLDER/.packed" -C "$FOLDER" kernel_cache && mv "$FOLDER/.packed" "$FOLDER/kernel_cache.tar.gz"
}
smoke() { "$PYTHON" "$TOOLS/smoke.py"; }
speed() {
    rm -f "$FOLDER/speed.jsonl"
    "$PYTHON" asv_bench/gpu.py speed --out "$FOLDER/speed.jsonl" ${SPCY_CHECK_TINY:+--tiny}
}
tests() { "$PYTHON" "$TOOLS/run_tests.py"; }
sanitize() { # a few cases: the checks slow kernels down a hundred times
    command -v compute-sanitizer || { echo "there is no compute-sanitizer" && return; }
    local tool failed=0
    for tool in memcheck racecheck; do
        compute-sanitizer --tool "$tool" --error-exitcode 1 "$PYTHON" "$TOOLS/smoke.py" \
            --only "rulebooks|max_pool|(16 32|64 64) (float16|float32)" || failed=1
    done
    return "$failed"
}
profile() {
    command -v ncu || { echo "there is no ncu" && return; }
    ncu --clock-control none --section SpeedOfLight --section WarpStateStats --section Occupancy \
        --section MemoryWorkloadAnalysis --section ComputeWorkloadAnalysis \
        -k regex:"conv_tiles|add_products|find_neighbours|count_reached|fill" -c 20 \
        "$PYTHON" "$TOOLS/profile_kernels.py" >"$FOLDER/profile.txt"
}
cpu() { "$PYTHON" "$TOOLS/cpu.py"; }
table() { "$PYTHON" "$TOOLS/table.py"; }
export -f build pack smoke speed tests sanitize profile cpu table

run() { # run STAGE: within its limit
    local begin=$SECONDS code
    echo "== $1, at most ${limits[$1]} s ($(date +%T))"
    echo "{\"stage\": \"$1\", \"event\": \"begin\"}" >>"$results"
    timeout -k 5 "${limits[$1]}" bash -c "$1"
    code=$?
    [ "$code" -ne 124 ] && [ "$code" -ne 137 ] || echo "== $1 was cut"
    [ "$code" -eq 0 ] || { echo "== $1: status $code" && status=1; }
    [ -z "$(tail -c 1 "$results")" ] || echo >>"$results" # the last line may have been cut
    echo "{\"stage\": \"$1\", \"event\": \"end\", \"status\": $code, \"seconds\": $((SECONDS - begin))}" >>"$results"
}

check() {
    status=0
    for stage in "${stages[@]}"; do
        [ "$stage" = table ] || run "$stage"
    done
    pack
    timeout "${limits[table]}" bash -c table || status=1
    return "$status"
}

check 2>&1 | tee -a "$FOLDER/gpu_check.log"
exit "${PIPESTATUS[0]}"
