"""Networks in files: their weights, what they were made with, and how scans become their input."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import _check
from .._backend import to_host
from .._checkpoint import numpy_dtype
from .._files import write_npz
from .._width import widened
from ..nn.module import Buffer, Module, wide_dtype
from ..voxel import Voxels, voxelize
from ..weights import explaining, open_npz
from .backbone8x import VoxelBackBone8x, VoxelResBackBone8x
from .minkunet import MinkUNet, MinkUNet42
from .network import Network, blank
from .scn_unet import SparseConvNetUNet

NETWORKS: dict[str, type[Network]] = {
    network.__name__: network
    for network in (VoxelBackBone8x, VoxelResBackBone8x, MinkUNet, MinkUNet42, SparseConvNetUNet)
}
_SETTINGS = "spcy_network"  # the entry that holds all but the weights, as JSON
_VERSION = 1
_MAX_SETTINGS = 1 << 14  # characters
_DTYPES = ("float32", "float64", "bfloat16", "float16")


class ScanSettings(NamedTuple):
    """How a scan becomes a network's input.

    Attributes
    ----------
    voxel_size : tuple of 3 floats
        Along x, y, z.
    bounds : tuple of (low, high), each 3 floats, or None
        Points outside are left out. Backbones of detectors need them.
    columns : tuple of int
        The columns of a scan whose mean over a voxel's points are its features; x, y, z are 0, 1, 2.
    max_points : int or None
        Take the mean of the first so many points of a voxel.
    """

    voxel_size: tuple[float, float, float]
    bounds: tuple[tuple[float, float, float], tuple[float, float, float]] | None
    columns: tuple[int, ...]
    max_points: int | None = None


def save(path: str | os.PathLike[str], net: Network, settings: ScanSettings) -> None:
    """Write a network to an npz file, whole or not at all.

    Parameters
    ----------
    path : str or path
        Ends in ``.npz``; replaced if it is there.
    net : Network
        One of this module's.
    settings : ScanSettings

    Raises
    ------
    ValueError, TypeError
        If the settings do not fit the network, its layers have several dtypes, or `path` does not end in
        ``.npz``.

    Examples
    --------
    >>> import os, spcy, tempfile
    >>> from spcy import models
    >>> net = models.MinkUNet42(4, 19, width=0.25, rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     models.save(path, net, models.ScanSettings((0.05, 0.05, 0.05), None, (0, 1, 2, 3)))
    ...     net, settings = models.load(path)
    >>> type(net).__name__, settings.voxel_size
    ('MinkUNet42', (0.05, 0.05, 0.05))
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path must end in .npz, got {path.name!r}")
    if NETWORKS.get(type(net).__name__) is not type(net):
        raise TypeError(f"net must be one of {', '.join(NETWORKS)}, got {type(net).__name__}")
    settings = _checked(settings, net)
    dtype = network_dtype(net)
    for name, module in net.modules().items():
        for part, value in module._own(Buffer):
            if value.data.dtype != module._dtype_for(dtype):
                raise TypeError(
                    f"net must have one dtype, as astype gives it, got {value.data.dtype} in {name}.{part} "
                    f"beside {dtype}"
                )
    document = {
        "version": _VERSION,
        "network": type(net).__name__,
        "arguments": net.arguments,
        "dtype": dtype.name,
        "scan": settings._asdict(),
    }
    state = {name: widened(to_host(array)) for name, array in net.state_dict().items()}  # npz has no bfloat16
    write_npz(path, {**state, _SETTINGS: np.array(json.dumps(document, default=_plain))})


def load(path: str | os.PathLike[str]) -> tuple[Network, ScanSettings]:
    """Return the network of a file that `save` wrote, after `eval`, and its settings.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    net : Network
        Of the dtype that it was saved in.
    settings : ScanSettings

    Raises
    ------
    FileNotFoundError, OSError
        If there is no such file, or it cannot be read.
    ValueError
        If it is damaged, or not a file of `save`; the message names it.

    Examples
    --------
    See `save`.

    >>> from spcy import models
    >>> sorted(models.NETWORKS)
    ['MinkUNet', 'MinkUNet42', 'SparseConvNetUNet', 'VoxelBackBone8x', 'VoxelResBackBone8x']
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, expected a network that `spcy convert` wrote")
    if not path.is_file():
        raise ValueError(f"{path}: is a pipe or a device, expected a file")
    with explaining(path):
        with open_npz(path) as file:
            if _SETTINGS not in file.files:
                raise ValueError(
                    "not a network that `spcy convert` wrote: that has settings, these are arrays only"
                )
            text = str(file[_SETTINGS])
            if len(text) > _MAX_SETTINGS:
                raise ValueError(f"its settings have more than {_MAX_SETTINGS} characters")
            document = json.loads(text)
            state = {name: file[name] for name in file.files if name != _SETTINGS}
        if document["version"] != _VERSION:
            raise ValueError(f"version must be {_VERSION}, got {document['version']}: a newer spcy wrote it")
        dtype = numpy_dtype(_check.choice(document.get("dtype", "float32"), _DTYPES, "dtype"))
        arguments = document["arguments"]
        if arguments.get("ndim", 3) != 3:
            raise ValueError(f"its network must have 3 axes, got {str(arguments['ndim'])[:80]}")
        # With room for arrays that are missing, which are then reported by name.
        zeros = blank(100 + 2 * len(state), (1 << 20) + 2 * sum(array.size for array in state.values()))
        network: Callable[..., Network] = NETWORKS[document["network"]]
        net = network(**arguments, rng=zeros)
        if dtype != np.float32:
            net.astype(dtype)
        net.load_state_dict(state)
        return net.eval(), _checked(ScanSettings(**document["scan"]), net)


def scan_tensor(net: Network, settings: ScanSettings, scan: np.ndarray) -> Voxels:
    """Return the input of a network for a scan.

    A point lies in cell ``floor((point - low) / voxel_size)``, with 0 for `low` where there are no bounds.

    Parameters
    ----------
    net : Network
    settings : ScanSettings
    scan : ndarray of shape (M, >= 3), float32 or float64
        x, y, z, and whatever `settings.columns` name.

    Returns
    -------
    Voxels
        As `spcy.voxelize`, in the network's dtype, with the rows in NumPy. Axes are in the network's
        order: z, y, x for detectors, whose grids have a cell more along z than the bounds hold.

    Raises
    ------
    ValueError
        If the scan lacks a column, or a value of it is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from spcy import models
    >>> net = models.VoxelBackBone8x(4, rng=0)
    >>> settings = models.ScanSettings((0.05, 0.05, 0.1), ((0, -40, -3), (70.4, 40, 1)), (0, 1, 2, 3), 5)
    >>> scan = np.float32([[10, 0, -1, 0.5], [10, 0, -1, 0.7], [90, 0, -1, 0.2]])
    >>> x, rows, counts = models.scan_tensor(net, settings, scan)
    >>> x.indices, x.shape, rows
    (array([[  0,  20, 800, 200]], dtype=int32), (41, 1600, 1408), array([ 0,  0, -1], dtype=int32))
    """
    settings = _checked(settings, net)
    scan = _check.floats(np.asarray(scan), "scan")
    needed = max(3, 1 + max(settings.columns))
    if scan.ndim != 2 or scan.shape[1] < needed:
        raise ValueError(
            f"scan must have shape (M, >= {needed}) for columns {settings.columns}, got {scan.shape}"
        )
    dtype = network_dtype(net)
    points = scan[:, :3]
    features = np.ascontiguousarray(scan[:, settings.columns], wide_dtype(dtype))
    bad = _check.first_row(~np.isfinite(features).all(axis=1))
    if bad is not None:
        raise ValueError(
            f"scan must be finite in columns {settings.columns}, got {features[bad]} in row {bad}"
        )
    order = slice(None, None, -1) if net.zyx else slice(None)
    voxel_size: Any = settings.voxel_size[order]
    kept: Any = slice(None)
    bounds = None
    if settings.bounds is not None:
        low: Any
        high: Any
        low, high = settings.bounds
        kept = np.flatnonzero(((points >= low) & (points < high)).all(axis=1))
        first, last = [*low[order]], [*high[order]]
        if net.zyx:
            last[0] += voxel_size[0]
        bounds = first, last
    voxels = voxelize(
        np.ascontiguousarray(points[kept, order]),
        voxel_size,
        features=features[kept],
        bounds=bounds,
        max_points=settings.max_points,
    )
    rows = np.full(len(scan), -1, np.int32)
    rows[kept] = to_host(voxels.rows)
    tensor = voxels.tensor.map(lambda features: features.astype(dtype, copy=False))
    return voxels._replace(tensor=tensor, rows=rows)


def network_dtype(net: Module) -> np.dtype:
    """Return the dtype of a network's features, which is its first weight's."""
    return next(iter(net.parameters().values())).data.dtype


def _plain(value: object) -> object:
    """Return NumPy's numbers as Python's, for JSON."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"net.arguments must be numbers, strings and lists, got {type(value).__name__}")


def _checked(settings: ScanSettings, net: Network) -> ScanSettings:
    """Return settings as tuples of floats and ints that fit a network."""
    if not isinstance(settings, ScanSettings):
        raise TypeError(f"settings must be ScanSettings, got {type(settings).__name__}")
    voxel_size = _check.lengths(settings.voxel_size, 3, "voxel_size")
    if (voxel_size <= 0).any():
        raise ValueError(f"voxel_size must be positive, got {settings.voxel_size!r}")
    bounds: Any = settings.bounds
    if bounds is not None:
        bounds = tuple(tuple(_check.lengths(b, 3, f"bounds[{i}]").tolist()) for i, b in enumerate(bounds))
        if len(bounds) != 2 or not all(a < b for a, b in zip(*bounds, strict=True)):
            raise ValueError(
                f"bounds must be (low, high) with low < high along x, y, z, got {settings.bounds!r}"
            )
    elif net.zyx:
        raise ValueError(f"bounds must be given for {type(net).__name__}, whose grid they are")
    in_channels, ndim = net.arguments["in_channels"], net.arguments.get("ndim", 3)
    if ndim != 3:
        raise ValueError(f"net must have 3 axes to take scans, got {ndim}")
    columns = tuple(_check.integer(column, "columns") for column in settings.columns)
    if len(columns) != in_channels or min(columns) < 0:
        raise ValueError(f"columns must be {in_channels}, the channels of the network's input, got {columns}")
    max_points = settings.max_points
    if max_points is not None:
        (max_points,) = _check.per_axis(max_points, 1, "max_points", 1)
    return ScanSettings(tuple(voxel_size.tolist()), bounds, columns, max_points)
