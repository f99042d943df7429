// Convolution as an implicit matrix product: y = sum over offsets k of gather(x, k) @ w[k].
//
// A block of threads computes a tile: ROWS output rows x COLS output channels, its sums in registers. The plan
// (below) gives each tile its steps: the offsets that any of its rows has, ascending, and for each of them the
// input row of every output row, or -1. Work is a sequence of stages, each one step and CHUNKS * 16 bytes of
// channels: x gathered (ROWS x those bytes) and w (those channels x COLS) are copied to shared memory some
// stages ahead of the products. Rows are sorted by the offsets they have, so that tiles have few steps; where
// all of a group of 16 rows have no pair, neither copy nor product is made.
//
// Where tiles are few, their steps are split among blocks that write partial sums, which a second kernel adds in
// ascending order: the bits of a result depend on the plan and the split, never on timing.

constexpr int kGroup = 16;   // rows that are skipped together: those of a tensor core's product
constexpr int kPanel = 8;    // chunks of a row of w that lie together, with the same of the other rows
constexpr int kWarpgroup = 4;  // warps that ask for a product together, of 64 rows

// What multiplies: the cores of a thread, the tensor cores for a warp, or for a group of warps.
enum Engine { kThreads, kWarps, kWarpgroups };

// ---- numbers --------------------------------------------------------------------------------------------

template <int COLS>
__device__ inline void add_wide_product(float16, float* d, const uint4* a, const uint4* b, int panel_bytes) {
    spcy_warpgroup_product_half<COLS>(d, a, b, panel_bytes);
}
template <int COLS>
__device__ inline void add_wide_product(bfloat16, float* d, const uint4* a, const uint4* b, int panel_bytes) {
    spcy_warpgroup_product_bfloat16<COLS>(d, a, b, panel_bytes);
}

// How x and w are stored, and what sums them.
template <class NUMBER, class SUM, Engine ENGINE>
struct Arithmetic {
    typedef NUMBER Number;
    typedef SUM Sum;
    static constexpr Engine engine = ENGINE;
};
typedef Arithmetic<float16, float, kWarps> Float16;
typedef Arithmetic<bfloat16, float, kWarps> Bfloat16;
typedef Arithmetic<float, float, kWarps> Tf32;
typedef Arithmetic<float, float, kThreads> Float32;
typedef Arithmetic<double, double, kThreads> Float64;
typedef Arithmetic<float16, float, kWarpgroups> WideFloat16;  // of sm_90a
typedef Arithmetic<bfloat16, float, kWarpgroups> WideBfloat16;

// ---- shared memory --------------------------------------------------------------------------------------

// The place of a chunk of w, ROWS rows of it. Tf32 products read w number by number: four rows, eight columns at a time.
// Those of 16 bits take it in panels, as products of warpgroups want it.
template <class Math, int CHUNKS, int ROWS>
__device__ inline uint32_t weight_place(uint32_t row, uint32_t chunk) {
    if (Math::engine == kWarps && sizeof(typename Math::Number) == 4) return row * CHUNKS + (chunk ^ row % 4 * 2);
    if (sizeof(typename Math::Number) == 2 && CHUNKS > kPanel)
        return chunk / kPanel * (ROWS * kPanel) + place<kPanel>(row, chunk % kPanel);
    return place<CHUNKS>(row, chunk);
}

// ---- products -------------------------------------------------------------------------------------------

// The sums of a warp: GROUPS groups of rows, APART groups apart, so that warps share the live ones evenly, times
// COLS columns. They lie in tensor core fragments of 16 x 8: lane 4 * g + q holds rows g and g + 8, columns 2 * q
// and the next one.
template <class Math, int GROUPS, int APART, int COLS, Engine = Math::engine>
struct Product {
    typedef typename Math::Number Number;
    static constexpr int lag = 0;  // stages that are still read after the next one was added
    float sums[GROUPS][COLS / 8][4] = {};

    // Make copied stages visible to the products, and wait for the last ones.
    __device__ void publish() const {}
    __device__ void finish() const {}

    // Which of the groups that are to be copied: those that are live, that is have pairs.
    __device__ static uint32_t copied(uint32_t live) { return live; }

    // Add x[rows] @ w[:, columns], of a stage that holds `chunks` of at most CHUNKS chunks of channels. w has
    // W_CHUNKS chunks in a row. Group m is the one at first_group + m * APART; bits of `live` are by group.
    template <int CHUNKS, int W_CHUNKS>
    __device__ void add(const uint4* x, const uint4* w, int first_group, int first_col, int chunks, uint32_t live) {
        constexpr int w_rows = CHUNKS * kLanes<Number>;
        const int lane = threadIdx.x % 32;
        live >>= first_group;
#pragma unroll
        for (int step = 0; step < CHUNKS / 2; ++step) {  // of 32 bytes of channels
            if (2 * step >= chunks) break;
            uint32_t a[GROUPS][4], b[COLS / 8][2];
#pragma unroll
            for (int m = 0; m < GROUPS; ++m) {
                if (!(live >> m * APART & 1)) continue;
                const int row = (first_group + m * APART) * kGroup + lane % 16;
                spcy_load_matrix_x4(a[m], x + place<CHUNKS>(row, 2 * step + lane / 16));
                if constexpr (sizeof(Number) == 4)
#pragma unroll
                    for (int i = 0; i < 4; ++i) a[m][i] = spcy_float_to_tf32(__uint_as_float(a[m][i]));
            }
            load_weights<W_CHUNKS, w_rows>(w, step, first_col, b);
#pragma unroll
            for (int m = 0; m < GROUPS; ++m) {
                if (!(live >> m * APART & 1)) continue;
#pragma unroll
                for (int n = 0; n < COLS / 8; ++n) add_product(Number(), sums[m][n], a[m], b[n]);
            }
        }
    }

    template <int W_CHUNKS, int W_ROWS>
    __device__ static void load_weights(const uint4* w, int step, int first_col, uint32_t (&b)[COLS / 8][2]) {
        const int lane = threadIdx.x % 32;
        if constexpr (sizeof(Number) == 2) {
#pragma unroll
            for (int n = 0; n < COLS / 8; n += 2) {  // two fragments at a time
                uint32_t four[4];
                const int chunk = first_col / 8 + n + lane / 16;
                const int at = weight_place<Math, W_CHUNKS, W_ROWS>(16 * step + lane % 16, chunk);
                spcy_load_matrix_x4_transposed(four, w + at);
                b[n][0] = four[0], b[n][1] = four[1], b[n + 1][0] = four[2], b[n + 1][1] = four[3];
            }
        } else {
#pragma unroll
            for (int n = 0; n < COLS / 8; ++n)
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int col = first_col + 8 * n + lane / 4;
                    const int chunk = weight_place<Math, W_CHUNKS, W_ROWS>(8 * step + 4 * i + lane % 4, col / 4);
                    b[n][i] = spcy_float_to_tf32(reinterpret_cast<const float*>(w + chunk)[col % 4]);
                }
        }
    }

    // Write the sums of a group to a buffer with rows of STRIDE sums.
    template <int STRIDE>
    __device__ void put(int group, float* buffer) const {
        const int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
#pragma unroll
        for (int m = 0; m < GROUPS; ++m) {
            if (m != group) continue;
#pragma unroll
            for (int n = 0; n < COLS / 8; ++n)
#pragma unroll
                for (int half = 0; half < 2; ++half)
                    *reinterpret_cast<float2*>(buffer + (g + 8 * half) * STRIDE + 8 * n + 2 * q) =
                        make_float2(sums[m][n][2 * half], sums[m][n][2 * half + 1]);
        }
    }
};

// The same without tensor cores: each sum is one chain of multiply-adds, offsets and channels ascending. Lane
// 8 * r + c holds rows r, r + 4, .. of a group and of every 8 chunks of columns the one at c.
template <class Math, int GROUPS, int APART, int COLS>
struct Product<Math, GROUPS, APART, COLS, kThreads> {
    typedef typename Math::Number Number;
    static constexpr int lag = 0;
    static constexpr int lanes = kLanes<Number>;
    static constexpr int vectors = COLS / 8 / lanes;
    static constexpr int rows = kGroup / 4;  // of a group
    Number sums[GROUPS][rows][vectors][lanes] = {};

    __device__ void publish() const {}
    __device__ void finish() const {}
    __device__ static uint32_t copied(uint32_t live) { return live; }

    template <int CHUNKS, int W_CHUNKS>
    __device__ void add(const uint4* x, const uint4* w, int first_group, int first_col, int chunks, uint32_t live) {
        const int r = threadIdx.x % 32 / 8, c = threadIdx.x % 8;
        live >>= first_group;
#pragma unroll 1
        for (int chunk = 0; chunk < chunks; ++chunk) {
            Number a[GROUPS][rows][lanes];
#pragma unroll
            for (int m = 0; m < GROUPS; ++m) {
                if (!(live >> m * APART & 1)) continue;
#pragma unroll
                for (int i = 0; i < rows; ++i)
                    load(x + place<CHUNKS>((first_group + m * APART) * kGroup + r + 4 * i, chunk), a[m][i]);
            }
#pragma unroll
            for (int k = 0; k < lanes; ++k) {
                Number b[vectors][lanes];
#pragma unroll
                for (int n = 0; n < vectors; ++n)
                    load(w + weight_place<Math, W_CHUNKS, CHUNKS * lanes>(chunk * lanes + k, first_col / lanes + 8 * n + c), b[n]);
#pragma unroll
                for (int m = 0; m < GROUPS; ++m) {
                    if (!(live >> m * APART & 1)) continue;
#pragma unroll
                    for (int i = 0; i < rows; ++i)
#pragma unroll
                        for (int n = 0; n < vectors; ++n)
#pragma unroll
                            for (int j = 0; j < lanes; ++j) sums[m][i][n][j] += a[m][i][k] * b[n][j];
                }
            }
        }
    }

    template <int STRIDE>
    __device__ void put(int group, Number* buffer) const {
        const int r = threadIdx.x % 32 / 8, c = threadIdx.x % 8;
#pragma unroll
        for (int m = 0; m < GROUPS; ++m) {
            if (m != group) continue;
#pragma unroll
            for (int i = 0; i < rows; ++i)
#pragma unroll
                for (int n = 0; n < vectors; ++n)
                    store(sums[m][i][n], buffer + (r + 4 * i) * STRIDE + (8 * n + c) * lanes);
        }
    }
};

// The same by warpgroups: four warps, their groups one after the other, ask for the products of 64 rows, which
// are made while the warps go on. Sums lie as those of a warp do.
template <class Math, int GROUPS, int APART, int COLS>
struct Product<Math, GROUPS, APART, COLS, kWarpgroups> : Product<Math, GROUPS, APART, COLS, kWarps> {
    typedef typename Math::Number Number;
    static constexpr int lag = 1;

    __device__ void publish() const { spcy_fence_async_shared(); }
    __device__ void finish() const { spcy_warpgroup_wait<0>(); }

    // All of four groups: rows without a pair are zeros to the others.
    __device__ static uint32_t copied(uint32_t live) {
        return ((live | live >> 1 | live >> 2 | live >> 3) & 0x11111111u) * 15;
    }

    template <int CHUNKS, int W_CHUNKS>
    __device__ void add(const uint4* x, const uint4* w, int first_group, int first_col, int chunks, uint32_t live) {
        constexpr int w_rows = CHUNKS * kLanes<Number>;
        static_assert(CHUNKS == 8 && W_CHUNKS % kPanel == 0, "rows must have the 128 bytes of a swizzle");
        first_group -= first_group % kWarpgroup;
        live = __shfl_sync(0xFFFFFFFFu, live, 0);  // tells the compiler that a warp takes its branches together
        w += first_col / kLanes<Number> / kPanel * (w_rows * kPanel);
#pragma unroll
        for (int m = 0; m < GROUPS; ++m) {
            if (!(live >> (first_group + m * APART) & 15)) continue;
            spcy_warpgroup_arrive();
            const uint4* rows = x + (first_group + m * APART) * kGroup * CHUNKS;
#pragma unroll
            for (int step = 0; step < CHUNKS / 2; ++step)  // also beyond the channels: a branch would wait
                add_wide_product<COLS>(Number(), &this->sums[m][0][0], rows + 2 * step, w + 16 * step * kPanel,
                                       w_rows * kPanel * sizeof(uint4));
        }
        spcy_warpgroup_commit();
        spcy_warpgroup_wait<1>();
    }
};

// ---- the epilogue ---------------------------------------------------------------------------------------

// What becomes of sums: bias, residual, activation, in the type of the sums. WHOLE: rows and the bias are whole
// chunks, at addresses of chunks.
template <class Math, bool WHOLE>
struct Epilogue {
    typedef typename Math::Number Number;
    typedef typename Math::Sum Sum;
    static constexpr int lanes = kLanes<Number>;
    const Number* bias;      // or null
    const Number* residual;  // or null
    Number* out;
    int64_t c_out;
    bool relu;

    // Write a chunk of a row, from column `col` on, as far as there are columns.
    __device__ void write(int64_t row, int col, const Sum (&sums)[lanes]) const {
        const int64_t at = row * c_out + col, count = c_out - col;
        Number first[lanes], second[lanes], result[lanes];
        if (bias) read(bias + col, count, first);
        if (residual) read(residual + at, count, second);
#pragma unroll
        for (int i = 0; i < lanes; ++i) {
            Sum value = sums[i], term;
            if (bias) convert(first[i], &term), value += term;
            if (residual) convert(second[i], &term), value += term;
            if (relu && value < 0) value = 0;  // NaN stays
            convert(value, &result[i]);
        }
        if (WHOLE)
            store(result, out + at);
        else
            store_some(result, count, out + at);
    }

    __device__ void read(const Number* from, int64_t count, Number (&numbers)[lanes]) const {
        if (WHOLE)
            load(from, numbers);
        else
            load_some(from, count, numbers);
    }
};

// One sum by itself, pair by pair, where the tile's is NaN: the zeros that stand there for rows without a pair are
// NaN times inf or NaN.
template <class Math, int ROWS>
__device__ __noinline__ typename Math::Sum sum_pairs(const typename Math::Number* features,  // IN, (n_in, c_in)
                                                     const typename Math::Number* column,    // IN, of w: its first number
                                                     const int32_t* step_offset, const int32_t* rows,
                                                     int64_t begin, int64_t end, int c_in, int c_out) {
    typename Math::Sum sum = 0, x, w;
    for (int64_t step = begin; step < end; ++step) {
        const int32_t row = rows[step * ROWS];
        if (row < 0) continue;
        for (int c = 0; c < c_in; ++c) {
            convert(features[(int64_t)row * c_in + c], &x);
            convert(column[((int64_t)step_offset[step] * c_in + c) * c_out], &w);
            sum += x * w;
        }
    }
    return sum;
}

// ---- the convolution ------------------------------------------------------------------------------------

// Walks the stages of a tile: one step after the other, in each of them the channels in order.
struct Walk {
    int64_t step;
    int channel;

    __device__ void next(int c_in, int stage_channels) {
        channel += stage_channels;
        if (channel >= c_in) channel = 0, ++step;
    }
};

// Warps for whose registers an SM has room: 16 of 128 registers a thread, or 8 of 255 where sums need them.
template <class Math, int SUMS>
constexpr int kResidentWarps = sizeof(typename Math::Number) == 2 && SUMS <= 2048 ? 16 : 8;

// Blocks are numbered by (tile, column block, split); each computes its split of the tile's steps.
// WHOLE_X and WHOLE_W tell that rows of x, or of w, y and the bias, are whole chunks at addresses of chunks.
template <class Math, int ROWS, int COLS, int WARPS_M, int WARPS_N, int STAGES, int CHUNKS, bool WHOLE_X, bool WHOLE_W>
__global__ void __launch_bounds__(32 * WARPS_M * WARPS_N,
                                  (kResidentWarps<Math, ROWS * COLS / (WARPS_M * WARPS_N)> / (WARPS_M * WARPS_N)))
conv_tiles(
    const typename Math::Number* features,  // IN, (n_in, c_in)
    const typename Math::Number* weight,    // IN, (K, c_in, c_out)
    const typename Math::Number* bias,      // IN or null, (c_out,)
    const typename Math::Number* residual,  // IN or null, (n_out, c_out)
    typename Math::Number* out,             // OUT, (n_out, c_out), where there is one split
    typename Math::Sum* parts,              // OUT, (splits, n_out, c_out), where there are more
    const int32_t* tile_rows,               // IN, (tiles, ROWS): output rows, or -1 behind the last
    const int64_t* step_ptr,                // IN, (tiles + 1,)
    const int32_t* step_offset,             // IN, (steps,)
    const uint32_t* step_groups,            // IN, (steps,): bit i is set if group i has pairs
    const int32_t* step_rows,               // IN, (steps, ROWS): input rows, or -1
    int c_in,
    int64_t n_out,
    int c_out,
    int splits,
    bool relu
) {
    typedef typename Math::Number Number;
    typedef typename Math::Sum Sum;
    constexpr int lanes = kLanes<Number>;
    constexpr int threads = 32 * WARPS_M * WARPS_N;
    constexpr int groups = ROWS / kGroup / WARPS_M, warp_cols = COLS / WARPS_N;  // of a warp
    constexpr int stage_channels = CHUNKS * lanes;
    constexpr int w_chunks = COLS / lanes;                       // of a row of w
    constexpr int stage_size = CHUNKS * ROWS + stage_channels * w_chunks;  // chunks
    constexpr int passes = CHUNKS * ROWS / threads;              // chunks of x that a thread copies
    constexpr int buffer_stride = warp_cols + 8;                 // two rows of float2 in different banks
    static_assert(WARPS_M * WARPS_N * kGroup * buffer_stride * sizeof(Sum) <= STAGES * stage_size * sizeof(uint4),
                  "the epilogue's buffers must fit the stages");
    typedef Product<Math, groups, WARPS_M, warp_cols> Sums;
    constexpr int ahead_by = STAGES - 1 - Sums::lag;             // stages that are copied before the first product
    extern __shared__ __align__(1024) uint4 shared[];

    const uint32_t column_blocks = (c_out + COLS - 1) / COLS;
    const uint32_t split = blockIdx.x % splits;
    const int first_col = blockIdx.x / splits % column_blocks * COLS;
    const int tile = blockIdx.x / splits / column_blocks;
    const uint32_t tile_steps = (uint32_t)(step_ptr[tile + 1] - step_ptr[tile]);  // at most one for each offset
    const int64_t begin = step_ptr[tile] + tile_steps * split / splits;
    const int64_t end = step_ptr[tile] + tile_steps * (split + 1) / splits;
    const int warp = threadIdx.x / 32;
    const int warp_group = warp % WARPS_M, warp_col = warp / WARPS_M * warp_cols;

    // The copies run ahead of the products. Input rows are loaded a stage before they are needed. A thread copies the
    // same chunk of every `x_rows`th row of x, and of every `w_rows`th of w. What has no number is not read, whatever
    // its address: that is computed with few instructions, since they cost as much as the products.
    constexpr int x_rows = threads / CHUNKS, w_rows = threads / w_chunks;
    static_assert(x_rows % kGroup == 0 || kGroup % x_rows == 0, "rows of a pass must be whole groups, or of one");
    Walk ahead = {begin, 0};
    const uint32_t x_row = threadIdx.x / CHUNKS, x_chunk = threadIdx.x % CHUNKS;
    const uint32_t w_row = threadIdx.x / w_chunks, w_chunk = threadIdx.x % w_chunks;
    const int w_col = first_col + w_chunk * lanes;
    const Number* const x_from = features + x_chunk * lanes;
    const Number* const w_from = weight + (int64_t)w_row * c_out + w_col;
    const uint32_t row_bytes = c_in * sizeof(Number);
    const Number* w_step = nullptr;
    int32_t rows[passes];
    uint32_t live = 0;
    const auto load_step = [&] {
        w_step = w_from + (int64_t)step_offset[ahead.step] * c_in * c_out;
        live = Sums::copied(step_groups[ahead.step]) >> x_row / kGroup;
#pragma unroll
        for (int i = 0; i < passes; ++i) rows[i] = step_rows[ahead.step * ROWS + x_row + i * x_rows];
    };
    const auto copy_stage = [&](uint4* x) {
        uint4* const w = x + CHUNKS * ROWS;
        const int rest = c_in - ahead.channel;  // channels
        const Number* const from = x_from + ahead.channel;
#pragma unroll
        for (int i = 0; i < passes; ++i) {
            uint4* const to = x + place<CHUNKS>(x_row + i * x_rows, x_chunk);
            const bool valid = rows[i] >= 0 && (int)x_chunk * lanes < rest, copied = live >> i * x_rows / kGroup & 1;
            const Number* row = reinterpret_cast<const Number*>(
                reinterpret_cast<const char*>(from) + (uint64_t)(uint32_t)max(rows[i], 0) * row_bytes);
            if constexpr (WHOLE_X)
                spcy_copy_async_where<16>(copied, to, row, valid);
            else if (copied)
                copy_some(row, valid ? rest - (int)x_chunk * lanes : 0, to);
        }
        const Number* row = w_step + (uint64_t)(uint32_t)ahead.channel * (uint32_t)c_out;
#pragma unroll
        for (int i = 0; i < (stage_channels + w_rows - 1) / w_rows; ++i, row += w_rows * c_out) {
            if (stage_channels % w_rows && w_row + i * w_rows >= stage_channels) break;
            uint4* const to = w + weight_place<Math, w_chunks, stage_channels>(w_row + i * w_rows, w_chunk);
            const bool valid = (int)w_row + i * w_rows < rest && w_col < c_out;
            if constexpr (WHOLE_W)
                spcy_copy_async<16>(to, row, valid);
            else
                copy_some(row, valid ? c_out - w_col : 0, to);
        }
        const int64_t step = ahead.step;
        ahead.next(c_in, stage_channels);
        if (ahead.step != step && ahead.step < end) load_step();
    };

    Sums product;
    if (begin < end) load_step();
#pragma unroll
    for (int stage = 0; stage < ahead_by; ++stage) {
        if (ahead.step < end) copy_stage(shared + stage * stage_size);
        spcy_copy_commit();  // also where there is nothing: the wait counts
    }
    int read = 0, written = ahead_by;
#pragma unroll 1
    for (Walk walk = {begin, 0}; walk.step < end; walk.next(c_in, stage_channels)) {
        const uint32_t live_now = step_groups[walk.step];
        const int chunks = min((c_in - walk.channel + lanes - 1) / lanes, CHUNKS);
        spcy_copy_wait<ahead_by - 1>();
        product.publish();
        __syncthreads();  // the stage is complete, and the one to be written free
        if (ahead.step < end) copy_stage(shared + written * stage_size);
        spcy_copy_commit();
        const uint4* x = shared + read * stage_size;
        product.template add<CHUNKS, w_chunks>(x, x + CHUNKS * ROWS, warp_group, warp_col, chunks, live_now);
        read = read + 1 == STAGES ? 0 : read + 1;
        written = written + 1 == STAGES ? 0 : written + 1;
    }
    spcy_copy_wait<0>();
    product.finish();
    __syncthreads();  // the stages become the epilogue's buffers, one for each warp

    constexpr int turns = kGroup * warp_cols / lanes / 32;  // in which a warp writes a group
    static_assert(turns * groups <= 32 && turns * lanes * 32 == kGroup * warp_cols, "a bit must be there for each turn");
    Sum* const buffer = reinterpret_cast<Sum*>(shared) + warp * kGroup * buffer_stride;
    const Epilogue<Math, WHOLE_W> epilogue = {bias, residual, out, c_out, relu};
    uint32_t wrong = 0;  // turns whose sums have a NaN
    const auto row_of = [&](int group, int turn) {  // in the tile
        return (warp_group + group * WARPS_M) * kGroup + (threadIdx.x % 32 + turn * 32) / (warp_cols / lanes);
    };
    const int col = first_col + warp_col + threadIdx.x % 32 % (warp_cols / lanes) * lanes;
    const auto write = [&](int64_t row, const Sum(&sums)[lanes]) {
        Sum* const part = parts + (split * n_out + row) * c_out + col;
        if (splits == 1)
            epilogue.write(row, col, sums);
        else if (WHOLE_W)
            store(sums, part);
        else
            store_some(sums, c_out - col, part);
    };
#pragma unroll 1
    for (int group = 0; group < groups; ++group) {
        product.template put<buffer_stride>(group, buffer);
        __syncwarp();
#pragma unroll
        for (int turn = 0; turn < turns; ++turn) {
            const int place = row_of(group, turn), row = tile_rows[(int64_t)tile * ROWS + place];
            if (row < 0 || col >= c_out) continue;
            Sum sums[lanes];
            load(buffer + place % kGroup * buffer_stride + (col - first_col - warp_col), sums);
            bool nan = false;
#pragma unroll
            for (int j = 0; j < lanes; ++j) nan = nan || sums[j] != sums[j];
            if (nan)
                wrong |= 1u << (group * turns + turn);
            else
                write(row, sums);
        }
        __syncwarp();
    }
    for (; wrong; wrong &= wrong - 1) {
        const int turn = __ffs(wrong) - 1, place = row_of(turn / turns, turn % turns);
        Sum sums[lanes];
#pragma unroll
        for (int j = 0; j < lanes; ++j)
            sums[j] = col + j < c_out ? sum_pairs<Math, ROWS>(features, weight + col + j, step_offset, step_rows + place, begin,
                                                              end, c_in, c_out)
                                      : Sum(0);
        write(tile_rows[(int64_t)tile * ROWS + place], sums);
    }
}

// Add the parts of a convolution whose offsets were split, in ascending order.
template <class Math, bool WHOLE>
__global__ void add_parts(
    const typename Math::Sum* parts,        // IN, (splits, n_out, c_out)
    const typename Math::Number* bias,      // IN or null, (c_out,)
    const typename Math::Number* residual,  // IN or null, (n_out, c_out)
    typename Math::Number* out,             // OUT, (n_out, c_out)
    int64_t n_out,
    int c_out,
    int splits,
    bool relu
) {
    constexpr int lanes = kLanes<typename Math::Number>;
    const Epilogue<Math, WHOLE> epilogue = {bias, residual, out, c_out, relu};
    const int row_chunks = (c_out + lanes - 1) / lanes;
    SPCY_EACH(i, n_out * row_chunks) {
        const int64_t row = i / row_chunks;
        const int col = i % row_chunks * lanes;
        typename Math::Sum sums[lanes] = {}, part[lanes];
        for (int split = 0; split < splits; ++split) {
            const typename Math::Sum* from = parts + (split * n_out + row) * c_out + col;
            if (WHOLE)
                load(from, part);
            else
                load_some(from, c_out - col, part);
#pragma unroll
            for (int j = 0; j < lanes; ++j) sums[j] += part[j];
        }
        epilogue.write(row, col, sums);
    }
}
