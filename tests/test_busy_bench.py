"""The benchmark of busy cores, with tiny runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "asv_bench" / "busy.py"


def busy(*arguments):
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.thorough
def test_every_row_is_there(tmp_path):
    out = busy("--runs", 1, "--seconds", 0, "--against", sys.executable, "--json", tmp_path / "found.json")
    assert out.returncode == 0, out.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    variants = {"1 thread", "2 threads", "2, the other"}
    rows = {tuple(row[:3]) for row in found["times"]}
    assert rows == {(j, n, v) for j in ("network", "convolution") for n in (0, 1, 2) for v in variants}
    assert all(0 < row[3] <= row[5] for row in found["times"])
    assert {row[0] for row in found["beside"]} == variants
    assert all(row[2] > 0 for row in found["beside"])
    assert len(out.stdout.splitlines()) == 1 + len(found["times"]) + len(found["beside"])


def test_a_scan_that_is_not_there():
    out = busy("--scan", "nowhere.bin")
    assert out.returncode == 2
    assert "no file nowhere.bin" in out.stderr
