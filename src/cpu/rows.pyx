"""Rows of any numbers, as bytes."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from spcy._cpu.threads cimport spcy_team, team

cdef extern from "cpu/rows.h" nogil:
    void spcy_take_rows(
        const char* source, int64_t source_stride, const int32_t* rows, int64_t count, int64_t bytes,
        char* out, int64_t out_stride, spcy_team team,
    ) noexcept


def take(
    const uint8_t[:, ::1] source,  # IN, (N, any)
    int64_t first,  # byte of its rows
    const int32_t[::1] rows,  # IN or None for all in their order, (M,), -1 for zeros
    uint8_t[:, ::1] out,  # OUT, (M, any)
    int64_t place,  # byte of its rows
    int64_t num_bytes,
    int n_threads,
):
    """Write to each row of `out`, from a place on, bytes of a row of the source."""
    cdef const int32_t* taken = &rows[0] if rows is not None else NULL
    with nogil:
        spcy_take_rows(
            <const char*>&source[0, 0] + first, source.shape[1], taken, out.shape[0], num_bytes,
            <char*>&out[0, 0] + place, out.shape[1], team(n_threads),
        )
