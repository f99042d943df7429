// The sites around points, at the corners of the cells between the sites' centres, and means by linear weights.
//
// A cell's key is that of its lowest corner. Of D axes, corner j is one further along axis d if bit D - 1 - d of j
// is set: corners 2 l and 2 l + 1 are neighbours in key order, and what line l asks for.

// The ranks of the corners of cells, -1 where none is. A thread for each line.
template <int AXES>
__global__ void ranks(const uint64_t* __restrict__ queries, int64_t count, const uint64_t* __restrict__ keys, int64_t n,
                      spcy_layout shift, int32_t* __restrict__ found) {
    constexpr int kLines = 1 << (AXES - 1);
    SPCY_EACH(e, count * kLines) {
        const int line = (int)(e % kLines);
        int64_t step = 0;
        for (int d = 0; d + 1 < AXES; ++d) step += (int64_t)(line >> (AXES - 2 - d) & 1) << shift.values[1 + d];
        const uint64_t wanted = queries[e / kLines] + step;
        int64_t at = 0;
        for (int64_t left = n; left > 0;) {  // the first key that is not less
            const int64_t half = left / 2;
            const bool less = keys[at + half] < wanted;
            at = less ? at + half + 1 : at;
            left = less ? left - half - 1 : half;
        }
        for (int upper = 0; upper < 2; ++upper) {
            const bool hit = keys[at] == wanted + upper;
            found[2 * e + upper] = hit ? (int32_t)at : -1;
            at += hit;
        }
    }
}

// The linear weights of the corners, and of those that are there (rank >= 0) the sum.
template <int AXES>
static __device__ inline double spcy_corner_weights(const double* __restrict__ fractions,
                                                    const int32_t* __restrict__ ranks, double* weights) {
    double total = 0;
    for (int j = 0; j < 1 << AXES; ++j) {
        double weight = 1;
        for (int d = 0; d < AXES; ++d) weight *= j >> (AXES - 1 - d) & 1 ? fractions[d] : 1.0 - fractions[d];
        weights[j] = weight;
        if (ranks[j] >= 0) total += weight;
    }
    return total;
}

// The weighted mean of the corners that are there, or without `renormalize` their sum; 0 where none is.
template <class Number, int AXES>
__global__ void interpolate(const Number* __restrict__ features, const int32_t* __restrict__ ranks,
                            const int32_t* __restrict__ site_order, const int32_t* __restrict__ order,
                            const int64_t* __restrict__ starts, int64_t cells, const double* __restrict__ fractions,
                            int renormalize, int64_t points, int channels, Number* __restrict__ out) {
    typedef typename spcy_sum<Number>::type Sum;
    SPCY_EACH(e, points * channels) {
        const int64_t point = order[e / channels], c = e % channels;
        const int32_t* rank = ranks + (spcy_run_of(starts, cells, e / channels) << AXES);
        double weights[1 << AXES];
        const double total = spcy_corner_weights<AXES>(fractions + point * AXES, rank, weights);
        Sum sum = 0;
        for (int j = 0; j < 1 << AXES && total > 0; ++j) {
            const Sum share = (Sum)(renormalize ? weights[j] / total : weights[j]);
            if (rank[j] < 0 || share == 0) continue;  // 0 takes no inf along
            const int64_t row = site_order ? site_order[rank[j]] : rank[j];
            Sum value;
            convert(features[row * channels + c], &value);
            sum += share * value;
        }
        convert(sum, &out[point * channels + c]);
    }
}

// The shares of the corners, by place, of the type that is summed; 0 of those that are not there.
template <typename Sum, int AXES>
__global__ void share(const int32_t* __restrict__ ranks, const int32_t* __restrict__ order,
                      const int64_t* __restrict__ starts, int64_t cells, const double* __restrict__ fractions,
                      int renormalize, int64_t points, Sum* __restrict__ shares) {
    SPCY_EACH(place, points) {
        const int32_t* rank = ranks + (spcy_run_of(starts, cells, place) << AXES);
        double weights[1 << AXES];
        const double total = spcy_corner_weights<AXES>(fractions + (int64_t)order[place] * AXES, rank, weights);
        for (int j = 0; j < 1 << AXES; ++j) {
            const bool none = rank[j] < 0 || !(total > 0);
            shares[place << AXES | j] = none ? 0 : (Sum)(renormalize ? weights[j] / total : weights[j]);
        }
    }
}

// The cells around each site, from that whose last corner it is: each is a corner of at most one cell on each side.
template <int AXES>
__global__ void turn(const int32_t* __restrict__ ranks, int64_t cells, int32_t* __restrict__ around) {
    SPCY_EACH(e, cells << AXES) {
        const int64_t rank = ranks[e], last = (1 << AXES) - 1;
        if (rank >= 0) around[rank << AXES | (last - (e & last))] = (int32_t)(e >> AXES);
    }
}

// The gradient of the features: to each site, from the cells around it. A cell's sum is of 128 places at a time, as on
// the CPU.
template <class Number, int AXES>
__global__ void interpolate_gradient(const Number* __restrict__ gradient, const int32_t* __restrict__ order,
                                     const int64_t* __restrict__ starts, const int32_t* __restrict__ around,
                                     const typename spcy_sum<Number>::type* __restrict__ shares,
                                     const int32_t* __restrict__ site_order, int64_t sites, int channels,
                                     typename spcy_sum<Number>::type* __restrict__ out) {
    typedef typename spcy_sum<Number>::type Sum;
    constexpr int64_t kPlaces = 128;
    SPCY_EACH(e, sites * channels) {
        const int64_t rank = e / channels, c = e % channels;
        Sum sum = 0;
        for (int j = 0; j < 1 << AXES; ++j) {
            const int32_t cell = around[rank << AXES | j];
            if (cell < 0) continue;
            const int corner = (1 << AXES) - 1 - j;
            for (int64_t i = starts[cell], end = starts[cell + 1]; i < end;) {
                const int64_t stop = min(end, (i / kPlaces + 1) * kPlaces);
                Sum part = 0;
                for (; i < stop; ++i) {
                    const Sum share = shares[i << AXES | corner];
                    if (share == 0) continue;  // 0 takes no inf along
                    Sum value;
                    convert(gradient[order[i] * (int64_t)channels + c], &value);
                    part += share * value;
                }
                sum += part;
            }
        }
        out[(site_order ? site_order[rank] : rank) * channels + c] = sum;
    }
}
