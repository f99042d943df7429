// The coordinate hash, built and searched by many threads at once.
#ifndef SPCY_CPU_HASHMAP_H
#define SPCY_CPU_HASHMAP_H

#include <string.h>

#include <atomic>

#include "common/hash.h"
#include "cpu/bits.h"
#include "cpu/team.h"

static_assert(sizeof(std::atomic<uint64_t>) == sizeof(uint64_t), "slots are updated in place");

// Claim a slot for the key, then keep the least row: the answers do not depend on who came first.
static inline void spcy_insert(uint64_t* slots, int bits, uint64_t key, uint64_t row) {
    auto* words = reinterpret_cast<std::atomic<uint64_t>*>(slots);
    const uint64_t mask = (1ull << bits) - 1;
    uint64_t slot = spcy_slot(key, bits);
    for (;; slot = (slot + 1) & mask) {
        uint64_t seen = words[2 * slot].load(std::memory_order_relaxed);
        if (seen == SPCY_NO_KEY &&
            words[2 * slot].compare_exchange_strong(seen, key, std::memory_order_relaxed))
            break;
        if (seen == key) break;
    }
    uint64_t least = words[2 * slot + 1].load(std::memory_order_relaxed);
    while (row < least &&
           !words[2 * slot + 1].compare_exchange_weak(least, row, std::memory_order_relaxed)) {
    }
}

enum {
    SPCY_FIND_BATCH = 32,  // keys looked up together
    SPCY_HASH_CHUNK = 4096,  // slots or keys that a thread takes at a time
};

static inline void spcy_build_hash(const uint64_t* keys, int64_t n, uint64_t* slots, int bits, spcy_team team) {
    spcy_parallel_rows(team, 1ll << bits, SPCY_HASH_CHUNK, [=](int64_t begin, int64_t end, int) {
        memset(slots + 2 * begin, 0xFF, (end - begin) * 2 * sizeof(uint64_t));
    });
    spcy_parallel_rows(team, n, SPCY_HASH_CHUNK, [=](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) spcy_insert(slots, bits, keys[i], (uint64_t)i);
    });
}

// Look up a few keys together, so that their cache misses overlap.
static inline void spcy_find_batch(const uint64_t* slots, int bits, const uint64_t* keys, int count, int32_t* rows) {
    uint64_t start[SPCY_FIND_BATCH];
    for (int i = 0; i < count; ++i) {
        start[i] = spcy_slot(keys[i], bits);
        SPCY_PREFETCH(slots + 2 * start[i]);
    }
    for (int i = 0; i < count; ++i) rows[i] = spcy_find(slots, bits, keys[i], start[i]);
}

static inline void spcy_find_rows(const uint64_t* slots, int bits, const uint64_t* keys, int64_t n, int32_t* rows,
                                  spcy_team team) {
    spcy_parallel_rows(team, n, SPCY_HASH_CHUNK, [=](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; i += SPCY_FIND_BATCH)
            spcy_find_batch(slots, bits, keys + i, end - i < SPCY_FIND_BATCH ? (int)(end - i) : SPCY_FIND_BATCH,
                            rows + i);
    });
}

#endif
