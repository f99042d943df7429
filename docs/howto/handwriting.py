"""
Handwriting, from the pen's path
================================

A tablet gives where the pen was, not pixels: a glyph is a thread through an empty plane. Its cells become
sites of an unbounded 2-D grid, whose features are the direction in which the pen went through them. All
glyphs of a batch lie in one tensor, whatever their size, and a small network learns to tell them apart.
"""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np

import spcy
from spcy import nn

# %%
# The strokes that make each glyph, as corners; writers lean, turn, stretch and tremble.

GLYPHS = {
    "A": [[(0, 0), (1, 2), (2, 0)], [(0.5, 0.9), (1.5, 0.9)]],
    "H": [[(0, 0), (0, 2)], [(2, 0), (2, 2)], [(0, 1), (2, 1)]],
    "K": [[(0, 0), (0, 2)], [(2, 2), (0, 1), (2, 0)]],
    "M": [[(0, 0), (0, 2), (1, 0.8), (2, 2), (2, 0)]],
    "N": [[(0, 0), (0, 2), (2, 0), (2, 2)]],
    "W": [[(0, 2), (0.5, 0), (1, 1.2), (1.5, 0), (2, 2)]],
    "X": [[(0, 0), (2, 2)], [(0, 2), (2, 0)]],
    "Z": [[(0, 2), (2, 2), (0, 0), (2, 0)]],
}
rng = np.random.default_rng(0)


def written(glyph):
    """Return the pen's positions and directions for a glyph, as some writer has it."""
    angle, lean, sizes = rng.normal(0, 0.2), rng.normal(0, 0.25), rng.uniform(5, 14, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    hand = turn @ np.array([[1, lean], [0, 1]]) @ np.diag(sizes)
    place = rng.uniform(-500, 500, 2)  # anywhere on the page
    positions, directions = [], []
    for corners in GLYPHS[glyph]:
        corners = np.array(corners) + rng.normal(0, 0.08, (len(corners), 2))
        path = np.concatenate([np.linspace(a, b, 60) for a, b in pairwise(corners)])
        path = path @ hand.T + rng.normal(0, 0.02, path.shape).cumsum(axis=0)
        steps = np.gradient(path, axis=0)
        positions.append(path + place)
        directions.append(steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-9))
    return np.concatenate(positions), np.concatenate(directions)


def page(labels):
    """Return a batch of glyphs as one tensor: the pen's mean direction in each cell, and that it has ink."""
    glyphs = [written("AHKMNWXZ"[label]) for label in labels]
    points = np.concatenate([positions for positions, _ in glyphs])
    features = np.concatenate([np.column_stack([d, np.ones(len(d))]) for _, d in glyphs])
    batch = np.repeat(np.arange(len(glyphs)), [len(positions) for positions, _ in glyphs])
    return spcy.voxelize(points, 1.0, features=features.astype(np.float32), batch=batch).tensor


figure, panels = plt.subplots(1, 8, figsize=(11, 2), layout="constrained")
for label, axes in enumerate(panels):
    x = page([label])
    direction = np.arctan2(x.features[:, 1], x.features[:, 0])
    axes.scatter(*x.indices[:, 1:].T, s=8, c=direction, marker="s", cmap="hsv", vmin=-np.pi, vmax=np.pi)
    axes.set(title="AHKMNWXZ"[label], xticks=[], yticks=[], aspect="equal")
plt.show()

# %%
# Submanifold convolutions stay on the pen's path; pools make it shorter. Nothing of the empty page is ever
# computed, and the grid has no border, so that it does not matter where on the page somebody writes.


def block(c_in, c_out):
    """Return a convolution, a batch norm and a ReLU."""
    conv = nn.SubMConv(c_in, c_out, 3, bias=False, ndim=2, rng=rng)
    return nn.Sequential(conv, nn.BatchNorm(c_out), nn.ReLU())


network = nn.Sequential(
    block(3, 16),
    block(16, 32),
    nn.MaxPool(2),
    block(32, 64),
    nn.MaxPool(2),
    block(64, 64),
    nn.GlobalPool("max"),
    nn.Linear(64, len(GLYPHS), rng=rng),
)
optimizer = nn.optim.AdamW(network.parameters(), lr=3e-3)
losses = []
for _ in range(60):
    labels = rng.integers(0, len(GLYPHS), 48)
    logits, vjp = spcy.vjp(network, page(labels))
    loss, dlogits = nn.softmax_cross_entropy(logits, labels)
    network.zero_grad()
    vjp(dlogits)
    optimizer.step()
    losses.append(loss)

# %%
# Glyphs that it has not seen:

network.eval()
labels = np.arange(400) % len(GLYPHS)
x = page(labels)
found = network(x).argmax(axis=1)
low, high = x.indices[:, 1:].min(axis=0), x.indices[:, 1:].max(axis=0)
print(f"{np.mean(found == labels):.1%} of {len(labels)} glyphs")
print(f"{x.num_sites} sites of {len(labels) * np.prod(high - low + 1, dtype=float):.1e} cells")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
left.semilogy(losses)
left.set(xlabel="step", ylabel="cross entropy")
counts = np.zeros((len(GLYPHS), len(GLYPHS)), int)
np.add.at(counts, (labels, found), 1)
right.imshow(counts, cmap="Blues")
right.set(xlabel="found", ylabel="written", xticks=range(8), yticks=range(8))
right.set_xticklabels("AHKMNWXZ")
right.set_yticklabels("AHKMNWXZ")
plt.show()
