"""The backend flag, and which kernels run on an array: the only file that knows both devices."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import ModuleType
from typing import Any, Literal, overload

import numpy as np

Backend = Literal["cpu", "cuda"]
BACKENDS = ("cpu", "cuda", "auto")
_HOST = {np.ndarray}
_DLPACK_CUDA = (2, 13)  # DLDeviceType: device memory, managed memory

_chosen: Backend | None = None  # by set_backend
_initial: Backend | None = None  # by SPCY_BACKEND when it is first needed, while other threads may choose
_override: ContextVar[Backend | None] = ContextVar("spcy_backend", default=None)
_tf32: ContextVar[bool] = ContextVar("spcy_tf32", default=False)


def set_backend(name: Literal["cpu", "cuda", "auto"]) -> None:
    """Choose the backend on which arrays enter spcy from now on.

    The flag is read where data enters (`Coords`, `SparseTensor`, `voxelize`): with "cuda", NumPy arrays
    and sequences are placed on the GPU there. CUDA arrays enter on the GPU whatever the flag says: CuPy's,
    and all that have ``__cuda_array_interface__`` or DLPack, as PyTorch's tensors, without a copy.
    Every later step runs where its arrays are, and refuses arrays of the other backend: weights for a
    tensor on the GPU are CUDA arrays. Sequences have no place of their own: they go where the others are.
    The environment variable ``SPCY_BACKEND`` is the flag's value until it is set.

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
    global _chosen
    _chosen = _resolve(name)


def get_backend() -> Backend:
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
    global _initial
    backend = _override.get() or _chosen or _initial
    if backend is None:
        backend = _initial = _resolve(os.environ.get("SPCY_BACKEND") or "cpu")
    return backend


@contextmanager
def use_backend(name: Literal["cpu", "cuda", "auto"]) -> Iterator[None]:
    """Use a backend inside a ``with`` block, in this thread or task only.

    Where threads take over their starter's context, as in free-threaded Python from 3.14 on, it holds in
    those that are started inside too.

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


@contextmanager
def allow_tf32(allowed: bool = True) -> Iterator[None]:
    """Let float32 convolutions on CUDA use tensor cores inside a ``with`` block, in this thread or task only.

    Their factors are rounded to tf32, which has 11 significant bits (about 3 decimals); products are still
    summed in float32. Otherwise they are exact in float32. It changes nothing on the CPU, for other
    dtypes, and on a GPU of a compute capability below 8.0, which has no tf32.

    Parameters
    ----------
    allowed : bool
        False forbids it again, inside a block that allows it.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> x = spcy.SparseTensor([[0, 4], [0, 5]], np.ones((2, 1), np.float32))
    >>> with spcy.allow_tf32():
    ...     y = spcy.subm_conv(x, np.ones((3, 1, 1), np.float32))
    """
    token = _tf32.set(bool(allowed))
    try:
        yield
    finally:
        _tf32.reset(token)


def tf32_allowed() -> bool:
    """Whether float32 convolutions on CUDA may round to tf32."""
    return _tf32.get()


def backend_of(array: Any) -> Backend:
    """Return the backend that an array lives on; the CPU for what is no array."""
    if isinstance(array, np.ndarray):
        return "cpu"
    if _is_cupy(array):  # its __cuda_array_interface__ builds a dict each time it is looked at
        return "cuda"
    if hasattr(array, "__cuda_array_interface__") or _dlpack_device(array) in _DLPACK_CUDA:
        return "cuda"
    return "cpu"


def as_array(value: Any, name: str, beside: Backend | None = None) -> np.ndarray:
    """Return data that enters as an array: CUDA arrays stay, others go to the backend in force.

    `beside` is the backend of what it enters beside, if that is decided.
    """
    flag = get_backend()
    backend = beside or ("cuda" if backend_of(value) == "cuda" else flag)
    return _placed(value, name, backend, move=flag == "cuda")


def array_beside(value: Any, name: str, backend: Backend) -> np.ndarray:
    """Return an argument as an array on the backend of what it goes with, never moving an array."""
    return _placed(value, name, backend, move=False)


def host_array(value: Any, name: str) -> np.ndarray:
    """Return an argument that the host reads, as an array."""
    if backend_of(value) == "cuda":
        raise TypeError(f"{name} must be on the CPU, where it is read, got a CUDA array (backend 'cuda')")
    return _placed(value, name, "cpu", move=False)


def array_module(*arrays: Any) -> ModuleType:
    """Return the module, NumPy or CuPy, whose functions make arrays where these are."""
    if _one_backend(arrays) == "cpu":
        return np
    import cupy

    return cupy


def kernels_for(*arrays: Any) -> ModuleType:
    """Return the namespace of stages that runs where the arrays are, all in one place."""
    if _one_backend(arrays) == "cpu":
        return _cpu_kernels()
    import cupy

    current = cupy.cuda.runtime.getDevice()
    for array in arrays:
        device = array.data.device_id
        if device != current:
            raise ValueError(
                f"arrays must be on the current CUDA device, {current}, got one on {device}: "
                f"work with them inside `with cupy.cuda.Device({device}):`"
            )
    return _stages("cuda")


@overload
def move(array: None, backend: Backend) -> None: ...
@overload
def move(array: np.ndarray, backend: Backend) -> np.ndarray: ...
@overload
def move(array: np.ndarray | None, backend: Backend) -> np.ndarray | None: ...
def move(array: Any, backend: Backend) -> Any:
    """Return an array on a backend: itself if it is there, else a copy."""
    if array is None or backend_of(array) == backend:
        return array
    return array.get() if backend == "cpu" else importlib.import_module("cupy").asarray(array)


def to_host(array: np.ndarray) -> np.ndarray:
    """Return an array as NumPy's; on CUDA the host waits for it."""
    return move(array, "cpu")


def freeze(*arrays: np.ndarray) -> None:
    """Make arrays read-only; CuPy's cannot be."""
    for array in arrays:
        if isinstance(array, np.ndarray):
            if isinstance(array.base, np.ndarray):  # a view of a read-only array cannot be made writeable
                array.base.flags.writeable = False
            array.flags.writeable = False


def is_bfloat16(dtype: np.dtype) -> bool:
    """Whether a dtype is ml_dtypes' bfloat16, which NumPy itself knows by name only."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def is_half(dtype: np.dtype) -> bool:
    """Whether a dtype is float16 or bfloat16."""
    return dtype.char == "e" or is_bfloat16(dtype)


def as_bits(first: np.ndarray, *others: np.ndarray | None) -> Sequence[Any]:
    """Return arrays of one dtype as kernels take them: bfloat16 as uint16, on the CPU float16 as int16."""
    arrays, dtype = (first, *others), first.dtype
    if is_bfloat16(dtype):
        return [None if array is None else array.view(np.uint16) for array in arrays]
    if dtype.char == "e" and isinstance(first, np.ndarray):
        return [None if array is None else array.view(np.int16) for array in arrays]
    return arrays


def require(backend: Backend) -> None:
    """Raise unless a backend, "cpu" or "cuda", can run here."""
    _resolve(backend)


def _resolve(name: str) -> Backend:
    if not isinstance(name, str) or name not in BACKENDS:
        raise ValueError(f"backend must be one of 'cpu', 'cuda' and 'auto', got {name!r}")
    if name == "cpu":
        return "cpu"
    gone = missing()
    if gone is None:
        return "cuda"
    if name == "cuda":
        raise RuntimeError(
            f"backend 'cuda' is not available: {gone}. Install CuPy with pip install \"spcy[cuda13]\" "
            f"(\"spcy[cuda12]\" for a driver of CUDA 12), or use spcy.set_backend('cpu')."
        )
    return "cpu"


def missing() -> str | None:
    """Return why CUDA cannot be used here, or None."""
    try:
        import cupy
    except ImportError as error:
        return f"CuPy cannot be imported ({error})"
    if cupy.cuda.runtime.is_hip:
        return "this CuPy is built for ROCm"
    return None if cupy.cuda.is_available() else "CuPy finds no CUDA GPU or no driver"


@cache
def _cpu_kernels() -> ModuleType:
    return _stages("cpu")


def _stages(backend: Backend) -> ModuleType:
    """Return the namespace of a backend's stages, by its name: what stands in there imports this module."""
    importlib.import_module(f"spcy._{backend}.builders")  # which `_cpu` does not load by itself
    return importlib.import_module(f"spcy._{backend}")


def _one_backend(arrays: tuple[Any, ...]) -> Backend:
    """Return the backend of arrays, all on one."""
    if {*map(type, arrays)} == _HOST:  # what they are most often: a call costs little
        return "cpu"
    backends = {backend_of(array) for array in arrays}
    if len(backends) != 1:
        raise TypeError("arrays must all be on one backend, got both NumPy and CUDA arrays")
    return backends.pop()


def _is_cupy(value: Any) -> bool:
    """Whether a value is an array of CuPy's, which nothing is before CuPy is imported."""
    return isinstance(value, getattr(sys.modules.get("cupy"), "ndarray", ()))


def _dlpack_device(value: Any) -> int | None:
    """Return the type of device that DLPack tells of an array."""
    tell = getattr(type(value), "__dlpack_device__", None)
    return None if tell is None else int(tell(value)[0])


def _placed(value: Any, name: str, backend: Backend, move: bool) -> np.ndarray:
    """Return an argument as an array on a backend; `move` allows to place NumPy arrays on the GPU."""
    if backend == "cpu" and type(value) is np.ndarray:
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a plain array, got a masked one, whose mask would be lost")
    if backend_of(value) == "cuda":
        if backend == "cpu":
            raise TypeError(
                f"{name} must be on backend 'cpu', as what it goes with, got a CUDA array (backend 'cuda'); "
                f"cupy.asnumpy moves arrays"
            )
        return _cuda_array(value)
    if not isinstance(value, np.ndarray):
        move = True
        try:
            value = _host_array(value)
        except ValueError as error:  # ragged nested lists
            raise ValueError(f"{name} must be an array, got nested sequences of unequal length") from error
    if backend == "cpu":
        return value
    if not move:
        raise TypeError(
            f"{name} must be on backend 'cuda', as what it goes with, got a NumPy array (backend 'cpu'); "
            f"cupy.asarray moves arrays"
        )
    if (value.dtype.kind not in "biufc" or value.itemsize > 8) and not is_bfloat16(value.dtype):
        return value  # of a dtype that no device has: what checks it refuses it
    import cupy

    return cupy.asarray(value.astype(value.dtype.newbyteorder("="), copy=False))


def _host_array(value: Any) -> np.ndarray:
    """Return an array of the host, of any library, or nested sequences, as NumPy's."""
    array = np.asarray(value)
    if array.dtype == object and array.ndim == 2 and hasattr(value, "dtypes"):
        # pandas makes objects of a frame whose columns may hold "missing", numbers of each column by itself
        columns = [np.asarray(column) for _, column in value.items()]
        array = np.stack(columns, axis=1)
    return array


def _cuda_array(value: Any) -> Any:
    """Return a CUDA array of any library as CuPy's, on the same memory."""
    if _is_cupy(value) and not sys.modules["cupy"].cuda.runtime.is_hip:
        return value
    require("cuda")
    import cupy

    return cupy.from_dlpack(value) if _dlpack_device(value) in _DLPACK_CUDA else cupy.asarray(value)
