"""Norms, over all rows or of each row: statistics, what they are taken to, and the gradient."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._backend import array_module, as_bits, kernels_for
from ._memory import empty
from ._threads import threads_for

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
    """``y = (x - centre) * scale + shift`` for every column, in the type that features are computed in."""

    centre: np.ndarray
    scale: np.ndarray
    shift: np.ndarray

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Return what the norm makes of features."""
        out = empty(array_module(x), x.shape, x.dtype)
        if out.size:
            bits, flat = as_bits(x, out)
            kernels_for(x).norm.apply(bits, *self, flat, threads_for(x.size * _WORK))
        return out

    def gradient_sums(self, x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the columns' sums of dy and of ``dy * (x - centre)``, in double precision."""
        xp, kernels = array_module(x), kernels_for(x, dy).norm
        sums = xp.zeros((-(-len(x) // kernels.BLOCK), 2, x.shape[1]), np.float64)
        if x.size:
            kernels.gradient_sums(*as_bits(x, dy), self.centre, sums, threads_for(x.size * _WORK))
        return sums[:, 0].sum(axis=0), sums[:, 1].sum(axis=0)

    def gradient(self, x: np.ndarray, dy: np.ndarray, mean: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """Return ``(dy - mean - (x - centre) * slope) * scale``."""
        out = empty(array_module(dy), dy.shape, dy.dtype)
        if out.size:
            x, dy, flat = as_bits(x, dy, out)
            parameters = self.centre, mean, slope, self.scale
            kernels_for(x, dy).norm.gradient(x, dy, *parameters, flat, threads_for(out.size * _WORK))
        return out


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
        sums = xp.zeros((-(-len(x) // kernels.BLOCK), 2, x.shape[1]), np.float64)
        if out.size:
            arguments = *as_bits(x, dy), self.weight, moments, *as_bits(out), sums
            kernels.layer_gradient(*arguments, threads_for(_ROW_WORK * x.size))
        return out, sums[:, 1].sum(axis=0), sums[:, 0].sum(axis=0)
