"""Tensors from and to dense ones, joins, stacks of layers, unions and what leaves sites out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import Linear, Module, Sequential

from .. import functional
from .._bridge import check_tensor, opaque
from .conv import MinkowskiModuleBase, require_manager
from .manager import CoordinateManager, CoordinateMapKey
from .tensor import (
    Kind,
    SparseTensor,
    Tensor,
    TensorField,
    interpolated,
    require_same_manager,
    require_sparse,
    wrapped,
)


class MinkowskiLinear(Module):
    """A linear layer on the features: a `torch.nn.Linear`, `linear`.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        self.linear = Linear(in_features, out_features, bias)

    def forward(self, input: Kind) -> Kind:
        """Return the tensor or field with the layer's output."""
        return wrapped(input, self.linear)

    def __repr__(self) -> str:
        linear = self.linear
        return (
            f"{type(self).__name__}(in_features={linear.in_features}, out_features={linear.out_features}, "
            f"bias={linear.bias is not None})"
        )


def _joined(
    given: Sequence[Kind | Sequence[Kind]], function: Callable[[list[torch.Tensor]], torch.Tensor]
) -> Kind:
    """Return a function of the features of tensors on the same coordinates."""
    tensors: Sequence[Any] = given
    if len(given) == 1 and isinstance(given[0], (tuple, list)):
        tensors = given[0]
    if len(tensors) < 2:
        raise ValueError(f"tensors must be at least two, got {len(tensors)}")
    first: Kind = tensors[0]
    if not isinstance(first, Tensor):
        raise TypeError(f"tensors must be SparseTensors or TensorFields, got {type(first).__name__} at 0")
    for place, x in enumerate(tensors):
        if type(x) is not type(first):
            raise TypeError(
                f"tensors must be of one kind, {type(first).__name__}, got {type(x).__name__} at {place}"
            )
        require_same_manager(first, x)
        check_tensor(x._F, f"tensors[{place}]", first._F)
        if x.coordinate_key != first.coordinate_key:
            raise ValueError(
                f"tensors must be on the same coordinates, got {first.coordinate_key} and "
                f"{x.coordinate_key} at {place}: MinkowskiUnion unites different ones"
            )
    return first._with(function([x._F for x in tensors]))


def _variance(xs: list[torch.Tensor]) -> torch.Tensor:
    mean = _total(xs) / len(xs)
    return _total([(x - mean) ** 2 for x in xs]) / len(xs)


def _total(xs: list[torch.Tensor]) -> torch.Tensor:
    total = xs[0]
    for x in xs[1:]:
        total = total + x
    return total


def cat(*sparse_tensors: Kind | Sequence[Kind]) -> Kind:
    """Return tensors on the same coordinates joined along their channels."""
    return _joined(sparse_tensors, lambda xs: torch.cat(xs, -1))


def sum(*sparse_tensors: Kind | Sequence[Kind]) -> Kind:
    """Return the sum of tensors on the same coordinates."""
    return _joined(sparse_tensors, _total)


def mean(*sparse_tensors: Kind | Sequence[Kind]) -> Kind:
    """Return the mean of tensors on the same coordinates."""
    return _joined(sparse_tensors, lambda xs: _total(xs) / len(xs))


def var(*sparse_tensors: Kind | Sequence[Kind]) -> Kind:
    """Return the variance of tensors on the same coordinates, divided by their number."""
    return _joined(sparse_tensors, _variance)


class _Stack(Sequential):
    """Layers side by side, whose outputs are joined."""

    def forward(self, x: Kind) -> Kind:
        """Return what joins the layers' outputs."""
        return self._join([module(x) for module in self])

    def _join(self, outputs: Sequence[Kind]) -> Kind:
        raise NotImplementedError


class MinkowskiStackCat(_Stack):
    """Layers side by side: their outputs joined along the channels."""

    def _join(self, outputs: Sequence[Kind]) -> Kind:
        return cat(outputs)


class MinkowskiStackSum(_Stack):
    """Layers side by side: the sum of their outputs."""

    def _join(self, outputs: Sequence[Kind]) -> Kind:
        return sum(outputs)


class MinkowskiStackMean(_Stack):
    """Layers side by side: the mean of their outputs."""

    def _join(self, outputs: Sequence[Kind]) -> Kind:
        return mean(outputs)


class MinkowskiStackVar(_Stack):
    """Layers side by side: the variance of their outputs."""

    def _join(self, outputs: Sequence[Kind]) -> Kind:
        return var(outputs)


def dense_coordinates(shape: Sequence[int]) -> torch.Tensor:
    """Return the coordinates of all cells of a dense tensor, (N, 1 + D) int32.

    Parameters
    ----------
    shape : sequence of ints
        Batches, channels, then the axes.
    """
    if len(shape) < 3:
        raise ValueError(f"shape must have batches, channels and at least one axis, got {tuple(shape)}")
    cells = np.indices((shape[0], *shape[2:]), np.int32).reshape(len(shape) - 1, -1).T
    return torch.from_numpy(np.ascontiguousarray(cells))


def to_sparse(
    x: torch.Tensor, format: str | None = None, coordinates: torch.Tensor | None = None, device: Any = None
) -> SparseTensor:
    """Return a sparse tensor of the cells of a dense one that are not zero in all channels.

    Parameters
    ----------
    x : torch.Tensor
    format : str, optional
        A letter for each axis: B, first, the batch, C the channels. Default "BCX..X".
    coordinates : None
        Accepted, without effect, as in MinkowskiEngine.
    device : torch.device, optional

    Returns
    -------
    SparseTensor
        Its gradient reaches x.
    """
    if not isinstance(x, torch.Tensor) or x.dim() < 3:
        raise ValueError("x must be a torch.Tensor with batches, channels and at least one axis")
    format = "BC" + "X" * (x.dim() - 2) if format is None else format
    if len(format) != x.dim() or format[0] != "B" or format.count("B") != 1 or format.count("C") != 1:
        raise ValueError(
            f"format must have {x.dim()} letters, one for each axis of x, B first and one C, got {format!r}"
        )
    x = x.movedim(format.index("C"), -1)
    cells = (x != 0).any(-1).nonzero()
    return SparseTensor(x[tuple(cells.T)], cells.int(), device=device)


def to_sparse_all(dense_tensor: torch.Tensor, coordinates: torch.Tensor | None = None) -> SparseTensor:
    """Return a sparse tensor of all cells of a dense one, channels second.

    Parameters
    ----------
    dense_tensor : torch.Tensor
        Batches, channels, then the axes.
    coordinates : torch.Tensor, optional
        What `dense_coordinates` gives for its shape.

    Returns
    -------
    SparseTensor
        Its gradient reaches the dense tensor.
    """
    if not isinstance(dense_tensor, torch.Tensor):
        raise TypeError(f"dense_tensor must be a torch.Tensor, got {type(dense_tensor).__name__}")
    if coordinates is None:
        coordinates = dense_coordinates(dense_tensor.shape)
    features = dense_tensor.movedim(1, -1).reshape(-1, dense_tensor.shape[1])
    return SparseTensor(features, coordinates, device=dense_tensor.device)


class MinkowskiToSparseTensor(MinkowskiModuleBase):
    """A sparse tensor of a field's cells, or of a dense tensor's.

    Parameters
    ----------
    remove_zeros : bool
        Leave out the cells of a dense tensor that are zero, where `coordinates` are given, as in
        MinkowskiEngine.
    coordinates : torch.Tensor, optional
        What `dense_coordinates` gives for the dense tensor's shape.
    """

    def __init__(self, remove_zeros: bool = True, coordinates: torch.Tensor | None = None):
        super().__init__()
        self.remove_zeros, self.coordinates = remove_zeros, coordinates

    def forward(self, input: TensorField | torch.Tensor) -> SparseTensor:
        """Return the sparse tensor."""
        if isinstance(input, TensorField):
            return input.sparse()
        if not isinstance(input, torch.Tensor):
            raise TypeError(f"input must be a TensorField or a torch.Tensor, got {type(input).__name__}")
        if self.remove_zeros and self.coordinates is not None:
            return to_sparse(input)
        return to_sparse_all(input, self.coordinates)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MinkowskiToDenseTensor(MinkowskiModuleBase):
    """A dense tensor, channels second.

    Parameters
    ----------
    shape : sequence of ints, optional
        As of `SparseTensor.dense`.
    """

    def __init__(self, shape: Sequence[int] | None = None):
        super().__init__()
        self.shape = shape

    def forward(self, input: SparseTensor) -> torch.Tensor:
        """Return the dense tensor."""
        return require_sparse(input).dense(self.shape)[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MinkowskiToFeature(MinkowskiModuleBase):
    """The features alone."""

    def forward(self, x: Tensor) -> torch.Tensor:
        """Return the features."""
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a SparseTensor or a TensorField, got {type(x).__name__}")
        return x.F


class MinkowskiPruningFunction:
    """What keeps the rows of a mask."""

    @staticmethod
    @opaque
    def apply(
        in_feat: torch.Tensor,
        mask: torch.Tensor,
        in_coords_key: CoordinateMapKey,
        out_coords_key: CoordinateMapKey,
        coords_manager: CoordinateManager,
    ) -> torch.Tensor:
        """Return the features where the mask is True, on `out_coords_key`, which is set."""
        if (
            not isinstance(mask, torch.Tensor)
            or mask.dtype is not torch.bool
            or mask.shape != in_feat.shape[:1]
        ):
            raise ValueError(
                f"mask must be a torch.Tensor of dtype bool and shape ({len(in_feat)},), got "
                f"{getattr(mask, 'dtype', type(mask).__name__)} {tuple(getattr(mask, 'shape', ()))}"
            )
        mask = mask.to(in_feat.device)
        out_coords_key.set_key(*coords_manager.prune(in_coords_key, mask).get_key())
        return functional.take_rows(in_feat, mask.nonzero().flatten().int())


class MinkowskiPruning(MinkowskiModuleBase):
    """Keeps the sites of a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.pruning = MinkowskiPruningFunction

    def forward(self, input: SparseTensor, mask: torch.Tensor) -> SparseTensor:
        """Return the sites where a mask, (N,) bool, is True."""
        require_sparse(input)
        key = CoordinateMapKey(input.D + 1)
        features = self.pruning.apply(input._F, mask, input.coordinate_map_key, key, input._manager)
        return SparseTensor._on(features, key, input._manager)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MinkowskiUnionFunction:
    """The sum of features over the union of their coordinates."""

    @staticmethod
    @opaque
    def apply(
        in_coords_keys: Sequence[CoordinateMapKey],
        out_coords_key: CoordinateMapKey,
        coordinate_manager: CoordinateManager,
        *in_feats: torch.Tensor,
    ) -> torch.Tensor:
        """Return the sums, on `out_coords_key`, which is set."""
        for key, features in zip(in_coords_keys, in_feats, strict=True):
            coordinate_manager.check_features(features, key)
            if features.shape[1] != in_feats[0].shape[1]:
                raise ValueError(
                    f"tensors must have as many channels to be united, got {in_feats[0].shape[1]} and "
                    f"{features.shape[1]}"
                )
        maps = coordinate_manager.union_map(in_coords_keys, out_coords_key)
        num_rows = coordinate_manager.size(out_coords_key)
        pairs = zip(in_feats, maps, strict=True)
        return _total([functional.add_rows(f, rows[1].int(), num_rows) for f, rows in pairs])


class MinkowskiUnion(Module):
    """The sum of tensors over the union of their sites."""

    def __init__(self) -> None:
        super().__init__()
        self.union = MinkowskiUnionFunction

    def forward(self, *inputs: SparseTensor) -> SparseTensor:
        """Return the sum of two or more tensors that share a manager."""
        for x in inputs:
            require_sparse(x)
        if len(inputs) < 2:
            raise ValueError(f"inputs must be at least two sparse tensors, got {len(inputs)}")
        require_same_manager(*inputs)
        first = inputs[0]
        key = CoordinateMapKey(first.D + 1)
        keys = [x.coordinate_map_key for x in inputs]
        features = self.union.apply(keys, key, first._manager, *[x._F for x in inputs])
        return SparseTensor._on(features, key, first._manager)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MinkowskiInterpolationFunction:
    """Linear interpolation between sites."""

    @staticmethod
    @opaque
    def apply(
        input_features: torch.Tensor,
        tfield: torch.Tensor,
        in_coordinate_map_key: CoordinateMapKey,
        coordinate_manager: CoordinateManager | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return features at points, and of the sums that they are the rows, the points and the weights."""
        manager = require_manager(coordinate_manager)
        maps = manager.interpolation_map_weight(in_coordinate_map_key, tfield)
        return interpolated(input_features, tfield, in_coordinate_map_key, manager), *maps


class MinkowskiInterpolation(MinkowskiModuleBase):
    """Linear interpolation between sites; what is not there counts as zeros.

    Parameters
    ----------
    return_kernel_map, return_weights : bool
        Whether to return also the rows and the points of the sums, and the weights.
    """

    def __init__(self, return_kernel_map: bool = False, return_weights: bool = False):
        super().__init__()
        self.return_kernel_map, self.return_weights = return_kernel_map, return_weights
        self.interp = MinkowskiInterpolationFunction

    @opaque
    def forward(self, input: SparseTensor, tfield: torch.Tensor) -> Any:
        """Return the features at points, (M, 1 + D), the batch first."""
        require_sparse(input)
        check_tensor(tfield, "tfield", input._F)
        key, manager = input.coordinate_map_key, input._manager
        out: list[Any] = [interpolated(input._F, tfield, key, manager)]
        if self.return_kernel_map or self.return_weights:
            rows, points, weights = manager.interpolation_map_weight(key, tfield)
            out += [(rows, points)] if self.return_kernel_map else []
            out += [weights] if self.return_weights else []
        return tuple(out) if len(out) > 1 else out[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
