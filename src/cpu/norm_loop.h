// Norms, for every number type and SIMD level: over all rows a vector of columns at a time, of each row in passes.
#ifndef SPCY_CPU_NORM_LOOP_H
#define SPCY_CPU_NORM_LOOP_H

#include <math.h>

#include "cpu/bits.h"
#include "cpu/norm.h"
#include "cpu/wide.h"

namespace {

// Columns of rows that lie `channels` numbers apart: those of so many vectors, or the last few, fewer than a vector has.
template <typename T, int VECTORS, bool WHOLE>
struct Columns {
    typedef typename Wide<T>::type Number;
    typedef typename Wide<T>::V V;
    typedef Doubles<Number> Sums;
    static constexpr int vectors = VECTORS, lanes = Vector<Number>::lanes;

    int64_t channels, first, count;

    int64_t size() const { return WHOLE ? lanes : count; }
    int64_t place(int64_t row, int v) const { return row * channels + first + v * lanes; }
    V load(const void* x, int64_t row, int v) const { return ::load(static_cast<const T*>(x) + place(row, v), size()); }
    void store(V value, void* y, int64_t row, int v) const {
        ::store(value, static_cast<T*>(y) + place(row, v), size());
    }
    // What comes `rows` later: going down a few columns of each row, the processor does not read ahead by itself.
    void fetch(const void* x, int64_t row, int64_t rows) const {
        SPCY_PREFETCH(static_cast<const T*>(x) + place(row + rows, 0));
    }
    V parameter(const void* values, int v) const {
        return ::load(static_cast<const Number*>(values) + place(0, v), size());
    }
    void read(const double* sums, Sums* values) const {
        for (int v = 0; v < VECTORS; ++v) values[v].read(sums + place(0, v), size());
    }
    void write(const Sums* values, double* sums) const {
        for (int v = 0; v < VECTORS; ++v) values[v].write(sums + place(0, v), size());
    }
};

// Call use(columns) for all columns, those of a cache line together.
template <typename T, typename Use>
inline void each_columns(int64_t channels, Use use) {
    constexpr int64_t lanes = Vector<typename Wide<T>::type>::lanes, together = kVectorBytes < 64 ? 2 : 1;
    int64_t c = 0;
    for (; c + together * lanes <= channels; c += together * lanes) use(Columns<T, together, true>{channels, c, 0});
    if (c + lanes <= channels) {
        use(Columns<T, 1, true>{channels, c, 0});
        c += lanes;
    }
    if (c < channels) use(Columns<T, 1, false>{channels, c, channels - c});
}

template <typename T>
void column_moments(const void* x, int64_t rows, int64_t channels, double* sums) {
    memset(sums, 0, 2 * channels * sizeof(double));
    spcy_each_piece({rows, channels, sizeof(T)}, 0, rows, [=](int64_t begin, int64_t end) {
        each_columns<T>(channels, [=](auto columns) {
            typedef decltype(columns) Own;
            typename Own::Sums first[Own::vectors], sum[Own::vectors], squares[Own::vectors];
            for (int v = 0; v < Own::vectors; ++v)
                first[v] = typename Own::Sums(columns.load(x, 0, v));  // near the mean, most often
            columns.read(sums, sum);
            columns.read(sums + channels, squares);
            for (int64_t r = begin; r < end; ++r) {
                columns.fetch(x, r, end - begin);
                for (int v = 0; v < Own::vectors; ++v) {
                    const auto value = typename Own::Sums(columns.load(x, r, v)) - first[v];
                    sum[v] = sum[v] + value;
                    squares[v] = squares[v] + value * value;
                }
            }
            columns.write(sum, sums);
            columns.write(squares, sums + channels);
        });
    });
    for (int64_t c = 0; c < channels; ++c) {
        typename Wide<T>::type first;
        convert(static_cast<const T*>(x)[c], &first);
        const double mean = sums[c] / rows;
        sums[channels + c] -= mean * sums[c];
        sums[c] = first + mean;
    }
}

template <typename T>
void apply_norm(const void* x, int64_t rows, int64_t channels, const void* centre, const void* scale,
                const void* shift, void* y) {
    each_columns<T>(channels, [=](auto columns) {
        typedef decltype(columns) Own;
        typename Own::V a[Own::vectors], b[Own::vectors], c[Own::vectors];
        for (int v = 0; v < Own::vectors; ++v) {
            a[v] = columns.parameter(centre, v);
            b[v] = columns.parameter(scale, v);
            c[v] = columns.parameter(shift, v);
        }
        for (int64_t r = 0; r < rows; ++r) {
            columns.fetch(x, r, rows);
            for (int v = 0; v < Own::vectors; ++v) columns.store((columns.load(x, r, v) - a[v]) * b[v] + c[v], y, r, v);
        }
    });
}

template <typename T>
void norm_gradient_sums(const void* x, const void* dy, int64_t rows, int64_t channels, const void* centre,
                        double* sums) {
    each_columns<T>(channels, [=](auto columns) {
        typedef decltype(columns) Own;
        typename Own::Sums middle[Own::vectors], sum[Own::vectors], products[Own::vectors];
        for (int v = 0; v < Own::vectors; ++v) middle[v] = typename Own::Sums(columns.parameter(centre, v));
        columns.read(sums, sum);
        columns.read(sums + channels, products);
        for (int64_t r = 0; r < rows; ++r) {
            columns.fetch(x, r, rows);
            columns.fetch(dy, r, rows);
            for (int v = 0; v < Own::vectors; ++v) {
                const typename Own::Sums gradient(columns.load(dy, r, v)), value(columns.load(x, r, v));
                sum[v] = sum[v] + gradient;
                products[v] = products[v] + gradient * (value - middle[v]);
            }
        }
        columns.write(sum, sums);
        columns.write(products, sums + channels);
    });
}

template <typename T>
void norm_gradient(const void* x, const void* dy, int64_t rows, int64_t channels, const void* centre,
                   const void* mean, const void* slope, const void* scale, void* dx) {
    each_columns<T>(channels, [=](auto columns) {
        typedef decltype(columns) Own;
        typename Own::V a[Own::vectors], b[Own::vectors], c[Own::vectors], d[Own::vectors];
        for (int v = 0; v < Own::vectors; ++v) {
            a[v] = columns.parameter(centre, v);
            b[v] = columns.parameter(mean, v);
            c[v] = columns.parameter(slope, v);
            d[v] = columns.parameter(scale, v);
        }
        for (int64_t r = 0; r < rows; ++r)
            for (int v = 0; v < Own::vectors; ++v) {
                const auto beyond = columns.load(x, r, v) - a[v];
                columns.store((columns.load(dy, r, v) - b[v] - beyond * c[v]) * d[v], dx, r, v);
            }
    });
}

// By halves, which are registers of their own down to 16 bytes.
template <typename Number, int LANES>
inline Number sum_of_lanes(typename Lanes<Number, LANES>::type all) {
    if constexpr (LANES * sizeof(Number) > 16) {
        typename Lanes<Number, LANES / 2>::type half[2];
        memcpy(half, &all, sizeof all);
        return sum_of_lanes<Number, LANES / 2>(half[0] + half[1]);
    } else if constexpr (LANES == 4) {
        return (all[0] + all[2]) + (all[1] + all[3]);
    } else {
        return all[0] + all[1];
    }
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
    return sum_of_lanes<Number, Vector<Number>::lanes>(sums);
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
    const Number mean = moments[0], inverse = moments[1], share = 1 / (Number)channels;
    const auto normal = [=](int64_t c, int64_t n) { return (load(x + c, n) - mean) * inverse; };
    const auto scaled = [=](int64_t c, int64_t n) { return load(dy + c, n) * load(weight + c, n); };
    const Number level = sum_over_row<T>(channels, scaled) * share;
    const Number slope =
        sum_over_row<T>(channels, [=](int64_t c, int64_t n) { return scaled(c, n) * normal(c, n); }) * share;
    each_vector<T>(channels, [=](int64_t c, int64_t n) {
        store((scaled(c, n) - level - normal(c, n) * slope) * inverse, dx + c, n);
    });
}

constexpr int64_t kFewRows = 8;  // whose products, which are rounded anyway, are added up without doubles

template <typename T>
void layer_norm_gradient(const void* features, const void* gradient, int64_t rows, int64_t channels,
                         const void* weight, const void* moments, void* out, double* sums) {
    typedef typename Wide<T>::type Number;
    const T *x = static_cast<const T*>(features), *dy = static_cast<const T*>(gradient);
    const Number *scale = static_cast<const Number*>(weight), *kept = static_cast<const Number*>(moments);
    T* dx = static_cast<T*>(out);
    for (int64_t r = 0; r < rows; ++r)
        layer_norm_row_gradient(x + r * channels, dy + r * channels, channels, scale, kept + 2 * r, dx + r * channels);
    each_columns<T>(channels, [=](auto columns) {
        typedef decltype(columns) Own;
        typename Own::Sums sum[Own::vectors], products[Own::vectors];
        columns.read(sums, sum);
        columns.read(sums + channels, products);
        for (int64_t begin = 0; begin < rows; begin += kFewRows) {
            typename Own::V few[Own::vectors] = {};
            for (int64_t r = begin; r < rows && r < begin + kFewRows; ++r)
                for (int v = 0; v < Own::vectors; ++v) {
                    const auto all = columns.load(dy, r, v);
                    sum[v] = sum[v] + typename Own::Sums(all);
                    few[v] += all * ((columns.load(x, r, v) - kept[2 * r]) * kept[2 * r + 1]);
                }
            for (int v = 0; v < Own::vectors; ++v) products[v] = products[v] + typename Own::Sums(few[v]);
        }
        columns.write(sum, sums);
        columns.write(products, sums + channels);
    });
}

}  // namespace

#endif
