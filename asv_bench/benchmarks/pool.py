import spcy

from .common import SITES, THREADS, Threaded, tensor


class Pool(Threaded):
    """2x2x2 pools of 32 channels with the rulebook ready, and global ones."""

    params = [SITES, THREADS]
    param_names = ["sites", "threads"]

    def setup(self, sites, threads):
        self.set_threads(threads)
        self.x = tensor(sites, 32)
        self.y = spcy.max_pool(self.x, 2)

    def time_max(self, sites, threads):
        spcy.max_pool(self.x, 2)

    def time_avg(self, sites, threads):
        spcy.avg_pool(self.x, 2)

    def time_unpool(self, sites, threads):
        spcy.unpool(self.y)

    def time_global_avg(self, sites, threads):
        spcy.global_avg_pool(self.x)
