"""Modules on several sparse tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .core import SparseConvTensor, require_same_rows, require_sparse
from .functional import sparse_add
from .layer import SparseModule


class JoinTable(SparseModule):
    """Tensors on the same sites, their channels side by side."""

    def forward(self, input: Sequence[SparseConvTensor]) -> SparseConvTensor:
        """Return the joined tensor."""
        _require_same(input)
        return input[0].replace_feature(torch.cat([x.features for x in input], 1))


class AddTable(SparseModule):
    """The sum of tensors on the same sites."""

    def forward(self, input: Sequence[SparseConvTensor]) -> SparseConvTensor:
        """Return the sum."""
        _require_same(input)
        first, *others = input
        return first.replace_feature(sum((x.features for x in others), first.features))


class AddTableMisaligned(SparseModule):
    """The sum of tensors over the union of their sites."""

    def forward(self, input: Sequence[SparseConvTensor]) -> SparseConvTensor:
        """Return the sum, as `functional.sparse_add`."""
        return sparse_add(*input)


class ConcatTable(SparseModule):
    """Modules that all get the same input."""

    def forward(self, input: Any) -> list[Any]:
        """Return their outputs."""
        return [module(input) for module in self._modules.values() if module is not None]

    def add(self, module: torch.nn.Module) -> ConcatTable:
        """Append a module."""
        self.add_module(str(len(self._modules)), module)
        return self


def _require_same(tensors: Sequence[SparseConvTensor]) -> None:
    if not isinstance(tensors, Sequence) or not tensors:
        raise TypeError("input must be a sequence of at least one SparseConvTensor")
    require_sparse(tensors[0], "input[0]")
    for place, x in enumerate(tensors[1:], 1):
        require_same_rows(tensors[0], x, f"input[{place}]")
