"""Scans, written anew with labels."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .._files import drafted
from ._files import laspy, module, naming_file, parquet, parsing
from ._las import check_las


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


class _Output(io.BufferedRandom):
    """A new file that raises what the system said, where a compressor that writes to it does not."""

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path, "x+"))
        self._failure: OSError | None = None

    def write(self, data: Any) -> int:
        with self._watched():
            return super().write(data)

    def seek(self, place: int, whence: int = 0) -> int:
        with self._watched():
            return super().seek(place, whence)

    def flush(self) -> None:
        with self._watched():
            super().flush()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failure = error
            raise

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
        finally:
            if self._failure is not None:
                raise self._failure


def _label_las(path: Path, draft: Path, labels: Iterable[np.ndarray]) -> None:
    open_las = laspy().open
    with parsing("las"):
        check_las(path)
        reader = open_las(path)
    with reader:
        most = 255 if reader.header.point_format.id >= 6 else 31
        options = {"header": copy.deepcopy(reader.header), "do_compress": path.suffix.lower() == ".laz"}
        number = 0
        with _Output(draft) as file, laspy().open(file, "w", closefd=False, **options) as writer:
            for part in labels:
                if len(part) and not 0 <= part.min() <= part.max() <= most:
                    raise ValueError(
                        f"labels must be 0 .. {most} in this format, got {part.min()} .. {part.max()}"
                    )
                with parsing("las"):
                    points = reader.read_points(len(part))
                points["classification"] = part.astype(np.uint8)
                writer.write_points(points)
                number += len(part)
        if number != reader.header.point_count:
            raise ValueError(f"it has {reader.header.point_count} points, not {number} as labels")


def _label_parquet(path: Path, draft: Path, labels: Iterable[np.ndarray]) -> None:
    arrow = module("pyarrow", "dask", ".parquet")
    with parsing("parquet"):
        file = parquet().ParquetFile(path)
    with file:
        labels = np.concatenate([*labels])  # two bytes a point: row groups are not cut as chunks are
        if "label" in file.schema_arrow.names:
            raise ValueError("it has a column label already")
        schema, first = file.schema_arrow.append(arrow.field("label", arrow.int16())), 0
        with parquet().ParquetWriter(draft, schema) as writer:
            for i in range(file.num_row_groups):
                with parsing("parquet"):
                    table = file.read_row_group(i)
                part = arrow.array(labels[first : first + len(table)])
                writer.write_table(table.append_column(schema.field("label"), part))
                first += len(table)


def _label_array(path: Path, draft: Path, labels: Iterable[np.ndarray]) -> None:
    with draft.open("xb") as file:
        np.save(file, np.concatenate([*labels]))
