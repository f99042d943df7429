// Gradients of what is not a convolution: operations on rows, shared among threads.
#ifndef SPCY_CPU_GRAD_ROWS_H
#define SPCY_CPU_GRAD_ROWS_H

#include <stdint.h>
#include <string.h>

#include <type_traits>

#include "cpu/pairs.h"
#include "cpu/segments.h"

// Whether x is the maximum y: NaN, if that is. Without branches, so that vectors can be.
template <typename T>
static inline bool spcy_is_maximum(T x, T y) {
    return (x == y) | ((x != x) & (y != y));
}

// 32 channels are a word, channel c its bit c. The functions below are inlined: where a word is full, the compiler
// knows how many channels it has.
template <typename T>
struct spcy_word {
    typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Bits;
    typedef T V __attribute__((vector_size(16)));
    typedef Bits I __attribute__((vector_size(16)));
    static constexpr int lanes = 16 / sizeof(T);

    static V load(const T* x) {
        V value;
        memcpy(&value, x, sizeof(value));
        return value;
    }

    static I bits(int first) {
        I out = {};
        for (int lane = 0; lane < lanes; ++lane) out[lane] = (Bits)((uint32_t)1 << (first + lane));
        return out;
    }
};

// The channels in which x is the maximum y.
template <typename T>
__attribute__((always_inline)) static inline uint32_t spcy_maxima_of(const T* x, const T* y, int count) {
    typedef spcy_word<T> Word;
    typename Word::I found = {};
    int c = 0;
#pragma GCC unroll 16
    for (; c + Word::lanes <= count; c += Word::lanes) {
        const typename Word::V value = Word::load(x + c), maximum = Word::load(y + c);
        found |= ((typename Word::I)(value == maximum) | (typename Word::I)(value != value)) & Word::bits(c);
    }
    uint32_t word = 0;
    for (int lane = 0; lane < Word::lanes; ++lane) word |= (uint32_t)found[lane];
    for (; c < count; ++c) word |= (uint32_t)spcy_is_maximum(x[c], y[c]) << c;
    return word;
}

// y = y + x in the channels of a word; or without ADD x there, and 0 in the others.
template <bool ADD, typename T>
__attribute__((always_inline)) static inline void spcy_give_channels(const T* x, uint32_t word, int count, T* y) {
    typedef spcy_word<T> Word;
    typedef typename Word::V V;
    typedef typename Word::I I;
    const I all = I{} + (typename Word::Bits)word;
    int c = 0;
    for (; c + Word::lanes <= count; c += Word::lanes) {
        const I bits = Word::bits(c), given = (I)((all & bits) == bits);
        const V value = (V)((I)Word::load(x + c) & given), sum = ADD ? Word::load(y + c) + value : value;
        memcpy(y + c, &sum, sizeof(sum));
    }
    for (; c < count; ++c) {
        const T value = word >> c & 1 ? x[c] : T(0);
        y[c] = ADD ? y[c] + value : value;
    }
}

enum {
    SPCY_GRAD_ROWS = 64,  // segments that a thread takes at a time
    SPCY_WORD = 32,       // channels
};

// Call use(number, first channel, channels) for each word of a row; how many it has is a constant, where it is full.
template <typename Use>
static inline void spcy_each_word(int64_t channels, const Use& use) {
    constexpr std::integral_constant<int, SPCY_WORD> full{};
    int64_t word = 0;
    for (; (word + 1) * SPCY_WORD <= channels; ++word) use(word, word * SPCY_WORD, full);
    if (word * SPCY_WORD < channels) use(word, word * SPCY_WORD, (int)(channels - word * SPCY_WORD));
}

// Of each pair, note the channels in which it has the maximum of its output: the first one does, if several have it.
// `left` is what no pair has. The pairs are cut into tiles of outputs.
template <typename T>
static inline void spcy_find_maxima(const T* features, const T* maxima, spcy_pairs pairs, spcy_ranks ranks,
                                    int64_t channels, uint32_t* left, uint32_t* taken, spcy_team team) {
    const int64_t words = (channels + SPCY_WORD - 1) / SPCY_WORD;
    spcy_parallel_for(team, pairs.n_tiles, [=](int64_t tile, int) {
        spcy_each_row_of_tile(ranks, tile, [=](int64_t row) {
            memset(left + row * words, -1, words * sizeof(uint32_t));
            spcy_fetch_row(maxima + row * channels, channels);
        });
        const auto fetch = [=](int64_t in, int64_t) { spcy_fetch_row(features + in * channels, channels); };
        spcy_each_pair(pairs, tile, fetch, [=](int64_t in, int64_t out, int64_t pair) {
            spcy_each_word(channels, [=](int64_t w, int64_t c, auto count) {
                const T *x = features + in * channels + c, *y = maxima + out * channels + c;
                const uint32_t found = spcy_maxima_of(x, y, count) & left[out * words + w];
                left[out * words + w] &= ~found;
                taken[pair * words + w] = found;
            });
        });
    });
}

// Add to each input row the gradients of the maxima that its pairs have. Those are cut into tiles of inputs.
template <typename T>
static inline void spcy_return_maxima(const T* gradient, const uint32_t* taken, spcy_pairs pairs, spcy_ranks ranks,
                                      int64_t channels, T* dx, spcy_team team) {
    const int64_t words = (channels + SPCY_WORD - 1) / SPCY_WORD;
    spcy_parallel_for(team, pairs.n_tiles, [=](int64_t tile, int) {
        spcy_each_row_of_tile(ranks, tile, [=](int64_t row) { memset(dx + row * channels, 0, channels * sizeof(T)); });
        const auto fetch = [=](int64_t, int64_t out) { spcy_fetch_row(gradient + out * channels, channels); };
        spcy_each_pair(pairs, tile, fetch, [=](int64_t in, int64_t out, int64_t pair) {
            spcy_each_word(channels, [=](int64_t w, int64_t c, auto count) {
                const uint32_t word = taken[pair * words + w];
                if (word) spcy_give_channels<true>(gradient + out * channels + c, word, count, dx + in * channels + c);
            });
        });
    });
}

// Give the gradient of each segment's maxima to the rows that have them, the first one if several have it; 0 to the
// segment's other rows.
template <typename T>
static inline void spcy_return_segment_maxima(const T* features, const T* maxima, const T* gradient,
                                              const int32_t* order, const int64_t* segment_ptr, int64_t segments,
                                              int64_t channels, T* dx, spcy_team team) {
    spcy_parallel_segments(team, order, segment_ptr, segments, SPCY_GRAD_ROWS, [=](int64_t s, spcy_segment segment) {
        spcy_each_word(channels, [=](int64_t, int64_t c, auto count) {
            const int64_t first = s * channels + c;
            uint32_t left = ~(uint32_t)0;
            const auto fetch = [=](int64_t at) {
                spcy_fetch_row(features + at + c, count);
                spcy_fetch_row(dx + at + c, count);
            };
            spcy_each_row(segment, channels, fetch, [=, &left](int64_t at) {
                const uint32_t found = spcy_maxima_of(features + at + c, maxima + first, count) & left;
                left &= ~found;
                spcy_give_channels<false>(gradient + first, found, count, dx + at + c);
            });
        });
    });
}

#endif
