// Sums whose value does not depend on the order of what is added: kept exactly, rounded once at the end.
//
// A sum is high + low, where low is what rounding took from high (Knuth, The Art of Computer Programming, 4.2.2,
// theorem B). It is exact until low itself has to be rounded, which takes numbers about 2**53 times apart: then it is
// loose, and whoever asked must add in another way.
#ifndef SPCY_SUM_H
#define SPCY_SUM_H

#ifndef __CUDACC_RTC__
#include "common/key.h"
#endif

// V is a double or a vector of them; `loose` takes whatever was lost, NaN where a number was not finite.
template <typename V>
SPCY_HD void spcy_add_exactly(V x, V& high, V& low, V& loose) {
    const V sum = high + x, part = sum - high;
    const V error = (high - (sum - part)) + (x - part);
    high = sum;
    const V rest = low + error, share = rest - low;
    const V lost = (low - (rest - share)) + (error - share);
    low = rest;
    loose += lost < 0 ? -lost : lost;
}

#endif
