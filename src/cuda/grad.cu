// Gradients: of a convolution's weight, and of maxima.

// ---- the weight's gradient: sums of x[in]^T dy[out] over the pairs of each offset ------------------------
//
// The pairs of an offset are cut into chunks of equal size, the last one shorter; those of all offsets are numbered
// one after the other. A block sums a chunk for EDGE x EDGE channels of a group, pair after pair, and `add_parts`
// adds an offset's chunks in ascending order: the bits depend on the size of the chunks alone.

struct spcy_chunks {
    const int64_t* tile_ptr;  // (K, cuts): the pairs of an offset begin at its first cut, and end at its last
    int64_t offsets, cuts, pairs;  // pairs of a chunk

    __device__ int64_t begin(int64_t k) const { return tile_ptr[k * cuts]; }
    __device__ int64_t end(int64_t k) const { return tile_ptr[k * cuts + cuts - 1]; }
    __device__ uint32_t count(int64_t k) const {  // an offset has no more pairs than rows
        return k < offsets ? (uint32_t)(end(k) - begin(k) + pairs - 1) / (uint32_t)pairs : 0;
    }
};

// The number of chunks before offset k; a whole warp calls it.
static __device__ inline int64_t spcy_chunks_before(const spcy_chunks& chunks, int64_t k) {
    int64_t sum = 0;
    for (int64_t i = threadIdx.x % SPCY_WARP; i < k; i += SPCY_WARP) sum += chunks.count(i);
    for (int step = SPCY_WARP / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
    return sum;
}

// The offset of a chunk, or K behind the last; `before` becomes the number of chunks before that offset.
static __device__ inline int64_t spcy_offset_of_chunk(const spcy_chunks& chunks, int64_t chunk, int64_t* before) {
    const int lane = threadIdx.x % SPCY_WARP;
    int64_t sum = 0;
    for (int64_t first = 0; first < chunks.offsets; first += SPCY_WARP) {
        const int64_t count = chunks.count(first + lane);
        int64_t last = count;  // up to this lane
        for (int step = 1; step < SPCY_WARP; step *= 2) {
            const int64_t other = __shfl_up_sync(0xFFFFFFFFu, last, step);
            if (lane >= step) last += other;
        }
        const unsigned behind = __ballot_sync(0xFFFFFFFFu, chunk < sum + last);
        if (behind) {
            const int found = __ffs(behind) - 1;
            *before = sum + __shfl_sync(0xFFFFFFFFu, last - count, found);
            return first + found;
        }
        sum += __shfl_sync(0xFFFFFFFFu, last, SPCY_WARP - 1);
    }
    return chunks.offsets;
}

struct spcy_task {  // of a block: pairs [begin, end), and the first of its channels of a group
    int64_t begin, end, group, chunk;
    int first_in, first_out;
};

static __device__ inline spcy_task spcy_task_of(const spcy_chunks& chunks, int64_t number, int c_in, int c_out, int groups,
                                                int edge) {
    const int64_t in_blocks = (c_in + edge - 1) / edge, out_blocks = (c_out + edge - 1) / edge;
    spcy_task task;
    task.first_out = number % out_blocks * edge;
    task.first_in = number / out_blocks % in_blocks * edge;
    task.group = number / out_blocks / in_blocks % groups;
    task.chunk = number / out_blocks / in_blocks / groups;
    int64_t before = 0;
    const int64_t k = spcy_offset_of_chunk(chunks, task.chunk, &before);
    task.begin = task.end = 0;
    if (k < chunks.offsets) {
        task.begin = chunks.begin(k) + (task.chunk - before) * chunks.pairs;
        task.end = min(task.begin + chunks.pairs, chunks.end(k));
    }
    return task;
}

// Exact products: 16 x 16 threads with EDGE / 16 channels on either side.
template <class Number, int EDGE>
__global__ void __launch_bounds__(256, 2) add_exact(
    const Number* __restrict__ features,   // IN, (n_in, groups * c_in)
    const Number* __restrict__ gradient,   // IN, (n_out, groups * c_out)
    const int32_t* __restrict__ in_rows,   // IN, (pairs,)
    const int32_t* __restrict__ out_rows,  // IN, (pairs,)
    const int64_t* tile_ptr,  // IN, (offsets, cuts)
    int64_t offsets,
    int64_t cuts,
    int64_t chunk_pairs,
    int64_t n_chunks,
    int c_in,
    int c_out,
    int groups,
    typename spcy_sum<Number>::type* __restrict__ parts  // OUT, (chunks, c_in, groups * c_out)
) {
    typedef typename spcy_sum<Number>::type Sum;
    constexpr int run = 16, side = EDGE / 16;  // pairs at once; channels of a thread
    __shared__ Sum x[run][EDGE];
    __shared__ Sum y[run][EDGE];
    const spcy_chunks chunks = {tile_ptr, offsets, cuts, chunk_pairs};
    const int64_t blocks = (int64_t)((c_in + EDGE - 1) / EDGE) * ((c_out + EDGE - 1) / EDGE) * groups;
    const int row = threadIdx.x / 16, col = threadIdx.x % 16;
    SPCY_EACH_BLOCK(number, n_chunks * blocks) {
        const spcy_task task = spcy_task_of(chunks, number, c_in, c_out, groups, EDGE);
        if (task.begin == task.end) continue;  // behind the last chunk
        Sum sums[side][side] = {};
        for (int64_t first = task.begin; first < task.end; first += run) {
            const int size = (int)min(task.end - first, (int64_t)run);
            __syncthreads();  // the run before is added
            for (int i = threadIdx.x; i < run * EDGE; i += 256) {
                const int j = i / EDGE, c = i % EDGE;
                Sum value = 0, other = 0;
                if (j < size && task.first_in + c < c_in)
                    convert(features[((int64_t)in_rows[first + j] * groups + task.group) * c_in + task.first_in + c], &value);
                if (j < size && task.first_out + c < c_out)
                    convert(gradient[((int64_t)out_rows[first + j] * groups + task.group) * c_out + task.first_out + c], &other);
                x[j][c] = value;
                y[j][c] = other;
            }
            __syncthreads();
            for (int j = 0; j < size; ++j)
#pragma unroll
                for (int a = 0; a < side; ++a)
#pragma unroll
                    for (int b = 0; b < side; ++b) sums[a][b] += x[j][row + 16 * a] * y[j][col + 16 * b];
        }
#pragma unroll
        for (int a = 0; a < side; ++a)
#pragma unroll
            for (int b = 0; b < side; ++b) {
                const int in = task.first_in + row + 16 * a, out = task.first_out + col + 16 * b;
                if (in >= c_in || out >= c_out) continue;
                parts[((task.chunk * c_in + in) * groups + task.group) * c_out + out] = sums[a][b];
            }
    }
}

// Products on the tensor cores: 2 x 2 or 4 x 2 warps share EDGE x EDGE channels; rows of pairs are copied ahead, as
// in a convolution. WHOLE: rows of a group are whole chunks, at addresses of chunks.
enum { SPCY_RUN = 64, SPCY_STAGES = 3 };  // pairs at once, and how many of such runs are in shared memory

template <class Number, int EDGE, bool WHOLE>
__global__ void __launch_bounds__(EDGE == 128 ? 256 : 128, WHOLE ? 2 : 1) add_products(
    const Number* features,   // IN, (n_in, groups * c_in)
    const Number* gradient,   // IN, (n_out, groups * c_out)
    const int32_t* in_rows,   // IN, (pairs,)
    const int32_t* out_rows,  // IN, (pairs,)
    const int64_t* tile_ptr,  // IN, (offsets, cuts)
    int64_t offsets,
    int64_t cuts,
    int64_t chunk_pairs,
    int c_in,
    int c_out,
    int groups,
    float* parts  // OUT, (chunks, c_in, groups * c_out)
) {
    constexpr int threads = EDGE == 128 ? 256 : 128, warps_m = threads / 64;
    constexpr int warp_rows = EDGE / warps_m, warp_cols = EDGE / 2;
    constexpr int lanes = kLanes<Number>, row_chunks = EDGE / lanes;
    constexpr int rows_at_once = threads / row_chunks, passes = SPCY_RUN / rows_at_once;
    constexpr int side_size = SPCY_RUN * row_chunks;  // chunks of x in a stage; as many of dy follow
    extern __shared__ uint4 shared[];

    const spcy_chunks chunks = {tile_ptr, offsets, cuts, chunk_pairs};
    const spcy_task task = spcy_task_of(chunks, blockIdx.x, c_in, c_out, groups, EDGE);
    if (task.begin == task.end) return;  // behind the last chunk
    const uint32_t first_row = threadIdx.x / row_chunks, chunk = threadIdx.x % row_chunks;
    const int in_rest = c_in - task.first_in - (int)chunk * lanes, out_rest = c_out - task.first_out - (int)chunk * lanes;
    const Number* const x_from = features + task.group * c_in + task.first_in + chunk * lanes;
    const Number* const y_from = gradient + task.group * c_out + task.first_out + chunk * lanes;
    const int size = (int)(task.end - task.begin);
    int ahead = 0;
    int32_t x_rows[passes], y_rows[passes];
    in_rows += task.begin + first_row;
    out_rows += task.begin + first_row;
    const auto load_rows = [&] {
#pragma unroll
        for (int i = 0; i < passes; ++i) {
            const int pair = ahead + i * rows_at_once;
            const bool there = pair + (int)first_row < size;
            x_rows[i] = there ? in_rows[pair] : -1;
            y_rows[i] = there ? out_rows[pair] : -1;
        }
    };
    const auto copy = [&](const Number* from, int32_t row, int64_t row_size, int rest, uint4* to) {
        const bool valid = row >= 0 && rest > 0;
        from += (int64_t)max(row, 0) * row_size;
        if constexpr (WHOLE)
            spcy_copy_async<16>(to, from, valid);
        else
            copy_some(from, valid ? rest : 0, to);
    };
    const auto copy_stage = [&](uint4* x) {
#pragma unroll
        for (int i = 0; i < passes; ++i) {
            uint4* const to = x + place<row_chunks>(first_row + i * rows_at_once, chunk);
            copy(x_from, x_rows[i], (int64_t)groups * c_in, in_rest, to);
            copy(y_from, y_rows[i], (int64_t)groups * c_out, out_rest, to + side_size);
        }
        ahead += SPCY_RUN;
        if (ahead < size) load_rows();
    };

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int warp_row = warp % warps_m * warp_rows, warp_col = warp / warps_m * warp_cols;
    float sums[warp_rows / 16][warp_cols / 8][4] = {};
    load_rows();
#pragma unroll
    for (int stage = 0; stage < SPCY_STAGES - 1; ++stage) {
        if (ahead < size) copy_stage(shared + stage * 2 * side_size);
        spcy_copy_commit();  // also where there is nothing: the wait counts
    }
    int read = 0, written = SPCY_STAGES - 1;
#pragma unroll 1
    for (int pair = 0; pair < size; pair += SPCY_RUN) {
        spcy_copy_wait<SPCY_STAGES - 2>();
        __syncthreads();  // the stage is complete, and the one before it free
        if (ahead < size) copy_stage(shared + written * 2 * side_size);
        spcy_copy_commit();
        const uint4 *x = shared + read * 2 * side_size, *y = x + side_size;
#pragma unroll
        for (int step = 0; step < SPCY_RUN; step += 16) {
            uint32_t a[warp_rows / 16][4], b[warp_cols / 8][2];
#pragma unroll
            for (int m = 0; m < warp_rows / 16; ++m) {  // x is transposed: eight pairs are eight columns
                const int at = step + lane % 8 + lane / 16 * 8, in = warp_row / 8 + 2 * m + lane / 8 % 2;
                spcy_load_matrix_x4_transposed(a[m], x + place<row_chunks>(at, in));
            }
#pragma unroll
            for (int n = 0; n < warp_cols / 8; n += 2) {
                uint32_t four[4];
                spcy_load_matrix_x4_transposed(four, y + place<row_chunks>(step + lane % 16, warp_col / 8 + n + lane / 16));
                b[n][0] = four[0], b[n][1] = four[1], b[n + 1][0] = four[2], b[n + 1][1] = four[3];
            }
#pragma unroll
            for (int m = 0; m < warp_rows / 16; ++m)
#pragma unroll
                for (int n = 0; n < warp_cols / 8; ++n) add_product(Number(), sums[m][n], a[m], b[n]);
        }
        read = read + 1 == SPCY_STAGES ? 0 : read + 1;
        written = written + 1 == SPCY_STAGES ? 0 : written + 1;
    }
#pragma unroll
    for (int m = 0; m < warp_rows / 16; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int in = task.first_in + warp_row + 16 * m + 8 * half + lane / 4;
            if (in >= c_in) continue;
            float* const row = parts + ((task.chunk * c_in + in) * groups + task.group) * c_out;
#pragma unroll
            for (int n = 0; n < warp_cols / 8; ++n) {
                const int out = task.first_out + warp_col + 8 * n + lane % 4 * 2;
                const float2 two = make_float2(sums[m][n][2 * half], sums[m][n][2 * half + 1]);
                if (WHOLE && out < c_out)
                    *reinterpret_cast<float2*>(row + out) = two;
                else {
                    if (out < c_out) row[out] = two.x;
                    if (out + 1 < c_out) row[out + 1] = two.y;
                }
            }
        }
}

// Add each offset's parts, in ascending order: a block takes SPCY_PART numbers of an offset.
enum { SPCY_PART = 256 };

template <class Number>
__global__ void __launch_bounds__(SPCY_PART, 4)
    add_parts(const typename spcy_sum<Number>::type* __restrict__ parts, const int64_t* tile_ptr, int64_t offsets,
              int64_t cuts, int64_t chunk_pairs, int64_t size, Number* __restrict__ out) {
    const spcy_chunks chunks = {tile_ptr, offsets, cuts, chunk_pairs};
    const uint32_t blocks = (uint32_t)((size + SPCY_PART - 1) / SPCY_PART);  // a weight has less than 2**40 numbers
    for (uint32_t task = blockIdx.x; task < (uint32_t)offsets * blocks; task += gridDim.x) {
        const int64_t k = task / blocks, i = (int64_t)(task % blocks) * SPCY_PART + threadIdx.x;
        const int64_t first = spcy_chunks_before(chunks, k), count = chunks.count(k);
        if (i >= size) continue;
        typename spcy_sum<Number>::type sum = 0;
        for (int64_t chunk = first; chunk < first + count; ++chunk) sum += parts[chunk * size + i];
        convert(sum, &out[k * size + i]);
    }
}

// Whether x is the maximum y: NaN, if that is.
template <typename T>
static __device__ inline bool spcy_is_maximum(T x, T y) {
    typename spcy_sum<T>::type value, maximum;
    convert(x, &value);
    convert(y, &maximum);
    return value == maximum || (value != value && maximum != maximum);
}

enum { SPCY_WORD = 32 };  // channels, of which each has a bit: those that the threads of a warp have

// Of each pair, note the channels in which it has the maximum of its output: the first one does, if several have it.
// Those of an output that are `left` are all of them before. Blocks and threads as in a pool, and a whole warp for a word.
template <typename T>
__global__ void find_maxima(const T* __restrict__ features, const T* __restrict__ maxima,
                            const int32_t* __restrict__ in_rows, const int32_t* __restrict__ out_rows,
                            const int64_t* __restrict__ tile_ptr, int64_t offsets, int64_t tiles, int channels,
                            uint32_t* left, uint32_t* __restrict__ taken) {
    const int words = (channels + SPCY_WORD - 1) / SPCY_WORD;
    SPCY_EACH_BLOCK(tile, tiles)
        spcy_each_pair(in_rows, out_rows, tile_ptr, offsets, tiles, tile, words * SPCY_WORD,
                       [&](int64_t in, int64_t row, int64_t c, int64_t pair) {
            const int64_t word = row * words + c / SPCY_WORD;
            const bool maximum =
                c < channels && spcy_is_maximum(features[in * channels + c], maxima[row * channels + c]);
            const uint32_t there = __ballot_sync(0xFFFFFFFFu, maximum);
            if (c % SPCY_WORD == 0) {
                const uint32_t found = there & left[word];
                left[word] &= ~found;
                taken[pair * words + c / SPCY_WORD] = found;
            }
        });
}

// Add to each input row the gradients of the maxima that its pairs have; tiles are of input ranks.
template <typename T>
__global__ void return_maxima(const T* __restrict__ gradient, const uint32_t* __restrict__ taken,
                              const int32_t* __restrict__ in_rows, const int32_t* __restrict__ out_rows,
                              const int64_t* __restrict__ tile_ptr, int64_t offsets, int64_t tiles, int channels,
                              const int32_t* __restrict__ order, int64_t tile_size, int64_t n,
                              typename spcy_sum<T>::type* out) {
    const int words = (channels + SPCY_WORD - 1) / SPCY_WORD;
    SPCY_EACH_BLOCK(tile, tiles) {
        const int64_t first = tile * tile_size, size = min(tile_size, n - first) * channels;
        for (int64_t e = threadIdx.x; e < size; e += blockDim.x) {
            const int64_t rank = first + e / channels;
            out[(order ? order[rank] : rank) * channels + e % channels] = 0;
        }
        spcy_each_pair(in_rows, out_rows, tile_ptr, offsets, tiles, tile, channels,
                       [&](int64_t in, int64_t row, int64_t c, int64_t pair) {
            if (!(taken[pair * words + c / SPCY_WORD] >> (c % SPCY_WORD) & 1)) return;
            typename spcy_sum<T>::type value;
            convert(gradient[row * channels + c], &value);
            out[in * channels + c] += value;
        });
    }
}

// Give the gradient of each segment's maxima to the rows that have them, the first one if several have it; 0 to the
// segment's other rows.
template <typename T>
__global__ void return_segment_maxima(const T* __restrict__ features, const T* __restrict__ maxima,
                                      const T* __restrict__ gradient, const int32_t* __restrict__ order,
                                      const int64_t* __restrict__ segment_ptr, int64_t segments, int channels,
                                      T* __restrict__ dx) {
    SPCY_EACH(e, segments * channels) {
        bool left = true;
        for (int64_t i = segment_ptr[e / channels]; i < segment_ptr[e / channels + 1]; ++i) {
            const int64_t at = (order ? order[i] : i) * channels + e % channels;
            const bool found = left && spcy_is_maximum(features[at], maxima[e]);
            left &= !found;
            dx[at] = found ? gradient[e] : T{};
        }
    }
}
