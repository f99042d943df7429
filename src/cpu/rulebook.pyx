"""Count the pairs of each kernel offset, then fill them in, in the order (offset, output key)."""

from libc.stdint cimport int32_t, int64_t, uint64_t

from spcy._cpu.threads cimport spcy_team, team

cdef extern from "cpu/rulebook.h" nogil:
    cdef enum:
        SPCY_SITES
    ctypedef struct spcy_walk:
        const uint64_t* queries
        const uint64_t* keys
        const int64_t* line_first
        const int64_t* line_ptr
        int32_t* met
        int64_t n_out
        int64_t n_in
        int64_t n_lines
        int64_t n_offsets
    void spcy_count_walked(const spcy_walk* walk, int64_t* counts, spcy_team team) noexcept
    void spcy_fill_walked(
        const spcy_walk* walk, const int64_t* places, const int32_t* in_order, const int32_t* out_order,
        int32_t* in_rows, int32_t* out_rows, int32_t* ranks, int64_t* tallies, int64_t widest, spcy_team team,
    ) noexcept
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
    ctypedef struct spcy_sites:
        const spcy_reach* plan
        const uint64_t* keys
        int64_t n
        spcy_run* runs
        int32_t* n_runs
        int32_t* places
        uint64_t* scratch
        int64_t scratch_size
        int64_t n_offsets
    int64_t spcy_reach_scratch(const spcy_reach* reach) noexcept
    void spcy_count_sites(
        const spcy_sites* all, int64_t* counts, int64_t* candidates, spcy_team team
    ) noexcept
    void spcy_fill_candidates(
        const spcy_sites* all, const int64_t* first, uint64_t* blocks, uint64_t* cells, spcy_team team
    ) noexcept
    void spcy_fill_site_pairs(
        const spcy_sites* all, const int64_t* first, const uint64_t* cells, const int32_t* ranks,
        const int32_t* order, int64_t* pairs, int32_t* in_rows, int32_t* out_rows, spcy_team team,
    ) noexcept
    void spcy_merge_candidates(
        const uint64_t* blocks, const int32_t* order, int64_t n, uint64_t* cells, int64_t* counts,
        spcy_team team,
    ) noexcept
    void spcy_write_outputs(
        const uint64_t* blocks, const int32_t* order, int64_t n, const uint64_t* cells, const int64_t* first,
        const int64_t* low, const int64_t* shift, int columns, int32_t* ranks, uint64_t* keys,
        int32_t* indices, spcy_team team,
    ) noexcept
    void spcy_mirror_pairs(
        const int64_t* offset_ptr, int64_t n_offsets, int32_t* in_rows, int32_t* out_rows, spcy_team team
    ) noexcept
    void spcy_cut_tiles(
        const int32_t* rows, const int64_t* offset_ptr, int64_t n_offsets, const int32_t* ranks,
        int64_t tile_size, int64_t* tile_ptr, int64_t n_cuts, spcy_team team,
    ) noexcept

CHUNK = SPCY_SITES  # sites walked at a time: the ranks of a line's pairs stay in the first-level cache


cdef spcy_walk _walk(
    const uint64_t[::1] queries, const uint64_t[::1] keys, const int64_t[::1] line_first,
    const int64_t[::1] line_ptr, const int32_t[:, ::1] met, int64_t n_offsets,
) noexcept nogil:
    cdef spcy_walk walk
    walk.queries, walk.keys = &queries[0], &keys[0]
    walk.line_first, walk.line_ptr, walk.met = &line_first[0], &line_ptr[0], <int32_t*>&met[0, 0]
    walk.n_out, walk.n_in = met.shape[1], keys.shape[0] - 1
    walk.n_lines, walk.n_offsets = line_first.shape[0], n_offsets
    return walk


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
    cdef spcy_walk walk = _walk(queries, keys, line_first, line_ptr, met, counts.shape[1])
    with nogil:
        spcy_count_walked(&walk, &counts[0, 0], team(n_threads))


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
    cdef spcy_walk walk = _walk(queries, keys, line_first, line_ptr, met, places.shape[1])
    cdef const int32_t* in_row = &in_order[0] if in_order is not None else NULL
    cdef const int32_t* out_row = &out_order[0] if out_order is not None else NULL
    with nogil:
        spcy_fill_walked(
            &walk, &places[0, 0], in_row, out_row, &in_rows[0], &out_rows[0], &ranks[0, 0, 0], &counts[0, 0],
            counts.shape[1], team(n_threads),
        )


cdef class Reach:
    """Which output sites input sites reach: the plan that the functions below carry out, step by step."""

    cdef spcy_reach plan
    cdef tuple arrays  # what the plan points into
    cdef spcy_sites sites  # without the keys

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
            tail_ptr, entry_steps, entry_offsets, runs, n_runs, places,
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
        self.sites.plan = plan
        self.sites.runs = <spcy_run*>&runs[0, 0]
        self.sites.n_runs, self.sites.places = &n_runs[0], &places[0]

    @property
    def scratch_size(self):
        """How many uint64 each thread needs as scratch."""
        return spcy_reach_scratch(&self.plan)

    cdef spcy_sites with_keys(
        self, const uint64_t[::1] keys, uint64_t[:, ::1] scratch, int64_t n_offsets
    ) noexcept:
        cdef spcy_sites sites = self.sites
        sites.keys, sites.n, sites.n_offsets = &keys[0], keys.shape[0], n_offsets
        sites.scratch, sites.scratch_size = &scratch[0, 0], scratch.shape[1]
        return sites


def count_reached(
    Reach reach,
    const uint64_t[::1] keys,  # IN
    uint64_t[:, ::1] scratch,  # (n_threads, scratch_size)
    int64_t[:, ::1] counts,  # INOUT, (chunks, offsets), zeros
    int64_t[::1] candidates,  # OUT, (chunks,)
    int n_threads,
):
    """Write how many pairs each offset has, and how many candidates for outputs there are, by chunk."""
    cdef spcy_sites sites = reach.with_keys(keys, scratch, counts.shape[1])
    with nogil:
        spcy_count_sites(&sites, &counts[0, 0], &candidates[0], team(n_threads))


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
    cdef spcy_sites sites = reach.with_keys(keys, scratch, 0)
    with nogil:
        spcy_fill_candidates(&sites, &places[0], &blocks[0], &cells[0], team(n_threads))


def merge_blocks(
    const uint64_t[::1] blocks,  # IN, ascending
    const int32_t[::1] order,  # IN, the candidate at each sorted place
    uint64_t[::1] cells,  # INOUT, by candidate: what it reaches, then all outputs in its block
    int64_t[::1] counts,  # OUT, outputs by chunk
    int n_threads,
):
    """Unite the candidates of each block, and count the outputs."""
    with nogil:
        spcy_merge_candidates(
            &blocks[0], &order[0], blocks.shape[0], &cells[0], &counts[0], team(n_threads)
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
    cdef int32_t* index = &indices[0, 0] if indices.shape[0] else NULL
    with nogil:
        spcy_write_outputs(
            &blocks[0], &order[0], blocks.shape[0], &cells[0], &places[0], &low[0], &shift[0],
            <int>indices.shape[1], &ranks[0], &keys[0], index, team(n_threads),
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
    cdef spcy_sites sites = reach.with_keys(keys, scratch, places.shape[1])
    cdef const int32_t* rows = &order[0] if order is not None else NULL
    with nogil:
        spcy_fill_site_pairs(
            &sites, &candidate_places[0], &cells[0], &ranks[0], rows, &places[0, 0], &in_rows[0],
            &out_rows[0], team(n_threads),
        )


def mirror_pairs(
    const int64_t[::1] offset_ptr,  # IN
    int32_t[::1] in_rows,  # INOUT
    int32_t[::1] out_rows,  # INOUT
    int n_threads,
):
    """Write the pairs of the last offsets of a symmetric kernel: those of the first, swapped."""
    with nogil:
        spcy_mirror_pairs(
            &offset_ptr[0], offset_ptr.shape[0] - 1, &in_rows[0], &out_rows[0], team(n_threads)
        )


def cut_tiles(
    const int32_t[::1] out_rows,  # IN
    const int64_t[::1] offset_ptr,  # IN
    const int32_t[::1] rank,  # IN or None, rank of each output row
    Py_ssize_t tile_size,
    int64_t[:, ::1] tile_ptr,  # OUT, (offsets, tiles + 1)
    int n_threads,
):
    """Write where the pairs of each tile of output ranks begin, under each offset."""
    cdef const int32_t* rows = &out_rows[0] if out_rows.shape[0] else NULL
    cdef const int32_t* ranks = &rank[0] if rank is not None and rank.shape[0] else NULL
    with nogil:
        spcy_cut_tiles(
            rows, &offset_ptr[0], tile_ptr.shape[0], ranks, tile_size, &tile_ptr[0, 0], tile_ptr.shape[1],
            team(n_threads),
        )
