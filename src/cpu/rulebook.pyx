"""Count the pairs of each kernel offset, then fill them in, in the order (offset, output key)."""

from cython.parallel import prange, threadid
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy

cdef extern from "cpu/walk.h" nogil:
    void spcy_count_pairs(
        const uint64_t* queries, const uint64_t* keys, int64_t n, int64_t begin, int64_t end,
        const int64_t* first, const int64_t* line_ptr, int64_t n_lines, int32_t* places, int64_t stride,
        int64_t* counts,
    ) noexcept
    void spcy_fill_pairs(
        const uint64_t* queries, const uint64_t* keys, int64_t begin, int64_t end, int64_t first, int width,
        const int32_t* places, int32_t* sites, int32_t* found, int64_t stride, int64_t* counts,
    ) noexcept
    void spcy_copy_rows(const int32_t* ranks, int64_t count, const int32_t* order, int32_t* rows) noexcept

cdef extern from "cpu/reach.h" nogil:
    ctypedef struct spcy_column:
        pass
    ctypedef struct spcy_reach:
        int64_t columns
        int64_t divide
        int64_t n_heads
        int64_t n_tails
        const spcy_column* column
        const int64_t* residue_ptr
        const int64_t* residues
        const int64_t* head_ids
        const int64_t* head_ptr
        const int64_t* head_low
        const int64_t* head_high
        const int64_t* line_steps
        const int64_t* line_spans
        const int64_t* tail_ptr
        const int64_t* entry_steps
        const int64_t* entry_offsets
    ctypedef struct spcy_run:
        pass
    int64_t spcy_reach_scratch(const spcy_reach* reach) noexcept
    int64_t spcy_count_reached(
        const spcy_reach* reach, const uint64_t* keys, int64_t n_sites, spcy_run* runs, int32_t* n_runs,
        int32_t* places, uint64_t* scratch, int64_t* counts,
    ) noexcept
    void spcy_fill_reached(
        const spcy_reach* reach, const uint64_t* keys, const spcy_run* runs, int32_t n_runs,
        const int32_t* places, uint64_t* scratch, uint64_t* blocks, uint64_t* cells,
    ) noexcept
    void spcy_fill_reached_pairs(
        const spcy_reach* reach, const uint64_t* keys, int64_t first_site, const spcy_run* runs,
        int32_t n_runs, const int32_t* places, uint64_t* scratch, const uint64_t* cells,
        const int32_t* ranks, const int32_t* order, int64_t* pairs, int32_t* in_rows, int32_t* out_rows,
    ) noexcept
    int64_t spcy_merge_blocks(
        const uint64_t* blocks, const int32_t* order, int64_t begin, int64_t end, int64_t n,
        uint64_t* cells,
    ) noexcept
    void spcy_fill_outputs(
        const uint64_t* blocks, const int32_t* order, int64_t begin, int64_t end, int64_t n,
        const uint64_t* cells, const int64_t* low, const int64_t* shift, int columns, int64_t rank,
        int32_t* ranks, uint64_t* keys, int32_t* indices,
    ) noexcept

CHUNK = 1024  # sites walked at a time: the ranks of a line's pairs stay in the first-level cache
cdef enum:
    CHUNK_ROWS = 1024


def count_pairs(
    const uint64_t[::1] queries,  # IN, ascending, one for each output site
    const uint64_t[::1] keys,  # IN, (inputs + 1,) ascending, and a sentinel
    const int64_t[::1] line_first,  # IN, key step from a query to the line's first offset
    const int64_t[::1] line_ptr,  # IN, the offsets of each line
    int32_t[:, ::1] met,  # OUT, (lines, outputs), where each query belongs among the keys
    int64_t[:, ::1] counts,  # OUT, (chunks, offsets)
    int n_threads,
):
    """Write how many outputs, by chunks, meet an input at each offset."""
    cdef Py_ssize_t chunk, begin
    cdef Py_ssize_t n_lines = line_first.shape[0], n = met.shape[1]
    for chunk in prange(counts.shape[0], nogil=True, schedule="dynamic", num_threads=n_threads):
        begin = chunk * CHUNK_ROWS
        spcy_count_pairs(
            &queries[0], &keys[0], keys.shape[0] - 1, begin, min(begin + CHUNK_ROWS, n), &line_first[0],
            &line_ptr[0], n_lines, &met[0, 0], n, &counts[chunk, 0],
        )


def fill_pairs(
    const uint64_t[::1] queries,  # IN
    const uint64_t[::1] keys,  # IN
    const int64_t[::1] line_first,  # IN
    const int64_t[::1] line_ptr,  # IN
    const int32_t[:, ::1] met,  # IN
    const int64_t[:, ::1] places,  # IN, (chunks, offsets) where each chunk's pairs begin
    const int32_t[::1] in_order,  # IN or None, rows of the inputs
    const int32_t[::1] out_order,  # IN or None, rows of the outputs
    int32_t[::1] in_rows,  # OUT
    int32_t[::1] out_rows,  # OUT
    int32_t[:, :, ::1] ranks,  # scratch, (n_threads, 2, widest line * (CHUNK + 1))
    int64_t[:, ::1] counts,  # scratch, (n_threads, widest line)
    int n_threads,
):
    """Write the pairs counted by `count_pairs`."""
    cdef Py_ssize_t chunk, line, begin, end, offset, width, w
    cdef int thread
    cdef Py_ssize_t n_lines = line_first.shape[0], n = met.shape[1]
    cdef const int32_t* in_row = NULL
    cdef const int32_t* out_row = NULL
    if in_order is not None:
        in_row = &in_order[0]
    if out_order is not None:
        out_row = &out_order[0]
    for chunk in prange(places.shape[0], nogil=True, schedule="dynamic", num_threads=n_threads):
        thread = threadid()
        begin = chunk * CHUNK_ROWS
        end = min(begin + CHUNK_ROWS, n)
        for line in range(n_lines):
            offset = line_ptr[line]
            width = line_ptr[line + 1] - offset
            spcy_fill_pairs(
                &queries[0], &keys[0], begin, end, line_first[line], <int>width, &met[line, 0],
                &ranks[thread, 0, 0], &ranks[thread, 1, 0], CHUNK_ROWS + 1, &counts[thread, 0],
            )
            for w in range(width):
                if counts[thread, w]:
                    spcy_copy_rows(
                        &ranks[thread, 0, w * (CHUNK_ROWS + 1)], counts[thread, w], out_row,
                        &out_rows[places[chunk, offset + w]],
                    )
                    spcy_copy_rows(
                        &ranks[thread, 1, w * (CHUNK_ROWS + 1)], counts[thread, w], in_row,
                        &in_rows[places[chunk, offset + w]],
                    )


cdef class Reach:
    """Which output sites input sites reach: the plan that the functions below carry out, step by step."""

    cdef spcy_reach plan
    cdef tuple arrays  # what the plan points into
    cdef spcy_run* runs  # (sites,), those of each chunk where its sites begin
    cdef int32_t[::1] n_runs  # (chunks,)
    cdef int32_t[::1] places  # (sites,)

    def __init__(
        self,
        # (1 + D, 9): shift0, mask0, low0, shift1, low1, out_low, out_high, stride, padding
        const int64_t[:, ::1] columns,
        bint divide,
        const int64_t[::1] residue_ptr,
        const int64_t[::1] residues,
        const int64_t[::1] head_ids,
        const int64_t[::1] head_ptr,
        const int64_t[:, ::1] head_low,
        const int64_t[:, ::1] head_high,
        const int64_t[:, ::1] line_steps,
        const int64_t[::1] line_spans,
        const int64_t[::1] tail_ptr,
        const int64_t[::1] entry_steps,
        const int64_t[::1] entry_offsets,
        uint64_t[:, ::1] runs,  # scratch, (sites, 2)
        int32_t[::1] n_runs,  # scratch, (chunks,)
        int32_t[::1] places,  # scratch, (sites,)
    ):
        cdef spcy_reach* plan = &self.plan
        self.arrays = (
            columns, residue_ptr, residues, head_ids, head_ptr, head_low, head_high, line_steps, line_spans,
            tail_ptr, entry_steps, entry_offsets, runs,
        )
        plan.columns, plan.divide = columns.shape[0], divide
        plan.n_heads = head_ids.shape[0]
        plan.n_tails = residue_ptr[plan.columns] - residue_ptr[plan.columns - 1]
        plan.column = <const spcy_column*>&columns[0, 0]
        plan.residue_ptr, plan.residues = &residue_ptr[0], &residues[0]
        plan.head_ids, plan.head_ptr = &head_ids[0], &head_ptr[0]
        plan.head_low, plan.head_high = &head_low[0, 0], &head_high[0, 0]
        plan.line_steps, plan.line_spans = &line_steps[0, 0], &line_spans[0]
        plan.tail_ptr = &tail_ptr[0]
        plan.entry_steps, plan.entry_offsets = &entry_steps[0], &entry_offsets[0]
        self.runs, self.n_runs, self.places = <spcy_run*>&runs[0, 0], n_runs, places

    @property
    def scratch_size(self):
        """How many uint64 each thread needs as scratch."""
        return spcy_reach_scratch(&self.plan)


def count_reached(
    Reach reach,
    const uint64_t[::1] keys,  # IN
    uint64_t[:, ::1] scratch,  # (n_threads, scratch_size)
    int64_t[:, ::1] counts,  # INOUT, (chunks, offsets), zeros
    int64_t[::1] candidates,  # OUT, (chunks,)
    int n_threads,
):
    """Write how many pairs each offset has, and how many candidates for outputs there are, by chunk."""
    cdef Py_ssize_t chunk, begin
    for chunk in prange(counts.shape[0], nogil=True, schedule="dynamic", num_threads=n_threads):
        begin = chunk * CHUNK_ROWS
        candidates[chunk] = spcy_count_reached(
            &reach.plan, &keys[begin], min(CHUNK_ROWS, keys.shape[0] - begin), reach.runs + begin,
            &reach.n_runs[chunk], &reach.places[begin], &scratch[threadid(), 0], &counts[chunk, 0],
        )


def fill_reached(
    Reach reach,
    const uint64_t[::1] keys,  # IN
    uint64_t[:, ::1] scratch,
    const int64_t[::1] places,  # IN, (chunks,) where each chunk's candidates begin
    uint64_t[::1] blocks,  # OUT, which 64 cells a candidate is about; blocks occur repeatedly
    uint64_t[::1] cells,  # OUT, which of them are reached
    int n_threads,
):
    """Write the candidates for outputs."""
    cdef Py_ssize_t chunk, begin
    for chunk in prange(places.shape[0], nogil=True, schedule="dynamic", num_threads=n_threads):
        begin = chunk * CHUNK_ROWS
        spcy_fill_reached(
            &reach.plan, &keys[begin], reach.runs + begin, reach.n_runs[chunk], &reach.places[begin],
            &scratch[threadid(), 0], &blocks[0] + places[chunk], &cells[0] + places[chunk],
        )


def merge_blocks(
    const uint64_t[::1] blocks,  # IN, ascending
    const int32_t[::1] order,  # IN, the candidate at each sorted place
    uint64_t[::1] cells,  # INOUT, by candidate: what it reaches, then all outputs in its block
    int64_t[::1] counts,  # OUT, outputs by chunk
    int n_threads,
):
    """Unite the candidates of each block, and count the outputs."""
    cdef Py_ssize_t chunk
    for chunk in prange(counts.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        counts[chunk] = spcy_merge_blocks(
            &blocks[0], &order[0], chunk * CHUNK_ROWS, min((chunk + 1) * CHUNK_ROWS, blocks.shape[0]),
            blocks.shape[0], &cells[0],
        )


def fill_outputs(
    const uint64_t[::1] blocks,  # IN
    const int32_t[::1] order,  # IN
    const uint64_t[::1] cells,  # IN
    const int64_t[::1] places,  # IN, rank of each chunk's first output
    const int64_t[::1] low,  # IN, layout of the outputs
    const int64_t[::1] shift,  # IN
    int32_t[::1] ranks,  # OUT, by candidate, the rank of its block's first output
    uint64_t[::1] keys,  # OUT
    int32_t[:, ::1] indices,  # OUT
    int n_threads,
):
    """Write the outputs, in key order."""
    cdef Py_ssize_t chunk
    for chunk in prange(places.shape[0], nogil=True, schedule="static", num_threads=n_threads):
        spcy_fill_outputs(
            &blocks[0], &order[0], chunk * CHUNK_ROWS, min((chunk + 1) * CHUNK_ROWS, blocks.shape[0]),
            blocks.shape[0], &cells[0], &low[0], &shift[0], <int>indices.shape[1], places[chunk], &ranks[0],
            &keys[0], &indices[0, 0],
        )


def fill_reached_pairs(
    Reach reach,
    const uint64_t[::1] keys,  # IN
    uint64_t[:, ::1] scratch,
    const int64_t[::1] candidate_places,  # IN, as for fill_reached
    const uint64_t[::1] cells,  # IN
    const int32_t[::1] ranks,  # IN
    const int32_t[::1] order,  # IN or None, rows of the inputs
    int64_t[:, ::1] places,  # INOUT, (chunks, offsets) where each chunk's pairs begin
    int32_t[::1] in_rows,  # OUT
    int32_t[::1] out_rows,  # OUT
    int n_threads,
):
    """Write the pairs counted by `count_reached`."""
    cdef Py_ssize_t chunk, begin
    cdef const int32_t* rows = NULL
    if order is not None:
        rows = &order[0]
    for chunk in prange(places.shape[0], nogil=True, schedule="dynamic", num_threads=n_threads):
        begin = chunk * CHUNK_ROWS
        spcy_fill_reached_pairs(
            &reach.plan, &keys[begin], begin, reach.runs + begin, reach.n_runs[chunk], &reach.places[begin],
            &scratch[threadid(), 0], &cells[0] + candidate_places[chunk], &ranks[0] + candidate_places[chunk],
            rows, &places[chunk, 0], &in_rows[0], &out_rows[0],
        )


def mirror_pairs(
    const int64_t[::1] offset_ptr,  # IN
    int32_t[::1] in_rows,  # INOUT
    int32_t[::1] out_rows,  # INOUT
    int n_threads,
):
    """Write the pairs of the last offsets of a symmetric kernel: those of the first, swapped."""
    cdef Py_ssize_t k
    cdef Py_ssize_t n_offsets = offset_ptr.shape[0] - 1
    cdef int64_t source, target, size
    for k in prange(n_offsets // 2, nogil=True, schedule="dynamic", num_threads=n_threads):
        source = offset_ptr[k]
        target = offset_ptr[n_offsets - 1 - k]
        size = (offset_ptr[k + 1] - source) * sizeof(int32_t)
        if size:
            memcpy(&in_rows[target], &out_rows[source], size)
            memcpy(&out_rows[target], &in_rows[source], size)


def cut_tiles(
    const int32_t[::1] out_rows,  # IN
    const int64_t[::1] offset_ptr,  # IN
    const int32_t[::1] rank,  # IN or None, rank of each output row
    Py_ssize_t tile_size,
    int64_t[:, ::1] tile_ptr,  # OUT, (offsets, tiles + 1)
    int n_threads,
):
    """Write where the pairs of each tile of output ranks begin, under each offset."""
    cdef Py_ssize_t k
    cdef const int32_t* ranks = NULL
    cdef const int32_t* rows = NULL
    if rank is not None:
        ranks = &rank[0]
    if out_rows.shape[0]:
        rows = &out_rows[0]
    for k in prange(tile_ptr.shape[0], nogil=True, schedule="dynamic", num_threads=n_threads):
        _cut_offset(
            rows, ranks, offset_ptr[k], offset_ptr[k + 1], tile_size, &tile_ptr[k, 0],
            tile_ptr.shape[1],
        )


cdef void _cut_offset(
    const int32_t* rows, const int32_t* ranks, int64_t begin, int64_t end, int64_t tile_size,
    int64_t* cuts, Py_ssize_t n_cuts,
) noexcept nogil:
    cdef Py_ssize_t cut
    cdef int64_t low, size, half, at, limit
    cdef int32_t value
    low = begin
    for cut in range(n_cuts):
        # An output row occurs once under an offset, so a tile has at most tile_size pairs of it.
        limit = cut * tile_size
        size = min(tile_size, end - low) if cut else 0
        while size > 0:
            half = size // 2
            at = low + half
            value = ranks[rows[at]] if ranks != NULL else rows[at]
            if value < limit:
                low = at + 1
                size = size - half - 1
            else:
                size = half
        cuts[cut] = low
