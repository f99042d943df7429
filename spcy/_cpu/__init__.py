"""The CPU stages: compiled, and what takes several of their kernels."""

from . import (
    builders,
    conv,
    coords,
    corners,
    grad,
    hashmap,
    loss,
    norm,
    pointwise,
    pool,
    rows,
    rulebook,
    simd,
    threads,
)

__all__ = [
    "builders",
    "conv",
    "coords",
    "corners",
    "grad",
    "hashmap",
    "loss",
    "norm",
    "pointwise",
    "pool",
    "rows",
    "rulebook",
    "simd",
    "threads",
]
