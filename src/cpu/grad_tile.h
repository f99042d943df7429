// A chunk of a weight's gradient: dw[k] += x[in]^T dy[out] over the chunk's pairs of some offsets.
//
// Tiles come first, so that their rows stay in cache while the offsets take turns; an offset's pairs in a
// tile are taken in runs. A block of rows and vectors of dw[k] is loaded into registers, one rank-1 update
// per pair reads the rows through row pointers, and the block is stored again: every sum sees its pairs in
// their order, whatever its block, its run and its tile.
//
// Short rows are read where they lie; while a run is added up, those of the next one are fetched. Long ones are
// copied: every block would fetch its line of each of them again, as these lines, apart by a power of two of
// bytes, fall into few sets of the cache; and so are rows that are no whole vectors or numbers to be widened.
#ifndef SPCY_CPU_GRAD_TILE_H
#define SPCY_CPU_GRAD_TILE_H

#include <stdint.h>
#include <string.h>

#include <type_traits>

#include "cpu/grad.h"
#include "cpu/wide.h"

namespace {

constexpr int kRun = 64;            // pairs
constexpr int64_t kAhead = 4;       // cache lines of a row that are fetched ahead
constexpr int kRowsAhead = 8;       // of rows that are copied
// Bytes that a row has at most that is read where it lies; not measured again for AVX-512, where copies weigh twice.
constexpr int64_t kLongRow = kVectorBytes < 64 ? 255 : 256;

// Pairs that are taken at a time, all of one offset: where their rows lie, copies so far apart.
template <typename Sum>
struct Run {
    const Sum* x[kRun];
    const Sum* dy[kRun];
    int64_t x_step, dy_step;
    int count;
    int64_t offset;
    bool first;  // of its offset: there are no sums yet
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

template <typename Sum, bool COPIED, int VECTORS, int ROWS>
inline void add_block(const Run<Sum>& run, const Ahead<Sum>& ahead, int64_t channel, int64_t column, Sum* sums,
                      int64_t width) {
    typedef typename Vector<Sum>::type vector;
    typedef typename Vector<Sum>::unaligned unaligned;
    vector sum[ROWS][VECTORS];
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < VECTORS; ++v)
            sum[r][v] = run.first ? vector{} : (vector)reinterpret_cast<unaligned*>(sums + r * width)[v];
    for (int j = 0; j < run.count; ++j) {
        if (!COPIED && j < ahead.count) {
            prefetch_row(ahead.run->x[j], ahead.c_in);
            prefetch_row(ahead.run->dy[j], ahead.c_out);
        }
        const Sum* a = (COPIED ? run.x[0] + j * run.x_step : run.x[j]) + channel;
        __asm__("" : "+r"(a));  // one pointer, not one index for each row of the block
        const unaligned* b =
            reinterpret_cast<const unaligned*>((COPIED ? run.dy[0] + j * run.dy_step : run.dy[j]) + column);
        vector factor[VECTORS];
        for (int v = 0; v < VECTORS; ++v) factor[v] = b[v];
        for (int r = 0; r < ROWS; ++r)
            for (int v = 0; v < VECTORS; ++v) sum[r][v] += a[r] * factor[v];
    }
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < VECTORS; ++v) reinterpret_cast<unaligned*>(sums + r * width)[v] = sum[r][v];
}

template <typename Sum, bool COPIED, int VECTORS, int ROWS>
inline void add_rows(int rows, const Run<Sum>& run, const Ahead<Sum>& ahead, int64_t channel, int64_t column,
                     Sum* sums, int64_t width) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS)
            add_block<Sum, COPIED, VECTORS, ROWS>(run, ahead, channel, column, sums, width);
        else
            add_rows<Sum, COPIED, VECTORS, ROWS - 1>(rows, run, ahead, channel, column, sums, width);
    }
}

// So many input channels of a group, in the fewest blocks, of even sizes.
template <typename Sum, bool COPIED, int VECTORS>
inline void add_columns(const Run<Sum>& run, Ahead<Sum>& ahead, int64_t channel, int64_t channels, int64_t column,
                        Sum* sums, int64_t width) {
    constexpr int most = block_rows<VECTORS>();
    for (int64_t blocks = (channels + most - 1) / most; blocks > 0; --blocks) {
        const int rows = (int)((channels + blocks - 1) / blocks);
        add_rows<Sum, COPIED, VECTORS, most>(rows, run, ahead, channel, column, sums, width);
        channels -= rows, channel += rows, sums += rows * width;
        ahead.count = 0;
    }
}

// A run, for so many input channels of each group; `x_stride` is from a group's to the next one's.
template <typename Sum, bool COPIED>
inline void add_run(const Run<Sum>& run, Ahead<Sum> ahead, int64_t x_stride, int64_t channels, int64_t stride,
                    Sum* sums, int64_t width) {
    constexpr int lanes = Vector<Sum>::lanes;
    if (ahead.count > run.count) ahead.count = run.count;
    for (int64_t column = 0; column < width;) {
        const int64_t group = column / stride, channel = group * x_stride;
        const int vectors = block_vectors(((group + 1) * stride - column) / lanes);
        Sum* block = sums + column;
        switch (vectors) {
            case 1: add_columns<Sum, COPIED, 1>(run, ahead, channel, channels, column, block, width); break;
            case 2: add_columns<Sum, COPIED, 2>(run, ahead, channel, channels, column, block, width); break;
#if defined(__AVX512F__) || defined(__aarch64__)
            case 3: add_columns<Sum, COPIED, 3>(run, ahead, channel, channels, column, block, width); break;
            case 4: add_columns<Sum, COPIED, 4>(run, ahead, channel, channels, column, block, width); break;
#endif
        }
        column += vectors * lanes;
    }
}

// One channel a group on both sides: products of vectors.
template <typename Sum>
inline void add_products(const Run<Sum>& run, Sum* sums, int64_t width) {
    typedef typename Vector<Sum>::type vector;
    typedef typename Vector<Sum>::unaligned unaligned;
    for (int64_t column = 0; column < width; column += Vector<Sum>::lanes) {
        unaligned* target = reinterpret_cast<unaligned*>(sums + column);
        vector sum = run.first ? vector{} : (vector)*target;
        for (int j = 0; j < run.count; ++j)
            sum += *reinterpret_cast<const unaligned*>(run.x[j] + column) *
                   *reinterpret_cast<const unaligned*>(run.dy[j] + column);
        *target = sum;
    }
}

// Channels [first, first + taken) of each group, which copies have padded to `stride`, `step` from row to row.
struct Rows {
    int64_t groups, channels, first, taken, stride, step;
};

template <typename Sum>
inline void find_rows(const Sum* source, const int32_t* rows, int count, const Rows& how, const Sum** found) {
    for (int j = 0; j < count; ++j) found[j] = source + rows[j] * how.groups * how.channels + how.first;
}

template <typename T, typename Sum>
inline void copy_rows(const T* source, const int32_t* rows, int count, const Rows& how, Sum* copy, const Sum** found) {
    const int64_t size = how.groups * how.channels;
    for (int j = 0; j < count; ++j, copy += how.step) {
        if (j + kRowsAhead < count) prefetch_row(source + rows[j + kRowsAhead] * size, size);
        const T* row = source + rows[j] * size + how.first;
        found[j] = copy;
        for (int64_t g = 0; g < how.groups; ++g) {
            widen_row(row + g * how.channels, how.taken, copy + g * how.stride);
            for (int64_t c = how.taken; c < how.stride; ++c) copy[g * how.stride + c] = 0;
        }
    }
}

// Where the next run of a task begins: tile by tile, offset by offset.
struct Place {
    const spcy_grad_plan* plan;
    int64_t first_offset, last_offset, first_tile, tile, end, offset, begin;

    Place(const spcy_grad_plan* plan, const spcy_grad_task& task)
        : plan(plan), first_offset(task.first_offset), last_offset(task.last_offset), offset(task.first_offset) {
        const int64_t most = plan->n_tiles, tiles = plan->tiles_per_chunk;
        first_tile = tile = task.chunk * tiles < most ? task.chunk * tiles : most;
        end = tile + tiles < most ? tile + tiles : most;
        begin = tile < end ? *cut(offset) : 0;
    }

    // The pairs that an offset has in the chunk.
    int64_t first_pair(int64_t k) const { return plan->tile_ptr[k * (plan->n_tiles + 1) + first_tile]; }
    int64_t last_pair(int64_t k) const { return plan->tile_ptr[k * (plan->n_tiles + 1) + end]; }

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
            if (++offset == last_offset) {
                offset = first_offset;
                if (++tile == end) break;
            }
            if (offset + 1 == last_offset) continue;
            const int64_t* soon = cut(offset + 1);  // its pairs lie far from this one's
            for (int64_t j = soon[0]; j < soon[1]; j += 16) {
                __builtin_prefetch(plan->in_rows + j);
                __builtin_prefetch(plan->out_rows + j);
            }
        }
        return 0;
    }
};

// The first chunk's sums are the result itself, if that is of their type and has no padding.
template <typename T>
inline typename Wide<T>::type* sums_of(const spcy_grad_plan* plan, int64_t chunk) {
    typedef typename Wide<T>::type Sum;
    const bool direct = spcy_sums_in_place(plan, sizeof(T), sizeof(Sum));
    const int64_t size = plan->n_offsets * plan->c_in * plan->width;
    return direct && chunk == 0 ? static_cast<Sum*>(plan->out) : static_cast<Sum*>(plan->sums) + (chunk - direct) * size;
}

template <typename T>
void add_chunk(const spcy_grad_plan* plan, const spcy_grad_task* task, void* scratch) {
    typedef typename Wide<T>::type Sum;
    const int64_t first = task->first_channel, last = task->last_channel;
    const bool by_channel = plan->c_in == 1 && plan->c_out == 1;
    // a convolution by channel is one group of vectors
    const int64_t groups = by_channel ? 1 : plan->groups;
    const int64_t c_in = by_channel ? plan->groups : plan->c_in, c_out = by_channel ? plan->groups : plan->c_out;
    const int64_t width = plan->width, stride = width / groups;
    const auto step = [](int64_t channels) { return spcy_copied_step(channels, sizeof(Sum)); };
    const Rows dy = {groups, c_out, 0, c_out, stride, step(width)};
    const Rows x = by_channel ? dy : Rows{groups, c_in, first, last - first, last - first, step(groups * (last - first))};
    const bool long_rows = !by_channel && groups * (c_in > c_out ? c_in : c_out) * (int64_t)sizeof(Sum) > kLongRow;
    const bool copied = !std::is_same<T, Sum>::value || stride != c_out || long_rows;
    const int64_t copy_size = kRun * (x.step + dy.step);
    Sum* sums = sums_of<T>(plan, task->chunk);

    Run<Sum> runs[2];
    Place place(plan, *task);
    for (int64_t k = task->first_offset; k < task->last_offset; ++k)
        if (place.first_pair(k) == place.last_pair(k))
            memset(sums + (k * plan->c_in + first) * width, 0, (last - first) * width * sizeof(Sum));
    const auto find = [&](int number) {
        Run<Sum>& run = runs[number & 1];
        const int64_t begin = place.next(kRun, &run.count);
        run.x_step = x.step, run.dy_step = dy.step, run.offset = place.offset;
        run.first = begin == place.first_pair(place.offset);
        const int32_t *in_rows = plan->in_rows + begin, *out_rows = plan->out_rows + begin;
        const T* features = static_cast<const T*>(plan->features);
        const T* gradient = static_cast<const T*>(plan->gradient);
        if constexpr (std::is_same<T, Sum>::value) {
            if (!copied) {
                find_rows(features, in_rows, run.count, x, run.x);
                find_rows(gradient, out_rows, run.count, dy, run.dy);
                return;
            }
        }
        Sum* copy = static_cast<Sum*>(scratch) + (number & 1) * copy_size;
        copy_rows(features, in_rows, run.count, x, copy, run.x);
        copy_rows(gradient, out_rows, run.count, dy, copy + kRun * x.step, run.dy);
    };
    find(0);
    for (int number = 0; runs[number & 1].count; ++number) {
        const Run<Sum>& run = runs[number & 1];
        find(number + 1);
        Sum* target = sums + (run.offset * plan->c_in + first) * width;
        const Ahead<Sum> ahead = {&runs[~number & 1], runs[~number & 1].count, groups * c_in, groups * c_out};
        if (by_channel)
            add_products(run, target, width);
        else if (copied)
            add_run<Sum, true>(run, ahead, x.stride, last - first, stride, target, width);
        else
            add_run<Sum, false>(run, ahead, c_in, last - first, stride, target, width);
    }
}

template <typename T>
void reduce_chunks(const spcy_grad_plan* plan, int64_t offset) {
    typedef typename Wide<T>::type Sum;
    const bool by_channel = plan->c_in == 1 && plan->c_out == 1;
    const int64_t groups = by_channel ? 1 : plan->groups, c_out = by_channel ? plan->groups : plan->c_out;
    const int64_t rows = plan->c_in, width = plan->width, stride = width / groups;
    Sum* total = sums_of<T>(plan, 0) + offset * rows * width;
    for (int64_t chunk = 1; chunk < plan->n_chunks; ++chunk) {
        const Sum* sums = sums_of<T>(plan, chunk) + offset * rows * width;
        for (int64_t i = 0; i < rows * width; ++i) total[i] += sums[i];
    }
    if (spcy_sums_in_place(plan, sizeof(T), sizeof(Sum))) return;
    T* out = static_cast<T*>(plan->out) + offset * rows * groups * c_out;
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
