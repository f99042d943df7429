import spcy

from .common import SITES, THREADS, Threaded, surface

BOX = spcy.kernel_offsets((3, 3, 3))


class Build(Threaded):
    """3x3x3 rulebooks from coords that have none cached."""

    params = [SITES, THREADS]
    param_names = ["sites", "threads"]
    number = 1  # a second run on the same coords would find the rulebook
    repeat = (5, 20, 5.0)

    def setup(self, sites, threads):
        self.set_threads(threads)
        self.coords = spcy.Coords(surface(sites))

    def time_submanifold(self, sites, threads):
        spcy.submanifold_rulebook(self.coords, BOX - 1)

    def time_stride_2(self, sites, threads):
        spcy.conv_rulebook(self.coords, BOX, stride=2, padding=1)

    def time_transposed_stride_2(self, sites, threads):
        spcy.transposed_rulebook(self.coords, spcy.kernel_offsets((2, 2, 2)), stride=2)

    def track_pairs(self, sites, threads):
        return spcy.submanifold_rulebook(self.coords, BOX - 1).num_pairs

    track_pairs.unit = "pairs"
