"""Convolutions by TorchSparse's rules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from ....._backend import array_module
from .....conv import Plan, plan_on
from .....coords import Coords, same_rows
from .....rulebook import Rulebook
from ...._bridge import check_tensor, on_device, opaque, tensor_of
from ....functional import convolve
from ....tensor import SparseTensor as SpcyTensor
from ...maps import Windows, generative_map, range_behind, same_sites_map, strided_map, windows_of
from ...tensor import Level, Sparse, SparseTensor, Step, get_allow_negative_coordinates
from ...utils.utils import Ints, make_ntuple
from .conv_config import DownsampleMode, KmapMode, complete, get_default_conv_config, get_global_conv_config

__all__ = ["build_kernel_map", "conv3d", "spdownsample"]

_ONES = (1, 1, 1)


@opaque
def conv3d(
    input: Sparse,
    weight: torch.Tensor,
    kernel_size: int | Sequence[int],
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    config: Mapping[str, Any] | None = None,
    transposed: bool = False,
    generative: bool = False,
    training: bool = False,
) -> Sparse:
    """Return a convolution of a sparse tensor.

    Parameters
    ----------
    input : SparseTensor
    weight : torch.Tensor of shape (K, C_in, C_out)
        Or (C_in, C_out) for a kernel of one cell.
    kernel_size : int or sequence of 3 ints
    bias : torch.Tensor of shape (C_out,), optional
    stride, padding, dilation : int or sequence of 3 ints
    config : dict, optional
    transposed, generative : bool
    training : bool
        Accepted, without effect.

    Returns
    -------
    SparseTensor
        See `torchsparse.nn.Conv3d`.
    """
    if not isinstance(input, SparseTensor):
        raise TypeError(f"input must be a SparseTensor, got {type(input).__name__}")
    kernel_size = make_ntuple(kernel_size, 3, "kernel_size", 1)
    stride = make_ntuple(stride, 3, "stride", 1)
    dilation = make_ntuple(dilation, 3, "dilation", 1)
    check_tensor(weight, "weight", input.feats)
    x, weight, bias = _one_dtype(input, weight, bias)
    cells = _cells_of(weight, kernel_size, x)
    if kernel_size == _ONES and stride == _ONES and not generative:
        return _pointwise(input, x, cells, bias)
    if not transposed:
        windows = _windows(input, kernel_size, stride, padding, dilation, config)
        return _forwards(input, x, cells, bias, windows)
    if generative:
        return _generated(input, x, cells, bias, kernel_size, stride, dilation)
    if stride == _ONES:  # the sites stay, and the map of a layer that is not transposed runs backwards
        windows = _windows(input, kernel_size, stride, padding, dilation, config)
        rulebook = same_sites_map(x.coords, windows).transposed()
        return input.with_feats(_run(x, rulebook, x.coords, cells, bias))
    return _backwards(input, x, cells, bias, (kernel_size, stride, dilation))


def _one_dtype(
    input: SparseTensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[SpcyTensor, torch.Tensor, torch.Tensor | None]:
    """Return tensor, weight and bias in one dtype: in float16 if any part is, as TorchSparse computes."""
    feats = input.feats
    if feats.dtype != weight.dtype and torch.float16 in (feats.dtype, weight.dtype):
        input = input.with_feats(feats.half())
        weight, bias = weight.half(), None if bias is None else bias.half()
    return input.as_spcy(), weight, bias


def _cells_of(weight: torch.Tensor, kernel_size: Ints, x: SpcyTensor) -> torch.Tensor:
    """Return a weight as a box has it, checked; the order of its cells is the rulebook's."""
    volume = math.prod(kernel_size)
    is_matrix = volume == 1 and weight.dim() == 2
    if not is_matrix and (weight.dim() != 3 or len(weight) != volume):
        raise ValueError(
            f"weight must have shape ({volume}, C_in, C_out) for kernel_size {kernel_size}, "
            f"got {tuple(weight.shape)}"
        )
    if weight.shape[-2] != x.num_channels:
        raise ValueError(f"input must have {weight.shape[-2]} channels, as the weight, got {x.num_channels}")
    return weight.view(*kernel_size, *weight.shape[-2:])


def _windows(
    input: SparseTensor,
    kernel_size: Ints,
    stride: Ints,
    padding: int | Sequence[int],
    dilation: Ints,
    config: Mapping[str, Any] | None,
) -> Windows:
    """Return where the windows of a layer lie that is not transposed."""
    padding = make_ntuple(padding, 3, "padding", 0)
    known = get_global_conv_config() or get_default_conv_config()
    config = known if config is None else complete(config)
    centred = input.batch_last or config.kmap_mode == "hashmap"
    floor = config.downsample_mode == "minkowski"
    return windows_of(kernel_size, stride, padding, dilation, centred, floor)


def _run(
    x: SpcyTensor, rulebook: Rulebook, coords: Coords, cells: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return the features that a kernel map gives."""
    return convolve(partial(_plan, rulebook, coords), x, cells, bias).features


def _plan(rulebook: Rulebook, coords: Coords, x: Any, weight: Any, bias: Any) -> Plan:
    return plan_on(x, rulebook, coords, weight, bias, 1)


def _pointwise(input: Sparse, x: SpcyTensor, cells: torch.Tensor, bias: torch.Tensor | None) -> Sparse:
    """Return a product of the features and a matrix: no sites are looked at."""
    return input.with_feats(torch.nn.functional.linear(x.features, cells[0, 0, 0].t(), bias))


def _forwards(
    input: Sparse, x: SpcyTensor, cells: torch.Tensor, bias: torch.Tensor | None, windows: Windows
) -> Sparse:
    """Return the output of a layer that is not transposed."""
    if windows.stride == _ONES:
        return input.with_feats(_run(x, same_sites_map(x.coords, windows), x.coords, cells, bias))
    clips = not get_allow_negative_coordinates()
    rulebook, coords = strided_map(x.coords, windows, input.spatial_range, clips)
    behind = None if input.spatial_range is None else range_behind(input.spatial_range, windows)
    made = tuple(a * b for a, b in zip(input.stride, windows.stride, strict=True))
    key = input.stride, windows.kernel_size, windows.stride, windows.dilation
    out = input.on_level(coords, made, behind, Step(input.level(), input.spatial_range, key))
    input._caches.kmaps[key] = out.level()
    return out.with_feats(_run(x, rulebook, coords, cells, bias))


def _backwards(
    input: Sparse,
    x: SpcyTensor,
    cells: torch.Tensor,
    bias: torch.Tensor | None,
    layer: tuple[Ints, Ints, Ints],
) -> Sparse:
    """Return the output of a transposed layer: on the sites that its input's were made from."""
    key = (_finer_stride(input, layer[1]), *layer)
    step, rulebook = _step_made_by(input, x.coords, key)
    feats = _run(x, rulebook.transposed(), step.level.coords(), cells, bias)
    out = input.with_feats(feats)
    out._stride, out.spatial_range = key[0], step.spatial_range
    out._given, out._level = None, step.level
    return out


def _finer_stride(input: SparseTensor, stride: Ints) -> Ints:
    """Return the tensor stride behind a transposed layer."""
    if any(a % b for a, b in zip(input.stride, stride, strict=True)):
        raise ValueError(
            f"input must have a stride that is a multiple of the transposed layer's, {stride}, "
            f"got {input.stride}"
        )
    return tuple(a // b for a, b in zip(input.stride, stride, strict=True))


def _step_made_by(input: SparseTensor, coords: Coords, key: tuple[Ints, ...]) -> tuple[Step, Rulebook]:
    """Return how the layer of a key made the level of a tensor, and the rulebook that it went along."""
    for level in (input.level(), input._caches.kmaps.get(key)):
        if not isinstance(level, Level) or level.step is None or level.step.key != key:
            continue
        sites = level.coords()
        step, child = level.step, sites._child  # None if the level's coordinates were written to since
        if step is not None and child is not None and same_rows(sites, coords):
            return step, child.rulebook
    made = sorted(
        {known[1:3] for known in input._caches.kmaps if isinstance(known, tuple) and len(known) == 4}
    )
    raise ValueError(
        f"a transposed layer goes back along the layer that made its input's sites: none with kernel_size "
        f"{key[1]}, stride {key[2]} and dilation {key[3]} made those of this input of stride {input.stride}; "
        f"its family has layers of (kernel_size, stride) {made}. Give it theirs, hand on _caches where a "
        f"tensor is made anew, or use generative=True, which makes sites"
    )


def _generated(
    input: Sparse,
    x: SpcyTensor,
    cells: torch.Tensor,
    bias: torch.Tensor | None,
    kernel_size: Ints,
    stride: Ints,
    dilation: Ints,
) -> Sparse:
    """Return the output of a generative layer, on all sites that an input reaches."""
    finer, ahead = _finer_stride(input, stride), None
    if input.spatial_range is not None:
        batches, *extents = input.spatial_range
        ahead = (batches, *(n * s for n, s in zip(extents, stride, strict=True)))
    clips = not get_allow_negative_coordinates()
    rulebook, coords = generative_map(x.coords, kernel_size, stride, dilation, input.spatial_range, clips)
    out = input.on_level(coords, finer, ahead)
    return out.with_feats(_run(x, rulebook, coords, cells, bias))


@opaque
def build_kernel_map(
    _coords: torch.Tensor,
    input_node_num: int | None = None,
    kernel_size: int | Sequence[int] = 2,
    stride: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    hashmap_keys: Any = None,
    hashmap_vals: Any = None,
    spatial_range: Sequence[int] | None = None,
    mode: KmapMode = "hashmap",
    dataflow: Any = None,
    downsample_mode: DownsampleMode = "spconv",
    **_: Any,
) -> dict[str, Any]:
    """Return the kernel map of a layer that is not transposed.

    Parameters
    ----------
    _coords : torch.Tensor of shape (N, 4), int32
        The batch, then x, y, z.
    kernel_size, stride, padding : int or sequence of 3 ints
    spatial_range : sequence of 4 ints, optional
    mode : {"hashmap", "hashmap_on_the_fly"}
    downsample_mode : {"spconv", "minkowski"}
        As in a layer's config.
    input_node_num, hashmap_keys, hashmap_vals, dataflow, and further keywords
        Accepted, without effect.

    Returns
    -------
    dict
        "coords" of the outputs; "out_in_map" (N_out, K) int32, the input row of each output row and kernel
        cell, -1 for none; "nbmaps" (P, 2), all pairs of an input row and an output row by kernel cell, and
        "nbsizes" (K,), how many each has; "sizes", (N, N_out); "spatial_range" of the outputs.
    """
    check_tensor(_coords, "_coords")
    input = SparseTensor(_coords.new_zeros(len(_coords), 1, dtype=torch.float32), _coords, 1, spatial_range)
    kernel_size = make_ntuple(kernel_size, 3, "kernel_size", 1)
    stride = make_ntuple(stride, 3, "stride", 1)
    config = {"kmap_mode": mode, "downsample_mode": downsample_mode}
    windows = _windows(input, kernel_size, stride, padding, _ONES, config)
    coords, behind = input.level().coords(), input.spatial_range
    if windows.stride == _ONES:
        rulebook, out, tensor = same_sites_map(coords, windows), coords, _coords
    else:
        rulebook, out = strided_map(coords, windows, behind, not get_allow_negative_coordinates())
        behind = None if behind is None else range_behind(behind, windows)
        tensor = Level.of(out, _ONES, False).tensor(_coords.device)
    with on_device(_coords.device):
        maps = {name: tensor_of(array) for name, array in _tables(rulebook).items()}
    return {**maps, "coords": tensor, "sizes": (len(coords), len(out)), "spatial_range": behind}


def _tables(rulebook: Rulebook) -> dict[str, Any]:
    """Return the pairs of a rulebook as TorchSparse lists them."""
    xp = array_module(rulebook.in_rows)
    table = xp.full((rulebook.num_out, rulebook.num_offsets), -1, np.int32)
    for k in range(rulebook.num_offsets):
        in_rows, out_rows = rulebook.pairs(k)
        table[out_rows, k] = in_rows
    return {
        "out_in_map": table,
        "nbmaps": xp.stack([rulebook.in_rows, rulebook.out_rows], axis=1),
        "nbsizes": xp.diff(rulebook.offset_ptr),
    }


def spdownsample(
    _coords: torch.Tensor,
    stride: int | Sequence[int] = 2,
    kernel_size: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    spatial_range: Sequence[int] | None = None,
    downsample_mode: DownsampleMode = "spconv",
) -> torch.Tensor:
    """Return the coordinates behind a strided layer.

    Parameters
    ----------
    _coords : torch.Tensor of shape (N, 4), int32
        The batch, then x, y, z.
    stride, kernel_size, padding : int or sequence of 3 ints
    spatial_range : sequence of 4 ints, optional
        That of the input.
    downsample_mode : {"spconv", "minkowski"}

    Returns
    -------
    torch.Tensor of shape (N_out, 4), int32
        Ascending.
    """
    made = build_kernel_map(
        _coords,
        None,
        kernel_size,
        stride,
        padding,
        spatial_range=spatial_range,
        mode="hashmap_on_the_fly",
        downsample_mode=downsample_mode,
    )
    return made["coords"]
