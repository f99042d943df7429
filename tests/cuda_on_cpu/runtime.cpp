// The machine under cuda.h: fibers, barriers, warp rendezvous, shared memory, cp.async, launches, and a
// checker of memory accesses that libraries compiled with -fsanitize=thread report to (libtsan itself is
// not linked: its entry points are defined here, with CUDA's rules of what orders two accesses).
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "cuda.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#ifndef __x86_64__
#include <ucontext.h>
#endif

using emu::Thread;

namespace {

// Uninitialised memory: NaN as a float of 16, 32 or 64 bits (bfloat16 too), large as an integer.
constexpr uint16_t POISON = 0x7FFD;
constexpr int64_t STACK_BYTES = 256 << 10, PAGE = 4096, SHARED_BYTES = 227 << 10;
constexpr unsigned STACK_COLOURS = 251, COLOUR_BYTES = 320;
constexpr unsigned char FORBIDDEN = 2;  // between shared arrays
constexpr int SHARED_CELL = 2;  // bytes of shared memory that the checker tells apart

void poison(void* target, int64_t bytes) {
    auto* out = static_cast<unsigned char*>(target);
    for (int64_t i = 0; i < bytes; ++i) out[i] = (unsigned char)(i % 2 ? POISON >> 8 : POISON & 0xFF);
}

// ---- fibers --------------------------------------------------------------------------------------

#ifdef __x86_64__
typedef void* Context;
__attribute__((naked, noinline, noipa)) void switch_context(Context*, Context*) {
    asm volatile(
        "pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        "movq %rsp, (%rdi)\n movq (%rsi), %rsp\n"
        "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
}
#else
typedef ucontext_t Context;
void switch_context(Context* from, Context* to) { swapcontext(from, to); }
#endif

struct Fiber {
    Context context;
    char* stack;
};

void fiber_main();

Fiber* make_fiber() {
    static unsigned made = 0;
    auto* fiber = new Fiber;
    auto* memory = static_cast<char*>(mmap(nullptr, STACK_BYTES + PAGE, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (memory == MAP_FAILED) abort();
    mprotect(memory, PAGE, PROT_NONE);
    fiber->stack = memory + PAGE;
    // Stacks lie whole pages apart: what each has on top would be in the same few lines of every cache.
    const int64_t size = STACK_BYTES - made++ % STACK_COLOURS * COLOUR_BYTES;
#ifdef __x86_64__
    auto** top = reinterpret_cast<void**>(fiber->stack + size);
    *--top = nullptr;  // as if called: the stack is aligned to 16 bytes, less one return address
    *--top = reinterpret_cast<void*>(fiber_main);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    fiber->context = top;
#else
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = size;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, fiber_main, 0);
#endif
    return fiber;
}

// ---- what the checker remembers --------------------------------------------------------------------

struct Touch {  // one access
    const void* place;  // where in the code, or null with a line
    int line;
    unsigned thread;  // 1 + its number in the launch; 0: none
    unsigned barriers, fences;
    bool atomic;
};

struct Cell {
    Touch write, read, other_read;
};

struct Region {  // memory that a kernel may use: an array argument, or a block's shared memory
    char *begin, *end;
    int cell_bytes;
    Cell* cells;
    unsigned char* initialised;  // for each byte whether it is, or FORBIDDEN; null: all are
    int argument;                // -1: shared memory
};

// ---- threads and blocks ----------------------------------------------------------------------------

enum State { READY, AT_BARRIER, AT_WARP, DONE };

struct Copy {
    void* target;
    const void* source;
    int bytes, source_bytes, line;
};

struct Block;
struct Worker : Thread {
    Block* block;
    Fiber* fiber;
    State state;
    int linear, line, kind;
    unsigned mask;
    const char* operation;
    emu::WarpFunction function;
    std::vector<Copy> open;                 // copies since the last commit
    std::vector<std::vector<Copy>> groups;  // committed, not waited for
};

struct Warp {
    unsigned fences = 0;
    unsigned live = 0, waiting = 0;  // lanes, as bits: not DONE; AT_WARP
    // Whether all that wait are at one operation, and at which: then each that comes compares with this alone.
    bool alike = true;
    unsigned mask = 0;
    int line = 0;
    const char* operation = nullptr;
};

struct Fences {
    unsigned met[32][32] = {};  // number of the last fence that both lanes took part in
};

struct Block {
    std::vector<Worker> workers;
    std::vector<Warp> warps;
    std::vector<Fences> fences;  // of each warp, where accesses are checked
    std::vector<std::unique_ptr<emu::GroupProducts>> asked;  // of each thread that asked for any so far
    uint3 index;
    unsigned first_thread, barriers;
    int alive;
    char* shared = nullptr;
    int64_t shared_used;
    std::vector<std::pair<const void*, int64_t>> sites;  // of __shared__ declarations, and their offset
    Region region = {};
    std::vector<Cell> cells;
    std::vector<unsigned char> initialised;
};

struct Launch {
    void (*entry)(void**);
    void** arguments;
    const unsigned *grid, *block;
    int64_t shared_bytes;
    int order, preempt, resident;  // order: 0 forward, 1 reverse, 2 random; preempt: percent
    uint64_t seed;
    bool checked;
    const char *module_begin, *module_end;
    std::vector<Region> regions;
};

Launch* launch = nullptr;
std::string failure;
std::vector<Fiber*> idle_fibers;
std::vector<Block*> blocks;
Context scheduler;
uint64_t random_state;

Worker* current() { return static_cast<Worker*>(emu_thread); }

unsigned random_number() {
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(random_state >> 33);
}

void to_scheduler() { switch_context(&current()->fiber->context, &scheduler); }

void fiber_main() {
    for (;;) {
        launch->entry(launch->arguments);
        current()->state = DONE;
        to_scheduler();
    }
}

std::string thread_name(const Worker& worker) {
    char text[96];
    const uint3 b = worker.block_index, t = worker.thread_index;
    snprintf(text, sizeof text, "block (%u, %u, %u) thread (%u, %u, %u)", b.x, b.y, b.z, t.x, t.y, t.z);
    return text;
}

std::string place_name(const void* place, int line) {
    char text[64];
    if (place)
        snprintf(text, sizeof text, "<%p>", (void*)((const char*)place - launch->module_begin));
    else
        snprintf(text, sizeof text, "line %d", line);
    return text;  // build.py turns <offset> into a line
}

[[noreturn]] void fail(const std::string& message, const void* place, int line) {
    failure = message + " (" + place_name(place, line) + ", " + thread_name(*current()) + ")";
    to_scheduler();
    abort();
}

// All live lanes of the mask at the rendezvous? Then carry it out. Lanes that have exited do not count.
bool complete_warp(Block* block, int first, unsigned mask) {
    Warp& warp = block->warps[first / 32];
    if (mask & warp.live & ~warp.waiting) return false;
    Thread* lanes[32] = {};
    Worker* any = nullptr;
    for (int lane = 0; lane < 32; ++lane) {
        if (!(mask >> lane & 1) || first + lane >= (int)block->workers.size()) continue;
        Worker* worker = &block->workers[first + lane];
        if (worker->state == DONE) continue;
        if (worker->state != AT_WARP || worker->mask != mask) return false;
        lanes[lane] = any = worker;
    }
    if (!any) return true;
    any->function(lanes);
    if (any->kind == emu::FENCE && launch->checked) {
        ++warp.fences;
        for (int a = 0; a < 32; ++a)
            for (int b = 0; b < 32; ++b)
                if (lanes[a] && lanes[b]) block->fences[first / 32].met[a][b] = warp.fences;
    }
    for (auto* lane : lanes)
        if (lane) static_cast<Worker*>(lane)->state = READY;
    warp.waiting &= ~mask;
    return true;
}

// ---- the checker -----------------------------------------------------------------------------------

bool ordered(const Touch& touch, const Worker& worker) {
    const Block& block = *worker.block;
    const int64_t linear = (int64_t)touch.thread - 1 - block.first_thread;
    if (linear == worker.linear) return true;
    if (linear < 0 || linear >= (int64_t)block.workers.size()) return false;
    if (touch.barriers < block.barriers) return true;
    return linear / 32 == worker.linear / 32 &&
           block.fences[linear / 32].met[linear % 32][worker.lane] > touch.fences;
}

std::string region_name(const Region& region) {
    return region.argument < 0 ? "shared memory" : "argument " + std::to_string(region.argument);
}

[[noreturn]] void fail_race(const Region& region, const char* address, const Touch& touch, bool wrote,
                            bool writes, const void* place, int line) {
    const unsigned size = (unsigned)current()->block->workers.size();
    char text[160];
    snprintf(text, sizeof text, ", byte %lld: %s here, %s by thread %u of block %u without order at ",
             (long long)(address - region.begin), writes ? "written" : "read", wrote ? "written" : "read",
             (touch.thread - 1) % size, (touch.thread - 1) / size);
    fail("race on " + region_name(region) + text + place_name(touch.place, touch.line), place, line);
}

void check_region(Region& region, const char* address, int64_t bytes, int access, const void* place, int line) {
    const Worker& worker = *current();
    const bool writes = access == emu::WRITE || access == emu::ATOMIC;
    const bool reads = access != emu::WRITE;
    const bool atomic = access == emu::ATOMIC || access == emu::ATOMIC_READ;
    const int64_t begin = address - region.begin;
    if (region.initialised)
        for (int64_t i = begin; i < begin + bytes; ++i) {
            if (region.initialised[i] == FORBIDDEN)
                fail("access of " + std::to_string(bytes) + " bytes out of bounds, between two shared arrays", place,
                     line);
            if (reads && !region.initialised[i])
                fail("read of uninitialised memory: " + region_name(region) + ", byte " + std::to_string(i), place,
                     line);
            if (writes) region.initialised[i] = 1;
        }
    Touch now = {place, line, worker.block->first_thread + worker.linear + 1, worker.block->barriers,
                 worker.block->warps[worker.linear / 32].fences, atomic};
    for (int64_t c = begin / region.cell_bytes; c <= (begin + bytes - 1) / region.cell_bytes; ++c) {
        Cell& cell = region.cells[c];
        const char* at = region.begin + c * region.cell_bytes;
        if (cell.write.thread && !(atomic && cell.write.atomic) && !ordered(cell.write, worker))
            fail_race(region, at, cell.write, true, writes, place, line);
        if (writes) {
            for (const Touch* touch : {&cell.read, &cell.other_read})
                if (touch->thread && !(atomic && touch->atomic) && !ordered(*touch, worker))
                    fail_race(region, at, *touch, false, true, place, line);
            cell.write = now;
        } else {
            if (cell.read.thread && cell.read.thread != now.thread) cell.other_read = cell.read;
            cell.read = now;
        }
    }
}

void check(const void* pointer, int64_t bytes, int access, const void* place, int line) {
    if (!launch || !emu_thread) return;
    const auto* address = static_cast<const char*>(pointer);
    const Worker& worker = *current();
    if (address >= worker.fiber->stack && address < worker.fiber->stack + STACK_BYTES) return;
    Region* region = nullptr;
    Region& shared = worker.block->region;
    if (address >= shared.begin && address < shared.end) region = &shared;
    for (auto& candidate : launch->regions)
        if (address >= candidate.begin && address < candidate.end) region = &candidate;
    if (region && address + bytes <= region->end) return check_region(*region, address, bytes, access, place, line);
    if (access == emu::READ && address >= launch->module_begin && address < launch->module_end) return;  // constants
    std::string where;
    int64_t least = 1 << 16;
    for (const auto& candidate : launch->regions) {
        const int64_t behind = address + bytes - candidate.end, before = candidate.begin - address;
        if (behind > 0 && behind < least)
            least = behind, where = ", up to " + std::to_string(behind) + " bytes behind " + region_name(candidate);
        if (before > 0 && before < least)
            least = before, where = ", " + std::to_string(before) + " bytes before " + region_name(candidate);
    }
    if (shared.begin && address >= worker.block->shared && address < worker.block->shared + SHARED_BYTES)
        where = ", in shared memory that was not asked for";
    fail("access of " + std::to_string(bytes) + " bytes out of bounds" + where, place, line);
}

// Switch to another thread, at times.
void maybe_switch(int percent) {
    if (launch && percent && (int)(random_number() % 100) < percent) to_scheduler();
}

void instrumented(const void* address, int64_t bytes, int access, const void* place) {
    if (!launch || !emu_thread) return;
    const Worker& worker = *current();
    const auto* at = static_cast<const char*>(address);
    if (at >= worker.fiber->stack && at < worker.fiber->stack + STACK_BYTES) return;
    maybe_switch(launch->preempt);
    check(address, bytes, access, place, 0);
}

// ---- blocks ----------------------------------------------------------------------------------------

// Add [begin, end) to the shared memory in use.
void grow_shared(Block* block, int64_t begin, int64_t end) {
    poison(block->shared + begin, end - begin);
    if (launch->checked) {
        block->cells.resize(SHARED_BYTES / SHARED_CELL + 1);
        block->initialised.resize(SHARED_BYTES);
        const auto first = block->initialised.begin();
        std::fill(first + block->shared_used, first + begin, (unsigned char)FORBIDDEN);
        std::fill(first + begin, first + end, (unsigned char)0);
        std::fill(block->cells.begin() + begin / SHARED_CELL, block->cells.begin() + end / SHARED_CELL + 1, Cell{});
        block->region = {block->shared,       block->shared + end,        SHARED_CELL,
                         block->cells.data(), block->initialised.data(), -1};
    }
    block->shared_used = end;
}

void start_block(Block* block, unsigned number) {
    const unsigned* grid = launch->grid;
    const unsigned* size = launch->block;
    const unsigned threads = size[0] * size[1] * size[2];
    block->index = {number % grid[0], number / grid[0] % grid[1], number / grid[0] / grid[1]};
    block->first_thread = number * threads;
    block->workers.resize(threads);
    block->warps.assign((threads + 31) / 32, Warp());
    if (launch->checked) block->fences.assign((threads + 31) / 32, Fences());
    block->alive = (int)threads;
    block->barriers = 0;
    block->sites.clear();
    block->region = {};
    if (!block->shared) block->shared = static_cast<char*>(aligned_alloc(1024, SHARED_BYTES + 1024));
    block->shared_used = 0;
    grow_shared(block, 0, launch->shared_bytes);
    for (unsigned i = 0; i < threads; ++i) {
        Worker& worker = block->workers[i];
        worker.thread_index = {i % size[0], i / size[0] % size[1], i / size[0] / size[1]};
        worker.block_index = block->index;
        worker.linear = (int)i;
        worker.lane = (int)(i % 32);
        worker.block = block;
        worker.fiber = nullptr;
        worker.state = READY;
        worker.open.clear();
        worker.groups.clear();
        worker.asked = nullptr;
        block->warps[i / 32].live |= 1u << i % 32;
    }
}

// Nobody can run: let a barrier go at which all live threads wait, or say why that is none.
bool release_barrier(Block* block) {
    Worker* first = nullptr;
    int64_t count = 0;
    for (auto& worker : block->workers) {
        if (worker.state == DONE) continue;
        if (!first) first = &worker;
        if (worker.state != AT_BARRIER || worker.line != first->line) {
            failure = "deadlock: " + thread_name(*first) + " waits in " + first->operation + " of line " +
                      std::to_string(first->line) + ", " + thread_name(worker) + " in " + worker.operation +
                      " of line " + std::to_string(worker.line);
            return false;
        }
        count += worker.value != 0;
    }
    const int kind = first->kind;
    for (auto& worker : block->workers)
        if (worker.state == AT_BARRIER) {
            worker.result = kind == emu::COUNT ? count : kind == emu::AND ? count == block->alive : count > 0;
            worker.state = READY;
        }
    ++block->barriers;
    return true;
}

void run_thread(Block* block, Worker& worker) {
    emu_thread = &worker;
    if (!worker.fiber) {
        if (idle_fibers.empty()) idle_fibers.push_back(make_fiber());
        worker.fiber = idle_fibers.back();
        idle_fibers.pop_back();
    }
    switch_context(&scheduler, &worker.fiber->context);
    emu_thread = nullptr;
    if (worker.state != DONE || !failure.empty()) return;
    --block->alive;
    idle_fibers.push_back(worker.fiber);
    const int first = worker.linear & ~31;  // lanes may have waited for this one
    Warp& warp = block->warps[first / 32];
    warp.live &= ~(1u << worker.lane);
    if (!warp.waiting) return;
    for (int i = first; i < first + 32 && i < (int)block->workers.size(); ++i)
        if (block->workers[i].state == AT_WARP && complete_warp(block, first, block->workers[i].mask)) break;
}

// Let each thread of a block run until it waits; false after a failure.
bool run_block(Block* block, std::vector<int>& order) {
    bool ran = false;
    if (launch->order == 2)
        for (size_t i = order.size() - 1; i > 0; --i) std::swap(order[i], order[random_number() % (i + 1)]);
    for (int i : order) {
        Worker& worker = block->workers[i];
        if (worker.state != READY) continue;
        ran = true;
        if (launch->order == 2 && random_number() % 4 == 0) continue;  // it lags behind
        run_thread(block, worker);
        if (!failure.empty()) return false;
    }
    return !block->alive || ran || release_barrier(block);
}

void run_all() {
    const unsigned n_blocks = launch->grid[0] * launch->grid[1] * launch->grid[2];
    const unsigned threads = launch->block[0] * launch->block[1] * launch->block[2];
    unsigned next = 0;
    std::vector<Block*> live;
    std::vector<int> order(threads);
    for (unsigned i = 0; i < threads; ++i) order[i] = (int)(launch->order == 1 ? threads - 1 - i : i);
    auto start_next = [&](Block* block) {
        start_block(block, launch->order == 1 ? n_blocks - 1 - next : next);
        ++next;
    };
    while (next < n_blocks && (int)live.size() < launch->resident) {
        if (blocks.size() <= live.size()) blocks.push_back(new Block);
        live.push_back(blocks[live.size()]);
        start_next(live.back());
    }
    while (!live.empty())
        for (size_t b = 0; b < live.size();) {
            if (!run_block(live[b], order)) return;
            if (live[b]->alive) {
                ++b;
            } else if (next < n_blocks) {
                start_next(live[b++]);
            } else {
                live.erase(live.begin() + (long)b);
            }
        }
}

}  // namespace

extern "C" {

Thread* emu_thread = nullptr;
dim3 emu_block_dim, emu_grid_dim;

void emu_fail(const char* message, int line) { fail(message, nullptr, line); }

void emu_preempt() { maybe_switch(launch->preempt); }

void emu_access(const void* address, int64_t bytes, int access, int line) {
    if (launch->checked) check(address, bytes, access, nullptr, line);
}

int emu_barrier(int predicate, int reduction, int line) {
    Worker* worker = current();
    worker->line = line;
    worker->operation = "__syncthreads";
    worker->kind = reduction;
    worker->value = (uint64_t)predicate;
    worker->state = AT_BARRIER;
    to_scheduler();
    return (int)worker->result;
}

void emu_warp(unsigned mask, emu::WarpFunction function, int kind, const char* name, int line) {
    Worker* worker = current();
    Block* block = worker->block;
    const int first = worker->linear & ~31;
    char text[160];
    if (!(mask >> worker->lane & 1)) {
        snprintf(text, sizeof text, "%s: calling lane %d is not in the mask %08x", name, worker->lane, mask);
        emu_fail(text, line);
    }
    worker->line = line;
    worker->operation = name;
    worker->kind = kind;
    worker->mask = mask;
    worker->function = function;
    worker->state = AT_WARP;
    Warp& warp = block->warps[first / 32];
    if (!warp.waiting) {
        warp.alike = true;
        warp.mask = mask;
        warp.line = line;
        warp.operation = name;
    }
    warp.alike &= warp.mask == mask && warp.line == line && warp.operation == name;
    warp.waiting |= 1u << worker->lane;
    const bool suspect = !warp.alike || (kind == emu::ALIGNED && mask & ~warp.live);
    for (int lane = 0; suspect && lane < 32; ++lane) {
        if (!(mask >> lane & 1)) continue;
        Worker* other = first + lane < (int)block->workers.size() ? &block->workers[first + lane] : nullptr;
        if (!other || other->state == DONE) {
            if (kind != emu::ALIGNED) continue;
            snprintf(text, sizeof text, "%s: lane %d of the warp has exited or does not exist", name, lane);
            emu_fail(text, line);
        }
        if (other->state == AT_WARP && other->mask == mask && (other->line != line || strcmp(other->operation, name))) {
            snprintf(text, sizeof text, "%s meets %s of line %d: lanes of one mask at different operations", name,
                     other->operation, other->line);
            emu_fail(text, line);
        }
    }
    if (!complete_warp(block, first, mask) || launch->order == 2) to_scheduler();
}

// A thread's products of warpgroups; few kernels ask for any, and they are large.
emu::GroupProducts* emu_asked() {
    Worker* worker = current();
    if (worker->asked) return worker->asked;
    auto& all = worker->block->asked;
    if ((int)all.size() <= worker->linear) all.resize(worker->linear + 1);
    auto& own = all[worker->linear];
    if (!own) own = std::make_unique<emu::GroupProducts>();
    own->count = own->closed = 0;
    return worker->asked = own.get();
}

void* emu_shared(const void* site, int64_t bytes) {
    Block* block = current()->block;
    if (!site) return block->shared;  // the dynamic part
    for (const auto& known : block->sites)
        if (known.first == site) return block->shared + known.second;
    const int64_t gap = launch->checked ? 128 : 0;
    const int64_t begin = (block->shared_used + gap + 127) / 128 * 128;
    if (begin + bytes > SHARED_BYTES) emu_fail("shared memory does not fit", 0);
    block->sites.push_back({site, begin});
    grow_shared(block, begin, begin + bytes);
    return block->shared + begin;
}

void emu_copy_async(void* target, const void* source, int bytes, int source_bytes, int line) {
    if (((uintptr_t)target | (source_bytes ? (uintptr_t)source : 0)) % (uintptr_t)bytes)
        emu_fail("cp.async: an address is no multiple of the size", line);
    emu_access(target, bytes, emu::WRITE, line);
    if (source_bytes) emu_access(source, source_bytes, emu::READ, line);
    poison(target, bytes);  // nothing is there until it was waited for: copies are as late as they may be
    current()->open.push_back({target, source, bytes, source_bytes, line});
}

void emu_copy_commit() {
    Worker* worker = current();
    worker->groups.push_back(std::move(worker->open));
    worker->open.clear();
}

void emu_copy_wait(int pending) {
    auto& groups = current()->groups;
    while ((int)groups.size() > pending) {
        for (const Copy& copy : groups.front()) {
            emu_access(copy.target, copy.bytes, emu::WRITE, copy.line);
            memset(copy.target, 0, (size_t)copy.bytes);
            memcpy(copy.target, copy.source, (size_t)copy.source_bytes);
        }
        groups.erase(groups.begin());
    }
}

// Run a kernel; returns null, or what went wrong. `regions` are rows of (begin, bytes, bytes of an element,
// address of its map of initialised bytes or 0, number of the argument); `schedule` is order, preempt,
// resident, seed.
const char* emu_run(void (*entry)(void**), void** arguments, const unsigned* grid, const unsigned* block,
                    int64_t shared_bytes, const int64_t* schedule, int64_t n_regions, const int64_t* regions,
                    int checked, const char* module_begin, int64_t module_bytes) {
    Launch now = {};
    now.entry = entry;
    now.arguments = arguments;
    now.grid = grid;
    now.block = block;
    now.shared_bytes = shared_bytes;
    now.order = (int)schedule[0];
    now.preempt = (int)schedule[1];
    now.resident = (int)schedule[2];
    now.seed = (uint64_t)schedule[3];
    now.checked = checked != 0;
    now.module_begin = module_begin;
    now.module_end = module_begin + module_bytes;
    for (int64_t i = 0; i < n_regions; ++i) {
        const int64_t* row = regions + 5 * i;
        auto* begin = reinterpret_cast<char*>(row[0]);
        auto* cells = static_cast<Cell*>(calloc((size_t)(row[1] / row[2] + 1), sizeof(Cell)));
        now.regions.push_back({begin, begin + row[1], (int)row[2], cells, reinterpret_cast<unsigned char*>(row[3]),
                               (int)row[4]});
    }
    emu_grid_dim = {grid[0], grid[1], grid[2]};
    emu_block_dim = {block[0], block[1], block[2]};
    random_state = now.seed * 0x9E3779B97F4A7C15ull + 1;
    failure.clear();
    launch = &now;
    run_all();
    launch = nullptr;
    emu_thread = nullptr;
    for (auto& region : now.regions) free(region.cells);
    if (failure.empty()) return nullptr;
    idle_fibers.clear();  // suspended ones are lost: the launch is over
    return failure.c_str();
}

// ---- what -fsanitize=thread calls ------------------------------------------------------------------

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
#define EMU_TSAN(NAME, ACCESS, BYTES) \
    void __tsan_##NAME##BYTES(void* p) { instrumented(p, BYTES, emu::ACCESS, __builtin_return_address(0)); }
#define EMU_TSAN_SIZES(NAME, ACCESS) \
    EMU_TSAN(NAME, ACCESS, 1) EMU_TSAN(NAME, ACCESS, 2) EMU_TSAN(NAME, ACCESS, 4) \
    EMU_TSAN(NAME, ACCESS, 8) EMU_TSAN(NAME, ACCESS, 16)
EMU_TSAN_SIZES(read, READ)
EMU_TSAN_SIZES(write, WRITE)
EMU_TSAN_SIZES(unaligned_read, READ)
EMU_TSAN_SIZES(unaligned_write, WRITE)
void __tsan_read_range(void* p, long bytes) { instrumented(p, bytes, emu::READ, __builtin_return_address(0)); }
void __tsan_write_range(void* p, long bytes) { instrumented(p, bytes, emu::WRITE, __builtin_return_address(0)); }

}  // extern "C"
