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
struct Softmax {
    typedef Wide<T> W;
    typedef typename W::type Number;
    typedef typename W::V V;
    static constexpr int lanes = Vector<Number>::lanes;

    const T* row;
    int64_t classes;

    // Call use(place, numbers, how many there are) for each vector of the row.
    template <typename Use>
    void each_vector(Use use) const {
        int64_t c = 0;
        for (; c + lanes <= classes; c += lanes) use(c, W::load(row + c), lanes);
        if (c < classes) use(c, load_part(row + c, classes - c), (int)(classes - c));
    }

    Number greatest() const {
        Number first;
        convert(row[0], &first);
        V all = V{} + first;
        each_vector([&](int64_t, V value, int count) {
            for (int lane = count; lane < lanes; ++lane) value[lane] = first;
            all = select<Number>((typename Lanes_of<Number>::I)(value > all), value, all);
        });
        Number most = all[0];
        for (int lane = 1; lane < lanes; ++lane) most = all[lane] > most ? all[lane] : most;
        return most;
    }
};

template <typename T>
double cross_entropy(const void* logits, const int32_t* target, const double* share, int64_t rows, int64_t classes,
                     void* gradient) {
    typedef Softmax<T> S;
    typedef typename S::Number Number;
    typedef typename S::V V;
    constexpr bool kept = std::is_same<T, Number>::value;  // exponentials wait in the gradient's place
    double loss = 0;
    for (int64_t r = 0; r < rows; ++r) {
        const S x = {static_cast<const T*>(logits) + r * classes, classes};
        T* out = static_cast<T*>(gradient) + r * classes;
        const Number most = x.greatest();
        V sums = {};
        x.each_vector([&](int64_t c, V value, int count) {
            V power = exp<Number>(value - most);
            for (int lane = count; lane < S::lanes; ++lane) power[lane] = 0;
            sums += power;
            if constexpr (kept) count == S::lanes ? Wide<T>::store(power, out + c) : store_part(power, out + c, count);
        });
        Number sum = 0, own;
        for (int lane = 0; lane < S::lanes; ++lane) sum += sums[lane];
        convert(x.row[target[r]], &own);
        loss += ((double)log(sum) - (double)(own - most)) * share[r];
        const Number scale = (Number)(share[r] / sum);
        x.each_vector([&](int64_t c, V value, int count) {
            V power;
            if constexpr (kept)
                power = count == S::lanes ? Wide<T>::load(out + c) : load_part(out + c, count);
            else
                power = exp<Number>(value - most);
            power *= scale;
            if (target[r] >= c && target[r] < c + count) power[target[r] - c] -= (Number)share[r];
            count == S::lanes ? Wide<T>::store(power, out + c) : store_part(power, out + c, count);
        });
    }
    return loss;
}

}  // namespace

#endif
