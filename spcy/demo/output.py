"""Files: the pictures and the arrays of a result."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np

from spcy.demo import pictures
from spcy.demo.geometry import LABELS
from spcy.demo.run import VOXEL_SIZE, Result


def prepare_folder(folder: Path) -> None:
    """Make a folder if need be; OSError if no file can be written there.

    Parameters
    ----------
    folder : Path
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder):
        pass


def write_files(result: Result, folder: Path) -> list[Path]:
    """Write the pictures and ``sites.npz``, each whole or not at all.

    Parameters
    ----------
    result : Result
    folder : Path
        Must exist; files of the same names are replaced.

    Returns
    -------
    list of Path
        What was written. ``sites.npz`` has a row for each site in ``indices``, ``points``, ``height``,
        ``labels`` (into ``label_names``), ``normal``, ``linearity``, ``planarity``, ``verticality`` and
        ``features``, which the network gave; and ``point_rows``, the row of each point of the scan.
    """
    paths = []
    for name, draw in [
        ("labels.png", pictures.draw_labels),
        ("normals.png", pictures.draw_normals),
        ("levels.png", pictures.draw_levels),
    ]:
        figure = draw(result)
        paths.append(folder / name)
        _replace(paths[-1], lambda file, figure=figure: figure.savefig(file, format="png"))
    geometry = result.geometry
    arrays = {
        "voxel_size": VOXEL_SIZE,
        "indices": result.voxels.tensor.indices,
        "points": result.points,
        "labels": result.labels,
        "label_names": np.array(LABELS),
        "height": result.height,
        "normal": geometry.normal,
        "linearity": geometry.linearity,
        "planarity": geometry.planarity,
        "verticality": geometry.verticality,
        "features": result.output.features,
        "point_rows": result.voxels.rows,
    }
    paths.append(folder / "sites.npz")
    _replace(paths[-1], lambda file: np.savez(file, **arrays))
    return paths


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside its place, then put it there."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            write(file)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
