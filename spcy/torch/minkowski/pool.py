"""Pools, over windows and over batches, and what spreads a batch's row over its sites."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ... import pool
from .. import functional
from .._bridge import opaque
from ..tensor import SparseTensor as Sites
from .conv import Coordinates, MinkowskiModuleBase, generator_of, out_key_of, require_manager
from .kernels import KernelGenerator, require_dimension
from .manager import CoordinateManager, CoordinateMapKey, takes_a_cell
from .modes import BroadcastMode, PoolingMode
from .tensor import SparseTensor, Tensor, require_same_manager, require_sparse

_LOCAL = {
    PoolingMode.LOCAL_SUM_POOLING: pool.SUM,
    PoolingMode.LOCAL_AVG_POOLING: pool.MEAN,
    PoolingMode.LOCAL_MAX_POOLING: pool.MAX,
}


class MinkowskiLocalPoolingFunction:
    """A pool between coordinates that a manager has."""

    @staticmethod
    @opaque
    def apply(
        input_features: torch.Tensor,
        pooling_mode: PoolingMode,
        kernel_generator: KernelGenerator,
        in_coordinate_map_key: CoordinateMapKey,
        out_coordinate_map_key: CoordinateMapKey | None = None,
        coordinate_manager: CoordinateManager | None = None,
    ) -> torch.Tensor:
        """Return the features of the outputs, on `out_coordinate_map_key`, which is set if it is not."""
        if pooling_mode not in _LOCAL:
            raise ValueError(f"pooling_mode must be one of PoolingMode's local ones, got {pooling_mode!r}")
        keys = in_coordinate_map_key, out_coordinate_map_key
        plan = require_manager(coordinate_manager).convolution(*keys, kernel_generator, pool=True)
        out = functional.pool_on(input_features, *plan, _LOCAL[pooling_mode])
        if pooling_mode is not PoolingMode.LOCAL_MAX_POOLING or takes_a_cell(kernel_generator):
            return out
        # The maximum of an empty window is the least number, as in MinkowskiEngine.
        return out.masked_fill(torch.isneginf(out), torch.finfo(out.dtype).min)


class MinkowskiLocalPoolingTransposeFunction:
    """A transposed pool between coordinates that a manager has."""

    @staticmethod
    @opaque
    def apply(
        input_features: torch.Tensor,
        pooling_mode: PoolingMode,
        kernel_generator: KernelGenerator,
        in_coordinate_map_key: CoordinateMapKey,
        out_coordinate_map_key: CoordinateMapKey | None = None,
        coordinate_manager: CoordinateManager | None = None,
    ) -> torch.Tensor:
        """Return the features of the outputs, on `out_coordinate_map_key`, which is set if it is not."""
        keys = in_coordinate_map_key, out_coordinate_map_key
        manager = require_manager(coordinate_manager)
        plan = manager.convolution(*keys, kernel_generator, transposed=True, pool=True)
        return functional.pool_on(input_features, *plan, pool.SUM)


class MinkowskiPoolingBase(MinkowskiModuleBase):
    """What the pools share.

    Parameters
    ----------
    kernel_size, stride, dilation : int or sequence of ints
        Where the stride is the size, a window is the cell that its output begins; else it lies as that of a
        convolution does.
    kernel_generator : KernelGenerator, optional
        Instead of the three.
    is_transpose : bool
    pooling_mode : PoolingMode
    dimension : int
        Number of spatial axes.
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        kernel_generator: KernelGenerator | None = None,
        is_transpose: bool = False,
        pooling_mode: PoolingMode = PoolingMode.LOCAL_AVG_POOLING,
        dimension: int | None = -1,
    ):
        super().__init__()
        self.dimension = require_dimension(dimension)
        expanding = kernel_generator is not None and getattr(kernel_generator, "expand_coordinates", False)
        kernel_generator = generator_of(
            kernel_generator, kernel_size, stride, dilation, self.dimension, expanding
        )
        self.kernel_generator, self.is_transpose, self.pooling_mode = (
            kernel_generator,
            is_transpose,
            pooling_mode,
        )
        self.pooling = (
            MinkowskiLocalPoolingTransposeFunction if is_transpose else MinkowskiLocalPoolingFunction
        )

    def forward(self, input: SparseTensor, coordinates: Coordinates | None = None) -> SparseTensor:
        """Return the pool's output, at `coordinates` if they are given, as a convolution's."""
        require_sparse(input, self.dimension)
        kernel, manager = self.kernel_generator, input._manager
        key = out_key_of(input, coordinates, kernel.kernel_stride, self.is_transpose)
        features = self.pooling.apply(
            input._F, self.pooling_mode, kernel, input.coordinate_map_key, key, manager
        )
        return SparseTensor._on(features, key, manager)

    def __repr__(self) -> str:
        kernel = self.kernel_generator
        return (
            f"{type(self).__name__}(kernel_size={kernel.kernel_size}, stride={kernel.kernel_stride}, "
            f"dilation={kernel.kernel_dilation})"
        )


class _LocalPool(MinkowskiPoolingBase):
    """A pool of a mode, with the arguments that MinkowskiEngine gives it."""

    _mode: PoolingMode

    def __init__(
        self,
        kernel_size: int | Sequence[int] = -1,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        kernel_generator: KernelGenerator | None = None,
        dimension: int | None = None,
    ):
        super().__init__(
            kernel_size, stride, dilation, kernel_generator, pooling_mode=self._mode, dimension=dimension
        )


class MinkowskiAvgPooling(_LocalPool):
    """The mean of the sites of each window, 0 where it has none.

    See `MinkowskiPoolingBase`.
    """

    _mode = PoolingMode.LOCAL_AVG_POOLING


class MinkowskiSumPooling(_LocalPool):
    """The sum of the sites of each window.

    See `MinkowskiPoolingBase`.
    """

    _mode = PoolingMode.LOCAL_SUM_POOLING


class MinkowskiMaxPooling(_LocalPool):
    """The greatest feature of each window, the least number of the dtype where it has no site.

    See `MinkowskiPoolingBase`.
    """

    _mode = PoolingMode.LOCAL_MAX_POOLING


class MinkowskiPoolingTranspose(MinkowskiPoolingBase):
    """The sum of the coarser sites whose windows hold a finer one: a copy where windows do not overlap.

    Parameters
    ----------
    kernel_size, stride, dilation, kernel_generator, dimension
        As of `MinkowskiPoolingBase`.
    expand_coordinates : bool
        Whether the output has all sites of the windows, whatever the manager has.
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int],
        dilation: int | Sequence[int] = 1,
        kernel_generator: KernelGenerator | None = None,
        expand_coordinates: bool = False,
        dimension: int | None = None,
    ):
        if kernel_generator is None:
            dimension = require_dimension(dimension)
            kernel_generator = generator_of(
                None, kernel_size, stride, dilation, dimension, expand_coordinates
            )
        super().__init__(
            kernel_size, stride, dilation, kernel_generator, is_transpose=True, dimension=dimension
        )


class MinkowskiGlobalPoolingFunction:
    """A pool over each batch of coordinates that a manager has."""

    @staticmethod
    @opaque
    def apply(
        input_features: torch.Tensor,
        pooling_mode: PoolingMode,
        in_coordinate_map_key: CoordinateMapKey,
        out_coordinate_map_key: CoordinateMapKey | None = None,
        coordinate_manager: CoordinateManager | None = None,
    ) -> torch.Tensor:
        """Return a row for each batch, on the origin; set `out_coordinate_map_key` if it is not."""
        if not isinstance(pooling_mode, PoolingMode) or pooling_mode in _LOCAL:
            raise ValueError(f"pooling_mode must be one of PoolingMode's global ones, got {pooling_mode!r}")
        manager = require_manager(coordinate_manager)
        manager.check_features(input_features, in_coordinate_map_key)
        origin = manager.origin()
        if out_coordinate_map_key is not None and not out_coordinate_map_key.is_key_set():
            out_coordinate_map_key.set_key(*origin.get_key())
        elif out_coordinate_map_key not in (None, origin):
            raise ValueError(
                f"out_coordinate_map_key must be the origin's or not set, got {out_coordinate_map_key}"
            )
        over_sites, over_rows = _GLOBAL[pooling_mode.name.split("_")[1]]
        num_rows = manager.size(origin)
        if not manager.holds_points(in_coordinate_map_key):
            coords, batches = (manager.coords_of(key)[0] for key in (in_coordinate_map_key, origin))
            if coords.batch_size == batches.batch_size == num_rows:
                return over_sites(Sites(coords, input_features))
        # Batches of the manager are without a site here, or numbers below the greatest are none of them.
        return over_rows(input_features, manager.batch_rows(in_coordinate_map_key), num_rows)


def _max_rows(features: torch.Tensor, rows: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Return the greatest of the features of each row, zeros for none."""
    none = torch.bincount(rows, minlength=num_rows) == 0
    return functional.max_rows(features, rows, num_rows).masked_fill(none[:, None], 0)


_GLOBAL = {
    "SUM": (functional.global_sum_pool, functional.add_rows),
    "AVG": (functional.global_avg_pool, functional.mean_rows),
    "MAX": (functional.global_max_pool, _max_rows),
}


class MinkowskiGlobalPooling(MinkowskiModuleBase):
    """A row for each batch: the sum, the mean or the greatest of its features.

    Parameters
    ----------
    mode : PoolingMode
        One of the global ones.
    """

    def __init__(self, mode: PoolingMode = PoolingMode.GLOBAL_AVG_POOLING_PYTORCH_INDEX):
        super().__init__()
        if not isinstance(mode, PoolingMode) or not mode.name.startswith("GLOBAL"):
            raise ValueError(f"mode must be one of PoolingMode's global ones, got {mode!r}")
        self.pooling_mode = mode
        self.pooling = MinkowskiGlobalPoolingFunction

    def forward(self, input: Tensor, coordinates: CoordinateMapKey | None = None) -> SparseTensor:
        """Return a row for each batch, on the origin."""
        if not isinstance(input, Tensor):
            raise TypeError(f"input must be a SparseTensor or a TensorField, got {type(input).__name__}")
        key = CoordinateMapKey(input.D + 1) if coordinates is None else coordinates
        if not isinstance(key, CoordinateMapKey):
            raise TypeError(f"coordinates must be a CoordinateMapKey, got {type(key).__name__}")
        features = self.pooling.apply(input._F, self.pooling_mode, input.coordinate_key, key, input._manager)
        return SparseTensor._on(features, key, input._manager)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(mode={self.pooling_mode})"


class MinkowskiGlobalSumPooling(MinkowskiGlobalPooling):
    """The sum of each batch.

    See `MinkowskiGlobalPooling`.
    """

    def __init__(self, mode: PoolingMode = PoolingMode.GLOBAL_SUM_POOLING_PYTORCH_INDEX):
        super().__init__(mode)


class MinkowskiGlobalAvgPooling(MinkowskiGlobalPooling):
    """The mean of each batch.

    See `MinkowskiGlobalPooling`.
    """

    def __init__(self, mode: PoolingMode = PoolingMode.GLOBAL_AVG_POOLING_PYTORCH_INDEX):
        super().__init__(mode)


class MinkowskiGlobalMaxPooling(MinkowskiGlobalPooling):
    """The greatest feature of each batch.

    See `MinkowskiGlobalPooling`.
    """

    def __init__(self, mode: PoolingMode = PoolingMode.GLOBAL_MAX_POOLING_PYTORCH_INDEX):
        super().__init__(mode)


class MinkowskiDirectMaxPoolingFunction:
    """The greatest of the features that go to each row."""

    @staticmethod
    @opaque
    def apply(
        in_map: torch.Tensor,
        out_map: torch.Tensor,
        in_feat: torch.Tensor,
        out_nrows: int,
        is_sorted: bool = False,
    ) -> torch.Tensor:
        """Return ``max(in_feat[in_map[i]])`` over all i of each ``out_map[i]``, the least number for none."""
        for name, rows, end in (("in_map", in_map, len(in_feat)), ("out_map", out_map, out_nrows)):
            if len(rows) != len(in_map) or (len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < end):
                raise ValueError(f"{name} must be {len(in_map)} rows in [0, {end}), got {rows}")
        taken = functional.take_rows(in_feat, in_map.int())
        out = functional.max_rows(taken, out_map.int(), out_nrows)
        return out.masked_fill(torch.isneginf(out), torch.finfo(out.dtype).min)


class MinkowskiBroadcastFunction:
    """What combines sites with the row of their batch."""

    @staticmethod
    @opaque
    def apply(
        input_features: torch.Tensor,
        input_features_global: torch.Tensor,
        operation_type: BroadcastMode,
        in_coords_key: CoordinateMapKey,
        glob_coords_key: CoordinateMapKey,
        coords_manager: CoordinateManager,
    ) -> torch.Tensor:
        """Return the sums or the products of the features and the rows of their batches."""
        if not isinstance(operation_type, BroadcastMode):
            raise ValueError(f"operation_type must be a BroadcastMode, got {operation_type!r}")
        coords_manager.check_features(input_features, in_coords_key)
        coords_manager.check_features(input_features_global, coords_manager.origin())
        spread = functional.take_rows(input_features_global, coords_manager.batch_rows(in_coords_key))
        if operation_type is BroadcastMode.ELEMENTWISE_ADDITON:
            return input_features + spread
        return input_features * spread


class _Broadcast(MinkowskiModuleBase):
    """What the broadcasts share."""

    _same_channels = False

    @opaque
    def forward(self, input: SparseTensor, input_glob: SparseTensor) -> SparseTensor:
        """Return the input with what the row of each site's batch makes of it."""
        require_same_manager(require_sparse(input), require_sparse(input_glob))
        if len(input_glob) != input._manager.number_of_unique_batch_indices():
            raise ValueError(
                f"input_glob must have a row for each batch, as global pools give it, "
                f"{input._manager.number_of_unique_batch_indices()}, got {len(input_glob)}"
            )
        channels, others = input.shape[1], input_glob.shape[1]
        if self._same_channels and others not in (1, channels):
            raise ValueError(f"input_glob must have {channels} channels, as input, got {others}")
        spread = functional.take_rows(input_glob._F, input._manager.batch_rows(input.coordinate_map_key))
        return input._with(self._combine(input._F, spread))

    def _combine(self, features: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def __repr__(self) -> str:
        return type(self).__name__


class MinkowskiBroadcastAddition(_Broadcast):
    """Adds to each site the row of its batch."""

    _same_channels = True
    operation_type = BroadcastMode.ELEMENTWISE_ADDITON
    broadcast = MinkowskiBroadcastFunction

    def _combine(self, features: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        return features + spread


class MinkowskiBroadcastMultiplication(_Broadcast):
    """Multiplies each site by the row of its batch."""

    _same_channels = True
    operation_type = BroadcastMode.ELEMENTWISE_MULTIPLICATION
    broadcast = MinkowskiBroadcastFunction

    def _combine(self, features: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        return features * spread


class MinkowskiBroadcast(_Broadcast):
    """Gives each site the row of its batch."""

    def _combine(self, features: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        return spread


class MinkowskiBroadcastConcatenation(_Broadcast):
    """Puts the row of its batch behind each site's features."""

    def _combine(self, features: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        return torch.cat([features, spread], 1)
