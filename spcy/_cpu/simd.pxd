from libc.stdint cimport int16_t, uint16_t

cdef extern from "cpu/tile.h" nogil:
    ctypedef struct spcy_activation:
        int activation
        double slope
    cdef enum:
        SPCY_FLOAT
        SPCY_DOUBLE
        SPCY_BFLOAT16
        SPCY_FLOAT16

ctypedef fused number:
    float
    double
    uint16_t  # the bits of a bfloat16
    int16_t  # the bits of a float16

cdef int level() noexcept nogil

cdef int kind_of_dtype(dtype) except -1

cdef inline int kind_of(const number* numbers) noexcept nogil:
    """Return the place of a number type's kernels in a level's table."""
    if number is float:
        return SPCY_FLOAT
    elif number is double:
        return SPCY_DOUBLE
    elif number is uint16_t:
        return SPCY_BFLOAT16
    else:
        return SPCY_FLOAT16
