from functools import cache
from typing import NamedTuple

import numpy as np

import spcy
from spcy.scan import read_scan

from .common import SITES, Suite, place, random
from .scenes import scene


class Layer(NamedTuple):
    """A convolution and its ReLU; without a stride it is a submanifold one."""

    c_in: int
    c_out: int
    kernel_size: tuple = (3, 3, 3)
    stride: tuple | None = None
    padding: tuple = (0, 0, 0)


# VoxelBackBone8x of OpenPCDet, the backbone of SECOND, PV-RCNN and CenterPoint.
LAYERS = (
    Layer(4, 16),
    Layer(16, 16),
    Layer(16, 32, stride=(2, 2, 2), padding=(1, 1, 1)),
    *[Layer(32, 32)] * 2,
    Layer(32, 64, stride=(2, 2, 2), padding=(1, 1, 1)),
    *[Layer(64, 64)] * 2,
    Layer(64, 64, stride=(2, 2, 2), padding=(0, 1, 1)),
    *[Layer(64, 64)] * 2,
    Layer(64, 128, kernel_size=(3, 1, 1), stride=(2, 1, 1)),
)
HIGH = 41  # the fewest cells of the grid along z: KITTI's 40 and one more


def conv_relu(conv, x, weight, bias, **geometry):
    """Return the ReLU of a convolution."""
    return conv(x, weight, bias, activation="relu", **geometry)


@cache
def parameters(dtype="float32"):
    """Return the weight and the bias of each layer, a batch norm folded into them."""
    made = []
    for number, layer in enumerate(LAYERS):
        weight = random((*layer.kernel_size, layer.c_in, layer.c_out), seed=number)
        spread = (2 / (layer.c_in * np.prod(layer.kernel_size) / 2)) ** 0.5
        bias = random((layer.c_out,), seed=100 + number) / 10
        made.append((place(weight * np.float32(spread), dtype), place(bias, dtype)))
    return made


def backbone(x, parameters):
    """Run the network."""
    for layer, (weight, bias) in zip(LAYERS, parameters, strict=True):
        if layer.stride is None:
            x = conv_relu(spcy.subm_conv, x, weight, bias)
        else:
            x = conv_relu(spcy.conv, x, weight, bias, stride=layer.stride, padding=layer.padding)
    return x


def coords(name, num_sites):
    """Return new coords of a scene, on a grid that is high enough."""
    indices, shape = scene(name, num_sites)
    return spcy.Coords(indices, (max(shape[0], HIGH), *shape[1:]))


def scan_coords(file, voxel, limits=None):
    """Return the coords of a scan's voxels, on the grid of some limits (z y x twice) or around them."""
    points = read_scan(file).points[:, ::-1]  # z, y, x
    bounds = limits and (limits[:3], limits[3:])
    found = spcy.voxelize(points, voxel, bounds=bounds).tensor.coords
    indices, shape = found.indices.copy(), found.shape
    if shape is None:
        indices[:, 1:] -= indices[:, 1:].min(axis=0)
        shape = indices[:, 1:].max(axis=0) + 1
        shape[0] = max(HIGH, shape[0])
    else:
        shape = (shape[0] + 1, *shape[1:])  # as OpenPCDet has it
    return spcy.Coords(indices, shape, 1)


@cache
def warm_coords(name, num_sites):
    """Return coords that have all rulebooks."""
    warm = coords(name, num_sites)
    run(warm)
    return warm


def run(sites):
    return backbone(spcy.SparseTensor(sites, random((len(sites), 4))), parameters())


class VoxelBackBone8x(Suite, scene=["street", "scan"], sites=SITES):
    """From sites to the output, with building coords and rulebooks, and with these ready."""

    def prepare(self, name, sites):
        self.ready = warm_coords(name, sites)

    def time_all(self, name, sites, *_):
        run(coords(name, sites))

    def time_rulebooks_ready(self, *_):
        run(self.ready)


class Memory(Suite, sites=SITES):
    """Of the network on a surface."""

    def prepare(self, sites):
        scene("surface", sites), random((sites, 4)), parameters()

    def peakmem_all(self, sites, *_):
        run(coords("surface", sites))

    def peakmem_reference(self, *_):
        """What `setup` alone takes: asv counts it in the other."""
