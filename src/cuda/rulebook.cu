// Count the pairs of each kernel offset, then fill them in, in the order (offset, output key).
//
// A block takes a chunk of sites under one offset. Counts stand in the order (offset, chunk), so that
// their running sum tells where each block's pairs go in the canonical order.

enum { SPCY_CHUNK = 1024 };  // sites, as spcy/_cuda/rulebook.py has it

typedef spcy_columns<int64_t> spcy_layout;

struct spcy_reach {  // by column
    spcy_layout low0, shift0;       // layout of the input keys
    spcy_layout low1, shift1;       // layout of the output keys
    spcy_layout out_low, out_high;  // first and last valid output
    spcy_layout stride, padding;
};

// The rank of what each output's query meets under each offset, -1 for none, and how many there are.
__global__ void find_neighbours(const uint64_t* __restrict__ queries, int64_t n, const uint64_t* __restrict__ slots, int bits,
                                const int64_t* __restrict__ steps, int64_t offsets, int64_t chunks,
                                int32_t* __restrict__ found, int64_t* __restrict__ counts) {
    SPCY_EACH_BLOCK(task, offsets * chunks) {
        const int64_t k = task / chunks, begin = task % chunks * SPCY_CHUNK;
        int count = 0;
        for (int step = 0; step < SPCY_CHUNK; step += blockDim.x) {
            const int64_t i = begin + step + threadIdx.x;
            int32_t rank = -1;
            if (i < n) {
                const uint64_t query = queries[i] + (uint64_t)steps[k];
                rank = spcy_find(slots, bits, query, spcy_slot(query, bits));
                found[k * n + i] = rank;
            }
            count += __syncthreads_count(rank >= 0);
        }
        if (threadIdx.x == 0) counts[task] = count;
    }
}

// Write the pairs that were found, and those of the mirrored offsets, which are the same, swapped: under
// offset `num_offsets - 1 - k`, if that was not searched itself.
__global__ void fill_neighbours(const int32_t* __restrict__ found, int64_t n, int64_t offsets, int64_t chunks,
                                const int64_t* __restrict__ counts, const int64_t* __restrict__ ends,
                                const int64_t* __restrict__ offset_ptr, int64_t num_offsets,
                                const int32_t* __restrict__ order, int32_t* __restrict__ in_rows,
                                int32_t* __restrict__ out_rows) {
    __shared__ int scratch[SPCY_WARP];
    SPCY_EACH_BLOCK(task, offsets * chunks) {
        const int64_t k = task / chunks, begin = task % chunks * SPCY_CHUNK, mirror = num_offsets - 1 - k;
        const int64_t to_mirror = mirror >= offsets ? offset_ptr[mirror] - offset_ptr[k] : 0;
        int64_t place = ends[task] - counts[task];
        for (int step = 0; step < SPCY_CHUNK; step += blockDim.x) {
            const int64_t i = begin + step + threadIdx.x;
            const int32_t rank = i < n ? found[k * n + i] : -1;
            int total;
            const int64_t pair = place + spcy_block_prefix(rank >= 0, scratch, &total);
            place += total;
            if (rank < 0) continue;
            const int32_t in = order ? order[rank] : rank, out = order ? order[i] : (int32_t)i;
            in_rows[pair] = in;
            out_rows[pair] = out;
            if (to_mirror) {
                in_rows[pair + to_mirror] = out;
                out_rows[pair + to_mirror] = in;
            }
        }
    }
}

// The key of the output that a site reaches by an offset, or the key that no site has. A convolution
// (divide) joins c to u where u * stride - padding + offset = c, a transposed one the other way round.
template <int COLUMNS>
static __device__ inline uint64_t spcy_reached(const spcy_reach& reach, uint64_t key, const int64_t* offset, int divide) {
    uint64_t out = 0;
    for (int c = 0; c < COLUMNS; ++c) {
        const int64_t value = spcy_unpack(key, reach.low0.values, reach.shift0.values, c), stride = reach.stride.values[c];
        int64_t u;
        if (divide) {
            const int64_t shifted = value + reach.padding.values[c] - offset[c];
            u = shifted / stride;
            if (u * stride != shifted) return SPCY_NO_KEY;
        } else {
            u = value * stride - reach.padding.values[c] + offset[c];
        }
        if (u < reach.out_low.values[c] || u > reach.out_high.values[c]) return SPCY_NO_KEY;
        out += (uint64_t)(u - reach.low1.values[c]) << reach.shift1.values[c];
    }
    return out;
}

template <int COLUMNS>
__global__ void count_reached(const uint64_t* __restrict__ keys, int64_t n, spcy_reach reach,
                              const int64_t* __restrict__ offsets, int64_t num_offsets, int divide, int64_t chunks,
                              int64_t* __restrict__ counts) {
    SPCY_EACH_BLOCK(task, num_offsets * chunks) {
        const int64_t begin = task % chunks * SPCY_CHUNK;
        const int64_t* offset = offsets + task / chunks * COLUMNS;
        int count = 0;
        for (int step = 0; step < SPCY_CHUNK; step += blockDim.x) {
            const int64_t i = begin + step + threadIdx.x;
            count += __syncthreads_count(i < n && spcy_reached<COLUMNS>(reach, keys[i], offset, divide) != SPCY_NO_KEY);
        }
        if (threadIdx.x == 0) counts[task] = count;
    }
}

// Write the input row of each pair, and the key of its output.
template <int COLUMNS>
__global__ void fill_reached(const uint64_t* __restrict__ keys, int64_t n, spcy_reach reach,
                             const int64_t* __restrict__ offsets, int64_t num_offsets, int divide, int64_t chunks,
                             const int64_t* __restrict__ counts, const int64_t* __restrict__ ends,
                             const int32_t* __restrict__ order, int32_t* __restrict__ in_rows,
                             uint64_t* __restrict__ out_keys) {
    __shared__ int scratch[SPCY_WARP];
    SPCY_EACH_BLOCK(task, num_offsets * chunks) {
        const int64_t begin = task % chunks * SPCY_CHUNK;
        const int64_t* offset = offsets + task / chunks * COLUMNS;
        int64_t place = ends[task] - counts[task];
        for (int step = 0; step < SPCY_CHUNK; step += blockDim.x) {
            const int64_t i = begin + step + threadIdx.x;
            const uint64_t key = i < n ? spcy_reached<COLUMNS>(reach, keys[i], offset, divide) : SPCY_NO_KEY;
            int total;
            const int64_t pair = place + spcy_block_prefix(key != SPCY_NO_KEY, scratch, &total);
            place += total;
            if (key == SPCY_NO_KEY) continue;
            in_rows[pair] = order ? order[i] : (int32_t)i;
            out_keys[pair] = key;
        }
    }
}

// Where the pairs of each tile of output ranks begin, under each offset.
__global__ void cut_tiles(const int32_t* __restrict__ out_rows, const int64_t* __restrict__ offset_ptr,
                          const int32_t* __restrict__ rank, int64_t tile_size, int64_t offsets, int64_t cuts,
                          int64_t* __restrict__ tile_ptr) {
    SPCY_EACH(e, offsets * cuts) {
        const int64_t limit = e % cuts * tile_size;
        int64_t low = offset_ptr[e / cuts], high = offset_ptr[e / cuts + 1];
        while (low < high) {
            const int64_t middle = (low + high) / 2;
            const int32_t row = out_rows[middle];
            if ((rank ? rank[row] : row) < limit)
                low = middle + 1;
            else
                high = middle;
        }
        tile_ptr[e] = low;
    }
}
