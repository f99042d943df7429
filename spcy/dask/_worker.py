"""What tasks do where they run."""

from __future__ import annotations

import weakref
from typing import Any

import cloudpickle
import dask
import numpy as np
import pandas as pd
from dask.delayed import Delayed
from distributed import get_worker

from .. import _threads, nn
from ._job import Job, labels_of
from ._shuffle import frame_of, rows_of


def use_worker_threads() -> None:
    """Let spcy's default number of threads be the worker's, shared among the tasks that it runs.

    A worker process sets ``OMP_NUM_THREADS`` to 1, and knows nothing of spcy's threads.
    """
    try:
        worker = weakref.ref(get_worker())
    except ValueError:  # no worker: the tasks are another scheduler's
        return

    def num_threads() -> int | None:
        here = worker()
        if here is None or here.status.name != "running":
            return None
        return max(1, here.state.nthreads // max(1, here.state.executing_count))

    _threads.follow(num_threads, "the threads of a Dask worker")


def travelling(what: Any) -> Delayed:
    """Return what all tasks need, such as a network, as a task whose result each worker fetches once.

    In bytes, so that what cannot be loaded there is the task's error: else workers come and go for ever.
    """
    return dask.delayed(cloudpickle.loads, pure=False)(cloudpickle.dumps(what))


def label_tiles(job: Job, net: nn.Module, part: pd.DataFrame) -> pd.DataFrame:
    """Return the labels that a partition of tiles sends back to chunks."""
    use_worker_threads()
    left = job.leave(net, rows_of(part))
    return frame_of([(chunk, 0, np.array(tile, np.int64).tobytes() + labels) for chunk, tile, labels in left])


def labels_from(part: pd.DataFrame, rows: np.ndarray, tiles: np.ndarray) -> np.ndarray:
    """Return the labels of a chunk's points from what tiles sent back."""
    size = 8 * tiles.shape[1]
    found = {tuple(np.frombuffer(b[:size], np.int64).tolist()): bytes(b[size:]) for _, b in rows_of(part)}
    return labels_of(rows, tiles, found)
