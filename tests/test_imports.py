"""Modules import each other one way only."""

import ast
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

import spcy

ROOT = Path(spcy.__file__).parent


def modules():
    """Return the file of each module, by its name; compiled ones import nothing of spcy's."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join([ROOT.name, *path.relative_to(ROOT).with_suffix("").parts])
        found[name.removesuffix(".__init__")] = path
    return found


def imported(node, package):
    """Yield the names, of modules or of what is in them, that an import statement loads."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
        yield from (f"{base}.{alias.name}" for alias in node.names)


def imports(name, path, known):
    """Return the modules that one imports, also in functions and for types alone.

    A module comes with the packages around it; those around the one that imports are there already.
    """
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for target in imported(node, package):
            parts = target.split(".")
            around = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
            *packages, module = [outer for outer in around if outer in known] or [name]
            found.update((module, *(outer for outer in packages if not name.startswith(f"{outer}."))))
    return found - {name}


def test_imports_have_no_circles():
    known = modules()
    assert len(known) > 50
    graph = {name: imports(name, path, known) for name, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' <- '.join(error.args[1])}")
