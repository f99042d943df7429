"""Sums over the union of sites, and layers over pairs of rows, for code that has layers of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ... import _check, pool
from ...coords import Coords, same_grid
from .. import functional
from .._bridge import check_tensor, entering, opaque, tensor_of
from ..tensor import FLOATS, SparseTensor
from .core import ConvAlgo, Level, SparseConvTensor, require_sparse
from .pairs import check_pairs, known_pairs, rows_by_offset
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
    activation, pairs = _activation(act_type, act_alpha), (indice_pairs, indice_pair_num, num_activate_out)
    return activation(convolve_pairs(features, filters, *pairs, False, bias))


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
    activation, pairs = _activation(act_type, act_alpha), (indice_pairs, indice_pair_num, num_activate_out)
    return activation(convolve_pairs(features, filters, *pairs, True, bias))


indice_subm_conv = indice_conv


@opaque
def indice_maxpool(
    features: torch.Tensor, indice_pairs: torch.Tensor, indice_pair_num: torch.Tensor, num_activate_out: int
) -> torch.Tensor:
    """Return the greatest feature of each output's inputs and 0, by pairs as `indice_conv` takes them.

    Of equal ones that of the first pair gets the gradient, and of zeros none.
    """
    num_out = _check_pairs_of(features, indice_pairs, indice_pair_num, num_activate_out)
    known = known_pairs(indice_pairs, indice_pair_num)
    if known is not None and (known.rulebook.num_in, known.rulebook.num_out) == (len(features), num_out):
        rulebook, coords, out_coords, *_ = known
        return torch.relu(functional.pool_on(features, rulebook, coords, out_coords, pool.MAX))
    each = [*rows_by_offset(indice_pairs, indice_pair_num, len(features), num_out)]
    in_rows = torch.cat([rows for rows, _ in each])
    out_rows = torch.cat([rows for _, rows in each])[:, None].expand(-1, features.shape[1])
    with torch.no_grad():
        values = features[in_rows]
        most = features.new_zeros(num_out, features.shape[1]).scatter_reduce(0, out_rows, values, "amax")
        there = most.gather(0, out_rows)
        wins = (values == there) | (values.isnan() & there.isnan())
        places = torch.arange(len(in_rows), device=features.device)[:, None].expand_as(wins)
        places = places.where(wins, len(in_rows))
        first = torch.full_like(most, len(in_rows), dtype=torch.int64).scatter_reduce(
            0, out_rows, places, "amin"
        )
        positive = ~(most <= 0)  # or no number
        rows = torch.cat([in_rows, in_rows.new_zeros(1)])[first]
    return features.gather(0, rows).where(positive, features.new_zeros(())) if len(features) else most


def convolve_pairs(
    features: torch.Tensor,
    filters: torch.Tensor,
    indice_pairs: torch.Tensor,
    indice_pair_num: torch.Tensor,
    num_activate_out: int,
    inverse: bool,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the features of a convolution over pairs, there or back."""
    num_out = _check_pairs_of(features, indice_pairs, indice_pair_num, num_activate_out)
    check_tensor(filters, "filters", features)
    if bias is not None:
        check_tensor(bias, "bias", features)
        if bias.shape != filters.shape[:1]:
            raise ValueError(f"bias must have shape ({filters.shape[0]},), got {tuple(bias.shape)}")
    autocast = torch.is_autocast_enabled(features.device.type)
    if not autocast and not features.dtype == filters.dtype == (features if bias is None else bias).dtype:
        given = [t.dtype for t in (features, filters, bias) if t is not None]
        raise TypeError(f"filters and bias must have the dtype of features, got {', '.join(map(str, given))}")
    num_offsets, c_in = len(indice_pair_num), features.shape[1]
    if (
        filters.dim() < 2
        or not filters.numel()
        or filters.shape[-1] != c_in
        or filters.numel() != filters.shape[0] * num_offsets * c_in
    ):
        raise ValueError(
            f"filters must have shape (C_out, kernel cells, C_in) with {num_offsets} cells, as indice_pairs, "
            f"and {c_in} input channels, as features, got {tuple(filters.shape)}"
        )
    weight = filters.reshape(filters.shape[0], num_offsets, -1).permute(1, 2, 0)
    known = known_pairs(indice_pairs, indice_pair_num)
    if known is not None:
        rulebook, coords, out_coords, *_ = known
        if inverse:
            rulebook, coords, out_coords = rulebook.transposed(), out_coords, coords
        if (rulebook.num_in, rulebook.num_out) == (len(features), num_out):
            return functional.convolve_on(features, rulebook, coords, out_coords, weight, bias)
    if autocast:
        features, weight, bias = functional.autocast(features, weight, bias)
    with torch.autocast(features.device.type, enabled=False):
        return _convolve_others(features, weight, indice_pairs, indice_pair_num, num_out, inverse, bias)


def _convolve_others(
    features: torch.Tensor,
    weight: torch.Tensor,
    indice_pairs: torch.Tensor,
    indice_pair_num: torch.Tensor,
    num_out: int,
    inverse: bool,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """Return the features of a convolution over any pairs, offset by offset; 16 bits are summed as 32."""
    wide = torch.promote_types(features.dtype, torch.float32)
    x, weight = features.to(wide), weight.to(wide)
    out = x.new_zeros(num_out, weight.shape[2])
    sides = (num_out, len(x)) if inverse else (len(x), num_out)
    for k, (in_rows, out_rows) in enumerate(rows_by_offset(indice_pairs, indice_pair_num, *sides)):
        if inverse:
            in_rows, out_rows = out_rows, in_rows
        out.index_add_(0, out_rows, x[in_rows] @ weight[k])
    return (out if bias is None else out + bias.to(wide)).to(features.dtype)


def _activation(kind: Any, slope: float) -> Callable[[torch.Tensor], torch.Tensor]:
    functions: dict[Any, Callable[[torch.Tensor], torch.Tensor]] = {
        Activation.None_: lambda x: x,
        Activation.ReLU: torch.relu,
        Activation.Sigmoid: torch.sigmoid,
        Activation.LeakyReLU: lambda x: torch.nn.functional.leaky_relu(x, slope),
    }
    if kind not in functions:
        raise ValueError(f"act_type must be one of {', '.join(map(str, functions))}, got {kind!r}")
    return functions[kind]


def _check_pairs_of(features: Any, pairs: Any, counts: Any, num_out: Any) -> int:
    """Raise unless features, pairs and numbers of pairs fit each other; return the number of outputs."""
    check_tensor(features, "features")
    if features.dim() != 2 or not features.shape[1]:
        raise ValueError(f"features must have shape (N, C) with C >= 1, got {tuple(features.shape)}")
    if features.dtype not in FLOATS:
        raise TypeError(
            f"features must have dtype float32, float64, float16 or bfloat16, got {features.dtype}"
        )
    check_pairs(pairs, counts, features)
    num_out = _check.integer(num_out, "num_activate_out")
    if num_out < 0:
        raise ValueError(f"num_activate_out must be at least 0, got {num_out}")
    return num_out
