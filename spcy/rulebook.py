"""Rulebooks: which input row meets which output row under each kernel offset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from . import _check, _html
from ._backend import array_module, freeze, kernels_for, to_host
from ._once import Kept
from ._stencil import Stencil, stencil_of
from ._threads import threads_for
from .coords import (
    Child,
    Coords,
    Layout,
    RowOrder,
    Sites,
    derive,
    derive_child,
    group_keys,
    keys_in,
    layout_for,
    require_coords,
    sites_from_keys,
)

Ints = tuple[int, ...]
Outputs = Literal["reached", "floor"]  # which sites a convolution or a pool makes
Level = tuple[Sites, "Rulebook"]


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Rulebook:
    """For each kernel offset, its pairs of rows: the plan that convolutions and pools execute.

    Made by `submanifold_rulebook`, `conv_rulebook` and `transposed_rulebook`. Immutable. Pairs are
    ordered by (kernel offset, key of the output site). Under one offset the keys of the inputs
    ascend together with those of the outputs, and no row occurs twice on either side.

    Attributes
    ----------
    in_rows, out_rows : ndarray of shape (P,), int32
        The pairs. Read-only.
    offset_ptr : ndarray of shape (K + 1,), int64
        Those of offset k are ``[offset_ptr[k] : offset_ptr[k + 1]]``.

    Examples
    --------
    >>> import spcy
    >>> coords = spcy.Coords([[0, 4], [0, 5], [0, 9]])
    >>> rulebook = spcy.submanifold_rulebook(coords, [[-1], [0], [1]])
    >>> rulebook
    Rulebook(3 sites -> 3 sites, 3 offsets, 5 pairs)
    """

    in_rows: np.ndarray
    out_rows: np.ndarray
    offset_ptr: np.ndarray
    _in: RowOrder
    _out: RowOrder
    _kept: Kept = field(default_factory=Kept)

    @property
    def num_offsets(self) -> int:
        """Number of kernel offsets, K."""
        return len(self.offset_ptr) - 1

    @property
    def num_pairs(self) -> int:
        """Number of pairs, P."""
        return len(self.in_rows)

    @property
    def num_in(self) -> int:
        """Number of input rows."""
        return self._in.num_rows

    @property
    def num_out(self) -> int:
        """Number of output rows."""
        return self._out.num_rows

    def __repr__(self) -> str:
        return (
            f"Rulebook({self.num_in} sites -> {self.num_out} sites, {self.num_offsets} offsets, "
            f"{self.num_pairs} pairs)"
        )

    def _repr_html_(self) -> str:
        counts = np.diff(to_host(self.offset_ptr))
        facts = {
            "input sites": f"{self.num_in:,}",
            "output sites": f"{self.num_out:,}",
            "pairs": f"{self.num_pairs:,}",
            "pairs of an output site": f"{self.num_pairs / max(1, self.num_out):.1f} on average",
            "pairs of an offset": f"{counts.min(initial=self.num_pairs):,} .. {counts.max(initial=0):,}",
        }
        picture = _html.bars(counts, "Pairs of each kernel offset")
        words = f"{self.num_offsets} offsets, {self.num_pairs:,} pairs"
        return _html.card("spcy.Rulebook", words, {"sizes": _html.table(facts.items(), left=2)}, picture)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rulebook, (self._in, self._out, self.in_rows, self.out_rows, self.offset_ptr)

    def pairs(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the input rows and the output rows of kernel offset `k`.

        Parameters
        ----------
        k : int
            In ``[0, num_offsets)``.

        Returns
        -------
        in_rows, out_rows : ndarray of shape (P_k,), int32
        """
        k = _check.integer(k, "k")
        if not 0 <= k < self.num_offsets:
            raise ValueError(f"k must be in [0, {self.num_offsets}), got {k}")
        part = slice(*to_host(self.offset_ptr[k : k + 2]).tolist())
        return self.in_rows[part], self.out_rows[part]

    def transposed(self) -> Rulebook:
        """Return the rulebook that runs backwards: the same pairs, their roles swapped.

        Returns
        -------
        Rulebook
            In the canonical order too. The same object every time.
        """
        swapped = self.out_rows, self.in_rows, self.offset_ptr, self._out, self._in
        return self._kept.once("transposed", lambda: Rulebook(*swapped))

    def _tiles(self, tile_size: int) -> np.ndarray:
        """Return (K, tiles + 1) cut points: where the pairs of each tile of output ranks begin."""
        return self._kept.once(tile_size, lambda: self._cut_points(tile_size))

    def _cut_points(self, tile_size: int) -> np.ndarray:
        tiles = -(-self.num_out // tile_size)
        tile_ptr = array_module(self.out_rows).empty((self.num_offsets, tiles + 1), np.int64)
        kernels_for(self.out_rows).rulebook.cut_tiles(
            self.out_rows,
            self.offset_ptr,
            self._out.rank,
            tile_size,
            tile_ptr,
            threads_for(30 * tile_ptr.size),
        )
        return tile_ptr

    def _conv_tiles(self, tile_size: int) -> Any:
        """Return the pairs as a convolution's kernels take them."""
        return self._kept.once(
            ("conv", tile_size), lambda: kernels_for(self.out_rows).builders.conv_tiles(self, tile_size)
        )


def submanifold_rulebook(coords: Coords, offsets: ArrayLike) -> Rulebook:
    """Return the rulebook of a submanifold convolution: its output sites are its input sites.

    Input row i and output row j are a pair of offset k if ``site(i) == site(j) + offsets[k]``.

    Parameters
    ----------
    coords : Coords
    offsets : array_like of shape (K, D), any integer dtype
        Any stencil; no two may be equal. A symmetric one (``offsets[k] == -offsets[K - 1 - k]``, as
        centred boxes are) costs half as much.

    Returns
    -------
    Rulebook
        Cached on the coords: the same offsets give the same object.

    Raises
    ------
    ValueError
        If `offsets` have another shape, or two are equal (the message names the rows).
    TypeError
        If they are no integers.

    Examples
    --------
    >>> import spcy
    >>> coords = spcy.Coords([[0, 4], [0, 5], [0, 9]])
    >>> spcy.submanifold_rulebook(coords, [[-1], [0], [1]]).pairs(2)
    (array([1], dtype=int32), array([0], dtype=int32))
    """
    require_coords(coords, "coords")
    return submanifold(coords, stencil_of(offsets, coords.ndim))


def submanifold(coords: Coords, stencil: Stencil) -> Rulebook:
    """Return what `submanifold_rulebook` does, for checked arguments."""

    def build() -> Rulebook:
        return _neighbours(coords._sites, stencil)

    return derive(coords, ("submanifold", stencil.key), build)


def conv_rulebook(
    coords: Coords,
    offsets: ArrayLike,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
) -> tuple[Rulebook, Coords]:
    """Return the rulebook of a regular sparse convolution, and its output sites.

    Input site c and output site u are a pair of offset k if ``c == u * stride - padding + offsets[k]``.
    Output sites are all that an input site reaches so; on a grid with a shape n they lie in
    ``[0, (n + 2 * padding - max(offsets) - 1) // stride + 1)``, as those of a dense convolution do.

    Parameters
    ----------
    coords : Coords
    offsets : array_like of shape (K, D), any integer dtype
        For a box, `kernel_offsets`.
    stride, padding : int or sequence of D ints

    Returns
    -------
    rulebook : Rulebook
    out_coords : Coords
        In ascending key order, a child level of `coords`. Both are cached on the coords: the same
        geometry gives the same objects.

    Raises
    ------
    ValueError
        If the kernel is larger than the padded shape.

    Examples
    --------
    >>> import spcy
    >>> coords = spcy.Coords([[0, 4], [0, 5], [0, 9]])
    >>> rulebook, out_coords = spcy.conv_rulebook(coords, [[0], [1]], stride=2)
    >>> out_coords.indices[:, 1], rulebook.pairs(1)
    (array([2, 4], dtype=int32), (array([1, 2], dtype=int32), array([0, 1], dtype=int32)))
    """
    require_coords(coords, "coords")
    stencil = stencil_of(offsets, coords.ndim)
    stride = _check.per_axis(stride, coords.ndim, "stride", 1)
    padding = _check.per_axis(padding, coords.ndim, "padding", 0)
    return strided(coords, stencil, stride, padding)


def strided(coords: Coords, stencil: Stencil, stride: Ints, padding: Ints) -> tuple[Rulebook, Coords]:
    """Return what `conv_rulebook` does, for checked arguments."""

    def build() -> Child:
        shape = None
        if coords.shape is not None:
            shape = tuple(
                (n + 2 * p - int(o) - 1) // s + 1
                for n, p, s, o in zip(coords.shape, padding, stride, stencil.high, strict=True)
            )
            if min(shape) < 1:
                raise ValueError(
                    f"kernel_size must be no larger than the padded shape, got a window of "
                    f"{(stencil.high + 1).tolist()} cells for shape {coords.shape} and padding {padding}"
                )
            _check.out_shape(shape)
        made = _strided_level(coords._sites, stencil, stride, padding, shape)
        return Child(*made, stencil.kernel_size, _remake_strided, (stencil.offsets, stride, padding))

    return derive_child(coords, ("conv", stencil.key, stride, padding), build)


def windows(
    coords: Coords, stencil: Stencil, stride: Ints, padding: Ints, sites: Outputs = "reached"
) -> tuple[Rulebook, Coords]:
    """Return what `strided` or `floored` does; the coords themselves where each output is a site."""
    if _check.choice(sites, ("reached", "floor"), "sites") == "floor":
        return floored(coords, stencil, stride, padding)
    if len(stencil.offsets) == 1 and not stencil.offsets.any() and {*stride} == {1} and {*padding} == {0}:
        return submanifold(coords, stencil), coords
    return strided(coords, stencil, stride, padding)


def floored(coords: Coords, stencil: Stencil, stride: Ints, padding: Ints) -> tuple[Rulebook, Coords]:
    """Return the rulebook of a convolution whose output sites are ``floor(c / stride)``, and those sites."""
    if {*stride} == {1}:
        return submanifold(coords, Stencil(stencil.offsets - padding) if any(padding) else stencil), coords
    whole = coords.shape is None or not any(n % s for n, s in zip(coords.shape, stride, strict=True))
    window = stencil.kernel_size == stride and not stencil.low.any() and (stencil.high < stride).all()
    if whole and not any(padding) and window:
        return strided(coords, stencil, stride, padding)  # its windows are the floor cells

    def build() -> Child:
        out = derive(coords, ("floor", stride), lambda: _floor_cells(coords._sites, stride))
        rulebook = between(coords._sites, out, stencil, stride, padding)
        # The levels of other kernels have these sites too, and share what is derived, but no children and
        # no copies on another backend, which know the kernel.
        out = replace(out, children=Kept(), moved={})
        return Child(out, rulebook, stencil.kernel_size, _remake_floored, (stencil.offsets, stride, padding))

    return derive_child(coords, ("floor", stencil.key, stride, padding), build)


def transposed_rulebook(
    coords: Coords,
    offsets: ArrayLike,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
) -> tuple[Rulebook, Coords]:
    """Return the rulebook of a transposed convolution, which generates sites, and those sites.

    Input site c and output site u are a pair of offset k if ``u == c * stride - padding + offsets[k]``.
    On a grid with a shape n, outputs lie in
    ``[0, (n - 1) * stride - 2 * padding + max(offsets) + output_padding + 1)``.

    Parameters
    ----------
    coords : Coords
    offsets : array_like of shape (K, D), any integer dtype
    stride, padding, output_padding : int or sequence of D ints
        Output padding makes the grid larger at its high end; it must be less than the stride (or than
        the window). On an unbounded grid it has no effect.

    Returns
    -------
    rulebook : Rulebook
    out_coords : Coords
        In ascending key order, a child level of `coords`. Both are cached on the coords.

    Raises
    ------
    ValueError
        If the padding leaves nothing of the output, or the output does not fit in int32.

    Examples
    --------
    >>> import spcy
    >>> rulebook, out_coords = spcy.transposed_rulebook(spcy.Coords([[0, 3]]), [[0], [1]], stride=2)
    >>> out_coords.indices[:, 1]
    array([6, 7], dtype=int32)
    """
    require_coords(coords, "coords")
    stencil = stencil_of(offsets, coords.ndim)
    stride = _check.per_axis(stride, coords.ndim, "stride", 1)
    padding = _check.per_axis(padding, coords.ndim, "padding", 0)
    output_padding = _check.per_axis(output_padding, coords.ndim, "output_padding", 0)
    return generative(coords, stencil, stride, padding, output_padding)


def generative(
    coords: Coords, stencil: Stencil, stride: Ints, padding: Ints, output_padding: Ints
) -> tuple[Rulebook, Coords]:
    """Return what `transposed_rulebook` does, for checked arguments.

    A negative output padding leaves out cells at the high end.
    """
    window = stencil.high - stencil.low + 1
    if any(o >= max(s, int(w)) for o, s, w in zip(output_padding, stride, window, strict=True)):
        raise ValueError(
            f"output_padding must be less than the stride or the window, got {output_padding} for stride "
            f"{stride} and a window of {window.tolist()} cells"
        )

    def build() -> Child:
        shape = None
        if coords.shape is not None:
            shape = tuple(
                (n - 1) * s - 2 * p + int(o) + extra + 1
                for n, s, p, o, extra in zip(
                    coords.shape, stride, padding, stencil.high, output_padding, strict=True
                )
            )
            if min(shape) < 1:
                raise ValueError(
                    f"padding must leave a cell of the output, got {padding}, for an output shape {shape}"
                )
            _check.out_shape(shape)
        made = _transposed_level(coords._sites, stencil, stride, padding, shape)
        arguments = stencil.offsets, stride, padding, output_padding
        return Child(*made, stencil.kernel_size, _remake_transposed, arguments)

    return derive_child(coords, ("transposed", stencil.key, stride, padding, output_padding), build)


def _remake_strided(parent: Coords, offsets: np.ndarray, stride: Ints, padding: Ints) -> Coords:
    return conv_rulebook(parent, offsets, stride=stride, padding=padding)[1]


def _remake_floored(parent: Coords, offsets: np.ndarray, stride: Ints, padding: Ints) -> Coords:
    return floored(parent, Stencil(offsets), stride, padding)[1]


def _remake_transposed(
    parent: Coords, offsets: np.ndarray, stride: Ints, padding: Ints, output_padding: Ints
) -> Coords:
    return generative(parent, Stencil(offsets), stride, padding, output_padding)[1]


def _strided_level(sites: Sites, stencil: Stencil, stride: Ints, padding: Ints, shape: Ints | None) -> Level:
    steps, pad = np.array((1, *stride)), np.array((0, *padding))
    # u = (c + padding - offset) / stride
    low = -((stencil.column_high - sites.low - pad) // steps)
    high = (sites.high + pad - stencil.column_low) // steps
    origin = sites.origin + sites.voxel_size * _low_corner(stencil, stride, padding)
    reach = stencil, stride, padding, True
    return _level(sites, reach, low, high, shape, origin, sites.voxel_size * np.array(stride))


def _transposed_level(
    sites: Sites, stencil: Stencil, stride: Ints, padding: Ints, shape: Ints | None
) -> Level:
    steps, pad = np.array((1, *stride)), np.array((0, *padding))
    low = sites.low * steps - pad + stencil.column_low
    high = sites.high * steps - pad + stencil.column_high
    voxel_size = sites.voxel_size / np.array(stride)
    origin = sites.origin - voxel_size * _low_corner(stencil, stride, padding)
    return _level(sites, (stencil, stride, padding, False), low, high, shape, origin, voxel_size)


def _level(
    sites: Sites,
    reach: tuple[Stencil, Ints, Ints, bool],
    low: np.ndarray,
    high: np.ndarray,
    shape: Ints | None,
    origin: np.ndarray,
    voxel_size: np.ndarray,
) -> Level:
    """Return the level that the sites reach, inside [low, high] and the shape, and the pairs."""
    if shape is not None:
        low = np.maximum(low, 0)
        high = np.minimum(high, (sites.high[0], *(n - 1 for n in shape)))
    if not sites.rows.num_rows or (low > high).any():
        low = high = np.zeros(len(low), np.int64)
    if low.min() < _check.INT32.min or high.max() > _check.INT32.max:
        raise ValueError(
            f"indices of the output must fit in int32, got up to {low[1:].tolist()} .. {high[1:].tolist()}"
        )
    layout = Layout(low, high)

    *pairs, keys, indices = kernels_for(sites.keys).builders.reached(
        sites.keys, sites.rows.order, sites.layout, layout, low, high, *reach
    )
    rows = RowOrder(len(indices))
    out = Sites(indices, shape, sites.batch_size, low, high, layout, keys, rows, origin, voxel_size)
    return out, _rulebook(sites.rows, rows, *pairs)


def _low_corner(stencil: Stencil, stride: Ints, padding: Ints) -> np.ndarray:
    """Return where coarse cell 0 begins, in fine cells: it is centred on the middle of its window."""
    middle = (stencil.low + stencil.high) / 2 - np.array(padding) + 0.5
    return middle - np.array(stride) / 2


def _neighbours(sites: Sites, stencil: Stencil) -> Rulebook:
    """Return the pairs with ``site(in) == site(out) + offset``."""
    layout = layout_for(sites, sites.low + stencil.column_low, sites.high + stencil.column_high)
    keys = keys_in(sites, layout)
    pairs = kernels_for(keys).builders.submanifold(keys, sites.rows.order, layout, stencil)
    return _rulebook(sites.rows, sites.rows, *pairs)


def _floor_cells(sites: Sites, stride: Ints) -> Sites:
    """Return ``floor(c / stride)`` of all sites, in key order: a cell spans `stride` of theirs."""
    steps = np.array((1, *stride))
    low, high = sites.low // steps, sites.high // steps
    shape = (
        None if sites.shape is None else tuple(-(-n // s) for n, s in zip(sites.shape, stride, strict=True))
    )
    layout = Layout(low, high)
    keys = _keys_of((sites.indices[:, c].astype(np.int64) // steps[c] for c in range(len(steps))), layout)
    grid = shape, sites.batch_size, sites.origin, sites.voxel_size * np.array(stride)
    return sites_from_keys(group_keys(keys, layout.bits)[0], layout, low, high, *grid)


def between(sites: Sites, out: Sites, stencil: Stencil, stride: Ints, padding: Ints) -> Rulebook:
    """Return the pairs with ``site(in) == site(out) * stride - padding + offset`` of two sets of sites."""
    steps, pad = np.array((1, *stride)), np.array((0, *padding))
    low, high = out.low * steps - pad, out.high * steps - pad
    layout = layout_for(sites, low + stencil.column_low, high + stencil.column_high)
    order = out.rows.order
    indices = out.indices if order is None else out.indices[order]
    columns = (indices[:, c].astype(np.int64) * steps[c] - pad[c] for c in range(len(steps)))
    queries = _keys_of(columns, layout)
    keys = keys_in(sites, layout)
    pairs = kernels_for(keys).builders.gathered(keys, queries, sites.rows.order, order, layout, stencil)
    return _rulebook(sites.rows, out.rows, *pairs)


def reordered(rulebook: Rulebook, order: Sequence[int]) -> Rulebook:
    """Return a rulebook whose offset k is that of another's offset ``order[k]``."""
    xp, ptr = array_module(rulebook.in_rows), to_host(rulebook.offset_ptr)
    parts = [slice(*ptr[k : k + 2].tolist()) for k in order]
    in_rows, out_rows = (
        xp.concatenate([rows[part] for part in parts]) for rows in (rulebook.in_rows, rulebook.out_rows)
    )
    offset_ptr = np.cumsum([0, *np.diff(ptr)[list(order)].tolist()])
    return _rulebook(rulebook._in, rulebook._out, in_rows, out_rows, xp.asarray(offset_ptr))


def _keys_of(columns: Iterable[np.ndarray], layout: Layout) -> np.ndarray:
    """Return the keys of coordinates that come by column, int64."""
    return sum(
        (column - low) << shift for column, low, shift in zip(columns, layout.low, layout.shift, strict=True)
    ).astype(np.uint64)


def _rulebook(
    in_order: RowOrder,
    out_order: RowOrder,
    in_rows: np.ndarray,
    out_rows: np.ndarray,
    offset_ptr: np.ndarray,
) -> Rulebook:
    freeze(in_rows, out_rows, offset_ptr)
    return Rulebook(in_rows, out_rows, offset_ptr, in_order, out_order)
