"""A table of a network's layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import Module, ModuleList, Sequential

from ..tensor import Tensor


def summary(model: Module, summary_input: Tensor) -> tuple[int, int]:
    """Print a table of a network's layers, of what they give for an input and of their parameters.

    Parameters
    ----------
    model : torch.nn.Module
    summary_input : SparseTensor or TensorField

    Returns
    -------
    total_params, trainable_params : int
    """
    text, counts = minkowski_summary_string(model, summary_input)
    print(text)
    return counts


def minkowski_summary_string(model: Module, summary_input: Tensor) -> tuple[str, tuple[int, int]]:
    """Return the text of `summary`, and the numbers of parameters."""
    rows: list[tuple[str, Any, int]] = []
    bytes_out = counted = trainable = 0

    def hook(module: Module, _: Any, output: Any) -> None:
        nonlocal bytes_out, counted, trainable
        own = [
            p for name, p in module.named_parameters(recurse=False) if name in ("weight", "kernel", "bias")
        ]
        outputs = output if isinstance(output, (list, tuple)) else [output]
        shapes = [list(each.shape) for each in outputs]
        num = sum(p.numel() for p in own)
        rows.append(
            (f"{type(module).__name__}-{len(rows) + 1}", shapes if len(shapes) > 1 else shapes[0], num)
        )
        bytes_out += 4 * sum(math.prod(shape) for shape in shapes)
        counted += num
        trainable += sum(p.numel() for p in own if p.requires_grad)

    layers = [m for m in model.modules() if not isinstance(m, (Sequential, ModuleList))]
    hooks = [layer.register_forward_hook(hook) for layer in layers]
    try:
        with torch.no_grad():
            model(summary_input)
    finally:
        for each in hooks:
            each.remove()
    bytes_in = 4 * (summary_input.F.numel() + len(summary_input) * (1 + summary_input.D))
    rule, thick = "-" * 64, "=" * 64
    lines = [rule, f"{'Layer (type)':>20}  {'Output Shape':>25} {'Param #':>15}", thick]
    lines += [f"{name:>20}  {shape!s:>25} {num:>15,}" for name, shape, num in rows]
    lines += [thick, f"Total params: {counted:,}", f"Trainable params: {trainable:,}"]
    lines += [f"Non-trainable params: {counted - trainable:,}", rule]
    sizes = {
        "Input size (MB)": bytes_in,
        "Forward/backward pass size (MB)": 2 * bytes_out,
        "Params size (MB)": 4 * counted,
        "Estimated Total Size (MB)": bytes_in + 2 * bytes_out + 4 * counted,
    }
    lines += [f"{name}: {size / 2**20:.2f}" for name, size in sizes.items()]
    return "\n".join([*lines, rule, ""]), (counted, trainable)
