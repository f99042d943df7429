"""What the tensors of a family share."""

from __future__ import annotations

import enum
from typing import Any

__all__ = ["TensorCache", "TensorCacheMode"]


class TensorCacheMode(enum.Enum):
    """Modes of TorchSparse's caches: accepted, without effect.

    spcy's kernel maps belong to the sites that they are of, and go with them.
    """

    SEPARATE_TENSOR_CACHE = 0
    GLOBAL_TENSOR_CACHE = 1


class TensorCache:
    """What a tensor hands on to those that layers make from it; code may keep things of its own there.

    Attributes
    ----------
    kmaps : dict
        The levels that strided layers made, by (tensor stride, kernel_size, stride, dilation).
    cmaps, hashmaps : dict
        Empty: spcy needs none.
    """

    def __init__(self) -> None:
        self.cmaps: dict[Any, Any] = {}
        self.kmaps: dict[Any, Any] = {}
        self.hashmaps: dict[Any, Any] = {}


def get_tensor_cache_mode() -> TensorCacheMode:
    """Return the one mode that there is."""
    return TensorCacheMode.SEPARATE_TENSOR_CACHE


def set_tensor_cache_mode(mode: TensorCacheMode) -> None:
    """Do nothing."""
    if not isinstance(mode, TensorCacheMode):
        raise TypeError(f"mode must be a TensorCacheMode, got {mode!r}")


def get_global_tensor_cache() -> None:
    """Return None: there is no global cache."""


def set_global_tensor_cache(tensor_cache: TensorCache | None) -> None:
    """Do nothing."""


def clear_global_tensor_cache() -> None:
    """Do nothing."""
