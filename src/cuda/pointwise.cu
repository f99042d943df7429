// Functions of each feature by itself, and their gradients: those of cpu/pointwise_loop.h, of one number.

enum { SPCY_RELU = 1, SPCY_LEAKY_RELU, SPCY_GELU, SPCY_GELU_TANH, SPCY_SILU };

__device__ inline float normal_share(float x) { return 0.5f * erfcf(x * -0.70710678f); }
__device__ inline double normal_share(double x) { return 0.5 * erfc(x * -0.7071067811865476); }

template <class T>
__device__ inline T clamp(T x, T size) {  // NaN stays
    return x < -size ? -size : x > size ? size : x;
}

// 1 / (1 + exp(-x)) and, as exactly, what is missing to 1.
template <class T>
__device__ inline T sigmoid(T x, T* rest) {
    const T less = exponential(x < 0 ? x : -x), greater = 1 / (1 + less);
    *rest = x < 0 ? greater : less * greater;
    return x < 0 ? less * greater : greater;
}

template <int KIND, class T>
__device__ inline T value_at(T x, T slope) {
    T rest;
    switch (KIND) {
        case SPCY_RELU: return x < 0 ? T(0) : x;
        case SPCY_LEAKY_RELU: return x > 0 ? x : x * slope;
        case SPCY_GELU: return x * normal_share(x);
        case SPCY_GELU_TANH: return x * sigmoid(T(1.5957691216057308) * x * (1 + T(0.044715) * x * x), &rest);
        default: return x * sigmoid(x, &rest);
    }
}

template <int KIND, class T>
__device__ inline T gradient_at(T x, T dy, T slope) {
    const T scale = T(1.5957691216057308), cubic = T(0.044715);
    T rest;
    switch (KIND) {
        case SPCY_RELU: return x <= 0 ? T(0) : dy;
        case SPCY_LEAKY_RELU: return x > 0 ? dy : dy * slope;
        case SPCY_GELU: {
            const T near = clamp(x, T(40));
            return dy * (normal_share(x) + near * exponential(T(-0.5) * near * near) * T(0.3989422804014327));
        }
        case SPCY_GELU_TANH: {
            x = clamp(x, T(100));
            const T share = sigmoid(scale * x * (1 + cubic * x * x), &rest);
            return dy * (share + x * share * rest * scale * (1 + 3 * cubic * x * x));
        }
        default: {
            x = clamp(x, T(1000));
            const T share = sigmoid(x, &rest);
            return dy * (share * (1 + x * rest));
        }
    }
}

template <class Number, int KIND>
__global__ void activate(const Number* __restrict__ x, int64_t n, double slope, Number* out) {
    typedef typename spcy_sum<Number>::type T;
    SPCY_EACH(i, n) {
        T value;
        convert(x[i], &value);
        convert(value_at<KIND, T>(value, T(slope)), &out[i]);
    }
}

template <class Number, int KIND>
__global__ void activation_gradient(const Number* x, const Number* __restrict__ dy, int64_t n, double slope,
                                    Number* out) {
    typedef typename spcy_sum<Number>::type T;
    SPCY_EACH(i, n) {
        T value, gradient;
        convert(x[i], &value);
        convert(dy[i], &gradient);
        convert(gradient_at<KIND, T>(value, gradient, T(slope)), &out[i]);
    }
}

enum { SPCY_ADD, SPCY_MULTIPLY };

// y NULL: each x and `other`.
template <class Number>
__global__ void combine(const Number* x, const Number* y, int operation, double other, int64_t n, Number* out) {
    typedef typename spcy_sum<Number>::type T;
    SPCY_EACH(i, n) {
        T first, second = T(other);
        convert(x[i], &first);
        if (y) convert(y[i], &second);
        convert(operation == SPCY_ADD ? first + second : first * second, &out[i]);
    }
}

template <class Number>
__global__ void widen(const Number* __restrict__ x, int64_t n, float* __restrict__ out) {
    SPCY_EACH(i, n) convert(x[i], &out[i]);
}

template <class Number, class From>
__global__ void narrow(const From* __restrict__ x, int64_t n, Number* __restrict__ out) {
    SPCY_EACH(i, n) convert(spcy_round_to_odd(x[i]), &out[i]);
}
