// The output sites that input sites reach, and the pairs between them.
//
// A convolution joins u to c where u * stride - padding + offset = c. With q and r the quotient and the
// remainder of (c + padding) / stride, those are the offsets with the same remainder, and
// u = q - (offset - r) / stride = q + step. A transposed convolution (divide = 0) has q = c * stride -
// padding, no remainders, and u = q + offset.
//
// Offsets that differ along the last axis only form a line. A site takes part in the lines whose
// remainders are its own on the other axes (its head), and there in the entries with its own remainder
// on the last axis (its tail). Along a line the sites' outputs ascend with the sites, so equal ones
// follow each other.
#ifndef SPCY_CPU_REACH_H
#define SPCY_CPU_REACH_H

#include "common/key.h"

enum { SPCY_MAX_COLUMNS = 5, SPCY_REACH_CHUNK = 1024 };

typedef struct {
    int64_t columns, divide, n_heads, n_tails;
    const int64_t *low0, *shift0;           // layout of the input keys
    const int64_t *low1, *shift1;           // layout of the output keys
    const int64_t *stride, *padding;        // (columns,)
    const int64_t *residue_ptr, *residues;  // by column, the remainders that offsets have
    const int64_t* head_ids;                // (n_heads,) ascending: mixed-radix number of a head's remainders
    const int64_t* head_ptr;                // (n_heads + 1,) lines of a head
    const int64_t* line_steps;              // (lines, columns) step of a line; 0 on the last axis
    const int64_t* tail_ptr;                // (lines * n_tails + 1,) entries of a line and tail, ascending
    const int64_t* entry_steps;             // (entries,) step along the last axis
    const int64_t* entry_offsets;           // (entries,) kernel offset
    const int64_t *step_low, *step_high;    // (columns,) over all steps
    const int64_t *out_low, *out_high;      // (columns,) first and last valid output
} spcy_reach;

// What is known of each input site: the key of q, and head * n_tails + tail, -1 if it reaches nothing,
// with a flag if some of its outputs may lie outside the grid.
enum { SPCY_EDGE = 1 << 30 };

static inline void spcy_quotient(const spcy_reach* reach, uint64_t key, int64_t* quotient, int64_t* remainder) {
    for (int c = 0; c < reach->columns; ++c) {
        const int64_t value = spcy_unpack(key, reach->low0, reach->shift0, c), stride = reach->stride[c];
        if (!reach->divide) {
            quotient[c] = value * stride - reach->padding[c];
            remainder[c] = 0;
            continue;
        }
        const int64_t shifted = value + reach->padding[c];
        if (stride == 2) {  // the usual one; a division costs ten times as much
            quotient[c] = shifted >> 1;
            remainder[c] = shifted & 1;
        } else {
            quotient[c] = shifted / stride;
            remainder[c] = shifted % stride;
            if (remainder[c] < 0) remainder[c] += stride, --quotient[c];
        }
    }
}

static inline void spcy_classify(const spcy_reach* reach, const uint64_t* keys, int64_t begin, int64_t end,
                                 uint64_t* base, int32_t* code) {
    const int last = (int)reach->columns - 1;
    for (int64_t i = begin; i < end; ++i) {
        int64_t quotient[SPCY_MAX_COLUMNS], remainder[SPCY_MAX_COLUMNS], id = 0, tail = 0;
        bool met = true, inside = true;
        spcy_quotient(reach, keys[i], quotient, remainder);
        base[i] = 0;
        for (int c = 0; c <= last; ++c) {
            const int64_t first = reach->residue_ptr[c], size = reach->residue_ptr[c + 1] - first;
            int64_t place = 0;
            for (int64_t j = 0; j < size; ++j) place += reach->residues[first + j] < remainder[c];
            met = met && place < size && reach->residues[first + place] == remainder[c];
            if (c < last)
                id = id * size + place;
            else
                tail = place;
            inside = inside && quotient[c] + reach->step_low[c] >= reach->out_low[c] &&
                     quotient[c] + reach->step_high[c] <= reach->out_high[c];
            base[i] += (uint64_t)(quotient[c] - reach->low1[c]) << reach->shift1[c];
        }
        int64_t head = 0;
        for (int64_t h = 0; h < reach->n_heads; ++h) head += reach->head_ids[h] < id;
        met = met && head < reach->n_heads && reach->head_ids[head] == id;
        code[i] = met ? (int32_t)(head * reach->n_tails + tail) | (inside ? 0 : SPCY_EDGE) : -1;
    }
}

static inline bool spcy_valid(const spcy_reach* reach, uint64_t key, const int64_t* line_step, int64_t tail_step) {
    int64_t quotient[SPCY_MAX_COLUMNS], remainder[SPCY_MAX_COLUMNS];
    bool valid = true;
    spcy_quotient(reach, key, quotient, remainder);
    quotient[reach->columns - 1] += tail_step;
    for (int c = 0; c < reach->columns; ++c) {
        const int64_t u = quotient[c] + line_step[c];
        valid = valid && u >= reach->out_low[c] && u <= reach->out_high[c];
    }
    return valid;
}

// Call visit(site, output key, kernel offset) for all pairs of a chunk, line by line, and line(first key)
// before each line. `starts` has n_heads + 1 places.
template <typename Line, typename Visit>
static inline void spcy_each_pair(const spcy_reach* reach, const uint64_t* keys, const uint64_t* base,
                                  const int32_t* code, int64_t begin, int64_t end, int32_t* starts, Line line,
                                  Visit visit) {
    uint16_t sites[SPCY_REACH_CHUNK];
    for (int64_t h = 0; h <= reach->n_heads; ++h) starts[h] = 0;
    for (int64_t i = begin; i < end; ++i)
        if (code[i] >= 0) ++starts[(code[i] & ~SPCY_EDGE) / reach->n_tails];
    int32_t total = 0;
    for (int64_t h = 0; h <= reach->n_heads; ++h) {
        const int32_t size = starts[h];
        starts[h] = total;
        total += size;
    }
    for (int64_t i = begin; i < end; ++i)
        if (code[i] >= 0) sites[starts[(code[i] & ~SPCY_EDGE) / reach->n_tails]++] = (uint16_t)(i - begin);

    for (int64_t h = 0; h < reach->n_heads; ++h) {  // starts[h] is now where head h ends
        const int32_t first = h ? starts[h - 1] : 0;
        for (int64_t l = reach->head_ptr[h]; l < reach->head_ptr[h + 1]; ++l) {
            const int64_t* step = reach->line_steps + l * reach->columns;
            const int64_t* tails = reach->tail_ptr + l * reach->n_tails - h * reach->n_tails;
            uint64_t shift = 0;
            for (int c = 0; c < reach->columns; ++c) shift += (uint64_t)step[c] << reach->shift1[c];
            line();
            for (int32_t j = first; j < starts[h]; ++j) {
                const int64_t i = begin + sites[j];
                const int32_t at = code[i] & ~SPCY_EDGE;
                for (int64_t e = tails[at]; e < tails[at + 1]; ++e) {
                    if ((code[i] & SPCY_EDGE) && !spcy_valid(reach, keys[i], step, reach->entry_steps[e])) continue;
                    visit(i, base[i] + shift + (uint64_t)reach->entry_steps[e], reach->entry_offsets[e]);
                }
            }
        }
    }
}

// Numbers the candidates for outputs in the order of spcy_each_pair. Along a line, neighbouring sites
// mostly agree on an output: it is a new candidate only if it is neither of the two before it.
struct spcy_candidates {
    int64_t count = 0;
    uint64_t last = SPCY_NO_KEY, before = SPCY_NO_KEY;

    void start_line() { last = before = SPCY_NO_KEY; }

    // The candidate's number.
    int64_t number(uint64_t key) {
        if (key == last) return count - 1;
        if (key == before) return count - 2;
        before = last;
        last = key;
        return count++;
    }
};

// Classify the sites of a chunk, count the pairs of each offset, and return the number of candidates.
static inline int64_t spcy_count_reached(const spcy_reach* reach, const uint64_t* keys, int64_t begin, int64_t end,
                                         uint64_t* base, int32_t* code, int32_t* starts, int64_t* counts) {
    spcy_candidates seen;
    spcy_classify(reach, keys, begin, end, base, code);
    spcy_each_pair(
        reach, keys, base, code, begin, end, starts, [&] { seen.start_line(); },
        [&](int64_t, uint64_t key, int64_t offset) {
            ++counts[offset];
            seen.number(key);
        });
    return seen.count;
}

// Write the candidates' keys.
static inline void spcy_fill_reached(const spcy_reach* reach, const uint64_t* keys, const uint64_t* base,
                                     const int32_t* code, int64_t begin, int64_t end, int32_t* starts,
                                     uint64_t* candidates) {
    spcy_candidates seen;
    spcy_each_pair(
        reach, keys, base, code, begin, end, starts, [&] { seen.start_line(); },
        [&](int64_t, uint64_t key, int64_t) { candidates[seen.number(key)] = key; });
}

// Write the pairs: rows of the inputs, and the ranks that the candidates got among the outputs.
static inline void spcy_fill_reached_pairs(const spcy_reach* reach, const uint64_t* keys, const uint64_t* base,
                                           const int32_t* code, int64_t begin, int64_t end, int32_t* starts,
                                           const int32_t* ranks, const int32_t* order, int64_t* places,
                                           int32_t* in_rows, int32_t* out_rows) {
    spcy_candidates seen;
    spcy_each_pair(
        reach, keys, base, code, begin, end, starts, [&] { seen.start_line(); },
        [&](int64_t i, uint64_t key, int64_t offset) {
            const int64_t pair = places[offset]++;
            in_rows[pair] = order ? order[i] : (int32_t)i;
            out_rows[pair] = ranks[seen.number(key)];
        });
}

#endif
