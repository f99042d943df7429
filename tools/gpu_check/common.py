"""What the stages share: where results go, and how large things are."""

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ["FOLDER"])
TINY = os.environ.get("SPCY_CHECK_TINY") == "1"
SITES = 300 if TINY else 126_000  # of a generated scene


def report(stage, **values):
    """Write a result, which stays whatever happens next."""
    with open(FOLDER / "results.jsonl", "a") as file:
        file.write(json.dumps({"stage": stage} | values) + "\n")


def one_line(error):
    """Return what went wrong in a line."""
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:300]


def bench_modules():
    """Let the modules of asv_bench be imported."""
    sys.path.insert(0, str(ROOT / "asv_bench"))
