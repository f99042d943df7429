import numpy as np

import spcy

from .common import SITES, THREADS, Threaded


class Table(Threaded):
    """Build the table, find every key once."""

    params = [SITES, THREADS]
    param_names = ["keys", "threads"]

    def setup(self, keys, threads):
        self.set_threads(threads)
        self.keys = np.random.default_rng(0).integers(0, 1 << 40, keys, dtype=np.uint64)
        self.table = spcy.HashMap(self.keys)

    def time_build(self, keys, threads):
        spcy.HashMap(self.keys)

    def time_find(self, keys, threads):
        self.table.find(self.keys)
