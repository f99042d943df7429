"""spcy under the names of the engines whose code runs on it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType

from .. import _check

Modules = dict[str, ModuleType]


def install(name: str = "spconv") -> None:
    """Put a module of `spcy.torch` under the name of the engine whose code runs on it.

    For code that imports that engine and cannot be edited. From then on these names are spcy's, in this
    process.

    Parameters
    ----------
    name : {"spconv", "MinkowskiEngine"}
        "spconv" puts `spcy.torch.spconv` under ``spconv``, ``spconv.pytorch``, .. and ``cumm``;
        "MinkowskiEngine" puts `spcy.torch.minkowski` under its name.

    Raises
    ------
    ValueError
        If `name` is another.
    RuntimeError
        If that engine is imported already; nothing is changed then.

    Examples
    --------
    >>> import spcy.torch
    >>> spcy.torch.install("spconv")
    >>> import spconv.pytorch as spconv
    >>> spconv.SubMConv3d.__module__
    'spcy.torch.spconv.conv'
    """
    modules = ENGINES[_check.choice(name, tuple(ENGINES), "name")]()
    tops = [each for each in modules if "." not in each]
    for each in tops:
        there = sys.modules.get(each)
        if there is not None and not getattr(there, "_is_spcy", False):
            where = getattr(there, "__file__", None)
            raise RuntimeError(
                f"{each} is imported already, from {where}: "
                f"call spcy.torch.install({name!r}) before anything imports it"
            )
    for each in tops:
        modules[each]._is_spcy = True
    sys.modules.update(modules)
    for each, module in modules.items():
        parent, _, child = each.rpartition(".")
        if parent in modules and not hasattr(modules[parent], child):  # MinkowskiEngine has classes so named
            setattr(modules[parent], child, module)


def _spconv() -> Modules:
    """Return the modules by the names that they get."""
    spconv = importlib.import_module("spcy.torch.spconv")
    top, cumm = _package("spconv"), _package("cumm")
    top.__version__ = spconv.__version__
    top.SPCONV_VERSION_NUMBERS = [int(n) for n in spconv.__version__.split(".")]
    top.ConvAlgo = spconv.ConvAlgo
    cumm.__version__ = "0"
    parts = "constants", "conv", "core", "functional", "identity", "modules", "ops", "pool", "tables", "utils"
    return {
        "spconv": top,
        "spconv.constants": spconv.constants,
        "spconv.core": spconv.core,
        "spconv.utils": spconv.utils,
        "spconv.pytorch": spconv,
        **{f"spconv.pytorch.{part}": getattr(spconv, part) for part in parts},
        "cumm": cumm,
        "cumm.tensorview": spconv.tensorview,
    }


def _minkowski() -> Modules:
    """Return the modules by the names that they get: those at the top are what its own code imports."""
    top = importlib.import_module("spcy.torch.minkowski")
    backend, common = _package("MinkowskiEngineBackend"), _package("MinkowskiCommon")
    for name in ("MinkowskiModuleBase", "convert_to_int_list", "convert_to_int_tensor"):
        setattr(common, name, getattr(top, name))
    own = {
        f"Minkowski{name}": importlib.import_module(f"{top.__name__}.{part}") for name, part in _PARTS.items()
    }
    own["MinkowskiCommon"] = common
    own["sparse_matrix_functions"] = importlib.import_module(f"{top.__name__}.spmm")
    inner = {"utils": top.utils, "modules": top.modules}
    for parent, parts in _INNER.items():
        for part in parts:
            inner[f"{parent}.{part}"] = importlib.import_module(f"{top.__name__}.{parent}.{part}")
    return {
        "MinkowskiEngine": top,
        **{f"MinkowskiEngine.{name}": module for name, module in (*own.items(), *inner.items())},
        **own,
        "MinkowskiEngineBackend": backend,
        "MinkowskiEngineBackend._C": top,
    }


_PARTS = {
    "Convolution": "conv",
    "ChannelwiseConvolution": "conv",
    "CoordinateManager": "manager",
    "KernelGenerator": "kernels",
    "Tensor": "tensor",
    "SparseTensor": "tensor",
    "TensorField": "tensor",
    "Pooling": "pool",
    "Broadcast": "pool",
    "Normalization": "norm",
    "Nonlinearity": "nonlinearity",
    "Functional": "functional",
    "Ops": "ops",
    "Pruning": "ops",
    "Union": "ops",
    "Interpolation": "ops",
    "Network": "network",
}
_INNER = {
    "utils": ("collation", "gradcheck", "init", "quantization", "summary"),
    "modules": ("resnet_block", "senet_block"),
}


def _package(name: str) -> ModuleType:
    module = ModuleType(name, f"{name}, as far as spcy has it.")
    module.__path__ = []
    return module


ENGINES: dict[str, Callable[[], Modules]] = {"spconv": _spconv, "MinkowskiEngine": _minkowski}
