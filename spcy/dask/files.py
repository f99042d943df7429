"""Labels for scans in files: a run that can be killed, and goes on where it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import dask
import numpy as np
import pandas as pd
from dask.delayed import Delayed
from distributed import Client, KilledWorker, as_completed
from numpy.typing import ArrayLike

from .. import nn
from .._files import naming, write_bytes, write_npz
from .._progress import bar
from ..coords import bounds_of
from ..scan import FARTHEST, XYZ, ScanFile, label_scan, labelled_name, open_scan
from ._job import Describe, Job, labels_of, make_job
from ._shuffle import frame_of, rows_of, shuffled
from ._worker import travelling, use_worker_threads

CHUNK = 2_000_000  # points that one task reads: each task, and each block that it sends, costs milliseconds
_PLAN = "spcy-run.json"  # what the files beside it were made by
_WORK = ".spcy-run"  # what is needed until they are all there


class LabelledFiles(NamedTuple):
    """What `label_files` did.

    Attributes
    ----------
    written : list of Path
        Files that this run wrote.
    kept : list of Path
        Files that an earlier run had written.
    failed : dict of str to str
        Inputs that could not be read, and why.
    points, dropped : int
        In the inputs that were read by this run; those without finite coordinates.
    """

    written: list[Path]
    kept: list[Path]
    failed: dict[str, str]
    points: int
    dropped: int


class _Chunk(NamedTuple):
    """Points start .. stop - 1 of an input."""

    number: int
    file: int
    path: str
    start: int
    stop: int


class _Columns(NamedTuple):
    """Which columns of a file are features: by name, or by place among those it has."""

    names: Sequence[str | int]
    of_files: int | str | Sequence[str] | None  # what is in a file that does not say it

    def open(self, path: str) -> tuple[ScanFile, list[str]]:
        """Open a file; return their names there too."""
        file = open_scan(path, self.of_files)
        known = file.names
        for name in self.names:
            if isinstance(name, int) and name >= len(known):
                raise ValueError(
                    f"{path}: columns must be below {len(known)} ({', '.join(known)}), got {name}"
                )
        return file, [known[name] if isinstance(name, int) else name for name in self.names]


def label_files(
    net: nn.Module,
    paths: Sequence[str | Path],
    out: str | Path,
    voxel_size: float | Sequence[float],
    *,
    client: Client,
    columns: Sequence[str | int] | None = None,
    file_columns: int | str | Sequence[str] | None = None,
    features: Describe | None = None,
    tile: int | Sequence[int] | None = None,
    sites: int = 1_000_000,
    invalid: Literal["raise", "drop"] = "raise",
    keep_going: bool = False,
    progress: bool = False,
) -> LabelledFiles:
    """Label the points of files by a network, as `predict` does, and write each file anew with its labels.

    Each output appears whole or not at all. A run that was killed goes on where it was when it is started
    again with the same arguments: what it had finished stands in ``out/.spcy-run`` until all outputs are
    there.

    Parameters
    ----------
    net : Module
    paths : sequence of str or path
        Files of `spcy.scan.open_scan`, cut in any way: where they lie beside each other or on each other, the
        labels are those of all points together. Workers must see them under these names, and `out` too.
    out : str or path
        A folder, made if it is not there. LAS and LAZ files get their field ``classification``, Parquet files
        a column ``label``; for others the labels are an int16 array in a ``.npy`` file.
    voxel_size : float or sequence of 3 floats
    client : distributed.Client
        Whose workers do the work.
    columns : sequence of str or int, optional
        Columns of the files that are features, by name, or by their place among x, y, z and those that the
        file names. Default x, y, z, or none if `features` makes them.
    file_columns : int, str or sequence of str, optional
        What is in the files, as `columns` of `spcy.scan.open_scan`: of those that do not say it.
    features, tile, sites, invalid : optional
        As of `predict`.
    keep_going : bool
        Leave out inputs that cannot be read, and label the others.
    progress : bool
        Show a bar, by tqdm.

    Returns
    -------
    LabelledFiles

    Raises
    ------
    ValueError, OSError, ImportError
        If an argument is none of these, an input cannot be read (the message names it), `out` holds what was
        made in another way, or tqdm is missing for `progress`.
    RuntimeError
        If workers died again and again.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import spcy.dask
    >>> from distributed import Client, LocalCluster
    >>> from spcy import nn
    >>> net = nn.SubMConv(3, 4, 3, rng=0).eval()
    >>> with tempfile.TemporaryDirectory() as folder, LocalCluster(1, processes=False) as cluster:
    ...     path, out = os.path.join(folder, "a.npy"), os.path.join(folder, "labelled")
    ...     np.save(path, np.random.default_rng(0).uniform(0, 9, (1000, 3)))
    ...     with Client(cluster) as client:
    ...         done = spcy.dask.label_files(net, [path], out, 0.5, client=client, tile=8)
    ...     len(np.load(done.written[0]))
    1000
    """
    run = _Run(net, paths, Path(out), voxel_size, columns, file_columns, features, tile, sites, invalid)
    failed = dict(run.unreadable)
    if failed and not keep_going:
        raise ValueError(next(iter(failed.values())))
    run.begin()
    entered: list[_Entered] = []
    todo = [i for i in run.missing if run.paths[i] not in failed]
    try:
        with client.as_current():
            if todo:
                entered = _computed(client, run.tasks(travelling(net), keep_going), progress)
                failed.update({run.paths[i]: why for each in entered for i, why in each.failed})
                todo = [i for i in todo if run.paths[i] not in failed]
            _computed(client, run.writing(todo), progress)
    except KilledWorker as error:
        raise RuntimeError(
            "workers died again and again, of too little memory as a rule: use smaller tiles, or more memory "
            f"for each worker ({error})"
        ) from error
    if not failed:
        shutil.rmtree(run.work)
    kept = [path for i, path in enumerate(run.outputs) if i not in run.missing]
    counted = sum(each.points for each in entered), sum(each.dropped for each in entered)
    return LabelledFiles([run.outputs[i] for i in todo], kept, failed, *counted)


class _Entered(NamedTuple):
    """What became of some chunks."""

    points: int
    dropped: int
    failed: list[tuple[int, str]]  # files, and why


class _Run:
    """What is to be done in a folder, and what is there already."""

    def __init__(
        self,
        net: nn.Module,
        paths: Sequence[str | Path],
        out: Path,
        voxel_size: ArrayLike,
        columns: Sequence[str | int] | None,
        file_columns: int | str | Sequence[str] | None,
        features: Describe | None,
        tile: int | Sequence[int] | None,
        sites: int,
        invalid: Literal["raise", "drop"],
    ):
        self.paths = [str(path) for path in paths]
        if columns is None:
            columns = XYZ if features is None else ()
        self.columns = _Columns(tuple(columns), file_columns)
        self.outputs = _outputs(self.paths, out)
        self.work = out / _WORK
        self.unreadable: dict[str, str] = {}
        self.chunks: list[_Chunk] = []
        sizes = [self._open(i, path) for i, path in enumerate(self.paths)]
        options: dict[str, Any] = {"tile": tile, "sites": sites, "invalid": invalid, "features": features}
        self.job = make_job(net, voxel_size, 3, max(1, len(self.chunks)), **options)
        plan = {
            "network": _digest(net),
            "voxel_size": self.job.voxel_size.tolist(),
            "tile": self.job.tile.tolist(),
            "columns": list(self.columns.names),
            "file_columns": file_columns
            if isinstance(file_columns, (int, str, type(None)))
            else [*file_columns],
            "features": getattr(features, "__qualname__", None),
            "invalid": invalid,
            "inputs": dict(zip(self.paths, sizes, strict=True)),
        }
        self._plan = json.dumps(plan, indent=1)

    def begin(self) -> None:
        """Make the folder, or find what an earlier run has left there."""
        _require_same(self.work.parent, self._plan)
        self.missing = [i for i, path in enumerate(self.outputs) if not path.exists()]

    def _open(self, number: int, path: str) -> list[int] | None:
        """Cut a file into chunks; return what tells it from another of its name."""
        try:
            (file, _), stat = self.columns.open(path), Path(path).stat()
        except (OSError, ValueError) as error:
            self.unreadable[path] = str(error)
            return None
        if not file.num_points:
            self.unreadable[path] = f"{path}: the file holds no point"
            return None
        for start in range(0, file.num_points, CHUNK):
            stop = min(start + CHUNK, file.num_points)
            self.chunks.append(_Chunk(len(self.chunks), number, path, start, stop))
        return [stat.st_size, stat.st_mtime_ns]

    def tasks(self, net: Any, keep_going: bool) -> list[Delayed]:
        """Return tasks that leave the rows of all chunks and the labels of all tiles in the work folder."""
        tiles = [p for p in range(self.job.partitions) if not self._tiles(p).exists()]
        frames: list[Delayed] = []
        wanted, kept = set(tiles), []
        job, travels, enter = travelling(self.job), travelling(wanted), dask.delayed(_enter)
        for chunk in self.chunks:
            rows = self._rows(chunk.number)
            if rows.exists() and not wanted.intersection(_partitions(rows)):
                continue
            entered = enter(job, chunk, self.columns, rows, travels, keep_going)
            frames.append(entered[0])
            kept.append(entered[1])
        if not frames:
            return []
        parts = shuffled(frames, self.job.partitions).to_delayed()
        leave = dask.delayed(_leave)
        return kept + [leave(job, net, parts[p], self._tiles(p)) for p in tiles]

    def writing(self, files: Sequence[int]) -> list[Delayed]:
        """Return tasks that write outputs."""
        rows: dict[int, list[Path]] = {}
        for chunk in self.chunks:
            rows.setdefault(chunk.file, []).append(self._rows(chunk.number))
        write = dask.delayed(_write)
        return [write(self.paths[i], self.outputs[i], rows[i], self.work) for i in files]

    def _rows(self, chunk: int) -> Path:
        return self.work / "rows" / f"{chunk}.npz"

    def _tiles(self, partition: int) -> Path:
        return _tiles(self.work, partition)


def _tiles(work: Path, partition: int) -> Path:
    return work / "tiles" / f"{partition}.npz"


def _computed(client: Client, tasks: list[Delayed], progress: bool) -> list[_Entered]:
    """Compute tasks, up to the first error; return what those that enter points say."""
    if not tasks:
        return []
    futures = client.compute(tasks)
    try:
        ended = as_completed(futures)
        results = [future.result() for future in (bar(ended, len(futures), "task") if progress else ended)]
        return [each for each in results if each is not None]
    finally:
        client.cancel(futures)


def _outputs(paths: Sequence[str], out: Path) -> list[Path]:
    """Return a file in the folder for each input."""
    if not paths:
        raise ValueError("paths must name at least one file")
    outputs = [out / labelled_name(path) for path in paths]
    number = Counter(outputs)
    for path, output in zip(paths, outputs, strict=True):
        if number[output] > 1:
            raise ValueError(f"paths must have names of their own, got several that become {output.name}")
        if output.exists() and Path(path).exists() and output.samefile(path):
            raise ValueError(f"out must not be where the inputs are, got {str(out)!r} for {path!r}")
    return outputs


def _digest(net: nn.Module) -> str:
    """Return what tells networks apart: what they are, and their weights."""
    digest = hashlib.sha256(repr(net).encode())
    for name, array in sorted(net.state_dict().items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _require_same(out: Path, plan: str) -> None:
    """Make the folder of a run, or go on with one that has the same plan."""
    with naming(out):
        for part in ("rows", "tiles"):
            (out / _WORK / part).mkdir(parents=True, exist_ok=True)
    path = out / _PLAN
    if not path.exists():
        write_bytes(path, plan.encode())
    elif path.read_text() != plan:
        theirs, ours = json.loads(path.read_text()), json.loads(plan)
        other = [key for key in ours if theirs.get(key) != ours[key]]
        raise ValueError(
            f"out must be a folder of its own for each run: {path} has other {', '.join(other)}; name "
            "another folder, or delete that one"
        )


def _enter(
    job: Job, chunk: _Chunk, columns: _Columns, rows: Path, wanted: set[int], keep_going: bool
) -> tuple[Any, _Entered]:
    """Read a chunk of points, keep the rows of its voxels, and return what it sends to some partitions."""
    use_worker_threads()
    try:
        file, names = columns.open(chunk.path)
        values = file.read(chunk.start, chunk.stop, (*XYZ, *names))
        points = values[:, :3].astype(np.float64, copy=False)
        for worst in np.stack(bounds_of(np.ascontiguousarray(points))).ravel():  # NaN is the job's affair
            if abs(worst) > FARTHEST and np.isfinite(worst):
                raise ValueError(f"coordinates must be in metres, got {worst:g}")
        entered = job.enter(points, values[:, 3:].astype(job.dtype))
    except (OSError, ValueError) as error:
        named = f"{chunk.path}, points {chunk.start} .. {chunk.stop - 1}: {error}"
        if keep_going:
            return frame_of([]), _Entered(0, 0, [(chunk.file, named)])
        raise ValueError(named) from error
    where = np.array([job.partition_of(tile) for tile in entered.tiles.tolist()], np.int64)
    sent = np.array(sorted({to for to, _ in entered.blocks}), np.int64)
    write_npz(rows, {"rows": entered.rows, "tiles": entered.tiles, "where": where, "sent": sent})
    blocks = frame_of([(to, chunk.number, block) for to, block in entered.blocks if to in wanted])
    return blocks, _Entered(len(points), int((entered.rows < 0).sum()), [])


def _partitions(rows: Path) -> list[int]:
    """Return the partitions that a chunk sends to."""
    with np.load(rows) as kept:
        return kept["sent"].tolist()


def _leave(job: Job, net: nn.Module, part: pd.DataFrame, path: Path) -> None:
    """Label the tiles of a partition, and keep the labels."""
    use_worker_threads()
    left = job.leave(net, rows_of(part))
    write_npz(path, {_member(chunk, tile): np.frombuffer(labels, np.uint8) for chunk, tile, labels in left})


def _member(chunk: int, tile: Sequence[int]) -> str:
    return f"{chunk}/{'_'.join(map(str, tile))}"


def _write(path: str, output: Path, rows: Sequence[Path], work: Path) -> None:
    """Write an output."""
    label_scan(path, output, _labels(rows, work))


def _labels(rows: Sequence[Path], work: Path) -> Iterator[np.ndarray]:
    """Yield the labels of an input's points, chunk by chunk."""
    for each in rows:
        with np.load(each) as kept:
            place, tiles, where = kept["rows"], kept["tiles"], kept["where"].tolist()
        found, chunk = {}, int(each.stem)
        for partition in sorted(set(where)):
            with np.load(_tiles(work, partition)) as labels:
                for tile, at in zip(map(tuple, tiles.tolist()), where, strict=True):
                    if at == partition:
                        found[tile] = labels[_member(chunk, tile)].tobytes()
        yield labels_of(place, tiles, found)
