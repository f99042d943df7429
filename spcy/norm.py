"""Norms, over all rows or of each row: statistics, what they are taken to, and the gradient."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._backend import array_module, as_bits, kernels_for
from ._memory import empty
from ._threads import threads_for
from .pointwise import Activation

_WORK, _ROW_WORK = 0.3, 0.6  # nanoseconds for a number, about


def column_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the variance of each column of (N, C), N > 0, in double precision.

    Blocks of rows have moments of their own, which are joined by the formula of Chan, Golub & LeVeque,
    "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """
    xp, kernels, count = array_module(x), kernels_for(x).norm, len(x)
    sums = empty(xp, (-(-count // kernels.BLOCK), 2, x.shape[1]), np.float64)
    kernels.moments(*as_bits(x), sums, threads_for(x.size * _WORK))
    rows = xp.full((len(sums), 1), kernels.BLOCK, np.float64)
    rows[-1] = count - (len(sums) - 1) * kernels.BLOCK
    mean = (sums[:, 0] * rows).sum(axis=0) / count
    between = (rows * (sums[:, 0] - mean) ** 2).sum(axis=0)
    return mean, (sums[:, 1].sum(axis=0) + between) / count


class Norm(NamedTuple):
    """``y = activation((x - centre) * scale + shift)`` for every column, in the type that is computed in.

    Gradients are by g, which is dy before the activation; without one it is dy.
    """

    centre: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    activation: Activation | None = None

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Return what the norm makes of features."""
        out = empty(array_module(x), x.shape, x.dtype)
        if out.size:
            bits, flat = as_bits(x, out)
            kernels_for(x).norm.apply(bits, *self._parameters(), *self._kind(), flat, self._threads(x))
        return out

    def gradient_sums(self, x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the columns' sums of g and of ``g * (x - centre)``, in double precision, and g."""
        xp, kernels = array_module(x), kernels_for(x, dy).norm
        sums = empty(xp, (-(-len(x) // kernels.BLOCK), 2, x.shape[1]), np.float64)
        before = None if self.activation is None else empty(xp, x.shape, x.dtype)
        if x.size:
            bits, flat, written = as_bits(x, dy, before)
            parameters = *self._parameters(), *self._kind()
            kernels.gradient_sums(bits, flat, *parameters, written, sums, self._threads(x))
        return sums[:, 0].sum(axis=0), sums[:, 1].sum(axis=0), dy if before is None else before

    def gradient(self, x: np.ndarray, g: np.ndarray, mean: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """Return ``(g - mean - (x - centre) * slope) * scale``; it replaces a g that `gradient_sums` made."""
        out = empty(array_module(g), g.shape, g.dtype) if self.activation is None else g
        if out.size:
            x, g, flat = as_bits(x, g, out)
            parameters = self.centre, mean, slope, self.scale
            kernels_for(x, g).norm.gradient(x, g, *parameters, flat, threads_for(out.size * _WORK))
        return out

    def _parameters(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.centre, self.scale, self.shift

    def _kind(self) -> tuple[int, float]:
        return self.activation or (0, 0.0)

    def _threads(self, x: np.ndarray) -> int:
        return threads_for(x.size * (_WORK + (self.activation.work if self.activation else 0)))


class RowNorm(NamedTuple):
    """``y = (x - mean) / deviation * weight + bias`` for every row, in the type of what `Norm` keeps."""

    weight: np.ndarray
    bias: np.ndarray
    eps: float

    def apply(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what the norm makes of features, and what `gradient` takes."""
        xp = array_module(x)
        out, moments = empty(xp, x.shape, x.dtype), empty(xp, (len(x), 2), self.weight.dtype)
        if out.size:
            bits, flat = as_bits(x, out)
            arguments = bits, self.weight, self.bias, self.eps, moments, flat
            kernels_for(x).norm.layer(*arguments, threads_for(_ROW_WORK * x.size))
        return out, moments

    def gradient(self, x: np.ndarray, dy: np.ndarray, moments: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the gradients of x, weight and bias, the last two in double precision."""
        xp, kernels = array_module(x), kernels_for(x, dy).norm
        out = empty(xp, x.shape, x.dtype)
        sums = empty(xp, (-(-len(x) // kernels.BLOCK), 2, x.shape[1]), np.float64)
        if out.size:
            arguments = *as_bits(x, dy), self.weight, moments, *as_bits(out), sums
            kernels.layer_gradient(*arguments, threads_for(_ROW_WORK * x.size))
        return out, sums[:, 1].sum(axis=0), sums[:, 0].sum(axis=0)
