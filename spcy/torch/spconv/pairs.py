"""Pairs of rows by kernel offset as tensors, and what they were made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.weak import WeakIdKeyDictionary

from ..._backend import array_module
from ..._stencil import box_stencil
from ...coords import Coords
from ...rulebook import Rulebook, generative, submanifold, windows
from .._bridge import array_of, check_tensor, first_row, tensor_of


class KnownPairs(NamedTuple):
    """What a tensor of pairs was made from, as long as nobody writes to it."""

    rulebook: Rulebook
    coords: Coords
    out_coords: Coords
    counts: torch.Tensor
    version: int | None


_KNOWN = WeakIdKeyDictionary()  # no attribute, which would be saved with the tensor


def version_of(value: torch.Tensor) -> int | None:
    """Return how many writes PyTorch has counted, None where it counts none."""
    return None if value.is_inference() else value._version


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


def pairs_by_offset(
    coords: Coords, rulebook: Rulebook, out_coords: Coords
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (2, K, P) rows of inputs and outputs, filled up with -1, and how many each offset has.

    Of the first tensor it is known what it was made from, so that convolutions over it build nothing.
    """
    xp = array_module(rulebook.in_rows)
    width = max(rulebook.num_in, rulebook.num_out)
    pairs = xp.full((2, rulebook.num_offsets, width), -1, np.int32)
    for k in range(rulebook.num_offsets):
        in_rows, out_rows = rulebook.pairs(k)
        pairs[0, k, : len(in_rows)], pairs[1, k, : len(in_rows)] = in_rows, out_rows
    made = tensor_of(pairs)
    counts = tensor_of((rulebook.offset_ptr[1:] - rulebook.offset_ptr[:-1]).astype(np.int32))
    _KNOWN[made] = KnownPairs(rulebook, coords, out_coords, counts.clone(), version_of(made))
    return made, counts


def known_pairs(pairs: torch.Tensor, counts: torch.Tensor) -> KnownPairs | None:
    """Return what pairs were made from, None if they are others or have been written to.

    On a CPU they are looked at, since PyTorch does not count all writes; on a GPU its count is what there is.
    """
    known = _KNOWN.get(pairs)
    if known is None or not torch.equal(counts, known.counts):
        return None
    if not pairs.is_cpu:
        return known if known.version is not None and known.version == version_of(pairs) else None
    array, rulebook = array_of(pairs), known.rulebook
    if array.shape != (2, rulebook.num_offsets, max(rulebook.num_in, rulebook.num_out)):
        return None
    for k in range(rulebook.num_offsets):
        for own, rows in zip(array[:, k], rulebook.pairs(k), strict=True):
            if (own[: len(rows)] != rows).any():
                return None
    return known


def check_pairs(pairs: Any, counts: Any, beside: torch.Tensor | None = None) -> None:
    """Raise unless pairs and their numbers are tensors that fit each other."""
    check_tensor(pairs, "indice_pairs", beside)
    check_tensor(counts, "indice_pair_num")
    for value, name in ((pairs, "indice_pairs"), (counts, "indice_pair_num")):
        if value.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"{name} must have dtype torch.int32, got {value.dtype}")
    if pairs.dim() != 3 or pairs.shape[0] != 2:
        raise ValueError(f"indice_pairs must have shape (2, K, P), got {tuple(pairs.shape)}")
    if counts.shape != pairs.shape[1:2]:
        raise ValueError(
            f"indice_pair_num must have shape ({pairs.shape[1]},), as indice_pairs, got {tuple(counts.shape)}"
        )
    k = first_row((counts < 0) | (counts > pairs.shape[2]))
    if k is not None:
        raise ValueError(
            f"indice_pair_num must be in [0, {pairs.shape[2]}], as indice_pairs has room, "
            f"got {int(counts[k])} of offset {k}"
        )


def rows_by_offset(
    pairs: torch.Tensor, counts: torch.Tensor, num_in: int, num_out: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the input rows and the output rows of each offset, checked, int64."""
    for k, (both, count) in enumerate(zip(pairs.long().unbind(1), counts.tolist(), strict=True)):
        in_rows, out_rows = both[:, :count]
        for side, num, name in ((in_rows, num_in, "inputs"), (out_rows, num_out, "outputs")):
            place = first_row((side < 0) | (side >= num))
            if place is not None:
                raise ValueError(
                    f"indice_pairs must have rows of {name} in [0, {num}) where indice_pair_num counts them, "
                    f"got {int(side[place])} in pair {place} of offset {k}"
                )
        yield in_rows, out_rows
