"""How many columns a file of bare numbers has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FARTHEST = 1e8  # metres; a larger coordinate is bytes of something else read as a number
WIDTHS = range(3, 9)
_JUDGED = range(3, 17)  # rows that repeat, such as those of a sensor's rings, look like wider ones
_NUMBERS = 1 << 17  # that are looked at
_FEW = 16  # rows, of which the steps say nothing
_NATS = 20  # by which the best must be better: e**20 to one
_CLEARLY = 0.05  # nats of each number by which it is better that the last row is cut


class _Width(NamedTuple):
    """What speaks for a number of columns."""

    nats: float  # that it takes to write the numbers, each by its column's spread
    near: bool  # all coordinates are some
    smooth: bool  # neighbouring rows are near each other


def number_of_columns(values: np.ndarray) -> int:
    """Return how many columns there are, of numbers written row by row: x, y, z and others, each of its kind.

    Numbers of one kind take fewer bits to write than a mixture: the right width makes the shortest text,
    ``sum over columns of M * log(spread)``, where the spread is the standard deviation, of the numbers or of
    the steps from one row to the next.

    Raises
    ------
    ValueError
        If several numbers are as likely, or none of 3 .. 8 is likely, or the likely one leaves part of a row.
    """
    widths = [w for w in WIDTHS if len(values) % w == 0]
    if not widths:
        raise ValueError(
            f"truncated, or not a scan: {4 * len(values)} bytes are not whole rows of 3 .. 8 float32"
        )
    _refuse_cut(values, widths)
    if len(widths) == 1:
        return widths[0]
    widths = [w for w in _JUDGED if len(values) % w == 0 and (len(values) >= 4 * w or w in WIDTHS)]
    if len(values) < 4 * widths[-1]:
        raise _doubt(widths)
    judged = {w: _judge(values, w) for w in widths}
    judged = {w: found for w, found in judged.items() if found.near} or judged
    best = min(judged, key=lambda w: judged[w].nats)
    best = next((w for w in judged if best % w == 0 and judged[w].smooth), best)
    enough = judged[best].nats + _NATS
    rivals = [w for w, found in judged.items() if found.nats < enough and w % best]
    half, twice = (best // 2 if best % 2 == 0 else 0), 2 * best
    if half in judged and _alike(values, half)[:2].all():
        rivals.append(half)  # rows differ by turns, but x and y do not
    if twice in WIDTHS and twice in judged and not judged[best].smooth and not _alike(values, best).all():
        rivals.append(twice)
    if best not in WIDTHS:
        rivals += [w for w in judged if best % w == 0]
    if rivals:
        raise _doubt(sorted({best, *rivals}))
    return best


def _refuse_cut(values: np.ndarray, whole: Sequence[int]) -> None:
    """Raise ValueError if the numbers are clearly rows of a width that leaves part of a row at their end."""
    others = [w for w in WIDTHS if w not in whole]
    if not others or len(values) < _FEW * WIDTHS[-1]:
        return
    judged = {w: _judge(values, w) for w in WIDTHS}
    nats = min(judged[w].nats for w in whole if judged[w].near or not any(judged[v].near for v in whole))
    width = min(others, key=lambda w: (not judged[w].near, judged[w].nats))
    better = nats - judged[width].nats > _NATS + _CLEARLY * min(len(values), _NUMBERS)
    half = width // 2 if width % 2 == 0 else 0
    by_turns = half in whole and _alike(values, half).any()  # rows of the half that differ, but not in all
    if judged[width].near and better and not by_turns:
        raise ValueError(
            f"truncated, or columns must be given: rows of {width} float32 are likely, and {4 * len(values)} "
            f"bytes are no whole number of them"
        )


def _judge(values: np.ndarray, width: int) -> _Width:
    rows = _rows(values, width)
    nats, near, smooth = 0.0, True, len(rows) >= _FEW
    for i, column in enumerate(rows.T):
        column = column[np.isfinite(column)]
        if i < 3:
            near = near and len(column) > 0 and bool(np.abs(column).max() <= FARTHEST)
        if not len(column):
            continue
        spread = column.std()
        if len(column) >= _FEW:
            steps = np.diff(column).std()
            smooth = smooth and (i > 1 or bool(steps < 0.9 * spread))  # 1.4 where rows are in no order
            spread = min(spread, steps)
        least = 1e-6 * max(float(np.abs(column).max()), 1e-6)  # as float32 has no more digits
        nats += len(column) * math.log(max(spread, least)) + 1.5 * math.log(len(rows))
    for i in range(3, width - 2):
        if (abs((rows[:, i : i + 3] ** 2).sum(axis=1) - 1) < 1e-3).all():
            nats -= len(rows) * math.log(1e3)  # normals: two of the numbers tell the third
    return _Width(nats, near, smooth)


def _alike(values: np.ndarray, width: int) -> np.ndarray:
    """Return which columns are distributed alike in even and in odd rows, by Kolmogorov and Smirnov."""
    rows = _rows(values, width)
    rows = np.sort(rows[: len(rows) // 2 * 2].reshape(-1, 2, width), axis=0)
    out = []
    for even, odd in rows.transpose(2, 1, 0):
        every = np.concatenate([even, odd])
        far = abs(np.searchsorted(even, every, "right") - np.searchsorted(odd, every, "right")).max()
        out.append(far <= 2 * math.sqrt(2 * len(even)))  # of 1000 that are the same, one is not
    return np.array(out)


def _rows(values: np.ndarray, width: int) -> np.ndarray:
    return values[: min(len(values), _NUMBERS) // width * width].reshape(-1, width).astype(np.float64)


def _doubt(widths: Sequence[int]) -> ValueError:
    several = f"{', '.join(map(str, widths[:-1]))} or {widths[-1]}" if len(widths) > 1 else str(widths[0])
    return ValueError(
        f"columns must be given: rows of {several} float32 are likely; write their number, or their names, "
        "such as x,y,z,intensity"
    )
