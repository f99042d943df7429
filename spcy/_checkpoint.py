"""PyTorch's checkpoints, read without PyTorch and without running anything that they name."""

from __future__ import annotations

import io
import sys
from math import prod
from typing import Any, BinaryIO, Literal

import numpy as np

from ._unpickle import Storage, Tensor, itemsize, unpickle

MAX_PICKLE = 1 << 22  # bytes: some ten thousand tensors; each may become an object of 100 times its size
_ALWAYS_EXPANDED = 1 << 26  # bytes that strides of 0, which can repeat an item for ever, may make of less
_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # a pickled number: how files before PyTorch 1.6 start


class Checkpoint:
    """What a checkpoint holds, and the arrays of its tensors.

    Raises ValueError where a file is not what ``torch.save`` writes.

    Attributes
    ----------
    content : object
        Dicts, lists, tuples, numbers, strings, None and `Tensor` records.
    """

    content: Any

    def __init__(self, size: int, byteorder: str):
        self._size = size
        self._swapped = byteorder != sys.byteorder
        self._arrays: dict[tuple[str, np.dtype], np.ndarray] = {}
        self._records: dict[str, bytes] = {}

    def array(self, tensor: Tensor) -> np.ndarray:
        """Return a tensor as a read-only view of its storage."""
        dtype = numpy_dtype(tensor.dtype)
        if prod(tensor.size) * dtype.itemsize > max(self._size, _ALWAYS_EXPANDED):
            raise ValueError(f"a tensor of size {tensor.size} is larger than the file")
        items = self._items(tensor.storage, dtype)
        if 0 in tensor.size:
            return np.empty(tensor.size, dtype)
        strides = tuple(step * dtype.itemsize for step in tensor.stride)
        array = np.ndarray(tensor.size, dtype, items, tensor.offset * dtype.itemsize, strides)
        array.flags.writeable = False
        return array

    def _items(self, storage: Storage, dtype: np.dtype) -> np.ndarray:
        """Return a storage as unsigned integers of a dtype's size; its record is read once."""
        key = storage.key
        if (key, dtype) not in self._arrays:
            if key not in self._records:
                self._records[key] = self._record(storage)
            data = self._records[key]
            if len(data) != storage.num_items * itemsize(storage.dtype):
                raise ValueError(
                    f"record data/{key[:40]} must hold {storage.num_items} {storage.dtype}, got {len(data)} "
                    "bytes"
                )
            items = np.frombuffer(data, f"u{dtype.itemsize}", len(data) // dtype.itemsize)
            if self._swapped:
                items = items.byteswap()
            self._arrays[key, dtype] = items != 0 if dtype == np.bool_ else items
        return self._arrays[key, dtype]

    def _record(self, storage: Storage) -> bytes:
        """Read the bytes of a storage."""
        raise NotImplementedError


class _ZipCheckpoint(Checkpoint):
    """A zip archive of a pickle and a record for each storage: PyTorch 1.6 and later."""

    def __init__(self, file: BinaryIO, size: int):
        import zipfile

        self._zip = zipfile.ZipFile(file)
        names = self._zip.namelist()
        twins = len(names) - len(set(names))
        if twins:
            raise ValueError(f"{twins} records have the name of another one")
        roots = [name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1 or not roots[0] or "/" in roots[0]:
            raise ValueError("not a zip checkpoint of torch.save: it has no data.pkl, or several")
        if f"{roots[0]}/constants.pkl" in names:
            raise ValueError("a TorchScript archive, expected what torch.save(model.state_dict(), ..) writes")
        self._root = roots[0]
        records = self._zip.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ValueError("its records are compressed, which torch.save never does")
        if sum(record.file_size for record in records) > size:
            raise ValueError("its records are said to hold more bytes than the file")
        byteorder = "little"
        if f"{self._root}/byteorder" in names:
            byteorder = self._read("byteorder").decode("ascii", "replace")
        if byteorder not in ("little", "big"):
            raise ValueError(f"byteorder must be 'little' or 'big', got {byteorder[:20]!r}")
        super().__init__(size, byteorder)
        if self._zip.getinfo(f"{self._root}/data.pkl").file_size > MAX_PICKLE:
            raise ValueError(f"data.pkl has more than {MAX_PICKLE} bytes")
        self.content, _ = unpickle(io.BytesIO(self._read("data.pkl")))

    def _record(self, storage: Storage) -> bytes:
        return self._read(f"data/{storage.key}")

    def _read(self, name: str) -> bytes:
        try:
            return self._zip.read(f"{self._root}/{name}")
        except KeyError:
            raise ValueError(f"record {name[:80]} is missing") from None


class _PlainCheckpoint(Checkpoint):
    """Five pickles, then the storages one after the other: PyTorch before 1.6.

    The pickles are a magic number, the version, the machine, what was saved, and the keys of the storages.
    Each storage is its number of items, as 8 bytes, and the items.
    """

    def __init__(self, file: BinaryIO, size: int):
        start = file.tell()
        pickles = io.BytesIO(file.read(MAX_PICKLE))
        (_, _), (version, _), (machine, _) = (unpickle(pickles) for _ in range(3))
        if version != 1001 or type(machine) is not dict:
            raise ValueError("its version must be 1001")
        super().__init__(size, "little" if machine.get("little_endian") is True else "big")
        self.content, storages = unpickle(pickles)
        keys, _ = unpickle(pickles)
        if (
            type(keys) is not list
            or any(type(key) is not str for key in keys)
            or sorted(keys) != sorted(storages)
        ):
            raise ValueError("its storages are not those that its tensors want")
        self._file = file
        self._places: dict[str, int] = {}
        place = start + pickles.tell()
        order: Literal["little", "big"] = "little" if (sys.byteorder == "little") != self._swapped else "big"
        for key in keys:
            storage = storages[key]
            file.seek(place)
            count = int.from_bytes(file.read(8), order)
            if count != storage.num_items:
                raise ValueError(f"record {key[:40]} must hold {storage.num_items} items, got {count}")
            self._places[key] = place + 8
            place += 8 + count * itemsize(storage.dtype)
        if place != size:
            raise ValueError(f"its storages must end with the file, at {size} bytes, got {place}")

    def _record(self, storage: Storage) -> bytes:
        self._file.seek(self._places[storage.key])
        return self._file.read(storage.num_items * itemsize(storage.dtype))


def open_checkpoint(file: BinaryIO, size: int) -> Checkpoint:
    """Return what a file of so many bytes holds; it must stay open while arrays are asked for."""
    start = file.read(512)
    file.seek(0)
    if start.startswith(_MAGIC):
        return _PlainCheckpoint(file, size)
    if start[257:262] == b"ustar":
        raise ValueError("a tar archive, as PyTorch before 0.1.10 wrote, expected a checkpoint of torch.save")
    if not start.startswith(b"PK"):
        raise ValueError("not a checkpoint of torch.save")
    return _ZipCheckpoint(file, size)


def numpy_dtype(name: str) -> np.dtype:
    """Return a dtype of NumPy or ml_dtypes."""
    if name == "bfloat16" or name.startswith("float8"):
        try:
            import ml_dtypes
        except ImportError as error:
            raise ImportError(f'{name} arrays need ml_dtypes: pip install "spcy[weights]"') from error
        return np.dtype(getattr(ml_dtypes, name))
    return np.dtype(name)
