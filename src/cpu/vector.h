// Vectors of a SIMD level's width, and the number types of features.
#ifndef SPCY_CPU_VECTOR_H
#define SPCY_CPU_VECTOR_H

#include <stdint.h>
#include <string.h>

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16, kRegisters = 32;
#else
constexpr int kVectorBytes = 16, kRegisters = 16;
#endif

template <typename T>
struct Vector {
    static constexpr int lanes = kVectorBytes / sizeof(T);
    typedef T type __attribute__((vector_size(kVectorBytes), may_alias));
    typedef T unaligned __attribute__((vector_size(kVectorBytes), may_alias, aligned(alignof(T))));
};

constexpr int kMaxVectors = kRegisters == 32 ? 4 : 2;

// Vectors of the next block: the fewest blocks, of even widths.
inline int block_vectors(int64_t vectors_left) {
    const int64_t blocks = (vectors_left + kMaxVectors - 1) / kMaxVectors;
    return (int)((vectors_left + blocks - 1) / blocks);
}

// bfloat16, the upper half of a float: features are stored so and summed as floats.
struct bfloat16 {
    uint16_t bits;
};

inline void convert(float x, float* y) { *y = x; }
inline void convert(double x, double* y) { *y = x; }
inline void convert(bfloat16 x, bfloat16* y) { *y = x; }

inline void convert(bfloat16 x, float* y) {
    const uint32_t bits = (uint32_t)x.bits << 16;
    memcpy(y, &bits, sizeof bits);
}

// Round to nearest, ties to even; a NaN stays one.
inline void convert(float x, bfloat16* y) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    y->bits = (uint16_t)(x != x ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace

#endif
