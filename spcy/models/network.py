"""What the networks share: how another library's state becomes theirs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from .. import _check
from .._backend import host_array, is_bfloat16
from ..layout import convert
from ..nn import BatchNorm, Linear, Module
from ..nn.conv import _Convolution
from ..nn.module import Buffer

_SPCONV = ("spconv1", "spconv2.0", "spconv2")
_NAMES = {"running_mean": "runningMean", "running_var": "runningVar"}  # ours and SparseConvNet's
_CHANNELS = {"spconv2.0": (-1, -2), "spconv2": (-1, 0)}  # axes of C_in and C_out where they are not (-2, -1)


def blank(arrays: float = math.inf, items: float = math.inf) -> np.random.Generator:
    """Return what a network that gets its weights from elsewhere is made with, as `rng`.

    It draws zeros, which take neither time nor memory until weights replace them. One that draws more
    arrays than that, or more items in all, is refused with a ValueError.
    """

    class Blank(np.random.Generator):  # made here: importing spcy does not load NumPy's generators
        def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
            nonlocal arrays, items
            arrays -= 1
            items -= math.prod(size)
            if arrays < 0 or items < 0:
                raise ValueError("its arguments are of a much larger network than its arrays")
            return np.zeros(size, np.float32)

    return Blank(np.random.PCG64(0))


class Composed(Module):
    """A module whose layers are attributes, and which says how they follow each other."""

    def _layers(self) -> Module:
        """Return the composition of the layers; making it costs little."""
        raise NotImplementedError

    def forward(self, x: Any) -> Any:
        """Return the module's output."""
        return self._layers()(x)

    def vjp(self, x: Any) -> tuple[Any, Any]:
        """Return the module's output and its vjp, as `spcy.nn.Module.vjp`."""
        return self._layers().vjp(x)


class Network(Module):
    """A network whose architecture and names are known from elsewhere.

    Attributes
    ----------
    sources : tuple of str
        The libraries whose weights it takes.
    zyx : bool
        Whether its axes are z, y, x, on the grid of a detector, instead of x, y, z.
    arguments : dict
        What it was made with: ``type(net)(**net.arguments)`` makes another one.
    """

    sources: ClassVar[tuple[str, ...]]
    zyx: ClassVar[bool] = False
    arguments: dict[str, Any]
    _stem: ClassVar[str]  # the layers whose weights say the channels of the input and the output
    _head: ClassVar[str | None] = None
    _head_linear: ClassVar[bool] = False
    _unused: ClassVar[tuple[str, ...]] = ()  # starts of names that a state may hold beside the network's

    @classmethod
    def from_state_dict(cls, state: Mapping[str, ArrayLike], source: str, **arguments: Any) -> Self:
        """Return the network with the weights of another library, ready for inference.

        Parameters
        ----------
        state : mapping of str to array_like
            The state of the original network, as `spcy.load_weights` reads it.
        source : str
            One of `sources`: whose layout the weights have, as for `spcy.convert_weight`. It is never
            guessed. ``"openpcdet"`` stands for that detector's checkpoints, which hold the layout of the
            spconv that wrote them: the one which all the shapes together leave. It takes the names
            under ``backbone_3d.``, if there are any, and leaves out the rest of the detector.
        **arguments
            Of the class. The channels of the input and the output are taken from the state if they are
            not given.

        Returns
        -------
        Network
            In float32, after `eval`.

        Raises
        ------
        ValueError
            If `source` is not one of `sources`, or that lists every name which is missing, unexpected or does
            not fit.
        """
        _check.choice(source, cls.sources, "source")
        _check.state_names(state)
        given = {name: host_array(array, name) for name, array in state.items()}
        layouts: tuple[str, ...] = (source,)
        if source == "openpcdet":
            layouts = _SPCONV
            inside = {
                n.removeprefix("backbone_3d."): a for n, a in given.items() if n.startswith("backbone_3d.")
            }
            given = inside or given
        fits = [cls._fit(given, layout, arguments) for layout in layouts]
        good = [fit for fit in fits if not fit[2]]
        if not good:
            problems = min((problems for _, _, problems in fits), key=len)
            others = [s for s in _SPCONV if source in _SPCONV and not cls._fit(given, s, arguments)[2]]
            hint = f" (with source={others[0]!r} they do)" if others else ""
            raise ValueError(
                f"state must fit {cls.__name__} with source={source!r}, got {len(problems)} names that do "
                f"not{hint}:\n  " + "\n  ".join(problems)
            )
        if len(good) > 1:
            raise ValueError(f"state has equal channels everywhere: choose a source of {', '.join(_SPCONV)}")
        net, converted, _ = good[0]
        net.load_state_dict(converted)
        return net.eval()

    @classmethod
    def _fit(
        cls, given: dict[str, np.ndarray], layout: str, arguments: dict[str, Any]
    ) -> tuple[Self, dict[str, np.ndarray], list[str]]:
        """Return a network, the arrays for it, and what does not fit."""
        net = cls(**{**cls._channels(given, layout), "rng": blank(), **arguments})
        converted, problems, used = {}, [], set()
        for name, theirs, module, value in _pairs(net, layout):
            used.add(theirs)
            if theirs not in given:
                problems.append(f"{theirs}: missing")
                continue
            try:
                converted[name] = _converted(given[theirs], theirs, module, value, layout)
            except ValueError as error:
                problems.append(str(error))
        for name in given:
            if (
                name not in used
                and not name.endswith("num_batches_tracked")
                and not name.startswith(cls._unused)
            ):
                problems.append(f"{name}: unexpected")
        return net, converted, problems

    @classmethod
    def _channels(cls, given: dict[str, np.ndarray], layout: str) -> dict[str, int]:
        """Return the channels of the input and the output by the shapes of the first and the last weight."""
        c_in, c_out = _CHANNELS.get(layout, (-2, -1))
        ends = {
            "in_channels": (cls._stem, c_in),
            "out_channels": (cls._head, 0 if cls._head_linear else c_out),
        }
        found = {}
        for argument, (path, axis) in ends.items():
            if path is not None:
                weight = "weight" if path == cls._head and cls._head_linear else _weight_name(layout)
                shape = given[f"{path}.{weight}"].shape if f"{path}.{weight}" in given else ()
                found[argument] = shape[axis] if len(shape) > 1 else 1  # else it is reported with the rest
        return found


def _weight_name(layout: str) -> str:
    return "kernel" if layout in ("minkowski", "torchsparse") else "weight"


def _pairs(net: Module, layout: str) -> Iterator[tuple[str, str, Module, Buffer]]:
    """Yield each array of a network: our name, the library's name, whose it is and itself."""
    for path, module in net.modules().items():
        for name, value in module._own(Buffer):
            theirs = name
            if isinstance(module, _Convolution) and name == "weight":
                theirs = _weight_name(layout)
            elif isinstance(module, BatchNorm) and layout == "minkowski":
                theirs = f"bn.{name}"
            elif layout == "sparseconvnet":
                theirs = _NAMES.get(name, name)
            yield f"{path}.{name}", f"{path}.{theirs}", module, value


def _converted(array: np.ndarray, name: str, module: Module, value: Buffer, layout: str) -> np.ndarray:
    """Return a library's array as one of a network's, or raise ValueError with their name."""
    if array.dtype.kind != "f" and not is_bfloat16(array.dtype):
        raise ValueError(f"{name}: expected floating-point numbers, got {array.dtype}")
    if name.endswith(".bias") and layout == "minkowski" and array.shape[:1] == (1,):
        array = array.reshape(-1)  # its biases have shape (1, C_out)
    elif isinstance(module, Linear) and array.ndim == 2:
        array = array.T
    elif isinstance(module, _Convolution) and array.ndim > 1:
        kernel_size = module.weight.data.shape[:-2]
        stride = module._geometry.get("stride", (1,) * len(kernel_size))
        array = convert(array, layout, kernel_size, stride, name)
    if array.shape != value.data.shape:
        axes = (
            " as (*kernel_size, C_in, C_out)" if isinstance(module, _Convolution) and array.ndim > 1 else ""
        )
        raise ValueError(f"{name}: expected shape {value.data.shape}{axes}, got {array.shape}")
    return array
