// Bits of a 64-bit mask, and what the compiler must inline, must not inline, and should fetch.
#ifndef SPCY_CPU_BITS_H
#define SPCY_CPU_BITS_H

#include <stdint.h>

// Functions that count bits are compiled twice and chosen at run time: x86-64's baseline has no
// instruction for it.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define SPCY_BIT_CLONES __attribute__((target_clones("popcnt", "default")))
#else
#define SPCY_BIT_CLONES
#endif

// For helpers and lambdas of theirs: a copy outside of them would be compiled once, for the baseline.
#if defined(__GNUC__)
#define SPCY_INLINED __attribute__((always_inline))
#define SPCY_APART __attribute__((noinline))
#define SPCY_PREFETCH(address) __builtin_prefetch(address)
#else
#define SPCY_INLINED
#define SPCY_APART
#define SPCY_PREFETCH(address) ((void)0)
#endif
#define SPCY_INLINE inline SPCY_INLINED

static SPCY_INLINE int64_t spcy_popcount(uint64_t bits) {
#if defined(__GNUC__)
    return __builtin_popcountll(bits);
#else
    int64_t count = 0;
    for (; bits; bits &= bits - 1) ++count;
    return count;
#endif
}

// The place of the lowest bit that is set; there must be one.
static inline int spcy_lowest(uint64_t bits) {
#if defined(__GNUC__)
    return __builtin_ctzll(bits);
#else
    return (int)spcy_popcount((bits & (0 - bits)) - 1);
#endif
}

// The place of the highest bit that is set; there must be one.
static inline int spcy_highest(uint64_t bits) {
#if defined(__GNUC__)
    return 63 - __builtin_clzll(bits);
#else
    int place = 0;
    while (bits >>= 1) ++place;
    return place;
#endif
}

#endif
