import spcy

from .common import CHANNELS, SITES, THREADS, Threaded, tensor, weight


class Submanifold(Threaded):
    """3x3x3, the rulebook ready."""

    params = [SITES, CHANNELS, ["float32", "float64"], THREADS]
    param_names = ["sites", "channels", "dtype", "threads"]

    def setup(self, sites, channels, dtype, threads):
        self.set_threads(threads)
        self.x = tensor(sites, channels, dtype)
        self.weight = weight((3, 3, 3), channels, channels, dtype)
        spcy.subm_conv(self.x, self.weight)

    def time_conv(self, sites, channels, dtype, threads):
        spcy.subm_conv(self.x, self.weight)


class Strided(Threaded):
    """Stride 2, 32 -> 64 channels, and the inverse back; the rulebooks ready."""

    params = [SITES, THREADS]
    param_names = ["sites", "threads"]

    def setup(self, sites, threads):
        self.set_threads(threads)
        self.x = tensor(sites, 32)
        self.down, self.up = weight((3, 3, 3), 32, 64), weight((3, 3, 3), 64, 32)
        self.y = spcy.conv(self.x, self.down, stride=2, padding=1)
        spcy.inverse_conv(self.y, self.up)

    def time_conv(self, sites, threads):
        spcy.conv(self.x, self.down, stride=2, padding=1)

    def time_inverse(self, sites, threads):
        spcy.inverse_conv(self.y, self.up)


class Small:
    """What a call costs: a thousand sites, one site."""

    params = [[1, 1000]]
    param_names = ["sites"]

    def setup(self, sites):
        x = tensor(max(sites, 100), 16)
        self.x = spcy.prune(x, [row < sites for row in range(x.num_sites)])
        self.weight = weight((3, 3, 3), 16, 16)
        spcy.subm_conv(self.x, self.weight)

    def time_call(self, sites):
        spcy.subm_conv(self.x, self.weight)
