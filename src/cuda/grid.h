// What every stage's kernels share: small host arrays by value, steps over the grid, sums over a block.
#ifndef SPCY_CUDA_GRID_H
#define SPCY_CUDA_GRID_H

#ifndef SPCY_CUDA_ON_CPU
typedef unsigned char uint8_t;
#endif

enum { SPCY_COLUMNS = 5, SPCY_WARP = 32 };

template <typename T>
struct spcy_columns {  // a value for each column of the coordinates, the batch first, or for each axis
    T values[SPCY_COLUMNS];
};

typedef spcy_columns<int64_t> spcy_layout;  // by column: the least value, the greatest, or the shift

// Elements [0, n) one by one, by all threads of the grid.
#define SPCY_EACH(i, n)                                                                    \
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < (n); \
         i += (int64_t)gridDim.x * blockDim.x)

// Tasks [0, n) one by one, by all blocks of the grid.
#define SPCY_EACH_BLOCK(i, n) for (int64_t i = blockIdx.x; i < (n); i += gridDim.x)

// The last of the runs that begins at or before i.
static __device__ inline int64_t spcy_run_of(const int64_t* __restrict__ starts, int64_t runs, int64_t i) {
    int64_t low = 0, high = runs;
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (starts[middle] <= i)
            low = middle;
        else
            high = middle;
    }
    return low;
}

// Sum of `value` over the threads before this one, and over the whole block in `total`. All threads of
// at most 32 whole warps call it; `scratch` has room for a value of each warp, and one more.
static __device__ inline int spcy_block_prefix(int value, int* scratch, int* total) {
    const int lane = threadIdx.x % SPCY_WARP, warp = threadIdx.x / SPCY_WARP, warps = blockDim.x / SPCY_WARP;
    int sum = value;
    for (int step = 1; step < SPCY_WARP; step *= 2) {
        const int before = __shfl_up_sync(0xFFFFFFFFu, sum, step);
        if (lane >= step) sum += before;
    }
    __syncthreads();  // the scratch may still be read
    if (lane == SPCY_WARP - 1) scratch[warp] = sum;
    __syncthreads();
    int before = 0, all = 0;
    for (int w = 0; w < warps; ++w) {
        if (w < warp) before += scratch[w];
        all += scratch[w];
    }
    *total = all;
    return before + sum - value;
}

#endif
