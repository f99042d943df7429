// Keys of sites, sorted and grouped, and the cells of points: rows shared among threads.
#ifndef SPCY_CPU_COORDS_H
#define SPCY_CPU_COORDS_H

#include <math.h>

#include <algorithm>
#include <atomic>

#include "common/key.h"
#include "cpu/radix.h"
#include "cpu/team.h"

enum { SPCY_COORDS_CHUNK = 4096 };  // rows that a thread takes at a time, and that one value is written for

// The least and the greatest value of each column, of each chunk: (chunks, 2, columns), in the first of all rows.
static inline void spcy_bounds(const int32_t* indices, int64_t rows, int columns, int32_t* found, spcy_team team) {
    spcy_parallel_rows(team, rows, SPCY_COORDS_CHUNK, [=](int64_t begin, int64_t end, int) {
        int32_t *low = found + begin / SPCY_COORDS_CHUNK * 2 * columns, *high = low + columns;
        for (int c = 0; c < columns; ++c) low[c] = high[c] = indices[begin * columns + c];
        for (int64_t i = begin; i < end; ++i)
            for (int c = 0; c < columns; ++c) {
                low[c] = std::min(low[c], indices[i * columns + c]);
                high[c] = std::max(high[c], indices[i * columns + c]);
            }
    });
    for (int64_t begin = SPCY_COORDS_CHUNK; begin < rows; begin += SPCY_COORDS_CHUNK)
        for (int c = 0; c < columns; ++c) {
            const int32_t* low = found + begin / SPCY_COORDS_CHUNK * 2 * columns;
            found[c] = std::min(found[c], low[c]);
            found[columns + c] = std::max(found[columns + c], low[columns + c]);
        }
}

static inline void spcy_pack_rows(const int32_t* indices, int64_t rows, int columns, const int64_t* low,
                                  const int64_t* shift, uint64_t* keys, spcy_team team) {
    spcy_parallel_rows(team, rows, SPCY_COORDS_CHUNK, [=](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) keys[i] = spcy_pack(indices + i * columns, low, shift, columns);
    });
}

static inline void spcy_pack_rows_inside(const int32_t* indices, int64_t rows, int columns, const int64_t* low,
                                         const int64_t* high, const int64_t* shift, uint64_t* keys, spcy_team team) {
    spcy_parallel_rows(team, rows, SPCY_COORDS_CHUNK, [=](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
            const int32_t* index = indices + i * columns;
            bool inside = true;
            for (int c = 0; c < columns; ++c) inside = inside && low[c] <= index[c] && index[c] <= high[c];
            keys[i] = inside ? spcy_pack(index, low, shift, columns) : SPCY_NO_KEY;
        }
    });
}

static inline void spcy_unpack_rows(const uint64_t* keys, int64_t rows, int columns, const int64_t* low,
                                    const int64_t* shift, int32_t* indices, spcy_team team) {
    spcy_parallel_rows(team, rows, SPCY_COORDS_CHUNK, [=](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i)
            for (int c = 0; c < columns; ++c) indices[i * columns + c] = (int32_t)spcy_unpack(keys[i], low, shift, c);
    });
}

static inline void spcy_repack_rows(const uint64_t* keys, int64_t rows, const int64_t* low0, const int64_t* shift0,
                                    const int64_t* low1, const int64_t* shift1, int columns, uint64_t* out,
                                    spcy_team team) {
    spcy_parallel_rows(team, rows, SPCY_COORDS_CHUNK, [=](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) out[i] = spcy_repack(keys[i], low0, shift0, low1, shift1, columns);
    });
}

// How many keys are not greater than the one before.
static inline int64_t spcy_count_descents(const uint64_t* keys, int64_t rows, spcy_team team) {
    std::atomic<int64_t> total{0};
    spcy_parallel_rows(team, rows, SPCY_COORDS_CHUNK, [keys, &total](int64_t begin, int64_t end, int) {
        int64_t count = 0;
        for (int64_t i = begin > 0 ? begin : 1; i < end; ++i) count += keys[i] <= keys[i - 1];
        total.fetch_add(count, std::memory_order_relaxed);
    });
    return total.load(std::memory_order_relaxed);
}

// Sort keys of `bits` bits by passes over their digits, each in `parts` parts, whose counts stand in
// (parts, 2**digit_bits). Returns whether the result ended in the spare arrays.
static inline bool spcy_sort(uint64_t* keys, int64_t n, int32_t* rows, uint64_t* spare_keys, int32_t* spare_rows,
                             int64_t* counts, int parts, int bits, int digit_bits, spcy_team team) {
    const int passes = (bits + digit_bits - 1) / digit_bits;
    const uint64_t* source = keys;
    uint64_t* target = spare_keys;
    const int32_t* source_rows = nullptr;
    int32_t *target_rows = spare_rows, *other_rows = rows;
    for (int pass = 0; pass < passes; ++pass) {
        const int shift = pass * digit_bits;
        spcy_parallel_for(team, parts, [=](int64_t part, int) {
            spcy_histogram(source, n * part / parts, n * (part + 1) / parts, shift, digit_bits,
                           counts + (part << digit_bits));
        });
        spcy_digit_places(counts, parts, digit_bits);
        spcy_parallel_for(team, parts, [=](int64_t part, int) {
            spcy_scatter(source, source_rows, n * part / parts, n * (part + 1) / parts, shift, digit_bits,
                         counts + (part << digit_bits), target, target_rows);
        });
        source = target;
        target = target == keys ? spare_keys : keys;
        source_rows = target_rows;
        std::swap(target_rows, other_rows);
    }
    return passes % 2;
}

// How many sorted keys of each chunk differ from the one before them.
static inline void spcy_count_runs(const uint64_t* keys, int64_t rows, int64_t* counts, spcy_team team) {
    spcy_parallel_rows(team, rows, SPCY_COORDS_CHUNK, [=](int64_t begin, int64_t end, int) {
        int64_t count = begin == 0;
        for (int64_t i = begin > 0 ? begin : 1; i < end; ++i) count += keys[i] != keys[i - 1];
        counts[begin / SPCY_COORDS_CHUNK] = count;
    });
}

// Where each run of equal keys begins, and its key; chunk_ptr is the first run of each chunk.
static inline void spcy_fill_runs(const uint64_t* keys, int64_t rows, const int64_t* chunk_ptr, int64_t* starts,
                                  uint64_t* unique, spcy_team team) {
    spcy_parallel_rows(team, rows, SPCY_COORDS_CHUNK, [=](int64_t begin, int64_t end, int) {
        int64_t run = chunk_ptr[begin / SPCY_COORDS_CHUNK];
        for (int64_t i = begin; i < end; ++i)
            if (i == 0 || keys[i] != keys[i - 1]) {
                starts[run] = i;
                unique[run++] = keys[i];
            }
    });
}

static inline void spcy_spread_runs(const int64_t* starts, int64_t runs, const int32_t* order, int32_t* rows,
                                    spcy_team team) {
    spcy_parallel_rows(team, runs, SPCY_COORDS_CHUNK, [=](int64_t begin, int64_t end, int) {
        for (int64_t run = begin; run < end; ++run)
            for (int64_t i = starts[run]; i < starts[run + 1]; ++i) rows[order[i]] = (int32_t)run;
    });
}

// The cells of points, (rows, 1 + ndim), and their states: 0 valid, 1 outside [low, high], 2 not finite.
template <typename T>
static inline void spcy_quantize(const T* points, int64_t rows, int ndim, const int32_t* batch, const double* origin,
                                 const double* voxel_size, const double* low, const double* high, int32_t* indices,
                                 uint8_t* state, spcy_team team) {
    spcy_parallel_rows(team, rows, SPCY_COORDS_CHUNK, [=](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
            const T* point = points + i * ndim;
            int32_t* index = indices + i * (1 + ndim);
            int found = 0;
            index[0] = batch ? batch[i] : 0;
            for (int d = 0; d < ndim; ++d) {
                const double cell = floor((point[d] - origin[d]) / voxel_size[d]);
                const bool inside = cell >= low[d] && cell <= high[d];
                index[1 + d] = inside ? (int32_t)cell : 0;
                if (!inside) found = std::max(found, point[d] - point[d] == 0 ? 1 : 2);
            }
            state[i] = (uint8_t)found;
        }
    });
}

// The keys of the cells whose centres surround a point, NO_KEY where one is outside the layout, and their
// linear weights. Returns 0, or 2 for a point that is not finite.
template <typename T>
static inline uint8_t spcy_point_corners(const T* point, int ndim, int64_t batch, const double* origin,
                                         const double* voxel_size, const int64_t* low, const int64_t* high,
                                         const int64_t* shift, uint64_t* keys, double* weights) {
    const bool in_batch = low[0] <= batch && batch <= high[0];
    bool finite = true;
    weights[0] = 1;
    keys[0] = in_batch ? (uint64_t)(batch - low[0]) << shift[0] : SPCY_NO_KEY;
    for (int d = 0; d < ndim; ++d) {
        const double place = (point[d] - origin[d]) / voxel_size[d] - 0.5;
        const double cell = floor(place), fraction = place - cell;
        finite = finite && point[d] - point[d] == 0;
        const double least = (double)low[1 + d], most = (double)high[1 + d], next = cell + 1;
        const bool has_lower = least <= cell && cell <= most, has_upper = least <= next && next <= most;
        const uint64_t lower = has_lower ? (uint64_t)((int64_t)cell - low[1 + d]) << shift[1 + d] : 0;
        const uint64_t upper = has_upper ? (uint64_t)((int64_t)next - low[1 + d]) << shift[1 + d] : 0;
        for (int part = (1 << d) - 1; part >= 0; --part) {  // of the axes before: each becomes two
            const uint64_t key = keys[part];
            const double weight = weights[part];
            keys[2 * part] = key != SPCY_NO_KEY && has_lower ? key + lower : SPCY_NO_KEY;
            keys[2 * part + 1] = key != SPCY_NO_KEY && has_upper ? key + upper : SPCY_NO_KEY;
            weights[2 * part] = weight * (1 - fraction);
            weights[2 * part + 1] = weight * fraction;
        }
    }
    return finite ? 0 : 2;
}

template <typename T>
static inline void spcy_corners(const T* points, int64_t rows, int ndim, const int32_t* batch, const double* origin,
                                const double* voxel_size, const int64_t* low, const int64_t* high,
                                const int64_t* shift, uint64_t* keys, double* weights, uint8_t* state,
                                spcy_team team) {
    spcy_parallel_rows(team, rows, SPCY_COORDS_CHUNK / 8, [=](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i)
            state[i] = spcy_point_corners(points + i * ndim, ndim, batch ? batch[i] : 0, origin, voxel_size, low, high,
                                          shift, keys + (i << ndim), weights + (i << ndim));
    });
}

#endif
