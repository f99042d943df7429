"""What does nothing."""

from torch import nn


class Identity(nn.Module):
    """Returns what it gets."""

    def forward(self, input):
        """Return the input."""
        return input
