// Numbers that are to be rounded to 16 bits, once.
#ifndef SPCY_ROUND_H
#define SPCY_ROUND_H

#ifndef __CUDACC_RTC__
#include <string.h>

#include "common/key.h"
#endif

// The float beside x whose last bit is set, unless one is x: rounded again, to a type of two bits fewer or less, it is
// rounded as x would be (Boldo and Melquiond, Emulation of FMA and correctly rounded sums: proved algorithms using
// rounding to odd, 2008).
SPCY_HD float spcy_round_to_odd(double x) {
    const float near = (float)x;
    const double back = near;
    if (!(back < x || back > x)) return near;  // it is x, or not a number
    int32_t bits;
    memcpy(&bits, &near, sizeof bits);
    bits -= (back < 0 ? -back : back) > (x < 0 ? -x : x);  // towards zero
    bits |= 1;
    float odd;
    memcpy(&odd, &bits, sizeof odd);
    return odd;
}

SPCY_HD float spcy_round_to_odd(float x) { return x; }

#endif
