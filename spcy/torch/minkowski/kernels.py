"""Kernels as MinkowskiEngine describes them, and the cells that they have."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ... import _check
from .modes import RegionType

Ints = tuple[int, ...]


def convert_to_int_list(arg: int | Sequence[int] | np.ndarray | torch.Tensor, dimension: int) -> list[int]:
    """Return one int for each axis."""
    return ints_of(arg, dimension, "arg")


def ints_of(value: Any, dimension: int, name: str) -> list[int]:
    """Return one int32 for each axis, checked."""
    numbers = value.tolist() if isinstance(value, (np.ndarray, torch.Tensor, np.generic)) else value
    numbers = list(numbers) if isinstance(numbers, Sequence) else [numbers] * dimension
    if len(numbers) != dimension or not all(
        isinstance(each, (int, float, np.integer, np.floating)) and each == each // 1 for each in numbers
    ):
        raise ValueError(f"{name} must be an int or {dimension} ints, one for each axis, got {value!r}")
    if any(abs(each) >= 2**31 for each in numbers):
        raise ValueError(f"{name} must fit in int32, got {value!r}")
    return [int(each) for each in numbers]


def convert_to_int_tensor(
    arg: int | Sequence[int] | np.ndarray | torch.Tensor, dimension: int
) -> torch.Tensor:
    """Return one int for each axis, as a tensor."""
    return torch.IntTensor(convert_to_int_list(arg, dimension))


def require_dimension(dimension: Any) -> int:
    """Return the number of spatial axes, checked."""
    if not isinstance(dimension, int) or isinstance(dimension, bool) or not 1 <= dimension <= _check.MAX_NDIM:
        raise ValueError(
            f"dimension must be the number of spatial axes, 1 .. {_check.MAX_NDIM}, got {dimension!r}"
        )
    return dimension


def get_kernel_volume(
    region_type: RegionType,
    kernel_size: Sequence[int],
    region_offset: torch.Tensor | None,
    axis_types: None,
    dimension: int,
) -> int:
    """Return how many cells a kernel has."""
    custom = custom_offsets(region_offset, dimension)
    return len(offsets_of(region_of(region_type), tuple(kernel_size), custom))


def convert_region_type(
    region_type: RegionType,
    tensor_stride: Sequence[int],
    kernel_size: Sequence[int],
    up_stride: Sequence[int],
    dilation: Sequence[int],
    region_offset: torch.Tensor | None,
    axis_types: None,
    dimension: int,
    center: bool = True,
) -> tuple[RegionType, torch.Tensor, int]:
    """Return a region's type, its offsets (none unless it is custom) and how many cells it has."""
    volume = get_kernel_volume(region_type, kernel_size, region_offset, axis_types, dimension)
    return region_type, torch.IntTensor() if region_offset is None else region_offset, volume


def region_of(region_type: RegionType | int) -> RegionType:
    """Return a region's type, also by its number."""
    try:
        return RegionType(region_type)
    except ValueError:
        raise ValueError(f"region_type must be a RegionType, got {region_type!r}") from None


def custom_offsets(region_offsets: Any, dimension: int) -> tuple[Ints, ...]:
    """Return the offsets of a custom region, none if there are not any."""
    if region_offsets is None or (isinstance(region_offsets, torch.Tensor) and not region_offsets.numel()):
        return ()
    offsets = np.asarray(region_offsets)
    if offsets.dtype.kind not in "iu" or offsets.ndim != 2 or offsets.shape[1] != dimension:
        raise ValueError(
            f"region_offsets must be ints of shape (K, {dimension}), a cell in each row, got shape "
            f"{offsets.shape} and dtype {offsets.dtype}"
        )
    return tuple(map(tuple, offsets.tolist()))


@lru_cache(maxsize=256)
def offsets_of(region_type: RegionType, kernel_size: Ints, custom: tuple[Ints, ...]) -> np.ndarray:
    """Return the cells of a kernel, (K, D), in MinkowskiEngine's order and in steps of the tensor stride.

    A box has its first axis fastest; odd sizes are centred, even ones begin at 0. A cross has its centre,
    then for each axis the cells above it and those below.
    """
    if region_type is RegionType.CUSTOM:
        if not custom:
            raise ValueError("region_offsets must be given for region_type CUSTOM")
        return np.array(custom, np.int64)
    if custom:
        raise ValueError(f"region_offsets must be left out for region_type {region_type.name}")
    if min(kernel_size) < 1:
        raise ValueError(f"kernel_size must be at least 1, got {list(kernel_size)}")
    if region_type is RegionType.HYPER_CUBE:
        low = [-(k // 2) if k % 2 else 0 for k in kernel_size]
        return np.indices(kernel_size[::-1]).reshape(len(kernel_size), -1)[::-1].T + low
    if any(k % 2 == 0 for k in kernel_size):
        raise ValueError(f"kernel_size must be odd for region_type HYPER_CROSS, got {list(kernel_size)}")
    cells = [np.zeros((1, len(kernel_size)), np.int64)]
    for axis, size in enumerate(kernel_size):
        reach = size // 2
        arm = np.zeros((2 * reach, len(kernel_size)), np.int64)
        arm[:, axis] = [*range(1, reach + 1), *range(-reach, 0)]
        cells.append(arm)
    return np.concatenate(cells)


def cells_of(coordinates: torch.Tensor, name: str) -> torch.Tensor:
    """Return coordinates rounded down to int32, checked to fit."""
    floors = coordinates.floor() if coordinates.is_floating_point() else coordinates
    bad = ~((floors >= -(2.0**31)) & (floors < 2.0**31))
    if bad.any():
        row = int(bad.any(1).nonzero()[0])
        raise ValueError(
            f"{name} must be finite and fit in int32, got {coordinates[row].tolist()} in row {row}"
        )
    return floors.int()


class KernelGenerator:
    """A kernel: its region, stride and dilation.

    Parameters
    ----------
    kernel_size, stride, dilation : int or sequence of ints
    is_transpose : bool
        Accepted, without effect.
    region_type : RegionType
    region_offsets : torch.Tensor of shape (K, D), integer, optional
        The cells of a CUSTOM region, in steps of dilation times tensor stride.
    expand_coordinates : bool
        Whether a layer makes all sites that its kernel reaches.
    axis_types : None
    dimension : int
        Number of spatial axes.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int] = -1,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        is_transpose: bool = False,
        region_type: RegionType | int = RegionType.HYPER_CUBE,
        region_offsets: torch.Tensor | None = None,
        expand_coordinates: bool = False,
        axis_types: None = None,
        dimension: int = -1,
    ):
        require_dimension(dimension)
        if axis_types is not None:
            raise ValueError("axis_types must be None: give the cells as region_offsets, of type CUSTOM")
        self.kernel_size = ints_of(kernel_size, dimension, "kernel_size")
        self.kernel_stride = ints_of(stride, dimension, "stride")
        self.kernel_dilation = ints_of(dilation, dimension, "dilation")
        for name, values in (("stride", self.kernel_stride), ("dilation", self.kernel_dilation)):
            if min(values) < 1:
                raise ValueError(f"{name} must be at least 1, got {values}")
        self.region_type = region_of(region_type)
        self.region_offsets = torch.IntTensor() if region_offsets is None else region_offsets
        self.axis_types = axis_types
        self.dimension = dimension
        self.expand_coordinates = expand_coordinates
        self.kernel_volume = len(self.offsets)
        self.requires_strided_coordinates = all(s == 1 for s in self.kernel_stride)

    @property
    def offsets(self) -> np.ndarray:
        """The kernel's cells before dilation, in steps of the tensor stride."""
        custom = custom_offsets(self.region_offsets, self.dimension)
        return offsets_of(self.region_type, tuple(self.kernel_size), custom)

    def get_kernel(
        self, tensor_stride: Sequence[int], is_transpose: bool
    ) -> tuple[RegionType, torch.Tensor, int]:
        """Return the region's type, its offsets and how many cells it has."""
        return self.region_type, self.region_offsets, self.kernel_volume

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(kernel_size={self.kernel_size}, kernel_stride={self.kernel_stride}, "
            f"kernel_dilation={self.kernel_dilation}, region_type={self.region_type}, "
            f"expand_coordinates={self.expand_coordinates}, dimension={self.dimension})"
        )


class KernelRegion(
    namedtuple("KernelRegion", "kernel_size kernel_stride kernel_dilation region_type offset D")
):
    """A kernel's numbers."""

    __slots__ = ()
