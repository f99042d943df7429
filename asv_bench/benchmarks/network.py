import numpy as np

import spcy

from .common import SITES, THREADS, Threaded, surface, weight

# VoxelBackBone8x, the backbone of SECOND: (channels, stride, padding of the step down, kernel of it).
STEPS = [(32, 2, 1, (3, 3, 3)), (64, 2, 1, (3, 3, 3)), (64, 2, (0, 1, 1), (3, 3, 3))]


def relu(features):
    return np.maximum(features, 0)


class VoxelBackBone8x(Threaded):
    """From sites to the output, with and without building the rulebooks."""

    params = [SITES, THREADS]
    param_names = ["sites", "threads"]

    def setup(self, sites, threads):
        self.set_threads(threads)
        self.indices = surface(sites)
        self.shape = tuple(self.indices[:, 1:].max(axis=0) + 1)
        self.features = np.random.default_rng(0).standard_normal((len(self.indices), 4)).astype(np.float32)
        self.stem = [weight((3, 3, 3), 4, 16), weight((3, 3, 3), 16, 16)]
        self.blocks, channels = [], 16
        for out, _, _, kernel in STEPS:
            self.blocks.append(
                (weight(kernel, channels, out), [weight((3, 3, 3), out, out) for _ in range(2)])
            )
            channels = out
        self.last = weight((3, 1, 1), channels, 128)
        self.coords = spcy.Coords(self.indices, self.shape)
        self.run(self.coords)

    def run(self, coords):
        x = spcy.SparseTensor(coords, self.features)
        for w in self.stem:
            x = spcy.subm_conv(x, w).map(relu)
        for (_, stride, padding, _), (down, block) in zip(STEPS, self.blocks, strict=True):
            x = spcy.conv(x, down, stride=stride, padding=padding).map(relu)
            for w in block:
                x = spcy.subm_conv(x, w).map(relu)
        return spcy.conv(x, self.last, stride=(2, 1, 1)).map(relu)

    def time_with_rulebooks(self, sites, threads):
        self.run(spcy.Coords(self.indices, self.shape))

    def time_rulebooks_ready(self, sites, threads):
        self.run(self.coords)

    def peakmem_with_rulebooks(self, sites, threads):
        self.run(spcy.Coords(self.indices, self.shape))

    def peakmem_reference(self, sites, threads):
        """What `setup` alone takes: asv counts it in the others."""
