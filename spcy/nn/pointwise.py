"""Layers that act on every site by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from .. import _check, grad
from .._backend import array_module
from .._memory import empty
from .._width import rounded, widened
from ..conv import execute, subm_conv, subm_plan
from ..grad import column_sums
from ..pointwise import MULTIPLY, RELU, Activation, activation_of, combine
from ..tensor import SparseTensor
from .conv import Seed, Weighted
from .module import Activated, Pointwise, Vjp, features_of, finish, fused, require_fit

_DRAWN = 1 << 16  # random numbers at a time


class Linear(Weighted):
    """A matrix and a bias for every site, or for every row of an array.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
    rng : int or numpy.random.Generator, optional
        Draws the weight and the bias, uniform within ``1 / sqrt(in_features)``.

    Attributes
    ----------
    weight : Parameter of shape (in_features, out_features)
        PyTorch's is the transposed.
    bias : Parameter of shape (out_features,), or None

    Examples
    --------
    >>> import numpy as np, spcy
    >>> layer = spcy.nn.Linear(3, 2, rng=0)
    >>> layer(np.ones((5, 3), np.float32)).shape
    (5, 2)
    >>> layer(spcy.SparseTensor([[0, 4]], np.ones((1, 3), np.float32))).num_channels
    2
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, rng: Seed = None):
        self.in_features: int = _check.per_axis(in_features, 1, "in_features", 1)[0]
        self.out_features: int = _check.per_axis(out_features, 1, "out_features", 1)[0]
        self._initialise((self.in_features, self.out_features), bias, rng)

    @fused
    def forward(self, x: SparseTensor | np.ndarray) -> SparseTensor | np.ndarray:
        """Return the module's output.

        Parameters
        ----------
        x : SparseTensor or ndarray of shape (N, in_features)

        Returns
        -------
        SparseTensor or ndarray
            What x is, with `out_features` channels.
        """
        return self._run(x)

    def _run_with(
        self,
        weight: np.ndarray,
        bias: np.ndarray | None,
        x: Any,
        residual: Any,
        activation: Activation | None,
    ) -> Any:
        rows = self._rows(x)
        if isinstance(x, SparseTensor):
            weight = _one_cell(weight, x.ndim)
            return execute(x, subm_plan(x, weight, bias), residual, activation)
        y = widened(rows) @ widened(weight)
        if bias is not None:
            y = y + widened(bias)
        return finish(rounded(y, weight.dtype), residual, activation)

    def _work(self, x: SparseTensor | np.ndarray) -> tuple[int, int]:
        rows = len(self._rows(x))
        return rows, 2 * rows * self.in_features * self.out_features

    def vjp(self, x: SparseTensor | np.ndarray) -> tuple[SparseTensor | np.ndarray, Vjp]:
        """Return the module's output and its vjp, as `Module.vjp`."""
        weight, rows = self.weight.data, self._rows(x)
        if isinstance(x, SparseTensor):
            y, pull = grad.vjp(subm_conv, x, _one_cell(weight, x.ndim), self._bias_data())
        else:
            y = self._run(x)

            def pull(dy: Any) -> tuple[Any, ...]:
                dy = _check.gradient(dy, y)
                dx, dweight = widened(dy) @ widened(weight).T, widened(rows).T @ widened(dy)
                return rounded(dx, rows.dtype), dweight, column_sums(dy)

        def vjp(dy: Any) -> tuple[Any, ...]:
            dx, dweight, dbias = pull(dy)
            self._accumulate(dweight.reshape(weight.shape), dbias)
            return (dx,)

        return y, vjp

    def _rows(self, x: SparseTensor | np.ndarray) -> np.ndarray:
        rows = features_of(x)
        require_fit(self, rows, self.in_features, self.weight.data.dtype)
        return rows

    def _say(self) -> str:
        said = f"in_features={self.in_features}, out_features={self.out_features}"
        return said + f", bias={self.bias is not None}"


def _one_cell(weight: np.ndarray, ndim: int) -> np.ndarray:
    return weight.reshape((1,) * ndim + weight.shape)


class ReLU(Activated):
    """The positive part of every feature.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> spcy.nn.ReLU()(np.array([[-1.0, 2.0]]))
    array([[0., 2.]])
    """

    def _activation(self) -> Activation:
        return RELU


class LeakyReLU(Activated):
    """Every feature, times a slope where it is negative.

    Parameters
    ----------
    negative_slope : float

    Examples
    --------
    >>> import numpy as np, spcy
    >>> spcy.nn.LeakyReLU(0.1)(np.array([[-1.0, 2.0]]))
    array([[-0.1,  2. ]])
    """

    def __init__(self, negative_slope: float = 0.01):
        self.negative_slope = negative_slope

    def _activation(self) -> Activation:
        return activation_of(("leaky_relu", self.negative_slope))

    def _say(self) -> str:
        return f"negative_slope={self.negative_slope}"


class GELU(Activated):
    """Every feature times the share of a normal distribution below it.

    Parameters
    ----------
    approximate : {"none", "tanh"}
        The share itself, within 6 units in the last place on a CPU, or
        ``(1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2`` for it. See Hendrycks & Gimpel, "Gaussian
        error linear units (GELUs)", 2016.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> spcy.nn.GELU()(np.array([[-1.0, 2.0]])).round(4)
    array([[-0.1587,  1.9545]])
    >>> spcy.nn.GELU("tanh")(np.array([[-1.0, 2.0]])).round(4)
    array([[-0.1588,  1.9546]])
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none"):
        if approximate not in ("none", "tanh"):
            raise ValueError(f"approximate must be 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def _activation(self) -> Activation:
        return activation_of("gelu" if self.approximate == "none" else "gelu_tanh")

    def _say(self) -> str:
        return "" if self.approximate == "none" else f"approximate={self.approximate!r}"


class SiLU(Activated):
    """``x / (1 + exp(-x))`` of every feature, also called swish; within 4 units in the last place on a CPU.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> spcy.nn.SiLU()(np.array([[-1.0, 2.0]])).round(3)
    array([[-0.269,  1.762]])
    """

    def _activation(self) -> Activation:
        return activation_of("silu")


ACTIVATIONS = (ReLU, LeakyReLU, GELU, SiLU)


class Dropout(Pointwise):
    """Zero for a random share of the features in training, the rest scaled up; nothing after `eval`.

    Parameters
    ----------
    p : float
        The share, 0 <= p < 1.
    rng : int or numpy.random.Generator, optional

    Examples
    --------
    >>> import numpy as np, spcy
    >>> drop = spcy.nn.Dropout(0.5, rng=0)
    >>> drop(np.ones((1, 4))), drop.eval()(np.ones((1, 4)))
    (array([[2., 2., 2., 0.]]), array([[1., 1., 1., 1.]]))
    """

    def __init__(self, p: float = 0.5, *, rng: Seed = None):
        if not 0 <= p < 1:
            raise ValueError(f"p must be at least 0 and less than 1, got {p!r}")
        self.p = float(p)
        self._rng = np.random.default_rng(rng)

    def _map_vjp(self, features: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        if not self.training or self.p == 0:
            return features, lambda dy: dy
        xp = array_module(features)
        scale = xp.asarray(self._scale(features.shape, features.dtype))
        return combine(MULTIPLY, features, scale), lambda dy: combine(MULTIPLY, dy, scale)

    def _scale(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return what each feature is multiplied by, some at a time: so they stay in the cache."""
        scale = empty(np, shape, dtype)
        threshold, factor = np.uint32(self.p * 2**32), 1 / (1 - self.p)
        if dtype == np.float16:
            factor = min(factor, float(np.finfo(dtype).max))  # infinity times 0 is NaN
        same = np.dtype(f"u{dtype.itemsize}")
        flat, bits = scale.reshape(-1).view(same), np.array(factor, dtype).view(same)
        for first in range(0, flat.size, _DRAWN):
            some = flat[first : first + _DRAWN]
            words = self._rng.integers(0, 2**64, -(-some.size // 2), np.uint64).view(np.uint32)
            np.multiply(words[: some.size] >= threshold, bits, out=some)
        return scale

    def _say(self) -> str:
        return f"p={self.p}"


class Identity(Pointwise):
    """What comes in; a branch of `Concat`, the shortcut of `Residual`.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> spcy.nn.Identity()(np.ones((1, 2)))
    array([[1., 1.]])
    """

    def forward(self, x: Any) -> Any:
        """Return x."""
        return x

    vjp = Pointwise.vjp

    def _map_vjp(self, features: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        return features, lambda dy: dy
