// Functions of whole vectors: exponentials, the logistic function, the normal distribution.
//
// Written for any SIMD level in vector extensions. Errors, in units in the last place of the result, over all
// arguments where neither the result nor an exponential in it is subnormal: exp 1, sigmoid 4, normal_tail 6.
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
    static constexpr float exponential[] = {  // within 3.1e-9
        1, 1, 0.49999993442154f, 0.166665205478995f, 0.0416683890316679f, 0.00836872705088f, 0.00138145775794f,
    };
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
    static constexpr double exponential[] = {  // within 3.7e-18
        1, 1, 0.50000000000000106421, 0.16666666666666412158, 0.041666666666530003549, 0.0083333333334946472937,
        0.0013888888943676896394, 0.00019841269506288857363, 0.000024801493045117860706, 2.7557586528698073589e-6,
        2.7630269236390500297e-7, 2.5000046214697808094e-8,
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

// Of scale * x; compilers work out the scale's powers.
template <typename T, int COUNT>
inline typename Lanes_of<T>::V polynomial(const T (&coefficients)[COUNT], typename Lanes_of<T>::V x, T scale = 1) {
    SPCY_LANES(T);
    T power = 1;
    for (int i = 1; i < COUNT; ++i) power *= scale;
    V sum = V{} + coefficients[COUNT - 1] * power;
    for (int i = COUNT - 2; i >= 0; --i) sum = sum * x + coefficients[i] * (power /= scale);
    return sum;
}

// |x|; NaN stays one.
template <typename T>
inline typename Lanes_of<T>::V magnitude(typename Lanes_of<T>::V x) {
    SPCY_LANES(T);
    return (V)((I)x & R::magnitude);
}

// exp(x) = 2**n exp(rest) for x = scale * y: rest / scale, in [-ln 2 / 2, ln 2 / 2] / |scale|, and n + R::round.
template <typename T>
inline typename Lanes_of<T>::V reduced(typename Lanes_of<T>::V y, typename Lanes_of<T>::V* rounded, T scale = 1) {
    SPCY_LANES(T);
    *rounded = y * (scale * R::log2e) + R::round;
    const V n = *rounded - R::round;
    return (y - n * (R::ln2_high / scale)) - n * (R::ln2_low / scale);
}

// And back, by a polynomial. Where there is no instruction for it: 2**n itself may be no number, 2**(n + spare) is one.
template <typename T>
inline typename Lanes_of<T>::V expanded(typename Lanes_of<T>::V rest, typename Lanes_of<T>::V rounded, T scale = 1) {
    SPCY_LANES(T);
    const V sum = polynomial<T>(R::exponential, rest, scale);
#if defined(__AVX512F__)
    const V n = rounded - R::round;
    if constexpr (sizeof(T) == sizeof(float)) return (V)_mm512_scalef_ps((__m512)sum, (__m512)n);
    else return (V)_mm512_scalef_pd((__m512d)sum, (__m512d)n);
#else
    const I n = (I)rounded - (I)(V{} + R::round);
    return sum * (V)((n + (R::bias + R::spare)) << R::mantissa) * R::no_spare;
#endif
}

// exp(x), where x <= 0.
template <typename T>
inline typename Lanes_of<T>::V exp(typename Lanes_of<T>::V x) {
    SPCY_LANES(T);
    const V least = V{} + R::least;
    V rounded;
    const V rest = reduced<T>(select<T>((I)(x < least), least, x), &rounded);
    return expanded<T>(rest, rounded);
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
    V rounded;
    const V rest = reduced<T>(high * high, &rounded, T(-0.5));
    return expanded<T>(rest + (x - high) * (x + high), rounded, T(-0.5));
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
