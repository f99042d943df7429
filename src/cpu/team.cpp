// The team: threads of one OpenMP region that is kept open, and serve whoever calls.
//
// A caller opens a job in one of a few places, takes tiles of it until none is left, and then waits for those
// that others took and have not done. Helpers look for jobs that have tiles; they spin shortly when there are
// none, then sleep. All that a helper needs to take a tile is one word of the job, so that nothing has to be
// locked, and a helper that comes late finds no tile rather than another job's.
//
// Where other programs want the cores, a helper must not lose its core while it holds a tile, since the caller
// would wait for a time slice; so it offers the core, between two tiles, before its slice is over. It must not
// keep the caller from its core either: on the same one it takes nothing, and when it was woken there it leaves.
// Still the scheduler may even things out and give the caller's core to others for a slice. Where that happens
// again and again, callers work alone for a while: then they have a core of their own as far as there is one.
#include "cpu/team.h"

#ifdef _OPENMP
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#ifndef _WIN32
#include <pthread.h>
#include <time.h>
#endif
#ifdef __linux__
#include <sched.h>
#endif

namespace {

typedef std::chrono::steady_clock Clock;

constexpr int kJobs = 64;    // at once; whoever comes then works alone
constexpr int kPauses = 16;  // between looks at the clock
constexpr auto kSpin = std::chrono::microseconds(100);     // of a helper that finds no tile; then it sleeps
constexpr auto kTurn = std::chrono::microseconds(500);     // of a helper on its core; then it offers it to others
constexpr auto kPatience = std::chrono::microseconds(50);  // of a caller when a missing tile should be there
constexpr auto kLoss = std::chrono::milliseconds(1);       // of a caller that had no core for so long ..
constexpr auto kMemory = std::chrono::milliseconds(200);   // .. twice within this time
constexpr auto kAlone = std::chrono::milliseconds(100);    // .. and then works alone

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#ifdef __linux__
inline int current_core() { return sched_getcpu(); }

// Go to another core of those that this thread may use.
inline void leave_core() {
    cpu_set_t all, others;
    if (sched_getaffinity(0, sizeof(all), &all)) return;
    others = all;
    CPU_CLR(current_core(), &others);
    if (CPU_COUNT(&others) && !sched_setaffinity(0, sizeof(others), &others)) sched_setaffinity(0, sizeof(all), &all);
}
#else
inline int current_core() { return -1; }  // not to be told
inline void leave_core() {}
#endif

// The time for which this thread has had a core.
inline std::chrono::nanoseconds core_time() {
#ifdef CLOCK_THREAD_CPUTIME_ID
    timespec time;
    if (!clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time))
        return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
#endif
    return Clock::now().time_since_epoch();
}

inline bool is_here(int core) { return core >= 0 && core == current_core(); }

// What is left of a job, in one word: its low bits count the tiles that nobody has taken, its high ones are the
// threads that may take them.
constexpr int kTileBits = 48;
constexpr uint64_t kTiles = (1ull << kTileBits) - 1;

struct alignas(64) Job {
    std::atomic<uint64_t> left{0};
    std::atomic<bool> owned{false};
    std::atomic<int> core{-1};  // of the caller
    // The caller writes these while no tile is out; whoever holds a tile may read them.
    int64_t tiles = 0;
    spcy_body body = nullptr;
    void* context = nullptr;
    alignas(64) std::atomic<int64_t> done{0};
    std::atomic<bool> awaited{false};
    std::mutex mutex;
    std::condition_variable finished;

    bool is_done() const { return done.load() == tiles; }

    // Take a tile and return its number, or -1 if none is left.
    int64_t take() {
        uint64_t seen = left.load(std::memory_order_relaxed);
        do {
            if (!(seen & kTiles)) return -1;
        } while (!left.compare_exchange_weak(seen, seen - 1, std::memory_order_relaxed));
        return tiles - (int64_t)(seen & kTiles);
    }

    // Do tiles as the caller, the first of which nobody else can take, until all are done. Returns whether it had
    // a core for its own, but for moments.
    bool do_tiles() {
        const auto start = Clock::now();
        const auto had = core_time();
        int64_t count = 0;
        for (int64_t tile = 0; tile >= 0; tile = take(), ++count) body(context, tile, 0);
        const int64_t all = done.fetch_add(count) + count;
        const auto end = Clock::now();
        const bool had_core = end - start < kLoss || end - start - (core_time() - had) < kLoss;
        if (all != tiles) wait(end + (end - start) / count + kPatience);
        return had_core;
    }

    // Do tiles as a helper until none is left or the turn ends; `number` is its number among so many threads.
    // What it did is reported last, since until then the job is this one. Returns whether it did any. A helper
    // that shares its core with the caller would only keep it from work.
    template <typename Number>
    bool help(Clock::time_point end, Number number) {
        uint64_t seen = left.load(std::memory_order_relaxed);
        int thread;
        do {
            if (!(seen & kTiles) || (thread = number((int)(seen >> kTileBits))) < 0) return false;
            if (is_here(core.load(std::memory_order_relaxed))) return false;
        } while (!left.compare_exchange_weak(seen, seen - 1, std::memory_order_acquire));
        int64_t tile = tiles - (int64_t)(seen & kTiles), count = 0;
        do {
            body(context, tile, thread);
            ++count;
        } while (Clock::now() < end && (tile = take()) >= 0);
        const int64_t all = tiles;
        if (done.fetch_add(count) + count == all && awaited.load()) {
            std::lock_guard<std::mutex> lock(mutex);
            finished.notify_all();
        }
        return true;
    }

    // Wait for the tiles that helpers have: spin for a while, then sleep.
    void wait(Clock::time_point end) {
        do
            for (int i = 0; i < kPauses; ++i) {
                if (is_done()) return;
                pause();
            }
        while (Clock::now() < end);
        std::unique_lock<std::mutex> lock(mutex);
        awaited.store(true);
        finished.wait(lock, [this] { return is_done(); });
        awaited.store(false);
    }
};

struct alignas(64) Helper {
    std::atomic<bool> asleep{false};
    std::mutex mutex;
    std::condition_variable called;
};

// The number, among the threads of a job, that a helper of `size` has, or -1 if it is none of them. Jobs in
// different places have different helpers, as far as there are enough.
inline int number_of(int helper, int size, int place, int threads) {
    const int first = (int)((int64_t)place * (threads - 1) % size);
    const int number = (helper - first + size) % size;
    return number < threads - 1 ? 1 + number : -1;
}

void work_alone(int64_t tiles, spcy_body body, void* context) {
    for (int64_t tile = 0; tile < tiles; ++tile) body(context, tile, 0);
}

class Team {
   public:
    void share(int64_t tiles, int threads, spcy_body body, void* context) {
        const int place = Clock::now().time_since_epoch().count() < alone_until_.load() ? -1 : free_place();
        if (place < 0) {
            work_alone(tiles, body, context);
            return;
        }
        Job& job = jobs_[place];
        if (tiles < threads) threads = (int)tiles;
        job.tiles = tiles;
        job.body = body;
        job.context = context;
        job.core.store(current_core(), std::memory_order_relaxed);
        job.done.store(0, std::memory_order_relaxed);
        job.left.store((uint64_t)threads << kTileBits | (uint64_t)(tiles - 1), std::memory_order_release);
        last_core_.store(job.core.load(std::memory_order_relaxed), std::memory_order_relaxed);
        call(place, threads);
        if (!job.do_tiles()) note_loss(Clock::now());
        job.owned.store(false, std::memory_order_release);
    }

    // Hold a region open that has the wanted size; its first thread only sleeps until another one is wanted.
    void hold_region();
    void take_part(int thread);

   private:
    Job jobs_[kJobs];
    Helper helpers_[SPCY_MOST_THREADS - 1];
    alignas(64) std::atomic<uint32_t> calls_{0};
    std::atomic<int> last_core_{-1};  // of the last caller
    std::atomic<Clock::rep> alone_until_{0}, last_loss_{0};  // since the clock's epoch
    std::atomic<int> wanted_{0};  // helpers, the most that a call has asked for
    std::atomic<int> size_{0};    // what was wanted when the region was opened; the runtime may grant less
    std::mutex mutex_;
    std::condition_variable resized_;

    int free_place() {
        for (int place = 0; place < kJobs; ++place) {
            std::atomic<bool>& owned = jobs_[place].owned;
            if (!owned.load(std::memory_order_relaxed) && !owned.exchange(true, std::memory_order_acquire))
                return place;
        }
        return -1;
    }

    // Once may be anything, as the machine below a virtual one.
    void note_loss(Clock::time_point now) {
        const auto since = now.time_since_epoch();
        const Clock::rep before = last_loss_.exchange(since.count());
        if (since - Clock::duration(before) < kMemory) alone_until_.store((since + kAlone).count());
    }

    bool fits() const { return size_.load() == wanted_.load(); }

    bool help(int helper, int size, Clock::time_point end) {
        bool helped = false;
        for (int place = 0; place < kJobs; ++place)
            helped |= jobs_[place].help(end, [=](int threads) { return number_of(helper, size, place, threads); });
        return helped;
    }

    // Spin until there is another call, or some time is over; return whether there is one.
    bool spin(uint32_t seen, Clock::time_point end) const {
        do
            for (int i = 0; i < kPauses; ++i) {
                if (calls_.load(std::memory_order_relaxed) != seen) return true;
                pause();
            }
        while (Clock::now() < end && !is_here(last_core_.load(std::memory_order_relaxed)));
        return false;
    }

    // Sleep until there is another call.
    void sleep(Helper& helper, uint32_t seen) {
        helper.asleep.store(true);
        std::unique_lock<std::mutex> lock(helper.mutex);
        helper.called.wait(lock, [&] { return calls_.load() != seen || !fits(); });
        helper.asleep.store(false);
    }

    // Let helpers know that there are tiles. One that is just falling asleep may miss it: it would come late.
    void call(int place, int threads) {
        if (wanted_.load(std::memory_order_relaxed) < threads - 1) grow(threads - 1);
        calls_.fetch_add(1);
        const int size = size_.load(std::memory_order_relaxed);
        for (int helper = 0; helper < size; ++helper)
            if (helpers_[helper].asleep.load() && number_of(helper, size, place, threads) > 0)
                helpers_[helper].called.notify_one();
    }

    void grow(int helpers);
};

std::atomic<Team*> the_team{nullptr};

// Returns null if there is no memory for one.
Team* team() {
    Team* there = the_team.load(std::memory_order_acquire);
    if (there) return there;
    Team* made = new (std::nothrow) Team;  // for good: helpers may still look at it while the process ends
    if (!made || the_team.compare_exchange_strong(there, made)) return made;
    delete made;
    return there;
}

void Team::take_part(int thread) {
    if (thread == 0) {
        std::unique_lock<std::mutex> lock(mutex_);
        resized_.wait(lock, [this] { return !fits(); });
        return;
    }
    const int helper = thread - 1, size = size_.load();
    auto turn = Clock::now() + kTurn, patience = Clock::now() + kSpin;
    while (fits()) {
        const uint32_t seen = calls_.load();
        if (help(helper, size, turn))
            patience = Clock::now() + kSpin;
        else if (!spin(seen, std::min(turn, patience)) && Clock::now() < turn) {
            sleep(helpers_[helper], seen);
            if (is_here(last_core_.load(std::memory_order_relaxed))) leave_core();
            turn = Clock::now() + kTurn;
            patience = Clock::now() + kSpin;
        }
        if (Clock::now() >= turn) {
            std::this_thread::yield();
            turn = Clock::now() + kTurn;
        }
    }
}

void Team::hold_region() {
    for (;;) {
        size_.store(wanted_.load());
#pragma omp parallel num_threads(size_.load() + 1)
        team()->take_part(omp_get_thread_num());  // through no variable of this thread, for ThreadSanitizer
    }
}

// Have more helpers: open the region, or let those in it leave for a larger one.
void Team::grow(int helpers) {
    int before = wanted_.load();
    while (before < helpers && !wanted_.compare_exchange_weak(before, helpers)) {
    }
    if (before >= helpers) return;
    if (before == 0) {
        try {
            std::thread([this] { hold_region(); }).detach();
        } catch (const std::system_error&) {  // no thread to be had: callers work alone
        } catch (const std::bad_alloc&) {
        }
        return;
    }
    for (Helper& helper : helpers_) {
        std::lock_guard<std::mutex> lock(helper.mutex);
        helper.called.notify_all();
    }
    std::lock_guard<std::mutex> lock(mutex_);
    resized_.notify_all();
}

#ifndef _WIN32
// The child of a fork has none of the helpers, and jobs of threads that it has not either: it makes its own team.
const int at_fork = pthread_atfork(nullptr, nullptr, [] { the_team.store(nullptr); });
#endif

void share(int64_t tiles, int threads, spcy_body body, void* context) {
    if (Team* there = team())
        there->share(tiles, threads, body, context);
    else
        work_alone(tiles, body, context);
}

}  // namespace

spcy_team spcy_team_of(int threads) { return {share, threads}; }
bool spcy_has_threads() { return true; }

#else

spcy_team spcy_team_of(int) { return {nullptr, 1}; }
bool spcy_has_threads() { return false; }

#endif
