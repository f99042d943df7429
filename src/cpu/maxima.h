// Gradients of maxima, over pairs and over segments: what one SIMD level offers, and the choice between levels.
#ifndef SPCY_CPU_MAXIMA_H
#define SPCY_CPU_MAXIMA_H

#include <stdint.h>

#include "cpu/pairs.h"
#include "cpu/segments.h"
#include "cpu/tile.h"

enum {
    SPCY_GRAD_ROWS = 64,  // segments that a thread takes at a time
    SPCY_WORD = 32,       // channels, of which each has a bit: channel c bit c
};

// Features, maxima and their gradient are of one dtype: float, double, bfloat16 or float16. What a pass does not use
// is NULL.
typedef struct {
    const void* features;  // (n_in, channels)
    const void* maxima;    // (n_out, channels)
    const void* gradient;  // (n_out, channels)
    void* dx;              // (n_in, channels), of the type that is summed in
    uint32_t* left;        // (n_out, words), what no pair has
    uint32_t* taken;       // (pairs, words), what the pair has
    spcy_pairs pairs;
    spcy_ranks ranks;  // of outputs where maxima are found, of inputs on the way back
    int64_t channels;
} spcy_maxima;

typedef struct {
    // Of each pair of a tile of outputs, note the channels in which it has its output's maximum: the first one does, if
    // several have it.
    void (*find)(const spcy_maxima* plan, int64_t tile);
    // Add to each input row of a tile the gradients of the maxima that its pairs have.
    void (*give)(const spcy_maxima* plan, int64_t tile);
    // Give the gradient of a segment's maxima, a row, to the rows that have them, the first one if several have it; 0 to
    // the segment's other rows. dx is of the features' dtype.
    void (*give_segment)(const void* features, const void* maxima, const void* gradient, int64_t channels,
                         spcy_segment segment, void* dx);
} spcy_maxima_kernels;

SPCY_LEVEL_TABLES(spcy_maxima_kernels)

static inline void spcy_find_maxima(const spcy_maxima_kernels* kernels, const spcy_maxima* plan, spcy_team team) {
    spcy_parallel_for(team, plan->pairs.n_tiles, [=](int64_t tile, int) { kernels->find(plan, tile); });
}

static inline void spcy_return_maxima(const spcy_maxima_kernels* kernels, const spcy_maxima* plan, spcy_team team) {
    spcy_parallel_for(team, plan->pairs.n_tiles, [=](int64_t tile, int) { kernels->give(plan, tile); });
}

template <typename T>
static inline void spcy_return_segment_maxima(const spcy_maxima_kernels* kernels, const T* features, const T* maxima,
                                              const T* gradient, const int32_t* order, const int64_t* segment_ptr,
                                              int64_t segments, int64_t channels, T* dx, spcy_team team) {
    spcy_parallel_segments(team, order, segment_ptr, segments, SPCY_GRAD_ROWS, [=](int64_t s, spcy_segment segment) {
        kernels->give_segment(features, maxima + s * channels, gradient + s * channels, channels, segment, dx);
    });
}

#endif
