#!/bin/bash
# Check spcy on a machine with a CUDA GPU: one command, from a fresh checkout, without network.
#
#     tools/gpu_check.sh [FOLDER]
#
# It needs a Python (PYTHON, default python3) of 3.11 or more with pip, setuptools, cython, numpy, cupy and pytest,
# and a C++ compiler, and takes less than ten minutes. It installs spcy into FOLDER/site alone, runs the tests
# marked cuda (what the PTX means first; in parallel, where pytest-xdist is there), then the timings. FOLDER (default:
# gpu_check) gets gpu_check.log and speed.jsonl. PyTorch and spconv-triton are timed beside spcy where they are
# installed, on the scans that SPCY_BENCH_CLOUD and SPCY_BENCH_SCAN name; hypothesis and ml_dtypes add tests. The exit
# status is 0 if all went well.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-python3}
mkdir -p "${1:-gpu_check}" || exit 2
folder=$(cd "${1:-gpu_check}" && pwd)
export PYTHONPATH=$folder/site PYTHONSAFEPATH=1 # the checkout's own folder has no compiled stages
export CUPY_CACHE_DIR=${CUPY_CACHE_DIR:-$folder/kernel_cache}

step() { # step SECONDS COMMAND..: run it with a limit; remember if it fails
    echo "== ${*:2} ($(date +%T))"
    timeout "$@" || {
        echo "== failed with status $?"
        status=1
    }
}

check() {
    status=0
    nvidia-smi || echo "there is no nvidia-smi"
    "$python" -VV
    step 150 "$python" -m pip install -q --no-build-isolation --no-deps --no-index --upgrade \
        --target "$folder/site" .
    "$python" - <<'END' || return 3
import cupy, numpy, spcy
print("spcy", spcy.__version__, "cupy", cupy.__version__, "numpy", numpy.__version__)
with spcy.use_backend("cuda"):
    print(spcy.SparseTensor([[0, 1]], [[1.0]]))
END
    # New versions of other libraries may warn: that is no error here.
    options=(-q -W default -p no:cacheprovider -m cuda)
    "$python" -c "import hypothesis" 2>/dev/null || options+=(--ignore tests/test_properties.py)
    "$python" -c "import ml_dtypes" 2>/dev/null || options+=(--ignore tests/test_weights.py)
    "$python" -c "import xdist" 2>/dev/null && options+=(-n 12)
    step 40 "$python" -m pytest "${options[@]}" tests/test_cuda_ptx.py
    step 190 "$python" -m pytest "${options[@]}" --maxfail 30 --ignore tests/test_cuda_ptx.py tests
    "$python" -c "import spconv_triton" 2>/dev/null && step 100 "$python" asv_bench/gpu.py warm
    rm -f "$folder/speed.jsonl"
    step 150 "$python" asv_bench/gpu.py speed --out "$folder/speed.jsonl"
    echo "== status $status ($(date +%T))"
    return "$status"
}

check 2>&1 | tee "$folder/gpu_check.log"
exit "${PIPESTATUS[0]}"
