// Chunks of 16 bytes, in memory and in shared memory, and the products of fragments that are loaded from there.
#ifndef SPCY_CUDA_CHUNK_H
#define SPCY_CUDA_CHUNK_H

// Numbers in 16 bytes.
template <class Number>
constexpr int kLanes = 16 / sizeof(Number);

// Load and store whole chunks, at addresses of chunks.
template <class Number, int COUNT>
__device__ inline void load(const void* from, Number (&numbers)[COUNT]) {
    uint4 chunks[COUNT / kLanes<Number>];
#pragma unroll
    for (int i = 0; i < COUNT / kLanes<Number>; ++i) chunks[i] = static_cast<const uint4*>(from)[i];
    memcpy(numbers, chunks, sizeof chunks);
}

template <class Number, int COUNT>
__device__ inline void store(const Number (&numbers)[COUNT], void* to) {
    uint4 chunks[COUNT / kLanes<Number>];
    memcpy(chunks, numbers, sizeof chunks);
#pragma unroll
    for (int i = 0; i < COUNT / kLanes<Number>; ++i) static_cast<uint4*>(to)[i] = chunks[i];
}

// The same number by number, as far as `count` says; the others are loaded as zeros.
template <class Number, int COUNT>
__device__ inline void load_some(const Number* from, int64_t count, Number (&numbers)[COUNT]) {
    memset(numbers, 0, sizeof numbers);
#pragma unroll
    for (int i = 0; i < COUNT; ++i)
        if (i < count) numbers[i] = from[i];
}

template <class Number>
__device__ inline void copy_some(const Number* from, int64_t count, uint4* to) {
    Number numbers[kLanes<Number>];
    load_some(from, count, numbers);
    store(numbers, to);
}

template <class Number, int COUNT>
__device__ inline void store_some(const Number (&numbers)[COUNT], int64_t count, Number* to) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i)
        if (i < count) to[i] = numbers[i];
}

// The place of a chunk in a matrix with CHUNKS of them per row. Chunks of a row are permuted so that the eight
// rows which a matrix load reads at one column lie in eight different groups of banks.
template <int CHUNKS>
__device__ inline uint32_t place(uint32_t row, uint32_t chunk) {
    return row * CHUNKS + (chunk ^ (CHUNKS >= 8 ? row % 8 : row / (8 / CHUNKS) % CHUNKS));
}

__device__ inline void add_product(float16, float* d, const uint32_t* a, const uint32_t* b) {
    spcy_mma_half(d, a, b);
}
__device__ inline void add_product(bfloat16, float* d, const uint32_t* a, const uint32_t* b) {
    spcy_mma_bfloat16(d, a, b);
}
__device__ inline void add_product(float, float* d, const uint32_t* a, const uint32_t* b) {
    spcy_mma_tf32(d, a, b);
}

#endif
