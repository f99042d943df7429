// Cross entropy of a softmax with its gradient, for every number type and SIMD level.
#ifndef SPCY_CPU_LOSS_LOOP_H
#define SPCY_CPU_LOSS_LOOP_H

#include <math.h>

#include <type_traits>

#include "cpu/functions.h"
#include "cpu/loss.h"
#include "cpu/wide.h"

namespace {

template <typename T>
inline typename Wide<T>::type greatest(const T* row, int64_t classes) {
    typedef typename Wide<T>::type Number;
    typedef typename Wide<T>::V V;
    constexpr int lanes = Vector<Number>::lanes;
    Number first;
    convert(row[0], &first);
    V all = V{} + first;
    each_vector<T>(classes, [&](int64_t c, int64_t count) {
        V value = load(row + c, count);
        for (int64_t lane = count; lane < lanes; ++lane) value[lane] = first;
        all = select<Number>((typename Lanes_of<Number>::I)(value > all), value, all);
    });
    Number most = all[0];
    for (int lane = 1; lane < lanes; ++lane) most = all[lane] > most ? all[lane] : most;
    return most;
}

constexpr int64_t kFewClasses = 64;  // of which rows are taken a vector at a time, a lane for each

// Up to `lanes` rows at once: a vector has a class's logits of all of them.
template <typename T>
double cross_entropy_of_lanes(const T* logits, const int32_t* target, const double* share, int64_t rows,
                              int64_t classes, T* gradient) {
    typedef typename Wide<T>::type Number;
    typedef typename Wide<T>::V V;
    constexpr int lanes = Vector<Number>::lanes;
    alignas(kVectorBytes) Number values[kFewClasses * lanes], most[lanes], sum[lanes], scale[lanes] = {};
    if (classes < 1) __builtin_unreachable();  // g++ 11 would warn of values that nobody wrote
    for (int lane = 0; lane < lanes; ++lane) {
        const T* row = logits + (lane < rows ? lane : 0) * classes;
        for (int64_t c = 0; c < classes; ++c) convert(row[c], &values[c * lanes + lane]);
    }
    V greatest = Wide<Number>::load(values), sums = {};
    for (int64_t c = 1; c < classes; ++c) {
        const V value = Wide<Number>::load(values + c * lanes);
        greatest = select<Number>((typename Lanes_of<Number>::I)(value > greatest), value, greatest);
    }
    for (int64_t c = 0; c < classes; ++c) {
        const V power = exp<Number>(Wide<Number>::load(values + c * lanes) - greatest);
        sums += power;
        Wide<Number>::store(power, values + c * lanes);
    }
    Wide<Number>::store(greatest, most);
    Wide<Number>::store(sums, sum);
    double loss = 0;
    for (int64_t r = 0; r < rows; ++r) {
        Number own;
        convert(logits[r * classes + target[r]], &own);
        loss += ((double)log(sum[r]) - (double)(own - most[r])) * share[r];
        scale[r] = (Number)(share[r] / sum[r]);
    }
    const V scales = Wide<Number>::load(scale);
    for (int64_t c = 0; c < classes; ++c)
        Wide<Number>::store(Wide<Number>::load(values + c * lanes) * scales, values + c * lanes);
    for (int64_t r = 0; r < rows; ++r) {
        values[target[r] * lanes + r] -= (Number)share[r];
        for (int64_t c = 0; c < classes; ++c) convert(values[c * lanes + r], &gradient[r * classes + c]);
    }
    return loss;
}

template <typename T>
double cross_entropy_of_row(const T* row, int32_t target, double share, int64_t classes, T* out) {
    typedef typename Wide<T>::type Number;
    typedef typename Wide<T>::V V;
    constexpr int lanes = Vector<Number>::lanes;
    constexpr bool kept = std::is_same<T, Number>::value;  // exponentials wait in the gradient's place
    const Number most = greatest(row, classes);
    V sums = {};
    each_vector<T>(classes, [&](int64_t c, int64_t count) {
        V power = exp<Number>(load(row + c, count) - most);
        for (int64_t lane = count; lane < lanes; ++lane) power[lane] = 0;
        sums += power;
        if constexpr (kept) store(power, out + c, count);
    });
    Number sum = 0, own;
    for (int lane = 0; lane < lanes; ++lane) sum += sums[lane];
    convert(row[target], &own);
    const Number scale = (Number)(share / sum);
    each_vector<T>(classes, [&](int64_t c, int64_t count) {
        V power;
        if constexpr (kept)
            power = load(out + c, count);
        else
            power = exp<Number>(load(row + c, count) - most);
        power *= scale;
        if (target >= c && target < c + count) power[target - c] -= (Number)share;
        store(power, out + c, count);
    });
    return ((double)log(sum) - (double)(own - most)) * share;
}

template <typename T>
double cross_entropy(const void* logits, const int32_t* target, const double* share, int64_t rows, int64_t classes,
                     void* gradient) {
    constexpr int64_t lanes = Vector<typename Wide<T>::type>::lanes;
    const T* x = static_cast<const T*>(logits);
    T* out = static_cast<T*>(gradient);
    const int64_t step = classes <= kFewClasses ? lanes : 1;
    double loss = 0;
    for (int64_t r = 0; r < rows; r += step) {
        const int64_t at = r * classes;
        loss += step > 1 ? cross_entropy_of_lanes(x + at, target + r, share + r, rows - r < lanes ? rows - r : lanes,
                                                  classes, out + at)
                         : cross_entropy_of_row(x + at, target[r], share[r], classes, out + at);
    }
    return loss;
}

}  // namespace

#endif
