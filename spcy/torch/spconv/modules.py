"""Containers, and layers on features that take sparse tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as _module

from .conv import SparseConvolution
from .core import SparseConvTensor
from .layer import SparseModule as SparseModule  # where spconv has it


def is_spconv_module(module: nn.Module) -> bool:
    """Return whether a module takes sparse tensors."""
    return isinstance(
        module, (SparseModule, SparseBatchNorm, SparseSyncBatchNorm, SparseReLU, SparseIdentity)
    )


def is_sparse_conv(module: nn.Module) -> bool:
    """Return whether a module is a sparse convolution."""
    return isinstance(module, SparseConvolution)


class SparseSequential(SparseModule):
    """Modules one after the other; those that are no `SparseModule` get the features.

    In eval mode, without gradients, a convolution, a batch norm and an activation that follow each other
    run as one call: outputs differ from those of the modules one by one by rounding. A hook on one of them
    keeps it a step of its own.

    Parameters
    ----------
    *args : torch.nn.Module, or one OrderedDict of them
        Named by their places, or by the keys.
    **kwargs : torch.nn.Module
        Named by the keywords.

    Examples
    --------
    >>> import torch
    >>> import spcy.torch.spconv as spconv
    >>> net = spconv.SparseSequential(
    ...     spconv.SubMConv2d(1, 8, 3, indice_key="a"), torch.nn.BatchNorm1d(8), torch.nn.ReLU()
    ... ).eval()
    >>> indices = torch.tensor([[0, 4, 4], [0, 4, 5]], dtype=torch.int32)
    >>> with torch.no_grad():
    ...     net(spconv.SparseConvTensor(torch.ones(2, 1), indices, [8, 8], 1)).features.shape
    torch.Size([2, 8])
    """

    def __init__(self, *args: nn.Module | OrderedDict[str, nn.Module], **kwargs: nn.Module):
        super().__init__()
        named: dict[str, Any]
        if len(args) == 1 and isinstance(args[0], OrderedDict):
            named = dict(args[0])
        else:
            named = {str(place): module for place, module in enumerate(args)}
        for name, module in (*named.items(), *kwargs.items()):
            if name in self._modules:
                raise ValueError(f"modules must have names of their own, got {name!r} twice")
            self.add_module(name, module)

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, idx: int) -> nn.Module:
        """Return the module in a place."""
        if not -len(self) <= idx < len(self):
            raise IndexError(f"idx must be in [{-len(self)}, {len(self)}), got {idx}")
        modules: list[Any] = list(self._modules.values())
        return modules[idx]

    def add(self, module: nn.Module, name: str | None = None) -> None:
        """Append a module."""
        name = str(len(self._modules)) if name is None else name
        if name in self._modules:
            raise KeyError(f"name must be a new one, got {name!r}")
        self.add_module(name, module)

    def forward(self, input: Any) -> Any:
        """Return the last module's output."""
        modules: list[Any] = list(self._modules.values())
        fuses = not torch.is_grad_enabled() and isinstance(input, SparseConvTensor)
        place = 0
        while place < len(modules):
            module = modules[place]
            place += 1
            norm = activation = None
            if fuses and isinstance(input, SparseConvTensor) and _runs_plainly(module, _fuses):
                fits = partial(_folds, channels=module.out_channels)
                if place < len(modules) and _runs_plainly(modules[place], fits):
                    norm = modules[place]
                    place += 1
                if place < len(modules) and _runs_plainly(modules[place], _is_activation):
                    activation = _ACTIVATIONS[type(modules[place])](modules[place])
                    place += 1
            if norm is not None or activation is not None:
                input = module.run_fused(input, norm, activation)
            elif is_spconv_module(module) or not isinstance(input, SparseConvTensor):
                input = module(input)
            elif len(input.features):
                input = input.replace_feature(module(input.features))
        return input


def _runs_plainly(module: nn.Module, kind: Callable[[nn.Module], bool]) -> bool:
    """Return whether a module is of a kind and does what that does: no hooks, and no forward of its own."""
    return (
        kind(module)
        and not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
        and not (_module._global_forward_hooks or _module._global_forward_pre_hooks)
        and _forward_is_known(type(module))
    )


def _forward_is_known(kind: type[nn.Module]) -> bool:
    return kind.forward in (SparseConvolution.forward, nn.BatchNorm1d.forward, SparseBatchNorm.forward) or (
        kind in _ACTIVATIONS
    )


def _fuses(module: nn.Module) -> bool:
    """Return whether a module is a convolution that has no activation of its own."""
    return isinstance(module, SparseConvolution) and module.act_type.name == "None_"


def _folds(module: nn.Module, channels: int) -> bool:
    """Return whether a norm of some channels does the same to every tensor: its statistics stand."""
    if not isinstance(module, nn.BatchNorm1d) or module.training or module.running_var is None:
        return False
    return module.num_features == channels  # another is left to say what is wrong


def _is_activation(module: nn.Module) -> bool:
    return type(module) in _ACTIVATIONS


def assign_name_for_sparse_modules(module: nn.Module) -> None:
    """Tell each sparse module inside of a module its name there."""
    for name, child in module.named_modules():
        if isinstance(child, SparseModule):
            child._sparse_unique_name = name


class _OnFeatures(nn.Module):
    """A layer of PyTorch that takes sparse tensors too."""

    def forward(self, input: Any) -> Any:
        """Return the layer's output."""
        if isinstance(input, SparseConvTensor):
            return input.replace_feature(super().forward(input.features))
        return super().forward(input)


class SparseBatchNorm(_OnFeatures, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` that takes sparse tensors too."""


class SparseSyncBatchNorm(_OnFeatures, nn.SyncBatchNorm):
    """`torch.nn.SyncBatchNorm` that takes sparse tensors too."""


class SparseReLU(_OnFeatures, nn.ReLU):
    """`torch.nn.ReLU` that takes sparse tensors too."""


class SparseIdentity(_OnFeatures, nn.Identity):
    """`torch.nn.Identity` that takes sparse tensors too."""


class ToDense(SparseModule):
    """A sparse tensor as a dense one, channels first."""

    def forward(self, x: SparseConvTensor) -> torch.Tensor:
        """Return ``x.dense()``."""
        return x.dense()


class RemoveGrid(SparseModule):
    """Nothing: there is no grid to remove."""

    def forward(self, x: SparseConvTensor) -> SparseConvTensor:
        """Return the tensor."""
        x.grid = None
        return x


_ACTIVATIONS: dict[type, Callable[[Any], Any]] = {
    nn.ReLU: lambda module: "relu",
    SparseReLU: lambda module: "relu",
    nn.LeakyReLU: lambda module: ("leaky_relu", module.negative_slope),
    nn.GELU: lambda module: "gelu" if module.approximate == "none" else "gelu_tanh",
    nn.SiLU: lambda module: "silu",
}
