// The pairs of a rulebook, cut into tiles of output ranks, as kernels go through them that have no tile kernel.
#ifndef SPCY_CPU_PAIRS_H
#define SPCY_CPU_PAIRS_H

#include <stdint.h>

#include "cpu/bits.h"
#include "cpu/team.h"

typedef struct {
    const int32_t *in_rows, *out_rows;  // (pairs,)
    const int64_t* tile_ptr;            // (offsets, tiles + 1)
    int64_t n_offsets, n_tiles;
} spcy_pairs;

// Call body(in_row, out_row, number) for each pair of a tile, in the order of the offsets; and fetch(in_row, out_row)
// some pairs before.
template <typename Fetch, typename Body>
static inline void spcy_each_pair(spcy_pairs pairs, int64_t tile, const Fetch& fetch, const Body& body) {
    constexpr int64_t kAhead = 8;
    for (int64_t k = 0; k < pairs.n_offsets; ++k) {
        const int64_t* cut = pairs.tile_ptr + k * (pairs.n_tiles + 1) + tile;
        for (int64_t j = cut[0]; j < cut[1]; ++j) {
            if (j + kAhead < cut[1]) fetch(pairs.in_rows[j + kAhead], pairs.out_rows[j + kAhead]);
            body(pairs.in_rows[j], pairs.out_rows[j], j);
        }
    }
}

template <typename Body>
static inline void spcy_each_pair(spcy_pairs pairs, int64_t tile, const Body& body) {
    spcy_each_pair(pairs, tile, [](int64_t, int64_t) {}, body);
}

// The rows of outputs (or, as if backwards, of inputs) that tiles are cut of: `order` is the row of each rank, or NULL.
typedef struct {
    const int32_t* order;
    int64_t tile_size, count;
} spcy_ranks;

// Call use(row) for each row of a tile.
template <typename Use>
static inline void spcy_each_row_of_tile(spcy_ranks ranks, int64_t tile, const Use& use) {
    const int64_t first = tile * ranks.tile_size, left = ranks.count - first;
    const int64_t last = first + (left < ranks.tile_size ? left : ranks.tile_size);
    for (int64_t rank = first; rank < last; ++rank) use(ranks.order ? ranks.order[rank] : rank);
}

enum { SPCY_SHORT_ROW = 256 };  // bytes, that are fetched at once

// Fetch a row, or its beginning.
template <typename T>
static inline void spcy_fetch_row(const T* row, int64_t channels) {
    constexpr int64_t kLine = 64 / sizeof(T), kMost = SPCY_SHORT_ROW / sizeof(T);
    const int64_t end = channels < kMost ? channels : kMost;
    for (int64_t c = 0; c < end; c += kLine) SPCY_PREFETCH(row + c);
}

// The same for all tiles, shared among threads: pairs of different tiles have different outputs.
template <typename Body>
static inline void spcy_parallel_pairs(spcy_team team, spcy_pairs pairs, const Body& body) {
    spcy_parallel_for(team, pairs.n_tiles, [=](int64_t tile, int) { spcy_each_pair(pairs, tile, body); });
}

#endif
