"""Pictures on matplotlib's axes: sites from above, levels side by side, a rulebook's pairs.

Needs matplotlib: ``pip install "spcy[plot]"``. Cells lie where the coords' `origin` and `voxel_size` say.
Those of a grid of two axes are drawn as a matrix's, axis 0 downwards; of more axes as a map's, axis 0 to the
right and axis 1 up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

try:
    from matplotlib.axes import Axes
    from matplotlib.colors import to_rgba_array
    from matplotlib.image import AxesImage
    from matplotlib.quiver import Quiver
except ImportError as error:
    raise ImportError('spcy.plot needs matplotlib: pip install "spcy[plot]"') from error

from ._backend import to_host
from ._width import widened
from .coords import Coords, require_coords
from .rulebook import Rulebook
from .tensor import SparseTensor

__all__ = ["levels", "pairs", "sites"]

_SMALLEST = 1.4  # pixels; smaller cells are drawn larger than they are
_GAP = 8  # pixels of a matrix's cell from which on a line of one is left free between cells
_INK, _LIGHT, _PAPER = "#1f5fa8", "#a9c9ea", "#e6e6e6"


def sites(
    x: SparseTensor | Coords,
    values: ArrayLike | None = None,
    *,
    ax: Axes | None = None,
    **style: Any,
) -> AxesImage:
    """Draw sites from above, in the colours of values.

    Of sites above each other, the one farthest along axis 2 is seen. A grid with a shape is shown whole.
    Limits that were set on the axes before stay: sites outside are not drawn.

    Parameters
    ----------
    x : SparseTensor or Coords
        Of 2 .. 4 axes, on any backend; all batches are drawn.
    values : array_like of shape (N,), (N, 3) or (N, 4), or the name of a colour, optional
        By row: numbers for the colour map, of which NaN is not drawn, or red, green, blue (and alpha) in
        0 .. 1. Default the middle of the cell along axis 2, or one colour if there is no such axis.
    ax : matplotlib.axes.Axes, optional
        Default pyplot's current ones.
    **style
        For `matplotlib.axes.Axes.imshow`: cmap, vmin, vmax, alpha, ..

    Returns
    -------
    matplotlib.image.AxesImage
        For `matplotlib.figure.Figure.colorbar`.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as above.

    Examples
    --------
    >>> import numpy as np, spcy.plot
    >>> from matplotlib.figure import Figure
    >>> x = spcy.SparseTensor([[0, 2, 1], [0, 0, 3]], np.array([[0.5], [2.0]]), shape=(4, 4))
    >>> figure = Figure()
    >>> image = spcy.plot.sites(x, x.features[:, 0], ax=figure.subplots())
    >>> bar = figure.colorbar(image)
    """
    coords = _coords_of(x, "x")
    ax = _current() if ax is None else ax
    plane = _plane(coords)
    size, origin = coords.voxel_size[plane], coords.origin[plane]
    indices = to_host(coords.indices)[:, 1:].astype(np.int64)
    colours = _colours(values, coords)
    view = _view(ax, *_extent(coords, indices, plane))
    corners = origin + indices[:, plane] * size
    drawn = ((corners + size > view[0]) & (corners < view[1])).all(axis=1)
    if colours.ndim == 1:
        drawn &= ~np.isnan(colours)  # what is below is seen
    rows = np.flatnonzero(drawn)
    if coords.ndim > 2:
        rows = rows[np.argsort(indices[rows, 2], kind="stable")]

    pixels = size * (ax.bbox.size / (view[1] - view[0])).min()
    step = np.ceil(_SMALLEST / pixels).astype(np.int64)
    cells = indices[rows][:, plane] // step
    low, high = (cells.min(axis=0), cells.max(axis=0) + 1) if len(rows) else (np.zeros(2), np.ones(2))
    shape = *(high - low).astype(int)[::-1], *colours.shape[1:]
    image = np.full(shape, _NOTHING[colours.ndim], colours.dtype)
    across, along = (cells - low).astype(int).T
    image[along, across] = colours[rows]
    matrix = coords.ndim == 2
    if matrix and pixels.min() > _GAP:
        image = _spaced(image, int(pixels.min()))

    (left, right), (first, last) = (origin + np.stack([low, high]) * step * size).T
    extent = (left, right, last, first) if matrix else (left, right, first, last)
    style = {"origin": "upper" if matrix else "lower", "interpolation": "nearest", **style}
    shown = ax.imshow(image, extent=extent, **style)
    ax.update_datalim(view)
    if ax.get_autoscalex_on():
        ax.set_xlim(*view[:, 0], auto=None)
    if ax.get_autoscaley_on():
        ax.set_ylim(*view[:: -1 if matrix else 1, 1], auto=None)
    return shown


def levels(
    levels: Sequence[SparseTensor | Coords], *, ax: Sequence[Axes] | None = None, **style: Any
) -> list[AxesImage]:
    """Draw the sites of levels side by side, in the same scale and colours, with their sizes as titles.

    Parameters
    ----------
    levels : sequence of SparseTensor or Coords
        The finest first; of 2 .. 4 axes.
    ax : sequence of matplotlib.axes.Axes, optional
        One for each level. Default those of a new figure.
    **style
        As for `sites`; the limits of the colours are by default those of nearly all sites of the first level.

    Returns
    -------
    list of matplotlib.image.AxesImage
        One colour bar serves all.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as above.

    Examples
    --------
    >>> import numpy as np, spcy.plot
    >>> from matplotlib.figure import Figure
    >>> x = spcy.SparseTensor([[0, 2, 1, 4], [0, 0, 3, 5]], np.ones((2, 8)))
    >>> images = spcy.plot.levels([x, spcy.max_pool(x, 2)], ax=Figure().subplots(1, 2))
    >>> images[1].axes.get_title()
    'level 2: 2 sites of 2'
    """
    every = [_coords_of(level, f"levels[{place}]") for place, level in enumerate(levels)]
    if not every:
        raise ValueError("levels must be at least one SparseTensor or Coords, got none")
    if ax is None:
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=(4 * len(every), 4), layout="constrained")
        ax = figure.subplots(1, len(every), sharex=True, sharey=True)
    panels = np.ravel(np.asarray(ax, object))
    if len(panels) < len(every):
        raise ValueError(f"ax must have {len(every)} axes, one for each level, got {len(panels)}")
    if every[0].ndim > 2 and every[0].num_sites:
        low, high = np.percentile(_centres(every[0])[:, 2], [1, 99])
        style = {"vmin": low, "vmax": high, **style}
    images = []
    for number, (axes, coords) in enumerate(zip(panels, every, strict=False), 1):
        images.append(sites(coords, ax=axes, **style))
        edges = dict.fromkeys(f"{edge:g}" for edge in coords.voxel_size)
        words = f"{coords.num_sites:,} sites of {' x '.join(edges)}"
        axes.set_title(f"level {number}: {words}", fontsize="medium")
    return images


def pairs(
    rulebook: Rulebook, k: int, coords: Coords, out_coords: Coords | None = None, *, ax: Axes | None = None
) -> Quiver:
    """Draw the pairs of one kernel offset as arrows from input to output sites.

    Parameters
    ----------
    rulebook : Rulebook
    k : int
        Which offset, in ``[0, rulebook.num_offsets)``.
    coords : Coords
        Its input sites, of 2 .. 4 axes.
    out_coords : Coords, optional
        Its output sites; default the input sites, as of a submanifold convolution.
    ax : matplotlib.axes.Axes, optional
        Default pyplot's current ones.

    Returns
    -------
    matplotlib.quiver.Quiver

    Raises
    ------
    TypeError, ValueError
        If `k` is out of range, or coords are not those of the rulebook.

    Examples
    --------
    >>> import spcy.plot
    >>> from matplotlib.figure import Figure
    >>> coords = spcy.Coords([[0, 2, 1], [0, 2, 2], [0, 0, 3]])
    >>> rulebook = spcy.submanifold_rulebook(coords, [[0, -1], [0, 0], [0, 1]])
    >>> arrows = spcy.plot.pairs(rulebook, 2, coords, ax=Figure().subplots())
    """
    if not isinstance(rulebook, Rulebook):
        raise TypeError(f"rulebook must be a Rulebook, got {type(rulebook).__name__}")
    out_coords = coords if out_coords is None else out_coords
    sizes = rulebook.num_in, rulebook.num_out
    for name, given, expected in zip(("coords", "out_coords"), (coords, out_coords), sizes, strict=True):
        require_coords(given, name)
        _coords_of(given, name)
        if given.num_sites != expected:
            raise ValueError(f"{name} must have the rulebook's {expected} sites, got {given.num_sites}")
    in_rows, out_rows = map(to_host, rulebook.pairs(k))
    ax = _current() if ax is None else ax
    if out_coords is not coords:
        sites(out_coords, _PAPER, ax=ax)
    sites(coords, _LIGHT, ax=ax)
    start = _centres(coords)[in_rows][:, _plane(coords)]
    way = _centres(out_coords)[out_rows][:, _plane(out_coords)] - start
    scale: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1, "units": "dots", "width": 1.6}
    return ax.quiver(*start.T, *way.T, color=_INK, headwidth=6, headlength=6, headaxislength=6, **scale)


def _coords_of(x: Any, name: str) -> Coords:
    coords = x.coords if isinstance(x, SparseTensor) else x
    if not isinstance(coords, Coords):
        raise TypeError(f"{name} must be a SparseTensor or Coords, got {type(x).__name__}")
    if coords.ndim < 2:
        raise ValueError(f"{name} must have 2 .. 4 axes, got {coords.ndim}")
    return coords


def _current() -> Axes:
    """Return pyplot's current axes; pyplot is not needed by who gives axes."""
    from matplotlib import pyplot

    return pyplot.gca()


def _plane(coords: Coords) -> list[int]:
    """Return the axes that are drawn to the right and up (down, of two)."""
    return [1, 0] if coords.ndim == 2 else [0, 1]


def _centres(coords: Coords) -> np.ndarray:
    return coords.origin + (to_host(coords.indices)[:, 1:] + 0.5) * coords.voxel_size


def _colours(values: Any, coords: Coords) -> np.ndarray:
    """Return a number for each site, or red, green, blue and alpha as bytes."""
    num = coords.num_sites
    if values is None:
        values = _centres(coords)[:, 2] if coords.ndim > 2 else _INK
    if isinstance(values, str):
        values = np.broadcast_to(to_rgba_array(values), (num, 4))
    values = np.asarray(to_host(values))
    if values.shape not in ((num,), (num, 3), (num, 4)):
        raise ValueError(f"values must have shape ({num},), ({num}, 3) or ({num}, 4), got {values.shape}")
    values = widened(values)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"values must be numbers, colours or a colour's name, got dtype {values.dtype}")
    if values.ndim == 1:
        return values.astype(np.float64)
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"values must be colours in 0 .. 1, got {values.min():g} .. {values.max():g}")
    return np.rint(255 * to_rgba_array(values)).astype(np.uint8)


def _extent(coords: Coords, indices: np.ndarray, plane: list[int]) -> np.ndarray:
    """Return the low and the high corner of the grid, or of what its sites take up."""
    if coords.shape is not None:
        cells = np.array([np.zeros(coords.ndim), coords.shape])
    elif len(indices):
        cells = np.array([indices.min(axis=0), indices.max(axis=0) + 1])
    else:
        cells = np.array([np.zeros(coords.ndim), np.ones(coords.ndim)])
    return (coords.origin + cells * coords.voxel_size)[:, plane]


def _view(ax: Axes, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the corners of what axes will show: their limits, if they were set, else all that is drawn."""
    known = ax.dataLim.get_points()  # infinite before anything is drawn
    known = known[np.isfinite(known).all(axis=1)]
    view = np.array([np.min([low, *known], axis=0), np.max([high, *known], axis=0)])
    if not ax.get_autoscalex_on():
        view[:, 0] = sorted(ax.get_xlim())
    if not ax.get_autoscaley_on():
        view[:, 1] = sorted(ax.get_ylim())
    return view


def _spaced(image: np.ndarray, pixels: int) -> np.ndarray:
    """Return an image whose cells have so many pixels each, less a free line between them."""
    pixels = min(pixels, 64)
    image = image.repeat(pixels, axis=0).repeat(pixels, axis=1)
    nothing = _NOTHING[image.ndim - 1]
    for line in (0, pixels - 1) if pixels > 3 * _GAP else (0,):
        image[line::pixels] = image[:, line::pixels] = nothing
    return image


_NOTHING = {1: np.nan, 2: 0}  # what is drawn where no site is, by the number of axes of colours
