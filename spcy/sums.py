"""Exact sums over segments of rows: the same bits in any order of the rows, and however they are joined."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ._backend import array_module, kernels_for, to_host
from ._memory import empty
from ._threads import threads_for
from ._width import rounded, widened


class Sums(NamedTuple):
    """Sums that were not rounded yet: each is high + low."""

    high: np.ndarray  # (segments, C) float64
    low: np.ndarray  # (segments, C) float64
    loose: np.ndarray  # (segments,) bool: where two doubles do not hold the sum


def sum_segments(
    values: np.ndarray,
    order: np.ndarray | None,
    segment_ptr: np.ndarray,
    dtype: DTypeLike,
    *,
    mean: bool = False,
    lows: np.ndarray | None = None,
) -> np.ndarray:
    """Return the sums of ``values[order[segment_ptr[s]:segment_ptr[s + 1]]]`` by segment s, or their means.

    With `lows`, each value is one of values + one of lows, which are float64. The sum is rounded once to
    float64, and the mean then to `dtype`. Sums with a number that is not finite are in the order of the rows.
    """
    values, xp = widened(values), array_module(values)
    made = dtype if dtype in (np.float32, np.float64) else np.float64
    out = empty(xp, (len(segment_ptr) - 1, values.shape[1]), made)
    loose = _add(values, lows, order, segment_ptr, mean, out, None)
    for s in np.flatnonzero(to_host(loose)).tolist():
        rows = slice(int(segment_ptr[s]), int(segment_ptr[s + 1]))
        terms = to_host(_terms(values, lows, order, rows)).astype(np.float64)
        sums = [_sum_of(column) for column in terms.T.tolist()]
        out[s] = xp.asarray(np.array(sums) / ((rows.stop - rows.start) if mean else 1))
    return rounded(out, dtype)


def partial_sums(values: np.ndarray, order: np.ndarray | None, segment_ptr: np.ndarray) -> Sums:
    """Return sums over segments that are to be added to others; of the loose ones none is of use."""
    values, xp = widened(values), array_module(values)
    high = empty(xp, (len(segment_ptr) - 1, values.shape[1]), np.float64)
    low = xp.empty_like(high)
    loose = _add(values, None, order, segment_ptr, False, high, low)
    return Sums(high, low, loose.astype(bool))


def _add(
    values: np.ndarray,
    lows: np.ndarray | None,
    order: np.ndarray | None,
    segment_ptr: np.ndarray,
    mean: bool,
    out: np.ndarray,
    out_lows: np.ndarray | None,
) -> np.ndarray:
    """Run the kernel, and return which sums are loose."""
    loose = empty(array_module(values), len(out), np.int32)
    if out.size:
        threads = threads_for(2 * values.size + out.size)
        kernel = kernels_for(values).pool.segment_sums
        kernel(values, lows, order, segment_ptr, mean, out, out_lows, loose, threads)
    else:
        loose.fill(0)
    return loose


def _terms(values: np.ndarray, lows: np.ndarray | None, order: np.ndarray | None, rows: slice) -> np.ndarray:
    """Return what is added up in a segment, in order."""
    at = rows if order is None else order[rows]
    return values[at] if lows is None else array_module(values).concatenate([values[at], lows[at]])


def _sum_of(terms: list[float]) -> float:
    if not all(map(math.isfinite, terms)):
        with np.errstate(invalid="ignore"):
            return float(np.add.accumulate(terms)[-1])
    try:
        return math.fsum(terms)
    except OverflowError:  # the sum is too large, or a part of it
        from fractions import Fraction  # at the start it would cost 4 ms

        total = sum(map(Fraction, terms))
    try:
        return float(total)
    except OverflowError:
        return math.inf if total > 0 else -math.inf
