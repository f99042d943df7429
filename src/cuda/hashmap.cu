// Build and search the coordinate hash; common/hash.h has its definition.

// Claim a slot for each key, then keep the least row: the answers do not depend on who came first. The
// slots are all ones before.
__global__ void build(const uint64_t* __restrict__ keys, int64_t n, uint64_t* slots, int bits) {
    const uint64_t mask = (1ull << bits) - 1;
    SPCY_EACH(i, n) {
        uint64_t slot = spcy_slot(keys[i], bits);
        for (;; slot = (slot + 1) & mask) {
            const uint64_t seen = atomicCAS(&slots[2 * slot], SPCY_NO_KEY, keys[i]);
            if (seen == SPCY_NO_KEY || seen == keys[i]) break;
        }
        atomicMin(&slots[2 * slot + 1], (uint64_t)i);
    }
}

__global__ void find(const uint64_t* __restrict__ slots, int bits, const uint64_t* __restrict__ keys, int64_t n,
                     int32_t* __restrict__ rows) {
    SPCY_EACH(i, n) rows[i] = spcy_find(slots, bits, keys[i], spcy_slot(keys[i], bits));
}
