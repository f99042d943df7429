"""Read a scan from a file, and refuse whatever is not one."""

import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

FARTHEST = 1e8  # metres; a larger coordinate is bytes of something else read as a number


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
        True class of each point, an index into `spcy.demo.scene.CLASSES`, where it is known.
    columns : ndarray of shape (M, >= 3), or None
        All columns of the file, x, y, z first, where it was read from one.
    """

    name: str
    points: np.ndarray
    kept: np.ndarray | None = None
    truth: np.ndarray | None = None
    columns: np.ndarray | None = None

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


def read_scan(path: str | Path) -> Scan:
    """Read a scan from a ``.bin`` (KITTI), ``.npy``, ``.npz``, ``.pcd`` or ``.ply`` file.

    Parameters
    ----------
    path : str or Path
        ``.bin``: float32 rows x, y, z, intensity. ``.npy``: an array (M, >= 3). ``.npz``: the same, named
        "points" or the only one. ``.pcd``, ``.ply``: ascii or binary, with x, y, z; pypcd4 and trimesh
        read these two (``pip install "spcy[scan]"``).

    Returns
    -------
    Scan
        All points of the file but those whose coordinates are not finite.

    Raises
    ------
    ValueError
        If the file is of an unknown kind, empty, truncated, malformed, not of floats or not in metres; the
        message names the file and what is wrong with it.
    OSError
        If the file is missing or cannot be read.
    ImportError
        If the reader of a ``.pcd`` or ``.ply`` file is not installed.
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
    try:
        rows = read(path)
        keep = _finite(rows[:, :3])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    columns = rows[keep].astype(np.promote_types(rows.dtype.newbyteorder("="), np.float32), copy=False)
    name = path.name.encode(errors="replace").decode()  # a file's name need not be text
    points = np.ascontiguousarray(columns[:, :3])
    return Scan(name, points, kept=keep, columns=columns)


def _finite(points: np.ndarray) -> np.ndarray:
    """Return the mask of the points with finite coordinates; ValueError if they cannot be a scan."""
    if points.dtype.kind != "f" or points.dtype.itemsize > 8:
        raise ValueError(f"coordinates must be float32 or float64, got {points.dtype}")
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


def _read_bin(path: Path) -> np.ndarray:
    """KITTI: bare float32 rows x, y, z, intensity."""
    size = path.stat().st_size
    if size % 16:
        raise ValueError(f"truncated or not a KITTI scan: {size} bytes are not whole rows of 4 float32")
    return np.fromfile(path, "<f4").reshape(-1, 4)


def _read_npy(path: Path) -> np.ndarray:
    """One array (M, >= 3)."""
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise ValueError("not a .npy file")
        file.seek(0)
        with _parsing("npy"):
            array = np.load(file, allow_pickle=False)
    return _columns(array)


def _read_npz(path: Path) -> np.ndarray:
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
    return _columns(arrays[name])


def _columns(array: np.ndarray) -> np.ndarray:
    """Return an array (M, >= 3) of x, y, z and others."""
    if array.ndim != 2 or array.shape[1] < 3:
        raise ValueError(f"expected an array of shape (M, >= 3), got {array.shape}")
    return array


def _read_pcd(path: Path) -> np.ndarray:
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
        points = np.stack([rows["x"], rows["y"], rows["z"]], axis=1)
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
    return points


def _read_ply(path: Path) -> np.ndarray:
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
    return points


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


READERS = {".bin": _read_bin, ".npy": _read_npy, ".npz": _read_npz, ".pcd": _read_pcd, ".ply": _read_ply}
