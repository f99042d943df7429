"""Files: the pictures, the 3-D page and the arrays of a result."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from spcy._backend import to_host
from spcy._files import naming, require_writable
from spcy.demo import network, page, pictures
from spcy.demo.geometry import LABELS
from spcy.demo.run import VOXEL_SIZE, Result


def prepare_folder(folder: Path) -> None:
    """Make a folder if need be; OSError if no file can be written there.

    Parameters
    ----------
    folder : Path
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--out must be a folder, got the file {folder}")
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        require_writable(folder / "sites.npz")


def write_files(result: Result, folder: Path) -> list[Path]:
    """Write the pictures, ``scan.html`` and ``sites.npz``: all of them or none, each whole.

    Parameters
    ----------
    result : Result
    folder : Path
        Must exist; files of the same names are replaced.

    Returns
    -------
    list of Path
        What was written. ``sites.npz`` has a row for each site in ``indices``, ``points``, ``height``,
        ``labels`` (into ``label_names``), ``learned`` (into ``learned_names``), ``normal``, ``linearity``,
        ``planarity``, ``verticality`` and ``features``, which the backbone gave; and ``point_rows``, the
        row of each point of the scan's file, -1 where it was left out.
    """
    geometry = result.geometry
    arrays = {
        "voxel_size": VOXEL_SIZE,
        "indices": result.voxels.tensor.indices,
        "points": result.points,
        "labels": result.labels,
        "label_names": np.array(LABELS),
        "learned": result.learned,
        "learned_names": np.array(network.LABELS),
        "height": result.height,
        "normal": geometry.normal,
        "linearity": geometry.linearity,
        "planarity": geometry.planarity,
        "verticality": geometry.verticality,
        "features": to_host(result.output.features),
        "point_rows": result.scan.rows_in_file(result.voxels.rows),
    }
    writers: dict[str, Callable[[BinaryIO], object]] = {
        "labels.png": lambda file: pictures.draw_labels(result).savefig(file, format="png"),
        "learned.png": lambda file: pictures.draw_learned(result).savefig(file, format="png"),
        "normals.png": lambda file: pictures.draw_normals(result).savefig(file, format="png"),
        "levels.png": lambda file: pictures.draw_levels(result).savefig(file, format="png"),
        "scan.html": lambda file: file.write(page.page(result).encode()),
        "sites.npz": lambda file: np.savez(file, **arrays),
    }
    drafts = {folder / name: folder / f".{name}.{os.getpid()}" for name in writers}
    try:
        with naming(folder):
            for draft, write in zip(drafts.values(), writers.values(), strict=True):
                with draft.open("wb") as file:
                    write(file)
            for path, draft in drafts.items():
                draft.replace(path)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
    return list(drafts)
