"""Networks learn: handwritten digits, and the streets of the demo."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import spcy
from spcy import nn
from spcy.demo import network
from spcy.demo.scene import CLASSES, generate_scene
from spcy.scan import read_scan


def digits_network(rng):
    """A small submanifold network: 8 x 8 pixels, halved twice, to 10 scores."""

    def block(c_in, c_out):
        conv = nn.SubMConv(c_in, c_out, 3, ndim=2, bias=False, rng=rng)
        return nn.Sequential(conv, nn.BatchNorm(c_out), nn.ReLU())

    return nn.Sequential(
        block(1, 16),
        nn.Residual(block(16, 16)),
        nn.MaxPool(2),
        block(16, 32),
        nn.Residual(block(32, 32)),
        nn.MaxPool(2),
        block(32, 64),
        nn.MaxPool(2),
        nn.GlobalPool("max"),
        nn.Linear(64, 10, rng=rng),
    )


def digits_tensor(images):
    """The pixels that ink touches."""
    return spcy.SparseTensor.from_dense(images[..., None])


def test_digits():
    """97% of scikit-learn's handwritten digits, which are as small as these sites let them be."""
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(digits.images))
    images, labels = (digits.images[order] / 16).astype(np.float32), digits.target[order]
    train, test = slice(0, 1300), slice(1300, None)
    net = digits_network(rng)
    epochs, batch = 10, 50
    optimiser = nn.optim.AdamW(net.parameters(), weight_decay=0.05)
    for epoch in range(epochs):
        optimiser.lr = 5e-3 * (1 - epoch / epochs)
        for rows in rng.permutation(1300).reshape(-1, batch):
            moved = np.stack([np.roll(image, rng.integers(-1, 2), axis=1) for image in images[train][rows]])
            y, vjp = net.vjp(digits_tensor(moved))
            _, dlogits = nn.softmax_cross_entropy(y, labels[train][rows])
            optimiser.zero_grad()
            vjp(dlogits)
            optimiser.step()
    net.eval()
    scores = net(digits_tensor(images[test]))
    assert (scores.argmax(axis=1) == labels[test]).mean() > 0.97


# The demo's network

KITTI = Path(__file__).parents[2] / "shared" / "data" / "kitti_000008.bin"


def test_shipped_weights_label_an_unseen_street():
    scan = generate_scene(987)
    right = network.label_points(network.load(), scan.points) == scan.truth
    shares = [right[scan.truth == label].mean() for label in range(len(CLASSES))]
    assert np.mean(shares) > 0.9
    assert min(shares) > 0.8


def test_shipped_weights_are_small():
    path = resources.files("spcy.demo").joinpath(network.WEIGHTS)
    assert len(path.read_bytes()) < 1_000_000
    with np.load(path) as state:
        assert {array.dtype for array in state.values()} == {np.dtype(np.float16)}
        assert all(np.isfinite(array).all() for array in state.values())


@pytest.mark.skipif(not KITTI.exists(), reason="the KITTI scan is not on this machine")
def test_shipped_weights_label_a_real_street():
    """The road, a house and the near cars that a person sees in it."""
    points = read_scan(KITTI).points
    labels = network.label_points(network.load(), points)

    def share(name, low, high):
        inside = ((points > low) & (points < high)).all(axis=1)
        assert inside.sum() > 100
        return (labels[inside] == network.LABELS.index(name)).mean()

    assert share("ground", (10, -5, -2), (30, 0, -1.5)) > 0.95
    assert share("wall", (15.3, 4, -0.5), (22.5, 8, 1)) > 0.7
    assert share("car", (12.8, -2.5, -1.4), (16.5, 0.3, 0.2)) > 0.9
    assert share("car", (5.0, -4.2, -1.4), (8.2, -2.7, 0.2)) > 0.9
    assert share("car", (2.5, 1.4, -1.4), (5.6, 3.2, 0.2)) > 0.9
    assert share("car", (6.2, 0, -1.4), (10, 2.2, 0.2)) > 0.7
