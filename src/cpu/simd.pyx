"""Which SIMD level the kernels run at: the best one the CPU has, or the one that SPCY_SIMD names."""

import os

cdef extern from "cpu/tile.h" nogil:
    bint spcy_has_level(int level) noexcept

NAMES = ("baseline", "avx2", "avx512", "avx512_bf16")
cdef int _level = 0


cdef int level() noexcept nogil:
    return _level


cdef int kind_of_dtype(dtype) except -1:
    """Return the place of the kernels for arrays of a dtype, as `kind_of`."""
    return (SPCY_FLOAT, SPCY_DOUBLE, SPCY_BFLOAT16, SPCY_FLOAT16)["fdHh".index(dtype.char)]


def available():
    """Return the names of the levels that this build and this CPU have, best first."""
    return tuple(NAMES[i] for i in reversed(range(len(NAMES))) if spcy_has_level(i))


def current():
    """Return the name of the level in use."""
    return NAMES[_level]


def use(name):
    """Run the kernels at another level."""
    global _level
    if name not in available():
        raise ValueError(f"SPCY_SIMD must be one of {', '.join(available())} on this machine, got {name!r}")
    _level = NAMES.index(name)


use(os.environ.get("SPCY_SIMD") or available()[0])
