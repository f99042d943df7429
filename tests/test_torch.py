"""spcy's operations on PyTorch's tensors: the same results, and autograd."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from helpers import random_indices, random_tensor

import spcy
from spcy import _threads

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
import spcy.torch as st  # noqa: E402
from spcy.torch import functional  # noqa: E402
from spcy.torch._bridge import array_of, tensor_of  # noqa: E402

pytestmark = pytest.mark.torch
BOX, BATCHES = (6, 7, 5), 2


@pytest.fixture
def coords(rng):
    return spcy.Coords(random_indices(rng, 60, BOX, BATCHES), BOX, BATCHES)


@pytest.fixture
def few(rng):
    """Sites for gradcheck, which calls backward once for each number of the result."""
    return spcy.Coords(random_indices(rng, 24, (4, 3, 3), BATCHES), (4, 3, 3), BATCHES)


def leaf(rng, *shape, dtype=torch.float64):
    return torch.from_numpy(rng.standard_normal(shape)).to(dtype).requires_grad_()


def points_in_box(rng, num=40):
    points = rng.uniform(0, BOX, (num, 3))
    return torch.from_numpy(points), torch.from_numpy(rng.integers(0, BATCHES, num))


CONVOLUTIONS = {
    "subm_conv": (st.subm_conv, (3, 3, 3), {}),
    "subm_conv dilated": (st.subm_conv, (3, 1, 3), {"dilation": 2}),
    "subm_conv grouped": (st.subm_conv, (3, 3, 3), {"groups": 2}),
    "conv": (st.conv, (3, 2, 3), {"stride": 2, "padding": 1}),
    "conv floor": (st.conv, (3, 3, 3), {"stride": 2, "padding": 1, "sites": "floor"}),
    "conv 1x1x1": (st.conv, (1, 1, 1), {}),
    "conv_transpose": (st.conv_transpose, (2, 3, 2), {"stride": 2}),
}
POOLS = {
    "max_pool": partial(st.max_pool, kernel_size=2),
    "max_pool overlapping": partial(st.max_pool, kernel_size=3, stride=2, padding=1),
    "max_pool zero": partial(st.max_pool, kernel_size=2, empty="zero"),
    "sum_pool": partial(st.sum_pool, kernel_size=2),
    "avg_pool": partial(st.avg_pool, kernel_size=3, stride=1, padding=1),
    "avg_pool window": partial(st.avg_pool, kernel_size=2, count="window"),
    "unpool": lambda x: st.unpool(st.sum_pool(x, 2), to=x),
    "global_max_pool": st.global_max_pool,
    "global_sum_pool": st.global_sum_pool,
    "global_avg_pool": st.global_avg_pool,
    "to_dense": st.to_dense,
    "to_dense channels first": partial(st.to_dense, channels_first=True),
    "prune": lambda x: st.prune(x, torch.arange(x.num_sites) % 3 != 0),
    "add": lambda x: st.add(x, x),
    "add other sites": lambda x: st.add(x, st.conv(x, 0.5 + 0 * weight_like(x), padding=1)),
    "concat": lambda x: st.concat([x, x.replace(2 * x.features)]),
}


def weight_like(x):
    channels = x.num_channels
    return torch.ones(3, 3, 3, channels, channels, dtype=x.features.dtype)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_gradcheck_of_convolutions(name, few, rng):
    function, kernel_size, options = CONVOLUTIONS[name]
    groups = options.get("groups", 1)
    inputs = leaf(rng, len(few), 2), leaf(rng, *kernel_size, 2 // groups, 4), leaf(rng, 4)

    def run(features, weight, bias):
        return function(st.SparseTensor(few, features), weight, bias, **options).features

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize(
    "activation", [None, "relu", ("leaky_relu", 0.2), "gelu", "gelu_tanh", "silu"], ids=str
)
def test_gradcheck_of_what_comes_behind_a_convolution(activation, few, rng):
    inputs = leaf(rng, len(few), 2), leaf(rng, 3, 3, 3, 2, 3), leaf(rng, 3), leaf(rng, len(few), 3)

    def run(features, weight, bias, residual):
        x, residual = (st.SparseTensor(few, f) for f in (features, residual))
        return st.subm_conv(x, weight, bias, residual=residual, activation=activation).features

    assert torch.autograd.gradcheck(run, inputs)
    with torch.no_grad():
        fused = run(*inputs)
    torch.testing.assert_close(fused, run(*inputs).detach())


def test_gradcheck_of_an_inverse_convolution(few, rng):
    def run(features, down, up):
        x = st.SparseTensor(few, features)
        y = st.inverse_conv(st.conv(x, down, stride=2, padding=1), up, to=x)
        assert y.coords is few
        return y.features

    inputs = leaf(rng, len(few), 2), leaf(rng, 3, 3, 3, 2, 3), leaf(rng, 3, 3, 3, 3, 2)
    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("name", POOLS)
def test_gradcheck_of_the_others(name, few, rng):
    def run(features):
        y = POOLS[name](st.SparseTensor(few, features))
        return y.features if isinstance(y, st.SparseTensor) else y

    assert torch.autograd.gradcheck(run, [leaf(rng, len(few), 3)])


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_gradcheck_of_devoxelize(mode, coords, rng):
    points, batch = points_in_box(rng)

    def run(features):
        return st.devoxelize(st.SparseTensor(coords, features), points, mode, batch=batch)

    assert torch.autograd.gradcheck(run, [leaf(rng, len(coords), 3)])


@pytest.mark.parametrize("reduce", ["mean", "sum", "max", "first"])
def test_gradcheck_of_voxelize(reduce, rng):
    points, batch = points_in_box(rng)

    def run(features):
        return st.voxelize(points, 2.0, features=features, batch=batch, reduce=reduce).tensor.features

    assert torch.autograd.gradcheck(run, [leaf(rng, len(points), 2)])


def test_voxelize_returns_tensors(rng):
    points, batch = points_in_box(rng)
    y = st.voxelize(points, 1.5, batch=batch, bounds=(0, 6))
    expected = spcy.voxelize(points.numpy(), 1.5, batch=batch.numpy(), bounds=(0, 6))
    for actual, array in zip(
        (y.tensor.indices, y.tensor.features, y.rows, y.counts),
        (expected.tensor.indices, expected.tensor.features, expected.rows, expected.counts),
        strict=True,
    ):
        np.testing.assert_array_equal(actual.numpy(), array)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_bits_are_those_of_the_arrays(name, dtype, threads, rng):
    function, kernel_size, options = CONVOLUTIONS[name]
    array = random_tensor(rng, 60, BOX, 4, dtype, BATCHES)
    groups = options.get("groups", 1)
    weight = rng.standard_normal((*kernel_size, 4 // groups, 6)).astype(dtype)
    bias = rng.standard_normal(6).astype(dtype)
    expected, pull = spcy.vjp(getattr(spcy, function.__name__), array, weight, bias, **options)

    inputs = [tensor_of(a.copy()).requires_grad_() for a in (array.features, weight, bias)]
    y = function(st.SparseTensor(array.coords, inputs[0]), *inputs[1:], **options)
    assert y.coords is expected.coords
    np.testing.assert_array_equal(array_of(y.features), expected.features)
    dy = rng.standard_normal(expected.features.shape).astype(dtype)
    y.features.backward(tensor_of(dy))
    for tensor, gradient in zip(inputs, pull(dy), strict=True):
        np.testing.assert_array_equal(array_of(tensor.grad), gradient)


def test_memory_is_shared(coords):
    features = torch.ones(len(coords), 2)
    assert np.shares_memory(array_of(features), features.numpy())
    array = np.ones((3, 2), np.float32)
    assert np.shares_memory(tensor_of(array).numpy(), array)
    half = torch.ones(3, 2, dtype=torch.bfloat16)
    array_of(half)[0, 0] = 5
    assert half[0, 0] == 5


@pytest.mark.parametrize("needed", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1)], ids=str)
def test_only_gradients_that_are_needed_are_computed(needed, coords, rng, monkeypatch):
    called = []
    for name in ("input_gradient", "weight_gradient", "column_sums"):
        real = getattr(functional.grad, name)
        monkeypatch.setattr(functional.grad, name, lambda *a, f=real, n=name: (called.append(n), f(*a))[1])
    inputs = [leaf(rng, *shape).requires_grad_(bool(n)) for n, shape in
              zip(needed, [(len(coords), 2), (3, 3, 3, 2, 2), (2,)], strict=True)]  # fmt: skip
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.shape), t)[1], lambda t: t):
        y = st.subm_conv(st.SparseTensor(coords, inputs[0]), *inputs[1:]).features
    assert saved == [t.shape for t, n in zip(inputs[:2], needed[1::-1], strict=True) if n]
    y.sum().backward()
    names = ("input_gradient", "weight_gradient", "column_sums")
    assert called == [name for name, n in zip(names, needed, strict=True) if n]
    assert [t.grad is not None for t in inputs] == list(map(bool, needed))


def test_arrays_are_told_too_which_gradients_are_needed(rng):
    x = random_tensor(rng, 30, BOX, 2)
    _, pull = spcy.vjp(spcy.subm_conv, x, np.ones((3, 3, 3, 2, 2), np.float32), np.zeros(2, np.float32))
    dy = np.ones((30, 2), np.float32)
    every = pull(dy)
    for needed in [(True, False, False), (False, True, False), (False, False, True)]:
        for given, whole, n in zip(pull(dy, needed), every, needed, strict=True):
            assert (given is None) != n
            if n:
                np.testing.assert_array_equal(given, whole)
    _, pull = spcy.vjp(spcy.concat, [x, x])
    assert pull(np.ones((30, 4), np.float32), (False, True))[0] is None
    assert spcy.vjp(spcy.add, x, x)[1](dy, (True, False))[1] is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_graph_without_gradients(mode, coords, rng, monkeypatch):
    weight = leaf(rng, 3, 3, 3, 2, 2)
    x = st.SparseTensor(coords, leaf(rng, len(coords), 2))
    expected = st.subm_conv(x, weight).features.detach()
    pooled = st.max_pool(x, 2).features.detach()
    for function in (functional._Convolution, functional._Operation):
        monkeypatch.setattr(function, "apply", None)
    with mode():
        torch.testing.assert_close(st.subm_conv(x, weight).features, expected, rtol=0, atol=0)
        torch.testing.assert_close(st.max_pool(x, 2).features, pooled, rtol=0, atol=0)


def test_a_write_to_what_is_saved_is_noticed(coords, rng):
    features, weight = leaf(rng, len(coords), 2), leaf(rng, 3, 3, 3, 2, 2)
    y = st.subm_conv(st.SparseTensor(coords, features), weight).features
    with torch.no_grad():
        weight += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    x = features * 1
    y = st.max_pool(st.SparseTensor(coords, x), 2).features
    x += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_relu_in_place_may_follow_a_convolution(coords, rng):
    features, weight = leaf(rng, len(coords), 2), leaf(rng, 3, 3, 3, 2, 2)
    grads = []
    for inplace in (False, True):
        y = st.subm_conv(st.SparseTensor(coords, features), weight).features
        loss = torch.nn.functional.relu(y, inplace=inplace).sum()
        grads.append(torch.autograd.grad(loss, (features, weight)))
    torch.testing.assert_close(*grads, rtol=0, atol=0)


def test_gradients_of_a_sum_do_not_share_memory_unknown_to_torch(coords, rng):
    a, b = leaf(rng, len(coords), 2), leaf(rng, len(coords), 2)
    for _ in range(2):  # the second time gradients are added in place
        y = st.add(st.SparseTensor(coords, a), st.SparseTensor(coords, b))
        y.features.sum().backward()
    assert (a.grad == 2).all()
    assert (b.grad == 2).all()


def test_no_second_derivative(coords, rng):
    weight = leaf(rng, 3, 3, 3, 2, 2)
    y = st.subm_conv(st.SparseTensor(coords, leaf(rng, len(coords), 2)), weight).features
    (first,) = torch.autograd.grad((y**2).sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_autocast(coords, rng):
    pytest.importorskip("ml_dtypes")
    features, weight = (
        leaf(rng, len(coords), 4, dtype=torch.float32),
        leaf(rng, 3, 3, 3, 4, 4, dtype=torch.float32),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = torch.nn.functional.linear(features, torch.eye(4))
        assert hidden.dtype is torch.bfloat16
        y = st.subm_conv(st.SparseTensor(coords, hidden), weight).features
    assert y.dtype is torch.bfloat16
    y.float().sum().backward()
    assert weight.grad.dtype is torch.float32
    exact = st.subm_conv(st.SparseTensor(coords, features), weight).features
    torch.testing.assert_close(y.float(), exact, rtol=0.02, atol=0.02 * float(exact.detach().abs().max()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        double = st.subm_conv(st.SparseTensor(coords, features.double()), weight.double())
    assert double.features.dtype is torch.float64


def test_threads_are_torchs_unless_spcys_are_set(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(_threads, "_cores", 4)
    monkeypatch.setattr(
        _threads, "_followed", {"torch.get_num_threads": torch.get_num_threads}
    )  # one of Dask's workers may be followed
    try:
        for asked, given in ((1, 1), (3, 3), (8, 4)):
            torch.set_num_threads(asked)
            assert spcy.get_num_threads() == given
        spcy.set_num_threads(2)
        assert spcy.get_num_threads() == 2
    finally:
        spcy.set_num_threads(None)
        torch.set_num_threads(before)


def test_two_threads_at_once(rng):
    coords = spcy.Coords(random_indices(rng, 100, BOX), BOX)
    weight = torch.from_numpy(rng.standard_normal((3, 3, 3, 4, 4)))
    inputs = [torch.from_numpy(rng.standard_normal((100, 4))).requires_grad_() for _ in range(8)]

    def run(features):
        return torch.autograd.grad(
            (st.subm_conv(st.SparseTensor(coords, features), weight).features ** 2).sum(), features
        )[0]

    with ThreadPoolExecutor(2) as pool:
        for parallel, alone in zip(pool.map(run, inputs), map(run, inputs), strict=True):
            torch.testing.assert_close(parallel, alone, rtol=0, atol=0)


def test_tensors_stay_on_the_cpu_whatever_the_backend_flag_says(rng):
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu")
    if cuda_on_cpu.available():
        pytest.skip(cuda_on_cpu.available())
    with cuda_on_cpu.installed(), spcy.use_backend("cuda"):
        indices = torch.from_numpy(random_indices(rng, 20, BOX))
        x = st.SparseTensor(indices, torch.ones(20, 2))
        assert x.coords.backend == "cpu"
        assert st.voxelize(torch.ones(3, 3), 1.0).tensor.coords.backend == "cpu"


@pytest.mark.parametrize("non_contiguous", [False, True])
def test_layouts_in_memory(non_contiguous, coords, rng):
    features, weight = leaf(rng, 4, len(coords)), leaf(rng, 4, 4, 3, 3, 3)
    turn = (lambda t: t) if non_contiguous else (lambda t: t.contiguous())
    x = st.SparseTensor(coords, turn(features.t()))
    y = st.subm_conv(x, turn(weight.permute(2, 3, 4, 0, 1))).features
    (gradient,) = torch.autograd.grad((y * y).sum(), features)
    expected = spcy.subm_conv(
        spcy.SparseTensor(coords, features.detach().numpy().T),
        weight.detach().numpy().transpose(2, 3, 4, 0, 1),
    )
    np.testing.assert_array_equal(y.detach().numpy(), expected.features)
    assert gradient.shape == features.shape


def test_empty(rng):
    x = st.SparseTensor(torch.empty(0, 4, dtype=torch.int32), torch.empty(0, 2).requires_grad_(), shape=BOX)
    weight = torch.ones(3, 3, 3, 2, 5, requires_grad=True)
    for y in (st.subm_conv(x, weight), st.conv(x, weight, stride=2, padding=1)):
        assert y.features.shape == (0, 5)
        y.features.sum().backward()
    assert (weight.grad == 0).all()


def errors():
    indices = torch.tensor([[0, 1, 1], [0, 2, 2]])
    x = lambda **k: st.SparseTensor(indices, torch.ones(2, 3, **k))  # noqa: E731
    weight = torch.ones(3, 3, 3, 4)
    yield TypeError, "features must be a torch.Tensor", lambda: st.SparseTensor(indices, np.ones((2, 3)))
    yield TypeError, "coords must be a torch.Tensor", lambda: st.SparseTensor([[0, 1, 1]], torch.ones(1, 3))
    yield ValueError, "features must have 2 rows", lambda: st.SparseTensor(indices, torch.ones(3, 3))
    yield ValueError, r"features must have shape \(N, C\)", lambda: st.SparseTensor(indices, torch.ones(2))
    yield TypeError, "features must have dtype float32", lambda: x(dtype=torch.int64)
    yield ValueError, "row 1", lambda: st.SparseTensor(indices, torch.ones(2, 3), shape=(2, 2))
    yield ValueError, "rows 0 and 2", lambda: st.SparseTensor(indices[[0, 1, 0]], torch.ones(3, 3))
    yield (
        ValueError,
        "features must be on cpu",
        lambda: st.SparseTensor(indices, torch.ones(2, 3).to("meta")),
    )
    yield ValueError, "CPU or a CUDA device", lambda: st.SparseTensor(indices.to("meta"), torch.ones(2, 3))
    yield TypeError, "dense tensor", lambda: st.SparseTensor(indices, torch.ones(2, 3).to_sparse())
    yield (
        ValueError,
        "left out with Coords",
        lambda: st.SparseTensor(x().coords, torch.ones(2, 3), shape=(9, 9)),
    )
    yield TypeError, "weight must be a torch.Tensor", lambda: st.subm_conv(x(), weight.numpy())
    yield ValueError, "weight must be on cpu", lambda: st.subm_conv(x(), weight.to("meta"))
    yield TypeError, "weight must have dtype float64", lambda: st.subm_conv(x(dtype=torch.float64), weight)
    yield ValueError, "C_in = 3", lambda: st.subm_conv(x(), torch.ones(3, 3, 2, 4))
    yield TypeError, "bias must have dtype", lambda: st.subm_conv(x(), weight, torch.ones(4).double())
    yield TypeError, "x must be a spcy.torch.SparseTensor", lambda: st.max_pool(torch.ones(2, 3), 2)
    yield (
        TypeError,
        "x must be a spcy.torch.SparseTensor",
        lambda: st.subm_conv(spcy.SparseTensor([[0, 1, 1]], np.ones((1, 3))), weight),
    )
    yield ValueError, "no parent", lambda: st.inverse_conv(x(), weight)
    yield TypeError, "sequence of at least one", lambda: st.concat([])
    yield TypeError, r"tensors\[1\] must be", lambda: st.concat([x(), 3])
    yield TypeError, "mask must have dtype bool", lambda: st.prune(x(), torch.ones(2))
    yield ValueError, "row 1", lambda: st.voxelize(torch.tensor([[0.0], [np.nan]]), 1.0)


@pytest.mark.parametrize(
    ("kind", "message", "call"), [*errors()], ids=lambda v: v if isinstance(v, str) else ""
)
def test_errors_name_what_is_wrong(kind, message, call):
    with pytest.raises(kind, match=message):
        call()


def test_a_cuda_tensor_needs_cupy(monkeypatch):
    """There is no GPU here: what the way in would say about a tensor that is on one."""
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"backend 'cuda' is not available: CuPy cannot be imported"):
        spcy.torch._bridge.on_device(torch.device("cuda:0")).__enter__()


def test_missing_torch_is_named():
    code = "import sys; sys.modules['torch'] = None\nimport spcy\nimport spcy.torch"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'ImportError: spcy.torch needs PyTorch: pip install "spcy[torch]"' in out.stderr


@pytest.mark.cuda
def test_on_a_gpu(coords, rng):
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA GPU")
    pytest.importorskip("cupy")
    weight = leaf(rng, 3, 3, 3, 2, 4)
    features = leaf(rng, len(coords), 2)
    expected = torch.autograd.grad(
        (st.subm_conv(st.SparseTensor(coords, features), weight).features ** 2).sum(), (features, weight)
    )
    there = [t.detach().cuda().requires_grad_() for t in (features, weight)]
    x = st.SparseTensor(
        torch.from_numpy(coords.indices.copy()).cuda(), there[0], shape=BOX, batch_size=BATCHES
    )
    y = st.subm_conv(x, there[1]).features
    assert y.is_cuda
    for actual, gradient in zip(torch.autograd.grad((y**2).sum(), there), expected, strict=True):
        torch.testing.assert_close(actual.cpu(), gradient)
