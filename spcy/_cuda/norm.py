"""Norms over all rows, by columns, and of each row: moments, the norm itself, its gradient."""

import numpy as np

from . import pointwise
from ._kernel import kernel, launch, type_name

BLOCK = 256  # rows that have sums of their own


def moments(x, sums, n_threads):
    """Write, for each block of rows, each column's mean and the sum of the squares of what lies beyond."""
    launch(kernel("norm", "moments", type_name(x.dtype)), sums.size // 2, x, *_shape(x), sums)


def scratch_size(rows, channels, n_threads):
    """Return the numbers of scratch that gradients through an activation need."""
    return 2 * rows * channels


def apply(x, centre, scale, shift, kind, leak, out, n_threads):
    """Write the activation of ``(x - centre) * scale + shift``."""
    function = kernel("norm", "apply", type_name(x.dtype))
    launch(function, x.size, x, np.int64(x.size), np.int64(x.shape[1]), centre, scale, shift, out)
    if kind:
        pointwise.activate(out, kind, leak, out, n_threads)


def gradient_sums(x, dy, centre, scale, shift, kind, leak, scratch, sums, n_threads):
    """Write each block's sums, by columns, of g and of ``g * (x - centre)``, g dy before the activation."""
    dy = _before(x, dy, centre, scale, shift, kind, leak, scratch, n_threads)
    function = kernel("norm", "gradient_sums", type_name(x.dtype))
    launch(function, sums.size // 2, x, dy, *_shape(x), centre, sums)


def gradient(x, dy, centre, scale, shift, mean, slope, kind, leak, scratch, out, n_threads):
    """Write ``(g - mean - (x - centre) * slope) * scale``, g dy before the activation."""
    dy = _before(x, dy, centre, scale, shift, kind, leak, scratch, n_threads)
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


def _before(x, dy, centre, scale, shift, kind, leak, scratch, n_threads):
    """Return the gradient of the norm by that of its activation."""
    if not kind:
        return dy
    made, before = scratch.reshape(2, *x.shape)
    apply(x, centre, scale, shift, 0, 0.0, made, n_threads)
    pointwise.activation_gradient(made, dy, kind, leak, before, n_threads)
    return before
