"""Whole networks from their libraries' definitions alone: plain loops over kernel cells, NumPy, float64.

They stand in for MinkowskiEngine, TorchSparse and SparseConvNet, none of which can be installed beside the
tests. They read a state as the library keeps it: its names, its order of kernel cells, its coordinates,
which keep their scale on coarser levels and have a tensor stride instead.
"""

from typing import NamedTuple

import numpy as np


class Level(NamedTuple):
    coords: np.ndarray  # (N, 1 + D), multiples of the tensor stride
    features: np.ndarray
    stride: int


class Library:
    """The layers of one library on one state."""

    weight = "kernel"
    eps = 1e-5

    def __init__(self, state):
        self.state = {name: np.float64(array) for name, array in state.items()}

    def offsets(self, size, ndim):
        """The cells of a kernel in the library's order, odd ones centred, even ones from 0."""
        first_fastest = self.first_fastest(size**ndim)
        for number in range(size**ndim):
            digits = [number // size**i % size for i in range(ndim)]
            yield np.array(digits if first_fastest else digits[::-1]) - size // 2 * (size % 2)

    def kernel(self, name, volume):
        kernel = self.state[f"{name}.{self.weight}"]
        return kernel.reshape(volume, *kernel.shape[-2:])

    def convolve(self, x, name, size, coords):
        """``y[u] = sum x[u + offset * tensor_stride] @ kernel[offset]`` for the sites u of coords."""
        ndim = coords.shape[1] - 1
        kernel = self.kernel(name, size**ndim)
        row = {tuple(site): i for i, site in enumerate(x.coords.tolist())}
        y = np.zeros((len(coords), kernel.shape[-1]))
        for matrix, offset in zip(kernel, self.offsets(size, ndim), strict=True):
            rows = [row.get(tuple(u), -1) for u in (coords + np.r_[0, offset] * x.stride).tolist()]
            found = np.array(rows) >= 0
            y[found] += x.features[np.array(rows)[found]] @ matrix
        return y + self.state.get(f"{name}.bias", 0)

    def same(self, x, name, size=3):
        return x._replace(features=self.convolve(x, name, size, x.coords))

    def down(self, x, name):
        """The floor cells of the next tensor stride."""
        stride = 2 * x.stride
        cells = np.column_stack([x.coords[:, :1], x.coords[:, 1:] // stride * stride])
        coords = np.unique(cells, axis=0)
        return Level(coords, self.convolve(x, name, 2, coords), stride)

    def up(self, x, name, to):
        """``y[c + offset * finer_stride] += x[c] @ kernel[offset]``, on the sites of a finer level."""
        row = {tuple(site): i for i, site in enumerate(to.coords.tolist())}
        ndim = x.coords.shape[1] - 1
        kernel = self.kernel(name, 2**ndim)
        y = np.zeros((len(to.coords), kernel.shape[-1]))
        for matrix, offset in zip(kernel, self.offsets(2, ndim), strict=True):
            for site, feature in zip(x.coords + np.r_[0, offset] * to.stride, x.features, strict=True):
                if (place := row.get(tuple(site.tolist()))) is not None:
                    y[place] += feature @ matrix
        return Level(to.coords, y, to.stride)

    def norm(self, x, name, relu=True):
        mean, variance, scale, shift = (self.state[f"{name}.{n}"] for n in self.norms)
        y = (x.features - mean) / np.sqrt(variance + self.eps) * scale + shift
        return x._replace(features=np.maximum(y, 0) if relu else y)

    def has(self, name):
        return any(key.startswith(f"{name}.") for key in self.state)

    def linear(self, x, name):
        y = x.features @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]
        return x._replace(features=y)

    def residual(self, x, conv1, norm1, conv2, norm2, shortcut):
        y = self.norm(self.same(x, conv1), norm1)
        y = self.norm(self.same(y, conv2), norm2, relu=False)
        if self.has(shortcut):
            x = self.norm(self.same(x, f"{shortcut}.0", 1), f"{shortcut}.1", relu=False)
        return x._replace(features=np.maximum(y.features + x.features, 0))


def beside(*levels):
    return levels[0]._replace(features=np.concatenate([level.features for level in levels], axis=1))


class MinkowskiEngine(Library):
    norms = ("bn.running_mean", "bn.running_var", "bn.weight", "bn.bias")

    def first_fastest(self, volume):
        return True

    def blocks(self, x, name):
        block = 0
        while self.has(f"{name}.{block}"):
            b = f"{name}.{block}"
            x = self.residual(x, f"{b}.conv1", f"{b}.norm1", f"{b}.conv2", f"{b}.norm2", f"{b}.downsample")
            block += 1
        assert block
        return x

    def minkunet(self, x, stem=5):
        levels = [self.norm(self.same(x, "conv0p1s1", stem), "bn0")]
        for i in range(1, 5):
            y = self.norm(self.down(levels[-1], f"conv{i}p{2 ** (i - 1)}s2"), f"bn{i}")
            levels.append(self.blocks(y, f"block{i}"))
        y = levels.pop()
        for i in range(4, 8):
            skip = levels.pop()
            y = self.norm(self.up(y, f"convtr{i}p{2 ** (8 - i)}s2", skip), f"bntr{i}")
            y = self.blocks(beside(y, skip), f"block{i + 1}")
        return self.same(y, "final", 1)


class TorchSparse(Library):
    norms = ("running_mean", "running_var", "weight", "bias")

    def first_fastest(self, volume):
        return volume % 2 == 1

    def block(self, x, b):
        names = (f"{b}.net.{i}" for i in (0, 1, 3, 4))
        return self.residual(x, *names, f"{b}.downsample")

    def minkunet(self, x):
        y = self.norm(self.same(x, "stem.0"), "stem.1")
        levels = [self.norm(self.same(y, "stem.3"), "stem.4")]
        for i in range(1, 5):
            y = self.norm(self.down(levels[-1], f"stage{i}.0.net.0"), f"stage{i}.0.net.1")
            levels.append(self.block(self.block(y, f"stage{i}.1"), f"stage{i}.2"))
        y = levels.pop()
        for i in range(1, 5):
            skip = levels.pop()
            y = self.norm(self.up(y, f"up{i}.0.net.0", skip), f"up{i}.0.net.1")
            y = self.block(self.block(beside(y, skip), f"up{i}.1.0"), f"up{i}.1.1")
        return self.linear(y, "classifier.0")


class SparseConvNet(Library):
    weight, eps = "weight", 1e-4
    norms = ("runningMean", "runningVar", "weight", "bias")

    def first_fastest(self, volume):
        return False

    def unet(self, x, depth, reps, residual):
        y = self.same(x, "sparseModel.1")
        y = self.norm(self.level(y, "sparseModel.2", depth, reps, residual), "sparseModel.3")
        return self.linear(y, "linear")

    def level(self, x, name, depth, reps, residual):
        place = 0
        for _ in range(reps):
            x, place = self.block(x, name, place, residual)
        if depth > 1:
            inner = f"{name}.{place}.1"
            y = self.down(self.norm(x, f"{inner}.0"), f"{inner}.1")
            y = self.norm(self.level(y, f"{inner}.2", depth - 1, reps, residual), f"{inner}.3")
            x, place = beside(x, self.up(y, f"{inner}.4", x)), place + 2
            for _ in range(reps):
                x, place = self.block(x, name, place, residual)
        return x

    def block(self, x, name, place, residual):
        if not residual:
            y = self.same(self.norm(x, f"{name}.{place}.0"), f"{name}.{place}.1")
            return y, place + 1
        b = f"{name}.{place}.1"
        y = self.same(self.norm(x, f"{b}.0"), f"{b}.1")
        y = self.same(self.norm(y, f"{b}.2"), f"{b}.3")
        if self.has(f"{name}.{place}.0"):
            x = self.same(x, f"{name}.{place}.0", 1)
        return x._replace(features=x.features + y.features), place + 2
