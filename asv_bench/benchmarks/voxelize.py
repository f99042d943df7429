from functools import cache

import spcy

from .common import SITES, Suite, place
from .scenes import points, voxel_size


@cache
def placed_points(scene, num_points):
    return place(points(scene, num_points), "float32")


class Voxels(Suite, scene=["street", "scan"], points=SITES):
    """Points to sites and back."""

    def prepare(self, scene, num_points):
        self.points, self.voxel_size = placed_points(scene, num_points), voxel_size(scene)
        self.tensor = spcy.voxelize(self.points, self.voxel_size).tensor
        spcy.devoxelize(self.tensor, self.points[:1])  # builds the coordinate hash

    def time_voxelize(self, *_):
        spcy.voxelize(self.points, self.voxel_size)

    def time_devoxelize_nearest(self, *_):
        spcy.devoxelize(self.tensor, self.points)

    def time_devoxelize_linear(self, *_):
        spcy.devoxelize(self.tensor, self.points, "linear")
