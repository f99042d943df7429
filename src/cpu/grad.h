// The gradient kernels' interface: what one SIMD level offers, and the choice between levels.
#ifndef SPCY_CPU_GRAD_H
#define SPCY_CPU_GRAD_H

#include <stdint.h>

#include "cpu/team.h"
#include "cpu/tile.h"

// The gradient of a convolution's weight, whose pairs are cut into tiles of output ranks, and these into
// chunks that have sums of their own. Arrays are of one dtype: float, double, bfloat16 or float16.
typedef struct {
    const void* features;     // (n_in, groups * c_in)
    const void* gradient;     // (n_out, groups * c_out)
    const int32_t* in_rows;   // (pairs,)
    const int32_t* out_rows;  // (pairs,)
    const int64_t* tile_ptr;  // (offsets, tiles + 1)
    void* sums;               // (chunks, offsets, c_in, width), one chunk less if the sums are in place
    void* out;                // (offsets, c_in, groups * c_out)
    int64_t n_offsets, n_tiles, n_chunks, tiles_per_chunk;
    int64_t c_in, c_out, groups;  // the channels are those of one group
    int64_t width;
} spcy_grad_plan;

// What a thread takes at a time: of a chunk, the offsets and the input channels of every group, from .. to.
typedef struct {
    int64_t chunk, first_offset, last_offset, first_channel, last_channel;
} spcy_grad_task;

typedef struct {
    int64_t lanes;      // sums in a vector
    int64_t sum_bytes;  // of a sum
    int64_t run;        // pairs that are taken at a time
    // Write the sums of a task, with a scratch for the rows of two runs, of whole vectors.
    void (*add_chunk)(const spcy_grad_plan* plan, const spcy_grad_task* task, void* scratch);
    // Add up all chunks' sums of one offset, and write them out.
    void (*reduce_chunks)(const spcy_grad_plan* plan, int64_t offset);
} spcy_grad_kernels;

SPCY_LEVEL_TABLES(spcy_grad_kernels)

// Whether the first chunk's sums are the result: of the type that numbers are summed in, without padding.
static inline bool spcy_sums_in_place(const spcy_grad_plan* plan, int64_t number_bytes, int64_t sum_bytes) {
    return number_bytes == sum_bytes && plan->width == plan->groups * plan->c_out;
}

// How far rows that are copied lie apart: an odd number of cache lines, so that a line of each finds a place in cache.
static inline int64_t spcy_copied_step(int64_t channels, int64_t sum_bytes) {
    const int64_t line = 64 / sum_bytes;
    return ((channels + line - 1) / line | 1) * line;
}

// Share the chunks among threads, in tasks of so many offsets and input channels; every thread has `copy_bytes` of
// the copies. Then add up the chunks.
static inline void spcy_weight_gradient(const spcy_grad_kernels* kernels, const spcy_grad_plan* plan, int64_t offsets,
                                        int64_t channels, char* copies, int64_t copy_bytes, spcy_team team) {
    const int64_t offset_parts = (plan->n_offsets + offsets - 1) / offsets;
    const int64_t channel_parts = (plan->c_in + channels - 1) / channels;
    const auto upto = [](int64_t end, int64_t most) { return end < most ? end : most; };
    spcy_parallel_for(team, plan->n_chunks * offset_parts * channel_parts, [=](int64_t number, int thread) {
        const int64_t chunk = number / channel_parts / offset_parts;
        const int64_t k = number / channel_parts % offset_parts * offsets, c = number % channel_parts * channels;
        const spcy_grad_task task = {chunk, k, upto(k + offsets, plan->n_offsets), c, upto(c + channels, plan->c_in)};
        kernels->add_chunk(plan, &task, copies + thread * copy_bytes);
    });
    spcy_parallel_for(team, plan->n_offsets, [=](int64_t k, int) { kernels->reduce_chunks(plan, k); });
}

#endif
