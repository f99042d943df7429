// Many callers share the team at once; every tile must be done once, by threads with numbers of their own.
//
//     team_stress CALLERS CALLS MOST_THREADS [fork]
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "cpu/team.h"

static std::atomic<int> wrong{0}, helped{0};

static void require(bool right, const char* what) {
    if (!right && wrong.fetch_add(1) == 0) fprintf(stderr, "%s\n", what);
}

// Run jobs of different sizes; the counts are no atomics, so that a sanitizer sees what is shared.
static void call(unsigned seed, int calls, int most_threads) {
    for (int c = 0; c < calls; ++c) {
        const int tiles = rand_r(&seed) % 40, threads = 1 + rand_r(&seed) % most_threads;
        std::vector<int> done(tiles), inside(threads);
        int* count = done.data();
        int* busy = inside.data();
        spcy_parallel_for(spcy_team_of(threads), tiles, [=](int64_t tile, int thread) {
            require(thread >= 0 && thread < threads, "no number of a thread");
            require(busy[thread]++ == 0, "two threads have one number");
            volatile int work = 0;
            for (int i = 0; i < (tile % 7) * 2000; ++i) work = work + i;
            ++count[tile];
            if (thread) helped.fetch_add(1, std::memory_order_relaxed);
            --busy[thread];
        });
        for (int n : done) require(n == 1, "a tile was not done once");
        if (c % 50 == 0) usleep(300);  // helpers fall asleep
    }
}

static void call_at_once(int callers, int calls, int most_threads) {
    std::vector<std::thread> threads;
    for (int i = 0; i < callers; ++i) threads.emplace_back(call, (unsigned)i, calls, most_threads);
    for (std::thread& thread : threads) thread.join();
}

int main(int count, char** arguments) {
    const int callers = atoi(arguments[1]), calls = atoi(arguments[2]), most = atoi(arguments[3]);
    if (count > 4 && !strcmp(arguments[4], "fork")) {
        std::atomic<bool> stop{false};
        std::thread beside([&] {
            for (unsigned seed = 0; !stop; ++seed) call(seed, 20, most);
        });
        for (int i = 0; i < 20; ++i) {  // while a job runs
            const pid_t child = fork();
            if (child == 0) {
                call_at_once(callers, calls / 10, most);
                _exit(wrong ? 1 : 0);
            }
            int status;
            waitpid(child, &status, 0);
            require(status == 0, "a child failed");
        }
        stop = true;
        beside.join();
    }
    call_at_once(callers, calls, most);
    printf("helpers did %d tiles\n", helped.load());
    return wrong ? 1 : 0;
}
