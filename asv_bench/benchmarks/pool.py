import spcy

from .common import SITES, Suite, tensor


class Pool(Suite, sites=SITES):
    """2x2x2 pools of 32 channels of the street with the rulebook ready, and a global one."""

    def prepare(self, sites):
        self.x = tensor("street", sites, 32)
        self.y = spcy.max_pool(self.x, 2)

    def time_max(self, *_):
        spcy.max_pool(self.x, 2)

    def time_avg(self, *_):
        spcy.avg_pool(self.x, 2)

    def time_unpool(self, *_):
        spcy.unpool(self.y)

    def time_global_avg(self, *_):
        spcy.global_avg_pool(self.x)
