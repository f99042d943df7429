// A tile of a convolution: y[out] += x[in] @ w[k] over the tile's pairs, offsets in ascending order.
//
// The tile accumulates in a scratch block that stays in cache, indexed by rank; y is written once, at
// the end. Pairs are taken in groups of up to MAX_ROWS: their output rows are loaded into registers,
// one rank-1 update per input channel reads the input rows where they lie, through row pointers, and
// the rows are stored again. Under one offset an output occurs once, so the rows of a group differ.
// Each row sees the same operations in the same order whatever its group and tile.
//
// Packed weights: columns are cut into blocks of 4, 3, 2 or 1 vectors; a block holds, for each offset,
// (c_in, block width) contiguously. The last block is padded with zeros.
#ifndef SPCY_CPU_CONV_TILE_H
#define SPCY_CPU_CONV_TILE_H

#include <stdint.h>
#include <string.h>

#include "cpu/tile.h"

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
    typedef T type __attribute__((vector_size(kVectorBytes), may_alias));
    typedef T unaligned __attribute__((vector_size(kVectorBytes), may_alias, aligned(alignof(T))));
    static constexpr int lanes = kVectorBytes / sizeof(T);
};

constexpr int kMaxVectors = kRegisters == 32 ? 4 : 2;

// Rows of a group: as many accumulators as leave registers for the weight vectors and a broadcast.
template <int VECTORS>
struct Group {
    static constexpr int fit = (kRegisters - 2 - VECTORS) / VECTORS;
    static constexpr int max_rows = fit > 12 ? 12 : fit;
};

// Vectors of the next block: the fewest blocks, of even widths.
inline int block_vectors(int64_t vectors_left) {
    const int64_t blocks = (vectors_left + kMaxVectors - 1) / kMaxVectors;
    return (int)((vectors_left + blocks - 1) / blocks);
}

// The first lines of rows that are read soon: the hardware cannot foresee a gather.
template <typename T>
inline void prefetch_rows(const T* features, int64_t c_in, const int32_t* in_rows, int count) {
    constexpr int64_t line = 64 / sizeof(T);
    const int64_t end = c_in < 4 * line ? c_in : 4 * line;
    for (int r = 0; r < count; ++r)
        for (int64_t c = 0; c < end; c += line) __builtin_prefetch(features + in_rows[r] * c_in + c);
}

template <typename T, int VECTORS, int ROWS>
inline void update_rows(const T* features, int64_t c_in, const T* weight, const int32_t* in_rows,
                        const int32_t* places, T* scratch, int64_t width) {
    typedef typename Vector<T>::type vector;
    constexpr int lanes = Vector<T>::lanes;
    const T* x[ROWS];
    vector* y[ROWS];
    vector sum[ROWS][VECTORS];
    for (int r = 0; r < ROWS; ++r) {
        x[r] = features + in_rows[r] * c_in;
        y[r] = reinterpret_cast<vector*>(scratch + places[r] * width);
        for (int v = 0; v < VECTORS; ++v) sum[r][v] = y[r][v];
    }
    for (int64_t c = 0; c < c_in; ++c) {
        vector w[VECTORS];
        const vector* source = reinterpret_cast<const vector*>(weight + c * VECTORS * lanes);
        for (int v = 0; v < VECTORS; ++v) w[v] = source[v];
        for (int r = 0; r < ROWS; ++r)
            for (int v = 0; v < VECTORS; ++v) sum[r][v] += x[r][c] * w[v];
    }
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < VECTORS; ++v) y[r][v] = sum[r][v];
}

// The last group of a run, of fewer rows.
template <typename T, int VECTORS, int ROWS>
inline void update_rest(int rows, const T* features, int64_t c_in, const T* weight, const int32_t* in_rows,
                        const int32_t* places, T* scratch, int64_t width) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS)
            update_rows<T, VECTORS, ROWS>(features, c_in, weight, in_rows, places, scratch, width);
        else
            update_rest<T, VECTORS, ROWS - 1>(rows, features, c_in, weight, in_rows, places, scratch, width);
    }
}

// All pairs of one offset in the tile, for one block of columns.
template <typename T, int VECTORS>
inline void update_block(const T* features, int64_t c_in, const T* weight, const int32_t* in_rows,
                         const int32_t* places, int count, T* scratch, int64_t width, bool far) {
    constexpr int ROWS = Group<VECTORS>::max_rows;
    int j = 0;
    for (; j + ROWS <= count; j += ROWS) {
        const int next = count - j - ROWS < ROWS ? count - j - ROWS : ROWS;
        if (far) prefetch_rows(features, c_in, in_rows + j + ROWS, next);
        update_rows<T, VECTORS, ROWS>(features, c_in, weight, in_rows + j, places + j, scratch, width);
    }
    update_rest<T, VECTORS, ROWS - 1>(count - j, features, c_in, weight, in_rows + j, places + j, scratch,
                                      width);
}

template <typename T>
inline void write_row(const T* sums, const T* bias, int64_t c_out, T* out) {
    typedef Vector<T> V;
    int64_t c = 0;
    for (; c + V::lanes <= c_out; c += V::lanes)
        *reinterpret_cast<typename V::unaligned*>(out + c) =
            *reinterpret_cast<const typename V::type*>(sums + c) +
            *reinterpret_cast<const typename V::unaligned*>(bias + c);
    for (; c < c_out; ++c) out[c] = sums[c] + bias[c];
}

template <typename T>
void conv_tile(const spcy_conv_plan* plan, int64_t tile, void* memory) {
    constexpr int lanes = Vector<T>::lanes;
    constexpr int kRun = 504;  // pairs whose places are computed at a time; whole groups of any size
    constexpr int64_t kNearBytes = 1 << 21;  // features of this size stay in cache
    const int64_t width = plan->width, c_in = plan->c_in, c_out = plan->c_out;
    const int64_t first = tile * plan->tile_size;
    const int64_t rows = plan->n_out - first < plan->tile_size ? plan->n_out - first : plan->tile_size;
    const T* features = static_cast<const T*>(plan->features);
    T* scratch = static_cast<T*>(memory);
    const bool far = plan->n_in * c_in * (int64_t)sizeof(T) > kNearBytes;
    memset(scratch, 0, rows * width * sizeof(T));

    for (int64_t k = 0; k < plan->n_offsets; ++k) {
        const int64_t* cut = plan->tile_ptr + k * (plan->n_tiles + 1) + tile;
        if (k + 1 < plan->n_offsets) {  // the tile's pairs of the next offset lie far from this one's
            const int64_t* next = cut + plan->n_tiles + 1;
            for (int64_t j = next[0]; j < next[1]; j += 16) {
                __builtin_prefetch(plan->in_rows + j);
                __builtin_prefetch(plan->out_rows + j);
            }
        }
        for (int64_t begin = cut[0]; begin < cut[1]; begin += kRun) {
            const int count = cut[1] - begin < kRun ? (int)(cut[1] - begin) : kRun;
            const int32_t* in_rows = plan->in_rows + begin;
            const int32_t* out_rows = plan->out_rows + begin;
            int32_t places[kRun];
            for (int j = 0; j < count; ++j)
                places[j] = (int32_t)((plan->rank ? plan->rank[out_rows[j]] : out_rows[j]) - first);
            for (int64_t column = 0; column < width;) {
                const int vectors = block_vectors((width - column) / lanes);
                const T* weight = static_cast<const T*>(plan->weight) + plan->n_offsets * c_in * column +
                                  k * c_in * vectors * lanes;
#define SPCY_UPDATE(VECTORS) \
    update_block<T, VECTORS>(features, c_in, weight, in_rows, places, count, scratch + column, width, far)
                switch (vectors) {
                    case 1: SPCY_UPDATE(1); break;
                    case 2: SPCY_UPDATE(2); break;
#if defined(__AVX512F__) || defined(__aarch64__)
                    case 3: SPCY_UPDATE(3); break;
                    case 4: SPCY_UPDATE(4); break;
#endif
                }
#undef SPCY_UPDATE
                column += vectors * lanes;
            }
        }
    }

    T* out = static_cast<T*>(plan->out);
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t row = plan->order ? plan->order[first + r] : first + r;
        write_row<T>(scratch + r * width, static_cast<const T*>(plan->bias), c_out, out + row * c_out);
    }
}

template <typename T>
void pack_weight(const void* source, int64_t offset, const spcy_conv_plan* plan, void* target) {
    constexpr int lanes = Vector<T>::lanes;
    const T* weight = static_cast<const T*>(source);
    for (int64_t column = 0; column < plan->width;) {
        const int64_t block = block_vectors((plan->width - column) / lanes) * lanes;
        const int64_t used = plan->c_out - column < block ? plan->c_out - column : block;
        T* packed = static_cast<T*>(target) + plan->n_offsets * plan->c_in * column + offset * plan->c_in * block;
        for (int64_t c = 0; c < plan->c_in; ++c) {
            memcpy(packed + c * block, weight + c * plan->c_out + column, used * sizeof(T));
            memset(packed + c * block + used, 0, (block - used) * sizeof(T));
        }
        column += block;
    }
}

}  // namespace

#endif
