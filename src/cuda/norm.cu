// Norms, over all rows or of each row. A thread has a column of a block of rows, a row, or a number.

enum { SPCY_NORM_ROWS = 256 };

template <class Number>
__device__ inline typename spcy_sum<Number>::type spcy_at(const Number* x, int64_t i) {
    typename spcy_sum<Number>::type value;
    convert(x[i], &value);
    return value;
}

template <class Number>
__global__ void moments(const Number* __restrict__ x, int64_t rows, int64_t channels, double* __restrict__ sums) {
    const int64_t blocks = (rows + SPCY_NORM_ROWS - 1) / SPCY_NORM_ROWS;
    SPCY_EACH(i, blocks * channels) {
        const int64_t block = i / channels, c = i % channels, begin = block * SPCY_NORM_ROWS;
        const int64_t end = rows - begin < SPCY_NORM_ROWS ? rows : begin + SPCY_NORM_ROWS;
        const double first = spcy_at(x, begin * channels + c);
        double sum = 0, squares = 0;
        for (int64_t r = begin; r < end; ++r) {
            const double value = spcy_at(x, r * channels + c) - first;
            sum += value;
            squares += value * value;
        }
        const double mean = sum / (double)(end - begin);
        sums[2 * block * channels + c] = first + mean;
        sums[(2 * block + 1) * channels + c] = squares - mean * sum;
    }
}

template <class Number>
__global__ void apply(const Number* __restrict__ x, int64_t n, int64_t channels,
                      const typename spcy_sum<Number>::type* __restrict__ centre,
                      const typename spcy_sum<Number>::type* __restrict__ scale,
                      const typename spcy_sum<Number>::type* __restrict__ shift, Number* __restrict__ out) {
    SPCY_EACH(i, n) {
        const int64_t c = i % channels;
        convert((spcy_at(x, i) - centre[c]) * scale[c] + shift[c], &out[i]);
    }
}

// The sums of dy and of dy * factor(row, column), for a column of a block of rows.
template <class Number, class Factor>
static __device__ inline void spcy_add_columns(const Number* __restrict__ dy, int64_t rows, int64_t channels,
                                               double* __restrict__ sums, const Factor& factor) {
    const int64_t blocks = (rows + SPCY_NORM_ROWS - 1) / SPCY_NORM_ROWS;
    SPCY_EACH(i, blocks * channels) {
        const int64_t block = i / channels, c = i % channels, begin = block * SPCY_NORM_ROWS;
        const int64_t end = rows - begin < SPCY_NORM_ROWS ? rows : begin + SPCY_NORM_ROWS;
        double sum = 0, products = 0;
        for (int64_t r = begin; r < end; ++r) {
            const double gradient = spcy_at(dy, r * channels + c);
            sum += gradient;
            products += gradient * factor(r, c);
        }
        sums[2 * block * channels + c] = sum;
        sums[(2 * block + 1) * channels + c] = products;
    }
}

template <class Number>
__global__ void gradient_sums(const Number* __restrict__ x, const Number* __restrict__ dy, int64_t rows,
                              int64_t channels, const typename spcy_sum<Number>::type* __restrict__ centre,
                              double* __restrict__ sums) {
    spcy_add_columns(dy, rows, channels, sums,
                     [&](int64_t r, int64_t c) { return spcy_at(x, r * channels + c) - (double)centre[c]; });
}

// The result may take the place of dy.
template <class Number>
__global__ void gradient(const Number* __restrict__ x, const Number* dy, int64_t n, int64_t channels,
                         const typename spcy_sum<Number>::type* __restrict__ centre,
                         const typename spcy_sum<Number>::type* __restrict__ mean,
                         const typename spcy_sum<Number>::type* __restrict__ slope,
                         const typename spcy_sum<Number>::type* __restrict__ scale, Number* out) {
    SPCY_EACH(i, n) {
        const int64_t c = i % channels;
        convert((spcy_at(dy, i) - mean[c] - (spcy_at(x, i) - centre[c]) * slope[c]) * scale[c], &out[i]);
    }
}

template <class Number>
__global__ void layer(const Number* __restrict__ x, int64_t rows, int64_t channels,
                      const typename spcy_sum<Number>::type* __restrict__ weight,
                      const typename spcy_sum<Number>::type* __restrict__ bias, double eps,
                      typename spcy_sum<Number>::type* __restrict__ moments, Number* __restrict__ out) {
    typedef typename spcy_sum<Number>::type T;
    SPCY_EACH(r, rows) {
        const int64_t first = r * channels;
        double sum = 0, squares = 0;
        for (int64_t c = 0; c < channels; ++c) sum += spcy_at(x, first + c);
        const T mean = (T)(sum / (double)channels);
        for (int64_t c = 0; c < channels; ++c) {
            const T beyond = spcy_at(x, first + c) - mean;
            squares += beyond * beyond;
        }
        const T inverse = (T)(1 / sqrt(squares / (double)channels + eps));
        moments[2 * r] = mean;
        moments[2 * r + 1] = inverse;
        for (int64_t c = 0; c < channels; ++c)
            convert((spcy_at(x, first + c) - mean) * inverse * weight[c] + bias[c], &out[first + c]);
    }
}

template <class Number>
__global__ void layer_gradient(const Number* __restrict__ x, const Number* __restrict__ dy, int64_t rows,
                               int64_t channels, const typename spcy_sum<Number>::type* __restrict__ weight,
                               const typename spcy_sum<Number>::type* __restrict__ moments,
                               Number* __restrict__ out) {
    typedef typename spcy_sum<Number>::type T;
    SPCY_EACH(r, rows) {
        const int64_t first = r * channels;
        const T mean = moments[2 * r], inverse = moments[2 * r + 1];
        double sum = 0, products = 0;
        for (int64_t c = 0; c < channels; ++c) {
            const T scaled = spcy_at(dy, first + c) * weight[c];
            sum += scaled;
            products += scaled * ((spcy_at(x, first + c) - mean) * inverse);
        }
        const T level = (T)(sum / (double)channels), slope = (T)(products / (double)channels);
        for (int64_t c = 0; c < channels; ++c) {
            const T normal = (spcy_at(x, first + c) - mean) * inverse;
            convert((spcy_at(dy, first + c) * weight[c] - level - normal * slope) * inverse, &out[first + c]);
        }
    }
}

template <class Number>
__global__ void layer_gradient_sums(const Number* __restrict__ x, const Number* __restrict__ dy, int64_t rows,
                                    int64_t channels, const typename spcy_sum<Number>::type* __restrict__ moments,
                                    double* __restrict__ sums) {
    spcy_add_columns(dy, rows, channels, sums, [&](int64_t r, int64_t c) {
        return (spcy_at(x, r * channels + c) - moments[2 * r]) * moments[2 * r + 1];
    });
}
