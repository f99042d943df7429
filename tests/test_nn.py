"""Layers and networks: what they compute, their gradients, their state."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import assert_close, get, put, random_tensor

import spcy
from spcy import nn
from spcy.nn import optim

CROSS = [[0, 0], [0, 1], [1, 0], [0, -1], [-1, 0]]
LAYERS = {
    "SubMConv": lambda: nn.SubMConv(4, 6, 3, ndim=2, dilation=(1, 2), rng=0),
    "SubMConv_groups": lambda: nn.SubMConv(4, 6, 3, ndim=2, groups=2, bias=False, rng=0),
    "SubMConv_offsets": lambda: nn.SubMConv(4, 6, None, ndim=2, offsets=CROSS, rng=0),
    "Conv_floor": lambda: nn.Conv(4, 6, 2, 3, ndim=2, sites="floor", rng=0),
    "InverseConv_offsets": lambda: nn.Sequential(
        nn.Conv(4, 4, None, 2, groups=4, ndim=2, offsets=CROSS, rng=0),
        nn.InverseConv(4, 6, None, ndim=2, offsets=CROSS, rng=0),
    ),
    "Conv": lambda: nn.Conv(4, 6, (3, 2), 2, 1, ndim=2, rng=0),
    "ConvTranspose": lambda: nn.ConvTranspose(4, 6, 2, 2, ndim=2, rng=0),
    "InverseConv": lambda: nn.Sequential(nn.MaxPool(3, 2, 1), nn.InverseConv(4, 6, 3, ndim=2, rng=0)),
    "Linear": lambda: nn.Linear(4, 6, rng=0),
    "BatchNorm": lambda: nn.BatchNorm(4),
    "BatchNorm_eval": lambda: nn.BatchNorm(4).eval(),
    "LayerNorm": lambda: nn.LayerNorm(4),
    "ReLU": nn.ReLU,
    "LeakyReLU": lambda: nn.LeakyReLU(0.1),
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Dropout": lambda: nn.Dropout(0.4, rng=0),
    "Dropout_eval": lambda: nn.Dropout(0.4).eval(),
    "Identity": nn.Identity,
    "MaxPool": lambda: nn.MaxPool(2),
    "MaxPool_options": lambda: nn.MaxPool(3, 3, sites="floor", empty="zero"),
    "AvgPool": lambda: nn.AvgPool(3, 2, 1, count="window"),
    "GlobalPool_avg": lambda: nn.GlobalPool("avg"),
    "GlobalPool_max": lambda: nn.GlobalPool("max"),
    "GlobalPool_sum": lambda: nn.GlobalPool("sum"),
    "Residual": lambda: nn.Residual(nn.SubMConv(4, 4, 3, ndim=2, rng=0)),
    "Residual_shortcut": lambda: nn.Residual(nn.Linear(4, 6, rng=0), nn.Linear(4, 6, bias=False, rng=1)),
    "Concat": lambda: nn.Concat(nn.Identity(), nn.Linear(4, 2, rng=0), nn.ReLU()),
    "Sequential": lambda: resnet(4),
}


def resnet(channels):
    """A network with every kind of run that evaluation fuses."""
    rng = np.random.default_rng(3)
    return nn.Sequential(
        nn.SubMConv(channels, 6, 3, ndim=2, bias=False, rng=rng),
        nn.BatchNorm(6, eps=1e-3),
        nn.ReLU(),
        nn.Conv(6, 8, 3, 2, 1, ndim=2, rng=rng),
        nn.BatchNorm(8),
        nn.Residual(
            nn.Sequential(
                nn.SubMConv(8, 5, 3, ndim=2, rng=rng), nn.ReLU(), nn.Linear(5, 8, rng=rng), nn.BatchNorm(8)
            )
        ),
        nn.ReLU(),
        nn.InverseConv(8, 6, 3, ndim=2, rng=rng),
        nn.ReLU(),
        nn.BatchNorm(6),
        nn.Linear(6, 3, rng=rng),
    )


def shake(module, rng):
    """Give norms statistics and scales that are not 0 and 1."""
    for name, array in module._arrays(nn.Buffer).items():
        if "running" in name or array.data.ndim == 1:
            array.data = rng.uniform(0.5, 1.5, array.data.shape).astype(array.data.dtype)
    return module


def tensor(rng, dtype=np.float64, channels=4):
    return random_tensor(rng, 14, (6, 5), channels, dtype, batch_size=2)


def array_of(y):
    return get(y.features if isinstance(y, spcy.SparseTensor) else y)


def unfused(module, x):
    """Run a Sequential layer by layer."""
    return module.vjp(x)[0]


# Gradients


def assert_differences(function, array, dy, gradient, rng):
    """Compare a gradient with central differences of ``(function(array) * dy).sum()``, at a few places."""
    assert (gradient.shape, gradient.dtype) == (array.shape, array.dtype)
    for place in rng.permutation(array.size)[:20]:
        values = []
        for step in (1e-5, -1e-5):
            moved = array.copy()
            moved.flat[place] += step
            values.append((array_of(function(moved)) * dy).sum())
        slope = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(gradient.flat[place], slope, rtol=1e-6, atol=1e-7, err_msg=str(place))


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name, rng):
    layer = shake(LAYERS[name]().astype(np.float64), rng)
    x = tensor(rng)
    reset = copy.deepcopy(layer)  # running statistics, the state of a generator

    def run(features=None, **replaced):
        twin = copy.deepcopy(reset)
        for key, array in replaced.items():
            twin.parameters()[key].data = array
        return twin.vjp(x if features is None else x.replace(features))[0]

    y, vjp = spcy.vjp(layer, x)
    dy = rng.standard_normal(array_of(y).shape)
    (dx,) = vjp(dy)
    assert_differences(run, x.features, dy, dx, rng)
    for key, parameter in layer.parameters().items():
        assert_differences(lambda a, key=key: run(**{key: a}), parameter.data, dy, parameter.grad, rng)
    before = {key: p.grad for key, p in layer.parameters().items()}
    layer.vjp(x)[1](dy)  # adds; only Dropout, without parameters, now has other numbers
    for key, parameter in layer.parameters().items():
        np.testing.assert_allclose(parameter.grad, 2 * before[key], rtol=1e-12)
    layer.zero_grad()
    assert all(p.grad is None for p in layer.parameters().values())


# What evaluation fuses


@pytest.mark.parametrize("frozen", [False, True], ids=["train", "eval"])
def test_fused_network_equals_its_layers(frozen, dtype, rng):
    net = shake(resnet(4), rng).astype(dtype).train(not frozen)
    x = tensor(rng, dtype)
    expected = unfused(copy.deepcopy(net).astype(np.float64), x.map(lambda f: f.astype(np.float64)))
    y = net(x)
    assert y.coords is x.coords
    assert y.dtype == dtype
    if dtype.itemsize == 2:
        np.testing.assert_allclose(
            np.float64(y.features),
            expected.features,
            rtol=0,
            atol=0.05 * np.abs(expected.features).max(),
        )
    else:
        assert_close(y.features, expected.features, dtype)


def calls(net, x, monkeypatch):
    """Run a network; return (function, has a bias, has a residual, activation) of each convolution."""
    seen = []

    for kind in (nn.conv._Convolution, nn.Linear):
        original = kind._run_with
        monkeypatch.setattr(
            kind,
            "_run_with",
            lambda *args, original=original: (
                seen.append(
                    (
                        type(args[0]).__name__,
                        args[2] is not None,
                        args[4] is not None,
                        args[5] and args[5].name,
                    )
                ),
                original(*args),
            )[1],
        )
    net(x)
    return seen


def test_what_a_convolution_takes_with_it(rng, monkeypatch):
    seen = calls(resnet(4).eval(), tensor(rng, np.float32), monkeypatch)
    assert seen == [
        ("SubMConv", True, False, "relu"),
        ("Conv", True, False, None),
        ("SubMConv", True, False, "relu"),
        ("Linear", True, True, "relu"),  # the norm, the shortcut and the ReLU after the Residual
        ("InverseConv", True, False, "relu"),
        ("Linear", True, False, None),
    ]


def test_residuals_in_residuals(rng):
    inner = nn.Residual(nn.Sequential(nn.Linear(4, 4, rng=0), nn.ReLU()), nn.Linear(4, 4, rng=1))
    outer = nn.Residual(nn.Sequential(nn.Linear(4, 4, rng=2), inner))
    net = nn.Sequential(outer, nn.ReLU(), nn.Residual(inner))
    x = tensor(rng, np.float32)
    assert_close(net(x).features, unfused(net, x).features, np.float32)
    assert nn.Sequential()(x) is x
    assert_close(nn.Residual(nn.Sequential())(x).features, 2 * x.features, np.float32)


def test_folding_follows_replaced_arrays_and_train(rng):
    net = nn.Sequential(nn.SubMConv(4, 3, 3, ndim=2, rng=0), nn.BatchNorm(3)).eval()
    x = tensor(rng, np.float32)
    first = net(x).features
    np.testing.assert_array_equal(net(x).features, first)
    net[1].running_mean.data = np.ones(3, np.float32)
    assert_close(net(x).features, first - 1 / np.sqrt(np.float32(1 + 1e-5)), np.float32)
    state = net.state_dict()
    trained = net.train()(x).features
    np.testing.assert_allclose(trained.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(trained.var(axis=0), 1, rtol=1e-3)
    assert (state["1.running_mean"] == 1).all()
    assert not (net.state_dict()["1.running_mean"] == 1).any()
    net.load_state_dict(state)
    assert_close(net.eval()(x).features, first - 1 / np.sqrt(np.float32(1 + 1e-5)), np.float32)


def test_a_subclass_runs_its_own_forward(rng):
    x = tensor(rng)
    layers = {
        nn.Sequential: (nn.Linear(4, 4, rng=0).astype(np.float64),),
        nn.Residual: (nn.Linear(4, 4, rng=0).astype(np.float64),),
        nn.SubMConv: (4, 4, 3),
        nn.Linear: (4, 4),
        nn.ReLU: (),
        nn.BatchNorm: (4,),
    }
    for kind, arguments in layers.items():

        class Negated(kind):
            def forward(self, x):
                return super().forward(x).map(lambda features: -features)

        options = {"ndim": 2} if kind is nn.SubMConv else {}
        layer = Negated(*arguments, **options).astype(np.float64).eval()
        expected = -kind.forward(layer, x).features
        np.testing.assert_array_equal(layer(x).features, expected)
        before = nn.Linear(4, 4, rng=1).astype(np.float64)
        after = nn.BatchNorm(4).astype(np.float64).eval()
        after.running_mean.data = np.arange(4.0)
        net = nn.Sequential(nn.Residual(nn.Sequential(before, layer)), nn.ReLU())
        expected = np.maximum(layer(before(x)).features + x.features, 0)
        np.testing.assert_allclose(net(x).features, expected, rtol=1e-12)
        net = nn.Sequential(before, layer, after, nn.ReLU())
        expected = np.maximum(after(layer(before(x))).features, 0)
        np.testing.assert_allclose(net(x).features, expected, rtol=1e-12)
        nn.summary(net, x)
        with pytest.raises(TypeError, match="Negated has no vjp"):
            layer.vjp(x)
        layer.forward = lambda x: x
        np.testing.assert_array_equal(layer(x).features, x.features)


def test_folding_follows_eps(rng):
    x = tensor(rng)
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm(4)).astype(np.float64).eval()
    net(x)
    net[1].eps = 3.0
    np.testing.assert_allclose(net(x).features, unfused(net, x).features, rtol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_on_another_backend(name, backend, rng):
    with spcy.use_backend("cpu"):
        layer, x = shake(LAYERS[name](), rng), tensor(rng, np.float32)
        there = copy.deepcopy(layer).to(backend)
        expected, expected_vjp = layer.vjp(x)
    y, vjp = there.vjp(x.to(backend))
    features = y.features if isinstance(y, spcy.SparseTensor) else y
    assert hasattr(features, "get") == (backend == "cuda")
    assert_close(features, array_of(expected), np.float32)
    dy = rng.standard_normal(array_of(expected).shape).astype(np.float32)
    assert_close(vjp(put(dy))[0], expected_vjp(dy)[0], np.float32)
    for key, parameter in layer.parameters().items():
        assert_close(there.parameters()[key].grad, parameter.grad, np.float32)
    here = there.to("cpu").state_dict()
    for key, array in layer.state_dict().items():
        assert_close(here[key], array, np.float32)


def test_training_on_another_backend(backend, rng):
    with spcy.use_backend("cpu"):
        nets = resnet(4), resnet(4)
        x, labels = tensor(rng, np.float32), rng.integers(0, 3, 14)
    losses = []
    for net, where in zip(nets, ("cpu", backend), strict=True):
        with spcy.use_backend(where):
            net.to(where)
            y, vjp = net.vjp(x.to(where))
            loss, dlogits = nn.softmax_cross_entropy(y, put(labels), weight=[1, 2, 3])
            vjp(dlogits)
            optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=0.1, nesterov=True).step()
            optim.AdamW(net.parameters(), 1e-6).step()
            losses.append(loss)
            net.load_state_dict(net.state_dict())
    assert losses[0] == pytest.approx(losses[1])
    nets[1].to("cpu")
    for key, array in nets[0].state_dict().items():
        assert_close(nets[1].state_dict()[key], array, np.float32)


# What layers compute, where that is not a function's own


def test_batch_norm_statistics(dtype, rng):
    norm = nn.BatchNorm(4, momentum=0.25).astype(dtype)
    x = rng.standard_normal((50, 4)).astype(dtype)
    norm(x)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(norm.running_mean.data, 0.25 * wide.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(norm.running_var.data, 0.75 + 0.25 * wide.var(axis=0, ddof=1), rtol=1e-5)
    assert norm.running_var.data.dtype == (np.float32 if dtype.itemsize == 2 else dtype)
    before = norm.state_dict()
    norm.eval()(x)
    assert norm.running_mean.data is before["running_mean"]


@pytest.mark.parametrize("training", [True, False])
def test_no_sites(training, rng):
    net = resnet(4).train(training)
    x = spcy.SparseTensor(np.zeros((0, 3), int), np.zeros((0, 4), np.float32), shape=(6, 5))
    y, vjp = net.vjp(x)
    assert net(x).features.shape == y.features.shape == (0, 3)
    assert vjp(y.features)[0].shape == (0, 4)
    assert not any(p.grad.any() for p in net.parameters().values())


def test_dropout_scales_what_it_keeps(rng):
    x = np.ones((20_000, 8))
    y = nn.Dropout(0.25, rng=0)(x)
    assert set(np.unique(y)) == {0, 1 / 0.75}
    assert abs((y == 0).mean() - 0.25) < 0.01
    dropped = (y == 0).reshape(-1, 32_000).mean(axis=1)  # however many numbers are drawn at a time
    assert abs(dropped - 0.25).max() < 0.02
    assert (y[:10_000] != y[10_000:]).any()
    assert ((nn.Dropout(np.float16(0.25), rng=0)(x) == 0) == (y == 0)).all()
    y = nn.Dropout(0.999999, rng=0)(np.ones((1000, 8), np.float16))  # 1e6 is no float16
    assert np.isfinite(y).all()
    assert (y == 0).mean() > 0.99


TORCH = {
    "SubMConv": (lambda: nn.SubMConv(4, 6, 3, ndim=2, rng=0), lambda t: t.nn.Conv2d(4, 6, 3, padding=1)),
    "Conv": (lambda: nn.Conv(4, 6, 3, 2, 1, 2, ndim=2, rng=0), lambda t: t.nn.Conv2d(4, 6, 3, 2, 1, 2)),
    "ConvTranspose": (
        lambda: nn.ConvTranspose(4, 6, 3, 2, 1, 1, ndim=2, rng=0),
        lambda t: t.nn.ConvTranspose2d(4, 6, 3, 2, 1, 1),
    ),
    "MaxPool": (lambda: nn.MaxPool(3, 2, 1), lambda t: t.nn.MaxPool2d(3, 2, 1)),
    "AvgPool": (lambda: nn.AvgPool(2, count="window"), lambda t: t.nn.AvgPool2d(2)),
    "BatchNorm": (lambda: nn.BatchNorm(4), lambda t: t.nn.BatchNorm2d(4)),
    "BatchNorm_eval": (lambda: nn.BatchNorm(4).eval(), lambda t: t.nn.BatchNorm2d(4).eval()),
}


@pytest.mark.parametrize("name", TORCH)
def test_dense_layer_is_torchs(name, rng):
    """Forward, gradients and running statistics, where every cell is occupied."""
    torch = pytest.importorskip("torch")
    ours, theirs = TORCH[name][0](), TORCH[name][1](torch)
    for key, parameter in ours.parameters().items():
        array = rng.standard_normal(parameter.data.shape).astype(np.float32)
        parameter.data = array
        if array.ndim == 4:
            array = array.transpose(2, 3, 0, 1) if "Transpose" in name else array.transpose(3, 2, 0, 1)
        getattr(theirs, key).data = torch.from_numpy(array.copy())
    dense = rng.standard_normal((2, 8, 8, 4)).astype(np.float32)
    x = spcy.SparseTensor.from_dense(dense)
    y, vjp = ours.vjp(x)
    x_theirs = torch.from_numpy(dense.transpose(0, 3, 1, 2).copy()).requires_grad_()
    y_theirs = theirs(x_theirs)
    dy = rng.standard_normal(y.features.shape).astype(np.float32)
    y_theirs.backward(torch.from_numpy(y.replace(dy).to_dense(channels_first=True)))
    (dx,) = vjp(dy)
    expected = y_theirs.detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(y.to_dense(), expected, rtol=0, atol=1e-4)
    expected = x_theirs.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(x.replace(dx).to_dense(), expected, rtol=0, atol=1e-4)
    for key, parameter in ours.parameters().items():
        grad = getattr(theirs, key).grad.numpy()
        if grad.ndim == 4:
            grad = grad.transpose((2, 3, 0, 1) if "Transpose" in name else (2, 3, 1, 0))
        np.testing.assert_allclose(parameter.grad, grad, rtol=1e-4, atol=1e-3)
    for key in ("running_mean", "running_var"):
        if hasattr(ours, key):
            np.testing.assert_allclose(getattr(ours, key).data, getattr(theirs, key).numpy(), rtol=1e-4)


POINTWISE = {
    "ReLU": (nn.ReLU, {}),
    "LeakyReLU": (nn.LeakyReLU, {"negative_slope": 0.2}),
    "GELU": (nn.GELU, {}),
    "SiLU": (nn.SiLU, {}),
    "LayerNorm": (lambda: nn.LayerNorm(8), {"normalized_shape": 8}),
    "Linear": (lambda: nn.Linear(8, 3, rng=0), {"in_features": 8, "out_features": 3}),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_layer_is_torchs(name, rng):
    torch = pytest.importorskip("torch")
    kind, options = POINTWISE[name]
    ours = kind(**options) if name == "LeakyReLU" else kind()
    theirs = getattr(torch.nn, name)(**options).double()
    ours.astype(np.float64)
    for key, parameter in ours.parameters().items():
        getattr(theirs, key).data = torch.from_numpy(parameter.data.T.copy())
    x = rng.standard_normal((20, 8)) * 3
    dense = torch.from_numpy(x.copy()).requires_grad_()
    y, vjp = ours.vjp(x)
    expected = theirs(dense)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    dy = rng.standard_normal(y.shape)
    expected.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(vjp(dy)[0], dense.grad.numpy(), rtol=1e-9, atol=1e-11)
    for key, parameter in ours.parameters().items():
        np.testing.assert_allclose(parameter.grad, getattr(theirs, key).grad.numpy().T, rtol=1e-9, atol=1e-11)


def test_initialisation():
    layer = nn.SubMConv(16, 32, 3, rng=np.random.default_rng(0))
    bound = 1 / np.sqrt(16 * 27)
    for array in (layer.weight.data, layer.bias.data):
        assert array.dtype == np.float32
        assert 0.9 * bound < np.abs(array).max() <= bound
    np.testing.assert_array_equal(nn.SubMConv(16, 32, 3, rng=0).weight.data, layer.weight.data)
    assert (nn.SubMConv(16, 32, 3).weight.data != nn.SubMConv(16, 32, 3).weight.data).any()
    assert nn.Conv(4, 6, (3, 1), groups=2, ndim=2, bias=False).weight.data.shape == (3, 1, 2, 6)


# Names and state


class Net(nn.Module):
    """Written as PyTorch users write it."""

    def __init__(self, rng=None):
        self.conv_input = nn.Sequential(
            nn.SubMConv(4, 5, 3, ndim=2, bias=False, rng=rng), nn.BatchNorm(5), nn.ReLU()
        )
        self.blocks = [nn.Linear(5, 5, rng=rng), nn.Residual(nn.Linear(5, 5, rng=rng))]
        self.head = nn.Linear(5, 2, rng=rng)
        self.scale = nn.Parameter(np.ones(2, np.float32))

    def forward(self, x):
        x = self.conv_input(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


NAMES = [
    "scale",
    "conv_input.0.weight",
    "conv_input.1.weight",
    "conv_input.1.bias",
    "conv_input.1.running_mean",
    "conv_input.1.running_var",
    "blocks.0.weight",
    "blocks.0.bias",
    "blocks.1.body.weight",
    "blocks.1.body.bias",
    "head.weight",
    "head.bias",
]


def test_names():
    net = Net()
    assert list(net.state_dict()) == NAMES
    assert list(net.parameters()) == [name for name in NAMES if "running" not in name]
    assert list(net.modules())[:4] == ["", "conv_input", "conv_input.0", "conv_input.1"]
    shared = nn.Linear(3, 3)
    twice = nn.Sequential(shared, shared)
    assert list(twice.parameters()) == ["0.weight", "0.bias"]
    assert len(twice.state_dict()) == 4


def test_state_round_trip(tmp_path, rng):
    net, other = Net(0).eval(), Net(1).eval()
    x = tensor(rng, np.float32)
    np.savez(tmp_path / "net.npz", **net.state_dict())
    with np.load(tmp_path / "net.npz") as state:
        report = other.load_state_dict({**state, "conv_input.1.num_batches_tracked": 7})
    assert report == ([], [])
    np.testing.assert_array_equal(other(x).features, net(x).features)
    for twin in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        np.testing.assert_array_equal(twin(x).features, net(x).features)


def test_bad_state_is_one_error_and_changes_nothing():
    net = Net(0)
    before = net.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    state["conv_input.0.weight"] = np.zeros((3, 3, 5, 4))
    del state["head.bias"]
    state["head.gamma"] = state["tail"] = np.zeros(2)
    with pytest.raises(ValueError, match="got 4 names that do not") as error:
        net.load_state_dict(state)
    for line in (
        "head.bias: missing",
        "head.gamma: unexpected",
        "tail: unexpected",
        "conv_input.0.weight: expected shape (3, 3, 4, 5), got (3, 3, 5, 4)",
    ):
        assert f"\n  {line}" in str(error.value)
    with pytest.raises(ValueError, match="got 1 names"):
        net.load_state_dict(state, strict=False)
    assert all(before[name] is array for name, array in net.state_dict().items())
    del state["conv_input.0.weight"]
    report = net.load_state_dict(state, strict=False)
    assert report.missing == ["conv_input.0.weight", "head.bias"]
    assert report.unexpected == ["head.gamma", "tail"]
    np.testing.assert_array_equal(net.head.weight.data, before["head.weight"] + 1)
    np.testing.assert_array_equal(net.head.bias.data, before["head.bias"])


BAD_ARRAYS = {
    "objects": (np.array([None, 1.0]), "expected real numbers, got object"),
    "text": (["a", "b"], "expected real numbers, got <U1"),
    "complex": (np.array([1j, 2]), "expected real numbers, got complex128"),
    "large": ([1e300, 1], "expected numbers within float32, got larger ones"),
    "ragged": ([[1], [1, 2]], r"expected an array, got list \(setting an array element"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_a_state_of_no_numbers_is_refused_by_name(case):
    layer = nn.LayerNorm(2)
    array, message = BAD_ARRAYS[case]
    with pytest.raises(ValueError, match=f"got 1 names that do not:\n  bias: {message}"):
        layer.load_state_dict({"weight": [2, 2], "bias": array})
    assert (layer.weight.data == 1).all()
    layer.load_state_dict({"weight": [np.inf, np.nan], "bias": np.float64([3, -np.inf])})
    assert layer.bias.data.tolist() == [3, -np.inf]
    with pytest.raises(TypeError, match="state must have names as keys, got 0 of type int"):
        layer.load_state_dict({0: [1, 1]})


def test_shared_parameters_take_one_value():
    net = nn.Sequential(nn.LayerNorm(2), nn.LayerNorm(2))
    net[1].weight = net[0].weight
    state = {**net.state_dict(), "0.weight": [2, np.nan], "1.weight": [2, np.nan]}
    net.load_state_dict(state)
    assert net[0].weight.data[0] == 2
    with pytest.raises(ValueError, match=r"1\.weight: shares its array with 0\.weight, got other values"):
        net.load_state_dict({**state, "1.weight": [3, 3]})
    net.load_state_dict({"1.weight": [4, 4]}, strict=False)
    assert net[0].weight.data[0] == 4


def test_loaded_arrays_are_copies():
    layer = nn.Linear(2, 1)
    state = {"weight": np.ones((2, 1)), "bias": [0]}
    layer.load_state_dict(state)
    state["weight"][:] = 7
    assert layer.weight.data.dtype == np.float32
    assert (layer.weight.data == 1).all()


def test_train_and_eval_reach_every_module():
    net = Net()
    assert net.eval() is net
    assert not any(module.training for module in net.modules().values())
    assert all(module.training for module in net.train().modules().values())


def test_astype(rng):
    net = Net(0).eval()
    net.head.weight.grad = np.zeros((5, 2), np.float32)
    assert net.astype("float64") is net
    assert {array.dtype.name for array in net.state_dict().values()} == {"float64"}
    assert net.head.weight.grad is None
    assert net(tensor(rng)).dtype == np.float64
    with pytest.raises(TypeError, match="dtype must be float32, float64, bfloat16 or float16, got int32"):
        net.astype(np.int32)


def test_repr():
    assert repr(Net()) == (
        "Net(\n"
        "  (conv_input): Sequential(\n"
        "    (0): SubMConv(4, 5, kernel_size=(3, 3), bias=False)\n"
        "    (1): BatchNorm(5, eps=1e-05, momentum=0.1)\n"
        "    (2): ReLU()\n"
        "  )\n"
        "  (blocks.0): Linear(in_features=5, out_features=5, bias=True)\n"
        "  (blocks.1): Residual(\n"
        "    (body): Linear(in_features=5, out_features=5, bias=True)\n"
        "    (shortcut): Identity()\n"
        "  )\n"
        "  (head): Linear(in_features=5, out_features=2, bias=True)\n"
        ")"
    )
    layer = nn.ConvTranspose(4, 6, 3, 2, 1, 1, 2, False, 3)
    assert repr(layer) == (
        "ConvTranspose(4, 6, kernel_size=(3, 3, 3), stride=(2, 2, 2), padding=(1, 1, 1), "
        "output_padding=(1, 1, 1), dilation=(3, 3, 3), groups=2, bias=False)"
    )
    layer = nn.Conv(4, 6, None, 2, groups=2, ndim=2, offsets=CROSS, sites="floor")
    assert repr(layer) == "Conv(4, 6, offsets=<5>, stride=(2, 2), groups=2, sites='floor')"
    assert repr(nn.MaxPool(2, empty="zero")) == (
        "MaxPool(kernel_size=2, stride=2, padding=0, dilation=1, empty='zero')"
    )
    layer = nn.Conv(4, 6, 3, groups=2)
    assert repr(layer.weight) == "Parameter((3, 3, 3, 2, 6), float32)"


def test_threads_share_a_network(rng):
    net = shake(resnet(4), rng).eval()
    tensors = [tensor(rng, np.float32) for _ in range(8)]
    expected = [copy.deepcopy(net)(x).features for x in tensors]
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(net, tensors * 5))
    for y, features in zip(outputs, expected * 5, strict=True):
        np.testing.assert_array_equal(y.features, features)


# The summary


def test_summary(rng):
    net = resnet(4).eval()
    x = tensor(rng, np.float32)
    table = nn.summary(net, x)
    assert [(row.name, row.kind) for row in table.layers] == [
        ("0", "SubMConv + BatchNorm + ReLU"),
        ("3", "Conv + BatchNorm"),
        ("5.shortcut", "Identity"),
        ("5.body.0", "SubMConv + ReLU"),
        ("5.body.2", "Linear + BatchNorm + residual + ReLU"),
        ("7", "InverseConv + ReLU"),
        ("9", "BatchNorm"),
        ("10", "Linear"),
    ]
    first, second = table.layers[:2]
    book = spcy.submanifold_rulebook(x.coords, spcy.kernel_offsets((3, 3)) - 1)
    assert first[2:8] == (14, 14, 4, 6, book.num_pairs, 2 * book.num_pairs * 4 * 6)
    assert first.parameters == 9 * 4 * 6 + 2 * 6
    coarse = spcy.max_pool(x, 3, 2, 1).num_sites
    assert second[2:6] == (14, coarse, 6, 8)
    assert table.layers[-1][2:9] == (14, 14, 6, 3, 14, 2 * 14 * 6 * 3, 21)
    assert all(row.ms >= 0 for row in table.layers)
    assert table.parameters == sum(row.parameters for row in table.layers)
    lines = str(table).splitlines()
    assert len(lines) == 10
    assert lines[0].split()[:2] == ["layer", "kind"]
    assert lines[-1].startswith("total")
    assert len({len(line) for line in lines}) == 1
    assert [row.kind for row in nn.summary(Net(), x).layers][:3] == ["SubMConv", "BatchNorm + ReLU", "Linear"]


def test_summary_of_one_thread_leaves_others_alone(rng):
    x = tensor(rng, np.float32)

    class Nosy(nn.Module):
        def forward(self, x):
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(nn.ReLU(), x).result()

    assert [row.kind for row in nn.summary(Nosy(), x).layers] == ["Nosy"]


# Optimisers and losses

OPTIMISERS = {
    "SGD": (optim.SGD, {"lr": 0.1}),
    "momentum": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.02}),
    "nesterov": (optim.SGD, {"lr": 0.1, "momentum": 0.8, "nesterov": True}),
    "AdamW": (optim.AdamW, {"lr": 0.1}),
    "AdamW_own": (optim.AdamW, {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimiser_is_torchs(name, rng):
    torch = pytest.importorskip("torch")
    kind, options = OPTIMISERS[name]
    parameter = nn.Parameter(rng.standard_normal((3, 2)))
    theirs = torch.nn.Parameter(torch.from_numpy(parameter.data.copy()))
    ours, other = kind([parameter], **options), getattr(torch.optim, kind.__name__)([theirs], **options)
    for step in range(6):
        if step == 4:
            ours.lr = other.param_groups[0]["lr"] = 0.03
        grad = rng.standard_normal((3, 2))
        parameter.grad, theirs.grad = grad, torch.from_numpy(grad)
        ours.step()
        other.step()
        np.testing.assert_allclose(parameter.data, theirs.detach().numpy(), rtol=1e-13)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimiser_goes_downhill(name, rng):
    kind, options = OPTIMISERS[name]
    parameter = nn.Parameter(rng.standard_normal(5).astype(np.float32))
    still = nn.Parameter(np.ones(1))
    optimiser = kind({"a": parameter, "b": still}, **options)
    for _ in range(60):
        optimiser.zero_grad()
        parameter.accumulate(parameter.data - 1)
        optimiser.step()
    assert parameter.data.dtype == np.float32
    np.testing.assert_allclose(parameter.data, 1, atol=0.2)
    assert still.data[0] == 1


def test_cross_entropy(rng):
    logits, labels = rng.standard_normal((9, 4)) * 5, rng.integers(0, 4, 9)
    labels[3] = -100
    weight = np.array([1, 0.5, 2, 3])
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    kept = np.flatnonzero(labels != -100)
    terms = -np.log(share[kept, labels[kept]])
    for options, shares in (({}, np.ones(4)), ({"weight": weight}, weight)):
        expected = (terms * shares[labels[kept]]).sum() / shares[labels[kept]].sum()
        loss, dlogits = nn.softmax_cross_entropy(logits, labels, **options)
        assert loss == pytest.approx(expected)

        def run(a, options=options):
            return np.array(nn.softmax_cross_entropy(a, labels, **options)[0])

        assert_differences(run, logits, 1.0, dlogits, rng)
    assert nn.softmax_cross_entropy(logits, np.full(9, -100))[0] == 0
    loss, dlogits = nn.softmax_cross_entropy(np.float32([[1e4, -1e4]]), [1])
    assert loss == 2e4
    assert dlogits.tolist() == [[1, -1]]


FIT = {
    "channels": r"^x must have 3 channels for Linear\(in_features=3, .*\), got 4$",
    "axes": r"^x must have 3 spatial axes for \w+\(4, 2, .*\), got 2: make the layer with ndim=2$",
}


def test_a_step_that_is_refused_changes_nothing():
    layer = nn.Linear(3, 2)
    before = layer.state_dict()
    layer.weight.grad, layer.bias.grad = np.ones((3, 2), np.float32), np.ones(3, np.float32)
    with pytest.raises(ValueError, match="of parameter 1"):
        optim.AdamW(layer.parameters()).step()
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def step_by(grad):
    layer = nn.Linear(3, 2)
    layer.weight.grad = grad
    optim.SGD(layer.parameters(), 0.1).step()


ERRORS = {
    "labels shape": (
        lambda x: nn.softmax_cross_entropy(x, [0]),
        ValueError,
        r"labels must have shape \(14,\)",
    ),
    "labels dtype": (
        lambda x: nn.softmax_cross_entropy(x, [0.0] * 14),
        TypeError,
        "labels must have an integer",
    ),
    "labels range": (
        lambda x: nn.softmax_cross_entropy(x, [0, 4] * 7),
        ValueError,
        "labels must be 0 .. 3 or -100, got 4 in row 1",
    ),
    "weight sign": (
        lambda x: nn.softmax_cross_entropy(x, [0] * 14, weight=[1, 1, 1, -1]),
        ValueError,
        "weight must not be negative",
    ),
    "no forward": (lambda x: nn.Module()(x), NotImplementedError, "Module must have a method forward"),
    "no vjp": (lambda x: Net().vjp(x), TypeError, "Net has no vjp: build it of Sequential"),
    "no module": (lambda x: nn.Sequential(nn.ReLU(), np.tanh), TypeError, "got ufunc in place 1"),
    "no branch": (lambda x: nn.Concat(None), TypeError, "branches must be Modules, got NoneType in place 0"),
    "channels": (lambda x: nn.Linear(3, 2)(x), ValueError, FIT["channels"]),
    "array channels": (lambda x: nn.Linear(3, 2)(x.features), ValueError, FIT["channels"]),
    "channels to train": (lambda x: nn.Linear(3, 2).vjp(x), ValueError, FIT["channels"]),
    "norm channels": (lambda x: nn.BatchNorm(3)(x), ValueError, r"x must have 3 channels for BatchNorm\(3, "),
    "norm dtype": (lambda x: nn.BatchNorm(4).astype("float64")(x), TypeError, r"float64 for BatchNorm\(4, "),
    "one site": (lambda x: nn.BatchNorm(4)(x.features[:1]), ValueError, "x must have more than one site"),
    "groups": (
        lambda x: nn.Conv(4, 6, 3, groups=4),
        ValueError,
        "groups must divide 4 and 6 channels, got 4",
    ),
    "no channels": (lambda x: nn.Conv(0, 6, 3), ValueError, "in_channels must be at least 1"),
    "kernel and offsets": (
        lambda x: nn.Conv(4, 6, 3, ndim=2, offsets=CROSS),
        ValueError,
        "kernel_size must be left out with offsets, got 3",
    ),
    "no kernel": (lambda x: nn.Conv(4, 6), ValueError, "kernel_size must be given, or offsets"),
    "axes": (lambda x: nn.Conv(4, 6, 3, ndim=5), ValueError, "ndim must be 1, 2, 3 or 4, got 5"),
    "axes type": (lambda x: nn.Conv(4, 6, 3, ndim=2.0), TypeError, "ndim must be an int, got float"),
    "dtype as backend": (lambda x: nn.ReLU().to(np.float64), TypeError, "astype converts to a dtype"),
    "sites": (
        lambda x: nn.Conv(4, 6, 3, sites="ceil"),
        ValueError,
        "sites must be one of 'reached', 'floor'",
    ),
    "kernel axes": (lambda x: nn.Conv(4, 6, (3, 3)), ValueError, "kernel_size must be an int or 3 ints"),
    "mode": (lambda x: nn.GlobalPool("mean"), ValueError, "mode must be one of 'avg', 'max', 'sum'"),
    "dropout": (lambda x: nn.Dropout(1.0), ValueError, "p must be at least 0 and less than 1, got 1.0"),
    "array axes": (lambda x: nn.ReLU()(np.zeros(3)), ValueError, r"got shape \(3,\)"),
    "dy": (lambda x: nn.ReLU().vjp(x)[1](np.zeros((14, 4))), TypeError, "dy must have dtype float32"),
    "lr": (lambda x: optim.SGD([], -1.0), ValueError, "lr must be at least 0"),
    "nesterov": (lambda x: optim.SGD([], 0.1, nesterov=True), ValueError, "momentum must be positive"),
    "momentum": (lambda x: optim.SGD([], 0.1, -1.0), ValueError, "momentum must be at least 0, got -1.0"),
    "betas": (lambda x: optim.AdamW([], 0.1, (1.0, 2)), ValueError, r"betas must be .* got \(1.0, 2\)"),
    "grad shape": (lambda x: step_by(np.zeros((1, 2))), ValueError, r"\(3, 2\), got \(1, 2\) of parameter 0"),
    "parameters": (lambda x: optim.SGD([x], 0.1), TypeError, "parameters must be Parameters"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_bad_arguments(case, rng):
    call, kind, message = ERRORS[case]
    with pytest.raises(kind, match=message):
        call(tensor(rng, np.float32))


@pytest.mark.parametrize("use", ["forward", "vjp"])
@pytest.mark.parametrize("make", [nn.SubMConv, nn.Conv, nn.InverseConv, nn.ConvTranspose])
def test_a_convolution_says_what_does_not_fit_it(make, use, rng):
    x = tensor(rng, np.float32)
    with pytest.raises(ValueError, match=FIT["axes"]):
        getattr(make(4, 2, 3), use)(x)
    with pytest.raises(ValueError, match=r"^x must have 3 channels for \w+\(3, 2, .*\), got 4$"):
        getattr(make(3, 2, 3, ndim=2), use)(x)
    for dtype in ("float32", "float64"):
        other = {"float32": "float64", "float64": "float32"}[dtype]
        net = nn.Sequential(nn.ReLU(), make(4, 2, 3, ndim=2)).astype(other)
        with pytest.raises(TypeError, match=rf"^x must have dtype {other} for .*, got {dtype}: ") as error:
            getattr(net, use)(x.map(lambda f, dtype=dtype: f.astype(dtype)))
        assert f"x.map(lambda f: f.astype('{other}'))" in str(error.value)
        assert str(error.value).endswith(f"its astype('{dtype}')")
    with pytest.raises(TypeError, match=r"^x must be a SparseTensor, got ndarray"):
        getattr(make(4, 2, 3, ndim=2), use)(x.features)


def test_bfloat16_is_not_trained():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    with pytest.raises(TypeError, match="parameters must be float32 or float64 to be trained"):
        optim.SGD(nn.Linear(2, 2).astype(bfloat16).parameters(), 0.1)
