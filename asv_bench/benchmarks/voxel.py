import spcy

from .common import SITES, THREADS, Threaded, points


class Voxels(Threaded):
    """Points to sites of 0.1 m and back."""

    params = [SITES, THREADS]
    param_names = ["points", "threads"]

    def setup(self, num_points, threads):
        self.set_threads(threads)
        self.points = points(num_points)
        self.tensor = spcy.voxelize(self.points, 0.1).tensor
        spcy.devoxelize(self.tensor, self.points)

    def time_voxelize(self, num_points, threads):
        spcy.voxelize(self.points, 0.1)

    def time_devoxelize_nearest(self, num_points, threads):
        spcy.devoxelize(self.tensor, self.points)

    def time_devoxelize_linear(self, num_points, threads):
        spcy.devoxelize(self.tensor, self.points, "linear")
