"""The tuner, which has nothing to tune."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["tune"]


def tune(model: nn.Module, data_loader: Any = None, *args: Any, **kwargs: Any) -> None:
    """Do nothing: there is one way that layers are computed, and it needs no choice."""
