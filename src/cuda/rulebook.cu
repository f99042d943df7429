// Count the pairs of each kernel offset, then fill them in, in the order (offset, output key).
//
// A block takes a chunk of sites under one offset. Counts stand in the order (offset, chunk), so that
// their running sum tells where each block's pairs go in the canonical order. Offsets come by value, so many at a
// time: nothing is copied from the host.

enum {
    SPCY_CHUNK = 1024,    // sites, as spcy/_cuda/builders.py has it
    SPCY_OFFSETS = 64,    // of one launch, likewise
    SPCY_SCAN = 1024,     // threads of the block that adds up counts
    SPCY_SCANNED = 8,     // counts that each of them takes
};

struct spcy_offsets {
    spcy_layout of[SPCY_OFFSETS];
};

struct spcy_reach {  // by column
    spcy_layout low0, shift0;       // layout of the input keys
    spcy_layout low1, shift1;       // layout of the output keys
    spcy_layout out_low, out_high;  // first and last valid output
    spcy_layout stride, padding;
};

// The rank of what each output's query meets under each offset, -1 for none, and how many there are. Offsets `first`
// and the next ones, whose keys are `steps` away.
__global__ void find_neighbours(const uint64_t* __restrict__ queries, int64_t n, const uint64_t* __restrict__ slots, int bits,
                                spcy_columns<int64_t> shift, spcy_offsets steps, int64_t first, int64_t offsets,
                                int64_t chunks, int32_t* __restrict__ found, int32_t* __restrict__ counts) {
    SPCY_EACH_BLOCK(task, offsets * chunks) {
        const int64_t k = first + task / chunks, begin = task % chunks * SPCY_CHUNK;
        uint64_t move = 0;
        for (int c = 0; c < SPCY_COLUMNS; ++c) move += (uint64_t)steps.of[task / chunks].values[c] << shift.values[c];
        int count = 0;
        for (int step = 0; step < SPCY_CHUNK; step += blockDim.x) {
            const int64_t i = begin + step + threadIdx.x;
            int32_t rank = -1;
            if (i < n) {
                const uint64_t query = queries[i] + move;
                rank = spcy_find(slots, bits, query, spcy_slot(query, bits));
                found[k * n + i] = rank;
            }
            count += __syncthreads_count(rank >= 0);
        }
        if (threadIdx.x == 0) counts[first * chunks + task] = count;
    }
}

// Where the pairs of each block begin, and those of each offset, by one block. Offsets behind the first `offsets` mirror
// them: offset k has as many pairs as num_offsets - 1 - k.
__global__ void __launch_bounds__(SPCY_SCAN)
    place_pairs(const int32_t* __restrict__ counts, int64_t offsets, int64_t chunks, int64_t num_offsets,
                int64_t* __restrict__ places /* OUT, (offsets, chunks) */, int64_t* offset_ptr /* OUT, (num_offsets + 1,) */) {
    __shared__ int scratch[SPCY_WARP];
    const int64_t size = offsets * chunks;
    int64_t sum = 0;
    for (int64_t begin = 0; begin < size; begin += SPCY_SCAN * SPCY_SCANNED) {
        const int64_t mine = begin + threadIdx.x * SPCY_SCANNED;
        int own[SPCY_SCANNED], all = 0, total;
        for (int i = 0; i < SPCY_SCANNED; ++i) all += own[i] = mine + i < size ? counts[mine + i] : 0;
        int64_t place = sum + spcy_block_prefix(all, scratch, &total);
        for (int i = 0; i < SPCY_SCANNED && mine + i < size; ++i) {
            places[mine + i] = place;
            if ((mine + i) % chunks == 0) offset_ptr[(mine + i) / chunks] = place;
            place += own[i];
        }
        sum += total;
    }
    __syncthreads();
    if (threadIdx.x) return;
    offset_ptr[offsets] = sum;
    for (int64_t k = offsets; k < num_offsets; ++k)
        offset_ptr[k + 1] = offset_ptr[k] + offset_ptr[num_offsets - k] - offset_ptr[num_offsets - 1 - k];
}

// Write the pairs that were found, and those of the mirrored offsets, which are the same, swapped: under
// offset `num_offsets - 1 - k`, if that was not searched itself.
__global__ void fill_neighbours(const int32_t* __restrict__ found, int64_t n, int64_t offsets, int64_t chunks,
                                const int64_t* __restrict__ places, const int64_t* __restrict__ offset_ptr,
                                int64_t num_offsets, const int32_t* __restrict__ order,
                                const int32_t* __restrict__ in_order, int32_t* __restrict__ in_rows,
                                int32_t* __restrict__ out_rows) {
    __shared__ int scratch[SPCY_WARP];
    SPCY_EACH_BLOCK(task, offsets * chunks) {
        const int64_t k = task / chunks, begin = task % chunks * SPCY_CHUNK, mirror = num_offsets - 1 - k;
        const int64_t to_mirror = mirror >= offsets ? offset_ptr[mirror] - offset_ptr[k] : 0;
        int64_t place = places[task];
        for (int step = 0; step < SPCY_CHUNK; step += blockDim.x) {
            const int64_t i = begin + step + threadIdx.x;
            const int32_t rank = i < n ? found[k * n + i] : -1;
            int total;
            const int64_t pair = place + spcy_block_prefix(rank >= 0, scratch, &total);
            place += total;
            if (rank < 0) continue;
            const int32_t in = in_order ? in_order[rank] : rank, out = order ? order[i] : (int32_t)i;
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
static __device__ inline uint64_t spcy_reached(const spcy_reach& reach, uint64_t key, const spcy_layout& by, int divide) {
    const int64_t* const offset = by.values;
    uint64_t out = 0;
    for (int c = 0; c < COLUMNS; ++c) {
        const int64_t value = spcy_unpack(key, reach.low0.values, reach.shift0.values, c), stride = reach.stride.values[c];
        int64_t u;
        if (divide) {
            const int64_t shifted = value + reach.padding.values[c] - offset[c];
            // 64 bits take five times as long to divide.
            const bool small = shifted == (int32_t)shifted && stride == (int32_t)stride;
            u = stride == 1 ? shifted : small ? (int32_t)shifted / (int32_t)stride : shifted / stride;
            if (u * stride != shifted) return SPCY_NO_KEY;
        } else {
            u = value * stride - reach.padding.values[c] + offset[c];
        }
        if (u < reach.out_low.values[c] || u > reach.out_high.values[c]) return SPCY_NO_KEY;
        out += (uint64_t)(u - reach.low1.values[c]) << reach.shift1.values[c];
    }
    return out;
}

// Count the pairs, and enter the keys of their outputs in a hash, where there are slots: these are all ones before.
template <int COLUMNS>
__global__ void count_reached(const uint64_t* __restrict__ keys, int64_t n, spcy_reach reach, spcy_offsets by, int64_t first,
                              int64_t offsets, int divide, int64_t chunks, uint64_t* slots, int bits,
                              int32_t* __restrict__ counts) {
    SPCY_EACH_BLOCK(task, offsets * chunks) {
        const int64_t begin = task % chunks * SPCY_CHUNK;
        int count = 0;
        for (int step = 0; step < SPCY_CHUNK; step += blockDim.x) {
            const int64_t i = begin + step + threadIdx.x;
            const uint64_t key = i < n ? spcy_reached<COLUMNS>(reach, keys[i], by.of[task / chunks], divide) : SPCY_NO_KEY;
            count += __syncthreads_count(key != SPCY_NO_KEY);
            if (!slots || key == SPCY_NO_KEY) continue;
            for (uint64_t slot = spcy_slot(key, bits);; slot = (slot + 1) & ((1ull << bits) - 1)) {
                uint64_t seen = spcy_load_relaxed(slots + 2 * slot);
                if (seen == SPCY_NO_KEY) seen = atomicCAS(slots + 2 * slot, SPCY_NO_KEY, key);
                if (seen == SPCY_NO_KEY || seen == key) break;
            }
        }
        if (threadIdx.x == 0) counts[first * chunks + task] = count;
    }
}

// List the keys in a hash, in any order, and add their number to `count`.
__global__ void list_keys(const uint64_t* __restrict__ slots, int64_t size, int64_t chunks, uint64_t* __restrict__ keys,
                          int64_t* count) {
    __shared__ int scratch[SPCY_WARP];
    __shared__ unsigned long long place;
    SPCY_EACH_BLOCK(chunk, chunks) {
        uint64_t own[SPCY_CHUNK / 256];  // blocks have 256 threads
        int found = 0, total;
        for (int j = 0; j < SPCY_CHUNK / 256; ++j) {
            const int64_t slot = chunk * SPCY_CHUNK + j * 256 + threadIdx.x;
            own[j] = slot < size ? slots[2 * slot] : SPCY_NO_KEY;
            found += own[j] != SPCY_NO_KEY;
        }
        const int before = spcy_block_prefix(found, scratch, &total);
        if (threadIdx.x == 0) place = atomicAdd((unsigned long long*)count, (unsigned long long)total);
        __syncthreads();
        uint64_t* to = keys + place + before;
        for (int j = 0; j < SPCY_CHUNK / 256; ++j)
            if (own[j] != SPCY_NO_KEY) *to++ = own[j];
    }
}

// Outputs are numbered by their sorted keys: in the hash, and as coordinates.
template <int COLUMNS>
__global__ void number_keys(const uint64_t* __restrict__ sorted, int64_t n, spcy_layout low, spcy_layout shift, uint64_t* slots,
                            int bits, uint64_t* __restrict__ keys /* OUT, with a sentinel */,
                            int32_t* __restrict__ indices /* OUT, (n, COLUMNS) */) {
    SPCY_EACH(i, n + 1) {
        const uint64_t key = i < n ? sorted[i] : SPCY_NO_KEY;
        keys[i] = key;
        if (i == n) continue;
        for (int c = 0; c < COLUMNS; ++c) indices[i * COLUMNS + c] = (int32_t)spcy_unpack(key, low.values, shift.values, c);
        uint64_t slot = spcy_slot(key, bits);
        while (slots[2 * slot] != key) slot = (slot + 1) & ((1ull << bits) - 1);
        slots[2 * slot + 1] = (uint64_t)i;
    }
}

// Write the rows of each pair.
template <int COLUMNS>
__global__ void fill_reached(const uint64_t* __restrict__ keys, int64_t n, spcy_reach reach, spcy_offsets by, int64_t first,
                             int64_t offsets, int divide, int64_t chunks, const uint64_t* __restrict__ slots, int bits,
                             const int64_t* __restrict__ places, const int32_t* __restrict__ order,
                             int32_t* __restrict__ in_rows, int32_t* __restrict__ out_rows) {
    __shared__ int scratch[SPCY_WARP];
    SPCY_EACH_BLOCK(task, offsets * chunks) {
        const int64_t begin = task % chunks * SPCY_CHUNK;
        int64_t place = places[first * chunks + task];
        for (int step = 0; step < SPCY_CHUNK; step += blockDim.x) {
            const int64_t i = begin + step + threadIdx.x;
            const uint64_t key = i < n ? spcy_reached<COLUMNS>(reach, keys[i], by.of[task / chunks], divide) : SPCY_NO_KEY;
            int total;
            const int64_t pair = place + spcy_block_prefix(key != SPCY_NO_KEY, scratch, &total);
            place += total;
            if (key == SPCY_NO_KEY) continue;
            in_rows[pair] = order ? order[i] : (int32_t)i;
            out_rows[pair] = spcy_find(slots, bits, key, spcy_slot(key, bits));
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
