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


def combine(x, y, operation, other, out, n_threads):
    """Write the sum or the product of each two numbers, or of each and a number."""
    function = kernel("pointwise", "combine", type_name(out.dtype))
    launch(function, out.size, x, y, np.int32(operation), np.float64(other), np.int64(out.size), out)


def widen(x, out, n_threads):
    """Write numbers of 16 bits as float32."""
    launch(kernel("pointwise", "widen", type_name(x.dtype)), out.size, x, np.int64(out.size), out)


def narrow(x, out, n_threads):
    """Write numbers in 16 bits, rounded once, to nearest, ties to even."""
    function = kernel("pointwise", "narrow", type_name(out.dtype), type_name(x.dtype))
    launch(function, out.size, x, np.int64(out.size), out)
