"""The OpenMP runtime, as far as Python needs to see it."""

cdef extern from "cpu/threads.h" nogil:
    int spcy_has_openmp() noexcept
    int spcy_pause_threads() noexcept


def has_openmp():
    """Return whether this build runs kernels on more than one thread."""
    return bool(spcy_has_openmp())


def pause():
    """End the runtime's idle worker threads; the next parallel region starts new ones."""
    return spcy_pause_threads() == 0
