"""Pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from .. import _check, grad
from ..pool import Count, Empty, avg_pool, global_avg_pool, global_max_pool, global_sum_pool, max_pool
from ..rulebook import Outputs
from ..tensor import SparseTensor
from .module import Module, Vjp

_GLOBAL = {"avg": global_avg_pool, "max": global_max_pool, "sum": global_sum_pool}


class _Pool(Module):
    """What the pools share."""

    _function: Callable[..., SparseTensor]

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None,
        padding: int | Sequence[int],
        dilation: int | Sequence[int],
        **options: str,
    ):
        self._geometry: dict[str, Any] = {
            "kernel_size": kernel_size,
            "stride": kernel_size if stride is None else stride,
            "padding": padding,
            "dilation": dilation,
        }
        plain = {"sites": "reached", "empty": "ignore", "count": "sites"}
        self._options: dict[str, Any] = {k: v for k, v in options.items() if v != plain[k]}

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return the pooled tensor.

        Parameters
        ----------
        x : SparseTensor

        Returns
        -------
        SparseTensor
        """
        return type(self)._function(x, **self._geometry, **self._options)

    def vjp(self, x: SparseTensor) -> tuple[SparseTensor, Vjp]:
        """Return the pooled tensor and the vjp, as `Module.vjp`."""
        return grad.vjp(type(self)._function, x, **self._geometry, **self._options)

    def _say(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in {**self._geometry, **self._options}.items())


class MaxPool(_Pool):
    """The greatest feature of each window, `spcy.max_pool`: what spconv calls SparseMaxPool2d, 3d.

    Parameters
    ----------
    kernel_size : int or sequence of D ints
    stride : int or sequence of D ints, optional
        Default `kernel_size`.
    padding, dilation : int or sequence of D ints
    sites : {"reached", "floor"}
    empty : {"ignore", "zero"}
        As of `spcy.max_pool`; spconv's is "zero", which shows where features are negative.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> pool = spcy.nn.MaxPool(2)
    >>> pool(spcy.SparseTensor([[0, 4], [0, 5]], np.array([[1.0], [2.0]]))).features
    array([[2.]])
    """

    _function = staticmethod(max_pool)

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        *,
        sites: Outputs = "reached",
        empty: Empty = "ignore",
    ):
        super().__init__(kernel_size, stride, padding, dilation, sites=sites, empty=empty)


class AvgPool(_Pool):
    """The mean of each window, `spcy.avg_pool`: what spconv calls SparseAvgPool2d, 3d.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, sites
        As of `MaxPool`.
    count : {"sites", "window"}
        What the sum is divided by.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> pool = spcy.nn.AvgPool(2)
    >>> pool(spcy.SparseTensor([[0, 4], [0, 5]], np.array([[1.0], [2.0]]))).features
    array([[1.5]])
    """

    _function = staticmethod(avg_pool)

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        *,
        sites: Outputs = "reached",
        count: Count = "sites",
    ):
        super().__init__(kernel_size, stride, padding, dilation, sites=sites, count=count)


class GlobalPool(Module):
    """One row of features for each batch: what spconv calls SparseGlobalAvgPool, SparseGlobalMaxPool.

    Parameters
    ----------
    mode : {"avg", "max", "sum"}

    Examples
    --------
    >>> import numpy as np, spcy
    >>> spcy.nn.GlobalPool()(spcy.SparseTensor([[0, 4], [0, 5]], np.array([[1.0], [2.0]])))
    array([[1.5]])
    """

    def __init__(self, mode: Literal["avg", "max", "sum"] = "avg"):
        self.mode: str = _check.choice(mode, tuple(_GLOBAL), "mode")

    def forward(self, x: SparseTensor) -> np.ndarray:
        """Return the pooled features.

        Parameters
        ----------
        x : SparseTensor

        Returns
        -------
        ndarray of shape (batch_size, C)
        """
        return _GLOBAL[self.mode](x)

    def vjp(self, x: SparseTensor) -> tuple[np.ndarray, Vjp]:
        """Return the pooled features and the vjp, as `Module.vjp`."""
        return grad.vjp(_GLOBAL[self.mode], x)

    def _say(self) -> str:
        return f"{self.mode!r}"
