// Vectors of a SIMD level's width, and the number types of features.
#ifndef SPCY_CPU_VECTOR_H
#define SPCY_CPU_VECTOR_H

#include <stdint.h>
#include <string.h>
#if defined(__F16C__)
#pragma GCC diagnostic push
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC's own: what its intrinsics leave undefined on purpose
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

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

// Features are stored so and summed as floats: bfloat16, the upper half of a float; float16, IEEE's half.
struct bfloat16 {
    uint16_t bits;
};
struct float16 {
    uint16_t bits;
};

// Numbers of a type, several at a time; of as many as a register has, or fewer.
template <typename T, int LANES>
struct Lanes {
    typedef T type __attribute__((vector_size(LANES * sizeof(T)), may_alias));
    typedef T unaligned __attribute__((vector_size(LANES * sizeof(T)), may_alias, aligned(alignof(T))));
};

// A float16's bits behind each other are those of a float whose exponent is 112 too low.
template <int LANES>
inline typename Lanes<float, LANES>::type widen(typename Lanes<uint16_t, LANES>::type halves) {
    typedef typename Lanes<float, LANES>::type Floats;
#if defined(__AVX512F__)
    if constexpr (LANES == 16) return (Floats)_mm512_cvtph_ps((__m256i)halves);
#endif
#if defined(__F16C__)
    if constexpr (LANES == 8) return (Floats)_mm256_cvtph_ps((__m128i)halves);
    if constexpr (LANES == 1) return Floats{_cvtsh_ss(halves[0])};
#endif
    typedef typename Lanes<uint32_t, LANES>::type Bits;
    typedef typename Lanes<int32_t, LANES>::type Mask;
    const Bits bits = __builtin_convertvector(halves, Bits), size = bits & 0x7fff;
    const Floats scaled = (Floats)(size << 13) * 0x1p112f;  // exact, and right for subnormal numbers too
    const Bits none = (Bits)(Mask)(size > 0x7bff), nan = (Bits)(Mask)(size > 0x7c00);
    return (Floats)((bits & 0x8000) << 16 | ((Bits)scaled | (none & 0x7f800000)) | (nan & 0x400000));
}

// Round to nearest, ties to even; a NaN stays one, what is too large becomes infinite.
template <int LANES>
inline typename Lanes<uint16_t, LANES>::type narrow(typename Lanes<float, LANES>::type value) {
    typedef typename Lanes<uint16_t, LANES>::type Halves;
#if defined(__AVX512F__)
    if constexpr (LANES == 16) return (Halves)_mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT);
#endif
#if defined(__F16C__)
    if constexpr (LANES == 8) return (Halves)_mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT);
    if constexpr (LANES == 1) return Halves{_cvtss_sh(value[0], _MM_FROUND_TO_NEAREST_INT)};
#endif
    typedef typename Lanes<float, LANES>::type Floats;
    typedef typename Lanes<uint32_t, LANES>::type Bits;
    typedef typename Lanes<int32_t, LANES>::type Mask;
    const Bits bits = (Bits)value, size = bits & 0x7fffffff, sign = bits >> 16 & 0x8000;
    const Bits normal = (size - (112u << 23) + 0xfff + (size >> 13 & 1)) >> 13;
    const Bits subnormal = (Bits)((Floats)size + 0.5f) - 0x3f000000;  // the sum's last bit is 2**-24, and it is rounded
    const Bits nan = 0x7e00 | (size >> 13 & 0x3ff);
    const auto choose = [](Mask mask, Bits a, Bits b) { return (a & (Bits)mask) | (b & ~(Bits)mask); };
    Bits half = choose((Mask)(size < (113u << 23)), subnormal, normal);
    half = choose((Mask)(size >= 0x47800000), Bits{} + 0x7c00, half);  // 2**16
    half = choose((Mask)(size > 0x7f800000), nan, half);
    return __builtin_convertvector(sign | half, Halves);
}

inline void convert(float x, float* y) { *y = x; }
inline void convert(double x, double* y) { *y = x; }
inline void convert(bfloat16 x, bfloat16* y) { *y = x; }
inline void convert(float16 x, float16* y) { *y = x; }

inline void convert(bfloat16 x, float* y) {
    const uint32_t bits = (uint32_t)x.bits << 16;
    memcpy(y, &bits, sizeof bits);
}

inline void convert(float16 x, float* y) { *y = widen<1>(Lanes<uint16_t, 1>::type{x.bits})[0]; }
inline void convert(float x, float16* y) { y->bits = narrow<1>(Lanes<float, 1>::type{x})[0]; }

// Round to nearest, ties to even; a NaN stays one.
inline void convert(float x, bfloat16* y) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    y->bits = (uint16_t)(x != x ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace

#endif
