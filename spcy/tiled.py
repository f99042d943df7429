"""Networks over inputs larger than memory: tiles with halos, whose bits are those of the whole."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from . import _check, nn
from ._backend import array_module, to_host
from ._progress import bar
from ._stencil import Stencil, box_stencil, stencil_of
from .coords import Coords, _sites_of, sites_from_keys
from .models.backbone8x import _BackBone8x
from .models.network import Composed
from .nn.conv import _Convolution
from .nn.module import Pointwise
from .nn.pool import _Pool
from .tensor import SparseTensor, require_tensor

_PROBE = 20_000  # sites of a tile that is run to see how much memory one takes
_SHARE = 0.8  # of a budget that tiles are planned to take: what a site takes differs between tiles


class ReceptiveField(NamedTuple):
    """What an output site of a network depends on.

    An output site u reads the input sites in ``[u * stride - left, u * stride + right]``, and those alone.

    Attributes
    ----------
    left, right : tuple of int
        Input cells along each axis. Either may be negative, where windows lie to one side.
    stride : tuple of Fraction
        Input cells from one output cell to the next, along each axis: 1 for a network that labels its
        input, 8 for a backbone of three strided steps, 1/2 for one that makes a finer level.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    stride: tuple[Fraction, ...]


class Tile(NamedTuple):
    """A part of the input: the cells that it answers for, and the sites that it must see.

    Attributes
    ----------
    low, high : tuple of int
        It answers for outputs whose corner, ``u * stride``, is in ``[low, high)``.
    rows : ndarray of shape (M,), int64
        The rows of the input that it sees, ascending: its own and its halo.
    """

    low: tuple[int, ...]
    high: tuple[int, ...]
    rows: np.ndarray


def receptive_field(net: nn.Module, ndim: int | None = None) -> ReceptiveField | tuple[ReceptiveField, ...]:
    """Return which input cells an output of a network depends on.

    Parameters
    ----------
    net : Module
        Of spcy's layers and containers, and of modules that say it themselves by an attribute
        ``receptive_field``, a `ReceptiveField`, or a number of cells that holds for every side and axis
        of a module that keeps the sites.
    ndim : int, optional
        Spatial axes; those of the network's convolutions, if it has some.

    Returns
    -------
    ReceptiveField
        A tuple of them for a network that returns several tensors.

    Raises
    ------
    ValueError
        If an output depends on everything (norms and dropout in training, global pools), or the number
        of axes cannot be told.
    TypeError
        If there is a module that cannot be seen through; the message names it.

    Examples
    --------
    >>> from spcy import nn, tiled
    >>> same = nn.SubMConv(8, 8, 3, ndim=2)
    >>> net = nn.Sequential(nn.SubMConv(1, 8, 3, ndim=2), nn.Conv(8, 8, 2, 2, ndim=2), same)
    >>> left, right, stride = tiled.receptive_field(net)
    >>> left, right, [int(s) for s in stride]
    ((3, 3), (4, 4), [2, 2])
    """
    ends = _walk(net, ndim)
    return tuple(map(_field, ends)) if isinstance(ends, tuple) else _field(ends)


def tiles(
    net: nn.Module,
    x: SparseTensor,
    *,
    tile: int | Sequence[int] | None = None,
    sites: int | None = None,
    halo: int | Sequence[int] | None = None,
) -> list[Tile]:
    """Return tiles of an input that a network can run over one by one.

    Parameters
    ----------
    net : Module
    x : SparseTensor
    tile : int or sequence of D ints, optional
        The most cells that a tile answers for along each axis.
    sites : int, optional
        The most sites that a tile sees, with its halo. Where there are more, space is cut in two, along
        the axis where the fewest sites are seen twice: tiles are small where sites are dense.
    halo : int or sequence of D ints, optional
        Cells around a tile that it sees, at least those of `receptive_field`, which is the default.

    Returns
    -------
    list of Tile
        Every output belongs to one. Tiles that see no site are left out.

    Raises
    ------
    ValueError
        If neither or both of `tile` and `sites` are given, a tile is smaller than the network's stride, the
        halo is smaller than the receptive field, or the smallest tile sees more than `sites`.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> from spcy import nn, tiled
    >>> x = spcy.SparseTensor([[0, i] for i in range(100)], np.ones((100, 1), np.float32))
    >>> [(t.low, t.high, len(t.rows)) for t in tiled.tiles(nn.SubMConv(1, 1, 3, ndim=1), x, tile=50)]
    [((0,), (50,), 51), ((50,), (100,), 51)]
    """
    require_tensor(x, "x")
    return _Cutter(net, x, halo).cut(tile, sites)


def iterate(
    net: nn.Module,
    x: SparseTensor,
    *,
    tile: int | Sequence[int] | None = None,
    sites: int | None = None,
    budget: int | None = None,
    halo: int | Sequence[int] | None = None,
    progress: bool = False,
) -> Iterator[Any]:
    """Run a network tile by tile, and yield what each tile answers for.

    Parameters
    ----------
    net : Module
        In eval mode.
    x : SparseTensor
    tile, sites, halo : optional
        As of `tiles`.
    budget : int, optional
        Bytes that running a tile may take, beside the input and the results, instead of `tile` or `sites`:
        what a site takes is measured on a tile of at most 20,000.
    progress : bool
        Show a bar, by tqdm.

    Yields
    ------
    SparseTensor
        The output's sites that belong to the tile, with the bits of ``net(x)``, each of whose sites is in
        one of them. A tuple for a network that returns several tensors.

    Raises
    ------
    ValueError
        As from `tiles` and `receptive_field`; if the budget is too small for the smallest tile, with what is
        needed.
    ImportError
        If tqdm is missing for `progress`.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> from spcy import nn, tiled
    >>> x = spcy.SparseTensor([[0, i] for i in range(100)], np.ones((100, 1), np.float32))
    >>> net = nn.SubMConv(1, 1, 3, ndim=1, rng=0).eval()
    >>> [part.num_sites for part in tiled.iterate(net, x, tile=50)]
    [50, 50]
    """
    for run in _runs(net, x, tile, sites, budget, halo, progress):
        parts = [
            SparseTensor(y.coords._select(own), y.features[own])
            for y, own in zip(run.outputs, run.own, strict=True)
        ]
        if any(part.num_sites for part in parts):
            yield run.make(parts)


def apply(
    net: nn.Module,
    x: SparseTensor,
    *,
    tile: int | Sequence[int] | None = None,
    sites: int | None = None,
    budget: int | None = None,
    halo: int | Sequence[int] | None = None,
    progress: bool = False,
) -> Any:
    """Run a network tile by tile: ``net(x)``, bit for bit, in less memory.

    Parameters
    ----------
    net : Module
        In eval mode.
    x : SparseTensor
    tile, sites, budget, halo, progress : optional
        As of `iterate`.

    Returns
    -------
    SparseTensor
        As ``net(x)``: on x's own coords where the network returns to them, else on coords in ascending key
        order, which have no parent here. A tuple for a network that returns several tensors.

    Raises
    ------
    ValueError, TypeError, ImportError
        As from `iterate`.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> from spcy import nn, tiled
    >>> x = spcy.SparseTensor([[0, i] for i in range(100)], np.ones((100, 1), np.float32))
    >>> net = nn.Sequential(nn.SubMConv(1, 4, 3, ndim=1, rng=0), nn.Conv(4, 2, 2, 2, ndim=1, rng=1)).eval()
    >>> y = tiled.apply(net, x, tile=32)
    >>> np.array_equal(y.features, net(x).features), np.array_equal(y.indices, net(x).indices)
    (True, True)
    """
    wholes: list[_Whole] = []
    for run in _runs(net, x, tile, sites, budget, halo, progress):
        wholes = wholes or [_Whole(x) for _ in run.outputs]
        for whole, y, own in zip(wholes, run.outputs, run.own, strict=True):
            whole.add(y, own, run)
    return run.make([whole.tensor() for whole in wholes]) if wholes else net(x)


def halo_of(net: nn.Module, ndim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what to put around tiles for a network that gives something to each site of its input.

    For those who cut data themselves, as `spcy.dask` does.

    Parameters
    ----------
    net : Module
        That returns one tensor, on the sites of its input.
    ndim : int
        Spatial axes.

    Returns
    -------
    left, right : ndarray of shape (D,), int64
        Cells of the halo below and above a tile.
    align : ndarray of shape (D,), int64
        Tiles begin at multiples of it.

    Raises
    ------
    ValueError
        If the network returns others, or as from `receptive_field`.
    TypeError
        As from `receptive_field`.

    Examples
    --------
    >>> from spcy import nn, tiled
    >>> net = nn.Sequential(nn.SubMConv(1, 8, 3, ndim=2), nn.SubMConv(8, 8, 5, ndim=2))
    >>> tiled.halo_of(net, 2)
    (array([3, 3]), array([3, 3]), array([1, 1]))
    """
    end = _walk(net, ndim)
    if isinstance(end, tuple) or end.level != _Level():
        raise ValueError(
            "net must return one tensor, on the sites of its input, to label them: "
            f"{type(net).__name__} returns others"
        )
    field = _field(end)
    return np.maximum(field.left, 0), np.maximum(field.right, 0), np.array(end.align)


# Receptive fields


@dataclass(frozen=True)
class _Level:
    """A level of sites: the one that it was made from, and the cells v of that which a site u joins.

    ``u * stride + low <= v <= u * stride + high``, by axis. None and empty for the input's.
    """

    parent: _Reach | None = None
    low: tuple[int | Fraction, ...] = ()
    high: tuple[int | Fraction, ...] = ()


@dataclass(frozen=True)
class _Reach:
    """What a site u of a level reads, by axis: the input cells ``u * stride + low .. u * stride + high``."""

    stride: tuple[Fraction, ...]
    low: tuple[Fraction, ...]
    high: tuple[Fraction, ...]
    align: tuple[int, ...]  # the largest stride so far
    level: _Level

    def step(
        self,
        stride: Sequence[int | Fraction],
        low: Sequence[int | Fraction],
        high: Sequence[int | Fraction],
        level: _Level,
    ) -> _Reach:
        """Return what sites u read that read ``[u * stride + low, u * stride + high]`` of this level."""
        strides = tuple(s * t for s, t in zip(self.stride, stride, strict=True))
        return _Reach(
            strides,
            tuple(s * n + m for s, n, m in zip(self.stride, low, self.low, strict=True)),
            tuple(s * n + m for s, n, m in zip(self.stride, high, self.high, strict=True)),
            tuple(max(a, math.ceil(s)) for a, s in zip(self.align, strides, strict=True)),
            level,
        )

    def back(self, name: str) -> _Reach:
        """Return what the sites of the level before read, to which the features of this one go back."""
        level, parent = self.level, self.level.parent
        if parent is None:
            raise ValueError(f"{name} goes back to a level that no layer of the network made")
        # v reads u with v - high <= u * stride <= v - low
        low = (s * -n + m for s, n, m in zip(parent.stride, level.high, self.low, strict=True))
        high = (s * -n + m for s, n, m in zip(parent.stride, level.low, self.high, strict=True))
        return replace(
            parent,
            low=tuple(map(min, low, parent.low)),  # and what makes v a site
            high=tuple(map(max, high, parent.high)),
            align=self.align,
        )


def _walk(net: nn.Module, ndim: int | None) -> _Reach | tuple[_Reach, ...]:
    """Return what the outputs of a network read."""
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a spcy.nn.Module, got {type(net).__name__}")
    ndim = _ndim_of(net) if ndim is None else _check.ndim(ndim)
    one, zero = (Fraction(1),) * ndim, (Fraction(0),) * ndim
    return _through(net, "net", _Reach(one, zero, zero, (1,) * ndim, _Level()))


def _ndim_of(net: nn.Module) -> int:
    for module in net.modules().values():
        if isinstance(module, _Convolution):
            return module.ndim
        said = getattr(module, "receptive_field", None)
        if isinstance(said, ReceptiveField):
            return len(said.left)
    raise ValueError("ndim must be given for a network without convolutions")


def _through(module: nn.Module, name: str, at: _Reach) -> Any:
    """Return what the sites behind a module read, given those before it."""
    said = getattr(module, "receptive_field", None)
    if said is not None:
        return _as_said(said, name, at)
    kind = next((kind for kind in _RULES if isinstance(module, kind)), None)
    if kind is None or type(module).forward is not kind.forward or "forward" in vars(module):
        raise TypeError(
            f"{name}, a {type(module).__name__}, has a forward of its own: give it an attribute "
            f"receptive_field, a spcy.tiled.ReceptiveField"
        )
    return _RULES[kind](module, name, at)


def _as_said(said: Any, name: str, at: _Reach) -> _Reach:
    ndim = len(at.stride)
    if not isinstance(said, ReceptiveField):
        cells = _check.per_axis(said, ndim, f"receptive_field of {name}", 0)
        said = ReceptiveField(cells, cells, (Fraction(1),) * ndim)
    if {len(part) for part in said} != {ndim}:
        raise ValueError(f"receptive_field of {name} must have {ndim} axes, got {said}")
    left, right, stride = (tuple(map(Fraction, part)) for part in said)
    return at.step(stride, [-n for n in left], right, at.level if {*stride} == {1} else _Level())


def _submanifold(module: nn.SubMConv, name: str, at: _Reach) -> _Reach:
    stencil = _stencil(module, centred=True)
    return at.step([1] * module.ndim, stencil.low.tolist(), stencil.high.tolist(), at.level)


def _strided(module: nn.Conv, name: str, at: _Reach) -> _Reach:
    geometry = module._geometry
    return _windows(at, _stencil(module), geometry["stride"], geometry["padding"], module.sites)


def _pooled(module: _Pool, name: str, at: _Reach) -> _Reach:
    sizes, stride, padding, dilation = (
        _check.per_axis(module._geometry[key], len(at.stride), key, least)
        for key, least in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1))
    )
    sites = module._options.get("sites", "reached")
    return _windows(at, box_stencil(sizes, dilation), stride, padding, sites)


def _windows(
    at: _Reach, stencil: Stencil, stride: tuple[int, ...], padding: tuple[int, ...], sites: str
) -> _Reach:
    low = tuple((stencil.low - padding).tolist())
    high = tuple((stencil.high - padding).tolist())
    level = _Level(at, low, high)
    if sites == "floor":  # a site makes an output one, whether that reads it or not
        low = tuple(min(n, 0) for n in low)
        high = tuple(max(n, s - 1) for n, s in zip(high, stride, strict=True))
    return at.step(stride, low, high, level)


def _generated(module: nn.ConvTranspose, name: str, at: _Reach) -> _Reach:
    """Return what the outputs ``u = v * stride - padding + offset`` of sites v read."""
    stencil, stride, padding = _stencil(module), module._geometry["stride"], module._geometry["padding"]
    low = tuple(Fraction(p - int(n), s) for s, p, n in zip(stride, padding, stencil.high, strict=True))
    high = tuple(Fraction(p - int(n), s) for s, p, n in zip(stride, padding, stencil.low, strict=True))
    return at.step([Fraction(1, s) for s in stride], low, high, _Level(at, low, high))


def _stencil(module: _Convolution, centred: bool = False) -> Stencil:
    if module.offsets is not None:
        return stencil_of(module.offsets, module.ndim)
    dilation = module._geometry.get("dilation", (1,) * module.ndim)
    return box_stencil(module.kernel_size, dilation, centred)


def _row_by_row(module: nn.Module, name: str, at: _Reach) -> _Reach:
    reason = None
    if module.training and isinstance(module, nn.BatchNorm):
        reason = "the statistics of all sites"
    elif module.training and isinstance(module, nn.Dropout) and module.p:
        reason = "random numbers"
    if reason:
        raise ValueError(
            f"{name}, a {type(module).__name__} in training, depends on {reason}: call net.eval()"
        )
    return at


def _global(module: nn.Module, name: str, at: _Reach) -> _Reach:
    raise ValueError(f"{name}, a GlobalPool, depends on all sites of a batch: run it on the whole result")


def _sequence(module: nn.Sequential, name: str, at: _Reach) -> _Reach:
    for key, child in module.children().items():
        at = _through(child, f"{name}.{key}", at)
    return at


def _residual(module: nn.Residual, name: str, at: _Reach) -> _Reach:
    parts = {"body": module.body, "shortcut": module.shortcut}
    return _joined([_through(child, f"{name}.{key}", at) for key, child in parts.items()])


def _branches(module: nn.Concat, name: str, at: _Reach) -> _Reach:
    return _joined([_through(child, f"{name}.{key}", at) for key, child in module.children().items()])


def _joined(ends: list[_Reach]) -> _Reach:
    """Return what the sites read at which branches meet."""
    first, *others = ends
    for other in others:
        first = replace(
            first,
            low=tuple(map(min, first.low, other.low)),
            high=tuple(map(max, first.high, other.high)),
            align=tuple(map(max, first.align, other.align)),
            level=first.level if first.level == other.level else _Level(),
        )
    return first


def _backbone(module: _BackBone8x, name: str, at: _Reach) -> tuple[_Reach, ...]:
    levels = []
    for key in ("conv_input", "conv1", "conv2", "conv3", "conv4", "conv_out"):
        at = _through(getattr(module, key), f"{name}.{key}", at)
        levels.append(at)
    return levels[-1], *levels[1:-1]


_RULES: dict[type[nn.Module], Callable[[Any, str, _Reach], Any]] = {
    nn.Sequential: _sequence,
    nn.Residual: _residual,
    nn.Concat: _branches,
    Composed: lambda module, name, at: _through(module._layers(), name, at),
    _BackBone8x: _backbone,
    nn.SubMConv: _submanifold,
    nn.Conv: _strided,
    nn.InverseConv: lambda module, name, at: at.back(name),
    nn.ConvTranspose: _generated,
    _Pool: _pooled,
    nn.GlobalPool: _global,
    nn.Identity: lambda module, name, at: at,
    nn.Linear: _row_by_row,
    Pointwise: _row_by_row,
}


def _field(at: _Reach) -> ReceptiveField:
    left = tuple(-math.floor(n) for n in at.low)
    return ReceptiveField(left, tuple(math.ceil(n) for n in at.high), at.stride)


# Tiles


class _Cutter:
    """Cuts the sites of an input into tiles that a network can run over."""

    def __init__(self, net: nn.Module, x: SparseTensor, halo: int | Sequence[int] | None):
        ends = _walk(net, x.ndim)
        self.ends = ends if isinstance(ends, tuple) else (ends,)
        fields = [_field(end) for end in self.ends]
        self.low = -np.max([field.left for field in fields], axis=0)
        self.high = np.max([field.right for field in fields], axis=0)
        if halo is not None:
            cells = np.array(_check.per_axis(halo, x.ndim, "halo", 0))
            if (cells < -self.low).any() or (cells < self.high).any():
                raise ValueError(
                    f"halo must be at least the receptive field, {(-self.low).tolist()} cells to the left "
                    f"and {self.high.tolist()} to the right, got {halo}: there would be seams"
                )
            self.low, self.high = -cells, cells
        self.align = np.max([end.align for end in self.ends], axis=0)
        self.at = to_host(x.indices)[:, 1:]
        self._grows = any(end.level != _Level() for end in self.ends)
        self._outputs_of = partial(_outputs, net, x)

    def cut(self, tile: int | Sequence[int] | None, sites: int | None) -> list[Tile]:
        """Return the tiles, as `tiles` says."""
        if (tile is None) == (sites is None):
            raise ValueError("either tile or sites must be given, and not both")
        if tile is not None:
            cells = np.array(_check.per_axis(tile, len(self.align), "tile", 1))
            if (cells < self.align).any():
                raise ValueError(
                    f"tile must be at least the stride of the network, {self.align.tolist()}, "
                    f"got {cells.tolist()}"
                )
        if sites is not None:
            sites = _check.per_axis(sites, 1, "sites", 1)[0]
        if not len(self.at):
            return []
        low, high = self.at.min(axis=0).astype(np.int64), self.at.max(axis=0).astype(np.int64)
        if self._grows:  # outputs may lie where no input does
            low, high = low - self.high, high - self.low
            if self._last is not None:
                low, high = np.maximum(low, 0), np.minimum(high, self._last)
            if (high < low).any():
                return []
        if sites is None:
            return self._cut(low, high + 1, partial(self._at_multiple, cells))
        made = self._cut(low, high + 1, self._balanced, 1, sites)  # by halves
        for number in sorted({-(-len(self.at) // sites), -(-_seen_by(made) // sites)}):  # in equal shares
            if 1 < number < len(made):
                made = min(made, self._cut(low, high + 1, self._balanced, number, sites), key=_seen_by)
        largest = max(made, key=lambda each: len(each.rows))
        if len(largest.rows) > sites:
            raise _TooDense(largest, sites)
        return made

    @cached_property
    def _last(self) -> np.ndarray | None:
        """The last cells that outputs can belong to, if their grids end there; they begin at 0."""
        corners = []
        for y, end in zip(self._outputs_of(np.empty(0, np.int64))[1], self.ends, strict=True):
            if y.shape is None:
                return None
            corners.append([math.floor((n - 1) * s) for n, s in zip(y.shape, end.stride, strict=True)])
        return np.max(corners, axis=0)

    def _cut(
        self,
        low: np.ndarray,
        high: np.ndarray,
        plane_of: Callable[[np.ndarray, np.ndarray, np.ndarray, int], tuple[int, int] | None],
        number: int = 1,
        sites: int | None = None,
    ) -> list[Tile]:
        """Return about a number of tiles, and more of them where one sees too many sites."""
        found, todo = [], [(low, high, np.arange(len(self.at)), number)]
        while todo:
            low, high, rows, number = todo.pop()
            if not len(rows):
                continue
            if number == 1 and sites is not None and len(rows) > sites:
                number = 2
            plane = plane_of(low, high, rows, number)
            if plane is None:
                found.append(Tile(tuple(low.tolist()), tuple(high.tolist()), rows))
                continue
            left, right = self._cut_at(low, high, rows, *plane)
            todo += [(*right, max(1, number - number // 2)), (*left, max(1, number // 2))]
        return found

    def probe(self) -> Tile:
        """Return a tile from where sites are dense that is quick to run."""
        low, high = self.at.min(axis=0).astype(np.int64), self.at.max(axis=0).astype(np.int64) + 1
        rows = np.arange(len(self.at))
        while len(rows) > _PROBE:
            plane = self._balanced(low, high, rows, 2)
            if plane is None:
                break
            low, high, rows = max(self._cut_at(low, high, rows, *plane), key=lambda half: len(half[2]))
        return Tile(tuple(low.tolist()), tuple(high.tolist()), rows)

    def _cut_at(
        self, low: np.ndarray, high: np.ndarray, rows: np.ndarray, axis: int, place: int
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return the two parts of a tile, as (low, high, rows)."""
        below, above = high.copy(), low.copy()
        below[axis] = above[axis] = place
        left, right = self._seen(rows, axis, place)
        return [(low, below, rows[left]), (above, high, rows[right])]

    def _seen(self, rows: np.ndarray, axis: int, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Return which sites the tiles on both sides of a plane see."""
        at = self.at[rows, axis]
        return at <= place - 1 + self.high[axis], at >= place + self.low[axis]

    def _at_multiple(
        self, tile: np.ndarray, low: np.ndarray, high: np.ndarray, rows: np.ndarray, number: int
    ) -> tuple[int, int] | None:
        """Return an axis and the multiple of the tile's length nearest to the middle, if it is too long."""
        first, last = low // tile, (high - 1) // tile
        axis = int(np.argmax(last - first))
        if first[axis] == last[axis]:
            return None
        return axis, int((first[axis] + last[axis] + 1) // 2 * tile[axis])

    def _balanced(
        self, low: np.ndarray, high: np.ndarray, rows: np.ndarray, number: int
    ) -> tuple[int, int] | None:
        """Return the axis and the plane where the fewest sites are seen twice, None if none helps.

        The plane shares the sites as a number of tiles that goes to both sides.
        """
        if number == 1:
            return None
        for share in dict.fromkeys((number // 2 / number, 0.5)):
            planes = []
            for axis, step in enumerate(self.align.tolist()):
                first, last = -(-(int(low[axis]) + 1) // step) * step, (int(high[axis]) - 1) // step * step
                if first > last:
                    continue
                rank = int(share * len(rows))
                middle = int(np.partition(self.at[rows, axis], rank)[rank])
                place = min(max(round(middle / step) * step, first), last)
                left, right = (int(side.sum()) for side in self._seen(rows, axis, place))
                if max(left, right) < len(rows):
                    planes.append((left + right, axis, place))
            if planes:
                return min(planes)[1:]
        return None


def _seen_by(made: list[Tile]) -> int:
    """Return how many sites tiles see, some of them several times."""
    return sum(len(tile.rows) for tile in made)


class _TooDense(ValueError):
    """A tile that sees more sites than asked for, and cannot be cut further."""

    def __init__(self, tile: Tile, sites: int):
        self.needed = len(tile.rows)
        last = [n - 1 for n in tile.high]
        super().__init__(
            f"sites must be at least {self.needed}: so many does the tile of cells {list(tile.low)} .. "
            f"{last} see with its halo, and it cannot be cut further, got {sites}"
        )


class _Run(NamedTuple):
    """A tile that was run."""

    tile: Tile
    x: SparseTensor
    outputs: tuple[SparseTensor, ...]
    own: list[np.ndarray]  # rows of each output that the tile answers for
    make: Callable[[list[SparseTensor]], Any]


def _runs(
    net: nn.Module,
    x: SparseTensor,
    tile: int | Sequence[int] | None,
    sites: int | None,
    budget: int | None,
    halo: int | Sequence[int] | None,
    progress: bool,
) -> Iterator[_Run]:
    """Run a network over the tiles of an input."""
    require_tensor(x, "x")
    if sum(option is not None for option in (tile, sites, budget)) != 1:
        raise ValueError("one of tile, sites and budget must be given")
    cutter = _Cutter(net, x, halo)
    todo = cutter.cut(tile, sites) if budget is None else _within(cutter, net, x, budget)
    for each in bar(todo, len(todo), "tile") if progress else todo:
        yield _run(cutter, net, x, each)


def _run(cutter: _Cutter, net: nn.Module, x: SparseTensor, tile: Tile) -> _Run:
    part, outputs, make = _outputs(net, x, tile.rows)
    own = [_own(each, end.stride, tile) for each, end in zip(outputs, cutter.ends, strict=True)]
    return _Run(tile, part, outputs, own, make)


def _outputs(
    net: nn.Module, x: SparseTensor, rows: np.ndarray
) -> tuple[SparseTensor, tuple[SparseTensor, ...], Callable[[list[SparseTensor]], Any]]:
    """Return some rows of an input, what a network makes of them, and what makes its result of outputs."""
    rows = array_module(x.features).asarray(rows)
    part = SparseTensor(x.coords._select(rows), x.features[rows])
    y = net(part)
    if isinstance(y, tuple):
        return part, y, getattr(type(y), "_make", tuple)
    return part, (y,), _only


def _only(tensors: list[SparseTensor]) -> SparseTensor:
    return tensors[0]


def _own(y: SparseTensor, stride: tuple[Fraction, ...], tile: Tile) -> np.ndarray:
    """Return the rows of an output that a tile answers for."""
    xp = array_module(y.indices)
    inside = xp.ones(y.num_sites, bool)
    for axis, (s, low, high) in enumerate(zip(stride, tile.low, tile.high, strict=True), 1):
        corner = y.indices[:, axis].astype(np.int64) * s.numerator
        inside &= (corner >= low * s.denominator) & (corner < high * s.denominator)
    return xp.flatnonzero(inside)


def _within(cutter: _Cutter, net: nn.Module, x: SparseTensor, budget: int) -> list[Tile]:
    """Return tiles that take no more than some bytes, by what one takes that is run to see."""
    if _check.integer(budget, "budget") < 1:
        raise ValueError(f"budget must be at least 1 byte, got {budget}")
    if not x.num_sites:
        return []
    probe = cutter.probe()
    tracemalloc.start()
    try:
        _run(cutter, net, x, probe)
        each = tracemalloc.get_traced_memory()[1] / len(probe.rows)
    finally:
        tracemalloc.stop()
    try:
        return cutter.cut(None, max(1, int(budget * _SHARE / each)))
    except _TooDense as dense:
        needed = math.ceil(dense.needed * each / _SHARE)
        raise ValueError(
            f"budget must be at least {needed} bytes: the smallest tile sees {dense.needed} sites of about "
            f"{each:.0f} bytes each, got {budget}"
        ) from None


class _Whole:
    """The parts of an output, put together."""

    def __init__(self, x: SparseTensor):
        self._x = x
        self._features: np.ndarray | None = None  # where the network returns to the input's sites
        self._parts: list[SparseTensor] = []

    def add(self, y: SparseTensor, own: np.ndarray, run: _Run) -> None:
        """Take what a tile answers for."""
        if y.coords is run.x.coords:
            xp = array_module(y.features)
            if self._features is None:
                self._features = xp.empty((self._x.num_sites, y.num_channels), y.dtype)
            self._features[xp.asarray(run.tile.rows)[own]] = y.features[own]
        else:
            self._parts.append(SparseTensor(y.coords._select(own), y.features[own]))

    def tensor(self) -> SparseTensor:
        """Return the whole output."""
        if self._features is not None:
            return SparseTensor(self._x.coords, self._features)
        xp, first = array_module(self._x.features), self._parts[0].coords
        indices = xp.concatenate([part.indices for part in self._parts])
        features = xp.concatenate([part.features for part in self._parts])
        grid = first.shape, self._x.batch_size, first.origin, first.voxel_size
        sites = _sites_of(indices, *grid)
        order = sites.rows.order
        if order is not None:
            sites = sites_from_keys(sites.keys, sites.layout, sites.low, sites.high, *grid)
            features = features[order]
        return SparseTensor(Coords._of(sites), features)
