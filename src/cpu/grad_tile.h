// A chunk of a weight's gradient: dw[k] += x[in]^T dy[out] over the chunk's pairs of every offset.
//
// Tiles come first, so that their rows stay in cache while the offsets take turns; an offset's pairs in a
// tile are taken in runs. A block of rows and vectors of dw[k] is loaded into registers, one rank-1 update
// per pair reads the rows where they lie, through row pointers, and the block is stored again: every sum
// sees its pairs in their order, whatever its block, its run and its tile.
//
// While a run is added up, the rows of the next one are fetched. Rows that are no whole vectors, or of
// numbers to be widened, are copied.
#ifndef SPCY_CPU_GRAD_TILE_H
#define SPCY_CPU_GRAD_TILE_H

#include <stdint.h>
#include <string.h>

#include <type_traits>

#include "cpu/grad.h"
#include "cpu/wide.h"

namespace {

constexpr int kRun = 64;       // pairs
constexpr int64_t kAhead = 4;  // cache lines of a row that are fetched ahead


// Pairs that are taken at a time, all of one offset.
template <typename Sum>
struct Run {
    const Sum* x[kRun];
    const Sum* dy[kRun];
    int count;
    int64_t offset;
};

// The first lines of rows that are read soon: the hardware cannot foresee a gather.
template <typename Sum>
inline void prefetch_row(const Sum* row, int64_t channels) {
    constexpr int64_t line = 64 / sizeof(Sum);
    const int64_t end = channels < kAhead * line ? channels : kAhead * line;
    for (int64_t c = 0; c < end; c += line) __builtin_prefetch(row + c);
}

// What comes next, for which there is time to be fetched.
template <typename Sum>
struct Ahead {
    const Run<Sum>* run;
    int count;
    int64_t c_in, c_out;
};

// Rows of a block: as many as have their accumulators in registers beside a row of dy and a broadcast.
template <int VECTORS>
constexpr int block_rows() {
    constexpr int fit = (kRegisters - 1 - VECTORS) / VECTORS;
    return fit > 16 ? 16 : fit;
}

template <typename Sum, int VECTORS, int ROWS>
inline void add_block(const Run<Sum>& run, const Ahead<Sum>& ahead, int64_t channel, int64_t column, Sum* sums,
                      int64_t width) {
    typedef typename Vector<Sum>::type vector;
    typedef typename Vector<Sum>::unaligned unaligned;
    vector sum[ROWS][VECTORS];
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < VECTORS; ++v) sum[r][v] = reinterpret_cast<vector*>(sums + r * width)[v];
    for (int j = 0; j < run.count; ++j) {
        if (j < ahead.count) {
            prefetch_row(ahead.run->x[j], ahead.c_in);
            prefetch_row(ahead.run->dy[j], ahead.c_out);
        }
        const Sum* a = run.x[j] + channel;
        __asm__("" : "+r"(a));  // one pointer, not one index for each row of the block
        const unaligned* b = reinterpret_cast<const unaligned*>(run.dy[j] + column);
        vector factor[VECTORS];
        for (int v = 0; v < VECTORS; ++v) factor[v] = b[v];
        for (int r = 0; r < ROWS; ++r)
            for (int v = 0; v < VECTORS; ++v) sum[r][v] += a[r] * factor[v];
    }
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < VECTORS; ++v) reinterpret_cast<vector*>(sums + r * width)[v] = sum[r][v];
}

template <typename Sum, int VECTORS, int ROWS>
inline void add_rows(int rows, const Run<Sum>& run, const Ahead<Sum>& ahead, int64_t channel, int64_t column,
                     Sum* sums, int64_t width) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS)
            add_block<Sum, VECTORS, ROWS>(run, ahead, channel, column, sums, width);
        else
            add_rows<Sum, VECTORS, ROWS - 1>(rows, run, ahead, channel, column, sums, width);
    }
}

// Input channels [first, last) of a group, in the fewest blocks, of even sizes.
template <typename Sum, int VECTORS>
inline void add_columns(const Run<Sum>& run, Ahead<Sum>& ahead, int64_t source, int64_t first, int64_t last,
                        int64_t column, Sum* sums, int64_t width) {
    constexpr int most = block_rows<VECTORS>();
    for (int64_t blocks = (last - first + most - 1) / most; blocks > 0; --blocks) {
        const int rows = (int)((last - first + blocks - 1) / blocks);
        add_rows<Sum, VECTORS, most>(rows, run, ahead, source + first, column, sums + first * width, width);
        first += rows;
        ahead.count = 0;
    }
}

// One channel a group on both sides: products of vectors.
template <typename Sum>
inline void add_products(const Run<Sum>& run, Sum* sums, int64_t width) {
    typedef typename Vector<Sum>::type vector;
    typedef typename Vector<Sum>::unaligned unaligned;
    for (int64_t column = 0; column < width; column += Vector<Sum>::lanes) {
        vector* target = reinterpret_cast<vector*>(sums + column);
        vector sum = *target;
        for (int j = 0; j < run.count; ++j)
            sum += *reinterpret_cast<const unaligned*>(run.x[j] + column) *
                   *reinterpret_cast<const unaligned*>(run.dy[j] + column);
        *target = sum;
    }
}

// Find the rows of a run, or copy them with each group's channels padded to `stride`.
template <typename T, typename Sum>
inline void find_rows(const T* source, const int32_t* rows, int count, int64_t groups, int64_t channels,
                      int64_t stride, bool copied, Sum* copy, const Sum** found) {
    for (int j = 0; j < count; ++j) {
        const T* row = source + rows[j] * groups * channels;
        if constexpr (std::is_same<T, Sum>::value) {
            found[j] = row;
            if (!copied) continue;
        }
        found[j] = copy;
        for (int64_t g = 0; g < groups; ++g, copy += stride) {
            widen_row(row + g * channels, channels, copy);
            for (int64_t c = channels; c < stride; ++c) copy[c] = 0;
        }
    }
}

// Where the next run of a chunk begins: tile by tile, offset by offset.
struct Place {
    const spcy_grad_plan* plan;
    int64_t tile, end, offset, begin;

    Place(const spcy_grad_plan* plan, int64_t chunk) : plan(plan), tile(chunk * plan->tiles_per_chunk), offset(0) {
        end = tile + plan->tiles_per_chunk < plan->n_tiles ? tile + plan->tiles_per_chunk : plan->n_tiles;
        begin = tile < end ? *cut(0) : 0;
    }

    const int64_t* cut(int64_t k) const { return plan->tile_ptr + k * (plan->n_tiles + 1) + tile; }

    // Return the first pair of the next run, and how many it has: none at the end.
    int64_t next(int most, int* count) {
        *count = 0;
        for (; tile < end; begin = *cut(offset)) {
            const int64_t left = cut(offset)[1] - begin;
            if (left > 0) {
                *count = left < most ? (int)left : most;
                begin += *count;
                return begin - *count;
            }
            if (++offset == plan->n_offsets) {
                offset = 0;
                if (++tile == end) break;
            }
            if (offset + 1 == plan->n_offsets) continue;
            const int64_t* soon = cut(offset + 1);  // its pairs lie far from this one's
            for (int64_t j = soon[0]; j < soon[1]; j += 16) {
                __builtin_prefetch(plan->in_rows + j);
                __builtin_prefetch(plan->out_rows + j);
            }
        }
        return 0;
    }
};

template <typename T>
void add_chunk(const spcy_grad_plan* plan, int64_t chunk, int64_t first, int64_t last, void* scratch) {
    typedef typename Wide<T>::type Sum;
    constexpr int lanes = Vector<Sum>::lanes;
    const bool by_channel = plan->c_in == 1 && plan->c_out == 1;
    // a convolution by channel is one group of vectors
    const int64_t groups = by_channel ? 1 : plan->groups;
    const int64_t c_in = by_channel ? plan->groups : plan->c_in, c_out = by_channel ? plan->groups : plan->c_out;
    const int64_t width = plan->width, stride = width / groups;
    const int64_t x_stride = by_channel ? width : c_in;
    const bool copied = stride != c_out;
    const int64_t copy_size = kRun * (groups * x_stride + width);
    Sum* sums = static_cast<Sum*>(plan->sums) + chunk * plan->n_offsets * plan->c_in * width;
    for (int64_t k = 0; k < plan->n_offsets; ++k)
        memset(sums + (k * plan->c_in + first) * width, 0, (last - first) * width * sizeof(Sum));

    Run<Sum> runs[2];
    Place place(plan, chunk);
    const auto find = [&](int number) {
        Run<Sum>& run = runs[number & 1];
        const int64_t begin = place.next(kRun, &run.count);
        run.offset = place.offset;
        Sum* copy = static_cast<Sum*>(scratch) + (number & 1) * copy_size;
        find_rows(static_cast<const T*>(plan->features), plan->in_rows + begin, run.count, groups, c_in, x_stride,
                  by_channel && copied, copy, run.x);
        find_rows(static_cast<const T*>(plan->gradient), plan->out_rows + begin, run.count, groups, c_out, stride,
                  copied, copy + kRun * groups * x_stride, run.dy);
    };
    find(0);
    for (int number = 0; runs[number & 1].count; ++number) {
        const Run<Sum>& run = runs[number & 1];
        find(number + 1);
        Sum* target = sums + run.offset * plan->c_in * width;
        if (by_channel) {
            add_products(run, target, width);
            continue;
        }
        Ahead<Sum> ahead = {&runs[~number & 1], runs[~number & 1].count, groups * c_in, groups * c_out};
        if (ahead.count > run.count) ahead.count = run.count;
        for (int64_t column = 0; column < width;) {
            const int64_t group = column / stride, source = group * c_in;
            const int vectors = block_vectors(((group + 1) * stride - column) / lanes);
            Sum* block = target + column;
            switch (vectors) {
                case 1: add_columns<Sum, 1>(run, ahead, source, first, last, column, block, width); break;
                case 2: add_columns<Sum, 2>(run, ahead, source, first, last, column, block, width); break;
#if defined(__AVX512F__) || defined(__aarch64__)
                case 3: add_columns<Sum, 3>(run, ahead, source, first, last, column, block, width); break;
                case 4: add_columns<Sum, 4>(run, ahead, source, first, last, column, block, width); break;
#endif
            }
            column += vectors * lanes;
        }
    }
}

template <typename T>
void reduce_chunks(const spcy_grad_plan* plan, int64_t offset) {
    typedef typename Wide<T>::type Sum;
    const bool by_channel = plan->c_in == 1 && plan->c_out == 1;
    const int64_t groups = by_channel ? 1 : plan->groups, c_out = by_channel ? plan->groups : plan->c_out;
    const int64_t rows = plan->c_in, width = plan->width, stride = width / groups;
    const int64_t size = plan->n_offsets * rows * width;
    Sum* total = static_cast<Sum*>(plan->sums) + offset * rows * width;
    T* out = static_cast<T*>(plan->out) + offset * rows * groups * c_out;
    for (int64_t chunk = 1; chunk < plan->n_chunks; ++chunk) {
        const Sum* sums = total + chunk * size;
        for (int64_t i = 0; i < rows * width; ++i) total[i] += sums[i];
    }
    for (int64_t i = 0; i < rows * groups; ++i)
        for (int64_t c = 0; c < c_out; ++c) convert(total[i * stride + c], out + i * c_out + c);
}

template <typename T>
constexpr spcy_grad_kernels grad_kernels_of() {
    typedef typename Wide<T>::type Sum;
    return {Vector<Sum>::lanes, sizeof(Sum), kRun, add_chunk<T>, reduce_chunks<T>};
}

}  // namespace

#endif
