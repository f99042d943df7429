"""What ``spconv.tools`` and ``spconv.debug_utils`` offer layers of other code: names without effect."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

__all__ = ["CUDAKernelTimer", "spconv_save_debug_data"]


class CUDAKernelTimer:
    """A timer that measures nothing: PyTorch's profiler sees each layer.

    Parameters
    ----------
    enable : bool
        Accepted, without effect.
    """

    def __init__(self, enable: bool = True):
        self.enable = False

    def namespace(self, name: str) -> AbstractContextManager[None]:
        """Return a context that does nothing."""
        return nullcontext()

    def record(self, name: str, stream: int = 0) -> AbstractContextManager[None]:
        """Return a context that does nothing."""
        return nullcontext()

    def get_all_pair_time(self) -> dict[str, float]:
        """Return no times."""
        return {}


def spconv_save_debug_data(data: Any) -> None:
    """Do nothing: spconv saves only where its environment names a folder."""
