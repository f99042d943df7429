"""Kernels as lists of offsets, and how the rulebook builders take them apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _check
from ._backend import host_array

_WINDOW = 32  # reach.h: the steps of a line span less


def kernel_offsets(kernel_size: Sequence[int], dilation: int | Sequence[int] = 1) -> np.ndarray:
    """Return the offsets of a box kernel.

    Parameters
    ----------
    kernel_size : sequence of D ints
        Cells of the window along each axis.
    dilation : int or sequence of D ints
        Distance between them.

    Returns
    -------
    ndarray of shape (K, D), int32
        In C order of the kernel's axes, the first one 0. Subtract the middle one for the centred box
        that `submanifold_rulebook` usually wants.

    Raises
    ------
    TypeError
        If `kernel_size` is no sequence of ints.
    ValueError
        If a size or a dilation is less than 1.

    Examples
    --------
    >>> import spcy
    >>> spcy.kernel_offsets((2, 2)).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    if not isinstance(kernel_size, (Sequence, np.ndarray)) or isinstance(kernel_size, str):
        raise TypeError(f"kernel_size must be a sequence of ints, one per axis, got {kernel_size!r}")
    if not 1 <= len(kernel_size) <= _check.MAX_NDIM:
        raise ValueError(f"kernel_size must have 1 .. {_check.MAX_NDIM} axes, got {kernel_size!r}")
    kernel_size = _check.per_axis(kernel_size, len(kernel_size), "kernel_size", 1)
    dilation = _check.per_axis(dilation, len(kernel_size), "dilation", 1)
    if math.prod(kernel_size) > _check.MAX_ROWS:
        raise ValueError(f"kernel_size must have at most {_check.MAX_ROWS} cells, got {kernel_size}")
    if any((k - 1) * d > _check.INT32.max for k, d in zip(kernel_size, dilation, strict=True)):
        raise ValueError(f"dilation must keep offsets in int32, got {dilation} for kernel_size {kernel_size}")
    grid = np.indices(kernel_size, np.int32).reshape(len(kernel_size), -1).T
    return np.ascontiguousarray(grid * np.array(dilation, np.int32))


class Stencil:
    """A kernel's checked offsets, with what is asked of them again and again.

    `columns` are the offsets as columns of coordinates have them, the batch first, which none changes;
    `column_low` and `column_high` bound them, `low` and `high` without the batch.
    """

    __slots__ = ("column_high", "column_low", "columns", "high", "kernel_size", "key", "low", "offsets")

    column_low: np.ndarray
    column_high: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __init__(self, offsets: np.ndarray):
        self.offsets: np.ndarray = offsets
        self.key: bytes = offsets.tobytes()
        self.columns: np.ndarray = np.insert(offsets, 0, 0, axis=1)
        self.column_low, self.column_high = self.columns.min(axis=0), self.columns.max(axis=0)
        self.low, self.high = self.column_low[1:], self.column_high[1:]
        self.kernel_size: tuple[int, ...] | None = _box_size(offsets)


def _box_size(offsets: np.ndarray) -> tuple[int, ...] | None:
    """Return the kernel size if the offsets are those of a box, in their order, else None."""
    values = [np.unique(column) for column in offsets.T]
    even = all(np.ptp(np.diff(v)) == 0 for v in values if len(v) > 1)
    if not even or math.prod(len(v) for v in values) != len(offsets):
        return None
    box = np.stack(np.meshgrid(*values, indexing="ij"), axis=-1).reshape(offsets.shape)
    return tuple(len(v) for v in values) if np.array_equal(box, offsets) else None


def stencil_of(offsets: ArrayLike, ndim: int) -> Stencil:
    """Return the stencil of offsets as a user writes them; equal ones are checked once and kept."""
    array = host_array(offsets, "offsets")
    if array.dtype.kind not in "iu":
        return Stencil(_check.offsets(array, ndim))  # raises, by its own order of checks
    return _kept_stencil(array.tobytes(), array.shape, array.dtype, ndim)


@lru_cache(maxsize=256)
def _kept_stencil(data: bytes, shape: tuple[int, ...], dtype: np.dtype, ndim: int) -> Stencil:
    return Stencil(_check.offsets(np.frombuffer(data, dtype).reshape(shape), ndim))


@lru_cache(maxsize=256)
def box_stencil(kernel_size: tuple[int, ...], dilation: tuple[int, ...], centred: bool = False) -> Stencil:
    """Return the stencil of a box, from checked arguments."""
    offsets = kernel_offsets(kernel_size, dilation).astype(np.int64)
    return Stencil(offsets - offsets[len(offsets) // 2] if centred else offsets)


@lru_cache(maxsize=256)
def num_searched(stencil: Stencil) -> int:
    """Return how many offsets of a submanifold convolution are searched: the others mirror them."""
    symmetric = np.array_equal(stencil.columns, -stencil.columns[::-1])
    return len(stencil.columns) // 2 + 1 if symmetric else len(stencil.columns)


@lru_cache(maxsize=256)
def most_reached(stencil: Stencil, stride: tuple[int, ...], divide: bool) -> int:
    """Return how many outputs a site of a strided convolution (divide) or a transposed one can have."""
    remainders = np.mod(stencil.offsets, stride) if divide else np.zeros_like(stencil.offsets)
    return int(np.unique(remainders, axis=0, return_counts=True)[1].max())


@lru_cache(maxsize=256)
def walk_lines(stencil: Stencil, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how walk.h takes the first `num` offsets.

    They are grouped into lines, that follow each other along the last axis: the first offset of each, in
    columns, and line_ptr.
    """
    columns = stencil.columns[:num]
    step = np.zeros(columns.shape[1], np.int64)
    step[-1] = 1
    breaks = 1 + np.flatnonzero((np.diff(columns, axis=0) != step).any(axis=1))
    line_ptr = np.concatenate([[0], breaks, [len(columns)]]).astype(np.int64)
    return columns[line_ptr[:-1]], line_ptr


@lru_cache(maxsize=256)
def reach_groups(stencil: Stencil, stride: tuple[int, ...], divide: bool) -> tuple[Any, ...]:
    """Return how reach.h takes the offsets of a strided convolution (divide) or of a transposed one.

    They are grouped by remainders into heads and tails, by steps into lines. These are the arguments of
    the kernels' `Reach` behind its columns.
    """
    offsets, strides = stencil.columns, np.array((1, *stride))
    remainders = np.mod(offsets, strides) if divide else np.zeros_like(offsets)
    steps = (remainders - offsets) // strides if divide else offsets
    columns = steps.shape[1]
    values = [np.unique(remainders[:, c]) for c in range(columns)]
    residue_ptr = np.cumsum([0] + [len(v) for v in values])
    place = np.stack([np.searchsorted(v, r) for v, r in zip(values, remainders.T, strict=True)])
    head = np.zeros(len(steps), np.int64)
    for c in range(columns - 1):
        head = head * len(values[c]) + place[c]
    tail = place[-1]
    part = (steps[:, -1] - steps[:, -1].min()) // _WINDOW
    line_of, line = np.unique(np.column_stack([head, steps[:, :-1], part]), axis=0, return_inverse=True)
    line = line.ravel()
    low, high = _bounds_of_groups(steps, line, len(line_of))
    head_ids, head, head_sizes = np.unique(line_of[:, 0], return_inverse=True, return_counts=True)
    head_low, head_high = _bounds_of_groups(steps, head.ravel()[line], len(head_ids))
    entries = np.lexsort((steps[:, -1], tail, line))
    if len(line_of) * len(values[-1]) >= 1 << 26:  # the table below has so many places
        raise ValueError(f"offsets have too many different remainders for stride {[*stride]}")
    tails = np.bincount(line * len(values[-1]) + tail, minlength=len(line_of) * len(values[-1]))
    return (
        divide,
        residue_ptr,
        np.concatenate(values),
        head_ids,
        np.concatenate([[0], np.cumsum(head_sizes)]),
        head_low,
        head_high,
        low,
        high[:, -1] - low[:, -1],
        np.concatenate([[0], np.cumsum(tails)]),
        (steps[:, -1] - low[line, -1])[entries],
        entries,
    )


def _bounds_of_groups(values: np.ndarray, group: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest value of each column, by group of rows."""
    low = np.full((num, values.shape[1]), np.iinfo(np.int64).max)
    high = np.full((num, values.shape[1]), np.iinfo(np.int64).min)
    np.minimum.at(low, group, values)
    np.maximum.at(high, group, values)
    return low, high


@lru_cache(maxsize=256)
def first_axis_fastest(kernel_size: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the place in C order of each cell of a box with its first axis fastest; None if it is there.

    Pairs are found faster in C order, in which cells follow each other along the last axis.
    """
    cells = np.arange(math.prod(kernel_size))
    places = cells.reshape(kernel_size).T.ravel()
    return None if np.array_equal(places, cells) else tuple(places.tolist())
