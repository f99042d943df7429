"""Clocks for work on a GPU, and how fast this GPU copies and multiplies."""

import math
import statistics
import time

import numpy as np

FLUSH_BYTES = 256 << 20  # more than any second-level cache holds
MOST_FLUSHES = 64
EDGE = 8192  # of the matrices that are multiplied
COPIED = 1 << 30  # bytes


class Clock:
    """Medians of milliseconds; before each call a buffer is overwritten, so that no input is cached."""

    def __init__(self, tiny):
        import cupy

        self.cupy, self.tiny, self.rounds = cupy, tiny, 1 if tiny else 15
        self.buffer = cupy.zeros((1 << 10 if tiny else FLUSH_BYTES) // 4, np.float32)
        self.flush_ms = max(self._event_ms(self._flush), 1e-3)

    def _flush(self):
        self.buffer.fill(1)

    def synchronize(self):
        """Wait for all work."""
        self.cupy.cuda.Device().synchronize()

    def events(self, run):
        """Return the GPU's time of a call that does not make the host wait.

        The buffer is overwritten as often as it takes for the host to be done with the call before the
        GPU begins it.
        """
        run()
        self.synchronize()
        start = time.perf_counter()
        run()
        host_ms = 1e3 * (time.perf_counter() - start)
        flushes = 1 if self.tiny else min(MOST_FLUSHES, 1 + math.ceil(2 * host_ms / self.flush_ms))
        return statistics.median(self._event_ms(run, flushes) for _ in range(self.rounds))

    def _event_ms(self, run, flushes=0):
        begin, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        for _ in range(flushes):
            self._flush()
        begin.record()
        run()
        end.record()
        end.synchronize()
        return self.cupy.cuda.get_elapsed_time(begin, end)

    def host(self, run):
        """Return the host's time of a call and of waiting for its end."""
        run()
        times = []
        for _ in range(1 if self.tiny else 9):
            self._flush()
            self.synchronize()
            start = time.perf_counter()
            run()
            self.synchronize()
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times)

    def issue(self, run):
        """Return the host's time of a call alone, the least of some rounds."""
        calls, best = 1 if self.tiny else 50, math.inf
        for _ in range(1 if self.tiny else 5):
            run()
            self.synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                run()
            best = min(best, 1e3 * (time.perf_counter() - start) / calls)
            self.synchronize()
        return best


class Ceilings:
    """How fast the GPU copies, and multiplies large matrices."""

    def __init__(self, clock):
        cupy, self.clock, self.known = clock.cupy, clock, {}
        self.edge = 16 if clock.tiny else EDGE
        a = cupy.zeros((1 << 12 if clock.tiny else COPIED) // 4, np.float32)
        b = cupy.empty_like(a)
        self.bytes_per_ms = 2 * a.nbytes / clock.events(lambda: cupy.copyto(b, a))

    def flop_per_ms(self, math_name):
        """Return the speed of matrix products of an arithmetic."""
        if math_name not in self.known:
            self.known[math_name] = 2 * self.edge**3 / self.clock.events(self._product(math_name))
        return self.known[math_name]

    def _product(self, math_name):
        try:
            import torch
        except ImportError:
            torch = None
        if torch is None or not torch.cuda.is_available() or math_name in ("float16", "float32"):
            # CuPy alone has neither tf32 (but by the environment) nor, everywhere, bfloat16.
            dtype = "float16" if math_name in ("bfloat16", "tf32") else math_name
            a = self.clock.cupy.asarray(self._matrix().astype(dtype))
            return lambda: a @ a
        torch.backends.cuda.matmul.allow_tf32 = math_name == "tf32"
        dtype = torch.bfloat16 if math_name == "bfloat16" else torch.float32
        a = torch.from_numpy(self._matrix()).to("cuda", dtype)
        return lambda: a @ a

    def _matrix(self):
        """Return random numbers: matrices of one number are multiplied faster."""
        numbers = np.random.default_rng(0).standard_normal(1 << 20, np.float32)
        return np.resize(numbers, (self.edge, self.edge))

    def floor(self, math_name, flop, num_bytes):
        """Return the milliseconds that products and bytes take at least."""
        products = flop / self.flop_per_ms(math_name) if flop else 0
        return max(products, num_bytes / self.bytes_per_ms)

    def row(self):
        """Return what is known as a row of results."""
        speeds = {name: speed / 1e9 for name, speed in self.known.items()}
        return {"row": "ceilings", "copy_tb_per_s": self.bytes_per_ms / 1e9, "tflop_per_s": speeds}
