import numpy as np

import spcy

from .common import SITES, THREADS, Threaded, surface


class Build(Threaded):
    """Check, pack and order the sites."""

    params = [SITES, ["sorted", "shuffled"], THREADS]
    param_names = ["sites", "rows", "threads"]

    def setup(self, sites, rows, threads):
        self.set_threads(threads)
        self.indices = surface(sites)
        if rows == "shuffled":
            self.indices = np.random.default_rng(0).permutation(self.indices)

    def time_coords(self, sites, rows, threads):
        spcy.Coords(self.indices)
