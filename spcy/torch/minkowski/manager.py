"""Coordinate managers: sets of coordinates by their keys, and the rulebooks between them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np
import torch

from ... import _check
from ..._backend import array_module, to_host
from ..._once import Kept, Lock
from ..._stencil import Stencil, first_axis_fastest
from ...coords import Coords, distinct_sites, unite
from ...rulebook import Rulebook, between, floored, generative, reordered, submanifold
from .._bridge import array_of, check_tensor, entering, on_device, opaque, tensor_of
from .kernels import Ints, KernelGenerator, custom_offsets, ints_of
from .modes import CoordinateMapType, GPUMemoryAllocatorType, MinkowskiAlgorithm, RegionType

Pairs = tuple[torch.Tensor, torch.Tensor]
Key = tuple[Ints, str]
Value = TypeVar("Value")


class CoordinateMapKey:
    """The name of a set of coordinates: its tensor stride and a string.

    Parameters
    ----------
    tensor_stride : sequence of D ints, or int
        An int is 1 + D, for a key that a layer is to set.
    string_id : str
    """

    __slots__ = ("_key", "_size")

    def __init__(self, tensor_stride: Sequence[int] | int, string_id: str = ""):
        self._key: Key | None = None
        if isinstance(tensor_stride, int):
            if not 2 <= tensor_stride <= 1 + _check.MAX_NDIM:
                raise ValueError(
                    f"tensor_stride must be D ints, or 1 + D for a key to be set, got {tensor_stride}"
                )
            self._size = tensor_stride
        else:
            if not isinstance(tensor_stride, (Sequence, np.ndarray, torch.Tensor)):
                raise TypeError(f"tensor_stride must be a sequence of ints, got {tensor_stride!r}")
            self._size = len(tensor_stride) + 1
            self.set_key(tensor_stride, string_id)

    @classmethod
    def _of(cls, key: Key) -> CoordinateMapKey:
        return cls(*key)

    def is_key_set(self) -> bool:
        """Return whether this names something."""
        return self._key is not None

    def get_coordinate_size(self) -> int:
        """Return the number of columns of the coordinates, 1 + D."""
        return self._size

    def get_key(self) -> tuple[list[int], str]:
        """Return the tensor stride and the string."""
        tensor_stride, string_id = self._require()
        return list(tensor_stride), string_id

    def get_tensor_stride(self) -> list[int]:
        """Return the tensor stride, an int for each axis."""
        return list(self._require()[0])

    @overload
    def set_key(self, tensor_stride: Sequence[int], string_id: str) -> None: ...
    @overload
    def set_key(self, tensor_stride: tuple[Sequence[int], str]) -> None: ...
    def set_key(self, tensor_stride: Any, string_id: str | None = None) -> None:
        """Give this key its tensor stride and string, or both in one tuple."""
        if string_id is None:
            if not isinstance(tensor_stride, (tuple, list)) or len(tensor_stride) != 2:
                raise TypeError(f"tensor_stride must come with string_id, got {tensor_stride!r} alone")
            tensor_stride, name = tensor_stride
        else:
            name = string_id
        if not isinstance(tensor_stride, (Sequence, np.ndarray, torch.Tensor)):
            raise TypeError(f"tensor_stride must be a sequence of ints, got {tensor_stride!r}")
        if len(tensor_stride) != self._size - 1:
            raise ValueError(f"tensor_stride must have {self._size - 1} ints, got {list(tensor_stride)}")
        self._key = tuple(ints_of(tensor_stride, self._size - 1, "tensor_stride")), name

    def _require(self) -> Key:
        if self._key is None:
            raise ValueError("the coordinate map key must be set: no layer has made its coordinates yet")
        return self._key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CoordinateMapKey) and self._key is not None and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        if self._key is None:
            return "coordinate map key: not set"
        tensor_stride, string_id = self._key
        return f"coordinate map key:{list(tensor_stride)}" + (f":{string_id}" if string_id else "")


def name_of(key: Any) -> Key:
    """Return what a key names, checked."""
    if not isinstance(key, CoordinateMapKey):
        raise TypeError(f"a CoordinateMapKey must be given, got {type(key).__name__}")
    return key._require()


class _Map(NamedTuple):
    """A set of coordinates: `unit` times the cells of `coords`, by axis."""

    coords: Coords
    unit: Ints

    def in_units(self, unit: Ints) -> _Map:
        """Return the map with another unit, which divides its own."""
        return self if unit == self.unit else _Map(distinct_sites(self._cells(unit))[0], unit)

    def coordinates(self) -> Any:
        """Return the coordinates, (N, 1 + D) int32: a copy."""
        return self._cells((1,) * len(self.unit))

    def _cells(self, unit: Ints) -> Any:
        """Return the cells in another unit, a copy."""
        indices = self.coords.indices.copy()
        if unit != self.unit:
            steps = [u // v for u, v in zip(self.unit, unit, strict=True)]
            indices[:, 1:] *= array_module(indices).array(steps, indices.dtype)
        return indices


class CoordinateManager:
    """Sets of coordinates by their keys, and the rulebooks between them.

    Coordinates keep the scale of their tensor stride. Those that a layer makes ascend by batch and axes.

    Parameters
    ----------
    D : int
        Number of spatial axes.
    num_threads, coordinate_map_type, allocator_type, minkowski_algorithm
        Accepted, without effect: spcy's threads follow PyTorch's, and the coordinates are where they come
        from.
    """

    def __init__(
        self,
        D: int = 0,
        num_threads: int = -1,
        coordinate_map_type: CoordinateMapType | None = None,
        allocator_type: GPUMemoryAllocatorType | None = None,
        minkowski_algorithm: MinkowskiAlgorithm | None = None,
    ):
        if not isinstance(D, int) or isinstance(D, bool) or not 1 <= D <= _check.MAX_NDIM:
            raise ValueError(f"D must be the number of spatial axes, 1 .. {_check.MAX_NDIM}, got {D!r}")
        self.D = D
        self.minkowski_algorithm = minkowski_algorithm or MinkowskiAlgorithm.DEFAULT
        self._maps: dict[Key, _Map] = {}
        self._fields: dict[Key, torch.Tensor] = {}
        self._rulebooks: dict[tuple[Any, ...], Rulebook] = {}
        self._field_maps: dict[tuple[Key, Key], Pairs] = {}
        self._batch_rows: dict[Key, torch.Tensor] = {}
        self._last_number = -1
        self._device = torch.device("cpu")
        self._lock = Lock()  # held while it is looked for what is made if it is not there

    def __repr__(self) -> str:
        lines = [
            f"\t{CoordinateMapKey._of(key)}: {map.coords.num_sites} sites" for key, map in self._maps.items()
        ]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])

    # Sets of coordinates

    def insert_and_map(
        self, coordinates: torch.Tensor, tensor_stride: int | Sequence[int] = 1, string_id: str = ""
    ) -> tuple[CoordinateMapKey, Pairs]:
        """Keep coordinates; return their key, the first row of each, and which of these each row is.

        Parameters
        ----------
        coordinates : torch.Tensor of shape (N, 1 + D), int32
            The batch, then the axes.
        tensor_stride : int or sequence of D ints
        string_id : str

        Returns
        -------
        key : CoordinateMapKey
        (unique_map, inverse_map) : tuple of torch.Tensor, int64
            ``coordinates[unique_map]`` are the coordinates kept, in the order of their first rows, and
            ``coordinates[unique_map][inverse_map]`` all again.

        Raises
        ------
        TypeError, ValueError
            If the coordinates are not as above, or a batch index is negative.
        """
        self._check_coordinates(coordinates, torch.int32)
        tensor_stride = tuple(ints_of(tensor_stride, self.D, "tensor_stride"))
        unit = self._unit_of(coordinates, tensor_stride)
        if (coordinates[:, 0] < 0).any():
            row = int((coordinates[:, 0] < 0).nonzero()[0])
            raise ValueError(
                f"coordinates must begin with a batch index of at least 0, got {int(coordinates[row, 0])} "
                f"in row {row}"
            )
        with entering(coordinates.device), on_device(coordinates.device):
            indices = array_of(coordinates.contiguous()).copy()
            if {*unit} != {1}:
                indices[:, 1:] //= array_module(indices).array(unit, indices.dtype)
            coords, first, rows = distinct_sites(indices)
            if first is None or rows is None:
                unique_map = inverse_map = torch.arange(len(coordinates), device=coordinates.device)
            else:
                unique_map, inverse_map = tensor_of(first).long(), tensor_of(rows).long()
        key = self._keep((tensor_stride, string_id), _Map(coords, unit))
        return key, (unique_map, inverse_map)

    @opaque
    def insert_field(
        self, coordinates: torch.Tensor, tensor_stride: int | Sequence[int], string_id: str = ""
    ) -> CoordinateMapKey:
        """Keep the coordinates of points, (N, 1 + D) of a float dtype, and return their key."""
        if not coordinates.is_floating_point():
            raise TypeError(f"coordinates must be of a float dtype, got {coordinates.dtype}")
        self._check_coordinates(coordinates, coordinates.dtype)
        self.check_points(coordinates, "coordinates")
        # Points and sites of one name could not be told apart, and layers look for sites without a string.
        key = tuple(ints_of(tensor_stride, self.D, "tensor_stride")), string_id or "field"
        points = coordinates.detach().clone()  # what becomes of the argument is not to matter
        return CoordinateMapKey._of(self._put(key, points, self._fields))

    def stride(
        self, coordinate_map_key: CoordinateMapKey, stride: int | Sequence[int], string_id: str = ""
    ) -> CoordinateMapKey:
        """Return the key of the coordinates ``floor(c / s) * s``, s the tensor stride times a stride."""
        in_key = self._key_of(coordinate_map_key)
        stride = tuple(ints_of(stride, self.D, "stride"))
        if min(stride) < 1:
            raise ValueError(f"stride must be at least 1, got {list(stride)}")
        key = tuple(t * s for t, s in zip(in_key[0], stride, strict=True)), string_id or in_key[1]
        with self._lock():
            if key not in self._maps:
                self._floored(in_key, stride, key, Stencil(np.zeros((1, self.D), np.int64)))
        return CoordinateMapKey._of(key)

    def origin(self) -> CoordinateMapKey:
        """Return the key of a site for each batch that there is, at 0 along all axes."""
        key = (0,) * self.D, ""
        with self._lock():
            if key not in self._maps:
                if not self._maps and not self._fields:
                    raise ValueError(
                        "the coordinate manager must hold coordinates to have an origin, it has none"
                    )
                batches = torch.cat([self._batches(name) for name in (*self._maps, *self._fields)]).unique()
                rows = torch.zeros((len(batches), 1 + self.D), dtype=torch.int32, device=self._device)
                rows[:, 0] = batches
                self.insert_and_map(rows, *key)
        return CoordinateMapKey._of(key)

    origin_field = origin

    def size(self, coordinate_map_key: CoordinateMapKey) -> int:
        """Return how many coordinates, or points, a key names."""
        key = name_of(coordinate_map_key)
        return len(self._fields[key]) if key in self._fields else self._map(key).coords.num_sites

    def get_coordinates(self, coords_key_or_tensor_strides: Any) -> torch.Tensor:
        """Return the coordinates of a key, or of the first key with a tensor stride, (N, 1 + D) int32."""
        map = self._map(self._key_of(coords_key_or_tensor_strides))
        with on_device(self._device):
            return tensor_of(map.coordinates())

    def get_coordinate_field(self, coords_key_or_tensor_strides: Any) -> torch.Tensor:
        """Return the coordinates of points: a copy."""
        return self._points(coords_key_or_tensor_strides).clone()

    def number_of_unique_batch_indices(self) -> int:
        """Return how many batches there are."""
        return self.size(self.origin())

    def get_unique_coordinate_map_key(self, tensor_stride: int | Sequence[int]) -> CoordinateMapKey:
        """Return a key that names nothing yet."""
        tensor_stride = tuple(ints_of(tensor_stride, self.D, "tensor_stride"))
        return CoordinateMapKey._of((tensor_stride, f"{self._number()}"))

    # Maps between them

    def kernel_map(
        self,
        in_key: Any,
        out_key: Any,
        stride: int | Sequence[int] = 1,
        kernel_size: int | Sequence[int] = 3,
        dilation: int | Sequence[int] = 1,
        region_type: RegionType | int = RegionType.HYPER_CUBE,
        region_offset: torch.Tensor | None = None,
        is_transpose: bool = False,
        is_pool: bool = False,
    ) -> dict[int, torch.Tensor]:
        """Return for each kernel offset that has pairs the rows of inputs and outputs, (2, P) int32."""
        kernel = KernelGenerator(
            kernel_size, stride, dilation, False, region_type, region_offset, dimension=self.D
        )
        in_key, out_key = self._key_of(in_key), self._key_of(out_key)
        if takes_a_cell(kernel, is_pool):
            fine, coarse = (out_key, in_key) if is_transpose else (in_key, out_key)
            rows = self._stride_map(fine, coarse)
            return {0: torch.stack(rows[::-1] if is_transpose else rows).int()}
        rulebook = self._rulebook(in_key, out_key, kernel, is_transpose, is_pool)
        with on_device(self._device):
            pairs = map(rulebook.pairs, range(rulebook.num_offsets))
            maps = {
                k: torch.stack([tensor_of(i.copy()), tensor_of(o.copy())]) for k, (i, o) in enumerate(pairs)
            }
        return {k: each for k, each in maps.items() if each.numel()}

    def get_kernel_map(self, *args: Any, **kwargs: Any) -> dict[int, torch.Tensor]:
        """Return what `kernel_map` does."""
        warnings.warn("get_kernel_map is kernel_map by an old name", DeprecationWarning, stacklevel=2)
        return self.kernel_map(*args, **kwargs)

    def origin_map(self, key: CoordinateMapKey) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the batch of each row of the origin, and the rows of each batch from 0 on."""
        return self._by_batch(self._batches(name_of(key)))

    def origin_field_map(self, key: CoordinateMapKey) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the batch of each row of the origin, and the points of each batch from 0 on."""
        return self._by_batch(self._points(key)[:, 0].round().long())

    def _by_batch(self, batches: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        there = self.get_coordinates(self.origin())[:, 0].long()
        counts = torch.bincount(batches, minlength=int(there.max()) + 1 if len(there) else 0)
        return there, list(torch.sort(batches, stable=True).indices.split(counts.tolist()))

    def stride_map(self, in_key: CoordinateMapKey, stride_key: CoordinateMapKey) -> Pairs:
        """Return each row, and the row of the coarser set that it is in."""
        return self._stride_map(name_of(in_key), name_of(stride_key))

    def union_map(self, in_keys: Sequence[CoordinateMapKey], out_key: CoordinateMapKey) -> list[torch.Tensor]:
        """Unite sets of coordinates: set `out_key`, return for each set its rows and theirs, (2, N) int64."""
        if out_key.is_key_set():
            raise ValueError("out_key must not be set: union_map sets it")
        maps = [self._map(name_of(key)) for key in in_keys]
        if len(maps) < 2:
            raise ValueError(f"in_keys must be at least two, got {len(maps)}")
        unit = tuple(np.gcd.reduce([m.unit for m in maps]).tolist())
        maps = [m.in_units(unit) for m in maps]
        with on_device(self._device):
            coords, rows = unite([_plain(m.coords) for m in maps])
            united = [tensor_of(each).long() for each in rows]
        tensor_stride = tuple(np.min([key.get_tensor_stride() for key in in_keys], axis=0).tolist())
        name = tensor_stride, f"merge-{self._number()}"
        out_key.set_key(*self._keep(name, _Map(coords, unit))._require())
        return [torch.stack([torch.arange(len(each), device=each.device), each]) for each in united]

    def prune(self, in_key: CoordinateMapKey, mask: torch.Tensor) -> CoordinateMapKey:
        """Return the key of the coordinates where a mask is True."""
        map = self._map(name_of(in_key))
        check_tensor(mask, "mask")
        if mask.dtype is not torch.bool or mask.shape != (map.coords.num_sites,):
            raise ValueError(
                f"mask must have dtype bool and shape ({map.coords.num_sites},), as the coordinates of "
                f"{in_key}, got {mask.dtype} {tuple(mask.shape)}"
            )
        with on_device(self._device):
            rows = array_of(mask.to(self._device).nonzero().flatten())
            coords = map.coords._select(rows)
        return self._keep((name_of(in_key)[0], "pruned"), _Map(coords, map.unit))

    def field_to_sparse_insert_and_map(
        self,
        field_map_key: CoordinateMapKey,
        sparse_tensor_stride: int | Sequence[int],
        sparse_tensor_string_id: str = "",
    ) -> tuple[CoordinateMapKey, Pairs]:
        """Return the key of the cells that points lie in, a point of each, and the cell of each point."""
        field = self._points(field_map_key)
        cells = self._cells(field, tuple(ints_of(sparse_tensor_stride, self.D, "tensor_stride")))
        key, pairs = self.insert_and_map(cells, sparse_tensor_stride, sparse_tensor_string_id)
        self._field_maps[name_of(field_map_key), key._require()] = pairs
        return key, pairs

    def exists_field_to_sparse(
        self, field_map_key: CoordinateMapKey, sparse_map_key: CoordinateMapKey
    ) -> bool:
        """Return whether it is known in which cell of a set each point lies."""
        return (name_of(field_map_key), name_of(sparse_map_key)) in self._field_maps

    def field_to_sparse_keys(self, field_map_key: CoordinateMapKey) -> list[CoordinateMapKey]:
        """Return the keys of the sets whose cells hold the points."""
        field_key = name_of(field_map_key)
        return [CoordinateMapKey._of(to) for by, to in self._field_maps if by == field_key]

    def get_field_to_sparse_map(
        self, field_map_key: CoordinateMapKey, sparse_map_key: CoordinateMapKey
    ) -> Pairs:
        """Return a point of each cell and the cell of each point, where they are known."""
        names = name_of(field_map_key), name_of(sparse_map_key)
        if names not in self._field_maps:
            raise ValueError(
                f"sparse_map_key must be one that field_to_sparse_insert_and_map gave for the points, got "
                f"{sparse_map_key}"
            )
        return self._field_maps[names]

    def field_to_sparse_map(self, field_map_key: CoordinateMapKey, sparse_map_key: CoordinateMapKey) -> Pairs:
        """Return the cell of each point that is in one of a set, and those points."""
        rows = self._rows_of_points(self._points(field_map_key), name_of(sparse_map_key))
        inside = (rows >= 0).nonzero().flatten()
        return rows[inside], inside

    def interpolation_map_weight(
        self, key: CoordinateMapKey, samples: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return rows around samples, the sample of each and its weight, of linear interpolation."""
        in_key = name_of(key)
        self.check_points(samples, "samples")
        tensor_stride = samples.new_tensor(in_key[0])
        cells = torch.floor(samples[:, 1:] / tensor_stride)
        fractions = samples[:, 1:] / tensor_stride - cells
        found = []
        for corner in np.ndindex(*(2,) * self.D):
            at = samples.new_tensor(corner)
            points = torch.cat([samples[:, :1], (cells + at) * tensor_stride], 1)
            rows = self._rows_of_points(points, in_key)
            weights = torch.where(at > 0, fractions, 1 - fractions).prod(1)
            inside = (rows >= 0).nonzero().flatten()
            found.append((rows[inside].int(), inside.int(), weights[inside]))
        near, of, weights = (torch.cat(each) for each in zip(*found, strict=True))
        return near, of, weights

    # What the layers use

    def convolution(
        self,
        in_key: CoordinateMapKey,
        out_key: CoordinateMapKey | None,
        kernel: KernelGenerator,
        transposed: bool = False,
        pool: bool = False,
    ) -> tuple[Rulebook, Coords, Coords]:
        """Return a layer's rulebook, its inputs' coords and its outputs'; set `out_key` if it is not."""
        key = name_of(in_key)
        out_key = CoordinateMapKey(self.D + 1) if out_key is None else out_key
        with on_device(self._device), self._lock():
            if not out_key.is_key_set():
                out_key.set_key(*self._out_key(key, kernel, transposed, pool))
            rulebook = self._rulebook(key, out_key._require(), kernel, transposed, pool)
        return rulebook, self._map(key).coords, self._map(out_key._require()).coords

    def batch_rows(self, key: CoordinateMapKey) -> torch.Tensor:
        """Return the row of the origin that each row's batch has, int32."""
        name = name_of(key)
        known = self._batch_rows.get(name)
        if known is None:
            there = self.get_coordinates(self.origin())[:, 0].contiguous()
            batches = self._batches(name)
            rows = torch.searchsorted(there, batches.int())
            if len(rows) and not (there[rows.clamp(max=len(there) - 1)] == batches).all():
                raise ValueError(
                    "all coordinates of a manager must be inserted before a global pool makes its origin: "
                    "some have a batch index that the origin has not"
                )
            known = self._batch_rows.setdefault(name, rows.int())
        return known

    def holds_points(self, key: CoordinateMapKey) -> bool:
        """Return whether a key names points and not sites."""
        return name_of(key) in self._fields

    def check_points(self, points: torch.Tensor, name: str) -> None:
        """Raise unless an argument is points, (N, 1 + D) of a float dtype and finite."""
        check_tensor(points, name)
        if not points.is_floating_point() or points.dim() != 2 or points.shape[1] != 1 + self.D:
            raise ValueError(
                f"{name} must be of a float dtype and of shape (N, {1 + self.D}), the batch and {self.D} "
                f"axes, got {points.dtype} {tuple(points.shape)}"
            )
        if not torch.isfinite(points).all():
            row = int((~torch.isfinite(points)).any(1).nonzero()[0])
            raise ValueError(f"{name} must be finite, got {points[row].tolist()} in row {row}")

    def check_features(self, features: torch.Tensor, key: CoordinateMapKey) -> None:
        """Raise unless there is a row for each of the coordinates of a key."""
        check_tensor(features, "features")
        if features.dim() != 2 or len(features) != self.size(key):
            raise ValueError(
                f"features must have {self.size(key)} rows, one per site, got shape {tuple(features.shape)}"
            )

    def coords_of(self, key: CoordinateMapKey) -> tuple[Coords, Ints]:
        """Return the coords of a key, and how far apart their cells are."""
        return self._map(name_of(key))

    def _points(self, key: CoordinateMapKey) -> torch.Tensor:
        if name_of(key) not in self._fields:
            raise ValueError(f"the coordinate manager must have points for {key}: a TensorField's are some")
        return self._fields[name_of(key)]

    def _map(self, key: Key) -> _Map:
        if key not in self._maps:
            raise ValueError(
                f"the coordinate manager must have coordinates for {CoordinateMapKey._of(key)}: it has "
                f"{', '.join(str(CoordinateMapKey._of(k)) for k in self._maps) or 'none'}. Tensors that meet "
                f"must share a manager: give coordinate_manager to SparseTensor"
            )
        return self._maps[key]

    def _key_of(self, key_or_tensor_stride: Any) -> Key:
        """Return a key, or the first one with a tensor stride."""
        if isinstance(key_or_tensor_stride, CoordinateMapKey):
            return key_or_tensor_stride._require()
        tensor_stride = tuple(ints_of(key_or_tensor_stride, self.D, "tensor_stride"))
        for key in (*self._maps,):
            if key[0] == tensor_stride:
                return key
        raise ValueError(
            f"the coordinate manager must have coordinates of tensor stride {list(tensor_stride)}, it has "
            f"those of {[list(key[0]) for key in self._maps]}"
        )

    def _get_coordinate_map_key(self, key_or_tensor_strides: Any) -> CoordinateMapKey:
        """Return a key, or the first one with a tensor stride."""
        return CoordinateMapKey._of(self._key_of(key_or_tensor_strides))

    def _keep(self, key: Key, map: _Map) -> CoordinateMapKey:
        """Keep a map under a key, or if that is taken under one like it."""
        return CoordinateMapKey._of(self._put(key, map, self._maps))

    def _put(self, key: Key, value: Value, taken: dict[Key, Value]) -> Key:
        """Keep a value under a key, or one like it; return which."""
        with self._lock():
            key = self._new_key(key)
            taken[key] = value
        return key

    def _number(self) -> int:
        with self._lock():
            self._last_number += 1
            return self._last_number

    def _new_key(self, key: Key) -> Key:
        """Return a key, or one like it that names nothing yet."""
        tensor_stride, string_id = key
        while key in self._maps or key in self._fields:
            key = tensor_stride, f"{string_id}-{self._number()}" if string_id else f"{self._number()}"
        return key

    def _check_coordinates(self, coordinates: torch.Tensor, dtype: torch.dtype) -> None:
        check_tensor(coordinates, "coordinates")
        if coordinates.dtype != dtype:
            raise TypeError(
                f"coordinates must have dtype {dtype}, got {coordinates.dtype}: .int() makes them so"
            )
        if coordinates.dim() != 2 or coordinates.shape[1] != 1 + self.D:
            raise ValueError(
                f"coordinates must have shape (N, {1 + self.D}), the batch and {self.D} axes, got shape "
                f"{tuple(coordinates.shape)}"
            )
        if not self._maps and not self._fields:
            self._device = coordinates.device
        if coordinates.device != self._device:
            raise ValueError(
                f"coordinates must be on {self._device}, as the others of the coordinate manager, got "
                f"{coordinates.device}"
            )

    def _unit_of(self, coordinates: torch.Tensor, tensor_stride: Ints) -> Ints:
        """Return the tensor stride if all coordinates are its multiples, else ones."""
        if min(tensor_stride) < 0:
            raise ValueError(f"tensor_stride must not be negative, got {list(tensor_stride)}")
        if min(tensor_stride) and {*tensor_stride} != {1}:
            steps = torch.tensor(tensor_stride, dtype=torch.int32, device=coordinates.device)
            if not (coordinates[:, 1:] % steps).any():
                return tensor_stride
        return (1,) * self.D

    def _batches(self, key: Key) -> torch.Tensor:
        """Return the batch of each row."""
        if key in self._fields:
            return self._fields[key][:, 0].round().long()
        with on_device(self._device):
            return tensor_of(self._map(key).coords.indices[:, 0].copy()).long()

    def _out_key(self, in_key: Key, kernel: KernelGenerator, transposed: bool, pool: bool) -> Key:
        """Return the key of a layer's outputs, whose coordinates are made if there are none."""
        tensor_stride, stride = in_key[0], kernel.kernel_stride
        if transposed:
            if any(t % s for t, s in zip(tensor_stride, stride, strict=True)):
                raise ValueError(
                    f"stride must divide the input's tensor stride {list(tensor_stride)}, got {stride}: a "
                    f"transposed layer goes back to finer coordinates; those of a SparseTensor begin at "
                    f"tensor stride 1 unless it is given tensor_stride"
                )
            key = tuple(t // s for t, s in zip(tensor_stride, stride, strict=True)), ""
            if key not in self._maps or kernel.expand_coordinates:
                return self._generated(in_key, self._new_key(key), kernel, pool)
            return key
        if kernel.expand_coordinates and not pool:
            return self._expanded(in_key, kernel)
        key = tuple(t * s for t, s in zip(tensor_stride, stride, strict=True)), in_key[1]
        if key not in self._maps:
            stencil = self._stencil(in_key, kernel, pool)
            rulebook = self._floored(in_key, tuple(stride), key, stencil)
            if rulebook is not None:
                self._rulebooks[self._name(in_key, key, kernel, False, pool)] = self._in_order(
                    rulebook, kernel, pool
                )
        return key

    def _floored(self, in_key: Key, stride: Ints, key: Key, stencil: Stencil | None) -> Rulebook | None:
        """Make the coordinates of `stride`; return the rulebook of a stencil to them where there is one."""
        map = self._map(in_key)
        step = tuple(t * s // u for t, s, u in zip(in_key[0], stride, map.unit, strict=True))
        window = Stencil(np.zeros((1, self.D), np.int64)) if stencil is None else stencil
        with on_device(self._device):
            rulebook, coords = floored(map.coords, window, step, (0,) * self.D)
        self._maps[key] = _Map(coords, tuple(s * u for s, u in zip(step, map.unit, strict=True)))
        return None if stencil is None else rulebook

    def _generated(self, in_key: Key, key: Key, kernel: KernelGenerator, pool: bool) -> Key:
        """Make the coordinates that a transposed layer reaches."""
        map = self._map(in_key)
        unit = tuple(np.gcd(map.unit, key[0]).tolist())
        offsets = self._offsets(key, kernel, pool) // unit
        stride = tuple(u // v for u, v in zip(map.unit, unit, strict=True))
        rulebook, coords = generative(map.coords, Stencil(offsets), stride, (0,) * self.D, (0,) * self.D)
        self._maps[key] = _Map(coords, unit)
        self._rulebooks[self._name(in_key, key, kernel, True, pool)] = rulebook
        return key

    def _expanded(self, in_key: Key, kernel: KernelGenerator) -> Key:
        """Make all coordinates that a kernel reaches, those that are multiples of the tensor stride."""
        map = self._map(in_key)
        ones = (1,) * self.D
        offsets = self._offsets(in_key, kernel, False)
        unit = tuple(np.gcd.reduce([map.unit, *offsets]).tolist())
        reached = generative(
            map.in_units(unit).coords, Stencil(offsets // unit), ones, (0,) * self.D, (0,) * self.D
        )
        stride = tuple(t * s for t, s in zip(in_key[0], kernel.kernel_stride, strict=True))
        out = _Map(reached[1], unit)
        if any(u % s for u, s in zip(unit, stride, strict=True)):
            xp, indices = array_module(out.coords.indices), out.coordinates()
            kept = ~(indices[:, 1:] % xp.array(stride)).any(axis=1)
            indices = xp.ascontiguousarray(indices[kept])
            indices[:, 1:] //= xp.array(stride, indices.dtype)
            out = _Map(distinct_sites(indices)[0], stride)
        return self._keep((stride, ""), out)._require()

    def _rulebook(
        self, in_key: Key, out_key: Key, kernel: KernelGenerator, transposed: bool, pool: bool
    ) -> Rulebook:
        """Return the rulebook of a layer between two sets of coordinates."""
        name = self._name(in_key, out_key, kernel, transposed, pool)
        with self._lock():
            if name not in self._rulebooks:
                if transposed:
                    swapped = self._rulebook(out_key, in_key, kernel, False, pool)
                    self._rulebooks[name] = swapped.transposed()
                else:
                    self._rulebooks[name] = self._found(in_key, out_key, kernel, pool)
            return self._rulebooks[name]

    def _name(
        self, in_key: Key, out_key: Key, kernel: KernelGenerator, transposed: bool, pool: bool
    ) -> tuple[Any, ...]:
        custom = custom_offsets(kernel.region_offsets, self.D)
        geometry = kernel.kernel_size, kernel.kernel_dilation, kernel.kernel_stride
        return in_key, out_key, *map(tuple, geometry), kernel.region_type, custom, transposed, pool

    def _found(self, in_key: Key, out_key: Key, kernel: KernelGenerator, pool: bool) -> Rulebook:
        """Find the pairs ``in == out + offset`` of two sets of coordinates."""
        inputs, outputs = self._map(in_key), self._map(out_key)
        offsets = self._offsets(in_key, kernel, pool)
        if (
            any(v % u for u, v in zip(inputs.unit, outputs.unit, strict=True))
            or (offsets % inputs.unit).any()
        ):
            unit = tuple(np.gcd.reduce([inputs.unit, outputs.unit, *offsets]).tolist())
            inputs, outputs = inputs.in_units(unit), outputs.in_units(unit)
        steps = tuple(v // u for u, v in zip(inputs.unit, outputs.unit, strict=True))
        stencil = Stencil(self._sorted(offsets, kernel, pool) // np.array(inputs.unit))
        if inputs.coords is outputs.coords:
            rulebook = submanifold(inputs.coords, stencil)
        else:
            rulebook = between(inputs.coords._sites, outputs.coords._sites, stencil, steps, (0,) * self.D)
        return self._in_order(rulebook, kernel, pool)

    def _offsets(self, key: Key, kernel: KernelGenerator, pool: bool) -> np.ndarray:
        """Return a kernel's cells as coordinates, around those of a key.

        A pool whose stride is its size takes all of the cell that its output begins, whatever its dilation
        and region are.
        """
        tensor_stride = np.array(key[0])
        if not takes_a_cell(kernel, pool):
            return kernel.offsets * kernel.kernel_dilation * tensor_stride
        map = self._maps.get(key)
        if map is None or not (np.array(map.unit) % tensor_stride).any():
            return np.indices(kernel.kernel_size).reshape(self.D, -1).T * tensor_stride
        cell = tensor_stride * kernel.kernel_stride
        return np.unique(to_host(map.coordinates())[:, 1:].astype(np.int64) % cell, axis=0)

    def _stencil(self, in_key: Key, kernel: KernelGenerator, pool: bool) -> Stencil | None:
        """Return a kernel's cells in those of a map, None where they are not whole ones."""
        unit, offsets = np.array(self._map(in_key).unit), self._offsets(in_key, kernel, pool)
        return None if (offsets % unit).any() else Stencil(self._sorted(offsets, kernel, pool) // unit)

    def _sorted(self, offsets: np.ndarray, kernel: KernelGenerator, pool: bool) -> np.ndarray:
        """Return the cells of a box in C order, in which pairs are found fastest."""
        if kernel.region_type is not RegionType.HYPER_CUBE or takes_a_cell(kernel, pool):
            return offsets
        return offsets[np.lexsort(offsets.T[::-1])]

    def _in_order(self, rulebook: Rulebook, kernel: KernelGenerator, pool: bool) -> Rulebook:
        """Return a rulebook of `_sorted` offsets with the kernel's own."""
        if kernel.region_type is not RegionType.HYPER_CUBE or takes_a_cell(kernel, pool):
            return rulebook
        order = first_axis_fastest(tuple(kernel.kernel_size))
        return rulebook if order is None else reordered(rulebook, order)

    def _stride_map(self, in_key: Key, out_key: Key) -> Pairs:
        """Return each row, and the row of a coarser set that it is in."""
        for t, s in zip(in_key[0], out_key[0], strict=True):
            if s % max(t, 1):
                raise ValueError(
                    f"the tensor stride of the outputs must be divisible by that of the inputs, "
                    f"{list(in_key[0])}, got {list(out_key[0])}"
                )
        coordinates = self.get_coordinates(CoordinateMapKey._of(in_key))
        rows = self._rows_of_points(coordinates, out_key)
        if (rows < 0).any():
            row = int((rows < 0).nonzero()[0])
            raise ValueError(
                f"the outputs must hold the cell of every input, got none for {coordinates[row].tolist()} in "
                f"row {row}"
            )
        return torch.arange(len(rows), device=rows.device), rows

    def _rows_of_points(self, points: torch.Tensor, key: Key) -> torch.Tensor:
        """Return the row of the cell that holds each point, -1 where there is none; int64."""
        map, cells = self._map(key), self._cells(points, key[0])
        with on_device(self._device):
            indices = array_of(cells)
            xp = array_module(indices)
            unit = xp.array(map.unit, indices.dtype)
            off = (indices[:, 1:] % unit).any(axis=1)
            indices[:, 1:] //= unit
            rows = map.coords.rows_of(indices)
            return tensor_of(xp.where(off, np.int32(-1), rows)).long()

    def _cells(self, points: torch.Tensor, tensor_stride: Ints) -> torch.Tensor:
        """Return ``floor(p / s) * s`` with the tensor stride s, and the batch, int32."""
        real = points.is_floating_point()
        cells = torch.zeros(points.shape, dtype=torch.int32, device=points.device)
        cells[:, 0] = points[:, 0].round() if real else points[:, 0]
        if 0 not in tensor_stride:
            steps = torch.tensor(tensor_stride, dtype=torch.int32, device=points.device)
            places = points[:, 1:]
            floors = (places / steps).floor() if real else places.div(steps, rounding_mode="floor")
            if len(floors) and (floors.abs() * steps).max() >= 2.0**31:
                raise ValueError("coordinates must have cells in int32")
            cells[:, 1:] = floors.int() * steps
        return cells


CoordsManager = CoordinateManager


def takes_a_cell(kernel: KernelGenerator, pool: bool = True) -> bool:
    """Return whether the windows of a pool are the cells that its outputs begin."""
    return pool and kernel.kernel_stride == kernel.kernel_size


def _plain(coords: Coords) -> Coords:
    """Return coords without their level's place in space, which unions compare."""
    origin, voxel_size = np.zeros(coords.ndim), np.ones(coords.ndim)
    return Coords._of(replace(coords._sites, origin=origin, voxel_size=voxel_size, children=Kept(), moved={}))


def set_gpu_allocator(backend: GPUMemoryAllocatorType) -> None:
    """Do nothing: memory on a GPU is PyTorch's and CuPy's."""


def set_memory_manager_backend(backend: GPUMemoryAllocatorType) -> None:
    """Do nothing: memory on a GPU is PyTorch's and CuPy's."""
