// The sites around points, at the corners of the cells between the sites' centres, and means by linear weights.
//
// A cell's key is that of its lowest corner. Of D axes, corner j is one further along axis d if bit D - 1 - d of j
// is set: corners 2 l and 2 l + 1 are neighbours in key order, and what line l asks for.

// The rows of the corners of cells, -1 where none is; or with `back` the cells that a site is a corner of, from the
// last corner to the first. A thread for each line.
template <int AXES>
__global__ void rows(const uint64_t* __restrict__ queries, int64_t count, const uint64_t* __restrict__ keys, int64_t n,
                     spcy_layout shift, int back, const int32_t* __restrict__ order, int32_t* __restrict__ found) {
    constexpr int kLines = 1 << (AXES - 1);
    SPCY_EACH(e, count * kLines) {
        const int line = back ? kLines - 1 - (int)(e % kLines) : (int)(e % kLines);
        int64_t step = 0;
        for (int d = 0; d + 1 < AXES; ++d) step += (int64_t)(line >> (AXES - 2 - d) & 1) << shift.values[1 + d];
        const uint64_t wanted = queries[e / kLines] + (back ? -step - 1 : step);
        int64_t at = 0;
        for (int64_t left = n; left > 0;) {  // the first key that is not less
            const int64_t half = left / 2;
            const bool less = keys[at + half] < wanted;
            at = less ? at + half + 1 : at;
            left = less ? left - half - 1 : half;
        }
        for (int upper = 0; upper < 2; ++upper) {
            const bool hit = keys[at] == wanted + upper;
            found[2 * e + upper] = !hit ? -1 : order ? order[at] : (int32_t)at;
            at += hit;
        }
    }
}

// The linear weights of the corners, and of those that are there (row >= 0) the sum.
template <int AXES>
static __device__ inline double spcy_corner_weights(const double* __restrict__ fractions,
                                                    const int32_t* __restrict__ rows, double* weights) {
    double total = 0;
    for (int j = 0; j < 1 << AXES; ++j) {
        double weight = 1;
        for (int d = 0; d < AXES; ++d) weight *= j >> (AXES - 1 - d) & 1 ? fractions[d] : 1.0 - fractions[d];
        weights[j] = weight;
        if (rows[j] >= 0) total += weight;
    }
    return total;
}

// The weighted mean of the corners that are there, or without `renormalize` their sum; 0 where none is. Writes the sum
// of their weights to totals, points by cells, unless that is null.
template <class Number, int AXES>
__global__ void interpolate(const Number* __restrict__ features, const int32_t* __restrict__ rows,
                            const int32_t* __restrict__ order, const int64_t* __restrict__ starts, int64_t cells,
                            const double* __restrict__ fractions, int renormalize, double* __restrict__ totals,
                            int64_t points, int channels, Number* __restrict__ out) {
    typedef typename spcy_sum<Number>::type Sum;
    SPCY_EACH(e, points * channels) {
        const int64_t point = order[e / channels], c = e % channels;
        const int32_t* row = rows + (spcy_run_of(starts, cells, e / channels) << AXES);
        double weights[1 << AXES];
        const double total = spcy_corner_weights<AXES>(fractions + point * AXES, row, weights);
        if (totals && c == 0) totals[e / channels] = total;
        Sum sum = 0;
        for (int j = 0; j < 1 << AXES && total > 0; ++j) {
            const Sum share = (Sum)(renormalize ? weights[j] / total : weights[j]);
            if (row[j] < 0 || share == 0) continue;  // 0 takes no inf along
            Sum value;
            convert(features[(int64_t)row[j] * channels + c], &value);
            sum += share * value;
        }
        convert(sum, &out[point * channels + c]);
    }
}

// The gradient of the features, in double precision: to each site, from the cells around it.
template <typename T, int AXES>
__global__ void interpolate_gradient(const T* __restrict__ gradient, const int32_t* __restrict__ order,
                                     const int64_t* __restrict__ starts, const double* __restrict__ fractions,
                                     const double* __restrict__ totals, const int32_t* __restrict__ around,
                                     const int32_t* __restrict__ site_order, int64_t sites, int channels,
                                     T* __restrict__ out) {
    SPCY_EACH(e, sites * channels) {
        const int64_t rank = e / channels, c = e % channels;
        double sum = 0;
        for (int j = 0; j < 1 << AXES; ++j) {
            const int32_t cell = around[rank << AXES | j];
            if (cell < 0) continue;
            for (int64_t i = starts[cell]; i < starts[cell + 1]; ++i) {
                const int64_t point = order[i];
                double weight = 1;
                for (int d = 0; d < AXES; ++d) {
                    const double fraction = fractions[point * AXES + d];
                    weight *= (1 << AXES) - 1 - j >> (AXES - 1 - d) & 1 ? fraction : 1.0 - fraction;
                }
                if (weight == 0) continue;  // 0 takes no inf along
                sum += (totals ? weight / totals[i] : weight) * (double)gradient[point * channels + c];
            }
        }
        out[(site_order ? site_order[rank] : rank) * channels + c] = (T)sum;
    }
}
