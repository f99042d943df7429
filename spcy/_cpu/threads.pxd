cdef extern from "cpu/team.h" nogil:
    ctypedef struct spcy_team:
        pass

cdef spcy_team team(int n_threads) noexcept nogil
