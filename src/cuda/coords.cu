// Keys of sites and of points' cells: pack, unpack, sort, make unique.

enum {
    SPCY_CHUNK = 4096,  // rows of a chunk, as spcy/_cuda/coords.py has it
};

// Least and greatest value of each column in rows [begin, end), by a block, to found[2][COLUMNS]; row i of them lies
// at rows + i * stride, its greatest values `to_high` behind the least.
template <typename T, int COLUMNS>
static __device__ inline void spcy_bounds(const T* rows, int64_t stride, int64_t to_high, int64_t begin, int64_t end,
                                          T* found) {
    __shared__ T parts[32][2 * COLUMNS];
    const int lane = threadIdx.x % SPCY_WARP, warp = threadIdx.x / SPCY_WARP, warps = blockDim.x / SPCY_WARP;
    __syncthreads();  // the parts may still be read
    for (int c = 0; c < COLUMNS; ++c) {
        T least = rows[begin * stride + c], most = rows[begin * stride + to_high + c];
        for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
            least = min(least, rows[i * stride + c]);
            most = max(most, rows[i * stride + to_high + c]);
        }
        for (int step = SPCY_WARP / 2; step > 0; step /= 2) {
            least = min(least, __shfl_xor_sync(0xFFFFFFFFu, least, step));
            most = max(most, __shfl_xor_sync(0xFFFFFFFFu, most, step));
        }
        if (lane == 0) {
            parts[warp][c] = least;
            parts[warp][COLUMNS + c] = most;
        }
    }
    __syncthreads();
    if (threadIdx.x < 2 * COLUMNS) {
        T value = parts[0][threadIdx.x];
        for (int w = 1; w < warps; ++w)
            value = threadIdx.x < COLUMNS ? min(value, parts[w][threadIdx.x]) : max(value, parts[w][threadIdx.x]);
        found[threadIdx.x] = value;
    }
}

// The bounds of each chunk of rows, a chunk for each block.
template <typename T, int COLUMNS>
__global__ void bounds(const T* values, int64_t n, int64_t chunks, T* found /* OUT, (chunks, 2, COLUMNS) */) {
    SPCY_EACH_BLOCK(chunk, chunks) {
        const int64_t begin = chunk * SPCY_CHUNK, end = min(begin + (int64_t)SPCY_CHUNK, n);
        spcy_bounds<T, COLUMNS>(values, COLUMNS, 0, begin, end, found + chunk * 2 * COLUMNS);
    }
}

// The bounds of all chunks, to the first; one block.
template <typename T, int COLUMNS>
__global__ void join_bounds(int64_t chunks, T* found /* IN OUT, (chunks, 2, COLUMNS) */) {
    spcy_bounds<T, COLUMNS>(found, 2 * COLUMNS, COLUMNS, 0, chunks, found);
}

template <int COLUMNS>
__global__ void pack(const int32_t* __restrict__ indices, int64_t n, spcy_layout low, spcy_layout shift,
                     uint64_t* __restrict__ keys) {
    SPCY_EACH(i, n) keys[i] = spcy_pack(indices + i * COLUMNS, low.values, shift.values, COLUMNS);
}

template <int COLUMNS>
__global__ void pack_inside(const int32_t* __restrict__ indices, int64_t n, spcy_layout low, spcy_layout high,
                            spcy_layout shift, uint64_t* __restrict__ keys) {
    SPCY_EACH(i, n) {
        const int32_t* index = indices + i * COLUMNS;
        bool inside = true;
        for (int c = 0; c < COLUMNS; ++c) inside = inside && low.values[c] <= index[c] && index[c] <= high.values[c];
        keys[i] = inside ? spcy_pack(index, low.values, shift.values, COLUMNS) : SPCY_NO_KEY;
    }
}

template <int COLUMNS>
__global__ void unpack(const uint64_t* __restrict__ keys, int64_t n, spcy_layout low, spcy_layout shift,
                       int32_t* __restrict__ indices) {
    SPCY_EACH(i, n)
        for (int c = 0; c < COLUMNS; ++c)
            indices[i * COLUMNS + c] = (int32_t)spcy_unpack(keys[i], low.values, shift.values, c);
}

template <int COLUMNS>
__global__ void repack(const uint64_t* __restrict__ keys, int64_t n, spcy_layout low0, spcy_layout shift0,
                       spcy_layout low1, spcy_layout shift1, uint64_t* __restrict__ out) {
    SPCY_EACH(i, n)
        out[i] = spcy_repack(keys[i], low0.values, shift0.values, low1.values, shift1.values, COLUMNS);
}

// Add how many keys are not greater than the one before.
__global__ void count_descents(const uint64_t* __restrict__ keys, int64_t n, uint64_t* count) {
    uint64_t found = 0;
    SPCY_EACH(i, n) found += i > 0 && keys[i] <= keys[i - 1];
    if (found) atomicAdd(count, found);
}

// Take keys and their rows in sorted order.
__global__ void take_sorted(const uint64_t* __restrict__ keys, const int64_t* __restrict__ order, int64_t n,
                            uint64_t* __restrict__ sorted, int32_t* __restrict__ rows) {
    SPCY_EACH(i, n) {
        sorted[i] = keys[order[i]];
        rows[i] = (int32_t)order[i];
    }
}

// How many keys of each chunk differ from the key before them.
__global__ void count_runs(const uint64_t* __restrict__ keys, int64_t n, int64_t chunks, int64_t* __restrict__ counts) {
    SPCY_EACH_BLOCK(chunk, chunks) {
        int64_t count = 0;
        for (int step = 0; step < SPCY_CHUNK; step += blockDim.x) {
            const int64_t i = chunk * SPCY_CHUNK + step + threadIdx.x;
            count += __syncthreads_count(i < n && (i == 0 || keys[i] != keys[i - 1]));
        }
        if (threadIdx.x == 0) counts[chunk] = count;
    }
}

// Where each run of equal keys begins, and its key; chunk_ptr is the first run of each chunk.
__global__ void fill_runs(const uint64_t* __restrict__ keys, int64_t n, int64_t chunks,
                          const int64_t* __restrict__ chunk_ptr, int64_t* __restrict__ starts,
                          uint64_t* __restrict__ unique) {
    __shared__ int scratch[SPCY_WARP];
    SPCY_EACH_BLOCK(chunk, chunks) {
        int64_t run = chunk_ptr[chunk];
        for (int step = 0; step < SPCY_CHUNK; step += blockDim.x) {
            const int64_t i = chunk * SPCY_CHUNK + step + threadIdx.x;
            const bool first = i < n && (i == 0 || keys[i] != keys[i - 1]);
            int total;
            const int before = spcy_block_prefix(first, scratch, &total);
            if (first) {
                starts[run + before] = i;
                unique[run + before] = keys[i];
            }
            run += total;
        }
    }
}

// The number of each row's run: `order` has the row at each sorted place.
__global__ void spread_runs(const int64_t* __restrict__ starts, int64_t runs, const int32_t* __restrict__ order, int64_t n,
                            int32_t* __restrict__ rows) {
    SPCY_EACH(i, n) rows[order[i]] = (int32_t)spcy_run_of(starts, runs, i);
}

// The key of the cell that holds each point, `none` outside [low, high]; with fractions, where in it the point lies.
// `between`: of cells between centres, named after their lowest corner. State 2: not finite.
template <typename T, int AXES>
__global__ void cell_keys(const T* __restrict__ points, int64_t n, const int32_t* __restrict__ batch,
                          spcy_columns<double> origin, spcy_columns<double> voxel_size, int between, spcy_layout low,
                          spcy_layout high, spcy_layout layout_low, spcy_layout shift, uint64_t none,
                          uint64_t* __restrict__ keys, double* __restrict__ fractions, uint8_t* __restrict__ state) {
    const double half = between ? 0.5 : 0;
    SPCY_EACH(i, n) {
        const int64_t b = batch ? batch[i] : 0;
        bool finite = true, inside = low.values[0] <= b && b <= high.values[0];
        uint64_t key = (uint64_t)(b - layout_low.values[0]) << shift.values[0];
        for (int d = 0; d < AXES; ++d) {
            const T value = points[i * AXES + d];
            const double place = ((double)value - origin.values[d]) / voxel_size.values[d] - half, cell = floor(place);
            if (fractions) fractions[i * AXES + d] = place - cell;
            finite = finite && value - value == T(0);
            inside = inside && (double)low.values[1 + d] <= cell && cell <= (double)high.values[1 + d];
            if (inside) key += (uint64_t)((int64_t)cell - layout_low.values[1 + d]) << shift.values[1 + d];
        }
        keys[i] = inside ? key : none;
        state[i] = finite ? 0 : 2;
    }
}
