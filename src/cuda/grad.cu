// Gradients: of a convolution's weight, of maxima, of interpolation.

enum { SPCY_EDGE = 32, SPCY_RUN = 16 };  // channels of a block on either side; pairs that it takes at once

// How numbers of a type are summed.
template <class Number>
struct spcy_sum {
    typedef float type;
};
template <>
struct spcy_sum<double> {
    typedef double type;
};

// Sums of x[in]^T dy[out] over the pairs of one offset in one chunk of tiles: a block for 32 x 32 channels of a
// group. Pairs are added in their order, so that the bits depend on the chunks alone.
template <class Number>
__global__ void add_chunks(
    const Number* __restrict__ features,   // IN, (n_in, groups * c_in)
    const Number* __restrict__ gradient,   // IN, (n_out, groups * c_out)
    const int32_t* __restrict__ in_rows,   // IN, (pairs,)
    const int32_t* __restrict__ out_rows,  // IN, (pairs,)
    const int64_t* __restrict__ tile_ptr,  // IN, (K, tiles + 1)
    int64_t offsets,
    int64_t tiles,
    int64_t chunks,
    int c_in,
    int c_out,
    int groups,
    typename spcy_sum<Number>::type* __restrict__ parts  // OUT, (chunks, K, c_in, groups * c_out)
) {
    typedef typename spcy_sum<Number>::type Sum;
    __shared__ Sum x[SPCY_RUN][SPCY_EDGE];
    __shared__ Sum y[SPCY_RUN][SPCY_EDGE];
    const int64_t in_blocks = (c_in + SPCY_EDGE - 1) / SPCY_EDGE, out_blocks = (c_out + SPCY_EDGE - 1) / SPCY_EDGE;
    const int64_t tiles_of_chunk = (tiles + chunks - 1) / chunks;
    const int col = threadIdx.x % SPCY_EDGE, lane = threadIdx.x / SPCY_EDGE;  // 8 lanes of 32 threads
    SPCY_EACH_BLOCK(task, chunks * offsets * groups * in_blocks * out_blocks) {
        const int first_out = task % out_blocks * SPCY_EDGE, first_in = task / out_blocks % in_blocks * SPCY_EDGE;
        const int64_t rest = task / out_blocks / in_blocks, group = rest % groups;
        const int64_t k = rest / groups % offsets, chunk = rest / groups / offsets;
        const int64_t first = min(chunk * tiles_of_chunk, tiles), last = min(first + tiles_of_chunk, tiles);
        const int64_t begin = tile_ptr[k * (tiles + 1) + first], end = tile_ptr[k * (tiles + 1) + last];
        Sum sums[SPCY_EDGE / 8] = {};
        for (int64_t run = begin; run < end; run += SPCY_RUN) {
            const int size = (int)min(end - run, (int64_t)SPCY_RUN);
            __syncthreads();  // the run before is added
            for (int j = lane; j < size; j += 8) {
                const bool in = first_in + col < c_in, out = first_out + col < c_out;
                Sum value = 0;
                if (in) convert(features[((int64_t)in_rows[run + j] * groups + group) * c_in + first_in + col], &value);
                x[j][col] = value;
                value = 0;
                if (out) convert(gradient[((int64_t)out_rows[run + j] * groups + group) * c_out + first_out + col], &value);
                y[j][col] = value;
            }
            __syncthreads();
            for (int j = 0; j < size; ++j)
#pragma unroll
                for (int i = 0; i < SPCY_EDGE / 8; ++i) sums[i] += x[j][lane + 8 * i] * y[j][col];
        }
        if (first_out + col >= c_out) continue;
        for (int i = 0; i < SPCY_EDGE / 8; ++i) {
            const int row = first_in + lane + 8 * i;
            if (row >= c_in) break;
            parts[(((chunk * offsets + k) * c_in + row) * groups + group) * c_out + first_out + col] = sums[i];
        }
    }
}

// Add the chunks' sums, in ascending order.
template <class Number>
__global__ void add_parts(const typename spcy_sum<Number>::type* __restrict__ parts, int64_t chunks, int64_t n,
                          Number* __restrict__ out) {
    SPCY_EACH(i, n) {
        typename spcy_sum<Number>::type sum = 0;
        for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += parts[chunk * n + i];
        convert(sum, &out[i]);
    }
}

// The gradient where a ReLU with these outputs passed, else 0.
template <class Number>
__global__ void mask_relu(const Number* __restrict__ features, const Number* __restrict__ gradient, int64_t n,
                          Number* __restrict__ out) {
    SPCY_EACH(i, n) {
        typename spcy_sum<Number>::type value;
        convert(features[i], &value);
        out[i] = value == 0 ? Number() : gradient[i];
    }
}

// The input row of each maximum: that of its first pair, if several have it. Blocks and threads as in a pool.
template <typename T>
__global__ void find_maxima(const T* __restrict__ features, const T* __restrict__ maxima,
                            const int32_t* __restrict__ in_rows, const int32_t* __restrict__ out_rows,
                            const int64_t* __restrict__ tile_ptr, int64_t offsets, int64_t tiles, int channels,
                            int32_t* found) {
    SPCY_EACH_BLOCK(tile, tiles)
        for (int64_t k = 0; k < offsets; ++k) {
            const int64_t begin = tile_ptr[k * (tiles + 1) + tile];
            const int64_t elements = (tile_ptr[k * (tiles + 1) + tile + 1] - begin) * channels;
            if (elements) __syncthreads();
            for (int64_t e = threadIdx.x; e < elements; e += blockDim.x) {
                const int64_t pair = begin + e / channels;
                const int64_t at = (int64_t)out_rows[pair] * channels + e % channels;
                const T x = features[(int64_t)in_rows[pair] * channels + e % channels], y = maxima[at];
                if (found[at] < 0 && (x == y || (x != x && y != y))) found[at] = in_rows[pair];
            }
        }
}

// Add the gradient of each maximum to the row that it was found in; tiles are of input ranks.
template <typename T>
__global__ void return_maxima(const T* __restrict__ gradient, const int32_t* __restrict__ found,
                              const int32_t* __restrict__ in_rows, const int32_t* __restrict__ out_rows,
                              const int64_t* __restrict__ tile_ptr, int64_t offsets, int64_t tiles, int channels,
                              T* out) {
    SPCY_EACH_BLOCK(tile, tiles)
        for (int64_t k = 0; k < offsets; ++k) {
            const int64_t begin = tile_ptr[k * (tiles + 1) + tile];
            const int64_t elements = (tile_ptr[k * (tiles + 1) + tile + 1] - begin) * channels;
            if (elements) __syncthreads();
            for (int64_t e = threadIdx.x; e < elements; e += blockDim.x) {
                const int64_t pair = begin + e / channels;
                const int64_t at = (int64_t)out_rows[pair] * channels + e % channels;
                if (found[at] == in_rows[pair]) out[(int64_t)in_rows[pair] * channels + e % channels] += gradient[at];
            }
        }
}

// The row of each segment's maximum: the first in its order, if several have it.
template <typename T>
__global__ void find_segment_maxima(const T* __restrict__ features, const T* __restrict__ maxima,
                                    const int32_t* __restrict__ order, const int64_t* __restrict__ segment_ptr,
                                    int64_t segments, int channels, int32_t* __restrict__ found) {
    SPCY_EACH(e, segments * channels) {
        const T y = maxima[e];
        for (int64_t i = segment_ptr[e / channels]; i < segment_ptr[e / channels + 1]; ++i) {
            const T x = features[(int64_t)order[i] * channels + e % channels];
            if (x == y || (x != x && y != y)) {
                found[e] = order[i];
                break;
            }
        }
    }
}

// The weighted sum of the gradient's rows that each segment's entries name, in double precision.
template <typename T>
__global__ void weigh(const T* __restrict__ gradient, const double* __restrict__ weights, int64_t corners,
                      const int32_t* __restrict__ entries, const int64_t* __restrict__ segment_ptr, int64_t segments,
                      int channels, T* __restrict__ out) {
    SPCY_EACH(e, segments * channels) {
        double value = 0;
        for (int64_t i = segment_ptr[e / channels]; i < segment_ptr[e / channels + 1]; ++i)
            if (weights[entries[i]] != 0)  // 0 takes no inf along
                value += weights[entries[i]] * (double)gradient[entries[i] / corners * channels + e % channels];
        out[e] = (T)value;
    }
}
