"""Between PyTorch's tensors and spcy's arrays: the same memory, on the CPU and on a GPU."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from .._backend import is_bfloat16, require, use_backend
from .._threads import follow

Function = TypeVar("Function", bound=Callable[..., Any])

follow(torch.get_num_threads, "torch.get_num_threads")


def opaque(function: Function) -> Function:
    """Mark what torch.compile is not to look into: it would trace NumPy and the caches as if PyTorch's.

    That is `torch.compiler.disable`, once PyTorch's compiler is there: to import it takes as long as PyTorch.
    For functions that stay: what it returns refers to itself, and only the garbage collector frees it.
    """
    disabled: Any = None

    def called(*args: Any, **kwargs: Any) -> Any:
        nonlocal disabled
        if disabled is None:
            if "torch._dynamo" not in sys.modules:
                return function(*args, **kwargs)
            disabled = torch.compiler.disable(function)
            skip = getattr(torch._dynamo.decorators, "skip", None)  # it has no public name
            if skip is not None:
                skip(called)
        return disabled(*args, **kwargs)

    vars(called)["_torchdynamo_disable"] = True  # so that the compiler does not look into this one
    return cast(Function, functools.wraps(function)(called))


def array_of(tensor: torch.Tensor) -> Any:
    """Return a tensor's memory as an array, outside of autograd."""
    tensor = tensor.detach()
    if tensor.device != _CPU:
        require("cuda")
        import cupy

        return cupy.from_dlpack(tensor)
    if tensor.dtype is not torch.bfloat16:
        return tensor.numpy()
    return tensor.view(torch.int16).numpy().view(_bfloat16())


def contiguous_array(tensor: torch.Tensor) -> Any:
    """Return a tensor's memory as an array, rows one behind the other."""
    return array_of(tensor if tensor.is_contiguous() else tensor.contiguous())


def tensor_of(array: Any) -> torch.Tensor:
    """Return an array's memory as a tensor."""
    if not isinstance(array, np.ndarray):
        return from_dlpack(array)
    if is_bfloat16(array.dtype):
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def on_device(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Return what array work on a device's tensors runs in: on a GPU, PyTorch's current stream."""
    return _NOTHING if device == _CPU else _on_cuda(device)


def entering(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Return what lets arrays enter spcy on the device of their tensors, whatever the backend flag says."""
    return use_backend("cuda" if device.type == "cuda" else "cpu")


_CPU = torch.device("cpu")
_NOTHING = contextlib.nullcontext()


@contextlib.contextmanager
def _on_cuda(device: torch.device) -> Iterator[None]:
    require("cuda")
    import cupy

    stream = torch.cuda.current_stream(device)
    with cupy.cuda.Device(stream.device_index), cupy.cuda.ExternalStream(stream.cuda_stream):
        yield


def check_tensor(value: Any, name: str, beside: torch.Tensor | None = None) -> None:
    """Raise unless an argument is a tensor on a device that spcy has, the one of what it goes with."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {value.layout}")
    if beside is not None:
        if value.device != beside.device:
            raise ValueError(
                f"{name} must be on {beside.device}, as what it goes with, got {value.device}: "
                f"{name}.to({str(beside.device)!r}) moves it"
            )
    elif value.device.type not in ("cpu", "cuda"):
        raise ValueError(f"{name} must be on a CPU or a CUDA device, got {value.device}")


def first_row(bad: torch.Tensor) -> int | None:
    """Return the first True row of a mask, or None."""
    return int(bad.int().argmax()) if bad.any() else None  # `argmax` takes no bool


def _bfloat16() -> np.dtype:
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError('bfloat16 needs ml_dtypes: pip install "spcy[torch]"') from None
    return np.dtype(ml_dtypes.bfloat16)
