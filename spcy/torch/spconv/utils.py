"""Points to voxels, by the names and in the order that spconv has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from ... import _check
from ..._backend import array_module
from ...coords import Layout, bounds_of, sites_from_keys
from ...rows import take_rows
from ...voxel import points_by_cell
from .._bridge import array_of, check_tensor, entering, on_device, tensor_of
from . import tensorview as tv

__all__ = [
    "Point2VoxelCPU1d",
    "Point2VoxelCPU2d",
    "Point2VoxelCPU3d",
    "Point2VoxelCPU4d",
    "PointToVoxel",
    "VoxelGenerator",
    "VoxelGeneratorV2",
    "gather_features_by_pc_voxel_id",
    "nullcontext",
]


class _Grid:
    """Cells of points, in the order in which points meet them."""

    _ndim: int | None = None

    def __init__(
        self,
        vsize_xyz: Sequence[float],
        coors_range_xyz: Sequence[float],
        num_point_features: int | None,
        max_num_voxels: int,
        max_num_points_per_voxel: int,
    ):
        ndim = len(vsize_xyz)
        if self._ndim not in (None, ndim):
            raise ValueError(f"vsize_xyz must have {self._ndim} numbers, got {vsize_xyz!r}")
        self.ndim = ndim
        self.num_point_features = num_point_features
        if num_point_features is not None:
            _check.integer(num_point_features, "num_point_features")
        self.max_num_voxels: int = _check.per_axis(max_num_voxels, 1, "max_num_voxels", 1)[0]
        points = _check.per_axis(max_num_points_per_voxel, 1, "max_num_points_per_voxel", 1)
        self.max_num_points_per_voxel: int = points[0]
        self.vsize: np.ndarray = np.asarray(vsize_xyz, np.float32)
        bounds = np.asarray(coors_range_xyz, np.float32)
        if bounds.shape != (2 * ndim,):
            raise ValueError(
                f"coors_range_xyz must have {2 * ndim} numbers, low and high, got {coors_range_xyz!r}"
            )
        self.low: np.ndarray = bounds[:ndim]
        self.high: np.ndarray = bounds[ndim:]
        size = np.round((self.high - self.low) / self.vsize)
        if not (np.isfinite(size).all() and (size >= 1).all() and (self.vsize > 0).all()):
            raise ValueError(
                f"coors_range_xyz must hold at least one voxel along each axis, got {coors_range_xyz!r} "
                f"for voxels of {vsize_xyz!r}"
            )
        self.shape: tuple[int, ...] = tuple(int(n) for n in size)
        self.grid_size: list[int] = list(self.shape[::-1])

    def voxels(
        self, points: Any, empty_mean: bool = False, limit: int | None = None
    ) -> tuple[Any, Any, Any, Callable[[], Any]]:
        """Return (voxels, indices, points in each, a function that returns the voxel of each point).

        Indices are from the last axis to the first. `limit` stands for `max_num_voxels`.
        """
        columns = self.num_point_features or max(self.ndim, points.shape[-1] if points.ndim else 0)
        if points.ndim != 2 or points.shape[1] != columns or columns < self.ndim:
            raise ValueError(f"points must have shape (N, {columns}), got {points.shape}")
        xp, slots = array_module(points), self.max_num_points_per_voxel
        indices, rows, order, starts = self._grouped(points)
        points = _check.contiguous(points, np.dtype(np.float32))
        counts, first = xp.diff(starts), order[starts[:-1]]
        met = xp.zeros(len(points), np.int32)
        met[first] = 1
        place = xp.cumsum(met, dtype=np.int32)[first] - 1  # of each voxel, as points meet them
        num = min(len(place), self.max_num_voxels if limit is None else limit)
        slot = xp.arange(len(order)) - xp.repeat(starts[:-1], counts)
        target = xp.repeat(place.astype(np.int64) * slots, counts) + slot
        source = xp.full(num * slots, -1, np.int32)
        kept = (slot < slots) & (target < num * slots)
        source[target[kept]] = order[kept]
        voxels = take_rows(points, source).reshape(num, slots, points.shape[1])
        by_place = xp.empty(len(place), np.int32)
        by_place[place] = xp.arange(len(place), dtype=np.int32)
        by_place = by_place[:num]
        number = xp.minimum(counts[by_place], slots).astype(np.int32)
        if empty_mean and num:
            mean = voxels.sum(axis=1) / number[:, None].astype(np.float32)
            voxels = xp.where((xp.arange(slots) < number[:, None])[..., None], voxels, mean[:, None])

        def of_points() -> Any:
            voxel = xp.append(xp.where(place < num, place, -1), -1).astype(np.int64)  # the last: outside
            return voxel[rows]

        return voxels, xp.ascontiguousarray(take_rows(indices, by_place)[:, :0:-1]), number, of_points

    def _grouped(self, points: Any) -> tuple[Any, Any, Any, Any]:
        """Return the cells of points, the row of each point's, the points by cell, where each begins."""
        xp = array_module(points)
        # In the points' precision, as spconv computes it: a point on a face lies where it lies there.
        cells = xp.floor((points[:, : self.ndim] - xp.asarray(self.low)) / xp.asarray(self.vsize))
        if not np.isfinite(np.stack(bounds_of(cells))).all():
            _check.finite_points(points, ~xp.isfinite(cells).all(axis=1))
        low, high = np.zeros(1 + self.ndim, np.int64), np.array((0, *(n - 1 for n in self.shape)))
        layout, grid = Layout(low, high), (np.zeros(self.ndim), np.ones(self.ndim))
        unique, rows, order, starts = points_by_cell(cells, None, *grid, low, high, layout, bounded=True)
        return sites_from_keys(unique, layout, low, high, None, 1, *grid).indices, rows, order, starts


class PointToVoxel(_Grid):
    """Points to voxels on tensors, as ``spconv.pytorch.utils.PointToVoxel``.

    Parameters
    ----------
    vsize_xyz : sequence of D floats
        Edges of a voxel.
    coors_range_xyz : sequence of 2 D floats
        Low corner and high corner of the grid; points outside are left out.
    num_point_features : int
        Columns of the points.
    max_num_voxels, max_num_points_per_voxel : int
        Voxels are taken in the order in which points meet them, points in their own order.
    device : torch.device

    Examples
    --------
    >>> import torch
    >>> from spcy.torch.spconv.utils import PointToVoxel
    >>> generator = PointToVoxel([1.0, 1.0], [0, 0, 4, 4], 2, 10, 3)
    >>> voxels, indices, counts = generator(torch.tensor([[3.5, 0.5], [0.5, 0.5], [3.2, 0.1]]))
    >>> indices, counts  # y, x
    (tensor([[0, 3],
            [0, 0]], dtype=torch.int32), tensor([2, 1], dtype=torch.int32))
    """

    def __init__(
        self,
        vsize_xyz: Sequence[float],
        coors_range_xyz: Sequence[float],
        num_point_features: int,
        max_num_voxels: int,
        max_num_points_per_voxel: int,
        device: torch.device | str = "cpu",
    ):
        super().__init__(
            vsize_xyz, coors_range_xyz, num_point_features, max_num_voxels, max_num_points_per_voxel
        )
        self.device: torch.device = torch.device(device)

    def __call__(
        self, pc: torch.Tensor, clear_voxels: bool = True, empty_mean: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (voxels, indices, num_per_voxel) of points.

        Parameters
        ----------
        pc : torch.Tensor of shape (N, num_point_features)
        clear_voxels : bool
            Without effect: voxels are new at every call.
        empty_mean : bool
            Fill empty slots with the mean of a voxel's points, not with 0.

        Returns
        -------
        voxels : torch.Tensor of shape (M, max_num_points_per_voxel, num_point_features), float32
        indices : torch.Tensor of shape (M, D), int32
            From the last axis to the first: z, y, x.
        num_per_voxel : torch.Tensor of shape (M,), int32
        """
        voxels, indices, counts, _ = self._generate(pc, empty_mean)
        return voxels, indices, counts

    def generate_voxel_with_id(
        self, pc: torch.Tensor, clear_voxels: bool = True, empty_mean: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what a call does and the voxel of each point, int64, -1 for none."""
        voxels, indices, counts, of_points = self._generate(pc, empty_mean)
        with on_device(pc.device):
            return voxels, indices, counts, tensor_of(of_points())

    def _generate(
        self, pc: torch.Tensor, empty_mean: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Callable[[], Any]]:
        check_tensor(pc, "pc")
        if pc.device.type != self.device.type:
            raise ValueError(f"pc must be on {self.device}, where the generator was made, got {pc.device}")
        with entering(pc.device), on_device(pc.device):
            voxels, indices, counts, of_points = self.voxels(array_of(pc), empty_mean)
            return tensor_of(voxels), tensor_of(indices), tensor_of(counts), of_points


class _Point2VoxelCPU(_Grid):
    """Points to voxels on ``tv.Tensor``, as ``spconv.utils.Point2VoxelCPU3d``.

    Parameters
    ----------
    vsize_xyz, coors_range_xyz, num_point_features, max_num_voxels, max_num_points_per_voxel
        As of `PointToVoxel`.
    """

    def point_to_voxel(
        self, pc: tv.Tensor, clear_voxels: bool = True
    ) -> tuple[tv.Tensor, tv.Tensor, tv.Tensor]:
        """Return (voxels, indices, num_per_voxel) of points; empty slots are 0."""
        return self._generate(pc, empty_mean=False)

    def point_to_voxel_empty_mean(
        self, pc: tv.Tensor, clear_voxels: bool = True
    ) -> tuple[tv.Tensor, tv.Tensor, tv.Tensor]:
        """Return (voxels, indices, num_per_voxel) of points; empty slots are the mean of the voxel."""
        return self._generate(pc, empty_mean=True)

    def _generate(self, pc: Any, empty_mean: bool) -> tuple[tv.Tensor, tv.Tensor, tv.Tensor]:
        with entering(torch.device("cpu")):
            voxels, indices, counts, _ = self.voxels(np.asarray(pc), empty_mean)
            return tv.from_numpy(voxels), tv.from_numpy(indices), tv.from_numpy(counts)


class Point2VoxelCPU1d(_Point2VoxelCPU):
    """Points on a line to voxels. See `PointToVoxel`."""

    _ndim = 1


class Point2VoxelCPU2d(_Point2VoxelCPU):
    """Points in a plane to voxels. See `PointToVoxel`."""

    _ndim = 2


class Point2VoxelCPU3d(_Point2VoxelCPU):
    """Points to voxels. See `PointToVoxel`."""

    _ndim = 3


class Point2VoxelCPU4d(_Point2VoxelCPU):
    """Points in four dimensions to voxels. See `PointToVoxel`."""

    _ndim = 4


class VoxelGenerator:
    """Points to voxels on arrays, as in spconv 1.x.

    Parameters
    ----------
    voxel_size : sequence of D floats
    point_cloud_range : sequence of 2 D floats
    max_num_points : int
        Points of a voxel.
    max_voxels : int
    full_mean : bool
        Fill empty slots with the mean of a voxel's points, not with 0.
    """

    def __init__(
        self,
        voxel_size: Sequence[float],
        point_cloud_range: Sequence[float],
        max_num_points: int,
        max_voxels: int = 20000,
        full_mean: bool = False,
    ):
        self._grid = _Grid(voxel_size, point_cloud_range, None, max_voxels, max_num_points)
        self._full_mean = full_mean
        self.voxel_size: np.ndarray = self._grid.vsize
        self.point_cloud_range: np.ndarray = np.concatenate([self._grid.low, self._grid.high])
        self.max_num_points_per_voxel = max_num_points
        self.grid_size: np.ndarray = np.array(self._grid.shape)

    def generate(self, points: np.ndarray, max_voxels: int | None = None) -> Any:
        """Return (voxels, coordinates, num_points) of points."""
        if max_voxels is not None:
            max_voxels = _check.per_axis(max_voxels, 1, "max_voxels", 1)[0]
        with entering(torch.device("cpu")):
            return self._grid.voxels(np.asarray(points), self._full_mean, max_voxels)[:3]


class VoxelGeneratorV2(VoxelGenerator):
    """Points to voxels on arrays, as in spconv 1.2: the result is a dict."""

    def generate(self, points: np.ndarray, max_voxels: int | None = None) -> dict[str, np.ndarray]:
        """Return "voxels", "coordinates" and "num_points_per_voxel" of points."""
        names = "voxels", "coordinates", "num_points_per_voxel"
        return dict(zip(names, super().generate(points, max_voxels), strict=True))


def gather_features_by_pc_voxel_id(
    seg_res_features: torch.Tensor, pc_voxel_id: torch.Tensor, invalid_value: float = 0
) -> torch.Tensor:
    """Return the features of each point's voxel.

    Parameters
    ----------
    seg_res_features : torch.Tensor of shape (M, ..)
    pc_voxel_id : torch.Tensor of shape (N,), int64
        As from `PointToVoxel.generate_voxel_with_id`.
    invalid_value : float
        Of points in no voxel.

    Returns
    -------
    torch.Tensor of shape (N, ..)
    """
    ids = pc_voxel_id.to(seg_res_features.device)
    shape = len(ids), *seg_res_features.shape[1:]
    out = seg_res_features.new_full(shape, invalid_value)
    inside = ids >= 0
    out[inside] = seg_res_features[ids[inside]]
    return out
