"""spcy's threads beside those of other libraries, each of which may bring an OpenMP runtime of its own."""

import os
from importlib.util import find_spec

import pytest
from test_backend import run

from spcy import _threads

OTHERS = {
    "torch": """
import torch
def other():
    torch.set_num_threads(2)
    x = torch.ones(400_000)
    assert float((x * 2).sum()) == 800_000
    assert torch.equal(torch.ones(300, 300) @ torch.ones(300, 300), torch.full((300, 300), 300.0))
""",
    "sklearn": """
from sklearn.cluster import KMeans
def other():
    points = np.repeat(np.float32([[0, 0], [9, 9]]), 2000, axis=0)
    assert len(set(KMeans(2, n_init=1, random_state=0).fit(points).labels_)) == 2
""",
}
OURS = """
import spcy
from spcy import _threads
_threads.GRAIN = 1
def ours():
    rng = np.random.default_rng(0)
    x, *_ = spcy.voxelize(rng.uniform(0, 9, (20_000, 3)).astype(np.float32), 0.5)
    weight = rng.standard_normal((3, 3, 3, 3, 32), dtype=np.float32)
    results = []
    for threads in (1, 2, 4):
        spcy.set_num_threads(threads)
        results.append(spcy.subm_conv(x, weight).features)
    assert all(np.array_equal(results[0], result) for result in results)
"""
USE = """
import threading
for _ in range(3):
    ours()
    other()
callers = [threading.Thread(target=f) for f in (ours, other, ours, other)]
for caller in callers: caller.start()
for caller in callers: caller.join()
"""
FORK = """
child = os.fork()
if child == 0:
    ours()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.thorough
@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("name", [pytest.param("torch", marks=pytest.mark.torch), "sklearn"])
def test_beside_another_runtime(name, first):
    """Whichever is imported first, both compute, in turn, at once, and ours in a forked child."""
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed here")
    if not _threads._native.has_openmp():
        pytest.skip("this build has no OpenMP")
    parts = [OURS, OTHERS[name]] if first == "ours" else [OTHERS[name], OURS]
    code = "\n".join(
        ["import os", "import numpy as np", *parts, USE, FORK * hasattr(os, "fork"), "print('well')"]
    )
    done = run(code)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr[-2000:]


def test_limits_of_others_change_nothing():
    """threadpoolctl sets the number of threads of every OpenMP runtime in the process."""
    pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed here")
    limited = "import threadpoolctl\nwith threadpoolctl.threadpool_limits(1): ours()\nours()"
    done = run(f"import numpy as np\n{OURS}\n{limited}")
    assert done.returncode == 0, done.stderr[-2000:]
