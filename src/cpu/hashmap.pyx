"""Build and search the coordinate hash: key -> row."""

from libc.stdint cimport int32_t, int64_t, uint64_t

from spcy._cpu.threads cimport spcy_team, team

cdef extern from "cpu/hashmap.h" nogil:
    void spcy_build_hash(const uint64_t* keys, int64_t n, uint64_t* slots, int bits, spcy_team team) noexcept
    void spcy_find_rows(
        const uint64_t* slots, int bits, const uint64_t* keys, int64_t n, int32_t* rows, spcy_team team
    ) noexcept


def build(
    const uint64_t[::1] keys,  # IN
    uint64_t[:, ::1] slots,  # OUT, (2**bits, 2)
    int bits,
    int n_threads,
):
    """Fill `slots` with (key, least row of the key)."""
    cdef int64_t n = keys.shape[0]
    with nogil:
        spcy_build_hash(&keys[0] if n else NULL, n, &slots[0, 0], bits, team(n_threads))


def find(
    const uint64_t[:, ::1] slots,  # IN
    int bits,
    const uint64_t[::1] keys,  # IN
    int32_t[::1] rows,  # OUT
    int n_threads,
):
    """Write the row of each key, or -1."""
    with nogil:
        spcy_find_rows(&slots[0, 0], bits, &keys[0], keys.shape[0], &rows[0], team(n_threads))
