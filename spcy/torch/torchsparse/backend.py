"""As much of ``torchsparse.backend`` as public code calls."""

from __future__ import annotations

from typing import Any

import torch

from .._bridge import array_of, check_tensor, entering, on_device, opaque, tensor_of
from .nn.functional.query import sphashquery
from .nn.utils.kernel import get_kernel_offsets
from .tensor import Level
from .utils.utils import make_ntuple

__all__ = ["GPUHashTable"]


class GPUHashTable:
    """Rows of coordinates, or of numbers, on any device.

    Parameters
    ----------
    hashmap_keys, hashmap_vals : optional
        Accepted, without effect: the table is spcy's.
    """

    def __init__(self, hashmap_keys: Any = None, hashmap_vals: Any = None):
        self._level: Level | None = None
        self._keys: torch.Tensor | None = None

    def insert_coords(self, coords: torch.Tensor) -> None:
        """Set the coordinates, (N, 4): x, y, z, batch; no two may be equal."""
        check_tensor(coords, "coords")
        self._level = Level((1, 1, 1), True, coords)

    @opaque
    def lookup_coords(
        self, coords: torch.Tensor, kernel_sizes: Any, tensor_strides: Any, kernel_volume: int | None = None
    ) -> torch.Tensor:
        """Return the rows of the cells of windows.

        Parameters
        ----------
        coords : torch.Tensor of shape (M, 4), int32
            x, y, z, batch of the windows: cell r is ``c * stride + r - (kernel_size - 1) // 2``.
        kernel_sizes, tensor_strides : 3 ints
        kernel_volume : int, optional
            K.

        Returns
        -------
        torch.Tensor of shape (M, K), int32
            A row + 1, 0 for none.
        """
        if self._level is None:
            raise RuntimeError("insert_coords must come before lookup_coords")
        check_tensor(coords, "coords")
        offsets = get_kernel_offsets(make_ntuple(kernel_sizes, 3), device=coords.device)
        stride = coords.new_tensor(make_ntuple(tensor_strides, 3))
        cells = (coords[:, :3] * stride)[:, None] + offsets
        batch = coords[:, None, 3:].expand(-1, len(offsets), -1)
        queries = torch.cat([batch, cells], dim=-1).reshape(-1, 4).int()
        with entering(coords.device), on_device(coords.device):
            rows = tensor_of(self._level.coords().rows_of(array_of(queries)))
        return rows.view(len(coords), len(offsets)) + 1

    def insert_vals(self, keys: torch.Tensor) -> None:
        """Set the numbers, (N,) int64."""
        self._keys = keys

    def lookup_vals(self, keys: torch.Tensor) -> torch.Tensor:
        """Return the row + 1 of each number, 0 for none."""
        if self._keys is None:
            raise RuntimeError("insert_vals must come before lookup_vals")
        return sphashquery(keys, self._keys).int() + 1
