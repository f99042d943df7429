// Means by linear weights, for every number type and SIMD level.
//
// Points are taken a few at a time, in three steps that each leave their results in the nearest cache: what is read of
// each point, the shares of its corners, a lane for each point, and the sums of rows, a lane for each channel.
#ifndef SPCY_CPU_CORNERS_LOOP_H
#define SPCY_CPU_CORNERS_LOOP_H

#include <string.h>

#include <algorithm>

#include "cpu/corners.h"
#include "cpu/pairs.h"
#include "cpu/wide.h"

namespace {

constexpr int kPlaces = 128, kZeros = 256;

alignas(64) const double zeros[kZeros] = {};  // a row of any type that is not there

// What is known of a few points, by place: their number in the order of cells. Of these cells, where the rows of their
// corners are.
template <typename T, int AXES>
struct Places {
    typedef typename Wide<T>::type Number;
    static constexpr int corners = 1 << AXES;
    alignas(64) double fractions[AXES][kPlaces], totals[kPlaces];
    alignas(64) int64_t present[kPlaces], absent[kPlaces];  // a bit for each corner that is there; how many are not
    alignas(64) int64_t zero_shares[kPlaces];               // of corners that are there, how many
    alignas(64) Number shares[corners][kPlaces];
    int32_t cells[kPlaces];  // from the first one on
    const T* rows[kPlaces * corners];
    const T* none() const { return reinterpret_cast<const T*>(zeros); }
};

// Read what cells and points have, and fetch what comes soon: points by cells lie anywhere.
template <typename T, int AXES>
inline void read_places(const spcy_interpolation* plan, int64_t begin, int64_t end, Places<T, AXES>* places) {
    constexpr int64_t corners = 1 << AXES, kAhead = 16, kCellsAhead = 6;
    const spcy_interpolation from = *plan;  // what is written might alias it
    const T* features = static_cast<const T*>(from.features);
    const uintptr_t none = (uintptr_t)places->none(), beyond = (uintptr_t)features - none;
    const int64_t points = from.starts[from.cells], bytes = from.channels * sizeof(T);
    const int64_t first = std::upper_bound(from.starts, from.starts + from.cells, begin) - from.starts - 1;
    for (int64_t i = begin, cell = first; i < end; ++cell) {
        const int32_t* row = from.rows + cell * corners;
        const T** at = places->rows + (cell - first) * corners;
        const int32_t* soon = from.rows + std::min(cell + kCellsAhead, from.cells - 1) * corners;
        for (int j = corners / 2; j < corners; ++j)  // the others were read as these, by cells before
            spcy_fetch_row(features + (soon[j] & ~(soon[j] >> 31)) * from.channels, from.channels);
        int64_t present = 0, absent = 0;
#pragma GCC unroll 16
        for (int j = 0; j < corners; ++j) {  // which are there nobody can foresee: without branches
            const int64_t own = row[j], is_none = own >> 63;
            at[j] = reinterpret_cast<const T*>(none + ((own * bytes + beyond) & ~is_none));
            present |= (int64_t)1 << j & ~is_none;
            absent -= is_none;
        }
        for (const int64_t stop = std::min(end, from.starts[cell + 1]); i < stop; ++i) {
            const int64_t place = i - begin, ahead = std::min(i + kAhead, points - 1);
            SPCY_PREFETCH(from.fractions + (int64_t)from.order[ahead] * AXES);
            places->present[place] = present;
            places->absent[place] = absent;
            places->cells[place] = (int32_t)(cell - first);
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
template <typename T, int AXES>
inline void share_places(bool renormalize, int count, Places<T, AXES>* places) {
    typedef typename Vector<double>::type Weight;
    typedef typename Vector<int64_t>::type Mask;
    constexpr int lanes = Vector<double>::lanes, corners = 1 << AXES;
    typedef typename Lanes<typename Wide<T>::type, lanes>::type Share;
    typedef decltype(Share{} == 0) Count;
    for (int i = 0; i < count; i += lanes) {
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
        *reinterpret_cast<Weight*>(places->totals + i) = total;
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

template <typename T, int AXES, bool STREAM>
void interpolate_of(const spcy_interpolation* plan, int64_t begin, int64_t end) {
    constexpr int corners = 1 << AXES, kAhead = 8;
    const int64_t points = plan->starts[plan->cells], channels = plan->channels;
    const int count = (int)(end - begin);
    Places<T, AXES> places;
    read_places(plan, begin, end, &places);
    share_places(plan->renormalize, count, &places);
    if (plan->totals) memcpy(plan->totals + begin, places.totals, count * sizeof(double));
    for (int64_t first = 0; first < channels; first += kZeros) {
        const int64_t columns = std::min<int64_t>(channels - first, kZeros);
        T* out = static_cast<T*>(plan->out) + first;
        for (int i = 0; i < count; ++i) {
            const int64_t ahead = plan->order[std::min(begin + i + kAhead, points - 1)];
            if (!STREAM) spcy_fetch_row(out + ahead * channels, columns);
            const T *const *rows = places.rows + places.cells[i] * corners, *taken[corners];
            if (places.zero_shares[i]) {  // which take no inf along
                for (int j = 0; j < corners; ++j) taken[j] = places.shares[j][i] == 0 ? places.none() : rows[j];
                rows = taken;
            }
            sum_rows<corners, STREAM>(rows, &places.shares[0][i], columns, out + plan->order[begin + i] * channels);
        }
        for (int i = 0; columns == kZeros && i < (places.cells[count - 1] + 1) * corners; ++i)
            if (places.rows[i] != places.none()) places.rows[i] += kZeros;
    }
}

constexpr int64_t kStreamed = 1 << 24;  // bytes of an output that caches would not keep

template <int AXES, typename T>
void interpolate_any(const T*, const spcy_interpolation* plan, int64_t begin, int64_t end) {
    const int64_t row = plan->channels * sizeof(T);
    const bool large = plan->starts[plan->cells] * row >= kStreamed, lines = ((uintptr_t)plan->out | row) % 64 == 0;
    constexpr bool kCan = sizeof(T) == sizeof(typename Wide<T>::type);
    const bool streams = kCan && large && lines;
    const auto of = streams ? interpolate_of<T, AXES, kCan> : interpolate_of<T, AXES, false>;
    for (; begin < end; begin += kPlaces) of(plan, begin, std::min<int64_t>(end, begin + kPlaces));
    if (streams) streamed();
}

template <typename T>
void interpolate(const spcy_interpolation* plan, int64_t begin, int64_t end) {
    SPCY_BY_AXES(plan->axes, interpolate_any, static_cast<const T*>(plan->features), plan, begin, end)
}

}  // namespace

#endif
