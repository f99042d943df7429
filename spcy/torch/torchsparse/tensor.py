"""Sparse tensors and point tensors as TorchSparse has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self, TypeVar
from weakref import WeakValueDictionary

import torch

from ... import _check
from ..._backend import array_module
from ..._once import Lock
from ...coords import Coords
from .._bridge import array_of, check_tensor, entering, on_device, opaque
from ..tensor import SparseTensor as SpcyTensor
from ..tensor import check_features, indices_of
from .utils.tensor_cache import TensorCache
from .utils.to_dense import to_dense
from .utils.utils import Ints, make_ntuple

__all__ = ["PointTensor", "SparseTensor"]

_allow_negative_coordinates = False


def get_allow_negative_coordinates() -> bool:
    """Return whether strided layers may make negative coordinates from others."""
    return _allow_negative_coordinates


def set_allow_negative_coordinates(allow_negative_coordinates: bool) -> None:
    """Let strided layers make negative coordinates from coordinates that are not."""
    global _allow_negative_coordinates
    _allow_negative_coordinates = bool(allow_negative_coordinates)


class Step(NamedTuple):
    """How a strided layer made a level: what a transposed layer goes back by."""

    level: Level  # where it came from
    spatial_range: Ints | None  # there
    key: tuple[Ints, ...]  # the tensor stride there, kernel_size, stride, dilation


class Level:
    """The sites that tensors share: a coordinates tensor, the `Coords` that were made from it, or both.

    The same tensor gives the same level while any sparse tensor is on it, and the same `Coords` as long as
    it holds the same numbers: kernel maps are built once, and a level that a layer made is known again by
    its coordinates.
    """

    __slots__ = (
        *("__weakref__", "_coords", "_lock", "_seen", "_tensor", "_version"),
        *("batch_last", "scale", "step"),
    )

    def __init__(
        self,
        scale: Ints,
        batch_last: bool,
        tensor: torch.Tensor | None = None,
        coords: Coords | None = None,
        step: Step | None = None,
    ):
        self._tensor, self._coords, self.step = tensor, coords, step
        self.scale, self.batch_last = scale, batch_last
        self._version: int | None = None  # of the tensor, when it and the coords were the same
        self._seen: Any = None  # what stood in it then
        self._lock = Lock()
        if tensor is not None and coords is not None:
            self._remember(tensor, coords)

    def __reduce__(self) -> tuple[Any, ...]:
        coords = self._coords
        if self._tensor is not None and (coords is None or not self._is_current()):
            return Level, (self.scale, self.batch_last, self._tensor)
        return Level, (self.scale, self.batch_last, self._tensor, coords, self.step)

    @classmethod
    def of(
        cls, owner: torch.Tensor | Coords, scale: Ints, batch_last: bool, step: Step | None = None
    ) -> Level:
        """Return the level of a coordinates tensor, or of coords that a layer made by a step."""
        with _levels_lock():
            level = _LEVELS.get(id(owner))
            known = level is not None and level._is_of(owner)
            if level is None or not known or (level.scale, level.batch_last) != (scale, batch_last):
                tensor, coords = (None, owner) if isinstance(owner, Coords) else (owner, None)
                level = _LEVELS[id(owner)] = cls(scale, batch_last, tensor, coords, step)
        return level

    def _is_of(self, owner: torch.Tensor | Coords) -> bool:
        return self._tensor is owner or self._coords is owner

    def tensor(self, device: torch.device) -> torch.Tensor:
        """Return the coordinates tensor, the same every time."""
        with self._lock():
            if self._tensor is None:
                coords = self.coords()
                indices = indices_of(coords, device)
                if self.batch_last:
                    scale = torch.tensor(self.scale, dtype=indices.dtype, device=indices.device)
                    indices = torch.cat([indices[:, 1:] * scale, indices[:, :1]], dim=1)
                self._tensor = indices
                self._remember(indices, coords)
                with _levels_lock():
                    _LEVELS[id(indices)] = self
            return self._tensor

    def coords(self) -> Coords:
        """Return the sites, made when first asked for or after a write to the coordinates."""
        with self._lock():
            coords = self._coords
            if coords is None or not self._is_current():
                tensor: Any = self._tensor  # either is there
                coords = self._coords = self._coords_of(tensor)
                self.step = None
                self._remember(tensor, coords)
            return coords

    def _coords_of(self, value: torch.Tensor) -> Coords:
        _check_coords(value)
        with entering(value.device), on_device(value.device):
            array = array_of(value)
            if self.batch_last:
                array = self._batch_first(array)
            try:
                return Coords(array)
            except ValueError as error:
                raise ValueError(str(error).replace("indices", "coords", 1)) from None

    def _batch_first(self, array: Any) -> Any:
        """Return coordinates of version 1.4, the batch last and multiples of the stride, as 2.x has them."""
        xp = array_module(array)
        scale = xp.array(self.scale, array.dtype)
        row = _check.first_row((array[:, :3] % scale != 0).any(axis=1))
        if row is not None:
            raise ValueError(
                f"coords must be multiples of the stride, {self.scale}, "
                f"got {array[row].tolist()} in row {row}"
            )
        return xp.concatenate([array[:, 3:], array[:, :3] // scale], axis=1)

    def _remember(self, value: torch.Tensor, coords: Coords) -> None:
        """Keep what tells a later write to the coordinates tensor."""
        self._version = None if value.is_inference() else value._version
        if value.is_cpu:
            self._seen = array_of(value).copy() if self.batch_last else coords.indices

    def _is_current(self) -> bool:
        """Return whether the coordinates are what the coords were made from.

        PyTorch does not count all writes: on a CPU the numbers are compared. On a GPU, where a look would
        make the host wait, its count is what there is.
        """
        value = self._tensor
        if value is None:
            return True
        if not value.is_cpu:
            return not value.is_inference() and self._version == value._version
        mine = array_of(value)
        return mine.shape == self._seen.shape and not (mine != self._seen).any()


_LEVELS: WeakValueDictionary[int, Level] = WeakValueDictionary()  # by id of the tensor or the coords
_levels_lock = Lock()


def _check_coords(value: torch.Tensor) -> None:
    """Raise unless a tensor can hold the coordinates of sites."""
    if value.dim() != 2 or value.shape[1] != 4:
        hint = ": torchsparse.utils.collate.sparse_collate adds the batch" if value.shape[1:] == (3,) else ""
        raise ValueError(
            f"coords must have shape (N, 4), the batch and x, y, z, got {tuple(value.shape)}{hint}"
        )
    if value.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"coords must have dtype torch.int32, got {value.dtype}: floor them, then .int()")


class SparseTensor:
    """Features on sites, as ``torchsparse.SparseTensor`` 2.1.

    Coordinates are checked when a layer first needs them: a site twice is an error that names the rows.

    Parameters
    ----------
    feats : torch.Tensor of shape (N, C)
        float32, float64, float16 or bfloat16.
    coords : torch.Tensor of shape (N, 4), int32
        The batch, then x, y, z, in steps of the tensor's own stride.
    stride : int or sequence of 3 ints
        How many cells of the input a cell spans.
    spatial_range : sequence of 4 ints, optional
        Number of batches and extent along x, y, z: strided layers make no sites beyond. Without it the grid
        is unbounded.

    Attributes
    ----------
    F, C, s
        `feats`, `coords` and `stride`.

    Examples
    --------
    >>> import torch
    >>> from spcy.torch.torchsparse import SparseTensor, nn as spnn
    >>> coords = torch.tensor([[0, 4, 4, 0], [0, 4, 5, 0]], dtype=torch.int32)
    >>> y = spnn.Conv3d(1, 16, 2, stride=2)(SparseTensor(torch.ones(2, 1), coords))
    >>> y.C, y.s
    (tensor([[0, 2, 2, 0]], dtype=torch.int32), (2, 2, 2))
    """

    # True in version 1.4: the batch is the last column, coordinates of a strided level are multiples of its
    # stride, and windows are centred on an output's own cell.
    batch_last = False

    _given: torch.Tensor | None  # coordinates, with the level that they are of once it is asked for
    _level: Level | None

    def __init__(
        self,
        feats: torch.Tensor,
        coords: torch.Tensor,
        stride: int | Sequence[int] = 1,
        spatial_range: Sequence[int] | None = None,
    ):
        self.feats = feats
        self._stride = make_ntuple(stride, ndim=3)
        self.coords = coords
        self.spatial_range = None if spatial_range is None else make_ntuple(spatial_range, ndim=4)
        self._caches = TensorCache()

    def __repr__(self) -> str:
        return f"SparseTensor(feats {tuple(self.feats.shape)}, stride {self.stride})"

    @property
    @opaque
    def coords(self) -> torch.Tensor:
        """The sites' coordinates."""
        return self._given if self._given is not None else self.level().tensor(self.feats.device)

    @coords.setter
    def coords(self, value: torch.Tensor) -> None:
        self._given, self._level = value, None

    @property
    def stride(self) -> Ints:
        """How many cells of the input a cell spans."""
        return self._stride

    @stride.setter
    def stride(self, value: int | Sequence[int]) -> None:
        stride = make_ntuple(value, ndim=3)
        if self.batch_last and stride != self._stride:  # it says what the coordinates mean
            self.coords = self.coords
        self._stride = stride

    @property
    def F(self) -> torch.Tensor:
        """The features."""
        return self.feats

    @F.setter
    def F(self, value: torch.Tensor) -> None:
        self.feats = value

    @property
    def C(self) -> torch.Tensor:
        """The sites' coordinates."""
        return self.coords

    @C.setter
    def C(self, value: torch.Tensor) -> None:
        self.coords = value

    @property
    def s(self) -> Ints:
        """The stride."""
        return self.stride

    @s.setter
    def s(self, value: int | Sequence[int]) -> None:
        self.stride = value

    @property
    def cmaps(self) -> dict[Any, Any]:
        """What code keeps there; spcy's levels find each other without."""
        return self._caches.cmaps

    @cmaps.setter
    def cmaps(self, value: dict[Any, Any]) -> None:
        self._caches.cmaps = value

    @property
    def kmaps(self) -> dict[Any, Any]:
        """The levels that strided layers made, by (tensor stride, kernel_size, stride, dilation)."""
        return self._caches.kmaps

    @kmaps.setter
    def kmaps(self, value: dict[Any, Any]) -> None:
        self._caches.kmaps = value

    def level(self) -> Level:
        """Return the level of the sites."""
        if self._level is None:
            given: Any = self._given  # either is there
            check_tensor(given, "coords")
            self._level = Level.of(given, self._scale(), self.batch_last)
        return self._level

    def _scale(self) -> Ints:
        """Return by what the coordinates are multiplied."""
        return self._stride if self.batch_last else (1, 1, 1)

    @opaque
    def as_spcy(self) -> SpcyTensor:
        """Return the tensor as spcy's functions take it, features checked against sites."""
        check_tensor(self.feats, "feats")
        if self._given is not None:
            check_tensor(self._given, "coords", self.feats)
            if len(self._given) != len(self.feats):
                raise ValueError(
                    f"feats must have a row for each of coords, {len(self._given)}, got {len(self.feats)}"
                )
        coords = self.level().coords()
        try:
            check_features(self.feats, coords)
        except (TypeError, ValueError) as error:
            raise type(error)(str(error).replace("features", "feats", 1)) from None
        return SpcyTensor._of(coords, self.feats)

    @opaque
    def batch(self) -> torch.Tensor:
        """Return the batch of each site."""
        return self.coords[:, 3 if self.batch_last else 0].long()

    @opaque
    def num_batches(self) -> int:
        """Return the number of batches: one more than the greatest, or what the spatial range says."""
        if self.spatial_range is not None:
            return self.spatial_range[0]
        return self.level().coords().batch_size

    def with_feats(self, feats: torch.Tensor) -> Self:
        """Return a tensor on the same sites with other features."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made.feats = feats
        return made

    @opaque
    def on_level(
        self, coords: Coords, stride: Ints, spatial_range: Ints | None, step: Step | None = None
    ) -> Self:
        """Return a tensor on other sites, of the same family, without features yet."""
        made = self.with_feats(self.feats)
        made._stride, made.spatial_range = stride, spatial_range
        made._given, made._level = None, Level.of(coords, made._scale(), self.batch_last, step)
        return made

    def with_rows(self, feats: torch.Tensor, coords: torch.Tensor, stride: Ints | None = None) -> Self:
        """Return a tensor on new sites: the levels that layers made are not theirs."""
        return type(self)(
            feats, coords, self.stride if stride is None else stride, spatial_range=self.spatial_range
        )

    def to(self, device: Any, non_blocking: bool = True) -> Self:
        """Move the tensor to a device, in place."""
        feats = self.feats.to(device, non_blocking=non_blocking)
        if self._given is not None or feats.device != self.feats.device:
            coords = self.coords.to(device, non_blocking=non_blocking)
            if coords is not self.coords:
                self.coords = coords
        self.feats = feats
        return self

    def cpu(self) -> Self:
        """Move the tensor to the CPU, in place."""
        return self.to("cpu")

    def cuda(self) -> Self:
        """Move the tensor to PyTorch's current GPU, in place."""
        return self.to("cuda")

    def half(self) -> Self:
        """Make the features float16, in place."""
        self.feats = self.feats.half()
        return self

    def detach(self) -> Self:
        """Take the features out of autograd's graph, in place."""
        self.feats = self.feats.detach()
        return self

    @opaque
    def dense(self) -> torch.Tensor:
        r"""Return the dense tensor (\*spatial_range, C), zero where there is no site."""
        if self.spatial_range is None:
            raise ValueError(
                "dense needs a spatial_range: SparseTensor(.., spatial_range=(batches, x, y, z))"
            )
        indices = indices_of(self.as_spcy().coords, self.feats.device)
        return to_dense(self.feats, indices, self.spatial_range)

    def __add__(self, other: SparseTensor) -> Self:
        require_same_sites([self, other], "the operands of +")
        return self.with_feats(self.feats + other.feats)


Sparse = TypeVar("Sparse", bound=SparseTensor)


@opaque
def require_same_sites(tensors: Sequence[SparseTensor], what: str) -> None:
    """Raise unless tensors have the same sites in the same rows."""
    first, *others = tensors
    for other in others:
        if not isinstance(other, SparseTensor):
            raise TypeError(f"{what} must be SparseTensors, got {type(other).__name__}")
        where = _first_difference(first, other)
        if where is not None:
            raise ValueError(
                f"{what} must have the same sites in the same rows, got {where}; "
                f"torchsparse.generative_add adds over the union of sites"
            )


def _first_difference(x: SparseTensor, y: SparseTensor) -> str | None:
    """Say where the sites of two tensors differ first, None if they do not."""
    if x.stride != y.stride:
        return f"strides {x.stride} and {y.stride}"
    if x.level() is y.level():
        return None
    a, b = x.level().coords(), y.level().coords()
    if len(a) != len(b):
        return f"{len(a)} and {len(b)} rows"
    row = _check.first_row((a.indices != b.indices).any(axis=1))
    return None if row is None else f"{a.indices[row].tolist()} and {b.indices[row].tolist()} in row {row}"


class PointTensor:
    """Features at points, as ``torchsparse.tensor.PointTensor``.

    Parameters
    ----------
    feats : torch.Tensor of shape (N, C)
    coords : torch.Tensor of shape (N, 4)
        Floating point.
    idx_query, weights : dict, optional
        What code keeps there, by the stride of the voxels.
    """

    def __init__(
        self,
        feats: torch.Tensor,
        coords: torch.Tensor,
        idx_query: dict[Any, Any] | None = None,
        weights: dict[Any, Any] | None = None,
    ):
        self.F, self.C = feats, coords
        self.idx_query: dict[Any, Any] = {} if idx_query is None else idx_query
        self.weights: dict[Any, Any] = {} if weights is None else weights
        self.additional_features: dict[str, dict[Any, Any]] = {"idx_query": {}, "counts": {}}

    def to(self, device: Any, non_blocking: bool = True) -> PointTensor:
        """Move the tensor to a device, in place."""
        self.F = self.F.to(device, non_blocking=non_blocking)
        self.C = self.C.to(device, non_blocking=non_blocking)
        return self

    def cuda(self) -> PointTensor:
        """Move the tensor to PyTorch's current GPU, in place."""
        return self.to("cuda")

    def detach(self) -> PointTensor:
        """Take the tensor out of autograd's graph, in place."""
        self.F, self.C = self.F.detach(), self.C.detach()
        return self

    def __add__(self, other: PointTensor) -> PointTensor:
        if self.F.shape != other.F.shape:
            raise ValueError(
                f"the operands of + must have the same points, got feats {tuple(self.F.shape)} and "
                f"{tuple(other.F.shape)}"
            )
        made = PointTensor(self.F + other.F, self.C, self.idx_query, self.weights)
        made.additional_features = self.additional_features
        return made
