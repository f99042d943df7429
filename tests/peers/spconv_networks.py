"""The lidar backbones and MinkUNet in spconv itself; run as a script, it writes what `tests/data` keeps.

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


class UNetBlock(spconv.SparseModule):
    def __init__(self, a, b, level):
        super().__init__()
        self.conv1, self.norm1 = subm(a, b, level), nn.BatchNorm1d(b)
        self.conv2, self.norm2 = subm(b, b, level), nn.BatchNorm1d(b)
        if a != b:
            shortcut = spconv.SubMConv3d(a, b, 1, bias=False)
            self.downsample = spconv.SparseSequential(shortcut, nn.BatchNorm1d(b))

    def forward(self, x):
        added = self.downsample(x) if hasattr(self, "downsample") else x
        y = self.conv1(x)
        y = self.conv2(y.replace_feature(self.norm1(y.features).relu()))
        return y.replace_feature((self.norm2(y.features) + added.features).relu())


class MinkUNet14A(nn.Module):
    """MinkowskiEngine's network and names; spconv has its sites where kernels are as long as strides."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv0p1s1, self.bn0 = stem(in_channels, 32), nn.BatchNorm1d(32)
        channels, planes = [32], (32, 64, 128, 256, 128, 128, 96, 96)
        for i in range(4):
            a = channels[-1]
            down = spconv.SparseConv3d(a, a, 2, 2, bias=False, indice_key=f"down{i}")
            setattr(self, f"conv{i + 1}p{2**i}s2", down)
            setattr(self, f"bn{i + 1}", nn.BatchNorm1d(a))
            setattr(self, f"block{i + 1}", nn.ModuleList([UNetBlock(a, planes[i], f"subm{i + 1}")]))
            channels.append(planes[i])
        a = channels[-1]
        for i, skip in zip(range(4, 8), channels[3::-1], strict=True):
            up = spconv.SparseInverseConv3d(a, planes[i], 2, bias=False, indice_key=f"down{7 - i}")
            setattr(self, f"convtr{i}p{2 ** (8 - i)}s2", up)
            setattr(self, f"bntr{i}", nn.BatchNorm1d(planes[i]))
            block = UNetBlock(planes[i] + skip, planes[i], f"subm{7 - i}")
            setattr(self, f"block{i + 1}", nn.ModuleList([block]))
            a = planes[i]
        self.final = spconv.SubMConv3d(a, out_channels, 1)

    def step(self, x, conv, norm):
        y = getattr(self, conv)(x)
        return y.replace_feature(getattr(self, norm)(y.features).relu())

    def forward(self, x):
        x = self.step(x, "conv0p1s1", "bn0")
        skips = []
        for i in range(4):
            skips.append(x)
            x = self.step(x, f"conv{i + 1}p{2**i}s2", f"bn{i + 1}")
            x = getattr(self, f"block{i + 1}")[0](x)
        for i in range(4, 8):
            x = self.step(x, f"convtr{i}p{2 ** (8 - i)}s2", f"bntr{i}")
            x = x.replace_feature(torch.cat([x.features, skips.pop().features], dim=1))
            x = getattr(self, f"block{i + 1}")[0](x)
        return {"output": self.final(x)}


def stem(a, b):
    return spconv.SubMConv3d(a, b, 5, padding=2, bias=False)


def run(case, make, in_channels, shape, num_sites, seed):
    """Return spconv's outputs for the seeded weights and scene, and the state that it had."""
    torch.set_num_threads(1)  # with more, its CPU kernels race
    net = make().eval()
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
    "VoxelBackBone8x": (partial(Backbone, 4, False), 4, (41, 24, 24), 30, 1),
    "VoxelResBackBone8x": (partial(Backbone, 5, True), 5, (41, 24, 24), 20, 2),
}
U_NETS = {"MinkUNet14A": (partial(MinkUNet14A, 3, 5), 3, (32, 32, 48), 60, 3)}

if __name__ == "__main__":
    arrays = {}
    for case, arguments in (CASES | U_NETS).items():
        arrays |= run(case, *arguments)[0]
    np.savez_compressed(Path(sys.argv[1]) / "spconv_networks.npz", **arrays)
