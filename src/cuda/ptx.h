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

// The same, if asked to, without a branch.
template <int BYTES>
static __device__ __forceinline__ void spcy_copy_async_where(bool asked, void* target, const void* source, bool valid) {
    static_assert(BYTES == 16, "other copies pass through the first-level cache");
    asm volatile(
        "{\n.reg .pred asked;\nsetp.ne.u32 asked, %3, 0;\n"
        "@asked cp.async.cg.shared.global [%0], [%1], 16, %2;\n}" ::"r"(spcy_shared_address(target)),
        "l"(source), "r"(valid ? 16 : 0), "r"((uint32_t)asked)
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

template <int BYTES>
static __device__ __forceinline__ void spcy_copy_async_where(bool asked, void* target, const void* source, bool valid) {
    if (asked) spcy_copy_async<BYTES>(target, source, valid);
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

// Products of warpgroups, four warps that start at a multiple of four: they came with compute capability 9.0 and
// exist in code for sm_90a only.

// Order writes of this thread to shared memory before what the tensor cores read there.
static __device__ __forceinline__ void spcy_fence_async_shared() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Begin a group of products; registers that they use are not to be touched before a wait.
static __device__ __forceinline__ void spcy_warpgroup_arrive() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Close a group of products.
static __device__ __forceinline__ void spcy_warpgroup_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Wait until at most PENDING groups of this warpgroup are under way.
template <int PENDING>
static __device__ __forceinline__ void spcy_warpgroup_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// What a product is told of a matrix of rows of 128 bytes, swizzled (bits 4 .. 6 of an address by bits 7 .. 9): where
// it begins, the bytes from a panel of 128 bytes to the next, and that eight rows are 1024 bytes.
static __device__ __forceinline__ uint64_t spcy_matrix_descriptor(const void* begin, int panel_bytes) {
    const uint64_t swizzled = 1ull << 62, eight_rows = 1024ull >> 4 << 32;
    const uint64_t panel = (uint64_t)(panel_bytes >> 4 & 0x3FFF) << 16;
    return swizzled | eight_rows | panel | (spcy_shared_address(begin) >> 4 & 0x3FFF);
}

#define SPCY_WARPGROUP_PRODUCT_64(TYPE)                                                                         \
    asm volatile(                                                                                                   \
        "{\n.reg .pred add;\nsetp.eq.u32 add, 0, 0;\n"                                                             \
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " "                                              \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "  \
        "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "  \
        "%32, %33, add, 1, 1, 0, 1;\n}"  \
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),  \
          "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),  \
          "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),  \
          "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),  \
          "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])  \
        : "l"(a), "l"(b))

#define SPCY_WARPGROUP_PRODUCT_128(TYPE)                                                                         \
    asm volatile(                                                                                                   \
        "{\n.reg .pred add;\nsetp.eq.u32 add, 0, 0;\n"                                                             \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " "                                              \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "  \
        "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, "  \
        "%36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "  \
        "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "  \
        "%64, %65, add, 1, 1, 0, 1;\n}"  \
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),  \
          "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),  \
          "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),  \
          "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),  \
          "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]),  \
          "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]),  \
          "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]),  \
          "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),  \
          "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]),  \
          "+f"(d[63])  \
        : "l"(a), "l"(b))

// d += x[64 rows, 16 columns] @ w[16 rows, COLS columns]: rows of x are 64 numbers, and a panel of w is 64 of its
// columns. d holds, of each 8 columns, the fragment that spcy_mma_half has.
#define SPCY_WARPGROUP_PRODUCT(NAME, TYPE)                                                                          \
    template <int COLS>                                                                                             \
    static __device__ __forceinline__ void NAME(float* d, const void* x, const void* w, int panel_bytes) {          \
        const uint64_t a = spcy_matrix_descriptor(x, 16), b = spcy_matrix_descriptor(w, panel_bytes);               \
        if constexpr (COLS == 64) SPCY_WARPGROUP_PRODUCT_64(TYPE);                                                  \
        if constexpr (COLS == 128) SPCY_WARPGROUP_PRODUCT_128(TYPE);                                                \
    }
SPCY_WARPGROUP_PRODUCT(spcy_warpgroup_product_half, "f16")
SPCY_WARPGROUP_PRODUCT(spcy_warpgroup_product_bfloat16, "bf16")

// Read what other threads update with atomic operations.
static __device__ __forceinline__ uint64_t spcy_load_relaxed(const uint64_t* address) {
    uint64_t value;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(address) : "memory");
    return value;
}

#endif
#endif
