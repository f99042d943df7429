"""Large arrays on memory that is kept when they are freed."""

import numpy as np

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint8_t
from libc.string cimport strcpy

cdef extern from "cpu/memory.h" nogil:
    const int SPCY_LARGE
    void* spcy_take(void* context, size_t size) noexcept
    void* spcy_take_zeros(void* context, size_t count, size_t size) noexcept
    void* spcy_retake(void* context, void* data, size_t size) noexcept
    void spcy_give(void* context, void* data, size_t size) noexcept
    void spcy_keep_at_most(size_t size) noexcept
    size_t spcy_keeps_at_most() noexcept
    size_t spcy_kept_bytes() noexcept
    bint spcy_keeps_memory() noexcept

cdef extern from "numpy/arrayobject.h":
    int _import_array() except -1
    ctypedef struct PyDataMemAllocator:
        void* ctx
        void* (*malloc)(void* context, size_t size) noexcept nogil
        void* (*calloc)(void* context, size_t count, size_t size) noexcept nogil
        void* (*realloc)(void* context, void* data, size_t size) noexcept nogil
        void (*free)(void* context, void* data, size_t size) noexcept nogil
    ctypedef struct PyDataMem_Handler:
        char name[127]
        uint8_t version
        PyDataMemAllocator allocator
    object PyDataMem_SetHandler(object handler)

LARGE = SPCY_LARGE

_import_array()

cdef PyDataMem_Handler _handler
strcpy(_handler.name, b"spcy")
_handler.version = 1
_handler.allocator = PyDataMemAllocator(NULL, spcy_take, spcy_take_zeros, spcy_retake, spcy_give)
cdef object _capsule = PyCapsule_New(&_handler, "mem_handler", NULL)
cdef bint _keeps = spcy_keeps_memory()


def empty(shape, dtype):
    """Return a new array, its values anything, on memory that is kept when it is freed if it is large."""
    cdef double size = np.dtype(dtype).itemsize
    if isinstance(shape, tuple):
        for n in shape:
            size *= n
    else:
        size *= shape
    if size < SPCY_LARGE or not _keeps:
        return np.empty(shape, dtype)
    before = PyDataMem_SetHandler(_capsule)
    try:
        return np.empty(shape, dtype)
    finally:
        PyDataMem_SetHandler(before)


def keep_at_most(num_bytes):
    """Set how much memory is kept."""
    spcy_keep_at_most(num_bytes)


def keeps_at_most():
    """Return how much memory is kept at most."""
    return spcy_keeps_at_most()


def kept_bytes():
    """Return how much memory is kept now."""
    return spcy_kept_bytes()
