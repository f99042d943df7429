// What spcy asks of the OpenMP runtime, with stand-ins for a build without it.
#ifndef SPCY_THREADS_H
#define SPCY_THREADS_H

#ifdef _OPENMP
#include <omp.h>
static inline int spcy_has_openmp(void) { return 1; }
#else
static inline int spcy_has_openmp(void) { return 0; }
#endif

// libgomp's worker threads do not survive fork(), and a child that waits for them hangs. Pausing ends
// them before the fork; parent and child start new ones when they need them. Returns 0 if it could.
static inline int spcy_pause_threads(void) {
#if defined(_OPENMP) && defined(__GNUC__) && !defined(__clang__)
    return omp_pause_resource_all(omp_pause_hard);
#else
    return 0;  // LLVM's runtime handles fork itself
#endif
}

#endif
