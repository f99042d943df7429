"""A stand-in for the part of CuPy that spcy uses, on NumPy, with kernels that run on the CPU.

It refuses what CuPy refuses: arrays become NumPy's only by an explicit `get`, are not mixed with NumPy's,
and functions and arguments that are not listed here do not exist. Reductions give 0-d arrays. `counts`
tells kernel launches, other operations on the device, waits of the host for it, and uploads.
"""

import ctypes
import functools
import itertools
import re
import time
import types
import weakref

import numpy as np
from numpy import (  # what CuPy takes over from NumPy
    bool_,
    dtype,
    finfo,
    float16,
    float32,
    float64,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    intp,
    newaxis,
    result_type,
    uint8,
    uint16,
    uint32,
    uint64,
)

from . import build
from .schedule import counts, current

__all__ = ["bool_", "dtype", "finfo", "float16", "float32", "float64", "iinfo", "int8", "int16", "int32"]
__all__ += ["int64", "intp", "newaxis", "result_type", "uint8", "uint16", "uint32", "uint64"]

__version__ = "13.6.0 (stand-in)"

_POISON = np.frombuffer(b"\xfd\x7f" * 8, np.uint8)  # as runtime.cpp has it
_MAX_SHARED = 227 << 10


class EmulationError(RuntimeError):
    """A kernel or a launch that CUDA would refuse, or for which it would do anything."""


# ---- memory ----------------------------------------------------------------------------------------

_uninitialised = {}  # address -> (bytes, which of them are initialised), of what `empty` made


def _extent(array):
    low, high = np.lib.array_utils.byte_bounds(array)
    return low, high - low


def _map_of(array):
    """Return the map of initialised bytes of the memory that an array lies in, from its first byte on."""
    low, size = _extent(array)
    for start, (length, known) in _uninitialised.items():
        if start <= low and low + size <= start + length:
            return known[low - start : low - start + size]
    return None


def _mark(array):
    """Remember that an array was written."""
    if current().checked and array.size:
        known = _map_of(array)
        if known is not None:
            known[:] = 1


def _require_initialised(array):
    """Refuse to read what was never written."""
    if current().checked and array.size:
        known = _map_of(array)
        if known is not None and array.flags.c_contiguous and not known.all():
            raise EmulationError(
                f"read of uninitialised memory: byte {int(known.argmin())} of {array.nbytes}"
            )


class _Flags:
    def __init__(self, flags):
        self.c_contiguous, self.f_contiguous = flags.c_contiguous, flags.f_contiguous
        self.owndata = flags.owndata


# ---- arrays ----------------------------------------------------------------------------------------


class _Memory:
    """Where an array lies."""

    device_id = 0

    def __init__(self, array):
        self.ptr, self.memset_async = array._a.ctypes.data, array._memset


class ndarray:
    """A device array, over a NumPy array that only this module touches."""

    __array_priority__ = 100
    __hash__ = None

    def __init__(self, *args, **kwargs):
        raise TypeError("the stand-in makes arrays by cupy.empty and its like")

    shape = property(lambda self: self._a.shape)
    dtype = property(lambda self: self._a.dtype)
    size = property(lambda self: self._a.size)
    ndim = property(lambda self: self._a.ndim)
    nbytes = property(lambda self: self._a.nbytes)
    itemsize = property(lambda self: self._a.itemsize)
    strides = property(lambda self: self._a.strides)
    flags = property(lambda self: _Flags(self._a.flags))
    T = property(lambda self: _array(self._a.T))
    base = property(lambda self: None if self._a.base is None else self)
    data = property(lambda self: _Memory(self))
    device = property(lambda self: cuda.Device(0))

    @property
    def __cuda_array_interface__(self):
        interface = self._a.__array_interface__
        return {key: interface[key] for key in ("shape", "typestr", "data", "strides")} | {"version": 3}

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **options):
        return self._a  # where CuPy gives a capsule

    def get(self, stream=None, order="C", out=None, blocking=True):
        counts.synchronisations += 1
        _require_initialised(self._a)
        return np.array(self._a, order=order)

    def item(self):
        counts.synchronisations += 1
        _require_initialised(self._a)
        return self._a.item()

    def tolist(self):
        return self.get().tolist()

    def __bool__(self):
        return bool(self._scalar())

    def __int__(self):
        return int(self._scalar())

    def __float__(self):
        return float(self._scalar())

    def _scalar(self):
        if self._a.size != 1:
            raise ValueError("the truth or number of an array with other than one element is ambiguous")
        return self.get()

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy "
            "array explicitly."
        )

    def __array_ufunc__(self, ufunc, method, *args, **kwargs):
        if method != "__call__" or ufunc.__name__ not in _UFUNCS:
            return NotImplemented
        return _ufunc(ufunc, *args, **kwargs)

    def __array_function__(self, function, kinds, args, kwargs):
        twin = globals().get(function.__name__) or _listed_functions.get(function.__name__)
        return NotImplemented if twin is None else twin(*args, **kwargs)

    def __len__(self):
        if not self._a.ndim:
            raise TypeError("len() of unsized object")
        return len(self._a)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        if _has_array(index):
            return _call(np.ndarray.__getitem__, self, _index(index))
        parts = _index(index if isinstance(index, tuple) else (index,))
        return _array(self._a[parts if Ellipsis in parts else (*parts, Ellipsis)])  # 0-d: no NumPy scalar

    def __setitem__(self, index, value):
        _refuse_numpy(value)
        counts.operations += 1
        index = _host(_index(index))
        self._a[index] = _host(value)
        parts = index if isinstance(index, tuple) else (index,)
        plain = not any(isinstance(part, np.ndarray) for part in parts)
        _mark(self._a[parts if Ellipsis in parts else (*parts, Ellipsis)] if plain else self._a)

    def __repr__(self):
        return f"stand-in {self._a!r}"

    def __getattr__(self, name):
        raise AttributeError(f"cupy.ndarray has no attribute {name!r}, or the stand-in does not know it")

    def _memset(self, value, size):
        counts.operations += 1
        assert size == self._a.nbytes
        assert self._a.flags.c_contiguous
        self._a.reshape(-1).view(np.uint8)[:] = value
        _mark(self._a)

    def sort(self):
        counts.operations += 1
        self._a.sort()

    def fill(self, value):
        counts.operations += 1
        self._a.fill(_host(value))
        _mark(self._a)

    def copy(self, order="C"):
        return _call(np.array, self, order=order)

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if not copy and self._a.dtype == np.dtype(dtype):
            return self
        return _call(np.ndarray.astype, self, _numeric(dtype), order=order)

    def view(self, dtype=None):
        return _call(np.ndarray.view, self, self.dtype if dtype is None else dtype, view=True)


def _array(host):
    array = ndarray.__new__(ndarray)
    array._a = host
    return array


def _numeric(kind):
    kind = np.dtype(kind)
    if kind.kind not in "biufc" and kind.name != "bfloat16":
        raise ValueError(f"Unsupported dtype {kind}")
    if not kind.isnative:
        raise ValueError(f"Unsupported byte order of dtype {kind}")
    return kind


def _refuse_numpy(*values):
    for value in values:
        if isinstance(value, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        if isinstance(value, (tuple, list)):
            _refuse_numpy(*value)


def _host(value):
    if isinstance(value, ndarray):
        return value._a
    if isinstance(value, (tuple, list)):
        return type(value)(_host(v) for v in value)
    return value


def _device(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return _array(np.asarray(value))
    if isinstance(value, (tuple, list)):
        return type(value)(_device(v) for v in value)
    return value


def _call(function, *args, view=False, **kwargs):
    """Call NumPy with what the arrays hold; a view costs nothing, all else is an operation."""
    _refuse_numpy(args, list(kwargs.values()))
    if not view:
        counts.operations += 1
        for value in itertools.chain(args, kwargs.values()):
            if isinstance(value, ndarray) and value is not kwargs.get("out"):
                _require_initialised(value._a)
    out = function(*_host(args), **{key: _host(value) for key, value in kwargs.items()})
    if isinstance(kwargs.get("out"), ndarray):
        _mark(kwargs["out"]._a)
        return kwargs["out"]
    return _device(out)


def _has_array(index):
    return any(isinstance(i, ndarray) for i in (index if isinstance(index, tuple) else (index,)))


def _index(index):
    for part in index if isinstance(index, tuple) else (index,):
        if isinstance(part, (np.ndarray, list)):
            raise TypeError("the stand-in takes no host arrays as an index: each would be an upload")
        if isinstance(part, ndarray) and part.dtype == bool:
            counts.synchronisations += 1  # the host must know how many are True
    return index


def _ufunc(ufunc, *args, **kwargs):
    if set(kwargs) - {"out", "dtype"}:
        raise TypeError(f"cupy.{ufunc.__name__}: unexpected keyword arguments {sorted(kwargs)}")
    if isinstance(kwargs.get("out"), tuple):
        (kwargs["out"],) = kwargs["out"]
    return _call(ufunc, *args, **kwargs)


def _operator(name):
    def operate(self, *others):
        if any(other is None or isinstance(other, (list, tuple, str)) for other in others):
            return NotImplemented
        out = _call(getattr(np.ndarray, name), self, *others)
        if name.startswith("__i") and name != "__invert__":
            _mark(self._a)
            return self
        return out

    operate.__name__ = name
    return operate


_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")
_BINARY += ("and", "or", "xor", "lshift", "rshift", "matmul")
for _name in _BINARY:
    for _prefix in ("", "r", "i"):
        setattr(ndarray, f"__{_prefix}{_name}__", _operator(f"__{_prefix}{_name}__"))
for _name in ["eq", "ne", "lt", "le", "gt", "ge", "neg", "invert", "abs"]:
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))

# ---- functions and methods: the keyword arguments that both libraries have -----------------------------

_UFUNCS = [
    "absolute", "add", "bitwise_and", "bitwise_or", "divide", "equal",
    "exp", "floor", "floor_divide", "greater", "greater_equal", "invert",
    "isfinite", "isinf", "isnan", "left_shift", "less", "less_equal",
    "log", "logical_and", "logical_not", "logical_or", "maximum", "minimum", "mod",
    "multiply", "negative", "not_equal", "power", "right_shift", "rint",
    "sqrt", "subtract", "tanh", "true_divide",
]  # fmt: skip

_FUNCTIONS = {  # name: positional and keyword arguments; * after the name: the host waits for the device
    "all": "a axis out keepdims", "any": "a axis out keepdims", "max": "a axis out keepdims",
    "min": "a axis out keepdims", "sum": "a axis dtype out keepdims", "argmax": "a axis dtype out keepdims",
    "argmin": "a axis dtype out keepdims", "cumsum": "a axis dtype out", "diff": "a n axis",
    "argsort": "a axis kind", "sort": "a axis kind", "searchsorted": "a v side", "where": "condition x y",
    "concatenate": "tup axis out", "stack": "tup axis", "take": "a indices axis out",
    "clip": "a a_min a_max out",
    "count_nonzero": "a axis", "flatnonzero*": "a", "nonzero*": "a",
    "unique*": "ar return_index return_inverse",
    "bincount*": "x weights minlength", "array_equal": "a1 a2", "isin": "element test_elements",
}  # fmt: skip
_METHODS = {
    "all": "axis out keepdims", "any": "axis out keepdims", "max": "axis out keepdims",
    "min": "axis out keepdims", "sum": "axis dtype out keepdims", "argmax": "axis", "argmin": "axis",
    "cumsum": "axis dtype out", "argsort": "axis", "take": "indices axis out",
    "mean": "axis dtype out keepdims", "nonzero*": "",
}  # fmt: skip
_VIEWS = {"reshape": "", "ravel": "", "squeeze": "axis", "transpose": "", "swapaxes": ""}


def _listed(name, parameters, function, view=False):
    """Return a function of NumPy's with only the arguments listed."""
    waiting = name.endswith("*")
    name = name.rstrip("*")
    allowed = parameters.split()

    def call(*args, **kwargs):
        unknown = set(kwargs) - set(allowed)
        if unknown:
            raise TypeError(f"cupy.{name}: unexpected keyword arguments {sorted(unknown)}")
        if waiting or (name == "where" and len(args) + len(kwargs) == 1):
            counts.synchronisations += 1
        return _call(function, *args, view=view, **kwargs)

    call.__name__ = name
    return call


_listed_functions = {}  # not globals: they would hide Python's own any, all, min, max and sum
for _name in _UFUNCS:
    _listed_functions[_name] = functools.partial(_ufunc, getattr(np, _name))
for _name, _parameters in _FUNCTIONS.items():
    _plain = _name.rstrip("*")
    _listed_functions[_plain] = _listed(_name, _parameters, getattr(np, _plain))
for _methods, _is_view in ((_METHODS, False), (_VIEWS, True)):
    for _name, _parameters in _methods.items():
        _plain = _name.rstrip("*")
        setattr(ndarray, _plain, _listed(_name, _parameters, getattr(np.ndarray, _plain), _is_view))


def __getattr__(name):
    if name not in _listed_functions:
        raise AttributeError(f"cupy has no attribute {name!r}, or the stand-in does not know it")
    return _listed_functions[name]


def empty(shape, dtype=float, order="C"):
    """Return uninitialised memory: NaN, or large integers."""
    array = np.empty(shape, _numeric(dtype), order=order)
    if array.size:
        raw = array.reshape(-1, order="A").view(np.uint8)
        raw[:] = np.resize(_POISON, raw.size)
        if current().checked:
            low, size = _extent(array)
            _uninitialised[low] = size, np.zeros(size, np.uint8)
            weakref.finalize(array, _uninitialised.pop, low, None)
    return _array(array)


def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    """Return `empty` memory like an array."""
    shape = prototype.shape if shape is None else shape
    return empty(shape, prototype.dtype if dtype is None else dtype)


def full(shape, fill_value, dtype=None, order="C"):
    """Return an array of one value."""
    _refuse_numpy(fill_value)
    counts.operations += 1
    return _array(np.full(shape, _host(fill_value), None if dtype is None else _numeric(dtype), order))


def zeros(shape, dtype=float, order="C"):
    """Return an array of zeros."""
    return full(shape, 0, dtype)


def ones(shape, dtype=float, order="C"):
    """Return an array of ones."""
    return full(shape, 1, dtype)


def zeros_like(a, dtype=None, order="K", subok=None, shape=None):
    """Return zeros like an array."""
    return full(a.shape if shape is None else shape, 0, a.dtype if dtype is None else dtype)


def full_like(a, fill_value, dtype=None, order="K", subok=None, shape=None):
    """Return an array of one value like an array."""
    return full(a.shape if shape is None else shape, fill_value, a.dtype if dtype is None else dtype)


def arange(start, stop=None, step=1, dtype=None):
    """Return evenly spaced numbers."""
    counts.operations += 1
    return _array(np.arange(start, stop, step, dtype) if stop is not None else np.arange(start, dtype=dtype))


def array(obj, dtype=None, copy=True, order="K"):
    """Return a new array; what is not on the device yet is uploaded."""
    if isinstance(obj, ndarray):
        return _call(np.array, obj, dtype=dtype, order=order)
    host = np.array(obj, dtype=dtype, order=order)
    _numeric(host.dtype)
    counts.uploads += 1
    return _array(host)


def asarray(a, dtype=None, order=None):
    """Return an array on the device: itself if it is one, or another library's, on the same memory."""
    if not isinstance(a, ndarray) and hasattr(a, "__cuda_array_interface__"):
        host = types.SimpleNamespace(__array_interface__=a.__cuda_array_interface__, owner=a)
        return _array(np.asarray(host))
    if isinstance(a, ndarray) and (dtype is None or a.dtype == np.dtype(dtype)):
        return a
    return array(a, dtype)


def ascontiguousarray(a, dtype=None):
    """Return a C-contiguous array: itself if it is one."""
    if isinstance(a, ndarray) and a._a.flags.c_contiguous and dtype in (None, a.dtype):
        return a
    if isinstance(a, ndarray):
        return _call(np.ascontiguousarray, a, dtype=dtype)
    return array(a, dtype, order="C")


def asnumpy(a, stream=None, order="C", out=None):
    """Return a NumPy array of what the device has."""
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def moveaxis(a, source, destination):
    """Return a view with an axis elsewhere."""
    return _call(np.moveaxis, a, source, destination, view=True)


def from_dlpack(array):
    """Return another library's device array on the same memory."""
    if array.__dlpack_device__()[0] != 2:
        raise TypeError("the stand-in takes CUDA arrays only")
    return _array(array.__dlpack__())


def broadcast_to(array, shape):
    """Return a view of another shape."""
    return _call(np.broadcast_to, array, shape, view=True)


def copyto(dst, src):
    """Copy values into an array."""
    dst[...] = src


def get_array_module(*args):
    """Return this module if one of the arrays is on the device, else NumPy."""
    import cupy

    return cupy if any(isinstance(a, ndarray) for a in args) else np


def memoize(for_each_device=False):
    """Return a decorator that remembers results by positional arguments."""
    return functools.cache


# ---- the device ------------------------------------------------------------------------------------


class _Device:
    compute_capability = "80"
    attributes = {  # noqa: RUF012
        "MultiProcessorCount": 8,
        "MaxSharedMemoryPerBlockOptin": _MAX_SHARED,
        "MaxSharedMemoryPerBlock": 48 << 10,
        "WarpSize": 32,
    }

    def __init__(self, device=0):
        self.id = int(device)

    def synchronize(self):
        counts.synchronisations += 1

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


class _Stream(_Device):
    ptr = 0

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        pass


class _Event:
    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.seconds = None

    def record(self, stream=None):
        self.seconds = time.perf_counter()

    def synchronize(self):
        counts.synchronisations += 1


cuda = types.SimpleNamespace(
    Device=_Device,
    Event=_Event,
    get_elapsed_time=lambda begin, end: 1e3 * (end.seconds - begin.seconds),
    Stream=_Stream,
    is_available=lambda: True,
    get_current_stream=_Stream,
    runtime=types.SimpleNamespace(
        getDeviceProperties=lambda device: {"name": b"a CPU that stands for a GPU"},
        getDeviceCount=lambda: 1,
        runtimeGetVersion=lambda: 13000,
        driverGetVersion=lambda: 13010,
        getDevice=lambda: 0,
        deviceSynchronize=_Stream().synchronize,
        is_hip=False,
    ),
)


class RawModule:
    """CUDA text with the kernels that `name_expressions` ask for."""

    def __init__(self, *, code=None, options=(), backend="nvrtc", translate_cucomplex=False, jitify=False,
                 name_expressions=None):  # fmt: skip
        if backend != "nvrtc" or jitify or code is None:
            raise ValueError("the stand-in compiles text, as NVRTC does")
        plain = re.findall(
            r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)', code
        )
        self.code, self.options, self.names = code, tuple(options), (*(name_expressions or ()), *plain)

    def get_function(self, name):
        if name not in self.names:
            raise EmulationError(f"named symbol not found: {name!r}, only {self.names}")
        return RawKernelFunction(self, name)


class RawKernelFunction:
    """A kernel of a module."""

    def __init__(self, module, name):
        self._module, self.name = module, name
        self.max_dynamic_shared_size_bytes = 48 << 10

    def __call__(self, grid, block, args, *, shared_mem=0, stream=None):
        grid, block = _sizes(grid, "grid"), _sizes(block, "block")
        limits = (2**31 - 1, 65535, 65535), (1024, 1024, 64)
        for kind, sizes, limit in zip(("grid", "block"), (grid, block), limits, strict=True):
            if any(not 1 <= size <= most for size, most in zip(sizes, limit, strict=True)):
                raise EmulationError(f"{self.name}: {kind} must be in 1 .. {limit}, got {sizes}")
        if np.prod(block) > 1024:
            raise EmulationError(f"{self.name}: block must have at most 1024 threads, got {block}")
        if not 0 <= shared_mem <= min(self.max_dynamic_shared_size_bytes, _MAX_SHARED):
            raise EmulationError(
                f"{self.name}: shared_mem must be at most max_dynamic_shared_size_bytes "
                f"{self.max_dynamic_shared_size_bytes} (and {_MAX_SHARED}), got {shared_mem}"
            )
        counts.kernels += 1
        counts.launches[self.name] = counts.launches.get(self.name, 0) + 1
        schedule, module = current(), self._module
        library = build.library(module.code, module.names, module.options, schedule.checked)
        _launch(library, self.name, grid, block, args, shared_mem, schedule)


class RawKernel:
    """One plain kernel of a text."""

    def __init__(self, code, name, options=(), backend="nvrtc", translate_cucomplex=False, *, jitify=False):
        self._function = RawModule(code=code, options=options, name_expressions=()).get_function(name)

    def __call__(self, grid, block, args, *, shared_mem=0):
        self._function(grid, block, args, shared_mem=shared_mem)


def _sizes(value, name):
    if not isinstance(value, tuple) or not 1 <= len(value) <= 3:
        raise TypeError(f"{name} must be a tuple of 1 .. 3 ints, got {value!r}")
    return tuple(int(size) for size in value) + (1,) * (3 - len(value))


def _launch(library, name, grid, block, args, shared_mem, schedule):
    kernel = library.kernels[name]
    if len(args) != len(kernel.parameters):
        raise EmulationError(f"{name}: takes {len(kernel.parameters)} arguments, got {len(args)}")
    values = [_argument(name, i, a, *p) for i, (a, p) in enumerate(zip(args, kernel.parameters, strict=True))]
    pointers = (ctypes.c_void_p * max(1, len(values)))(*[v.ctypes.data for v in values])
    regions = _regions(args) if schedule.checked else np.empty((0, 5), np.int64)
    sizes = [(ctypes.c_uint * 3)(*size) for size in (grid, block)]
    plan = np.array([schedule.order, schedule.preempt, schedule.resident, schedule.seed], np.int64)
    error = build.runtime().emu_run(
        kernel.entry, pointers, *sizes, shared_mem, plan.ctypes.data, len(regions), regions.ctypes.data,
        schedule.checked, library.begin, library.size,
    )  # fmt: skip
    if error:
        raise EmulationError(f"{name}: {library.with_lines(error.decode())}")


def _argument(name, i, value, size, element, kind):
    """Return the bytes of an argument, checked against the parameter: CuPy passes them as they are."""
    if isinstance(value, ndarray):
        if not element:
            raise EmulationError(f"{name}: argument {i} must be a number, got an array")
        if not value._a.flags.c_contiguous:
            raise EmulationError(f"{name}: argument {i} must be C-contiguous: kernels see no strides")
        given = value.dtype.kind if value.dtype.kind != "V" else "u"  # bfloat16 goes as its bits
        same = kind == given or {kind, given} <= {"b", "u"} or (kind == "u" and value.itemsize == 2)
        if kind != "V" and (value.itemsize != element or not same):
            raise EmulationError(f"{name}: argument {i} must point to {kind}{element}, got {value.dtype}")
        return np.array([value._a.ctypes.data if value.size else 0], np.uint64)
    if isinstance(value, np.ndarray):
        if value.size != 1:
            raise TypeError(f"{name}: argument {i} is a numpy.ndarray of shape {value.shape}")
        data = np.ascontiguousarray(value)
    elif isinstance(value, (bool, int, float, np.generic)):
        data = np.asarray(value).reshape(1)
    else:
        raise TypeError(f"Unsupported type {type(value)}")
    if element and not (data.itemsize == 8 and not data.any()):
        raise EmulationError(
            f"{name}: argument {i} must be an array (or an 8-byte 0 for none), got {value!r}"
        )
    if data.itemsize != size:
        raise EmulationError(f"{name}: argument {i} must have {size} bytes, got {data.itemsize} ({value!r})")
    if not element and kind != "V" and data.dtype.kind != kind and not {kind, data.dtype.kind} <= {"i", "u"}:
        raise EmulationError(f"{name}: argument {i} must be of kind {kind}, got {value!r}")
    return data


def _regions(args):
    """Return what the kernel may touch, as emu_run takes it; overlapping arguments are one region."""
    arrays = [(a._a.ctypes.data, a.nbytes, a.itemsize, i, a._a) for i, a in enumerate(args)
              if isinstance(a, ndarray) and a.size]  # fmt: skip
    rows = []
    for begin, size, item, i, host in sorted(arrays, key=lambda row: row[:2]):
        if rows and begin < rows[-1][0] + rows[-1][1]:
            rows[-1][1] = max(rows[-1][1], begin + size - rows[-1][0])
            rows[-1][2] = min(rows[-1][2], item)
            rows[-1][3] = 0
            continue
        known = _map_of(host)
        rows.append([begin, size, item, 0 if known is None else known.ctypes.data, i])
    return np.array(rows, np.int64).reshape(-1, 5)
