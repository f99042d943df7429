"""Time the CPU engine on more and more threads; medians of interleaved rounds."""

import os
import statistics
import time

import numpy as np

from common import SITES, TINY, bench_modules, report

bench_modules()

from benchmarks import network  # noqa: E402
from benchmarks.scenes import scene  # noqa: E402

import spcy  # noqa: E402

ROUNDS = 1 if TINY else 7
BOX = spcy.kernel_offsets((3, 3, 3)) - 1


def works():
    """Return what is timed, by name."""
    rng = np.random.default_rng(0)
    indices, shape = scene("surface", SITES)
    coords = spcy.Coords(indices, shape, 1)

    def convolution(channels):
        x = spcy.SparseTensor(coords, rng.standard_normal((len(coords), channels)).astype(np.float32))
        weight = rng.standard_normal((3, 3, 3, channels, channels)).astype(np.float32)
        return lambda: spcy.subm_conv(x, weight)

    small = network.coords("surface", SITES // 10)
    return {
        f"rulebook of {SITES} sites": lambda: spcy.submanifold_rulebook(spcy.Coords(indices, shape, 1), BOX),
        "convolution of 16 channels": convolution(16),
        "convolution of 64 channels": convolution(64),
        f"VoxelBackBone8x on {SITES // 10} sites": lambda: network.run(small),
    }


def main():
    """Write the medians."""
    numbers = [n for n in (1, 2, 4, 8, 16) if n <= (os.cpu_count() or 1)]
    tasks = works()
    times = {(name, n): [] for name in tasks for n in numbers}
    for _ in range(ROUNDS):
        for n in numbers:
            spcy.set_num_threads(n)
            for name, run in tasks.items():
                run()
                start = time.perf_counter()
                run()
                times[name, n].append(1e3 * (time.perf_counter() - start))
    for name in tasks:
        ms = {n: round(statistics.median(times[name, n]), 3) for n in numbers}
        report("cpu", work=name, ms=ms, speed_up=round(ms[1] / ms[numbers[-1]], 2))


if __name__ == "__main__":
    main()
