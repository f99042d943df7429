"""What notebooks show: HTML without scripts, in the colours of the page around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from ._backend import to_host

_BINS = 40  # of a picture's longer side
_SAMPLES = 1 << 18  # rows that a picture is made of at most, evenly taken: 5 ms
_SHADES = 4
_SIDE = 160  # pixels
_CELL = "text-align:{};padding:0 .6em;border:0;white-space:nowrap"


def escape(text: str) -> str:
    """Return text as HTML has it."""
    import html  # here: it makes a table of thousands of characters' names

    return html.escape(text)


def card(kind: str, words: str, parts: Mapping[str, str], picture: str = "") -> str:
    """Return what stands for an object: a line, and what can be unfolded beside a picture."""
    folded = [
        f"<summary style='cursor:pointer'>{escape(title)}</summary>{part}</details>"
        for title, part in parts.items()
    ]
    unfolded = "<details open=''>" + "<details>".join(folded)
    return (
        "<div style='color:inherit;max-width:80em'>"
        f"<div><strong>{escape(kind)}</strong> <span style='opacity:.75'>{escape(words)}</span></div>"
        "<div style='display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start;margin:.4em 0 0'>"
        f"{picture}<div style='flex:1;min-width:14em;overflow-x:auto'>{unfolded}</div></div></div>"
    )


def table(rows: Iterable[Sequence[Any]], header: Sequence[str] = (), left: int = 1) -> str:
    """Return a table, its first `left` columns flushed left, the others right."""

    def line(cells: Sequence[Any], tag: str) -> str:
        sides = ["left"] * left + ["right"] * (len(cells) - left)
        made = (
            f"<{tag} style='{_CELL.format(side)}'>{escape(str(cell))}</{tag}>"
            for cell, side in zip(cells, sides, strict=True)
        )
        return f"<tr style='background:none'>{''.join(made)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    head = f"<thead>{line(header, 'th')}</thead>" if header else ""
    return f"<table style='color:inherit;border:0;margin:0 0 .4em 1em'>{head}<tbody>{body}</tbody></table>"


def site_picture(indices: Any, low: np.ndarray, high: np.ndarray) -> str:
    """Return a picture of the cells that sites occupy, in the box `low` .. `high` of all columns.

    Two axes are drawn as a matrix's; of more, those two along which the sites spread most, as a map's.
    """
    spans = high - low + 1
    if len(spans) == 2:
        columns, words = [1], "along the axis"
    elif len(spans) == 3:
        columns, words = [1, 2], "axis 0 down, axis 1 to the right"
    else:
        across, up = np.sort(np.argsort(-spans[1:], kind="stable")[:2]).tolist()
        columns, words = [1 + up, 1 + across], f"axis {across} to the right, axis {up} up"
    sample = to_host(indices[:: -(-len(indices) // _SAMPLES) or 1])
    counts = _histogram(sample, columns, low, spans)
    if len(spans) > 3:
        counts = counts[::-1]
    shades = np.ceil(_SHADES * np.sqrt(counts / max(1, counts.max()))).astype(int)
    paths: list[list[str]] = [[] for _ in range(_SHADES + 1)]
    for y, row in enumerate(shades.tolist()):
        x = 0
        for shade, run in groupby(row):
            length = len([*run])
            paths[shade].append(f"M{x} {y}h{length}")
            x += length
    drawn = "".join(
        f"<path stroke-opacity='{shade / _SHADES:g}' d='{''.join(path)}'/>"
        for shade, path in enumerate(paths)
        if shade and path
    )
    drawn = f"<g transform='translate(0 .5)'>{drawn}</g>"
    height, width = counts.shape
    return _svg(width, height, drawn, f"Where sites are: {words}")


def _histogram(indices: np.ndarray, columns: Sequence[int], low: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Return how many indices lie in each bin of one or two columns' range, as a matrix."""
    longest = max(int(spans[column]) for column in columns)
    bins = [max(1, min(_BINS, longest) * int(spans[column]) // longest) for column in columns]
    flat = np.zeros(len(indices), np.int64)
    for column, count in zip(columns, bins, strict=True):
        place = (indices[:, column].astype(np.int64) - low[column]) * count // spans[column]
        flat = flat * count + place
    return np.bincount(flat, minlength=np.prod(bins)).reshape(-1, bins[-1])


def bars(values: np.ndarray, title: str) -> str:
    """Return a picture of numbers as bars; of more than there is room for, the mean of neighbours."""
    if len(values) > _SIDE:
        starts = np.linspace(0, len(values), _SIDE, endpoint=False).astype(int)
        values = np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))
    heights = np.round(_BINS * values / (values.max(initial=0) or 1), 1)
    path = "".join(f"M{x}.5 {_BINS}v-{height:g}" for x, height in enumerate(heights.tolist()) if height)
    drawn = f"<path stroke-width='.8' stroke-opacity='.75' d='{path}'/>"
    return _svg(max(1, len(values)), _BINS, drawn, title, stretch=True)


def _svg(width: int, height: int, drawn: str, title: str, stretch: bool = False) -> str:
    scale = _SIDE / max(width, height)
    size = (_SIDE, _SIDE // 2) if stretch else (round(width * scale), max(8, round(height * scale)))
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{size[0]}' "
        f"height='{size[1]}' preserveAspectRatio='none' role='img' fill='none' stroke='currentColor' "
        f"style='flex:none;outline:1px solid;outline-color:color-mix(in srgb,currentColor 25%,transparent)'>"
        f"<title>{escape(title)}</title>{drawn}</svg>"
    )
