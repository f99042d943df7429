"""The base class of networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch.nn import Module


class MinkowskiNetwork(Module, ABC):
    """A network, which knows its number of spatial axes.

    Parameters
    ----------
    D : int
    """

    def __init__(self, D: int):
        super().__init__()
        self.D = D

    @abstractmethod
    def forward(self, x: Any) -> Any:
        """Return the network's output."""
