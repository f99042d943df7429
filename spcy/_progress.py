"""A bar of progress, by tqdm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def bar(items: Iterable[T], total: int, unit: str) -> Iterator[T]:
    """Yield items behind a bar."""
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError('progress needs tqdm: pip install "spcy[progress]"') from None
    return iter(tqdm(items, total=total, unit=unit))
