"""The documentation of spcy.torch: everything public is in it, and its examples run."""

import doctest
import importlib
import re
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
import spcy.torch  # noqa: E402
import spcy.torch.minkowski  # noqa: E402
import spcy.torch.spconv  # noqa: E402
import spcy.torch.torchsparse  # noqa: E402

pytestmark = pytest.mark.torch
DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "api" / "torch.md").read_text()
MODULES = [
    "spcy.torch.tensor",
    "spcy.torch.minkowski.tensor",
    "spcy.torch.minkowski.utils.collation",
    "spcy.torch.minkowski.utils.quantization",
    *(f"spcy.torch.spconv.{name}" for name in ("conv", "core", "modules", "ops", "pool", "utils")),
    *(
        f"spcy.torch.torchsparse.{name}"
        for name in (
            "tensor",
            "operators",
            "v1",
            "nn.modules.conv",
            "nn.utils.kernel",
            "utils.collate",
            "utils.quantize",
        )
    ),
]
WITH_EXAMPLES = {
    "spcy.torch.tensor.SparseTensor",
    "spcy.torch.minkowski.tensor.SparseTensor",
    "spcy.torch.minkowski.tensor.TensorField",
    "spcy.torch.minkowski.utils.collation.batched_coordinates",
    "spcy.torch.minkowski.utils.quantization.sparse_quantize",
    "spcy.torch.spconv.core.SparseConvTensor",
    "spcy.torch.spconv.modules.SparseSequential",
    "spcy.torch.spconv.utils.PointToVoxel",
    "spcy.torch.torchsparse.tensor.SparseTensor",
    "spcy.torch.torchsparse.nn.modules.conv.Conv3d",
    "spcy.torch.torchsparse.v1.SparseTensor",
}


def sections():
    """What the page lists of each module."""
    for part in PAGE.split(".. currentmodule:: ")[1:]:
        listed = set(re.findall(r"^   ([\w.]+)$", part, re.M)) | set(
            re.findall(r"`(\w+[1-4]d|Minkowski\w+)`", part)
        )
        spelled = {f"{kind}{n}d" for kind in re.findall(r"`(\w+)1d` \.\.", part) for n in range(1, 5)}
        yield importlib.import_module(part.split()[0]), listed, spelled


def test_the_reference_lists_what_is_public():
    modules = []
    for module, listed, spelled in sections():
        modules.append(module)
        parts = {name for name in module.__all__ if isinstance(getattr(module, name), type(sys))}
        assert {*module.__all__} - parts <= listed | spelled
        for name in listed:
            item = module.utils if name.startswith("Point2Voxel") else module
            for part in name.split("."):
                item = getattr(item, part)
            assert item.__doc__
    assert modules == [spcy.torch, spcy.torch.spconv, spcy.torch.minkowski, spcy.torch.torchsparse]


def test_examples_run():
    """Those of `install` run where it may: test_torch_install."""
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    found = [t for m in MODULES for t in finder.find(importlib.import_module(m)) if t.examples]
    assert {test.name for test in found} >= WITH_EXAMPLES
    for test in found:
        assert not runner.run(test).failed, test.name


@pytest.mark.parametrize("name", spcy.torch.__all__)
def test_functions_have_the_arguments_of_spcys(name):
    import inspect

    theirs = spcy.SparseTensor.to_dense if name == "to_dense" else getattr(spcy, name, None)
    if name in ("install", "SparseTensor", "Voxels"):
        return
    mine = [*inspect.signature(getattr(spcy.torch, name)).parameters.values()]
    for a, b in zip(mine, inspect.signature(theirs).parameters.values(), strict=True):
        assert (a.kind, a.default) == (b.kind, b.default)
        assert a.name == b.name or (a.name, b.name) == ("x", "self")
