// Losses with their gradients. A thread has a row, or adds up those of a block of rows.

enum { SPCY_LOSS_ROWS = 256 };

template <class Number>
__global__ void cross_entropy(const Number* __restrict__ logits, const int32_t* __restrict__ target,
                              const double* __restrict__ share, int64_t rows, int64_t classes,
                              double* __restrict__ losses, Number* __restrict__ out) {
    typedef typename spcy_sum<Number>::type T;
    SPCY_EACH(r, rows) {
        const Number* x = logits + r * classes;
        T most, value, sum = 0;
        convert(x[0], &most);
        for (int64_t c = 1; c < classes; ++c) {
            convert(x[c], &value);
            if (value > most) most = value;
        }
        for (int64_t c = 0; c < classes; ++c) {
            convert(x[c], &value);
            sum += exponential(value - most);
        }
        convert(x[target[r]], &value);
        losses[r] = ((double)logarithm(sum) - (double)(value - most)) * share[r];
        const T scale = (T)(share[r] / sum);
        for (int64_t c = 0; c < classes; ++c) {
            convert(x[c], &value);
            value = exponential(value - most) * scale;
            if (c == target[r]) value -= (T)share[r];
            convert(value, &out[r * classes + c]);
        }
    }
}

__global__ void add_losses(const double* __restrict__ losses, int64_t rows, double* __restrict__ sums) {
    SPCY_EACH(block, (rows + SPCY_LOSS_ROWS - 1) / SPCY_LOSS_ROWS) {
        const int64_t begin = block * SPCY_LOSS_ROWS;
        const int64_t end = rows - begin < SPCY_LOSS_ROWS ? rows : begin + SPCY_LOSS_ROWS;
        double sum = 0;
        for (int64_t r = begin; r < end; ++r) sum += losses[r];
        sums[block] = sum;
    }
}
