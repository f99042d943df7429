"""The engines that compare.py runs side by side: the same operations on the same sites.

Each has ``rulebook(kind)``, ``conv(kind, features_at, weight)`` and ``network(features, norms)``. They
return a `Task`, whose result is comparable between engines: the output's sites, and the features or the
number of pairs. None: the engine does not offer it. `Unfit`: it would not fit, and the error says why.
"""

import logging
from typing import NamedTuple

import numpy as np
from benchmarks.network import LAYERS, backbone
from timing import Task

import spcy

MOST_BYTES = 2e9  # that dense features may take, in and out
MOST_FLOP = 1e11  # of one call


class Unfit(Exception):
    """An operation would take too much memory or time."""


class Kind(NamedTuple):
    """The geometry of a convolution."""

    kernel_size: int
    stride: int
    padding: int
    level: str  # of its input: the scene's own sites, or those of stride 2


KINDS = {
    "submanifold": Kind(3, 1, 1, "fine"),
    "stride 2": Kind(3, 2, 1, "fine"),
    "inverse": Kind(3, 2, 1, "coarse"),
    "transposed": Kind(2, 2, 0, "coarse"),
}


class Norm(NamedTuple):
    """A layer without bias, and the batch norm after it."""

    weight: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float = 1e-3

    def folded(self):
        """Return the weight and the bias of a convolution that does both."""
        scale = self.scale / np.sqrt(self.variance + np.float32(self.epsilon))
        return self.weight * scale, self.shift - self.mean * scale


class Engine:
    """What all have."""

    def __init__(self, coords: spcy.Coords):
        self.coords = coords

    @staticmethod
    def set_threads(threads: int):
        """Use so many threads from now on."""
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads, user_api="blas")

    def rulebook(self, kind):
        return None

    def conv(self, kind, features_at, weight):
        return None

    def network(self, features, norms):
        return None


class Spcy(Engine):
    """This library."""

    name = "spcy"

    @staticmethod
    def set_threads(threads):
        spcy.set_num_threads(threads)

    def fresh(self):
        """Return coords with nothing cached, as the arguments of a run."""
        return (spcy.Coords(self.coords.indices, self.coords.shape, self.coords.batch_size),)

    def coarse(self, coords):
        """Return the sites that stride 2 leaves."""
        return spcy.conv_rulebook(coords, spcy.kernel_offsets((3, 3, 3)), stride=2, padding=1)[1]

    def rulebook(self, kind):
        k = KINDS[kind]
        box = spcy.kernel_offsets((k.kernel_size,) * 3)
        if kind == "submanifold":
            return Task(lambda c: (c.indices, spcy.submanifold_rulebook(c, box - 1).num_pairs), self.fresh)
        build, prepare = spcy.conv_rulebook, self.fresh
        if kind == "transposed":
            coarse = self.coarse(self.coords)
            build = spcy.transposed_rulebook

            def prepare():
                return (spcy.Coords(coarse.indices, coarse.shape, coarse.batch_size),)

        def run(coords):
            rulebook, out = build(coords, box, stride=k.stride, padding=k.padding)
            return out.indices, rulebook.num_pairs

        return Task(run, prepare)

    def conv(self, kind, features_at, weight):
        level = self.coords if KINDS[kind].level == "fine" else self.coarse(self.coords)
        x = spcy.SparseTensor(level, features_at(level.indices))
        convolve = {
            "submanifold": lambda: spcy.subm_conv(x, weight),
            "stride 2": lambda: spcy.conv(x, weight, stride=2, padding=1),
            "inverse": lambda: spcy.inverse_conv(x, weight),
            "transposed": lambda: spcy.conv_transpose(x, weight, stride=2),
        }[kind]

        def run():
            y = convolve()
            return y.indices, y.features

        return Task(run)

    def network(self, features, norms):
        parameters = [norm.folded() for norm in norms]

        def run():
            y = backbone(spcy.SparseTensor(*self.fresh(), features), parameters)
            return y.indices, y.features

        return Task(run)


class Spconv(Engine):
    """Its CPU wheel, through its PyTorch modules and the functions that these call."""

    name = "spconv"

    def __init__(self, coords):
        super().__init__(coords)
        import torch
        from spconv.core import ConvAlgo
        from spconv.pytorch import ops

        torch.set_grad_enabled(False)
        self.torch, self.ops, self.algo = torch, ops, ConvAlgo.Native
        self.indices = torch.from_numpy(np.array(coords.indices))

    @staticmethod
    def set_threads(threads):
        import torch

        torch.set_num_threads(threads)

    def pairs(self, kind, indices, shape):
        """Return the output's indices, the pairs and how many each offset has."""
        k = KINDS[kind]
        geometry = ([n] * 3 for n in (k.kernel_size, k.stride, k.padding, 1, 0))
        modes = {"subm": kind == "submanifold", "transpose": kind == "transposed"}
        return self.ops.get_indice_pairs(
            indices, self.coords.batch_size, list(shape), self.algo, *geometry, **modes
        )

    def level(self, kind):
        """Return the indices and the shape of the input."""
        if KINDS[kind].level == "fine":
            return self.indices, self.coords.shape
        return self.pairs("stride 2", self.indices, self.coords.shape)[0], [
            (n - 1) // 2 + 1 for n in self.coords.shape
        ]

    def rulebook(self, kind):
        indices, shape = self.level(kind)

        def run():
            out, _, counts = self.pairs(kind, indices, shape)
            if kind == "submanifold":  # lists one of two mirrored offsets, and not the centre
                return out, 2 * int(counts.sum()) + len(out)
            return out, int(counts.sum())

        return Task(run)

    def conv(self, kind, features_at, weight):
        inverse = kind == "inverse"
        indices, _ = self.level(kind)
        made_by = "stride 2" if inverse else kind
        out, pairs, counts = self.pairs(made_by, *self.level(made_by))
        out = self.indices if inverse else out
        x = self.torch.from_numpy(features_at(indices.numpy()))
        filters = self.torch.from_numpy(np.ascontiguousarray(np.moveaxis(weight, -1, 0)))  # C_out first
        modes = {"inverse": inverse, "subm": kind == "submanifold", "algo": self.algo}

        def run():
            return out, self.ops.indice_conv(x, filters, pairs, counts, len(out), **modes)

        return Task(run)

    def network(self, features, norms):
        from spconv.pytorch import SparseConv3d, SparseConvTensor, SparseSequential, SubMConv3d

        logging.getLogger("torch.fx").setLevel(logging.ERROR)  # spconv asks it something deprecated
        torch, modules, level = self.torch, [], 1
        for layer, norm in zip(LAYERS, norms, strict=True):
            level += layer.stride is not None
            common = {"kernel_size": layer.kernel_size, "bias": False, "algo": self.algo}
            if layer.stride is None:
                conv = SubMConv3d(layer.c_in, layer.c_out, padding=1, indice_key=f"subm{level}", **common)
            else:
                steps = {"stride": layer.stride, "padding": layer.padding, "indice_key": f"spconv{level}"}
                conv = SparseConv3d(layer.c_in, layer.c_out, **steps, **common)
            conv.weight.copy_(torch.from_numpy(np.moveaxis(norm.weight, -1, 0).copy()))
            batch_norm = torch.nn.BatchNorm1d(layer.c_out, eps=norm.epsilon)
            batch_norm.weight.copy_(torch.from_numpy(norm.scale))
            batch_norm.bias.copy_(torch.from_numpy(norm.shift))
            batch_norm.running_mean.copy_(torch.from_numpy(norm.mean))
            batch_norm.running_var.copy_(torch.from_numpy(norm.variance))
            modules += [conv, batch_norm, torch.nn.ReLU()]
        net = SparseSequential(*modules).eval()
        x = torch.from_numpy(features)

        def run():
            y = net(SparseConvTensor(x, self.indices, list(self.coords.shape), self.coords.batch_size))
            return y.indices, y.features

        return Task(run)


class Dense(Engine):
    """torch.nn.functional.conv3d over the whole grid."""

    name = "torch dense"
    set_threads = Spconv.set_threads

    def __init__(self, coords):
        super().__init__(coords)
        import torch

        torch.set_grad_enabled(False)
        self.torch = torch

    def conv(self, kind, features_at, weight):
        if kind not in ("submanifold", "stride 2") or weight.dtype == np.float64:
            return None
        indices, shape, batches = self.coords.indices, self.coords.shape, self.coords.batch_size
        cells = batches * np.prod(shape, dtype=float)
        size, flop = cells * sum(weight.shape[-2:]) * weight.itemsize, 2 * cells * weight.size
        if size > MOST_BYTES or flop > MOST_FLOP:
            raise Unfit(f"would take {size / 1e9:.1f} GB and {flop / 1e9:.0f} GFLOP")
        x = np.zeros((batches, weight.shape[-2], *shape), weight.dtype)
        b, z, y, x_ = indices.T
        x[b, :, z, y, x_] = features_at(indices)
        x = self.torch.from_numpy(x)
        w = self.torch.from_numpy(np.ascontiguousarray(np.moveaxis(weight, (-1, -2), (0, 1))))
        stride = KINDS[kind].stride

        def run():
            return None, self.torch.nn.functional.conv3d(x, w, stride=stride, padding=1)

        return Task(run)


class Scipy(Engine):
    """A sparse matrix for each offset: what NumPy and SciPy users write themselves."""

    name = "scipy.sparse"

    def __init__(self, coords):
        super().__init__(coords)
        from scipy.sparse import csr_array

        self.csr_array = csr_array

    def conv(self, kind, features_at, weight):
        if kind != "submanifold":
            return None
        num = len(self.coords)
        if 2 * num * weight.size > MOST_FLOP:
            raise Unfit(f"would take {2e-9 * num * weight.size:.0f} GFLOP")
        rulebook = spcy.submanifold_rulebook(self.coords, spcy.kernel_offsets((3, 3, 3)) - 1)
        matrices = []
        for k in range(rulebook.num_offsets):
            in_rows, out_rows = rulebook.pairs(k)
            ones = np.ones(len(in_rows), weight.dtype)
            matrices.append(self.csr_array((ones, (out_rows, in_rows)), shape=(num, num)))
        x, w = features_at(self.coords.indices), weight.reshape(-1, *weight.shape[-2:])

        def run():
            return self.coords.indices, sum(a @ (x @ w_k) for a, w_k in zip(matrices, w, strict=True))

        return Task(run)


ENGINES = (Spcy, Spconv, Dense, Scipy)
