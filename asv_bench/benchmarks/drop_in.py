"""spcy.torch.spconv: what a layer costs over spcy's own call, and a whole network."""

from functools import cache

import spcy

from .common import SITES, Suite, random, tensor
from .network import LAYERS, warm_coords

try:
    import torch

    import spcy.torch.spconv as spconv
except ImportError:
    torch = None


class TorchSuite(Suite):
    """Benchmarks of CPU tensors, left out where PyTorch is not installed."""

    def setup(self, *values):
        if torch is None:
            raise NotImplementedError("PyTorch is not installed")
        super().setup(*values)
        if self.backend != "cpu":
            raise NotImplementedError("tensors on the CPU only")
        torch.set_num_threads(self.threads)


class Layer(TorchSuite):
    """A 3x3x3 submanifold convolution of 100 sites and 16 channels: what it costs is the way there."""

    def prepare(self):
        self.array = tensor("street", 100, 16)
        self.weight = random((3, 3, 3, 16, 16))
        self.layer = spconv.SubMConv3d(16, 16, 3, bias=False, indice_key="a")
        indices = torch.from_numpy(self.array.indices.copy())
        shape = list(self.array.shape)
        features = torch.from_numpy(self.array.features)
        self.x = spconv.SparseConvTensor(features, indices, shape, self.array.batch_size)
        self.x = self.layer(self.x).replace_feature(features)  # with its key
        self.leaf = features.clone().requires_grad_()
        self.y = self.layer(self.x.replace_feature(self.leaf)).features
        _, self.vjp = spcy.vjp(spcy.subm_conv, self.array, self.weight)

    def time_spcy_forward(self, *_):
        """What the next two are compared with."""
        spcy.subm_conv(self.array, self.weight)

    def time_forward_without_gradients(self, *_):
        with torch.no_grad():
            self.layer(self.x)

    def time_forward(self, *_):
        self.layer(self.x)

    def time_spcy_backward(self, *_):
        """What the next is compared with."""
        self.vjp(self.array.features)

    def time_backward(self, *_):
        inputs = self.leaf, self.layer.weight
        torch.autograd.grad(self.y, inputs, self.x.features, retain_graph=True)


@cache
def backbone():
    """Return VoxelBackBone8x of spconv's modules."""
    layers = []
    for number, layer in enumerate(LAYERS):
        if layer.stride is None:
            conv = spconv.SubMConv3d(
                layer.c_in, layer.c_out, 3, bias=False, indice_key=f"s{layer.c_in}{number // 3}"
            )
        else:
            shape = layer.kernel_size, layer.stride, layer.padding
            conv = spconv.SparseConv3d(layer.c_in, layer.c_out, *shape, bias=False, indice_key=f"d{number}")
        layers += [conv, torch.nn.BatchNorm1d(layer.c_out, eps=1e-3, momentum=0.01), torch.nn.ReLU()]
    torch.manual_seed(0)
    return spconv.SparseSequential(*layers)


class Network(TorchSuite, scene=["street"], sites=SITES):
    """VoxelBackBone8x, its rulebooks ready: in eval mode, fused, and a step of training."""

    def prepare(self, name, sites):
        self.net = backbone()
        made = warm_coords(name, sites)
        indices = torch.from_numpy(made.indices.copy())
        features = torch.from_numpy(random((sites, 4)))
        self.x = spconv.SparseConvTensor(features, indices, list(made.shape), made.batch_size)
        self.optimizer = torch.optim.SGD(self.net.parameters(), 1e-4)
        self.time_inference()

    def time_inference(self, *_):
        self.net.eval()
        with torch.no_grad():
            self.net(self.x)

    def time_training_step(self, *_):
        self.net.train()
        self.optimizer.zero_grad()
        self.net(self.x).features.square().mean().backward()
        self.optimizer.step()
