// Meet two ascending lists of keys under a line of kernel offsets.
//
// A line is `width` offsets that differ by 1 along the last axis, so that what they ask for are
// neighbours in key order: for the site with key q they look for q + first, q + first + 1, ...
// As q ascends so does the place of q + first among the keys: one pointer walks beside the sites.
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

// Walk sites [begin, end). keys[n] must be a sentinel above all queries. With FILL, pair number j of
// offset w goes to sites[w * stride + j], found[w * stride + j], which need end - begin + 1 places each:
// it is written before it is known to be one, and kept by advancing the count, so nothing branches.
template <int WIDTH, bool FILL>
static inline void spcy_walk(const uint64_t* base, int64_t begin, int64_t end, const uint64_t* keys, int64_t n,
                             int64_t first, int width, int32_t* sites, int32_t* found, int64_t stride,
                             int64_t* counts) {
    const int w_end = WIDTH ? WIDTH : width;
    for (int w = 0; w < w_end; ++w) counts[w] = 0;
    int64_t count[WIDTH ? WIDTH : 1] = {0};
    int64_t* tally = WIDTH ? count : counts;
    int64_t place = spcy_lower_bound(keys, n, base[begin] + first);
    for (int64_t i = begin; i < end; ++i) {
        const uint64_t query = base[i] + first;
        while (keys[place] < query) ++place;
        int64_t at = place;
        for (int w = 0; w < w_end; ++w) {
            const bool hit = keys[at] == query + w;
            if (FILL) {
                sites[w * stride + tally[w]] = (int32_t)i;
                found[w * stride + tally[w]] = (int32_t)at;
            }
            tally[w] += hit;
            at += hit;
        }
    }
    if (WIDTH)
        for (int w = 0; w < w_end; ++w) counts[w] = tally[w];
}

static inline void spcy_walk_line(bool fill, const uint64_t* base, int64_t begin, int64_t end,
                                  const uint64_t* keys, int64_t n, int64_t first, int width, int32_t* sites,
                                  int32_t* found, int64_t stride, int64_t* counts) {
#define SPCY_WALK(WIDTH)                                                                                   \
    (fill ? spcy_walk<WIDTH, true>(base, begin, end, keys, n, first, width, sites, found, stride, counts)  \
          : spcy_walk<WIDTH, false>(base, begin, end, keys, n, first, width, sites, found, stride, counts))
    switch (width) {
        case 1: SPCY_WALK(1); break;
        case 2: SPCY_WALK(2); break;
        case 3: SPCY_WALK(3); break;
        default: SPCY_WALK(0);
    }
#undef SPCY_WALK
}

// Copy ranks as rows: order[rank], or the rank itself where rows are in key order.
static inline void spcy_copy_rows(const int32_t* ranks, int64_t count, const int32_t* order, int32_t* rows) {
    if (order)
        for (int64_t j = 0; j < count; ++j) rows[j] = order[ranks[j]];
    else
        for (int64_t j = 0; j < count; ++j) rows[j] = ranks[j];
}

#endif
