"""spconv-triton beside spcy: the same operations by its layers."""

import sys
from importlib.metadata import version
from itertools import product

import numpy as np
from benchmarks.network import LAYERS

# Its autotuner tries 37 shapes for each number of channels, for which there is no time. These are kept: those
# that it chose among all of them on an H100 (256, 128, 64 and 32 channels), and their neighbours.
SHAPES = {  # rows, columns, channels, warps, stages
    *[(64, 64, 32, 4, 4), (64, 64, 32, 4, 2), (128, 128, 32, 8, 3), (128, 32, 32, 4, 4), (64, 64, 64, 4, 4)],
    *[
        (128, 64, 32, 4, 3),
        (64, 128, 32, 4, 3),
        (128, 128, 64, 8, 4),
        (64, 16, 16, 2, 4),
        (128, 16, 16, 4, 3),
    ],
    *[(32, 64, 32, 2, 4), (64, 32, 32, 2, 4), (128, 64, 64, 4, 3), (128, 128, 128, 8, 3)],
}
PARTS = 2  # processes that compile the shapes of one layer


class Peer:
    """The other engine."""

    NAME = "spconv-triton"

    def __init__(self, part=0, parts=1):
        import spconv_triton
        import spconv_triton.pytorch
        import torch
        import triton
        from spconv_triton.pytorch._impl import gemm

        self.torch, self.library, self.constants = torch, spconv_triton.pytorch, spconv_triton.constants

        def quick(call, quantiles=None, **_):
            return triton.testing.do_bench(call, warmup=1, rep=6, quantiles=quantiles)

        kernel = gemm._gather_gemm_kernel
        sizes = ("BLOCK_M", "BLOCK_N", "BLOCK_R")
        kernel.configs = [
            config
            for config in kernel.configs
            if (*(config.kwargs[size] for size in sizes), config.num_warps, config.num_stages) in SHAPES
            and config.kwargs["GROUP_SIZE_M"] in (4, 8)
        ][part::parts]
        gemm._dweight_masked_kernel.configs = gemm._dweight_masked_kernel.configs[part::parts]
        for tuned in (kernel, gemm._dweight_masked_kernel):
            tuned._do_bench = quick

    @classmethod
    def find(cls):
        """Return the peer, or None with the reason printed."""
        try:
            return cls()
        except Exception as failure:  # it may be there and not fit this machine
            print(f"{cls.NAME} is left out: {type(failure).__name__}: {failure}", file=sys.stderr)
            return None

    @staticmethod
    def versions():
        """Return the versions of what is installed of it."""
        found = {}
        for name in ("torch", "triton", "spconv-triton"):
            try:
                found[name] = version(name)
            except ImportError:
                continue
        return found

    def tensor(self, array):
        """Return an array on the GPU."""
        if array.dtype.name == "bfloat16":
            return self.torch.from_numpy(array.view(np.int16)).cuda().view(self.torch.bfloat16)
        return self.torch.from_numpy(np.ascontiguousarray(array)).cuda()

    def sites(self, indices, shape, features):
        """Return its sparse tensor."""
        return self.library.SparseConvTensor(features, indices, list(shape), 1)

    def layer(self, kind, weight, bias=None, **geometry):
        """Return a layer with a weight of shape (K, C_in, C_out)."""
        kernel_size = geometry.pop("kernel_size", (3, 3, 3))
        c_in, c_out = weight.shape[1:]
        layer = getattr(self.library, kind)(c_in, c_out, list(kernel_size), bias=bias is not None, **geometry)
        layer = layer.cuda().to(weight.dtype).eval()
        with self.torch.no_grad():
            layer.weight.copy_(weight.reshape(*kernel_size, c_in, c_out).permute(4, 0, 1, 2, 3))
            if bias is not None:
                layer.bias.copy_(bias)
        return layer

    def conv(self, indices, shape, kind, features, weight, math):
        """Return a convolution's call, its pairs made before, and the sites of its output."""
        torch, library = self.torch, self.library
        self.constants.SPCONV_ALLOW_TF32 = math == "tf32"
        weight, features = self.tensor(weight), self.tensor(features)
        indices = self.tensor(indices)
        with torch.no_grad():
            if kind == "subm":
                layer = self.layer("SubMConv3d", weight, padding=1, indice_key="a")
                x = layer(self.sites(indices, shape, features)).replace_feature(features)
            else:
                layer = self.layer("SparseConv3d", weight, stride=2, padding=1, indice_key="a")
                blank = features.new_zeros((len(indices), features.shape[1]))
                x = self.sites(indices, shape, features if kind == "stride 2" else blank)
                if kind == "stride 2":
                    x.indice_dict = layer(x).indice_dict
                else:
                    x = layer(x)
                    found = x.indices.cpu().numpy()
                    rank = np.empty(len(found), np.int64)
                    rank[np.lexsort(found.T[::-1])] = np.arange(
                        len(found)
                    )  # features come in ascending order
                    x = x.replace_feature(features[torch.from_numpy(rank).cuda()])
                    layer = self.layer("SparseInverseConv3d", weight, indice_key="a")

            def call():
                with torch.no_grad():
                    return layer(x).features

            out = layer(x).indices.cpu().numpy()
        assert isinstance(layer, library.SparseModule)
        return call, out

    def pairs(self, indices, shape, kind):
        """Return the call that makes pairs from sites."""
        from spconv_triton.core import ConvAlgo
        from spconv_triton.pytorch import ops

        indices, subm = self.tensor(indices), kind == "subm"
        stride = [1 if subm else 2] * 3
        sizes = [3] * 3, stride, [1] * 3, [1] * 3, [0] * 3
        options = {"subm": subm, "transpose": kind == "transposed", "is_train": False}
        algo = ConvAlgo.MaskImplicitGemm
        return lambda: ops.get_indice_pairs_implicit_gemm(indices, 1, list(shape), algo, *sizes, **options)

    def gradients(self, indices, shape, features, weight, dy, math):
        """Return a convolution with its gradients by features and weight, the pairs made before."""
        self.constants.SPCONV_ALLOW_TF32 = math == "tf32"
        features = self.tensor(features).requires_grad_()
        layer = self.layer("SubMConv3d", self.tensor(weight), padding=1, indice_key="a").train()
        x = layer(self.sites(self.tensor(indices), shape, features)).replace_feature(features)
        dy = self.tensor(dy)
        return lambda: self.torch.autograd.grad(layer(x).features, (features, layer.weight), dy)

    def network(self, indices, shape, features, parameters):
        """Return VoxelBackBone8x from sites to output."""
        torch, layers, level = self.torch, [], 0
        for layer, (weight, bias) in zip(LAYERS, parameters, strict=True):
            weight = self.tensor(weight.reshape(-1, layer.c_in, layer.c_out))
            geometry = {"kernel_size": layer.kernel_size, "padding": layer.padding}
            if layer.stride is None:
                geometry |= {"padding": 1, "indice_key": f"subm{level}"}
            else:
                level += 1
                geometry |= {"stride": list(layer.stride), "indice_key": f"down{level}"}
            kind = "SubMConv3d" if layer.stride is None else "SparseConv3d"
            geometry["padding"] = list(np.broadcast_to(geometry["padding"], 3))
            layers.append(self.layer(kind, weight, self.tensor(bias), **geometry))
        indices, features = self.tensor(indices), self.tensor(features)

        def call():
            with torch.no_grad():
                x = self.sites(indices, shape, features)
                for layer in layers:
                    x = layer(x)
                    x = x.replace_feature(torch.relu(x.features))
                return x

        return call

    def dense(self, coords, features, weight):
        """Return torch's convolution of the dense grid."""
        torch = self.torch
        channels = features.shape[1]
        grid = torch.zeros((1, channels, *coords.shape), dtype=self.tensor(features[:1]).dtype, device="cuda")
        batch, *cells = self.tensor(coords.indices.get()).long().T
        grid[batch, :, *cells] = self.tensor(features)
        kernel = self.tensor(weight).reshape(3, 3, 3, channels, channels).permute(4, 3, 0, 1, 2).contiguous()

        def call():
            with torch.no_grad():
                return torch.nn.functional.conv3d(grid, kernel, padding=1)

        return call


def warm(cases):
    """Compile its kernels for (math, channels in, channels out, with gradients) in many processes."""
    import multiprocessing
    import os

    tasks = [(case, part) for case, part in product(cases, range(PARTS))]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for failure in pool.imap_unordered(_warm, tasks):
            if failure:
                print(failure, file=sys.stderr)


def _warm(task):
    (math, c_in, c_out, gradients), part = task
    try:
        peer = Peer(part, PARTS)
        rng = np.random.default_rng(0)
        indices = np.unique(np.column_stack([np.zeros(900, int), rng.integers(0, 20, (900, 3))]), axis=0)[
            :501
        ]
        dtype = np.dtype(np.float16 if math == "float16" else np.float32)
        x, w = (rng.standard_normal(size).astype(dtype) for size in ((501, c_in), (27, c_in, c_out)))
        if math == "bfloat16":
            from ml_dtypes import bfloat16

            x, w = x.astype(bfloat16), w.astype(bfloat16)
        arguments = indices.astype(np.int32), (20, 20, 20)
        if gradients:
            peer.gradients(*arguments, x, w, x, math)()
        else:
            peer.conv(*arguments, "subm", x, w, math)[0]()
        peer.torch.cuda.synchronize()
    except Exception as failure:  # the rows will tell
        return f"{Peer.NAME}, {task}: {type(failure).__name__}: {str(failure)[:300]}"
    return None
