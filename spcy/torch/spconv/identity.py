"""What does nothing."""

from typing import Any

from torch import nn


class Identity(nn.Module):
    """Returns what it gets."""

    def forward(self, input: Any) -> Any:
        """Return the input."""
        return input
