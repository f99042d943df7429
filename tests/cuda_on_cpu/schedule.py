"""In which order the emulated threads run, and what is counted while they do."""

from contextlib import contextmanager
from dataclasses import dataclass, field, replace

FORWARD, REVERSE, RANDOM = range(3)


@dataclass(frozen=True)
class Schedule:
    """How kernels run.

    `order` is that of threads and blocks; `resident` blocks run side by side; `preempt` is the chance in
    percent that a thread gives way at an atomic operation and, if `checked`, at any memory access. With
    `checked`, accesses out of bounds, of uninitialised memory, or without order between threads raise.
    """

    order: int = FORWARD
    preempt: int = 0
    resident: int = 1
    seed: int = 0
    checked: bool = False


SCHEDULES = {
    "forward": Schedule(),
    "reverse": Schedule(REVERSE),
    "random": Schedule(RANDOM, preempt=10, resident=3),
    "checked": Schedule(RANDOM, preempt=2, resident=2, checked=True),
}

_current = Schedule()


@dataclass
class Counts:
    """Launches of kernels (by name too), other operations, waits of the host, uploads."""

    kernels: int = 0
    operations: int = 0
    synchronisations: int = 0
    uploads: int = 0
    launches: dict = field(default_factory=dict)

    def reset(self):
        self.kernels = self.operations = self.synchronisations = self.uploads = 0
        self.launches = {}


counts = Counts()


def current():
    """Return the schedule in force."""
    return _current


@contextmanager
def running(name="forward", **changes):
    """Run kernels by one of `SCHEDULES`, with changes."""
    global _current
    before = _current
    _current = replace(SCHEDULES[name], **changes)
    try:
        yield _current
    finally:
        _current = before


@contextmanager
def counting():
    """Count from 0; gives the `Counts`."""
    counts.reset()
    yield counts
