"""A dozen cases for valgrind: each kind of kernel, at sizes that fill no vector, compared with float64."""

import sys

import numpy as np

import spcy
from spcy import _threads, nn

rng = np.random.default_rng(0)
sites = np.argwhere(rng.random((9, 8, 7)) < 0.3).astype(np.int32)
indices = np.column_stack([np.zeros(len(sites), np.int32), sites])
points = rng.uniform(0, 8, (300, 3)).astype(np.float32)


def tensor(channels, dtype):
    """Return a tensor on the same sites, of numbers that float16 has."""
    features = np.random.default_rng(1).integers(-4, 5, (len(sites), channels)) / 4
    return spcy.SparseTensor(indices, features.astype(dtype), shape=(9, 8, 7))


def weight(*shape):
    """Return a weight of such numbers."""
    return np.random.default_rng(2).integers(-4, 5, shape) / 4


def conv(dtype, **options):
    """Return a submanifold convolution of 5 channels to 19."""
    return spcy.subm_conv(tensor(5, dtype), weight(3, 3, 3, 5, 19).astype(dtype), **options).features


def levels(dtype):
    """Go down, up again and to new sites."""
    x = tensor(6, dtype)
    y = spcy.conv(x, weight(3, 3, 3, 6, 7).astype(dtype), stride=2, padding=1)
    z = spcy.inverse_conv(y, weight(3, 3, 3, 7, 3).astype(dtype))
    return spcy.conv_transpose(z, weight(2, 2, 2, 3, 5).astype(dtype), stride=2).features


def gradients(dtype):
    """Return those of features, weight and bias."""
    y, vjp = spcy.vjp(
        spcy.subm_conv, tensor(5, dtype), weight(3, 3, 3, 5, 9).astype(dtype), weight(9).astype(dtype)
    )
    return np.concatenate([np.ravel(d) for d in vjp(np.ones_like(y.features))])


def pools(dtype):
    """Return maxima, and means brought back."""
    x = tensor(5, dtype)
    y = spcy.max_pool(x, 3, 2, 1)
    return np.concatenate([np.ravel(y.features), np.ravel(spcy.unpool(spcy.avg_pool(x, 2)).features)])


def training(dtype):
    """Return a loss and gradients, through a norm and an activation."""
    net = nn.Sequential(nn.SubMConv(5, 11, 3, rng=0), nn.BatchNorm(11), nn.GELU(), nn.Linear(11, 3, rng=0))
    y, vjp = net.vjp(tensor(5, np.float32))
    loss, dlogits = nn.softmax_cross_entropy(y, np.arange(len(sites)) % 3)
    vjp(dlogits)
    return np.concatenate([[loss], *(np.ravel(p.grad) for p in net.parameters().values())])


def voxels(dtype):
    """Go from points to voxels and back."""
    x = spcy.voxelize(points, 0.9, features=points.astype(dtype), bounds=(0, 8)).tensor
    return np.concatenate([np.ravel(spcy.devoxelize(x, points, mode)) for mode in ("nearest", "linear")])


def joined(dtype):
    """Return channels side by side over the union of sites, and rows by keys."""
    x = tensor(5, dtype)
    both = spcy.concat([x, spcy.prune(x, np.arange(len(sites)) % 2 == 0)])
    rows = spcy.HashMap(np.arange(0, 999, 7, np.uint64)).find(np.arange(999, dtype=np.uint64))
    return np.concatenate([np.ravel(both.features), rows])


CASES = {
    "convolution, float32": lambda: (conv(np.float32), conv(np.float64)),
    "convolution, float16": lambda: (conv(np.float16), conv(np.float64)),
    "bias, residual and activation": lambda: [
        conv(
            t,
            bias=weight(19).astype(t),
            residual=spcy.subm_conv(tensor(5, t), weight(1, 1, 1, 5, 19).astype(t)),
            activation="silu",
        )
        for t in (np.float32, np.float64)
    ],
    "depthwise": lambda: [
        spcy.subm_conv(tensor(13, t), weight(3, 3, 3, 1, 13).astype(t), groups=13).features
        for t in (np.float32, np.float64)
    ],
    "groups of two": lambda: [
        spcy.subm_conv(tensor(6, t), weight(3, 3, 3, 2, 6).astype(t), groups=3).features
        for t in (np.float32, np.float64)
    ],
    "levels": lambda: (levels(np.float32), levels(np.float64)),
    "gradients": lambda: (gradients(np.float32), gradients(np.float64)),
    "gradients, float16": lambda: (gradients(np.float16), gradients(np.float64)),
    "pools": lambda: (pools(np.float32), pools(np.float64)),
    "training": lambda: (training(np.float32),) * 2,
    "voxels": lambda: (voxels(np.float32), voxels(np.float64)),
    "joined": lambda: (joined(np.float32), joined(np.float64)),
}

_threads.GRAIN = 1
spcy.set_num_threads(2)
for name, case in CASES.items():
    got, expected = case()
    error = np.abs(got.astype(np.float64) - expected).max() / max(1.0, np.abs(expected).max())
    print(f"{name}: {error:.1e}", flush=True)
    if not error < 2e-3:
        sys.exit(f"{name}: wrong by {error}")
