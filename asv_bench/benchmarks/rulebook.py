import tracemalloc

import spcy

from .common import SITES, Suite, coords
from .scenes import SCENES

BOX = spcy.kernel_offsets((3, 3, 3))
HALVES = spcy.kernel_offsets((2, 2, 2))


def submanifold(sites):
    return spcy.submanifold_rulebook(sites, BOX - 1)


def stride_2(sites):
    return spcy.conv_rulebook(sites, BOX, stride=2, padding=1)[0]


def transposed(sites):
    return spcy.transposed_rulebook(sites, HALVES, stride=2)[0]


class Build(Suite, scene=SCENES, sites=SITES):
    """Rulebooks of coords that have none: 3x3x3, and 2x2x2 for the transposed one."""

    def prepare(self, scene, sites):
        self.coords = coords(scene, sites)

    def time_submanifold(self, *_):
        submanifold(self.coords)

    def time_stride_2(self, *_):
        stride_2(self.coords)

    def time_transposed_stride_2(self, *_):
        transposed(self.coords)

    def track_pairs(self, *_):
        return submanifold(self.coords).num_pairs

    track_pairs.unit = "pairs"


class Memory(Suite, kind=["submanifold", "stride_2", "transposed"]):
    """Of 3x3x3 rulebooks (2x2x2 for the transposed one) of a surface of 100,000 sites."""

    def prepare(self, kind):
        self.coords = coords("surface", 100_000)
        self.build = globals()[kind]

    def track_bytes_per_pair(self, *_):
        """What a rulebook keeps."""
        return self.measure()[0]

    def track_peak_bytes_per_pair(self, *_):
        """What building it takes, at most."""
        return self.measure()[1]

    track_bytes_per_pair.unit = track_peak_bytes_per_pair.unit = "bytes/pair"

    def measure(self):
        tracemalloc.start()
        rulebook = self.build(self.coords)
        sizes = tracemalloc.get_traced_memory()  # NumPy's arrays too
        tracemalloc.stop()
        return [size / rulebook.num_pairs for size in sizes]
