"""Networks of layers."""

from __future__ import annotations

from typing import Any

from ..grad import vjp as vjp_of
from ..pointwise import Activation
from ..tensor import SparseTensor, concat
from .conv import Weighted
from .module import Activated, Module, Vjp, finish, fused, fuses
from .norm import BatchNorm
from .pointwise import ACTIVATIONS, Identity


class Sequential(Module):
    """Layers one after the other: what spconv calls SparseSequential.

    A convolution (or `Linear`) or a `BatchNorm` and an activation after it (`ReLU`, `LeakyReLU`, `GELU`,
    `SiLU`) run as one step, without a pass over memory for the latter; a norm's gradient too. So does,
    after `Module.eval`, a `BatchNorm` between a convolution and an activation, folded into the weight:
    outputs differ from those of the layers by rounding.

    Parameters
    ----------
    *layers : Module
        Their names are "0", "1" and so on.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> nn = spcy.nn
    >>> block = nn.Sequential(nn.SubMConv(1, 8, 3, ndim=2, bias=False), nn.BatchNorm(8), nn.ReLU())
    >>> block
    Sequential(
      (0): SubMConv(1, 8, kernel_size=(3, 3), bias=False)
      (1): BatchNorm(8, eps=1e-05, momentum=0.1)
      (2): ReLU()
    )
    >>> len(block), block[0]
    (3, SubMConv(1, 8, kernel_size=(3, 3), bias=False))
    """

    def __init__(self, *layers: Module):
        for place, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise TypeError(f"layers must be Modules, got {type(layer).__name__} in place {place}")
            setattr(self, str(place), layer)

    def __len__(self) -> int:
        return len(self.children())

    def __getitem__(self, place: int) -> Module:
        """Return a layer."""
        return list(self.children().values())[place]

    @fused
    def forward(self, x: Any) -> Any:
        """Return the last layer's output."""
        return self._run(x)

    def _run(self, x: Any, residual: Any = None, activation: Activation | None = None) -> Any:
        layers = list(self.children().values())
        while layers:
            layer = layers.pop(0)
            norm: tuple[Module, ...] = ()
            if isinstance(layer, Weighted) and fuses(layer) and layers and _folds(layers[0]):
                norm = (layers.pop(0),)
            after = _activation_of(layers)
            if layers or after is not None:
                x = layer._call(x, None, after, *norm)
            else:
                return layer._call(x, residual, activation, *norm)
        return finish(x, residual, activation)

    def vjp(self, x: Any) -> tuple[Any, Vjp]:
        """Return the last layer's output and the vjp, as `Module.vjp`."""
        pulls, layers = [], list(self.children().values())
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, BatchNorm) and _is(layer, BatchNorm) and layers:
                x, pull = layer._vjp(x, _activation_of(layers))
            else:
                x, pull = layer.vjp(x)
            pulls.append(pull)

        def vjp(dy: Any) -> tuple[Any, ...]:
            for pull in reversed(pulls):
                (dy,) = pull(dy)
            return (dy,)

        return x, vjp


class Residual(Module):
    """A body's output plus what went into it: ``body(x) + shortcut(x)``.

    A body that ends in a convolution (and after `Module.eval` in a `BatchNorm` after one) adds the
    shortcut as it writes its output; so does an activation after the Residual in a `Sequential`.

    Parameters
    ----------
    body : Module
    shortcut : Module, optional
        Default `Identity`; a 1 x 1 convolution and a norm where the channels change.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> block = spcy.nn.Residual(spcy.nn.SubMConv(4, 4, 3, ndim=2))
    >>> list(block.parameters())
    ['body.weight', 'body.bias']
    """

    def __init__(self, body: Module, shortcut: Module | None = None):
        self.body = body
        self.shortcut: Module = Identity() if shortcut is None else shortcut

    @fused
    def forward(self, x: Any) -> Any:
        """Return ``body(x) + shortcut(x)``."""
        return self._run(x)

    def _run(self, x: Any, residual: Any = None, activation: Activation | None = None) -> Any:
        added = self.shortcut._call(x)
        if residual is None:
            return self.body._call(x, added, activation)
        return finish(self.body._call(x, added), residual, activation)

    def vjp(self, x: Any) -> tuple[Any, Vjp]:
        """Return the sum and the vjp, as `Module.vjp`."""
        added, pull_added = self.shortcut.vjp(x)
        y, pull = self.body.vjp(x)
        return y + added, lambda dy: (pull(dy)[0] + pull_added(dy)[0],)


class Concat(Module):
    """Branches that all get the same input, their outputs' channels side by side.

    A U-Net is a nest of these: ``Sequential(block, Concat(Identity(), Sequential(down, .., up)), block)``.

    Parameters
    ----------
    *branches : Module
        Their names are "0", "1" and so on.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> nn = spcy.nn
    >>> below = nn.Sequential(nn.Conv(4, 8, 2, 2, ndim=2), nn.InverseConv(8, 4, 2, ndim=2))
    >>> x = spcy.SparseTensor([[0, 4, 4], [0, 4, 6]], np.ones((2, 4), np.float32))
    >>> nn.Concat(nn.Identity(), below)(x).num_channels
    8
    """

    def __init__(self, *branches: Module):
        for place, branch in enumerate(branches):
            if not isinstance(branch, Module):
                raise TypeError(f"branches must be Modules, got {type(branch).__name__} in place {place}")
            setattr(self, str(place), branch)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Return the branches' outputs side by side."""
        return concat([branch._call(x) for branch in self.children().values()])

    def vjp(self, x: SparseTensor) -> tuple[SparseTensor, Vjp]:
        """Return the branches' outputs side by side and the vjp, as `Module.vjp`."""
        outputs, pulls = zip(*(branch.vjp(x) for branch in self.children().values()), strict=True)
        y, split = vjp_of(concat, list(outputs))

        def vjp(dy: Any) -> tuple[Any, ...]:
            parts = [pull(part)[0] for pull, part in zip(pulls, split(dy), strict=True)]
            return (sum(parts[1:], parts[0]),)

        return y, vjp


def _is(module: Module, *kinds: type[Module]) -> bool:
    """Return whether a module does what its kind does: a subclass may do anything."""
    return type(module) in kinds and not {"forward", "vjp"} & vars(module).keys()


def _activation_of(layers: list[Module]) -> Activation | None:
    """Take the activation off the front of layers, if one is there."""
    if layers and isinstance(layers[0], Activated) and _is(layers[0], *ACTIVATIONS):
        activation = layers[0]._activation()
        del layers[0]
        return activation
    return None


def _folds(module: Module) -> bool:
    return _is(module, BatchNorm) and not module.training
