"""What spcy computed, kept in files: the cases, and how their inputs come about."""

from pathlib import Path

import numpy as np

import spcy
from spcy import models, nn

FOLDER = Path(__file__).parent / "data" / "golden"
DTYPES = ("float32", "float64", "float16", "bfloat16")
SHAPE, BATCHES = (9, 8, 7), 2


def make_inputs():
    """Sites, points and weights, whose numbers all dtypes have exactly. Files keep theirs."""
    rng = np.random.default_rng(20)

    def numbers(*shape):
        return rng.integers(-8, 9, shape) / 8

    sites = np.argwhere(rng.random((BATCHES, *SHAPE)) < 0.06)
    rng.shuffle(sites)
    return {
        "indices": sites.astype(np.int32),
        "features": numbers(len(sites), 6),
        "points": rng.integers(0, 48, (90, 3)) / 8,
        "point_features": numbers(90, 3),
        "scan": np.column_stack([rng.integers(-160, 160, (120, 3)) / 64, rng.integers(0, 9, 120) / 8]),
        "bias": numbers(4),
        "weight_333": numbers(3, 3, 3, 6, 4),
        "weight_222": numbers(2, 2, 2, 6, 4),
        "weight_back": numbers(3, 3, 3, 4, 6),
        "weight_groups": numbers(3, 3, 3, 3, 4),
        "weight_depthwise": numbers(3, 3, 3, 1, 6),
        "norm_weight": numbers(6),
        "norm_bias": numbers(6),
        "norm_mean": numbers(6),
        "norm_var": 1 + abs(numbers(6)),
    }


class Inputs:
    """Inputs in a dtype, whole numbers as they are."""

    def __init__(self, arrays, dtype):
        self.arrays, self.dtype = arrays, dtype

    def __getitem__(self, name):
        array = self.arrays[name]
        return array.astype(self.dtype) if array.dtype.kind == "f" else array

    @property
    def x(self):
        return spcy.SparseTensor(self["indices"], self["features"], shape=SHAPE, batch_size=BATCHES)

    @property
    def far(self):
        """The same on a grid without bounds."""
        low = np.int32([0, 5, 5, 5])
        return spcy.SparseTensor(self["indices"] - low, self["features"], batch_size=BATCHES)

    def voxels(self, reduce, **options):
        features = self["point_features"]
        points = self.arrays["points"].astype(np.float32)
        return spcy.voxelize(points, 0.75, features=features, bounds=(0, 6), reduce=reduce, **options)


def _down(i):
    return spcy.conv(i.x, i["weight_333"], i["bias"], stride=2, padding=1)


def _norm(i, train):
    norm = nn.BatchNorm(6)
    state = {"weight": "weight", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    norm.load_state_dict({key: i.arrays[f"norm_{name}"].astype(np.float32) for key, name in state.items()})
    norm.astype(i.dtype)
    return (norm.train() if train else norm.eval())(i.x)


def _layer_norm(i):
    norm = nn.LayerNorm(6)
    norm.load_state_dict({key: i.arrays[f"norm_{key}"].astype(np.float32) for key in ("weight", "bias")})
    norm.astype(i.dtype)
    return norm(i.x)


def _gradients(function, *arguments, **options):
    y, vjp = spcy.vjp(function, *arguments, **options)
    weights = (np.arange(y.features.size).reshape(y.features.shape) % 5 - 1) / 4
    return [d for d in vjp(weights.astype(y.features.dtype)) if d is not None]


def _voxels(voxels):
    return [voxels.tensor, voxels.rows, voxels.counts]


def _book(rulebook):
    return [rulebook.in_rows, rulebook.out_rows, rulebook.offset_ptr]


def _strided_book(i, **options):
    book, coords = spcy.conv_rulebook(i.x.coords, spcy.kernel_offsets((3, 3, 3)), **options)
    return [*_book(book), coords.indices]


CASES = {  # a tensor, an array, or a list of these, from inputs
    "subm_conv": lambda i: spcy.subm_conv(i.x, i["weight_333"], i["bias"]),
    "subm_conv dilated": lambda i: spcy.subm_conv(i.far, i["weight_333"], dilation=2),
    "subm_conv silu": lambda i: spcy.subm_conv(i.x, i["weight_333"], i["bias"], activation="silu"),
    "subm_conv groups": lambda i: spcy.subm_conv(i.x, i["weight_groups"], groups=2),
    "subm_conv depthwise": lambda i: spcy.subm_conv(i.x, i["weight_depthwise"], groups=6),
    "conv reached": _down,
    "conv unbounded": lambda i: spcy.conv(i.far, i["weight_222"], stride=2),
    "conv floor": lambda i: spcy.conv(i.far, i["weight_333"], stride=2, padding=1, sites="floor"),
    "inverse_conv": lambda i: spcy.inverse_conv(_down(i), i["weight_back"]),
    "conv_transpose": lambda i: spcy.conv_transpose(i.x, i["weight_222"], i["bias"], stride=2),
    "max_pool": lambda i: spcy.max_pool(i.x, 3, 2, 1),
    "max_pool zero": lambda i: spcy.max_pool(i.far, 2, empty="zero"),
    "sum_pool": lambda i: spcy.sum_pool(i.x, 2, sites="floor"),
    "avg_pool": lambda i: spcy.avg_pool(i.x, 2),
    "avg_pool window": lambda i: spcy.avg_pool(i.x, 2, count="window"),
    "unpool": lambda i: spcy.unpool(spcy.avg_pool(i.x, 2)),
    "global pools": lambda i: [
        f(i.x) for f in (spcy.global_max_pool, spcy.global_avg_pool, spcy.global_sum_pool)
    ],
    "voxelize mean": lambda i: _voxels(i.voxels("mean")),
    "voxelize sum": lambda i: _voxels(i.voxels("sum")),
    "voxelize max": lambda i: _voxels(i.voxels("max")),
    "voxelize first": lambda i: _voxels(i.voxels("first")),
    "voxelize two points": lambda i: _voxels(i.voxels("mean", max_points=2)),
    "devoxelize nearest": lambda i: spcy.devoxelize(i.voxels("mean").tensor, i.arrays["points"] + 0.125),
    "devoxelize linear": lambda i: spcy.devoxelize(
        i.voxels("mean").tensor, i.arrays["points"] + 0.125, "linear"
    ),
    "add": lambda i: spcy.add(i.x, spcy.prune(i.x, np.arange(i.x.num_sites) % 3 > 0)),
    "BatchNorm": lambda i: _norm(i, False),
    "BatchNorm in training": lambda i: _norm(i, True),
    "LayerNorm": _layer_norm,
    "gradients of subm_conv": lambda i: _gradients(spcy.subm_conv, i.x, i["weight_333"], i["bias"]),
    "gradients of max_pool": lambda i: _gradients(spcy.max_pool, i.x, 2),
    "submanifold_rulebook": lambda i: _book(
        spcy.submanifold_rulebook(i.x.coords, spcy.kernel_offsets((3, 3, 3)) - 1)
    ),
    "conv_rulebook": lambda i: _strided_book(i, stride=2, padding=1),
}

SETTINGS = models.ScanSettings((0.25, 0.25, 0.25), None, (0, 1, 2, 3))
NETWORKS = {
    "MinkUNet42": lambda: models.MinkUNet42(4, 3, width=1 / 32, rng=1),
    "SparseConvNetUNet": lambda: models.SparseConvNetUNet(4, 3, [4, 6, 8], residual_blocks=True, rng=2),
}


def run(name, arrays, dtype):
    """Return the arrays of a case by name; 16-bit ones as they are."""
    return flat(CASES[name](Inputs(arrays, np.dtype(dtype))))


def flat(found):
    out = {}
    for i, part in enumerate(found if isinstance(found, list) else [found]):
        if isinstance(part, spcy.SparseTensor):
            out |= {f"{i} sites": part.indices, f"{i} features": part.features}
        else:
            out[f"{i}"] = part
    return out


def run_network(path, scan):
    """Return what the network of a file makes of a scan."""
    net, settings = models.load(path)
    return flat(net(models.scan_tensor(net, settings, scan.astype(np.float32)).tensor))
