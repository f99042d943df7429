"""The coordinate hash: from a packed key to its row."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from . import _check
from ._backend import array_beside, array_module, as_array, backend_of, kernels_for
from ._memory import empty
from ._threads import threads_for

NO_KEY = np.uint64(0xFFFFFFFFFFFFFFFF)


class HashMap:
    """A hash table from 64-bit keys to the rows they stand in.

    Parameters
    ----------
    keys : ndarray of shape (N,), uint64
        Any value but ``2**64 - 1``. Where a key occurs more than once its smallest row counts.

    Raises
    ------
    TypeError
        If `keys` is not uint64.
    ValueError
        If `keys` is not one-dimensional or holds the reserved value (the message names the row).

    Notes
    -----
    Open addressing with linear probing, at most half full. Building and finding run on every core;
    the answers do not depend on their number.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> table = spcy.HashMap(np.array([30, 10, 20], np.uint64))
    >>> table.find(np.array([10, 11], np.uint64))
    array([ 1, -1], dtype=int32)
    """

    __slots__ = ("_bits", "_num_keys", "_slots")

    def __init__(self, keys: ArrayLike):
        keys = _checked(as_array(keys, "keys"))
        bad = _check.first_row(keys == NO_KEY)
        if bad is not None:
            raise ValueError(f"keys must be less than 2**64 - 1, got that value in row {bad}")
        self._build(keys)

    @classmethod
    def _of(cls, keys: np.ndarray) -> HashMap:
        """Return the table of keys that need no check."""
        table = cls.__new__(cls)
        table._build(keys)
        return table

    def _build(self, keys: np.ndarray) -> None:
        self._num_keys = len(keys)
        self._bits = max(4, (2 * len(keys) - 1).bit_length())
        self._slots = empty(array_module(keys), (1 << self._bits, 2), np.uint64)
        kernels_for(keys).hashmap.build(keys, self._slots, self._bits, threads_for(10 * len(keys)))

    def __len__(self) -> int:
        return self._num_keys

    def __repr__(self) -> str:
        return f"HashMap({self._num_keys} keys, {self._slots.nbytes} bytes)"

    def find(self, keys: ArrayLike) -> np.ndarray:
        """Return the row of each key.

        Parameters
        ----------
        keys : ndarray of shape (M,), uint64

        Returns
        -------
        ndarray of shape (M,), int32
            -1 where a key is absent.
        """
        keys = _checked(array_beside(keys, "keys", backend_of(self._slots)))
        rows = empty(array_module(keys), len(keys), np.int32)
        if len(keys):
            threads = threads_for(10 * len(keys))
            kernels_for(self._slots, keys).hashmap.find(self._slots, self._bits, keys, rows, threads)
        return rows


def _checked(array: np.ndarray) -> np.ndarray:
    if array.ndim != 1:
        raise ValueError(f"keys must have shape (N,), got shape {array.shape}")
    if array.dtype.newbyteorder("=") != np.uint64:
        raise TypeError(f"keys must have dtype uint64, got {array.dtype}")
    if len(array) > _check.MAX_ROWS:
        raise ValueError(f"keys must have at most {_check.MAX_ROWS} rows, got {len(array)}")
    return _check.contiguous(array, np.dtype(np.uint64))
