// Pools, for every number type and SIMD level.
#ifndef SPCY_CPU_POOL_LOOP_H
#define SPCY_CPU_POOL_LOOP_H

#include <algorithm>
#include <limits>

#include "cpu/pool.h"
#include "cpu/wide.h"

namespace {

template <typename T>
inline void fill_row(typename Wide<T>::type number, int64_t channels, T* y) {
    T value;
    convert(number, &value);
    std::fill(y, y + channels, value);
}

// y = y + x.
template <typename T, typename Sum>
inline void add_row(const T* __restrict x, int64_t channels, Sum* __restrict y) {
    constexpr int64_t lanes = Vector<Sum>::lanes;
    int64_t c = 0;
    for (; c + lanes <= channels; c += lanes) Wide<Sum>::store(Wide<Sum>::load(y + c) + Wide<T>::load(x + c), y + c);
    for (; c < channels; ++c) {
        Sum value;
        convert(x[c], &value);
        y[c] += value;
    }
}

// The numbers of y, or where `taken` is true those of x, to y: of 16 bits as they are, without rounding anew.
template <typename T, typename Mask>
inline void choose(Mask taken, const T* x, T* y) {
    typedef typename Wide<T>::type Number;
    if constexpr (sizeof(T) == sizeof(Number)) {
        Wide<T>::store(taken ? Wide<T>::load(x) : Wide<T>::load(y), y);
    } else {
        typedef Lanes<int16_t, Vector<Number>::lanes> Bits;
        typedef typename Bits::unaligned Unaligned;
        const auto mask = __builtin_convertvector(taken, typename Bits::type);
        Unaligned* to = reinterpret_cast<Unaligned*>(y);
        *to = (*reinterpret_cast<const Unaligned*>(x) & mask) | (*to & ~mask);
    }
}

// y = the greater of y and x, NaN if either is. Without branches, so that vectors can be.
template <typename T>
inline void raise_row(const T* __restrict x, int64_t channels, T* __restrict y) {
    typedef typename Wide<T>::type Number;
    constexpr int64_t lanes = Vector<Number>::lanes;
    int64_t c = 0;
    for (; c + lanes <= channels; c += lanes) {
        const auto value = Wide<T>::load(x + c), old = Wide<T>::load(y + c);
        choose((value > old) | (value != value), x + c, y + c);
    }
    for (; c < channels; ++c) {
        Number value, old;
        convert(x[c], &value);
        convert(y[c], &old);
        convert(((value > old) | (value != value)) ? value : old, y + c);
    }
}

template <typename Number>
inline void divide_row(Number divisor, int64_t channels, Number* y) {
    for (int64_t c = 0; c < channels; ++c) y[c] /= divisor;
}

template <typename T>
inline void max_tile(const spcy_pool_plan* plan, int64_t tile) {
    const int64_t channels = plan->channels;
    const T* features = static_cast<const T*>(plan->features);
    T* out = static_cast<T*>(plan->out);
    const auto infinity = std::numeric_limits<typename Wide<T>::type>::infinity();
    spcy_each_row_of_tile(plan->ranks, tile, [=](int64_t row) { fill_row(-infinity, channels, out + row * channels); });
    const auto fetch = [=](int64_t in, int64_t) { spcy_fetch_row(features + in * channels, channels); };
    spcy_each_pair(plan->pairs, tile, fetch, [=](int64_t in, int64_t row, int64_t) {
        raise_row(features + in * channels, channels, out + row * channels);
    });
}

// The mean of a row is itself, to the bit, and that of none 0.
template <typename T>
inline void sum_tile(const spcy_pool_plan* plan, int64_t tile) {
    typedef typename Wide<T>::type Sum;
    const int64_t channels = plan->channels;
    const T* features = static_cast<const T*>(plan->features);
    Sum* out = static_cast<Sum*>(plan->out);
    const Sum zero = plan->operation == SPCY_MEAN ? -Sum(0) : Sum(0);  // -0 plus x is x, whatever its sign
    spcy_each_row_of_tile(plan->ranks, tile, [=](int64_t row) { fill_row(zero, channels, out + row * channels); });
    const auto fetch = [=](int64_t in, int64_t) { spcy_fetch_row(features + in * channels, channels); };
    spcy_each_pair(plan->pairs, tile, fetch, [=](int64_t in, int64_t row, int64_t) {
        add_row(features + in * channels, channels, out + row * channels);
    });
    const int32_t* counts = plan->counts;
    if (!counts) return;
    spcy_each_row_of_tile(plan->ranks, tile, [=](int64_t row) {
        if (counts[row] > 1) divide_row((Sum)counts[row], channels, out + row * channels);
        if (counts[row] == 0) fill_row(Sum(0), channels, out + row * channels);
    });
}

template <typename T>
void pool(const spcy_pool_plan* plan, int64_t tile) {
    plan->operation == SPCY_MAX ? max_tile<T>(plan, tile) : sum_tile<T>(plan, tile);
}

// The sums of the columns of N vectors, in double precision.
template <int N, typename S, typename T>
SPCY_INLINE void sum_vectors(const T* columns, int64_t channels, int64_t fetched, spcy_segment segment, S* y) {
    typedef typename Wide<T>::type Number;
    constexpr int lanes = Vector<Number>::lanes;
    Doubles<Number> sums[N] = {};
    const auto fetch = [=](int64_t at) { spcy_fetch_row(columns + at, fetched); };
    spcy_each_row(segment, channels, fetch, [&](int64_t at) SPCY_INLINED {
        for (int v = 0; v < N; ++v) sums[v] = sums[v] + Doubles<Number>(Wide<T>::load(columns + at + v * lanes));
    });
    for (int v = 0; v < N; ++v) {
        double made[lanes];
        sums[v].write(made, lanes);
        for (int lane = 0; lane < lanes; ++lane) y[v * lanes + lane] = (S)made[lane];
    }
}

// The same of N columns.
template <int N, typename S, typename T>
SPCY_INLINE void sum_numbers(const T* columns, int64_t channels, int64_t fetched, spcy_segment segment, S* y) {
    double sums[N] = {};
    const auto fetch = [=](int64_t at) { spcy_fetch_row(columns + at, fetched); };
    spcy_each_row(segment, channels, fetch, [&](int64_t at) SPCY_INLINED {
        for (int c = 0; c < N; ++c) {
            typename Wide<T>::type value;
            convert(columns[at + c], &value);
            sums[c] += value;
        }
    });
    for (int c = 0; c < N; ++c) y[c] = (S)sums[c];
}

// The greatest of each column of N vectors; NaN, if one is.
template <int N, typename S, typename T>
SPCY_INLINE void raise_vectors(const T* columns, int64_t channels, int64_t fetched, spcy_segment segment, S* y) {
    typedef typename Wide<T>::type Number;
    constexpr int lanes = Vector<Number>::lanes;
    typename Wide<T>::V values[N];
    for (int v = 0; v < N; ++v) values[v] = typename Wide<T>::V{} - std::numeric_limits<Number>::infinity();
    const auto fetch = [=](int64_t at) { spcy_fetch_row(columns + at, fetched); };
    spcy_each_row(segment, channels, fetch, [&](int64_t at) SPCY_INLINED {
        for (int v = 0; v < N; ++v) {
            const auto more = Wide<T>::load(columns + at + v * lanes);
            values[v] = (more > values[v]) | (more != more) ? more : values[v];
        }
    });
    for (int v = 0; v < N; ++v)
        for (int lane = 0; lane < lanes; ++lane) y[v * lanes + lane] = (S)values[v][lane];
}

// The same of N columns.
template <int N, typename S, typename T>
SPCY_INLINE void raise_numbers(const T* columns, int64_t channels, int64_t fetched, spcy_segment segment, S* y) {
    typedef typename Wide<T>::type Number;
    Number values[N];
    std::fill(values, values + N, -std::numeric_limits<Number>::infinity());
    const auto fetch = [=](int64_t at) { spcy_fetch_row(columns + at, fetched); };
    spcy_each_row(segment, channels, fetch, [&](int64_t at) SPCY_INLINED {
        for (int c = 0; c < N; ++c) {
            Number more;
            convert(columns[at + c], &more);
            values[c] = (more > values[c]) | (more != more) ? more : values[c];
        }
    });
    for (int c = 0; c < N; ++c) y[c] = (S)values[c];
}

template <typename S, typename T>
void reduce(const void* rows, int64_t channels, spcy_segment segment, int operation, S* y) {
    constexpr int lanes = Vector<typename Wide<T>::type>::lanes;
    const T* features = static_cast<const T*>(rows);
    int64_t c = 0;
    const auto with = [&](auto columns, int count) {
        columns(features + c, channels, spcy_fetched<T>(segment, channels, c, count), segment, y + c);
        c += count;
    };
    if (operation == SPCY_MAX) {
        while (c + 4 * lanes <= channels) with(raise_vectors<4, S, T>, 4 * lanes);
        while (c + lanes <= channels) with(raise_vectors<1, S, T>, lanes);
        while (c + 4 <= channels) with(raise_numbers<4, S, T>, 4);
        while (c < channels) with(raise_numbers<1, S, T>, 1);
    } else {
        while (c + 4 * lanes <= channels) with(sum_vectors<4, S, T>, 4 * lanes);
        while (c + lanes <= channels) with(sum_vectors<1, S, T>, lanes);
        while (c + 4 <= channels) with(sum_numbers<4, S, T>, 4);
        while (c < channels) with(sum_numbers<1, S, T>, 1);
    }
}

}  // namespace

#endif
