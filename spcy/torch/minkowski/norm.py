"""Normalizations."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import BatchNorm1d, Module, Parameter, SyncBatchNorm

from .. import functional
from .._bridge import opaque
from .conv import MinkowskiModuleBase, require_manager
from .manager import CoordinateManager, CoordinateMapKey
from .modes import PoolingMode
from .pool import MinkowskiGlobalPoolingFunction
from .tensor import Kind, SparseTensor, require_sparse, wrapped


class MinkowskiBatchNorm(Module):
    """Batch normalization over all rows: a `torch.nn.BatchNorm1d`, `bn`.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats
        As of `torch.nn.BatchNorm1d`.
    """

    bn: BatchNorm1d | SyncBatchNorm

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ):
        super().__init__()
        self.bn = BatchNorm1d(num_features, eps, momentum, affine, track_running_stats)

    def forward(self, input: Kind) -> Kind:
        """Return the normalized tensor or field."""
        return wrapped(input, self.bn)

    def __repr__(self) -> str:
        bn = self.bn
        return (
            f"{type(self).__name__}({bn.num_features}, eps={bn.eps}, momentum={bn.momentum}, "
            f"affine={bn.affine}, track_running_stats={bn.track_running_stats})"
        )


class MinkowskiSyncBatchNorm(MinkowskiBatchNorm):
    """Batch normalization over the rows of all processes: a `torch.nn.SyncBatchNorm`, `bn`.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, process_group
        As of `torch.nn.SyncBatchNorm`.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
    ):
        Module.__init__(self)
        self.bn = SyncBatchNorm(num_features, eps, momentum, affine, track_running_stats, process_group)

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """Return a module whose batch normalizations are over all processes, with the same parameters."""
        converted = module
        if isinstance(module, MinkowskiBatchNorm) and not isinstance(module, cls):
            converted = cls(1)
            converted.bn = SyncBatchNorm.convert_sync_batchnorm(module.bn, process_group)
            converted.train(module.training)
        else:
            for name, child in module.named_children():
                module.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return converted


class MinkowskiInstanceNormFunction:
    """What centres and scales the features of each batch."""

    @staticmethod
    @opaque
    def apply(
        in_feat: torch.Tensor,
        in_coords_key: CoordinateMapKey,
        glob_coords_key: CoordinateMapKey | None = None,
        coords_manager: CoordinateManager | None = None,
        gpooling_mode: PoolingMode = PoolingMode.GLOBAL_AVG_POOLING_KERNEL,
        eps: float = 1e-8,
    ) -> torch.Tensor:
        """Return ``(x - mean) / sqrt(var + eps)`` of each batch."""
        rows = require_manager(coords_manager).batch_rows(in_coords_key)

        def mean(values: torch.Tensor) -> torch.Tensor:
            return MinkowskiGlobalPoolingFunction.apply(
                values, gpooling_mode, in_coords_key, glob_coords_key, coords_manager
            )

        centred = in_feat - functional.take_rows(mean(in_feat), rows)
        scale = (mean(centred**2) + eps).rsqrt()
        return centred * functional.take_rows(scale, rows)


class MinkowskiInstanceNorm(MinkowskiModuleBase):
    """Normalization of each batch by itself.

    Parameters
    ----------
    num_features : int

    Attributes
    ----------
    weight, bias : Parameter of shape (1, C)
    """

    _eps = 1e-8

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features
        self.eps = self._eps
        self.weight = Parameter(torch.ones(1, num_features))
        self.bias = Parameter(torch.zeros(1, num_features))

    def reset_parameters(self) -> None:
        """Make the weights 1 and the biases 0."""
        self.weight.data.fill_(1)
        self.bias.data.zero_()

    def forward(self, input: SparseTensor) -> SparseTensor:
        """Return the normalized tensor."""
        require_sparse(input)
        if input.shape[1] != self.num_features:
            raise ValueError(
                f"input must have {self.num_features} channels, as the layer, got {input.shape[1]}"
            )
        mode = PoolingMode.GLOBAL_AVG_POOLING_KERNEL
        keys = input.coordinate_map_key, None, input._manager
        return input._with(
            MinkowskiInstanceNormFunction.apply(input._F, *keys, mode, self.eps) * self.weight + self.bias
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(nchannels={self.num_features})"


class MinkowskiStableInstanceNorm(MinkowskiInstanceNorm):
    """Normalization of each batch by itself, with a greater constant below the root.

    Parameters
    ----------
    num_features : int

    Attributes
    ----------
    weight, bias : Parameter of shape (1, C)
    """

    _eps = 1e-6
