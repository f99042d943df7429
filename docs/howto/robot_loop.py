"""
In a robot's loop
=================

A sensor gives a cloud every 100 ms, and a planner waits for what the network makes of it. What counts is
not the mean time but the slowest, and that memory does not grow.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

import spcy
from spcy.demo import network
from spcy.demo.scene import generate_scene

# Decide the number of threads: results are the same bits for any, and what other nodes need stays theirs.
spcy.set_num_threads(min(2, spcy.get_num_threads()))
net = network.load()  # in eval mode: norms and ReLUs run inside the convolutions
clouds = [generate_scene(seed).points[::3] for seed in range(4)]


def step(cloud):
    """Label a cloud."""
    voxels = network.voxelize(cloud)
    scores = net(voxels.tensor).features
    return scores.argmax(axis=1)[voxels.rows]


# %%
# Warm up on a cloud of the usual size: libraries are loaded, threads started and memory taken at the first
# call. Every cloud has sites of its own; its rulebooks are built in its turn, and freed with its tensor.

step(clouds[0])
times = []
for frame in range(60):
    cloud = clouds[frame % len(clouds)] + np.float32([0.1 * frame, 0, 0])  # the robot moves
    start = time.perf_counter()
    labels = step(cloud)
    times.append(1e3 * (time.perf_counter() - start))
middle, late, worst = np.percentile(times, [50, 99, 100])
print(f"{len(clouds[0])} points: median {middle:.0f} ms, 99th {late:.0f} ms, worst {worst:.0f} ms")

# %%
# - Sensors mark what they did not see by NaN: ``spcy.voxelize(.., invalid="drop")`` leaves those points
#   out, with the row -1, so that labels stay beside their points.
# - A cloud that keeps its sites, such as a depth camera's that does not move, keeps its rulebooks: pass the
#   same ``Coords`` with new features.
# - Beside busy neighbours, a thread that has no core is not waited for: two threads are never much slower
#   than one.
# - In worker processes, ``spcy.set_num_threads(1)`` for each; ``fork`` and ``spawn`` both work.
# - ``spcy.set_num_threads(None)`` goes back to what the process may use; ``spcy info`` says what that is,
#   and why.

figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
axes.plot(times, ".-")
axes.axhline(100, color="#c0392b", linewidth=1)
axes.set(
    xlabel="frame",
    ylabel="ms",
    ylim=(0, 1.1 * max(100, worst)),
    title="time of each frame; the sensor's period",
)
plt.show()
spcy.set_num_threads(None)
