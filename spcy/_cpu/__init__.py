"""The compiled CPU stages."""

from . import conv, coords, hashmap, pool, rulebook, simd, threads

__all__ = ["conv", "coords", "hashmap", "pool", "rulebook", "simd", "threads"]
