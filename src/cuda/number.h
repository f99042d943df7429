// Features of 16 bits, and how numbers become those that are summed.
#ifndef SPCY_CUDA_NUMBER_H
#define SPCY_CUDA_NUMBER_H

struct float16 {
    uint16_t bits;
};
struct bfloat16 {
    uint16_t bits;
};

__device__ inline void convert(float x, float* y) { *y = x; }
__device__ inline void convert(double x, double* y) { *y = x; }
__device__ inline void convert(float16 x, float* y) { *y = spcy_half_to_float(x.bits); }
__device__ inline void convert(float x, float16* y) { y->bits = spcy_float_to_half(x); }
__device__ inline void convert(bfloat16 x, float* y) { *y = __uint_as_float((uint32_t)x.bits << 16); }
__device__ inline void convert(float x, bfloat16* y) { y->bits = spcy_float_to_bfloat16(x); }

// What numbers are computed and summed in.
template <class Number>
struct spcy_sum {
    typedef float type;
};
template <>
struct spcy_sum<double> {
    typedef double type;
};

// Functions of either type, by one name.
__device__ inline float exponential(float x) { return expf(x); }
__device__ inline double exponential(double x) { return exp(x); }
__device__ inline float logarithm(float x) { return logf(x); }
__device__ inline double logarithm(double x) { return log(x); }

#endif
