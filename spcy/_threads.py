"""How many threads a kernel gets: the one place that decides."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from ._cpu import threads as _native

# Work, in steps of about a nanosecond, that is worth one more thread: waking a thread that sleeps costs some
# microseconds, and it takes tens of them before it begins.
GRAIN = 100_000

_NO_QUOTA = 1 << 30

_num_threads: int | None = None  # what the user asked for
_default: int | None = None
_cores: int | None = None
_followed: dict[str, Callable[[], int | None]] = {}  # others' numbers by name; the last is asked first


def set_num_threads(n: int | None) -> None:
    """Set how many threads spcy's kernels may use, in the whole process.

    The number never changes a result: kernels give the same bits for any number of threads.

    Parameters
    ----------
    n : int or None
        From 1 to 512; more than the cores are of no use. None goes back to the default:
        ``OMP_NUM_THREADS`` if that is set, else the cores that this process may use (its CPU
        affinity and its container's CPU quota), at most 512. With `spcy.torch` imported it is
        what ``torch.get_num_threads()`` says, at most those cores.

    Raises
    ------
    ValueError
        If `n` is less than 1 or more than 512.
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
        if n > _native.MOST_THREADS:
            raise ValueError(f"n must be at most {_native.MOST_THREADS}, got {n}")
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
    if not _native.has_openmp():
        return 1
    asked = _num_threads  # read once: another thread may set it
    if asked is not None:
        return asked
    global _default, _cores
    followed = _number_of_others()
    if followed is not None:
        _cores = _cores or _usable_cores()
        return min(followed[1], _cores)
    if _default is None:
        _default = _default_threads()
    return _default


def source() -> str:
    """Say where the number of `get_num_threads` comes from."""
    if not _native.has_openmp():
        return "a build without OpenMP"
    if _num_threads is not None:
        return "spcy.set_num_threads"
    quota = _quota()
    affinity = getattr(os, "sched_getaffinity", None)
    cores = f"{len(affinity(0)) if affinity else os.cpu_count()} cores in the CPU affinity"
    if quota < _NO_QUOTA:
        cores += f", control groups' quota {quota}"
    followed = _number_of_others()
    if followed is not None:
        return f"{followed[0]}, at most the cores ({cores})"
    return "OMP_NUM_THREADS" if _asked() else cores


def follow(get_num_threads: Callable[[], int | None], name: str) -> None:
    """Take another library's number as the default, while it has one; it may know nothing of a quota.

    Where it has none, whoever was followed before is asked.
    """
    global _followed
    _followed = {**{other: get for other, get in _followed.items() if other != name}, name: get_num_threads}


def _number_of_others() -> tuple[str, int] | None:
    """Return whose number is the default, and it."""
    for name, get in reversed(_followed.items()):
        number = get()
        if number is not None:
            return name, number
    return None


def threads_for(work: float) -> int:
    """Return the threads for `work` elementary steps: 1 where more would not pay."""
    return max(1, min(get_num_threads(), int(work) // GRAIN))


def _default_threads() -> int:
    return min(_asked(), _native.MOST_THREADS) or _usable_cores()


def _asked() -> int:
    """Return the number in OMP_NUM_THREADS, 0 if there is none."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(asked) if asked.isascii() and asked.isdecimal() else 0


def _usable_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, _quota(), _native.MOST_THREADS))


def _quota() -> int:
    """Return the whole cores that the process's control groups allow (many, if none has a quota)."""
    return min(
        (math.ceil(quota / period) for quota, period in _quotas() if quota > 0 and period > 0),
        default=_NO_QUOTA,
    )


def _quotas() -> Iterator[tuple[int, int]]:
    """Yield (quota, period) of the process's control group and of those that it is in."""
    lines = (line.split(":", 2) for line in _read(_OWN_GROUPS).splitlines())
    names = {line[1]: line[2] for line in lines if len(line) == 3}
    v1 = next((name for name in names if "cpu" in name.split(",")), None)
    folder = _GROUPS if v1 is None else _GROUPS / v1
    own = PurePosixPath(names.get(v1 or "", "/").lstrip("/"))
    # In a container the group's own path may lead nowhere: then the root of what is mounted is the group.
    for group in (folder / own, *(folder / parent for parent in own.parents)):
        if v1 is None:
            quota, _, period = _read(group / "cpu.max").partition(" ")
        else:
            quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
        with contextlib.suppress(ValueError):  # "max", or nothing
            yield int(quota), int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


_OWN_GROUPS, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def _forget_default() -> None:
    """Let a forked child, which may be given other cores, decide for itself."""
    global _default, _cores
    _default = _cores = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_default)
