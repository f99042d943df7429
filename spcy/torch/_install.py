"""spcy under the names of the engines whose code runs on it."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable
from types import ModuleType

from .. import _check

Modules = dict[str, ModuleType]


def install(name: str = "spconv", version: str | None = None) -> None:
    """Put a module of `spcy.torch` under the name of the engine whose code runs on it.

    For code that imports that engine and cannot be edited. From then on these names are spcy's, in this
    process. What MinkowskiEngine's own examples call and PyTorch took away since, the `next` of a
    `torch.utils.data.DataLoader`'s iterators, they have again.

    Parameters
    ----------
    name : {"spconv", "MinkowskiEngine", "torchsparse"}
        "spconv" puts `spcy.torch.spconv` under ``spconv``, ``spconv.pytorch``, .. and ``cumm``;
        "MinkowskiEngine" puts `spcy.torch.minkowski` under its name, and "torchsparse"
        `spcy.torch.torchsparse`.
    version : str, optional
        Of an engine whose versions differ for its users: "2.1", the default, or "1.4" of torchsparse.

    Raises
    ------
    ValueError
        If `name` is another, or the engine has no such version here.
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
    modules = _modules_of(_check.choice(name, tuple(ENGINES), "name"), version)
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
        there = getattr(modules.get(parent), child, module)
        if parent in modules and isinstance(there, ModuleType):  # MinkowskiEngine has classes so named
            setattr(modules[parent], child, module)


def _modules_of(name: str, version: str | None) -> Modules:
    """Return the modules of an engine, in a version of it, by the names that they get."""
    if version is None:
        return ENGINES[name]()
    versions = _VERSIONS.get(name, {})
    if not versions:
        raise ValueError(f"version must be left out for {name!r}, which has one, got {version!r}")
    return versions[_check.choice(version, tuple(versions), "version")]()


def _spconv() -> Modules:
    """Return the modules by the names that they get."""
    spconv = importlib.import_module("spcy.torch.spconv")
    top, cumm = _package("spconv"), _package("cumm")
    top.__version__ = spconv.__version__
    top.SPCONV_VERSION_NUMBERS = [int(n) for n in spconv.__version__.split(".")]
    top.ConvAlgo = spconv.ConvAlgo
    cumm.__version__ = "0"
    inner = (
        "constants",
        "conv",
        "core",
        "functional",
        "hash",
        "identity",
        "modules",
        "ops",
        "pool",
        "tables",
        "utils",
    )
    return {
        "spconv": top,
        "spconv.constants": spconv.constants,
        "spconv.cppconstants": spconv.constants,
        "spconv.core": spconv.core,
        "spconv.debug_utils": spconv.tools,
        "spconv.tools": spconv.tools,
        "spconv.utils": spconv.utils,
        "spconv.pytorch": spconv,
        **{f"spconv.pytorch.{part}": getattr(spconv, part) for part in inner},
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
    _give_loaders_next()
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


def _give_loaders_next() -> None:
    """Let ``iter(loader).next()`` be ``next(iter(loader))``, as it was in PyTorch until 1.12."""
    base = getattr(importlib.import_module("torch.utils.data.dataloader"), "_BaseDataLoaderIter", None)
    if base is not None and not hasattr(base, "next"):
        base.next = base.__next__


def _torchsparse() -> Modules:
    """Return the modules of 2.1 by the names that they get."""
    top = importlib.import_module("spcy.torch.torchsparse")
    modules = {"torchsparse": top}
    for _, path, _ in pkgutil.walk_packages(top.__path__, f"{top.__name__}."):
        modules[path.removeprefix("spcy.torch.")] = importlib.import_module(path)
    del modules["torchsparse.v1"]
    return modules


def _torchsparse_1_4() -> Modules:
    """Return copies of the modules of 2.1 with what is otherwise in 1.4."""
    old = importlib.import_module("spcy.torch.torchsparse.v1")
    modules = {}
    for name, module in _torchsparse().items():
        modules[name] = copy = ModuleType(name, module.__doc__)
        copy.__path__ = []
        replaced = {each: getattr(old, each) for each in old.__all__ if hasattr(module, each)}
        public = {each: value for each, value in vars(module).items() if not each.startswith("__")}
        copy.__dict__.update(public, **replaced, __all__=getattr(module, "__all__", [*public]))
    modules["torchsparse"].__version__ = "1.4.0"
    return modules


def _package(name: str) -> ModuleType:
    module = ModuleType(name, f"{name}, as far as spcy has it.")
    module.__path__ = []
    return module


ENGINES: dict[str, Callable[[], Modules]] = {
    "spconv": _spconv,
    "MinkowskiEngine": _minkowski,
    "torchsparse": _torchsparse,
}
_VERSIONS: dict[str, dict[str, Callable[[], Modules]]] = {
    "torchsparse": {"2.1": _torchsparse, "1.4": _torchsparse_1_4}
}
