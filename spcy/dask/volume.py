"""Labels for the voxels of a Dask array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np

from .. import _check, nn, tiled
from ..models.store import network_dtype
from ..tensor import SparseTensor
from ._job import LABEL
from ._worker import travelling, use_worker_threads


def label_volume(net: nn.Module, volume: da.Array, threshold: float, *, sites: int = 1_000_000) -> da.Array:
    """Label the voxels of a volume that are above a threshold: lazily, chunk by chunk.

    The network's input are those voxels, with their values, on a grid without bounds: the labels have the
    bits of ``net(x)`` over all of them, however the volume is cut into chunks. Each chunk sees its neighbours
    as far as the network's receptive field, by `dask.array.map_overlap`.

    Parameters
    ----------
    net : Module
        As of `predict`, with one input channel.
    volume : dask.array.Array
        Of numbers, with 1 .. 4 axes, such as ``dask.array.from_zarr(..)``. Chunks smaller than the receptive
        field are joined while the network runs.
    threshold : float
        Voxels with greater values are sites.
    sites : int
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
    >>> labels = spcy.dask.label_volume(net, volume, 0.9).compute()
    >>> labels.shape, int(labels.min()), int(labels.max())
    ((20, 20, 20), -1, 2)
    """
    if not isinstance(volume, da.Array):
        raise TypeError(f"volume must be a dask.array.Array, got {type(volume).__name__}")
    if not 1 <= volume.ndim <= 4 or volume.dtype.kind not in "fiu":
        raise ValueError(f"volume must be of numbers with 1 .. 4 axes, got {volume.dtype} with {volume.ndim}")
    left, right, _ = tiled.halo_of(net, volume.ndim)
    sites = _check.per_axis(sites, 1, "sites", 1)[0]
    depth = [(int(a), int(b)) for a, b in zip(left, right, strict=True)]
    least = [max(1, *sides) for sides in depth]
    chunks = tuple(_joined(sizes, n) for sizes, n in zip(volume.chunks, least, strict=True))
    labels = da.map_overlap(
        _label_block,
        volume.rechunk(chunks),
        depth=dict(enumerate(depth)),
        boundary="none",
        allow_rechunk=False,
        meta=np.empty((0,) * volume.ndim, LABEL),
        net=travelling(net),
        lows=[
            [int(start) - (side if i else 0) for i, start in enumerate(np.cumsum([0, *sizes[:-1]]))]
            for sizes, (side, _) in zip(chunks, depth, strict=True)
        ],
        threshold=threshold,
        sites=sites,
        dtype_of_features=network_dtype(net),
    )
    return labels.rechunk(volume.chunks)


def _joined(sizes: Sequence[int], least: int) -> tuple[int, ...]:
    """Return sizes of chunks with those joined that are smaller than the least."""
    joined = [0]
    for size in sizes:
        if joined[-1] >= least:
            joined.append(0)
        joined[-1] += size
    if len(joined) > 1 and joined[-1] < least:
        joined[-2:] = [joined[-2] + joined[-1]]
    return tuple(joined)


def _label_block(
    block: np.ndarray,
    net: nn.Module,
    lows: Any,
    threshold: float,
    sites: int,
    dtype_of_features: np.dtype,
    block_id: Any = None,
) -> np.ndarray:
    """Return the labels of a chunk with what it sees of its neighbours."""
    use_worker_threads()
    labels, at = np.full(block.shape, -1, LABEL), np.nonzero(block > threshold)
    indices = np.zeros((len(at[0]), 1 + block.ndim), np.int32)
    for axis, places in enumerate(at):
        indices[:, 1 + axis] = places + lows[axis][block_id[axis]]
    x = SparseTensor(indices, block[at].astype(dtype_of_features)[:, None])
    y = tiled.apply(net, x, sites=sites) if x.num_sites > sites else net(x)
    labels[at] = y.features.argmax(axis=1)
    return labels
