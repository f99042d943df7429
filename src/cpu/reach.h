// The output sites that input sites reach: candidates, to be sorted and made unique.
//
// A convolution joins u to c where u * stride - padding + offset = c: with q, r the quotient and the
// remainder of (c + padding) / stride, that is every offset with the same remainder, and
// u = q - (offset - r) / stride. Offsets are therefore grouped into classes by their remainders, and a
// site meets only those of its class. A transposed convolution (divide = 0) has one class,
// q = c * stride - padding, and u = q + offset.
#ifndef SPCY_CPU_REACH_H
#define SPCY_CPU_REACH_H

#include "common/key.h"

enum { SPCY_MAX_COLUMNS = 5 };

typedef struct {
    int columns, divide;
    const int64_t *low0, *shift0;            // layout of the input keys
    const int64_t *low1, *shift1;            // layout of the candidates' keys
    const int64_t *stride, *padding;         // (columns,)
    const int64_t *residue_ptr, *residues;   // the remainders that offsets have, by column
    const int64_t *class_ptr, *steps;        // of each class, the (columns,) steps from q to u
    const int64_t *step_low, *step_high;     // (columns,) over all steps
    const int64_t *out_low, *out_high;       // (columns,) first and last valid u
} spcy_reach;

// Write the candidates of input ranks [begin, end) to `out` (or only count them when it is NULL).
// A candidate equal to the one before it is left out: neighbours on the last axis often agree.
static inline int64_t spcy_reach_sites(const spcy_reach* reach, const uint64_t* keys, int64_t begin, int64_t end,
                                       uint64_t* out) {
    const int columns = reach->columns;
    int64_t count = 0;
    uint64_t last = SPCY_NO_KEY;
    for (int64_t i = begin; i < end; ++i) {
        int64_t quotient[SPCY_MAX_COLUMNS];
        int64_t group = 0;
        bool met = true, inside = true;
        for (int c = 0; c < columns; ++c) {
            const int64_t value = spcy_unpack(keys[i], reach->low0, reach->shift0, c);
            if (reach->divide) {
                const int64_t shifted = value + reach->padding[c], stride = reach->stride[c];
                int64_t q = shifted / stride, r = shifted % stride;
                if (r < 0) r += stride, --q;
                quotient[c] = q;
                const int64_t first = reach->residue_ptr[c], size = reach->residue_ptr[c + 1] - first;
                int64_t place = 0;
                while (place < size && reach->residues[first + place] != r) ++place;
                met = met && place < size;
                group = group * size + place;
            } else {
                quotient[c] = value * reach->stride[c] - reach->padding[c];
            }
            inside = inside && quotient[c] + reach->step_low[c] >= reach->out_low[c] &&
                     quotient[c] + reach->step_high[c] <= reach->out_high[c];
        }
        if (!met) continue;
        for (int64_t j = reach->class_ptr[group]; j < reach->class_ptr[group + 1]; ++j) {
            const int64_t* step = reach->steps + j * columns;
            uint64_t key = 0;
            bool valid = true;
            for (int c = 0; c < columns; ++c) {
                const int64_t u = quotient[c] + step[c];
                valid = valid && (inside || (u >= reach->out_low[c] && u <= reach->out_high[c]));
                key += (uint64_t)(u - reach->low1[c]) << reach->shift1[c];
            }
            if (!valid || key == last) continue;
            last = key;
            if (out) out[count] = key;
            ++count;
        }
    }
    return count;
}

#endif
