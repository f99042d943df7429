"""Blocks of bytes, brought to the partition that each is for by Dask's own shuffle."""

from __future__ import annotations

from collections.abc import Sequence

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
from dask.delayed import Delayed
from distributed import default_client

_BYTES = pd.ArrowDtype(pa.large_binary())
# Few rows with many bytes each: the shuffle sorts rows, and copies bytes.
_META = pd.DataFrame(
    {"to": np.empty(0, np.int64), "source": np.empty(0, np.int64), "block": pd.array([], dtype=_BYTES)}
)


def frame_of(rows: Sequence[tuple[int, int, bytes]]) -> pd.DataFrame:
    """Return rows (partition, where from, bytes) as Dask takes them."""
    if not rows:
        return _META
    to, source, blocks = zip(*rows, strict=True)
    blocks = pd.array(
        pa.chunked_array([pa.array([block], pa.large_binary()) for block in blocks]), dtype=_BYTES
    )
    return pd.DataFrame({"to": np.array(to, np.int64), "source": np.array(source, np.int64), "block": blocks})


def rows_of(frame: pd.DataFrame) -> list[tuple[int, bytes | memoryview]]:
    """Return the rows (where from, bytes) of a partition."""
    chunks = frame["block"].array._pa_array.chunks if len(frame) else []
    blocks = (memoryview(value.as_buffer()) for chunk in chunks for value in chunk)
    return list(zip(frame["source"].tolist(), blocks, strict=True))


def shuffled(frames: Sequence[Delayed], partitions: int) -> dd.DataFrame:
    """Return the rows of frames, each in its partition: peer to peer, where there are workers."""
    try:
        default_client()
        method = "p2p"
    except ValueError:
        method = "tasks"
    frame = dd.from_delayed(frames, meta=_META, verify_meta=False)
    return frame.set_index("to", divisions=list(range(partitions + 1)), shuffle_method=method)
