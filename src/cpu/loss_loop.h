// Cross entropy of a softmax with its gradient, for every number type and SIMD level: one row after the other.
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

template <typename T>
double cross_entropy(const void* logits, const int32_t* target, const double* share, int64_t rows, int64_t classes,
                     void* gradient) {
    typedef typename Wide<T>::type Number;
    typedef typename Wide<T>::V V;
    constexpr int lanes = Vector<Number>::lanes;
    constexpr bool kept = std::is_same<T, Number>::value;  // exponentials wait in the gradient's place
    const T* row = static_cast<const T*>(logits);
    T* out = static_cast<T*>(gradient);
    double loss = 0;
    for (int64_t r = 0; r < rows; ++r, row += classes, out += classes) {
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
        convert(row[target[r]], &own);
        loss += ((double)log(sum) - (double)(own - most)) * share[r];
        const Number scale = (Number)(share[r] / sum);
        each_vector<T>(classes, [&](int64_t c, int64_t count) {
            V power;
            if constexpr (kept)
                power = load(out + c, count);
            else
                power = exp<Number>(load(row + c, count) - most);
            power *= scale;
            if (target[r] >= c && target[r] < c + count) power[target[r] - c] -= (Number)share[r];
            store(power, out + c, count);
        });
    }
    return loss;
}

}  // namespace

#endif
