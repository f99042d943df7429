"""Sparse tensors: coordinates and features."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike

from . import _check, _html
from ._backend import (
    Backend,
    array_beside,
    array_module,
    as_array,
    backend_of,
    is_bfloat16,
    is_half,
    move,
    to_host,
)
from ._width import widened
from .coords import Coords, describe, html_of, require_same_grid, same_sites, unite
from .pointwise import ADD, MULTIPLY, combine
from .rows import inverse, join_rows, take_rows

Scalar = float | int | np.floating | np.integer
Rows = list[np.ndarray | None]  # of several tensors, where in a union their rows are; None: where they were


class OnSites:
    """Coords, and features by row in an array of any library: what its sparse tensors share."""

    __slots__ = ("_coords", "_features")

    _coords: Coords
    _features: Any

    @classmethod
    def _of(cls, coords: Coords, features: Any) -> Self:
        """Return a tensor of features that need no check."""
        tensor = cls.__new__(cls)
        tensor._coords, tensor._features = coords, features
        return tensor

    @property
    def coords(self) -> Coords:
        """The sites."""
        return self._coords

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Extent of the grid, None if unbounded."""
        return self._coords.shape

    @property
    def batch_size(self) -> int:
        """Number of batches."""
        return self._coords.batch_size

    @property
    def num_sites(self) -> int:
        """Number of sites, N."""
        return self._coords.num_sites

    @property
    def num_channels(self) -> int:
        """Number of channels, C."""
        return self._features.shape[1]


class SparseTensor(OnSites):
    """Features on the occupied sites of a grid.

    Parameters
    ----------
    coords : Coords or array_like of shape (N, 1 + D), integer
        The sites; an array becomes `Coords`.
    features : array_like of shape (N, C), float32, float64, float16 or bfloat16
        Row i belongs to row i of the coords. Kept as it is if it is C-contiguous and in native byte
        order, else copied.
    shape, batch_size
        As for `Coords`, when the coords are an array.

    Attributes
    ----------
    coords : Coords
    features : ndarray of shape (N, C)

    Raises
    ------
    TypeError, ValueError
        If coords or features are not as above.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> x = spcy.SparseTensor([[0, 2, 1], [0, 0, 3]], np.ones((2, 8), np.float32), shape=(4, 4))
    >>> x
    SparseTensor(2 sites, shape (4, 4), batch_size 1, density 12.5%, 8 channels, float32, cpu)
    >>> x.to_dense().shape
    (1, 4, 4, 8)
    """

    __slots__ = ()
    __array_ufunc__ = None  # NumPy arrays leave + and * to us, which refuse them

    def __init__(
        self,
        coords: Coords | ArrayLike,
        features: ArrayLike,
        *,
        shape: Sequence[int] | None = None,
        batch_size: int | None = None,
    ):
        if not isinstance(coords, Coords):
            coords = Coords(coords, shape, batch_size)
        elif shape is not None and _check.shape(shape, coords.ndim) != coords.shape:
            raise ValueError(f"shape must be that of coords, {coords.shape}, or left out, got {shape}")
        elif batch_size is not None and batch_size != coords.batch_size:
            raise ValueError(
                f"batch_size must be that of coords, {coords.batch_size}, or left out, got {batch_size}"
            )
        self._coords = coords
        self._features = _check.features(features, coords.num_sites, coords.backend)

    @classmethod
    def from_dense(cls, array: ArrayLike, channels_first: bool = False) -> SparseTensor:
        r"""Return the sites of a dense array where any channel is not zero.

        Parameters
        ----------
        array : array_like of shape (B, \*shape, C), or (B, C, \*shape) with `channels_first`
            float32, float64, float16 or bfloat16.
        channels_first : bool

        Returns
        -------
        SparseTensor
            In ascending key order. NaN is not zero.

        Raises
        ------
        ValueError
            If the array does not have 1 .. 4 spatial axes, or one of length 0.
        TypeError
            If its dtype is another.

        Examples
        --------
        >>> import numpy as np, spcy
        >>> spcy.SparseTensor.from_dense(np.eye(3, dtype=np.float32).reshape(1, 3, 3, 1)).num_sites
        3
        """
        dense = as_array(array, "array")
        _check_axes(dense.shape)
        xp = array_module(dense)
        occupied = _occupied_cells(dense, channels_first)
        if channels_first:
            dense = xp.moveaxis(dense, 1, -1)
        features = _check.feature_values(dense[occupied], "array")
        coords = Coords(xp.stack(occupied, axis=1), dense.shape[1:-1], dense.shape[0])
        return cls(coords, features)

    @classmethod
    def from_scipy(cls, array: Any) -> SparseTensor:
        """Return the entries of a matrix of `scipy.sparse` as sites with one channel.

        Parameters
        ----------
        array : scipy.sparse array or matrix of shape (rows, columns), float32 or float64
            Of any format. Each stored entry is a site, a stored zero too; entries of the same cell are
            summed, as SciPy does.

        Returns
        -------
        SparseTensor
            In ascending key order; one batch.

        Raises
        ------
        ImportError
            If SciPy is not installed.
        TypeError
            If it is no such matrix, or its dtype is another.
        ValueError
            If it does not have two axes, or one of length 0.

        Examples
        --------
        >>> import scipy.sparse, spcy
        >>> matrix = scipy.sparse.coo_array(([1.0, 2.0], ([0, 2], [1, 3])), shape=(3, 4))
        >>> spcy.SparseTensor.from_scipy(matrix).indices
        array([[0, 0, 1],
               [0, 2, 3]], dtype=int32)
        """
        if not _library("scipy.sparse", "from_scipy").issparse(array):
            raise TypeError(f"array must be a scipy.sparse array or matrix, got {type(array).__name__}")
        if array.ndim != 2 or min(array.shape) < 1:
            raise ValueError(f"array must have two axes, none of length 0, got shape {array.shape}")
        rows = array.tocsr(copy=True)  # ours to sort and sum
        rows.sum_duplicates()
        entries = rows.tocoo()
        indices = np.stack([np.zeros_like(entries.row), entries.row, entries.col], axis=1)
        features = _check.feature_values(entries.data[:, None], "array")
        return cls(indices, features, shape=array.shape, batch_size=1)

    @classmethod
    def from_coo(cls, array: Any) -> SparseTensor:
        r"""Return the sites of a `sparse.COO` array where any channel is stored.

        Parameters
        ----------
        array : sparse.COO of shape (B, \*shape, C), float32, float64, float16 or bfloat16
            Axes as in `from_dense`: the first the batch, the last the channels. A stored zero makes a
            site too.

        Returns
        -------
        SparseTensor
            In ascending key order; channels that are not stored are 0.

        Raises
        ------
        ImportError
            If sparse is not installed.
        TypeError
            If it is no `sparse.COO`, or its dtype is another.
        ValueError
            If it does not have 1 .. 4 spatial axes, or one of length 0, or its fill value is not 0.

        Examples
        --------
        >>> import numpy as np, spcy
        >>> x = spcy.SparseTensor([[0, 2, 1]], np.ones((1, 8), np.float32), shape=(4, 4))
        >>> spcy.SparseTensor.from_coo(x.to_coo())
        SparseTensor(1 sites, shape (4, 4), batch_size 1, density 6.25%, 8 channels, float32, cpu)
        """
        if not isinstance(array, _library("sparse", "from_coo").COO):
            raise TypeError(f"array must be a sparse.COO, got {type(array).__name__}")
        _check_axes(array.shape)
        if array.fill_value != 0:
            raise ValueError(f"array must have fill_value 0, got {array.fill_value}")
        *site, channel = array.coords  # sorted, each cell once
        values = _check.feature_values(array.data, "array")
        indices = np.stack(site, axis=1)
        first = np.ones(len(indices), bool)
        first[1:] = (indices[1:] != indices[:-1]).any(axis=1)
        features = np.zeros((np.count_nonzero(first), array.shape[-1]), values.dtype)
        features[np.cumsum(first) - 1, channel] = values
        return cls(indices[first], features, shape=array.shape[1:-1], batch_size=array.shape[0])

    @property
    def features(self) -> np.ndarray:
        """The features, a row for each site."""
        return self._features

    @property
    def indices(self) -> np.ndarray:
        """The sites, (N, 1 + D) int32."""
        return self._coords.indices

    @property
    def ndim(self) -> int:
        """Number of spatial axes, D."""
        return self._coords.ndim

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the features."""
        return self._features.dtype

    @property
    def backend(self) -> Backend:
        """Where the tensor lives."""
        return self._coords.backend

    def __repr__(self) -> str:
        words = f"{self.num_channels} channels, {self.dtype}, {self.backend}"
        return f"SparseTensor({describe(self._coords)}, {words})"

    def _repr_html_(self) -> str:
        facts, picture = html_of(self._coords)
        words = f"{self.num_sites:,} sites, {self.num_channels} channels, {self.dtype}, {self.backend}"
        parts = {"grid": facts, f"first rows, of {_size_of(self._features)} of features": _rows(self)}
        return _html.card("spcy.SparseTensor", words, parts, picture)

    def replace(self, features: ArrayLike) -> SparseTensor:
        """Return a tensor with the same coords and other features.

        Parameters
        ----------
        features : array_like of shape (N, any number of channels), float32, float64, float16 or bfloat16

        Returns
        -------
        SparseTensor
        """
        return SparseTensor(self._coords, features)

    def map(self, func: Callable[[np.ndarray], np.ndarray]) -> SparseTensor:
        """Return a tensor with ``func(features)``, which must keep the rows.

        Parameters
        ----------
        func : callable
            Takes and returns an array of features.

        Returns
        -------
        SparseTensor
            On the same coords.

        Examples
        --------
        >>> import numpy as np, spcy
        >>> x = spcy.SparseTensor([[0, 3]], np.array([[-1.0, 2.0]]))
        >>> x.map(lambda f: np.maximum(f, 0)).features
        array([[0., 2.]])
        """
        return self.replace(func(self._features))

    def to_dense(self, channels_first: bool = False) -> np.ndarray:
        r"""Return the dense array, zero where there is no site.

        Parameters
        ----------
        channels_first : bool

        Returns
        -------
        ndarray of shape (B, \*shape, C), or (B, C, \*shape) with `channels_first`

        Raises
        ------
        ValueError
            If the grid is unbounded.
        """
        cells = require_shape(self, "to_dense")
        xp = array_module(self._features)
        channels = (self.num_channels,)
        shape = (*channels, *cells) if channels_first else (*cells, *channels)
        dense = xp.zeros((self.batch_size, *shape), self.dtype)
        (xp.moveaxis(dense, 1, -1) if channels_first else dense)[tuple(self.indices.T)] = self._features
        return dense

    def to_scipy(self) -> Any:
        """Return a tensor of two axes, one batch and one channel as a matrix of `scipy.sparse`.

        Returns
        -------
        scipy.sparse.coo_array of shape `shape`
            An entry for each site, zeros too, in the order of the rows.

        Raises
        ------
        ImportError
            If SciPy is not installed.
        TypeError
            If the features are not float32 or float64, or on a GPU.
        ValueError
            If the tensor has other axes, several batches or channels, or no shape.

        Examples
        --------
        >>> import numpy as np, spcy
        >>> x = spcy.SparseTensor([[0, 2, 1], [0, 0, 3]], np.ones((2, 1)), shape=(4, 4))
        >>> x.to_scipy().tocsr().sum(axis=1)
        array([1., 0., 1., 0.])
        """
        coo_array = _library("scipy.sparse", "to_scipy").coo_array
        _require_host(self, "to_scipy")
        sizes = self.ndim, self.batch_size, self.num_channels
        if sizes != (2, 1, 1):
            raise ValueError(
                "to_scipy needs 2 axes, 1 batch and 1 channel, got {}, {} and {}; "
                "to_coo takes any number of each".format(*sizes)
            )
        shape = require_shape(self, "to_scipy")
        _, rows, columns = self.indices.T
        return coo_array((_check.floats(self._features[:, 0], "features"), (rows, columns)), shape)

    def to_coo(self) -> Any:
        r"""Return the tensor as a `sparse.COO` array.

        Returns
        -------
        sparse.COO of shape (B, \*shape, C)
            Every channel of every site is stored, zeros too, so that `from_coo` restores the sites.

        Raises
        ------
        ImportError
            If sparse is not installed.
        TypeError
            If the tensor is on a GPU.
        ValueError
            If the grid is unbounded.

        Examples
        --------
        >>> import numpy as np, spcy
        >>> x = spcy.SparseTensor([[0, 2, 1], [0, 0, 3]], np.ones((2, 8), np.float32), shape=(4, 4))
        >>> x.to_coo().shape, x.to_coo().nnz
        ((1, 4, 4, 8), 16)
        """
        coo = _library("sparse", "to_coo").COO
        _require_host(self, "to_coo")
        shape = self.batch_size, *require_shape(self, "to_coo"), self.num_channels
        coords = np.empty((len(shape), self.num_sites, self.num_channels), np.intp)
        coords[:-1] = self.indices.T[..., None]
        coords[-1] = np.arange(self.num_channels)
        return coo(coords.reshape(len(shape), -1), self._features.ravel(), shape, has_duplicates=False)

    def to(self, backend: Backend) -> SparseTensor:
        """Return the tensor on another backend, itself if it is there already.

        Parameters
        ----------
        backend : {"cpu", "cuda"}

        Returns
        -------
        SparseTensor
            On ``coords.to(backend)``: tensors that share coords share them there.

        Raises
        ------
        RuntimeError
            If `backend` is "cuda" and that backend cannot run here.
        """
        coords = self._coords.to(backend)
        return self if coords is self._coords else SparseTensor._of(coords, move(self._features, backend))

    def rows_of(self, indices: ArrayLike) -> np.ndarray:
        """Return the row of each (M, 1 + D) index, -1 where there is no site. See `Coords.rows_of`."""
        return self._coords.rows_of(indices)

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("a SparseTensor is no array: take x.features, or x.to_dense()")

    def __add__(self, other: SparseTensor | Scalar) -> SparseTensor:
        return self._combine(other, ADD, "+")

    def __mul__(self, other: SparseTensor | Scalar) -> SparseTensor:
        return self._combine(other, MULTIPLY, "*")

    __radd__ = __add__
    __rmul__ = __mul__

    def _combine(self, other: Any, operation: int, symbol: str) -> SparseTensor:
        if isinstance(other, SparseTensor):
            _require_same(self, other, f"operand of {symbol}")
            return self.replace(combine(operation, self._features, other._features))
        if _is_number(other):
            number = float(self.dtype.type(other))
            return self.replace(combine(operation, self._features, None, number))
        if isinstance(other, np.ndarray) or backend_of(other) == "cuda":
            raise TypeError(
                f"unsupported operand of {symbol}: a SparseTensor takes a SparseTensor or a number, got an "
                f"array; map and replace work on the features"
            )
        return NotImplemented


def add(x: SparseTensor, y: SparseTensor) -> SparseTensor:
    """Return the sum of two tensors over the union of their sites.

    Parameters
    ----------
    x, y : SparseTensor
        Of the same grid, channels and dtype. Where they have the same coords, ``x + y`` does the same.

    Returns
    -------
    SparseTensor
        On x's coords if y has the same, else on new ones in ascending key order.

    Raises
    ------
    ValueError
        If the grids or the numbers of channels differ.
    TypeError
        If the dtypes differ.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> x = spcy.SparseTensor([[0, 1], [0, 2]], np.ones((2, 1)))
    >>> y = spcy.SparseTensor([[0, 2], [0, 7]], np.ones((2, 1)))
    >>> spcy.add(x, y).features[:, 0]
    array([1., 2., 1.])
    """
    return add_over_union(x, y)[0]


def add_over_union(x: SparseTensor, y: SparseTensor) -> tuple[SparseTensor, Rows]:
    """Return the sum, and what has become of the rows of each."""
    _require_like(x, y)
    coords, rows = _union_of([x, y], ["x", "y"])
    rows_x, rows_y = rows
    if rows_x is None or rows_y is None:
        return x.replace(combine(ADD, x.features, y.features)), rows
    taken_x = take_rows(x.features, inverse(rows_x, len(coords)))
    taken_y = take_rows(y.features, inverse(rows_y, len(coords)))
    return SparseTensor(coords, combine(ADD, taken_x, taken_y)), rows


def _union_of(tensors: Sequence[SparseTensor], names: Sequence[str]) -> tuple[Coords, Rows]:
    first = tensors[0].coords
    if all(same_sites(t.coords, first) for t in tensors):
        return first, [None] * len(tensors)
    for tensor, name in zip(tensors, names, strict=True):
        require_same_grid(first, tensor.coords, names[0], name)
    coords, rows = unite([t.coords for t in tensors])
    return coords, [*rows]


def concat(tensors: Sequence[SparseTensor]) -> SparseTensor:
    """Return tensors joined along their channels, over the union of their sites.

    Parameters
    ----------
    tensors : sequence of SparseTensor
        At least one; of the same grid and dtype.

    Returns
    -------
    SparseTensor
        On the coords of the first if all have the same, else on new ones in ascending key order, with
        zeros where a tensor has no site.

    Raises
    ------
    ValueError
        If the grids differ.
    TypeError
        If the dtypes differ, or there is no tensor.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> x = spcy.SparseTensor([[0, 1], [0, 2]], np.ones((2, 3)))
    >>> spcy.concat([x, x * 2]).num_channels
    6
    >>> spcy.concat([x, spcy.SparseTensor([[0, 7]], np.ones((1, 1)))]).features
    array([[1., 1., 1., 0.],
           [1., 1., 1., 0.],
           [0., 0., 0., 1.]])
    """
    return concat_over_union(tensors)[0]


def concat_over_union(tensors: Sequence[SparseTensor]) -> tuple[SparseTensor, Rows]:
    """Return the joined tensors, and what has become of the rows of each."""
    tensors = [] if isinstance(tensors, SparseTensor) else list(tensors)
    if not tensors or not all(isinstance(t, SparseTensor) for t in tensors):
        raise TypeError("tensors must be a sequence of at least one SparseTensor")
    names = [f"tensors[{place}]" for place in range(len(tensors))]
    for tensor, name in zip(tensors, names, strict=True):
        _require_like(tensors[0], tensor, name, channels=False)
    coords, rows = _union_of(tensors, names)
    taken = [None if r is None else inverse(r, len(coords)) for r in rows]
    features = join_rows([t.features for t in tensors], taken, len(coords))
    return SparseTensor(coords, features), rows


def prune(x: SparseTensor, mask: ArrayLike) -> SparseTensor:
    """Return the tensor with only the sites where a mask is True.

    Parameters
    ----------
    x : SparseTensor
    mask : array_like of shape (N,), bool

    Returns
    -------
    SparseTensor
        On new coords, rows in their old order.

    Raises
    ------
    ValueError
        If the mask's shape is another.
    TypeError
        If its dtype is not bool.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> x = spcy.SparseTensor([[0, 1], [0, 2]], np.array([[0.5], [2.0]]))
    >>> spcy.prune(x, x.features[:, 0] > 1).indices
    array([[0, 2]], dtype=int32)
    """
    require_tensor(x, "x")
    mask = array_beside(mask, "mask", x.backend)
    if mask.dtype != np.bool_:
        raise TypeError(f"mask must have dtype bool, got {mask.dtype}")
    if mask.shape != (x.num_sites,):
        raise ValueError(f"mask must have shape ({x.num_sites},), one per site, got {mask.shape}")
    rows = array_module(mask).flatnonzero(mask)
    return SparseTensor(x.coords._select(rows), take_rows(x.features, rows.astype(np.int32)))


def require_tensor(value: Any, name: str) -> None:
    """Raise unless an argument is a `SparseTensor`."""
    if not isinstance(value, SparseTensor):
        raise TypeError(f"{name} must be a SparseTensor, got {type(value).__name__}")
    rows = value._features.shape[0]
    if rows != value._coords.num_sites:  # kernels would read beyond the last row
        expected = value._coords.num_sites
        raise ValueError(f"{name} must have {expected} rows of features, got {rows}: were they reshaped?")


def require_shape(x: OnSites, use: str) -> tuple[int, ...]:
    """Return the shape of a tensor; raise if its grid has none."""
    if x.shape is None:
        raise ValueError(
            f"{use} needs a shape, and this tensor's grid is unbounded: "
            f"SparseTensor(x.indices, x.features, shape=..) has one"
        )
    return x.shape


def _require_host(x: SparseTensor, use: str) -> None:
    if x.backend != "cpu":
        raise TypeError(f"{use} needs a tensor on the CPU, got one on {x.backend!r}: x.to('cpu') moves it")


def _check_axes(shape: tuple[int, ...]) -> None:
    """Raise unless an array has a batch axis, 1 .. 4 spatial ones and channels."""
    if not 3 <= len(shape) <= _check.MAX_NDIM + 2:
        raise ValueError(f"array must have shape (B, *shape, C) with 1 .. 4 spatial axes, got {shape}")
    if min(shape) < 1:
        raise ValueError(f"array must have no axis of length 0, got shape {shape}")


def _rows(x: SparseTensor, rows: int = 5, channels: int = 6) -> str:
    """Return a table of a tensor's first rows and channels."""
    indices, features = to_host(x.indices[:rows]), widened(to_host(x.features[:rows, :channels]))
    more = [".."] * (x.num_channels > channels)
    header = ["row", "batch", *(f"axis {axis}" for axis in range(x.ndim))]
    header += [*(f"[{channel}]" for channel in range(features.shape[1])), *more]
    numbers = ([f"{value:.4g}" for value in row] for row in features.tolist())
    lines = zip(indices.tolist(), numbers, strict=False)
    return _html.table(((row, *site, *values, *more) for row, (site, values) in enumerate(lines)), header)


def _size_of(array: np.ndarray) -> str:
    size = array.size * array.dtype.itemsize
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _library(name: str, use: str) -> ModuleType:
    """Return another library of sparse arrays."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        library = name.partition(".")[0]
        raise ImportError(f'{use} needs {library}: pip install "spcy[{library}]"') from error


def _occupied_cells(array: np.ndarray, channels_first: bool) -> tuple[np.ndarray, ...]:
    """Return the indices of the cells of a dense array where any channel is not zero."""
    xp = array_module(array)
    if channels_first:
        shape = [array.shape[0], *array.shape[2:]]
        found = _nonzero(array[:, 0])
        for channel in range(1, array.shape[1]):  # one array of a cell's size, not one of all channels
            found |= _nonzero(array[:, channel])
        cells = xp.flatnonzero(found)
    else:  # any(axis=-1) takes 20 ns a cell
        *shape, channels = array.shape
        cells = xp.flatnonzero(_nonzero(array)) // channels
        first = xp.ones(len(cells), bool)
        first[1:] = cells[1:] != cells[:-1]
        cells = cells[first]
    indices = []
    for length in reversed(shape):  # nonzero is ten times slower on many axes
        indices.append(cells % length)
        cells = cells // length
    return tuple(reversed(indices))


def _nonzero(array: np.ndarray) -> np.ndarray:
    if not is_half(array.dtype) or not array.dtype.isnative:
        return array != 0
    bits = array.view(np.uint16)  # as numbers they take five times as long to compare
    return (bits != 0) & (bits != 0x8000)


def _is_number(value: Any) -> bool:
    """Whether a value is a real number, of NumPy's or ml_dtypes' types too; bool is none."""
    if isinstance(value, np.generic) and is_bfloat16(value.dtype):
        return True
    return isinstance(value, Scalar) and not isinstance(value, bool)


def _require_same(x: SparseTensor, y: SparseTensor, name: str) -> None:
    if not same_sites(x.coords, y.coords):
        raise ValueError(
            f"{name} must have the same coords, got {describe(x.coords)} and {describe(y.coords)} with other "
            f"rows or grids; spcy.add(x, y) sums over the union of sites"
        )
    _require_like(x, y, name)


def _require_like(x: SparseTensor, y: SparseTensor, name: str = "y", channels: bool = True) -> None:
    require_tensor(x, "x")
    require_tensor(y, name)
    if x.dtype != y.dtype:
        raise TypeError(f"{name} must have dtype {x.dtype}, got {y.dtype}")
    if channels and x.num_channels != y.num_channels:
        raise ValueError(f"{name} must have {x.num_channels} channels, got {y.num_channels}")
