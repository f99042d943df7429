"""Labels for the voxels of a Dask array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np

from .. import nn
from ._job import LABEL, Job, make_job
from ._shuffle import frame_of, shuffled
from ._worker import label_tiles, labels_from, use_worker_threads
from .predict import once_per_worker


def label_volume(
    net: nn.Module,
    volume: da.Array,
    threshold: float,
    *,
    tile: int | Sequence[int] | None = None,
    sites: int = 1_000_000,
) -> da.Array:
    """Label the voxels of a volume that are above a threshold: lazily, chunk by chunk.

    The network's input are those voxels, with their values, on a grid without bounds: the labels have the bits
    of ``net(x)`` over all of them, however the volume is cut into chunks.

    Parameters
    ----------
    net : Module
        As of `predict`, with one input channel.
    volume : dask.array.Array
        Of numbers, with 1 .. 4 axes, such as ``dask.array.from_zarr(..)``.
    threshold : float
        Voxels with greater values are sites.
    tile, sites : optional
        As of `predict`.

    Returns
    -------
    dask.array.Array
        int16, with the shape and chunks of `volume`: the label of each site, -1 elsewhere.

    Raises
    ------
    ValueError, TypeError
        As from `predict`.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> import spcy.dask
    >>> from spcy import nn
    >>> volume = da.from_array(np.random.default_rng(0).uniform(0, 1, (20, 20, 20)), chunks=8)
    >>> net = nn.SubMConv(1, 3, 3, rng=0).eval()
    >>> labels = spcy.dask.label_volume(net, volume, 0.9, tile=8).compute()
    >>> labels.shape, int(labels.min()), int(labels.max())
    ((20, 20, 20), -1, 2)
    """
    if not isinstance(volume, da.Array):
        raise TypeError(f"volume must be a dask.array.Array, got {type(volume).__name__}")
    if not 1 <= volume.ndim <= 4 or volume.dtype.kind not in "fiu":
        raise ValueError(f"volume must be of numbers with 1 .. 4 axes, got {volume.dtype} with {volume.ndim}")
    parts, starts = volume.to_delayed(), [np.cumsum([0, *sizes[:-1]]) for sizes in volume.chunks]
    job = make_job(
        net,
        1.0,
        volume.ndim,
        parts.size,
        tile=tile,
        sites=sites,
        invalid="raise",
        features=None,
        flat=volume.ndim,
    )
    net = once_per_worker(net)
    enter, leave = dask.delayed(_enter), dask.delayed(label_tiles)
    corners = [tuple(int(s[i]) for s, i in zip(starts, at, strict=True)) for at in np.ndindex(parts.shape)]
    flat = zip(corners, parts.ravel(), strict=True)
    entered = [enter(job, i, corner, part, threshold) for i, (corner, part) in enumerate(flat)]
    tiles = shuffled([each[0] for each in entered], parts.size).to_delayed()
    found = shuffled([leave(job, net, part) for part in tiles], parts.size).to_delayed()
    gather, labels = dask.delayed(_gather), np.empty(parts.shape, object)
    for at, part, each in zip(np.ndindex(parts.shape), found, entered, strict=True):
        shape = tuple(sizes[i] for sizes, i in zip(volume.chunks, at, strict=True))
        labels[at] = da.from_delayed(gather(part, each[1]), shape, LABEL)
    return da.block(labels.tolist())


def _enter(
    job: Job, number: int, corner: Sequence[int], part: np.ndarray, threshold: float
) -> tuple[Any, Any]:
    """Return what a chunk sends to tiles, and what it keeps."""
    use_worker_threads()
    at = np.nonzero(part > threshold)
    points = np.stack(at, axis=1) + (np.array(corner) + 0.5)
    entered = job.enter(points, part[at].astype(job.dtype)[:, None])
    return frame_of([(to, number, block) for to, block in entered.blocks]), (
        part.shape,
        at,
        entered.rows,
        entered.tiles,
    )


def _gather(
    part: Any, kept: tuple[tuple[int, ...], tuple[np.ndarray, ...], np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return the labels of a chunk's voxels."""
    shape, at, rows, tiles = kept
    labels = np.full(shape, -1, LABEL)
    labels[at] = labels_from(part, rows, tiles)
    return labels
