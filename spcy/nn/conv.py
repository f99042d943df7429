"""Convolutions with their weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from .. import _check, grad
from ..conv import (
    Plan,
    conv,
    conv_plan,
    conv_transpose,
    inverse_conv,
    inverse_plan,
    subm_conv,
    subm_plan,
    transpose_plan,
)
from ..pointwise import Activation
from ..rulebook import Outputs
from ..tensor import SparseTensor, require_tensor
from .module import Module, Parameter, Vjp, fused, require_fit

Seed: TypeAlias = "int | np.random.Generator | None"  # not evaluated: importing spcy loads no generators


class Weighted(Module):
    """A module with a weight (.., C_in // groups, C_out) and a bias: a norm after it folds into them."""

    weight: Parameter
    bias: Parameter | None

    def _initialise(self, shape: tuple[int, ...], bias: bool, rng: Seed) -> None:
        """Draw weight and bias as PyTorch and spconv do: uniform within 1 / sqrt(fan in)."""
        rng = np.random.default_rng(rng)
        bound = 1 / math.sqrt(math.prod(shape[:-1]))
        self.weight = Parameter(rng.uniform(-bound, bound, shape).astype(np.float32, copy=False))
        self.bias = None
        if bias:
            self.bias = Parameter(rng.uniform(-bound, bound, shape[-1:]).astype(np.float32, copy=False))

    def _run(
        self, x: Any, residual: Any = None, activation: Activation | None = None, norm: Any = None
    ) -> Any:
        """Run, with a norm folded into the weight."""
        weight, bias = (self.weight.data, self._bias_data()) if norm is None else norm._fold(self)
        return self._run_with(weight, bias, x, residual, activation)

    def _run_with(
        self,
        weight: np.ndarray,
        bias: np.ndarray | None,
        x: Any,
        residual: Any,
        activation: Activation | None,
    ) -> Any:
        """Run with another weight and bias than its own."""
        raise NotImplementedError

    def _work(self, x: Any) -> tuple[int, int]:
        """Return how many pairs a run on x joins, and its multiplications and additions."""
        raise NotImplementedError

    def _bias_data(self) -> np.ndarray | None:
        return None if self.bias is None else self.bias.data

    def _accumulate(self, dweight: np.ndarray, dbias: np.ndarray | None) -> None:
        self.weight.accumulate(dweight)
        if self.bias is not None and dbias is not None:
            self.bias.accumulate(dbias)


class _Convolution(Weighted):
    """What the four convolutions share."""

    _function: Callable[..., SparseTensor]
    _plan: Callable[..., Plan]
    _takes_offsets = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] | None,
        offsets: ArrayLike | None,
        groups: int,
        bias: bool,
        ndim: int,
        rng: Seed,
        sites: Outputs = "reached",
        **geometry: int | Sequence[int],
    ):
        self.in_channels: int = _check.per_axis(in_channels, 1, "in_channels", 1)[0]
        self.out_channels: int = _check.per_axis(out_channels, 1, "out_channels", 1)[0]
        self.ndim: int = _check.ndim(ndim)
        if kernel_size is not None and offsets is not None:
            raise ValueError(f"kernel_size must be left out with offsets, got {kernel_size!r} and offsets")
        self.kernel_size: tuple[int, ...] | None = None
        self.offsets: np.ndarray | None = None
        if kernel_size is not None:
            self.kernel_size = cells = _check.per_axis(kernel_size, ndim, "kernel_size", 1)
        elif offsets is not None:
            self.offsets = _check.offsets(offsets, ndim)
            cells = self.offsets.shape[:1]
        else:
            raise ValueError("kernel_size must be given, or offsets instead of it, got neither")
        _check.choice(sites, ("reached", "floor"), "sites")
        self.sites = sites
        self.groups: int = _check.groups(groups, self.in_channels, self.out_channels)
        self._geometry: dict[str, Any] = {}
        for name, value in geometry.items():
            self._geometry[name] = _check.per_axis(value, ndim, name, 0 if "padding" in name else 1)
        shape = (*cells, self.in_channels // self.groups, self.out_channels)
        self._initialise(shape, bias, rng)

    @fused
    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return the module's output.

        Parameters
        ----------
        x : SparseTensor

        Returns
        -------
        SparseTensor
        """
        return self._run(x)

    def _options(self) -> dict[str, Any]:
        options = {**self._geometry, "groups": self.groups}
        if self.offsets is not None and self._takes_offsets:
            options["offsets"] = self.offsets
        if self.sites != "reached":
            options["sites"] = self.sites
        return options

    def _require(self, x: SparseTensor) -> None:
        """Refuse an input that is not the layer's, and say what to change."""
        require_tensor(x, "x")
        if x.ndim != self.ndim:
            raise ValueError(
                f"x must have {self.ndim} spatial axes for {self!r}, got {x.ndim}: "
                f"make the layer with ndim={x.ndim}"
            )
        require_fit(self, x.features, self.in_channels, self.weight.data.dtype)

    def _run_with(
        self,
        weight: np.ndarray,
        bias: np.ndarray | None,
        x: Any,
        residual: Any,
        activation: Activation | None,
    ) -> Any:
        self._require(x)
        options = self._options()
        return type(self)._function(x, weight, bias, residual=residual, activation=activation, **options)

    def _work(self, x: SparseTensor) -> tuple[int, int]:
        self._require(x)
        pairs = type(self)._plan(x, self.weight.data, **self._options()).rulebook.num_pairs
        return pairs, 2 * pairs * (self.in_channels // self.groups) * self.out_channels

    def vjp(self, x: SparseTensor) -> tuple[SparseTensor, Vjp]:
        """Return the module's output and its vjp, as `Module.vjp`."""
        self._require(x)
        function = type(self)._function
        y, pull = grad.vjp(function, x, self.weight.data, self._bias_data(), **self._options())

        def vjp(dy: Any) -> tuple[Any, ...]:
            dx, dweight, dbias = pull(dy)
            self._accumulate(dweight, dbias)
            return (dx,)

        return y, vjp

    def _say(self) -> str:
        said = f"{self.in_channels}, {self.out_channels}, "
        if self.offsets is None:
            said += f"kernel_size={self.kernel_size}"
        else:
            said += f"offsets=<{len(self.offsets)}>"
        for name, value in self._geometry.items():
            if any(v != (0 if "padding" in name else 1) for v in value):
                said += f", {name}={value}"
        said += f", groups={self.groups}" if self.groups > 1 else ""
        said += ", sites='floor'" if self.sites == "floor" else ""
        return said + (", bias=False" if self.bias is None else "")


class SubMConv(_Convolution):
    r"""Submanifold convolution, `spcy.subm_conv`: what spconv calls SubMConv2d, SubMConv3d.

    There is no ``indice_key``: layers on the same sites share their rulebook by themselves. There is no
    stride or padding either, which a submanifold convolution does not have.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or sequence of ndim ints
        Odd. Left out with `offsets`.
    dilation : int or sequence of ndim ints
    groups : int
    bias : bool
    ndim : int
        Spatial axes.
    offsets : array_like of shape (K, ndim), integer, optional
        The kernel's cells, any stencil, instead of `kernel_size`; the weight is then
        ``(K, in_channels // groups, out_channels)``.
    rng : int or numpy.random.Generator, optional
        Draws the weight and the bias, uniform within ``1 / sqrt(in_channels // groups * cells)``, as
        PyTorch and spconv do.

    Attributes
    ----------
    weight : Parameter of shape (\*kernel_size, in_channels // groups, out_channels)
    bias : Parameter of shape (out_channels,), or None

    Examples
    --------
    >>> import numpy as np, spcy
    >>> layer = spcy.nn.SubMConv(1, 8, 3, ndim=2, rng=0)
    >>> layer
    SubMConv(1, 8, kernel_size=(3, 3))
    >>> layer(spcy.SparseTensor([[0, 4, 4], [0, 4, 5]], np.ones((2, 1), np.float32))).num_channels
    8
    >>> cross = [[-1, 0], [0, -1], [0, 0], [0, 1], [1, 0]]
    >>> spcy.nn.SubMConv(1, 8, offsets=cross, ndim=2)
    SubMConv(1, 8, offsets=<5>)
    """

    _function = staticmethod(subm_conv)
    _plan = staticmethod(subm_plan)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] | None = None,
        *,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        ndim: int = 3,
        offsets: ArrayLike | None = None,
        rng: Seed = None,
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, offsets, groups, bias, ndim, rng, dilation=dilation
        )


class Conv(_Convolution):
    r"""Regular convolution, `spcy.conv`: what spconv calls SparseConv2d, SparseConv3d.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation : int or sequence of ndim ints
    sites : {"reached", "floor"}
        As of `spcy.conv`.
    groups, bias, ndim, offsets, rng
        As of `SubMConv`.

    Attributes
    ----------
    weight : Parameter of shape (\*kernel_size, in_channels // groups, out_channels)
    bias : Parameter of shape (out_channels,), or None

    Examples
    --------
    >>> import numpy as np, spcy
    >>> layer = spcy.nn.Conv(1, 8, 3, stride=2, padding=1, bias=False, ndim=2, rng=0)
    >>> layer
    Conv(1, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), bias=False)
    >>> layer(spcy.SparseTensor([[0, 4, 4], [0, 4, 6]], np.ones((2, 1), np.float32))).indices
    array([[0, 2, 2],
           [0, 2, 3]], dtype=int32)
    """

    _function = staticmethod(conv)
    _plan = staticmethod(conv_plan)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        ndim: int = 3,
        offsets: ArrayLike | None = None,
        sites: Outputs = "reached",
        rng: Seed = None,
    ):
        geometry = {"stride": stride, "padding": padding, "dilation": dilation}
        super().__init__(
            in_channels, out_channels, kernel_size, offsets, groups, bias, ndim, rng, sites, **geometry
        )


class InverseConv(_Convolution):
    r"""Inverse convolution, `spcy.inverse_conv`: what spconv calls SparseInverseConv2d, 3d.

    It restores the sites that the layer below it was made from, whose kernel size it must have.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or sequence of ndim ints
    offsets : array_like of shape (K, ndim), integer, optional
        Instead of `kernel_size`, of a level that they made; only their number counts here.
    groups, bias, ndim, rng
        As of `SubMConv`.

    Attributes
    ----------
    weight : Parameter of shape (\*kernel_size, in_channels // groups, out_channels)
    bias : Parameter of shape (out_channels,), or None

    Examples
    --------
    >>> import numpy as np, spcy
    >>> net = spcy.nn.Sequential(
    ...     spcy.nn.Conv(1, 8, 2, stride=2, ndim=2), spcy.nn.InverseConv(8, 4, 2, ndim=2)
    ... )
    >>> x = spcy.SparseTensor([[0, 4, 4], [0, 4, 6]], np.ones((2, 1), np.float32))
    >>> net(x).coords is x.coords
    True
    """

    _function = staticmethod(inverse_conv)
    _takes_offsets = False
    _plan = staticmethod(inverse_plan)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] | None = None,
        *,
        groups: int = 1,
        bias: bool = True,
        ndim: int = 3,
        offsets: ArrayLike | None = None,
        rng: Seed = None,
    ):
        super().__init__(in_channels, out_channels, kernel_size, offsets, groups, bias, ndim, rng)


class ConvTranspose(_Convolution):
    r"""Transposed convolution, `spcy.conv_transpose`: what spconv calls SparseConvTranspose2d, 3d.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, output_padding : int or sequence of ndim ints
    groups, bias, dilation : int, bool, int or sequence of ndim ints
        In PyTorch's order.
    ndim, offsets, rng
        As of `SubMConv`. The bound of the weights is spconv's, by the input channels; PyTorch takes the
        output channels.

    Attributes
    ----------
    weight : Parameter of shape (\*kernel_size, in_channels // groups, out_channels)
    bias : Parameter of shape (out_channels,), or None

    Examples
    --------
    >>> import numpy as np, spcy
    >>> layer = spcy.nn.ConvTranspose(1, 8, 2, stride=2, ndim=2, rng=0)
    >>> layer(spcy.SparseTensor([[0, 4, 4], [0, 4, 6]], np.ones((2, 1), np.float32))).num_sites
    8
    """

    _function = staticmethod(conv_transpose)
    _plan = staticmethod(transpose_plan)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | Sequence[int] = 1,
        *,
        ndim: int = 3,
        offsets: ArrayLike | None = None,
        rng: Seed = None,
    ):
        geometry = {
            "stride": stride,
            "padding": padding,
            "output_padding": output_padding,
            "dilation": dilation,
        }
        super().__init__(
            in_channels, out_channels, kernel_size, offsets, groups, bias, ndim, rng, "reached", **geometry
        )
