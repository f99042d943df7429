"""Functions of each feature by itself, and their gradients."""

import numpy as np

from ._kernel import kernel, launch, type_name


def activate(x, kind, slope, out, n_threads):
    """Write the function of each number."""
    function = kernel("pointwise", "activate", type_name(out.dtype), kind)
    launch(function, out.size, x, np.int64(out.size), np.float64(slope), out)


def activation_gradient(x, dy, kind, slope, out, n_threads):
    """Write the gradient times the function's slope at each number."""
    function = kernel("pointwise", "activation_gradient", type_name(out.dtype), kind)
    launch(function, out.size, x, dy, np.int64(out.size), np.float64(slope), out)
