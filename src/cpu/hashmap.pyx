"""Build and search the coordinate hash: key -> row."""

from cython.parallel import prange
from libc.stdint cimport int32_t, uint64_t
from libc.string cimport memset

cdef extern from "cpu/hashmap.h" nogil:
    void spcy_insert(uint64_t* slots, int bits, uint64_t key, uint64_t row) noexcept
    void spcy_find_batch(
        const uint64_t* slots, int bits, const uint64_t* keys, int count, int32_t* rows
    ) noexcept

cdef enum:
    BATCH = 32  # keys looked up together
    CHUNK = 4096  # slots or keys that a thread takes at a time


def build(
    const uint64_t[::1] keys,  # IN
    uint64_t[:, ::1] slots,  # OUT, (2**bits, 2)
    int bits,
    int n_threads,
):
    """Fill `slots` with (key, least row of the key)."""
    cdef Py_ssize_t n = keys.shape[0]
    cdef Py_ssize_t n_slots = slots.shape[0]
    cdef Py_ssize_t block, i, size
    for block in prange((n_slots + CHUNK - 1) // CHUNK, nogil=True, schedule="static", num_threads=n_threads):
        size = min(CHUNK, n_slots - block * CHUNK)
        memset(&slots[block * CHUNK, 0], 0xFF, size * 2 * sizeof(uint64_t))
    for i in prange(n, nogil=True, schedule="static", num_threads=n_threads):
        spcy_insert(&slots[0, 0], bits, keys[i], <uint64_t>i)


def find(
    const uint64_t[:, ::1] slots,  # IN
    int bits,
    const uint64_t[::1] keys,  # IN
    int32_t[::1] rows,  # OUT
    int n_threads,
):
    """Write the row of each key, or -1."""
    cdef Py_ssize_t n = keys.shape[0]
    cdef Py_ssize_t batch, start
    for batch in prange((n + BATCH - 1) // BATCH, nogil=True, schedule="static", num_threads=n_threads):
        start = batch * BATCH
        spcy_find_batch(&slots[0, 0], bits, &keys[start], <int>min(BATCH, n - start), &rows[start])
