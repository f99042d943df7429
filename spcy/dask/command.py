"""What ``spcy run`` does with a folder to write to."""

from __future__ import annotations

import argparse
import ctypes
import glob
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster

from .. import models
from ..demo import network as street
from ..scan import READERS
from .files import label_files

_TRIM, _MAP = 1 << 28, 1 << 25  # bytes that are kept, and that are mapped of their own
_SETTINGS = {  # of workers here
    # It samples stacks a hundred times a second, and waits for the lock of Python's each time.
    "distributed.worker.profile.enabled": False,
    # Its clocks, which tick fifty times a second in each process, take a sixth of a core of two.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.memory.monitor-interval": "500ms",
    # Dask has processes give memory back at once, and so every array too, whose pages the kernel then clears
    # again: a third of the time.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": _TRIM,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": _MAP,
}


def run(args: argparse.Namespace) -> int:
    """Label the points of files.

    Parameters
    ----------
    args : argparse.Namespace
        Of ``spcy run``.

    Returns
    -------
    int
        0, or 1 if inputs could not be read.

    Raises
    ------
    ValueError, OSError, ImportError, RuntimeError
        As from `label_files`; if the arguments do not fit each other.
    """
    net, options = _network(args)
    paths = _paths(args.scan)
    with _client(args) as client:
        done = label_files(
            net,
            paths,
            args.out,
            client=client,
            file_columns=args.columns,
            tile=args.tile,
            invalid="drop" if args.drop_invalid else "raise",
            keep_going=args.keep_going,
            progress=True,
            **options,
        )
    for why in done.failed.values():
        print(f"spcy: left out: {why}", file=sys.stderr)
    dropped = f" ({done.dropped} of them not finite, label -1)" if done.dropped else ""
    written, kept, failed = len(done.written), len(done.kept), len(done.failed)
    print(f"{args.out}: {written} files written, {kept} were there, {failed} left out")
    print(f"{done.points} points read{dropped}")
    return 1 if done.failed else 0


def _network(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Return the network, and how points become its input."""
    if args.model == "street":
        if args.features is not None:
            raise ValueError("--features are no input of street, which sees where points lie in their voxels")
        options = {"voxel_size": street.VOXEL_SIZE, "columns": (), "features": street.point_features}
        net: Any = street.load()
    else:
        net, settings = models.load(args.model)
        if settings.bounds is not None or settings.max_points is not None:
            raise ValueError(
                f"{args.model}: networks with bounds or max_points take one scan: name an .npz as --out"
            )
        options = {"voxel_size": settings.voxel_size, "columns": args.features or settings.columns}
    if args.voxel is not None:
        options["voxel_size"] = args.voxel if len(args.voxel) > 1 else args.voxel[0]
    return net, options


def _paths(patterns: Sequence[str]) -> list[Path]:
    """Return the files of patterns and folders, each once, by name."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            matches = [
                p for p in path.iterdir() if p.suffix.lower() in READERS and not p.name.startswith(".")
            ]
            kinds = f"a file that ends in {', '.join(READERS)}"
        else:
            matches = [path] if path.exists() else [Path(name) for name in glob.glob(pattern, recursive=True)]
            kinds = "a file"
        if not matches:
            raise FileNotFoundError(f"{pattern}: expected {kinds}, found none")
        found.update(dict.fromkeys(p.resolve() for p in sorted(matches)))
    return list(found)


@contextmanager
def _client(args: argparse.Namespace) -> Iterator[Client]:
    """Give a client of the scheduler that was named, or of workers here."""
    if args.scheduler is None:
        with local_client(args.workers) as client:
            yield client
        return
    with Client(args.scheduler, timeout=30) as client:
        yield client


@contextmanager
def local_client(workers: int | None = None) -> Iterator[Client]:
    """Give a client of workers on this machine.

    Parameters
    ----------
    workers : int, optional
        Processes of one thread each; None is this process, with a thread for each core, which then keeps the
        memory that arrays leave behind.

    Yields
    ------
    distributed.Client
    """
    options = {"processes": True, "n_workers": 0, "threads_per_worker": 1}
    if workers is None:
        options = {"processes": False, "n_workers": 1}
        _keep_memory()
    with (
        dask.config.set(_SETTINGS),
        LocalCluster(dashboard_address=":0", silence_logs="ERROR", **options) as cluster,
        Client(cluster) as client,
    ):
        if workers is not None:
            cluster.sync(_block_interrupts)
            cluster.scale(workers)
            client.wait_for_workers(workers, timeout=120)
        yield client


async def _block_interrupts() -> None:
    """Let workers see no Ctrl-C, each with a traceback of its own: who starts them ends them.

    Processes have the signal mask of the thread that starts them.
    """
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # which the first worker would start, and that unblocks interrupts
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _keep_memory() -> None:
    """Let this process keep memory: where threads map and unmap theirs, they wait for each other."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # glibc's
        mallopt(-1, _TRIM)  # M_TRIM_THRESHOLD
        mallopt(-3, _MAP)  # M_MMAP_THRESHOLD
