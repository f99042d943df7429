"""Rows of features, taken to other places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ._backend import array_module, kernels_for
from ._memory import empty
from ._threads import threads_for

_BYTES = 4  # that are copied in a nanosecond, about


def take_rows(values: np.ndarray, rows: np.ndarray | None, columns: slice = slice(None)) -> np.ndarray:
    """Return some columns of (N, C) values by row, zeros for the row -1; `rows` None for all."""
    xp = array_module(values)
    first, end, _ = columns.indices(values.shape[1])
    out = empty(xp, (len(values) if rows is None else len(rows), end - first), values.dtype)
    _take(values, first, rows, out, 0, end - first)
    return out


def join_rows(values: Sequence[np.ndarray], rows: Sequence[np.ndarray | None], num_rows: int) -> np.ndarray:
    """Return values of one dtype side by side, each by rows of its own as in `take_rows`."""
    ends = np.cumsum([v.shape[1] for v in values])
    out = empty(array_module(*values), (num_rows, int(ends[-1])), values[0].dtype)
    for each, taken, end in zip(values, rows, ends.tolist(), strict=True):
        _take(each, 0, taken, out, end - each.shape[1], each.shape[1])
    return out


def inverse(places: np.ndarray, num_rows: int) -> np.ndarray:
    """Return where each row stands among places, -1 for those that do not."""
    xp = array_module(places)
    out = xp.full(num_rows, -1, np.int32)
    out[places] = xp.arange(len(places), dtype=np.int32)
    return out


def _take(
    values: np.ndarray, first: int, rows: np.ndarray | None, out: np.ndarray, place: int, count: int
) -> None:
    """Write columns of values to columns of out."""
    if not len(out) or not count:
        return
    if not len(values):
        out[:, place : place + count] = 0
        return
    size = values.dtype.itemsize
    source, target = values.view(np.uint8), out.view(np.uint8)
    threads = threads_for(len(out) * count * size / _BYTES)
    kernels = kernels_for(source, target).rows
    kernels.take(source, first * size, rows, target, place * size, count * size, threads)
