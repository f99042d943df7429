"""Networks learn: handwritten digits, and the streets of the demo."""

import numpy as np
import pytest

import spcy
from spcy import nn


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
