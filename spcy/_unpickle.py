"""The pickles of PyTorch's checkpoints, read without PyTorch and without running anything that they name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np

# A checkpoint's pickle is a program for a stack machine that can call any function. The machine below knows
# the few operations that dicts, lists, numbers, strings and tensors are written with, and has no call in it:
# a global is a name to look up in the tables below, and reducing one of these makes a record of a tensor.

MAX_PICKLE = 1 << 22  # bytes: some ten thousand tensors; each may become an object of 100 times its size
MAX_AXES = 32
MAX_NAME = 1 << 10  # characters of a key: equal ones are compared again and again
DTYPES = {
    "torch.float16": "float16",
    "torch.float32": "float32",
    "torch.float64": "float64",
    "torch.bfloat16": "bfloat16",
    "torch.float8_e4m3fn": "float8_e4m3fn",
    "torch.float8_e5m2": "float8_e5m2",
    "torch.int8": "int8",
    "torch.int16": "int16",
    "torch.int32": "int32",
    "torch.int64": "int64",
    "torch.uint8": "uint8",
    "torch.uint16": "uint16",
    "torch.uint32": "uint32",
    "torch.uint64": "uint64",
    "torch.bool": "bool",
}
STORAGES = {
    "torch.HalfStorage": "float16",
    "torch.FloatStorage": "float32",
    "torch.DoubleStorage": "float64",
    "torch.BFloat16Storage": "bfloat16",
    "torch.CharStorage": "int8",
    "torch.ShortStorage": "int16",
    "torch.IntStorage": "int32",
    "torch.LongStorage": "int64",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.UntypedStorage": "uint8",
    "torch.storage.UntypedStorage": "uint8",
}


class Storage(NamedTuple):
    """A record of the archive, and how many items of which dtype it is said to hold."""

    key: str
    dtype: str
    num_items: int


class Tensor(NamedTuple):
    """What a tensor is made of: a strided view of a storage, checked to lie within it."""

    storage: Storage
    dtype: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Global(NamedTuple):
    """The name of a class or function; nothing is looked up by it but the tables of this module."""

    name: str


def itemsize(dtype: str) -> int:
    """Return the bytes of an item; ml_dtypes need not be there."""
    return 1 if dtype.startswith("float8") else 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def unpickle(file: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """Return the object that the pickle at a file's position describes, and the storages it names.

    Objects are dicts, lists, tuples, numbers, strings, None and `Tensor` records. Raises ValueError: for a
    global, by its name.
    """
    try:
        return _run(file)
    except Refused as error:
        raise ValueError(*error.args) from None
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"malformed pickle ({type(error).__name__}: {reason})") from error


class Refused(Exception):
    """Something that a checkpoint of weights has no need of."""


_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_STRINGS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _run(file: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """Run the stack machine."""
    storages: dict[str, Storage] = {}
    import pickletools

    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def items(start: int) -> list[Any]:
        if start < 0:
            raise IndexError("the stack is empty")
        taken = stack[start:]
        del stack[start:]
        return taken

    argument: Any
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in _NUMBERS or name in _STRINGS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            stack.append(tuple(items(len(stack) - _TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(items(marks.pop())))
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[_short(argument)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("APPEND", "APPENDS"):
            new = items(len(stack) - 1 if name == "APPEND" else marks.pop())
            _expect(stack[-1], list).extend(new)
        elif name in ("SETITEM", "SETITEMS"):
            new = items(len(stack) - 2 if name == "SETITEM" else marks.pop())
            target = _expect(stack[-1], dict)
            for key, value in zip(new[::2], new[1::2], strict=True):
                target[_key(key)] = value
        elif name == "GLOBAL":
            stack.append(_global(argument.replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            stack.append(_global(".".join(_expect(part, str) for part in items(len(stack) - 2))))
        elif name == "INST":
            _global(argument.replace(" ", "."))
            raise Refused(f"it has the pickle operation INST, which {_ONLY}")
        elif name == "BINPERSID":
            storage = _storage(*_expect(stack.pop(), tuple))
            if storages.setdefault(storage.key, storage) != storage:
                raise ValueError(f"two storages have the key {storage.key[:40]!r}")
            stack.append(storage)
        elif name == "REDUCE":
            function, arguments = items(len(stack) - 2)
            stack.append(_REDUCE[_expect(function, Global).name](*_expect(arguments, tuple)))
        elif name == "BUILD":  # attributes of an OrderedDict: the versions of its modules
            _expect(stack.pop(), dict)
            _expect(stack[-1], dict)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise Refused(f"it has the pickle operation {name}, which {_ONLY}")
    (content,) = stack
    return content, storages


_ONLY = "is no part of tensors, dicts, lists, tuples, numbers or strings; it was not run"


def _global(name: str) -> Global:
    """Return a name of the tables below, and refuse any other."""
    if all(name not in table for table in (_REDUCE, STORAGES, DTYPES, _TYPES)):
        raise Refused(f"it names {name[:200]!r}, which {_ONLY}")
    return Global(name)


def _expect(value: Any, *types: type) -> Any:
    """Return a value of one of these very types."""
    if type(value) not in types:
        raise TypeError(f"expected {' or '.join(t.__name__ for t in types)}, got {type(value).__name__}")
    return value


def _short(number: int) -> int:
    """Return a number of at most 32 bits: of longer ones any many can be made that hash alike."""
    if number.bit_length() > 32:
        raise Refused(f"it has a number of {number.bit_length()} bits where 32 are the most")
    return number


def _key(value: Any) -> Any:
    """Return the key of a dict or a storage, of a kind that is looked up and compared at once."""
    if type(value) not in (str, int, bool, type(None)):
        raise Refused(f"it has a dict with a key of type {type(value).__name__}, expected names or numbers")
    if type(value) is str and len(value) > MAX_NAME:
        raise Refused(f"the name {value[:80]!r}.. has more than {MAX_NAME} characters")
    return _short(value) if type(value) is int else value


def _storage(tag: Any, kind: Any, key: Any, location: Any, num_items: Any, view: None = None) -> Storage:
    """Return the storage that a persistent id means."""
    if _expect(tag, str) != "storage":
        raise ValueError(f"a persistent id must be of a storage, got {tag[:40]!r}")
    if not 0 <= _expect(num_items, int) <= sys.maxsize:  # numbers of any length are slow to multiply
        raise ValueError("a storage of fewer items than none, or more than any")
    if view is not None:
        raise ValueError("a storage that is part of another")
    return Storage(_key(_expect(key, str)), STORAGES[_expect(kind, Global).name], num_items)


# The arguments are named one by one, as a call with any many would copy them.


def _tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    grad: Any = None,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    """Return a tensor of its storage's dtype; whether it needs gradients does not matter here."""
    _require_plain(metadata)
    return _view(storage, _expect(storage, Storage).dtype, offset, size, stride)


def _tensor_of_dtype(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> Tensor:
    """Return a tensor that says its dtype, its storage being bytes."""
    _require_plain(metadata)
    dtype = DTYPES[_expect(dtype, Global).name]
    return _view(_expect(storage, Storage), dtype, offset, size, stride)


def _require_plain(metadata: Any) -> None:
    """Refuse views that PyTorch negates or conjugates as it reads them."""
    said = [] if metadata is None else [key for key, value in _expect(metadata, dict).items() if value]
    if said:
        raise Refused(
            f"it has a tensor with the metadata {str(said[:3])[:80]}, whose values differ "
            "from its storage's; save tensor.resolve_neg().resolve_conj()"
        )


def _view(storage: Storage, dtype: str, offset: Any, size: Any, stride: Any) -> Tensor:
    """Return a tensor whose every item lies in its storage."""
    if dtype != storage.dtype and storage.dtype != "uint8":
        raise TypeError(f"a tensor of {dtype} on a storage of {storage.dtype}")
    num_items = storage.num_items * itemsize(storage.dtype) // itemsize(dtype)
    size, stride = _expect(size, tuple), _expect(stride, tuple)
    if len(size) > MAX_AXES:
        raise ValueError(f"a tensor of {len(size)} axes")
    if len(stride) != len(size):
        raise ValueError(f"a tensor of {len(size)} axes with {len(stride)} strides")
    numbers = [_expect(number, int) for number in (offset, *size, *stride)]
    if max(number.bit_length() for number in numbers) > 128:  # numbers of any length are slow to multiply
        raise ValueError("a tensor with a size, a stride or an offset of more than 128 bits")
    inside = min(numbers) >= 0 and max(numbers) <= sys.maxsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if not inside or (0 not in size and last >= num_items):
        raise Refused(
            f"a tensor of size {size}, stride {stride} and offset {offset} does not lie in its storage of "
            f"{num_items} items"
        )
    return Tensor(storage, dtype, offset, size, stride)


def _parameter(data: Any, grad: Any = None, hooks: Any = None, state: Any = None) -> Tensor:
    """Return the tensor that a Parameter wraps."""
    return _expect(data, Tensor)


def _of_type(rebuild: Any, kind: Any, arguments: Any, state: Any) -> Tensor:
    """Return a Buffer's tensor, or one that has attributes, which do not matter here."""
    if _expect(kind, Global).name not in _TYPES or _expect(rebuild, Global).name not in _TENSORS:
        raise ValueError(f"a tensor of the type {kind.name}, rebuilt by {rebuild.name}")
    return _TENSORS[rebuild.name](*_expect(arguments, tuple))


def _ordered_dict() -> dict[Any, Any]:
    """Return an empty dict, which later operations fill."""
    return {}


def _size(items: Any) -> tuple[Any, ...]:
    """Return a torch.Size as the tuple that it is."""
    return _expect(items, tuple)


_TYPES = ("torch.Tensor", "torch.nn.parameter.Buffer")
_TENSORS: dict[str, Callable[..., Tensor]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
}
_REDUCE: dict[str, Callable[..., Any]] = {
    **_TENSORS,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _size,
}
