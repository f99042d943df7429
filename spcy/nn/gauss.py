"""The normal distribution, which NumPy does not have."""

from __future__ import annotations

import numpy as np

from .._backend import array_module

# Chebyshev coefficients of log(erfc(z) / t) + z**2 over t = 2 / (2 + z), z = 0 .. infinity
_COEFFICIENTS = (
    -0.6513268598908547,
    0.6419697923564902,
    0.019476473204185836,
    -0.009561514786808632,
    -0.0009465953444820369,
    0.00036683949785276145,
    4.252332480690777e-05,
    -2.0278578112534242e-05,
    -1.6242900046470256e-06,
    1.3036557835805232e-06,
    1.5626441722066142e-08,
    -8.523809591492654e-08,
    6.5290544390988515e-09,
    5.059343495551469e-09,
    -9.91364156493033e-10,
    -2.273651222931836e-10,
    9.646791102015527e-11,
    2.3940380830391146e-12,
    -6.886027526497553e-12,
    8.944879273090725e-13,
    3.130921399342958e-13,
    -1.1270822361367252e-13,
    3.810905255189232e-16,
    7.106097613609237e-15,
    -1.5230282014571043e-15,
    -9.457494571291233e-17,
)
_BLOCK = 1 << 14  # values at a time: their intermediate results stay in the cache


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """Return the share of a normal distribution below x, to some units in the last place.

    Parameters
    ----------
    x : ndarray, float32 or float64

    Returns
    -------
    ndarray, like x
    """
    out = array_module(x).empty_like(x)
    flat, values = out.reshape(-1), x.reshape(-1)
    for start in range(0, values.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        flat[block] = _cdf(values[block])
    return out


def _cdf(x: np.ndarray) -> np.ndarray:
    xp, number = array_module(x), x.dtype.type
    z = xp.absolute(x) * number(np.sqrt(0.5))
    t = 2 / (2 + z)
    twice = 4 * t - 2
    first = second = number(0)
    terms = 12 if x.dtype == np.float32 else len(_COEFFICIENTS)
    for coefficient in reversed(_COEFFICIENTS[1:terms]):  # Clenshaw's recurrence
        first, second = twice * first - second + number(coefficient), first
    tail = 0.5 * t * xp.exp(number(_COEFFICIENTS[0]) + 0.5 * twice * first - second - z * z)
    return xp.where(x > 0, 1 - tail, tail)


def normal_pdf(x: np.ndarray) -> np.ndarray:
    """Return the density of a normal distribution at x.

    Parameters
    ----------
    x : ndarray, float32 or float64

    Returns
    -------
    ndarray, like x
    """
    return array_module(x).exp(-0.5 * x * x) * x.dtype.type(1 / np.sqrt(2 * np.pi))
