// C++'s operator new, which fails when it is told to. Loaded before the C++ library; see test_faults.py.
#include <cstddef>
#include <cstdlib>
#include <new>

static thread_local long left = -1;

extern "C" void fault_arm_new(long number) { left = number; }

static void* take(std::size_t align, std::size_t size) {
    if (left >= 0 && left-- == 0) return nullptr;
    if (align <= alignof(std::max_align_t)) return std::malloc(size);
    return std::aligned_alloc(align, (size + align - 1) / align * align);
}
static void* must(void* block) {
    if (!block) throw std::bad_alloc();
    return block;
}
void* operator new(std::size_t size) { return must(take(1, size)); }
void* operator new[](std::size_t size) { return must(take(1, size)); }
void* operator new(std::size_t size, std::align_val_t align) { return must(take((std::size_t)align, size)); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return take(1, size); }
void* operator new(std::size_t size, std::align_val_t align, const std::nothrow_t&) noexcept {
    return take((std::size_t)align, size);
}
