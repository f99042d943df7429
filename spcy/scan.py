"""Scans in files: point clouds with named columns, read whole or in parts."""

from __future__ import annotations

import copy
import re
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ._files import drafted

FARTHEST = 1e8  # metres; a larger coordinate is bytes of something else read as a number
XYZ = ("x", "y", "z")


class Scan(NamedTuple):
    """A point cloud, and where it came from.

    Attributes
    ----------
    name : str
        The file's name, or what was generated.
    points : ndarray of shape (M, 3), float32 or float64
        x, y, z in metres, z up, all finite.
    kept : ndarray of shape (F,), bool, or None
        Which points of a file these are: those left out have a coordinate that is not finite (a sensor's
        NaN for "nothing seen").
    truth : ndarray of shape (M,), uint8, or None
        True class of each point, where it is known.
    columns : ndarray of shape (M, >= 3), or None
        Columns of the file, x, y, z first, where it was read from one.
    names : tuple of str, or None
        Those of `columns`.
    """

    name: str
    points: np.ndarray
    kept: np.ndarray | None = None
    truth: np.ndarray | None = None
    columns: np.ndarray | None = None
    names: tuple[str, ...] | None = None

    @property
    def left_out(self) -> int:
        """Number of points of the file that were left out."""
        return 0 if self.kept is None else len(self.kept) - len(self.points)

    def rows_in_file(self, rows: np.ndarray) -> np.ndarray:
        """Return the row of each point of the file, -1 where it was left out.

        Parameters
        ----------
        rows : ndarray of shape (M,), int32
            The row of each of `points`.

        Returns
        -------
        ndarray of shape (F,), int32
        """
        if self.kept is None:
            return rows
        every = np.full(len(self.kept), -1, np.int32)
        every[self.kept] = rows
        return every


class ScanFile(Protocol):
    """A scan's file, of which parts can be read.

    Attributes
    ----------
    names : tuple of str
        Its columns, x, y, z first. Files of surveyors (LAS) have more, which are named in `read` only.
    num_points : int
    """

    names: tuple[str, ...]
    num_points: int

    def read(self, start: int, stop: int, names: Sequence[str]) -> np.ndarray:
        """Return columns of the points start .. stop - 1.

        Parameters
        ----------
        start, stop : int
        names : sequence of str

        Returns
        -------
        ndarray of shape (stop - start, len(names)), float32 or float64
        """


def read_scan(path: str | Path, columns: Sequence[str] | None = None) -> Scan:
    """Read a scan from a file.

    Parameters
    ----------
    path : str or Path
        As of `open_scan`.
    columns : sequence of str, optional
        Those to read beside x, y, z; default all that the file names.

    Returns
    -------
    Scan
        All points of the file but those whose coordinates are not finite.

    Raises
    ------
    ValueError, OSError, ImportError
        As from `open_scan`; if the coordinates are not floats, or not in metres.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from spcy.scan import read_scan
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "scan.npy")
    ...     np.save(path, np.float32([[1, 2, 3, 0.5], [np.nan, 0, 0, 0]]))
    ...     scan = read_scan(path)
    >>> scan.points, scan.left_out, scan.names
    (array([[1., 2., 3.]], dtype=float32), 1, ('x', 'y', 'z', '3'))
    """
    path = Path(path)
    with naming_file(path):
        file = open_scan(path)
        names = file.names if columns is None else (*XYZ, *columns)
        rows = file.read(0, file.num_points, names)
        keep = finite_points(rows[:, :3])
    kept = rows[keep]
    name = path.name.encode(errors="replace").decode()  # a file's name need not be text
    return Scan(name, np.ascontiguousarray(kept[:, :3]), kept=keep, columns=kept, names=tuple(names))


def open_scan(path: str | Path) -> ScanFile:
    """Open a scan's file, to read parts of it.

    Parameters
    ----------
    path : str or Path
        ``.bin``: float32 rows x, y, z, intensity (KITTI). ``.npy``: an array (M, >= 3). ``.npz``: the same,
        named "points" or the only one. ``.pcd``, ``.ply``: ascii or binary, with x, y, z; pypcd4 and trimesh
        read these two. ``.las``, ``.laz``: by laspy. All these come with ``pip install "spcy[scan]"``.
        ``.parquet``: columns x, y, z and others, by pyarrow (``pip install "spcy[dask]"``).

    Returns
    -------
    ScanFile

    Raises
    ------
    ValueError
        If the file is of an unknown kind, empty, truncated or malformed; the message names the file and
        what is wrong with it.
    OSError
        If the file is missing or cannot be read.
    ImportError
        If the reader of such files is not installed.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from spcy.scan import open_scan
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "scan.npy")
    ...     np.save(path, np.arange(40, dtype=np.float32).reshape(-1, 4))
    ...     file = open_scan(path)
    ...     file.num_points, file.read(2, 4, ["z", "3"])
    (10, array([[10., 11.],
           [14., 15.]], dtype=float32))
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, expected a scan file")
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path}: unknown kind of scan {path.suffix!r}, expected {', '.join(READERS)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    with naming_file(path):
        return read(path)


@contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Let a ValueError name the file."""
    try:
        yield
    except ValueError as error:
        raise error if str(error).startswith(str(path)) else ValueError(f"{path}: {error}") from error


def finite_points(points: np.ndarray) -> np.ndarray:
    """Return the mask of the points with finite coordinates.

    Parameters
    ----------
    points : ndarray of shape (M, 3)

    Returns
    -------
    ndarray of shape (M,), bool

    Raises
    ------
    ValueError
        If none is finite, or they cannot be a scan.
    """
    if len(points) == 0:
        raise ValueError("the file holds no point")
    finite = np.isfinite(points).all(axis=1)
    if not finite.any():
        raise ValueError(f"none of the {len(points)} points has finite coordinates")
    row, axis = np.unravel_index(np.argmax(np.where(finite[:, None], np.abs(points), 0)), points.shape)
    value = float(points[row, axis])
    if abs(value) > FARTHEST:
        raise ValueError(f"point {row} has {'xyz'[axis]} = {value:g}, not a coordinate in metres")
    return finite


class _Columns:
    """Columns that lie in memory, or in a file that is mapped there."""

    def __init__(self, columns: Mapping[str, np.ndarray]):
        self.names, self._columns = tuple(columns), columns
        for name in XYZ:
            dtype = columns[name].dtype
            if dtype.kind != "f" or dtype.itemsize > 8:
                raise ValueError(f"coordinates must be float32 or float64, got {dtype}")
        self.num_points = len(columns["x"])

    def read(self, start: int, stop: int, names: Sequence[str]) -> np.ndarray:
        columns = [self._columns[name][start:stop] for name in _known(names, self._columns)]
        dtype = np.result_type(np.float32, *[column.dtype.newbyteorder("=") for column in columns])
        out = np.empty((len(columns[0]), len(columns)), dtype)
        for i, column in enumerate(columns):
            out[:, i] = column
        return out


class _Las:
    """A file of surveyors, by laspy."""

    def __init__(self, path: Path):
        self._path = path
        with _parsing("las"), _laspy().open(path) as reader:
            self.num_points = reader.header.point_count
            dimensions = [*reader.header.point_format.dimension_names]
        self._dimensions = {*XYZ, *dimensions[3:]}
        usual = ("intensity", "red", "green", "blue")
        self.names = (*XYZ, *(name for name in usual if name in self._dimensions))

    def read(self, start: int, stop: int, names: Sequence[str]) -> np.ndarray:
        _known(names, sorted(self._dimensions))
        with _parsing("las"), _laspy().open(self._path) as reader:
            reader.seek(start)
            points = reader.read_points(stop - start)
            if len(points) != stop - start:
                raise ValueError(f"{len(points)} points from {start} on, expected {stop - start}")
            out = np.empty((len(points), len(names)), np.float64)
            for i, name in enumerate(names):
                out[:, i] = points[name]
        return out


class _Parquet:
    """A table of Apache Parquet, by pyarrow."""

    def __init__(self, path: Path):
        self._path = path
        with _parsing("parquet"), _parquet().ParquetFile(path) as file:
            self.num_points, schema = file.metadata.num_rows, file.schema_arrow
        arrow = _module("pyarrow", "dask", ".parquet")
        numbers = [
            f.name for f in schema if arrow.types.is_floating(f.type) or arrow.types.is_integer(f.type)
        ]
        for name in XYZ:
            if name not in schema.names:
                raise ValueError(f"columns must have {name}, got {', '.join(schema.names[:10])}")
            if not arrow.types.is_floating(schema.field(name).type):
                raise ValueError(f"coordinates must be float32 or float64, got {schema.field(name).type}")
        self.names = (*XYZ, *(name for name in numbers if name not in XYZ))

    def read(self, start: int, stop: int, names: Sequence[str]) -> np.ndarray:
        _known(names, self.names)
        parts, first = [], 0
        with _parsing("parquet"), _parquet().ParquetFile(self._path) as file:
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


def labelled_name(path: str | Path) -> str:
    """Return the name of the file that `label_scan` writes for a scan's.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    str
        The same for LAS, LAZ and Parquet; else with ``.npy`` behind it.
    """
    path = Path(path)
    return path.name if path.suffix.lower() in (".las", ".laz", ".parquet") else f"{path.name}.npy"


def label_scan(path: str | Path, out: str | Path, labels: Iterable[np.ndarray]) -> None:
    """Write a scan anew with labels, whole or not at all.

    Parameters
    ----------
    path : str or path
        The scan's file.
    out : str or path
        With the name of `labelled_name`. LAS and LAZ files get their field ``classification``, Parquet
        files a column ``label``; for others it becomes an array (M,) of int16.
    labels : iterable of ndarray of shape (n,), int16
        The labels of the first n points, of the next, and so on.

    Raises
    ------
    ValueError
        If the file cannot be read, there are not as many labels as points, or one does not fit the field.
    OSError
        If a file cannot be read or written.
    """
    path, out = Path(path), Path(out)
    write = {".las": _label_las, ".laz": _label_las, ".parquet": _label_parquet}.get(path.suffix.lower())
    with naming_file(path), drafted(out) as draft:
        (write or _label_array)(path, draft, labels)


def _label_las(path: Path, draft: Path, labels: Iterable[np.ndarray]) -> None:
    with _parsing("las"):
        reader = _laspy().open(path)
    with reader:
        most = 255 if reader.header.point_format.id >= 6 else 31
        options = {"header": copy.deepcopy(reader.header), "do_compress": path.suffix.lower() == ".laz"}
        with _laspy().open(draft, "w", **options) as writer:
            for part in labels:
                if len(part) and not 0 <= part.min() <= part.max() <= most:
                    raise ValueError(
                        f"labels must be 0 .. {most} in this format, got {part.min()} .. {part.max()}"
                    )
                with _parsing("las"):
                    points = reader.read_points(len(part))
                points["classification"] = part.astype(np.uint8)
                writer.write_points(points)


def _label_parquet(path: Path, draft: Path, labels: Iterable[np.ndarray]) -> None:
    arrow = _module("pyarrow", "dask", ".parquet")
    with _parsing("parquet"):
        file = _parquet().ParquetFile(path)
    with file:
        labels = np.concatenate([*labels])  # two bytes a point: row groups are not cut as chunks are
        if "label" in file.schema_arrow.names:
            raise ValueError("it has a column label already")
        schema, first = file.schema_arrow.append(arrow.field("label", arrow.int16())), 0
        with _parquet().ParquetWriter(draft, schema) as writer:
            for i in range(file.num_row_groups):
                with _parsing("parquet"):
                    table = file.read_row_group(i)
                part = arrow.array(labels[first : first + len(table)])
                writer.write_table(table.append_column(schema.field("label"), part))
                first += len(table)


def _label_array(path: Path, draft: Path, labels: Iterable[np.ndarray]) -> None:
    with draft.open("xb") as file:
        np.save(file, np.concatenate([*labels]))


def _known(names: Sequence[str], known: Any) -> Sequence[str]:
    for name in names:
        if name not in known:
            raise ValueError(f"columns must be of the file's, {', '.join(known)}, got {name!r}")
    return names


def _module(name: str, extra: str, kind: str) -> Any:
    """Return a library that reads a kind of file."""
    try:
        return __import__(name, fromlist=["_"])
    except ImportError:
        raise ImportError(f'{kind} files need {name.split(".")[0]}: pip install "spcy[{extra}]"') from None


def _laspy() -> Any:
    return _module("laspy", "scan", ".las and .laz")


def _parquet() -> Any:
    return _module("pyarrow.parquet", "dask", ".parquet")


def _table(array: np.ndarray, names: Sequence[str] = ()) -> _Columns:
    """Return the columns of an array (M, >= 3): x, y, z, and those named, or else numbered."""
    if array.ndim != 2 or array.shape[1] < 3:
        raise ValueError(f"expected an array of shape (M, >= 3), got {array.shape}")
    names = (*XYZ, *names, *map(str, range(3 + len(names), array.shape[1])))
    return _Columns(dict(zip(names, array.T, strict=True)))


def _read_bin(path: Path) -> _Columns:
    """KITTI: bare float32 rows x, y, z, intensity."""
    size = path.stat().st_size
    if size % 16:
        raise ValueError(f"truncated or not a KITTI scan: {size} bytes are not whole rows of 4 float32")
    return _table(np.memmap(path, "<f4", "r").reshape(-1, 4), ["intensity"])


def _read_npy(path: Path) -> _Columns:
    """One array (M, >= 3)."""
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise ValueError("not a .npy file")
    with _parsing("npy"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    return _table(array)


def _read_npz(path: Path) -> _Columns:
    """One array (M, >= 3) of an archive: "points", or the only one."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            raise ValueError("not a .npz file")
        file.seek(0)
        with _parsing("npz"), np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
    name = next(iter(arrays)) if len(arrays) == 1 else "points"
    if name not in arrays:
        found = f"{len(arrays)}: {', '.join(list(arrays)[:5])}{', ..' if len(arrays) > 5 else ''}"
        raise ValueError(f"expected an array named 'points' or only one array, found {found}")
    if not isinstance(arrays[name], np.ndarray):  # whatever else an archive holds comes as bytes
        raise ValueError(f"{name} must be an array, as np.savez writes it")
    return _table(arrays[name])


def _read_pcd(path: Path) -> _Columns:
    """Point Cloud Library. pypcd4 lets some truncated files pass, shortened, hence the checks of size."""
    try:
        from pypcd4 import PointCloud
    except ImportError as error:
        raise ImportError(f'{path}: reading .pcd needs pypcd4: pip install "spcy[scan]"') from error
    content = path.read_bytes()
    data_line = re.search(rb"(?m)^DATA\s+(\w+)[ \t\r]*\n", content)
    if data_line is None:
        raise ValueError("the header has no DATA line")
    encoding, body = data_line[1].decode(), content[data_line.end() :]
    with _parsing("pcd"):
        cloud = PointCloud.from_fileobj(BytesIO(content))
        header, rows = cloud.metadata, np.atleast_1d(cloud.pc_data)
        numbers = [name for name in rows.dtype.names if rows.dtype[name].shape == () and name not in XYZ]
        columns = {name: rows[name] for name in (*XYZ, *numbers)}
        expected = found = rows.nbytes
        if encoding == "binary":
            found = len(body)
        elif encoding == "binary_compressed":
            compressed, found = struct.unpack("<II", body[:8])
            if len(body) < 8 + compressed:
                raise ValueError(f"{len(body) - 8} bytes of compressed points, expected {compressed}")
    if len(rows) != header.points or header.width * header.height != header.points:
        raise ValueError(
            f"truncated or malformed .pcd: the header says {header.points} points, {header.width} x "
            f"{header.height}, and {len(rows)} were found"
        )
    if found != expected:
        raise ValueError(f"truncated or malformed .pcd: {found} bytes of points, expected {expected}")
    return _Columns(columns)


def _read_ply(path: Path) -> _Columns:
    """Stanford PLY. trimesh lets short ascii files pass, hence the check of the number of vertices."""
    try:
        from trimesh.exchange.ply import load_ply
    except ImportError as error:
        raise ImportError(f'{path}: reading .ply needs trimesh: pip install "spcy[scan]"') from error
    content = path.read_bytes()
    header = re.match(rb"(?ms)ply\s.*?^element\s+vertex\s+(\d+)\s.*?^end_header\s", content)
    if header is None:
        raise ValueError("not a .ply file with an 'element vertex'")
    expected = int(header[1])
    with _parsing("ply"):
        points = load_ply(BytesIO(content), skip_materials=True).get("vertices", np.empty((0, 3), np.float32))
    if points.shape != (expected, 3):
        raise ValueError(f"truncated .ply: the header says {expected} vertices, {len(points)} were found")
    if points.dtype == object:  # what trimesh makes of ascii rows of unequal length
        raise ValueError("truncated or malformed .ply: vertices of unequal length")
    return _table(points)


@contextmanager
def _parsing(kind: str) -> Iterator[None]:
    """Turn whatever a parser raises for a malformed file into one kind of error."""
    try:
        with warnings.catch_warnings():
            # trimesh reads text with a NumPy function that still only warns of what it could not read
            warnings.filterwarnings("error", message="string or file could not be read")
            warnings.filterwarnings("ignore", message="loadtxt: input contained no data")
            yield
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"truncated or malformed .{kind} ({type(error).__name__}: {reason})") from error


READERS = {
    **{".bin": _read_bin, ".npy": _read_npy, ".npz": _read_npz, ".pcd": _read_pcd, ".ply": _read_ply},
    **{".las": _Las, ".laz": _Las, ".parquet": _Parquet},
}
