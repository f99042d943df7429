// Keys of sites and of points' cells, sorted and grouped: rows shared among threads.
#ifndef SPCY_CPU_COORDS_H
#define SPCY_CPU_COORDS_H

#include <algorithm>
#include <atomic>

#include "common/key.h"
#include "cpu/bits.h"
#include "cpu/radix.h"
#include "cpu/team.h"
#include "cpu/tile.h"

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

enum {
    SPCY_SORT_LARGE = 1 << 16,   // keys that are worth buckets
    SPCY_SORT_BUCKET = 1 << 12,  // keys of a bucket, about: the nearest caches hold them
    SPCY_SORT_DIGIT = 11,        // bits, in a bucket
    SPCY_SORT_SPLIT = 3,         // bits by which buckets are split if that saves a pass over them
    SPCY_SORT_UNEVEN = 4,        // buckets that are larger than a thread's share over this make threads wait
};

// What a sort by radix works on: each key's row, and as much room again.
typedef struct {
    uint64_t *keys, *spare_keys;
    int32_t *rows, *spare_rows;
    int64_t* counts;  // (parts, 2**digit_bits)
    int64_t n;
    int parts, bits, digit_bits;
} spcy_sorted;

// Count the digits at `shift` of each part, and turn the counts into places.
static inline void spcy_place_digits(const spcy_sorted& s, const uint64_t* from, int shift, int digit_bits,
                                     spcy_team team) {
    spcy_parallel_for(team, s.parts, [=](int64_t part, int) {
        spcy_histogram(from, s.n * part / s.parts, s.n * (part + 1) / s.parts, shift, digit_bits,
                       s.counts + (part << digit_bits));
    });
    spcy_digit_places(s.counts, s.parts, digit_bits);
}

template <int FROM, int TO>
static inline void spcy_scatter_parts(const spcy_sorted& s, const uint64_t* from, const int32_t* from_rows, int shift,
                                      int digit_bits, spcy_word_layout word, uint64_t* to, int32_t* to_rows,
                                      spcy_team team) {
    spcy_parallel_for(team, s.parts, [=](int64_t part, int) {
        spcy_scatter<FROM, TO>(from, from_rows, s.n * part / s.parts, s.n * (part + 1) / s.parts, shift, digit_bits,
                               word, s.counts + (part << digit_bits), to, to_rows);
    });
}

// Sort by passes over all keys, from the lowest digit on. Returns whether the result ended in the spare arrays.
static inline bool spcy_sort_by_passes(const spcy_sorted& s, spcy_team team) {
    const int passes = (s.bits + s.digit_bits - 1) / s.digit_bits;
    const uint64_t* from = s.keys;
    uint64_t* to = s.spare_keys;
    const int32_t* from_rows = nullptr;
    int32_t *to_rows = s.spare_rows, *other_rows = s.rows;
    for (int pass = 0; pass < passes; ++pass) {
        const int shift = pass * s.digit_bits;
        spcy_place_digits(s, from, shift, s.digit_bits, team);
        const auto scatter = pass == 0 ? spcy_scatter_parts<SPCY_KEYS, SPCY_KEYS_AND_ROWS>
                                       : spcy_scatter_parts<SPCY_KEYS_AND_ROWS, SPCY_KEYS_AND_ROWS>;
        scatter(s, from, from_rows, shift, s.digit_bits, {}, to, to_rows, team);
        from = to;
        to = to == s.keys ? s.spare_keys : s.keys;
        from_rows = to_rows;
        std::swap(to_rows, other_rows);
    }
    return passes % 2;
}

// Sort by the highest digit, then each bucket by itself in the nearest caches, as words. Returns -1, with nothing
// changed, if words have no room or buckets would be too uneven; else as the other.
static inline int spcy_sort_by_buckets(const spcy_sorted& s, spcy_team team) {
    const int wanted = spcy_highest((uint64_t)s.n / SPCY_SORT_BUCKET), left = s.bits - wanted;
    const int over = left > SPCY_SORT_DIGIT ? left % SPCY_SORT_DIGIT : 0;
    const int top = std::min(s.digit_bits, wanted + (over <= SPCY_SORT_SPLIT ? over : 0)), low = s.bits - top;
    const int passes = (low + SPCY_SORT_DIGIT - 1) / SPCY_SORT_DIGIT;
    const spcy_word_layout word = {spcy_highest((uint64_t)s.n) + 1, low, 0};
    if (passes < 1 || word.row_bits + low > 64) return -1;
    const int64_t buckets = 1ll << top;
    spcy_place_digits(s, s.keys, low, top, team);
    for (int64_t b = 0; b < buckets; ++b) {
        const int64_t end = b + 1 < buckets ? s.counts[b + 1] : s.n;
        if ((end - s.counts[b]) * SPCY_SORT_UNEVEN * s.parts > s.n) return -1;
    }
    spcy_scatter_parts<SPCY_KEYS, SPCY_WORDS>(s, s.keys, nullptr, low, top, word, s.spare_keys, nullptr, team);
    const int64_t* ends = s.counts + ((int64_t)(s.parts - 1) << top);  // of buckets, once all is placed
    const int digit_bits = (low + passes - 1) / passes;
    spcy_parallel_for(team, buckets, [=](int64_t bucket, int) {
        const int64_t begin = bucket ? ends[bucket - 1] : 0, n = ends[bucket] - begin;
        const spcy_word_layout own = {word.row_bits, low, (uint64_t)bucket << low};
        uint64_t *from = s.spare_keys + begin, *to = s.keys + begin;
        int32_t* rows = (passes % 2 ? s.rows : s.spare_rows) + begin;
        for (int pass = 0; n && pass < passes; ++pass) {
            int64_t places[1 << SPCY_SORT_DIGIT];
            const int shift = pass * digit_bits;
            spcy_histogram(from, 0, n, own.row_bits + shift, digit_bits, places);
            spcy_digit_places(places, 1, digit_bits);
            const auto scatter = pass == passes - 1 ? spcy_scatter<SPCY_WORDS, SPCY_KEYS_AND_ROWS>
                                                    : spcy_scatter<SPCY_WORDS, SPCY_WORDS>;
            scatter(from, nullptr, 0, n, shift, digit_bits, own, places, to, rows);
            std::swap(from, to);
        }
    });
    return passes % 2 == 0;
}

// Sort keys of `bits` bits, stably, by digits of at most `digit_bits`. Returns whether the result ended in the spare
// arrays.
static inline bool spcy_sort(uint64_t* keys, int64_t n, int32_t* rows, uint64_t* spare_keys, int32_t* spare_rows,
                             int64_t* counts, int parts, int bits, int digit_bits, spcy_team team) {
    const spcy_sorted s = {keys, spare_keys, rows, spare_rows, counts, n, parts, bits, digit_bits};
    const int in_spare = n < SPCY_SORT_LARGE ? -1 : spcy_sort_by_buckets(s, team);
    if (in_spare >= 0) return in_spare;
    return spcy_sort_by_passes(s, team);
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
        int64_t run = chunk_ptr[begin / SPCY_COORDS_CHUNK], last = end - 1;
        const auto begins = [=](int64_t i) { return i == 0 || keys[i] != keys[i - 1]; };
        while (last >= begin && !begins(last)) --last;
        for (int64_t i = begin; i <= last; ++i) {  // without branches: what begins no run is written over
            starts[run] = i;
            unique[run] = keys[i];
            run += begins(i);
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

// Functions that go through all axes are compiled for each number of them.
#define SPCY_BY_AXES(axes, FUNCTION, ...)        \
    switch (axes) {                              \
        case 1: FUNCTION<1>(__VA_ARGS__); break; \
        case 2: FUNCTION<2>(__VA_ARGS__); break; \
        case 3: FUNCTION<3>(__VA_ARGS__); break; \
        default: FUNCTION<4>(__VA_ARGS__);       \
    }

// The grid whose cells points lie in, and what is written of each point.
typedef struct {
    const void* points;    // (points, axes), float or double
    const int32_t* batch;  // (points,), or NULL
    const double *origin, *voxel_size;
    const int64_t *low, *high;            // the least and greatest batch and cell, of those that have keys
    const int64_t *layout_low, *shift;    // by column
    uint64_t none;                        // the key of points outside
    uint64_t* keys;                       // (points,)
    double* fractions;                    // (points, axes), where in its cell each lies, or NULL
    uint8_t* state;                       // (points,), 2 where not finite, else 0
    int axes;
    bool between;  // cells between centres, named after their lowest corner
} spcy_cells;

typedef struct {
    void (*cell_keys)(const spcy_cells* grid, int64_t begin, int64_t end);  // of these points
} spcy_coords_kernels;

SPCY_LEVEL_TABLES(spcy_coords_kernels)

static inline void spcy_cell_keys(const spcy_coords_kernels* kernels, const spcy_cells* grid, int64_t points,
                                  spcy_team team) {
    spcy_parallel_rows(team, points, SPCY_COORDS_CHUNK,
                       [=](int64_t begin, int64_t end, int) { kernels->cell_keys(grid, begin, end); });
}

#endif
