"""Activations: functions of each feature by itself, and their gradients; sums and products of two."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, overload

import numpy as np

from ._backend import array_module, as_bits, kernels_for
from ._memory import empty
from ._threads import threads_for

ActivationLike = Literal["relu", "gelu", "gelu_tanh", "silu"] | tuple[Literal["leaky_relu"], float]

ADD, MULTIPLY = range(2)  # as the kernels number them
_KINDS = {"relu": 1, "leaky_relu": 2, "gelu": 3, "gelu_tanh": 4, "silu": 5}  # as the kernels number them
_NAMES = {kind: name for name, kind in _KINDS.items()}
_WORK = {1: 0.25, 2: 0.25, 3: 2.0, 4: 1.5, 5: 1.5}  # nanoseconds for a number, about


class Activation(NamedTuple):
    """An activation, and the slope that a leaky ReLU has where x is negative."""

    kind: int
    slope: float = 0.0

    @property
    def name(self) -> str:
        """What it is called as an argument."""
        return _NAMES[self.kind]

    @property
    def work(self) -> float:
        """The nanoseconds that it takes for a number, about."""
        return _WORK[self.kind]

    @property
    def reads_output(self) -> bool:
        """Whether the gradient can be told from what came out."""
        return self.kind == RELU.kind


RELU = Activation(_KINDS["relu"])


@overload
def activation_of(value: ActivationLike | Activation) -> Activation: ...
@overload
def activation_of(value: ActivationLike | Activation | None) -> Activation | None: ...
def activation_of(value: Any) -> Activation | None:
    """Return what an argument ``activation`` names."""
    if value is None or isinstance(value, Activation):
        return value
    name, slope = value, 0.0
    if isinstance(value, tuple) and len(value) == 2 and value[0] == "leaky_relu":
        name, slope = value
        if isinstance(slope, bool) or not isinstance(slope, (int, float, np.floating, np.integer)):
            raise TypeError(f"activation must have a number as its slope, got {slope!r}")
    elif not isinstance(value, str) or value not in _KINDS or value == "leaky_relu":
        raise ValueError(
            f"activation must be None, 'relu', ('leaky_relu', slope), 'gelu', 'gelu_tanh' or 'silu', "
            f"got {value!r}; y.map runs other functions"
        )
    return Activation(_KINDS[name], float(slope))


def activate(features: np.ndarray, activation: Activation) -> np.ndarray:
    """Return the function of each feature."""
    out = empty(array_module(features), features.shape, features.dtype)
    if out.size:
        threads = threads_for(out.size * activation.work)
        x, y = (array.reshape(-1) for array in as_bits(features, out))
        kernels_for(x).pointwise.activate(x, *activation, y, threads)
    return out


def activation_gradient(x: np.ndarray, dy: np.ndarray, activation: Activation) -> np.ndarray:
    """Return the gradient times the slope at each x; a ReLU's x may be what came out of it."""
    out = empty(array_module(dy), dy.shape, dy.dtype)
    if out.size:
        threads = threads_for(out.size * activation.work)
        x, dy, flat = (array.reshape(-1) for array in as_bits(x, dy, out))
        kernels_for(x, dy).pointwise.activation_gradient(x, dy, *activation, flat, threads)
    return out


def combine(operation: int, x: np.ndarray, y: np.ndarray | None, number: float = 0.0) -> np.ndarray:
    """Return what ADD or MULTIPLY makes of arrays of one shape and dtype, or of each x and a number."""
    out = empty(array_module(x), x.shape, x.dtype)
    if out.size:
        kernels, threads = kernels_for(x, out if y is None else y), threads_for(out.size * _WORK[RELU.kind])
        first, second, flat = (None if a is None else a.reshape(-1) for a in as_bits(x, y, out))
        kernels.pointwise.combine(first, second, operation, number, flat, threads)
    return out
