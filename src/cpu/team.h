// How work is shared among threads, for every kernel: `spcy_parallel_for`, and no second way beside it.
//
// A kernel cuts its work into tiles. The thread that calls takes tiles itself, threads of the team that have a
// core take others, and the call returns when no tile is missing: it never waits for a thread that has none.
#ifndef SPCY_CPU_TEAM_H
#define SPCY_CPU_TEAM_H

#include <stdint.h>

// Does a tile, on the thread of this number: less than the team's threads, and no other thread of the call has it.
typedef void (*spcy_body)(void* context, int64_t tile, int thread);

// How many threads a call may use, at most; and what shares tiles among them, see team.cpp.
typedef struct {
    void (*share)(int64_t tiles, int threads, spcy_body body, void* context);
    int threads;
} spcy_team;

enum { SPCY_MOST_THREADS = 512 };

// The team of this process, for a call that may use so many threads: one in a build without OpenMP.
spcy_team spcy_team_of(int threads);
bool spcy_has_threads();

// Call body(tile, thread) for each tile in [0, tiles), in any order, and return when all are done. Bodies are
// copied before they run: what they hold by value stays in registers, whatever they write to.
template <typename Body>
static inline void spcy_parallel_for(spcy_team team, int64_t tiles, const Body& body) {
    if (team.threads <= 1 || tiles <= 1) {
        const Body copy = body;
        for (int64_t tile = 0; tile < tiles; ++tile) copy(tile, 0);
        return;
    }
    const auto run = [](void* context, int64_t tile, int thread) {
        const Body copy = *static_cast<const Body*>(context);
        copy(tile, thread);
    };
    team.share(tiles, team.threads, run, const_cast<Body*>(&body));
}

// Call body(begin, end, thread) for tiles of `size` of the rows [0, rows).
template <typename Body>
static inline void spcy_parallel_rows(spcy_team team, int64_t rows, int64_t size, const Body& body) {
    spcy_parallel_for(team, (rows + size - 1) / size, [=](int64_t tile, int thread) {
        const int64_t begin = tile * size;
        body(begin, rows - begin < size ? rows : begin + size, thread);
    });
}

#endif
