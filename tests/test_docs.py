"""The documentation names everything public, and nothing else."""

import re
from pathlib import Path

import pytest

import spcy

DOCS = Path(__file__).parents[1] / "docs"
LISTED = set(re.findall(r"^   ([\w.]+)$", (DOCS / "api" / "index.md").read_text(), re.M))


def public(module, prefix=""):
    for name in module.__all__:
        item = getattr(module, name)
        if hasattr(item, "__all__"):
            yield from public(item, f"{prefix}{name}.")
        elif callable(item):
            yield prefix + name


def test_the_reference_lists_what_is_public():
    assert set(public(spcy)) == LISTED


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_names_in_a_page_exist(page):
    for name in re.findall(r"`(?:spcy\.)?(nn\.\w+|models\.\w+)", page.read_text()):
        item = spcy
        for part in name.split("."):
            item = getattr(item, part)
