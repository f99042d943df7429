// The plan of a convolution: the pairs of a rulebook as steps of tiles.
//
// Output rows are sorted by the offsets that they have, and a tile takes so many of them. Its steps are the offsets
// that any of its rows has, ascending; a step holds the input row of every output row of the tile, or -1. Tiles with
// many steps come first, so that the last blocks to run are short.

enum { SPCY_GROUP = 16, SPCY_SCAN = 1024 };  // rows that are skipped together, as conv.cu has it; threads of the scan

// A mask has a bit for each offset, in words of 64.
static __device__ inline bool has_offset(const uint64_t* mask, int k) { return mask[k / 64] >> (k % 64) & 1; }

// Pairs of offset k begin at first_pair[k * stride].
struct spcy_offsets {
    const int64_t* first_pair;
    int64_t stride;
    int count;
    int64_t pairs;

    __device__ int64_t begin(int k) const { return k < count ? first_pair[k * stride] : pairs; }

    // The offset of a pair: that of the last run of pairs that begins at it or before.
    __device__ int of(int64_t pair) const {
        int low = 0, high = count;
        while (high - low > 1) {
            const int middle = (low + high) / 2;
            if (begin(middle) <= pair)
                low = middle;
            else
                high = middle;
        }
        return low;
    }
};

// Set the bits of the offsets that each output row has.
__global__ void mark_rows(
    const int32_t* out_rows,    // IN, (pairs,)
    const int64_t* first_pair,  // IN
    int64_t stride,
    int n_offsets,
    int64_t n_pairs,
    uint64_t* masks  // IN OUT, (n_out, words)
) {
    const spcy_offsets offsets = {first_pair, stride, n_offsets, n_pairs};
    const int words = (n_offsets + 63) / 64;
    SPCY_EACH(i, n_pairs) {
        const int k = offsets.of(i);
        atomicOr(masks + (int64_t)out_rows[i] * words + k / 64, (uint64_t)1 << k % 64);
    }
}

// The place of each mask in a Gray code backwards, the rarest offset in the highest bit: neighbours in this order
// differ in few offsets, and then in common ones. `rarest_first` is shared memory for the offsets.
template <class Place>
__global__ void rank_masks(
    const uint64_t* masks,      // IN, (n_out, words)
    const int32_t* order,       // IN or null, (n_out,): the row of each rank
    const int64_t* first_pair,  // IN
    int64_t stride,
    int n_offsets,
    int64_t n_pairs,
    int64_t n_out,
    Place* places  // OUT, (words, n_out), by rank; word 0 is the highest
) {
    extern __shared__ int rarest_first[];
    const spcy_offsets offsets = {first_pair, stride, n_offsets, n_pairs};
    for (int k = threadIdx.x; k < n_offsets; k += blockDim.x) {
        const int64_t size = offsets.begin(k + 1) - offsets.begin(k);
        int rarer = 0;
        for (int j = 0; j < n_offsets; ++j) {
            const int64_t other = offsets.begin(j + 1) - offsets.begin(j);
            rarer += other < size || (other == size && j < k);
        }
        rarest_first[rarer] = k;
    }
    __syncthreads();
    const int words = (n_offsets + 63) / 64;
    SPCY_EACH(i, n_out) {
        const uint64_t* mask = masks + (order ? order[i] : i) * words;
        uint64_t parity = 0, word = 0;
        for (int j = 0; j < n_offsets; ++j) {
            parity ^= has_offset(mask, rarest_first[j]);
            word = word << 1 | parity;
            if (j % 64 == 63 || j + 1 == n_offsets) places[j / 64 * n_out + i] = (Place)~word, word = 0;
        }
    }
}

// Fill tiles with rows, a tile for each block, and find the offsets that any of its rows has.
__global__ void fill_tiles(
    const uint64_t* masks,   // IN, (n_out, words)
    const int32_t* order,    // IN or null, (n_out,): the row of each rank
    const int64_t* by_mask,  // IN, (n_out,): ranks, sorted by their rows' masks
    int n_offsets,
    int64_t n_out,
    int tile_size,
    int64_t n_tiles,
    int32_t* tile_rows,    // OUT, (tiles, tile_size): output rows, or -1 behind the last
    int32_t* positions,    // OUT, (n_out,): the place of each output row in the tiles
    uint64_t* tile_masks,  // OUT, (tiles, words)
    int32_t* counts        // OUT, (tiles,): of steps
) {
    __shared__ uint64_t parts[SPCY_WARP];
    const int words = (n_offsets + 63) / 64;
    const int lane = threadIdx.x % SPCY_WARP, warp = threadIdx.x / SPCY_WARP;  // a thread for each row
    SPCY_EACH_BLOCK(tile, n_tiles) {
        const int64_t place = tile * tile_size + threadIdx.x;
        int64_t row = -1;
        if (place < n_out) {
            row = order ? order[by_mask[place]] : by_mask[place];
            positions[row] = (int32_t)place;
        }
        tile_rows[place] = (int32_t)row;
        int count = 0;
        for (int w = 0; w < words; ++w) {
            uint64_t mask = row < 0 ? 0 : masks[row * words + w];
            for (int step = SPCY_WARP / 2; step > 0; step /= 2) mask |= __shfl_xor_sync(0xFFFFFFFFu, mask, step);
            if (lane == 0) parts[warp] = mask;
            __syncthreads();
            uint64_t all = 0;
            for (int i = 0; i < tile_size / SPCY_WARP; ++i) all |= parts[i];
            if (threadIdx.x == 0) tile_masks[tile * words + w] = all;
            count += __popcll(all);
            __syncthreads();
        }
        if (threadIdx.x == 0) counts[tile] = count;
    }
}

// Where the steps of each tile begin: running sums, by one block.
__global__ void __launch_bounds__(SPCY_SCAN)
    scan_steps(const int32_t* counts, int64_t n_tiles, int64_t* step_ptr /* OUT, (tiles + 1,) */) {
    __shared__ int scratch[SPCY_WARP];
    int64_t sum = 0;
    for (int64_t begin = 0; begin < n_tiles; begin += SPCY_SCAN) {
        const int64_t tile = begin + threadIdx.x;
        int total;
        const int before = spcy_block_prefix(tile < n_tiles ? counts[tile] : 0, scratch, &total);
        if (tile < n_tiles) step_ptr[tile] = sum + before;
        sum += total;
    }
    if (threadIdx.x == 0) step_ptr[n_tiles] = sum;
}

// List the offsets of each tile's steps, a tile for each block, and empty their rows.
__global__ void list_steps(
    const uint64_t* tile_masks,  // IN, (tiles, words)
    const int64_t* step_ptr,     // IN, (tiles + 1,)
    int n_offsets,
    int64_t n_tiles,
    int tile_size,
    int32_t* step_offset,   // OUT, (steps,)
    uint32_t* step_groups,  // OUT, (steps,)
    int32_t* step_rows      // OUT, (steps, tile_size)
) {
    const int words = (n_offsets + 63) / 64;
    SPCY_EACH_BLOCK(tile, n_tiles) {
        const uint64_t* mask = tile_masks + tile * words;
        const int64_t begin = step_ptr[tile], end = step_ptr[tile + 1];
        for (int k = threadIdx.x; k < n_offsets; k += blockDim.x) {
            if (!has_offset(mask, k)) continue;
            int64_t step = begin + __popcll(mask[k / 64] & (((uint64_t)1 << k % 64) - 1));
            for (int w = 0; w < k / 64; ++w) step += __popcll(mask[w]);
            step_offset[step] = k;
            step_groups[step] = 0;
        }
        for (int64_t i = begin * tile_size + threadIdx.x; i < end * tile_size; i += blockDim.x) step_rows[i] = -1;
    }
}

// Enter each pair in the step of its tile and offset.
__global__ void fill_steps(
    const int32_t* in_rows,      // IN, (pairs,)
    const int32_t* out_rows,     // IN, (pairs,)
    const int64_t* first_pair,   // IN
    int64_t stride,
    int n_offsets,
    int64_t n_pairs,
    const int32_t* positions,    // IN, (n_out,)
    const uint64_t* tile_masks,  // IN, (tiles, words)
    const int64_t* step_ptr,     // IN, (tiles + 1,)
    int tile_size,
    uint32_t* step_groups,       // IN OUT, (steps,): bit i is set if group i has pairs
    int32_t* step_rows           // IN OUT, (steps, tile_size)
) {
    const spcy_offsets offsets = {first_pair, stride, n_offsets, n_pairs};
    const int words = (n_offsets + 63) / 64;
    SPCY_EACH(i, n_pairs) {
        const int k = offsets.of(i);
        const int32_t position = positions[out_rows[i]], tile = position / tile_size, row = position % tile_size;
        const uint64_t* mask = tile_masks + (int64_t)tile * words;
        int64_t step = step_ptr[tile];
        for (int w = 0; w < k / 64; ++w) step += __popcll(mask[w]);
        step += __popcll(mask[k / 64] & (((uint64_t)1 << k % 64) - 1));
        step_rows[step * tile_size + row] = in_rows[i];
        atomicOr(step_groups + step, 1u << row / SPCY_GROUP);
    }
}
