"""Compile the kernels of smoke's cases in parallel processes, into CuPy's cache."""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor

from smoke import outputs, selected

from common import TINY, one_line, report


def compile_kernels(name):
    """Run a case on the GPU; return its name, the seconds, and what went wrong."""
    begin, failure = time.perf_counter(), None
    try:
        outputs(name, "cuda")
    except Exception as error:  # smoke tells more
        failure = one_line(error)
    return name, time.perf_counter() - begin, failure


def main():
    """Return whether processes got through all cases."""
    workers = 2 if TINY else min(16, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for name, seconds, failure in pool.map(compile_kernels, selected()):
            report("build", case=name, seconds=round(seconds, 2), failure=failure)
            if failure:
                print(f"{name}: {failure}")


if __name__ == "__main__":
    main()
