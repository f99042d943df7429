"""As much of ``spconv.pytorch.ops`` as public code calls."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..._stencil import box_stencil
from ...coords import Coords
from ...rulebook import Rulebook, generative, submanifold, windows
from .._bridge import check_tensor, on_device, tensor_of
from .core import ConvAlgo, Level, expand_nd, pair_counts, pairs_by_offset, shape_of

__all__ = ["ConvAlgo", "get_conv_output_size", "get_deconv_output_size", "get_indice_pairs"]


def get_conv_output_size(
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """Return the shape behind a convolution, an int for each axis."""
    each = zip(input_size, kernel_size, stride, padding, dilation, strict=True)
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in each]


def get_deconv_output_size(
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_padding: Sequence[int],
) -> list[int]:
    """Return the shape behind a transposed convolution, an int for each axis; the dilation is left out."""
    each = zip(input_size, kernel_size, stride, padding, output_padding, strict=True)
    return [(n - 1) * s - 2 * p + k + o for n, k, s, p, o in each]


def rulebook_of(
    coords: Coords,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_padding: Sequence[int],
    subm: bool,
    transposed: bool,
) -> tuple[Rulebook, Coords]:
    """Return the pairs of a layer, and its output sites."""
    kernel_size, stride, padding, dilation = map(tuple, (kernel_size, stride, padding, dilation))
    stencil = box_stencil(kernel_size, dilation, centred=subm)
    if subm:
        if any(k % 2 == 0 for k in kernel_size):
            raise ValueError(f"kernel_size must be odd in a submanifold convolution, got {kernel_size}")
        return submanifold(coords, stencil), coords
    if not transposed:
        return windows(coords, stencil, stride, padding)
    # spconv leaves the dilation out of the output's shape, and so what lies beyond:
    each = zip(output_padding, dilation, kernel_size, strict=True)
    return generative(coords, stencil, stride, padding, tuple(o - (d - 1) * (k - 1) for o, d, k in each))


def get_indice_pairs(
    indices: torch.Tensor,
    batch_size: int,
    spatial_shape: Sequence[int],
    algo: ConvAlgo = ConvAlgo.Native,
    ksize: int | Sequence[int] = 3,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    out_padding: int | Sequence[int] = 0,
    subm: bool = False,
    transpose: bool = False,
    num_out_act_bound: int = -1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the sites behind a convolution, and which rows meet under each kernel offset.

    Parameters
    ----------
    indices : torch.Tensor of shape (N, 1 + D), int32
    batch_size : int
    spatial_shape : sequence of D ints
    ksize, stride, padding, dilation, out_padding : int or sequence of D ints
    subm, transpose : bool
    algo, num_out_act_bound
        Accepted, without effect.

    Returns
    -------
    out_indices : torch.Tensor of shape (N_out, 1 + D), int32
        Ascending, those that came with `subm`.
    indice_pairs : torch.Tensor of shape (2, K, P), int32
        Rows of inputs and of outputs, filled up with -1.
    indice_pair_num : torch.Tensor of shape (K,), int32
        Number of pairs of each kernel offset.
    """
    check_tensor(indices, "indices")
    ndim = indices.shape[1] - 1
    geometry = (
        expand_nd(ndim, ksize, "ksize", 1),
        expand_nd(ndim, stride, "stride", 1),
        expand_nd(ndim, padding, "padding"),
        expand_nd(ndim, dilation, "dilation", 1),
        expand_nd(ndim, out_padding, "out_padding"),
    )
    level, shape = Level.of(indices), shape_of(spatial_shape, ndim)
    batch_size = expand_nd(1, batch_size, "batch_size", 1)[0]
    with on_device(indices.device):
        coords = level.coords(shape, batch_size)
        rulebook, coords = rulebook_of(coords, *geometry, subm, transpose)
        level = level if subm else Level(coords=coords)
        pairs, counts = pairs_by_offset(rulebook), pair_counts(rulebook)
        return level.indices(indices.device), tensor_of(pairs), tensor_of(counts)
