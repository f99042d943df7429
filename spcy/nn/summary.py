"""What each layer of a network did to one input."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from .. import _html
from ..pointwise import Activation
from ..tensor import SparseTensor
from .conv import Weighted
from .module import Module, watcher

_HEADER = ("layer", "kind", "sites in", "out", "channels in", "out", "pairs", "MFLOP", "parameters", "ms")

_TITLES = {"relu": "ReLU", "leaky_relu": "LeakyReLU", "gelu": "GELU", "gelu_tanh": "GELU", "silu": "SiLU"}


class LayerSummary(NamedTuple):
    """One run of one layer.

    Attributes
    ----------
    name, kind : str
        As in `Module.modules`; the class, and what ran with it as one step.
    sites_in, sites_out, channels_in, channels_out : int
        Rows and columns of its input and output.
    pairs : int
        Length of the rulebook; 0 of a layer without a weight.
    flop : int
        Multiplications and additions of the pairs.
    parameters : int
        Numbers that training changes, those of a folded norm included.
    ms : float
        Milliseconds, finding the rulebook included where no layer before had found it.
    """

    name: str
    kind: str
    sites_in: int
    sites_out: int
    channels_in: int
    channels_out: int
    pairs: int
    flop: int
    parameters: int
    ms: float


@dataclass(frozen=True)
class Summary:
    """What `summary` returns; prints as a table.

    Attributes
    ----------
    layers : tuple of LayerSummary
        In the order in which they ran.
    parameters : int
        Of the network, those that several layers share once.
    """

    layers: tuple[LayerSummary, ...]
    parameters: int

    def __str__(self) -> str:
        """Return the table."""
        rows = [_HEADER, *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        sides = "<<" + ">" * (len(_HEADER) - 2)
        lines = [
            "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True))
            for row in rows
        ]
        return "\n".join(line.rstrip() for line in lines)

    def _repr_html_(self) -> str:
        rows = self._rows()
        words = f"{len(self.layers)} layers, {rows[-1][-2]} parameters, {rows[-1][-1]} ms"
        picture = _html.bars(np.array([row.ms for row in self.layers]), "Milliseconds of each layer")
        return _html.card("spcy.nn.Summary", words, {"layers": _html.table(rows, _HEADER, left=2)}, picture)

    def _rows(self) -> list[tuple[str, ...]]:
        """Return the cells of the table, the totals last."""
        rows = [
            (row.name, row.kind, *(f"{n:,}" for n in row[2:7]), f"{row.flop / 1e6:,.1f}")
            + (f"{row.parameters:,}", f"{row.ms:.2f}")
            for row in self.layers
        ]
        totals = [sum(getattr(row, name) for row in self.layers) for name in ("pairs", "flop", "ms")]
        total = ("total", *[""] * 5, f"{totals[0]:,}", f"{totals[1] / 1e6:,.1f}")
        return [*rows, (*total, f"{self.parameters:,}", f"{totals[2]:.2f}")]


def summary(model: Module, x: SparseTensor | np.ndarray) -> Summary:
    """Run a network, and say what each of its layers did and took.

    Parameters
    ----------
    model : Module
    x : SparseTensor or ndarray
        Its input.

    Returns
    -------
    Summary
        Of the layers that were called as such: a Module below another, or in its ``forward``.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> nn = spcy.nn
    >>> net = nn.Sequential(nn.SubMConv(1, 8, 3, ndim=2, bias=False), nn.BatchNorm(8), nn.ReLU()).eval()
    >>> x = spcy.SparseTensor([[0, 4, 4], [0, 4, 5]], np.ones((2, 1), np.float32))
    >>> (layer,) = nn.summary(net, x).layers
    >>> layer.name, layer.kind, layer.pairs, layer.flop, layer.parameters
    ('0', 'SubMConv + BatchNorm + ReLU', 4, 64, 88)
    """
    names: dict[int, str] = {}
    for name, module in model.modules().items():
        names.setdefault(id(module), name)
    layers: list[LayerSummary] = []

    def watch(
        module: Module,
        x: Any,
        residual: Any = None,
        activation: Activation | None = None,
        norm: Module | None = None,
    ) -> Any:
        after = (residual, activation) if norm is None else (residual, activation, norm)
        if module.children():
            return module._run_unwatched(x, *after)
        start = perf_counter()
        y = module._run_unwatched(x, *after)
        ms = (perf_counter() - start) * 1e3
        with_it = ["residual"] * (residual is not None)
        if activation is not None:
            with_it.append(_TITLES[activation.name])
        ran = [module] if norm is None else [module, norm]
        kind = " + ".join([type(part).__name__ for part in ran] + with_it)
        pairs, flop = module._work(x) if isinstance(module, Weighted) else (0, 0)
        parameters = sum(p.data.size for part in ran for p in part.parameters().values())
        (sites_in, channels_in), (sites_out, channels_out) = _size(x), _size(y)
        sizes = sites_in, sites_out, channels_in, channels_out
        name = names.get(id(module), "?")
        layers.append(LayerSummary(name, kind, *sizes, pairs, flop, parameters, ms))
        return y

    token = watcher.set(watch)
    try:
        model(x)
    finally:
        watcher.reset(token)
    return Summary(tuple(layers), sum(p.data.size for p in model.parameters().values()))


def _size(x: Any) -> tuple[int, int]:
    return x.features.shape if isinstance(x, SparseTensor) else x.shape
