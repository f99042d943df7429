"""Where large arrays live: on memory that is kept when they are freed, for the next ones."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from ._cpu import memory as _native


def set_kept_memory(num_bytes: int) -> None:
    """Set how much memory of freed arrays spcy keeps for its next ones, in the whole process.

    The system clears new memory page by page as it is first touched, which takes as long as many an
    operation on it. So the memory of arrays of 128 KiB or more that spcy makes is kept when they are
    freed, on Linux. They stay plain NumPy arrays that own their data.

    The system may take back what is kept when memory runs short, all but the last 64 MiB, though it counts
    as the process's until then (MADV_FREE); a fork gives all of it back, and so does an array that finds no
    memory.

    Parameters
    ----------
    num_bytes : int
        0 keeps nothing. The default is a sixteenth of the machine's memory, or of the limit on the
        process's address space (RLIMIT_AS) at the first large array. Where nothing is kept, as in a build
        for another system, it has no effect.

    Raises
    ------
    TypeError
        If `num_bytes` is no integer.
    ValueError
        If `num_bytes` is negative or no size.

    Examples
    --------
    >>> import spcy
    >>> before = spcy.get_kept_memory()
    >>> spcy.set_kept_memory(0)
    >>> spcy.get_kept_memory()
    0
    >>> spcy.set_kept_memory(before)
    """
    if isinstance(num_bytes, bool) or not hasattr(num_bytes, "__index__"):
        raise TypeError(f"num_bytes must be an int, got {type(num_bytes).__name__}")
    if not 0 <= num_bytes < 2**63:
        raise ValueError(f"num_bytes must be from 0 to 2**63 - 1, got {num_bytes}")
    _native.keep_at_most(num_bytes)


def get_kept_memory() -> int:
    """Return how much memory of freed arrays spcy keeps at most, in bytes.

    Returns
    -------
    int
        0 where this build keeps none.

    Examples
    --------
    >>> import spcy
    >>> spcy.get_kept_memory() >= 0
    True
    """
    return _native.keeps_at_most()


def empty(xp: ModuleType, shape: int | tuple[int, ...], dtype: Any) -> Any:
    """Return a new array of NumPy or CuPy, its values anything."""
    return _native.empty(shape, dtype) if xp is np else xp.empty(shape, dtype)
