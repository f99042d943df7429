#!/bin/bash
# Cross-compile spcy for aarch64, run its tests under emulation and count the inner loops' instructions.
#
#     tools/aarch64.sh [PYTEST'S ARGUMENTS ..]
#
# Without arguments a part of the tests of the CPU, that stands for all; emulation takes tens of times as long. Speed
# cannot be told: instructions per multiply-add in the loops of the convolution are, and that nothing is spilled in them.
# It needs Debian and its root (it installs a cross compiler, qemu and debootstrap, and lets the kernel run aarch64's
# programs by qemu) and a Python (PYTHON, default python3) of 3.11 or more. It works in build/aarch64.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/common.sh
work=$PWD/build/aarch64
root=$work/root
needs aarch64-linux-gnu-g++=g++-aarch64-linux-gnu qemu-aarch64-static=qemu-user-static debootstrap=debootstrap
mkdir -p "$work"

say "Debian's Python for aarch64"
if [ ! -e "$work/unpacked" ]; then
    rm -rf "$root"
    debootstrap --arch=arm64 --variant=minbase --foreign --include=python3,libpython3-dev,libgomp1,libstdc++6 \
        "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$root" >"$work/debootstrap.log"
    for package in "$root"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
    touch "$work/unpacked"
fi
python=$(basename "$(readlink "$root/usr/bin/python3")")
version=${python#python}
if [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
    [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    cat /usr/lib/binfmt.d/qemu-aarch64.conf >/proc/sys/fs/binfmt_misc/register
fi
export QEMU_LD_PREFIX=$root # where qemu looks for aarch64's libraries

say "build"
[ -x "$work/tools/bin/pip" ] || "${PYTHON:-python3}" -m venv "$work/tools"
"$work/tools/bin/pip" install -q "cython>=3.1" "setuptools>=77" "numpy>=2"
"$work/tools/bin/pip" install -q --upgrade --target "$work/site" --only-binary :all: --python-version "$version" \
    --implementation cp --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
    numpy pytest hypothesis ml_dtypes
rm -rf "$work/spcy"
copy "$work/spcy"
cd "$work/spcy"
headers="-I$root/usr/include/$python -idirafter $root/usr/include"
_PYTHON_HOST_PLATFORM=linux-aarch64 SETUPTOOLS_EXT_SUFFIX=.cpython-${version/./}-aarch64-linux-gnu.so \
    CC=aarch64-linux-gnu-gcc CXX=aarch64-linux-gnu-g++ LDSHARED="aarch64-linux-gnu-gcc -shared" \
    LDCXXSHARED="aarch64-linux-gnu-g++ -shared" CXXFLAGS="$headers" \
    "$work/tools/bin/python" setup.py -q build_ext --inplace

say "inner loops"
aarch64-linux-gnu-objdump -d --no-show-raw-insn build/temp*/baseline/src/cpu/tile.o |
    "$work/tools/bin/python" "$OLDPWD/tools/inner_loops.py"

say "test"
export PYTHONPATH=$work/site
run=("$root/usr/bin/$python" -m pytest -q -p no:cacheprovider -m "not torch and not cuda")
"$root/usr/bin/$python" -c "
import platform, spcy
assert platform.machine() == 'aarch64' and spcy._cpu.threads.has_openmp()
print(spcy.__file__, spcy._cpu.simd.available())"
if [ $# -gt 0 ]; then
    "${run[@]}" "$@"
else
    "${run[@]}" -k "not emulated" tests/test_hashmap.py tests/test_rulebook.py
    "${run[@]}" -k "not emulated and (same_bits or 16_bits or layout or channels or epilogue or groups_are)" \
        tests/test_threads.py tests/test_conv.py
fi
