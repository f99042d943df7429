"""spcy under the names of spconv and cumm."""

from __future__ import annotations

import sys
from types import ModuleType


def install() -> None:
    """Put `spcy.torch.spconv` under the names ``spconv``, ``spconv.pytorch``, .. and ``cumm``.

    For code that imports spconv and cannot be edited. From then on these names are spcy's, in this process.

    Raises
    ------
    RuntimeError
        If spconv or cumm is imported already; nothing is changed then.

    Examples
    --------
    >>> import spcy.torch
    >>> spcy.torch.install()
    >>> import spconv.pytorch as spconv
    >>> spconv.SubMConv3d.__module__
    'spcy.torch.spconv.conv'
    """
    from . import spconv

    names = _modules(spconv)
    for name in ("spconv", "cumm"):
        there = sys.modules.get(name)
        if there is not None and not getattr(there, "_is_spcy", False):
            where = getattr(there, "__file__", None)
            raise RuntimeError(
                f"{name} is imported already, from {where}: "
                f"call spcy.torch.install() before anything imports it"
            )
    for name, module in names.items():
        sys.modules[name] = module
    for name, module in names.items():
        parent, _, child = name.rpartition(".")
        if parent in ("spconv", "cumm"):
            setattr(names[parent], child, module)


def _modules(spconv: ModuleType) -> dict[str, ModuleType]:
    """Return the modules by the names that they get."""
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


def _package(name: str) -> ModuleType:
    module = ModuleType(name, f"{name}, as far as spcy has it.")
    module.__path__ = []
    module._is_spcy = True
    return module
