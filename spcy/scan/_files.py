"""Readers of scans' files, by kind."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._files import is_panic
from ..weights import check_npy
from ._las import check_las
from ._width import number_of_columns

XYZ = ("x", "y", "z")
_MOST_POINTS = 1 << 20  # that a decompressor is asked for at once
_LOOKED_AT = 1000  # lines, for the first number of a column
Layout = int | Sequence[str] | None  # how many columns, which, or as the file says


class Columns:
    """Columns that lie in memory, or in a file that is mapped there."""

    def __init__(self, columns: Mapping[str, np.ndarray], table: np.ndarray | None = None):
        self._table = table  # whose columns they are: copied in one go
        self.names, self._columns = (*XYZ, *(name for name in columns if name not in XYZ)), columns
        for name in XYZ:
            dtype = columns[name].dtype
            if dtype.kind != "f" or dtype.itemsize > 8:
                raise ValueError(f"coordinates must be float32 or float64, got {dtype}")
        self.num_points = len(columns["x"])

    def read(self, start: int, stop: int, names: Sequence[str]) -> np.ndarray:
        columns = [self._columns[name][start:stop] for name in _known(names, self._columns)]
        dtype = np.result_type(np.float32, *[column.dtype.newbyteorder("=") for column in columns])
        if self._table is not None and tuple(names) == tuple(self._columns)[: len(names)]:
            return self._table[start:stop, : len(names)].astype(dtype, order="C")
        out = np.empty((len(columns[0]), len(columns)), dtype)
        for i, column in enumerate(columns):
            out[:, i] = column
        return out


class _Las:
    """A file of surveyors, by laspy."""

    def __init__(self, path: Path, columns: Layout):
        self._path, self._kind = path, path.suffix[1:].lower()
        open_las = laspy().open
        with parsing(self._kind):
            check_las(path)
            with open_las(path) as reader:
                self.num_points = reader.header.point_count
                dimensions = [*reader.header.point_format.dimension_names]
        self._dimensions = {*XYZ, *dimensions[3:]}
        usual = [name for name in ("intensity", "red", "green", "blue") if name in self._dimensions]
        self.names = _wanted(columns, [*XYZ, *usual], self._dimensions)

    def read(self, start: int, stop: int, names: Sequence[str]) -> np.ndarray:
        _known(names, sorted(self._dimensions))
        parts = []
        with parsing(self._kind), laspy().open(self._path) as reader:
            if start:
                reader.seek(start)
            # Nothing tells how many points compressed bytes are but to read them.
            for first in range(start, stop, _MOST_POINTS):
                number = min(_MOST_POINTS, stop - first)
                points = reader.read_points(number)
                if len(points) != number:
                    raise ValueError(f"{len(points)} points from {first} on, expected {number}")
                out = np.empty((number, len(names)))
                for i, name in enumerate(names):
                    out[:, i] = points[name]
                parts.append(out)
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty((0, len(names))), *parts])


class _Parquet:
    """A table of Apache Parquet, by pyarrow."""

    def __init__(self, path: Path, columns: Layout):
        self._path = path
        with parsing("parquet"), parquet().ParquetFile(path) as file:
            self.num_points, schema = file.metadata.num_rows, file.schema_arrow
        arrow = module("pyarrow", "dask", ".parquet")
        numbers = [
            f.name for f in schema if arrow.types.is_floating(f.type) or arrow.types.is_integer(f.type)
        ]
        for name in XYZ:
            if name not in schema.names:
                raise ValueError(f"columns must have {name}, got {', '.join(schema.names[:10])}")
            if not arrow.types.is_floating(schema.field(name).type):
                raise ValueError(f"coordinates must be float32 or float64, got {schema.field(name).type}")
        self._numbers = (*XYZ, *(name for name in numbers if name not in XYZ))
        self.names = _wanted(columns, self._numbers)

    def read(self, start: int, stop: int, names: Sequence[str]) -> np.ndarray:
        _known(names, self._numbers)
        parts, first = [], 0
        with parsing("parquet"), parquet().ParquetFile(self._path) as file:
            for i in range(file.num_row_groups):
                rows = file.metadata.row_group(i).num_rows
                if first < stop and start < first + rows:
                    table = file.read_row_group(i, columns=list(dict.fromkeys(names)))
                    parts.append(
                        table.slice(max(0, start - first), min(stop, first + rows) - max(start, first))
                    )
                first += rows
        columns = {name: np.concatenate([part[name].to_numpy() for part in parts]) for name in names}
        dtype = np.result_type(np.float32, *(column.dtype for column in columns.values()))
        return np.column_stack([columns[name].astype(dtype, copy=False) for name in names])


class _E57:
    """What scanners on tripods write, by pye57: all its scans, one behind the other, in the file's frame."""

    def __init__(self, path: Path, columns: Layout):
        self._path = path
        with parsing("e57"), self._opened() as file:
            headers = [file.get_header(i) for i in range(file.scan_count)]
            self._counts = [header.point_count for header in headers]
            fields = set.intersection(*(set(header.point_fields) for header in headers)) if headers else set()
        known = {"intensity": "intensity", "red": "colorRed", "green": "colorGreen", "blue": "colorBlue"}
        self._fields = {name: field for name, field in known.items() if field in fields}
        self.num_points = sum(self._counts)
        self.names = _wanted(columns, [*XYZ, *self._fields])

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        file = module("pye57", "e57", ".e57").E57(str(self._path))
        try:
            yield file
        finally:
            file.close()

    def read(self, start: int, stop: int, names: Sequence[str]) -> np.ndarray:
        _known(names, [*XYZ, *self._fields])
        parts, first = [np.empty((0, len(names)))], 0
        with parsing("e57"), self._opened() as file:
            for i, count in enumerate(self._counts):
                if first < stop and start < first + count:
                    wanted = {
                        "intensity": "intensity" in names,
                        "colors": not {"red", "green", "blue"}.isdisjoint(names),
                    }
                    found = file.read_scan(i, ignore_missing_fields=True, **wanted)
                    fields = {axis: f"cartesian{axis.upper()}" for axis in XYZ} | self._fields
                    rows = np.column_stack([found[fields[name]].astype(np.float64) for name in names])
                    if len(rows) != count:
                        raise ValueError(f"{len(rows)} points in scan {i}, expected {count}")
                    parts.append(rows[max(0, start - first) : stop - first])
                first += count
        return np.concatenate(parts)


def _named(columns: Mapping[str, np.ndarray], wanted: Layout) -> Columns:
    """Return those columns that are wanted, of a file that names them."""
    return Columns({name: columns[name] for name in _wanted(wanted, tuple(columns))})


def _by_name(columns: Sequence[tuple[str, np.ndarray]], wanted: Layout) -> Columns:
    """Return columns of numbers that have names, of which x, y and z may be written large."""
    named = {name.lower() if name.lower() in XYZ else name: column for name, column in columns}
    for axis in XYZ:
        if axis not in named:
            raise ValueError(f"columns of numbers must have {axis}, got {', '.join([*named][:10])}")
    return _named(named, wanted)


def _table(array: np.ndarray, columns: Layout, usual: Sequence[str] = ()) -> Columns:
    """Return the columns of an array (M, >= 3) as they are called, else x, y, z and numbers.

    An array of records, such as ROS's and laspy's, calls them by itself.
    """
    if array.dtype.names is not None:
        dtypes = {name: array.dtype[name] for name in array.dtype.names}
        numbers = [name for name, dtype in dtypes.items() if dtype.kind in "biuf" and dtype.shape == ()]
        return _by_name([(name, array[name].reshape(-1)) for name in numbers], columns)
    if array.ndim != 2 or array.shape[1] < 3:
        raise ValueError(f"expected an array of shape (M, >= 3), got {array.shape}")
    number, told = array.shape[1], _number(columns)
    if columns is None or isinstance(columns, int):
        names: Sequence[str] = (*XYZ, *usual)
        names = (*names, *map(str, range(len(names), number)))
    else:
        names = columns
        if not set(XYZ) <= set(names) or len(set(names)) < len(names):
            raise ValueError(f"columns must have x, y and z, and each name once, got {','.join(names)}")
    if told not in (None, number):
        raise ValueError(f"columns must be those of the file, which has {number}, got {told}")
    return Columns(dict(zip(names, array.T, strict=True)), array)


def _number(columns: Layout) -> int | None:
    """Return how many columns were asked for."""
    return columns if columns is None or isinstance(columns, int) else len(columns)


def _read_bin(path: Path, columns: Layout) -> Columns:
    """Bare float32 rows: x, y, z, intensity (KITTI), or others."""
    size, width = path.stat().st_size, _number(columns)
    if width is not None and (width < 3 or size % (4 * width)):
        raise ValueError(
            f"truncated, or columns are others: {size} bytes are not whole rows of {width} float32, 3 or more"
        )
    if size % 4:
        raise ValueError(f"truncated, or not a scan: {size} bytes are not whole rows of 3 .. 8 float32")
    values = np.memmap(path, "<f4", "r")
    width = width or number_of_columns(values)
    return _table(values.reshape(-1, width), columns, ["intensity"] if width == 4 else ())


class _Heading(NamedTuple):
    """What a text begins with."""

    names: list[str] | None
    lines: int  # before the first of numbers
    first: str  # line of numbers


def _heading(lines: Iterable[str]) -> _Heading:
    """Look for names and for the first numbers: some programs write comments or how many points there are."""
    names = remark = None
    for number, line in enumerate(lines):
        text = line.strip()
        words = _words(text.lstrip("#/"))
        if len(words) < 2:
            continue
        if text.startswith(("#", "//")):
            if set(XYZ) <= {word.lower() for word in words}:
                remark = words
            continue
        numbers = [*map(_is_number, words)]
        whole = all(known or not word for known, word in zip(numbers, words, strict=True))
        if any(numbers) and (whole or names is not None):
            if names is None and remark is not None and len(remark) == len(words):
                names = remark
            return _Heading(names, number, text)
        if names is not None or any(numbers):
            raise ValueError(f"neither names nor numbers in line {number + 1}: {text[:60]}")
        names = words
    raise ValueError("no line of numbers")


def _read_text(path: Path, columns: Layout) -> Columns:
    """Lines of numbers, with names above them or without."""
    kind = path.suffix[1:].lower()
    with parsing(kind):
        with path.open(encoding="utf-8-sig") as file:
            names, skipped, first = _heading(file)
            words, mark = _words(first), _delimiter(first)
            for line in islice(file, _LOOKED_AT):  # what is in columns whose first cells are empty
                below = _words(line)
                if all(words) or len(below) != len(words):
                    break
                words = [word or other for word, other in zip(words, below, strict=True)]
        if names is not None and len(names) != len(words):
            raise ValueError(f"{len(names)} names above {len(words)} columns")
        numbers = [i for i, word in enumerate(words) if _is_number(word)]
        options: dict[str, Any] = {"delimiter": mark, "usecols": numbers, "quotechar": '"', "ndmin": 2}
        try:
            array = np.loadtxt(path, skiprows=skipped, encoding="utf-8-sig", **options)
        except ValueError:
            if mark is None:
                raise
            with path.open(encoding="utf-8-sig") as file:
                lines = (_with_nan(line, mark) for line in islice(file, skipped, None))
                array = np.loadtxt(lines, **options)
    if names is None:
        return _table(array, columns)
    return _by_name([(names[i], column) for i, column in zip(numbers, array.T, strict=True)], columns)


def _with_nan(line: str, mark: str) -> str:
    """Return a line of numbers with NaN in empty cells, as pandas and R leave them for it."""
    if mark not in line:
        return line
    return mark.join(cell if cell.strip() else "nan" for cell in line.rstrip("\r\n").split(mark))


def _delimiter(line: str) -> str | None:
    """Return what is between the numbers of a line; None for spaces."""
    return next((mark for mark in (",", ";", "\t") if mark in line), None)


def _words(line: str) -> list[str]:
    words = [word.strip(" \"'") for word in line.split(_delimiter(line))]
    return words if any(words) else []


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _read_npy(path: Path, columns: Layout) -> Columns:
    """One array (M, >= 3), or one of records."""
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise ValueError("not a .npy file")
    with parsing("npy"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    return _table(array, columns)


def _read_npz(path: Path, columns: Layout) -> Columns:
    """One array (M, >= 3), or one of records, of an archive: "points", or the only one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            raise ValueError("not a .npz file")
        file.seek(0)
        with parsing("npz"):
            archive = np.load(file, allow_pickle=False)
        with archive:
            names = archive.files
            name = names[0] if len(names) == 1 else "points"
            if name not in names:
                found = f"{len(names)}: {', '.join(names[:5])}{', ..' if len(names) > 5 else ''}"
                found = found if names else "none"
                raise ValueError(f"expected an array named 'points' or only one array, found {found}")
            with parsing("npz"):
                member = f"{name}.npy" if f"{name}.npy" in archive.zip.namelist() else name
                record = archive.zip.getinfo(member)
                if record.file_size > 1100 * size:  # deflate packs 1032 bytes into one at most
                    raise ValueError(f"{size} bytes are said to unpack to {record.file_size}")
                check_npy(archive.zip, record, records=True)  # NumPy allocates what is said
                array = archive[member]
            return _table(array, columns)


def _read_pcd(path: Path, columns: Layout) -> Columns:
    """Point Cloud Library. pypcd4 lets some truncated files pass, shortened, hence the checks of size."""
    pypcd4 = module("pypcd4", "scan", ".pcd")
    content = path.read_bytes()
    data_line = re.search(rb"(?m)^DATA\s+\w+[ \t\r]*\n", content)
    if data_line is None:
        raise ValueError("the header has no DATA line")
    body = content[data_line.end() :]
    with parsing("pcd"):
        header = pypcd4.MetaData.parse_header(content[: data_line.end()].decode().split("\n"))
        encoding = header.data.value
        wanted = max(1, header.points) * sum(s * n for s, n in zip(header.size, header.count, strict=True))
        compressed = encoding not in ("ascii", "binary")  # which has two names
        if compressed:
            wanted = max(wanted, struct.unpack_from("<II", body)[1])
        if wanted > 100 * len(body) + (1 << 16):  # more than compressed bytes can give, and text takes
            raise ValueError(f"its header wants {wanted} bytes of points, {len(body)} are there")
        cloud = pypcd4.PointCloud.from_fileobj(BytesIO(content))
        header, rows = cloud.metadata, np.atleast_1d(cloud.pc_data)
        numbers = [
            name for name in rows.dtype.names or () if rows.dtype[name].shape == () and name not in XYZ
        ]
        found_columns = {name: rows[name] for name in (*XYZ, *numbers)}
        expected = found = rows.nbytes
        if encoding == "binary":
            found = len(body)
        elif compressed:
            length, found = struct.unpack("<II", body[:8])
            if len(body) < 8 + length:
                raise ValueError(f"{len(body) - 8} bytes of compressed points, expected {length}")
    if len(rows) != header.points or header.width * header.height != header.points:
        raise ValueError(
            f"truncated or malformed .pcd: the header says {header.points} points, {header.width} x "
            f"{header.height}, and {len(rows)} were found"
        )
    if found != expected:
        raise ValueError(f"truncated or malformed .pcd: {found} bytes of points, expected {expected}")
    return _named(found_columns, columns)


def _read_ply(path: Path, columns: Layout) -> Columns:
    """Stanford PLY. trimesh lets short ascii files pass, hence the check of the number of vertices."""
    load_ply = module("trimesh.exchange.ply", "scan", ".ply").load_ply
    content = path.read_bytes()
    header = re.match(rb"(?ms)ply\s.*?^element\s+vertex\s+(\d+)\s.*?^end_header\s", content)
    if header is None:
        raise ValueError("not a .ply file with an 'element vertex'")
    expected = int(header[1])
    with parsing("ply"):
        points = load_ply(BytesIO(content), skip_materials=True).get("vertices", np.empty((0, 3), np.float32))
    if points.shape != (expected, 3):
        raise ValueError(f"truncated .ply: the header says {expected} vertices, {len(points)} were found")
    if points.dtype == object:  # what trimesh makes of ascii rows of unequal length
        raise ValueError("truncated or malformed .ply: vertices of unequal length")
    return _named(dict(zip(XYZ, points.T, strict=True)), columns)


@contextmanager
def parsing(kind: str) -> Iterator[None]:
    """Turn whatever a parser raises for a malformed file into one kind of error."""
    try:
        with warnings.catch_warnings():
            # trimesh reads text with a NumPy function that still only warns of what it could not read
            warnings.filterwarnings("error", message="string or file could not be read")
            warnings.filterwarnings("ignore", message="loadtxt: input contained no data")
            yield
    except (ImportError, MemoryError):  # of the parser itself, or of this machine
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"truncated or malformed .{kind} ({type(error).__name__}: {reason})") from error


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Let a ValueError name the file."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: {error}") from error


def _known(names: Sequence[str], known: Any) -> Sequence[str]:
    for name in names:
        if name not in known:
            raise ValueError(f"columns must be of the file's, {', '.join(known)}, got {name!r}")
    return names


def _wanted(columns: Layout, names: Sequence[str], known: Any = ()) -> tuple[str, ...]:
    """Return which columns of a file that names them are wanted, x, y, z first."""
    if isinstance(columns, int):
        raise ValueError(f"columns must be names, as the file has some, got {columns}")
    if columns is not None:
        names = _known(columns, sorted(known) or names)
    return (*XYZ, *dict.fromkeys(name for name in names if name not in XYZ))


def module(name: str, extra: str, kind: str) -> Any:
    """Return a library that reads a kind of file."""
    try:
        return __import__(name, fromlist=["_"])
    except ImportError:
        raise ImportError(f'reading {kind} needs {name.split(".")[0]}: pip install "spcy[{extra}]"') from None


def laspy() -> Any:
    return module("laspy", "scan", ".las and .laz")


def parquet() -> Any:
    return module("pyarrow.parquet", "dask", ".parquet")


READERS: dict[str, Callable[[Path, Layout], Any]] = {
    **{".bin": _read_bin, ".npy": _read_npy, ".npz": _read_npz, ".pcd": _read_pcd, ".ply": _read_ply},
    **{".csv": _read_text, ".txt": _read_text, ".xyz": _read_text},
    **{".las": _Las, ".laz": _Las, ".e57": _E57, ".parquet": _Parquet},
}
