from libc.stdint cimport uint16_t

cdef extern from "cpu/tile.h" nogil:
    ctypedef struct spcy_activation:
        int activation
        double slope
    cdef enum:
        SPCY_FLOAT
        SPCY_DOUBLE
        SPCY_BFLOAT16

ctypedef fused number:
    float
    double
    uint16_t  # the bits of a bfloat16

cdef int level() noexcept nogil

cdef inline int kind_of(int number_bytes) noexcept nogil:
    """Return the place of a number type's kernels in a level's table."""
    return SPCY_DOUBLE if number_bytes == 8 else SPCY_FLOAT if number_bytes == 4 else SPCY_BFLOAT16
