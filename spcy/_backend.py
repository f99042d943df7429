"""The backend flag, and which kernels run on an array: the only file that knows both devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import numpy as np

from . import _cpu

BACKENDS = ("cpu", "cuda", "auto")

_default: str | None = None  # not chosen yet: SPCY_BACKEND decides when it is first asked for
_override: ContextVar[str | None] = ContextVar("spcy_backend", default=None)


def set_backend(name: str) -> None:
    """Choose the backend on which arrays enter spcy from now on.

    The flag is read where data enters (`SparseTensor`, `voxelize`); every later step runs where its
    arrays are. The environment variable ``SPCY_BACKEND`` is its value until it is set.

    Parameters
    ----------
    name : {"cpu", "cuda", "auto"}
        "auto" takes a CUDA GPU where there is one that spcy can use, else the CPU.

    Raises
    ------
    ValueError
        If `name` is none of the three.
    RuntimeError
        If `name` is "cuda" and that backend cannot run here; the flag stays as it was.

    Examples
    --------
    >>> import spcy
    >>> spcy.set_backend("cpu")
    >>> spcy.get_backend()
    'cpu'
    """
    global _default
    _default = _resolve(name)


def get_backend() -> str:
    """Return the backend in force.

    Returns
    -------
    {"cpu", "cuda"}

    Raises
    ------
    ValueError, RuntimeError
        If ``SPCY_BACKEND`` names none, or one that cannot run here, and nothing else was set.

    Examples
    --------
    >>> import spcy
    >>> spcy.get_backend()
    'cpu'
    """
    global _default
    if _override.get() is None and _default is None:
        _default = _resolve(os.environ.get("SPCY_BACKEND") or "cpu")
    return _override.get() or _default


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Use a backend inside a ``with`` block, in this thread or task only.

    Parameters
    ----------
    name : {"cpu", "cuda", "auto"}
        As for `set_backend`.

    Raises
    ------
    ValueError, RuntimeError
        As from `set_backend`.

    Examples
    --------
    >>> import spcy
    >>> with spcy.use_backend("cpu"):
    ...     spcy.get_backend()
    'cpu'
    """
    token = _override.set(_resolve(name))
    try:
        yield
    finally:
        _override.reset(token)


def backend_of(array: Any) -> str:
    """Return the backend that an array lives on."""
    if isinstance(array, np.ndarray):
        return "cpu"
    return "cuda" if hasattr(array, "__cuda_array_interface__") else "cpu"


def as_array(value: Any, name: str) -> np.ndarray:
    """Return an argument as an array on the backend in force, never moving it between devices."""
    get_backend()
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a plain array, got a masked one, whose mask would be lost")
    if isinstance(value, np.ndarray):
        return value
    require(backend_of(value))
    try:
        return np.asarray(value)
    except ValueError as error:  # ragged nested lists
        raise ValueError(f"{name} must be an array, got nested sequences of unequal length") from error


def array_module(*arrays: Any) -> ModuleType:
    """Return the module, NumPy or CuPy, whose functions make arrays where these are."""
    kernels_for(*arrays)
    return np


def kernels_for(*arrays: Any) -> ModuleType:
    """Return the namespace of compiled stages that runs where the arrays are, all in one place."""
    backends = {backend_of(array) for array in arrays}
    if len(backends) != 1:
        raise TypeError("arrays must all be on one backend, got both NumPy and CUDA arrays")
    require(*backends)
    return _cpu


def is_bfloat16(dtype: np.dtype) -> bool:
    """Whether a dtype is ml_dtypes' bfloat16, which NumPy itself knows by name only."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def widened(features: np.ndarray) -> np.ndarray:
    """Return features in a dtype that every kernel computes in: bfloat16 as float32."""
    return features.astype(np.float32) if is_bfloat16(features.dtype) else features


def require(backend: str) -> None:
    """Raise unless a backend, "cpu" or "cuda", can run here."""
    _resolve(backend)


def _resolve(name: str) -> str:
    if not isinstance(name, str) or name not in BACKENDS:
        raise ValueError(f"backend must be one of 'cpu', 'cuda' and 'auto', got {name!r}")
    if name == "cuda":
        raise RuntimeError(
            "backend 'cuda' is not available: this version of spcy has only its CPU kernels. "
            "Use spcy.set_backend('cpu'), or move arrays to NumPy first (cupy.asnumpy)."
        )
    return "cpu"
