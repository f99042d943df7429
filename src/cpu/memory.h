// Memory for large arrays that is kept when it is freed, for the next ones: new pages are cleared by the system when
// they are first touched, which takes about as long as a copy.
//
// What is kept is marked as free to the system (MADV_FREE), which takes it back when memory runs short; a fork gives
// it all back first, and so does an allocation that fails. The blocks given last are not marked yet: the processor
// notes again for each page of a marked one that it was written, which costs a ReLU a third more time.
#ifndef SPCY_CPU_MEMORY_H
#define SPCY_CPU_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// Sanitizers look into the heap only, so that they get all arrays from there.
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define SPCY_KEEPS_MEMORY 1
#ifdef __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#undef SPCY_KEEPS_MEMORY
#endif
#endif
#endif

enum { SPCY_LARGE = 128 << 10 };  // bytes of an array that is worth it: those that malloc would ask the system for

#ifdef SPCY_KEEPS_MEMORY
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <new>

namespace {

constexpr size_t kLine = 64, kHuge = 2 << 20;
constexpr int kMostKept = 1024;
constexpr size_t kMostUnmarked = 64 << 20;

// A block begins with its size, and an array's data one cache line later.
struct Block {
    char* start;
    size_t size;
    bool marked;
};

inline void* data_of(Block block) {
    memcpy(block.start, &block.size, sizeof(block.size));
    return block.start + kLine;
}

inline Block block_of(void* data) {
    Block block{static_cast<char*>(data) - kLine, 0, false};
    memcpy(&block.size, block.start, sizeof(block.size));
    return block;
}

// Sizes are such that arrays of about the same size share blocks: at most an eighth is too much.
inline size_t rounded(size_t size) {
    size_t step = 4096;
    while (step * 16 <= size) step *= 2;
    return (size + step - 1) / step * step;
}

inline void unmap(Block block) { munmap(block.start, block.size); }

// Returns a block at the start of a huge page, where it has one, or null.
inline char* map(size_t size) {
    const size_t more = size < kHuge ? 0 : kHuge;
    void* found = mmap(nullptr, size + more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) return nullptr;
    char* start = static_cast<char*>(found);
    if (more) {
        const size_t before = (kHuge - reinterpret_cast<uintptr_t>(start) % kHuge) % kHuge;
        if (before) munmap(start, before);
        if (more - before) munmap(start + before + size, more - before);
        start += before;
        madvise(start, size, MADV_HUGEPAGE);
    }
    return start;
}

class Kept {
   public:
    // Returns null if there is no memory.
    void* take(size_t bytes) {
        if (bytes > SIZE_MAX / 2) return nullptr;
        const size_t size = rounded(bytes + kLine);
        Block block = find(size);
        if (!block.start) {
            block = {map(size), size, false};
            if (!block.start && release()) block.start = map(size);
            if (!block.start) return nullptr;
        }
        return data_of(block);
    }

    void give(void* data) {
        const Block block = block_of(data);
        std::lock_guard<std::mutex> lock(mutex_);
        if (block.size > bound()) {
            unmap(block);
            return;
        }
        while (count_ == kMostKept || bytes_ + block.size > bound()) unmap(remove(0));
        blocks_[count_++] = block;
        bytes_ += block.size;
        unmarked_ += block.size;
        mark_first();
    }

    // Give all back to the system; return whether there was any.
    bool release() {
        std::lock_guard<std::mutex> lock(mutex_);
        return release_locked();
    }

    void set_bound(size_t bytes) {
        std::lock_guard<std::mutex> lock(mutex_);
        bound_ = bytes;
        while (bytes_ > bytes) unmap(remove(0));
    }
    size_t bound() const { return bound_; }
    size_t bytes() {
        std::lock_guard<std::mutex> lock(mutex_);
        return bytes_;
    }

    void before_fork() {
        mutex_.lock();
        release_locked();
    }
    void after_fork() { mutex_.unlock(); }

   private:
    std::mutex mutex_;
    Block blocks_[kMostKept];  // in the order in which they were given
    int count_ = 0;
    size_t bytes_ = 0, unmarked_ = 0;
    std::atomic<size_t> bound_{default_bound()};

    static size_t default_bound() {
        size_t all = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
        rlimit limit;
        if (!getrlimit(RLIMIT_AS, &limit) && limit.rlim_cur != RLIM_INFINITY) all = std::min(all, (size_t)limit.rlim_cur);
        return all / 16;
    }

    // The smallest block that is large enough and by at most a quarter too large, the last given of equal ones.
    Block find(size_t size) {
        std::lock_guard<std::mutex> lock(mutex_);
        int best = -1;
        for (int i = 0; i < count_; ++i)
            if (blocks_[i].size >= size && (best < 0 || blocks_[i].size <= blocks_[best].size)) best = i;
        if (best < 0 || blocks_[best].size > size + size / 4) return {nullptr, 0, false};
        return remove(best);
    }

    Block remove(int i) {
        const Block block = blocks_[i];
        std::copy(blocks_ + i + 1, blocks_ + count_--, blocks_ + i);
        bytes_ -= block.size;
        if (!block.marked) unmarked_ -= block.size;
        return block;
    }

    // Mark the blocks given first, until kMostUnmarked bytes are left that are not.
    void mark_first() {
        for (int i = 0; unmarked_ > kMostUnmarked;) {
            Block& block = blocks_[i];
            if (block.marked) {
                ++i;
            } else if (madvise(block.start, block.size, MADV_FREE)) {
                unmap(remove(i));
            } else {
                block.marked = true;
                unmarked_ -= block.size;
            }
        }
    }

    bool release_locked() {
        const bool any = count_ > 0;
        while (count_) unmap(remove(count_ - 1));
        return any;
    }
};

Kept& kept() {
    static Kept& there = *[] {
        alignas(Kept) static char place[sizeof(Kept)];  // never destroyed: arrays are freed while the process ends
        Kept* made = new (place) Kept;
        pthread_atfork([] { kept().before_fork(); }, [] { kept().after_fork(); }, [] { kept().after_fork(); });
        return made;
    }();
    return there;
}

inline void* spcy_take(void*, size_t size) { return kept().take(size); }

inline void* spcy_take_zeros(void*, size_t count, size_t size) {
    if (size && count > SIZE_MAX / size) return nullptr;
    void* data = kept().take(count * size);
    if (data) memset(data, 0, count * size);
    return data;
}

inline void spcy_give(void*, void* data, size_t) {
    if (data) kept().give(data);
}

inline void* spcy_retake(void*, void* data, size_t size) {
    if (!data) return kept().take(size);
    const size_t room = block_of(data).size - kLine;
    if (size <= room && room <= 2 * size) return data;
    void* other = kept().take(size);
    if (other) {
        memcpy(other, data, std::min(size, room));
        kept().give(data);
    }
    return other;
}

inline void spcy_keep_at_most(size_t bytes) { kept().set_bound(bytes); }
inline size_t spcy_keeps_at_most() { return kept().bound(); }
inline size_t spcy_kept_bytes() { return kept().bytes(); }
inline bool spcy_keeps_memory() { return true; }

}  // namespace

#else

inline void* spcy_take(void*, size_t size) { return malloc(size); }
inline void* spcy_take_zeros(void*, size_t count, size_t size) { return calloc(count, size); }
inline void spcy_give(void*, void* data, size_t) { free(data); }
inline void* spcy_retake(void*, void* data, size_t size) { return realloc(data, size); }
inline void spcy_keep_at_most(size_t) {}
inline size_t spcy_keeps_at_most() { return 0; }
inline size_t spcy_kept_bytes() { return 0; }
inline bool spcy_keeps_memory() { return false; }

#endif
#endif
