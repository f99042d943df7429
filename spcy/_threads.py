"""How many threads a kernel gets: the one place that decides."""

from __future__ import annotations

import math
import os
from pathlib import Path

from ._cpu import threads as _native

# Work, in steps of about a nanosecond, that is worth one more thread: starting a team costs some
# microseconds, tens of them if its threads are asleep, and much more where other programs hold the cores.
GRAIN = 100_000

_num_threads: int | None = None


def set_num_threads(n: int | None) -> None:
    """Set how many threads spcy's kernels may use, in the whole process.

    The number never changes a result: kernels give the same bits for any number of threads.

    Parameters
    ----------
    n : int or None
        At least 1. None goes back to the default: ``OMP_NUM_THREADS`` if that is set, else the
        cores that this process may use (its CPU affinity and its container's CPU quota).

    Raises
    ------
    ValueError
        If `n` is less than 1.
    TypeError
        If `n` is no integer.

    Examples
    --------
    >>> import spcy
    >>> spcy.set_num_threads(2)
    >>> spcy.get_num_threads()
    2
    >>> spcy.set_num_threads(None)
    """
    global _num_threads
    if n is not None:
        if isinstance(n, bool) or not hasattr(n, "__index__"):
            raise TypeError(f"n must be an int or None, got {type(n).__name__}")
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
    _num_threads = None if n is None else int(n)


def get_num_threads() -> int:
    """Return how many threads spcy's kernels may use.

    Returns
    -------
    int
        1 in a build without OpenMP.

    Examples
    --------
    >>> import spcy
    >>> spcy.get_num_threads() >= 1
    True
    """
    global _num_threads
    if _num_threads is None:
        _num_threads = _default_threads()
    return _num_threads if _native.has_openmp() else 1


def threads_for(work: float) -> int:
    """Return the threads for `work` elementary steps: 1 where more would not pay."""
    return max(1, min(get_num_threads(), int(work) // GRAIN))


def _default_threads() -> int:
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isascii() and asked.isdecimal() and int(asked) > 0:
        return int(asked)
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, _cgroup_cores()))


def _cgroup_cores() -> int:
    """Return the whole cores that the container's CPU quota allows (many, without one)."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return 1 << 30


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_native.pause)
