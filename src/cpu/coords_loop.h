// The cells that points lie in, for every SIMD level: points of a vector at a time, a lane for each.
#ifndef SPCY_CPU_COORDS_LOOP_H
#define SPCY_CPU_COORDS_LOOP_H

#include <math.h>
#include <string.h>

#include "cpu/coords.h"
#include "cpu/vector.h"

namespace {

typedef typename Vector<double>::type Place;
typedef typename Vector<int64_t>::type Whole;
constexpr int kPoints = Vector<double>::lanes;

// What an axis has, as numbers: writes might alias the arrays that they come from.
struct Axis {
    double origin, size, least, end;
    int64_t low, shift;
};

// Baseline x86-64 has no instruction for it.
inline double floor_of(double x) {
    if (!(fabs(x) < 4503599627370496.0)) return x;  // 2**52: a whole number, or none
    const double whole = (double)(int64_t)x;
    return whole - (whole > x);
}

// One point, wherever it lies.
template <int AXES, typename T>
inline void key_of_point(const spcy_cells* grid, const Axis* axes, int64_t i) {
    const T* point = static_cast<const T*>(grid->points) + i * AXES;
    const int64_t b = grid->batch ? grid->batch[i] : 0;
    bool finite = true, inside = grid->low[0] <= b && b <= grid->high[0];
    uint64_t key = (uint64_t)(b - grid->layout_low[0]) << grid->shift[0];
    for (int d = 0; d < AXES; ++d) {
        const double place = (point[d] - axes[d].origin) / axes[d].size - (grid->between ? 0.5 : 0);
        const double cell = floor_of(place);
        if (axes[d].least <= place && place < axes[d].end) {
            key += (uint64_t)((int64_t)cell - axes[d].low) << axes[d].shift;
        } else {
            inside = false;
            finite = finite && point[d] - point[d] == 0;
        }
        if (grid->fractions) grid->fractions[i * AXES + d] = place - cell;
    }
    grid->keys[i] = inside ? key : grid->none;
    grid->state[i] = finite ? 0 : 2;
}

// As many points as a vector has lanes; false, and nothing of use written, if one lies far away or is not finite.
template <int AXES, bool FRACTIONS, typename T>
inline bool keys_of_vector(const spcy_cells& grid, const Axis* axes, double half, int64_t i) {
    const Place magic = Place{} + 6755399441055744.0;  // 1.5 * 2**52: its last bit is worth 1
    const T* points = static_cast<const T*>(grid.points) + i * AXES;
    Whole batch = {};
    if (grid.batch)
        for (int lane = 0; lane < kPoints; ++lane) batch[lane] = grid.batch[i + lane];
    Whole inside = (Whole)(batch >= grid.low[0]) & (Whole)(batch <= grid.high[0]), near = ~Whole{};
    Whole key = (batch - grid.layout_low[0]) << grid.shift[0];
#pragma GCC unroll 4
    for (int d = 0; d < AXES; ++d) {
        Place value;
        for (int lane = 0; lane < kPoints; ++lane) value[lane] = points[lane * AXES + d];
        const Place place = (value - axes[d].origin) / axes[d].size - half;
        near &= (Whole)((Place)((Whole)place & INT64_MAX) < Place{} + 1125899906842624.0);  // 2**50
        Place cell = (place + magic) - magic;
        cell -= (Place)((Whole)(cell > place) & (Whole)(Place{} + 1));
        inside &= (Whole)(place >= axes[d].least) & (Whole)(place < axes[d].end);
        key += ((Whole)(cell + magic) - (Whole)magic - axes[d].low) << axes[d].shift;
        const Place fraction = place - cell;
        for (int lane = 0; FRACTIONS && lane < kPoints; ++lane)
            grid.fractions[(i + lane) * AXES + d] = fraction[lane];
    }
    bool all = true;
    for (int lane = 0; lane < kPoints; ++lane) all = all && near[lane];
    if (!all) return false;
    *reinterpret_cast<typename Vector<int64_t>::unaligned*>(grid.keys + i) =
        (key & inside) | (~inside & (int64_t)grid.none);
    memset(grid.state + i, 0, kPoints);
    return true;
}

template <int AXES, bool FRACTIONS, typename T>
void cell_keys_of(const spcy_cells* given, int64_t begin, int64_t end) {
    const spcy_cells grid = *given;
    const double half = grid.between ? 0.5 : 0;
    Axis axes[AXES];
    for (int d = 0; d < AXES; ++d) {
        const double least = (double)grid.low[1 + d], last = (double)grid.high[1 + d] + 1;
        axes[d] = {grid.origin[d], grid.voxel_size[d], least, last, grid.layout_low[1 + d], grid.shift[1 + d]};
    }
    int64_t i = begin;
    for (; i + kPoints <= end; i += kPoints)
        if (!keys_of_vector<AXES, FRACTIONS, T>(grid, axes, half, i))
            for (int lane = 0; lane < kPoints; ++lane) key_of_point<AXES, T>(&grid, axes, i + lane);
    for (; i < end; ++i) key_of_point<AXES, T>(&grid, axes, i);
}

template <int AXES, typename T>
void cell_keys_on(const T*, const spcy_cells* grid, int64_t begin, int64_t end) {
    const auto of = grid->fractions ? cell_keys_of<AXES, true, T> : cell_keys_of<AXES, false, T>;
    of(grid, begin, end);
}

template <typename T>
void cell_keys(const spcy_cells* grid, int64_t begin, int64_t end) {
    SPCY_BY_AXES(grid->axes, cell_keys_on, static_cast<const T*>(grid->points), grid, begin, end)
}

}  // namespace

#endif
