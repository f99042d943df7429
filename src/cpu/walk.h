// Find what each output site meets under a line of kernel offsets, by walking through the inputs' sorted keys.
//
// A line is `width` offsets that differ by 1 along the last axis, so that what they ask for are
// neighbours in key order: a site with query q asks for q + first, q + first + 1, ... The queries of a submanifold
// convolution are its keys. As q ascends so does the place of q + first: one pointer walks beside the sites.
#ifndef SPCY_CPU_WALK_H
#define SPCY_CPU_WALK_H

#include "common/key.h"

// First place in keys[0, n) that is not less than q.
static inline int64_t spcy_lower_bound(const uint64_t* keys, int64_t n, uint64_t q) {
    int64_t low = 0;
    while (n > 0) {
        const int64_t half = n / 2;
        const bool less = keys[low + half] < q;
        low = less ? low + half + 1 : low;
        n = less ? n - half - 1 : half;
    }
    return low;
}

enum { SPCY_WALK_LINES = 5, SPCY_WALK_STEP = 6 };

// Find where each site's query belongs among the keys, for a few lines: places[l * stride + i].
// A pointer moves by the number of keys that are less, of the next few, rather than key by key: that is
// one branch, and seldom a mispredicted one. What is left is a chain of loads, so that lines walk together.
template <int LINES>
static inline void spcy_walk_lines(const uint64_t* queries, const uint64_t* keys, int64_t n, int64_t begin,
                                   int64_t end, const int64_t* first, int32_t* places, int64_t stride) {
    int64_t place[LINES];
    for (int l = 0; l < LINES; ++l) place[l] = spcy_lower_bound(keys, n, queries[begin] + first[l]);
    for (int64_t i = begin; i < end; ++i)
        for (int l = 0; l < LINES; ++l) {
            const uint64_t query = queries[i] + first[l];
            int64_t at = place[l], less = SPCY_WALK_STEP;
            while (less == SPCY_WALK_STEP && at + SPCY_WALK_STEP <= n) {
                less = 0;
                for (int s = 0; s < SPCY_WALK_STEP; ++s) less += keys[at + s] < query;
                at += less;
            }
            if (less == SPCY_WALK_STEP)
                while (keys[at] < query) ++at;
            place[l] = at;
            places[l * stride + i] = (int32_t)at;
        }
}

// Count the pairs of each offset of a line for sites [begin, end).
template <int WIDTH>
static inline void spcy_count_line(const uint64_t* queries, const uint64_t* keys, int64_t begin, int64_t end,
                                   int64_t first, int width, const int32_t* places, int64_t* counts) {
    const int w_end = WIDTH ? WIDTH : width;
    int64_t fixed[WIDTH ? WIDTH : 1] = {0};
    int64_t* count = WIDTH ? fixed : counts;
    for (int w = 0; w < w_end; ++w) count[w] = 0;
    for (int64_t i = begin; i < end; ++i) {
        const uint64_t query = queries[i] + first;
        int64_t at = places[i];
        for (int w = 0; w < w_end; ++w) {
            const bool hit = keys[at] == query + w;
            count[w] += hit;
            at += hit;
        }
    }
    for (int w = 0; w < w_end; ++w) counts[w] = count[w];
}

// Write pair number j of offset w to sites[w * stride + j], found[w * stride + j], which need
// end - begin + 1 places each: a pair is written before it is known to be one, and kept by advancing
// the count, so that nothing branches.
template <int WIDTH>
static inline void spcy_fill_line(const uint64_t* queries, const uint64_t* keys, int64_t begin, int64_t end,
                                  int64_t first, int width, const int32_t* places, int32_t* sites, int32_t* found,
                                  int64_t stride, int64_t* counts) {
    const int w_end = WIDTH ? WIDTH : width;
    int64_t fixed[WIDTH ? WIDTH : 1] = {0};
    int64_t* count = WIDTH ? fixed : counts;
    for (int w = 0; w < w_end; ++w) count[w] = 0;
    for (int64_t i = begin; i < end; ++i) {
        const uint64_t query = queries[i] + first;
        int64_t at = places[i];
        for (int w = 0; w < w_end; ++w) {
            const bool hit = keys[at] == query + w;
            sites[w * stride + count[w]] = (int32_t)i;
            found[w * stride + count[w]] = (int32_t)at;
            count[w] += hit;
            at += hit;
        }
    }
    for (int w = 0; w < w_end; ++w) counts[w] = count[w];
}

// The widths that boxes have most often are unrolled.
#define SPCY_BY_WIDTH(FUNCTION, ...)             \
    switch (width) {                             \
        case 1: FUNCTION<1>(__VA_ARGS__); break; \
        case 2: FUNCTION<2>(__VA_ARGS__); break; \
        case 3: FUNCTION<3>(__VA_ARGS__); break; \
        default: FUNCTION<0>(__VA_ARGS__);       \
    }

// Find the places of sites [begin, end) for all lines, (n_lines, stride), and count the pairs of each
// offset. keys[n] must be a sentinel above all queries.
static inline void spcy_count_pairs(const uint64_t* queries, const uint64_t* keys, int64_t n, int64_t begin,
                                    int64_t end, const int64_t* first, const int64_t* line_ptr, int64_t n_lines,
                                    int32_t* places, int64_t stride, int64_t* counts) {
    for (int64_t line = 0; line < n_lines; line += SPCY_WALK_LINES) {
        const int64_t lines = n_lines - line;
#define SPCY_WALK(LINES) \
    spcy_walk_lines<LINES>(queries, keys, n, begin, end, first + line, places + line * stride, stride)
        switch (lines) {
            case 1: SPCY_WALK(1); break;
            case 2: SPCY_WALK(2); break;
            case 3: SPCY_WALK(3); break;
            case 4: SPCY_WALK(4); break;
            default: SPCY_WALK(SPCY_WALK_LINES);
        }
    }
    for (int64_t line = 0; line < n_lines; ++line) {
        const int width = (int)(line_ptr[line + 1] - line_ptr[line]);
        SPCY_BY_WIDTH(spcy_count_line, queries, keys, begin, end, first[line], width, places + line * stride,
                      counts + line_ptr[line])
    }
}

static inline void spcy_fill_pairs(const uint64_t* queries, const uint64_t* keys, int64_t begin, int64_t end,
                                   int64_t first, int width, const int32_t* places, int32_t* sites, int32_t* found,
                                   int64_t stride, int64_t* counts) {
    SPCY_BY_WIDTH(spcy_fill_line, queries, keys, begin, end, first, width, places, sites, found, stride, counts)
}

// Copy ranks as rows: order[rank], or the rank itself where rows are in key order.
static inline void spcy_copy_rows(const int32_t* ranks, int64_t count, const int32_t* order, int32_t* rows) {
    if (order)
        for (int64_t j = 0; j < count; ++j) rows[j] = order[ranks[j]];
    else
        for (int64_t j = 0; j < count; ++j) rows[j] = ranks[j];
}

#endif
