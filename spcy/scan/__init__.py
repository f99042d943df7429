"""Scans in files: point clouds with named columns, read whole or in parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ._files import READERS, XYZ, naming_file
from ._label import label_scan, labelled_name
from ._width import FARTHEST

__all__ = [
    "FARTHEST",
    "READERS",
    "XYZ",
    "Scan",
    "ScanFile",
    "finite_points",
    "label_scan",
    "labelled_name",
    "open_scan",
    "read_scan",
]


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
        Columns that were asked for, x, y, z first; or all, but of files of surveyors (LAS), which have many
        more, those that are usual.
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


def read_scan(path: str | Path, columns: int | str | Sequence[str] | None = None) -> Scan:
    """Read a scan from a file.

    Parameters
    ----------
    path : str or Path
    columns : int, str or sequence of str, optional
        As of `open_scan`.

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
        file = open_scan(path, columns)
        rows = file.read(0, file.num_points, file.names)
        keep = finite_points(rows[:, :3])
    kept = rows[keep]
    name = path.name.encode(errors="replace").decode()  # a file's name need not be text
    return Scan(name, np.ascontiguousarray(kept[:, :3]), kept=keep, columns=kept, names=file.names)


def open_scan(path: str | Path, columns: int | str | Sequence[str] | None = None) -> ScanFile:
    """Open a scan's file, to read parts of it.

    Parameters
    ----------
    path : str or Path
        ``.bin``: bare float32 rows (KITTI, nuScenes). ``.npy``: an array (M, >= 3), or of records with the
        fields x, y and z. ``.npz``: the same, named "points" or the only one. ``.csv``, ``.txt``, ``.xyz``:
        lines of numbers, with names above them or without; what is empty between commas is NaN. ``.pcd``,
        ``.ply``: ascii or binary; pypcd4 and trimesh read these two. ``.las``, ``.laz``: by laspy. All these
        come with ``pip install "spcy[scan]"``. ``.e57``: by pye57 (``pip install "spcy[e57]"``).
        ``.parquet``: by pyarrow (``pip install "spcy[dask]"``).
    columns : int, str or sequence of str, optional
        Of a file that names its columns: those to read beside x, y, z; default all numbers. Of one that does
        not: what a row holds, with x, y, z among it, such as ``"x,y,z,intensity,ring"``, or how many numbers.
        Default of ``.bin`` files: as many, 3 .. 8, as make columns of one kind each, if that is beyond doubt.

    Returns
    -------
    ScanFile

    Raises
    ------
    ValueError
        If the file is of an unknown kind, empty, truncated or malformed, or has other columns than these, or
        it cannot be told how many; the message names the file and what is wrong with it.
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
        kind = f"unknown kind of scan {path.suffix!r}" if path.suffix else "the name says no kind of scan"
        raise ValueError(f"{path}: {kind}, expected {', '.join(READERS)}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    columns = _layout(columns)
    with naming_file(path):
        return read(path, columns)


def _layout(columns: int | str | Sequence[str] | None) -> int | list[str] | None:
    """Check how columns were said."""
    if isinstance(columns, str):
        return int(columns) if columns.strip().isdecimal() else [name.strip() for name in columns.split(",")]
    if columns is None or isinstance(columns, (int, np.integer)):
        return None if columns is None else int(columns)
    names = list(columns)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"columns must be a number or names, got {columns!r}")
    return names


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
