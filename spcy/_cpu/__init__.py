"""The compiled CPU stages."""

from . import conv, coords, grad, hashmap, pool, rulebook, simd, threads

__all__ = ["conv", "coords", "grad", "hashmap", "pool", "rulebook", "simd", "threads"]
