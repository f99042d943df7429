"""Pools over sparse tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import functional
from .._bridge import opaque
from ..tensor import SparseTensor
from .core import ConvAlgo, SparseConvTensor, require_sparse
from .layer import SparseModule, WindowLayer


class _Pool(WindowLayer):
    """What the pools share."""

    def __init__(
        self,
        ndim: int,
        kernel_size: int | Sequence[int] = 3,
        stride: int | Sequence[int] | None = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        indice_key: str | None = None,
        subm: bool = False,
        algo: ConvAlgo | None = None,
        record_voxel_count: bool = False,
        name: str | None = None,
    ):
        if subm:
            raise ValueError("subm must be False: a pool makes the sites of its windows")
        super().__init__(
            ndim,
            kernel_size,
            kernel_size if stride is None else stride,
            padding,
            dilation,
            indice_key=indice_key,
            algo=algo,
            record_voxel_count=record_voxel_count,
            name=name,
        )

    def extra_repr(self) -> str:
        """Return the arguments that a repr has."""
        return self._geometry_repr()

    @opaque
    def forward(self, input: SparseConvTensor) -> SparseConvTensor:
        """Return the pool's output; rows ascend by batch and coordinates."""
        require_sparse(input, "input")
        self._require_new_key(input)
        y = self._reduce(input.as_spcy(), self.kernel_size, self.stride, self.padding, self.dilation)
        return self._onto_new_level(input, y)

    def _reduce(self, x: SparseTensor, *geometry: Any) -> SparseTensor:
        raise NotImplementedError


class SparseMaxPool(_Pool):
    """The greatest feature of each window and 0, as in spconv, whose maxima begin there.

    Parameters
    ----------
    ndim : int
    kernel_size, padding, dilation : int or sequence of ndim ints
    stride : int or sequence of ndim ints, or None for `kernel_size`
    indice_key : str, optional
        What an inverse convolution finds the level before the pool by.
    record_voxel_count : bool
        Keep the greatest number of output sites in a buffer.
    subm, algo, name
        Accepted, without effect; `subm` must be False.
    """

    def _reduce(self, x: SparseTensor, *geometry: Any) -> SparseTensor:
        return functional.max_pool(x, *geometry, empty="zero")


class SparseAvgPool(_Pool):
    """The mean of the sites of each window.

    Parameters
    ----------
    ndim, kernel_size, stride, padding, dilation, indice_key, record_voxel_count, subm, algo, name
        As of `SparseMaxPool`.
    """

    def _reduce(self, x: SparseTensor, *geometry: Any) -> SparseTensor:
        return functional.avg_pool(x, *geometry)


class SparseGlobalMaxOrAvgPool(SparseModule):
    """The greatest feature or the mean of each batch.

    Parameters
    ----------
    is_mean : bool
    name : str, optional
    """

    def __init__(self, is_mean: bool, name: str | None = None):
        super().__init__(name=name)
        self.is_mean = is_mean

    @opaque
    def forward(self, input: SparseConvTensor) -> torch.Tensor:
        """Return a tensor of shape (batch_size, C)."""
        require_sparse(input, "input")
        pool = functional.global_avg_pool if self.is_mean else functional.global_max_pool
        return pool(input.as_spcy())


class SparseGlobalMaxPool(SparseGlobalMaxOrAvgPool):
    """The greatest feature of each batch."""

    def __init__(self, name: str | None = None):
        super().__init__(is_mean=False, name=name)


class SparseGlobalAvgPool(SparseGlobalMaxOrAvgPool):
    """The mean of each batch, for every channel (spconv returns that of the first channel alone)."""

    def __init__(self, name: str | None = None):
        super().__init__(is_mean=True, name=name)


class _Of(_Pool):
    """A pool of a dimension, with the arguments that spconv gives it."""

    _ndim: int

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        indice_key: str | None = None,
        algo: ConvAlgo | None = None,
        record_voxel_count: bool = False,
        name: str | None = None,
    ):
        geometry = kernel_size, stride, padding, dilation
        super().__init__(
            self._ndim,
            *geometry,
            indice_key=indice_key,
            algo=algo,
            record_voxel_count=record_voxel_count,
            name=name,
        )


class SparseMaxPool1d(_Of, SparseMaxPool):
    """The greatest feature of each window and 0.

    See `SparseMaxPool`.
    """

    _ndim = 1


class SparseMaxPool2d(_Of, SparseMaxPool):
    """The greatest feature of each window and 0.

    See `SparseMaxPool`.
    """

    _ndim = 2


class SparseMaxPool3d(_Of, SparseMaxPool):
    """The greatest feature of each window and 0.

    See `SparseMaxPool`.
    """

    _ndim = 3


class SparseMaxPool4d(_Of, SparseMaxPool):
    """The greatest feature of each window and 0.

    See `SparseMaxPool`.
    """

    _ndim = 4


class SparseAvgPool1d(_Of, SparseAvgPool):
    """The mean of the sites of each window.

    See `SparseAvgPool`.
    """

    _ndim = 1


class SparseAvgPool2d(_Of, SparseAvgPool):
    """The mean of the sites of each window.

    See `SparseAvgPool`.
    """

    _ndim = 2


class SparseAvgPool3d(_Of, SparseAvgPool):
    """The mean of the sites of each window.

    See `SparseAvgPool`.
    """

    _ndim = 3
