// A tile of a convolution of groups that are smaller than a vector: of one channel, y[out, c] += x[in, c] * w[k, c], or
// of 2 or 4 on both sides, where each input is spread over its group's outputs.
//
// There are few products for each number read, so that sums must stay in registers: the tile's pairs are first
// listed by output, then each output goes through its own. Packed weights are (offsets, channels of a group, width), of
// the type of the sums. Each row sees the same operations in the same order whatever its tile.
#ifndef SPCY_CPU_DEPTHWISE_TILE_H
#define SPCY_CPU_DEPTHWISE_TILE_H

#include "cpu/conv_tile.h"

namespace {

template <int LANES>
inline typename Lanes<float, LANES>::type load(const float* x) {
    return *reinterpret_cast<const typename Lanes<float, LANES>::unaligned*>(x);
}

template <int LANES>
inline typename Lanes<double, LANES>::type load(const double* x) {
    return *reinterpret_cast<const typename Lanes<double, LANES>::unaligned*>(x);
}

template <int LANES>
inline typename Lanes<float, LANES>::type load(const bfloat16* x) {
    const auto bits = *reinterpret_cast<const typename Lanes<uint16_t, LANES>::unaligned*>(x);
    return (typename Lanes<float, LANES>::type)(__builtin_convertvector(bits, typename Lanes<uint32_t, LANES>::type)
                                                << 16);
}

template <int LANES>
inline typename Lanes<float, LANES>::type load(const float16* x) {
    return widen<LANES>(*reinterpret_cast<const typename Lanes<uint16_t, LANES>::unaligned*>(x));
}

typedef uint64_t spcy_tap;  // a pair, listed by output: the kernel offset above the input row

// Lane `step` of each STEPS lanes, in all of them.
template <int LANES, int STEPS, typename Sum>
inline typename Lanes<Sum, LANES>::type spread(typename Lanes<Sum, LANES>::type x, int step) {
    if constexpr (STEPS == 1) return x;
    typename Lanes<std::conditional_t<sizeof(Sum) == 4, int32_t, int64_t>, LANES>::type lanes;
    for (int lane = 0; lane < LANES; ++lane) lanes[lane] = lane / STEPS * STEPS + step;
#if defined(__clang__)
    typename Lanes<Sum, LANES>::type y;
    for (int lane = 0; lane < LANES; ++lane) y[lane] = x[lanes[lane]];
    return y;
#else
    return __builtin_shuffle(x, lanes);
#endif
}

// Sum an output's pairs, for channels [c, c + VECTORS * LANES) of groups of STEPS.
template <int STEPS, int VECTORS, int LANES, typename T, typename Sum>
SPCY_INLINE void sum_taps(const spcy_conv_plan* plan, const spcy_tap* taps, const spcy_tap* end, int64_t c, Sum* sums) {
    typedef typename Lanes<Sum, LANES>::unaligned vector;
    const T* features = static_cast<const T*>(plan->features) + c;
    const Sum* weight = static_cast<const Sum*>(plan->weight) + c;
    typename Lanes<Sum, LANES>::type sum[VECTORS] = {};
    for (; taps < end; ++taps) {
        const T* x = features + (int64_t)(uint32_t)*taps * plan->c_in;
        const Sum* w = weight + (int64_t)(*taps >> 32) * STEPS * plan->width;
        for (int v = 0; v < VECTORS; ++v) {
            const auto input = load<LANES>(x + v * LANES);
            for (int step = 0; step < STEPS; ++step)
                sum[v] += spread<LANES, STEPS, Sum>(input, step) * load<LANES>(w + step * plan->width + v * LANES);
        }
    }
    for (int v = 0; v < VECTORS; ++v) *reinterpret_cast<vector*>(sums + c + v * LANES) = sum[v];
}

// ... for the channels from c on that are no whole block.
template <int STEPS, int LANES, typename T, typename Sum>
inline void sum_rest(const spcy_conv_plan* plan, const spcy_tap* taps, const spcy_tap* end, int64_t c, Sum* sums) {
    for (; c + LANES <= plan->c_in; c += LANES) sum_taps<STEPS, 1, LANES, T>(plan, taps, end, c, sums);
    if constexpr (LANES > STEPS) sum_rest<STEPS, LANES / 2, T>(plan, taps, end, c, sums);
}

template <int STEPS, typename T, bool RESIDUAL, bool RELU>
inline void depthwise_rows(const spcy_conv_plan* plan, int64_t first, int64_t rows, const spcy_tap* taps,
                           spcy_tap* const* ends, typename Arithmetic<T>::Sum* sums) {
    constexpr int lanes = Vector<typename Arithmetic<T>::Sum>::lanes, BLOCK = STEPS == 1 ? 8 : 4;
    const T* residual = static_cast<const T*>(plan->residual);
    constexpr int LINE = 64, AHEAD = 8;  // rows whose inputs are fetched meanwhile: the hardware cannot foresee a gather
    const int64_t row_bytes = plan->c_in * (int64_t)sizeof(T);
    const bool far = plan->n_in * row_bytes > kNearBytes && row_bytes >= 256;
    for (int64_t r = 0; r < rows; ++r, taps += plan->n_offsets) {
        if (far && r + AHEAD < rows)
            for (const spcy_tap* tap = taps + AHEAD * plan->n_offsets; tap < ends[r + AHEAD]; ++tap) {
                const char* x = static_cast<const char*>(plan->features) + (int64_t)(uint32_t)*tap * row_bytes;
                for (int64_t b = 0; b < row_bytes; b += LINE) __builtin_prefetch(x + b);
            }
        int64_t c = 0;
        for (; c + BLOCK * lanes <= plan->c_in; c += BLOCK * lanes)
            sum_taps<STEPS, BLOCK, lanes, T>(plan, taps, ends[r], c, sums);
        for (; c + 4 * lanes <= plan->c_in; c += 4 * lanes) sum_taps<STEPS, 4, lanes, T>(plan, taps, ends[r], c, sums);
        for (; c + 2 * lanes <= plan->c_in; c += 2 * lanes) sum_taps<STEPS, 2, lanes, T>(plan, taps, ends[r], c, sums);
        sum_rest<STEPS, lanes, T>(plan, taps, ends[r], c, sums);
        const int64_t start = (plan->order ? plan->order[first + r] : first + r) * plan->c_out;
        write_row<T, RESIDUAL, RELU>(sums, static_cast<const T*>(plan->bias), RESIDUAL ? residual + start : nullptr,
                                     plan->c_out, static_cast<T*>(plan->out) + start);
    }
}

template <int STEPS, typename T>
void depthwise_rows(const spcy_conv_plan* plan, int64_t first, int64_t rows, const spcy_tap* taps,
                    spcy_tap* const* ends, typename Arithmetic<T>::Sum* sums) {
    if (plan->residual && plan->relu)
        depthwise_rows<STEPS, T, true, true>(plan, first, rows, taps, ends, sums);
    else if (plan->residual)
        depthwise_rows<STEPS, T, true, false>(plan, first, rows, taps, ends, sums);
    else if (plan->relu)
        depthwise_rows<STEPS, T, false, true>(plan, first, rows, taps, ends, sums);
    else
        depthwise_rows<STEPS, T, false, false>(plan, first, rows, taps, ends, sums);
}

template <typename T>
void depthwise_tile(const spcy_conv_plan* plan, int64_t tile, void* memory) {
    typedef typename Arithmetic<T>::Sum Sum;
    const int64_t first = tile * plan->tile_size;
    const int64_t rows = plan->n_out - first < plan->tile_size ? plan->n_out - first : plan->tile_size;
    Sum* sums = static_cast<Sum*>(memory);
    spcy_tap* taps = reinterpret_cast<spcy_tap*>(sums + plan->width);
    spcy_tap** ends = reinterpret_cast<spcy_tap**>(taps + plan->tile_size * plan->n_offsets);
    for (int64_t r = 0; r < rows; ++r) ends[r] = taps + r * plan->n_offsets;
    for (int64_t k = 0; k < plan->n_offsets; ++k) {
        const int64_t* cut = plan->tile_ptr + k * (plan->n_tiles + 1) + tile;
        prefetch_next_pairs(plan, k, cut);
        for (int64_t j = cut[0]; j < cut[1]; ++j) {
            const int32_t row = plan->out_rows[j];
            const int64_t r = (plan->rank ? plan->rank[row] : row) - first;
            *ends[r]++ = (uint64_t)k << 32 | (uint32_t)plan->in_rows[j];
        }
    }
    switch (plan->steps) {
        case 1: depthwise_rows<1, T>(plan, first, rows, taps, ends, sums); break;
        case 2: depthwise_rows<2, T>(plan, first, rows, taps, ends, sums); break;
        default: depthwise_rows<4, T>(plan, first, rows, taps, ends, sums);
    }
    activate_rows<T>(plan, first, rows);
}

template <typename T>
void pack_depthwise(const spcy_weight* source, int64_t offset, const spcy_conv_plan* plan, void* target) {
    typedef typename Arithmetic<T>::Sum Sum;
    const T* weight = static_cast<const T*>(source->numbers) + offset * source->offset;
    Sum* packed = static_cast<Sum*>(target) + offset * plan->steps * plan->width;
    for (int64_t step = 0; step < plan->steps; ++step, weight += source->row, packed += plan->width)
        for (int64_t c = 0; c < plan->c_in; ++c) convert(weight[c * source->column], packed + c);
}

}  // namespace

#endif
