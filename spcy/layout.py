"""Weights of other libraries, laid out as spcy's: (*kernel_size, C_in // groups, C_out)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import ArrayLike

from . import _check
from ._backend import host_array

SOURCES = (
    "spconv1",
    "spconv2.0",
    "spconv2",
    "minkowski",
    "torchsparse",
    "sparseconvnet",
    "torch",
    "torch_transposed",
)
_AXES = {  # of the libraries that keep an axis for each of the kernel's
    "spconv1": "({}, C_in, C_out)",
    "spconv2.0": "({}, C_out, C_in)",
    "spconv2": "(C_out, {}, C_in)",
    "torch": "(C_out, C_in, {})",
    "torch_transposed": "(C_in, C_out, {})",
}


def convert_weight(
    weight: ArrayLike, source: str, kernel_size: Sequence[int], *, stride: int | Sequence[int] = 1
) -> np.ndarray:
    r"""Return a convolution's weight from another library in spcy's layout.

    Parameters
    ----------
    weight : array_like
        As the library keeps it, with the axes below; any dtype.
    source : str
        ========================  =========================================================================
        ``"spconv1"``             spconv 1.x, mmcv, mmdet3d: ``(*kernel_size, C_in, C_out)``
        ``"spconv2.0"``           spconv 2.0 and 2.1, native algorithm: ``(*kernel_size, C_out, C_in)``
        ``"spconv2"``             spconv 2.2 and later, and the implicit algorithms of 2.0 and 2.1:
                                  ``(C_out, *kernel_size, C_in)``
        ``"minkowski"``           MinkowskiEngine: ``(K, C_in, C_out)``, the first axis fastest in K
        ``"torchsparse"``         TorchSparse: as MinkowskiEngine for odd K, the last axis fastest for even K
        ``"sparseconvnet"``       SparseConvNet: ``(K, groups, C_in // groups, C_out // groups)``, the last
                                  axis fastest; older ones without the axis of groups
        ``"torch"``               PyTorch's ``Conv3d``: ``(C_out, C_in // groups, *kernel_size)``
        ``"torch_transposed"``    PyTorch's ``ConvTranspose3d``: ``(C_in, C_out, *kernel_size)``
        ========================  =========================================================================

        K is the number of kernel cells; libraries that keep K leave it out where it is 1. It is never
        guessed: with equal channels, several of these fit.
    kernel_size : sequence of D ints
        In the order of the coordinates' columns.
    stride : int or sequence of D ints
        Of the layer, 1 for submanifold ones. It matters only for a single cell in spconv 2, which with
        stride 1 reads the memory of its (C_out, 1, .., 1, C_in) array as a (C_in, C_out) matrix.

    Returns
    -------
    ndarray of shape (\*kernel_size, C_in // groups, C_out)
        C-contiguous, of weight's dtype.

    Raises
    ------
    ValueError
        If `source` is none of these, or the shape of `weight` does not fit `source` and `kernel_size`.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> spcy.convert_weight(np.zeros((32, 3, 3, 3, 16)), "spconv2", (3, 3, 3)).shape
    (3, 3, 3, 16, 32)
    >>> spcy.convert_weight(np.zeros((27, 16, 32)), "minkowski", (3, 3, 3)).shape
    (3, 3, 3, 16, 32)
    """
    _check.choice(source, SOURCES, "source")
    if not isinstance(kernel_size, Sequence) or not 1 <= len(kernel_size) <= _check.MAX_NDIM:
        raise TypeError(f"kernel_size must be a sequence of 1 .. 4 ints, got {kernel_size!r}")
    kernel_size = _check.per_axis(kernel_size, len(kernel_size), "kernel_size", 1)
    stride = _check.per_axis(stride, len(kernel_size), "stride", 1)
    return convert(host_array(weight, "weight"), source, kernel_size, stride, "weight")


def convert(
    array: np.ndarray, source: str, kernel_size: tuple[int, ...], stride: tuple[int, ...], name: str
) -> np.ndarray:
    """Convert a weight; `name` is what messages call it."""
    convert = _cells if source in ("minkowski", "torchsparse", "sparseconvnet") else _axes
    return np.ascontiguousarray(convert(array, source, kernel_size, stride, name))


def _axes(
    array: np.ndarray, source: str, kernel_size: tuple[int, ...], stride: tuple[int, ...], name: str
) -> np.ndarray:
    """Convert an array that has an axis for each of the kernel's."""
    ndim = len(kernel_size)
    first = {"spconv1": 0, "spconv2.0": 0, "spconv2": 1}.get(source, 2)
    if array.ndim != ndim + 2 or array.shape[first : first + ndim] != kernel_size:
        cells = ", ".join(map(str, kernel_size))
        raise ValueError(
            f"{name} must have shape {_AXES[source].format(cells)} for source={source!r}, got {array.shape}"
        )
    if source == "spconv1":
        return array
    if source == "spconv2.0":
        array = array.swapaxes(-1, -2)
    elif source == "spconv2":
        array = np.moveaxis(array, 0, -1)
    else:
        array = np.moveaxis(array, (0, 1), (-1, -2) if source == "torch" else (-2, -1))
    if source.startswith("spconv2") and prod(kernel_size) == prod(stride) == 1:
        array = array.swapaxes(-1, -2).reshape(array.shape)  # the entries as they lie in memory
    return array


def _cells(
    array: np.ndarray, source: str, kernel_size: tuple[int, ...], stride: tuple[int, ...], name: str
) -> np.ndarray:
    """Convert an array that has one axis for all kernel cells."""
    volume = prod(kernel_size)
    given = array.shape
    if array.ndim == 2 and source == "sparseconvnet" and not array.shape[0] % volume:
        array = array.reshape(volume, -1, array.shape[1])
    elif array.ndim == 2 and volume == 1:
        array = array[None]
    elif array.ndim == 4 and source == "sparseconvnet":  # the groups' output channels side by side
        array = np.moveaxis(array, 1, 2).reshape(*array.shape[::2], -1)
    if array.ndim != 3 or array.shape[0] != volume:
        groups = "groups, C_in // groups, C_out // groups" if source == "sparseconvnet" else "C_in, C_out"
        raise ValueError(
            f"{name} must have shape ({volume}, {groups}) for source={source!r} and kernel_size "
            f"{kernel_size}, got {given}"
        )
    if source == "sparseconvnet" or (source == "torchsparse" and volume % 2 == 0):
        return array.reshape(*kernel_size, *array.shape[1:])
    ndim = len(kernel_size)
    array = array.reshape(*kernel_size[::-1], *array.shape[1:])
    return array.transpose(*reversed(range(ndim)), ndim, ndim + 1)
