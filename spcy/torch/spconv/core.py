"""Sparse tensors as spconv has them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch

from ... import _check
from ..._once import Lock
from ...coords import Coords, same_rows
from ...rulebook import Rulebook
from .. import functional
from .._bridge import array_of, check_tensor, entering, on_device, opaque
from ..tensor import SparseTensor, check_features, indices_of
from .pairs import check_pairs, pairs_by_offset, version_of


class ConvAlgo(enum.Enum):
    """Algorithms of spconv: accepted, without effect."""

    Native = 0
    MaskImplicitGemm = 1
    MaskSplitImplicitGemm = 2


class AlgoHint(enum.Enum):
    """What an algorithm of spconv is looked for: accepted, without effect. Spelled as there."""

    NoHint = 0
    Fowrard = 1
    BackwardInput = 2
    BackwardWeight = 4


class Level:
    """The sites that tensors share: an indices tensor, the coords that were made from it, or both.

    The same indices tensor gives the same level while any tensor is on it, and the same coords as long as
    it holds the same numbers, so that rulebooks are built once.
    """

    __slots__ = ("__weakref__", "_coords", "_indices", "_lock", "_pointer", "_version", "_view")

    def __init__(self, indices: torch.Tensor | None = None, coords: Coords | None = None):
        self._indices, self._coords = indices, coords
        self._version: int | None = None
        self._view: Any = None  # the memory of the indices, as an array
        self._pointer = 0
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._indices is None:
            return Level, (None, self._coords)
        return Level, (self._indices,)

    @classmethod
    def of(cls, indices: torch.Tensor) -> Level:
        """Return the level of an indices tensor."""
        with _levels_lock():
            level = _LEVELS.get(id(indices))
            if level is None or level._indices is not indices:
                level = _LEVELS[id(indices)] = cls(indices)
        return level

    def indices(self, device: torch.device) -> torch.Tensor:
        """Return the indices tensor, the same every time."""
        with self._lock():
            if self._indices is None:
                coords: Any = self._coords  # either is there
                self._indices = indices_of(coords, device)
                self._version = version_of(self._indices)
                with _levels_lock():
                    _LEVELS[id(self._indices)] = self
            return self._indices

    def coords(self, shape: Sequence[int], batch_size: int) -> Coords:
        """Return the coords on a grid, made when first asked for or after a write to the indices."""
        with self._lock():
            coords, shape = self._coords, tuple(shape)
            if (
                coords is None
                or coords.shape != shape
                or coords.batch_size != batch_size
                or not self._is_current(coords)
            ):
                indices = self.indices(torch.device("cpu" if coords is None else coords.backend))
                with entering(indices.device), on_device(indices.device):
                    coords = Coords(array_of(indices), shape, batch_size)
                self._coords = coords
                self._version = version_of(indices)
            return coords

    def _is_current(self, coords: Coords) -> bool:
        """Return whether the indices are what the coords were made from.

        PyTorch does not count all writes: not those by ``.data``, by NumPy, or in inference mode. On a GPU,
        where a look would make the host wait, its count is what there is (in inference mode none: there
        they are new each time).
        """
        indices = self._indices
        if indices is None:
            return True
        if not indices.is_cpu:
            return self._version is not None and version_of(indices) == self._version
        if self._view is None or self._pointer != indices.data_ptr():
            self._view, self._pointer = array_of(indices), indices.data_ptr()
        mine, theirs = self._view, coords.indices
        return mine.shape == theirs.shape and not (mine != theirs).any()


_LEVELS: WeakValueDictionary[int, Level] = WeakValueDictionary()  # by id of the indices
_levels_lock = Lock()


class IndiceData:
    """What a layer with an `indice_key` leaves for those that share it.

    Layers of other code leave their own: made of what `ops.get_indice_pairs` gave and of the geometry, they
    serve an inverse convolution as those of these layers do.

    Parameters
    ----------
    out_indices, indices : torch.Tensor of shape (N, 1 + D), int32
        Sites behind and before the layer.
    indice_pairs : torch.Tensor of shape (2, K, P), int32
        For each kernel offset the rows of inputs and of outputs, filled up with -1. What these layers
        leave makes them when they are read.
    indice_pair_num : torch.Tensor of shape (K,), int32
        How many of them there are.
    spatial_shape, out_spatial_shape : sequence of D ints
    is_subm : bool
    algo : ConvAlgo
    ksize, stride, padding, dilation : sequence of D ints
    voxel_num : optional
        Accepted, without effect.

    Attributes
    ----------
    pair_fwd, pair_bwd : torch.Tensor of shape (K, N_out) and (K, N_in), int32
        The input row of each output row, and the reverse; -1 for none. Made when they are read.
    """

    batch_size: int  # of a layer of spcy's

    def __init__(
        self,
        out_indices: torch.Tensor,
        indices: torch.Tensor,
        indice_pairs: torch.Tensor,
        indice_pair_num: torch.Tensor,
        spatial_shape: Sequence[int],
        out_spatial_shape: Sequence[int],
        is_subm: bool,
        algo: ConvAlgo,
        ksize: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        voxel_num: Any = None,
    ):
        check_indices(indices, "indices")
        check_indices(out_indices, "out_indices", indices)
        check_pairs(indice_pairs, indice_pair_num, indices)
        if not isinstance(is_subm, bool):
            raise TypeError(f"is_subm must be a bool, got {type(is_subm).__name__}")
        ndim = indices.shape[1] - 1
        self._in_level, self._out_level = Level.of(indices), Level.of(out_indices)
        self._device = indices.device
        self.given: tuple[torch.Tensor, torch.Tensor] | None = (indice_pairs, indice_pair_num)
        self._made: tuple[Coords, tuple[torch.Tensor, torch.Tensor]] | None = None
        self._plan_of: Any = None
        self.spatial_shape = shape_of(spatial_shape, ndim)
        self.out_spatial_shape = shape_of(out_spatial_shape, ndim, "out_spatial_shape")
        self.is_subm, self.algo, self.voxel_num = is_subm, algo, voxel_num
        self.ksize = expand_nd(ndim, ksize, "ksize", 1)
        self.stride = expand_nd(ndim, stride, "stride", 1)
        self.padding = expand_nd(ndim, padding, "padding")
        self.dilation = expand_nd(ndim, dilation, "dilation", 1)

    @classmethod
    def of(cls, x: SparseConvTensor, out: SparseConvTensor, layer: Any) -> IndiceData:
        """Return what a layer of spcy's leaves."""
        made = object.__new__(cls)
        made._in_level, made._out_level = x._level, out._level
        made._device, made._plan_of = x.features.device, layer._rulebook
        made.given = made._made = None
        made.spatial_shape, made.out_spatial_shape = list(x.spatial_shape), list(out.spatial_shape)
        made.batch_size = x._num_batches()
        made.is_subm, made.algo, made.voxel_num = layer.subm, layer.algo, None
        made.ksize, made.stride = layer.kernel_size, layer.stride
        made.padding, made.dilation = layer.padding, layer.dilation
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}

    def coords_of(self, x: SparseConvTensor) -> Coords:
        """Return the sites before the layer, with the batches of the layer's input or of a tensor."""
        batch_size = x._num_batches() if self.given else self.batch_size
        return self._in_level.coords(self.spatial_shape, batch_size)

    def plan(self) -> tuple[Rulebook, Coords]:
        """Return the rulebook, and the sites behind a layer of spcy's as a child of those before it."""
        return self._plan_of(self._in_level.coords(self.spatial_shape, self.batch_size))

    @property
    def indices(self) -> torch.Tensor:
        """Sites before the layer."""
        return self._in_level.indices(self._device)

    @property
    def out_indices(self) -> torch.Tensor:
        """Sites behind the layer."""
        return self._out_level.indices(self._device)

    @property
    def indice_pairs(self) -> torch.Tensor:
        """Pairs of rows by kernel offset."""
        return self._pair_tensors()[0]

    @property
    def indice_pair_num(self) -> torch.Tensor:
        """Number of pairs by kernel offset."""
        return self._pair_tensors()[1]

    def _pair_tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.given is not None:
            return self.given
        with on_device(self._device):
            coords = self._in_level.coords(self.spatial_shape, self.batch_size)
            if self._made is None or self._made[0] is not coords:  # or the indices were written to
                self._made = coords, pairs_by_offset(coords, *self._plan_of(coords))
            return self._made[1]

    @property
    def pair_fwd(self) -> torch.Tensor:
        """Input row of each output row by kernel offset."""
        return self._rows(0, len(self.out_indices))

    @property
    def pair_bwd(self) -> torch.Tensor:
        """Output row of each input row by kernel offset."""
        return self._rows(1, len(self.indices))

    def _rows(self, side: int, num: int) -> torch.Tensor:
        """Return one side's row of each row of the other, -1 for none."""
        pairs, counts = self._pair_tensors()
        out = torch.full((len(counts), num), -1, dtype=torch.int32, device=pairs.device)
        for k, count in enumerate(counts.tolist()):
            out[k, pairs[1 - side, k, :count].long()] = pairs[side, k, :count].int()
        return out


ImplicitGemmIndiceData = IndiceData


class SparseConvTensor:
    """Features on sites of a grid, as ``spconv.pytorch.SparseConvTensor``.

    Indices are checked when a layer first needs them: a site twice, or one outside of the shape or the
    batches, is an error that names the row.

    Parameters
    ----------
    features : torch.Tensor of shape (N, C)
        float32, float64, float16 or bfloat16.
    indices : torch.Tensor of shape (N, 1 + D), int32
        The batch, then the axes in the order of `spatial_shape`.
    spatial_shape : sequence of D ints
    batch_size : int
    grid, voxel_num, benchmark, permanent_thrust_allocator, enable_timer, force_algo
        Accepted, without effect.
    indice_dict : dict, optional
        What layers with an `indice_key` left, an `IndiceData` for each.

    Raises
    ------
    TypeError, ValueError
        If features or indices are not as above.

    Examples
    --------
    >>> import torch
    >>> import spcy.torch.spconv as spconv
    >>> indices = torch.tensor([[0, 4, 4], [0, 4, 5]], dtype=torch.int32)
    >>> x = spconv.SparseConvTensor(torch.ones(2, 1), indices, [8, 8], 1)
    >>> spconv.SparseConv2d(1, 16, 3, 2, 1)(x)
    SparseConvTensor[shape=torch.Size([2, 16])]
    """

    @opaque
    def __init__(
        self,
        features: torch.Tensor,
        indices: torch.Tensor,
        spatial_shape: Sequence[int],
        batch_size: int,
        grid: torch.Tensor | None = None,
        voxel_num: torch.Tensor | None = None,
        indice_dict: dict[str, Any] | None = None,
        benchmark: bool = False,
        permanent_thrust_allocator: bool = False,
        enable_timer: bool = False,
        force_algo: ConvAlgo | None = None,
    ):
        check_tensor(features, "features")
        if features.dim() != 2:
            raise ValueError(f"features must have shape (N, C), got {tuple(features.shape)}")
        self._features = features
        self.indices = indices
        self.spatial_shape: list[int] = shape_of(spatial_shape, indices.shape[1] - 1)
        self.batch_size = batch_size
        self._num_batches()
        self.indice_dict: dict[str, Any] = {} if indice_dict is None else indice_dict
        self.grid: torch.Tensor | None = torch.Tensor() if grid is None else grid
        self.voxel_num = voxel_num
        self.benchmark = benchmark
        self.benchmark_record: dict[str, Any] = {}
        self.thrust_allocator: None = None
        self._timer = None
        self.force_algo = force_algo
        self.int8_scale: None = None

    def __repr__(self) -> str:
        return f"SparseConvTensor[shape={self._features.shape}]"

    @property
    def features(self) -> torch.Tensor:
        """The features; `replace_feature` makes a tensor with others."""
        return self._features

    @features.setter
    def features(self, value: torch.Tensor) -> None:
        raise ValueError(
            "features cannot be assigned to: x = x.replace_feature(features) makes a tensor with others"
        )

    @property
    @opaque
    def indices(self) -> torch.Tensor:
        """The sites."""
        return self._level.indices(self._features.device)

    @indices.setter
    @opaque
    def indices(self, value: torch.Tensor) -> None:
        check_indices(value, "indices", self._features)
        self._level = Level.of(value)

    @property
    @opaque
    def coords(self) -> Coords:
        """The sites as `spcy.Coords`, checked."""
        return self._coords()

    def _coords(self) -> Coords:
        return self._level.coords(self._shape(), self._num_batches())

    def _shape(self) -> list[int]:
        """Return the spatial shape, checked if it was assigned."""
        shape = self.spatial_shape
        return shape if type(shape) is list else shape_of(shape, self.indices.shape[1] - 1)

    def _num_batches(self) -> int:
        """Return the batch size as an int, checked."""
        size = self.batch_size
        if type(size) is int and size > 0:  # what it is most often: a call costs little
            return size
        if isinstance(size, torch.Tensor) and size.numel() == 1:
            size = size.item()
        number = _check.integer(size, "batch_size")
        if number < 1:
            raise ValueError(f"batch_size must be at least 1, got {number}")
        return number

    @property
    def is_quantized(self) -> bool:
        """False: there are no quantized tensors."""
        return False

    @property
    def spatial_size(self) -> int:
        """Number of cells of the grid."""
        return int(np.prod(self.spatial_shape))

    @property
    def sparity(self) -> float:
        """Share of the cells that are sites."""
        return len(self.indices) / self.spatial_size / self._num_batches()

    def as_spcy(self) -> SparseTensor:
        """Return the tensor as spcy's functions take it, features checked against sites."""
        coords = self._coords()
        check_features(self._features, coords)
        return SparseTensor._of(coords, self._features)

    @opaque
    def replace_feature(self, feature: torch.Tensor) -> SparseConvTensor:
        """Return a tensor with the same sites and other features."""
        check_tensor(feature, "feature")
        return self.with_features(feature)

    @opaque
    def shadow_copy(self) -> SparseConvTensor:
        """Return a tensor with the same parts."""
        return self.with_features(self._features)

    def with_features(self, features: torch.Tensor) -> SparseConvTensor:
        """Return a tensor with the same parts but the features, which need no check."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._features, made.spatial_shape = features, list(self._shape())
        return made

    def select_by_index(self, valid_indices: torch.Tensor) -> SparseConvTensor:
        """Return a tensor of some rows, by their numbers or a mask."""
        made = self.replace_feature(self._features[valid_indices])
        made.indices = self.indices[valid_indices]
        made.indice_dict = {}
        return made

    def minus(self) -> SparseConvTensor:
        """Return a tensor with the features' negatives."""
        return self.replace_feature(-self._features)

    @classmethod
    def from_dense(cls, x: torch.Tensor) -> SparseConvTensor:
        """Return the sites of a dense (B, spatial_shape .., C) tensor where any channel is not zero."""
        sites = x.to_sparse(x.dim() - 1)
        indices = sites.indices().t().contiguous().int()
        return cls(sites.values(), indices, x.shape[1:-1], x.shape[0])

    def find_indice_pair(self, key: str | None) -> IndiceData | None:
        """Return what a layer with an `indice_key` left, or None."""
        return None if key is None else self.indice_dict.get(key)

    def data_of(self, key: str | None) -> IndiceData | None:
        """Return what a layer with an `indice_key` left; what others keep there is none."""
        data = None if key is None else self.indice_dict.get(key)
        return data if isinstance(data, IndiceData) else None

    @opaque
    def dense(self, channels_first: bool = True) -> torch.Tensor:
        """Return the dense tensor, zero where there is no site."""
        return functional.to_dense(self.as_spcy(), channels_first)

    def __add__(self, other: SparseConvTensor | torch.Tensor) -> SparseConvTensor:
        if isinstance(other, SparseConvTensor):
            require_same_rows(self, other, "operand of +")
            other = other.features
        elif not isinstance(other, torch.Tensor):
            return NotImplemented
        return self.replace_feature(self._features + other)

    __radd__ = __add__
    __iadd__ = __add__


@opaque
def require_same_rows(x: SparseConvTensor, other: SparseConvTensor, name: str) -> None:
    """Raise unless two tensors have the same sites in the same rows."""
    require_sparse(other, name)
    if x._level is other._level:
        return
    if not same_rows(x.coords, other.coords):
        raise ValueError(
            f"{name} must have the same sites in the same rows{_first_difference(x.coords, other.coords)}; "
            f"functional.sparse_add adds over the union of sites"
        )


def require_level(x: SparseConvTensor, coords: Coords, indice_key: str | None, where: str) -> None:
    """Raise unless a tensor is on the sites that an indice_key stands for."""
    if not same_rows(x.coords, coords):
        raise ValueError(
            f"indice_key {indice_key!r} stands for other sites than those that came: {where}"
            f"{_first_difference(coords, x.coords)}"
        )


def _first_difference(a: Coords, b: Coords) -> str:
    """Say where two coords differ first."""
    if a.shape != b.shape or a.batch_size != b.batch_size:
        return f", got grids {a.shape} and {b.shape} of {a.batch_size} and {b.batch_size} batches"
    if len(a) != len(b):
        return f", got {len(a)} and {len(b)} rows"
    row = _check.first_row((a.indices != b.indices).any(axis=1))
    return f", got {a.indices[row].tolist()} and {b.indices[row].tolist()} in row {row}"


def expand_nd(ndim: int, value: int | Sequence[int], name: str = "value", least: int = 0) -> list[int]:
    """Return an int for each axis, checked."""
    value = value.tolist() if isinstance(value, torch.Tensor) else value
    return list(_check.per_axis(value, ndim, name, least))


def check_indices(value: Any, name: str, beside: torch.Tensor | None = None) -> None:
    """Raise unless an argument has the shape and dtype of indices."""
    check_tensor(value, name, beside)
    if value.dim() != 2 or not 2 <= value.shape[1] <= 1 + _check.MAX_NDIM:
        raise ValueError(
            f"{name} must have shape (N, 1 + D) with D = 1, 2, 3 or 4 (column 0 is the batch), "
            f"got {tuple(value.shape)}"
        )
    if value.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name} must have dtype torch.int32, got {value.dtype}")


def require_sparse(value: Any, name: str) -> None:
    """Raise unless an argument is a `SparseConvTensor`."""
    if not isinstance(value, SparseConvTensor):
        raise TypeError(f"{name} must be a SparseConvTensor, got {type(value).__name__}")


def shape_of(value: Sequence[int], ndim: int, name: str = "spatial_shape") -> list[int]:
    """Return a spatial shape, checked."""
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, (Sequence, np.ndarray)):
        raise TypeError(f"{name} must be {ndim} ints, one per axis, got {value!r}")
    if len(value) != ndim:
        raise ValueError(f"{name} must have {ndim} ints, one per axis of indices, got {list(value)}")
    try:
        return [int(n) for n in value]
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be {ndim} ints, one per axis, got {list(value)}") from None
