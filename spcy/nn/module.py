"""What every layer is: parameters and other modules as attributes, a forward, a vjp."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .. import _check
from .._backend import (
    Backend,
    array_module,
    as_array,
    backend_of,
    is_bfloat16,
    move,
    require,
    to_host,
)
from .._once import update
from .._width import widened
from ..pointwise import Activation, activate, activation_gradient
from ..tensor import SparseTensor, require_tensor

Vjp = Callable[[Any], tuple[Any, ...]]
Forward = TypeVar("Forward", bound=Callable[..., Any])

# `summary`'s, see there.
watcher: ContextVar[Callable[..., Any] | None] = ContextVar("spcy_nn_watcher", default=None)


class Buffer:
    """An array that a module keeps and does not train, as a running mean is.

    Parameters
    ----------
    data : array_like

    Attributes
    ----------
    data : ndarray
        Replace it; do not write into it.
    """

    __slots__ = ("data",)

    def __init__(self, data: ArrayLike):
        self.data: np.ndarray = as_array(data, "data")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.data.shape}, {self.data.dtype})"


class Parameter(Buffer):
    """An array that a module trains.

    Parameters
    ----------
    data : array_like

    Attributes
    ----------
    data : ndarray
        Replace it; do not write into it: a network that was run may still need the old one.
    grad : ndarray or None
        What the vjps since `Module.zero_grad` have added up.
    """

    __slots__ = ("grad",)

    def __init__(self, data: ArrayLike):
        super().__init__(data)
        self.grad: np.ndarray | None = None

    def accumulate(self, grad: np.ndarray) -> None:
        """Add to the gradient.

        Parameters
        ----------
        grad : ndarray
            Of the data's shape.
        """
        grad = grad.astype(self.data.dtype, copy=False)
        update(self, "grad", lambda old: grad if old is None else old + grad)


class LoadReport(NamedTuple):
    """What a lenient `Module.load_state_dict` passed over.

    Attributes
    ----------
    missing, unexpected : list of str
        Names of the module that the state lacks, and of the state that the module lacks.
    """

    missing: list[str]
    unexpected: list[str]


class Module:
    """A layer, or a network of them.

    Attributes that are a `Parameter`, a `Buffer`, a Module, or a list of Modules are found by
    themselves, in the order of assignment, and give the names in `state_dict`. A subclass writes
    ``forward``; to be trained it is built of `Sequential`, `Residual` and `Concat`, or writes ``vjp``
    from its layers' own. A subclass of a layer with another ``forward`` does not have the layer's vjp.

    Attributes
    ----------
    training : bool
        Whether `train` (as at first) or `eval` was called last.

    Examples
    --------
    >>> import numpy as np, spcy
    >>> class Net(spcy.nn.Module):
    ...     def __init__(self):
    ...         self.conv1 = spcy.nn.SubMConv(1, 8, 3, ndim=2, rng=0)
    ...         self.head = spcy.nn.Linear(8, 2, rng=1)
    ...
    ...     def forward(self, x):
    ...         return self.head(self.conv1(x))
    >>> net = Net().eval()
    >>> list(net.parameters())
    ['conv1.weight', 'conv1.bias', 'head.weight', 'head.bias']
    >>> net(spcy.SparseTensor([[0, 4, 4], [0, 4, 5]], np.ones((2, 1), np.float32))).num_channels
    2
    """

    training = True

    def __init_subclass__(cls, **options: Any) -> None:
        """Take from a class that has another ``forward`` the vjp that it does not belong to."""
        super().__init_subclass__(**options)
        owner = {
            method: next(place for place, kind in enumerate(cls.__mro__) if method in vars(kind))
            for method in ("forward", "vjp")
        }
        if owner["forward"] < owner["vjp"]:
            cls.vjp = Module.vjp  # type: ignore[method-assign]  # which says that there is none

    def forward(self, x: Any) -> Any:
        """Return the module's output.

        Parameters
        ----------
        x : SparseTensor, or ndarray after a global pool

        Returns
        -------
        SparseTensor or ndarray
        """
        raise NotImplementedError(f"{type(self).__name__} must have a method forward(self, x)")

    def vjp(self, x: Any) -> tuple[Any, Vjp]:
        """Return the module's output, and what turns a gradient of it into one of x's features.

        Parameters
        ----------
        x : SparseTensor, or ndarray after a global pool

        Returns
        -------
        y : SparseTensor or ndarray
        vjp : callable
            ``vjp(dy)``, for dy like y's features, returns ``(dfeatures,)`` and adds to the ``grad`` of
            the module's parameters.
        """
        raise TypeError(
            f"{type(self).__name__} has no vjp: build it of Sequential, Residual and Concat, or write "
            f"vjp(self, x) from the vjps of its layers"
        )

    def __call__(self, x: Any) -> Any:
        """Return ``forward(x)``."""
        return self._call(x)

    def _call(self, x: Any, *after: Any) -> Any:
        """Run, with what comes after it; `summary` may watch."""
        watch = watcher.get()
        return self._run_unwatched(x, *after) if watch is None else watch(self, x, *after)

    def _run_unwatched(self, x: Any, *after: Any) -> Any:
        """Run by ``_run`` where it is what ``forward`` does, else by the ``forward`` of a subclass."""
        return self._run(x, *after) if fuses(self) else Module._run(self, x, *after)

    def _run(self, x: Any, residual: Any = None, activation: Activation | None = None) -> Any:
        """Run, add a residual, activate; a convolution does both as it writes its output."""
        return finish(self.forward(x), residual, activation)

    def _own(self, kind: type) -> Iterator[tuple[str, Any]]:
        """Yield (name, value) of attributes of a kind, and of those in lists."""
        for name, value in vars(self).copy().items():  # another thread may fold a norm, or call eval
            if isinstance(value, kind):
                yield name, value
            elif isinstance(value, (list, tuple)):
                yield from ((f"{name}.{i}", item) for i, item in enumerate(value) if isinstance(item, kind))

    def children(self) -> dict[str, Module]:
        """Return the modules that are attributes of this one.

        Returns
        -------
        dict of str to Module
        """
        return dict(self._own(Module))

    def modules(self) -> dict[str, Module]:
        """Return this module, named "", and all below it.

        Returns
        -------
        dict of str to Module
            Names are joined with dots.
        """
        found = {"": self}
        for name, child in self.children().items():
            found |= {f"{name}.{below}".rstrip("."): module for below, module in child.modules().items()}
        return found

    def _arrays(self, kind: type) -> dict[str, Any]:
        """Return all arrays of a kind in the tree by name, each module's own first."""
        return {
            f"{path}.{name}".lstrip("."): value
            for path, module in self.modules().items()
            for name, value in sorted(module._own(kind), key=lambda item: not isinstance(item[1], Parameter))
        }

    def parameters(self) -> dict[str, Parameter]:
        """Return the parameters of the module and all below it, each once.

        Returns
        -------
        dict of str to Parameter
            By the names of `state_dict`.
        """
        first: dict[int, tuple[str, Parameter]] = {}
        for name, parameter in self._arrays(Parameter).items():
            first.setdefault(id(parameter), (name, parameter))
        return dict(first.values())

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters().values():
            parameter.grad = None

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the arrays that make the module what it is.

        Returns
        -------
        dict of str to ndarray
            Parameters and buffers under PyTorch's names: "conv1.weight", "0.bias", "1.running_mean".
            Training replaces arrays, so these stay as they are.
        """
        return {name: value.data for name, value in self._arrays(Buffer).items()}

    def load_state_dict(self, state: Mapping[str, ArrayLike], strict: bool = True) -> LoadReport:
        """Take over arrays, as `state_dict` names them.

        Parameters
        ----------
        state : mapping of str to array_like
            Copied to the dtype and the backend of what they replace. PyTorch's ``num_batches_tracked`` is
            passed over.
        strict : bool
            Whether missing and unexpected names are errors.

        Returns
        -------
        LoadReport
            Names missing and unexpected, both empty if `strict`.

        Raises
        ------
        ValueError
            That lists every name that is missing, unexpected, has another shape, holds something else than
            real numbers that its dtype can hold, or shares its array with a name of other values; nothing
            is changed then.
        """
        own = self._arrays(Buffer)
        _check.state_names(state)
        given = {name: array for name, array in state.items() if not _is_counter(name)}
        missing = [name for name in own if name not in given]
        unexpected = [name for name in given if name not in own]
        problems = [f"{name}: missing" for name in missing if strict]
        problems += [f"{name}: unexpected" for name in unexpected if strict]
        new: dict[int, tuple[str, Buffer, np.ndarray]] = {}
        for name, value in own.items():
            if name in given:
                try:
                    array = _fitted(given[name], value.data)
                    first, _, other = new.setdefault(id(value), (name, value, array))
                    if other is not array and not np.array_equal(
                        to_host(other), to_host(array), equal_nan=True
                    ):
                        raise ValueError(f"shares its array with {first}, got other values")
                except ValueError as error:
                    problems.append(f"{name}: {error}")
        if problems:
            raise ValueError(
                f"state must fit the module, got {len(problems)} names that do not:\n  "
                + "\n  ".join(problems)
            )
        for _, value, array in new.values():
            value.data = array
        return LoadReport(missing, unexpected)

    def train(self, mode: bool = True) -> Self:
        """Use and update the statistics of batches; drop out.

        Parameters
        ----------
        mode : bool
            False is `eval`.

        Returns
        -------
        Module
            Itself.
        """
        for module in self.modules().values():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Use running statistics, drop nothing.

        A `Sequential` now runs a convolution, the norm and the ReLU after it as one step, the norm
        folded into the weight; the layers' own arrays stay as they are, so `train` undoes it.

        Returns
        -------
        Module
            Itself.
        """
        return self.train(False)

    def astype(self, dtype: DTypeLike) -> Self:
        """Convert the module's arrays in place, and drop gradients.

        Parameters
        ----------
        dtype : {float32, float64, bfloat16, float16}
            Norms stay in float32 for those of 16 bits.

        Returns
        -------
        Module
            Itself.
        """
        dtype = _check.feature_dtype(dtype)
        for module in self.modules().values():
            for _, value in module._own(Buffer):
                value.data = value.data.astype(module._dtype_for(dtype))
        self.zero_grad()
        return self

    def to(self, backend: Backend) -> Self:
        """Move the module's arrays in place, and drop gradients.

        Parameters
        ----------
        backend : {"cpu", "cuda"}

        Returns
        -------
        Module
            Itself.

        Raises
        ------
        RuntimeError
            If `backend` is "cuda" and that backend cannot run here.
        """
        if not isinstance(backend, str):
            raise TypeError(f"backend must be 'cpu' or 'cuda', got {backend!r}; astype converts to a dtype")
        _check.choice(backend, ("cpu", "cuda"), "backend")
        require(backend)
        for value in self._arrays(Buffer).values():
            value.data = move(value.data, backend)
        self.zero_grad()
        return self

    def _dtype_for(self, dtype: np.dtype) -> np.dtype:
        """Return the dtype of this module's own arrays for features of a dtype."""
        return dtype

    def _say(self) -> str:
        """Return what stands between the brackets of the repr."""
        return ""

    def __repr__(self) -> str:
        """Return the tree as PyTorch prints it."""
        children = self.children()
        if not children:
            return f"{type(self).__name__}({self._say()})"
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in children.items()]
        return "\n  ".join([f"{type(self).__name__}(", *lines]) + "\n)"


def fused(forward: Forward) -> Forward:
    """Mark a ``forward`` that only calls ``_run``, which takes more with it."""
    forward.__dict__["_is_run"] = True
    return forward


def fuses(module: Module) -> bool:
    """Return whether a module's ``_run`` is what its ``forward`` does."""
    return getattr(module.forward, "_is_run", False)


class Pointwise(Module):
    """A module that maps features and keeps the sites; takes plain arrays too, as after a global pool."""

    @fused
    def forward(self, x: SparseTensor | np.ndarray) -> SparseTensor | np.ndarray:
        """Return the module's output."""
        return self._run(x)

    def _run(self, x: Any, residual: Any = None, activation: Activation | None = None) -> Any:
        return finish(like(x, self._map(features_of(x))), residual, activation)

    def vjp(self, x: SparseTensor | np.ndarray) -> tuple[SparseTensor | np.ndarray, Vjp]:
        """Return the module's output and its vjp."""
        return self._vjp(x)

    def _vjp(self, x: Any, *after: Any) -> tuple[Any, Vjp]:
        y, pull = self._map_vjp(features_of(x), *after)
        return like(x, y), lambda dy: (pull(_check.gradient(dy, y)),)

    def _map(self, features: np.ndarray) -> np.ndarray:
        return self._map_vjp(features)[0]

    def _map_vjp(
        self, features: np.ndarray, *after: Any
    ) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        raise NotImplementedError


class Activated(Pointwise):
    """A module that is an activation; `Sequential` hands it to the convolution before it."""

    def _activation(self) -> Activation:
        raise NotImplementedError

    def _map(self, features: np.ndarray) -> np.ndarray:
        return activate(features, self._activation())

    def _map_vjp(self, features: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        activation = self._activation()
        y = activate(features, activation)
        before = y if activation.reads_output else features
        return y, lambda dy: activation_gradient(before, dy, activation)


def features_of(x: SparseTensor | np.ndarray) -> np.ndarray:
    """Return the features of a tensor, or a (N, C) array itself."""
    if isinstance(x, SparseTensor):
        require_tensor(x, "x")
        return x.features
    array = as_array(x, "x")
    if array.ndim != 2:
        raise ValueError(f"x must be a SparseTensor or an array of shape (N, C), got shape {array.shape}")
    return _check.feature_values(array, "x")


def require_fit(layer: Module, features: np.ndarray, channels: int, dtype: np.dtype) -> None:
    """Refuse features of other channels or another dtype than a layer's, and say what to change."""
    if features.shape[1] != channels:
        raise ValueError(f"x must have {channels} channels for {layer!r}, got {features.shape[1]}")
    if features.dtype != dtype:
        raise TypeError(
            f"x must have dtype {dtype} for {layer!r}, got {features.dtype}: convert x, as by "
            f"x.map(lambda f: f.astype('{dtype}')), or the network, by its astype('{features.dtype}')"
        )


def like(x: SparseTensor | np.ndarray, features: np.ndarray) -> SparseTensor | np.ndarray:
    """Return features as what x is."""
    return x.replace(features) if isinstance(x, SparseTensor) else features


def finish(y: Any, residual: Any, activation: Activation | None) -> Any:
    """Return ``activation(y + residual)`` in passes of their own."""
    if residual is not None:
        y = y + residual
    return y if activation is None else like(y, activate(features_of(y), activation))


def _is_counter(name: str) -> bool:
    return name.split(".")[-1] == "num_batches_tracked"


def _fitted(given: ArrayLike, old: np.ndarray) -> np.ndarray:
    """Return a copy to take an array's place: of its shape and dtype, on its backend."""
    try:
        array: Any = given if backend_of(given) == "cuda" else np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"expected an array, got {type(given).__name__} ({str(error)[:80]})") from error
    if array.dtype.kind not in "biuf" and not is_bfloat16(array.dtype):
        raise ValueError(f"expected real numbers, got {array.dtype}")
    if array.shape != old.shape:
        raise ValueError(f"expected shape {old.shape}, got {array.shape}")
    array = move(array, backend_of(old))
    xp = array_module(array)
    with np.errstate(over="ignore"):
        new = xp.array(array, old.dtype, order="C")
    if not np.can_cast(array.dtype, old.dtype) and (xp.isinf(widened(new)) & ~xp.isinf(widened(array))).any():
        raise ValueError(f"expected numbers within {old.dtype}, got larger ones")
    return new


def wide_dtype(dtype: np.dtype) -> np.dtype:
    """Return the dtype that statistics of features have: float32 for those of 16 bits."""
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype
