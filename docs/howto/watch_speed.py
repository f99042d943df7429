"""
Watch a pipeline's speed
========================

A change that makes a pipeline slower is seldom meant, and seldom seen: its results stay the same. `asv
<https://asv.readthedocs.io>`_ times a repository's commits, and says which one it was. Here a repository is
made with a pipeline, and with a commit that looks harmless.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

folder = Path(tempfile.mkdtemp())
environment = {**os.environ, "HOME": str(folder)}  # where asv keeps what it knows of the machine


def run(*command):
    """Run a command in the repository, and return what it prints."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr + done.stdout)
    return done.stdout


# %%
# The pipeline: a depth camera that does not move sees the same sites in every frame, with other features.

PIPELINE = """
import numpy as np
import spcy
from spcy import nn


class Pipeline:
    def __init__(self, indices):
        self.coords = spcy.Coords(indices)
        self.net = nn.Sequential(nn.SubMConv(4, 16, 3, rng=0), nn.ReLU(), nn.SubMConv(16, 2, 3, rng=1)).eval()

    def __call__(self, features):
        return self.net(spcy.SparseTensor(self.coords, features)).features.argmax(axis=1)
"""

# %%
# Its benchmarks are classes whose methods begin with ``time_``, ``peakmem_`` or ``track_``; what ``setup``
# does is not timed. A process's CPU time, on one thread, is what busy neighbours disturb least. What is
# counted, such as sites, does not depend on the machine at all.

BENCHMARKS = """
import sys, time
from pathlib import Path

import numpy as np
import spcy

sys.path.insert(0, str(Path(__file__).parents[1]))
from pipeline import Pipeline


class Frames:
    timer = time.process_time

    def setup(self):
        spcy.set_num_threads(1)
        rng = np.random.default_rng(0)
        rows = np.argwhere(rng.random((1, 120, 160, 24)) < 0.04)
        self.run, self.frame = Pipeline(rows), rng.random((len(rows), 4), np.float32)
        self.run(self.frame)  # the first frame builds the rulebook

    def time_frame(self):
        self.run(self.frame)

    def track_sites(self):
        return len(self.frame)
"""

SETTINGS = {"version": 1, "project": "pipeline", "repo": ".", "environment_type": "existing"}
SETTINGS |= {"branches": ["HEAD"], "benchmark_dir": "benchmarks", "results_dir": "results"}

# %%
# Each commit is timed once. ``--python=same`` takes the environment that is there; without it, asv builds
# one for each commit.


def commit(pipeline, message):
    """Commit a version of the pipeline, time it, and return its name."""
    (folder / "pipeline.py").write_text(pipeline)
    run("git", "add", "pipeline.py", "benchmarks", "asv.conf.json")
    run("git", "-c", "user.name=me", "-c", "user.email=me@here", "commit", "-q", "-m", message)
    name = run("git", "rev-parse", "--short=8", "HEAD").strip()
    run(*ASV, "run", "--python=same", "--quick", "--set-commit-hash", name)
    return name


ASV = sys.executable, "-m", "asv"
run("git", "init", "-q")
(folder / "benchmarks").mkdir()
(folder / "benchmarks" / "__init__.py").touch()
(folder / "benchmarks" / "frames.py").write_text(BENCHMARKS)
(folder / "asv.conf.json").write_text(json.dumps(SETTINGS))
run(*ASV, "machine", "--yes")

harmless = PIPELINE.replace("self.coords = spcy.Coords(indices)", "self.indices = indices").replace(
    "SparseTensor(self.coords, features)", "SparseTensor(self.indices, features)"
)
commits = {
    "label frames": commit(PIPELINE, "label frames"),
    "keep no coords": commit(harmless, "keep no coords"),
    "keep them again": commit(PIPELINE, "keep them again"),
}

# %%
# The second commit builds the hash table and the rulebook anew in every frame. asv compares two commits, and
# ``asv continuous`` does it for a pull request and exits with 1 if something got slower.

first, second, _ = commits.values()
print(run(*ASV, "compare", "--factor", "1.3", first, second))

# %%
# ``asv publish`` makes pages of the whole history, with a point for each commit.

times = []
for name in commits.values():
    (path,) = (folder / "results").glob(f"*/{name}*.json")
    times.append(1e3 * json.loads(path.read_text())["results"]["frames.Frames.time_frame"][0][0])

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
axes.plot([*commits], times, "o-", color="#1f6f8b")
axes.set(ylabel="ms of CPU a frame", ylim=(0, 1.15 * max(times)), title="frames.Frames.time_frame")
axes.margins(x=0.1)
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# spcy watches itself so: `its own benchmarks <../benchmarks.html>`_, one file for each stage.
