"""Gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.autograd import gradcheck as _gradcheck


def gradcheck(func: Any, inputs: Any, **kwargs: Any) -> bool:
    """Return whether the gradients of ``func.apply`` are right, as `torch.autograd.gradcheck` finds."""
    call: Callable[..., Any] = func.apply
    return _gradcheck(lambda *x: call(*x), inputs, **kwargs)
