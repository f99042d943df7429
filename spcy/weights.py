"""Weights from files: safetensors, NumPy's npz and PyTorch's checkpoints."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from ._checkpoint import numpy_dtype, open_checkpoint
from ._files import is_panic
from ._unpickle import MAX_NAME, Tensor

_MAX_DEPTH, _MAX_ENTRIES = 32, 1 << 17  # of dicts in dicts
_ALWAYS_UNPACKED = 1 << 26  # bytes that a compressed npz may unpack to, however small it is
_MOST_COMPRESSED = 20  # times: weights hardly compress


def load_weights(path: str | os.PathLike[str], key: str | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of a file of weights, by name. Nothing that the file holds is executed.

    Parameters
    ----------
    path : str or path
        ``.safetensors``; ``.npz``; or ``.pth``, ``.pt``, ``.ckpt``, a checkpoint of ``torch.save``, read
        without PyTorch: of tensors and Parameters in dicts, lists and tuples, beside numbers and
        strings. The package safetensors reads the first, and ml_dtypes adds bfloat16 arrays, and of
        checkpoints float8 (``pip install "spcy[weights]"``).
    key : str, optional
        Take only what lies in this dict of a checkpoint, or has names that start with it and a dot, and
        leave it out of the names: of ``{"model_state": {"conv.weight": ..}, "epoch": 3}``,
        ``key="model_state"`` gives ``{"conv.weight": ..}``.

    Returns
    -------
    dict of str to ndarray
        In the order of the file. Arrays in dicts in dicts have the names of all of them, joined with
        dots. Arrays are read-only, and share memory where tensors share storage.

    Raises
    ------
    FileNotFoundError, OSError
        If there is no such file, or it cannot be read.
    ValueError
        If the file is of another kind, damaged, holds something else than weights (the message names the
        class or function that a checkpoint wants), or an array's name occurs twice; or if `key` is not
        given and something beside arrays stands in the file (the message says which keys hold
        arrays), or nothing lies under `key`.
    ImportError
        If a package that the file needs is missing.

    Examples
    --------
    >>> import numpy as np, os, spcy, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     np.savez(path, **{"conv.weight": np.ones((3, 1, 2)), "conv.bias": np.zeros(2)})
    ...     state = spcy.load_weights(path)
    >>> {name: array.shape for name, array in state.items()}
    {'conv.weight': (3, 1, 2), 'conv.bias': (2,)}
    """
    path = Path(path)
    if key is not None and (not isinstance(key, str) or not key):
        raise TypeError(f"key must be a name or None, got {key!r}")
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path}: unknown kind of weights {path.suffix!r}, expected {', '.join(_READERS)}")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, expected a file of weights")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise ValueError(f"{path}: is a pipe or a device, expected a file")
    with explaining(path):
        arrays = read(path, key)
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def _read_safetensors(path: Path, key: str | None) -> dict[str, np.ndarray]:
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ImportError('safetensors files need safetensors: pip install "spcy[weights]"') from error
    with safe_open(path, "numpy") as file:
        names = list(file.keys())

        def load(name: str) -> np.ndarray:
            dtype = file.get_slice(name).get_dtype()
            if dtype == "BF16":
                numpy_dtype("bfloat16")  # safetensors asks NumPy for it, which has it from ml_dtypes
            try:
                return file.get_tensor(name)
            except AttributeError as error:  # of NumPy, by the name of a dtype that it lacks
                raise ValueError(f"{name[:80]!r} has dtype {dtype}, which safetensors cannot read") from error

        return _collect(zip(names, names, strict=True), key, load)


def _read_npz(path: Path, key: str | None) -> dict[str, np.ndarray]:
    with open_npz(path) as file:
        return _collect(zip(file.files, file.files, strict=True), key, file.__getitem__)


def _read_checkpoint(path: Path, key: str | None) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        checkpoint = open_checkpoint(file, path.stat().st_size)
        if type(checkpoint.content) is not dict:
            kind = type(checkpoint.content).__name__
            raise ValueError(f"it holds an object of type {kind}, expected a dict of arrays")
        leaves = list(_leaves(checkpoint.content))
        chosen = [leaf for leaf in leaves if leaf[0].startswith(_prefix(key))]
        for name, leaf in chosen:
            if not isinstance(leaf, Tensor):
                kind = type(leaf).__name__
                raise ValueError(
                    f"it holds more than arrays: {name[:80]!r} is of type {kind}{_say_keys(leaves)}"
                )
        return _collect(leaves, key, checkpoint.array)


def _leaves(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield all that is no dict by its dotted name."""
    visited = itertools.count()

    def walk(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
        if depth > _MAX_DEPTH or next(visited) > _MAX_ENTRIES:  # dicts can hold themselves
            raise ValueError(f"it has dicts more than {_MAX_DEPTH} deep or more than {_MAX_ENTRIES} entries")
        if len(name) > MAX_NAME:
            raise ValueError(f"the name {name[:80]!r}.. has more than {MAX_NAME} characters")
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(f"{name}.{key}" if name else str(key), inner, depth + 1)
        else:
            yield name, value

    return walk("", content, 0)


def _say_keys(leaves: list[tuple[str, Any]]) -> str:
    """Return which keys give arrays and nothing else."""
    kinds: dict[str, list[bool]] = {}
    for name, leaf in leaves:
        key, dot, _ = name.partition(".")
        if dot:
            kinds.setdefault(key, []).append(isinstance(leaf, Tensor))
    good = [f"key={key[:80]!r} ({len(found)} arrays)" for key, found in kinds.items() if all(found)]
    return "; choose a part of it: " + ", ".join(good[:20]) if good else ""


def _prefix(key: str | None) -> str:
    return "" if key is None else f"{key}."


def _collect(
    leaves: Iterable[tuple[str, Any]], key: str | None, load: Callable[[Any], np.ndarray]
) -> dict[str, np.ndarray]:
    """Load the arrays under a key, by their names there."""
    prefix = _prefix(key)
    arrays: dict[str, np.ndarray] = {}
    starts: dict[str, None] = {}
    for name, leaf in leaves:
        starts[name.partition(".")[0]] = None
        if name.startswith(prefix):
            inner = name[len(prefix) :]
            if inner in arrays:
                raise ValueError(f"the name {inner[:80]!r} occurs twice")
            arrays[inner] = load(leaf)
    if key is not None and not arrays:
        raise ValueError(
            f"no name starts with key={key!r} and a dot; they start with "
            f"{[start[:80] for start in list(starts)[:20]]}"
        )
    return arrays


@contextmanager
def open_npz(path: Path) -> Iterator[Any]:
    """Open an npz, and raise unless all that it holds are arrays of the size that their headers say.

    NumPy's reader allocates what a header says before it looks for as many bytes.
    """
    import zipfile

    with path.open("rb") as file:
        size = path.stat().st_size
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(record.file_size for record in archive.infolist())
            if unpacked > max(_ALWAYS_UNPACKED, _MOST_COMPRESSED * size):
                raise ValueError(f"its {size} bytes are said to unpack to {unpacked}")
            for record in archive.infolist():
                check_npy(archive, record)
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            yield arrays


def check_npy(archive: Any, record: Any, records: bool = False) -> None:
    """Raise ValueError unless a member is an array of numbers or text of the size that its header says.

    `records` allows an array of records too, of whatever but Python's objects.
    """
    if record.compress_type not in (0, 8):  # stored, deflated: others may want any memory before they start
        raise ValueError(f"{record.filename[:80]} is packed in a way that NumPy never does")
    with archive.open(record) as file:
        try:
            shape, dtype = _npy_header(file)
        except ValueError as error:
            raise ValueError(f"{record.filename[:80]}: {str(error)[:160]}") from error
        expected = file.tell() + prod(shape) * dtype.itemsize
    known = dtype.kind in "biufcU" or (records and dtype.names is not None and not dtype.hasobject)
    if not known or dtype.itemsize == 0:
        raise ValueError(f"{record.filename[:80]} must be an array of numbers, got dtype {dtype}")
    if record.file_size != expected:
        raise ValueError(
            f"{record.filename[:80]} must have {expected} bytes by its header, got {record.file_size}"
        )


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Turn whatever a reader raises for a malformed file into one kind of error that names the file."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{path}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except MemoryError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        if isinstance(error, OSError) and error.filename is not None:  # not of a position in the file
            raise
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"{path}: damaged file ({type(error).__name__}: {reason})") from error


_READERS = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": _read_checkpoint,
    ".pt": _read_checkpoint,
    ".ckpt": _read_checkpoint,
}
