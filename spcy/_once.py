"""How threads share: all that spcy computes once and keeps, and all its locks.

What is computed when it is first asked for (hash tables, rulebooks, levels, tiles) is in a `Kept` of its
owner: the sites of a `Coords`, an order of rows, a rulebook. Any number of threads may ask, with the GIL or
without:

- To read takes no lock. An entry is there when it is whole, and is never replaced: a layer whose plans are
  made pays for a look into a dict.
- To make one takes the owner's lock. Whoever asks for the same gets the same object, and waits rather than
  makes it twice; other owners are not kept waiting.
- Whoever holds a lock takes others in one direction: of `spcy.torch`'s managers and levels, then of sites
  (of what they keep of levels below, then of the rest), then of sites that they were made from, then of a
  rulebook, then of an order of rows. So no two threads wait for each other.
- A forked child finds every lock open: the thread that held it is not there to let it go, and entries that
  were being made are not there either.
- Copies and pickles of an owner begin with nothing kept, and with a lock of their own.

What is replaced rather than kept (gradients, running means) goes through `update`. All else that threads
share is written once, or is as good where two threads make it: flags, folded norms, and the `lru_cache`s of
what depends on arguments alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Any

_forks = 0  # of this process's forefathers


class Lock:
    """A re-entrant lock, ``with lock():``, that a forked child finds open."""

    __slots__ = ("_forks", "_held")

    def __init__(self) -> None:
        self._held, self._forks = threading.RLock(), _forks

    def __call__(self) -> threading.RLock:
        """Return the lock of this process."""
        if self._forks != _forks:
            with _renewal:
                if self._forks != _forks:
                    self._held, self._forks = threading.RLock(), _forks
        return self._held

    def __reduce__(self) -> tuple[Any, ...]:
        return Lock, ()


class Kept(dict[Hashable, Any]):
    """What an owner keeps, by key."""

    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = Lock()

    def once(self, key: Hashable, build: Callable[[], Any]) -> Any:
        """Return the entry of a key, made by `build` if there is none: the same object every time."""
        try:
            return self[key]  # `get` takes the dict's own lock, which a fork may leave shut in the child
        except KeyError:
            pass
        with self.lock():
            if key not in self:  # no other thread was first
                self[key] = build()
            return self[key]

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, ()


def update(holder: Any, name: str, change: Callable[[Any], Any]) -> None:
    """Replace an attribute by what `change` makes of it, so that no other thread's change is lost."""
    while True:
        old = getattr(holder, name)
        new = change(old)
        with _exchange():
            if getattr(holder, name) is old:
                setattr(holder, name, new)
                return


def _forked() -> None:
    global _forks, _renewal
    _forks += 1
    _renewal = threading.Lock()


_renewal = threading.Lock()
_exchange = Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
