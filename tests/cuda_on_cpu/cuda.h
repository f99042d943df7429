// CUDA C++ for g++: the language and the device functions that the kernels of src/cuda use.
//
// A kernel's text follows this header, unchanged but for its __shared__ declarations (build.py). The
// threads of a block are fibers; runtime.cpp schedules them and, in a library compiled with
// -fsanitize=thread, sees every memory access. What runs on behalf of the machine, and not as a line of
// the kernel, is marked EMU_MACHINE: it is not instrumented.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define SPCY_CUDA_ON_CPU 1

#ifdef __SANITIZE_THREAD__
#define EMU_MACHINE __attribute__((no_sanitize_thread, noinline))
#else
#define EMU_MACHINE
#endif
#define EMU_VISIBLE __attribute__((externally_visible))
// The line of the kernel that calls a device function.
#define EMU_LINE int line = __builtin_LINE()

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
#define EMU_VECTORS(T, NAME)                            \
    struct alignas(2 * sizeof(T)) NAME##2 { T x, y; };  \
    struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) NAME##4 { T x, y, z, w; }; \
    inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; } \
    inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTORS(int, int)
EMU_VECTORS(unsigned, uint)
EMU_VECTORS(float, float)
EMU_VECTORS(double, double)
EMU_VECTORS(long long, longlong)
#undef EMU_VECTORS

namespace emu {

struct GroupProduct {  // of warpgroups
    int group;
    float* d;
    int64_t a, b;  // bytes from the start of the dynamic shared memory, which is aligned for the swizzle
    int panel_bytes, columns, line;
    bool half;
};

struct GroupProducts {  // of a thread, that were asked for and not made yet
    enum { MOST = 64 };
    GroupProduct products[MOST];
    int count, closed;  // products; groups so far
};

// The part of a thread that the functions below touch.
struct Thread {
    uint3 thread_index, block_index;
    int lane;
    uint64_t value, result;  // operand and result of a warp operation
    int number[2];           // its integer operands
    void* pointer[3];        // its operands in memory
    GroupProducts* asked;    // see emu_asked
};
typedef void (*WarpFunction)(Thread** lanes);  // lanes[32], null where none takes part

enum Access { READ, WRITE, ATOMIC_READ, ATOMIC };
enum Reduction { NONE, COUNT, AND, OR };
enum WarpKind { EXCHANGE, FENCE, ALIGNED };  // FENCE orders memory; ALIGNED needs all 32 lanes

struct Export {
    const char* name;
    void (*entry)(void** arguments);
    int parameters;
    void (*describe)(int* sizes, int* elements, int* kinds);
};

}  // namespace emu

extern "C" {  // runtime.cpp
extern emu::Thread* emu_thread;
extern dim3 emu_block_dim, emu_grid_dim;
int emu_barrier(int predicate, int reduction, int line);
void emu_warp(unsigned mask, emu::WarpFunction function, int kind, const char* name, int line);
void* emu_shared(const void* site, int64_t bytes);
emu::GroupProducts* emu_asked();
void emu_preempt();
void emu_access(const void* address, int64_t bytes, int access, int line);
void emu_copy_async(void* target, const void* source, int bytes, int source_bytes, int line);
void emu_copy_commit();
void emu_copy_wait(int pending);
[[noreturn]] void emu_fail(const char* message, int line);
}

namespace emu {

EMU_MACHINE inline uint3 thread_index() { return emu_thread->thread_index; }
EMU_MACHINE inline uint3 block_index() { return emu_thread->block_index; }
EMU_MACHINE inline dim3 block_dim() { return emu_block_dim; }
EMU_MACHINE inline dim3 grid_dim() { return emu_grid_dim; }

template <typename T>
EMU_MACHINE inline uint64_t bits(T value) {
    static_assert(sizeof(T) <= 8, "warp operations take at most 8 bytes");
    uint64_t out = 0;
    memcpy(&out, &value, sizeof value);
    return out;
}

template <typename T, typename S>
EMU_MACHINE inline T from_bits(S value) {
    T out;
    memcpy(&out, &value, sizeof out);
    return out;
}

// A __shared__ array or variable of the block, made when its first thread comes by.
template <typename T>
inline T& shared(const char* site) {
    return *static_cast<T*>(emu_shared(site, sizeof(T)));
}

// ---- warp operations ---------------------------------------------------------------------------

enum Shuffle { INDEX, UP, DOWN, XOR };

template <int KIND>
EMU_MACHINE void shuffle_lanes(Thread** lanes) {
    for (int lane = 0; lane < 32; ++lane) {
        if (!lanes[lane]) continue;
        const int operand = lanes[lane]->number[0], width = lanes[lane]->number[1];
        const int first = lane & ~(width - 1);
        int source = KIND == INDEX  ? first + (operand & (width - 1))
                     : KIND == UP   ? lane - operand
                     : KIND == DOWN ? lane + operand
                                    : lane ^ operand;
        if (source < first || source >= first + width) source = lane;
        lanes[lane]->result = lanes[source] ? lanes[source]->value : 0x7FFD7FFD7FFD7FFDull;
    }
}

template <int KIND, typename T>
EMU_MACHINE T shuffle(unsigned mask, T value, int operand, int width, const char* name, int line) {
    emu_thread->value = bits(value);
    emu_thread->number[0] = operand;
    emu_thread->number[1] = width;
    emu_warp(mask, shuffle_lanes<KIND>, EXCHANGE, name, line);
    return from_bits<T>(emu_thread->result);
}

EMU_MACHINE inline void ballot_lanes(Thread** lanes) {
    unsigned out = 0;
    for (int lane = 0; lane < 32; ++lane)
        if (lanes[lane] && lanes[lane]->value) out |= 1u << lane;
    for (int lane = 0; lane < 32; ++lane)
        if (lanes[lane]) lanes[lane]->result = out;
}

EMU_MACHINE inline unsigned ballot(unsigned mask, bool predicate, const char* name, int line) {
    emu_thread->value = predicate;
    emu_warp(mask, ballot_lanes, EXCHANGE, name, line);
    return (unsigned)emu_thread->result;
}

EMU_MACHINE inline void match_lanes(Thread** lanes) {
    for (int lane = 0; lane < 32; ++lane) {
        if (!lanes[lane]) continue;
        unsigned out = 0;
        for (int other = 0; other < 32; ++other)
            if (lanes[other] && lanes[other]->value == lanes[lane]->value) out |= 1u << other;
        lanes[lane]->result = out;
    }
}

EMU_MACHINE inline unsigned match(unsigned mask, uint64_t value, const char* name, int line) {
    emu_thread->value = value;
    emu_warp(mask, match_lanes, EXCHANGE, name, line);
    return (unsigned)emu_thread->result;
}

enum Reduce { ADD, MINIMUM, MAXIMUM, BITS_OR, BITS_AND, BITS_XOR };

template <int KIND, typename T>
EMU_MACHINE void reduce_lanes(Thread** lanes) {
    bool first = true;
    T out = 0;
    for (int lane = 0; lane < 32; ++lane) {
        if (!lanes[lane]) continue;
        const T value = from_bits<T>(lanes[lane]->value);
        out = first               ? value
              : KIND == ADD       ? (T)((unsigned)out + (unsigned)value)
              : KIND == MINIMUM   ? (value < out ? value : out)
              : KIND == MAXIMUM   ? (out < value ? value : out)
              : KIND == BITS_OR   ? (T)(out | value)
              : KIND == BITS_AND  ? (T)(out & value)
                                  : (T)(out ^ value);
        first = false;
    }
    for (int lane = 0; lane < 32; ++lane)
        if (lanes[lane]) lanes[lane]->result = bits(out);
}

template <int KIND, typename T>
EMU_MACHINE T reduce(unsigned mask, T value, const char* name, int line) {
    static_assert(sizeof(T) == 4 && std::is_integral<T>::value, "__reduce_*_sync takes 32-bit integers");
    emu_thread->value = bits(value);
    emu_warp(mask, reduce_lanes<KIND, T>, EXCHANGE, name, line);
    return from_bits<T>(emu_thread->result);
}

EMU_MACHINE inline void no_exchange(Thread**) {}

// ---- matrices: the fragment layouts of the PTX manual, m16n8k16 (16 bits) and m16n8k8 (tf32) ------

enum Element { HALF, BFLOAT16, TF32 };

// Exactly: most machines have no instruction for it, and libgcc's function takes longer.
EMU_MACHINE inline float half_to_float(uint16_t value) {
    const uint32_t sign = (uint32_t)(value & 0x8000u) << 16, rest = (uint32_t)(value & 0x7FFFu) << 13;
    if (rest >= 0x7C00u << 13) return from_bits<float>(sign | 0x7F800000u | rest);
    return from_bits<float>(sign | from_bits<uint32_t>(from_bits<float>(rest) * 0x1p112f));
}
EMU_MACHINE inline uint16_t float_to_half(float value) { return from_bits<uint16_t>((_Float16)value); }
EMU_MACHINE inline float bfloat16_to_float(uint16_t value) { return from_bits<float>((uint32_t)value << 16); }

// Element i of a fragment held in 32-bit registers.
template <int ELEMENT>
EMU_MACHINE float fragment_element(const uint32_t* registers, int i) {
    if (ELEMENT == TF32) return from_bits<float>(registers[i] & 0xFFFFE000u);  // the low 13 bits are not read
    const uint16_t value = (uint16_t)(registers[i / 2] >> i % 2 * 16);
    return ELEMENT == HALF ? half_to_float(value) : bfloat16_to_float(value);
}

// Lane 4 * group + member; A is 16 x K by rows, B is K x 8 by columns, C and D are 16 x 8.
template <int ELEMENT>
EMU_MACHINE void multiply_lanes(Thread** lanes) {
    constexpr int K = ELEMENT == TF32 ? 8 : 16;
    float a[16][K], b[K][8];
    for (int lane = 0; lane < 32; ++lane) {
        const int group = lane / 4, member = lane % 4;
        const auto* ra = static_cast<const uint32_t*>(lanes[lane]->pointer[1]);
        const auto* rb = static_cast<const uint32_t*>(lanes[lane]->pointer[2]);
        for (int i = 0; i < K / 2; ++i) {
            const int row = group + (ELEMENT == TF32 ? i % 2 : i / 2 % 2) * 8;
            const int column = ELEMENT == TF32 ? member + i / 2 * 4 : member * 2 + i % 2 + i / 4 * 8;
            a[row][column] = fragment_element<ELEMENT>(ra, i);
        }
        for (int i = 0; i < K / 4; ++i) {
            const int row = ELEMENT == TF32 ? member + i * 4 : member * 2 + i % 2 + i / 2 * 8;
            b[row][group] = fragment_element<ELEMENT>(rb, i);
        }
    }
    for (int lane = 0; lane < 32; ++lane) {
        auto* d = static_cast<float*>(lanes[lane]->pointer[0]);
        for (int i = 0; i < 4; ++i) {
            const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            float sum = 0;
            for (int k = 0; k < K; ++k) sum += a[row][k] * b[k][column];
            d[i] += sum;
        }
    }
}

template <int ELEMENT>
EMU_MACHINE void multiply(float* d, const uint32_t* a, const uint32_t* b, int line) {
    emu_thread->pointer[0] = d;
    emu_thread->pointer[1] = const_cast<uint32_t*>(a);
    emu_thread->pointer[2] = const_cast<uint32_t*>(b);
    emu_warp(~0u, multiply_lanes<ELEMENT>, ALIGNED, "mma.sync", line);
}

// Matrix m has its row r at the address that lane 8 * m + r gives.
template <int COUNT, bool TRANSPOSED>
EMU_MACHINE void load_matrix_lanes(Thread** lanes) {
    for (int m = 0; m < COUNT; ++m)
        for (int lane = 0; lane < 32; ++lane) {
            uint32_t word = 0;
            for (int j = 0; j < 2; ++j) {
                const int first = lane / 4, second = lane % 4 * 2 + j;
                const int row = TRANSPOSED ? second : first, column = TRANSPOSED ? first : second;
                const auto* source = static_cast<const uint16_t*>(lanes[m * 8 + row]->pointer[1]);
                word |= (uint32_t)source[column] << j * 16;
            }
            static_cast<uint32_t*>(lanes[lane]->pointer[0])[m] = word;
        }
}

template <int COUNT, bool TRANSPOSED>
EMU_MACHINE void load_matrix(uint32_t* registers, const void* row, int line) {
    emu_thread->pointer[0] = registers;
    emu_thread->pointer[1] = const_cast<void*>(row);
    if (emu_thread->lane < COUNT * 8) {
        if ((uintptr_t)row % 16) emu_fail("ldmatrix: the address of a row is no multiple of 16", line);
        emu_access(row, 16, READ, line);
    }
    emu_warp(~0u, load_matrix_lanes<COUNT, TRANSPOSED>, ALIGNED, "ldmatrix", line);
}

// ---- products of warpgroups: made as late as they may be ------------------------------------------

// The number at a place of rows of 128 bytes, whose chunks are swizzled.
EMU_MACHINE inline float swizzled_element(int64_t place, bool half) {
    place ^= (place >> 7 & 7) << 4;
    const uint16_t value = *reinterpret_cast<const uint16_t*>(static_cast<char*>(emu_shared(nullptr, 0)) + place);
    return half ? half_to_float(value) : bfloat16_to_float(value);
}

// What thread 32 * warp + 4 * g + q of a warpgroup has of d: of warp w the rows 16 * w + g and 8 more.
EMU_MACHINE inline void multiply_group(const GroupProduct& p) {
    const int lane = emu_thread->lane, warp = emu_thread->thread_index.x / 32 % 4;
    const char* const shared = static_cast<char*>(emu_shared(nullptr, 0));
    for (int half = 0; half < 2; ++half) {
        const int64_t row = 16 * warp + lane / 4 + 8 * half;
        const int64_t begin = p.a + row / 8 * 1024 + row % 8 * 128;
        float x[16];
        for (int k = 0; k < 16; ++k) x[k] = swizzled_element(begin + 2 * k, p.half);
        for (int chunk = 0; chunk < 2; ++chunk)
            emu_access(shared + (begin + 16 * chunk ^ (begin >> 7 & 7) << 4), 16, READ, p.line);
        for (int n = 0; n < p.columns / 8; ++n)
            for (int j = 0; j < 2; ++j) {
                const int64_t column = 8 * n + lane % 4 * 2 + j;
                float sum = 0;
                for (int64_t k = 0; k < 16; ++k)
                    sum += x[k] * swizzled_element(p.b + column / 64 * p.panel_bytes + k / 8 * 1024 + k % 8 * 128 +
                                                       column % 64 * 2, p.half);
                p.d[4 * n + 2 * half + j] += sum;
            }
    }
    if (lane == 0)
        for (int64_t k = 0; k < 16; ++k)
            for (int64_t chunk = 0; chunk < p.columns / 8; ++chunk)
                emu_access(shared + p.b + chunk / 8 * p.panel_bytes + k * 128 + (chunk % 8 ^ k % 8) * 16, 16, READ, p.line);
}

EMU_MACHINE inline void ask_group(float* d, const void* a, const void* b, int panel_bytes, int columns, bool half, int line) {
    const auto* shared = static_cast<const char*>(emu_shared(nullptr, 0));
    const auto place = [&](const void* at) { return static_cast<const char*>(at) - shared; };
    if (place(a) % 128 % 32 || place(a) / 128 % 8 || place(b) % 1024) emu_fail("wgmma: a matrix that is not aligned", line);
    GroupProducts& asked = *emu_asked();
    if (asked.count == GroupProducts::MOST) emu_fail("wgmma: too many products are not waited for", line);
    asked.products[asked.count++] = {asked.closed, d, place(a), place(b), panel_bytes, columns, line, half};
}

EMU_MACHINE inline void close_group() { ++emu_asked()->closed; }

EMU_MACHINE inline void wait_groups(int pending) {
    GroupProducts& asked = *emu_asked();
    int made = 0;
    while (made < asked.count && asked.products[made].group < asked.closed - pending) multiply_group(asked.products[made++]);
    for (int i = made; i < asked.count; ++i) asked.products[i - made] = asked.products[i];
    asked.count -= made;
    emu_preempt();
}

// ---- atomic operations ---------------------------------------------------------------------------

// Fibers share one processor thread, so that a plain update is atomic.
template <typename T, typename F>
EMU_MACHINE T atomic_update(T* address, F updated, int line) {
    if ((uintptr_t)address % sizeof(T)) emu_fail("atomic operation on a misaligned address", line);
    emu_preempt();
    emu_access(address, sizeof(T), ATOMIC, line);
    const T before = *address;
    *address = updated(before);
    emu_preempt();
    return before;
}

template <typename T>
struct Identity {  // no deduction from the second operand: a plain 1 may be added to any type
    typedef T type;
};

// ---- kernels as exported functions -----------------------------------------------------------------

template <auto KERNEL>
struct Entry;

template <typename... P, void (*KERNEL)(P...)>
struct Entry<KERNEL> {
    static constexpr int parameters = sizeof...(P);

    // Sizes, sizes of what pointers point to (else 0), and kinds of numbers as NumPy names them (else V).
    static void describe(int* sizes, int* elements, int* kinds) {
        int i = 0;
        ((sizes[i] = sizeof(P), elements[i] = element_size<P>(), kinds[i] = kind<std::remove_pointer_t<P>>(), ++i), ...);
    }

    template <typename T>
    static constexpr int element_size() {
        if constexpr (std::is_pointer<T>::value) return sizeof(std::remove_pointer_t<T>);
        return 0;
    }

    template <typename T>
    static constexpr int kind() {
        return std::is_floating_point<T>::value ? 'f'
               : !std::is_integral<T>::value    ? 'V'
               : std::is_same<std::remove_cv_t<T>, bool>::value ? 'b'
               : std::is_signed<T>::value       ? 'i'
                                                : 'u';
    }

    template <size_t... I>
    EMU_MACHINE static void call_with(void** arguments, std::index_sequence<I...>) {
        KERNEL(*static_cast<std::remove_reference_t<P>*>(arguments[I])...);
    }

    EMU_MACHINE static void call(void** arguments) { call_with(arguments, std::index_sequence_for<P...>()); }
};

}  // namespace emu

#define EMU_EXPORT(name, ...)                                                                       \
    { name, &emu::Entry<&__VA_ARGS__>::call, emu::Entry<&__VA_ARGS__>::parameters, \
      &emu::Entry<&__VA_ARGS__>::describe }

#define threadIdx (emu::thread_index())
#define blockIdx (emu::block_index())
#define blockDim (emu::block_dim())
#define gridDim (emu::grid_dim())
#define warpSize 32

inline void __syncthreads(EMU_LINE) { emu_barrier(0, emu::NONE, line); }
inline int __syncthreads_count(int predicate, EMU_LINE) { return emu_barrier(predicate, emu::COUNT, line); }
inline int __syncthreads_and(int predicate, EMU_LINE) { return emu_barrier(predicate, emu::AND, line); }
inline int __syncthreads_or(int predicate, EMU_LINE) { return emu_barrier(predicate, emu::OR, line); }
inline void __syncwarp(unsigned mask = ~0u, EMU_LINE) {
    emu_warp(mask, emu::no_exchange, emu::FENCE, "__syncwarp", line);
}
template <typename T>
inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, EMU_LINE) {
    return emu::shuffle<emu::INDEX>(mask, value, lane, width, "__shfl_sync", line);
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_LINE) {
    return emu::shuffle<emu::UP>(mask, value, (int)delta, width, "__shfl_up_sync", line);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_LINE) {
    return emu::shuffle<emu::DOWN>(mask, value, (int)delta, width, "__shfl_down_sync", line);
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, EMU_LINE) {
    return emu::shuffle<emu::XOR>(mask, value, lanes, width, "__shfl_xor_sync", line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, EMU_LINE) {
    return emu::ballot(mask, predicate != 0, "__ballot_sync", line);
}
inline int __any_sync(unsigned mask, int predicate, EMU_LINE) {
    return emu::ballot(mask, predicate != 0, "__any_sync", line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, EMU_LINE) {
    return emu::ballot(mask, predicate == 0, "__all_sync", line) == 0;
}
template <typename T>
inline unsigned __match_any_sync(unsigned mask, T value, EMU_LINE) {
    return emu::match(mask, emu::bits(value), "__match_any_sync", line);
}
template <typename T>
inline T __reduce_add_sync(unsigned mask, T value, EMU_LINE) {
    return emu::reduce<emu::ADD>(mask, value, "__reduce_add_sync", line);
}
template <typename T>
inline T __reduce_min_sync(unsigned mask, T value, EMU_LINE) {
    return emu::reduce<emu::MINIMUM>(mask, value, "__reduce_min_sync", line);
}
template <typename T>
inline T __reduce_max_sync(unsigned mask, T value, EMU_LINE) {
    return emu::reduce<emu::MAXIMUM>(mask, value, "__reduce_max_sync", line);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, EMU_LINE) {
    return emu::reduce<emu::BITS_OR>(mask, value, "__reduce_or_sync", line);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, EMU_LINE) {
    return emu::reduce<emu::BITS_AND>(mask, value, "__reduce_and_sync", line);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, EMU_LINE) {
    return emu::reduce<emu::BITS_XOR>(mask, value, "__reduce_xor_sync", line);
}

template <typename T>
inline T atomicCAS(T* address, typename emu::Identity<T>::type expected,
                   typename emu::Identity<T>::type desired, EMU_LINE) {
    return emu::atomic_update(address, [=](T old) { return old == expected ? desired : old; }, line);
}
#define EMU_ATOMIC(NAME, EXPRESSION)                                                           \
    template <typename T>                                                                      \
    inline T NAME(T* address, typename emu::Identity<T>::type value, EMU_LINE) {               \
        return emu::atomic_update(address, [=](T old) { (void)old; return (T)(EXPRESSION); }, line); \
    }
EMU_ATOMIC(atomicAdd, old + value)
EMU_ATOMIC(atomicSub, old - value)
EMU_ATOMIC(atomicMin, value < old ? value : old)
EMU_ATOMIC(atomicMax, old < value ? value : old)
EMU_ATOMIC(atomicOr, old | value)
EMU_ATOMIC(atomicAnd, old & value)
EMU_ATOMIC(atomicXor, old ^ value)
EMU_ATOMIC(atomicExch, value)
#undef EMU_ATOMIC

inline void __threadfence() { emu_preempt(); }
inline void __threadfence_block() { emu_preempt(); }
inline void __nanosleep(unsigned) { emu_preempt(); }
inline void __trap(EMU_LINE) { emu_fail("__trap", line); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline unsigned __float_as_uint(float x) { return emu::from_bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return emu::from_bits<float>(x); }
inline int __float_as_int(float x) { return emu::from_bits<int>(x); }
inline float __int_as_float(int x) { return emu::from_bits<float>(x); }
inline long long __double_as_longlong(double x) { return emu::from_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emu::from_bits<double>(x); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline unsigned __umulhi(unsigned x, unsigned y) { return (unsigned)((uint64_t)x * y >> 32); }
template <typename T>
inline T __ldg(const T* address) {
    return *address;
}
template <typename T>
inline T min(T x, T y) {
    return y < x ? y : x;
}
template <typename T>
inline T max(T x, T y) {
    return x < y ? y : x;
}

// ---- src/cuda/ptx.h: the same functions, by what the PTX manual says of their instructions ----------

template <int BYTES>
inline void spcy_copy_async(void* target, const void* source, bool valid, EMU_LINE) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    emu_copy_async(target, source, BYTES, valid ? BYTES : 0, line);
}
template <int BYTES>
inline void spcy_copy_async_where(bool asked, void* target, const void* source, bool valid, EMU_LINE) {
    if (asked) spcy_copy_async<BYTES>(target, source, valid, line);
}
inline void spcy_copy_commit() { emu_copy_commit(); }
template <int PENDING>
inline void spcy_copy_wait() {
    emu_copy_wait(PENDING);
}
inline void spcy_load_matrix_x2(uint32_t* registers, const void* row, EMU_LINE) {
    emu::load_matrix<2, false>(registers, row, line);
}
inline void spcy_load_matrix_x4(uint32_t* registers, const void* row, EMU_LINE) {
    emu::load_matrix<4, false>(registers, row, line);
}
inline void spcy_load_matrix_x2_transposed(uint32_t* registers, const void* row, EMU_LINE) {
    emu::load_matrix<2, true>(registers, row, line);
}
inline void spcy_load_matrix_x4_transposed(uint32_t* registers, const void* row, EMU_LINE) {
    emu::load_matrix<4, true>(registers, row, line);
}
inline void spcy_mma_half(float* d, const uint32_t* a, const uint32_t* b, EMU_LINE) {
    emu::multiply<emu::HALF>(d, a, b, line);
}
inline void spcy_mma_bfloat16(float* d, const uint32_t* a, const uint32_t* b, EMU_LINE) {
    emu::multiply<emu::BFLOAT16>(d, a, b, line);
}
inline void spcy_mma_tf32(float* d, const uint32_t* a, const uint32_t* b, EMU_LINE) {
    emu::multiply<emu::TF32>(d, a, b, line);
}
inline void spcy_fence_async_shared() { emu_preempt(); }
inline void spcy_warpgroup_arrive() { emu_preempt(); }
inline void spcy_warpgroup_commit() { emu::close_group(); }
template <int PENDING>
inline void spcy_warpgroup_wait() {
    emu::wait_groups(PENDING);
}
template <int COLS>
inline void spcy_warpgroup_product_half(float* d, const void* x, const void* w, int panel_bytes, EMU_LINE) {
    emu::ask_group(d, x, w, panel_bytes, COLS, true, line);
}
template <int COLS>
inline void spcy_warpgroup_product_bfloat16(float* d, const void* x, const void* w, int panel_bytes, EMU_LINE) {
    emu::ask_group(d, x, w, panel_bytes, COLS, false, line);
}
inline uint32_t spcy_float_to_tf32(float x) {  // to nearest, ties away from zero
    return (__float_as_uint(x) & 0x7F800000u) == 0x7F800000u ? __float_as_uint(x)
                                                             : (__float_as_uint(x) + 0x1000u) & 0xFFFFE000u;
}
inline float spcy_half_to_float(uint16_t bits) { return emu::half_to_float(bits); }
inline uint16_t spcy_float_to_half(float x) { return emu::float_to_half(x); }
inline uint16_t spcy_float_to_bfloat16(float x) {  // to nearest, ties to even
    const uint32_t bits = __float_as_uint(x);
    return (uint16_t)(x != x ? 0x7FFF : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
EMU_MACHINE inline uint64_t spcy_load_relaxed(const uint64_t* address, EMU_LINE) {
    emu_preempt();
    emu_access(address, sizeof *address, emu::ATOMIC_READ, line);
    return *address;
}
