"""Checks of arguments: every message that a user can get for a bad one."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ._backend import Backend, array_beside, array_module, as_array, backend_of, host_array, is_bfloat16

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
INT32 = np.iinfo(np.int32)
MAX_ROWS = INT32.max
MAX_NDIM = 4


def indices(value: ArrayLike, beside: Backend | None = None) -> np.ndarray:
    """Return coordinates as a new, C-contiguous int32 array of shape (N, 1 + D)."""
    name = "indices"
    array = as_array(value, name) if beside is None else array_beside(value, name, beside)
    if array.size == 0 and array.ndim == 2 and not hasattr(value, "dtype"):
        array = array.astype(np.int32)  # np.asarray([[], ..]) is float64
    if array.ndim != 2 or not 2 <= array.shape[1] <= 1 + MAX_NDIM:
        raise ValueError(
            f"{name} must have shape (N, 1 + D) with D = 1, 2, 3 or 4 (column 0 is the batch), "
            f"got shape {array.shape}"
        )
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must have an integer dtype, got {array.dtype}")
    if array.shape[0] > MAX_ROWS:
        raise ValueError(f"{name} must have at most {MAX_ROWS} rows, got {array.shape[0]}")
    if not np.can_cast(array.dtype, np.int32):
        bad = first_row(((array < INT32.min) | (array > INT32.max)).any(axis=1))
        if bad is not None:
            raise ValueError(f"{name} must fit in int32, got {array[bad].tolist()} in row {bad}")
    return array_module(array).array(array, dtype=np.int32, order="C")


def first_row(bad: Any) -> int | None:
    """Return the first True row of a mask, or None."""
    return int(bad.argmax()) if bad.any() else None


def finite_points(points: np.ndarray, bad: np.ndarray) -> None:
    """Raise for the first point that a mask says is not finite."""
    row = first_row(bad)
    if row is not None:
        raise ValueError(f"points must be finite, got {points[row].tolist()} in row {row}")


def features(value: ArrayLike, num_rows: int, backend: Backend, each: str = "site") -> np.ndarray:
    """Return a (num_rows, C) array of a feature dtype, native and C-contiguous."""
    array = as_array(value, "features", backend)
    if array.ndim != 2 or array.shape[1] < 1:
        raise ValueError(f"features must have shape (N, C) with C >= 1, got shape {array.shape}")
    if array.shape[0] != num_rows:
        raise ValueError(f"features must have {num_rows} rows, one per {each}, got {array.shape[0]}")
    return feature_values(array, "features")


def feature_values(array: np.ndarray, name: str) -> np.ndarray:
    """Return an array of a feature dtype, native and C-contiguous."""
    native = array.dtype.newbyteorder("=")
    if is_bfloat16(native) or native == np.float16:
        return contiguous(array, native)
    return floats(array, name, "float32, float64, float16 or bfloat16")


def state_names(state: Mapping[Any, Any]) -> None:
    """Raise unless every key of a state is a name."""
    for name in state:
        if not isinstance(name, str):
            kind = type(name).__name__
            raise TypeError(f"state must have names as keys, got {str(name)[:80]} of type {kind}")


def floats(array: np.ndarray, name: str, expected: str = "float32 or float64") -> np.ndarray:
    """Return a float32 or float64 array, native and C-contiguous."""
    native = array.dtype.newbyteorder("=")
    if native not in FLOATS:
        raise TypeError(f"{name} must have dtype {expected}, got {array.dtype}")
    return contiguous(array, native)


def like_features(array: np.ndarray, name: str, dtype: np.dtype) -> np.ndarray:
    """Return an array of the features' dtype, native and C-contiguous."""
    if array.dtype != dtype and array.dtype.newbyteorder("=") != dtype:
        raise TypeError(f"{name} must have dtype {dtype}, as the features have, got {array.dtype}")
    return contiguous(array, dtype)


def contiguous(array: Any, dtype: np.dtype) -> np.ndarray:
    """Return an array as the kernels read it, itself if it is: of a dtype, C-contiguous, aligned."""
    if array.dtype != dtype or not array.flags.c_contiguous:
        array = array_module(array).ascontiguousarray(array, dtype=dtype)
    on_host = isinstance(array, np.ndarray)
    aligned = array.flags.aligned if on_host else array.data.ptr % dtype.itemsize == 0
    return array if aligned else array.copy()


def integer(value: Any, name: str) -> int:
    """Return an int argument."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {type(value).__name__}") from None


def ndim(value: int) -> int:
    """Return a number of spatial axes that coordinates can have."""
    number = integer(value, "ndim")
    if not 1 <= number <= MAX_NDIM:
        raise ValueError(f"ndim must be 1, 2, 3 or 4, got {number}")
    return number


def per_axis(value: int | Sequence[int], ndim: int, name: str, least: int) -> tuple[int, ...]:
    """Return an int, or one int per axis, as a tuple of `ndim` ints."""
    if type(value) is int:  # what it is most often: a call costs little
        values = (value,) * ndim
    elif isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) and np.ndim(value):
        values = tuple(integer(v, name) for v in value)
        if len(values) != ndim:
            raise ValueError(f"{name} must be an int or {ndim} ints, one per axis, got {value!r}")
    else:
        values = (integer(value, name),) * ndim
    if min(values) < least or max(values) > INT32.max:
        raise ValueError(f"{name} must be at least {least} (and fit in int32), got {value!r}")
    return values


def shape(value: Sequence[int], ndim: int) -> tuple[int, ...]:
    """Return a grid shape of `ndim` axes."""
    message = f"shape must be {ndim} ints, one per spatial axis, or None, got {value!r}"
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, str) or not np.ndim(value):
        raise TypeError(message)
    if len(value) != ndim:
        raise ValueError(message)
    return per_axis(value, ndim, "shape", 1)


def out_shape(value: tuple[int, ...]) -> None:
    """Refuse an output shape whose indices have no int32."""
    if max(value) > INT32.max:
        raise ValueError(f"shape of the output must fit in int32, got {value}")


def offsets(value: ArrayLike, ndim: int) -> np.ndarray:
    """Return kernel offsets as an int64 array of shape (K, D)."""
    array = host_array(value, "offsets")
    if array.ndim != 2 or array.shape[1] != ndim or array.shape[0] < 1:
        raise ValueError(f"offsets must have shape (K, {ndim}) with K >= 1, got shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"offsets must have an integer dtype, got {array.dtype}")
    bad = first_row(((array < -INT32.max) | (array > INT32.max)).any(axis=1))
    if bad is not None:
        raise ValueError(f"offsets must fit in int32, got {array[bad].tolist()} in row {bad}")
    array = np.array(array, dtype=np.int64, order="C")
    _, first, counts = np.unique(array, axis=0, return_index=True, return_counts=True)
    if (counts > 1).any():
        twin = array[first[counts > 1][0]]
        rows = np.flatnonzero((array == twin).all(axis=1))
        raise ValueError(f"offsets must differ, got {twin.tolist()} in rows {rows[0]} and {rows[1]}")
    return array


def weight(
    value: ArrayLike, ndim: int, channels: int, groups: int, dtype: np.dtype, backend: Backend, box: bool
) -> np.ndarray:
    """Return a (*kernel_size, C_in // groups, C_out) weight of the features' dtype, where they are.

    (K, C_in // groups, C_out) if it is not that of a box. On the CPU it may be a view of any layout.
    """
    array = array_beside(value, "weight", backend)
    axes = ndim if box else 1
    if array.ndim != axes + 2:
        cells = f"*kernel_size, .., C_out) for {ndim} spatial axes" if box else "K, .., C_out) for K offsets"
        raise ValueError(
            f"weight must have {axes + 2} axes, ({cells.replace('..', 'C_in // groups')}, "
            f"got shape {array.shape}"
        )
    if min(array.shape) < 1:
        raise ValueError(f"weight must have no axis of length 0, got shape {array.shape}")
    if channels % groups or array.shape[-1] % groups:
        raise ValueError(
            f"groups must divide the numbers of channels, got {groups} for {channels} of x and "
            f"{array.shape[-1]} of the output"
        )
    if array.shape[-2] != channels // groups:
        words = f"C_in // groups = {channels // groups}, for {channels} channels of x in {groups} groups"
        if groups == 1:
            words = f"C_in = {channels}, the channels of x"
        raise ValueError(f"weight must have {words}, on its axis {axes}, got shape {array.shape}")
    whole = not any(step % dtype.itemsize for step in array.strides)
    if backend == "cpu" and array.dtype == dtype and array.flags.aligned and whole:
        return array
    return like_features(array, "weight", dtype)


def bias(value: ArrayLike | None, channels: int, dtype: np.dtype, backend: Backend) -> np.ndarray | None:
    """Return a (C_out,) bias of the features' dtype, where they are, or None."""
    if value is None:
        return None
    array = array_beside(value, "bias", backend)
    if array.shape != (channels,):
        raise ValueError(f"bias must have shape ({channels},), one per output channel, got {array.shape}")
    return like_features(array, "bias", dtype)


def groups(value: int, in_channels: int, out_channels: int) -> int:
    """Return a number of groups that divides both numbers of channels."""
    number = per_axis(value, 1, "groups", 1)[0]
    if in_channels % number or out_channels % number:
        raise ValueError(f"groups must divide {in_channels} and {out_channels} channels, got {number}")
    return number


def feature_dtype(value: DTypeLike) -> np.dtype:
    """Return a dtype that features can have."""
    dtype = np.dtype(value).newbyteorder("=")
    if dtype not in (*FLOATS, np.float16) and not is_bfloat16(dtype):
        raise TypeError(f"dtype must be float32, float64, bfloat16 or float16, got {dtype}")
    return dtype


def gradient(value: ArrayLike, y: np.ndarray) -> np.ndarray:
    """Return the gradient of an array, of its shape and dtype, where it is."""
    array = array_beside(value, "dy", backend_of(y))
    if array.shape != y.shape:
        raise ValueError(f"dy must have shape {y.shape}, as what it is the gradient of, got {array.shape}")
    return like_features(array, "dy", y.dtype)


def labels(value: ArrayLike, logits: np.ndarray, ignored: int) -> np.ndarray:
    """Return the class of each row of logits, where they are; one number says that a row does not count."""
    array = array_beside(value, "labels", backend_of(logits))
    num_rows, classes = logits.shape
    if array.shape != (num_rows,):
        raise ValueError(f"labels must have shape ({num_rows},), one per row of logits, got {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"labels must have an integer dtype, got {array.dtype}")
    bad = first_row(((array < 0) | (array >= classes)) & (array != ignored))
    if bad is not None:
        raise ValueError(
            f"labels must be 0 .. {classes - 1} or {ignored}, got {int(array[bad])} in row {bad}"
        )
    return array.astype(np.int64)


def class_weight(value: ArrayLike, classes: int) -> np.ndarray:
    """Return one weight per class, finite and not negative."""
    weight = lengths(value, classes, "weight")
    if (weight < 0).any():
        raise ValueError(f"weight must not be negative, got {value!r}")
    return weight


def points(value: ArrayLike, beside: Backend | None = None) -> np.ndarray:
    """Return an (M, D) array of points, native and C-contiguous."""
    array = as_array(value, "points") if beside is None else array_beside(value, "points", beside)
    if array.ndim != 2 or not 1 <= array.shape[1] <= MAX_NDIM:
        raise ValueError(f"points must have shape (M, D) with D = 1, 2, 3 or 4, got shape {array.shape}")
    if array.shape[0] > MAX_ROWS:
        raise ValueError(f"points must have at most {MAX_ROWS} rows, got {array.shape[0]}")
    return floats(array, "points")


def point_batch(value: ArrayLike | None, num_points: int, backend: Backend) -> np.ndarray | None:
    """Return the (M,) int32 batch index of each point, or None."""
    if value is None:
        return None
    array = as_array(value, "batch", backend)
    if array.shape != (num_points,):
        raise ValueError(f"batch must have shape ({num_points},), one per point, got {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"batch must have an integer dtype, got {array.dtype}")
    bad = first_row((array < 0) | (array >= INT32.max))
    if bad is not None:
        raise ValueError(f"batch must be at least 0 and fit in int32, got {int(array[bad])} in row {bad}")
    return contiguous(array, np.dtype(np.int32))


def lengths(value: ArrayLike, ndim: int, name: str) -> np.ndarray:
    """Return one finite float per axis."""
    array = host_array(value, name)
    if array.dtype.kind not in "iuf" or array.ndim > 1 or (array.ndim == 1 and array.shape != (ndim,)):
        raise ValueError(f"{name} must be a number or {ndim} numbers, one per axis, got {value!r}")
    out = np.broadcast_to(array.astype(np.float64), (ndim,)).copy()
    if not np.isfinite(out).all():
        raise ValueError(f"{name} must be finite, got {value!r}")
    return out


def choice(value: str, choices: Sequence[str], name: str) -> str:
    """Return one of a few names."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value
