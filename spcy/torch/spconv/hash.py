"""The hash table of ``spconv.pytorch.hash``: keys and values as tensors."""

from __future__ import annotations

import torch

from ... import _check
from .._bridge import check_tensor

__all__ = ["HashTable"]


class HashTable:
    """A table of integers and what they stand for, on any device.

    Parameters
    ----------
    device : torch.device
    key_dtype : torch.int32 or torch.int64
    value_dtype : torch.int32, torch.int64, torch.float32 or torch.float64
    max_size : int
        Accepted, without effect: the table grows.

    Examples
    --------
    >>> import torch
    >>> from spcy.torch.spconv.hash import HashTable
    >>> table = HashTable(torch.device("cpu"), torch.int64, torch.int32)
    >>> table.insert(torch.tensor([7, 3]), torch.tensor([70, 30], dtype=torch.int32))
    >>> table.query(torch.tensor([3, 4]))
    (tensor([30,  0], dtype=torch.int32), tensor([False,  True]))
    """

    def __init__(
        self,
        device: torch.device,
        key_dtype: torch.dtype,
        value_dtype: torch.dtype,
        max_size: int = -1,
    ):
        integers = (torch.int32, torch.int64)
        _one_of(key_dtype, integers, "key_dtype")
        _one_of(value_dtype, (*integers, torch.float32, torch.float64), "value_dtype")
        self._keys = torch.empty(0, dtype=key_dtype, device=device)  # ascending
        self._values = torch.empty(0, dtype=value_dtype, device=device)

    def insert(self, keys: torch.Tensor, values: torch.Tensor | None = None) -> None:
        """Insert keys, or change what they stand for: the last of equal ones counts.

        Parameters
        ----------
        keys : torch.Tensor of shape (N,), of the key dtype
        values : torch.Tensor of shape (N,), of the value dtype
            0 if left out.
        """
        self._check_keys(keys)
        if values is None:
            values = self._values.new_zeros(len(keys))
        self._check_values(values, keys)
        keys, order = torch.sort(torch.cat([self._keys, keys]), stable=True)
        is_last = torch.ones_like(keys, dtype=torch.bool)
        is_last[:-1] = keys[1:] != keys[:-1]
        self._values = torch.cat([self._values, values])[order[is_last]]
        self._keys = keys[is_last]

    def query(
        self, keys: torch.Tensor, values: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what keys stand for, 0 for those that are not there, and which are not there.

        Parameters
        ----------
        keys : torch.Tensor of shape (N,), of the key dtype
        values : torch.Tensor of shape (N,), optional
            What to write to; where a key is not there, nothing is written.

        Returns
        -------
        values : torch.Tensor of shape (N,)
        is_empty : torch.Tensor of shape (N,), bool
        """
        places, there = self._find(keys)
        if values is None:
            values = self._values.new_zeros(len(keys))
        self._check_values(values, keys)
        values[there] = self._values[places[there]]
        return values, ~there

    def insert_exist_keys(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Change what keys stand for that are there; return which are not there, uint8."""
        places, there = self._find(keys)
        self._check_values(values, keys)
        self._values[places[there]] = values[there]
        return (~there).to(torch.uint8)

    def assign_arange_(self) -> torch.Tensor:
        """Give keys their numbers from 0 as values; return how many there are, as a tensor of one."""
        self._values = torch.arange(len(self._keys), dtype=self._values.dtype, device=self._values.device)
        return self._count()

    def items(self, max_size: int = -1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the keys, ascending, what they stand for, and how many there are, as a tensor of one.

        At most `max_size` of them, unless that is -1.
        """
        end = len(self._keys) if max_size == -1 else _check.integer(max_size, "max_size")
        if end < 0:
            raise ValueError(f"max_size must be at least 0, or -1 for all, got {max_size}")
        return self._keys[:end].clone(), self._values[:end].clone(), self._count()

    def _count(self) -> torch.Tensor:
        return torch.tensor([len(self._keys)], device=self._keys.device)

    def _find(self, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where keys are in the table, and which are there."""
        self._check_keys(keys)
        if not len(self._keys):
            return torch.zeros_like(keys, dtype=torch.int64), torch.zeros_like(keys, dtype=torch.bool)
        places = torch.searchsorted(self._keys, keys).clamp_(max=len(self._keys) - 1)
        return places, self._keys[places] == keys

    def _check_keys(self, keys: torch.Tensor) -> None:
        check_tensor(keys, "keys", self._keys)
        if keys.dim() != 1 or keys.dtype != self._keys.dtype:
            raise ValueError(
                f"keys must have shape (N,) and dtype {self._keys.dtype}, "
                f"got {tuple(keys.shape)} and {keys.dtype}"
            )

    def _check_values(self, values: torch.Tensor, keys: torch.Tensor) -> None:
        check_tensor(values, "values", self._values)
        if values.shape != keys.shape or values.dtype != self._values.dtype:
            raise ValueError(
                f"values must have shape {tuple(keys.shape)}, as keys, and dtype {self._values.dtype}, "
                f"got {tuple(values.shape)} and {values.dtype}"
            )


def _one_of(dtype: torch.dtype, dtypes: tuple[torch.dtype, ...], name: str) -> None:
    if dtype not in dtypes:
        raise ValueError(f"{name} must be one of {', '.join(map(str, dtypes))}, got {dtype}")
