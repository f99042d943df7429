import spcy

from .common import CHANNELS, DTYPES, SITES, Suite, tensor, weight
from .scenes import SCENES


class Submanifold(Suite, channels=CHANNELS, dtype=DTYPES):
    """3x3x3 on 100,000 sites of the street, the rulebook ready."""

    def prepare(self, channels, dtype):
        self.x = tensor("street", 100_000, channels, dtype)
        self.weight = weight(channels, channels, dtype=dtype)
        self.run()

    def run(self):
        return spcy.subm_conv(self.x, self.weight)

    def time_conv(self, *_):
        self.run()

    def track_gflops(self, channels, *_):
        """The best of five."""
        seconds = []
        for _ in range(5):
            start = self.timer()
            self.run()
            seconds.append(self.timer() - start)
        pairs = spcy.submanifold_rulebook(self.x.coords, spcy.kernel_offsets((3, 3, 3)) - 1).num_pairs
        return 2 * pairs * channels**2 / min(seconds) / 1e9

    track_gflops.unit = "GFLOP/s"


class Kinds(Suite, scene=SCENES, sites=SITES):
    """Every convolution between 32 and 64 channels, the rulebooks ready."""

    def prepare(self, scene, sites):
        self.fine, self.narrow = tensor(scene, sites, 32), weight(32, 64)
        self.coarse, self.wide = spcy.conv(self.fine, self.narrow, stride=2, padding=1), weight(64, 32)
        self.box = weight(64, 32, kernel_size=(2, 2, 2))

    def time_submanifold(self, *_):
        spcy.subm_conv(self.fine, self.narrow)

    def time_stride_2(self, *_):
        spcy.conv(self.fine, self.narrow, stride=2, padding=1)

    def time_inverse(self, *_):
        spcy.inverse_conv(self.coarse, self.wide)

    def time_transposed(self, *_):
        spcy.conv_transpose(self.coarse, self.box, stride=2)


class Grouped(Suite, channels=CHANNELS, dtype=DTYPES):
    """3x3x3 on 100,000 sites of the street, the rulebook ready: depthwise, and in groups of 16 channels."""

    def prepare(self, channels, dtype):
        self.x = tensor("street", 100_000, channels, dtype)
        self.depthwise, self.weight = weight(1, channels, dtype=dtype), weight(16, channels, dtype=dtype)
        self.time_depthwise()

    def time_depthwise(self, *_):
        spcy.subm_conv(self.x, self.depthwise, groups=self.x.num_channels)

    def time_groups_of_16(self, *_):
        spcy.subm_conv(self.x, self.weight, groups=self.x.num_channels // 16)


class Calls(Suite, sites=[1, 1000]):
    """A hundred calls on few sites of 16 channels: what a call costs."""

    def prepare(self, sites):
        self.x, self.weight = tensor("street", sites, 16), weight(16, 16)
        self.time_100_calls()

    def time_100_calls(self, *_):
        for _ in range(100):
            spcy.subm_conv(self.x, self.weight)


class Memory(Suite, channels=CHANNELS):
    """Of a submanifold convolution of a surface of 100,000 sites, the rulebook ready."""

    def prepare(self, channels):
        self.x, self.weight = tensor("surface", 100_000, channels), weight(channels, channels)
        spcy.submanifold_rulebook(self.x.coords, spcy.kernel_offsets((3, 3, 3)) - 1)

    def peakmem_conv(self, *_):
        spcy.subm_conv(self.x, self.weight)

    def peakmem_reference(self, *_):
        """What `setup` alone takes: asv counts it in the other."""
