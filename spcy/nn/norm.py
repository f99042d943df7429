"""Norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _check
from .._backend import array_module
from .._once import update
from .._width import widened
from ..norm import Norm, RowNorm, column_moments
from ..pointwise import Activation
from .conv import Weighted
from .module import (
    Buffer,
    Parameter,
    Pointwise,
    features_of,
    finish,
    like,
    require_fit,
    wide_dtype,
)


class _Norm(Pointwise):
    """What the norms share: a scale and a shift for each channel, never of 16 bits."""

    def __init__(self, num_features: int, eps: float):
        self.num_features: int = _check.per_axis(num_features, 1, "num_features", 1)[0]
        self.eps = eps
        self.weight: Parameter = Parameter(np.ones(self.num_features, np.float32))
        self.bias: Parameter = Parameter(np.zeros(self.num_features, np.float32))

    def _dtype_for(self, dtype: np.dtype) -> np.dtype:
        return wide_dtype(dtype)

    def _features(self, features: np.ndarray) -> np.ndarray:
        """Return features of the norm's channels in the dtype that it computes in."""
        wide = widened(features)
        require_fit(self, wide, self.num_features, self.weight.data.dtype)
        return wide


class BatchNorm(_Norm):
    """Batch norm over all sites: what PyTorch calls BatchNorm1d.

    In training it takes the mean and the variance of the batch and updates the running ones; after
    `Module.eval` it takes the running ones, and `Sequential` folds it into the convolution before it.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
    momentum : float
        Share of a batch in the running mean and variance.

    Attributes
    ----------
    weight, bias : Parameter of shape (num_features,)
    running_mean, running_var : Buffer of shape (num_features,)

    Examples
    --------
    >>> import numpy as np, spcy
    >>> norm = spcy.nn.BatchNorm(1, eps=1e-3, momentum=0.01)
    >>> norm(spcy.SparseTensor([[0, 4], [0, 5]], np.float32([[1], [3]]))).features[:, 0].round(3)
    array([-1.,  1.], dtype=float32)
    """

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__(num_features, eps)
        self.momentum = momentum
        self.running_mean: Buffer = Buffer(np.zeros(self.num_features, np.float32))
        self.running_var: Buffer = Buffer(np.ones(self.num_features, np.float32))

    def _run(self, x: Any, residual: Any = None, activation: Activation | None = None) -> Any:
        if residual is not None:
            return finish(self._run(x), residual, activation)
        features = features_of(x)
        return like(x, self._norm(features, activation)[0].apply(features))

    def _map_vjp(
        self, features: np.ndarray, activation: Activation | None = None
    ) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        over_batch = self.training
        norm, inverse = self._norm(features, activation)

        def vjp(dy: np.ndarray) -> np.ndarray:
            mean_dy, slope, dy = norm.gradient_sums(features, dy)
            dtype = norm.scale.dtype
            slope *= inverse
            self.weight.accumulate(slope)
            self.bias.accumulate(mean_dy)
            if not over_batch:
                mean_dy, slope = 0 * inverse, 0 * inverse
            share = 1 / max(1, len(dy))
            return norm.gradient(
                features, dy, (mean_dy * share).astype(dtype), (slope * inverse * share).astype(dtype)
            )

        return norm.apply(features), vjp

    def _norm(self, features: np.ndarray, activation: Activation | None) -> tuple[Norm, np.ndarray]:
        """Return the norm, and the inverse standard deviation in double precision.

        In training they are the batch's, and the running ones are updated.
        """
        dtype, count = self._features(features[:0]).dtype, len(features)
        if self.training and count == 1:
            raise ValueError("x must have more than one site to train a batch norm; eval() takes any number")
        mean, variance = self.running_mean.data, self.running_var.data
        if self.training and count:
            mean, variance = column_moments(features)
            self._update(self.running_mean, mean)
            self._update(self.running_var, variance * (count / (count - 1)))
        inverse = 1 / array_module(features).sqrt(variance.astype(np.float64) + self.eps)
        scale = inverse * self.weight.data
        norm = Norm(mean.astype(dtype), scale.astype(dtype), self.bias.data.astype(dtype), activation)
        return norm, inverse

    def _update(self, running: Buffer, value: np.ndarray) -> None:
        def step(old: np.ndarray) -> np.ndarray:
            return (old + self.momentum * (value - old)).astype(old.dtype, copy=False)

        update(running, "data", step)

    def _scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what the norm does after `eval`, in double precision."""
        weight, bias, mean, variance = (
            p.data.astype(np.float64) for p in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        scale = weight / array_module(weight).sqrt(variance + self.eps)
        return scale, bias - mean * scale

    def _fold(self, layer: Weighted) -> tuple[np.ndarray, np.ndarray]:
        """Return weight and bias of a layer with this norm after it, kept while its parts stay the same."""
        parts = (self.weight, self.bias, self.running_mean, self.running_var)
        weight, bias = layer.weight.data, layer._bias_data()
        arrays = (*(part.data for part in parts), weight, bias)
        folded = getattr(self, "_folded", None)
        eps = self.eps
        if (
            folded is None
            or folded[-1] != eps
            or any(a is not b for a, b in zip(folded[0], arrays, strict=True))
        ):
            scale, shift = self._scale_and_shift()
            wide = widened(weight)
            folded_weight = (wide * scale.astype(wide.dtype)).astype(weight.dtype)
            if bias is not None:
                shift = shift + widened(bias) * scale
            folded = self._folded = (arrays, folded_weight, shift.astype(weight.dtype), eps)
        return folded[1:3]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_folded"}

    def _say(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class LayerNorm(_Norm):
    """Layer norm: every site's own channels to mean 0 and variance 1.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float

    Attributes
    ----------
    weight, bias : Parameter of shape (num_features,)

    Examples
    --------
    >>> import numpy as np, spcy
    >>> norm = spcy.nn.LayerNorm(2)
    >>> norm(spcy.SparseTensor([[0, 4]], np.float32([[1, 3]]))).features.round(3)
    array([[-1.,  1.]], dtype=float32)
    """

    def __init__(self, num_features: int, eps: float = 1e-5):
        super().__init__(num_features, eps)

    def _map_vjp(self, features: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        dtype = self._features(features[:0]).dtype
        norm = RowNorm(self.weight.data.astype(dtype), self.bias.data.astype(dtype), float(self.eps))
        y, moments = norm.apply(features)

        def vjp(dy: np.ndarray) -> np.ndarray:
            dx, dweight, dbias = norm.gradient(features, dy, moments)
            self.weight.accumulate(dweight)
            self.bias.accumulate(dbias)
            return dx

        return y, vjp

    def _say(self) -> str:
        return f"{self.num_features}, eps={self.eps}"
