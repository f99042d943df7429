// Gradients of maxima, for every number type and SIMD level.
#ifndef SPCY_CPU_MAXIMA_LOOP_H
#define SPCY_CPU_MAXIMA_LOOP_H

#include <type_traits>

#include "cpu/maxima.h"
#include "cpu/wide.h"

namespace {

// LANES numbers of the type that features are compared and summed in, and as many integers of that size.
template <typename T, int LANES>
struct Some {
    typedef typename Wide<T>::type Number;
    typedef std::conditional_t<sizeof(Number) == 4, int32_t, int64_t> Bits;
    typedef typename Lanes<Number, LANES>::type V;
    typedef typename Lanes<Bits, LANES>::type I;
    static constexpr int bytes = LANES * sizeof(Number);
    static constexpr bool single = sizeof(Number) == 4;

    static V load(const T* x) {
        if constexpr (LANES == Vector<Number>::lanes) return Wide<T>::load(x);
        else return *reinterpret_cast<const typename Lanes<T, LANES>::unaligned*>(x);
    }

    static I each() {
        I out = {};
        for (int lane = 0; lane < LANES; ++lane) out[lane] = (Bits)1 << lane;
        return out;
    }

    // The lanes in which x is the maximum y: where it is NaN, so is y.
    static SPCY_INLINE uint32_t maxima(V x, V y) {
#if defined(__AVX512F__)
        if constexpr (bytes == 64 && single)
            return _mm512_cmp_ps_mask((__m512)x, (__m512)y, _CMP_EQ_OQ) |
                   _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q);
        if constexpr (bytes == 64 && !single)
            return _mm512_cmp_pd_mask((__m512d)x, (__m512d)y, _CMP_EQ_OQ) |
                   _mm512_cmp_pd_mask((__m512d)x, (__m512d)x, _CMP_UNORD_Q);
#endif
        const I found = (I)(x == y) | (I)(x != x);
#if defined(__AVX2__)
        if constexpr (bytes == 32 && single) return _mm256_movemask_ps((__m256)found);
        if constexpr (bytes == 32 && !single) return _mm256_movemask_pd((__m256d)found);
#endif
#if defined(__SSE2__)
        if constexpr (bytes == 16 && single) return _mm_movemask_ps((__m128)found);
        if constexpr (bytes == 16 && !single) return _mm_movemask_pd((__m128d)found);
#endif
        const I bits = found & each();
        uint32_t word = 0;
        for (int lane = 0; lane < LANES; ++lane) word |= (uint32_t)bits[lane];
        return word;
    }

    // All bits of a lane, where its bit is set.
    static SPCY_INLINE I mask(uint32_t bits) {
#if defined(__AVX512F__)
        if constexpr (bytes == 64 && single) return (I)_mm512_movm_epi32((__mmask16)bits);
        if constexpr (bytes == 64 && !single) return (I)_mm512_movm_epi64((__mmask8)bits);
#endif
        const I bit = each();
        return (I)(((I{} + (Bits)bits) & bit) == bit);
    }
};

// Call use(Some, first) for the channels of a word, as many at a time as vectors have; and one(channel) for what is left.
template <typename T, typename Count, typename Use, typename One>
SPCY_INLINE void each_some(Count count, const Use& use, const One& one) {
    constexpr int lanes = Vector<typename Wide<T>::type>::lanes, few = 16 / (int)sizeof(T);
    int c = 0;
    for (; c + lanes <= count; c += lanes) use(Some<T, lanes>{}, c);
    if constexpr (few < lanes && sizeof(T) > 2)
        for (; c + few <= count; c += few) use(Some<T, few>{}, c);
    for (; c < count; ++c) one(c);
}

// The channels of a word in which x is the maximum y.
template <typename T, typename Count>
SPCY_INLINE uint32_t maxima_of_word(const T* x, const T* y, Count count) {
    uint32_t word = 0;
    each_some<T>(
        count,
        [&](auto some, int c) SPCY_INLINED { word |= some.maxima(some.load(x + c), some.load(y + c)) << c; },
        [&](int c) SPCY_INLINED {
            typename Wide<T>::type value, maximum;
            convert(x[c], &value);
            convert(y[c], &maximum);
            word |= (uint32_t)((value == maximum) | (value != value)) << c;
        });
    return word;
}

// y = y + x in the channels of a word.
template <typename T, typename Count>
SPCY_INLINE void add_word(const T* x, uint32_t word, Count count, typename Wide<T>::type* y) {
    typedef typename Wide<T>::type Number;
    each_some<T>(
        count,
        [=](auto some, int c) SPCY_INLINED {
            typedef decltype(some) S;
            typedef typename Lanes<Number, S::bytes / sizeof(Number)>::unaligned Unaligned;
            Unaligned* to = reinterpret_cast<Unaligned*>(y + c);
            *to = *to + (typename S::V)((typename S::I)some.load(x + c) & some.mask(word >> c));
        },
        [=](int c) SPCY_INLINED {
            Number value;
            convert(x[c], &value);
            y[c] += word >> c & 1 ? value : Number(0);
        });
}

// y = x in the channels of a word, 0 in the others.
template <typename T, typename Count>
SPCY_INLINE void choose_word(const T* x, uint32_t word, Count count, T* y) {
    each_some<T>(
        count,
        [=](auto some, int c) SPCY_INLINED {
            typedef decltype(some) S;
            typedef std::conditional_t<sizeof(T) == 2, int16_t, typename S::Bits> Bits;
            typedef Lanes<Bits, S::bytes / sizeof(typename S::Number)> Same;
            const auto mask = __builtin_convertvector(some.mask(word >> c), typename Same::type);
            *reinterpret_cast<typename Same::unaligned*>(y + c) =
                *reinterpret_cast<const typename Same::unaligned*>(x + c) & mask;
        },
        [=](int c) SPCY_INLINED { y[c] = word >> c & 1 ? x[c] : T{}; });
}

// Call use(number, first channel, channels) for each word of a row; how many it has is a constant, where it is full.
template <typename Use>
inline void each_word(int64_t channels, const Use& use) {
    constexpr std::integral_constant<int, SPCY_WORD> full{};
    int64_t word = 0;
    for (; (word + 1) * SPCY_WORD <= channels; ++word) use(word, word * SPCY_WORD, full);
    if (word * SPCY_WORD < channels) use(word, word * SPCY_WORD, (int)(channels - word * SPCY_WORD));
}

inline int64_t words_of(int64_t channels) { return (channels + SPCY_WORD - 1) / SPCY_WORD; }

template <typename T>
void find(const spcy_maxima* plan, int64_t tile) {
    const int64_t channels = plan->channels, words = words_of(channels);
    const T *features = static_cast<const T*>(plan->features), *maxima = static_cast<const T*>(plan->maxima);
    uint32_t *left = plan->left, *taken = plan->taken;
    spcy_each_row_of_tile(plan->ranks, tile, [=](int64_t row) {
        memset(left + row * words, -1, words * sizeof(uint32_t));
        spcy_fetch_row(maxima + row * channels, channels);
    });
    const auto fetch = [=](int64_t in, int64_t) { spcy_fetch_row(features + in * channels, channels); };
    spcy_each_pair(plan->pairs, tile, fetch, [=](int64_t in, int64_t out, int64_t pair) {
        each_word(channels, [=](int64_t w, int64_t c, auto count) {
            const T *x = features + in * channels + c, *y = maxima + out * channels + c;
            const uint32_t found = maxima_of_word(x, y, count) & left[out * words + w];
            left[out * words + w] &= ~found;
            taken[pair * words + w] = found;
        });
    });
}

template <typename T>
void give(const spcy_maxima* plan, int64_t tile) {
    typedef typename Wide<T>::type Number;
    const int64_t channels = plan->channels, words = words_of(channels);
    const T* gradient = static_cast<const T*>(plan->gradient);
    const uint32_t* taken = plan->taken;
    Number* dx = static_cast<Number*>(plan->dx);
    spcy_each_row_of_tile(plan->ranks, tile, [=](int64_t row) {
        memset(dx + row * channels, 0, channels * sizeof(Number));
    });
    const auto fetch = [=](int64_t, int64_t out) { spcy_fetch_row(gradient + out * channels, channels); };
    spcy_each_pair(plan->pairs, tile, fetch, [=](int64_t in, int64_t out, int64_t pair) {
        each_word(channels, [=](int64_t w, int64_t c, auto count) {
            add_word(gradient + out * channels + c, taken[pair * words + w], count, dx + in * channels + c);
        });
    });
}

template <typename T>
void give_segment(const void* features, const void* maxima, const void* gradient, int64_t channels,
                  spcy_segment segment, void* dx) {
    const T *x = static_cast<const T*>(features), *y = static_cast<const T*>(maxima);
    const T* dy = static_cast<const T*>(gradient);
    T* given = static_cast<T*>(dx);
    each_word(channels, [=](int64_t, int64_t c, auto count) {
        uint32_t left = ~(uint32_t)0;
        const auto fetch = [=](int64_t at) {
            spcy_fetch_row(x + at + c, count);
            spcy_fetch_row(given + at + c, count);
        };
        spcy_each_row(segment, channels, fetch, [=, &left](int64_t at) {
            const uint32_t found = maxima_of_word(x + at + c, y + c, count) & left;
            left &= ~found;
            choose_word(dy + c, found, count, given + at + c);
        });
    });
}

}  // namespace

#endif
