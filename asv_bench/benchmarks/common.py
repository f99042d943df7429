"""What every benchmark shares: parameters, backends, threads, the clock, and how tensors are made."""

import os
import time
from functools import cache

import numpy as np

import spcy

from .scenes import scene

# Benchmarks that also time NumPy must see the BLAS kernels that the CPU has.
os.environ.pop("OPENBLAS_CORETYPE", None)

SITES = [10_000, 100_000]
CHANNELS = [16, 32, 64, 128]
DTYPES = ["float32", "float64", "bfloat16"]
BACKENDS = ["cpu", "cuda"]
# One thread, whose times are steady enough to compare commits by; SPCY_BENCH_THREADS="1 2" adds others.
THREADS = [int(n) for n in os.environ.get("SPCY_BENCH_THREADS", "1").split()]


class Suite:
    """A benchmark class: its keywords are its parameters, followed by the backend and the threads.

    asv calls `setup` before every timed call. Subclasses override `prepare`, which gets their own
    parameters: it warms up what is timed and takes scenes and arrays from the caches below, so that it
    is quick.
    """

    rounds = 2
    repeat = (3, 20, 0.5)
    warmup_time = 0.05

    def __init_subclass__(cls, **params):
        params |= {"backend": BACKENDS, "threads": THREADS}
        cls.params, cls.param_names = list(params.values()), list(params)

    def setup(self, *values):
        *own, self.backend, self.threads = values
        if self.threads > (os.cpu_count() or 1):
            raise NotImplementedError(f"needs {self.threads} cores")
        if self.backend == "cuda" and self.threads != THREADS[0]:
            raise NotImplementedError("a GPU does not depend on the number of threads")
        try:
            spcy.set_backend(self.backend)
        except RuntimeError as error:
            raise NotImplementedError(str(error)) from error
        spcy.set_num_threads(self.threads)
        self.prepare(*own)

    def teardown(self, *values):
        spcy.set_backend("cpu")
        spcy.set_num_threads(None)

    def timer(self):
        """Return seconds: of this process's CPU time on one thread, which other programs do not add to."""
        if self.backend == "cuda":
            import cupy

            cupy.cuda.get_current_stream().synchronize()
        return time.process_time() if self.backend == "cpu" and self.threads == 1 else time.perf_counter()


def place(array, dtype):
    """Return an array of a dtype that is given by name, on the backend in force."""
    if dtype == "bfloat16":
        import ml_dtypes

        dtype = ml_dtypes.bfloat16
    array = np.asarray(array, dtype)
    if spcy.get_backend() == "cuda":
        import cupy

        return cupy.asarray(array)
    return array


@cache
def random(shape, dtype="float32", seed=0):
    """Return the same random numbers for the same arguments."""
    return place(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32), dtype)


def coords(name, num_sites):
    """Return new coords, which have nothing cached."""
    return spcy.Coords(*scene(name, num_sites))


@cache
def tensor(name, num_sites, channels, dtype="float32"):
    """Return random features on a scene."""
    return spcy.SparseTensor(coords(name, num_sites), random((num_sites, channels), dtype))


def weight(c_in, c_out, kernel_size=(3, 3, 3), dtype="float32"):
    """Return a random weight."""
    return random((*kernel_size, c_in, c_out), dtype, seed=1)
