import spcy

from .common import CHANNELS, DTYPES, Suite, random, tensor, weight


class Submanifold(Suite, channels=CHANNELS, dtype=DTYPES):
    """3x3x3 on 100,000 sites of the street, the rulebook ready: all gradients."""

    def prepare(self, channels, dtype):
        self.x, self.dy = (tensor("street", 100_000, channels, dtype) for _ in range(2))
        self.weight, self.bias = weight(channels, channels, dtype=dtype), random((channels,), dtype)
        self.vjp = self.forward()
        self.time_backward()

    def forward(self):
        return spcy.vjp(spcy.subm_conv, self.x, self.weight, self.bias)[1]

    def time_backward(self, *_):
        self.vjp(self.dy.features)

    def track_gflops(self, channels, *_):
        """Of the three products of forward and backward: the best of five."""
        seconds = []
        for _ in range(5):
            start = self.timer()
            self.forward()(self.dy.features)
            seconds.append(self.timer() - start)
        pairs = spcy.submanifold_rulebook(self.x.coords, spcy.kernel_offsets((3, 3, 3)) - 1).num_pairs
        return 6 * pairs * channels**2 / min(seconds) / 1e9

    track_gflops.unit = "GFLOP/s"


class Kinds(Suite, scene=["street", "surface"]):
    """The gradients of other operations on 100,000 sites of 32 channels, the rulebooks ready."""

    def prepare(self, scene):
        fine, narrow, wide = tensor(scene, 100_000, 32), weight(32, 64), weight(64, 32)
        coarse, self.stride_2 = spcy.vjp(spcy.conv, fine, narrow, stride=2, padding=1)
        self.dcoarse, self.dfine = coarse.features, fine.features
        _, self.inverse = spcy.vjp(spcy.inverse_conv, coarse, wide)
        pooled, self.max_pool = spcy.vjp(spcy.max_pool, fine, 2)
        _, self.avg_pool = spcy.vjp(spcy.avg_pool, fine, 2)
        self.dpooled = pooled.features
        for time_one in (self.time_stride_2, self.time_inverse, self.time_max_pool, self.time_avg_pool):
            time_one()

    def time_stride_2(self, *_):
        self.stride_2(self.dcoarse)

    def time_inverse(self, *_):
        self.inverse(self.dfine)

    def time_max_pool(self, *_):
        self.max_pool(self.dpooled)

    def time_avg_pool(self, *_):
        self.avg_pool(self.dpooled)
