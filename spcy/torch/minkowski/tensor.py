"""Sparse tensors and tensor fields as MinkowskiEngine has them."""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias, TypeVar

import numpy as np
import torch

from .. import functional
from .._bridge import check_tensor, opaque
from ..tensor import FLOATS
from ..tensor import SparseTensor as Sites
from .kernels import cells_of, ints_of
from .manager import CoordinateManager, CoordinateMapKey
from .modes import (
    CoordinateMapType,
    GPUMemoryAllocatorType,
    MinkowskiAlgorithm,
    SparseTensorOperationMode,
    SparseTensorQuantizationMode,
)

Device = torch.device | str | int
Scalar = torch.Tensor | float  # what PyTorch combines with features
Operand: TypeAlias = "Tensor | Scalar"
Combine = Callable[[Any, Any], torch.Tensor]

_AVERAGE = SparseTensorQuantizationMode.UNWEIGHTED_AVERAGE
_SUM = SparseTensorQuantizationMode.UNWEIGHTED_SUM
_SUBSAMPLE = SparseTensorQuantizationMode.RANDOM_SUBSAMPLE
_MAX = SparseTensorQuantizationMode.MAX_POOL
_SPLAT = SparseTensorQuantizationMode.SPLAT_LINEAR_INTERPOLATION

_operation_mode = SparseTensorOperationMode.SEPARATE_COORDINATE_MANAGER
_global_manager: CoordinateManager | None = None


def set_sparse_tensor_operation_mode(operation_mode: SparseTensorOperationMode) -> None:
    """Choose whether new tensors share a global coordinate manager, as in MinkowskiEngine."""
    if not isinstance(operation_mode, SparseTensorOperationMode):
        raise TypeError(f"operation_mode must be a SparseTensorOperationMode, got {operation_mode!r}")
    global _operation_mode
    _operation_mode = operation_mode


def sparse_tensor_operation_mode() -> SparseTensorOperationMode:
    """Return whether new tensors share a global coordinate manager."""
    return _operation_mode


def global_coordinate_manager() -> CoordinateManager | None:
    """Return the coordinate manager that new tensors share, if there is one."""
    return _global_manager


def set_global_coordinate_manager(coordinate_manager: CoordinateManager | None) -> None:
    """Set the coordinate manager that new tensors share."""
    if coordinate_manager is not None and not isinstance(coordinate_manager, CoordinateManager):
        raise TypeError(f"coordinate_manager must be a CoordinateManager, got {coordinate_manager!r}")
    global _global_manager
    _global_manager = coordinate_manager


def clear_global_coordinate_manager() -> None:
    """Let go of the coordinate manager that tensors shared."""
    set_global_coordinate_manager(None)


class Tensor:
    """Features with coordinates that a coordinate manager keeps: what the two kinds share."""

    _F: torch.Tensor
    _C: torch.Tensor | None
    _D: int
    _manager: CoordinateManager
    quantization_mode: SparseTensorQuantizationMode

    @property
    def coordinate_key(self) -> CoordinateMapKey:
        """The key of the coordinates."""
        raise NotImplementedError

    def _with(self, features: torch.Tensor) -> Any:
        """Return a tensor of other features on the same coordinates."""
        raise NotImplementedError

    @property
    def coordinate_manager(self) -> CoordinateManager:
        """What keeps the coordinates."""
        return self._manager

    @property
    def coords_man(self) -> CoordinateManager:
        """What keeps the coordinates, by the name of 0.4."""
        return self._manager

    @property
    def coords_key(self) -> CoordinateMapKey:
        """The key of the coordinates, by the name of 0.4."""
        return self.coordinate_key

    @property
    def tensor_stride(self) -> list[int]:
        """How far apart the coordinates are, by axis."""
        return self.coordinate_key.get_tensor_stride()

    @property
    def C(self) -> torch.Tensor:
        """The coordinates, (N, 1 + D): the batch, then the axes."""
        return self.coordinates

    @property
    def coordinates(self) -> torch.Tensor:
        """The coordinates, (N, 1 + D): the batch, then the axes."""
        if self._C is None:
            self._C = self._coordinates()
        return self._C

    def _coordinates(self) -> torch.Tensor:
        raise NotImplementedError

    @property
    def F(self) -> torch.Tensor:
        """The features, (N, C)."""
        return self._F

    @property
    def features(self) -> torch.Tensor:
        """The features, (N, C)."""
        return self._F

    @property
    def D(self) -> int:
        """Number of spatial axes."""
        return self._D

    @property
    def dimension(self) -> int:
        """Number of spatial axes."""
        return self._D

    @property
    def shape(self) -> torch.Size:
        """The shape of the features."""
        return self._F.shape

    def size(self) -> torch.Size:
        """Return the shape of the features."""
        return self._F.size()

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the features."""
        return self._F.dtype

    @property
    def device(self) -> torch.device:
        """Where the features are."""
        return self._F.device

    def get_device(self) -> int:
        """Return the number of the GPU, -1 on a CPU."""
        return self._F.get_device()

    @property
    def requires_grad(self) -> bool:
        """Whether the features have a gradient."""
        return self._F.requires_grad

    def requires_grad_(self, requires_grad: bool = True) -> None:
        """Set whether the features have a gradient."""
        self._F.requires_grad_(requires_grad)

    def float(self) -> Self:
        """Make the features float32, in place."""
        self._F = self._F.float()
        return self

    def double(self) -> Self:
        """Make the features float64, in place."""
        self._F = self._F.double()
        return self

    def detach(self) -> Self:
        """Cut the features from their graph, in place."""
        self._F = self._F.detach()
        return self

    def __len__(self) -> int:
        return len(self._F)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(\n  coordinates={self.C}\n  features={self.F}\n"
            f"  coordinate_map_key={self.coordinate_key}\n  coordinate_manager={self._manager}"
            f"  spatial dimension={self._D})"
        )

    # By batch

    @property
    def _batchwise_row_indices(self) -> list[torch.Tensor]:
        return self._manager.origin_map(self.coordinate_key)[1]

    @property
    def decomposition_permutations(self) -> list[torch.Tensor]:
        """The rows of each batch."""
        return self._batchwise_row_indices

    @property
    def decomposed_coordinates(self) -> list[torch.Tensor]:
        """The coordinates of each batch, without it."""
        return self.decomposed_coordinates_and_features[0]

    @property
    def decomposed_features(self) -> list[torch.Tensor]:
        """The features of each batch."""
        return self.decomposed_coordinates_and_features[1]

    @property
    def decomposed_coordinates_and_features(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The coordinates of each batch, without it, and the features."""
        rows = self._batchwise_row_indices
        return [self.C[each, 1:] for each in rows], [self._F[each] for each in rows]

    def coordinates_at(self, batch_index: int) -> torch.Tensor:
        """Return the coordinates of a batch, without it."""
        return self.coordinates_and_features_at(batch_index)[0]

    def features_at(self, batch_index: int) -> torch.Tensor:
        """Return the features of a batch."""
        return self.coordinates_and_features_at(batch_index)[1]

    def coordinates_and_features_at(self, batch_index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the coordinates of a batch, without it, and its features."""
        rows = self._batchwise_row_indices[batch_index]
        return self.C[rows, 1:], self._F[rows]

    # Arithmetic

    def _features_beside(self, other: Operand) -> Scalar:
        """Return what is to be combined with the features in place."""
        if isinstance(other, Tensor):
            require_same_manager(self, other)
            if type(other) is not type(self) or other.coordinate_key != self.coordinate_key:
                raise ValueError(
                    f"tensors must be on the same coordinates to be combined in place, got "
                    f"{self.coordinate_key} and {other.coordinate_key}: x = x + y unites them"
                )
            return other._F
        return other

    def __iadd__(self, other: Operand) -> Self:
        self._F += self._features_beside(other)
        return self

    def __isub__(self, other: Operand) -> Self:
        self._F -= self._features_beside(other)
        return self

    def __imul__(self, other: Operand) -> Self:
        self._F *= self._features_beside(other)
        return self

    def __itruediv__(self, other: Operand) -> Self:
        self._F /= self._features_beside(other)
        return self

    def _combine(self, other: Operand, function: Combine) -> Any:
        if not isinstance(other, Tensor):
            return self._with(function(self._F, other))
        require_same_manager(self, other)
        if type(other) is type(self) and other.coordinate_key == self.coordinate_key:
            return self._with(function(self._F, other._F))
        return self._combine_over_union(other, function)

    def _combine_over_union(self, other: Tensor, function: Combine) -> Any:
        raise ValueError("tensor fields must be on the same points to be combined")

    def __add__(self, other: Operand) -> Self:
        return self._combine(other, operator.add)

    def __sub__(self, other: Operand) -> Self:
        return self._combine(other, operator.sub)

    def __mul__(self, other: Operand) -> Self:
        return self._combine(other, operator.mul)

    def __truediv__(self, other: Operand) -> Self:
        return self._combine(other, operator.truediv)

    def __pow__(self, power: Scalar) -> Self:
        return self._with(self._F**power)


class SparseTensor(Tensor):
    """Features on coordinates, as ``MinkowskiEngine.SparseTensor``.

    Parameters
    ----------
    features : torch.Tensor of shape (N, C)
        float32, float64, float16 or bfloat16.
    coordinates : torch.Tensor of shape (N, 1 + D), int32, optional
        The batch, then the axes. Others are rounded down, with a warning. Rows with the same coordinates
        become one, as `quantization_mode` says; the others keep their order.
    tensor_stride : int or sequence of D ints
        How far apart the coordinates are.
    coordinate_map_key, coordinate_manager
        Instead of coordinates: some that a manager has. A manager alone is the one that is to keep them.
    quantization_mode : SparseTensorQuantizationMode
        RANDOM_SUBSAMPLE takes the first row.
    allocator_type, minkowski_algorithm
        Accepted, without effect.
    requires_grad : bool, optional
    device : torch.device, optional
        Where features and coordinates go first.

    Attributes
    ----------
    F, C : torch.Tensor
        Features and coordinates, also as `features` and `coordinates`.
    unique_index, inverse_mapping : torch.Tensor, int64
        The row that each of the coordinates was first in, and which of them each row has.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import torch, spcy.torch.minkowski as ME
    >>> x = ME.SparseTensor(torch.ones(3, 1), torch.IntTensor([[0, 4], [0, 5], [0, 9]]))
    >>> conv = ME.MinkowskiConvolution(1, 2, kernel_size=2, stride=2, dimension=1)
    >>> conv(x).C.tolist()
    [[0, 4], [0, 8]]
    """

    coordinate_map_key: CoordinateMapKey
    unique_index: torch.Tensor
    inverse_mapping: torch.Tensor

    def __init__(
        self,
        features: torch.Tensor,
        coordinates: torch.Tensor | None = None,
        tensor_stride: int | Sequence[int] = 1,
        coordinate_map_key: CoordinateMapKey | None = None,
        coordinate_manager: CoordinateManager | None = None,
        quantization_mode: SparseTensorQuantizationMode = _SUBSAMPLE,
        allocator_type: GPUMemoryAllocatorType | None = None,
        minkowski_algorithm: MinkowskiAlgorithm | None = None,
        requires_grad: bool | None = None,
        device: Device | None = None,
    ):
        check_quantization_mode(quantization_mode, tuple(SparseTensorQuantizationMode))
        features, coordinates = _moved(features, coordinates, device)
        manager, place = _placed(coordinates, coordinate_map_key, coordinate_manager, minkowski_algorithm)
        self.quantization_mode = quantization_mode
        self._manager, self._D, self._C = manager, manager.D, None
        if isinstance(place, torch.Tensor):
            _check_rows(features, place)
            key, features = self._insert(place, features, tensor_stride)
        else:
            key, num = place, manager.size(place)
            if len(features) != num:
                raise ValueError(
                    f"features must have {num} rows, one for each of the coordinates of coordinate_map_key, "
                    f"got {len(features)}"
                )
        if requires_grad is not None:
            features.requires_grad_(requires_grad)
        self._F, self.coordinate_map_key = features, key

    @classmethod
    def _on(cls, features: torch.Tensor, key: CoordinateMapKey, manager: CoordinateManager) -> SparseTensor:
        """Return features on coordinates that a layer knows to fit."""
        x = cls.__new__(cls)
        x._F, x._C, x._D, x._manager, x.coordinate_map_key = features, None, manager.D, manager, key
        x.quantization_mode = _SUBSAMPLE
        return x

    def _with(self, features: torch.Tensor) -> SparseTensor:
        _check_beside(features, self._F)
        return SparseTensor._on(features, self.coordinate_map_key, self._manager)

    @opaque
    def _insert(
        self, coordinates: torch.Tensor, features: torch.Tensor, tensor_stride: int | Sequence[int]
    ) -> tuple[CoordinateMapKey, torch.Tensor]:
        """Give the manager coordinates; return their key, and the features that they get."""
        if coordinates.dtype is not torch.int32:
            warnings.warn(
                "coordinates implicitly converted to torch.IntTensor, rounded down: "
                "coordinates.floor().int() does so without this warning",
                stacklevel=3,
            )
            coordinates = cells_of(coordinates, "coordinates")
        key, (self.unique_index, self.inverse_mapping) = self._manager.insert_and_map(
            coordinates, tensor_stride
        )
        num = len(self.unique_index)
        if num == len(features):
            return key, features
        if self.quantization_mode is _SPLAT:
            raise ValueError(
                "quantization_mode must not be SPLAT_LINEAR_INTERPOLATION: TensorField.splat() is that"
            )
        kept = quantized(features, self.quantization_mode, self.inverse_mapping, num, self.unique_index)
        return key, features if kept is None else kept

    @property
    def coordinate_key(self) -> CoordinateMapKey:
        """The key of the coordinates."""
        return self.coordinate_map_key

    @opaque
    def _coordinates(self) -> torch.Tensor:
        return self._manager.get_coordinates(self.coordinate_map_key)

    @opaque
    def _combine_over_union(self, other: Tensor, function: Combine) -> SparseTensor:
        if not isinstance(other, SparseTensor):
            raise TypeError(f"a sparse tensor must be combined with another, got a {type(other).__name__}")
        key = CoordinateMapKey(self._D + 1)
        if other._F.shape[1] not in (1, self._F.shape[1]):
            raise ValueError(
                f"tensors must have as many channels to be combined, got {self._F.shape[1]} and "
                f"{other._F.shape[1]}"
            )
        mine, theirs = self._manager.union_map([self.coordinate_map_key, other.coordinate_map_key], key)
        out = self._F.new_zeros(self._manager.size(key), self._F.shape[1]).index_copy(0, mine[1], self._F)
        return SparseTensor._on(
            out.index_copy(0, theirs[1], function(out[theirs[1]], other._F)), key, self._manager
        )

    def sparse(
        self,
        min_coords: torch.Tensor | None = None,
        max_coords: torch.Tensor | None = None,
        contract_coords: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the tensor as a sparse COO tensor whose last axis, the channels, is dense.

        Parameters
        ----------
        min_coords, max_coords : torch.Tensor of shape (D,), int32, optional
            The first and the last coordinates, multiples of the tensor stride. Default the tensor's own.
        contract_coords : bool
            Divide coordinates by the tensor stride.

        Returns
        -------
        tensor : torch.Tensor, layout torch.sparse_coo
        min_coords : torch.Tensor of shape (1, D)
        tensor_stride : torch.Tensor of shape (D,)
        """
        if not len(self) and min_coords is None:
            raise ValueError("min_coords must be given for a tensor without sites")
        tensor_stride = torch.tensor(self.tensor_stride, dtype=torch.int32, device=self.device)
        places = self.C[:, 1:].long()  # a difference may not fit in int32
        low = self.C[:, 1:].amin(0) if min_coords is None else self._corner(min_coords, "min_coords")
        high = None if max_coords is None else self._corner(max_coords, "max_coords")
        places = places - low
        if contract_coords:
            places = torch.div(places, tensor_stride, rounding_mode="floor")
            low = torch.div(low, tensor_stride, rounding_mode="floor")
            high = None if high is None else torch.div(high, tensor_stride, rounding_mode="floor")
        beyond = (places < 0).any(1) if high is None else ((places < 0) | (places > high - low)).any(1)
        if beyond.any():
            row = int(beyond.nonzero()[0])
            raise ValueError(
                f"min_coords and max_coords must hold all sites, got {self.C[row].tolist()} in row {row}"
            )
        indices = torch.cat([self.C[:, :1], places], 1).T
        if high is None:
            out = torch.sparse_coo_tensor(indices, self._F, check_invariants=True)
        else:
            size = int(self.C[:, 0].max()) + 1, *(high - low + 1).tolist(), self._F.shape[1]
            out = torch.sparse_coo_tensor(indices, self._F, size, check_invariants=True)
        return out, low[None], tensor_stride.cpu()

    def _corner(self, corner: torch.Tensor | int, name: str) -> torch.Tensor:
        value = torch.as_tensor(corner, device=self.device).reshape(-1)
        tensor_stride = torch.tensor(self.tensor_stride, device=self.device)
        if len(value) != self._D or value.is_floating_point() or (value % tensor_stride).any():
            raise ValueError(
                f"{name} must be {self._D} ints divisible by the tensor stride {self.tensor_stride}, "
                f"got {value.tolist()}"
            )
        return value.int()

    def dense(
        self,
        shape: Sequence[int] | None = None,
        min_coordinate: torch.Tensor | int | None = None,
        contract_stride: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the tensor as a dense one, zero where there is no site.

        Parameters
        ----------
        shape : sequence of ints, optional
            Batches, channels, then the axes. Default what holds all sites. The number of channels is the
            tensor's, whatever stands there.
        min_coordinate : torch.Tensor of shape (D,), int32, or 0, optional
            What is at place 0, divisible by the tensor stride. Without it, coordinate 0, and no coordinate
            may be negative.
        contract_stride : bool
            Divide coordinates by the tensor stride.

        Returns
        -------
        dense : torch.Tensor
        min_coordinate : torch.Tensor of shape (1, D), int32
            The least coordinates if none were given, as in MinkowskiEngine.
        tensor_stride : torch.Tensor of shape (D,), int32

        Raises
        ------
        ValueError
            If a coordinate lies outside, or the tensor is empty and `shape` was not given.
        """
        tensor_stride = torch.tensor(self.tensor_stride, dtype=torch.int32, device=self.device)
        if shape is not None and len(shape) != self._D + 2:
            raise ValueError(f"shape must have batches, channels and {self._D} axes, got {tuple(shape)}")
        if not len(self):
            if shape is None:
                raise ValueError("shape must be given for a tensor without sites")
            dense = self._F.new_zeros(shape[0], self._F.shape[1], *shape[2:])
            return dense, tensor_stride.new_zeros(1, self._D), tensor_stride
        batches, places = self.C[:, 0].long(), self.C[:, 1:].long()
        low = self.C[:, 1:].amin(0)[None]
        if min_coordinate is None or (isinstance(min_coordinate, int) and min_coordinate == 0):
            if (low < 0).any():
                raise ValueError(
                    f"min_coordinate must be given where coordinates are negative, the least are "
                    f"{low[0].tolist()}"
                )
        else:
            low = self._corner(min_coordinate, "min_coordinate")[None]
            places = places - low
        if contract_stride:
            places = torch.div(places, tensor_stride, rounding_mode="floor")
        if shape is None:
            shape = int(batches.max()) + 1, 0, *(places.amax(0) + 1).tolist()
        inside = torch.tensor(shape[2:], device=self.device)
        out = ((places < 0) | (places >= inside)).any(1) | (batches >= shape[0])
        if out.any():
            row = int(out.nonzero()[0])
            raise ValueError(
                f"shape must hold all sites, {tuple(shape)} does not: {self.C[row].tolist()} in row {row}"
            )
        dense = self._F.new_zeros(shape[0], *shape[2:], self._F.shape[1])
        dense = dense.index_put((batches, *places.unbind(1)), self._F).movedim(-1, 1)
        return dense, low, tensor_stride.cpu()

    @opaque
    def interpolate(self, X: TensorField) -> TensorField:
        """Return features between sites at the points of a tensor field, linearly."""
        if not isinstance(X, TensorField):
            raise TypeError(f"X must be a TensorField, got {type(X).__name__}")
        if self.coordinate_map_key in X._splat:
            rows, points, weights = X._splat[self.coordinate_map_key]
            return X._with(weighted_rows(self._F, rows, points, weights, len(X)))
        return X._with(self.features_at_coordinates(X.C.to(self.dtype)))

    def slice(self, X: SparseTensor | TensorField) -> TensorField:
        """Return the features at the points, or rows, that a tensor field's or tensor's sites came from."""
        return self._sliced(X, lambda features: features)

    def cat_slice(self, X: SparseTensor | TensorField) -> TensorField:
        """Return what `slice` does, with X's own features behind."""
        return self._sliced(X, lambda features: torch.cat([features, X._F], 1))

    @opaque
    def _sliced(
        self, X: SparseTensor | TensorField, join: Callable[[torch.Tensor], torch.Tensor]
    ) -> TensorField:
        if not isinstance(X, Tensor):
            raise TypeError(f"X must be a TensorField or a SparseTensor, got {type(X).__name__}")
        if X.quantization_mode not in (_SUBSAMPLE, _AVERAGE):
            raise ValueError(
                f"X must have been quantized by RANDOM_SUBSAMPLE or UNWEIGHTED_AVERAGE to be sliced, got "
                f"{X.quantization_mode.name}"
            )
        require_same_manager(self, X)
        if isinstance(X, TensorField):
            rows = X.inverse_mapping(self.coordinate_map_key)
            return X._with(join(functional.take_rows(self._F, rows.int())))
        if X.coordinate_map_key != self.coordinate_map_key:
            raise ValueError(
                f"X must be on the coordinates of the tensor, {self.coordinate_map_key}, got "
                f"{X.coordinate_map_key}"
            )
        if not hasattr(X, "inverse_mapping"):
            raise ValueError(
                "X must have been made from coordinates: the output of a layer has no rows before it"
            )
        rows = X.inverse_mapping
        features = join(functional.take_rows(self._F, rows.int()))
        points = self.C[rows].to(torch.float32)
        return TensorField(
            features, points, coordinate_manager=self._manager, quantization_mode=self.quantization_mode
        )

    @opaque
    def features_at_coordinates(self, query_coordinates: torch.Tensor) -> torch.Tensor:
        """Return features between sites at points, linearly.

        Parameters
        ----------
        query_coordinates : torch.Tensor of shape (M, 1 + D), of the features' dtype
            The batch, then the axes.

        Returns
        -------
        torch.Tensor of shape (M, C)
            Cells without a site count as zeros.
        """
        check_tensor(query_coordinates, "query_coordinates", self._F)
        if query_coordinates.dtype != self.dtype:
            raise TypeError(
                f"query_coordinates must be {self.dtype}, as the features, got {query_coordinates.dtype}"
            )
        return interpolated(self._F, query_coordinates, self.coordinate_map_key, self._manager)


class TensorField(Tensor):
    """Features at points, as ``MinkowskiEngine.TensorField``.

    Parameters
    ----------
    features : torch.Tensor of shape (N, C)
    coordinates : torch.Tensor of shape (N, 1 + D), optional
        The batch, then the axes, of any dtype.
    tensor_stride : int or sequence of D ints
    coordinate_field_map_key, coordinate_manager
        Instead of coordinates: some that a manager has.
    quantization_mode : SparseTensorQuantizationMode
        How `sparse` reduces the points of a cell.
    allocator_type, minkowski_algorithm
        Accepted, without effect.
    requires_grad : bool, optional
    device : torch.device, optional

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import torch, spcy.torch.minkowski as ME
    >>> points = torch.tensor([[0, 1.5, 2.5], [0, 1.25, 2.0], [0, -1.0, 0.0]])
    >>> field = ME.TensorField(torch.tensor([[1.0], [2.0], [5.0]]), points)
    >>> field.sparse().F.flatten()
    tensor([1.5000, 5.0000])
    """

    coordinate_field_map_key: CoordinateMapKey

    def __init__(
        self,
        features: torch.Tensor,
        coordinates: torch.Tensor | None = None,
        tensor_stride: int | Sequence[int] = 1,
        coordinate_field_map_key: CoordinateMapKey | None = None,
        coordinate_manager: CoordinateManager | None = None,
        quantization_mode: SparseTensorQuantizationMode = _AVERAGE,
        allocator_type: GPUMemoryAllocatorType | None = None,
        minkowski_algorithm: MinkowskiAlgorithm | None = None,
        requires_grad: bool | None = None,
        device: Device | None = None,
    ):
        check_quantization_mode(quantization_mode, (_AVERAGE, _SUM, _SUBSAMPLE, _MAX))
        features, coordinates = _moved(features, coordinates, device)
        manager, place = _placed(
            coordinates, coordinate_field_map_key, coordinate_manager, minkowski_algorithm
        )
        self.quantization_mode = quantization_mode
        self._manager, self._D = manager, manager.D
        self._C: torch.Tensor | None = None
        if isinstance(place, torch.Tensor):
            _check_rows(features, place)
            self._C = place.clone()  # what becomes of the argument is not to matter
            points = place if place.is_floating_point() else place.float()
            steps = ints_of(tensor_stride, self._D, "tensor_stride")
            key = manager.insert_field(points, steps)
        else:
            key, num = place, len(manager._points(place))
            if len(features) != num:
                raise ValueError(
                    f"features must have {num} rows, one for each of the points of "
                    f"coordinate_field_map_key, got {len(features)}"
                )
        if requires_grad is not None:
            features.requires_grad_(requires_grad)
        self._F, self.coordinate_field_map_key = features, key
        self._inverse_mapping: dict[CoordinateMapKey, torch.Tensor] = {}
        self._splat: dict[CoordinateMapKey, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def _with(self, features: torch.Tensor) -> TensorField:
        _check_beside(features, self._F)
        field = copy.copy(self)
        field._F = features
        return field

    @property
    def coordinate_key(self) -> CoordinateMapKey:
        """The key of the points."""
        return self.coordinate_field_map_key

    @opaque
    def _coordinates(self) -> torch.Tensor:
        return self._manager.get_coordinate_field(self.coordinate_field_map_key)

    @property
    def _batchwise_row_indices(self) -> list[torch.Tensor]:
        return self._manager.origin_field_map(self.coordinate_field_map_key)[1]

    @opaque
    def sparse(
        self,
        tensor_stride: int | Sequence[int] = 1,
        coordinate_map_key: CoordinateMapKey | None = None,
        quantization_mode: SparseTensorQuantizationMode | None = None,
    ) -> SparseTensor:
        """Return a sparse tensor of the cells that the points lie in.

        Parameters
        ----------
        tensor_stride : int or sequence of D ints
            The size of a cell.
        coordinate_map_key : CoordinateMapKey, optional
            The cells, instead of those that hold a point: points outside of them are left out.
        quantization_mode : SparseTensorQuantizationMode, optional
            Default the field's own.

        Returns
        -------
        SparseTensor
        """
        mode = self.quantization_mode if quantization_mode is None else quantization_mode
        if mode is _SPLAT:
            raise ValueError("quantization_mode must not be SPLAT_LINEAR_INTERPOLATION: splat() is that")
        if coordinate_map_key is None:
            key, (first, rows) = self._manager.field_to_sparse_insert_and_map(
                self.coordinate_field_map_key, tensor_stride
            )
            features = quantized(self._F, mode, rows, len(first), first)
        else:
            key, manager = coordinate_map_key, self._manager
            sites, points = manager.field_to_sparse_map(self.coordinate_field_map_key, key)
            rows = torch.full((len(self),), -1, dtype=torch.int64, device=self.device)
            rows[points] = sites
            features = quantized(self._F, mode, rows, manager.size(key))
        if features is None:
            raise ValueError(f"quantization_mode must be one that reduces the points of a cell, got {mode}")
        self._inverse_mapping[key] = rows
        return SparseTensor._on(features, key, self._manager)

    @opaque
    def splat(self) -> SparseTensor:
        """Return a sparse tensor of the 2**D sites around each point, which share its features linearly."""
        cells = torch.floor(self.C).int()
        corners = torch.tensor(
            [(0, *c) for c in np.ndindex(*(2,) * self._D)], dtype=torch.int32, device=self.device
        )
        cells = (cells[:, None] + corners).reshape(-1, 1 + self._D)
        key, _ = self._manager.insert_and_map(cells)
        rows, points, weights = self._manager.interpolation_map_weight(key, self.C.to(self.dtype))
        self._splat[key] = rows, points, weights
        features = weighted_rows(self._F, points, rows, weights, self._manager.size(key))
        return SparseTensor._on(features, key, self._manager)

    @opaque
    def inverse_mapping(self, sparse_tensor_map_key: CoordinateMapKey) -> torch.Tensor:
        """Return the row of the site that holds each point, int64.

        Sites are those that `sparse` made, or coarser ones made from them.
        """
        if sparse_tensor_map_key not in self._inverse_mapping:
            manager, field = self._manager, self.coordinate_field_map_key
            rows, points = manager.field_to_sparse_map(field, sparse_tensor_map_key)
            if len(points) != len(self):
                outside = torch.ones(len(self), dtype=torch.bool, device=self.device)
                outside[points] = False
                row = int(outside.nonzero()[0])
                raise ValueError(
                    f"the sites of {sparse_tensor_map_key} must hold all points of the field, got none for "
                    f"{self.C[row].tolist()} in row {row}"
                )
            self._inverse_mapping[sparse_tensor_map_key] = rows
        return self._inverse_mapping[sparse_tensor_map_key]


Kind = TypeVar("Kind", SparseTensor, TensorField)  # layers on features give what they get


def wrapped(x: Kind, function: Callable[[torch.Tensor], torch.Tensor]) -> Kind:
    """Return what a function makes of the features, on what a tensor or a field is on."""
    if not isinstance(x, Tensor):
        raise TypeError(f"input must be a SparseTensor or a TensorField, got {type(x).__name__}")
    return x._with(function(x._F))


def _check_beside(features: torch.Tensor, others: torch.Tensor) -> None:
    """Raise unless new features have as many rows as those that they are to stand for."""
    if features.dim() != 2 or len(features) != len(others):
        raise ValueError(
            f"features must have {len(others)} rows, one per site, got "
            f"{len(features) if features.dim() == 2 else f'shape {tuple(features.shape)}'}"
        )


def require_sparse(x: Any, dimension: int | None = None) -> SparseTensor:
    """Return a layer's input, checked."""
    if not isinstance(x, SparseTensor):
        raise TypeError(f"input must be a SparseTensor, got {type(x).__name__}")
    if dimension is not None and dimension != x.D:
        raise ValueError(f"input must have {dimension} axes, the dimension of the layer, got {x.D}")
    return x


def require_same_manager(*tensors: Tensor) -> None:
    """Raise unless tensors share a coordinate manager."""
    for other in tensors[1:]:
        if other._manager is not tensors[0]._manager:
            raise ValueError(
                "tensors must share a coordinate manager to meet: give "
                "coordinate_manager=x.coordinate_manager to SparseTensor, or "
                "set_sparse_tensor_operation_mode(SHARE_COORDINATE_MANAGER)"
            )


def check_quantization_mode(mode: Any, choices: tuple[SparseTensorQuantizationMode, ...]) -> None:
    """Raise unless a quantization mode is one of some."""
    if mode not in choices:
        raise ValueError(
            f"quantization_mode must be one of {', '.join(c.name for c in choices)}, got {mode!r}"
        )


def quantized(
    features: torch.Tensor,
    mode: SparseTensorQuantizationMode,
    rows: torch.Tensor,
    num_rows: int,
    first: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """Return features reduced by row, None for a mode that reduces nothing.

    `first` is a place of each row, found if None; `rows` may have -1, for what is left out.
    """
    rows = rows.int()
    if mode is _SUM:
        return functional.add_rows(features, rows, num_rows)
    if mode is _AVERAGE:
        return functional.mean_rows(features, rows, num_rows)
    if mode is _SUBSAMPLE:
        if first is None:
            places = torch.arange(len(rows), device=rows.device)
            first = torch.full((num_rows + 1,), len(rows), device=rows.device)
            first = first.scatter_reduce(0, (rows + 1).long(), places, "amin")[1:]
            first[first == len(rows)] = -1
        return functional.take_rows(features, first.int())
    if mode is _MAX:
        return functional.max_rows(features, rows, num_rows)
    return None


def weighted_rows(
    features: torch.Tensor, rows: torch.Tensor, to: torch.Tensor, weights: torch.Tensor, num_rows: int
) -> torch.Tensor:
    """Return the sums of weighted rows of features by where they go."""
    taken = functional.take_rows(features, rows.int()) * weights[:, None].to(features.dtype)
    return functional.add_rows(taken, to.int(), num_rows)


def interpolated(
    features: torch.Tensor, points: torch.Tensor, key: CoordinateMapKey, manager: CoordinateManager
) -> torch.Tensor:
    """Return features between sites at points, linearly; what is not there counts as zeros."""
    manager.check_points(points, "the points")
    manager.check_features(features, key)
    coords, unit = manager.coords_of(key)
    if list(unit) != key.get_tensor_stride() or not coords.num_sites:
        rows, at, weights = manager.interpolation_map_weight(key, points)
        return weighted_rows(features, rows, at, weights, len(points))
    low = torch.tensor(coords.origin, device=points.device)
    edge = torch.tensor(coords.voxel_size, device=points.device)
    cells = points[:, 1:].double() / torch.tensor(unit, device=points.device) + 0.5
    batch = points[:, 0].round().int()
    inside = (batch >= 0) & (batch < coords.batch_size)
    out = functional.devoxelize(
        Sites(coords, features),
        cells * edge + low,
        "linear",
        batch=torch.where(inside, batch, 0),
        renormalize=False,
    )
    return out if inside.all() else torch.where(inside[:, None], out, 0)


def _moved(
    features: torch.Tensor, coordinates: torch.Tensor | None, device: Device | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return checked features and coordinates, on a device."""
    if not isinstance(features, torch.Tensor):
        raise TypeError(f"features must be a torch.Tensor, got {type(features).__name__}")
    if coordinates is not None and not isinstance(coordinates, torch.Tensor):
        raise TypeError(f"coordinates must be a torch.Tensor, got {type(coordinates).__name__}")
    if device is not None:
        features = features.to(device)
        coordinates = None if coordinates is None else coordinates.to(device)
    check_tensor(features, "features")
    if features.dim() != 2:
        raise ValueError(f"features must have shape (N, C), got shape {tuple(features.shape)}")
    if features.dtype not in FLOATS:
        raise TypeError(
            f"features must be float32, float64, float16 or bfloat16, got {features.dtype}: .float() makes "
            f"them so"
        )
    return features, coordinates


def _placed(
    coordinates: torch.Tensor | None,
    key: CoordinateMapKey | None,
    manager: CoordinateManager | None,
    algorithm: MinkowskiAlgorithm | None,
) -> tuple[CoordinateManager, torch.Tensor | CoordinateMapKey]:
    """Return the manager of a new tensor, and its coordinates or the key of some that the manager has."""
    if manager is not None and not isinstance(manager, CoordinateManager):
        raise TypeError(f"coordinate_manager must be a CoordinateManager, got {type(manager).__name__}")
    if key is not None:
        if not isinstance(key, CoordinateMapKey):
            raise TypeError(f"coordinate_map_key must be a CoordinateMapKey, got {type(key).__name__}")
        if manager is None:
            raise ValueError(
                "coordinate_manager must be given with coordinate_map_key, which is a name in it"
            )
        if coordinates is not None:
            raise ValueError("coordinates must be left out with coordinate_map_key, which names some")
        key._require()
        return manager, key
    if coordinates is None:
        raise ValueError("coordinates must be given, or coordinate_map_key and coordinate_manager instead")
    if coordinates.dim() != 2:
        raise ValueError(f"coordinates must have shape (N, 1 + D), got shape {tuple(coordinates.shape)}")
    if manager is not None:
        return manager, coordinates
    shared = sparse_tensor_operation_mode() is SparseTensorOperationMode.SHARE_COORDINATE_MANAGER
    manager = global_coordinate_manager() if shared else None
    if manager is None:
        kind = CoordinateMapType.CUDA if coordinates.is_cuda else CoordinateMapType.CPU
        manager = CoordinateManager(
            D=coordinates.shape[1] - 1, coordinate_map_type=kind, minkowski_algorithm=algorithm
        )
        if shared:
            set_global_coordinate_manager(manager)
    return manager, coordinates


def _check_rows(features: torch.Tensor, coordinates: torch.Tensor) -> None:
    check_tensor(coordinates, "coordinates", features)
    if coordinates.is_complex():
        raise TypeError(f"coordinates must be of an integer or a float dtype, got {coordinates.dtype}")
    if len(features) != len(coordinates):
        raise ValueError(
            f"features must have as many rows as coordinates, {len(coordinates)}, got {len(features)}"
        )
