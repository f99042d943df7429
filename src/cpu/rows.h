// Rows of any numbers, taken to other places, shared among threads.
#ifndef SPCY_CPU_ROWS_H
#define SPCY_CPU_ROWS_H

#include <stdint.h>
#include <string.h>

#include "cpu/bits.h"
#include "cpu/stream.h"
#include "cpu/team.h"

enum { SPCY_ROWS_CHUNK = 512 };  // that a thread takes at a time

// Copy `bytes` of the source's row rows[i] (rows NULL: i itself) to row i of out, zeros for the row -1; rows of both lie
// a stride apart.
static inline void spcy_take_rows(const char* source, int64_t source_stride, const int32_t* rows,
                                  int64_t count, int64_t bytes, char* out, int64_t out_stride, spcy_team team) {
    constexpr int64_t kAhead = 8;
    const bool lines = ((uintptr_t)out | out_stride | bytes) % 64 == 0;
    const bool streams = !rows && lines && spcy_streams(count * out_stride);
    spcy_parallel_rows(team, count, SPCY_ROWS_CHUNK, [=](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
            if (rows && i + kAhead < end) SPCY_PREFETCH(source + rows[i + kAhead] * source_stride);
            const int64_t row = rows ? rows[i] : i;
            if (row < 0)
                memset(out + i * out_stride, 0, bytes);
            else if (streams)
                spcy_stream(source + row * source_stride, bytes, out + i * out_stride);
            else
                memcpy(out + i * out_stride, source + row * source_stride, bytes);
        }
        if (streams) spcy_streamed();
    });
}

#endif
