// Norms over all rows, for every number type and SIMD level: columns are taken a vector at a time.
#ifndef SPCY_CPU_NORM_LOOP_H
#define SPCY_CPU_NORM_LOOP_H

#include "cpu/norm.h"
#include "cpu/wide.h"

namespace {

template <int LANES>
struct Doubles {
    typedef double type __attribute__((vector_size(LANES * sizeof(double)), may_alias));
};

// A vector of columns of rows that lie `channels` numbers apart; the last one may have fewer columns.
template <typename T>
struct Columns {
    typedef typename Wide<T>::type Number;
    typedef typename Wide<T>::V V;
    typedef typename Doubles<Vector<Number>::lanes>::type Sums;

    int64_t channels, first, count;

    V load(const void* x, int64_t row) const {
        return ::load(static_cast<const T*>(x) + row * channels + first, count);
    }
    void store(V value, void* y, int64_t row) const {
        ::store(value, static_cast<T*>(y) + row * channels + first, count);
    }
    V parameter(const void* values) const { return ::load(static_cast<const Number*>(values) + first, count); }
    static Sums widen(V value) { return __builtin_convertvector(value, Sums); }
    void write(Sums value, double* sums) const {
        for (int64_t c = 0; c < count; ++c) sums[first + c] = value[c];
    }
};

template <typename T, typename Use>
inline void each_vector_of_columns(int64_t channels, Use use) {
    each_vector<T>(channels, [=](int64_t first, int64_t count) { use(Columns<T>{channels, first, count}); });
}

template <typename T>
void column_moments(const void* x, int64_t rows, int64_t channels, double* sums) {
    typedef typename Columns<T>::Sums Sums;
    each_vector_of_columns<T>(channels, [=](Columns<T> columns) {
        const Sums first = columns.widen(columns.load(x, 0));  // near the mean, most often
        Sums sum = {}, squares = {};
        for (int64_t r = 0; r < rows; ++r) {
            const Sums value = columns.widen(columns.load(x, r)) - first;
            sum += value;
            squares += value * value;
        }
        const Sums mean = sum / (double)rows;
        columns.write(first + mean, sums);
        columns.write(squares - mean * sum, sums + channels);
    });
}

template <typename T>
void apply_norm(const void* x, int64_t rows, int64_t channels, const void* centre, const void* scale,
                const void* shift, void* y) {
    each_vector_of_columns<T>(channels, [=](Columns<T> columns) {
        const auto a = columns.parameter(centre), b = columns.parameter(scale), c = columns.parameter(shift);
        for (int64_t r = 0; r < rows; ++r) columns.store((columns.load(x, r) - a) * b + c, y, r);
    });
}

template <typename T>
void norm_gradient_sums(const void* x, const void* dy, int64_t rows, int64_t channels, const void* centre,
                        double* sums) {
    typedef typename Columns<T>::Sums Sums;
    each_vector_of_columns<T>(channels, [=](Columns<T> columns) {
        const Sums middle = columns.widen(columns.parameter(centre));
        Sums sum = {}, products = {};
        for (int64_t r = 0; r < rows; ++r) {
            const Sums gradient = columns.widen(columns.load(dy, r));
            sum += gradient;
            products += gradient * (columns.widen(columns.load(x, r)) - middle);
        }
        columns.write(sum, sums);
        columns.write(products, sums + channels);
    });
}

template <typename T>
void norm_gradient(const void* x, const void* dy, int64_t rows, int64_t channels, const void* centre,
                   const void* mean, const void* slope, const void* scale, void* dx) {
    each_vector_of_columns<T>(channels, [=](Columns<T> columns) {
        const auto a = columns.parameter(centre), b = columns.parameter(mean);
        const auto c = columns.parameter(slope), d = columns.parameter(scale);
        for (int64_t r = 0; r < rows; ++r)
            columns.store((columns.load(dy, r) - b - (columns.load(x, r) - a) * c) * d, dx, r);
    });
}

}  // namespace

#endif
