// The sites around points, at the corners of the cells between the sites' centres; and means by linear weights.
//
// A cell's key is that of its lowest corner. Of D axes, corner j is one further along axis d if bit D - 1 - d of j
// is set: corners 2 l and 2 l + 1 are neighbours in key order, and what line l asks for. Points are taken by cells in
// key order, so that the sites are found by walking, and rows are in the cache when they are read or added to again.
#ifndef SPCY_CPU_CORNERS_H
#define SPCY_CPU_CORNERS_H

#include <string.h>

#include <algorithm>

#include "common/key.h"
#include "cpu/bits.h"
#include "cpu/coords.h"
#include "cpu/pairs.h"
#include "cpu/team.h"
#include "cpu/tile.h"
#include "cpu/walk.h"

enum {
    SPCY_CORNERS_CHUNK = 256,    // cells, or points, that a thread takes at a time
    SPCY_CORNERS_GROUPS = 1024,  // of points, at most, of which is noted what sites they have
    SPCY_CORNERS_PLACES = 128,   // points, of which such groups are multiples
};

// What a line adds to a cell's key.
static inline int64_t spcy_corner_line(const int64_t* shift, int axes, int line) {
    int64_t step = 0;
    for (int d = 0; d + 1 < axes; ++d) step += (int64_t)(line >> (axes - 2 - d) & 1) << shift[1 + d];
    return step;
}

// Find the ranks of the corners of cells, -1 where none is. Queries ascend, keys[n] is a sentinel above them.
template <int AXES>
static inline void spcy_find_corners_of(const uint64_t* queries, int64_t count, const uint64_t* keys, int64_t n,
                                        const int64_t* shift, int32_t* ranks, spcy_team team) {
    constexpr int kLines = 1 << (AXES - 1), kTogether = kLines < 4 ? kLines : 4;
    struct {
        int64_t first[kLines];
    } lines;
    for (int line = 0; line < kLines; ++line) lines.first[line] = spcy_corner_line(shift, AXES, line);
    spcy_parallel_rows(team, count, SPCY_CORNERS_CHUNK, [=](int64_t begin, int64_t end, int) {
        int32_t places[kTogether * SPCY_CORNERS_CHUNK];
        const uint64_t* query = queries + begin;
        for (int line = 0; line < kLines; line += kTogether) {
            spcy_walk_lines<kTogether>(query, keys, n, 0, end - begin, lines.first + line, places,
                                       SPCY_CORNERS_CHUNK);
            for (int64_t i = 0; i < end - begin; ++i)
                for (int l = 0; l < kTogether; ++l) {
                    const uint64_t wanted = query[i] + lines.first[line + l];
                    int32_t* rank = ranks + (begin + i) * 2 * kLines + 2 * (line + l);
                    int32_t at = places[l * SPCY_CORNERS_CHUNK + i];
                    for (int upper = 0; upper < 2; ++upper) {  // without branches: nobody can foresee a hit
                        const int32_t hit = keys[at] == wanted + upper;
                        rank[upper] = at | (hit - 1);
                        at += hit;
                    }
                }
        }
    });
}

static inline void spcy_find_corners(int axes, const uint64_t* queries, int64_t count, const uint64_t* keys, int64_t n,
                                     const int64_t* shift, int32_t* ranks, spcy_team team) {
    SPCY_BY_AXES(axes, spcy_find_corners_of, queries, count, keys, n, shift, ranks, team)
}

// The cells that points lie in, points by cells, and the sites at their corners.
typedef struct {
    const int32_t* ranks;       // (cells, 2**axes), of the corners of each cell, -1 where none is
    const int32_t* site_order;  // (sites,) row of each rank, or NULL
    const int32_t* order;       // (points,), points by cells
    const int64_t* starts;      // (cells + 1,), where those of each cell begin
    const double* fractions;    // (points, axes), where in its cell each point lies
    int64_t cells;
    int axes;
    bool renormalize;  // to means of the corners that are there, otherwise their sums; 0 where none is
} spcy_corners;

static inline int64_t spcy_row_of(const spcy_corners& corners, int64_t rank) {
    return corners.site_order ? corners.site_order[rank] : rank;
}

// The interface of means by linear weights: what one SIMD level offers, and the choice between levels. Features, or the
// gradient of the means, are float, double, bfloat16 or float16.
typedef struct {
    spcy_corners corners;
    const void* features;  // (sites, channels)
    void* out;             // (points, channels), of one dtype with them
    int64_t channels;
} spcy_interpolation;

typedef struct {
    spcy_corners corners;
    const void* gradient;  // (points, channels)
    void* out;             // (sites, channels), of the type that it is summed in
    int64_t sites, channels, row_bytes;  // of `out`
} spcy_interpolation_gradient;

typedef struct {
    // Write the outputs of the points at places [begin, end).
    void (*interpolate)(const spcy_interpolation* plan, int64_t begin, int64_t end);
    // Add the gradients of the points at places [begin, end) to the sites of ranks [low, high) around them. Of these,
    // those below `cleared` have a sum already; returns below which they have one then. A multiple of
    // SPCY_CORNERS_PLACES is where places begin: what is summed together depends on nothing else.
    int64_t (*add_gradient)(const spcy_interpolation_gradient* plan, int64_t begin, int64_t end, int64_t low,
                            int64_t high, int64_t cleared);
} spcy_corners_kernels;

SPCY_LEVEL_TABLES(spcy_corners_kernels)

static inline int64_t spcy_points_of(const spcy_corners& corners) { return corners.starts[corners.cells]; }

static inline void spcy_interpolate(const spcy_corners_kernels* kernels, const spcy_interpolation* plan,
                                    spcy_team team) {
    spcy_parallel_rows(team, spcy_points_of(plan->corners), SPCY_CORNERS_CHUNK,
                       [=](int64_t begin, int64_t end, int) { kernels->interpolate(plan, begin, end); });
}

// Write zeros to the rows of ranks [cleared, end), and return below which rank all are cleared then.
static inline int64_t spcy_clear_rows(const spcy_interpolation_gradient* plan, int64_t cleared, int64_t end) {
    char* out = static_cast<char*>(plan->out);
    if (end <= cleared) return cleared;
    if (!plan->corners.site_order) {
        memset(out + cleared * plan->row_bytes, 0, (end - cleared) * plan->row_bytes);
        return end;
    }
    for (int64_t rank = cleared; rank < end; ++rank)
        memset(out + spcy_row_of(plan->corners, rank) * plan->row_bytes, 0, plan->row_bytes);
    return end;
}

// The lowest and the highest rank of the sites around the points of some cells.
typedef struct {
    int32_t low, high;
} spcy_span;

static inline spcy_span spcy_span_of(const spcy_corners& corners, int64_t begin, int64_t end) {
    const int64_t *first = corners.starts, *last = first + corners.cells;
    const int64_t from = std::upper_bound(first, last, begin) - first - 1;
    const int64_t to = std::lower_bound(first, last, end) - first;
    const int32_t *rank = corners.ranks + (from << corners.axes), *stop = corners.ranks + (to << corners.axes);
    spcy_span span = {INT32_MAX, -1};
    for (; rank < stop; ++rank) {
        span.low = std::min(span.low, *rank < 0 ? INT32_MAX : *rank);
        span.high = std::max(span.high, *rank);
    }
    return span;
}

// The gradient of the features. A thread goes through all points that have a site among its own, and adds to these
// alone: each sum has its terms in the order of places, however many threads there are.
static inline void spcy_interpolate_gradient(const spcy_corners_kernels* kernels,
                                             const spcy_interpolation_gradient* plan, spcy_team team) {
    const int64_t points = spcy_points_of(plan->corners), sites = plan->sites;
    if (team.threads <= 1) {
        spcy_clear_rows(plan, kernels->add_gradient(plan, 0, points, 0, sites, 0), sites);
        return;
    }
    const int64_t whole = SPCY_CORNERS_PLACES * SPCY_CORNERS_GROUPS;
    const int64_t size = (points + whole - 1) / whole * SPCY_CORNERS_PLACES, groups = (points + size - 1) / size;
    const int64_t parts = std::min<int64_t>(2 * team.threads, groups);
    spcy_span spans[SPCY_CORNERS_GROUPS];
    int64_t bounds[SPCY_CORNERS_GROUPS + 1] = {};  // of the ranks of each part: as many points each
    const spcy_span* span = spans;
    const int64_t* bound = bounds;
    spcy_parallel_rows(team, points, size, [=, to = spans](int64_t begin, int64_t end, int) {
        to[begin / size] = spcy_span_of(plan->corners, begin, end);
    });
    for (int64_t part = 1; part < parts; ++part) {
        const int64_t low = spans[part * groups / parts].low;
        bounds[part] = std::max(bounds[part - 1], low < sites ? low : 0);
    }
    bounds[parts] = sites;
    spcy_parallel_for(team, parts, [=](int64_t part, int) {
        const int64_t low = bound[part], high = bound[part + 1];
        int64_t cleared = low;
        for (int64_t group = 0; group < groups; ++group) {
            if (span[group].low >= high || span[group].high < low) continue;
            const int64_t begin = group * size, end = std::min(points, begin + size);
            cleared = kernels->add_gradient(plan, begin, end, low, high, cleared);
        }
        spcy_clear_rows(plan, cleared, high);
    });
}

#endif
