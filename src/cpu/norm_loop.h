// Norms, for every number type and SIMD level: over all rows a vector of columns at a time, of each row in passes.
#ifndef SPCY_CPU_NORM_LOOP_H
#define SPCY_CPU_NORM_LOOP_H

#include <math.h>

#include "cpu/norm.h"
#include "cpu/wide.h"

namespace {

// The numbers of a register as doubles, in the registers that they take: a vector of compilers' own that is wider than
// a register goes through memory, number by number, at each use.
template <typename Number>
struct Doubles {
    typedef Vector<double>::type Part;
    static constexpr int parts = sizeof(double) / sizeof(Number);
    Part part[parts];

    explicit Doubles(typename Vector<Number>::type value) {
        typedef Number Some __attribute__((vector_size(kVectorBytes / parts), may_alias));
        Some some[parts];
        memcpy(some, &value, sizeof value);
        for (int p = 0; p < parts; ++p) part[p] = __builtin_convertvector(some[p], Part);
    }
    Doubles(const double* from, int64_t count) {
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

// A vector of columns of rows that lie `channels` numbers apart; the last one may have fewer columns.
template <typename T>
struct Columns {
    typedef typename Wide<T>::type Number;
    typedef typename Wide<T>::V V;
    typedef Doubles<Number> Sums;

    int64_t channels, first, count;

    V load(const void* x, int64_t row) const {
        return ::load(static_cast<const T*>(x) + row * channels + first, count);
    }
    void store(V value, void* y, int64_t row) const {
        ::store(value, static_cast<T*>(y) + row * channels + first, count);
    }
    V parameter(const void* values) const { return ::load(static_cast<const Number*>(values) + first, count); }
    Sums sums(const double* from) const {
        return count == Vector<Number>::lanes ? Sums(from + first, Vector<Number>::lanes) : Sums(from + first, count);
    }
    void write(const Sums& value, double* sums) const {
        if (count == Vector<Number>::lanes) return value.write(sums + first, Vector<Number>::lanes);
        value.write(sums + first, count);
    }
};

template <typename T, typename Use>
inline void each_vector_of_columns(int64_t channels, Use use) {
    each_vector<T>(channels, [=](int64_t first, int64_t count) { use(Columns<T>{channels, first, count}); });
}

template <typename T>
void column_moments(const void* x, int64_t rows, int64_t channels, double* sums) {
    typedef typename Columns<T>::Sums Sums;
    memset(sums, 0, 2 * channels * sizeof(double));
    spcy_each_piece({rows, channels, sizeof(T)}, 0, rows, [=](int64_t begin, int64_t end) {
        each_vector_of_columns<T>(channels, [=](Columns<T> columns) {
            const Sums first(columns.load(x, 0));  // near the mean, most often
            Sums sum = columns.sums(sums), squares = columns.sums(sums + channels);
            for (int64_t r = begin; r < end; ++r) {
                const Sums value = Sums(columns.load(x, r)) - first;
                sum = sum + value;
                squares = squares + value * value;
            }
            columns.write(sum, sums);
            columns.write(squares, sums + channels);
        });
    });
    for (int64_t c = 0; c < channels; ++c) {
        typename Columns<T>::Number first;
        convert(static_cast<const T*>(x)[c], &first);
        const double mean = sums[c] / rows;
        sums[channels + c] -= mean * sums[c];
        sums[c] = first + mean;
    }
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
        const Sums middle(columns.parameter(centre));
        Sums sum = columns.sums(sums), products = columns.sums(sums + channels);
        for (int64_t r = 0; r < rows; ++r) {
            const Sums gradient(columns.load(dy, r));
            sum = sum + gradient;
            products = products + gradient * (Sums(columns.load(x, r)) - middle);
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

// The sum of use(first, count), a vector for each vector of columns; lanes beyond `count` do not count.
template <typename T, typename Use>
inline typename Wide<T>::type sum_over_row(int64_t channels, Use use) {
    typedef typename Wide<T>::type Number;
    typename Wide<T>::V sums = {};
    each_vector<T>(channels, [&](int64_t first, int64_t count) {
        typename Wide<T>::V value = use(first, count);
        for (int64_t lane = count; lane < Vector<Number>::lanes; ++lane) value[lane] = 0;
        sums += value;
    });
    Number sum = 0;
    for (int lane = 0; lane < Vector<Number>::lanes; ++lane) sum += sums[lane];
    return sum;
}

template <typename T>
void layer_norm(const void* features, int64_t rows, int64_t channels, const void* weight, const void* bias, double eps,
                void* moments, void* out) {
    typedef typename Wide<T>::type Number;
    typedef typename Wide<T>::V V;
    const T* x = static_cast<const T*>(features);
    const Number *scale = static_cast<const Number*>(weight), *shift = static_cast<const Number*>(bias);
    Number* kept = static_cast<Number*>(moments);
    const Number count = (Number)channels;
    T* y = static_cast<T*>(out);
    for (int64_t r = 0; r < rows; ++r, x += channels, y += channels, kept += 2) {
        Number first;  // near the mean, most often: sums of what lies beyond keep their digits
        convert(x[0], &first);
        const Number mean =
            first + sum_over_row<T>(channels, [=](int64_t c, int64_t n) { return load(x + c, n) - first; }) / count;
        const Number squares = sum_over_row<T>(channels, [=](int64_t c, int64_t n) {
            const V beyond = load(x + c, n) - mean;
            return beyond * beyond;
        });
        const Number inverse = 1 / sqrt(squares / count + (Number)eps);
        kept[0] = mean;
        kept[1] = inverse;
        each_vector<T>(channels, [=](int64_t c, int64_t n) {
            store((load(x + c, n) - mean) * inverse * load(scale + c, n) + load(shift + c, n), y + c, n);
        });
    }
}

template <typename T>
inline void layer_norm_row_gradient(const T* x, const T* dy, int64_t channels, const typename Wide<T>::type* weight,
                                    const typename Wide<T>::type* moments, T* dx) {
    typedef typename Wide<T>::type Number;
    const Number mean = moments[0], inverse = moments[1], count = (Number)channels;
    const auto normal = [=](int64_t c, int64_t n) { return (load(x + c, n) - mean) * inverse; };
    const auto scaled = [=](int64_t c, int64_t n) { return load(dy + c, n) * load(weight + c, n); };
    const Number level = sum_over_row<T>(channels, scaled) / count;
    const Number slope =
        sum_over_row<T>(channels, [=](int64_t c, int64_t n) { return scaled(c, n) * normal(c, n); }) / count;
    each_vector<T>(channels, [=](int64_t c, int64_t n) {
        store((scaled(c, n) - level - normal(c, n) * slope) * inverse, dx + c, n);
    });
}

template <typename T>
void layer_norm_gradient(const void* features, const void* gradient, int64_t rows, int64_t channels,
                         const void* weight, const void* moments, void* out, double* sums) {
    typedef typename Wide<T>::type Number;
    typedef typename Columns<T>::Sums Sums;
    const T *x = static_cast<const T*>(features), *dy = static_cast<const T*>(gradient);
    const Number *scale = static_cast<const Number*>(weight), *kept = static_cast<const Number*>(moments);
    T* dx = static_cast<T*>(out);
    memset(sums, 0, 2 * channels * sizeof(double));
    spcy_each_piece({rows, channels, sizeof(T)}, 0, rows, [=](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r)
            layer_norm_row_gradient(x + r * channels, dy + r * channels, channels, scale, kept + 2 * r,
                                    dx + r * channels);
        each_vector_of_columns<T>(channels, [=](Columns<T> columns) {
            Sums sum = columns.sums(sums), products = columns.sums(sums + channels);
            for (int64_t r = begin; r < end; ++r) {
                const auto all = columns.load(dy, r), normal = (columns.load(x, r) - kept[2 * r]) * kept[2 * r + 1];
                sum = sum + Sums(all);
                products = products + Sums(all * normal);
            }
            columns.write(sum, sums);
            columns.write(products, sums + channels);
        });
    });
}

}  // namespace

#endif
