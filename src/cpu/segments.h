// Segments of rows that lie anywhere, as kernels go through them.
#ifndef SPCY_CPU_SEGMENTS_H
#define SPCY_CPU_SEGMENTS_H

#include <stdint.h>

#include "cpu/pairs.h"

// The rows of a segment: order[begin:end], or with order NULL themselves. All segments end at `last`.
typedef struct {
    const int32_t* order;
    int64_t begin, end, last;
} spcy_segment;

// Call use(row * channels) for each row of a segment, and fetch(row * channels) some rows before. Inlined: what `use`
// adds to is in registers only then.
template <typename Fetch, typename Use>
static SPCY_INLINE void spcy_each_row(spcy_segment segment, int64_t channels, const Fetch& fetch, const Use& use) {
    constexpr int64_t kAhead = 8;
    const int32_t* order = segment.order;
    for (int64_t i = segment.begin; i < segment.end; ++i) {
        if (i + kAhead < segment.last) fetch((order ? order[i + kAhead] : i + kAhead) * channels);
        use((order ? order[i] : i) * channels);
    }
}

// Call use(number, segment) for each segment, shared among threads, which take up to `size` of them at a time.
template <typename Use>
static inline void spcy_parallel_segments(spcy_team team, const int32_t* order, const int64_t* segment_ptr,
                                          int64_t segments, int64_t size, const Use& use) {
    const int64_t fair = segments / (4 * team.threads), last = segment_ptr[segments];
    spcy_parallel_rows(team, segments, fair < 1 ? 1 : fair < size ? fair : size, [=](int64_t begin, int64_t end, int) {
        for (int64_t s = begin; s < end; ++s) use(s, spcy_segment{order, segment_ptr[s], segment_ptr[s + 1], last});
    });
}

#endif
