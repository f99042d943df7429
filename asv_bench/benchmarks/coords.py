import numpy as np

import spcy

from .common import SITES, Suite
from .scenes import scene


class Build(Suite, sites=SITES, rows=["sorted", "shuffled"]):
    """Check, pack and order the sites."""

    def prepare(self, sites, rows):
        indices, self.shape = scene("street", sites)
        shuffled = np.random.default_rng(0).permutation(indices)
        self.indices = indices if rows == "sorted" else shuffled
        spcy.Coords(self.indices, self.shape)

    def time_coords(self, *_):
        spcy.Coords(self.indices, self.shape)
