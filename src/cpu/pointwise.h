// The pointwise kernels' interface: what one SIMD level offers, and the choice between levels.
#ifndef SPCY_CPU_POINTWISE_H
#define SPCY_CPU_POINTWISE_H

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

static inline void spcy_activate(const spcy_pointwise_kernels* kernels, spcy_activation activation, const void* x,
                                 int64_t count, int64_t size, void* y, spcy_team team) {
    const char* from = static_cast<const char*>(x);
    char* to = static_cast<char*>(y);
    spcy_parallel_rows(team, count, SPCY_POINTWISE_BYTES / size, [=](int64_t begin, int64_t end, int) {
        kernels->apply(&activation, from + begin * size, end - begin, to + begin * size);
    });
}

static inline void spcy_activation_gradient(const spcy_pointwise_kernels* kernels, spcy_activation activation,
                                            const void* x, const void* dy, int64_t count, int64_t size, void* dx,
                                            spcy_team team) {
    const char *at = static_cast<const char*>(x), *from = static_cast<const char*>(dy);
    char* to = static_cast<char*>(dx);
    spcy_parallel_rows(team, count, SPCY_POINTWISE_BYTES / size, [=](int64_t begin, int64_t end, int) {
        kernels->gradient(&activation, at + begin * size, from + begin * size, end - begin, to + begin * size);
    });
}

static inline void spcy_combine(const spcy_pointwise_kernels* kernels, int operation, const void* x, const void* y,
                                double number, int64_t count, int64_t size, void* out, spcy_team team) {
    const char *first = static_cast<const char*>(x), *second = static_cast<const char*>(y);
    char* to = static_cast<char*>(out);
    spcy_parallel_rows(team, count, SPCY_POINTWISE_BYTES / size, [=](int64_t begin, int64_t end, int) {
        kernels->combine(operation, first + begin * size, second ? second + begin * size : nullptr, number, end - begin,
                         to + begin * size);
    });
}

// Numbers of 16 bits, which the kernels are of, to float and back.
static inline void spcy_widen(const spcy_pointwise_kernels* kernels, const uint16_t* x, int64_t count, float* y,
                              spcy_team team) {
    spcy_parallel_rows(team, count, SPCY_POINTWISE_BYTES / sizeof(float), [=](int64_t begin, int64_t end, int) {
        kernels->widen(x + begin, end - begin, y + begin);
    });
}

template <typename T>
static inline void spcy_narrow(const spcy_pointwise_kernels* kernels, const T* x, int64_t count, uint16_t* y,
                               spcy_team team) {
    spcy_parallel_rows(team, count, SPCY_POINTWISE_BYTES / sizeof(T), [=](int64_t begin, int64_t end, int) {
        if constexpr (sizeof(T) == sizeof(float))
            kernels->narrow(x + begin, end - begin, y + begin);
        else
            kernels->narrow_double(x + begin, end - begin, y + begin);
    });
}

#endif
