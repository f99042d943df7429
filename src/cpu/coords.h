// Keys of sites and of points' cells, sorted and grouped: rows shared among threads.
#ifndef SPCY_CPU_COORDS_H
#define SPCY_CPU_COORDS_H

#include <math.h>

#include <algorithm>
#include <atomic>

#include "common/key.h"
#include "cpu/radix.h"
#include "cpu/team.h"

enum { SPCY_COORDS_CHUNK = 4096 };  // rows that a thread takes at a time, and that one value is written for

// The batch and up to four axes, or these alone: functions that go through all are compiled for each number of them.
#define SPCY_FOR_COLUMNS(columns, FUNCTION, ...)  \
    switch (columns) {                           \
        case 1: FUNCTION<1>(__VA_ARGS__); break; \
        case 2: FUNCTION<2>(__VA_ARGS__); break; \
        case 3: FUNCTION<3>(__VA_ARGS__); break; \
        case 4: FUNCTION<4>(__VA_ARGS__); break; \
        default: FUNCTION<5>(__VA_ARGS__);       \
    }

template <int COLUMNS, typename T>
static inline void spcy_chunk_bounds(const T* values, int64_t begin, int64_t end, T* low, T* high) {
    T least[COLUMNS], most[COLUMNS];
    for (int c = 0; c < COLUMNS; ++c) least[c] = most[c] = values[begin * COLUMNS + c];
    for (int64_t i = begin; i < end; ++i)
        for (int c = 0; c < COLUMNS; ++c) {
            least[c] = std::min(least[c], values[i * COLUMNS + c]);
            most[c] = std::max(most[c], values[i * COLUMNS + c]);
        }
    std::copy(least, least + COLUMNS, low);
    std::copy(most, most + COLUMNS, high);
}

// The least and the greatest value of each column, of each chunk: (chunks, 2, columns), in the first of all rows.
template <typename T>
static inline void spcy_bounds(const T* values, int64_t rows, int columns, T* found, spcy_team team) {
    spcy_parallel_rows(team, rows, SPCY_COORDS_CHUNK, [=](int64_t begin, int64_t end, int) {
        T* low = found + begin / SPCY_COORDS_CHUNK * 2 * columns;
        SPCY_FOR_COLUMNS(columns, spcy_chunk_bounds, values, begin, end, low, low + columns)
    });
    for (int64_t begin = SPCY_COORDS_CHUNK; begin < rows; begin += SPCY_COORDS_CHUNK)
        for (int c = 0; c < columns; ++c) {
            const T* low = found + begin / SPCY_COORDS_CHUNK * 2 * columns;
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

// Baseline x86-64 has no instruction for it.
static inline double spcy_floor(double x) {
    if (!(fabs(x) < 4503599627370496.0)) return x;  // 2**52: a whole number, or none
    const double whole = (double)(int64_t)x;
    return whole - (whole > x);
}

// Functions that go through all axes are compiled for each number of them.
#define SPCY_BY_AXES(axes, FUNCTION, ...)        \
    switch (axes) {                              \
        case 1: FUNCTION<1>(__VA_ARGS__); break; \
        case 2: FUNCTION<2>(__VA_ARGS__); break; \
        case 3: FUNCTION<3>(__VA_ARGS__); break; \
        default: FUNCTION<4>(__VA_ARGS__);       \
    }

// The key of the cell that holds each point, `none` outside [low, high]; with fractions (or NULL), where in it the
// point lies. `between`: of cells between centres, named after their lowest corner. State 2: not finite.
template <int AXES, typename T>
static inline void spcy_cell_keys_of(const T* points, int64_t rows, const int32_t* batch, const double* origin,
                                     const double* voxel_size, bool between, const int64_t* low, const int64_t* high,
                                     const int64_t* layout_low, const int64_t* shift, uint64_t none, uint64_t* keys,
                                     double* fractions, uint8_t* state, spcy_team team) {
    struct {  // what keys might alias, if it were not copied
        double origin, size, least, end;
        int64_t low, shift;
    } axes[AXES];
    for (int d = 0; d < AXES; ++d) {
        const double least = (double)low[1 + d], end = (double)high[1 + d] + 1;
        axes[d] = {origin[d], voxel_size[d], least, end, layout_low[1 + d], shift[1 + d]};
    }
    const double half = between ? 0.5 : 0;
    spcy_parallel_rows(team, rows, SPCY_COORDS_CHUNK, [=](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t b = batch ? batch[i] : 0;
            bool finite = true, inside = low[0] <= b && b <= high[0];
            uint64_t key = (uint64_t)(b - layout_low[0]) << shift[0];
            for (int d = 0; d < AXES; ++d) {
                const T value = points[i * AXES + d];
                const double place = (value - axes[d].origin) / axes[d].size - half;
                double cell;
                if (axes[d].least <= place && place < axes[d].end) {
                    int64_t whole = (int64_t)place;
                    whole -= (double)whole > place;
                    key += (uint64_t)(whole - axes[d].low) << axes[d].shift;
                    cell = (double)whole;
                } else {
                    inside = false;
                    finite = finite && value - value == 0;
                    cell = spcy_floor(place);
                }
                if (fractions) fractions[i * AXES + d] = place - cell;
            }
            keys[i] = inside ? key : none;
            state[i] = finite ? 0 : 2;
        }
    });
}

template <typename T>
static inline void spcy_cell_keys(const T* points, int64_t rows, int axes, const int32_t* batch, const double* origin,
                                  const double* voxel_size, bool between, const int64_t* low, const int64_t* high,
                                  const int64_t* layout_low, const int64_t* shift, uint64_t none, uint64_t* keys,
                                  double* fractions, uint8_t* state, spcy_team team) {
    SPCY_BY_AXES(axes, spcy_cell_keys_of, points, rows, batch, origin, voxel_size, between, low, high, layout_low,
                 shift, none, keys, fractions, state, team)
}

#endif
