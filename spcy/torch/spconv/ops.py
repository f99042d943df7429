"""As much of ``spconv.pytorch.ops`` as public code calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .._bridge import first_row, on_device
from . import functional
from .core import ConvAlgo, Level, check_indices, expand_nd, shape_of
from .pairs import pairs_by_offset, rulebook_of
from .tensorview import Activation

__all__ = [
    "ConvAlgo",
    "get_conv_output_size",
    "get_deconv_output_size",
    "get_indice_pairs",
    "global_pool_rearrange",
    "indice_conv",
    "indice_maxpool",
    "maximum_value_int_",
]


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
    check_indices(indices, "indices")
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
        rulebook, out_coords = rulebook_of(coords, *geometry, subm, transpose)
        level = level if subm else Level(coords=out_coords)
        return level.indices(indices.device), *pairs_by_offset(coords, rulebook, out_coords)


def indice_conv(
    features: torch.Tensor,
    filters: torch.Tensor,
    indice_pairs: torch.Tensor,
    indice_pair_num: torch.Tensor,
    num_activate_out: int,
    inverse: bool = False,
    subm: bool = False,
    algo: ConvAlgo = ConvAlgo.Native,
    timer: Any = None,
    bias: torch.Tensor | None = None,
    act_alpha: float = 0.0,
    act_beta: float = 0.0,
    act_type: Activation = Activation.None_,
) -> torch.Tensor:
    """Return what `functional.indice_conv` does, or with `inverse` `functional.indice_inverse_conv`."""
    run = functional.indice_inverse_conv if inverse else functional.indice_conv
    pairs = indice_pairs, indice_pair_num, num_activate_out
    return run(features, filters, *pairs, algo, timer, bias, act_alpha, act_beta, act_type)


indice_maxpool = functional.indice_maxpool


def global_pool_rearrange(coords: torch.Tensor, batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of each batch.

    Parameters
    ----------
    coords : torch.Tensor of shape (N, 1 + D), int32
        The batch is in column 0.
    batch_size : int

    Returns
    -------
    rows : torch.Tensor of shape (batch_size, N), int32
        In their order; -1 behind them.
    counts : torch.Tensor of shape (batch_size,), int32
        How many each batch has.

    Raises
    ------
    ValueError
        If a batch index is not in ``[0, batch_size)``; the message names the row.
    """
    check_indices(coords, "coords")
    batch_size = expand_nd(1, batch_size, "batch_size", 1)[0]
    batch, num = coords[:, 0].long(), len(coords)
    row = first_row((batch < 0) | (batch >= batch_size))
    if row is not None:
        raise ValueError(
            f"coords must have a batch index in [0, {batch_size}), got {int(batch[row])} in row {row}"
        )
    counts = torch.bincount(batch, minlength=batch_size)
    order = torch.sort(batch, stable=True).indices
    places = torch.arange(num, device=batch.device) - (counts.cumsum(0) - counts)[batch[order]]
    rows = torch.full((batch_size, num), -1, dtype=torch.int32, device=batch.device)
    rows[batch[order], places] = order.int()
    return rows, counts.int()


def maximum_value_int_(ten: torch.Tensor, value: int) -> None:
    """Raise the numbers of a tensor to at least `value`, in place."""
    ten.clamp_(min=value)
