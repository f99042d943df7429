import numpy as np

import spcy

from .common import SITES, Suite


class Table(Suite, keys=SITES):
    """Build the table, find every key once."""

    def prepare(self, num_keys):
        self.keys = np.random.default_rng(0).integers(0, 1 << 40, num_keys, dtype=np.uint64)
        self.table = spcy.HashMap(self.keys)
        self.table.find(self.keys)

    def time_build(self, *_):
        spcy.HashMap(self.keys)

    def time_find(self, *_):
        self.table.find(self.keys)
