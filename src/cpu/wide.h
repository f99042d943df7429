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

// The first `count` of a vector's numbers, the others 0; and back.
template <typename T>
inline typename Wide<T>::V load_part(const T* x, int64_t count) {
    T whole[Vector<typename Wide<T>::type>::lanes] = {};
    memcpy(whole, x, count * sizeof(T));
    return Wide<T>::load(whole);
}

template <typename T>
inline void store_part(typename Wide<T>::V value, T* y, int64_t count) {
    T whole[Vector<typename Wide<T>::type>::lanes];
    Wide<T>::store(value, whole);
    memcpy(y, whole, count * sizeof(T));
}

}  // namespace

#endif
