"""Every public name is documented, and the examples in the docstrings run."""

import doctest
import inspect

import pytest

import spcy

PUBLIC = [name for name in spcy.__all__ if callable(getattr(spcy, name))]
FINDER, RUNNER = doctest.DocTestFinder(), doctest.DocTestRunner(verbose=False)


@pytest.mark.parametrize("name", PUBLIC)
def test_example_runs(name):
    item = getattr(spcy, name)
    tests = FINDER.find(item, name, module=inspect.getmodule(item))
    examples = sum(len(test.examples) for test in tests)
    assert examples or name == "Voxels", f"{name} has no example"
    for test in tests:
        assert RUNNER.run(test).failed == 0, f"see the output for {test.name}"


@pytest.mark.parametrize("name", PUBLIC)
def test_has_a_docstring_and_annotations(name):
    item = getattr(spcy, name)
    assert inspect.getdoc(item)
    if inspect.isfunction(item):
        signature = inspect.signature(item)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(p.annotation is not p.empty for p in signature.parameters.values())
