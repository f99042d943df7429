"""The README's examples run, and say what it says."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch_files

import spcy

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S)
IMAGES = re.findall(r"!\[.*?\]\((.*?)\)", README.read_text())


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
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{len(block.splitlines())} lines")
def test_example_runs(block, capsys, tmp_path, monkeypatch):
    if "import torch" in block:
        pytest.importorskip("torch", reason="PyTorch is not installed here")
    monkeypatch.chdir(tmp_path)  # one writes a file
    exec(compile(block, str(README), "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    for said in re.findall(r"print\(error\)\s+# (.*)", block):
        assert said in printed


def test_there_are_examples():
    assert len(BLOCKS) >= 2
    assert len(BLOCKS[0].splitlines()) <= 15


@pytest.mark.parametrize("image", IMAGES)
def test_image_is_there(image):
    assert (README.parent / image).stat().st_size > 1000


def test_quick_start_is_two_commands():
    commands = re.findall(r"^```sh\n(.*?)^```", README.read_text(), re.M | re.S)[:2]
    assert [len(command.splitlines()) for command in commands] == [1, 1]
    assert "spcy demo" in commands[0]
    assert "pytest" in commands[1]
