// Outputs that the caches would not keep are written past them: otherwise their lines are read before they are written.
#ifndef SPCY_CPU_STREAM_H
#define SPCY_CPU_STREAM_H

#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum {
    SPCY_STREAM_PIECE = 1 << 13,  // bytes, of the nearest cache
    SPCY_STREAMED = 3 << 22,      // of an output that with what it is made of takes more than most have in the last cache
};

static inline bool spcy_streams([[maybe_unused]] int64_t bytes) {
#if defined(__SSE2__)
    return bytes >= SPCY_STREAMED;
#else
    return false;
#endif
}

// Copy past the caches; spcy_streamed comes before anybody else may read it.
static inline void spcy_stream(const char* from, int64_t bytes, char* to) {
#if defined(__SSE2__)
    int64_t i = -(intptr_t)to & 15;
    if (i > bytes) i = bytes;
    memcpy(to, from, i);
    for (; i + 16 <= bytes; i += 16) _mm_stream_si128((__m128i*)(to + i), _mm_loadu_si128((const __m128i*)(from + i)));
    memcpy(to + i, from + i, bytes - i);
#else
    memcpy(to, from, bytes);
#endif
}

static inline void spcy_streamed(void) {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

// Call make(begin, end, to) for rows [begin, end) of an output of `size` bytes a row, `to` being where the first of them is
// written: in the output itself, or in the nearest cache, a few at a time, from where they are streamed.
template <typename Make>
static inline void spcy_make_rows(bool streams, char* out, int64_t size, int64_t begin, int64_t end, const Make& make) {
    if (!streams || size > SPCY_STREAM_PIECE) return make(begin, end, out + begin * size);
    alignas(64) char made[SPCY_STREAM_PIECE];
    for (int64_t row = begin, stop; row < end; row = stop) {
        stop = row + SPCY_STREAM_PIECE / size;
        if (stop > end) stop = end;
        make(row, stop, made);
        spcy_stream(made, (stop - row) * size, out + row * size);
    }
    spcy_streamed();
}

#endif
