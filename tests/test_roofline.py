"""The benchmark of what stands around convolutions, with tiny runs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "asv_bench" / "roofline.py"


def roofline(*arguments):
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_operation_is_timed_on_every_number_of_threads(dtype):
    out = roofline("--points", 500, "--channels", 5, "--dtype", dtype, "--rounds", 1, "--seconds", 0)
    assert out.returncode == 0, out.stderr
    rows = [line.split("|")[1:-1] for line in out.stdout.splitlines() if line.startswith("| ")]
    heads = [i for i, row in enumerate(rows) if row[2].strip() == "ms"]
    assert [rows[i][0].strip() for i in heads] == ["1 thread", "2 threads"]
    first, second = rows[1 : heads[1]], rows[heads[1] + 1 :]
    assert [row[:2] for row in first] == [row[:2] for row in second]
    timed = {(name.strip(), side.strip()) for name, side, *_ in first}
    assert {("LayerNorm", "gradient"), ("voxelize", "gradient"), ("Coords, sorted", "forward")} <= timed
    times = np.array([row[2:4] for row in first + second], np.float64)
    assert np.isfinite(times).all()
    assert (times >= 0).all()  # so few points round to 0.0 floors at times


@pytest.mark.thorough
def test_only_what_is_named():
    arguments = "--points", 500, "--only", "pool", "--dtype", "float64", "--threads", 1, "--rounds", 1
    out = roofline(*arguments, "--seconds", 0)
    assert out.returncode == 0, out.stderr
    names = {line.split("|")[1].strip() for line in out.stdout.splitlines() if line.startswith("| ")}
    assert names - {"1 thread"} == {
        *(f"{kind} pool {window}" for kind in ("max", "avg") for window in ("2", "3, stride 2")),
        *("sum pool 2", "unpool", "global max pool", "global avg pool", "global sum pool"),
    }


def test_a_scan_that_is_not_there():
    out = roofline("--scan", "nowhere.bin")
    assert out.returncode == 2
    assert "no file nowhere.bin" in out.stderr
