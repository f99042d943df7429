"""Optimisers: PyTorch's update rules on arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .._backend import array_module
from .module import Parameter

__all__ = ["SGD", "AdamW"]


Kept = tuple[Any, ...]  # from one step to the next


class _Optimiser:
    """What the optimisers share: parameters, and arrays kept for each."""

    def __init__(self, parameters: Mapping[str, Parameter] | Iterable[Parameter], lr: float):
        values = parameters.values() if isinstance(parameters, Mapping) else parameters
        self.parameters: list[Parameter] = list(values)
        for parameter in self.parameters:
            if not isinstance(parameter, Parameter):
                raise TypeError(f"parameters must be Parameters, got {type(parameter).__name__}")
            if parameter.data.dtype.itemsize == 2:
                raise TypeError(
                    f"parameters must be float32 or float64 to be trained, got {parameter.data.dtype}; "
                    f"astype(np.float32)"
                )
        if not lr >= 0:
            raise ValueError(f"lr must be at least 0, got {lr!r}")
        self.lr = lr
        self._kept: list[Kept | None] = [None] * len(self.parameters)

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        given = [(place, p, p.grad) for place, p in enumerate(self.parameters) if p.grad is not None]
        for place, parameter, grad in given:
            if grad.shape != parameter.data.shape:
                raise ValueError(
                    f"grad must have the parameter's shape {parameter.data.shape}, got "
                    f"{grad.shape} of parameter {place}"
                )
        for place, parameter, grad in given:
            new, self._kept[place] = self._update(parameter.data, grad, self._kept[place])
            parameter.data = new.astype(parameter.data.dtype, copy=False)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def _update(
        self, data: np.ndarray, grad: np.ndarray, kept: Kept | None
    ) -> tuple[np.ndarray, Kept | None]:
        """Return the parameter after a step, and what to keep for the next."""
        raise NotImplementedError


class SGD(_Optimiser):
    """Stochastic gradient descent, as ``torch.optim.SGD``.

    Parameters
    ----------
    parameters : mapping of str to Parameter, or iterable of Parameter
        Of `Module.parameters`.
    lr : float
    momentum, weight_decay : float
    nesterov : bool

    Attributes
    ----------
    lr : float
        May be changed between steps.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> layer = spcy.nn.Linear(2, 1, bias=False)
    >>> layer.weight.data = np.zeros((2, 1))
    >>> layer.weight.grad = np.ones((2, 1))
    >>> spcy.nn.optim.SGD(layer.parameters(), lr=0.5).step()
    >>> layer.weight.data[:, 0]
    array([-0.5, -0.5])
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter] | Iterable[Parameter],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        super().__init__(parameters, lr)
        if not momentum >= 0:
            raise ValueError(f"momentum must be at least 0, got {momentum!r}")
        if nesterov and not momentum > 0:
            raise ValueError(f"momentum must be positive with nesterov, got {momentum!r}")
        self.momentum: float = momentum
        self.weight_decay: float = weight_decay
        self.nesterov: bool = nesterov

    def _update(
        self, data: np.ndarray, grad: np.ndarray, kept: Kept | None
    ) -> tuple[np.ndarray, Kept | None]:
        if self.weight_decay:
            grad = grad + self.weight_decay * data
        if self.momentum:
            velocity = grad if kept is None else self.momentum * kept[0] + grad
            kept = (velocity,)
            grad = grad + self.momentum * velocity if self.nesterov else velocity
        return data - self.lr * grad, kept


class AdamW(_Optimiser):
    """Adam with decoupled weight decay, as ``torch.optim.AdamW``.

    Parameters
    ----------
    parameters : mapping of str to Parameter, or iterable of Parameter
        Of `Module.parameters`.
    lr : float
    betas : (float, float)
        Decay of the means of the gradient and of its square.
    eps, weight_decay : float

    Attributes
    ----------
    lr : float
        May be changed between steps.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> layer = spcy.nn.Linear(2, 1, bias=False)
    >>> layer.weight.data = np.zeros((2, 1))
    >>> layer.weight.grad = np.array([[3.0], [-0.1]])
    >>> spcy.nn.optim.AdamW(layer.parameters(), lr=0.5).step()
    >>> layer.weight.data[:, 0].round(6)
    array([-0.5,  0.5])
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter] | Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        super().__init__(parameters, lr)
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be two numbers of at least 0 and less than 1, got {betas!r}")
        self.betas: tuple[float, float] = betas
        self.eps: float = eps
        self.weight_decay: float = weight_decay

    def _update(
        self, data: np.ndarray, grad: np.ndarray, kept: Kept | None
    ) -> tuple[np.ndarray, Kept | None]:
        beta1, beta2 = self.betas
        step = 1 if kept is None else kept[2] + 1
        mean, square = (0, 0) if kept is None else kept[:2]
        mean = mean + (1 - beta1) * (grad - mean)
        square = beta2 * square + (1 - beta2) * grad * grad
        root = array_module(square).sqrt(square) / (1 - beta2**step) ** 0.5 + self.eps
        data = data * (1 - self.lr * self.weight_decay)
        return data - self.lr / (1 - beta1**step) * (mean / root), (mean, square, step)
