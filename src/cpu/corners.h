// The sites around points, at the corners of the cells between the sites' centres; and means by linear weights.
//
// A cell's key is that of its lowest corner. Of D axes, corner j is one further along axis d if bit D - 1 - d of j
// is set: corners 2 l and 2 l + 1 are neighbours in key order, and what line l asks for. Points are taken by cells in
// key order, so that the sites are found by walking, and rows are in the cache when they are read again.
#ifndef SPCY_CPU_CORNERS_H
#define SPCY_CPU_CORNERS_H

#include "common/key.h"
#include "cpu/bits.h"
#include "cpu/coords.h"
#include "cpu/pairs.h"
#include "cpu/team.h"
#include "cpu/tile.h"
#include "cpu/walk.h"

enum {
    SPCY_CORNERS_CHUNK = 256,  // cells, or points, that a thread takes at a time
    SPCY_CORNERS_SITES = 64,   // the same for sites, which have many points
};

// What a line adds to a cell's key.
static inline int64_t spcy_corner_line(const int64_t* shift, int axes, int line) {
    int64_t step = 0;
    for (int d = 0; d + 1 < axes; ++d) step += (int64_t)(line >> (axes - 2 - d) & 1) << shift[1 + d];
    return step;
}

// Find the rows of the corners of cells, -1 where none is; or with `back` those of the cells that a site is a corner
// of, from the last corner to the first. Queries ascend, keys[n] is a sentinel above them.
template <int AXES>
static inline void spcy_find_corners_of(const uint64_t* queries, int64_t count, const uint64_t* keys, int64_t n,
                                        const int64_t* shift, bool back, const int32_t* order, int32_t* rows,
                                        spcy_team team) {
    constexpr int kLines = 1 << (AXES - 1), kTogether = kLines < 4 ? kLines : 4;
    struct {
        int64_t first[kLines];
    } lines;
    for (int line = 0; line < kLines; ++line)
        lines.first[line] = back ? -spcy_corner_line(shift, AXES, kLines - 1 - line) - 1
                                 : spcy_corner_line(shift, AXES, line);
    spcy_parallel_rows(team, count, SPCY_CORNERS_CHUNK, [=](int64_t begin, int64_t end, int) {
        int32_t places[kTogether * SPCY_CORNERS_CHUNK];
        const uint64_t* query = queries + begin;
        for (int line = 0; line < kLines; line += kTogether) {
            spcy_walk_lines<kTogether>(query, keys, n, 0, end - begin, lines.first + line, places,
                                       SPCY_CORNERS_CHUNK);
            for (int64_t i = 0; i < end - begin; ++i)
                for (int l = 0; l < kTogether; ++l) {
                    const uint64_t wanted = query[i] + lines.first[line + l];
                    int32_t* row = rows + (begin + i) * 2 * kLines + 2 * (line + l);
                    int32_t at = places[l * SPCY_CORNERS_CHUNK + i];
                    for (int upper = 0; upper < 2; ++upper) {  // without branches: nobody can foresee a hit
                        const int32_t hit = keys[at] == wanted + upper;
                        row[upper] = at | (hit - 1);
                        at += hit;
                    }
                }
        }
        if (!order) return;
        for (int32_t* row = rows + begin * 2 * kLines; row < rows + end * 2 * kLines; ++row)
            *row = order[*row & ~(*row >> 31)] | *row >> 31;
    });
}

static inline void spcy_find_corners(int axes, const uint64_t* queries, int64_t count, const uint64_t* keys, int64_t n,
                                     const int64_t* shift, bool back, const int32_t* order, int32_t* rows,
                                     spcy_team team) {
    SPCY_BY_AXES(axes, spcy_find_corners_of, queries, count, keys, n, shift, back, order, rows, team)
}

// The interface of means by linear weights: what one SIMD level offers, and the choice between levels. Arrays are of
// one dtype: float, double, bfloat16 or float16; points are taken by cells.
typedef struct {
    const void* features;     // (n, channels)
    const int32_t* rows;      // (cells, 2**axes), of the corners of each cell, -1 where none is
    const int32_t* order;     // (points,), points by cells
    const int64_t* starts;    // (cells + 1,), where those of each cell begin
    const double* fractions;  // (points, axes), where in its cell each point lies
    double* totals;           // (points,), by place, the sum of the weights that are there, or NULL
    void* out;                // (points, channels)
    int64_t cells, channels;
    int axes;
    bool renormalize;  // to means of the corners that are there, otherwise their sums; 0 where none is
} spcy_interpolation;

typedef struct {
    // Write the outputs of the points at places [begin, end).
    void (*interpolate)(const spcy_interpolation* plan, int64_t begin, int64_t end);
} spcy_corners_kernels;

SPCY_LEVEL_TABLES(spcy_corners_kernels)

static inline void spcy_interpolate(const spcy_corners_kernels* kernels, const spcy_interpolation* plan,
                                    spcy_team team) {
    spcy_parallel_rows(team, plan->starts[plan->cells], SPCY_CORNERS_CHUNK,
                       [=](int64_t begin, int64_t end, int) { kernels->interpolate(plan, begin, end); });
}

// Fetch what is read of a point soon: points by cells lie anywhere.
template <int AXES, typename T>
static inline void spcy_fetch_point(const T* rows, int64_t channels, const double* fractions, int64_t point) {
    spcy_fetch_row(rows + point * channels, channels);
    SPCY_PREFETCH(fractions + point * AXES);
}

// Add to a row the gradient of a cell's points, by their weights of a corner; totals by place, or NULL.
template <int AXES, typename T>
static inline void spcy_add_cell(const T* gradient, int64_t channels, int64_t size, const int32_t* order,
                                 int64_t begin, int64_t end, const double* fractions, const double* totals,
                                 int corner, double* sum) {
    for (int64_t i = begin; i < end; ++i) {
        const double* fraction = fractions + (int64_t)order[i] * AXES;
        double weight = 1;
        for (int d = 0; d < AXES; ++d) weight *= corner >> (AXES - 1 - d) & 1 ? fraction[d] : 1 - fraction[d];
        if (weight == 0) continue;  // 0 takes no inf along
        if (totals) weight /= totals[i];
        const T* dy = gradient + (int64_t)order[i] * channels;
        for (int64_t c = 0; c < size; ++c) sum[c] += weight * dy[c];
    }
}

// The gradient of the features, in double precision: to each site, from the cells around it.
template <int AXES, typename T>
static inline void spcy_interpolate_gradient_of(const T* gradient, int64_t channels, const int32_t* order,
                                                const int64_t* starts, const double* fractions, const double* totals,
                                                const int32_t* around, const int32_t* site_order, int64_t sites,
                                                T* out, spcy_team team) {
    constexpr int kCorners = 1 << AXES, kBlock = 32, kAhead = 4;
    spcy_parallel_rows(team, sites, SPCY_CORNERS_SITES, [=](int64_t begin, int64_t end, int) {
        for (int64_t rank = begin; rank < end; ++rank) {
            const int32_t* cell = around + rank * kCorners;
            int there[kCorners], count = 0;  // without branches: which are there nobody can foresee
            for (int j = 0; j < kCorners; ++j) {
                there[count] = j;
                count += cell[j] >= 0;
            }
            T* dx = out + (site_order ? site_order[rank] : rank) * channels;
            for (int j = 0; rank + kAhead < sites && j < kCorners; ++j) {
                const int32_t soon = cell[kAhead * kCorners + j];
                spcy_fetch_point<AXES>(gradient, channels, fractions, order[starts[soon < 0 ? 0 : soon]]);
            }
            for (int64_t first = 0; first < channels; first += kBlock) {
                const int64_t size = channels - first < kBlock ? channels - first : kBlock;
                double sum[kBlock] = {};
                for (int j = 0; j < count; ++j) {
                    const int64_t *start = starts + cell[there[j]];
                    spcy_add_cell<AXES>(gradient + first, channels, size, order, start[0], start[1], fractions,
                                        totals, kCorners - 1 - there[j], sum);
                }
                for (int64_t c = 0; c < size; ++c) dx[first + c] = (T)sum[c];
            }
        }
    });
}

template <typename T>
static inline void spcy_interpolate_gradient(int axes, const T* gradient, int64_t channels, const int32_t* order,
                                             const int64_t* starts, const double* fractions, const double* totals,
                                             const int32_t* around, const int32_t* site_order, int64_t sites, T* out,
                                             spcy_team team) {
    SPCY_BY_AXES(axes, spcy_interpolate_gradient_of, gradient, channels, order, starts, fractions, totals, around,
                 site_order, sites, out, team)
}

#endif
