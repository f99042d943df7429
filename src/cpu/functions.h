// Functions of whole vectors: exponentials, the logistic function, the normal distribution.
//
// Written for any SIMD level in vector extensions. Errors, in units in the last place of the result, over all
// arguments where neither the result nor an exponential in it is subnormal: exp 1, sigmoid 3, normal_tail 5.
#ifndef SPCY_CPU_FUNCTIONS_H
#define SPCY_CPU_FUNCTIONS_H

#include "cpu/vector.h"

namespace {

// What a number type needs besides its vectors: integers of its size, and constants.
template <typename T>
struct Real;

template <>
struct Real<float> {
    typedef int32_t Int;
    static constexpr int mantissa = 23, bias = 127, spare = 64;
    static constexpr float no_spare = 0x1p-64, least = -104;  // below which exp is 0
    static constexpr float round = 12582912;                  // 1.5 * 2**mantissa: adding it rounds to integers
    static constexpr float log2e = 1.44269504f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    static constexpr int32_t half = ~0xfff, magnitude = 0x7fffffff;  // bits: its square has room for; no sign
    static constexpr float tail_scale = 0.3f, tail_end = 15;
    static constexpr float factorials[] = {1, 1, 1 / 2.f, 1 / 6.f, 1 / 24.f, 1 / 120.f, 1 / 720.f, 1 / 5040.f};
    static constexpr float tail[] = {
        0.119687750228f, 0.119550118278f, 0.110423196615f, 0.077485770647f, 0.0988308413108f,
        -0.0844812825249f, 0.197921644074f, -0.232835483053f, 0.114402111863f, -0.0209846693611f,
    };
};

template <>
struct Real<double> {
    typedef int64_t Int;
    static constexpr int mantissa = 52, bias = 1023, spare = 256;
    static constexpr double no_spare = 0x1p-256, least = -746;
    static constexpr double round = 6755399441055744;
    static constexpr double log2e = 1.4426950408889634, ln2_high = 0.693147180369123816490,
                            ln2_low = 1.90821492927058770002e-10;
    static constexpr int64_t half = ~0x7ffffffll, magnitude = 0x7fffffffffffffffll;
    static constexpr double tail_scale = 0.25, tail_end = 40;
    static constexpr double factorials[] = {
        1,           1,           1 / 2.,       1 / 6.,        1 / 24.,        1 / 120.,        1 / 720.,
        1 / 5040.,   1 / 40320.,  1 / 362880.,  1 / 3628800.,  1 / 39916800.,  1 / 479001600.,  1 / 6227020800.,
    };
    static constexpr double tail[] = {
        0.099735570103398499791, 0.099735569872430457708, 0.093502104812696853094, 0.081034985936700639327,
        0.063505877929866730156, 0.04321988666334894027, 0.023596512541780629333, 0.005977896079182964176,
        0.0027499749102686519301, -0.028796923204017093378, 0.062216605942373251242, -0.16169814702320935927,
        0.30316284151969578497, -0.41990194234263613907, 0.41453331995684856231, -0.206400579136263683,
        -0.1097268234166951948, 0.30892531073724654464, -0.29231981353521941749, 0.1633570374888824402,
        -0.056890517629512783898, 0.011528844664754774149, -0.0010475928719220566655,
    };
};

// A vector of T, and one of integers for its bits and for comparisons.
template <typename T>
struct Lanes_of {
    typedef typename Vector<T>::type V;
    typedef typename Vector<typename Real<T>::Int>::type I;
};
#define SPCY_LANES(T)                                   \
    [[maybe_unused]] typedef Real<T> R;                 \
    [[maybe_unused]] typedef typename Lanes_of<T>::V V; \
    [[maybe_unused]] typedef typename Lanes_of<T>::I I

// a where the mask is set, else b.
template <typename T>
inline typename Lanes_of<T>::V select(typename Lanes_of<T>::I mask, typename Lanes_of<T>::V a,
                                      typename Lanes_of<T>::V b) {
    return mask ? a : b;
}

// The nearest number in [low, high]; NaN stays.
template <typename T>
inline typename Lanes_of<T>::V clamp(typename Lanes_of<T>::V x, T low, T high) {
    SPCY_LANES(T);
    const V below = V{} + low, above = V{} + high;
    x = select<T>((I)(x < below), below, x);
    return select<T>((I)(x > above), above, x);
}

template <typename T, int COUNT>
inline typename Lanes_of<T>::V polynomial(const T (&coefficients)[COUNT], typename Lanes_of<T>::V x) {
    SPCY_LANES(T);
    V sum = V{} + coefficients[COUNT - 1];
    for (int i = COUNT - 2; i >= 0; --i) sum = sum * x + coefficients[i];
    return sum;
}

// |x|; NaN stays one.
template <typename T>
inline typename Lanes_of<T>::V magnitude(typename Lanes_of<T>::V x) {
    SPCY_LANES(T);
    return (V)((I)x & R::magnitude);
}

// exp(x) = 2**n exp(rest): the rest, in [-ln 2 / 2, ln 2 / 2], and n.
template <typename T>
inline typename Lanes_of<T>::V reduced(typename Lanes_of<T>::V x, typename Lanes_of<T>::I* n) {
    SPCY_LANES(T);
    const V rounded = x * R::log2e + R::round, whole = rounded - R::round;
    *n = (I)rounded - (I)(V{} + R::round);
    return (x - whole * R::ln2_high) - whole * R::ln2_low;
}

// And back, by a polynomial. 2**n itself may be no number, 2**(n + spare) is one.
template <typename T>
inline typename Lanes_of<T>::V expanded(typename Lanes_of<T>::V rest, typename Lanes_of<T>::I n) {
    SPCY_LANES(T);
    return polynomial<T>(R::factorials, rest) * (V)((n + (R::bias + R::spare)) << R::mantissa) * R::no_spare;
}

// exp(x), where x <= 0.
template <typename T>
inline typename Lanes_of<T>::V exp(typename Lanes_of<T>::V x) {
    SPCY_LANES(T);
    const V least = V{} + R::least;
    I n;
    const V rest = reduced<T>(select<T>((I)(x < least), least, x), &n);
    return expanded<T>(rest, n);
}

// 1 / (1 + exp(-x)) and, as exactly, what is missing to 1.
template <typename T>
inline typename Lanes_of<T>::V sigmoid(typename Lanes_of<T>::V x, typename Lanes_of<T>::V* rest) {
    SPCY_LANES(T);
    const I negative = (I)(x < 0);
    const V less = exp<T>(-magnitude<T>(x)), greater = 1 / (1 + less);
    *rest = select<T>(negative, greater, less * greater);
    return select<T>(negative, less * greater, greater);
}

template <typename T>
inline typename Lanes_of<T>::V sigmoid(typename Lanes_of<T>::V x) {
    typename Lanes_of<T>::V rest;
    return sigmoid<T>(x, &rest);
}

// exp(-x**2 / 2) for x in [0, tail_end], the square in two parts that have no rounding error.
template <typename T>
inline typename Lanes_of<T>::V bell(typename Lanes_of<T>::V x) {
    SPCY_LANES(T);
    const V high = (V)((I)x & R::half);
    I n;
    const V rest = reduced<T>(high * high * T(-0.5), &n);
    return expanded<T>(rest + (high - x) * (high + x) * T(0.5), n);
}

// The share of a normal distribution above x >= 0, given bell(x): t Q(t) exp(-x**2 / 2), t = 1 / (1 + c x).
template <typename T>
inline typename Lanes_of<T>::V normal_tail(typename Lanes_of<T>::V x, typename Lanes_of<T>::V bell) {
    SPCY_LANES(T);
    const V t = 1 / (1 + x * R::tail_scale);
    return t * polynomial<T>(R::tail, t) * bell;
}

}  // namespace

#endif
