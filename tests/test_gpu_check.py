"""tools/gpu_check.sh on the emulated machine: each stage, one that is broken, one that is cut."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cuda_on_cpu
import pytest

ROOT = Path(__file__).parents[1]
STAGES = ["build", "smoke", "speed", "tests", "sanitize", "profile", "cpu"]
pytestmark = [
    pytest.mark.skipif(bool(cuda_on_cpu.available()), reason=str(cuda_on_cpu.available())),
    pytest.mark.skipif(not (ROOT / "tools").exists(), reason="the tests run away from a checkout"),
]
STAND_IN = """
import sys
sys.path.append({tests!r})
import spcy, cuda_on_cpu.cupy
sys.modules["cupy"] = cuda_on_cpu.cupy
"""


@pytest.fixture
def check(tmp_path):
    """Run the script on a copy of the tools, where `import cupy` gives the stand-in."""
    root, modules = tmp_path / "root", tmp_path / "modules"
    root.mkdir()
    modules.mkdir()
    shutil.copytree(ROOT / "tools", root / "tools")
    for name in ("asv_bench", "src", "spcy", "tests", "pyproject.toml"):
        (root / name).symlink_to(ROOT / name)
    (modules / "cupy.py").write_text(STAND_IN.format(tests=str(ROOT / "tests")))
    tools = Path(sys.executable).parent
    environment = dict(os.environ, PYTHON=sys.executable, SPCY_SITE=str(ROOT), SPCY_CHECK_TINY="1")
    environment |= {"PYTHONPATH": str(modules), "PATH": f"{tools}:/usr/bin:/bin"}

    def run(*stages):
        script = [str(root / "tools" / "gpu_check.sh"), "-o", str(tmp_path / "out"), *stages]
        done = subprocess.run(["bash", *script], capture_output=True, text=True, env=environment, check=False)
        file = tmp_path / "out" / "results.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return done.returncode, done.stdout, rows

    run.tools = root / "tools"
    return run


def ends(rows):
    """Return the status of each stage that ended."""
    return {row["stage"]: row["status"] for row in rows if row.get("event") == "end"}


def replace(path, pattern, text):
    """Change a file of the copied tools."""
    before = path.read_text()
    after = re.sub(pattern, text, before, count=1)
    assert after != before
    path.write_text(after)


@pytest.mark.thorough
def test_every_stage(check, tmp_path):
    status, printed, rows = check()
    assert status == 0, printed
    assert ends(rows) == dict.fromkeys(STAGES, 0)
    assert not [row for row in rows if row.get("failure") or "failed" in row]
    smoke = {row["case"]: row["difference"] for row in rows if row["stage"] == "smoke" and "case" in row}
    assert len(smoke) > 25
    assert smoke["rulebooks float32"] == 0
    assert {row["stage"] for row in rows if "work" in row} == {"cpu"}
    assert [row["counts"]["passed"] > 0 for row in rows if "counts" in row] == [True, True]
    assert "rulebook subm 1M" in (tmp_path / "out" / "speed.jsonl").read_text()
    table = printed[printed.rindex("build      status 0") :].splitlines()
    assert len(table) <= 60
    assert any(line.startswith("subm random 256 float16") for line in table)


def test_a_broken_stage_stops_no_other(check):
    (check.tools / "gpu_check" / "cpu.py").write_text("raise SystemExit('broken')")
    status, printed, rows = check("cpu", "sanitize")
    assert status == 1
    assert ends(rows) == {"cpu": 1, "sanitize": 0}
    assert "cpu: status 1" in printed


def test_wrong_results_are_named(check):
    replace(check.tools / "gpu_check" / "smoke.py", r'"float32": 1e-5', '"float32": 0')
    replace(check.tools / "gpu_check" / "smoke.py", r'default=""', 'default="subm 3 17 float32"')
    status, printed, rows = check("smoke")
    assert status == 1
    (row,) = [row for row in rows if "case" in row]
    assert "differs by" in row["failure"]
    assert "subm 3 17 float32 (conv_tiles" in printed


@pytest.mark.thorough
def test_a_stage_over_its_limit_keeps_its_lines(check):
    replace(check.tools / "gpu_check.sh", r"\[cpu\]=90", "[cpu]=5")
    cut = "for name in tasks:\n        time.sleep(1.5)"
    replace(check.tools / "gpu_check" / "cpu.py", r"for name in tasks:\n        ms", f"{cut}\n        ms")
    status, printed, rows = check("cpu", "profile")
    assert status == 1
    assert ends(rows) == {"cpu": 124, "profile": 0}
    assert 0 < len([row for row in rows if "work" in row]) < 4
    assert "cpu was cut" in printed


def test_stages_that_are_not_there(check):
    status, _, rows = check("everything")
    assert (status, rows) == (2, [])
