// A convolution: its weight packed by offsets, its outputs computed by tiles, shared among threads.
#ifndef SPCY_CPU_CONV_H
#define SPCY_CPU_CONV_H

#include "cpu/team.h"
#include "cpu/tile.h"

static inline void spcy_pack_weight(const spcy_tile_kernels* kernels, const spcy_conv_plan* plan,
                                    const spcy_weight* weight, bool depthwise, void* packed, spcy_team team) {
    const auto pack = depthwise ? kernels->pack_depthwise : kernels->pack;
    spcy_parallel_for(team, plan->n_offsets, [=](int64_t k, int) {
        const int64_t* cuts = plan->tile_ptr + k * (plan->n_tiles + 1);
        if (cuts[0] < cuts[plan->n_tiles]) pack(weight, k, plan, packed);
    });
}

// Every thread has `tile_bytes` of the scratch.
static inline void spcy_conv(const spcy_tile_kernels* kernels, const spcy_conv_plan* plan, bool depthwise,
                             char* scratch, int64_t tile_bytes, spcy_team team) {
    const auto run = depthwise ? kernels->depthwise : kernels->conv;
    spcy_parallel_for(team, plan->n_tiles,
                      [=](int64_t tile, int thread) { run(plan, tile, scratch + thread * tile_bytes); });
}

#endif
