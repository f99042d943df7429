"""TorchSparse's modules on spcy: against loops over its formulas, and by what public code does with them."""

import copy
import gc
import itertools
import pickle
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
from torch import nn  # noqa: E402

import spcy.torch.torchsparse as torchsparse  # noqa: E402
from spcy.torch.torchsparse import PointTensor, SparseTensor, backbones, maps, v1  # noqa: E402
from spcy.torch.torchsparse import nn as spnn  # noqa: E402
from spcy.torch.torchsparse.nn import functional as F  # noqa: E402
from spcy.torch.torchsparse.nn.utils import get_kernel_offsets  # noqa: E402
from spcy.torch.torchsparse.tensor import set_allow_negative_coordinates  # noqa: E402
from spcy.torch.torchsparse.utils import make_divisible, make_ntuple, make_tensor, tensor_cache  # noqa: E402
from spcy.torch.torchsparse.utils.collate import sparse_collate, sparse_collate_fn  # noqa: E402
from spcy.torch.torchsparse.utils.quantize import sparse_quantize  # noqa: E402

pytestmark = pytest.mark.torch


def sites(rng, num=70, low=0, high=7, batches=2):
    spatial = rng.integers(low, high, (num, 3))
    coords = np.concatenate([rng.integers(0, batches, (num, 1)), spatial], axis=1)
    return rng.permutation(np.unique(coords, axis=0)).astype(np.int32)


def sparse(rng, channels=3, dtype=torch.float64, spatial_range=None, **where):
    coords = sites(rng, **where)
    feats = torch.from_numpy(rng.standard_normal((len(coords), channels))).to(dtype).requires_grad_()
    return SparseTensor(feats, torch.from_numpy(coords), spatial_range=spatial_range)


def cells_of(kernel_size):
    """The cells of a window in the order of the weight's: x fastest if their number is odd, else z."""
    x, y, z = (range(k) for k in kernel_size)
    if np.prod(kernel_size) % 2:
        return [(i, j, k) for k, j, i in itertools.product(z, y, x)]
    return [*itertools.product(x, y, z)]


def by_loops(coords, feats, kernel, outputs, window):
    """The sums over pairs: `window(u, r)` is the input's place that cell r of the window of u reads."""
    rows = {tuple(c): i for i, c in enumerate(coords.tolist())}
    out = []
    for batch, *u in outputs:
        total = feats.new_zeros(kernel.shape[2])
        for weight, r in zip(kernel, cells_of(by_loops.kernel_size), strict=True):
            row = rows.get((batch, *window(u, r)))
            total = total + feats[row] @ weight if row is not None else total
        out.append(total)
    return torch.stack(out)


def reached(coords, kernel_size, stride, padding, dilation):
    """The outputs u with c = u * stride - padding + dilation * r for an input c and a cell r."""
    found = set()
    for batch, *c in coords.tolist():
        for r in cells_of(kernel_size):
            steps = [a + p - d * i for a, p, d, i in zip(c, padding, dilation, r, strict=True)]
            if all(v % s == 0 for v, s in zip(steps, stride, strict=True)):
                found.add((batch, *(v // s for v, s in zip(steps, stride, strict=True))))
    return sorted(found)


def triple(value):
    return value if isinstance(value, tuple) else (value,) * 3


def assert_same_gradients(actual, expected, inputs):
    dy = torch.linspace(-1, 1, actual.numel(), dtype=actual.dtype).view_as(actual)
    for a, b in zip(
        torch.autograd.grad(actual, inputs, dy, retain_graph=True),
        torch.autograd.grad(expected, inputs, dy, retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def assert_by_loops(layer, x, y, outputs, window):
    by_loops.kernel_size = layer.kernel_size
    expected = by_loops(x.C, x.F, layer.kernel, outputs, window)
    expected = expected if layer.bias is None else expected + layer.bias
    assert [tuple(c) for c in y.C.tolist()] == [tuple(u) for u in outputs]
    torch.testing.assert_close(y.F, expected)
    assert_same_gradients(y.F, expected, [x.F, *layer.parameters()])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel_size", [2, 3, (1, 3, 1), (3, 1, 2), (3, 1, 5)], ids=str)
def test_stride_one(kernel_size, dilation, bias, rng):
    """Odd windows are centred, even ones begin at the output; rows are the input's."""
    x = sparse(rng)
    layer = spnn.Conv3d(3, 4, kernel_size, dilation=dilation, bias=bias).double()
    odd = layer.kernel_volume % 2
    y = layer(x)

    def window(u, r):
        return [
            a + dilation * (i - (k - 1) // 2 * odd) for a, i, k in zip(u, r, layer.kernel_size, strict=True)
        ]

    assert y.C is x.C
    assert y.s == (1, 1, 1)
    assert_by_loops(layer, x, y, x.C.tolist(), window)


STRIDED = [
    (2, 2, 0, 1),
    (3, 2, 1, 1),
    (3, 2, 0, 1),
    ((1, 3, 1), (1, 2, 1), 0, 1),
    ((3, 2, 1), (2, 2, 1), (1, 0, 0), 1),
    (1, 2, 0, 1),
    (3, 2, 2, 2),
    (3, 3, 1, 1),
]


@pytest.mark.parametrize(("kernel_size", "stride", "padding", "dilation"), STRIDED, ids=str)
def test_strided_as_spconv(kernel_size, stride, padding, dilation, rng):
    """c = u * stride - padding + r, ascending, none negative; coordinates are divided."""
    x = sparse(rng)
    layer = spnn.Conv3d(3, 4, kernel_size, stride, padding, dilation, bias=True).double()
    y = layer(x)
    strides, paddings, dilations = triple(stride), triple(layer.padding), triple(dilation)
    outputs = reached(x.C, layer.kernel_size, strides, paddings, dilations)

    def window(u, r):
        return [a * s - p + d * i for a, s, p, d, i in zip(u, strides, paddings, dilations, r, strict=True)]

    assert y.s == strides
    assert_by_loops(layer, x, y, [u for u in outputs if min(u) >= 0], window)


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 2), (2, 2), (1, 2), (2, 3), (3, (1, 2, 2))], ids=str)
def test_strided_as_minkowski(kernel_size, stride, rng):
    """Outputs are floor(c / stride); an output may have no input in its window, and is the bias."""
    x = sparse(rng, low=-4)
    config = {"downsample_mode": "minkowski"}
    layer = spnn.Conv3d(3, 4, kernel_size, stride, bias=True, config=config).double()
    strides = np.array(triple(stride))
    outputs = sorted({(b, *(np.array(c) // strides).tolist()) for b, *c in x.C.tolist()})

    def window(u, r):
        return [
            int(a * s + i - (k - 1) // 2) for a, s, i, k in zip(u, strides, r, layer.kernel_size, strict=True)
        ]

    assert_by_loops(layer, x, layer(x), outputs, window)
    F.set_downsample_mode("minkowski")
    try:
        layer._config = None
        assert layer(x).C.tolist() == [[*u] for u in outputs]
    finally:
        F.set_downsample_mode("spconv")


def test_hashmap_windows_are_centred(rng):
    x = sparse(rng)
    layer = spnn.Conv3d(3, 4, 4, config={"kmap_mode": "hashmap"}).double()
    assert_by_loops(
        layer, x, layer(x), x.C.tolist(), lambda u, r: [a + i - 1 for a, i in zip(u, r, strict=True)]
    )


@pytest.mark.parametrize(("kernel_size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 2, 0)])
def test_outputs_lie_in_the_spatial_range(kernel_size, stride, padding, rng):
    """As those of a dense convolution."""
    x = sparse(rng, spatial_range=(2, 7, 8, 9))
    layer = spnn.Conv3d(3, 4, kernel_size, stride, padding).double()
    y = layer(x)
    weight = torch.zeros(4, 3, *layer.kernel_size, dtype=torch.float64)
    for cell, r in zip(layer.kernel, cells_of(layer.kernel_size), strict=True):
        weight[(slice(None), slice(None), *r)] = cell.detach().T
    dense = nn.functional.conv3d(x.dense().movedim(-1, 1), weight, stride=stride, padding=padding)
    assert y.spatial_range == (2, *dense.shape[2:])
    torch.testing.assert_close(y.dense(), dense.movedim(1, -1))
    assert spnn.Conv3d(4, 3, kernel_size, stride, transposed=True).double()(y).spatial_range == (2, 7, 8, 9)


@pytest.mark.parametrize(("kernel_size", "stride", "dilation"), [(2, 2, 1), (3, 2, 1), (3, 2, 2)], ids=str)
@pytest.mark.parametrize("config", [None, {"downsample_mode": "minkowski"}], ids=str)
def test_transposed(config, kernel_size, stride, dilation, rng):
    """Back to the sites of the input, with the same cell of the weight for each pair."""
    x = sparse(rng)
    down = spnn.Conv3d(3, 4, kernel_size, stride, 1 - kernel_size % 2, dilation, config=config).double()
    up = spnn.Conv3d(4, 5, kernel_size, stride, dilation=dilation, bias=True, transposed=True).double()
    y = down(x)
    z = up(spnn.Conv3d(4, 4, 3).double()(y))
    assert z.C is x.C
    assert z.s == (1, 1, 1)
    torch.testing.assert_close(z.F, up(spnn.Conv3d(4, 4, 1).double()(y)).F.new_tensor(z.F.tolist()))
    y = down(x)
    z = up(y)
    first = (kernel_size - 1) // 2 * dilation if config else down.padding[0]
    rows = {tuple(c): i for i, c in enumerate(y.C.tolist())}
    expected = []
    for batch, *c in x.C.tolist():
        total = up.bias
        for weight, r in zip(up.kernel, cells_of(up.kernel_size), strict=True):
            steps = [a + first - dilation * i for a, i in zip(c, r, strict=True)]
            row = rows.get((batch, *(v // stride for v in steps)))
            if row is not None and all(v % stride == 0 for v in steps):
                total = total + y.F[row] @ weight
        expected.append(total)
    expected = torch.stack(expected)
    torch.testing.assert_close(z.F, expected)
    assert_same_gradients(z.F, expected, [x.F, *down.parameters(), *up.parameters()])


def test_transposed_with_stride_one_runs_the_map_backwards(rng):
    x = sparse(rng)
    layer = spnn.Conv3d(3, 4, 3, transposed=True).double()
    mirrored = spnn.Conv3d(3, 4, 3).double()
    mirrored.kernel.data = layer.kernel.data.flip(0)
    torch.testing.assert_close(layer(x).F, mirrored(x).F)


@pytest.mark.parametrize("spatial_range", [None, (2, 7, 7, 7)], ids=str)
@pytest.mark.parametrize("kernel_size", [2, 3, (1, 3, 5)], ids=str)
def test_generative(kernel_size, spatial_range, rng):
    """All sites that an input reaches; where sizes are odd the weight lies mirrored, as in TorchSparse."""
    x = sparse(rng, num=12, spatial_range=spatial_range)
    x.s = 2
    layer = spnn.Conv3d(3, 4, kernel_size, 2, bias=True, transposed=True, generative=True).double()
    y = layer(x)
    sign = -1 if layer.kernel_volume % 2 else 1
    sums = {}
    for row, (batch, *c) in enumerate(x.C.tolist()):
        for weight, r in zip(layer.kernel, cells_of(layer.kernel_size), strict=True):
            each = zip(c, r, layer.kernel_size, strict=True)
            u = (batch, *(2 * a + sign * (i - (k - 1) // 2) for a, i, k in each))
            sums[u] = sums.get(u, layer.bias) + x.F[row] @ weight
    end = 10**9 if spatial_range is None else 14
    outputs = sorted(u for u in sums if min(u) >= 0 and max(u) < end)
    assert [tuple(c) for c in y.C.tolist()] == outputs
    assert y.s == (1, 1, 1)
    assert y.spatial_range == (None if spatial_range is None else (2, 14, 14, 14))
    torch.testing.assert_close(y.F, torch.stack([sums[u] for u in outputs]))
    y.F.sum().backward()
    assert layer.kernel.grad is not None


@pytest.mark.parametrize("allow", [False, True])
def test_negative_coordinates(allow, rng):
    """Sites below 0 are made only from such, or where it is allowed."""
    at_zero = SparseTensor(torch.ones(1, 1), torch.zeros(1, 4, dtype=torch.int32))
    below = SparseTensor(torch.ones(1, 1), torch.tensor([[0, -5, 0, 0]], dtype=torch.int32))
    layer = spnn.Conv3d(1, 1, (3, 1, 1), 2)
    set_allow_negative_coordinates(allow)
    try:
        assert layer(at_zero).C[:, 1].tolist() == ([-1, 0] if allow else [0])
        assert layer(below).C[:, 1].tolist() == [-3]
    finally:
        set_allow_negative_coordinates(False)


def test_gradcheck(rng):
    x = sparse(rng, num=12, high=4)
    down, up = spnn.Conv3d(3, 2, 2, 2, bias=True).double(), spnn.Conv3d(2, 2, 2, 2, transposed=True).double()

    def net(feats, *_):
        return up(down(SparseTensor(feats, x.C))).F

    assert torch.autograd.gradcheck(net, (x.F, *down.parameters(), *up.parameters()))


def test_maps_are_built_once(rng, monkeypatch):
    built = []
    for name in ("_neighbours", "_strided_level"):
        build = getattr(maps, name)
        monkeypatch.setattr(maps, name, lambda *args, build=build: built.append(1) or build(*args))
    x = sparse(rng)
    a, b = spnn.Conv3d(3, 3, 3).double(), spnn.Conv3d(3, 3, 3).double()
    down = spnn.Conv3d(3, 3, 2, 2).double()
    y = b(a(x))
    assert down(y).C is down(x).C
    a(SparseTensor(x.F, x.C, x.s))
    a(down(x))
    assert len(built) == 3


def test_a_write_to_the_coordinates_makes_other_sites(rng):
    x = sparse(rng)
    layer = spnn.Conv3d(3, 3, 3).double()
    layer(x)
    x.C[:, 1] *= 3
    torch.testing.assert_close(layer(x).F, layer(SparseTensor(x.F, x.C.clone())).F)


def test_a_tensor_made_anew_finds_its_way_back(rng):
    """By its coordinates, or by the caches that code hands on."""
    x = sparse(rng)
    y = spnn.Conv3d(3, 3, 2, 2).double()(x)
    up = spnn.Conv3d(3, 3, 2, 2, transposed=True).double()
    expected = up(y).F
    torch.testing.assert_close(up(SparseTensor(y.F, y.C, y.s)).F, expected)
    copied = SparseTensor(y.F, y.C.clone(), y.s)
    with pytest.raises(ValueError, match="a transposed layer goes back along"):
        up(copied)
    copied._caches = y._caches
    torch.testing.assert_close(up(copied).F, expected)
    copied = SparseTensor(y.F, y.C.clone(), y.s)
    copied.cmaps, copied.kmaps = y.cmaps, y.kmaps
    assert up(copied).C is x.C
    for again in (copy.deepcopy(y.detach()), pickle.loads(pickle.dumps(y.detach()))):
        torch.testing.assert_close(up(again).F, expected)
    y.C.add_(1)  # the layer did not make these sites
    copied = SparseTensor(y.F, y.C.clone(), y.s)
    copied._caches = y._caches
    with pytest.raises(ValueError, match="a transposed layer goes back along"):
        up(copied)


def test_nothing_is_kept(rng):
    x = sparse(rng)
    y = spnn.Conv3d(3, 3, 2, 2).double()(x)
    coords = weakref.ref(x.level().coords())
    del x, y
    gc.collect()
    assert coords() is None


def test_sixteen_bits(rng):
    """As in TorchSparse, a layer computes in float16 where the features or the kernel are."""
    x = sparse(rng, dtype=torch.float32).detach()
    layers = [spnn.Conv3d(3, 4, 3, bias=True), spnn.Conv3d(3, 4, 1, bias=True)]
    expected = [layer(x).F for layer in layers]
    x.half()
    for layer, whole in zip(layers, expected, strict=True):
        y = layer(x).F
        assert y.dtype is torch.float16
        torch.testing.assert_close(y.float(), whole, atol=0.02, rtol=0.02)
    x.feats = x.feats.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layers[0](x).F.dtype is torch.bfloat16


def test_parameters():
    def shapes(layer):
        return {name: tuple(value.shape) for name, value in layer.state_dict().items()}

    assert shapes(spnn.Conv3d(4, 6)) == {"kernel": (27, 4, 6)}
    assert shapes(spnn.Conv3d(4, 6, (1, 3, 1), bias=True)) == {"kernel": (3, 4, 6), "bias": (6,)}
    assert shapes(spnn.Conv3d(4, 6, 1)) == {"kernel": (4, 6)}
    assert shapes(spnn.Conv3d(4, 6, 1, 2)) == {"kernel": (1, 4, 6)}
    assert shapes(v1.Conv3d(4, 6, 1, 2)) == {"kernel": (4, 6)}
    bound = 1 / np.sqrt(4 * 27)
    assert 0.9 * bound < spnn.Conv3d(4, 64).kernel.abs().max() <= bound
    assert repr(spnn.Conv3d(4, 6, 2, 2, dilation=3, transposed=True, generative=True)) == (
        "Conv3d(4, 6, kernel_size=(2, 2, 2), stride=(2, 2, 2), dilation=3, bias=False, transposed=True, "
        "generative=True)"
    )
    names = [*backbones.SparseResUNet42().state_dict()]
    assert len(names) == 294
    assert {"stem.0.kernel", "encoders.3.1.shortcut.1.weight", "decoders.0.upsample.0.kernel"} <= {*names}
    assert {"decoders.3.fuse.0.shortcut.0.kernel", "encoders.0.0.1.running_mean"} <= {*names}
    names = [*backbones.SparseResNet21D().state_dict()]
    assert {"0.0.0.kernel", "1.2.main.4.weight", "4.0.1.bias"} <= {*names}


def test_backbones(rng):
    x = sparse(rng, channels=4, dtype=torch.float32, num=300, high=40)
    net = backbones.SparseResUNet42(width_multiplier=0.25)
    outputs = net(x)
    assert [y.s[0] for y in outputs] == [1, 2, 4, 8, 16, 8, 4, 2, 1]
    assert [y.F.shape[1] for y in outputs] == [8, 8, 16, 32, 64, 64, 32, 24, 24]
    outputs[-1].F.square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    outputs = backbones.SparseResNet21D(width_multiplier=0.25).eval()(x)
    assert [y.s for y in outputs] == [(1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 8, 8), (8, 16, 8)]
    block = backbones.resnet.SparseResBlock(4, 8, 3, stride=2)
    with pytest.raises(ValueError, match="must have the same sites in the same rows"):
        block(x)
    F.set_global_conv_config({"downsample_mode": "minkowski"})
    try:
        assert block(x).s == (2, 2, 2)
    finally:
        F.clear_global_conv_config()
    with pytest.raises(ValueError, match="encoder_channels must be 4 ints"):
        backbones.SparseResUNet(8, [8], [8, 8, 8, 8])


# Layers on features, and functions


def test_layers_on_features(rng):
    x = sparse(rng, channels=4)
    for layer, same in (
        (spnn.ReLU(), nn.ReLU()),
        (spnn.LeakyReLU(0.1), nn.LeakyReLU(0.1)),
        (spnn.SiLU(), nn.SiLU()),
        (spnn.BatchNorm(4).double(), nn.BatchNorm1d(4).double()),
    ):
        y = layer(x)
        assert y.C is x.C
        torch.testing.assert_close(y.F, same(x.F))
    for function in (F.relu, F.silu, F.leaky_relu):
        expected = getattr(nn.functional, function.__name__)
        expected = expected(x.F, 0.1) if function is F.leaky_relu else expected(x.F)
        torch.testing.assert_close(function(x, inplace=False).F, expected)
    for layer, dense in (
        (spnn.GroupNorm(2, 4).double(), nn.GroupNorm(2, 4).double()),
        (spnn.InstanceNorm(4).double(), nn.InstanceNorm1d(4).double()),
    ):
        y = layer(x)
        for batch in range(2):
            rows = x.C[:, 0] == batch
            torch.testing.assert_close(y.F[rows], dense(x.F[rows].T[None])[0].T)
        y.F.square().sum().backward()


def test_global_pools(rng):
    x = sparse(rng)
    parts = [x.F[x.C[:, 0] == batch] for batch in range(2)]
    torch.testing.assert_close(spnn.GlobalAvgPool()(x), torch.stack([p.mean(0) for p in parts]))
    torch.testing.assert_close(spnn.GlobalMaxPool()(x), torch.stack([p.amax(0) for p in parts]))


@pytest.mark.parametrize("cls", [SparseTensor, v1.SparseTensor])
def test_crop_leaves_the_batch_alone(cls, rng):
    coords = torch.from_numpy(sites(rng))
    spatial = coords[:, 1:]
    columns = [1, 2, 3, 0] if cls.batch_last else [0, 1, 2, 3]
    x = cls(torch.rand(len(coords), 2), coords[:, columns])
    y = spnn.SparseCrop((1, 2, 3), (6, 6, 5))(x)
    low, high = torch.tensor([1, 2, 3]), torch.tensor([6, 6, 5])
    inside = ((spatial >= low) & (spatial < high)).all(1)
    assert torch.equal(y.C, x.C[inside])
    assert torch.equal(y.F, x.F[inside])


@pytest.mark.parametrize("cls", [SparseTensor, v1.SparseTensor])
def test_birds_eye_views(cls, rng):
    coords = torch.from_numpy(sites(rng)).long()
    feats = torch.from_numpy(rng.standard_normal((len(coords), 3)))
    stride = 2
    given = torch.cat([coords[:, 1:] * stride, coords[:, :1]], 1) if cls.batch_last else coords
    x = cls(feats, given.int(), stride)
    dense = torch.zeros(2, 7, 7, 7, 3, dtype=torch.float64).index_put(tuple(coords.T), feats)
    taken = torch.zeros(2, 7, 7, 7, dtype=torch.float64).index_put(
        tuple(coords.T), torch.ones(len(coords)).double()
    )

    mean = spnn.ToBEVReduction(1)(x)
    cells = mean.level().coords().indices
    b, i, j, k = torch.from_numpy(cells.copy()).long().T
    assert not j.any()
    torch.testing.assert_close(mean.F, (dense.sum(2) / taken.sum(2)[..., None])[b, i, k])
    assert mean.s == (2, 2, 2)

    layer = spnn.ToDenseBEVConvolution(3, 5, (7, 7, 7), dim=1).double()
    expected = torch.einsum("bxyzc,ycd->bdxz", dense, layer.kernel)
    torch.testing.assert_close(layer(x), expected)
    assert layer(x).grad_fn is not None
    assert {*layer.state_dict()} == {"kernel", "offset", "shape"}

    layer = spnn.ToBEVConvolution(3, 5, 7, stride=2, dim=2).double()
    y = layer(x)
    b, i, j, k = torch.from_numpy(y.level().coords().indices.copy()).long().T
    flat = nn.functional.pad(torch.einsum("bxyzc,zcd->bxyd", dense, layer.kernel), (0, 0, 0, 1, 0, 1))
    torch.testing.assert_close(y.F, flat.view(2, 4, 2, 4, 2, 5).sum((2, 4))[b, i, j])
    assert y.s == (4, 4, 4)

    tall = spnn.ToBEVHeightCompression(3, (7, 7, 7), dim=1)(x)
    torch.testing.assert_close(tall, dense.permute(0, 2, 4, 1, 3).reshape(2, 21, 7, 7))
    with pytest.raises(ValueError, match=r"coords along axis 0 must be in \[0, 3\)"):
        spnn.ToBEVHeightCompression(3, (3, 7, 7), dim=1)(x)


def test_hashes_are_torchsparses():
    """FNV-1a over 32-bit words, in plain integers."""
    coords = torch.tensor([[0, 1, 2, 3], [-5, 7, 100000, 0]], dtype=torch.int32)
    offsets = get_kernel_offsets(2)

    def fnv(row):
        number = 14695981039346656037
        for value in row:
            number = ((number ^ (value % 2**32)) * 1099511628211) % 2**64
        return (number >> 60) ^ (number % 2**60)

    assert F.sphash(coords).tolist() == [fnv(row) for row in coords.tolist()]
    hashes = F.sphash(coords, offsets)
    assert hashes.shape == (8, 2)
    assert hashes[5, 1] == fnv([-4, 7, 100001, 0])
    found = F.sphashquery(hashes, F.sphash(coords))
    assert found.dtype is torch.int64
    assert found.tolist() == [[0, 1]] + [[-1, -1]] * 7
    assert F.spcount(torch.tensor([0, 2, 2, -1]), 4).tolist() == [1, 0, 2, 0]


def test_kernel_offsets():
    assert get_kernel_offsets((3, 1, 3), 2).tolist() == [
        [x, 0, z] for z in (-2, 0, 2) for x in (-2, 0, 2)
    ]  # fmt: skip
    assert get_kernel_offsets(2, dilation=3)[1].tolist() == [0, 0, 3]
    assert get_kernel_offsets(2, (1, 2, 4)).dtype is torch.int32


def test_points_and_voxels(rng):
    feats = torch.from_numpy(rng.standard_normal((9, 3))).requires_grad_()
    rows = torch.tensor([0, 2, 2, -1, 0, 2, 4, 4, -1])
    counts = F.spcount(rows, 5)
    y = F.spvoxelize(feats, rows, counts)
    expected = torch.stack([feats[rows == m].sum(0) / max(1, int(n)) for m, n in enumerate(counts)])
    torch.testing.assert_close(y, expected)
    assert torch.autograd.gradcheck(lambda f: F.spvoxelize(f, rows, counts), feats)

    points = torch.from_numpy(rng.uniform(0, 4, (20, 3)))
    corners = torch.from_numpy(rng.integers(-1, 9, (20, 8)))
    weights = F.calc_ti_weights(points, corners, scale=2)
    far = (points / 2) % 1
    for j, bits in enumerate(itertools.product((0, 1), repeat=3)):
        each = torch.where(torch.tensor(bits, dtype=torch.bool), far, 1 - far).prod(1)
        each = each * (corners[:, j] >= 0)
        ratio = weights[:, j] / each
        kept = (each > 0) & (weights[:, 0] > 0) & (corners[:, 0] >= 0)
        torch.testing.assert_close(ratio[kept], (weights[:, 0] / (1 - far).prod(1))[kept])
    torch.testing.assert_close(weights.sum(1), torch.ones(20).double(), atol=1e-6, rtol=0)
    y = F.spdevoxelize(feats, corners, weights)
    expected = (torch.cat([feats, feats[:1] * 0])[corners] * weights[..., None]).sum(1)
    torch.testing.assert_close(y, expected)
    assert torch.autograd.gradcheck(lambda f: F.spdevoxelize(f, corners, weights), feats)
    torch.testing.assert_close(v1.calc_ti_weights(points, corners.T, scale=2), weights.T)


@pytest.mark.parametrize("mode", ["hashmap_on_the_fly", "hashmap"])
@pytest.mark.parametrize("stride", [1, 2])
def test_kernel_maps(stride, mode, rng):
    x = sparse(rng)
    layer = spnn.Conv3d(3, 4, 2, stride, config={"kmap_mode": mode}).double()
    y = layer(x)
    made = F.build_kernel_map(x.C, len(x.C), 2, stride, mode=mode)
    assert made["sizes"] == (len(x.C), len(y.C))
    assert torch.equal(made["coords"], y.C)
    table = made["out_in_map"].long()
    padded = torch.cat([x.F, x.F[:1] * 0])
    torch.testing.assert_close(torch.einsum("nkc,kcd->nd", padded[table], layer.kernel), y.F)
    assert made["nbsizes"].tolist() == (table >= 0).sum(0).tolist()
    start = int(made["nbsizes"][0])
    for row_in, row_out in made["nbmaps"][start : start + int(made["nbsizes"][1])].tolist():
        assert table[row_out, 1] == row_in
    if stride == 2:
        assert torch.equal(F.spdownsample(x.C), y.C)
        ranged = F.build_kernel_map(x.C, None, 2, 2, spatial_range=(2, 8, 8, 8))
        assert ranged["spatial_range"] == (2, 4, 4, 4)


def test_a_table_of_the_backend(rng):
    coords = sites(rng)
    spatial_first = torch.from_numpy(coords[:, [1, 2, 3, 0]])
    table = torchsparse.backend.GPUHashTable(torch.zeros(9), torch.zeros(9))
    with pytest.raises(RuntimeError, match="insert_coords must come before"):
        table.lookup_coords(spatial_first, 1, 1)
    table.insert_coords(spatial_first)
    found = table.lookup_coords(spatial_first, torch.tensor([2, 2, 2]), torch.tensor([1, 1, 1]), 8)
    made = F.build_kernel_map(torch.from_numpy(coords), None, 2, 1)
    assert torch.equal(found - 1, made["out_in_map"])
    with pytest.raises(RuntimeError, match="insert_vals must come before"):
        table.lookup_vals(torch.tensor([7]))
    table.insert_vals(torch.tensor([30, 10]))
    assert table.lookup_vals(torch.tensor([10, 7])).tolist() == [2, 0]


# Tensors


def test_the_tensor(rng):
    x = sparse(rng, spatial_range=(2, 7, 7, 7))
    assert x.F is x.feats
    assert x.C is x.coords
    assert (x + x).C is x.C
    torch.testing.assert_close((x + x).F, 2 * x.F)
    joined = torchsparse.cat([x, x])
    assert joined._caches is x._caches
    assert joined.spatial_range == x.spatial_range
    x.F, x.s = x.F.detach(), 2
    assert x.stride == (2, 2, 2)
    dense = x.dense()
    assert dense.shape == (2, 7, 7, 7, 3)
    torch.testing.assert_close(dense[tuple(x.C.long().T)], x.F)
    assert x.to("cpu") is x.cpu() is x.half().detach() is x
    assert x.F.dtype is torch.float16
    other = SparseTensor(torch.ones(2, 3).half(), torch.tensor([[0, 90, 0, 0], [1, 90, 0, 0]]).int(), 2)
    union = torchsparse.generative_add(x, other)
    assert len(union.C) == len(x.C) + 2
    assert float(union.F.double().sum()) == pytest.approx(float(x.F.double().sum()) + 6)


def test_a_point_tensor():
    points = PointTensor(torch.ones(2, 1), torch.zeros(2, 4))
    points.additional_features["counts"][1] = 7
    total = points + points
    assert total.F.tolist() == [[2.0], [2.0]]
    assert total.idx_query is points.idx_query
    assert total.additional_features["counts"] == {1: 7}
    assert points.to("cpu").detach() is points


def test_quantize(rng):
    points = rng.uniform(-5, 5, (500, 3))
    cells, first, inverse = sparse_quantize(points, 0.7, return_index=True, return_inverse=True)
    assert cells.dtype == np.int32
    np.testing.assert_array_equal(cells, np.unique(np.floor(points / 0.7), axis=0))
    np.testing.assert_array_equal(cells[inverse], np.floor(points / 0.7))
    assert all(inverse[: first[m]].tolist().count(m) == 0 for m in range(len(cells)))
    np.testing.assert_array_equal(sparse_quantize(points, (0.7, 0.7, 0.7)), cells)
    far = np.array([[-2e9, 2e9, 0], [2e9, -2e9, 5], [-2e9, 2e9, 0.5]])
    assert len(sparse_quantize(far)) == 2
    assert sparse_quantize(np.zeros((0, 3))).shape == (0, 3)
    with pytest.raises(ValueError, match="voxel_size must be a positive number"):
        sparse_quantize(points, 0)
    with pytest.raises(ValueError, match=r"cells that fit in int32, got .* in row 1"):
        sparse_quantize([[0.0, 0, 0], [0, np.nan, 0]])


@pytest.mark.parametrize("cls", [SparseTensor, v1.SparseTensor])
def test_collate(cls, rng):
    samples = [
        {
            "input": cls(rng.random((n, 2)), rng.integers(0, 9, (n, 3))),
            "label": cls(torch.zeros(n).long(), torch.zeros(n, 3).int()),
            "more": {"name": "a", "scale": np.ones(2)},
        }
        for n in (3, 4)
    ]
    made = sparse_collate_fn(samples)
    assert type(made["input"]) is cls
    assert made["input"].C.dtype is torch.int32
    assert made["input"].C[:, 3 if cls.batch_last else 0].tolist() == [0] * 3 + [1] * 4
    assert made["label"].F.shape == (7,)
    assert made["more"]["name"] == ["a", "a"]
    assert made["more"]["scale"].shape == (2, 2)
    assert sparse_collate_fn([1, 2]) == [1, 2]
    with pytest.raises(ValueError, match="inputs must have coords of shape"):
        sparse_collate([made["input"]])
    with pytest.raises(ValueError, match="inputs must have the same stride"):
        sparse_collate([samples[0]["input"], cls(torch.ones(1, 2), torch.ones(1, 3).int(), 2)])


def test_what_is_without_effect():
    assert torchsparse.tune(nn.Identity(), []) is None
    torchsparse.backends.init()
    assert torchsparse.backends.hash_rsv_ratio == 2
    tensor_cache.set_tensor_cache_mode(tensor_cache.TensorCacheMode.GLOBAL_TENSOR_CACHE)
    tensor_cache.clear_global_tensor_cache()
    F.set_conv_mode(2)
    assert F.get_conv_mode() is F.ConvMode.mode2
    F.set_conv_mode(F.ConvMode.mode0)
    F.set_kmap_mode("hashmap")
    assert F.get_kmap_mode() == "hashmap"
    F.set_kmap_mode("hashmap_on_the_fly")
    config = F.conv_config.get_default_conv_config()
    config.dataflow = F.Dataflow.GatherScatter
    F.set_global_conv_config(config)
    assert F.get_global_conv_config().dataflow is F.Dataflow.GatherScatter
    F.clear_global_conv_config()
    assert (make_ntuple(2, 3), make_ntuple([1, 2], 2)) == ((2, 2, 2), (1, 2))
    assert make_ntuple(torch.tensor([[1, 2, 3]]), 3) == (1, 2, 3)
    assert make_divisible(9, 8) == 16
    assert make_tensor((1, 2), dtype=torch.int, device="cpu").tolist() == [1, 2]


# Version 1.4


def test_version_1_4(rng):
    """The batch last, coordinates that keep the scale, windows that are centred."""
    coords = sites(rng)
    feats = torch.from_numpy(rng.standard_normal((len(coords), 3))).requires_grad_()
    x = v1.SparseTensor(feats, torch.from_numpy(coords[:, [1, 2, 3, 0]]))
    beside = SparseTensor(feats, torch.from_numpy(coords))
    down, up = v1.Conv3d(3, 4, 3, 2).double(), v1.Conv3d(4, 3, 3, 2, transposed=True).double()
    y = down(x)
    same = spnn.Conv3d(3, 4, 3, 2, 1).double()
    same.kernel = down.kernel
    expected = same(beside)
    assert type(y) is v1.SparseTensor
    assert y.s == (2, 2, 2)
    assert torch.equal(y.C, torch.cat([expected.C[:, 1:] * 2, expected.C[:, :1]], 1))
    torch.testing.assert_close(y.F, expected.F)
    z = up(v1.Conv3d(4, 4, 3, dilation=2).double()(y))
    assert z.C is x.C
    again = v1.SparseTensor(y.F, y.C, y.s)
    torch.testing.assert_close(up(again).F, up(y).F)
    deeper = v1.Conv3d(4, 4, 2, 2).double()
    copied = v1.SparseTensor(y.F, y.C.clone(), y.s)
    torch.testing.assert_close(deeper(copied).F, deeper(y).F)
    assert torch.equal(deeper(copied).C, deeper(y).C)
    assert torch.equal(v1.conv3d(x, down.kernel, 3, None, 2, 1).F, y.F)
    with pytest.raises(ValueError, match=r"coords must be multiples of the stride, \(2, 2, 2\)"):
        deeper(v1.SparseTensor(y.F, y.C + 1, y.s))


# SPVCNN, as code around TorchSparse is written


class Voxels:
    """Between points and voxels, for TorchSparse 1.4 (batch last) or 2.x (batch first)."""

    def __init__(self, library):
        self.make, self.last = library, library.batch_last

    def cells(self, points, stride):
        spatial, batch = (points[:, :3], points[:, 3:]) if self.last else (points[:, 1:], points[:, :1])
        spatial = torch.floor(spatial / stride).int()
        spatial = spatial * stride if self.last else spatial
        return torch.cat([spatial, batch.int()], 1)

    def hashes(self, x):
        return F.sphash(x.C if self.last else x.C[:, [1, 2, 3, 0]].contiguous())

    def initial(self, z):
        cells = torch.unique(self.cells(z.C, 1), dim=0)
        rows = F.sphashquery(F.sphash(self.cells(z.C, 1)), F.sphash(cells))
        counts = F.spcount(rows.int(), len(cells))
        z.additional_features["idx_query"][1, 1, 1], z.additional_features["counts"][1, 1, 1] = rows, counts
        return self.make(F.spvoxelize(z.F, rows, counts), cells if self.last else cells[:, [3, 0, 1, 2]], 1)

    def to_voxels(self, x, z):
        rows = F.sphashquery(F.sphash(self.cells(z.C, x.s[0])), self.hashes(x))
        y = self.make(F.spvoxelize(z.F, rows, F.spcount(rows.int(), len(x.C))), x.C, x.s)
        y.cmaps, y.kmaps = x.cmaps, x.kmaps
        return y

    def to_points(self, x, z):
        if z.weights.get(x.s) is None:
            offsets = get_kernel_offsets(2, x.s if self.last else 1, 1, device=z.F.device)
            rows = F.sphashquery(F.sphash(self.cells(z.C, x.s[0]), offsets), self.hashes(x))
            points = z.C if self.last else z.C[:, 1:]
            z.weights[x.s] = v1.calc_ti_weights(points, rows, scale=x.s[0]).t().contiguous()
            z.idx_query[x.s] = rows.t().contiguous()
        feats = F.spdevoxelize(x.F, z.idx_query[x.s], z.weights[x.s])
        made = PointTensor(feats, z.C, z.idx_query, z.weights)
        made.additional_features = z.additional_features
        return made


class SPVCNN(nn.Module):
    def __init__(self, conv, voxels):
        super().__init__()

        def block(*channels, **options):
            return nn.Sequential(conv(*channels, **options), spnn.BatchNorm(channels[1]), spnn.ReLU(True))

        self.voxels = voxels
        self.stem = block(2, 4, kernel_size=3)
        self.down1 = nn.Sequential(block(4, 4, kernel_size=2, stride=2), block(4, 8, kernel_size=3))
        self.down2 = nn.Sequential(block(8, 8, kernel_size=2, stride=2), block(8, 8, kernel_size=3))
        self.up1 = block(8, 8, kernel_size=2, stride=2, transposed=True)
        self.fuse1 = block(16, 8, kernel_size=3)
        self.up2 = block(8, 4, kernel_size=2, stride=2, transposed=True)
        self.fuse2 = block(8, 4, kernel_size=1)
        self.beside = nn.ModuleList([nn.Linear(4, 8), nn.Linear(8, 4)])
        self.head = nn.Linear(4, 5)

    def forward(self, feats, points):
        voxels, z = self.voxels, PointTensor(feats, points)
        x0 = self.stem(voxels.initial(z))
        z0 = voxels.to_points(x0, z)
        x1 = self.down1(voxels.to_voxels(x0, z0))
        x2 = self.down2(x1)
        z1 = voxels.to_points(x2, z0)
        z1.F = z1.F + self.beside[0](z0.F)
        y1 = self.fuse1(torchsparse.cat([self.up1(voxels.to_voxels(x2, z1)), x1]))
        y2 = self.fuse2(torchsparse.cat([self.up2(y1), x0]))
        z2 = voxels.to_points(y2, z1)
        z2.F = z2.F + self.beside[1](z1.F)
        return self.head(z2.F)


def test_spvcnn(rng):
    """Both versions, batch first and batch last, give the same."""
    num = 300
    spatial, batch = torch.from_numpy(rng.uniform(0, 12, (num, 3))), torch.arange(num)[:, None] % 2
    feats = torch.from_numpy(rng.standard_normal((num, 2))).requires_grad_()
    outputs = []
    nets = []
    for library, conv in ((SparseTensor, spnn.Conv3d), (v1.SparseTensor, v1.Conv3d)):
        points = torch.cat([spatial, batch] if library.batch_last else [batch, spatial], 1)
        nets.append(SPVCNN(conv, Voxels(library)).double())
        nets[-1].load_state_dict(nets[0].state_dict())
        y = nets[-1](feats, points)
        assert y.shape == (num, 5)
        gradients = torch.autograd.grad(y.square().sum(), [feats, *nets[-1].parameters()])
        assert all(g.abs().sum() > 0 for g in gradients[:2])
        outputs.append((y, *gradients))
    for a, b in zip(*outputs, strict=True):
        torch.testing.assert_close(a, b)


# Errors


def tensor_of(coords, feats=None, **options):
    coords = torch.as_tensor(coords)
    return SparseTensor(torch.ones(len(coords), 3) if feats is None else feats, coords, **options)


ONE = torch.tensor([[0, 1, 2, 3]], dtype=torch.int32)
TWO = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]], dtype=torch.int32)
ERRORS = {
    "lengths": (
        ValueError,
        "feats must have a row for each of coords, 2, got 1",
        lambda: spnn.Conv3d(3, 4)(tensor_of(TWO, torch.ones(1, 3))),
    ),
    "float coords": (
        TypeError,
        r"coords must have dtype torch.int32, got torch.float32: floor them",
        lambda: spnn.Conv3d(3, 4)(tensor_of(ONE.float())),
    ),
    "no batch": (
        ValueError,
        r"coords must have shape \(N, 4\).*sparse_collate adds the batch",
        lambda: spnn.Conv3d(3, 4)(tensor_of(ONE[:, 1:])),
    ),
    "twice": (
        ValueError,
        r"coords must be unique, got the same site \[0, 1, 2, 3\] in rows 0 and 1",
        lambda: spnn.Conv3d(3, 4)(tensor_of(torch.cat([ONE, ONE]))),
    ),
    "channels": (
        ValueError,
        "input must have 4 channels, as the weight, got 3",
        lambda: spnn.Conv3d(4, 4)(tensor_of(ONE)),
    ),
    "labels": (
        ValueError,
        r"feats must have shape \(N, C\)",
        lambda: spnn.Conv3d(3, 4)(tensor_of(ONE, torch.ones(1))),
    ),
    "dtype": (
        TypeError,
        "feats must have dtype float32",
        lambda: spnn.Conv3d(3, 4)(tensor_of(ONE, torch.ones(1, 3).long())),
    ),
    "no tensor": (TypeError, "input must be a SparseTensor, got Tensor", lambda: spnn.Conv3d(3, 4)(ONE)),
    "relu": (TypeError, "input must be a SparseTensor, got Tensor", lambda: spnn.ReLU()(ONE)),
    "no way back": (
        ValueError,
        r"none with kernel_size \(2, 2, 2\), stride \(2, 2, 2\) .* \[\(\(3, 3, 3\), \(2, 2, 2\)\)\]",
        lambda: spnn.Conv3d(4, 4, 2, 2, transposed=True)(spnn.Conv3d(3, 4, 3, 2)(tensor_of(ONE))),
    ),
    "finer than 1": (
        ValueError,
        r"input must have a stride that is a multiple of .*, \(2, 2, 2\), got \(1, 1, 1\)",
        lambda: spnn.Conv3d(3, 4, 2, 2, transposed=True)(tensor_of(ONE)),
    ),
    "sum": (
        ValueError,
        "the operands of .* must have the same sites in the same rows, got 1 and 2 rows; .*generative_add",
        lambda: tensor_of(ONE) + tensor_of(TWO),
    ),
    "sum of others": (
        ValueError,
        r"got \[0, 1, 2, 3\] and \[0, 1, 2, 4\] in row 0",
        lambda: tensor_of(TWO) + tensor_of(TWO.flip(0)),
    ),
    "sum of strides": (
        ValueError,
        r"got strides \(1, 1, 1\) and \(2, 2, 2\)",
        lambda: tensor_of(ONE) + tensor_of(ONE, stride=2),
    ),
    "sum with a number": (TypeError, "must be SparseTensors, got int", lambda: tensor_of(ONE) + 1),
    "cat": (
        ValueError,
        "inputs must have the same sites",
        lambda: torchsparse.cat([tensor_of(ONE), tensor_of(TWO)]),
    ),
    "cat of none": (ValueError, "at least one SparseTensor", lambda: torchsparse.cat([])),
    "generative": (
        ValueError,
        "generative must come with transposed",
        lambda: spnn.Conv3d(3, 4, generative=True),
    ),
    "kernel": (ValueError, "kernel_size must be at least 1", lambda: spnn.Conv3d(3, 4, 0)),
    "stride": (ValueError, "stride must be an int or 3 ints", lambda: spnn.Conv3d(3, 4, 3, (1, 2))),
    "mode": (
        ValueError,
        "downsample_mode must be one of 'spconv', 'minkowski', got 'floor'",
        lambda: spnn.Conv3d(3, 4, config={"downsample_mode": "floor"}),
    ),
    "weight": (
        ValueError,
        r"weight must have shape \(27, C_in, C_out\) .* got \(8, 3, 4\)",
        lambda: F.conv3d(tensor_of(ONE), torch.ones(8, 3, 4), 3),
    ),
    "outside of the range": (
        ValueError,
        r"coords must lie in .* for spatial_range \(1, 9, 9, 3\), got \[0, 1, 2, 3\] in row 0",
        lambda: spnn.Conv3d(3, 4, 2, 2)(tensor_of(ONE, spatial_range=(1, 9, 9, 3))),
    ),
    "flat range": (
        ValueError,
        "kernel_size must be no larger than the padded spatial_range",
        lambda: spnn.Conv3d(3, 4, 5, 2)(tensor_of(ONE, spatial_range=(1, 9, 9, 4))),
    ),
    "dense": (ValueError, "dense needs a spatial_range", lambda: tensor_of(ONE).dense()),
    "dense outside": (
        ValueError,
        r"coords must lie in \[0, spatial_range\)",
        lambda: tensor_of(ONE, spatial_range=(1, 2, 2, 2)).dense(),
    ),
    "hash": (TypeError, "coords must have dtype torch.int32", lambda: F.sphash(ONE.long())),
    "hash shape": (ValueError, r"coords must have shape \(N, 4\)", lambda: F.sphash(ONE[:, :3])),
    "weights": (
        ValueError,
        r"idx_query must have shape \(N, 8\) .* got \(8, 1\): transpose it",
        lambda: F.calc_ti_weights(ONE.float(), torch.zeros(8, 1).long()),
    ),
    "voxels": (
        ValueError,
        "coords must be less than 2, the length of counts, got 2",
        lambda: F.spvoxelize(torch.ones(1, 1), torch.tensor([2]), torch.ones(2)),
    ),
    "points": (
        ValueError,
        "the operands of . must have the same points",
        lambda: PointTensor(torch.ones(1, 2), ONE) + PointTensor(torch.ones(2, 2), TWO),
    ),
    "axis": (ValueError, "dim must be 0, 1 or 2", lambda: spnn.ToBEVReduction(3)),
}


@pytest.mark.parametrize(("kind", "message", "call"), ERRORS.values(), ids=[*ERRORS])
def test_errors_say_what_is_wrong(kind, message, call):
    with pytest.raises(kind, match=message):
        call()


def test_no_sites():
    x = SparseTensor(torch.ones(0, 3, requires_grad=True), torch.zeros(0, 4, dtype=torch.int32))
    y = spnn.Conv3d(3, 4, 2, 2)(spnn.Conv3d(3, 3, 3)(x))
    z = spnn.Conv3d(4, 5, 2, 2, transposed=True)(y)
    assert z.F.shape == (0, 5)
    z.F.sum().backward()
    assert F.spvoxelize(torch.ones(0, 3), torch.zeros(0).long(), torch.zeros(4)).shape == (4, 3)
    assert (
        F.spdevoxelize(torch.ones(0, 3), torch.full((2, 8), -1), torch.ones(2, 8)).tolist() == [[0.0] * 3] * 2
    )
