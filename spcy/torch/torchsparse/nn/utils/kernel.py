"""Kernels as lists of offsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...maps import _stencil, centre_of
from ...utils.utils import make_ntuple

__all__ = ["get_kernel_offsets"]


def get_kernel_offsets(
    size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    device: Any = "cpu",
) -> torch.Tensor:
    """Return the offsets of a kernel, in the order of a weight's cells.

    Parameters
    ----------
    size, stride, dilation : int or sequence of 3 ints
    device : torch.device or str

    Returns
    -------
    torch.Tensor of shape (K, 3), int32
        x fastest where K is odd, else z.

    Examples
    --------
    >>> from spcy.torch.torchsparse.nn.utils import get_kernel_offsets
    >>> get_kernel_offsets((3, 1, 1), stride=2).tolist()
    [[-2, 0, 0], [0, 0, 0], [2, 0, 0]]
    """
    size = make_ntuple(size, 3, "size", 1)
    steps = make_ntuple(stride, 3, "stride", 1), make_ntuple(dilation, 3, "dilation", 1)
    step = tuple(s * d for s, d in zip(*steps, strict=True))
    offsets = _stencil(size, step).offsets - np.array(centre_of(size, step))
    return torch.tensor(offsets, dtype=torch.int32, device=device)
