"""The base of all sparse modules, and what convolutions and pools share: windows, a key, a count."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ..tensor import SparseTensor
from .core import ConvAlgo, IndiceData, Level, SparseConvTensor, expand_nd
from .pairs import rulebook_of

MAX_NUM_VOXELS = "max_num_voxels_during_training"


class SparseModule(nn.Module):
    """A module that takes a `SparseConvTensor`: in a `SparseSequential` it gets the tensor itself.

    Parameters
    ----------
    name : str, optional
    """

    def __init__(self, name: str | None = None):
        super().__init__()
        self.name = name
        self._sparse_unique_name = ""


class WindowLayer(SparseModule):
    """A layer whose outputs read windows of its input."""

    subm: bool
    transposed: bool
    inverse: bool

    def __init__(
        self,
        ndim: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int],
        padding: int | Sequence[int],
        dilation: int | Sequence[int],
        output_padding: int | Sequence[int] = 0,
        *,
        subm: bool = False,
        transposed: bool = False,
        inverse: bool = False,
        indice_key: str | None,
        algo: ConvAlgo | None,
        record_voxel_count: bool,
        name: str | None,
        device: Any = None,
    ):
        super().__init__(name=name)
        if indice_key is not None and not isinstance(indice_key, str):
            raise TypeError(f"indice_key must be a str or None, got {type(indice_key).__name__}")
        self.ndim = ndim
        self.kernel_size: list[int] = expand_nd(ndim, kernel_size, "kernel_size", 1)
        self.stride: list[int] = expand_nd(ndim, stride, "stride", 1)
        self.padding: list[int] = expand_nd(ndim, padding, "padding")
        self.dilation: list[int] = expand_nd(ndim, dilation, "dilation", 1)
        self.output_padding: list[int] = expand_nd(ndim, output_padding, "output_padding")
        self.subm, self.transposed, self.inverse = subm, transposed, inverse
        self.indice_key = indice_key
        self.algo: ConvAlgo = ConvAlgo.Native if algo is None else algo
        self.record_voxel_count = record_voxel_count
        if record_voxel_count and not subm and not inverse:
            self.register_buffer(MAX_NUM_VOXELS, torch.zeros(1, dtype=torch.int32, device=device))
        # Of the geometry alone: tensors keep it, and would keep and pickle the layer.
        self._rulebook = partial(
            rulebook_of,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            output_padding=self.output_padding,
            subm=subm,
            transposed=transposed,
        )

    def _geometry_repr(self) -> str:
        """Return the windows as a repr has them."""
        said = f"kernel_size={self.kernel_size}, stride={self.stride}"
        for name, plain in (("padding", 0), ("dilation", 1), ("output_padding", 0)):
            value = getattr(self, name)
            said += f", {name}={value}" if any(v != plain for v in value) else ""
        return said

    def get_max_num_voxels(self) -> torch.Tensor | None:
        """Return the greatest number of output sites so far, if it is recorded."""
        return getattr(self, MAX_NUM_VOXELS, None)

    def _require_new_key(self, x: SparseConvTensor) -> None:
        if self.indice_key is not None and self.indice_key in x.indice_dict:
            raise ValueError(f"indice_key must be new, got {self.indice_key!r}, which the input has already")

    def _onto_new_level(self, x: SparseConvTensor, y: SparseTensor) -> SparseConvTensor:
        """Return an output on sites that the layer made, their number and key recorded."""
        out = x.with_features(y.features)
        shape: Any = y.coords.shape  # as of all that come from spconv's tensors
        out._level, out.spatial_shape = Level(coords=y.coords), list(shape)
        count = self.get_max_num_voxels()
        if count is not None:
            count.clamp_(min=len(y.coords))
        self._leave_key(x, out)
        return out

    def _leave_key(self, x: SparseConvTensor, out: SparseConvTensor) -> None:
        """Leave what layers with the same key look for, unless it is there."""
        if self.indice_key is not None and self.indice_key not in x.indice_dict:
            data = IndiceData.of(x, out, self)
            out.indice_dict = {**x.indice_dict, self.indice_key: data}
