"""Kernel maps: which rows meet under each kernel offset, by TorchSparse's rules."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ... import _check
from ..._backend import array_module
from ..._stencil import Stencil, box_stencil, first_axis_fastest
from ...coords import Child, Coords, derive, derive_child
from ...rulebook import Rulebook, _neighbours, _strided_level, _transposed_level, floored, reordered
from .utils.utils import Ints

_ORIGIN = (0, 0, 0)


class Windows(NamedTuple):
    """Where a layer's windows lie: cell r of that of output u is ``u * stride - padding + dilation * r``.

    With `floor` the outputs are the cells ``floor(c / stride)`` of all inputs c, else all that an input
    reaches.
    """

    kernel_size: Ints
    stride: Ints
    padding: Ints
    dilation: Ints
    floor: bool


def centre_of(kernel_size: Ints, dilation: Ints) -> Ints:
    """Return how far the first cell of a centred window lies before its middle."""
    return tuple((k - 1) // 2 * d for k, d in zip(kernel_size, dilation, strict=True))


def windows_of(
    kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints, centred: bool, floor: bool
) -> Windows:
    """Return the windows of a layer that is not transposed."""
    odd = all(k % 2 for k in kernel_size)
    if centred or floor:
        padding = centre_of(kernel_size, dilation)
        floor = floor or all(s in (1, k) for s, k in zip(stride, kernel_size, strict=True))
    elif {*stride} == {1}:
        padding = centre_of(kernel_size, dilation) if odd else _ORIGIN
    return Windows(kernel_size, stride, padding, dilation, floor)


def same_sites_map(coords: Coords, windows: Windows) -> Rulebook:
    """Return the kernel map of a layer of stride 1, whose outputs are its inputs."""

    def build() -> Rulebook:
        order = _order(windows.kernel_size)
        # A box in C order is found faster than in another: its pairs are put in order afterwards.
        found = _neighbours(
            coords._sites, _box_before(windows.kernel_size, windows.dilation, windows.padding)
        )
        return found if order is None else reordered(found, order)

    return derive(coords, ("torchsparse", windows), build)


def strided_map(
    coords: Coords, windows: Windows, spatial_range: Ints | None, clips: bool
) -> tuple[Rulebook, Coords]:
    """Return the kernel map of a strided layer, and its output sites.

    With `clips`, no output has negative coordinates where no input has.
    """
    stencil = _stencil(windows.kernel_size, windows.dilation)
    if windows.floor:
        return floored(coords, stencil, windows.stride, windows.padding)
    shape = None
    if spatial_range is not None:
        _require_inside(coords, spatial_range)
        shape = range_behind(spatial_range, windows)[1:]
    elif clips and coords._sites.low.min() >= 0:
        shape = (_check.INT32.max,) * 3
    return _level(coords, False, stencil, windows.stride, windows.padding, shape)


def range_behind(spatial_range: Ints, windows: Windows) -> Ints:
    """Return the spatial range behind a strided layer."""
    batches, *extents = spatial_range
    if windows.floor:
        return (batches, *(-(-n // s) for n, s in zip(extents, windows.stride, strict=True)))
    each = zip(extents, windows.kernel_size, windows.stride, windows.padding, windows.dilation, strict=True)
    made = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in each)
    if min(made) < 1:
        raise ValueError(
            f"kernel_size must be no larger than the padded spatial_range, got {windows.kernel_size} with "
            f"padding {windows.padding} for {spatial_range}"
        )
    return (batches, *made)


def generative_map(
    coords: Coords, kernel_size: Ints, stride: Ints, dilation: Ints, spatial_range: Ints | None, clips: bool
) -> tuple[Rulebook, Coords]:
    """Return the kernel map of a generative layer, and its output sites.

    The weight's cells lie mirrored where all sizes are odd, as TorchSparse has it.
    """
    shape = None
    if spatial_range is not None:
        _require_inside(coords, spatial_range)
        shape = tuple(n * s for n, s in zip(spatial_range[1:], stride, strict=True))
    elif clips and coords._sites.low.min() >= 0:
        shape = (_check.INT32.max,) * 3
    return _level(coords, True, _generative_stencil(kernel_size, dilation), stride, _ORIGIN, shape)


def _level(
    coords: Coords, transposed: bool, stencil: Stencil, stride: Ints, padding: Ints, shape: Ints | None
) -> tuple[Rulebook, Coords]:
    """Return the pairs and the sites that a layer reaches inside of a shape; the grid stays unbounded."""

    def build() -> Child:
        make = _transposed_level if transposed else _strided_level
        sites, rulebook = make(coords._sites, stencil, stride, padding, shape)
        arguments = transposed, stencil.offsets, stride, padding, shape
        return Child(replace(sites, shape=None), rulebook, None, _remake, arguments)

    return derive_child(coords, ("torchsparse", transposed, stencil.key, stride, padding, shape), build)


def _remake(
    parent: Coords, transposed: bool, offsets: np.ndarray, stride: Ints, padding: Ints, shape: Ints | None
) -> Coords:
    return _level(parent, transposed, Stencil(offsets), stride, padding, shape)[1]


def _require_inside(coords: Coords, spatial_range: Ints) -> None:
    """Raise unless all sites lie in a spatial range."""
    low, high = coords._sites.low, coords._sites.high
    if not len(coords) or (low.min() >= 0 and (high < spatial_range).all()):
        return
    indices = coords.indices
    limits = array_module(indices).array(spatial_range)
    row = _check.first_row(((indices < 0) | (indices >= limits)).any(axis=1))
    if row is not None:
        raise ValueError(
            f"coords must lie in [0, spatial_range) for spatial_range {spatial_range}, "
            f"got {indices[row].tolist()} in row {row}"
        )


@lru_cache(maxsize=256)
def _stencil(kernel_size: Ints, dilation: Ints) -> Stencil:
    """Return a box from 0 on with its cells in TorchSparse's order."""
    box, order = box_stencil(kernel_size, dilation), _order(kernel_size)
    return box if order is None else Stencil(box.offsets[list(order)])


@lru_cache(maxsize=256)
def _box_before(kernel_size: Ints, dilation: Ints, padding: Ints) -> Stencil:
    """Return a box from -padding on with its cells in C order."""
    return Stencil(box_stencil(kernel_size, dilation).offsets - np.array(padding))


@lru_cache(maxsize=256)
def _generative_stencil(kernel_size: Ints, dilation: Ints) -> Stencil:
    """Return the cells that a generative layer makes around one, in the order of the weight's."""
    offsets = _stencil(kernel_size, dilation).offsets - np.array(centre_of(kernel_size, dilation))
    return Stencil(-offsets if all(k % 2 for k in kernel_size) else offsets)


def _order(kernel_size: Ints) -> tuple[int, ...] | None:
    """Return the place in C order of each cell, None where that is TorchSparse's too.

    Where all sizes are odd, TorchSparse has the first axis fastest.
    """
    return first_axis_fastest(kernel_size) if math.prod(kernel_size) % 2 else None
