"""Bird's-eye views."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from ...._bridge import opaque
from ....tensor import indices_of
from ...tensor import Sparse, SparseTensor

__all__ = ["ToBEVConvolution", "ToBEVHeightCompression", "ToBEVReduction", "ToDenseBEVConvolution"]


class ToBEVReduction(nn.Module):
    """The mean over an axis: sites that differ along it alone become one, at 0.

    Parameters
    ----------
    dim : int
        The axis, of x, y, z.
    """

    def __init__(self, dim: int = 1):
        super().__init__()
        self.dim = _axis(dim)

    def extra_repr(self) -> str:
        """Return the arguments that a repr has."""
        return f"dim = {self.dim}"

    def forward(self, input: Sparse) -> Sparse:
        """Return the layer's output, in ascending order of batch and coordinates."""
        cells = _cells(input)
        cells[:, 1 + self.dim] = 0
        sums, cells, counts = _sums(input.feats, cells)
        return _on_cells(input, sums / counts[:, None].to(sums.dtype), cells, input.stride)


class _ByHeight(nn.Module):
    """Layers with a matrix for each cell of an axis."""

    def __init__(self, in_channels: int, out_channels: int, n_kernels: int, dim: int, bias: bool):
        super().__init__()
        self.in_channels, self.out_channels, self.n_kernels = in_channels, out_channels, n_kernels
        self.dim = _axis(dim)
        self.kernel = nn.Parameter(torch.empty(n_kernels, in_channels, out_channels))
        self.bias = nn.Parameter(torch.zeros(1, out_channels)) if bias else 0
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the kernel as TorchSparse does."""
        bound = 1 / math.sqrt(self.in_channels)
        nn.init.uniform_(self.kernel, -bound, bound)

    def _products(self, feats: torch.Tensor, heights: torch.Tensor) -> torch.Tensor:
        """Return the features times the matrix of their height."""
        _require_between(heights, self.n_kernels, f"coords along axis {self.dim}")
        out = feats.new_zeros(len(feats), self.out_channels)
        for height in heights.unique():
            (rows,) = torch.where(heights == height)
            out = out.index_copy(0, rows, feats[rows] @ self.kernel[height])
        return out + self.bias


class ToDenseBEVConvolution(_ByHeight):
    """A dense map of products with a matrix for each height, summed over the heights.

    Parameters
    ----------
    in_channels, out_channels : int
    shape : sequence of 3 ints
        Extent along x, y, z of the tensor's cells.
    offset : sequence of 3 ints
        Taken off the coordinates, in cells of the network's input.
    dim : int
        The axis of the height, of x, y, z.
    bias : bool
        Added to each site's product.

    Attributes
    ----------
    kernel : Parameter of shape (shape[dim], in_channels, out_channels)
    bias : Parameter of shape (1, out_channels), or 0
    """

    offset: torch.Tensor
    shape: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        shape: Sequence[int] | torch.Tensor,
        offset: Sequence[int] = (0, 0, 0),
        dim: int = 1,
        bias: bool = False,
    ):
        shape = torch.as_tensor(shape).int()
        super().__init__(in_channels, out_channels, int(shape[_axis(dim)]), dim, bias)
        self.register_buffer("offset", torch.tensor([[*offset, 0]], dtype=torch.int32))
        self.register_buffer("shape", shape)

    def extra_repr(self) -> str:
        """Return the arguments that a repr has."""
        return f"in_channels={self.in_channels}, out_channels={self.out_channels}, n_kernels={self.n_kernels}"

    def forward(self, input: SparseTensor) -> torch.Tensor:
        """Return the map, (batches, out_channels, two axes)."""
        feats = self._products(input.feats, _cells(input)[:, 1 + self.dim])
        cells = _cells(input, self.offset)
        kept = [axis for axis in range(3) if axis != self.dim]
        extents = [int(self.shape[axis]) for axis in kept]
        places = _places(cells, kept, extents, input.num_batches())
        flat = feats.new_zeros(input.num_batches() * math.prod(extents), self.out_channels)
        dense = flat.index_add(0, places, feats)
        return dense.view(-1, *extents, self.out_channels).permute(0, 3, 1, 2).contiguous()


class ToBEVConvolution(_ByHeight):
    """A sparse map of products with a matrix for each height, summed over the heights.

    Parameters
    ----------
    in_channels, out_channels, n_kernels : int
    stride : int
        Of the map along the other axes.
    dim : int
        The axis of the height, of x, y, z; the map's sites lie at 0 of it.
    bias : bool
        Added to each site's product.

    Attributes
    ----------
    kernel : Parameter of shape (n_kernels, in_channels, out_channels)
    bias : Parameter of shape (1, out_channels), or 0
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        n_kernels: int,
        stride: int = 1,
        dim: int = 1,
        bias: bool = False,
    ):
        super().__init__(in_channels, out_channels, n_kernels, dim, bias)
        self.stride = stride

    def extra_repr(self) -> str:
        """Return the arguments that a repr has."""
        return (
            f"in_channels={self.in_channels}, out_channels={self.out_channels}, "
            f"n_kernels={self.n_kernels}, stride={self.stride}"
        )

    def forward(self, input: Sparse) -> Sparse:
        """Return the layer's output, in ascending order of batch and coordinates."""
        cells = _cells(input)
        feats = self._products(input.feats, cells[:, 1 + self.dim])
        cells[:, 1:] = torch.div(cells[:, 1:], self.stride, rounding_mode="floor")
        cells[:, 1 + self.dim] = 0
        sums, cells, _ = _sums(feats, cells)
        return _on_cells(input, sums, cells, tuple(s * self.stride for s in input.stride))


class ToBEVHeightCompression(nn.Module):
    """A dense map whose channels are those of all heights, one behind the other.

    Parameters
    ----------
    channels : int
        Of the input; the map has them for each of ``shape[dim]`` heights.
    shape : sequence of 3 ints
        Extent along x, y, z of the tensor's cells. Heights beyond go to the last one.
    offset : sequence of 3 ints
        Taken off the coordinates, in cells of the network's input.
    dim : int
        The axis of the height, of x, y, z.
    """

    offset: torch.Tensor
    shape: torch.Tensor

    def __init__(
        self,
        channels: int,
        shape: Sequence[int] | torch.Tensor,
        offset: Sequence[int] = (0, 0, 0),
        dim: int = 1,
    ):
        super().__init__()
        self.channels = channels
        self.register_buffer("offset", torch.tensor([[*offset, 0]], dtype=torch.int32))
        self.register_buffer("shape", torch.as_tensor(shape).int())
        self.dim = _axis(dim)

    def extra_repr(self) -> str:
        """Return the arguments that a repr has."""
        return f"channels={self.channels}"

    def forward(self, input: SparseTensor) -> torch.Tensor:
        """Return the map, (batches, heights * channels, two axes)."""
        cells = _cells(input, self.offset)
        order = [*(axis for axis in range(3) if axis != self.dim), self.dim]
        extents = [int(self.shape[axis]) for axis in order]
        cells[:, 1 + self.dim].clamp_(0, extents[2] - 1)
        places = _places(cells, order, extents, input.num_batches())
        channels = input.feats.shape[1]
        flat = input.feats.new_zeros(input.num_batches() * math.prod(extents), channels)
        dense = flat.index_add(0, places, input.feats)
        return dense.view(-1, *extents[:2], extents[2] * channels).permute(0, 3, 1, 2).contiguous()


def _axis(dim: int) -> int:
    """Return a spatial axis, checked."""
    if dim not in (0, 1, 2):
        raise ValueError(f"dim must be 0, 1 or 2, an axis of x, y, z, got {dim!r}")
    return int(dim)


@opaque
def _cells(input: SparseTensor, offset: torch.Tensor | None = None) -> torch.Tensor:
    """Return the batch and the cell of each site, (N, 4) int64, an offset of input cells taken off."""
    cells = indices_of(input.as_spcy().coords, input.feats.device).long()
    if offset is not None and offset.any():
        stride = cells.new_tensor(input.stride)
        cells[:, 1:] = torch.div(cells[:, 1:] * stride - offset[0, :3], stride, rounding_mode="floor")
    return cells


def _places(cells: torch.Tensor, axes: Sequence[int], extents: Sequence[int], batches: int) -> torch.Tensor:
    """Return the places of cells in a dense map of some axes."""
    _require_between(cells[:, 0], batches, "the batch of coords")
    places = cells[:, 0]
    for axis, extent in zip(axes, extents, strict=True):
        _require_between(cells[:, 1 + axis], extent, f"coords along axis {axis}")
        places = places * extent + cells[:, 1 + axis]
    return places


def _require_between(values: torch.Tensor, end: int, what: str) -> None:
    """Raise unless all values are in [0, end)."""
    outside = (values < 0) | (values >= end)
    if outside.any():
        row = int(outside.nonzero()[0])
        raise ValueError(f"{what} must be in [0, {end}) for this map, got {int(values[row])} in row {row}")


def _sums(feats: torch.Tensor, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the sums of features by cell, the cells in ascending order, and how many rows each had."""
    unique, rows, counts = torch.unique(cells, dim=0, return_inverse=True, return_counts=True)
    return feats.new_zeros(len(unique), feats.shape[1]).index_add(0, rows, feats), unique, counts


def _on_cells(input: Sparse, feats: torch.Tensor, cells: torch.Tensor, stride: tuple[int, ...]) -> Sparse:
    """Return a tensor on cells, their coordinates as the input's class has them."""
    coords = cells
    if input.batch_last:
        coords = torch.cat([cells[:, 1:] * cells.new_tensor(stride), cells[:, :1]], dim=1)
    return type(input)(feats, coords.int(), stride)
