"""Scenes that every benchmark runs on, and the thread count as a parameter."""

import os

import numpy as np

import spcy

# Benchmarks that also time NumPy must see the BLAS kernels that the CPU has.
os.environ.pop("OPENBLAS_CORETYPE", None)

SITES = [10_000, 100_000]
THREADS = [1, 2]
CHANNELS = [16, 32, 64, 128]


def surface(num_sites, seed=0):
    """Sites of a rolling surface, as a lidar or a depth camera sees one: about 11 pairs per site in 3x3x3."""
    rng = np.random.default_rng(seed)
    side = int(np.sqrt(num_sites / 1.27))
    y, x = np.mgrid[:side, :side]
    z = (40 + 20 * np.sin(x / 37) + 15 * np.cos(y / 29)).astype(int)
    step = rng.random((side, side)) < 0.27
    low = np.stack([np.zeros_like(z), z, y, x], axis=-1).reshape(-1, 4)
    high = np.stack([np.zeros_like(z), z + 1, y, x], axis=-1)[step]
    return np.unique(np.concatenate([low, high]).astype(np.int32), axis=0)


def points(num_points, seed=0):
    """Points on the same kind of surface, in metres."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, np.sqrt(num_points) / 20, (num_points, 2))
    z = np.sin(xy[:, 0] / 3.7) + np.cos(xy[:, 1] / 2.9) + rng.normal(0, 0.01, num_points)
    return np.column_stack([z, xy]).astype(np.float32)


def tensor(num_sites, channels, dtype="float32", seed=0):
    """Random features on a surface."""
    indices = surface(num_sites, seed)
    features = np.random.default_rng(seed).standard_normal((len(indices), channels)).astype(dtype)
    return spcy.SparseTensor(indices, features)


def weight(kernel_size, c_in, c_out, dtype="float32", seed=1):
    """A random weight."""
    return np.random.default_rng(seed).standard_normal((*kernel_size, c_in, c_out)).astype(dtype)


class Threaded:
    """A benchmark whose last parameter is the number of threads."""

    def set_threads(self, threads):
        if threads > (os.cpu_count() or 1):
            raise NotImplementedError(f"needs {threads} cores")
        spcy.set_num_threads(threads)

    def teardown(self, *args):
        spcy.set_num_threads(None)
