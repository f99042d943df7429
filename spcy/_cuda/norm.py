"""Norms over all rows, by columns, and of each row: moments, the norm itself, its gradient."""

import numpy as np

from . import pointwise
from ._kernel import kernel, launch, type_name

BLOCK = 256  # rows that have sums of their own


def moments(x, sums, n_threads):
    """Write, for each block of rows, each column's mean and the sum of the squares of what lies beyond."""
    launch(kernel("norm", "moments", type_name(x.dtype)), sums.size // 2, x, *_shape(x), sums)


def apply(x, centre, scale, shift, kind, leak, out, n_threads):
    """Write the activation of ``(x - centre) * scale + shift``."""
    function = kernel("norm", "apply", type_name(x.dtype))
    launch(function, x.size, x, np.int64(x.size), np.int64(x.shape[1]), centre, scale, shift, out)
    if kind:
        pointwise.activate(out, kind, leak, out, n_threads)


def gradient_sums(x, dy, centre, scale, shift, kind, leak, before, sums, n_threads):
    """Write each block's sums, by columns, of g and of ``g * (x - centre)``, g dy before the activation."""
    if kind:
        apply(x, centre, scale, shift, 0, 0.0, before, n_threads)
        pointwise.activation_gradient(before, dy, kind, leak, before, n_threads)
        dy = before
    function = kernel("norm", "gradient_sums", type_name(x.dtype))
    launch(function, sums.size // 2, x, dy, *_shape(x), centre, sums)


def gradient(x, dy, centre, mean, slope, scale, out, n_threads):
    """Write ``(dy - mean - (x - centre) * slope) * scale``."""
    function = kernel("norm", "gradient", type_name(x.dtype))
    sizes = np.int64(x.size), np.int64(x.shape[1])
    launch(function, x.size, x, dy, *sizes, centre, mean, slope, scale, out)


def layer(x, weight, bias, eps, moments, out, n_threads):
    """Write ``(x - mean) * inverse * weight + bias``, by row."""
    function = kernel("norm", "layer", type_name(x.dtype))
    launch(function, len(x), x, *_shape(x), weight, bias, np.float64(eps), moments, out)


def layer_gradient(x, dy, weight, moments, out, sums, n_threads):
    """Write the gradient; and, for each block of rows, the columns' sums of dy and of dy times the normal."""
    function = kernel("norm", "layer_gradient", type_name(x.dtype))
    launch(function, len(x), x, dy, *_shape(x), weight, moments, out)
    function = kernel("norm", "layer_gradient_sums", type_name(x.dtype))
    launch(function, sums.size // 2, x, dy, *_shape(x), moments, sums)


def _shape(x):
    return np.int64(x.shape[0]), np.int64(x.shape[1])
