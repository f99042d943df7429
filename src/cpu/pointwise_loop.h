// Pointwise kernels: one loop over a function of vectors, for every activation, number type and SIMD level.
#ifndef SPCY_CPU_POINTWISE_LOOP_H
#define SPCY_CPU_POINTWISE_LOOP_H

#include "common/round.h"
#include "cpu/functions.h"
#include "cpu/pointwise.h"
#include "cpu/wide.h"

namespace {

// Each activation: its value at x, and dy times its slope there.
template <typename T>
struct Relu {
    SPCY_LANES(T);
    V value(V x) const { return select<T>((I)(x < 0), V{}, x); }  // NaN stays
    V gradient(V x, V dy) const { return select<T>((I)(x <= 0), V{}, dy); }
};

template <typename T>
struct LeakyRelu {
    SPCY_LANES(T);
    T slope;
    V value(V x) const { return select<T>((I)(x > 0), x, x * slope); }
    V gradient(V x, V dy) const { return select<T>((I)(x > 0), dy, dy * slope); }
};

template <typename T>
struct Gelu {
    SPCY_LANES(T);
    static V below(V x, V* density) {
        const V end = V{} + R::tail_end;
        V size = magnitude<T>(x);
        size = select<T>((I)(size > end), end, size);
        *density = bell<T>(size);
        const V tail = normal_tail<T>(size, *density);
        return select<T>((I)(x > 0), 1 - tail, tail);
    }
    V value(V x) const {
        V density;
        return x * below(x, &density);
    }
    V gradient(V x, V dy) const {
        V density;
        const V share = below(x, &density);
        return dy * (share + clamp<T>(x, -R::tail_end, R::tail_end) * density * T(0.3989422804014327));
    }
};

// x times a sigmoid of 2 sqrt(2 / pi) (x + 0.044715 x**3), which is (1 + tanh) / 2 of half of it.
template <typename T>
struct GeluTanh {
    SPCY_LANES(T);
    static constexpr T scale = T(1.5957691216057308), cubic = T(0.044715);
    V value(V x) const { return x * sigmoid<T>(scale * x * (1 + cubic * x * x)); }
    V gradient(V x, V dy) const {
        V rest;
        x = clamp<T>(x, -100, 100);
        const V share = sigmoid<T>(scale * x * (1 + cubic * x * x), &rest);
        return dy * (share + x * share * rest * scale * (1 + 3 * cubic * x * x));
    }
};

template <typename T>
struct Silu {
    SPCY_LANES(T);
    V value(V x) const { return x * sigmoid<T>(x); }
    V gradient(V x, V dy) const {
        V rest;
        x = clamp<T>(x, -1000, 1000);
        const V share = sigmoid<T>(x, &rest);
        return dy * (share * (1 + x * rest));
    }
};

template <typename T, typename Use>
inline void with_activation(const spcy_activation* activation, Use use) {
    typedef typename Wide<T>::type W;
    switch (activation->activation) {
        case SPCY_RELU: return use(Relu<W>{});
        case SPCY_LEAKY_RELU: return use(LeakyRelu<W>{(W)activation->slope});
        case SPCY_GELU: return use(Gelu<W>{});
        case SPCY_GELU_TANH: return use(GeluTanh<W>{});
        case SPCY_SILU: return use(Silu<W>{});
    }
}

// Write the function of what lies at the same place of each array, two vectors at a time: each waits for one
// instruction after another, and fills the other's waits.
template <typename T, typename Function, typename... From>
inline void map_vectors(Function function, int64_t count, T* to, const From*... from) {
    constexpr int64_t lanes = Vector<typename Wide<T>::type>::lanes;
    int64_t i = 0;
    for (; i + 2 * lanes <= count; i += 2 * lanes) {
        const auto first = function(load(from + i, lanes)...), second = function(load(from + i + lanes, lanes)...);
        store(first, to + i, lanes);
        store(second, to + i + lanes, lanes);
    }
    each_vector<T>(count - i, [=](int64_t j, int64_t some) {
        store(function(load(from + i + j, some)...), to + i + j, some);
    });
}

template <typename T>
void apply(const spcy_activation* activation, const void* x, int64_t count, void* y) {
    const T* from = static_cast<const T*>(x);
    T* to = static_cast<T*>(y);
    with_activation<T>(activation, [=](auto function) {
        map_vectors([=](auto at) { return function.value(at); }, count, to, from);
    });
}

template <typename T>
void gradient(const spcy_activation* activation, const void* x, const void* dy, int64_t count, void* dx) {
    const T *at = static_cast<const T*>(x), *from = static_cast<const T*>(dy);
    T* to = static_cast<T*>(dx);
    with_activation<T>(activation, [=](auto function) {
        map_vectors([=](auto x, auto dy) { return function.gradient(x, dy); }, count, to, at, from);
    });
}

template <typename T>
void combine(int operation, const void* x, const void* y, double number, int64_t count, void* out) {
    typedef typename Wide<T>::type W;
    const T *first = static_cast<const T*>(x), *second = static_cast<const T*>(y);
    T* to = static_cast<T*>(out);
    const W alone = (W)number;  // minus 0 it is itself, whatever its sign
    const auto run = [=](auto function) {
        if (second) return map_vectors(function, count, to, first, second);
        map_vectors([=](auto at) { return function(at, alone - decltype(at){}); }, count, to, first);
    };
    if (operation == SPCY_ADD) run([](auto a, auto b) { return a + b; });
    else run([](auto a, auto b) { return a * b; });
}

template <typename T>
void widen_all(const void* x, int64_t count, float* y) {
    map_vectors([](auto at) { return at; }, count, y, static_cast<const T*>(x));
}

template <typename T>
void narrow_all(const float* x, int64_t count, void* y) {
    map_vectors([](auto at) { return at; }, count, static_cast<T*>(y), x);
}

// As spcy_round_to_odd, by the bits that a float has no room for; where it would be subnormal it has less.
template <typename T>
void narrow_doubles(const double* x, int64_t count, void* y) {
    typedef Vector<int64_t>::type Bits;
    typedef Lanes<float, Vector<double>::lanes>::unaligned Half;
    constexpr int64_t lanes = Vector<double>::lanes, kBlock = 256, kLast = 1 << 29;
    for (int64_t begin = 0; begin < count; begin += kBlock, x += kBlock) {
        const int64_t size = count - begin < kBlock ? count - begin : kBlock;
        float odd[kBlock];
        Bits subnormal = {};
        int64_t i = 0;
        for (; i + lanes <= size; i += lanes) {
            const auto value = Wide<double>::load(x + i);
            const Bits bits = (Bits)value, lost = (Bits)((bits & (kLast - 1)) != 0);
            subnormal |= (Bits)((value > -0x1p-126) & (value < 0x1p-126) & (value != 0));
            *reinterpret_cast<Half*>(odd + i) =
                __builtin_convertvector((DoubleVector)((bits & -kLast) | (lost & kLast)), Lanes<float, lanes>::type);
        }
        for (int lane = 0; lane < lanes; ++lane) i = subnormal[lane] ? 0 : i;
        for (; i < size; ++i) odd[i] = spcy_round_to_odd(x[i]);
        narrow_all<T>(odd, size, static_cast<T*>(y) + begin);
    }
}

}  // namespace

#endif
