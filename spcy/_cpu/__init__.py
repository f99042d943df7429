"""The CPU stages, compiled. `builders` stands above what decides on threads, which imports this package."""

from . import (
    conv,
    coords,
    corners,
    grad,
    hashmap,
    loss,
    memory,
    norm,
    pointwise,
    pool,
    rows,
    rulebook,
    simd,
    threads,
)

__all__ = [
    "conv",
    "coords",
    "corners",
    "grad",
    "hashmap",
    "loss",
    "memory",
    "norm",
    "pointwise",
    "pool",
    "rows",
    "rulebook",
    "simd",
    "threads",
]
