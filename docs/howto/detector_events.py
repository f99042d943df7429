"""
A detector event of 100,000 hits
================================

Liquid argon and other trackers see particles as lines and showers in a volume of 10**9 cells, nearly all of
which are empty. Events have no bounds that are worth keeping, and no dense array of them fits: an unbounded
grid holds the hits alone. Here tracks are told from showers by the shape of each hit's neighbourhood, with
two convolutions of fixed weights.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

import spcy.plot

rng = np.random.default_rng(0)


def track(length):
    """Return points along a line that scatters a little."""
    turns = rng.normal(0, 0.002, (length, 3)).cumsum(axis=0) + rng.normal(size=3)
    steps = turns / np.linalg.norm(turns, axis=1, keepdims=True)
    return rng.uniform(-800, 800, 3) + steps.cumsum(axis=0)


def shower(hits):
    """Return points in a cone, dense at its tip."""
    depth = rng.gamma(3, 60, hits)
    across = rng.normal(0, 0.12, (hits, 2)) * depth[:, None]
    return rng.uniform(-800, 800, 3) + np.column_stack([depth, across])


tracks = np.concatenate([track(1600) for _ in range(25)])
showers = np.concatenate([shower(8000) for _ in range(8)])
points = np.concatenate([tracks, showers])
is_track = np.arange(len(points)) < len(tracks)

# One site for each cell of 1 mm that was hit; negative cells are as good as others.
x, rows, hits = spcy.voxelize(points, 1.0, features=np.ones((len(points), 1)), reduce="sum")
print(x, x.indices.min(axis=0), x.indices.max(axis=0), sep="\n")

# %%
# A convolution with the weights ``o_i`` and ``o_i * o_j``, where o is the kernel's offset, sums first and
# second moments of the neighbours of every site. Their largest variance is nearly all of it on a line.

start = time.perf_counter()
offsets = spcy.kernel_offsets((9, 9, 9)) - 4
pairs = [(i, j) for i in range(3) for j in range(i, 3)]
moments = [np.ones(len(offsets)), *offsets.T, *(offsets[:, i] * offsets[:, j] for i, j in pairs)]
weight = np.stack(moments, axis=-1).reshape(9, 9, 9, 1, 10).astype(np.float32)
sums = spcy.subm_conv(x.map(lambda f: np.ones_like(f, np.float32)), weight).features.astype(float)
mean = sums[:, 1:4] / sums[:, :1]
covariance = np.empty((x.num_sites, 3, 3))
for (i, j), second in zip(pairs, sums[:, 4:].T, strict=True):
    covariance[:, i, j] = covariance[:, j, i] = second / sums[:, 0] - mean[:, i] * mean[:, j]
values = np.linalg.eigvalsh(covariance)
line = values[:, 2] / np.maximum(values.sum(axis=1), 1e-9)

# A second one smooths: what lies on a line has neighbours that do.
smooth = spcy.subm_conv(
    x.replace(np.column_stack([line, np.ones_like(line)])), np.ones((5, 5, 5, 1, 2)), groups=2
)
line = smooth.features[:, 0] / smooth.features[:, 1]
seconds = time.perf_counter() - start

truth = np.zeros(x.num_sites, bool)
truth[rows[is_track]] = True
for name, these in (("tracks", truth), ("showers", ~truth)):
    print(f"{name}: {np.mean((line > 0.85)[these]):.0%} called a track")
print(f"{x.num_sites} sites, {len(offsets)} offsets: {seconds:.1f} s")

# %%
# Readout planes see projections. They are voxelized as any points of two axes.

figure, panels = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
image = spcy.plot.sites(x, line, ax=panels[0], vmin=0.4, vmax=1)
figure.colorbar(image, ax=panels[0], label="share of the largest variance")
panels[0].set(title="the event from above", aspect="equal")
plane = spcy.voxelize(points[:, [0, 2]], 4.0, features=np.ones((len(points), 1)), reduce="sum").tensor
image = spcy.plot.sites(plane, np.log10(plane.features[:, 0]), ax=panels[1])
figure.colorbar(image, ax=panels[1], label="log10 of hits")
panels[1].set(title="a plane of wires: two axes, cells of 4 mm", aspect="equal")
plt.show()
