"""Every public name is documented, and the examples in the docstrings run."""

import doctest
import inspect
from importlib.util import find_spec

import pytest

import spcy

PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in (spcy, spcy.models, spcy.nn, spcy.nn.optim)
    for name in module.__all__
    if callable(getattr(module, name))
}
WITHOUT_EXAMPLE = {
    "spcy.Voxels",
    "spcy.models.BackboneFeatures",
    "spcy.models.Network",
    "spcy.models.ScanSettings",
    "spcy.nn.Buffer",
    "spcy.nn.Parameter",
    "spcy.nn.LoadReport",
    "spcy.nn.LayerSummary",
    "spcy.nn.Summary",
}
NEEDS = {
    "spcy.SparseTensor.from_coo": "sparse",
    "spcy.SparseTensor.to_coo": "sparse",
}  # not in the extra "test"
FINDER, RUNNER = doctest.DocTestFinder(), doctest.DocTestRunner(verbose=False)


@pytest.mark.parametrize("name", PUBLIC)
def test_example_runs(name):
    item = PUBLIC[name]
    tests = FINDER.find(item, name, module=inspect.getmodule(item))
    examples = sum(len(test.examples) for test in tests)
    assert examples or name in WITHOUT_EXAMPLE, f"{name} has no example"
    for test in tests:
        if test.name in NEEDS and not find_spec(NEEDS[test.name]):
            continue
        assert RUNNER.run(test).failed == 0, f"see the output for {test.name}"


@pytest.mark.parametrize("name", PUBLIC)
def test_has_a_docstring_and_annotations(name):
    item = PUBLIC[name]
    assert inspect.getdoc(item)
    if inspect.isfunction(item):
        signature = inspect.signature(item)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(p.annotation is not p.empty for p in signature.parameters.values())
