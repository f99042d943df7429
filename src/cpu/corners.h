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
                    int64_t at = places[l * SPCY_CORNERS_CHUNK + i];
                    for (int upper = 0; upper < 2; ++upper) {
                        const bool hit = keys[at] == wanted + upper;
                        row[upper] = !hit ? -1 : order ? order[at] : (int32_t)at;
                        at += hit;
                    }
                }
        }
    });
}

static inline void spcy_find_corners(int axes, const uint64_t* queries, int64_t count, const uint64_t* keys, int64_t n,
                                     const int64_t* shift, bool back, const int32_t* order, int32_t* rows,
                                     spcy_team team) {
    SPCY_BY_AXES(axes, spcy_find_corners_of, queries, count, keys, n, shift, back, order, rows, team)
}

// The linear weights of the corners, and of those that are there (row >= 0) the sum.
template <int AXES>
static inline double spcy_corner_weights(const double* fractions, const int32_t* rows, double* weights) {
    weights[0] = 1;
    for (int d = 0; d < AXES; ++d)
        for (int part = (1 << d) - 1; part >= 0; --part) {  // of the axes before: each becomes two
            const double weight = weights[part];
            weights[2 * part] = weight * (1 - fractions[d]);
            weights[2 * part + 1] = weight * fractions[d];
        }
    double total = 0;
    for (int j = 0; j < 1 << AXES; ++j) total += rows[j] >= 0 ? weights[j] : 0;
    return total;
}

// Call use(place, cell) for places [begin, end) in the order of cells.
template <typename Use>
static inline void spcy_each_place(const int64_t* starts, int64_t cells, int64_t begin, int64_t end, const Use& use) {
    int64_t cell = std::upper_bound(starts, starts + cells, begin) - starts - 1;
    for (int64_t i = begin; i < end; ++cell)
        for (const int64_t stop = std::min(end, starts[cell + 1]); i < stop; ++i) use(i, cell);
}

// Fetch what is read or written of a point soon: points by cells lie anywhere.
template <int AXES, typename T>
static inline void spcy_fetch_point(const T* rows, int64_t channels, const double* fractions, int64_t point) {
    spcy_fetch_row(rows + point * channels, channels);
    SPCY_PREFETCH(fractions + point * AXES);
}

// The sum of rows by their shares.
template <typename T>
static inline void spcy_add_shares(const T* const* there, const T* share, int count, int64_t channels, T* y) {
    constexpr int kBlock = 16;  // channels that registers hold the sums of
    int64_t c = 0;
    for (; c + kBlock <= channels; c += kBlock) {
        T sum[kBlock] = {};
        for (int j = 0; j < count; ++j)
            for (int i = 0; i < kBlock; ++i) sum[i] += share[j] * there[j][c + i];
        for (int i = 0; i < kBlock; ++i) y[c + i] = sum[i];
    }
    for (; c < channels; ++c) {
        T sum = 0;
        for (int j = 0; j < count; ++j) sum += share[j] * there[j][c];
        y[c] = sum;
    }
}

// The weighted mean of the corners that are there, or without `renormalize` their sum; 0 where none is. Writes the sum
// of their weights to totals, by place, unless that is NULL.
template <int AXES, typename T>
static inline void spcy_interpolate_of(const T* features, int64_t channels, const int32_t* rows, const int32_t* order,
                                       const int64_t* starts, int64_t cells, const double* fractions,
                                       bool renormalize, double* totals, T* out, spcy_team team) {
    constexpr int kCorners = 1 << AXES, kAhead = 8;
    const int64_t points = starts[cells];
    spcy_parallel_rows(team, points, SPCY_CORNERS_CHUNK, [=](int64_t begin, int64_t end, int) {
        spcy_each_place(starts, cells, begin, end, [=](int64_t place, int64_t cell) {
            const int32_t *row = rows + cell * kCorners, point = order[place];
            const int64_t ahead = place + kAhead < points ? place + kAhead : place;
            spcy_fetch_point<AXES>(out, channels, fractions, order[ahead]);
            double weights[kCorners];
            const double total = spcy_corner_weights<AXES>(fractions + (int64_t)point * AXES, row, weights);
            const T* there[kCorners];
            T share[kCorners];
            int count = 0;
            if (totals) totals[place] = total;
            for (int j = 0; total > 0 && j < kCorners; ++j) {
                if (row[j] < 0 || weights[j] == 0) continue;  // 0 takes no inf along
                there[count] = features + row[j] * channels;
                share[count++] = (T)(renormalize ? weights[j] / total : weights[j]);
            }
            spcy_add_shares(there, share, count, channels, out + point * channels);
        });
    });
}

template <typename T>
static inline void spcy_interpolate(int axes, const T* features, int64_t channels, const int32_t* rows,
                                    const int32_t* order, const int64_t* starts, int64_t cells,
                                    const double* fractions, bool renormalize, double* totals, T* out,
                                    spcy_team team) {
    SPCY_BY_AXES(axes, spcy_interpolate_of, features, channels, rows, order, starts, cells, fractions, renormalize,
                 totals, out, team)
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
