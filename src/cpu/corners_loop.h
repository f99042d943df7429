// Means by linear weights and their gradient, for every number type and SIMD level.
//
// Points are taken a few at a time, in three steps that each leave their results in the nearest cache: what is read of
// each point, the shares of its corners, a lane for each point, and the sums of rows, a lane for each channel. The
// gradient adds a cell's points to the rows of its corners; the sums of a few points at a time are added to these, so
// that the rounding errors of many do not pile up.
#ifndef SPCY_CPU_CORNERS_LOOP_H
#define SPCY_CPU_CORNERS_LOOP_H

#include <algorithm>

#include "cpu/corners.h"
#include "cpu/pairs.h"
#include "cpu/stream.h"
#include "cpu/wide.h"

namespace {

constexpr int kPlaces = SPCY_CORNERS_PLACES, kZeros = 256;

alignas(64) const double zeros[kZeros] = {};  // a row of any type that is not there

// Which corners of a cell are there: a bit for each, and how many are not.
struct Presence {
    int64_t present, absent;
};

// What is known of a few points, by place: their number in the order of cells.
template <typename Number, int AXES>
struct Places {
    alignas(64) double fractions[AXES][kPlaces];
    alignas(64) int64_t present[kPlaces], absent[kPlaces];  // of their cells
    alignas(64) int64_t zero_shares[kPlaces];               // of corners that are there, how many
    alignas(64) Number shares[1 << AXES][kPlaces];
};

inline int64_t cell_of_place(const int64_t* starts, int64_t cells, int64_t place) {
    return std::upper_bound(starts, starts + cells, place) - starts - 1;
}

// Call note(cell, begin, end) for each cell that places [begin, end) lie in, which tells which of its corners are
// there; read what points have, and fetch what comes soon: points by cells lie anywhere.
template <typename Number, int AXES, typename Note>
inline void read_places(const spcy_corners& corners, int64_t first, int64_t begin, int64_t end,
                        Places<Number, AXES>* places, const Note& note) {
    constexpr int64_t kAhead = 16;
    const spcy_corners from = corners;  // what is written might alias it
    const int64_t points = from.starts[from.cells];
    for (int64_t i = begin, cell = first; i < end; ++cell) {
        const int64_t stop = std::min(end, from.starts[cell + 1]);
        const Presence own = note(cell, i - begin, stop - begin);
        for (; i < stop; ++i) {
            const int64_t place = i - begin, ahead = std::min(i + kAhead, points - 1);
            SPCY_PREFETCH(from.fractions + (int64_t)from.order[ahead] * AXES);
            places->present[place] = own.present;
            places->absent[place] = own.absent;
            const double* fractions = from.fractions + (int64_t)from.order[i] * AXES;
            for (int d = 0; d < AXES; ++d) places->fractions[d][place] = fractions[d];
        }
    }
    for (int64_t place = end - begin; place % Vector<double>::lanes; ++place) {
        places->present[place] = places->absent[place] = 0;
        for (int d = 0; d < AXES; ++d) places->fractions[d][place] = 0;
    }
}

// The linear weights of the corners that are there, over their sum if means are wanted.
template <typename Number, int AXES>
inline void share_places(bool renormalize, int64_t count, Places<Number, AXES>* places) {
    typedef typename Vector<double>::type Weight;
    typedef typename Vector<int64_t>::type Mask;
    constexpr int lanes = Vector<double>::lanes, corners = 1 << AXES;
    typedef typename Lanes<Number, lanes>::type Share;
    typedef decltype(Share{} == 0) Count;
    for (int64_t i = 0; i < count; i += lanes) {
        const Mask present = *reinterpret_cast<const Mask*>(places->present + i);
        Weight weights[corners], total = {};
        weights[0] = Weight{} + 1;
#pragma GCC unroll 4
        for (int d = 0; d < AXES; ++d) {
            const Weight fraction = *reinterpret_cast<const Weight*>(places->fractions[d] + i);
#pragma GCC unroll 8
            for (int part = (1 << d) - 1; part >= 0; --part) {  // of the axes before: each becomes two
                const Weight weight = weights[part];
                weights[2 * part] = weight * (1 - fraction);
                weights[2 * part + 1] = weight * fraction;
            }
        }
#pragma GCC unroll 16
        for (int j = 0; j < corners; ++j) {
            weights[j] = (Weight)((Mask)weights[j] & (Mask)((present & (int64_t)1 << j) != 0));
            total += weights[j];
        }
        const Mask divided = (Mask)(total > 0) & -(int64_t)renormalize;
        const Weight divisor = (Weight)(((Mask)total & divided) | ((Mask)(Weight{} + 1) & ~divided));
        Count zero = -__builtin_convertvector(*reinterpret_cast<const Mask*>(places->absent + i), Count);
#pragma GCC unroll 16
        for (int j = 0; j < corners; ++j) {
            const Share share = __builtin_convertvector(weights[j] / divisor, Share);
            *reinterpret_cast<Share*>(places->shares[j] + i) = share;
            zero -= share == 0;  // true is -1
        }
        *reinterpret_cast<Mask*>(places->zero_shares + i) = __builtin_convertvector(zero, Mask);
    }
}

// Sums of rows by shares, for the columns of so many vectors.
template <int VECTORS, int CORNERS, bool STREAM, typename T>
SPCY_INLINE void sum_vectors(const T* const* rows, const typename Wide<T>::type* shares, int64_t c, T* y) {
    typedef typename Wide<T>::V V;
    constexpr int lanes = Vector<typename Wide<T>::type>::lanes;
    V sums[VECTORS] = {};
#pragma GCC unroll 16
    for (int j = 0; j < CORNERS; ++j) {
        const V share = V{} + shares[j * kPlaces];
        for (int v = 0; v < VECTORS; ++v) sums[v] += share * Wide<T>::load(rows[j] + c + v * lanes);
    }
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) {
        if constexpr (STREAM)
            stream(sums[v], y + c + v * lanes);
        else
            Wide<T>::store(sums[v], y + c + v * lanes);
    }
}

// The same for all columns. Branches on which corners are there would be foreseen by nobody: the others are zeros.
template <int CORNERS, bool STREAM, typename T>
inline void sum_rows(const T* const* rows, const typename Wide<T>::type* shares, int64_t columns, T* y) {
    typedef typename Wide<T>::type Number;
    constexpr int64_t lanes = Vector<Number>::lanes;
    int64_t c = 0;
    for (; c + 4 * lanes <= columns; c += 4 * lanes) {
        __asm__("" : "+r"(c));  // which most rows come by once: what a loop prepares would take longer
        sum_vectors<4, CORNERS, STREAM>(rows, shares, c, y);
    }
    for (; c + lanes <= columns; c += lanes) {
        __asm__("" : "+r"(c));
        sum_vectors<1, CORNERS, STREAM>(rows, shares, c, y);
    }
    for (; c < columns; ++c) {
        Number sum = 0;
        for (int j = 0; j < CORNERS; ++j) {
            Number value;
            convert(rows[j][c], &value);
            sum += shares[j * kPlaces] * value;
        }
        convert(sum, y + c);
    }
}

// Of the cells that places lie in, counted from the first one on, where the rows of their corners are.
template <typename T, int AXES>
struct CornerRows {
    static constexpr int corners = 1 << AXES;
    int32_t cells[kPlaces];
    const T* rows[kPlaces * corners];
    const T* none() const { return reinterpret_cast<const T*>(zeros); }
};

template <typename T, int AXES, bool STREAM>
void interpolate_of(const spcy_interpolation* plan, int64_t begin, int64_t end) {
    constexpr int corners = 1 << AXES, kAhead = 8, kCellsAhead = 6;
    const spcy_corners from = plan->corners;
    const int64_t points = from.starts[from.cells], channels = plan->channels, bytes = channels * sizeof(T);
    const int64_t first = cell_of_place(from.starts, from.cells, begin);
    const int count = (int)(end - begin);
    const T* features = static_cast<const T*>(plan->features);
    Places<typename Wide<T>::type, AXES> places;
    CornerRows<T, AXES> found;
    const uintptr_t none = (uintptr_t)found.none(), beyond = (uintptr_t)features - none;
    read_places(from, first, begin, end, &places, [&](int64_t cell, int64_t place, int64_t stop) {
        const int32_t* ranks = from.ranks + cell * corners;
        const T** at = found.rows + (cell - first) * corners;
        const int32_t* soon = from.ranks + std::min(cell + kCellsAhead, from.cells - 1) * corners;
        for (int j = corners / 2; j < corners; ++j)  // the others were read as these, by cells before
            spcy_fetch_row(features + spcy_row_of(from, soon[j] & ~(soon[j] >> 31)) * channels, channels);
        Presence own = {};
#pragma GCC unroll 16
        for (int j = 0; j < corners; ++j) {  // which are there nobody can foresee: without branches
            const int64_t is_none = ranks[j] >> 31, row = spcy_row_of(from, ranks[j] & ~is_none);
            at[j] = reinterpret_cast<const T*>(none + ((row * bytes + beyond) & ~is_none));
            own.present |= (int64_t)1 << j & ~is_none;
            own.absent -= is_none;
        }
        for (; place < stop; ++place) found.cells[place] = (int32_t)(cell - first);
        return own;
    });
    share_places(from.renormalize, count, &places);
    for (int64_t first = 0; first < channels; first += kZeros) {
        const int64_t columns = std::min<int64_t>(channels - first, kZeros);
        T* out = static_cast<T*>(plan->out) + first;
        for (int i = 0; i < count; ++i) {
            const int64_t ahead = from.order[std::min(begin + i + kAhead, points - 1)];
            if (!STREAM) spcy_fetch_row(out + ahead * channels, columns);
            const T *const *rows = found.rows + found.cells[i] * corners, *taken[corners];
            if (places.zero_shares[i]) {  // which take no inf along
                for (int j = 0; j < corners; ++j) taken[j] = places.shares[j][i] == 0 ? found.none() : rows[j];
                rows = taken;
            }
            sum_rows<corners, STREAM>(rows, &places.shares[0][i], columns, out + from.order[begin + i] * channels);
        }
        for (int i = 0; columns == kZeros && i < (found.cells[count - 1] + 1) * corners; ++i)
            if (found.rows[i] != found.none()) found.rows[i] += kZeros;
    }
}

template <int AXES, typename T>
void interpolate_any(const T*, const spcy_interpolation* plan, int64_t begin, int64_t end) {
    const int64_t row = plan->channels * sizeof(T), points = plan->corners.starts[plan->corners.cells];
    const bool large = spcy_streams(points * row), lines = ((uintptr_t)plan->out | row) % 64 == 0;
    constexpr bool kCan = sizeof(T) == sizeof(typename Wide<T>::type);
    const bool streams = kCan && large && lines;
    const auto of = streams ? interpolate_of<T, AXES, kCan> : interpolate_of<T, AXES, false>;
    for (; begin < end; begin += kPlaces) of(plan, begin, std::min<int64_t>(end, begin + kPlaces));
    if (streams) spcy_streamed();
}

template <typename T>
void interpolate(const spcy_interpolation* plan, int64_t begin, int64_t end) {
    SPCY_BY_AXES(plan->corners.axes, interpolate_any, static_cast<const T*>(plan->features), plan, begin, end)
}

// Add to the columns of so many vectors the rows of a cell's points by their shares.
template <int VECTORS, typename T, typename Number>
SPCY_INLINE void add_vectors(const T* const* rows, const Number* shares, int64_t count, int64_t c, Number* sum) {
    typedef typename Wide<T>::V V;
    typedef Wide<Number> Sum;
    constexpr int lanes = Vector<Number>::lanes;
    V sums[VECTORS] = {};
    for (int64_t i = 0; i < count; ++i) {
        const T* row = shares[i] == 0 ? reinterpret_cast<const T*>(zeros) : rows[i];  // 0 takes no inf along
        for (int v = 0; v < VECTORS; ++v) sums[v] += (V{} + shares[i]) * Wide<T>::load(row + c + v * lanes);
    }
#pragma GCC unroll 16
    for (int v = 0; v < VECTORS; ++v) {
        Number* to = sum + c + v * lanes;
        Sum::store(Sum::load(to) + sums[v], to);
    }
}

template <typename T, typename Number>
inline void add_rows(const T* const* rows, const Number* shares, int64_t count, int64_t columns, Number* sum) {
    constexpr int64_t lanes = Vector<Number>::lanes;
    int64_t c = 0;
    for (; c + 4 * lanes <= columns; c += 4 * lanes) add_vectors<4>(rows, shares, count, c, sum);
    for (; c + lanes <= columns; c += lanes) add_vectors<1>(rows, shares, count, c, sum);
    for (; c < columns; ++c) {
        Number whole = 0;
        for (int64_t i = 0; i < count; ++i) {
            Number value;
            convert(rows[i][c], &value);
            if (shares[i] != 0) whole += shares[i] * value;
        }
        sum[c] += whole;
    }
}

// Add the gradients of places [begin, end) to the sites of ranks [low, high) at their corners; of these, those below
// `cleared` have a sum already.
template <typename T, int AXES>
int64_t add_places(const spcy_interpolation_gradient* plan, int64_t begin, int64_t end, int64_t low, int64_t high,
                   int64_t cleared) {
    typedef typename Wide<T>::type Number;
    constexpr int corners = 1 << AXES, kAhead = 8;
    const spcy_corners from = plan->corners;
    const int64_t points = from.starts[from.cells], channels = plan->channels;
    const int64_t first = cell_of_place(from.starts, from.cells, begin);
    const T* gradient = static_cast<const T*>(plan->gradient);
    Number* out = static_cast<Number*>(plan->out);
    Places<Number, AXES> places;
    int32_t top = -1;
    read_places(from, first, begin, end, &places, [&](int64_t cell, int64_t, int64_t) {
        Presence own = {};
#pragma GCC unroll 16
        for (int j = 0; j < corners; ++j) {
            const int32_t rank = from.ranks[cell * corners + j], is_none = rank >> 31;
            own.present |= (int64_t)1 << j & ~(int64_t)is_none;
            own.absent -= is_none;
            top = std::max(top, rank);
        }
        return own;
    });
    share_places(from.renormalize, end - begin, &places);
    cleared = spcy_clear_rows(plan, cleared, std::min<int64_t>(top + 1, high));
    for (int64_t column = 0; column < channels; column += kZeros) {
        const int64_t columns = std::min<int64_t>(channels - column, kZeros);
        const T* rows[kPlaces];
        for (int64_t i = begin; i < end; ++i) rows[i - begin] = gradient + from.order[i] * channels + column;
        for (int64_t i = begin, cell = first; i < end; ++cell) {
            const int64_t stop = std::min(end, from.starts[cell + 1]), count = stop - i;
            for (; i < stop; ++i)
                spcy_fetch_row(gradient + from.order[std::min(i + kAhead, points - 1)] * channels + column, columns);
            const int32_t* ranks = from.ranks + cell * corners;
            int there[corners], num = 0;  // without branches: which are there nobody can foresee
            for (int j = 0; j < corners; ++j) {
                there[num] = j;
                num += ranks[j] >= low && ranks[j] < high;
            }
            for (int k = 0; k < num; ++k) {
                Number* sum = out + spcy_row_of(from, ranks[there[k]]) * channels + column;
                const int64_t place = stop - count - begin;
                add_rows(rows + place, places.shares[there[k]] + place, count, columns, sum);
            }
        }
    }
    return cleared;
}

template <int AXES, typename T>
void add_gradient_any(const T*, const spcy_interpolation_gradient* plan, int64_t begin, int64_t end, int64_t low,
                      int64_t high, int64_t* cleared) {
    for (; begin < end; begin += kPlaces)
        *cleared = add_places<T, AXES>(plan, begin, std::min<int64_t>(end, begin + kPlaces), low, high, *cleared);
}

template <typename T>
int64_t add_gradient(const spcy_interpolation_gradient* plan, int64_t begin, int64_t end, int64_t low, int64_t high,
                     int64_t cleared) {
    const T* gradient = static_cast<const T*>(plan->gradient);
    SPCY_BY_AXES(plan->corners.axes, add_gradient_any, gradient, plan, begin, end, low, high, &cleared)
    return cleared;
}

}  // namespace

#endif
