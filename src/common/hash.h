// The coordinate hash's one definition: mixing, slots, probing. Open addressing, linear probing.
//
// A slot is two 64-bit words, (key, row). Empty words are all ones: no key and no row has that value,
// so one memset clears a table, and the least row wins a key by an unsigned minimum.
#ifndef SPCY_HASH_H
#define SPCY_HASH_H

#ifndef __CUDACC_RTC__
#include "common/key.h"
#endif

// The slot where the search for a key starts in a table of 2**bits slots.
SPCY_HD uint64_t spcy_slot(uint64_t key, int bits) {
    key ^= key >> 32;  // Fibonacci hashing takes the top bits: let the high fields reach them too
    return (key * 0x9E3779B97F4A7C15ull) >> (64 - bits);
}

// The row of a key, or -1.
SPCY_HD int32_t spcy_find(const uint64_t* slots, int bits, uint64_t key, uint64_t slot) {
    const uint64_t mask = (1ull << bits) - 1;
    while (slots[2 * slot] != SPCY_NO_KEY) {
        if (slots[2 * slot] == key) return (int32_t)slots[2 * slot + 1];
        slot = (slot + 1) & mask;
    }
    return -1;
}

#endif
