"""Sites of a grid: their keys and order, and what is derived from them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _check, _html
from ._backend import Backend, array_module, backend_of, freeze, kernels_for, move, require, to_host
from ._memory import empty
from ._once import Kept, Lock
from ._threads import threads_for
from .hashmap import NO_KEY, HashMap

_KEY_BITS = 63  # one bit is kept free, so that sentinels lie above every key
_MARGIN = 4  # cells of room around the sites, where it costs no bits: most queries then fit as they are


class Layout:
    """Where each column of the coordinates has its bit field in a key, and the values that fit.

    `low` and `high` bound, by column, what the fields hold.
    """

    __slots__ = ("bits", "high", "low", "shift")

    def __init__(self, low: np.ndarray, high: np.ndarray):
        margin = np.full(len(low), _MARGIN)
        margin[0] = 0  # no offset changes the batch
        fields = _field_bits(low - margin, high + margin)
        if sum(fields) <= _KEY_BITS:
            low = low - margin
        else:
            fields = _field_bits(low, high)
        self.bits: int = sum(fields)
        if self.bits > _KEY_BITS:
            spans = " x ".join(str(int(h) - int(lo) + 1) for lo, h in zip(low, high, strict=True))
            raise ValueError(
                f"indices span {spans} cells (batch, then axes), a key space of {self.bits} bits; "
                f"64-bit keys hold at most {_KEY_BITS}"
            )
        self.low: np.ndarray = np.array(low, np.int64)
        self.shift: np.ndarray = np.array([sum(fields[c + 1 :]) for c in range(len(fields))], np.int64)
        self.high: np.ndarray = self.low + np.array([(1 << b) - 1 for b in fields], np.int64)

    def holds(self, low: np.ndarray, high: np.ndarray) -> bool:
        """Return whether all coordinates between `low` and `high` have keys."""
        return bool((self.low <= low).all() and (high <= self.high).all())


def _field_bits(low: np.ndarray, high: np.ndarray) -> list[int]:
    return [(int(h) - int(lo)).bit_length() for lo, h in zip(low, high, strict=True)]


@dataclass(eq=False)
class RowOrder:
    """How the rows of a level lie in key order: `order[rank]` is a row, None where row = rank."""

    num_rows: int
    order: np.ndarray | None = None
    _kept: Kept = field(default_factory=Kept)

    @property
    def rank(self) -> np.ndarray | None:
        """The inverse of `order`."""
        order = self.order
        return None if order is None else self._kept.once("rank", lambda: self._inverse(order))

    def _inverse(self, order: np.ndarray) -> np.ndarray:
        rank = array_module(order).empty_like(order)
        rank[order] = array_module(rank).arange(self.num_rows, dtype=np.int32)
        return rank


@dataclass(eq=False)
class Sites:
    """What a level consists of. `Coords` are handles on it, so that levels can link without cycles."""

    indices: np.ndarray  # (N, 1 + D) int32, in row order
    shape: tuple[int, ...] | None
    batch_size: int
    low: np.ndarray  # (1 + D,) bounds of the coordinates
    high: np.ndarray
    layout: Layout
    keys: np.ndarray  # (N + 1,) uint64, ascending, and a sentinel
    rows: RowOrder
    origin: np.ndarray  # (D,) float64
    voxel_size: np.ndarray
    derived: Kept = field(default_factory=Kept)
    moved: dict[Backend, weakref.ref[Coords]] = field(default_factory=dict)  # by backend
    children: Kept = field(default_factory=Kept)  # of `Child`

    def __post_init__(self) -> None:
        freeze(self.indices, self.origin, self.voxel_size)
        self.indices = self.indices.view()  # a view of a read-only array cannot be made writeable

    @property
    def lock(self) -> Lock:
        """Held while something is derived, or moved to another backend."""
        return self.derived.lock

    @property
    def hashmap(self) -> HashMap:
        """The coordinate hash, from key to rank."""
        return self.derived.once("hashmap", lambda: HashMap._of(self.keys[:-1]))

    def rows_of_keys(self, keys: np.ndarray) -> np.ndarray:
        """Return the row of each key of the layout, -1 where there is no site."""
        ranks = self.hashmap.find(keys)
        order = self.rows.order
        if order is None or not len(order):
            return ranks
        return array_module(ranks).where(ranks < 0, ranks, order[ranks])


@dataclass(eq=False)
class Child:
    """A level made from another: its sites, the rulebook between, and the handle that is alive."""

    sites: Sites
    rulebook: Any  # a Rulebook, whose module imports this one
    kernel_size: tuple[int, ...] | None  # None: not made by a box
    remake: Callable[..., Coords]  # makes the level again, from its parent and these arguments
    arguments: tuple[Any, ...]
    handle: weakref.ref[Coords] | None = None

    def alive(self) -> Coords | None:
        """Return the handle if it is alive."""
        return None if self.handle is None else self.handle()


class Coords:
    """The sites of a sparse tensor: which cells of a grid are occupied.

    Immutable. Coords own what is derived from them (sorted order, coordinate hash, rulebooks, the
    levels that strided layers make); each is computed once, on demand, and freed with them.

    Parameters
    ----------
    indices : array_like of shape (N, 1 + D), any integer dtype
        Column 0 is the batch, the others the D = 1 .. 4 spatial axes. Rows keep their order and must
        differ. They are copied.
    shape : sequence of D ints, optional
        Extent of the grid. Indices must lie in ``[0, shape)``, and convolutions clip there as dense
        ones do. None is an unbounded grid: any int32 index, negative ones too, and no clipping.
    batch_size : int, optional
        Number of batches, default the greatest batch index + 1 (1 if there are no sites).

    Attributes
    ----------
    indices : ndarray of shape (N, 1 + D), int32
        Read-only.
    origin, voxel_size : ndarray of shape (D,), float64
        The metric grid: cell i spans ``origin + voxel_size * [i, i + 1)``. 0 and 1 unless
        `voxelize` made the coords; the levels below derive theirs.

    Raises
    ------
    TypeError
        If `indices` are no integers.
    ValueError
        If an index is negative or beyond `shape` or `batch_size`, or two rows are the same site (the
        message names the rows), or the sites span a key space of more than 63 bits.

    Examples
    --------
    >>> import spcy
    >>> coords = spcy.Coords([[0, 2, 1], [0, 0, 3]], shape=(4, 4))
    >>> coords
    Coords(2 sites, shape (4, 4), batch_size 1, density 12.5%)
    >>> coords.rows_of([[0, 0, 3], [0, 1, 1]])
    array([ 1, -1], dtype=int32)
    """

    __slots__ = ("__weakref__", "_child", "_parent", "_sites")

    _sites: Sites
    _parent: Coords | None
    _child: Child | None

    def __init__(self, indices: ArrayLike, shape: Sequence[int] | None = None, batch_size: int | None = None):
        array = _check.indices(indices)
        ndim = array.shape[1] - 1
        if shape is not None:
            shape = _check.shape(shape, ndim)
        if batch_size is not None:
            batch_size = _check.per_axis(batch_size, 1, "batch_size", 1)[0]
        self._sites = _sites_of(array, shape, batch_size, np.zeros(ndim), np.ones(ndim))
        self._parent = None
        self._child = None

    @classmethod
    def _of(cls, sites: Sites, parent: Coords | None = None, child: Child | None = None) -> Coords:
        """Return a handle on sites that spcy made."""
        coords = cls.__new__(cls)
        coords._sites = sites
        coords._parent = parent
        coords._child = child
        return coords

    def _select(self, rows: np.ndarray) -> Coords:
        """Return coords of some rows."""
        sites = self._sites
        args = sites.shape, sites.batch_size, sites.origin, sites.voxel_size
        return Coords._of(_sites_of(sites.indices[rows], *args))

    @property
    def indices(self) -> np.ndarray:
        """The sites, in row order."""
        return self._sites.indices

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Extent of the grid, None if unbounded."""
        return self._sites.shape

    @property
    def batch_size(self) -> int:
        """Number of batches."""
        return self._sites.batch_size

    @property
    def num_sites(self) -> int:
        """Number of sites, N."""
        return self._sites.rows.num_rows

    @property
    def ndim(self) -> int:
        """Number of spatial axes, D."""
        return self._sites.indices.shape[1] - 1

    @property
    def backend(self) -> Backend:
        """Where the coords live."""
        return backend_of(self._sites.indices)

    @property
    def parent(self) -> Coords | None:
        """The level that this one was made from by a strided, transposed or pooling step, or None."""
        return self._parent

    @property
    def origin(self) -> np.ndarray:
        """Low corner of cell 0."""
        return self._sites.origin

    @property
    def voxel_size(self) -> np.ndarray:
        """Edges of a cell."""
        return self._sites.voxel_size

    def __len__(self) -> int:
        return self.num_sites

    def __repr__(self) -> str:
        return f"Coords({describe(self)})"

    def _repr_html_(self) -> str:
        facts, picture = html_of(self)
        return _html.card("spcy.Coords", describe(self), {"grid": facts}, picture)

    def __reduce__(self) -> tuple[Any, ...]:
        # Plans are computed again on demand; a child level is made again from its parent.
        if self._child is not None:
            return self._child.remake, (self._parent, *self._child.arguments)
        sites = self._sites
        state = (sites.indices, sites.shape, sites.batch_size, sites.origin, sites.voxel_size)
        return _unpickle, state

    def to(self, backend: Backend) -> Coords:
        """Return the coords on another backend, themselves if they are there already.

        Levels that strided layers made are made again there, from their parents, so that inverse
        convolutions and `unpool` find them. While the result is in use, the same object is returned.

        Parameters
        ----------
        backend : {"cpu", "cuda"}

        Returns
        -------
        Coords
            The same sites in the same rows.

        Raises
        ------
        RuntimeError
            If `backend` is "cuda" and that backend cannot run here.

        Examples
        --------
        >>> import spcy
        >>> coords = spcy.Coords([[0, 2, 1], [0, 0, 3]])
        >>> coords.to("cpu") is coords
        True
        """
        _check.choice(backend, ("cpu", "cuda"), "backend")
        require(backend)
        if backend == self.backend:
            return self
        sites = self._sites
        with sites.lock():
            known = sites.moved.get(backend)
            moved = None if known is None else known()
            if moved is None:
                moved = self._moved(backend)
                sites.moved[backend] = weakref.ref(moved)
        return moved

    def _moved(self, backend: Backend) -> Coords:
        if self._child is not None and self._parent is not None:
            return self._child.remake(self._parent.to(backend), *self._child.arguments)
        old = self._sites
        rows = RowOrder(old.rows.num_rows, move(old.rows.order, backend))
        indices, keys = move(old.indices, backend), move(old.keys, backend)
        grid = old.shape, old.batch_size, old.low, old.high, old.layout
        return Coords._of(Sites(indices, *grid, keys, rows, old.origin, old.voxel_size))

    def rows_of(self, indices: ArrayLike) -> np.ndarray:
        """Return the row of each site.

        Parameters
        ----------
        indices : array_like of shape (M, 1 + D), any integer dtype
            Any coordinates, inside the grid or not.

        Returns
        -------
        ndarray of shape (M,), int32
            -1 where there is no site.
        """
        array = _check.indices(indices, self.backend)
        if array.shape[1] != 1 + self.ndim:
            raise ValueError(f"indices must have {1 + self.ndim} columns, got {array.shape[1]}")
        return rows_of(self._sites, array)


def rows_of(sites: Sites, indices: np.ndarray) -> np.ndarray:
    """Return the row of each (M, 1 + D) int32 index, -1 where there is no site."""
    layout, num = sites.layout, len(indices)
    xp = array_module(indices, sites.keys)
    if not num:
        return xp.empty(0, np.int32)
    keys = empty(xp, num, np.uint64)
    kernels_for(indices).coords.pack_inside(
        indices, layout.low, layout.high, layout.shift, keys, threads_for(5 * num)
    )
    return sites.rows_of_keys(keys)


def same_sites(a: Coords, b: Coords) -> bool:
    """Return whether two coords have the same sites in the same rows, at the same places in space."""
    return a._sites is b._sites or (same_grid(a, b) and same_rows(a, b))


def same_rows(a: Coords, b: Coords) -> bool:
    """Return whether two coords have the same sites in the same rows, wherever their cells lie in space."""
    if a._sites is b._sites:
        return True
    if a.shape != b.shape or a.batch_size != b.batch_size:
        return False
    return bool(array_module(a.indices, b.indices).array_equal(a.indices, b.indices))


def same_grid(a: Coords, b: Coords) -> bool:
    """Return whether cells of two coords lie at the same places in space."""
    return np.array_equal(a.origin, b.origin) and np.array_equal(a.voxel_size, b.voxel_size)


def require_same_grid(a: Coords, b: Coords, name_a: str, name_b: str) -> None:
    """Raise unless two coords can be united."""
    if a.ndim != b.ndim or a.shape != b.shape:
        raise ValueError(
            f"{name_b} must have the grid of {name_a}, {a.ndim} axes and shape {a.shape}, "
            f"got {b.ndim} and {b.shape}"
        )
    if not same_grid(a, b):
        raise ValueError(f"{name_b} must have the metric grid of {name_a}: their origin or voxel_size differ")


def require_coords(value: Any, name: str) -> None:
    """Raise unless an argument is a `Coords`."""
    if not isinstance(value, Coords):
        raise TypeError(f"{name} must be Coords, got {type(value).__name__}")


def describe(coords: Coords) -> str:
    """Return the words that a repr has for coords."""
    words = f"{coords.num_sites} sites, shape {coords.shape}, batch_size {coords.batch_size}"
    if coords.shape is None:
        return words
    cells = float(coords.batch_size) * float(np.prod(np.array(coords.shape, float)))
    return f"{words}, density {100 * coords.num_sites / cells:.3g}%"


def html_of(coords: Coords) -> tuple[str, str]:
    """Return what notebooks show of coords: a table of the grid, and a picture of where the sites are."""
    low, high = bounds_of(coords.indices)
    facts = {
        "shape": coords.shape or "unbounded",
        "batch_size": coords.batch_size,
        "sites lie in": " x ".join(f"{a} .. {b}" for a, b in zip(low[1:], high[1:], strict=True)),
        "voxel_size": " x ".join(f"{edge:g}" for edge in coords.voxel_size),
        "origin": ", ".join(f"{place:g}" for place in coords.origin),
        "backend": coords.backend,
    }
    if not coords.num_sites:
        del facts["sites lie in"]
    if coords.parent is not None:
        facts["made from"] = describe(coords.parent)
    return _html.table(facts.items(), left=2), _html.site_picture(coords.indices, low, high)


def _unpickle(
    indices: np.ndarray,
    shape: tuple[int, ...] | None,
    batch_size: int,
    origin: np.ndarray,
    voxel_size: np.ndarray,
) -> Coords:
    return Coords._of(_sites_of(indices.copy(), shape, batch_size, origin, voxel_size))


def _sites_of(
    indices: np.ndarray,
    shape: tuple[int, ...] | None,
    batch_size: int | None,
    origin: np.ndarray,
    voxel_size: np.ndarray,
) -> Sites:
    """Check indices (a fresh array) against the grid, order them and find duplicates."""
    low, high = bounds_of(indices)
    if batch_size is None:
        batch_size = max(int(high[0]) + 1, 1)
    _check_range(indices, low, high, shape, batch_size)
    layout = Layout(low, high)
    keys, order = _sorted_keys(indices, layout)
    rows = RowOrder(len(indices), order)
    return Sites(indices, shape, batch_size, low, high, layout, keys, rows, origin, voxel_size)


def distinct_sites(indices: np.ndarray) -> tuple[Coords, np.ndarray | None, np.ndarray | None]:
    """Return the coords of the distinct rows of (N, 1 + D) int32 indices, in the order of their first ones.

    Then the row that each site is first in and the site of each row; both None if no site is there twice.
    The grid is unbounded.
    """
    low, high = bounds_of(indices)
    batch_size = max(int(high[0]) + 1, 1)
    _check_range(indices, low, high, None, batch_size)
    layout, num, xp = Layout(low, high), len(indices), array_module(indices)
    keys, order = _sort_indices(indices, layout)
    ndim = indices.shape[1] - 1
    first = sites = None
    if num and kernels_for(indices).coords.count_descents(keys[:num], threads_for(num)):
        keys, starts = unique_keys(keys[:num])
        order = xp.arange(num, dtype=np.int32) if order is None else order
        first, ranks = order[starts[:-1]], empty(xp, num, np.int32)
        kernels_for(keys).coords.spread_runs(starts, order, ranks, threads_for(2 * num))
        order = xp.argsort(first).astype(np.int32)  # the rank of each site, by first row
        site_of_rank = xp.empty_like(order)
        site_of_rank[order] = xp.arange(len(order), dtype=np.int32)
        first, sites = first[order], site_of_rank[ranks]
        indices, order = indices[first], site_of_rank if (order[1:] < order[:-1]).any() else None
    rows = RowOrder(len(indices), order)
    grid = np.zeros(ndim), np.ones(ndim)
    return Coords._of(Sites(indices, None, batch_size, low, high, layout, keys, rows, *grid)), first, sites


def bounds_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest value of each column (0 if there are no rows), as 64-bit numbers."""
    kernels = kernels_for(values).coords
    columns, dtype = values.shape[1], np.int64 if values.dtype == np.int32 else np.float64
    chunks = -(-len(values) // kernels.CHUNK)
    if not chunks:
        return np.zeros(columns, dtype), np.zeros(columns, dtype)
    found = empty(array_module(values), (chunks, 2, columns), values.dtype)
    kernels.bounds(values, found, threads_for(2 * len(values)))
    low, high = to_host(found[0]).astype(dtype)
    return low, high


def _check_range(
    indices: np.ndarray, low: np.ndarray, high: np.ndarray, shape: tuple[int, ...] | None, batch_size: int
) -> None:
    """Raise for the first row outside the grid; `low` and `high` tell whether there is one."""
    batch_size = min(batch_size, _check.INT32.max)
    if low[0] < 0 or high[0] >= batch_size:
        batch = indices[:, 0]
        row = _check.first_row((batch < 0) | (batch >= batch_size))
        raise ValueError(
            f"indices must have a batch index in [0, {batch_size}) (batch_size {batch_size}), "
            f"got {int(batch[row])} in row {row}"
        )
    if shape is not None and len(indices) and ((low[1:] < 0).any() or (high[1:] >= shape).any()):
        spatial = indices[:, 1:]
        xp = array_module(spatial)
        row = _check.first_row(((spatial < 0) | (spatial >= xp.array(shape))).any(axis=1))
        raise ValueError(
            f"indices must lie in [0, shape) for shape {shape}, got {spatial[row].tolist()} in row {row}"
        )


def _sorted_keys(indices: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the ascending keys with a sentinel, and the order of rows if they were not ascending."""
    keys, order = _sort_indices(indices, layout)
    num = len(indices)
    if order is not None and kernels_for(indices).coords.count_descents(keys[:num], threads_for(num)):
        twin = int((keys[1:num] == keys[: num - 1]).argmax())
        first, second = sorted((int(order[twin]), int(order[twin + 1])))
        raise ValueError(
            f"indices must be unique, got the same site {indices[first].tolist()} "
            f"in rows {first} and {second}"
        )
    return keys, order


def _sort_indices(indices: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the keys, equal ones side by side, with a sentinel, and the order of rows if it is another."""
    kernels = kernels_for(indices).coords
    num = len(indices)
    keys = empty(array_module(indices), num + 1, np.uint64)
    keys[num:] = NO_KEY
    if not num:
        return keys, None
    kernels.pack(indices, layout.low, layout.shift, keys[:num], threads_for(3 * num))
    if kernels.count_descents(keys[:num], threads_for(num)) == 0:
        return keys, None
    keys[:num], order = sort_keys(keys[:num], layout.bits)
    return keys, order


def sort_keys(keys: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return keys in ascending order and, stably, the row that each came from. `keys` is overwritten."""
    return kernels_for(keys).builders.sort_keys(keys, bits)


def unique_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct keys of a sorted array with a sentinel behind them, and where each begins.

    The second array has the length of `keys` as its last element.
    """
    kernels = kernels_for(keys).coords
    num = len(keys)
    xp = array_module(keys)
    counts = empty(xp, -(-num // kernels.CHUNK), np.int64)
    if num:
        kernels.count_runs(keys, counts, threads_for(num))
    total = int(counts.sum())
    starts = empty(xp, total + 1, np.int64)
    unique = empty(xp, total + 1, np.uint64)
    starts[total], unique[total] = num, NO_KEY
    if num:
        kernels.fill_runs(keys, xp.cumsum(counts) - counts, starts[:total], unique[:total], threads_for(num))
    return unique, starts


def sites_from_keys(
    keys: np.ndarray,
    layout: Layout,
    low: np.ndarray | None,
    high: np.ndarray | None,
    shape: tuple[int, ...] | None,
    batch_size: int,
    origin: np.ndarray,
    voxel_size: np.ndarray,
) -> Sites:
    """Return sites, in key order, from ascending keys with a sentinel; they lie in [low, high], if known."""
    num = len(keys) - 1
    indices = empty(array_module(keys), (num, len(layout.low)), np.int32)
    if num:
        kernels = kernels_for(keys).coords
        kernels.unpack(keys[:num], layout.low, layout.shift, indices, threads_for(5 * num))
    if low is None or high is None:
        low, high = bounds_of(indices)
    return Sites(indices, shape, batch_size, low, high, layout, keys, RowOrder(num), origin, voxel_size)


def group_keys(keys: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct keys in ascending order with a sentinel, and the rank of each key among them.

    Then the rows of `keys` in the order of their ranks, and where those of each rank begin (the last
    element is their number). `keys` is overwritten.
    """
    ranks = empty(array_module(keys), len(keys), np.int32)
    keys, order = sort_keys(keys, bits)
    unique, starts = unique_keys(keys)
    if len(keys):
        kernels_for(keys).coords.spread_runs(starts, order, ranks, threads_for(2 * len(keys)))
    return unique, ranks, order, starts


def keys_in(sites: Sites, layout: Layout) -> np.ndarray:
    """Return the sites' ascending keys, with the sentinel, in another layout."""
    if layout is sites.layout:
        return sites.keys
    num = sites.rows.num_rows
    out = empty(array_module(sites.keys), num + 1, np.uint64)
    out[num] = NO_KEY
    if num:
        kernels_for(sites.keys).coords.repack(
            sites.keys[:num],
            sites.layout.low,
            sites.layout.shift,
            layout.low,
            layout.shift,
            out[:num],
            threads_for(5 * num),
        )
    return out


def layout_for(sites: Sites, low: np.ndarray, high: np.ndarray) -> Layout:
    """Return a layout that holds the sites and all coordinates in [low, high]: theirs, if it does."""
    if sites.layout.holds(low, high):
        return sites.layout
    return Layout(np.minimum(low, sites.low), np.maximum(high, sites.high))


def derive(coords: Coords, key: Hashable, build: Callable[[], Any]) -> Any:
    """Return what `build` makes from the coords, made once for each key."""
    return coords._sites.derived.once(key, build)


def derive_child(coords: Coords, key: Hashable, build: Callable[[], Child]) -> tuple[Any, Coords]:
    """Return the rulebook and the level that `build` makes from the coords, made once for each key."""
    sites = coords._sites
    child = sites.children.once(key, build)
    handle = child.alive()
    if handle is None:
        with sites.children.lock():
            handle = child.alive()
            if handle is None:
                handle = Coords._of(child.sites, parent=coords, child=child)
                child.handle = weakref.ref(handle)
    return child.rulebook, handle


def union(a: Coords, b: Coords) -> tuple[Coords, np.ndarray, np.ndarray]:
    """Return the sites that are in `a` or in `b`.

    Parameters
    ----------
    a, b : Coords
        Of the same grid shape.

    Returns
    -------
    coords : Coords
        In ascending key order; the batch size is the greater of the two.
    rows_a, rows_b : ndarray of shape (len(a),) and (len(b),), int32
        The row in `coords` of each row of `a` and `b`.

    Raises
    ------
    ValueError
        If the grids differ.
    TypeError
        If `a` or `b` are no `Coords`.

    Examples
    --------
    >>> import spcy
    >>> both, rows_a, rows_b = spcy.union(spcy.Coords([[0, 5], [0, 1]]), spcy.Coords([[0, 3], [0, 5]]))
    >>> both.indices[:, 1], rows_a, rows_b
    (array([1, 3, 5], dtype=int32), array([2, 0], dtype=int32), array([1, 2], dtype=int32))
    """
    require_coords(a, "a")
    require_coords(b, "b")
    require_same_grid(a, b, "a", "b")
    coords, (rows_a, rows_b) = unite([a, b])
    return coords, rows_a, rows_b


def unite(parts: Sequence[Coords]) -> tuple[Coords, list[np.ndarray]]:
    """Return the sites that are in any of some coords of one grid, and the row there of each one's rows."""
    sites = [part._sites for part in parts]
    filled = [each for each in sites if each.rows.num_rows] or sites[:1]  # empty ones have no bounds
    low = np.minimum.reduce([each.low for each in filled])
    high = np.maximum.reduce([each.high for each in filled])
    layout = layout_for(filled[0], low, high)
    xp = array_module(*(each.keys for each in sites))
    keys = xp.concatenate([keys_in(each, layout)[:-1] for each in sites])
    unique, ranks, _, _ = group_keys(keys, layout.bits)
    first, batch_size = sites[0], max(each.batch_size for each in sites)
    grid = first.shape, batch_size, first.origin, first.voxel_size
    ends = np.cumsum([each.rows.num_rows for each in sites]).tolist()
    rows = [
        _by_row(ranks[end - each.rows.num_rows : end], each.rows)
        for each, end in zip(sites, ends, strict=True)
    ]
    return Coords._of(sites_from_keys(unique, layout, low, high, *grid)), rows


def _by_row(values: np.ndarray, rows: RowOrder) -> np.ndarray:
    """Return values given by rank in row order."""
    return values.copy() if rows.rank is None else values[rows.rank]
