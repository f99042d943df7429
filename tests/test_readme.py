"""The examples of the README and of the pages that it leads to run, and say what they say."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch_files

import spcy

README = Path(__file__).parents[1] / "README.md"
DOCS = README.parent / "docs"
PAGES = [
    README,
    *(DOCS / f"{name}.md" for name in ("index", "overview", "networks", "weights", "how_it_works")),
]
FOUND = [
    (page, block)
    for page in PAGES
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
]
BLOCKS = [block for page, block in FOUND if page == README]
IMAGES = [
    page.parent / image for page in PAGES for image in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text())
]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The files that the examples read, in the folder where they run."""
    net = spcy.models.VoxelBackBone8x(4, rng=0)
    state = {name: np.moveaxis(a, -1, 0) if a.ndim > 1 else a for name, a in net.state_dict().items()}
    detector = {f"backbone_3d.{name}": array for name, array in state.items()}
    torch_files.save(tmp_path / "detector.pth", {"epoch": 80, "model_state": detector})
    scan = np.random.default_rng(0).uniform([0, -40, -3, 0], [70, 40, 1, 1], (500, 4))
    scan.astype(np.float32).tofile(tmp_path / "scan.bin")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("page", "block"), FOUND, ids=lambda a: getattr(a, "stem", None))
def test_example_runs(page, block, capsys, tmp_path, monkeypatch):
    if "import torch" in block:
        pytest.importorskip("torch", reason="PyTorch is not installed here")
    monkeypatch.chdir(tmp_path)  # one writes a file
    exec(compile(block, str(page), "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    for said in re.findall(r"print\(error\)\s+# (.*)", block):
        assert said in printed


def test_there_are_examples():
    assert len(BLOCKS) == 2
    assert len(BLOCKS[0].splitlines()) <= 15
    assert len(FOUND) >= 7


def test_it_is_short_and_its_links_lead_somewhere():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert len(links) > 10
    assert [link for link in links if not (README.parent / link).exists()] == []


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.stem)
def test_image_is_there(image):
    assert image.stat().st_size > 1000


def test_quick_start_is_two_commands():
    commands = re.findall(r"^```sh\n(.*?)^```", README.read_text(), re.M | re.S)[:2]
    assert [len(command.splitlines()) for command in commands] == [1, 1]
    assert "spcy demo" in commands[0]
    assert "pytest" in commands[1]
