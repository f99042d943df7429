// Rows of any numbers, taken to other places as words: bytes, or of more of them.

template <typename W>
__global__ void take(const W* __restrict__ source, int64_t source_stride, int64_t first,
                     const int32_t* __restrict__ rows, int64_t count, int64_t words, W* __restrict__ out,
                     int64_t out_stride, int64_t place) {
    SPCY_EACH(e, count * words) {
        const int64_t i = e / words, row = rows ? rows[i] : i;
        out[i * out_stride + place + e % words] = row < 0 ? W(0) : source[row * source_stride + first + e % words];
    }
}
