"""The CUDA stages: the functions of `spcy._cpu` on device arrays. Imported only where CuPy is in use."""

from . import builders, conv, coords, corners, grad, hashmap, loss, norm, pointwise, pool, rows, rulebook

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
]
