// The tile kernels' interface: what one SIMD level offers, and the choice between levels.
#ifndef SPCY_CPU_TILE_H
#define SPCY_CPU_TILE_H

#include <stdint.h>
#ifdef SPCY_HAVE_AVX2
#include <cpuid.h>
#endif

// A function of each number that is written, see pointwise.h.
typedef struct {
    int activation;
    double slope;  // of a leaky ReLU where x is negative
} spcy_activation;

// A convolution, cut into tiles of output ranks. Arrays are of one dtype: float, double, bfloat16 or float16.
typedef struct {
    const void* features;     // (n_in, c_in)
    const void* weight;       // packed, see conv_tile.h
    const void* bias;         // (c_out,)
    const void* residual;     // (n_out, c_out) to be added, or NULL
    const int32_t* in_rows;   // (pairs,)
    const int32_t* out_rows;  // (pairs,)
    const int64_t* tile_ptr;  // (offsets, tiles + 1)
    const int32_t* order;     // (n_out,) row of each rank, or NULL
    const int32_t* rank;      // (n_out,) rank of each row, or NULL
    void* out;                // (n_out, c_out)
    int64_t n_offsets, n_tiles, n_in, n_out, tile_size;
    int64_t c_in, c_out, groups;
    int64_t steps;         // channels of a group that has as many outputs: 1, 2 or 4 for the depthwise kernels, else 0
    int64_t parts, width;  // sums of a row, in so many equal parts that are padded to whole vectors
    bool relu;
    spcy_activation activation;  // another one, or `activate` is NULL
    void (*activate)(const spcy_activation* activation, const void* x, int64_t count, void* y);
} spcy_conv_plan;

// A (n_offsets, c_in / groups, c_out) weight as it was given: from one number to the next on each axis there are so many.
typedef struct {
    const void* numbers;
    int64_t offset, row, column;
} spcy_weight;

typedef struct {
    int64_t lanes;        // sums in a vector; a plan's width is a multiple of it
    int64_t sum_bytes;    // of a sum, and of a unit of packed weights
    int64_t channels;     // input channels in a unit
    int64_t copied_rows;  // input rows that a tile's scratch has room for
    // Pack one offset of a weight into its places in the packed array.
    void (*pack)(const spcy_weight* weight, int64_t offset, const spcy_conv_plan* plan, void* packed);
    // Compute a tile of outputs, with a scratch of tile_size * width + copied_rows * c_in sums.
    void (*conv)(const spcy_conv_plan* plan, int64_t tile, void* scratch);
    // The same for groups of `steps`, with a scratch of width sums and (n_offsets + 1) * tile_size int64.
    void (*pack_depthwise)(const spcy_weight* weight, int64_t offset, const spcy_conv_plan* plan, void* packed);
    void (*depthwise)(const spcy_conv_plan* plan, int64_t tile, void* scratch);
} spcy_tile_kernels;

enum { SPCY_BASELINE, SPCY_AVX2, SPCY_AVX512, SPCY_AVX512_BF16, SPCY_LEVELS };

// What features can be, and the place of their kernels in a level's table.
enum { SPCY_FLOAT, SPCY_DOUBLE, SPCY_BFLOAT16, SPCY_FLOAT16, SPCY_NUMBERS };

// Declares the tables of a kind of kernels, one for each level, and `<kind>_of`, which chooses. The same
// source is compiled once per level, and defines its table as SPCY_TABLE(kind).
#define SPCY_LEVEL_TABLES(kind)                                         \
    extern "C" {                                                        \
    extern const kind kind##_baseline[SPCY_NUMBERS];                    \
    extern const kind kind##_avx2[SPCY_NUMBERS];                        \
    extern const kind kind##_avx512[SPCY_NUMBERS];                      \
    extern const kind kind##_avx512_bf16[SPCY_NUMBERS];                 \
    }                                                                   \
    static inline const kind* kind##_of(int level, int number) {        \
        switch (level) {                                                \
            SPCY_CASE_AVX512_BF16(kind)                                 \
            SPCY_CASE_AVX512(kind)                                      \
            SPCY_CASE_AVX2(kind)                                        \
            default: return kind##_baseline + number;                   \
        }                                                               \
    }
#define SPCY_CASE(level, table) \
    case level: return table + number;
#ifdef SPCY_HAVE_AVX512_BF16
#define SPCY_CASE_AVX512_BF16(kind) SPCY_CASE(SPCY_AVX512_BF16, kind##_avx512_bf16)
#else
#define SPCY_CASE_AVX512_BF16(kind)
#endif
#ifdef SPCY_HAVE_AVX512
#define SPCY_CASE_AVX512(kind) SPCY_CASE(SPCY_AVX512, kind##_avx512)
#else
#define SPCY_CASE_AVX512(kind)
#endif
#ifdef SPCY_HAVE_AVX2
#define SPCY_CASE_AVX2(kind) SPCY_CASE(SPCY_AVX2, kind##_avx2)
#else
#define SPCY_CASE_AVX2(kind)
#endif
#define SPCY_JOIN(a, b) a##b
#define SPCY_TABLE_OF(kind, level) SPCY_JOIN(kind##_, level)
#define SPCY_TABLE(kind) SPCY_TABLE_OF(kind, SPCY_LEVEL)

SPCY_LEVEL_TABLES(spcy_tile_kernels)

#ifdef SPCY_HAVE_AVX2
static inline bool spcy_has_f16c() {  // a word that __builtin_cpu_supports of clang 14 does not know
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}
#endif

static inline bool spcy_has_level(int level) {
    switch (level) {
        case SPCY_BASELINE: return true;
#ifdef SPCY_HAVE_AVX2
        case SPCY_AVX2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && spcy_has_f16c();
#endif
#ifdef SPCY_HAVE_AVX512
        case SPCY_AVX512:
            return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
#endif
#ifdef SPCY_HAVE_AVX512_BF16
        case SPCY_AVX512_BF16: return spcy_has_level(SPCY_AVX512) && __builtin_cpu_supports("avx512bf16");
#endif
        default: return false;
    }
}

#endif
