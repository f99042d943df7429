// The steps of building a rulebook, shared among threads by chunks of sites.
#ifndef SPCY_CPU_RULEBOOK_H
#define SPCY_CPU_RULEBOOK_H

#include <string.h>

#include "cpu/reach.h"
#include "cpu/team.h"
#include "cpu/walk.h"

enum { SPCY_SITES = SPCY_REACH_CHUNK };  // of a chunk

// What a walk of the first offsets finds, line by line.
typedef struct {
    const uint64_t *queries, *keys;         // (n_out,), (n_in + 1,) with a sentinel, both ascending
    const int64_t *line_first, *line_ptr;   // (n_lines,), (n_lines + 1,)
    int32_t* met;                           // (n_lines, n_out), where each query belongs among the keys
    int64_t n_out, n_in, n_lines, n_offsets;
} spcy_walk;

static inline void spcy_count_walked(const spcy_walk* walk, int64_t* counts, spcy_team team) {
    const spcy_walk w = *walk;
    spcy_parallel_rows(team, w.n_out, SPCY_SITES, [=](int64_t begin, int64_t end, int) {
        spcy_count_pairs(w.queries, w.keys, w.n_in, begin, end, w.line_first, w.line_ptr, w.n_lines, w.met, w.n_out,
                         counts + begin / SPCY_SITES * w.n_offsets);
    });
}

// `places` are (chunks, n_offsets); `ranks` (threads, 2, widest * (SPCY_SITES + 1)) and `tallies` (threads, widest)
// are scratch.
static inline void spcy_fill_walked(const spcy_walk* walk, const int64_t* places, const int32_t* in_order,
                                    const int32_t* out_order, int32_t* in_rows, int32_t* out_rows, int32_t* ranks,
                                    int64_t* tallies, int64_t widest, spcy_team team) {
    const spcy_walk w = *walk;
    spcy_parallel_rows(team, w.n_out, SPCY_SITES, [=](int64_t begin, int64_t end, int thread) {
        const int64_t stride = SPCY_SITES + 1;
        int32_t *sites = ranks + thread * 2 * widest * stride, *found = sites + widest * stride;
        int64_t* count = tallies + thread * widest;
        for (int64_t line = 0; line < w.n_lines; ++line) {
            const int64_t offset = w.line_ptr[line];
            const int width = (int)(w.line_ptr[line + 1] - offset);
            spcy_fill_pairs(w.queries, w.keys, begin, end, w.line_first[line], width, w.met + line * w.n_out, sites,
                            found, stride, count);
            for (int i = 0; i < width; ++i) {
                const int64_t place = places[begin / SPCY_SITES * w.n_offsets + offset + i];
                spcy_copy_rows(sites + i * stride, count[i], out_order, out_rows + place);
                spcy_copy_rows(found + i * stride, count[i], in_order, in_rows + place);
            }
        }
    });
}

// The sites that reach outputs, by chunks: each chunk's runs begin where its sites do.
typedef struct {
    const spcy_reach* plan;
    const uint64_t* keys;  // (n,)
    int64_t n;
    spcy_run* runs;     // (n,)
    int32_t* n_runs;    // (chunks,)
    int32_t* places;    // (n,)
    uint64_t* scratch;  // (threads, scratch_size)
    int64_t scratch_size, n_offsets;
} spcy_sites;

static inline void spcy_count_sites(const spcy_sites* all, int64_t* counts, int64_t* candidates, spcy_team team) {
    const spcy_sites s = *all;
    spcy_parallel_rows(team, s.n, SPCY_SITES, [=](int64_t begin, int64_t end, int thread) {
        const int64_t chunk = begin / SPCY_SITES;
        candidates[chunk] = spcy_count_reached(s.plan, s.keys + begin, end - begin, s.runs + begin, s.n_runs + chunk,
                                               s.places + begin, s.scratch + thread * s.scratch_size,
                                               counts + chunk * s.n_offsets);
    });
}

// `first` is where each chunk's candidates begin.
static inline void spcy_fill_candidates(const spcy_sites* all, const int64_t* first, uint64_t* blocks,
                                        uint64_t* cells, spcy_team team) {
    const spcy_sites s = *all;
    spcy_parallel_rows(team, s.n, SPCY_SITES, [=](int64_t begin, int64_t, int thread) {
        const int64_t chunk = begin / SPCY_SITES;
        spcy_fill_reached(s.plan, s.keys + begin, s.runs + begin, s.n_runs[chunk], s.places + begin,
                          s.scratch + thread * s.scratch_size, blocks + first[chunk], cells + first[chunk]);
    });
}

static inline void spcy_fill_site_pairs(const spcy_sites* all, const int64_t* first, const uint64_t* cells,
                                        const int32_t* ranks, const int32_t* order, int64_t* pairs, int32_t* in_rows,
                                        int32_t* out_rows, spcy_team team) {
    const spcy_sites s = *all;
    spcy_parallel_rows(team, s.n, SPCY_SITES, [=](int64_t begin, int64_t, int thread) {
        const int64_t chunk = begin / SPCY_SITES;
        spcy_fill_reached_pairs(s.plan, s.keys + begin, begin, s.runs + begin, s.n_runs[chunk], s.places + begin,
                                s.scratch + thread * s.scratch_size, cells + first[chunk], ranks + first[chunk], order,
                                pairs + chunk * s.n_offsets, in_rows, out_rows);
    });
}

static inline void spcy_merge_candidates(const uint64_t* blocks, const int32_t* order, int64_t n, uint64_t* cells,
                                         int64_t* counts, spcy_team team) {
    spcy_parallel_rows(team, n, SPCY_SITES, [=](int64_t begin, int64_t end, int) {
        counts[begin / SPCY_SITES] = spcy_merge_blocks(blocks, order, begin, end, n, cells);
    });
}

// `first` is the rank of each chunk's first output.
static inline void spcy_write_outputs(const uint64_t* blocks, const int32_t* order, int64_t n, const uint64_t* cells,
                                      const int64_t* first, const int64_t* low, const int64_t* shift, int columns,
                                      int32_t* ranks, uint64_t* keys, int32_t* indices, spcy_team team) {
    spcy_parallel_rows(team, n, SPCY_SITES, [=](int64_t begin, int64_t end, int) {
        spcy_fill_outputs(blocks, order, begin, end, n, cells, low, shift, columns, first[begin / SPCY_SITES], ranks,
                          keys, indices);
    });
}

// The pairs of the last offsets of a symmetric kernel are those of the first, swapped.
static inline void spcy_mirror_pairs(const int64_t* offset_ptr, int64_t n_offsets, int32_t* in_rows, int32_t* out_rows,
                                     spcy_team team) {
    spcy_parallel_for(team, n_offsets / 2, [=](int64_t k, int) {
        const int64_t source = offset_ptr[k], target = offset_ptr[n_offsets - 1 - k];
        const int64_t size = (offset_ptr[k + 1] - source) * (int64_t)sizeof(int32_t);
        memcpy(in_rows + target, out_rows + source, size);
        memcpy(out_rows + target, in_rows + source, size);
    });
}

// Where the pairs of each tile begin among those [begin, end) of an offset; ranks NULL: rows are ranks.
static inline void spcy_cut_offset(const int32_t* rows, const int32_t* ranks, int64_t begin, int64_t end,
                                   int64_t tile_size, int64_t* cuts, int64_t n_cuts) {
    int64_t low = begin;
    for (int64_t cut = 0; cut < n_cuts; ++cut) {
        // An output row occurs once under an offset, so a tile has at most tile_size pairs of it.
        const int64_t limit = cut * tile_size;
        int64_t size = cut == 0 ? 0 : end - low < tile_size ? end - low : tile_size;
        while (size > 0) {
            const int64_t half = size / 2, at = low + half;
            if ((ranks ? ranks[rows[at]] : rows[at]) < limit) {
                low = at + 1;
                size -= half + 1;
            } else {
                size = half;
            }
        }
        cuts[cut] = low;
    }
}

static inline void spcy_cut_tiles(const int32_t* rows, const int64_t* offset_ptr, int64_t n_offsets,
                                  const int32_t* ranks, int64_t tile_size, int64_t* tile_ptr, int64_t n_cuts,
                                  spcy_team team) {
    spcy_parallel_for(team, n_offsets, [=](int64_t k, int) {
        spcy_cut_offset(rows, ranks, offset_ptr[k], offset_ptr[k + 1], tile_size, tile_ptr + k * n_cuts, n_cuts);
    });
}

#endif
