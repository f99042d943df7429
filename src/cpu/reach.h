// The output sites that input sites reach, and the pairs between them.
//
// A convolution joins u to c where u * stride - padding + offset = c. With q and r the quotient and the
// remainder of (c + padding) / stride, those are the offsets with the same remainder, and
// u = q - (offset - r) / stride = q + step. A transposed convolution (divide = 0) has q = c * stride -
// padding, no remainders, and u = q + offset.
//
// Offsets that differ along the last axis only form a line. A site takes part in the lines whose
// remainders are its own on the other axes (its head), and there in the entries with its own remainder
// on the last axis (its tail).
//
// Sites are taken by runs: neighbours in key order that share all columns but the last, and whose
// quotients there lie in a window of 32. A line's steps span less than 32 too, so that what a run
// reaches along a line is a mask of 64 cells. Cut where output keys are multiples of 64, masks become
// candidates (block, cells of the block): the outputs are the union of the candidates of equal blocks.
#ifndef SPCY_CPU_REACH_H
#define SPCY_CPU_REACH_H

#include <string.h>

#include "common/key.h"
#include "cpu/bits.h"

enum { SPCY_MAX_COLUMNS = 5, SPCY_REACH_CHUNK = 1024, SPCY_WINDOW_BITS = 5, SPCY_WINDOW = 1 << SPCY_WINDOW_BITS };

// What is known of a column of the coordinates; an array of them comes as a matrix.
typedef struct {
    int64_t shift0, mask0, low0;  // its field in the input keys
    int64_t shift1, low1;         // its field in the output keys
    int64_t out_low, out_high;    // first and last valid output
    int64_t stride, padding;
} spcy_column;

typedef struct {
    int64_t columns, divide, n_heads, n_tails;
    const spcy_column* column;              // (columns,)
    const int64_t *residue_ptr, *residues;  // by column, the remainders that offsets have, ascending
    const int64_t* head_ids;                // (n_heads,) ascending: mixed-radix number of a head's remainders
    const int64_t* head_ptr;                // (n_heads + 1,) lines of a head
    const int64_t *head_low, *head_high;    // (n_heads, columns) bounds of a head's steps
    const int64_t* line_steps;              // (lines, columns) step of a line; the least one on the last axis
    const int64_t* line_spans;              // (lines,) how much further its greatest step is
    const int64_t* tail_ptr;                // (lines * n_tails + 1,) entries of a line and tail, ascending
    const int64_t* entry_steps;             // (entries,) step along the last axis, from the line's least
    const int64_t* entry_offsets;           // (entries,) kernel offset
} spcy_reach;

typedef struct {
    uint64_t base;         // key of the first site's quotients
    int32_t head;          // -1: reaches nothing
    uint32_t first : 10;   // site, from the chunk's first
    uint32_t size : 11;    // sites
    uint32_t extent : 10;  // the last site's quotient, from the first one's
    uint32_t edge : 1;     // some of its outputs may be no valid ones
} spcy_run;

static_assert(sizeof(spcy_run) == 16, "callers provide 16 bytes for each");

// Functions that go through all columns are compiled for each number of them.
#define SPCY_BY_COLUMNS(count, CALL) \
    switch (count) {                 \
        case 2: CALL(2); break;      \
        case 3: CALL(3); break;      \
        case 4: CALL(4); break;      \
        default: CALL(5);            \
    }

static inline void spcy_quotient(const spcy_reach* reach, int columns, uint64_t key, int64_t* quotient,
                                 int64_t* remainder) {
    for (int c = 0; c < columns; ++c) {
        const spcy_column column = reach->column[c];
        const int64_t value = (int64_t)(key >> column.shift0 & (uint64_t)column.mask0) + column.low0;
        if (!reach->divide) {
            quotient[c] = value * column.stride - column.padding;
            remainder[c] = 0;
            continue;
        }
        const int64_t shifted = value + column.padding;
        if (column.stride <= 2) {  // the usual ones; a division costs ten times as much
            quotient[c] = shifted >> (column.stride - 1);
            remainder[c] = shifted & (column.stride - 1);
        } else {
            quotient[c] = shifted / column.stride;
            remainder[c] = shifted % column.stride;
            if (remainder[c] < 0) remainder[c] += column.stride, --quotient[c];
        }
    }
}

// The place of a value in an ascending array, -1 if it is not there. Mostly all that are possible are.
static inline int64_t spcy_place(const int64_t* values, int64_t size, int64_t value) {
    if (value < size && values[value] == value) return value;
    int64_t place = 0;
    for (int64_t j = 0; j < size; ++j) place += values[j] < value;
    return place < size && values[place] == value ? place : -1;
}

static inline int64_t spcy_residue(const spcy_reach* reach, int c, int64_t remainder) {
    const int64_t first = reach->residue_ptr[c];
    return spcy_place(reach->residues + first, reach->residue_ptr[c + 1] - first, remainder);
}

static inline int32_t spcy_head(const spcy_reach* reach, int columns, const int64_t* remainder) {
    int64_t id = 0;
    for (int c = 0; c + 1 < columns; ++c) {
        const int64_t place = spcy_residue(reach, c, remainder[c]);
        if (place < 0) return -1;
        id = id * (reach->residue_ptr[c + 1] - reach->residue_ptr[c]) + place;
    }
    return (int32_t)spcy_place(reach->head_ids, reach->n_heads, id);
}

// Write a site's tail and its quotient from the first one's to places[site], -1 if it reaches nothing.
// Returns the number of runs.
template <int COLUMNS>
static inline int spcy_find_runs(const spcy_reach* reach, const uint64_t* keys, int64_t n_sites, spcy_run* runs,
                                 int32_t* places) {
    const int last = COLUMNS - 1;
    const int64_t stride = reach->column[last].stride;
    const uint64_t row_mask = (1ull << reach->column[last - 1].shift0) - 1;
    int n_runs = 0;
    for (int64_t i = 0; i < n_sites;) {
        int64_t quotient[SPCY_MAX_COLUMNS], remainder[SPCY_MAX_COLUMNS];
        spcy_quotient(reach, COLUMNS, keys[i], quotient, remainder);
        const int64_t cells = reach->divide ? SPCY_WINDOW * stride - remainder[last]
                                            : (SPCY_WINDOW - 1 + stride) / stride;
        const uint64_t row_end = (keys[i] | row_mask) + 1, stop = keys[i] + (uint64_t)cells;
        const uint64_t limit = stop < row_end ? stop : row_end;
        int64_t j = i, extent;
        do {
            const int64_t from = (int64_t)(keys[j] - keys[i]);
            int64_t tail = 0;
            if (!reach->divide) {
                extent = from * stride;
            } else if (stride <= 2) {
                extent = (from + remainder[last]) >> (stride - 1);
                tail = spcy_residue(reach, last, (from + remainder[last]) & (stride - 1));
            } else {
                extent = (from + remainder[last]) / stride;
                tail = spcy_residue(reach, last, (from + remainder[last]) % stride);
            }
            places[j] = tail < 0 ? -1 : (int32_t)(tail << SPCY_WINDOW_BITS | extent);
        } while (++j < n_sites && keys[j] < limit);

        const int32_t head = spcy_head(reach, COLUMNS, remainder);
        spcy_run run = {0, head, (uint32_t)i, (uint32_t)(j - i), (uint32_t)extent, 0};
        if (head >= 0) {
            const int64_t* low = reach->head_low + head * COLUMNS;
            const int64_t* high = reach->head_high + head * COLUMNS;
            for (int c = 0; c <= last; ++c) {
                const spcy_column column = reach->column[c];
                const int64_t end = quotient[c] + (c == last ? extent : 0);
                run.base += (uint64_t)(quotient[c] - column.low1) << column.shift1;
                run.edge |= (quotient[c] + low[c] < column.out_low) | (end + high[c] > column.out_high);
            }
        }
        runs[n_runs++] = run;
        i = j;
    }
    return n_runs;
}

// Sort runs by head, stably, and drop those that reach nothing. Returns how many are left.
static inline int spcy_sort_runs(const spcy_reach* reach, const spcy_run* runs, int n_runs, int32_t* starts,
                                 spcy_run* sorted) {
    memset(starts, 0, (reach->n_heads + 1) * sizeof(*starts));
    for (int j = 0; j < n_runs; ++j) ++starts[runs[j].head + 1];
    starts[0] = 0;
    for (int64_t h = 0; h < reach->n_heads; ++h) starts[h + 1] += starts[h];
    const int total = starts[reach->n_heads];
    for (int j = 0; j < n_runs; ++j)
        if (runs[j].head >= 0) sorted[starts[runs[j].head]++] = runs[j];
    return total;
}

// A chunk's runs, and what each thread needs to work on them.
typedef struct {
    const uint64_t* keys;     // of the chunk's sites
    const int32_t* places;    // of the chunk's sites
    const spcy_run* runs;     // sorted by head
    int n_runs;
    uint64_t* tails;                   // (n_tails, SPCY_REACH_CHUNK) by tail, a run's quotients from its first one
    uint64_t cells[SPCY_REACH_CHUNK];  // those that a run reaches along the line in hand
} spcy_chunk;

// Runs [begin, end) of one head. If `edge`, some of what they reach may be no valid outputs.
typedef struct {
    int begin, end;
    bool edge;
} spcy_group;

static inline spcy_group spcy_next_group(const spcy_chunk* chunk, int begin) {
    spcy_group group = {begin, begin, false};
    for (; group.end < chunk->n_runs && chunk->runs[group.end].head == chunk->runs[begin].head; ++group.end)
        group.edge = group.edge || chunk->runs[group.end].edge;
    return group;
}

static inline void spcy_fill_tails(const spcy_reach* reach, spcy_chunk* chunk, spcy_group group) {
    for (int64_t t = 0; t < reach->n_tails; ++t)
        memset(chunk->tails + t * SPCY_REACH_CHUNK + group.begin, 0, (group.end - group.begin) * sizeof(uint64_t));
    for (int j = group.begin; j < group.end; ++j) {
        const int32_t* place = chunk->places + chunk->runs[j].first;
        for (uint32_t i = 0; i < chunk->runs[j].size; ++i)
            if (place[i] >= 0)
                chunk->tails[(place[i] >> SPCY_WINDOW_BITS) * (int64_t)SPCY_REACH_CHUNK + j] |=
                    1ull << (place[i] & (SPCY_WINDOW - 1));
    }
}

// The cells of a line, seen from a run's first site, that are valid outputs.
static inline uint64_t spcy_valid_cells(const spcy_reach* reach, uint64_t key, int64_t line) {
    const int last = (int)reach->columns - 1;
    const int64_t* step = reach->line_steps + line * reach->columns;
    int64_t quotient[SPCY_MAX_COLUMNS], remainder[SPCY_MAX_COLUMNS];
    spcy_quotient(reach, (int)reach->columns, key, quotient, remainder);
    const spcy_column* column = reach->column;
    for (int c = 0; c < last; ++c)
        if (quotient[c] + step[c] < column[c].out_low || quotient[c] + step[c] > column[c].out_high) return 0;
    const int64_t from = column[last].out_low - quotient[last] - step[last];
    const int64_t to = column[last].out_high - quotient[last] - step[last];
    if (from > 63 || to < 0) return 0;
    return (~0ull << (from < 0 ? 0 : from)) & (~0ull >> (to > 63 ? 0 : 63 - to));
}

// Write the cells that runs reach along a line, valid or not.
static inline void spcy_fill_cells(const spcy_reach* reach, spcy_chunk* chunk, spcy_group group, int64_t line) {
    const int64_t* entry_ptr = reach->tail_ptr + line * reach->n_tails;
    memset(chunk->cells + group.begin, 0, (group.end - group.begin) * sizeof(uint64_t));
    for (int64_t t = 0; t < reach->n_tails; ++t)
        for (int64_t e = entry_ptr[t]; e < entry_ptr[t + 1]; ++e) {
            const uint64_t* tails = chunk->tails + t * SPCY_REACH_CHUNK;
            const int64_t step = reach->entry_steps[e];
            for (int j = group.begin; j < group.end; ++j) chunk->cells[j] |= tails[j] << step;
        }
}

// Write the valid cells that runs at an edge reach along a line. `counts` or NULL: take from each offset's
// pairs those that are not valid.
static inline void spcy_fill_edges(const spcy_reach* reach, spcy_chunk* chunk, spcy_group group, int64_t line,
                                   int64_t* counts) {
    const int64_t* entry_ptr = reach->tail_ptr + line * reach->n_tails;
    for (int j = group.begin; j < group.end && group.edge; ++j) {
        if (!chunk->runs[j].edge) continue;
        const int32_t* place = chunk->places + chunk->runs[j].first;
        const uint64_t valid = spcy_valid_cells(reach, chunk->keys[chunk->runs[j].first], line);
        chunk->cells[j] = 0;
        for (uint32_t i = 0; i < chunk->runs[j].size; ++i) {
            if (place[i] < 0) continue;
            const int64_t t = place[i] >> SPCY_WINDOW_BITS;
            for (int64_t e = entry_ptr[t]; e < entry_ptr[t + 1]; ++e) {
                const uint64_t cell = 1ull << ((place[i] & (SPCY_WINDOW - 1)) + reach->entry_steps[e]);
                chunk->cells[j] |= cell & valid;
                if (counts && !(cell & valid)) --counts[reach->entry_offsets[e]];
            }
        }
    }
}

// Numbers a chunk's candidates in the order in which its groups, lines and runs are visited; neighbouring
// runs mostly share a block.
struct spcy_candidates {
    int64_t count = 0;
    uint64_t last = SPCY_NO_KEY;

    // Call visit(run, key, skip, number, two) for a group's runs that reach something along a line: from cell
    // `skip` on, which has that key and lies in the candidate of that number. If `two`, what it reaches
    // goes on in the next block, which has the next number.
    template <typename Visit>
    SPCY_INLINE void each(const spcy_reach* reach, const spcy_chunk* chunk, spcy_group group, int64_t line,
                          Visit visit) {
        uint64_t shift = 0;
        for (int c = 0; c < reach->columns; ++c)
            shift += (uint64_t)reach->line_steps[line * reach->columns + c] << reach->column[c].shift1;
        for (int j = group.begin; j < group.end; ++j) {
            int skip = 0, extent = (int)(chunk->runs[j].extent + reach->line_spans[line]);
            if (chunk->runs[j].edge) {  // cells that are not valid may have no key
                if (!chunk->cells[j]) continue;
                skip = spcy_lowest(chunk->cells[j]);
                extent = spcy_highest(chunk->cells[j]) - skip;
            }
            const uint64_t key = chunk->runs[j].base + shift + (uint64_t)skip;
            const uint64_t first = key >> 6, final = (key + (uint64_t)extent) >> 6;
            count += first != last;
            const int64_t number = count - 1;
            count += final != first;
            last = final;
            visit(j, key, skip, number, final != first);
        }
    }
};

// How many 64-bit words of scratch a thread needs.
static inline int64_t spcy_reach_scratch(const spcy_reach* reach) {
    return reach->n_tails * SPCY_REACH_CHUNK + (reach->n_heads + reach->n_tails + 4) / 2;
}

// Find the runs of a chunk, count the pairs of each offset, and return the number of candidates.
static int64_t spcy_count_reached(const spcy_reach* reach, const uint64_t* keys, int64_t n_sites, spcy_run* runs,
                                  int32_t* n_runs, int32_t* places, uint64_t* scratch, int64_t* counts) {
    spcy_run found[SPCY_REACH_CHUNK];
    int32_t* starts = (int32_t*)(scratch + reach->n_tails * SPCY_REACH_CHUNK);
    int32_t* sizes = starts + reach->n_heads + 1;
    int n_found;
#define SPCY_FIND_RUNS(columns) n_found = spcy_find_runs<columns>(reach, keys, n_sites, found, places)
    SPCY_BY_COLUMNS(reach->columns, SPCY_FIND_RUNS)
    *n_runs = spcy_sort_runs(reach, found, n_found, starts, runs);
    spcy_chunk chunk = {keys, places, runs, *n_runs, scratch, {}};
    spcy_candidates candidates;
    for (spcy_group group = {0, 0, false}; group.end < chunk.n_runs;) {
        group = spcy_next_group(&chunk, group.end);
        memset(sizes, 0, (reach->n_tails + 1) * sizeof(*sizes));
        for (int j = group.begin; j < group.end; ++j)
            for (uint32_t i = runs[j].first, end = i + runs[j].size; i < end; ++i)
                ++sizes[(places[i] >> SPCY_WINDOW_BITS) + 1];  // those of no tail, -1, in sizes[0]
        const int32_t head = runs[group.begin].head;
        for (int64_t line = reach->head_ptr[head]; line < reach->head_ptr[head + 1]; ++line) {
            const int64_t* entry_ptr = reach->tail_ptr + line * reach->n_tails;
            for (int64_t t = 0; t < reach->n_tails; ++t)
                for (int64_t e = entry_ptr[t]; e < entry_ptr[t + 1]; ++e)
                    counts[reach->entry_offsets[e]] += sizes[t + 1];
            spcy_fill_edges(reach, &chunk, group, line, counts);
            candidates.each(reach, &chunk, group, line, [](int, uint64_t, int, int64_t, bool) SPCY_INLINED {});
        }
    }
    return candidates.count;
}

// Write the candidates: their blocks and cells.
static void spcy_fill_reached(const spcy_reach* reach, const uint64_t* keys, const spcy_run* runs, int32_t n_runs,
                              const int32_t* places, uint64_t* scratch, uint64_t* blocks, uint64_t* cells) {
    spcy_chunk chunk = {keys, places, runs, n_runs, scratch, {}};
    spcy_candidates candidates;
    int64_t written = 0;
    for (spcy_group group = {0, 0, false}; group.end < chunk.n_runs;) {
        group = spcy_next_group(&chunk, group.end);
        spcy_fill_tails(reach, &chunk, group);
        const int32_t head = runs[group.begin].head;
        for (int64_t line = reach->head_ptr[head]; line < reach->head_ptr[head + 1]; ++line) {
            spcy_fill_cells(reach, &chunk, group, line);
            spcy_fill_edges(reach, &chunk, group, line, NULL);
            candidates.each(
                reach, &chunk, group, line, [&](int run, uint64_t key, int skip, int64_t number, bool two) SPCY_INLINED {
                    const uint64_t mine = chunk.cells[run] >> skip;
                    const int bit = key & 63;
                    cells[number] = (number < written ? cells[number] : 0) | mine << bit;
                    blocks[number] = key >> 6;
                    written = number + 1;
                    if (two) {
                        cells[number + 1] = mine >> (64 - bit);
                        blocks[number + 1] = (key >> 6) + 1;
                        written = number + 2;
                    }
                });
        }
    }
}

// Write the pairs: rows of the inputs, and ranks of the outputs. `cells` and `ranks` are, by candidate,
// the outputs in its block and the rank of the first one.
SPCY_BIT_CLONES
static void spcy_fill_reached_pairs(const spcy_reach* reach, const uint64_t* keys, int64_t first_site,
                                    const spcy_run* runs, int32_t n_runs, const int32_t* places, uint64_t* scratch,
                                    const uint64_t* cells, const int32_t* ranks, const int32_t* order,
                                    int64_t* pairs, int32_t* in_rows, int32_t* out_rows) {
    struct {
        uint64_t cells;  // the outputs along the line in hand, from its cell 0 on
        int64_t rank;    // of the first
    } outputs[SPCY_REACH_CHUNK];
    int32_t rows[SPCY_REACH_CHUNK];    // a group's sites by tail
    uint16_t slots[SPCY_REACH_CHUNK];  // their runs, and their quotients from the run's first one
    int32_t* starts = (int32_t*)(scratch + reach->n_tails * SPCY_REACH_CHUNK);
    spcy_chunk chunk = {keys, places, runs, n_runs, scratch, {}};
    spcy_candidates candidates;
    for (spcy_group group = {0, 0, false}; group.end < chunk.n_runs;) {
        group = spcy_next_group(&chunk, group.end);
        // starts[t + 1]: where the sites of tail t begin, and once they are listed, where they end.
        memset(starts, 0, (reach->n_tails + 2) * sizeof(*starts));
        for (int j = group.begin; j < group.end; ++j)
            for (uint32_t i = runs[j].first, end = i + runs[j].size; i < end; ++i)
                if (places[i] >= 0) ++starts[(places[i] >> SPCY_WINDOW_BITS) + 2];
        for (int64_t t = 0; t < reach->n_tails; ++t) starts[t + 2] += starts[t + 1];
        for (int j = group.begin; j < group.end; ++j)
            for (uint32_t i = runs[j].first, end = i + runs[j].size; i < end; ++i) {
                if (places[i] < 0) continue;
                const int32_t to = starts[(places[i] >> SPCY_WINDOW_BITS) + 1]++;
                rows[to] = (int32_t)(first_site + i);
                slots[to] = (uint16_t)(j << SPCY_WINDOW_BITS | (places[i] & (SPCY_WINDOW - 1)));
            }
        if (order)
            for (int32_t j = 0; j < starts[reach->n_tails]; ++j) rows[j] = order[rows[j]];
        const int32_t head = runs[group.begin].head;
        for (int64_t line = reach->head_ptr[head]; line < reach->head_ptr[head + 1]; ++line) {
            spcy_fill_edges(reach, &chunk, group, line, NULL);
            candidates.each(
                reach, &chunk, group, line, [&](int run, uint64_t key, int skip, int64_t number, bool two) SPCY_INLINED {
                    const int bit = key & 63;
                    const uint64_t more = two ? cells[number + 1] << (64 - bit) : 0;
                    outputs[run].cells = (cells[number] >> bit | more) << skip;
                    outputs[run].rank = ranks[number] + spcy_popcount(cells[number] & ((1ull << bit) - 1));
                });
            const int64_t* entry_ptr = reach->tail_ptr + line * reach->n_tails;
            for (int64_t t = 0; t < reach->n_tails; ++t)
                for (int64_t e = entry_ptr[t]; e < entry_ptr[t + 1]; ++e) {
                    const int64_t step = reach->entry_steps[e];
                    int32_t* in = in_rows + pairs[reach->entry_offsets[e]];
                    int32_t* out = out_rows + pairs[reach->entry_offsets[e]];
                    int64_t count = 0;
                    for (int32_t j = starts[t]; j < starts[t + 1]; ++j) {
                        const int64_t run = slots[j] >> SPCY_WINDOW_BITS;
                        const int64_t cell = (slots[j] & (SPCY_WINDOW - 1)) + step;
                        if (group.edge && runs[run].edge && !(chunk.cells[run] >> cell & 1)) continue;
                        in[count] = rows[j];
                        out[count] = (int32_t)(outputs[run].rank +
                                               spcy_popcount(outputs[run].cells & ((1ull << cell) - 1)));
                        ++count;
                    }
                    pairs[reach->entry_offsets[e]] += count;
                }
        }
    }
}

// The union of the candidates of each block that begins in [begin, end) of the sorted blocks, written to all
// of them. Returns how many outputs those have.
SPCY_BIT_CLONES
static int64_t spcy_merge_blocks(const uint64_t* blocks, const int32_t* order, int64_t begin, int64_t end, int64_t n,
                                 uint64_t* cells) {
    int64_t count = 0;
    while (begin > 0 && begin < end && blocks[begin] == blocks[begin - 1]) ++begin;
    for (int64_t j = begin, next; j < end; j = next) {
        uint64_t all = cells[order[j]];
        for (next = j + 1; next < n && blocks[next] == blocks[j]; ++next) all |= cells[order[next]];
        for (int64_t i = j; i < next; ++i) cells[order[i]] = all;
        count += spcy_popcount(all);
    }
    return count;
}

// Write the outputs of those blocks, their keys and coordinates, and to each candidate the rank of its
// block's first one. The rank of the first of them all is given.
template <int COLUMNS>
static inline void spcy_fill_blocks(const uint64_t* blocks, const int32_t* order, int64_t begin, int64_t end, int64_t n,
                                    const uint64_t* cells, const int64_t* low, const int64_t* shift, int64_t rank,
                                    int32_t* ranks, uint64_t* keys, int32_t* indices) {
    const bool in_row = shift[COLUMNS - 2] >= 6;  // a block's cells differ on the last axis only
    while (begin > 0 && begin < end && blocks[begin] == blocks[begin - 1]) ++begin;
    for (int64_t j = begin, next; j < end; j = next) {
        for (next = j; next < n && blocks[next] == blocks[j]; ++next) ranks[order[next]] = (int32_t)rank;
        const uint64_t first = blocks[j] << 6;
        int32_t index[COLUMNS];
        for (int c = 0; c < COLUMNS; ++c) index[c] = (int32_t)spcy_unpack(first, low, shift, c);
        const int64_t start = spcy_unpack(first, low, shift, COLUMNS - 1);  // may lie below int32
        for (uint64_t left = cells[order[j]]; left; left &= left - 1, ++rank) {
            const int cell = spcy_lowest(left);
            keys[rank] = first + (uint64_t)cell;
            index[COLUMNS - 1] = (int32_t)(start + cell);
            if (!in_row)
                for (int c = 0; c < COLUMNS; ++c) index[c] = (int32_t)spcy_unpack(keys[rank], low, shift, c);
            for (int c = 0; c < COLUMNS; ++c) indices[rank * COLUMNS + c] = index[c];
        }
    }
}

static void spcy_fill_outputs(const uint64_t* blocks, const int32_t* order, int64_t begin, int64_t end, int64_t n,
                              const uint64_t* cells, const int64_t* low, const int64_t* shift, int columns,
                              int64_t rank, int32_t* ranks, uint64_t* keys, int32_t* indices) {
#define SPCY_FILL_BLOCKS(columns) \
    spcy_fill_blocks<columns>(blocks, order, begin, end, n, cells, low, shift, rank, ranks, keys, indices)
    SPCY_BY_COLUMNS(columns, SPCY_FILL_BLOCKS)
}

#endif
