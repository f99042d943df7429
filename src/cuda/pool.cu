// Reduce features over the pairs of a rulebook, and over segments of rows.

enum { SPCY_SUM, SPCY_MAX, SPCY_MEAN };

template <typename T>
static __device__ inline T spcy_of_none(int operation) {
    return operation == SPCY_MAX ? (T)__longlong_as_double(0xFFF0000000000000ll) : T(0);
}

// The sum, or the greater of the two, NaN if either is.
template <typename S, typename T>
static __device__ inline S spcy_combine(S y, T x, int operation) {
    if (operation != SPCY_MAX) return y + x;
    return x > y || x != x ? (S)x : y;
}

// A tile of output ranks for each block. Maxima are of the features' type, sums of the one that is summed in.
template <class Number, class Out>
__global__ void pool(const Number* __restrict__ features, const int32_t* __restrict__ in_rows,
                     const int32_t* __restrict__ out_rows, const int64_t* __restrict__ tile_ptr, int64_t offsets,
                     int64_t tiles, const int32_t* __restrict__ order, int64_t tile_size, int operation,
                     const int32_t* __restrict__ counts, Out* out, int64_t n, int channels) {
    typedef typename spcy_sum<Number>::type Sum;
    const Sum none = operation == SPCY_MEAN ? -Sum(0) : spcy_of_none<Sum>(operation);  // -0 plus x is x
    SPCY_EACH_BLOCK(tile, tiles) {
        const int64_t first = tile * tile_size, size = min(tile_size, n - first) * channels;
        for (int64_t e = threadIdx.x; e < size; e += blockDim.x) {
            const int64_t rank = first + e / channels;
            convert(none, &out[(order ? order[rank] : rank) * channels + e % channels]);
        }
        spcy_each_pair(in_rows, out_rows, tile_ptr, offsets, tiles, tile, channels,
                       [&](int64_t in, int64_t row, int64_t c, int64_t) {
            Out* y = out + row * channels + c;
            Sum value, old;
            convert(features[in * channels + c], &value);
            convert(*y, &old);
            convert(spcy_combine(old, value, operation), y);
        });
        if (!counts) continue;
        __syncthreads();
        for (int64_t e = threadIdx.x; e < size; e += blockDim.x) {
            const int64_t rank = first + e / channels, row = order ? order[rank] : rank;
            Out* y = out + row * channels + e % channels;
            Sum sum;
            convert(*y, &sum);
            convert(counts[row] ? sum / counts[row] : Sum(0), y);
        }
    }
}

__global__ void count_pairs_per_row(const int32_t* __restrict__ out_rows, int64_t pairs, int32_t* counts) {
    SPCY_EACH(pair, pairs) atomicAdd(&counts[out_rows[pair]], 1);
}

// Rows order[segment_ptr[s] : segment_ptr[s + 1]], one after the other in double precision.
template <typename S, typename T>
__global__ void segment_reduce(const T* __restrict__ features, const int32_t* __restrict__ order,
                               const int64_t* __restrict__ segment_ptr, int operation, S* __restrict__ out,
                               int64_t segments, int channels) {
    SPCY_EACH(e, segments * channels) {
        const int64_t begin = segment_ptr[e / channels], end = segment_ptr[e / channels + 1];
        double value = spcy_of_none<double>(operation);
        for (int64_t i = begin; i < end; ++i) {
            typename spcy_sum<T>::type more;
            convert(features[(order ? order[i] : i) * channels + e % channels], &more);
            value = spcy_combine(value, more, operation);
        }
        out[e] = (S)value;
    }
}

// The exact sum of such rows, or their mean, as of spcy_sum_columns on the CPU. `loose` begins as zeros.
template <typename S, typename T>
__global__ void segment_sums(const T* __restrict__ values, const double* __restrict__ lows,
                             const int32_t* __restrict__ order, const int64_t* __restrict__ segment_ptr, int mean,
                             S* __restrict__ out, double* __restrict__ out_lows, int32_t* loose,
                             int64_t segments, int channels) {
    SPCY_EACH(e, segments * channels) {
        const int64_t begin = segment_ptr[e / channels], end = segment_ptr[e / channels + 1];
        double high = 0, low = 0, lost = 0;
        for (int64_t i = begin; i < end; ++i) {
            const int64_t at = (order ? order[i] : i) * channels + e % channels;
            spcy_add_exactly((double)values[at], high, low, lost);
            if (lows) spcy_add_exactly(lows[at], high, low, lost);
        }
        if (lost != 0) atomicAdd(&loose[e / channels], 1);
        if (out_lows) out_lows[e] = low;
        out[e] = (S)(out_lows ? high : (high + low) / (mean && end > begin ? (double)(end - begin) : 1.0));
    }
}
