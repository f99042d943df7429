// Allocators that fail when they are told to: of array data (1), of Python's objects (2). See test_faults.py.
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <Python.h>
#include <numpy/arrayobject.h>

static int kind = 0;
static long left = -1, live = 0;
static PyMemAllocatorEx before[2];

void fault_arm(int of, long number) { kind = of, left = number; }
long fault_live(void) { return live; }  // arrays whose data is there

static int fails(int of) { return of == kind && left >= 0 && left-- == 0; }

static void* data_malloc(void* context, size_t size) {
    void* block = fails(1) ? NULL : malloc(size ? size : 1);
    live += block != NULL;
    return block;
}
static void* data_calloc(void* context, size_t count, size_t size) {
    void* block = fails(1) ? NULL : calloc(count ? count : 1, size ? size : 1);
    live += block != NULL;
    return block;
}
static void* data_realloc(void* context, void* block, size_t size) {
    return fails(1) ? NULL : realloc(block, size ? size : 1);
}
static void data_free(void* context, void* block, size_t size) {
    live -= block != NULL;
    free(block);
}
static PyDataMem_Handler handler = {"fault", 1, {NULL, data_malloc, data_calloc, data_realloc, data_free}};

static void* object_malloc(void* context, size_t size) {
    PyMemAllocatorEx* inner = context;
    return fails(2) ? NULL : inner->malloc(inner->ctx, size);
}
static void* object_calloc(void* context, size_t count, size_t size) {
    PyMemAllocatorEx* inner = context;
    return fails(2) ? NULL : inner->calloc(inner->ctx, count, size);
}
static void* object_realloc(void* context, void* block, size_t size) {
    PyMemAllocatorEx* inner = context;
    return fails(2) ? NULL : inner->realloc(inner->ctx, block, size);
}
static void object_free(void* context, void* block) {
    PyMemAllocatorEx* inner = context;
    inner->free(inner->ctx, block);
}

int fault_install(void) {
    import_array1(-1);
    PyObject* capsule = PyCapsule_New(&handler, "mem_handler", NULL);
    Py_XDECREF(capsule ? PyDataMem_SetHandler(capsule) : NULL);
    // What takes memory without a thread state is left alone: NumPy's buffers, whose lack it does not survive.
    PyMemAllocatorDomain domains[2] = {PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};
    for (int i = 0; i < 2; ++i) {
        PyMem_GetAllocator(domains[i], &before[i]);
        PyMemAllocatorEx failing = {&before[i], object_malloc, object_calloc, object_realloc, object_free};
        PyMem_SetAllocator(domains[i], &failing);
    }
    return capsule ? 0 : -1;
}
