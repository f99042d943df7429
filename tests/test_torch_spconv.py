"""spconv's modules on spcy: against dense PyTorch, by their semantics and by what code does with them."""

import copy
import gc
import io
import itertools
import pickle
import weakref
from collections import OrderedDict

import numpy as np
import pytest
from helpers import random_indices

import spcy

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
from torch import nn  # noqa: E402

import spcy.torch.spconv as spconv  # noqa: E402
from spcy.torch.spconv import core  # noqa: E402

pytestmark = pytest.mark.torch
BOXES = {1: (14,), 2: (7, 8), 3: (6, 5, 7), 4: (4, 5, 4, 3)}
BATCHES = 2


def sparse(rng, ndim=3, channels=4, num_sites=None, dtype=torch.float64, batch_size=BATCHES):
    box = BOXES[ndim]
    num_sites = batch_size * int(np.prod(box)) // 4 if num_sites is None else num_sites
    indices = random_indices(rng, num_sites, box, batch_size)
    features = torch.from_numpy(rng.standard_normal((num_sites, channels))).to(dtype).requires_grad_()
    return spconv.SparseConvTensor(features, torch.from_numpy(indices), list(box), batch_size)


def dense_weight(layer):
    """The weight as PyTorch has it, (C_out, C_in, *kernel_size)."""
    return layer.weight.movedim(-1, 1)


def at_sites(dense, y):
    """The rows of a dense (B, C, ..) tensor at a sparse tensor's sites."""
    return dense.movedim(1, -1)[tuple(y.indices.long().T)]


def assert_same_gradients(actual, expected, inputs):
    dy = torch.linspace(-1, 1, actual.numel(), dtype=actual.dtype).view_as(actual)
    for a, b in zip(
        torch.autograd.grad(actual, inputs, dy, retain_graph=True),
        torch.autograd.grad(expected, inputs, dy, retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def layer_of(kind, ndim):
    return getattr(spconv, f"{kind}{ndim}d")


def functional_of(name, ndim):
    return getattr(nn.functional, f"{name}{ndim}d")


GEOMETRIES = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 3, "stride": 1, "padding": 2, "dilation": 2},
    {"kernel_size": 2, "stride": 1, "groups": 2},
    {"kernel_size": 1, "stride": 2},
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_sparse_conv_beside_dense(ndim, bias, geometry, rng):
    x = sparse(rng, ndim)
    layer = layer_of("SparseConv", ndim)(4, 6, bias=bias, **geometry).double()
    y = layer(x)
    options = {k: v for k, v in geometry.items() if k != "kernel_size"}
    dense = functional_of("conv", ndim)(x.dense(), dense_weight(layer), layer.bias, **options)
    assert y.spatial_shape == list(dense.shape[2:])
    torch.testing.assert_close(y.features, at_sites(dense, y))
    assert_same_gradients(y.features, at_sites(dense, y), [x.features, *layer.parameters()])
    np.testing.assert_array_equal(y.indices, np.unique(y.indices, axis=0))


@pytest.mark.parametrize(
    "geometry", [{}, {"dilation": 2}, {"groups": 2}, {"stride": 2, "padding": 3}], ids=str
)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_subm_conv_beside_dense(ndim, geometry, rng):
    """Stride and padding are ignored, as spconv ignores them."""
    x = sparse(rng, ndim)
    layer = layer_of("SubMConv", ndim)(4, 6, 3, indice_key="a", **geometry).double()
    y = layer(x)
    dilation, groups = geometry.get("dilation", 1), geometry.get("groups", 1)
    dense = functional_of("conv", ndim)(
        x.dense(), dense_weight(layer), layer.bias, padding=dilation, dilation=dilation, groups=groups
    )
    assert y.indices is x.indices
    torch.testing.assert_close(y.features, at_sites(dense, y))
    assert_same_gradients(y.features, at_sites(dense, y), [x.features, *layer.parameters()])


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_transposed_conv_beside_dense(ndim, dilation, rng):
    """With a dilation spconv's output is cropped."""
    x = sparse(rng, ndim, num_sites=5)
    layer = layer_of("SparseConvTranspose", ndim)(4, 3, 3, 2, 1, dilation).double()
    y = layer(x)
    dense = functional_of("conv_transpose", ndim)(
        x.dense(), layer.weight.movedim(-1, 0), layer.bias, 2, 1, 0, 1, dilation
    )
    assert y.spatial_shape == [(n - 1) * 2 - 2 + 3 for n in x.spatial_shape]
    assert y.spatial_shape == [n - 2 * (dilation - 1) for n in dense.shape[2:]]
    torch.testing.assert_close(y.features, at_sites(dense, y))
    assert_same_gradients(y.features, at_sites(dense, y), [x.features, *layer.parameters()])


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_inverse_conv_beside_dense(ndim, rng):
    x = sparse(rng, ndim)
    down = layer_of("SparseConv", ndim)(4, 6, 3, 2, 1, indice_key="down").double()
    up = layer_of("SparseInverseConv", ndim)(6, 5, 3, indice_key="down").double()
    y = down(x)
    z = up(y)
    assert z.indices is x.indices
    assert z.spatial_shape == x.spatial_shape
    extra = [n - (2 * (m - 1) - 2 + 3) for n, m in zip(x.spatial_shape, y.spatial_shape, strict=True)]
    dense = functional_of("conv_transpose", ndim)(y.dense(), up.weight.movedim(-1, 0), up.bias, 2, 1, extra)
    torch.testing.assert_close(z.features, at_sites(dense, z))
    assert_same_gradients(z.features, at_sites(dense, z), [x.features, *down.parameters(), *up.parameters()])


def test_four_dimensions(rng):
    x = sparse(rng, 4)
    down = spconv.SparseConv4d(4, 3, 2, 2, indice_key="d").double()
    y = spconv.SparseInverseConv4d(3, 4, 2, indice_key="d").double()(
        down(spconv.SubMConv4d(4, 4, 3).double()(x))
    )
    assert y.indices is x.indices
    array = spcy.SparseTensor(x.coords, x.features.detach().numpy())
    expected = spcy.conv(
        array, down.weight.detach().permute(1, 2, 3, 4, 5, 0).numpy(), down.bias.detach().numpy(), stride=2
    )
    np.testing.assert_allclose(down(x).features.detach(), expected.features, rtol=1e-12)
    assert spconv.SparseMaxPool4d(2)(x).spatial_shape == [2, 2, 2, 1]
    assert spconv.SparseConvTranspose4d(4, 2, 2, 2).double()(x).spatial_shape == [8, 10, 8, 6]


@pytest.mark.parametrize("kind", ["SubMConv3d", "SparseConv3d"])
def test_the_weight_of_one_cell_is_its_memory(kind, rng):
    """Not transposed: what spconv computes."""
    x = sparse(rng)
    layer = getattr(spconv, kind)(4, 6, 1).double()
    assert tuple(layer.weight.shape) == (6, 1, 1, 1, 4)
    expected = x.features @ layer.weight.view(4, 6) + layer.bias
    torch.testing.assert_close(layer(x).features, expected)
    assert_same_gradients(layer(x).features, expected, [x.features, *layer.parameters()])


@pytest.mark.parametrize("geometry", [(2,), (3, 2, 1), (2, 1), (3, 1, 1)], ids=str)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_max_pool_begins_at_zero(ndim, geometry, rng):
    x = sparse(rng, ndim)
    y = layer_of("SparseMaxPool", ndim)(*geometry)(x)
    dense = functional_of("max_pool", ndim)(x.dense(), *geometry)
    torch.testing.assert_close(y.features, at_sites(dense, y).clamp(min=0))
    assert (y.features >= 0).all()
    assert_same_gradients(y.features, at_sites(dense, y).clamp(min=0), [x.features])


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_avg_pool_is_over_sites(ndim, rng):
    x = sparse(rng, ndim)
    y = layer_of("SparseAvgPool", ndim)(3, 2, 1)(x)
    ones = x.replace_feature(torch.ones_like(x.features)).dense()
    pool = functional_of("avg_pool", ndim)
    expected = at_sites(pool(x.dense(), 3, 2, 1), y) / at_sites(pool(ones, 3, 2, 1), y)
    torch.testing.assert_close(y.features, expected)
    assert_same_gradients(y.features, expected, [x.features])


def test_global_pools(rng):
    x = sparse(rng)
    batch = x.indices[:, 0]
    parts = [x.features[batch == b] for b in range(BATCHES)]
    torch.testing.assert_close(spconv.SparseGlobalMaxPool()(x), torch.stack([p.amax(0) for p in parts]))
    torch.testing.assert_close(spconv.SparseGlobalAvgPool()(x), torch.stack([p.mean(0) for p in parts]))


def test_an_inverse_convolution_after_a_pool(rng):
    x = sparse(rng)
    y = spconv.SparseMaxPool3d(2, indice_key="p")(x)
    z = spconv.SparseInverseConv3d(4, 4, 2, indice_key="p").double()(y)
    assert z.indices is x.indices


def u_net(channels=4):
    return nn.ModuleDict(
        {
            "enter": spconv.SubMConv3d(channels, 8, 3, indice_key="a"),
            "down": spconv.SparseSequential(
                spconv.SparseConv3d(8, 16, 3, 2, 1, bias=False, indice_key="d"), nn.BatchNorm1d(16), nn.ReLU()
            ),
            "up": spconv.SparseInverseConv3d(16, 8, 3, indice_key="d"),
        }
    ).double()


def run_u_net(net, x):
    x = net["enter"](x)
    return x + net["up"](net["down"](x))


# What makes a network fast or right: levels, keys, fused steps


def test_rulebooks_are_built_once(rng, monkeypatch):
    built = []
    real = spcy.rulebook._neighbours
    monkeypatch.setattr(spcy.rulebook, "_neighbours", lambda *a: (built.append(1), real(*a))[1])
    x = sparse(rng)
    a, b = (spconv.SubMConv3d(4, 4, 3, indice_key=key).double() for key in ("a", None))
    y = a(x)
    assert y.indices is x.indices
    b(a(y))
    again = spconv.SparseConvTensor(y.features, y.indices, y.spatial_shape, y.batch_size)
    b(again)
    assert again.coords is x.coords
    assert len(built) == 1


def test_two_layers_of_one_geometry_make_one_level(rng):
    x = sparse(rng)
    y, z = (spconv.SparseConv3d(4, 4, 3, 2, 1).double()(x) for _ in range(2))
    assert y.coords is z.coords
    assert (y + z).features.shape == y.features.shape
    before = z.dense()
    y.indices[:, 1:] = 0  # a write to one is none to the other
    assert torch.equal(z.dense(), before)


def test_a_write_to_the_indices_makes_other_sites(rng):
    x = sparse(rng, num_sites=20)
    layer = spconv.SubMConv3d(4, 4, 3).double()
    before = x.coords
    x.indices[:, 1:] = x.indices[:, 1:].flip(0)
    assert x.coords is not before
    np.testing.assert_array_equal(x.coords.indices, x.indices)
    y = spconv.SparseConv3d(4, 4, 2, 2).double()(x)
    first = y.indices.clone()
    y.indices[:, 1:] *= 2
    np.testing.assert_array_equal(spconv.SparseConv3d(4, 4, 2, 2).double()(x).indices, first)
    y.spatial_shape = [2 * n for n in y.spatial_shape]
    np.testing.assert_array_equal(
        layer(y).coords.indices, 2 * first * torch.tensor([0, 1, 1, 1]) + first * torch.tensor([1, 0, 0, 0])
    )


def test_a_write_is_noticed_in_inference_mode(rng):
    layer = spconv.SubMConv2d(1, 1, 3, bias=False)
    nn.init.ones_(layer.weight)
    with torch.inference_mode():
        indices = torch.tensor([[0, 1, 1], [0, 1, 2]], dtype=torch.int32)
        x = spconv.SparseConvTensor(torch.ones(2, 1), indices, [9, 9], 1)
        assert layer(x).features.sum() == 4
        assert layer(x).coords is x.coords
        indices[1, 1] = 8
        assert layer(x).features.sum() == 2


@pytest.mark.parametrize(
    "write", [lambda t: t.data, lambda t: t.numpy(), lambda t: t], ids=["data", "numpy", "own"]
)
def test_a_write_is_noticed_however_it_is_made(write):
    """By `.data` or by NumPy, as a loader's buffer is filled again, PyTorch counts none."""
    x = sparse_pair()
    layer = ones_layer()
    assert layer(x).features.sum() == 4
    write(x.indices)[1, 2] = 8
    assert layer(x).features.sum() == 2
    assert x.dense()[0, 0, 1, 8] == 1
    write(x.indices)[1, 2] = 1
    with pytest.raises(ValueError, match="rows 0 and 1"):
        layer(x)


def sparse_pair():
    indices = torch.tensor([[0, 1, 1], [0, 1, 2]], dtype=torch.int32)
    return spconv.SparseConvTensor(torch.ones(2, 1), indices, [9, 9], 1)


def ones_layer():
    layer = spconv.SubMConv2d(1, 1, 3, bias=False)
    nn.init.ones_(layer.weight)
    return layer


def test_tensors_have_shapes_of_their_own():
    x = sparse_pair()
    for y in (x.replace_feature(x.features), x.shadow_copy(), x + x):
        y.spatial_shape[0] = 99
        assert x.spatial_shape == [9, 9]


def test_a_norm_of_other_channels_is_not_folded():
    for channels in (1, 3):
        net = spconv.SparseSequential(spconv.SubMConv2d(1, 2, 3), nn.BatchNorm1d(channels)).eval()
        with torch.no_grad(), pytest.raises(RuntimeError, match="running_mean should contain 2 elements"):
            net(sparse_pair())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # of PyTorch's own
def test_forward_mode_is_refused():
    """Frozen parameters or not: a tangent is never lost."""
    forward_ad = torch.autograd.forward_ad
    for layer in (
        ones_layer().requires_grad_(False),
        ones_layer(),
        spconv.SparseMaxPool2d(2),
        spconv.ToDense(),
    ):
        with forward_ad.dual_level():
            x = sparse_pair()
            x = x.replace_feature(forward_ad.make_dual(x.features, torch.ones(2, 1)))
            with pytest.raises(NotImplementedError, match="forward mode AD"):
                layer(x)


def test_a_tensor_does_not_take_its_layers_along():
    layer = spconv.SparseConv2d(1, 64, 3, 2, 1, indice_key="k")
    pool = spconv.SparseMaxPool2d(2, indice_key="p")
    for each in (layer, pool):
        each.register_forward_hook(lambda *_: None)
    y = pool(layer(sparse_pair()))
    y = y.replace_feature(y.features.detach())
    assert len(pickle.dumps(y)) < 6000
    assert copy.deepcopy(y).find_indice_pair("k").ksize == [3, 3]


def test_sizes_may_be_tensors():
    assert spconv.SparseConv2d(1, 1, torch.tensor([3, 3])).kernel_size == [3, 3]
    x = sparse_pair()
    y = spconv.SparseConvTensor(x.features, x.indices, torch.tensor([9, 9]), torch.tensor([1]))
    assert torch.equal(y.dense(), x.dense())


def test_an_inverse_convolution_finds_its_level_by_the_key(rng):
    x, net = sparse(rng), u_net()
    y = net["down"](net["enter"](x))
    rebuilt = spconv.SparseConvTensor(
        y.features, y.indices.clone(), y.spatial_shape, y.batch_size, indice_dict=y.indice_dict
    )
    torch.testing.assert_close(net["up"](rebuilt).features, net["up"](y).features, rtol=0, atol=0)
    mixed = y.indices.clone()
    mixed[[3, 5]] = mixed[[5, 3]]
    wrong = spconv.SparseConvTensor(
        y.features, mixed, y.spatial_shape, y.batch_size, indice_dict=y.indice_dict
    )
    with pytest.raises(ValueError, match=r"indice_key 'd' stands for other sites .* in row 3"):
        net["up"](wrong)


def test_indice_dict_may_be_read(rng):
    x = sparse(rng)
    y = spconv.SparseConv3d(4, 4, 3, 2, 1, indice_key="d").double()(
        spconv.SubMConv3d(4, 4, 3, indice_key="s").double()(x)
    )
    assert sorted(y.indice_dict) == ["d", "s"]
    assert x.indice_dict == {}
    data = y.find_indice_pair("d")
    assert data.indices is x.indices
    assert data.out_indices is y.indices
    assert (data.ksize, data.stride, data.padding, data.is_subm) == ([3] * 3, [2] * 3, [1] * 3, False)
    assert (data.spatial_shape, data.out_spatial_shape) == (x.spatial_shape, y.spatial_shape)
    assert y.find_indice_pair("s").is_subm
    assert y.find_indice_pair(None) is None
    seen = set()
    for k, offset in enumerate(np.ndindex(3, 3, 3)):
        rows_in, rows_out = data.indice_pairs[:, k, : data.indice_pair_num[k]].long()
        left = data.indice_pairs[:, k, data.indice_pair_num[k] :]
        assert (left == -1).all()
        expected = x.indices[rows_in][:, 1:] + 1 - torch.tensor(offset)
        assert (expected == 2 * y.indices[rows_out][:, 1:]).all()
        assert (data.pair_fwd[k][rows_out] == rows_in).all()
        assert (data.pair_bwd[k][rows_in] == rows_out).all()
        assert (data.pair_fwd[k] >= 0).sum() == (data.pair_bwd[k] >= 0).sum() == len(rows_in)
        seen |= {*rows_in.tolist()}
    assert seen == {*range(len(x.features))}
    out, pairs, counts = spconv.ops.get_indice_pairs(x.indices, BATCHES, x.spatial_shape, None, 3, 2, 1)
    assert torch.equal(out, y.indices)
    assert torch.equal(pairs, data.indice_pairs)
    assert torch.equal(counts, data.indice_pair_num)
    assert spconv.ops.get_indice_pairs(x.indices, BATCHES, x.spatial_shape, subm=True)[0] is x.indices


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize(
    "activation", [nn.ReLU(True), nn.LeakyReLU(0.1), nn.GELU(), nn.GELU("tanh"), nn.SiLU()], ids=repr
)
def test_fused_is_what_the_modules_give(activation, kernel_size, affine, bias, mode, rng, monkeypatch):
    x = sparse(rng)
    norm = nn.BatchNorm1d(6, affine=affine)
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        if affine:
            norm.weight.normal_()
            norm.bias.normal_()
    net = (
        spconv.SparseSequential(spconv.SubMConv3d(4, 6, kernel_size, bias=bias), norm, activation)
        .double()
        .eval()
    )
    expected = x
    for layer in net:
        expected = (
            layer(expected)
            if isinstance(layer, spconv.SparseModule)
            else expected.replace_feature(layer(expected.features))
        )
    ran = []
    monkeypatch.setattr(nn.BatchNorm1d, "__call__", lambda *a: ran.append(a))
    with mode():
        torch.testing.assert_close(net(x).features, expected.features.detach())
    assert not ran


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_hook_keeps_a_module_a_step_of_its_own(place, rng):
    x = sparse(rng)
    net = spconv.SparseSequential(spconv.SubMConv3d(4, 6, 3), nn.BatchNorm1d(6), nn.ReLU()).double().eval()
    with torch.no_grad():
        fused = net(x).features
        seen = []
        handle = net[place].register_forward_hook(lambda module, args, out: seen.append(out))
        hooked = net(x).features
        assert len(seen) == 1
        torch.testing.assert_close(hooked, fused)
        handle.remove()
        net(x)
        assert len(seen) == 1


def test_nothing_fuses_that_does_something_else(rng):
    class Twice(nn.BatchNorm1d):
        def forward(self, x):
            return 2 * super().forward(x)

    x = sparse(rng)
    for norm in (Twice(6), nn.BatchNorm1d(6, track_running_stats=False), nn.BatchNorm1d(6).train()):
        net = spconv.SparseSequential(spconv.SubMConv3d(4, 6, 3), norm, nn.ReLU()).double().eval()
        norm.train(not isinstance(norm, Twice))
        with torch.no_grad():
            expected = norm.forward(net[0](x).features).relu()
            torch.testing.assert_close(net(x).features, expected, rtol=0, atol=0)
    with torch.no_grad():
        net[0].weight.data.mul_(3)  # is seen at the next call, though PyTorch counts no write
        norm.eval()
        torch.testing.assert_close(net(x).features, norm(net[0](x).features).relu())


def test_gradients_of_the_whole(rng):
    x, net = sparse(rng), u_net()
    inputs = [x.features, *net.parameters()]

    def run(*_):
        return run_u_net(net, x).features

    assert torch.autograd.gradcheck(run, inputs, atol=1e-4, fast_mode=True)  # each layer was, in full


# Containers and tensors


def test_sequential_as_a_container(rng):
    named = OrderedDict([("conv1", spconv.SubMConv3d(4, 4, 3)), ("relu1", nn.ReLU())])
    net = spconv.SparseSequential(named)
    net.add(spconv.SubMConv3d(4, 4, 3), "conv2")
    net.add(nn.ReLU())
    assert [*net._modules] == ["conv1", "relu1", "conv2", "3"]
    assert len(net) == 4
    assert net[-1] is net[3]
    with pytest.raises(IndexError, match=r"idx must be in \[-4, 4\), got 4"):
        net[4]
    with pytest.raises(KeyError, match="must be a new one"):
        net.add(nn.ReLU(), "conv1")
    assert [*spconv.SparseSequential(a=nn.ReLU(), b=spconv.Identity())._modules] == ["a", "b"]
    assert spconv.SparseSequential(nn.ReLU(), spconv.ToDense()).double()(sparse(rng)).shape == (2, 4, 6, 5, 7)
    spconv.assign_name_for_sparse_modules(nn.ModuleDict({"block": net}))
    assert net[0]._sparse_unique_name == "block.conv1"
    assert spconv.modules.is_spconv_module(net)
    assert not spconv.modules.is_spconv_module(nn.ReLU())


def test_layers_on_features(rng):
    x = sparse(rng)
    for kind, plain in (
        (spconv.SparseBatchNorm, nn.BatchNorm1d),
        (spconv.SparseReLU, nn.ReLU),
        (spconv.SparseIdentity, nn.Identity),
    ):
        arguments = [4] if plain is nn.BatchNorm1d else []
        expected = plain(*arguments).double()(x.features)
        assert torch.equal(kind(*arguments).double()(x).features, expected)
        assert torch.equal(kind(*arguments).double()(x.features), expected)
    assert spconv.RemoveGrid()(x).grid is None


def test_tables(rng):
    x = sparse(rng)
    y = x.replace_feature(2 * x.features)
    assert torch.equal(spconv.AddTable()([x, y]).features, 3 * x.features)
    assert spconv.JoinTable()([x, y]).features.shape[1] == 8
    both = spconv.ConcatTable().add(spconv.SubMConv3d(4, 6, 3)).add(spconv.SubMConv3d(4, 6, 3)).double()
    assert spconv.JoinTable()(both(x)).features.shape[1] == 12
    other = sparse(rng)
    for table in (spconv.AddTable(), spconv.JoinTable()):
        with pytest.raises(
            ValueError, match=r"input\[1\] must have the same sites in the same rows.* in row"
        ):
            table([x, other])
    with pytest.raises(ValueError, match=r"operand of \+ must have the same sites"):
        x + other


def test_sparse_add(rng):
    x, y = sparse(rng, num_sites=30), sparse(rng, num_sites=40)
    total = spconv.functional.sparse_add(x, y, x)
    torch.testing.assert_close(total.dense(), 2 * x.dense() + y.dense())
    assert_same_gradients(total.dense(), 2 * x.dense() + y.dense(), [x.features, y.features])
    assert spconv.functional.sparse_add_hash_based is spconv.functional.sparse_add
    part = x.select_by_index(torch.arange(30) < 10)
    kept = x.shadow_copy()
    kept.indice_dict = {"a": 1}
    total = spconv.functional.sparse_add(part, kept)
    assert total.indices is x.indices
    assert total.indice_dict == {"a": 1}
    torch.testing.assert_close(total.dense(), x.dense() + part.dense())


def test_the_tensor(rng):
    x = sparse(rng)
    assert x.spatial_size == 210
    assert x.sparity == len(x.indices) / 210 / 2
    assert repr(x) == f"SparseConvTensor[shape={x.features.shape}]"
    with pytest.raises(ValueError, match="replace_feature"):
        x.features = x.features
    y = x.shadow_copy()
    assert y.features is x.features
    assert y.indice_dict is x.indice_dict
    assert torch.equal(x.minus().features, -x.features)
    assert torch.equal((x + x.features).features, 2 * x.features)
    dense = x.dense(channels_first=False)
    assert dense.shape == (2, 6, 5, 7, 4)
    torch.testing.assert_close(x.dense(), dense.permute(0, 4, 1, 2, 3))
    back = spconv.SparseConvTensor.from_dense(dense)
    torch.testing.assert_close(back.dense(), x.dense())
    part = x.select_by_index(torch.tensor([5, 2]))
    assert torch.equal(part.indices, x.indices[[5, 2]])
    assert part.indice_dict == {}
    x.dense().sum().backward()


def test_int64_indices_that_fit(rng):
    x = sparse(rng)
    y = spconv.SparseConvTensor(x.features, x.indices.long(), x.spatial_shape, BATCHES)
    layer = spconv.SubMConv3d(4, 4, 3).double()
    torch.testing.assert_close(layer(y).features, layer(x).features, rtol=0, atol=0)


# Parameters


def test_state_dicts_and_initial_values():
    layer = spconv.SubMConv3d(16, 32, 3)
    assert {n: tuple(p.shape) for n, p in layer.named_parameters()} == {
        "weight": (32, 3, 3, 3, 16),
        "bias": (32,),
    }
    bound = 1 / np.sqrt(27 * 16)
    assert 0.9 * bound < layer.weight.abs().max() <= bound
    assert layer.bias.abs().max() <= bound
    assert repr(layer) == "SubMConv3d(16, 32, kernel_size=[3, 3, 3], stride=[1, 1, 1])"
    counted = spconv.SparseConv3d(2, 2, 3, 2, record_voxel_count=True)
    assert "max_num_voxels_during_training" in counted.state_dict()
    counted.load_state_dict({k: v for k, v in counted.state_dict().items() if "max" not in k})
    half = spconv.conv.SparseConvolution(2, 4, 4, dtype=torch.float16)
    assert half.weight.dtype is torch.float16


@pytest.mark.parametrize("layout", ["KRSC", "RSKC", "RSCK"])
def test_layouts_of_checkpoints(layout, monkeypatch):
    monkeypatch.setattr(spconv.constants, "SAVED_WEIGHT_LAYOUT", layout)
    layer = spconv.SparseConv3d(2, 5, (3, 1, 2))
    kept = layer.weight.detach().clone()
    saved = {"KRSC": kept, "RSKC": kept.permute(1, 2, 3, 0, 4), "RSCK": kept.permute(1, 2, 3, 4, 0)}[layout]
    layer.load_state_dict({"weight": saved.clone(), "bias": layer.bias.detach().clone()})
    assert torch.equal(layer.weight, kept)
    one = spconv.SubMConv3d(2, 5, 1, bias=False)
    matrix = torch.randn(2, 5)
    saved = matrix.view(5, 1, 1, 1, 2) if layout == "KRSC" else matrix.view(1, 1, 1, 2, 5)
    if layout != "RSKC":
        one.load_state_dict({"weight": saved})
        assert torch.equal(one.weight.view(2, 5), matrix)


def test_a_checkpoint_that_does_not_fit():
    layer = spconv.SubMConv3d(2, 5, 3)
    with pytest.raises(RuntimeError, match=r"Missing key.*weight"):
        layer.load_state_dict({"bias": torch.zeros(5)})
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        layer.load_state_dict({"bias": torch.zeros(5), "weight": torch.zeros(3, 3, 3, 2, 5)})


def test_recorded_counts(rng):
    x = sparse(rng)
    for layer in (
        spconv.SparseConv3d(4, 4, 3, 2, 1, record_voxel_count=True).double(),
        spconv.SparseMaxPool3d(2, record_voxel_count=True),
    ):
        y = layer(x)
        layer(x.select_by_index(torch.arange(5)))
        assert layer.get_max_num_voxels().tolist() == [len(y.indices)]


def test_a_fused_activation_of_the_layer(rng):
    x = sparse(rng)
    Activation = spconv.tensorview.gemm.Activation
    plain = spconv.conv.SparseConvolution(3, 4, 5, subm=True).double().eval()
    for kind, function in (
        (Activation.ReLU, torch.relu),
        (Activation.LeakyReLU, lambda t: nn.functional.leaky_relu(t, 0.3)),
        (Activation.Sigmoid, torch.sigmoid),
    ):
        layer = (
            spconv.conv.SparseConvolution(3, 4, 5, subm=True, act_type=kind, act_alpha=0.3).double().eval()
        )
        layer.load_state_dict(plain.state_dict())
        torch.testing.assert_close(layer(x).features, function(plain(x).features))
        with torch.no_grad():
            torch.testing.assert_close(
                spconv.SparseSequential(layer, nn.ReLU())(x).features, function(plain(x).features).relu()
            )
        with pytest.raises(ValueError, match="act_type must be None_ in training"):
            layer.train()(x)
    added = plain(x)
    torch.testing.assert_close(plain(x, add_input=added).features, 2 * plain(x).features)


# What happens around a network


def test_deepcopy_and_pickle(rng):
    x, net = sparse(rng), u_net()
    expected = run_u_net(net, x).features
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(run_u_net(twin, x).features, expected)
    y = net["down"](net["enter"](x))
    for twin in (copy.copy(y), pickle.loads(pickle.dumps(y.with_features(y.features.detach())))):
        assert torch.equal(twin.indices, y.indices)
        torch.testing.assert_close(net["up"](twin).features, net["up"](y).features, rtol=0, atol=0)
    stream = io.BytesIO()
    torch.save(net, stream)
    stream.seek(0)
    assert torch.equal(run_u_net(torch.load(stream, weights_only=False), x).features, expected)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_in_a_data_loaders_workers(start):
    scans = pytest.importorskip("torch_scans").Scans()
    scans[0]
    workers = {"fork": 2, "spawn": 1}[start]  # each of these imports PyTorch
    options = {"num_workers": workers, "multiprocessing_context": start}
    loader = torch.utils.data.DataLoader(scans, batch_size=None, **options)
    for item, (features, threads) in enumerate(loader):
        assert torch.equal(features, scans[item][0])
        assert threads == 1  # as PyTorch sets it in a worker


def test_moves_and_replicas(rng):
    net = u_net()
    net.to(torch.float32)
    x = sparse(rng, dtype=torch.float32)
    expected = run_u_net(net, x).features
    replica = net["enter"]._replicate_for_data_parallel()
    replica.weight, replica.bias = net["enter"].weight * 1, net["enter"].bias * 1
    assert torch.equal(replica(x).features, net["enter"](x).features)
    net.to("meta")
    with pytest.raises(ValueError, match="weight must be on cpu"):
        run_u_net(net, x)
    assert expected.dtype is torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits(dtype, rng):
    pytest.importorskip("ml_dtypes")
    x = sparse(rng, dtype=torch.float32)
    net = u_net().float()
    exact = run_u_net(net, x).features
    half = run_u_net(net.to(dtype), x.replace_feature(x.features.detach().to(dtype).requires_grad_()))
    assert half.features.dtype is dtype
    torch.testing.assert_close(
        half.features.float(), exact, rtol=0.05, atol=0.05 * float(exact.detach().abs().max())
    )
    half.features.float().sum().backward()
    assert all(p.grad.dtype is dtype for p in net.parameters())
    net.float().zero_grad()
    with torch.autocast("cpu", dtype=dtype):
        y = run_u_net(net, x)
    assert y.features.dtype is dtype
    y.features.float().sum().backward()
    assert all(p.grad.dtype is torch.float32 for p in net.parameters())


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)  # of torch.compile itself
def test_compiled(rng):
    """Its graphs end at sparse layers; what is between is compiled."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.head = u_net(), nn.Linear(8, 3).double()

        def forward(self, features, indices):
            x = spconv.SparseConvTensor(features, indices, list(BOXES[3]), BATCHES)
            y = run_u_net(self.net, x)
            y = y.replace_feature(torch.relu(y.features) * 2)
            return self.head(y.features), spconv.SparseMaxPool3d(2)(y).dense().sum()

    x, net = sparse(rng), Net()
    compiled = torch.compile(net, backend="eager", fullgraph=False)
    inputs = [x.features, *net.parameters()]
    for training in (True, False):
        net.train(training)
        for actual, expected in zip(compiled(x.features, x.indices), net(x.features, x.indices), strict=True):
            torch.testing.assert_close(actual, expected)
            assert_same_gradients(actual, expected, inputs[:1])
    with torch.no_grad():
        torch.testing.assert_close(compiled(x.features, x.indices)[0], net(x.features, x.indices)[0])


def test_nothing_is_kept(rng):
    net = u_net()
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    sites = []
    for _ in range(5):
        x = sparse(rng)
        sites.append(weakref.ref(x.coords))
        optimizer.zero_grad()
        loss = run_u_net(net, x).features.square().mean()
        loss.backward()
        optimizer.step()
        del x, loss
    gc.collect()
    assert [s() for s in sites] == [None] * 5
    assert len(core._LEVELS) == 0


# Bad input


def bad_calls():
    indices = torch.tensor([[0, 1, 1], [0, 2, 2]], dtype=torch.int32)
    two = torch.ones(2, 4)
    layer = spconv.SubMConv2d(4, 4, 3, indice_key="a")

    def tensor(features=two, indices=indices, shape=(8, 8), batch_size=1, **options):
        return spconv.SparseConvTensor(features, indices, shape, batch_size, **options)

    def changed(row, column, value):
        out = indices.long()
        out[row, column] = value
        return out

    yield (
        ValueError,
        r"indices must fit in int32, got \[0, 4294967297, 2\] in row 1",
        lambda: layer(tensor(indices=changed(1, 1, 2**32 + 1))),
    )
    yield TypeError, "indices must have dtype torch.int32", lambda: tensor(indices=indices.float())
    yield ValueError, "indices must be on cpu", lambda: tensor(indices=indices.to("meta"))
    yield ValueError, "CPU or a CUDA device", lambda: tensor(two.to("meta"), indices.to("meta"))
    yield TypeError, "indices must be a torch.Tensor", lambda: tensor(indices=indices.numpy())
    yield (
        ValueError,
        r"batch index in \[0, 1\).* got -1 in row 1",
        lambda: layer(tensor(indices=changed(1, 0, -1))),
    )
    yield (
        ValueError,
        r"batch index in \[0, 1\).* got 1 in row 1",
        lambda: layer(tensor(indices=changed(1, 0, 1))),
    )
    yield ValueError, r"lie in \[0, shape\).* in row 1", lambda: layer(tensor(shape=(2, 2)))
    yield ValueError, "rows 0 and 1", lambda: layer(tensor(indices=indices[[0, 0]]))
    yield (
        ValueError,
        "features must have 2 rows, one per site, got 3",
        lambda: layer(tensor(torch.ones(3, 4))),
    )
    yield ValueError, r"features must have shape \(N, C\)", lambda: tensor(torch.ones(2))
    yield ValueError, "spatial_shape must have 2 ints", lambda: tensor(shape=(8, 8, 8))
    yield ValueError, "batch_size must be at least 1", lambda: tensor(batch_size=0)
    yield TypeError, "weight must have dtype float64", lambda: layer(tensor(two.double().requires_grad_()))
    yield TypeError, "features must have dtype float32", lambda: layer(tensor(two.int()))
    yield ValueError, "input must have 4 channels, got 5", lambda: layer(tensor(torch.ones(2, 5)))
    yield ValueError, "input must have 3 spatial axes, got 2", lambda: spconv.SubMConv3d(4, 4, 3)(tensor())
    yield TypeError, "input must be a SparseConvTensor", lambda: layer(two)
    yield TypeError, "input must be a SparseConvTensor", lambda: spconv.SparseMaxPool2d(2)(two)
    yield ValueError, "odd kernel sizes", lambda: spconv.SubMConv2d(4, 4, 2)(tensor())
    yield ValueError, "in_channels must be at least 1", lambda: spconv.SubMConv2d(0, 4, 3)
    yield ValueError, "kernel_size must be at least 1", lambda: spconv.SparseConv2d(4, 4, (3, 0))
    yield ValueError, "stride must be at least 1", lambda: spconv.SparseConv2d(4, 4, 3, 0)
    yield ValueError, "padding must be at least 0", lambda: spconv.SparseConv2d(4, 4, 3, 1, -1)
    yield ValueError, "stride must be at least 1", lambda: spconv.SparseMaxPool2d(2, 0)
    yield TypeError, "batch_size must be an int, got float", lambda: tensor(batch_size=1.5)
    yield TypeError, "spatial_shape must be 2 ints", lambda: tensor(shape=None)
    yield TypeError, "spatial_shape must be 2 ints", lambda: tensor(shape="88")
    yield TypeError, "spatial_shape must be 2 ints", lambda: tensor(shape=["a", "b"])
    yield TypeError, "batch_size must be an int, got list", lambda: tensor(batch_size=[1])

    def assigned(name, value):
        x = tensor()
        setattr(x, name, value)
        return layer(x)

    yield TypeError, "batch_size must be an int, got NoneType", lambda: assigned("batch_size", None)
    yield TypeError, "batch_size must be an int, got float", lambda: assigned("batch_size", 2.7)
    yield TypeError, "spatial_shape must be 2 ints", lambda: assigned("spatial_shape", None)
    yield TypeError, "add_input must be a SparseConvTensor", lambda: layer(tensor(), two)
    yield TypeError, r"tens\[0\] must be a SparseConvTensor", lambda: spconv.functional.sparse_add([tensor()])
    yield TypeError, "input must be a SparseConvTensor", lambda: spconv.SparseGlobalMaxPool()(two)
    yield ValueError, r"features must have shape \(N, C\)", lambda: layer(tensor().replace_feature(two[0]))
    yield TypeError, "input must be a sequence of at least one", lambda: spconv.JoinTable()([])
    yield TypeError, "spatial_shape must be 2 ints", lambda: spconv.ops.get_indice_pairs(indices, 1, 8)
    yield TypeError, "batch_size must be an int", lambda: spconv.ops.get_indice_pairs(indices, None, [8, 8])
    yield (
        ValueError,
        "kernel_size must be odd",
        lambda: spconv.ops.get_indice_pairs(indices, 1, [8, 8], ksize=2, subm=True),
    )
    yield TypeError, "indice_key must be a str", lambda: spconv.SubMConv2d(4, 4, 3, indice_key=["a"])
    yield (
        TypeError,
        "act_type must be a tensorview",
        lambda: spconv.conv.SparseConvolution(2, 4, 4, act_type="relu"),
    )
    yield ValueError, "groups must divide", lambda: spconv.SubMConv2d(4, 4, 3, groups=3)
    yield ValueError, "kernel_size must be an int or 2 ints", lambda: spconv.SubMConv2d(4, 4, (3, 3, 3))
    yield (
        ValueError,
        "padding must be 0 for a kernel of one cell",
        lambda: spconv.SparseConv2d(4, 4, 1, padding=1),
    )
    yield ValueError, "no larger than the padded shape", lambda: spconv.SparseConv2d(4, 4, 9)(tensor())
    yield (
        ValueError,
        r"that the input came through, \[\], got 'z', which is none",
        lambda: spconv.SparseInverseConv2d(4, 4, 3, "z")(tensor()),
    )
    yield (
        ValueError,
        "is that of a submanifold convolution",
        lambda: spconv.SparseInverseConv2d(4, 4, 3, "a")(layer(tensor())),
    )
    down = lambda: spconv.SparseConv2d(4, 4, 3, 2, 1, indice_key="d")(tensor())  # noqa: E731
    yield (
        ValueError,
        r"kernel_size must be that of the layer with indice_key 'd', \[3, 3\]",
        lambda: spconv.SparseInverseConv2d(4, 4, 2, "d")(down()),
    )
    yield (
        ValueError,
        "indice_key must be new, got 'd'",
        lambda: spconv.SparseConv2d(4, 4, 3, indice_key="d")(down()),
    )
    yield (
        ValueError,
        "indice_key must be new, got 'd'",
        lambda: spconv.SparseMaxPool2d(2, indice_key="d")(down()),
    )
    yield ValueError, "'d' must be new", lambda: spconv.SubMConv2d(4, 4, 3, indice_key="d")(down())
    yield (
        ValueError,
        "dilation must be that of the other layer",
        lambda: spconv.SubMConv2d(4, 4, 3, dilation=2, indice_key="a")(layer(tensor())),
    )

    def other_sites():
        y = layer(tensor())
        y.indices = indices.flip(1).flip(1) + torch.tensor([0, 0, 1], dtype=torch.int32)
        return layer(y)

    yield (
        ValueError,
        r"indice_key 'a' stands for other sites .* got \[0, 1, 1\] and \[0, 1, 2\] in row 0",
        other_sites,
    )
    yield ValueError, "subm must be False", lambda: spconv.pool.SparseMaxPool(2, subm=True)
    yield (
        ValueError,
        "have names of their own",
        lambda: spconv.SparseSequential(nn.ReLU(), **{"0": nn.ReLU()}),
    )


@pytest.mark.parametrize(
    ("kind", "message", "call"), [*bad_calls()], ids=lambda v: v if isinstance(v, str) else ""
)
def test_errors_name_what_is_wrong(kind, message, call):
    with pytest.raises(kind, match=message):
        call()


def test_no_sites():
    features, indices = torch.empty(0, 4, requires_grad=True), torch.empty(0, 4, dtype=torch.int32)
    net = u_net().float().eval()
    x = spconv.SparseConvTensor(features, indices, [6, 5, 7], 2)
    y = run_u_net(net, x)
    assert y.features.shape == (0, 8)
    y.features.sum().backward()
    assert features.grad.shape == (0, 4)
    with torch.no_grad():
        assert run_u_net(net, x).dense().shape == (2, 8, 6, 5, 7)


# Points to voxels


def voxels_by_hand(points, size, bounds, max_voxels, max_points):
    low, high = np.float32(bounds[: len(size)]), np.float32(bounds[len(size) :])
    shape = np.round((high - low) / np.float32(size)).astype(int)
    found, ids = OrderedDict(), []
    for point in points:
        cell = np.floor((np.float32(point[: len(size)]) - low) / np.float32(size)).astype(int)
        key = tuple(cell[::-1])
        inside = ((cell >= 0) & (cell < shape)).all() and (key in found or len(found) < max_voxels)
        if inside:
            found.setdefault(key, []).append(point)
        ids.append([*found].index(key) if inside else -1)
    voxels = np.zeros((len(found), max_points, points.shape[1]), np.float32)
    for voxel, group in zip(voxels, found.values(), strict=True):
        voxel[: len(group[:max_points])] = group[:max_points]
    return (
        voxels,
        np.array([*found], np.int32),
        np.array([min(len(g), max_points) for g in found.values()]),
        np.array(ids),
    )


@pytest.mark.parametrize("max_voxels", [7, 1000])
@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_points_to_voxels(ndim, max_voxels, rng):
    points = rng.uniform(-1, 5, (300, ndim + 1)).astype(np.float32)
    size, bounds = [1.0] * ndim, [0.0] * ndim + [4.0] * ndim
    voxels, indices, counts, ids = voxels_by_hand(points, size, bounds, max_voxels, 3)
    generator = spconv.utils.PointToVoxel(size, bounds, ndim + 1, max_voxels, 3, torch.device("cpu:0"))
    for actual, expected in zip(
        generator.generate_voxel_with_id(torch.from_numpy(points)),
        (voxels, indices, counts, ids),
        strict=True,
    ):
        np.testing.assert_array_equal(actual, expected)
    assert [t.dtype for t in generator(torch.from_numpy(points))] == [torch.float32, torch.int32, torch.int32]
    mean = voxels.sum(1) / counts[:, None]
    filled = np.where(np.arange(3)[:, None] < counts[:, None, None], voxels, mean[:, None])
    np.testing.assert_allclose(generator(torch.from_numpy(points), empty_mean=True)[0], filled, rtol=1e-6)
    tv = spconv.tensorview
    old = getattr(spconv.utils, f"Point2VoxelCPU{ndim}d")(size, bounds, ndim + 1, max_voxels, 3)
    for actual, expected in zip(
        old.point_to_voxel(tv.from_numpy(points)), (voxels, indices, counts), strict=True
    ):
        np.testing.assert_array_equal(actual.numpy(), expected)
        assert np.shares_memory(actual.numpy_view(), actual.numpy_view())
    np.testing.assert_allclose(
        old.point_to_voxel_empty_mean(tv.from_numpy(points))[0].numpy(), filled, rtol=1e-6
    )
    oldest = spconv.utils.VoxelGenerator(size, bounds, 3, max_voxels).generate(points)
    for actual, expected in zip(oldest, (voxels, indices, counts), strict=True):
        np.testing.assert_array_equal(actual, expected)
    as_dict = spconv.utils.VoxelGeneratorV2(size, bounds, 3).generate(points, max_voxels)
    np.testing.assert_array_equal(as_dict["coordinates"], indices)
    features = torch.from_numpy(rng.standard_normal((len(indices), 2)))
    gathered = spconv.utils.gather_features_by_pc_voxel_id(features, torch.from_numpy(ids), -7)
    expected = np.where(ids[:, None] < 0, -7, features.numpy()[ids])
    np.testing.assert_array_equal(gathered, expected)


def test_no_points():
    generator = spconv.utils.PointToVoxel([1.0] * 3, [0.0] * 3 + [4.0] * 3, 4, 10, 3)
    voxels, indices, counts = generator(torch.empty(0, 4))
    assert (voxels.shape, indices.shape, counts.shape) == ((0, 3, 4), (0, 3), (0,))
    voxels, _, _, ids = generator.generate_voxel_with_id(torch.full((2, 4), 9.0))
    assert len(voxels) == 0
    assert ids.tolist() == [-1, -1]


def test_bad_points():
    generator = spconv.utils.PointToVoxel([1.0] * 3, [0.0] * 3 + [4.0] * 3, 4, 10, 3)
    with pytest.raises(ValueError, match=r"points must be finite, got .* in row 1"):
        generator(torch.tensor([[1.0] * 4, [1.0, np.nan, 1.0, 1.0]]))
    with pytest.raises(ValueError, match=r"points must have shape \(N, 4\)"):
        generator(torch.ones(3, 3))
    with pytest.raises(ValueError, match="coors_range_xyz must have 6 numbers"):
        spconv.utils.PointToVoxel([1.0] * 3, [0.0, 4.0], 4, 10, 3)
    with pytest.raises(ValueError, match="at least one voxel"):
        spconv.utils.PointToVoxel([1.0] * 3, [4.0] * 3 + [0.0] * 3, 4, 10, 3)
    with pytest.raises(ValueError, match="vsize_xyz must have 3 numbers"):
        spconv.utils.Point2VoxelCPU3d([1.0] * 2, [0.0] * 2 + [4.0] * 2, 4, 10, 3)


def test_every_argument_is_there():
    """Kind by kind, the arguments of spconv 2.3.8 in their order."""
    import inspect

    usual = (
        "in_channels out_channels kernel_size stride padding dilation groups bias indice_key algo fp32_accum"
    )
    inverse = (
        "in_channels out_channels kernel_size indice_key bias algo fp32_accum large_kernel_fast_algo name"
    )
    pool = "kernel_size stride padding dilation indice_key algo record_voxel_count name"
    for kind, ndim in itertools.product(
        ("SubMConv", "SparseConv", "SparseConvTranspose", "SparseInverseConv"), range(1, 5)
    ):
        names = [*inspect.signature(layer_of(kind, ndim)).parameters]
        if kind == "SparseInverseConv":
            assert names == inverse.split()
        else:
            assert names[:11] == usual.split()
            assert {*names[11:]} == {"record_voxel_count", "large_kernel_fast_algo", "name"}
    for kind, last in (("SparseMaxPool", 4), ("SparseAvgPool", 3)):
        for ndim in range(1, last + 1):
            assert [*inspect.signature(layer_of(kind, ndim)).parameters] == pool.split()


class OtherConv(spconv.SparseModule):
    """A layer as code has it that writes its own: pairs and key by hand, a weight as spconv's."""

    def __init__(
        self, c_in, c_out, kernel_size, stride=1, padding=0, subm=False, inverse=False, indice_key=None
    ):
        super().__init__()
        self.geometry = [[kernel_size] * 3, [stride] * 3, [padding] * 3, [1] * 3]
        self.subm, self.inverse, self.indice_key = subm, inverse, indice_key
        self.weight = nn.Parameter(torch.randn(c_out, *[kernel_size] * 3, c_in, dtype=torch.float64) / 4)
        self.bias = nn.Parameter(torch.randn(c_out, dtype=torch.float64))

    def forward(self, x):
        shape, features = x.spatial_shape, x.features
        algo = core.ConvAlgo.Native
        data = x.find_indice_pair(self.indice_key)
        if self.inverse:
            pairs = data.indice_pairs, data.indice_pair_num, len(data.indices)
            y = spconv.functional.indice_inverse_conv(features, self.weight, *pairs, algo, None, self.bias)
            out = spconv.SparseConvTensor(y, data.indices, data.spatial_shape, x.batch_size)
            out.indice_dict = x.indice_dict
            return out
        if data is None:
            out_shape = shape if self.subm else spconv.ops.get_conv_output_size(shape, *self.geometry)
            outids, pairs, num = spconv.ops.get_indice_pairs(
                x.indices, x.batch_size, shape, algo, *self.geometry, [0] * 3, self.subm, False
            )
            data = core.IndiceData(
                outids, x.indices, pairs, num, shape, out_shape, self.subm, algo, *self.geometry
            )
        call = spconv.functional.indice_subm_conv if self.subm else spconv.functional.indice_conv
        y = call(features, self.weight, data.indice_pairs, data.indice_pair_num, len(data.out_indices), algo)
        out = x.replace_feature(y + self.bias)
        out.indices, out.spatial_shape = data.out_indices, data.out_spatial_shape
        out.indice_dict = {**x.indice_dict, self.indice_key: data}
        return out


def both_kinds(own, layer):
    layer = layer.double()
    with torch.no_grad():
        layer.weight.copy_(own.weight)
        layer.bias.copy_(own.bias)
    return own, layer


def test_layers_of_other_code_give_what_these_give(rng):
    pairs = [
        both_kinds(
            OtherConv(4, 6, 3, padding=1, subm=True, indice_key="s"),
            spconv.SubMConv3d(4, 6, 3, padding=1, bias=True, indice_key="s"),
        ),
        both_kinds(
            OtherConv(6, 5, 3, 2, 1, indice_key="d"),
            spconv.SparseConv3d(6, 5, 3, 2, 1, bias=True, indice_key="d"),
        ),
        both_kinds(
            OtherConv(5, 4, 3, inverse=True, indice_key="d"),
            spconv.SparseInverseConv3d(5, 4, 3, "d", bias=True),
        ),
    ]
    x = sparse(rng)
    outputs = []
    for which in itertools.product((0, 1), repeat=3):  # what one kind leaves, the other takes
        y = x
        for kind, pair in zip(which, pairs, strict=True):
            y = pair[kind](y)
        outputs.append(y)
    expected = outputs[-1]
    layers = [pair[1] for pair in pairs]
    dy = torch.randn_like(expected.features)
    inputs = [x.features, *(layer.weight for layer in layers)]
    gradients = torch.autograd.grad(expected.features, inputs, dy, retain_graph=True)
    for which, y in zip(itertools.product((0, 1), repeat=3), outputs, strict=True):
        torch.testing.assert_close(y.features, expected.features)
        assert torch.equal(y.indices, x.indices)
        own = [x.features, *(pair[kind].weight for kind, pair in zip(which, pairs, strict=True))]
        for a, b in zip(torch.autograd.grad(y.features, own, dy, retain_graph=True), gradients, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("inverse", [False, True], ids=["there", "back"])
def test_pairs_that_were_changed_run_as_they_are(inverse, rng):
    x = sparse(rng, num_sites=60)
    outids, pairs, num = spconv.ops.get_indice_pairs(x.indices, BATCHES, x.spatial_shape, ksize=3, stride=2)
    weight = torch.randn(5, 27, 4, dtype=torch.float64, requires_grad=True)
    features = x.features
    if inverse:
        features = torch.randn(len(outids), 4, dtype=torch.float64, requires_grad=True)
    num_out = len(x.indices) if inverse else len(outids)
    call = spconv.functional.indice_inverse_conv if inverse else spconv.functional.indice_conv
    known = call(features, weight, pairs, num, num_out)
    copied = call(features, weight, pairs.clone(), num, num_out)
    torch.testing.assert_close(copied, known)
    assert_same_gradients(copied, known, [features, weight])
    half = num.clone()
    half[::2] = 0  # offsets that do not count
    without = weight.clone()
    without[:, ::2] = 0
    torch.testing.assert_close(
        call(features, weight, pairs, half, num_out), call(features, without, pairs, num, num_out)
    )
    swapped = [3, 5], [5, 3]
    expected = call(features, weight[:, [0, 1, 2, 5, 4, 3, *range(6, 27)]], pairs, num, num_out)
    pairs.numpy()[:, swapped[0]] = pairs.numpy()[:, swapped[1]]  # a write that PyTorch does not count
    num[swapped[0]] = num[swapped[1]]
    torch.testing.assert_close(call(features, weight, pairs, num, num_out), expected)
    num.fill_(1)  # and as many of other rows
    pairs.numpy()[:, :, 0] = 0
    both = torch.zeros(num_out, 5, dtype=torch.float64)
    both[0] = features[0] @ weight.sum(1).T
    torch.testing.assert_close(call(features, weight, pairs, num, num_out), both)


def test_activation_and_bias_of_pairs(rng):
    x = sparse(rng, num_sites=40)
    _, pairs, num = spconv.ops.get_indice_pairs(x.indices, BATCHES, x.spatial_shape, subm=True)
    weight, bias = torch.randn(5, 27, 4, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    kinds = spconv.tensorview.Activation
    plain = spconv.ops.indice_conv(x.features, weight, pairs, num, 40, subm=True) + bias
    for kind, function in (
        (kinds.ReLU, torch.relu),
        (kinds.Sigmoid, torch.sigmoid),
        (kinds.LeakyReLU, lambda y: nn.functional.leaky_relu(y, 0.2)),
    ):
        args = x.features, weight, pairs, num, 40
        y = spconv.ops.indice_conv(*args, subm=True, bias=bias, act_alpha=0.2, act_type=kind)
        torch.testing.assert_close(y, function(plain))


def test_max_pool_over_pairs(rng):
    x = sparse(rng)
    expected = spconv.SparseMaxPool3d(3, 2, 1)(x)
    outids, pairs, num = spconv.ops.get_indice_pairs(
        x.indices, BATCHES, x.spatial_shape, ksize=3, stride=2, padding=1
    )
    assert torch.equal(outids, expected.indices)
    for given in (pairs, pairs.clone()):
        y = spconv.functional.indice_maxpool(x.features, given, num, len(outids))
        torch.testing.assert_close(y, expected.features)
        assert_same_gradients(y, expected.features, [x.features])


def test_pairs_are_checked(rng):
    x = sparse(rng, num_sites=30)
    _, pairs, num = spconv.ops.get_indice_pairs(x.indices, BATCHES, x.spatial_shape, subm=True)
    weight = torch.zeros(5, 27, 4, dtype=torch.float64)
    call = spconv.functional.indice_conv
    with pytest.raises(
        ValueError, match=r"filters must have .* 27 cells, .* 4 input channels, .* \(5, 9, 4\)"
    ):
        call(x.features, weight[:, :9], pairs, num, 30)
    with pytest.raises(ValueError, match=r"indice_pairs must have shape \(2, K, P\), got \(27, 30\)"):
        call(x.features, weight, pairs[0], num, 30)
    with pytest.raises(ValueError, match=r"indice_pair_num must have shape \(27,\), .* got \(26,\)"):
        call(x.features, weight, pairs, num[1:], 30)
    with pytest.raises(TypeError, match=r"indice_pairs must be a torch\.Tensor"):
        call(x.features, weight, pairs.numpy(), num, 30)
    with pytest.raises(ValueError, match=r"act_type must be one of .* got 1"):
        call(x.features, weight, pairs, num, 30, act_type=1)
    with pytest.raises(ValueError, match="num_activate_out must be at least 0, got -1"):
        call(x.features, weight, pairs, num, -1)
    with pytest.raises(ValueError, match=r"bias must have shape \(5,\), got \(2, 1, 5\)"):
        call(x.features, weight, pairs, num, 30, bias=torch.zeros(2, 1, 5, dtype=torch.float64))
    for given in (pairs, pairs.clone()):
        with pytest.raises(TypeError, match="filters and bias must have the dtype of features"):
            call(x.features, weight.float(), given, num, 30)
        with pytest.raises(TypeError, match="features must have dtype float32"):
            call(x.features.long(), weight.long(), given, num, 30)
        with pytest.raises(ValueError, match=r"indice_pair_num must be in \[0, 30\], .* got -1 of offset 2"):
            call(x.features, weight, given, num.clone().index_fill_(0, torch.tensor(2), -1), 30)
    with pytest.raises(ValueError, match=r"indice_pair_num must be in \[0, 1\]"):
        call(x.features, weight, pairs[:, :, :1], num, 30)
    more = num.clone()
    more[3] += 1
    with pytest.raises(ValueError, match=r"rows of inputs in \[0, 30\) .* got -1 in pair \d+ of offset 3"):
        call(x.features, weight, pairs, more, 30)
    with pytest.raises(ValueError, match=r"rows of outputs in \[0, 20\) .* of offset"):
        call(x.features, weight, pairs, num, 20)


def test_an_inverse_layer_takes_what_other_code_left_after_a_copy(rng):
    x = sparse(rng)
    y = OtherConv(4, 3, 3, 2, 1, indice_key="d")(x)
    up = spconv.SparseInverseConv3d(3, 4, 3, "d").double()
    expected = up(y).features
    leaf = y.replace_feature(y.features.detach())
    torch.testing.assert_close(up(copy.deepcopy(leaf)).features, expected)
    rebuilt = spconv.SparseConvTensor(y.features, y.indices, y.spatial_shape, y.batch_size)
    rebuilt.indice_dict = y.indice_dict
    torch.testing.assert_close(up(rebuilt).features, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_pairs_in_half_precision_and_autocast(dtype, rng):
    x = sparse(rng, num_sites=60, dtype=torch.float32)
    _, pairs, num = spconv.ops.get_indice_pairs(x.indices, BATCHES, x.spatial_shape, subm=True)
    weight, bias = torch.randn(5, 27, 4, requires_grad=True), torch.randn(5, requires_grad=True)
    call = spconv.functional.indice_conv
    exact = call(x.features, weight, pairs, num, 60, bias=bias)
    for given in (pairs, pairs.clone()):
        with torch.autocast("cpu", dtype=dtype):
            y = call(x.features, weight, given, num, 60, bias=bias)
        assert y.dtype is dtype
        torch.testing.assert_close(y.float(), exact, atol=0.06, rtol=0.02)
        y.float().sum().backward()
        half = call(*(t.detach().to(dtype) for t in (x.features, weight)), given, num, 60)
        error = (half.float() - exact + bias).abs().max() / exact.abs().max()
        assert error < (0.01 if dtype is torch.bfloat16 else 0.001)  # summed in float32, rounded once


def test_saved_pairs_are_plain_tensors(rng):
    x = sparse(rng, num_sites=30)
    y = spconv.SparseConv3d(4, 4, 3, 2, 1, indice_key="d").double()(x)
    for pairs in (
        spconv.ops.get_indice_pairs(x.indices, BATCHES, x.spatial_shape)[1],
        y.find_indice_pair("d").indice_pairs,
    ):
        file = io.BytesIO()
        torch.save(pairs, file)
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=True), pairs)


@pytest.mark.parametrize("values", [[0.0, 0, 0], [2, -1, 2], [float("nan"), 1, 2], [-1, -2, -3]], ids=str)
def test_max_pool_over_changed_pairs_has_the_same_gradient(values):
    indices = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 1]], dtype=torch.int32)
    _, pairs, num = spconv.ops.get_indice_pairs(indices, 1, [4, 4], ksize=3, subm=True)
    results = []
    for given in (pairs, pairs.clone()):
        features = torch.tensor(values, dtype=torch.float64)[:, None].requires_grad_()
        y = spconv.functional.indice_maxpool(features, given, num, 3)
        y.sum().backward()
        results.append((y.detach(), features.grad))
    torch.testing.assert_close(results[1], results[0], equal_nan=True)


def hand_made(x, outids, pairs, num, out_shape, geometry, subm=False):
    algo = core.ConvAlgo.Native
    return core.IndiceData(outids, x.indices, pairs, num, x.spatial_shape, out_shape, subm, algo, *geometry)


def test_an_inverse_layer_goes_by_the_pairs_that_were_left(rng):
    """Of a transposed layer too, of any number of batches, and of pairs that are no layer's."""
    up = spconv.SparseInverseConv3d(5, 4, 3, "k", bias=True).double()
    geometry = [3] * 3, [2] * 3, [0] * 3, [1] * 3
    for batches, transposed in ((2, True), (3, False)):
        x = sparse(rng, num_sites=40, batch_size=batches)
        outids, pairs, num = spconv.ops.get_indice_pairs(
            x.indices, batches, x.spatial_shape, core.ConvAlgo.Native, *geometry, 0, False, transposed
        )
        size = (
            [2 * (n - 1) + 3 for n in x.spatial_shape]
            if transposed
            else [(n - 3) // 2 + 1 for n in x.spatial_shape]
        )
        features = torch.randn(len(outids), 5, dtype=torch.float64)
        none = torch.full_like(pairs, -1)
        for given, count in ((pairs, num), (none, torch.zeros_like(num))):
            data = hand_made(x, outids, given, count, size, geometry)
            assert data.pair_fwd.shape == (27, len(outids))
            assert data.pair_bwd.shape == (27, 40)
            for _ in range(2):
                y = spconv.SparseConvTensor(features, outids, size, batches, indice_dict={"k": data})
                out = up(y)
                assert torch.equal(out.indices, x.indices)
                expected = spconv.functional.indice_inverse_conv(
                    features, up.weight, given, count, 40, bias=up.bias
                )
                torch.testing.assert_close(out.features, expected)
                more = up(y, out).features  # with another added
                torch.testing.assert_close(more, 2 * expected)
                with pytest.raises(ValueError, match="add_input must have the same sites"):
                    up(y, out.select_by_index(torch.arange(39, -1, -1)))
        torch.testing.assert_close(expected, up.bias.expand(40, -1))
        with pytest.raises(ValueError, match="indice_key 'k' stands for other sites"):
            up(spconv.SparseConvTensor(features, outids.flip(0), size, batches, indice_dict={"k": data}))


def test_what_other_code_leaves_is_checked(rng):
    x = sparse(rng, num_sites=20)
    outids, pairs, num = spconv.ops.get_indice_pairs(x.indices, BATCHES, x.spatial_shape, stride=2)
    geometry, size = ([3] * 3, [2] * 3, [0] * 3, [1] * 3), [2, 2, 3]
    for change, error, message in (
        ({"pairs": None}, TypeError, "indice_pairs must be a torch.Tensor, got NoneType"),
        ({"pairs": pairs.float()}, TypeError, "indice_pairs must have dtype torch.int32, got torch.float32"),
        ({"num": num.bool()}, TypeError, "indice_pair_num must have dtype torch.int32, got torch.bool"),
        ({"num": num + 100}, ValueError, r"indice_pair_num must be in \[0, 20\], .* of offset 0"),
        ({"outids": outids[:, 0]}, ValueError, "out_indices must have shape"),
        ({"outids": outids.double()}, TypeError, "out_indices must have dtype torch.int32"),
        ({"out_shape": [2, 2]}, ValueError, "out_spatial_shape must have 3 ints"),
        ({"subm": None}, TypeError, "is_subm must be a bool, got NoneType"),
    ):
        args = {"outids": outids, "pairs": pairs, "num": num, "out_shape": size, "geometry": geometry}
        with pytest.raises(error, match=message):
            hand_made(x, **{**args, **change})
    with pytest.raises(ValueError, match="indices must have shape"):
        spconv.ops.get_indice_pairs(x.indices[0], 1, [4, 4])
    with pytest.raises(ValueError, match="coords must have shape"):
        spconv.ops.global_pool_rearrange(x.indices[:, 0], 1)


def test_pairs_follow_a_write_to_the_indices(rng):
    x = sparse(rng, num_sites=20)
    data = spconv.SubMConv3d(4, 4, 3, indice_key="s").double()(x).find_indice_pair("s")
    pairs = data.indice_pairs
    assert data.indice_pairs is pairs  # made once
    x.indices[:] = x.indices.flip(0)
    for actual, expected in zip(
        (data.indice_pairs, data.indice_pair_num),
        spconv.ops.get_indice_pairs(x.indices, BATCHES, x.spatial_shape, subm=True)[1:],
        strict=True,
    ):
        assert torch.equal(actual, expected)
    assert not torch.equal(data.indice_pairs, pairs)


def test_rows_of_each_batch(rng):
    x = sparse(rng, num_sites=50, batch_size=3)
    rows, counts = spconv.ops.global_pool_rearrange(x.indices, 4)
    assert rows.shape == (4, 50)
    assert counts.tolist() == [int((x.indices[:, 0] == b).sum()) for b in range(4)]
    for b in range(4):
        assert rows[b, : counts[b]].tolist() == torch.nonzero(x.indices[:, 0] == b).flatten().tolist()
        assert (rows[b, counts[b] :] == -1).all()
    with pytest.raises(ValueError, match=r"batch index in \[0, 2\), got 2 in row"):
        spconv.ops.global_pool_rearrange(x.indices, 2)


@pytest.mark.parametrize("keys", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("values", [torch.int32, torch.int64, torch.float32, torch.float64], ids=str)
def test_hash_table(keys, values):
    table = spconv.hash.HashTable(torch.device("cpu"), keys, values, max_size=8)
    assert table.query(torch.tensor([5], dtype=keys))[1].tolist() == [True]
    table.insert(torch.tensor([5, -3, 7, 5], dtype=keys), torch.tensor([1, 2, 3, 4], dtype=values))
    found, is_empty = table.query(torch.tensor([7, 6, 5, -3], dtype=keys))
    assert (found.tolist(), found.dtype) == ([3, 0, 4, 2], values)
    assert is_empty.tolist() == [False, True, False, False]
    there = torch.full((2,), 9, dtype=values)
    table.query(torch.tensor([8, 7], dtype=keys), there)
    assert there.tolist() == [9, 3]
    changed = table.insert_exist_keys(torch.tensor([7, 1], dtype=keys), torch.tensor([30, 10], dtype=values))
    assert (changed.tolist(), changed.dtype) == ([0, 1], torch.uint8)
    all_keys, all_values, count = table.items()
    assert (all_keys.tolist(), all_values.tolist(), count.tolist()) == ([-3, 5, 7], [2, 4, 30], [3])
    assert table.assign_arange_().tolist() == [3]
    assert table.items(2)[1].tolist() == [0, 1]
    table.insert(torch.tensor([100], dtype=keys))
    assert table.query(torch.tensor([100], dtype=keys))[0].tolist() == [0]
    with pytest.raises(ValueError, match="keys must have shape"):
        table.query(torch.zeros(2, dtype=torch.float32))
    with pytest.raises(ValueError, match="values must have shape"):
        table.insert(torch.tensor([1], dtype=keys), torch.tensor([1, 2], dtype=values))
    with pytest.raises(ValueError, match="key_dtype must be one of"):
        spconv.hash.HashTable(torch.device("cpu"), torch.float32, values)
