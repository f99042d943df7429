// The pairs of a rulebook, cut into tiles of output ranks, as kernels go through them that have no product.
#ifndef SPCY_CUDA_PAIRS_H
#define SPCY_CUDA_PAIRS_H

// Call body(in_row, out_row, channel, number) for each pair of a tile and each channel, by the threads of a block. Under one
// offset no row occurs twice, so that threads share the pairs; offsets follow each other, as on the CPU.
template <class Body>
static __device__ inline void spcy_each_pair(const int32_t* __restrict__ in_rows, const int32_t* __restrict__ out_rows,
                                             const int64_t* __restrict__ tile_ptr, int64_t offsets, int64_t tiles,
                                             int64_t tile, int channels, const Body& body) {
    for (int64_t k = 0; k < offsets; ++k) {
        const int64_t begin = tile_ptr[k * (tiles + 1) + tile];
        const int64_t elements = (tile_ptr[k * (tiles + 1) + tile + 1] - begin) * channels;
        if (elements) __syncthreads();
        for (int64_t e = threadIdx.x; e < elements; e += blockDim.x) {
            const int64_t pair = begin + e / channels;
            body((int64_t)in_rows[pair], (int64_t)out_rows[pair], e % channels, pair);
        }
    }
}

#endif
