"""Labels for points in a Dask DataFrame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd

from .. import _check, nn
from ._job import LABEL, Describe, Job, make_job
from ._shuffle import frame_of, shuffled
from ._worker import label_tiles, labels_from, travelling, use_worker_threads


def predict(
    net: nn.Module,
    points: dd.DataFrame,
    voxel_size: float | Sequence[float],
    *,
    coordinates: Sequence[str] = ("x", "y", "z"),
    columns: Sequence[str] | None = None,
    features: Describe | None = None,
    tile: int | Sequence[int] | None = None,
    sites: int = 1_000_000,
    invalid: Literal["raise", "drop"] = "raise",
    partitions: int | None = None,
) -> dd.Series:
    """Label points by a network, in tiles of one global grid: lazily, on as many workers as there are.

    Each point gets the label of the site that it lies in, with the bits of ``net(x)`` for ``x`` from
    `spcy.voxelize` of all points at once, however they are cut into partitions and whatever their order.
    A point p lies in cell ``floor(p / voxel_size)``, computed in double precision.

    Parameters
    ----------
    net : Module
        In eval mode, one that returns to the sites of its input, with a channel for each class. It travels to
        each worker once.
    points : dask.dataframe.DataFrame
        Its partitions should have some 100,000 .. 10,000,000 points.
    voxel_size : float or sequence of D floats
        Edge of a cell, in the points' unit.
    coordinates : sequence of D str
        Columns of float32 or float64.
    columns : sequence of str, optional
        Columns whose mean over the points of a site are its features; default the coordinates, or none if
        `features` makes them.
    features : callable, optional
        Makes features of a partition's points ``(M, D)``, float64, and their `columns` ``(M, C)`` in the
        network's dtype; each row must depend on that row alone.
    tile : int or sequence of D ints, optional
        Cells of a tile along each axis, of which one begins half a tile below 0. Default 32 times the
        network's receptive field, so that about a sixteenth of the sites are computed twice where they
        spread along two axes.
    sites : int
        A tile that sees more is run in parts, by `spcy.tiled`: the memory of one task.
    invalid : {"raise", "drop"}
        What happens to points with a coordinate that is not finite. Dropped ones have the label -1.
    partitions : int, optional
        That the tiles are shared out to; default as many as `points` has.

    Returns
    -------
    dask.dataframe.Series
        int16, with the index and partitions of `points`, so that the two are joined by
        ``dd.map_partitions(join, points, labels, align_dataframes=False)``, where ``join`` takes the parts.

    Raises
    ------
    ValueError, TypeError
        If an argument is none of these, or the network depends on more than it can see. Errors in a
        partition, when it is computed, name its number.

    Examples
    --------
    >>> import dask.dataframe as dd
    >>> import numpy as np, pandas as pd
    >>> import spcy.dask
    >>> from spcy import nn
    >>> rows = np.random.default_rng(0).uniform(0, 9, (1000, 3))
    >>> points = dd.from_pandas(pd.DataFrame(rows, columns=["x", "y", "z"]), npartitions=3)
    >>> net = nn.SubMConv(3, 4, 3, rng=0).eval()
    >>> labels = spcy.dask.predict(net, points, 0.5, tile=8)
    >>> len(labels.compute())
    1000
    """
    if not isinstance(points, dd.DataFrame):
        raise TypeError(f"points must be a dask.dataframe.DataFrame, got {type(points).__name__}")
    coordinates = _names(coordinates, "coordinates", 1)
    if columns is None:
        columns = coordinates if features is None else []
    columns = _names(columns, "columns", 0 if features else 1)
    dtypes = {name: _dtype_in(points, name, name in coordinates) for name in (*coordinates, *columns)}
    partitions = points.npartitions if partitions is None else _number(partitions, "partitions")
    options: dict[str, Any] = {"tile": tile, "sites": sites, "invalid": invalid, "features": features}
    job = make_job(net, voxel_size, len(coordinates), partitions, **options)

    sent_net, sent_job = travelling(net), travelling(job)
    enter, leave = dask.delayed(_enter), dask.delayed(label_tiles)
    parts = points[list(dtypes)].to_delayed()
    entered = [enter(sent_job, i, part, coordinates, columns, dtypes) for i, part in enumerate(parts)]
    tiles = shuffled([each[0] for each in entered], partitions).to_delayed()
    found = shuffled([leave(sent_job, sent_net, part) for part in tiles], len(parts)).to_delayed()
    gather = dask.delayed(_gather)
    labels = [gather(part, each[1]) for part, each in zip(found, entered, strict=True)]
    meta = pd.Series(np.empty(0, LABEL), index=points._meta.index, name="label")
    return dd.from_delayed(labels, meta=meta, divisions=points.divisions, verify_meta=False)


def _enter(
    job: Job,
    number: int,
    part: pd.DataFrame,
    coordinates: list[str],
    columns: list[str],
    dtypes: dict[str, np.dtype],
) -> tuple[pd.DataFrame, Any]:
    """Return what a partition sends to tiles, and what it keeps."""
    use_worker_threads()
    try:
        for name, dtype in dtypes.items():
            if part[name].dtype != dtype:
                raise TypeError(f"column {name!r} must be {dtype}, as in the others, got {part[name].dtype}")
        points = part[coordinates].to_numpy(np.float64)
        entered = job.enter(points, part[columns].to_numpy(job.dtype))
    except (TypeError, ValueError) as error:
        raise type(error)(f"partition {number}: {error}") from error
    rows = [(to, number, block) for to, block in entered.blocks]
    return frame_of(rows), (part.index, entered.rows, entered.tiles)


def _gather(part: pd.DataFrame, kept: tuple[pd.Index, np.ndarray, np.ndarray]) -> pd.Series:
    """Return the labels of a partition's points."""
    index, rows, tiles = kept
    return pd.Series(labels_from(part, rows, tiles), index=index, name="label")


def _names(names: Sequence[str], argument: str, least: int) -> list[str]:
    if isinstance(names, str) or len(names) < least or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{argument} must be a sequence of names of columns, got {names!r}")
    return list(names)


def _number(value: int, argument: str) -> int:
    return _check.per_axis(value, 1, argument, 1)[0]


def _dtype_in(points: dd.DataFrame, name: str, coordinate: bool) -> np.dtype:
    """Return the dtype of a column of numbers."""
    if name not in points.columns:
        raise ValueError(f"points must have a column {name!r}, got {', '.join(map(str, points.columns))}")
    dtype = points._meta[name].dtype
    kind = getattr(dtype, "kind", "O")
    if kind != "f" if coordinate else kind not in "fiub":
        expected = "float32 or float64" if coordinate else "of numbers"
        raise TypeError(f"column {name!r} must be {expected}, got {dtype}")
    return dtype
