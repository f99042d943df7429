// All inline PTX: one function for each instruction. tests/cuda_on_cpu/cuda.h has the same functions for a CPU.
#ifndef SPCY_CUDA_PTX_H
#define SPCY_CUDA_PTX_H

#ifndef SPCY_CUDA_ON_CPU

typedef unsigned short uint16_t;
typedef unsigned int uint32_t;

static __device__ __forceinline__ uint32_t spcy_shared_address(const void* address) {
    return (uint32_t)__cvta_generic_to_shared(address);
}

// Asynchronous copies came with compute capability 8.0; before it, they are made at once.
#if __CUDA_ARCH__ >= 800

// Begin to copy BYTES (4, 8 or 16) to shared memory, or as many zeros if not valid.
template <int BYTES>
static __device__ __forceinline__ void spcy_copy_async(void* target, const void* source, bool valid) {
    if (BYTES == 16)  // past the first-level cache
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(spcy_shared_address(target)), "l"(source),
                     "r"(valid ? 16 : 0)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(spcy_shared_address(target)), "l"(source),
                     "n"(BYTES), "r"(valid ? BYTES : 0)
                     : "memory");
}

// Close a group of copies.
static __device__ __forceinline__ void spcy_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Wait until at most PENDING groups of this thread are under way.
template <int PENDING>
static __device__ __forceinline__ void spcy_copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#else

template <int BYTES>
static __device__ __forceinline__ void spcy_copy_async(void* target, const void* source, bool valid) {
    memset(target, 0, BYTES);
    if (valid) memcpy(target, source, BYTES);
}

static __device__ __forceinline__ void spcy_copy_commit() {}

template <int PENDING>
static __device__ __forceinline__ void spcy_copy_wait() {}

#endif

// The functions below that multiply or round need 8.0 too: only kernels for such devices call them.

// d += a @ b on 16 x 16 and 16 x 8 fragments of float16.
static __device__ __forceinline__ void spcy_mma_half(float* d, const uint32_t* a, const uint32_t* b) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same of bfloat16.
static __device__ __forceinline__ void spcy_mma_bfloat16(float* d, const uint32_t* a, const uint32_t* b) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// d += a @ b on 16 x 8 and 8 x 8 fragments of tf32.
static __device__ __forceinline__ void spcy_mma_tf32(float* d, const uint32_t* a, const uint32_t* b) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Round to tf32, ties away from zero.
static __device__ __forceinline__ uint32_t spcy_float_to_tf32(float x) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

// To nearest, ties to even.
static __device__ __forceinline__ uint16_t spcy_float_to_bfloat16(float x) {
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

// Load two or four 8 x 8 matrices of 16-bit elements: lane 8 m + r gives the address of row r of matrix m.
static __device__ __forceinline__ void spcy_load_matrix_x2(uint32_t* registers, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(spcy_shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ void spcy_load_matrix_x4(uint32_t* registers, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(spcy_shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ void spcy_load_matrix_x2_transposed(uint32_t* registers, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(spcy_shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ void spcy_load_matrix_x4_transposed(uint32_t* registers, const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(spcy_shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ float spcy_half_to_float(uint16_t bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

static __device__ __forceinline__ uint16_t spcy_float_to_half(float x) {
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

// Read what other threads update with atomic operations.
static __device__ __forceinline__ uint64_t spcy_load_relaxed(const uint64_t* address) {
    uint64_t value;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(address) : "memory");
    return value;
}

#endif
#endif
