"""What is to be computed, and its two halves: points become voxels in tiles, and tiles become labels."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import _check, nn, tiled
from ..coords import Coords, Layout, group_keys, sites_from_keys
from ..models.store import network_dtype
from ..sums import partial_sums, sum_segments
from ..tensor import SparseTensor
from ..voxel import occupied_cells

Describe = Callable[[np.ndarray, np.ndarray], np.ndarray]  # points and their columns to features


class Entered(NamedTuple):
    """Points that became voxels."""

    rows: np.ndarray  # (M,) int32, the voxel of each point, -1 where it was dropped
    tiles: np.ndarray  # (T, D) int64, those that hold voxels; voxels are numbered tile by tile
    blocks: list[tuple[int, bytes]]  # (partition, what it is sent) for each tile that sees voxels


class _Block(NamedTuple):
    """The voxels of a chunk of points that a tile sees."""

    tile: tuple[int, ...]
    own: int  # so many of them, the first, lie in the tile, the others in its halo
    keys: np.ndarray  # (n,) unsigned: where in the tile with its halo, as its layout has it
    counts: np.ndarray  # (n,) unsigned: points
    high: np.ndarray  # (n, C) float64: the sum of their features, which is high + low
    low: np.ndarray | None  # None: all zero


@dataclass(frozen=True)
class Job:
    """A network over points in tiles of one global grid."""

    voxel_size: np.ndarray  # (D,)
    tile: (
        np.ndarray
    )  # (D,) cells: tile t holds those from (t - 1/2) * tile on, so that 0 is in the middle of one
    left: np.ndarray  # (D,) cells of the halo below a tile
    right: np.ndarray  # (D,) above it
    partitions: int  # that share the tiles
    sites: int  # of a tile that are run at once
    invalid: str  # "raise" or "drop"
    features: Describe | None
    dtype: np.dtype

    def low_of(self, tile: Sequence[int]) -> np.ndarray:
        """Return the first cell of a tile with its halo."""
        return np.array(tile, np.int64) * self.tile - self.tile // 2 - self.left

    @property
    def extent(self) -> np.ndarray:
        """Cells of a tile with its halo."""
        return self.tile + self.left + self.right

    def layout_of(self, tile: Sequence[int]) -> Layout:
        """Return the layout of the keys of a tile with its halo: but for where it begins, that of all."""
        low = np.append(0, self.low_of(tile))
        return Layout(low, low + np.append(0, self.extent - 1))

    def partition_of(self, tile: Sequence[int]) -> int:
        """Return the partition of a tile: neighbours are far from each other, and all have as many."""
        steps = (1, 0.618, 0.382, 0.236)  # of the partitions, along each axis
        n = self.partitions
        return sum(t * max(1, round(n * s) if s < 1 else 1) for t, s in zip(tile, steps, strict=False)) % n

    def enter(self, points: np.ndarray, values: np.ndarray) -> Entered:
        """Return the voxels of a chunk of points, and what to send to the tiles that see them."""
        keep, points = None, np.ascontiguousarray(points)
        if not np.isfinite(points).all():
            keep = np.isfinite(points).all(axis=1)
            if self.invalid == "raise":
                row = int(np.argmin(keep))
                raise ValueError(
                    f"points must be finite, or invalid='drop', got {points[row].tolist()} in row {row}: "
                    f"{len(keep) - int(keep.sum())} of {len(keep)} are not"
                )
            points, values = points[keep], values[keep]
        if self.features is not None:
            values = self._described(self.features, points, values)
        rows, cells, counts, high, low = self._voxels(points, np.ascontiguousarray(values))
        numbers, tiles, blocks = self._blocks(cells, counts, high, low)
        rows = numbers[rows]
        if keep is not None:
            every = np.full(len(keep), -1, np.int32)
            every[keep] = rows
            rows = every
        return Entered(rows, tiles, blocks)

    def _described(self, features: Describe, points: np.ndarray, values: np.ndarray) -> np.ndarray:
        made = np.asarray(features(points, values))
        if made.ndim != 2 or len(made) != len(points) or made.dtype.kind != "f":
            raise ValueError(
                f"features must return an array of floats of shape ({len(points)}, C), got {made.dtype} of "
                f"shape {made.shape}"
            )
        return made.astype(self.dtype, copy=False)

    def _voxels(self, points: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the voxel of each point; cells, counts and sums of voxels, of which a cell may have several.

        It has as many as points where two doubles do not hold their sum.
        """
        ndim = len(self.voxel_size)
        origin = np.zeros(ndim)
        layout, keys, rows, order, starts = occupied_cells(points, None, 1, origin, self.voxel_size, None)
        sites = sites_from_keys(keys, layout, None, None, None, 1, origin, self.voxel_size)
        cells, counts = sites.indices[:, 1:], np.diff(starts)
        high, low, loose = partial_sums(features, order, starts)
        if loose.any():
            each = np.where(loose, counts, 1)
            first = np.cumsum(each) - each
            place = np.arange(len(order)) - starts[rows[order]]
            voxel = (first[rows[order]] + np.where(loose[rows[order]], place, 0)).astype(np.int32)
            cells, counts = np.repeat(cells, each, axis=0), np.repeat(np.where(loose, 1, counts), each)
            high, low = np.repeat(high, each, axis=0), np.repeat(low, each, axis=0)
            single = loose[rows[order]]
            high[voxel[single]], low[voxel[single]] = features[order[single]], 0
            rows = np.empty_like(rows)
            rows[order] = voxel
        return rows, cells, counts, high, low

    def _blocks(
        self, cells: np.ndarray, counts: np.ndarray, high: np.ndarray, low: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[tuple[int, bytes]]]:
        """Return the number of each voxel, tile by tile; the tiles; and what those are sent that see some."""
        numbers, rest = np.empty(len(cells), np.int32), low if low.any() else None
        along = np.ascontiguousarray(cells.T)
        tiles, seen = self._seen(along)
        done = 0
        for tile in tiles:
            own = seen[tile][0]
            numbers[own] = np.arange(done, done + len(own))
            done += len(own)
        first = self.layout_of([0] * len(self.tile))  # the layouts of tiles differ in where they begin
        all_keys, blocks = _keys(along.astype(np.int64), first), []
        for tile, (own, *halos) in seen.items():
            rows = np.concatenate([own, *halos]) if halos else own
            begin = int(_keys(self.layout_of(tile).low[1:], first))
            keys = (all_keys[rows] - begin).astype(_unsigned(1 << first.bits))
            counted = counts[rows]
            counted = counted.astype(_unsigned(int(counted.max()) + 1))
            sums = high.take(rows, axis=0), None if rest is None else rest.take(rows, axis=0)
            block = _Block(tile, len(own), keys, counted, *sums)
            blocks.append((self.partition_of(tile), pickle.dumps(tuple(block), protocol=5)))
        return numbers, np.array(tiles, np.int64).reshape(-1, len(self.tile)), blocks

    def _seen(
        self, along: np.ndarray
    ) -> tuple[list[tuple[int, ...]], dict[tuple[int, ...], list[np.ndarray]]]:
        """Return the tiles that hold cells, (D, n), and the rows that each sees: its own, then its halo's."""
        seen: dict[tuple[int, ...], list[np.ndarray]] = {}
        if not along.shape[1]:
            return [], seen
        own, within = zip(*map(self._tiles_along, range(len(self.tile)), along), strict=True)
        least = [int(o.min()) for o in own]
        shape = [int(o.max()) - n + 1 for o, n in zip(own, least, strict=True)]
        keys = np.ravel_multi_index([o - n for o, n in zip(own, least, strict=True)], shape)

        def by_tile(
            rows: np.ndarray | None, step: Sequence[int]
        ) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
            some = keys if rows is None else keys[rows]
            for key, place in _grouped(some, math.prod(shape)):
                tile = np.add(np.unravel_index(key, shape), least) + step
                yield tuple(tile.tolist()), place if rows is None else rows[place]

        for tile, rows in by_tile(None, [0] * len(least)):
            seen[tile] = [rows]
        tiles = list(seen)
        for step, rows in self._halos(within):
            for tile, each in by_tile(rows, step):
                seen.setdefault(tile, [np.empty(0, each.dtype)]).append(each)
        return tiles, seen

    def _tiles_along(self, axis: int, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the tile of each cell along an axis, and where in it the cell lies."""
        tile = int(self.tile[axis])
        half, least, greatest = tile // 2, int(cells.min()), int(cells.max())
        first, last = (least + half) // tile, (greatest + half) // tile
        if last - first > _FEW or max(abs(first) * tile, (last + 1) * tile) > np.iinfo(np.int32).max:
            return np.divmod(cells.astype(np.int64) + half, tile)
        own = np.full(len(cells), first, np.int32)
        for t in range(first + 1, last + 1):  # a tenth of the time of a division
            own += cells >= t * tile - half
        return own, cells - (own * np.int32(tile) - np.int32(half))

    def _halos(self, within: Sequence[np.ndarray]) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Yield steps to other tiles, and the rows of voxels that those see, which lie so in their own."""
        sides = zip(within, self.left, self.right, self.tile, strict=True)
        rows = np.flatnonzero(np.logical_or.reduce([(w < r) | (w >= t - a) for w, a, r, t in sides]))
        if not len(rows):
            return
        sees = []  # by axis: which rows each step's tile sees
        for w, a, r, t in zip(within, self.left, self.right, self.tile, strict=True):
            lowest, highest = (w[rows] - r) // t, (w[rows] + a) // t
            steps = range(int(lowest.min()), int(highest.max()) + 1)
            sees.append({step: (lowest <= step) & (step <= highest) for step in steps})
        for step in itertools.product(*sees):
            if any(step):
                seen = np.logical_and.reduce([sees[axis][s] for axis, s in enumerate(step)])
                if seen.any():
                    yield step, rows[seen]

    def leave(
        self, net: nn.Module, sent: list[tuple[int, bytes | memoryview]]
    ) -> list[tuple[int, tuple[int, ...], bytes]]:
        """Return (chunk, tile, labels of its voxels) for what chunks sent to tiles, as (chunk, block)."""
        tiles: dict[tuple[int, ...], list[tuple[int, _Block]]] = {}
        for chunk, packed in sorted(sent, key=lambda each: each[0]):
            block = _Block(*pickle.loads(packed))
            tiles.setdefault(block.tile, []).append((chunk, block))
        out = []
        for tile, chunks in sorted(tiles.items()):
            if any(block.own for _, block in chunks):
                labels = self._label(net, tile, [block for _, block in chunks])
                for (chunk, block), each in zip(chunks, labels, strict=True):
                    if block.own:
                        out.append((chunk, tile, each[: block.own].tobytes()))
        return out

    def _label(self, net: nn.Module, tile: tuple[int, ...], blocks: list[_Block]) -> list[np.ndarray]:
        """Return the labels of the voxels of each block."""
        layout = self.layout_of(tile)
        keys = np.concatenate([block.keys for block in blocks]).astype(np.uint64)
        unique, ranks, order, starts = group_keys(keys, layout.bits)
        high, lows = np.concatenate([block.high for block in blocks]), None
        if any(block.low is not None for block in blocks):
            each = [np.zeros_like(block.high) if block.low is None else block.low for block in blocks]
            lows = np.concatenate(each)
        counts = np.concatenate([block.counts.astype(np.int64) for block in blocks])
        sums = sum_segments(high, order, starts, np.dtype(np.float64), lows=lows)
        features = sums / np.add.reduceat(counts[order], starts[:-1])[:, None]
        grid = None, 1, np.zeros(len(tile)), self.voxel_size.copy()  # which its sites would make read-only
        coords = Coords._of(sites_from_keys(unique, layout, None, None, *grid))
        x = SparseTensor._of(coords, features.astype(self.dtype))
        y = tiled.apply(net, x, sites=self.sites) if x.num_sites > self.sites else net(x)
        labels = y.features.argmax(axis=1).astype(LABEL)
        ends = np.cumsum([len(block.keys) for block in blocks])[:-1]
        return [labels[at] for at in np.split(ranks, ends)]


_FEW = 16  # tiles


def _keys(along: np.ndarray, layout: Layout) -> Any:
    """Return the keys of cells, (D, ..), in a layout that would begin at 0."""
    keys: Any = 0
    for cells, shift in zip(along, layout.shift[1:].tolist(), strict=True):
        keys = keys + (cells << shift)
    return keys


def _grouped(keys: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each key below a size that occurs, and where."""
    if size > 256:
        unique, _, order, starts = group_keys(keys.astype(np.uint64), size.bit_length())
        yield from zip(unique[:-1].tolist(), np.split(order, starts[1:-1]), strict=True)
        return
    keys = keys.astype(np.uint8)
    for key in np.flatnonzero(np.bincount(keys, minlength=size)).tolist():
        yield key, np.flatnonzero(keys == key)


LABEL = np.dtype(np.int16)  # of a point: the class with the greatest score, -1 where the point was dropped


def labels_of(rows: np.ndarray, tiles: np.ndarray, found: dict[tuple[int, ...], bytes]) -> np.ndarray:
    """Return the label of each point from those of its voxels, by tile."""
    labels = b"".join(found[tuple(tile)] for tile in tiles.tolist())
    return np.append(np.frombuffer(labels, LABEL), LABEL.type(-1))[rows]


def _unsigned(size: int) -> np.dtype:
    """Return the smallest dtype of numbers below a size."""
    return np.min_scalar_type(max(size - 1, 0))


def make_job(
    net: nn.Module,
    voxel_size: Any,
    ndim: int,
    partitions: int,
    *,
    tile: int | Sequence[int] | None,
    sites: int,
    invalid: Literal["raise", "drop"],
    features: Describe | None,
) -> Job:
    """Check what all inputs have in common."""
    left, right, least = tiled.halo_of(net, ndim)
    size = _check.lengths(voxel_size, ndim, "voxel_size")
    if (size <= 0).any():
        raise ValueError(f"voxel_size must be positive, got {voxel_size!r}")
    _check.choice(invalid, ("raise", "drop"), "invalid")
    sites = _check.per_axis(sites, 1, "sites", 1)[0]
    if tile is None:  # a sixteenth more sites are computed where they spread along two axes
        cells = np.maximum(256, -(-32 * (left + right) // least) * least)
    else:
        cells = np.array(_check.per_axis(tile, ndim, "tile", 1))
        if (cells < least).any():
            raise ValueError(
                f"tile must be at least the stride of the network, {least.tolist()}, got {cells.tolist()}"
            )
    if sum(int(n - 1).bit_length() for n in cells + left + right) > 62:
        raise ValueError(f"tile must have at most 62 bits of cells with its halo, got {cells.tolist()}")
    return Job(size, cells, left, right, partitions, sites, invalid, features, network_dtype(net))
