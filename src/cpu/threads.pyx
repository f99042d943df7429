"""The team of threads that kernels share their work with."""

cdef extern from "cpu/team.h" nogil:
    spcy_team spcy_team_of(int threads) noexcept
    bint spcy_has_threads() noexcept
    cdef enum:
        SPCY_MOST_THREADS

MOST_THREADS = SPCY_MOST_THREADS


cdef spcy_team team(int n_threads) noexcept nogil:
    return spcy_team_of(n_threads)


def has_openmp():
    """Return whether this build runs kernels on more than one thread."""
    return spcy_has_threads()
