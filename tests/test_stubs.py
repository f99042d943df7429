"""The stubs of the compiled modules say what the modules have."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from spcy import _cpu

STAGES = sorted(_cpu.__all__)


def stub_of(stage):
    return ast.parse(Path(_cpu.__file__).with_name(f"{stage}.pyi").read_text(encoding="utf-8"))


def defined(body):
    """Return what a stub defines, by its public names."""
    found = {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    found |= {node.target.id: node for node in body if isinstance(node, ast.AnnAssign)}
    return {name: node for name, node in found.items() if not name.startswith("_")}


def has(namespace):
    """Return what a compiled module or class has, by its public names."""
    return {
        name: value
        for name, value in vars(namespace).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }


def require_same(stub, namespace):
    """Require the names of a stub to be those of what it describes, with the same arguments."""
    stubs, real = defined(stub), has(namespace)
    assert stubs.keys() == real.keys()
    for name, node in stubs.items():
        if isinstance(node, ast.ClassDef):
            require_same(node.body, real[name])
        elif isinstance(node, ast.AnnAssign):
            kind = {"int": int, "tuple[str, ...]": tuple}[ast.unparse(node.annotation)]
            assert isinstance(real[name], kind), name
        elif callable(real[name]):
            arguments = [argument.arg for argument in node.args.args]
            assert arguments == list(inspect.signature(real[name]).parameters), name


@pytest.mark.parametrize("stage", STAGES)
def test_stub_has_the_names_and_arguments_of_its_module(stage):
    require_same(stub_of(stage).body, importlib.import_module(f"spcy._cpu.{stage}"))


def test_every_compiled_module_has_a_stub():
    folder = Path(_cpu.__file__).parent
    assert {path.stem for path in folder.glob("*.pyi")} == {*STAGES}
