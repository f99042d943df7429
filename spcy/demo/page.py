"""The cloud in 3-D as one HTML file that needs nothing else, to be turned, zoomed and asked; needs plotly.

plotly draws: it is kept, needs two small packages, and its events say in the page which point is under the
pointer, so that what a site is need not be stored as text. k3d has a script of half the size and draws voxels
by itself, but only a Python kernel learns what is under the pointer; three.js would need a viewer of our own.
"""

import base64
import json
import re
import zlib
from html import escape
from importlib import resources
from typing import Any

import numpy as np

try:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex
    from plotly.offline import get_plotlyjs
except ImportError as error:
    raise ImportError('pictures need matplotlib and plotly: pip install "spcy[plot]"') from error

import spcy
from spcy.demo import network
from spcy.demo.geometry import LABELS
from spcy.demo.pictures import LABEL_COLOURS, LEARNED_COLOURS, NORMAL_COLOURS, UNKNOWN
from spcy.demo.run import VOXEL_SIZE, Result

MOST_SITES = 300_000  # that are drawn; of more, evenly chosen ones
MOST_CUBES = 60_000  # beyond, neighbouring voxels are drawn as one
MOST_BYTES = 12_000_000
STEPS = 12  # of a normal's share along an axis, and
SHADES = 64  # of heights, in colours
NEIGHBOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#edc948", "#76b7b2", "#9c755f")
NO_HEIGHT = -(1 << 15)


def page(result: Result) -> str:
    """Return the page.

    Parameters
    ----------
    result : Result

    Returns
    -------
    str
        HTML; in UTF-8 at most 12 MB.
    """
    template = resources.files("spcy.demo").joinpath("page.html").read_text(encoding="utf-8")
    parts = {
        "title": escape(result.scan.name),
        "plotly": get_plotlyjs().replace("</script", "<\\/script"),
    }
    most = MOST_SITES
    while True:
        parts["data"] = json.dumps(document(result, most), allow_nan=False).replace("<", "\\u003c")
        text = re.sub(r"\{\{(\w+)\}\}", lambda marker: parts[marker[1]], template)
        if len(text.encode()) <= MOST_BYTES:
            return text
        most = most * 3 // 4  # noise is hard to compress


def document(result: Result, most: int = MOST_SITES) -> dict[str, Any]:
    """Return what the page's script reads.

    Parameters
    ----------
    result : Result
    most : int, optional
        Sites that may be drawn.

    Returns
    -------
    dict
        What JSON can hold. "packed" is the bytes of "arrays" (name, dtype, length), compressed, in base 64.
        Row i of them is the site ``i * num // shown``.
    """
    num = len(result.points)
    shown = min(num, most)
    rows = np.arange(shown) * num // shown
    place = result.points[rows] / VOXEL_SIZE
    indices = result.voxels.tensor.indices[rows, 1:].astype(np.int64)
    first = indices.min(axis=0)
    cell = indices - first
    cubes, step = _cubes(cell)
    height = result.height[rows]
    centimetres = np.rint(100 * height).clip(1 + NO_HEIGHT, -1 - NO_HEIGHT)
    arrays = {
        "cube": cubes,
        "cell": cell.astype(np.uint16 if cell.max() < 1 << 16 else np.int32),
        "centimetres": np.where(np.isnan(height), NO_HEIGHT, centimetres).astype(np.int16),
        "within": np.floor(256 * (place - indices)).clip(0, 255).astype(np.uint8),
        "direction": np.rint(127 * result.geometry.normal[rows]).astype(np.int8),
    }
    levels = [(coords.origin / VOXEL_SIZE, float(coords.voxel_size[0])) for coords in result.network.levels]
    colours = [
        _by_label("label", LABELS, result.labels, LABEL_COLOURS),
        _by_label("learned label", network.LABELS, result.learned, LEARNED_COLOURS),
        _by_normal(result.geometry.normal),
        _by_height(result.height),
        *(_by_cell(result.voxels.tensor.indices[:, 1:], n, *level) for n, level in enumerate(levels[1:], 2)),
    ]
    arrays |= {colour["title"]: colour.pop("index")[rows] for colour in colours}
    names = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)  # so all are aligned in one buffer
    packed = zlib.compress(b"".join(arrays[name].tobytes() for name in names), 9)
    base = 1000 * np.rint(first * VOXEL_SIZE / 1000) * (np.abs(first * VOXEL_SIZE) > 10_000)
    thinned = f"{shown:,} of {num:,} sites, evenly thinned" if shown < num else f"{num:,} sites"
    return {
        "num": num,
        "shown": shown,
        "edge": VOXEL_SIZE,
        "first": first.tolist(),
        "base": base.tolist(),  # far from the origin, single precision would round to decimetres
        "step": step,
        "said": [thinned, f"{thinned}, as {len(cubes):,} cubes of {step * VOXEL_SIZE:g} m"],
        "levels": [{"start": start.tolist(), "edge": edge / VOXEL_SIZE} for start, edge in levels],
        "colours": colours,
        "arrays": [[name, arrays[name].dtype.str[1:], arrays[name].size] for name in names],
        "packed": base64.b64encode(packed).decode(),
    }


def _cubes(cell: np.ndarray) -> tuple[np.ndarray, int]:
    """Return a row in each cube that is drawn, and the cubes' edge in voxels, a power of two."""
    rows, step = np.arange(len(cell)), 1
    while len(rows) > MOST_CUBES:
        step *= 2
        with spcy.use_backend("cpu"):
            found = spcy.voxelize(cell[rows] + 0.5, step, features=rows[:, None] + 0.0, reduce="first")
        rows = found.tensor.features[:, 0].astype(int)
    return rows.astype(np.int32), step


def _by_label(title: str, names: tuple[str, ...], labels: np.ndarray, colours: np.ndarray) -> dict[str, Any]:
    palette = [to_hex(colour) for colour in colours]
    counts = np.bincount(labels, minlength=len(names))
    legend = [
        [colour, f"{name} ({count:,})"] for colour, name, count in zip(palette, names, counts, strict=True)
    ]
    return {"title": title, "names": names, "palette": palette, "legend": legend, "index": labels}


def _by_normal(normal: np.ndarray) -> dict[str, Any]:
    """Return colours by a normal's shares along x and y, in steps; the rest is its share along z."""
    shares = [(i, j, STEPS - i - j) for i in range(STEPS + 1) for j in range(STEPS + 1 - i)]
    starts = np.cumsum([0, *range(STEPS + 1, 1, -1)])
    along_x, along_y = np.rint(STEPS * normal[:, :2] ** 2).astype(int).T
    index = starts[along_x] + np.minimum(along_y, STEPS - along_x)
    index[~normal.any(axis=1)] = len(shares)
    mixed = np.array(shares) / STEPS @ NORMAL_COLOURS
    legend = [[to_hex(colour), f"along {axis}"] for colour, axis in zip(NORMAL_COLOURS, "xyz", strict=True)]
    legend.append([to_hex(UNKNOWN), "too few neighbours"])
    palette = [to_hex(colour) for colour in [*mixed, UNKNOWN]]
    return {"title": "normal", "palette": palette, "legend": legend, "index": index.astype(np.uint8)}


def _by_height(height: np.ndarray) -> dict[str, Any]:
    known = ~np.isnan(height)
    low, high = np.percentile(height[known], [1, 99]) if known.any() else (0, 0)
    index = np.full(len(height), SHADES, np.uint8)
    share = (height[known] - low) / max(high - low, 1e-9)
    index[known] = np.rint((SHADES - 1) * share.clip(0, 1))
    shades = [to_hex(colour) for colour in colormaps["viridis"](np.linspace(0, 1, SHADES))]
    legend = [
        [shades[::9], [f"{low:.1f} m", f"{high:.1f} m above ground"]],
        [to_hex(UNKNOWN), "no ground near"],
    ]
    return {"title": "height", "palette": [*shades, to_hex(UNKNOWN)], "legend": legend, "index": index}


def _by_cell(indices: np.ndarray, level: int, start: np.ndarray, edge: float) -> dict[str, Any]:
    """Return colours by the cell of a level that a site lies in, those of neighbouring cells differing."""
    cell = np.floor((indices + 0.5 - start) / (edge / VOXEL_SIZE) + 1e-6).astype(np.int64)
    legend = [
        [NEIGHBOURS[0], f"sites of one colour side by side lie in one cell of level {level}, {edge:g} m wide"]
    ]
    index = (cell % 2 @ [1, 2, 4]).astype(np.uint8)
    return {"title": f"level {level}", "palette": NEIGHBOURS, "legend": legend, "index": index}
