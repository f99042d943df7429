"""Sums over the union of sites, and layers over pairs of rows, for code that has layers of its own."""

from __future__ import annotations

from typing import Any

import torch

from ... import _check, pool
from ...coords import Coords, same_grid
from .. import functional
from .._bridge import check_tensor, entering, opaque, tensor_of
from ..tensor import SparseTensor
from .core import ConvAlgo, Level, SparseConvTensor, known_pairs, require_sparse
from .tensorview import Activation


@opaque
def sparse_add(*tens: SparseConvTensor) -> SparseConvTensor:
    """Return the sum of tensors over the union of their sites.

    Parameters
    ----------
    *tens : SparseConvTensor
        Of one grid and one number of channels.

    Returns
    -------
    SparseConvTensor
        On the sites of the first of them that has all, with its rows and `indice_dict`; else ascending, and
        no inverse convolution goes back from there.

    Raises
    ------
    ValueError
        If the grids or the numbers of channels differ.
    """
    if not tens:
        raise TypeError("tens must be at least one SparseConvTensor")
    for place, x in enumerate(tens):
        require_sparse(x, f"tens[{place}]")
    total, *others = [x.as_spcy() for x in tens]
    for other in others:
        if not same_grid(total.coords, other.coords):  # a level that was made, and one of a user's indices
            total, other = _of_indices(total), _of_indices(other)
        total = functional.add(total, other)
    for each in tens:
        if len(each.features) == total.num_sites:
            rows = total.coords.rows_of(each.coords.indices)
            features = total.features
            if total.coords is not each.coords:
                features = features[tensor_of(rows).long()]
            return each.with_features(features)
    out = tens[0].with_features(total.features)
    out._level, out.indice_dict = Level(coords=total.coords), {}
    return out


sparse_add_hash_based = sparse_add


def _of_indices(x: SparseTensor) -> SparseTensor:
    """Return a tensor that knows of no place in space."""
    with entering(x.features.device):
        return SparseTensor._of(Coords(x.coords.indices, x.coords.shape, x.coords.batch_size), x.features)


@opaque
def indice_conv(
    features: torch.Tensor,
    filters: torch.Tensor,
    indice_pairs: torch.Tensor,
    indice_pair_num: torch.Tensor,
    num_activate_out: int,
    algo: ConvAlgo = ConvAlgo.Native,
    timer: Any = None,
    bias: torch.Tensor | None = None,
    act_alpha: float = 0.0,
    act_beta: float = 0.0,
    act_type: Activation = Activation.None_,
) -> torch.Tensor:
    """Return the features of a convolution over pairs of rows, with autograd.

    Pairs that `ops.get_indice_pairs` or an `indice_dict` gave run on spcy's kernels, others, or those that
    have been written to, offset by offset on PyTorch's.

    Parameters
    ----------
    features : torch.Tensor of shape (N, C_in)
    filters : torch.Tensor of shape (C_out, ..., C_in)
        As layers have their weight.
    indice_pairs : torch.Tensor of shape (2, K, P), int32
        For each kernel offset the rows of inputs and of outputs.
    indice_pair_num : torch.Tensor of shape (K,), int32
        How many of them count.
    num_activate_out : int
        Number of output rows.
    bias : torch.Tensor of shape (C_out,), optional
    act_type : Activation
        What follows; `act_alpha` is the slope of a leaky ReLU.
    algo, timer, act_beta
        Accepted, without effect.

    Returns
    -------
    torch.Tensor of shape (num_activate_out, C_out)

    Raises
    ------
    TypeError, ValueError
        If arguments are not as above.
    """
    pairs = indice_pairs, indice_pair_num, num_activate_out
    return _convolve(features, filters, *pairs, False, bias, act_type, act_alpha)


@opaque
def indice_inverse_conv(
    features: torch.Tensor,
    filters: torch.Tensor,
    indice_pairs: torch.Tensor,
    indice_pair_num: torch.Tensor,
    num_activate_out: int,
    algo: ConvAlgo = ConvAlgo.Native,
    timer: Any = None,
    bias: torch.Tensor | None = None,
    act_alpha: float = 0.0,
    act_beta: float = 0.0,
    act_type: Activation = Activation.None_,
) -> torch.Tensor:
    """Return what `indice_conv` does from outputs to inputs: its pairs are those of the way there."""
    pairs = indice_pairs, indice_pair_num, num_activate_out
    return _convolve(features, filters, *pairs, True, bias, act_type, act_alpha)


indice_subm_conv = indice_conv


@opaque
def indice_maxpool(
    features: torch.Tensor, indice_pairs: torch.Tensor, indice_pair_num: torch.Tensor, num_activate_out: int
) -> torch.Tensor:
    """Return the greatest feature of each output's inputs and 0, by pairs as `indice_conv` takes them."""
    num_out = _check_pairs(features, indice_pairs, indice_pair_num, num_activate_out)
    known = known_pairs(indice_pairs, indice_pair_num)
    if known is not None and (known.rulebook.num_in, known.rulebook.num_out) == (len(features), num_out):
        rulebook, coords, out_coords, *_ = known
        return torch.relu(functional.pool_on(features, rulebook, coords, out_coords, pool.MAX))
    out = features.new_zeros(num_out, features.shape[1])
    for in_rows, out_rows in _rows_by_offset(indice_pairs, indice_pair_num, len(features), num_out):
        rows = out_rows[:, None].expand(-1, features.shape[1])
        out = out.scatter_reduce(0, rows, features[in_rows], "amax")
    return out


def _convolve(
    features: torch.Tensor,
    filters: torch.Tensor,
    indice_pairs: torch.Tensor,
    indice_pair_num: torch.Tensor,
    num_activate_out: int,
    inverse: bool,
    bias: torch.Tensor | None,
    act_type: Activation,
    act_alpha: float,
) -> torch.Tensor:
    """Return the features of a convolution over pairs, there or back."""
    num_out = _check_pairs(features, indice_pairs, indice_pair_num, num_activate_out)
    check_tensor(filters, "filters", features)
    num_offsets = len(indice_pair_num)
    size = filters.numel() // max(filters.shape[0] * filters.shape[-1], 1) if filters.dim() > 1 else 0
    if filters.dim() < 2 or filters.shape[-1] != features.shape[1] or size != num_offsets:
        raise ValueError(
            f"filters must have shape (C_out, kernel cells, C_in) with {num_offsets} cells, as indice_pairs, "
            f"and {features.shape[1]} input channels, as features, got {tuple(filters.shape)}"
        )
    weight = filters.reshape(filters.shape[0], num_offsets, -1).permute(1, 2, 0)
    known = known_pairs(indice_pairs, indice_pair_num)
    if known is not None:
        rulebook, coords, out_coords, *_ = known
        if inverse:
            rulebook, coords, out_coords = rulebook.transposed(), out_coords, coords
        if (rulebook.num_in, rulebook.num_out) != (len(features), num_out):
            known = None
    if known is not None:
        out = functional.convolve_on(features, rulebook, coords, out_coords, weight)
    else:
        out = features.new_zeros(num_out, filters.shape[0])
        sides = (num_out, len(features)) if inverse else (len(features), num_out)
        for k, rows in enumerate(_rows_by_offset(indice_pairs, indice_pair_num, *sides)):
            in_rows, out_rows = reversed(rows) if inverse else rows
            out = out.index_add(0, out_rows, features[in_rows] @ weight[k])
    out = out if bias is None else out + bias
    return _activations(act_alpha)[act_type](out)


def _activations(slope: float) -> dict[Activation, Any]:
    return {
        Activation.None_: lambda x: x,
        Activation.ReLU: torch.relu,
        Activation.Sigmoid: torch.sigmoid,
        Activation.LeakyReLU: lambda x: torch.nn.functional.leaky_relu(x, slope),
    }


def _rows_by_offset(pairs: torch.Tensor, counts: torch.Tensor, num_in: int, num_out: int) -> Any:
    """Yield the input rows and the output rows of each offset, checked."""
    for k, (both, count) in enumerate(zip(pairs.long().unbind(1), counts.tolist(), strict=True)):
        rows = both[:, :count]
        for side, num, name in zip(rows, (num_in, num_out), ("inputs", "outputs"), strict=True):
            wrong = (side < 0) | (side >= num)
            if wrong.any():
                place = int(wrong.int().argmax())
                raise ValueError(
                    f"indice_pairs must have rows of {name} in [0, {num}) where indice_pair_num counts them, "
                    f"got {int(side[place])} in pair {place} of offset {k}"
                )
        yield tuple(rows)


def _check_pairs(features: Any, pairs: Any, counts: Any, num_out: Any) -> int:
    """Raise unless features, pairs and numbers of pairs fit each other; return the number of outputs."""
    check_tensor(features, "features")
    check_tensor(pairs, "indice_pairs")
    check_tensor(counts, "indice_pair_num")
    if features.dim() != 2:
        raise ValueError(f"features must have shape (N, C), got {tuple(features.shape)}")
    if pairs.dim() != 3 or pairs.shape[0] != 2:
        raise ValueError(f"indice_pairs must have shape (2, K, P), got {tuple(pairs.shape)}")
    if counts.shape != pairs.shape[1:2]:
        raise ValueError(
            f"indice_pair_num must have shape ({pairs.shape[1]},), as indice_pairs, got {tuple(counts.shape)}"
        )
    return _check.integer(num_out, "num_activate_out")
