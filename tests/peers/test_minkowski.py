"""`spcy.torch.minkowski` beside MinkowskiEngine 0.5.4 itself, where it is built: outputs and gradients.

PYTHONPATH=. pytest tests/peers/test_minkowski.py, with the Python that has MinkowskiEngine. Its examples are
looked for below the folder that MINKOWSKI_ENGINE_SOURCE names.
"""

import importlib.util
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
theirs = pytest.importorskip("MinkowskiEngine", reason="MinkowskiEngine is not installed here")
import MinkowskiEngine.modules.resnet_block  # noqa: E402
import MinkowskiEngine.modules.senet_block  # noqa: E402

import spcy.torch.minkowski as ours  # noqa: E402

if not theirs.__file__.endswith(f"MinkowskiEngine{os.sep}__init__.py"):
    pytest.skip("MinkowskiEngine is spcy's here", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")
SOURCE = os.environ.get("MINKOWSKI_ENGINE_SOURCE")
CHANNELS = 3


def scene(ndim=3, step=1, off=False, batches=(0, 1), num=60, reach=None, seed=0):
    """Return features and distinct coordinates, some negative; `off`: no multiples of the tensor stride."""
    rng = np.random.default_rng(seed)
    reach = {1: 20, 2: 7, 3: 4, 4: 3}[ndim] if reach is None else reach
    cells = rng.integers(-reach, reach + 1, (num, ndim)) * np.array(step)
    cells += rng.integers(0, 2, cells.shape) if off else 0
    cells = np.concatenate([rng.choice(batches, (num, 1)), cells], 1)
    cells = np.unique(cells, axis=0)
    rng.shuffle(cells)
    features = torch.from_numpy(rng.standard_normal((len(cells), CHANNELS)))
    return features, torch.from_numpy(cells.astype(np.int32))


def by_coordinates(coordinates, values):
    """Return rows in the order of their coordinates, and these."""
    coordinates = coordinates.detach().numpy()
    order = np.lexsort(coordinates.T[::-1])
    return coordinates[order], values.detach().numpy()[order]


def loss_of(y):
    """Return a sum of the outputs whose weights depend on coordinates alone."""
    if isinstance(y, torch.Tensor):
        weights = torch.arange(y.numel(), dtype=torch.float64).reshape(y.shape)
        return (y * torch.cos(weights)).sum()
    places = y.C.double() @ torch.arange(1, y.C.shape[1] + 1, dtype=torch.float64)
    weights = torch.cos(places[:, None] + torch.arange(y.F.shape[1]))
    # The least number, which empty windows of maximum pools have, would leave nothing of the others.
    return (y.F.clamp(min=-1e6) * weights).sum()


def outputs(y):
    return list(y) if isinstance(y, (tuple, list)) else [y]


def assert_close(mine, peer, atol):
    assert mine.shape == peer.shape
    scale = max(1.0, np.abs(peer[np.abs(peer) < 1e30]).max(initial=0))
    np.testing.assert_allclose(mine, peer, rtol=1e-10 if atol < 1e-6 else 1e-5, atol=atol * scale)


def assert_same(mine, peer, atol=1e-10):
    """Same sites, tensor strides and features."""
    if isinstance(peer, torch.Tensor):
        assert_close(mine.detach().numpy(), peer.detach().numpy(), atol)
        return
    assert type(mine).__name__ == type(peer).__name__
    assert mine.tensor_stride == peer.tensor_stride
    (sites, values), (their_sites, their_values) = (by_coordinates(y.C, y.F) for y in (mine, peer))
    np.testing.assert_array_equal(sites, their_sites)
    assert_close(values, their_values, atol)


def side_by_side(make, features, coordinates, step=1, atol=1e-10, train=True):
    """Run a network of both on the same input with the same weights; compare outputs and gradients."""
    torch.manual_seed(0)
    nets = [make(engine).to(features.dtype).train(train) for engine in (theirs, ours)]
    nets[1].load_state_dict(nets[0].state_dict())
    results = []
    for engine, net in zip((theirs, ours), nets, strict=True):
        leaf = features.clone().requires_grad_()
        x = engine.SparseTensor(leaf, coordinates, tensor_stride=step)
        torch.manual_seed(1)  # for dropout
        out = outputs(net(x))
        sum(loss_of(y).to(torch.float64) for y in out).backward()
        grads = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
        results.append((out, leaf.grad, grads))
    (their_out, their_grad, their_grads), (out, grad, grads) = results
    for mine, peer in zip(out, their_out, strict=True):
        assert_same(mine, peer, atol)
    grads[""], their_grads[""] = grad, their_grad
    for name in {*grads, *their_grads} if atol < 1e-6 else grads.keys() & their_grads.keys():
        mine, peer = grads.get(name), their_grads.get(name)  # none where nothing met, with one of them zeros
        mine, peer = (torch.zeros(1) if each is None else each for each in (mine, peer))
        mine, peer = torch.broadcast_tensors(mine, peer)
        assert_close(mine.numpy(), peer.numpy(), atol)
    return out


class Net(torch.nn.Module):
    """Layers, and what is done with them."""

    def __init__(self, forward, *layers):
        super().__init__()
        self.layers, self.run = torch.nn.ModuleList(layers), forward

    def forward(self, x):
        return self.run(x, *self.layers)


def conv(e, d, size=3, stride=1, c_in=CHANNELS, c_out=2, kind="MinkowskiConvolution", **more):
    kind = getattr(e, kind)
    return kind(c_in, c_out, kernel_size=size, stride=stride, bias=True, dimension=d, **more)


def cross(e, d, size=3, stride=1, dilation=1):
    return e.KernelGenerator(size, stride, dilation, region_type=e.RegionType.HYPER_CROSS, dimension=d)


def uneven(d, values):
    return list(values[:d])


UP = "MinkowskiConvolutionTranspose"
GENERATIVE = "MinkowskiGenerativeConvolutionTranspose"

# What a network of an engine e in d axes is made of; those named "up" need a tensor stride to go down from.
LAYERS = {
    "conv 3": lambda e, d: conv(e, d),
    "conv 2": lambda e, d: conv(e, d, 2),
    "conv 4": lambda e, d: conv(e, d, 4),
    "conv 1": lambda e, d: conv(e, d, 1),
    "conv 5 dilated": lambda e, d: conv(e, d, 5, dilation=2),
    "conv uneven": lambda e, d: conv(e, d, uneven(d, (3, 2, 1, 5)), dilation=uneven(d, (1, 3, 2, 1))),
    "conv 3 stride 2": lambda e, d: conv(e, d, 3, 2),
    "conv 2 stride 2": lambda e, d: conv(e, d, 2, 2),
    "conv 3 stride 3": lambda e, d: conv(e, d, 3, 3),
    "conv 3 stride 4": lambda e, d: conv(e, d, 3, 4),
    "conv 2 stride 2 dilated": lambda e, d: conv(e, d, 2, 2, dilation=2),
    "conv uneven stride": lambda e, d: conv(e, d, uneven(d, (3, 2, 5, 1)), uneven(d, (2, 3, 1, 2))),
    "conv 1 stride 2": lambda e, d: conv(e, d, 1, 2),
    "conv cross": lambda e, d: conv(e, d, kernel_generator=cross(e, d)),
    "conv cross 5 dilated stride": lambda e, d: conv(e, d, kernel_generator=cross(e, d, 5, 2, 3)),
    "expanding 3": lambda e, d: conv(e, d, 3, expand_coordinates=True),
    "expanding 2": lambda e, d: conv(e, d, 2, expand_coordinates=True),
    "expanding 3 stride 2": lambda e, d: conv(e, d, 3, 2, expand_coordinates=True),
    "expanding dilated": lambda e, d: conv(e, d, 3, dilation=2, expand_coordinates=True),
    "up 2 back": lambda e, d: Net(
        lambda x, down, up: up(down(x)), conv(e, d, 2, 2), conv(e, d, 2, 2, 2, 3, UP)
    ),
    "up 3 back": lambda e, d: Net(
        lambda x, down, up: up(down(x)), conv(e, d, 3, 2), conv(e, d, 3, 2, 2, 3, UP)
    ),
    "up uneven back": lambda e, d: Net(
        lambda x, down, up: up(down(x)),
        conv(e, d, uneven(d, (3, 2, 2, 1)), uneven(d, (2, 2, 1, 2))),
        conv(e, d, uneven(d, (2, 3, 1, 2)), uneven(d, (2, 2, 1, 2)), 2, 3, UP),
    ),
    "up twice, joined": lambda e, d: Net(
        lambda x, a, b, up, upper: (
            lambda y: (lambda z: upper(e.cat(up(z), y)))(b(y))
        )(a(x)),
        conv(e, d, 3, 2),
        conv(e, d, 3, 2, 2, 4),
        conv(e, d, 2, 2, 4, 3, UP),
        conv(e, d, 3, 2, 5, 2, UP),
    ),
    "up 1 stride 1": lambda e, d: conv(e, d, 1, 1, kind=UP),
    "up 3 stride 1": lambda e, d: conv(e, d, 3, 1, kind=UP),
    "up 2 new": lambda e, d: conv(e, d, 2, 2, kind=UP),
    "up 3 new": lambda e, d: conv(e, d, 3, 2, kind=UP),
    "generative 2": lambda e, d: conv(e, d, 2, 2, kind=GENERATIVE),
    "generative 3": lambda e, d: conv(e, d, 3, 2, kind=GENERATIVE),
    "generative uneven": lambda e, d: conv(
        e, d, uneven(d, (3, 2, 1, 2)), uneven(d, (2, 2, 1, 1)), kind=GENERATIVE
    ),
    "generative 3 stride 1": lambda e, d: conv(e, d, 3, 1, kind=GENERATIVE),
    "generative after down": lambda e, d: Net(
        lambda x, down, up: up(down(x)), conv(e, d, 2, 2), conv(e, d, 2, 2, 2, 3, GENERATIVE)
    ),
    "channelwise": lambda e, d: e.MinkowskiChannelwiseConvolution(
        CHANNELS, kernel_size=3, bias=True, dimension=d
    ),
    "channelwise stride": lambda e, d: e.MinkowskiChannelwiseConvolution(
        CHANNELS, kernel_size=2, stride=2, dilation=2, bias=True, dimension=d
    ),
    **{
        f"{kind} pool {size} stride {stride}": (
            lambda e, d, kind=kind, size=size, stride=stride: getattr(e, f"Minkowski{kind}Pooling")(
                size, stride, dimension=d
            )
        )
        for kind in ("Sum", "Avg", "Max")
        for size, stride in ((2, 2), (3, 3), (3, 2), (2, 3), (3, 1), (2, 1))
    },
    **{
        f"{kind} pool dilated": (
            lambda e, d, kind=kind: getattr(e, f"Minkowski{kind}Pooling")(3, 2, 2, dimension=d)
        )
        for kind in ("Sum", "Avg", "Max")
    },
    **{
        f"{kind} pool cross": (
            lambda e, d, kind=kind: getattr(e, f"Minkowski{kind}Pooling")(
                3, 2, kernel_generator=cross(e, d, 3, 2), dimension=d
            )
        )
        for kind in ("Sum", "Avg", "Max")
    },
    "up pool 2": lambda e, d: Net(
        lambda x, down, up: up(down(x)),
        e.MinkowskiSumPooling(2, 2, dimension=d),
        e.MinkowskiPoolingTranspose(2, 2, dimension=d),
    ),
    "up pool 3": lambda e, d: Net(
        lambda x, down, up: up(down(x)),
        e.MinkowskiAvgPooling(3, 3, dimension=d),
        e.MinkowskiPoolingTranspose(3, 3, dimension=d),
    ),
    "up pool 3 stride 2": lambda e, d: Net(
        lambda x, down, up: up(down(x)),
        e.MinkowskiAvgPooling(3, 2, dimension=d),
        e.MinkowskiPoolingTranspose(3, 2, dimension=d),
    ),
    "up pool 2 new": lambda e, d: e.MinkowskiPoolingTranspose(2, 2, dimension=d),
    "up pool expanding": lambda e, d: Net(
        lambda x, down, up: up(down(x)),
        e.MinkowskiAvgPooling(2, 2, dimension=d),
        e.MinkowskiPoolingTranspose(2, 2, expand_coordinates=True, dimension=d),
    ),
    **{
        f"global {kind}": lambda e, d, kind=kind: getattr(e, f"MinkowskiGlobal{kind}Pooling")()
        for kind in ("Sum", "Avg", "Max")
    },
    **{
        f"Broadcast{kind}": lambda e, d, kind=kind: Net(
            lambda x, pool, spread: spread(x, pool(x)),
            e.MinkowskiGlobalAvgPooling(),
            getattr(e, f"MinkowskiBroadcast{kind}")(),
        )
        for kind in ("", "Addition", "Multiplication", "Concatenation")
    },
    "instance norm": lambda e, d: e.MinkowskiInstanceNorm(CHANNELS),
    "batch norm": lambda e, d: e.MinkowskiBatchNorm(CHANNELS),
    "pruned, then conv": lambda e, d: Net(
        lambda x, prune, c: c(prune(x, (x.C.sum(1) % 2 == 0))), e.MinkowskiPruning(), conv(e, d)
    ),
    "pruned, then stride": lambda e, d: Net(
        lambda x, prune, c: c(prune(x, (x.C.sum(1) % 3 != 0))), e.MinkowskiPruning(), conv(e, d, 3, 2)
    ),
    "union": lambda e, d: Net(
        lambda x, a, b, union: union(a(x), b(x), x), conv(e, d, 2, c_out=3, expand_coordinates=True),
        conv(e, d, 3, c_out=3, expand_coordinates=True), e.MinkowskiUnion(),
    ),
    "sum over two maps": lambda e, d: Net(
        lambda x, a, b: [a(x) + b(x), a(x) - x, a(x) * b(x), x + x, x * x, x - x, x / (x * x + x)],
        conv(e, d, 2, c_out=3, expand_coordinates=True),
        conv(e, d, 3, c_out=3, expand_coordinates=True),
    ),
    "stacks": lambda e, d: Net(
        lambda x, *stacks: [s(x) for s in stacks],
        *(
            getattr(e, f"MinkowskiStack{kind}")(conv(e, d), conv(e, d, 1), conv(e, d, 5))
            for kind in ("Cat", "Sum", "Mean", "Var")
        ),
    ),
    "joins": lambda e, d: Net(lambda x, a, b: [e.cat(a(x), b(x)), e.mean(a(x), b(x)), e.var(a(x), b(x), a(x)),
                                               e.sum(a(x), b(x))], conv(e, d), conv(e, d, 1)),
    "non-linearities": lambda e, d: Net(
        lambda x, *each: [m(x) for m in each],
        *(
            getattr(e, f"Minkowski{kind}")()
            for kind in "ReLU ELU SELU CELU GELU SiLU Sigmoid Tanh Softplus LeakyReLU PReLU Hardswish Softsign "
            "LogSigmoid Hardshrink Softshrink Tanhshrink ReLU6 Hardtanh".split()
        ),
        e.MinkowskiSoftmax(dim=1),
        e.MinkowskiSinusoidal(CHANNELS, 4),
        e.MinkowskiLinear(CHANNELS, 5),
    ),
    "block": lambda e, d: e.modules.resnet_block.BasicBlock(CHANNELS, CHANNELS, dimension=d),
    "bottleneck": lambda e, d: e.modules.resnet_block.Bottleneck(
        CHANNELS, 2, stride=2, dimension=d, downsample=conv(e, d, 1, 2, CHANNELS, 8)
    ),
    "weighed block": lambda e, d: e.modules.senet_block.SEBasicBlock(CHANNELS, CHANNELS, reduction=1, D=d),
    "onto given sites": lambda e, d: Net(
        # The features alone: theirs are of a tensor stride 0 or 1, whatever the input's and the stride are.
        lambda x, c, p: [
            c(x, (x.C + torch.IntTensor([0, 1] + [0] * (d - 1))).contiguous()).F,
            p(x, (x.C[::2] + torch.IntTensor([0] * d + [1])).contiguous()).F,
        ],
        conv(e, d),
        e.MinkowskiAvgPooling(3, 1, dimension=d),
    ),
    "interpolation": lambda e, d: Net(
        lambda x, c, i: [i(x, points(d)), i(c(x), points(d)), x.features_at_coordinates(points(d))],
        conv(e, d, 3, 2),
        e.MinkowskiInterpolation(),
    ),
}


def points(d, num=40):
    rng = np.random.default_rng(7)
    at = np.concatenate([rng.integers(0, 2, (num, 1)), rng.uniform(-9, 9, (num, d))], 1)
    return torch.from_numpy(at)


POOLS_BATCHES = "global", "Broadcast", "instance norm", "weighed"

GEOMETRIES = {
    "1-D": {"ndim": 1},
    "2-D": {"ndim": 2},
    "3-D": {},
    "4-D": {"ndim": 4},
    "one batch": {"batches": (0,)},
    "five batches": {"batches": range(5), "num": 120},
    "stride 2": {"step": 2},
    "stride 4, 2-D": {"ndim": 2, "step": 4},
    "stride 4, no multiples": {"step": 4, "off": True},
    "stride uneven": {"step": (2, 4, 2)},
    "one site": {"num": 1, "batches": (0,)},
    "dense": {"reach": 2, "num": 400},
    "far": {"reach": 1000, "num": 80},
}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name, geometry):
    values = GEOMETRIES[geometry]
    d, step = values.get("ndim", 3), values.get("step", 1)
    step = [step] * d if isinstance(step, int) else [*step]
    if (name.startswith("generative") or name.endswith("new")) and "stride 1" not in name and min(step) < 2:
        if "after" not in name:
            pytest.skip("there is nothing finer than tensor stride 1")
    if name == "conv 1 stride 2" and d == 1:
        pytest.skip("MinkowskiEngine takes a kernel of one cell in 1-D for a matrix product, without the stride")
    if name.startswith("up pool") and name.endswith("new") and "multiples" in geometry:
        pytest.skip("MinkowskiEngine aborts where a finer site lies in no cell of the coarser ones")
    if geometry == "one site" and any(word in name for word in POOLS_BATCHES):
        pytest.skip("MinkowskiEngine aborts where a global pool has a row for each batch")
    if geometry == "one site" and name == "batch norm":
        pytest.skip("PyTorch has no variance of one row")
    if geometry == "five batches" and name.startswith(("global Sum", "global Avg", "Broadcast", "weighed")):
        pytest.skip("MinkowskiEngine's sums and means lie in rows by number of the batch, its origin does not")
    if geometry in ("one batch", "one site") and name == "global Max":
        pytest.skip("MinkowskiEngine gives the gradient of a maximum over one batch to other rows")
    side_by_side(lambda engine: LAYERS[name](engine, d), *scene(**values), step=step)
