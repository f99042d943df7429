"""The lidar backbones in spconv itself; run as a script, it writes what `tests/data` keeps of them.

PYTHONPATH=. python tests/peers/spconv_networks.py tests/data
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import seeded
import spconv.pytorch as spconv
import torch
from torch import nn

Norm = partial(nn.BatchNorm1d, eps=1e-3, momentum=0.01)


def step(conv):
    return spconv.SparseSequential(conv, Norm(conv.out_channels), nn.ReLU())


def subm(a, b, level, bias=False):
    return spconv.SubMConv3d(a, b, 3, padding=1, bias=bias, indice_key=level)


class Block(spconv.SparseModule):
    def __init__(self, a, level):
        super().__init__()
        self.conv1, self.bn1 = subm(a, a, level, bias=True), Norm(a)
        self.conv2, self.bn2 = subm(a, a, level, bias=True), Norm(a)

    def forward(self, x):
        y = self.conv1(x)
        y = self.conv2(y.replace_feature(self.bn1(y.features).relu()))
        return y.replace_feature((self.bn2(y.features) + x.features).relu())


class Backbone(nn.Module):
    def __init__(self, in_channels, residual):
        super().__init__()
        channels = (16, 32, 64, 128 if residual else 64)
        self.conv_input = step(subm(in_channels, 16, "1"))
        for level, (a, b) in enumerate(zip((16, *channels), channels, strict=False), 1):
            layers = []
            if level > 1:
                padding = (0, 1, 1) if level == 4 else 1
                conv = spconv.SparseConv3d(a, b, 3, 2, padding, bias=False, indice_key=f"down{level}")
                layers.append(step(conv))
            for _ in range(1 if level == 1 and not residual else 2):
                layers.append(Block(b, str(level)) if residual else step(subm(b, b, str(level))))
            setattr(self, f"conv{level}", spconv.SparseSequential(*layers))
        self.conv_out = step(spconv.SparseConv3d(channels[3], 128, (3, 1, 1), (2, 1, 1), bias=False))

    def forward(self, x):
        x = self.conv_input(x)
        levels = {}
        for level in range(1, 5):
            x = levels[f"x_conv{level}"] = getattr(self, f"conv{level}")(x)
        return {"output": self.conv_out(x), **levels}


def run(case, in_channels, residual, shape, num_sites, seed):
    """Return spconv's outputs for the seeded weights and scene, and the state that it had."""
    torch.set_num_threads(1)  # with more, its CPU kernels race
    net = Backbone(in_channels, residual).eval()
    shapes = {name: tuple(t.shape) for name, t in net.state_dict().items() if t.ndim}
    state = {name: torch.from_numpy(array) for name, array in seeded.state(shapes, seed).items()}
    net.load_state_dict(state, strict=False)
    for module in net.modules():  # its CPU kernels have no bias, which it adds by itself in training
        if isinstance(module, spconv.SubMConv3d):
            module.train()
    indices, features = seeded.scene(shape, num_sites, in_channels, seed)
    x = spconv.SparseConvTensor(torch.from_numpy(features), torch.from_numpy(indices), list(shape), 2)
    with torch.no_grad():
        outputs = net(x)
    arrays = {}
    for name, y in outputs.items():
        arrays[f"{case}/{name}_indices"] = y.indices.numpy().astype(np.int16)
        arrays[f"{case}/{name}_features"] = y.features.numpy()
    return arrays, net.state_dict()


CASES = {
    "VoxelBackBone8x": (4, False, (41, 24, 24), 30, 1),
    "VoxelResBackBone8x": (5, True, (41, 24, 24), 20, 2),
}

if __name__ == "__main__":
    arrays = {}
    for case, arguments in CASES.items():
        arrays |= run(case, *arguments)[0]
    np.savez_compressed(Path(sys.argv[1]) / "spconv_backbones.npz", **arrays)
