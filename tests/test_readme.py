"""The README's examples run, and say what it says."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S)
IMAGES = re.findall(r"!\[.*?\]\((.*?)\)", README.read_text())


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{len(block.splitlines())} lines")
def test_example_runs(block, capsys, tmp_path, monkeypatch):
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
