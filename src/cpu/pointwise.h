// The pointwise kernels' interface: what one SIMD level offers, and the choice between levels.
#ifndef SPCY_CPU_POINTWISE_H
#define SPCY_CPU_POINTWISE_H

#include "cpu/stream.h"
#include "cpu/team.h"
#include "cpu/tile.h"

// Functions of one number. The gradient of a ReLU may read its output instead of its input.
enum { SPCY_RELU = 1, SPCY_LEAKY_RELU, SPCY_GELU, SPCY_GELU_TANH, SPCY_SILU };

enum { SPCY_ADD, SPCY_MULTIPLY };  // two numbers

// Arrays are of one dtype: float, double, bfloat16 or float16. y may be x.
typedef struct {
    void (*apply)(const spcy_activation* activation, const void* x, int64_t count, void* y);
    // dx = dy times the slope at x; it may be x.
    void (*gradient)(const spcy_activation* activation, const void* x, const void* dy, int64_t count, void* dx);
    // y NULL: each x and `number`.
    void (*combine)(int operation, const void* x, const void* y, double number, int64_t count, void* out);
    // Of bfloat16 and float16 alone: to float, and from float or double, rounded once.
    void (*widen)(const void* x, int64_t count, float* y);
    void (*narrow)(const float* x, int64_t count, void* y);
    void (*narrow_double)(const double* x, int64_t count, void* y);
} spcy_pointwise_kernels;

SPCY_LEVEL_TABLES(spcy_pointwise_kernels)

enum { SPCY_POINTWISE_BYTES = 1 << 15 };  // that a thread takes at a time

// Whether an activation, or none, takes less time than its memory: the others gain nothing from streams.
static inline bool spcy_waits_for_memory(spcy_activation activation) {
    return activation.activation <= SPCY_LEAKY_RELU;
}

// Call make(begin, end, to) for all numbers of an output, `size` bytes each, as spcy_make_rows does.
template <typename Make>
static inline void spcy_make_pointwise(int64_t count, int64_t size, void* out, bool gains, spcy_team team,
                                       const Make& make) {
    const bool streams = gains && spcy_streams(count * size);
    spcy_parallel_rows(team, count, SPCY_POINTWISE_BYTES / size, [=](int64_t begin, int64_t end, int) {
        spcy_make_rows(streams, static_cast<char*>(out), size, begin, end, make);
    });
}

static inline void spcy_activate(const spcy_pointwise_kernels* kernels, spcy_activation activation, const void* x,
                                 int64_t count, int64_t size, void* y, spcy_team team) {
    const char* from = static_cast<const char*>(x);
    const bool gains = y != x && spcy_waits_for_memory(activation);
    spcy_make_pointwise(count, size, y, gains, team, [=](int64_t begin, int64_t end, char* to) {
        kernels->apply(&activation, from + begin * size, end - begin, to);
    });
}

static inline void spcy_activation_gradient(const spcy_pointwise_kernels* kernels, spcy_activation activation,
                                            const void* x, const void* dy, int64_t count, int64_t size, void* dx,
                                            spcy_team team) {
    const char *at = static_cast<const char*>(x), *from = static_cast<const char*>(dy);
    const bool gains = dx != x && spcy_waits_for_memory(activation);
    spcy_make_pointwise(count, size, dx, gains, team, [=](int64_t begin, int64_t end, char* to) {
        kernels->gradient(&activation, at + begin * size, from + begin * size, end - begin, to);
    });
}

static inline void spcy_combine(const spcy_pointwise_kernels* kernels, int operation, const void* x, const void* y,
                                double number, int64_t count, int64_t size, void* out, spcy_team team) {
    const char *first = static_cast<const char*>(x), *second = static_cast<const char*>(y);
    spcy_make_pointwise(count, size, out, out != x && out != y, team, [=](int64_t begin, int64_t end, char* to) {
        kernels->combine(operation, first + begin * size, second ? second + begin * size : nullptr, number, end - begin,
                         to);
    });
}

// Numbers of 16 bits, which the kernels are of, to float and back.
static inline void spcy_widen(const spcy_pointwise_kernels* kernels, const uint16_t* x, int64_t count, float* y,
                              spcy_team team) {
    spcy_make_pointwise(count, sizeof(float), y, true, team, [=](int64_t begin, int64_t end, char* to) {
        kernels->widen(x + begin, end - begin, reinterpret_cast<float*>(to));
    });
}

template <typename T>
static inline void spcy_narrow(const spcy_pointwise_kernels* kernels, const T* x, int64_t count, uint16_t* y,
                               spcy_team team) {
    spcy_make_pointwise(count, sizeof(uint16_t), y, true, team, [=](int64_t begin, int64_t end, char* to) {
        if constexpr (sizeof(T) == sizeof(float))
            kernels->narrow(x + begin, end - begin, to);
        else
            kernels->narrow_double(x + begin, end - begin, to);
    });
}

#endif
