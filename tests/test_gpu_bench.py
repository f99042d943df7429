"""The benchmark of GPUs runs on the emulated machine: every row is measured, and checked against float64."""

import json
import subprocess
import sys
from pathlib import Path

import cuda_on_cpu
import pytest

SCRIPT = Path(__file__).parents[1] / "asv_bench" / "gpu.py"
pytestmark = [
    pytest.mark.skipif(bool(cuda_on_cpu.available()), reason=str(cuda_on_cpu.available())),
    pytest.mark.skipif(not SCRIPT.exists(), reason="the tests run away from a checkout"),
]


def run(*arguments):
    """Return the script's exit status, what it printed, and what it said of errors."""
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.thorough
def test_every_row(tmp_path):
    file = tmp_path / "speed.jsonl"
    status, printed, errors = run("speed", "--tiny", "--out", file)
    assert (status, errors) == (0, "")
    first, *rows, last = map(json.loads, file.read_text().splitlines())
    assert (first["row"], last["row"]) == ("machine", "ceilings")
    assert len(rows) > 25
    for row in rows:
        assert "failure" not in row, row
        assert row["ms"] > 0
        assert row["peer_ms"] is None
        assert row["met"] is None or row["goal"].startswith("at most")
        assert row["row"] in printed


def test_rows_that_are_asked_for(tmp_path):
    file = tmp_path / "speed.jsonl"
    assert run("speed", "--tiny", "--out", file, "--only", "rulebook .* 13k")[0] == 0
    assert run("speed", "--tiny", "--out", file, "--only", "nothing")[0] == 0
    names = [json.loads(line)["row"] for line in file.read_text().splitlines()]
    wanted = [f"rulebook {kind} 13k" for kind in ("subm", "stride 2", "transposed")]
    assert names == ["machine", *wanted, "ceilings", "machine", "ceilings"]


def test_output_is_needed():
    status, _, errors = run("speed", "--tiny")
    assert status == 2
    assert "speed needs --out" in errors
