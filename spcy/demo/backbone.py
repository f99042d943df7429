"""A network of the shape lidar detectors use, on four levels, with each convolution timed."""

from collections.abc import Callable
from math import prod
from time import perf_counter
from typing import NamedTuple

import numpy as np

import spcy
from spcy._backend import array_module, to_host

CHANNELS = (16, 32, 64, 128)  # of the four levels
KERNEL = (3, 3, 3)
OFFSETS = spcy.kernel_offsets(KERNEL)


class Layer(NamedTuple):
    """One convolution: what it joined, and how long that took.

    Attributes
    ----------
    kind : str
        "submanifold", "strided" or "inverse".
    level_in, level_out : int
        1 is the finest.
    sites_in, sites_out, channels_in, channels_out : int
    pairs : int
        Length of the rulebook.
    rulebook_ms, conv_ms : float
        Milliseconds to get the rulebook (layers of the same geometry share one) and to execute it.
    flop, dense_flop : int
        Work of this layer, and of a dense one over the smallest box around the sites.
    """

    kind: str
    level_in: int
    level_out: int
    sites_in: int
    sites_out: int
    channels_in: int
    channels_out: int
    pairs: int
    rulebook_ms: float
    conv_ms: float
    flop: int
    dense_flop: int


class Network:
    """Convolutions with random weights, which keep a record of themselves.

    Parameters
    ----------
    seed : int, optional
        Of the weights.

    Attributes
    ----------
    levels : list of Coords
        Where it has been, finest first.
    layers : list of Layer
        What it has run.
    """

    def __init__(self, seed: int = 0):
        self.levels: list[spcy.Coords] = []
        self.layers: list[Layer] = []
        self._rng = np.random.default_rng(seed)

    def __call__(self, x: spcy.SparseTensor) -> spcy.SparseTensor:
        """Go down to the coarsest level and back up; return features on the sites of x."""
        self.levels.append(x.coords)
        x = self.block(x, CHANNELS[0])
        skips = []
        for channels in CHANNELS[1:]:
            skips.append(x)
            x = self.down(x, channels)
            x = self.block(x, channels)
        for skip in reversed(skips):
            x = self.up(x, skip)
        return x

    def block(self, x: spcy.SparseTensor, channels: int) -> spcy.SparseTensor:
        """Run two submanifold convolutions: the sites stay."""
        for _ in range(2):
            x = self._run(
                "submanifold",
                x,
                channels,
                lambda x: spcy.submanifold_rulebook(x.coords, OFFSETS - 1),
                lambda x, weight: spcy.subm_conv(x, weight, activation="relu"),
            )
        return x

    def down(self, x: spcy.SparseTensor, channels: int) -> spcy.SparseTensor:
        """Run a convolution with stride 2: the next level, half as fine."""
        y = self._run(
            "strided",
            x,
            channels,
            lambda x: spcy.conv_rulebook(x.coords, OFFSETS, stride=2, padding=1)[0],
            lambda x, weight: spcy.conv(x, weight, stride=2, padding=1, activation="relu"),
        )
        self.levels.append(y.coords)
        return y

    def up(self, x: spcy.SparseTensor, skip: spcy.SparseTensor) -> spcy.SparseTensor:
        """Run an inverse convolution: back on the very sites of skip, which is added."""
        return self._run(
            "inverse",
            x,
            skip.num_channels,
            lambda x: spcy.conv_rulebook(x.coords.parent, OFFSETS, stride=2, padding=1)[0].transposed(),
            lambda x, weight: spcy.inverse_conv(x, weight, to=skip, residual=skip, activation="relu"),
        )

    def _run(
        self,
        kind: str,
        x: spcy.SparseTensor,
        channels: int,
        get_rulebook: Callable[[spcy.SparseTensor], spcy.Rulebook],
        convolve: Callable[[spcy.SparseTensor, np.ndarray], spcy.SparseTensor],
    ) -> spcy.SparseTensor:
        """Run one layer and its ReLU, and record it."""
        spread = np.float32(np.sqrt(2 / (len(OFFSETS) * x.num_channels)))
        weight = self._rng.standard_normal((*KERNEL, x.num_channels, channels), dtype=np.float32) * spread
        weight = array_module(x.features).asarray(weight)
        start = perf_counter()
        rulebook = get_rulebook(x)
        found = perf_counter()
        y = convolve(x, weight)
        to_host(y.features[:1])  # a GPU is done then
        end = perf_counter()
        flop_per_pair = 2 * x.num_channels * channels
        windows = x if kind == "inverse" else y  # where a dense layer puts its kernel
        self.layers.append(
            Layer(
                kind,
                _level(x.coords),
                _level(y.coords),
                x.num_sites,
                y.num_sites,
                x.num_channels,
                channels,
                rulebook.num_pairs,
                (found - start) * 1e3,
                (end - found) * 1e3,
                rulebook.num_pairs * flop_per_pair,
                cells_around(windows.coords) * len(OFFSETS) * flop_per_pair,
            )
        )
        return y


def cells_around(coords: spcy.Coords) -> int:
    """Return the number of cells in the smallest box around the sites."""
    sites = to_host(coords.indices)[:, 1:].astype(np.int64)
    return prod((np.ptp(sites, axis=0) + 1).tolist()) * coords.batch_size


def _level(coords: spcy.Coords) -> int:
    """Return 1 for the finest level, 2 for the one made from it, and so on."""
    return 1 if coords.parent is None else 1 + _level(coords.parent)
