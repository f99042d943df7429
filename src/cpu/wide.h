// Numbers as vectors of the type that they are computed in.
#ifndef SPCY_CPU_WIDE_H
#define SPCY_CPU_WIDE_H

#include "cpu/vector.h"

namespace {

template <typename T>
struct Wide {
    typedef T type;
    typedef typename Vector<T>::type V;
    static V load(const T* x) { return *reinterpret_cast<const typename Vector<T>::unaligned*>(x); }
    static void store(V value, T* y) { *reinterpret_cast<typename Vector<T>::unaligned*>(y) = value; }
};

template <>
struct Wide<bfloat16> {
    typedef float type;
    typedef Vector<float>::type V;
    typedef Vector<uint32_t>::type Bits;
    typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2), may_alias, aligned(2)));

    static V load(const bfloat16* x) {
        return (V)(__builtin_convertvector(*reinterpret_cast<const Halves*>(x), Bits) << 16);
    }

    // Round to nearest, ties to even; a NaN stays one.
    static void store(V value, bfloat16* y) {
        const Bits bits = (Bits)value, nan = (Bits)(value != value);
        const Bits rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
        *reinterpret_cast<Halves*>(y) = __builtin_convertvector((quiet & nan) | (rounded & ~nan), Halves);
    }
};

template <>
struct Wide<float16> {
    typedef float type;
    typedef Vector<float>::type V;
    static constexpr int lanes = Vector<float>::lanes;
    typedef Lanes<uint16_t, lanes>::unaligned Halves;

    static V load(const float16* x) { return (V)widen<lanes>(*reinterpret_cast<const Halves*>(x)); }
    static void store(V value, float16* y) { *reinterpret_cast<Halves*>(y) = narrow<lanes>(value); }
};

typedef Vector<double>::type DoubleVector;

inline DoubleVector doubles(Lanes<float, Vector<double>::lanes>::type some) {
#if defined(__AVX512F__)
    return (DoubleVector)_mm512_cvtps_pd((__m256)some);
#elif defined(__AVX2__)
    return (DoubleVector)_mm256_cvtps_pd((__m128)some);  // GCC would convert its halves one by one
#else
    return __builtin_convertvector(some, DoubleVector);
#endif
}

// The numbers of a register as doubles, in the registers that they take: a vector of compilers' own that is wider than
// a register goes through memory, number by number, at each use.
template <typename Number>
struct Doubles {
    static constexpr int parts = sizeof(double) / sizeof(Number);
    DoubleVector part[parts];

    explicit Doubles(typename Vector<Number>::type value) {
        if constexpr (parts == 1) {
            part[0] = value;
        } else {
            Lanes<float, Vector<double>::lanes>::type some[parts];
            memcpy(some, &value, sizeof value);
            for (int p = 0; p < parts; ++p) part[p] = doubles(some[p]);
        }
    }
    Doubles() = default;
    void read(const double* from, int64_t count) {
        memset(part, 0, sizeof part);
        memcpy(part, from, count * sizeof(double));
    }
    void write(double* to, int64_t count) const { memcpy(to, part, count * sizeof(double)); }

    template <typename Use>
    static Doubles of(Doubles a, const Doubles& b, Use use) {
        for (int p = 0; p < parts; ++p) a.part[p] = use(a.part[p], b.part[p]);
        return a;
    }
};

template <typename Number>
inline Doubles<Number> operator+(const Doubles<Number>& a, const Doubles<Number>& b) {
    return Doubles<Number>::of(a, b, [](auto x, auto y) { return x + y; });
}
template <typename Number>
inline Doubles<Number> operator-(const Doubles<Number>& a, const Doubles<Number>& b) {
    return Doubles<Number>::of(a, b, [](auto x, auto y) { return x - y; });
}
template <typename Number>
inline Doubles<Number> operator*(const Doubles<Number>& a, const Doubles<Number>& b) {
    return Doubles<Number>::of(a, b, [](auto x, auto y) { return x * y; });
}

// Write past the cache, as spcy_stream does; addresses are aligned to what is written.
template <typename T>
inline void stream(typename Vector<T>::type value, T* y) {
#if defined(__AVX512F__)
    _mm512_stream_si512((__m512i*)y, (__m512i)value);
#elif defined(__AVX2__)
    _mm256_stream_si256((__m256i*)y, (__m256i)value);
#elif defined(__SSE2__)
    _mm_stream_si128((__m128i*)y, (__m128i)value);
#else
    *reinterpret_cast<typename Vector<T>::type*>(y) = value;
#endif
}

// The first `count` of a vector's numbers, the others 0; and back.
template <typename T>
inline typename Wide<T>::V load(const T* x, int64_t count) {
    constexpr int lanes = Vector<typename Wide<T>::type>::lanes;
    if (count == lanes) return Wide<T>::load(x);
    T whole[lanes] = {};
    memcpy(whole, x, count * sizeof(T));
    return Wide<T>::load(whole);
}

template <typename T>
inline void store(typename Wide<T>::V value, T* y, int64_t count) {
    constexpr int lanes = Vector<typename Wide<T>::type>::lanes;
    if (count == lanes) return Wide<T>::store(value, y);
    T whole[lanes];
    Wide<T>::store(value, whole);
    memcpy(y, whole, count * sizeof(T));
}

// Call use(place, count) for the vectors of `size` numbers, of which the last may have fewer.
template <typename T, typename Use>
inline void each_vector(int64_t size, Use use) {
    constexpr int64_t lanes = Vector<typename Wide<T>::type>::lanes;
    int64_t i = 0;
    for (; i + lanes <= size; i += lanes) use(i, lanes);
    if (i < size) use(i, size - i);
}

// Copy a row as numbers of the type that it is computed in.
template <typename T>
inline void widen_row(const T* row, int64_t size, typename Wide<T>::type* copy) {
    constexpr int64_t lanes = Vector<typename Wide<T>::type>::lanes;
    typedef Wide<typename Wide<T>::type> Copy;
    int64_t i = 0;
    for (; i + lanes <= size; i += lanes) Copy::store(Wide<T>::load(row + i), copy + i);
    for (; i < size; ++i) convert(row[i], copy + i);
}

}  // namespace

#endif
