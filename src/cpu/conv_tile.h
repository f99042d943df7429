// A tile of a convolution: y[out] += x[in] @ w[k] over the tile's pairs, offsets in ascending order.
//
// The tile accumulates in a scratch block that stays in cache, indexed by rank; y is written once, at
// the end, through the epilogue: bias, residual, activation. Pairs are taken in groups of up to
// Group::max_rows: their output rows are loaded into registers, one rank-1 update per input channel
// reads the input rows where they lie, through row pointers, and the rows are stored again. Under one
// offset an output occurs once, so the rows of a group differ. Each row sees the same operations in the
// same order whatever its group and tile.
//
// A group of channels has columns of its own, padded to whole vectors, and reads its part of the input rows.
//
// Packed weights: a group's columns are cut into blocks of 4, 3, 2 or 1 vectors; a block holds, for each
// offset, (c_in / groups, block width) contiguously. The last block is padded with zeros.
#ifndef SPCY_CPU_CONV_TILE_H
#define SPCY_CPU_CONV_TILE_H

#include <stdint.h>
#include <string.h>

#include <type_traits>

#include "cpu/bits.h"
#include "cpu/tile.h"
#include "cpu/wide.h"

namespace {

// How features of type T are multiplied: as rows of type Row, of which one step reads a Unit, adding the
// product with a vector of weight Units to a vector of Sums.
template <typename T>
struct Arithmetic {
    typedef Arithmetic Kind;  // types of one kind are multiplied by the same code
    typedef T Row;
    typedef T Unit;
    typedef T Sum;
    static constexpr int channels = 1;  // of a Unit

    static void add_product(typename Vector<T>::type& sum, T x, typename Vector<T>::type w) { sum += x * w; }
};

#if defined(__AVX512BF16__)
// Two channels at a time, by an instruction that takes subnormal numbers for zeros.
template <>
struct Arithmetic<bfloat16> {
    typedef Arithmetic Kind;
    typedef bfloat16 Row;
    typedef uint32_t Unit;
    typedef float Sum;
    static constexpr int channels = 2;

    static void add_product(Vector<float>::type& sum, uint32_t x, Vector<uint32_t>::type w) {
        sum = (Vector<float>::type)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)x), (__m512bh)w);
    }
};
#else
// Widened to floats, which is exact.
template <>
struct Arithmetic<bfloat16> : Arithmetic<float> {};
#endif
template <>
struct Arithmetic<float16> : Arithmetic<float> {};

// Registers beside sums and weights, and rows of a group at most. On aarch64 a broadcast is a lane of a register, no
// operand in memory, and compilers load several ahead: with fewer registers, or more rows, they spill sums.
#if defined(__aarch64__)
constexpr int kSpare = 6, kMostRows = 10;
#else
constexpr int kSpare = 2, kMostRows = 12;
#endif

// A step takes `units` of a row, so that one look at the row's pointer serves several products. Rows of a
// group: as many as have their accumulators in registers beside the weights of a step and a broadcast.
template <int VECTORS>
struct Group {
    static constexpr int units = VECTORS == 1 ? 4 : VECTORS == 2 && kRegisters - kSpare == 30 ? 2 : 1;
    static constexpr int fit = (kRegisters - kSpare - units * VECTORS) / VECTORS;
    static constexpr int most = VECTORS == 1 ? 8 : kMostRows;
    static constexpr int max_rows = fit > most ? most : fit;
};

// Units that hold c_in channels.
template <typename T>
inline int64_t units_of(int64_t c_in) {
    return (c_in + Arithmetic<T>::channels - 1) / Arithmetic<T>::channels;
}

// Inlined in any case: left to itself the compiler does so or not by how much else there is to compile.
template <typename A, int VECTORS, int ROWS>
SPCY_INLINE void update_rows(const typename A::Row* const* in, typename A::Sum* const* out, int64_t c_in,
                             const typename A::Unit* weight) {
    typedef typename Vector<typename A::Sum>::type vector;
    typedef typename Vector<typename A::Unit>::type weights;
    typedef typename A::Unit unaligned_unit __attribute__((may_alias, aligned(alignof(typename A::Row))));
    constexpr int STEP = Group<VECTORS>::units;
    const weights* w = reinterpret_cast<const weights*>(weight);
    vector sum[ROWS][VECTORS];
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < VECTORS; ++v) sum[r][v] = reinterpret_cast<const vector*>(out[r])[v];
    const int64_t units = c_in / A::channels;
    int64_t u = 0;
    for (; u + STEP <= units; u += STEP, w += STEP * VECTORS)
        for (int r = 0; r < ROWS; ++r) {
            const unaligned_unit* x = reinterpret_cast<const unaligned_unit*>(in[r]) + u;
            for (int s = 0; s < STEP; ++s)
                for (int v = 0; v < VECTORS; ++v) A::add_product(sum[r][v], x[s], w[s * VECTORS + v]);
        }
    for (; u < units; ++u, w += VECTORS)
        for (int r = 0; r < ROWS; ++r) {
            const unaligned_unit* x = reinterpret_cast<const unaligned_unit*>(in[r]) + u;
            for (int v = 0; v < VECTORS; ++v) A::add_product(sum[r][v], *x, w[v]);
        }
    if (units * A::channels < c_in)
        for (int r = 0; r < ROWS; ++r) {
            typename A::Unit x = 0;
            memcpy(&x, in[r] + units * A::channels, sizeof(typename A::Row));
            for (int v = 0; v < VECTORS; ++v) A::add_product(sum[r][v], x, w[v]);
        }
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < VECTORS; ++v) reinterpret_cast<vector*>(out[r])[v] = sum[r][v];
}

// The last group of a run, of fewer rows.
template <typename A, int VECTORS, int ROWS>
SPCY_APART void update_last(const typename A::Row* const* in, typename A::Sum* const* out, int64_t c_in,
                            const typename A::Unit* weight) {
    update_rows<A, VECTORS, ROWS>(in, out, c_in, weight);
}

template <typename A, int VECTORS, int ROWS>
inline void update_rest(int rows, const typename A::Row* const* in, typename A::Sum* const* out, int64_t c_in,
                        const typename A::Unit* weight) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS) {
            if constexpr (VECTORS == 1 || ROWS <= 4)  // a call costs what a row does
                update_rows<A, VECTORS, ROWS>(in, out, c_in, weight);
            else
                update_last<A, VECTORS, ROWS>(in, out, c_in, weight);
        } else {
            update_rest<A, VECTORS, ROWS - 1>(rows, in, out, c_in, weight);
        }
    }
}

// The first lines of rows that are read soon: the hardware cannot foresee a gather.
template <typename Row>
inline void prefetch_rows(const Row* const* rows, int count, int64_t c_in) {
    constexpr int64_t line = 64 / sizeof(Row);
    const int64_t end = c_in < 4 * line ? c_in : 4 * line;
    for (int r = 0; r < count; ++r)
        for (int64_t c = 0; c < end; c += line) __builtin_prefetch(rows[r] + c);
}

// All pairs of a run, for one block of columns.
template <typename A, int VECTORS>
SPCY_INLINE void update_block(const typename A::Row* const* in, typename A::Sum* const* out, int count, int64_t c_in,
                              const typename A::Unit* weight, bool far) {
    constexpr int ROWS = Group<VECTORS>::max_rows, AHEAD = 24;
    int j = 0;
    for (; j + ROWS <= count; j += ROWS) {
        if (far && j + AHEAD < count)
            prefetch_rows(in + j + AHEAD, count - j - AHEAD < ROWS ? count - j - AHEAD : ROWS, c_in);
        update_rows<A, VECTORS, ROWS>(in + j, out + j, c_in, weight);
    }
    update_rest<A, VECTORS, ROWS - 1>(count - j, in + j, out + j, c_in, weight);
}

// Rows of a run, whose pointers are computed at a time: whole groups of any size. Fewer where rows are
// copied to be converted, so that the copies stay in cache.
template <typename T>
struct Run {
    static constexpr bool copies = !std::is_same<T, typename Arithmetic<T>::Row>::value;
    static constexpr int rows = copies ? 72 : 504;
};

template <typename T, typename Row>
inline void find_rows(const T* features, const int32_t* rows, int count, int64_t c_in, Row* copy, const Row** in) {
    for (int j = 0; j < count; ++j, copy += c_in) {
        const T* row = features + rows[j] * c_in;
        if constexpr (Run<T>::copies) {
            widen_row(row, c_in, copy);
            in[j] = copy;
        } else {
            in[j] = row;
        }
    }
}

// The epilogue of a row: bias, residual, activation.
template <typename T, bool RESIDUAL, bool RELU>
inline void write_row(const typename Arithmetic<T>::Sum* __restrict sums, const T* __restrict bias,
                      const T* __restrict residual, int64_t c_out, T* __restrict out) {
    typedef typename Arithmetic<T>::Sum Sum;
    const auto write = [&](int64_t c) {
        Sum value, more;
        convert(bias[c], &value);
        value += sums[c];
        if (RESIDUAL) {
            convert(residual[c], &more);
            value += more;
        }
        if (RELU) value = value < 0 ? 0 : value;  // NaN stays
        convert(value, out + c);
    };
    constexpr int lanes = Vector<Sum>::lanes;
    int64_t c = 0;
    for (; c + lanes <= c_out; c += lanes) {
        if constexpr (std::is_same<T, float16>::value) {
            auto value = Wide<T>::load(bias + c) + Wide<Sum>::load(sums + c);
            if (RESIDUAL) value += Wide<T>::load(residual + c);
            if (RELU) value = value < 0 ? decltype(value){} : value;
            Wide<T>::store(value, out + c);
        } else {
            for (int lane = 0; lane < lanes; ++lane) write(c + lane);
        }
    }
    for (; c < c_out; ++c) write(c);
}

template <typename T, bool RESIDUAL, bool RELU>
inline void write_rows(const spcy_conv_plan* plan, int64_t first, int64_t rows,
                       const typename Arithmetic<T>::Sum* sums) {
    const T* bias = static_cast<const T*>(plan->bias);
    const T* residual = static_cast<const T*>(plan->residual);
    T* out = static_cast<T*>(plan->out);
    const int32_t* order = plan->order;
    const int64_t c_out = plan->c_out, channels = c_out / plan->parts, width = plan->width / plan->parts;
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t start = (order ? order[first + r] : first + r) * c_out;
        int64_t c = 0;
        do {
            write_row<T, RESIDUAL, RELU>(sums, bias + c, RESIDUAL ? residual + start + c : nullptr, channels,
                                         out + start + c);
            sums += width;
            c += channels;
        } while (c < c_out);
    }
}

// An activation that is no ReLU, of rows that have just been written and are still in cache.
template <typename T>
inline void activate_rows(const spcy_conv_plan* plan, int64_t first, int64_t rows) {
    if (!plan->activate) return;
    T* out = static_cast<T*>(plan->out);
    const int64_t c_out = plan->c_out, runs = plan->order ? rows : 1, size = plan->order ? c_out : rows * c_out;
    for (int64_t r = 0; r < runs; ++r) {
        T* row = out + (plan->order ? plan->order[first + r] : first) * c_out;
        plan->activate(&plan->activation, row, size, row);
    }
}

constexpr int64_t kNearBytes = 1 << 21;  // features of this size stay in cache

// The tile's pairs of the next offset lie far from this one's.
inline void prefetch_next_pairs(const spcy_conv_plan* plan, int64_t k, const int64_t* cut) {
    if (k + 1 == plan->n_offsets) return;
    const int64_t* next = cut + plan->n_tiles + 1;
    for (int64_t j = next[0]; j < next[1]; j += 16) {
        __builtin_prefetch(plan->in_rows + j);
        __builtin_prefetch(plan->out_rows + j);
    }
}

template <typename T>
void conv_tile(const spcy_conv_plan* plan, int64_t tile, void* memory) {
    typedef typename Arithmetic<T>::Kind Kind;
    typedef typename Kind::Row Row;
    typedef typename Kind::Unit Unit;
    typedef typename Kind::Sum Sum;
    constexpr int lanes = Vector<Sum>::lanes;
    const int64_t c_in = plan->c_in / plan->groups, units = units_of<T>(c_in);  // of a group, as its width
    const int64_t width = plan->width / plan->groups;
    const int64_t first = tile * plan->tile_size;
    const int64_t rows = plan->n_out - first < plan->tile_size ? plan->n_out - first : plan->tile_size;
    const T* features = static_cast<const T*>(plan->features);
    Sum* sums = static_cast<Sum*>(memory);
    Row* copies = reinterpret_cast<Row*>(sums + plan->tile_size * plan->width);
    const bool far = !Run<T>::copies && plan->n_in * plan->c_in * (int64_t)sizeof(T) > kNearBytes;
    memset(sums, 0, rows * plan->width * sizeof(Sum));

    for (int64_t k = 0; k < plan->n_offsets; ++k) {
        const int64_t* cut = plan->tile_ptr + k * (plan->n_tiles + 1) + tile;
        prefetch_next_pairs(plan, k, cut);
        for (int64_t begin = cut[0]; begin < cut[1]; begin += Run<T>::rows) {
            const int count = cut[1] - begin < Run<T>::rows ? (int)(cut[1] - begin) : Run<T>::rows;
            const int32_t* out_rows = plan->out_rows + begin;
            const Row* in[Run<T>::rows];
            Sum* out[Run<T>::rows];
            find_rows(features, plan->in_rows + begin, count, plan->c_in, copies, in);
            for (int j = 0; j < count; ++j)
                out[j] = sums + ((plan->rank ? plan->rank[out_rows[j]] : out_rows[j]) - first) * plan->width;
            const Unit* weight = static_cast<const Unit*>(plan->weight);
            for (int64_t group = 0; group < plan->groups; ++group) {
                const bool last = group + 1 == plan->groups;
                for (int64_t column = 0; column < width;) {
                    const int vectors = block_vectors((width - column) / lanes);
                    const int64_t block = vectors * lanes;
                    const Unit* w = weight + (plan->n_offsets * (group * width + column) + k * block) * units;
                    switch (vectors) {
                        case 1: update_block<Kind, 1>(in, out, count, c_in, w, far); break;
                        case 2: update_block<Kind, 2>(in, out, count, c_in, w, far); break;
#if defined(__AVX512F__) || defined(__aarch64__)
                        case 3: update_block<Kind, 3>(in, out, count, c_in, w, far); break;
                        case 4: update_block<Kind, 4>(in, out, count, c_in, w, far); break;
#endif
                    }
                    column += block;
                    for (int j = 0; j < count && !(last && column == width); ++j) out[j] += block;
                }
                for (int j = 0; j < count && !last; ++j) in[j] += c_in;
            }
        }
    }

    if (plan->residual && plan->relu)
        write_rows<T, true, true>(plan, first, rows, sums);
    else if (plan->residual)
        write_rows<T, true, false>(plan, first, rows, sums);
    else if (plan->relu)
        write_rows<T, false, true>(plan, first, rows, sums);
    else
        write_rows<T, false, false>(plan, first, rows, sums);
    activate_rows<T>(plan, first, rows);
}

// A unit of a packed weight: an input channel of it, or two, of which the second is 0 behind the last.
template <typename T>
inline typename Arithmetic<T>::Unit pack_unit(const T* number, int64_t row, bool last) {
    typename Arithmetic<T>::Unit unit;
    if constexpr (Arithmetic<T>::channels == 2)
        unit = number->bits | (last ? 0 : (typename Arithmetic<T>::Unit)number[row].bits << 16);
    else
        convert(*number, &unit);
    return unit;
}

template <typename T>
void pack_weight(const spcy_weight* source, int64_t offset, const spcy_conv_plan* plan, void* target) {
    typedef typename Arithmetic<T>::Unit Unit;
    constexpr int lanes = Vector<typename Arithmetic<T>::Sum>::lanes;
    constexpr int64_t channels = Arithmetic<T>::channels, line = 64 / sizeof(T);
    const int64_t c_in = plan->c_in / plan->groups, units = units_of<T>(c_in);
    const int64_t width = plan->width / plan->groups, c_out = plan->c_out / plan->groups;
    const int64_t row = source->row, column_step = source->column;
    const T* weight = static_cast<const T*>(source->numbers) + offset * source->offset;
    const auto last = [=](int64_t unit) { return channels * (unit + 1) > c_in; };
    for (int64_t group = 0; group < plan->groups; ++group)
        for (int64_t column = 0; column < width;) {
            const T* corner = weight + (group * c_out + column) * column_step;
            const int64_t block = block_vectors((width - column) / lanes) * lanes;
            const int64_t used = c_out - column < block ? c_out - column : block;
            const int64_t place = plan->n_offsets * (group * width + column) + offset * block;
            Unit* packed = static_cast<Unit*>(target) + place * units;
            if (column_step == 1) {
                for (int64_t u = 0; u < units; ++u)
                    for (int64_t i = 0; i < used; ++i)
                        packed[u * block + i] = pack_unit(corner + u * channels * row + i, row, last(u));
            } else {  // perhaps transposed: whole lines of it, while they are in cache
                for (int64_t first = 0; first < units; first += line)
                    for (int64_t i = 0; i < used; ++i)
                        for (int64_t u = first; u < units && u < first + line; ++u)
                            packed[u * block + i] =
                                pack_unit(corner + u * channels * row + i * column_step, row, last(u));
            }
            for (int64_t u = 0; u < units && used < block; ++u)
                memset(packed + u * block + used, 0, (block - used) * sizeof(Unit));
            column += block;
        }
}

}  // namespace

#endif
