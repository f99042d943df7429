// The tile kernels' interface: what one SIMD level offers, and the choice between levels.
#ifndef SPCY_CPU_TILE_H
#define SPCY_CPU_TILE_H

#include <stdint.h>

// A convolution, cut into tiles of output ranks. Arrays are of one dtype, float or double.
typedef struct {
    const void* features;     // (n_in, c_in)
    const void* weight;       // packed, see conv_tile.h
    const void* bias;         // (width,), zero-padded
    const int32_t* in_rows;   // (pairs,)
    const int32_t* out_rows;  // (pairs,)
    const int64_t* tile_ptr;  // (offsets, tiles + 1)
    const int32_t* order;     // (n_out,) row of each rank, or NULL
    const int32_t* rank;      // (n_out,) rank of each row, or NULL
    void* out;                // (n_out, c_out)
    int64_t n_offsets, n_tiles, n_in, n_out, tile_size;
    int64_t c_in, c_out, width;
} spcy_conv_plan;

typedef struct {
    int64_t lanes;  // numbers in a vector; a plan's width is a multiple of it
    // Pack one offset's (c_in, c_out) weight into its places in the packed array.
    void (*pack)(const void* weight, int64_t offset, const spcy_conv_plan* plan, void* packed);
    // Compute a tile of outputs, with a scratch of (tile_size, width).
    void (*conv)(const spcy_conv_plan* plan, int64_t tile, void* scratch);
} spcy_tile_kernels;

enum { SPCY_BASELINE, SPCY_AVX2, SPCY_AVX512, SPCY_LEVELS };

// (float, double) kernels of each level: the same source, compiled once per level.
extern "C" {
extern const spcy_tile_kernels spcy_tile_kernels_baseline[2];
extern const spcy_tile_kernels spcy_tile_kernels_avx2[2];
extern const spcy_tile_kernels spcy_tile_kernels_avx512[2];
}

static inline bool spcy_has_level(int level) {
    switch (level) {
        case SPCY_BASELINE: return true;
#ifdef SPCY_HAVE_AVX2
        case SPCY_AVX2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#ifdef SPCY_HAVE_AVX512
        case SPCY_AVX512:
            return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
#endif
        default: return false;
    }
}

static inline const spcy_tile_kernels* spcy_tile_kernels_of(int level, bool is_double) {
    switch (level) {
#ifdef SPCY_HAVE_AVX512
        case SPCY_AVX512: return spcy_tile_kernels_avx512 + is_double;
#endif
#ifdef SPCY_HAVE_AVX2
        case SPCY_AVX2: return spcy_tile_kernels_avx2 + is_double;
#endif
        default: return spcy_tile_kernels_baseline + is_double;
    }
}

#endif
