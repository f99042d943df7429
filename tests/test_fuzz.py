"""tools/fuzz.py finds each kind of fault, and keeps what it was found with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.skipif(
        not (ROOT / "tools" / "fuzz.py").exists(), reason="the tests run away from a checkout"
    ),
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits what a process's memory is"),
]
PLANTED = """
import os, sys, time
sys.path.insert(0, {tools!r})
import fuzz

fuzz.PATIENCE = 2
seen = []

def read(path):
    seen.append(path)
    if len(seen) < 9 or not path.name.startswith("case"):  # the good file is read, and some cases
        return
    raise ValueError(f"{{path}}: refused") if {kind!r} == "none" else KINDS[{kind!r}](path)

KINDS = {{
    "crash": lambda path: os.abort(),
    "hang": lambda path: time.sleep(60),
    "exception": lambda path: {{}}["what is not there"],
    "memory": lambda path: bytearray(3 << 30),
    "nameless": lambda path: int("x"),
}}
fuzz.TARGETS["planted"] = fuzz.Target(lambda: {{"a.bin": b"0123456789" * 20}}, read)
fuzz.TARGETS["absent"] = fuzz.Target(lambda: __import__("a_package_that_is_not_there"), read)
sys.exit(fuzz.main(["--seconds", "{seconds}", "--target", "planted", "absent", "--keep", {keep!r}]))
"""
KINDS = {
    "none": "",
    "crash": "a crash, exit status -6",
    "hang": "a hang of 2 s",
    "exception": "KeyError in <string>, <lambda>: 'what is not there'",
    "memory": "more than 2 GB of memory wanted (MemoryError in <string>, <lambda>)",
    "nameless": "a message without the file's name (ValueError in <string>, <lambda>)",
}


def kinds():
    for kind in KINDS:
        rest = kind not in ("none", "crash", "hang")
        yield pytest.param(kind, marks=[pytest.mark.thorough] if rest else [])


@pytest.mark.parametrize("kind", [*kinds()])
def test_a_planted_fault_is_found(kind, tmp_path):
    code = PLANTED.format(
        tools=str(ROOT / "tools"),
        kind=kind,
        keep=str(tmp_path / "kept"),
        seconds=2 if kind == "hang" else 0.5,
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == (kind != "none"), done.stderr
    (planted,) = (line.split() for line in done.stdout.splitlines() if line.startswith("planted "))
    runs, refusals, faults = map(int, planted[1:])
    assert runs > 8 or kind == "hang"
    assert (faults > 0, refusals > 0) == (kind != "none", kind == "none")
    assert "skipped: No module named 'a_package_that_is_not_there'" in done.stdout
    assert KINDS[kind] in done.stdout
    kept = [*(tmp_path / "kept").glob("*")]
    assert len(kept) == (kind != "none")
    assert all(str(path) in done.stdout and path.name.startswith("planted-") for path in kept)
