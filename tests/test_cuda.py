"""What is special about arrays on a GPU: where they may come from and go to, what a step costs."""

import cuda_on_cpu
import numpy as np
import pytest
from cuda_on_cpu import counting
from helpers import assert_close, get, put, random_indices, random_tensor, random_weight

import spcy

EMULATED = ["cuda-emulated"]
GPUS = [*EMULATED, pytest.param("cuda", marks=pytest.mark.cuda)]
on_gpu = pytest.mark.parametrize("backend", GPUS, indirect=True)
emulated = pytest.mark.parametrize("backend", EMULATED, indirect=True)

INDICES = np.array([[0, 4, 1], [0, 5, 1], [1, 0, 3]], np.int32)
FEATURES = np.arange(6, dtype=np.float32).reshape(3, 2)


def on_cpu():
    return spcy.use_backend("cpu")


class CudaArray:
    """An array of another library, that tells of itself by the CUDA array interface."""

    def __init__(self, array):
        self.__cuda_array_interface__ = array.__cuda_array_interface__
        self.array = array  # keeps the memory


class DlpackArray:
    """An array of another library, that tells of itself by DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)


# ---- where data enters -------------------------------------------------------------------------------


@on_gpu
@pytest.mark.parametrize("kind", [np.asarray, np.ndarray.tolist], ids=["array", "list"])
def test_numpy_and_lists_enter_where_the_flag_says(backend, kind):
    x = spcy.SparseTensor(kind(INDICES), np.float32(FEATURES))
    assert (x.backend, x.coords.backend) == ("cuda", "cuda")
    assert not isinstance(x.features, np.ndarray)
    assert spcy.voxelize(kind(np.float64(INDICES[:, 1:])), 2.0).tensor.backend == "cuda"
    assert spcy.SparseTensor.from_dense(kind(np.ones((1, 2, 2, 1)))).backend == "cuda"
    with on_cpu():
        x = spcy.SparseTensor(kind(INDICES), FEATURES)
        assert (x.backend, type(x.features), type(x.indices)) == ("cpu", np.ndarray, np.ndarray)


@on_gpu
def test_cuda_arrays_stay_whatever_the_flag_says(backend):
    indices, features = put(INDICES), put(FEATURES)
    with on_cpu():
        x = spcy.SparseTensor(indices, features)
        assert x.backend == "cuda"
        assert x.features is features
        assert spcy.voxelize(put_on_gpu(FEATURES), 0.5).tensor.backend == "cuda"


def put_on_gpu(array):
    with spcy.use_backend("cuda"):
        return put(array)


@on_gpu
@pytest.mark.parametrize("wrap", [CudaArray, DlpackArray])
def test_arrays_of_other_libraries_enter_without_a_copy(backend, wrap):
    features, weight = put(FEATURES), put(np.ones((1, 1, 2, 3), np.float32))
    x = spcy.SparseTensor(wrap(put(INDICES)), wrap(features))
    assert x.backend == "cuda"
    assert x.features.data.ptr == features.data.ptr
    y = spcy.subm_conv(x, wrap(weight), wrap(put(np.zeros(3, np.float32))))
    assert_close(y.features, FEATURES.sum(axis=1, keepdims=True).repeat(3, axis=1), np.float32)


@on_gpu
def test_tensors_of_torch_enter_without_a_copy(backend):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    features = torch.ones((3, 2), device="cuda")
    x = spcy.SparseTensor(torch.tensor(INDICES, device="cuda"), features)
    assert x.features.data.ptr == features.data_ptr()
    back = torch.from_dlpack(x.features)
    assert back.data_ptr() == features.data_ptr()


# ---- later stages follow their arrays ------------------------------------------------------------------


@on_gpu
def test_a_later_stage_refuses_arrays_of_the_other_backend(backend, rng):
    x = spcy.SparseTensor(INDICES, FEATURES)
    here, there = x.to("cpu"), x
    weight, points = np.ones((3, 3, 2, 2), np.float32), rng.random((4, 2))
    mask = np.ones(3, bool)
    takes_arrays = {
        "weight": lambda x, put: spcy.subm_conv(x, put(weight)),
        "bias": lambda x, put: spcy.subm_conv(x, on(x, weight), put(np.ones(2, np.float32))),
        "mask": lambda x, put: spcy.prune(x, put(mask)),
        "points": lambda x, put: spcy.devoxelize(x, put(points), batch=[0] * 4),
        "indices": lambda x, put: x.rows_of(put(INDICES)),
        "keys": lambda x, put: x.coords._sites.hashmap.find(put(np.ones(2, np.uint64))),
        "dy": lambda x, put: spcy.vjp(spcy.global_sum_pool, x)[1](put(np.ones((2, 2), np.float32))),
    }

    def on(x, array):
        return array if x.backend == "cpu" else put(array)

    for name, call in takes_arrays.items():
        with pytest.raises(
            TypeError, match=rf"^{name} must be on backend 'cuda'.*got a NumPy array.*cupy.asarray"
        ):
            call(there, np.asarray)
        with pytest.raises(
            TypeError, match=rf"^{name} must be on backend 'cpu'.*got a CUDA array.*cupy.asnumpy"
        ):
            call(here, put)
        call(there, put)
        call(here, np.asarray)
    with on_cpu(), pytest.raises(TypeError, match=r"^features must be on backend 'cuda'"):
        there.replace(FEATURES)
    with pytest.raises(TypeError, match=r"^features must be on backend 'cpu'"):
        here.replace(put(FEATURES))
    for mixed in (
        lambda: spcy.add(here, there),
        lambda: here + there,
        lambda: spcy.concat([here, there]),
        lambda: spcy.union(here.coords, there.coords),
        lambda: spcy.subm_conv(there, put(weight), residual=here),
    ):
        with pytest.raises(TypeError, match="one backend"):
            mixed()
    for host in (
        lambda: spcy.max_pool(x, put(np.array([2, 2]))),
        lambda: spcy.submanifold_rulebook(x.coords, put(np.array([[0, 1]]))),
        lambda: spcy.voxelize(INDICES[:, 1:] * 1.0, put(np.array([1.0, 1.0]))),
    ):
        with pytest.raises(
            TypeError, match=r"^(kernel_size must be an int|offsets must be on the CPU|voxel_size)"
        ):
            host()


@on_gpu
def test_lists_go_where_the_others_are(backend):
    x = spcy.SparseTensor(INDICES, FEATURES)
    for tensor in (x, x.to("cpu")):
        assert get(tensor.rows_of(INDICES[::-1].tolist())).tolist() == [2, 1, 0]
        assert spcy.prune(tensor, [True, False, True]).num_sites == 2
        double = tensor.map(lambda f: f.astype(np.float64))
        assert spcy.subm_conv(double, [[[[1.0], [2.0]]]]).backend == tensor.backend


@on_gpu
def test_what_no_device_holds_has_the_messages_of_the_cpu(backend):
    for call, message in (
        (lambda: spcy.Coords(np.array([["a", "b"]])), "^indices must have an integer dtype"),
        (lambda: spcy.SparseTensor(INDICES, FEATURES.astype(np.longdouble)), "^features must have dtype"),
        (lambda: spcy.SparseTensor(INDICES, FEATURES.astype(object)), "^features must have dtype"),
        (lambda: spcy.SparseTensor(INDICES, np.ma.masked_array(FEATURES)), "^features must be a plain array"),
    ):
        with pytest.raises(TypeError, match=message):
            call()


# ---- between the backends --------------------------------------------------------------------------------


@on_gpu
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_are_the_cpu_s_in_the_same_rows(backend, dtype, rng):
    x = random_tensor(rng, 90, (7, 8, 6), 5, dtype, batch_size=2)
    w1, b1 = random_weight(rng, (3, 3, 3), 5, 8, dtype)
    w2, b2 = random_weight(rng, (2, 2, 2), 8, 8, dtype)

    def network(x, place):
        y = spcy.subm_conv(x, place(w1), place(b1), activation="relu")
        z = spcy.conv(y, place(w2), place(b2), stride=2)
        back = spcy.inverse_conv(spcy.subm_conv(z, place(w2)[:1, :1, :1]), place(w2), place(b2), residual=y)
        pooled = spcy.unpool(spcy.avg_pool(back, 2))
        return (
            back,
            spcy.max_pool(spcy.concat([back, pooled]), 3, 2, 1),
            spcy.add(back, spcy.prune(y, [True] * 90)),
        )

    ours, theirs = network(x, put), network(x.to("cpu"), get)
    for y, z in zip(ours, theirs, strict=True):
        assert (y.backend, z.backend) == ("cuda", "cpu")
        np.testing.assert_array_equal(get(y.indices), z.indices)
        assert_close(y.features, z.features, dtype)
    np.testing.assert_allclose(get(spcy.global_avg_pool(ours[0])), spcy.global_avg_pool(theirs[0]), atol=1e-4)


@on_gpu
def test_moving_keeps_sites_levels_and_sharing(backend, rng):
    x = random_tensor(rng, 60, (7, 8, 6), 2, np.float32, batch_size=2)
    y = spcy.max_pool(spcy.voxelize(rng.random((50, 3)), 0.2).tensor, 2)
    for tensor in (x, y):
        moved = tensor.to("cpu")
        assert moved.to("cpu") is moved
        assert tensor.to("cuda") is tensor
        np.testing.assert_array_equal(moved.indices, get(tensor.indices))
        np.testing.assert_array_equal(moved.features, get(tensor.features))
        assert moved.shape == tensor.shape
        np.testing.assert_array_equal(moved.coords.origin, tensor.coords.origin)
        np.testing.assert_array_equal(moved.coords.voxel_size, tensor.coords.voxel_size)
        assert tensor.to("cpu").coords is moved.coords
        assert (tensor * 2).to("cpu").coords is moved.coords
        back = moved.to("cuda")
        np.testing.assert_array_equal(get(back.rows_of(tensor.indices)), np.arange(tensor.num_sites))
    down = y.to("cpu")
    assert down.coords.parent is not None
    assert spcy.unpool(down).coords is down.coords.parent
    assert x.coords.to("cpu").to("cuda").backend == "cuda"


@on_gpu
def test_coords_that_moved_are_freed(backend, rng):
    coords = spcy.Coords(random_indices(rng, 20, (5, 5)))
    coords.to("cpu")
    assert [value() for value in coords._sites.moved.values()] == [None]


# ---- dtypes ----------------------------------------------------------------------------------------------


@on_gpu
def test_float16(backend, rng):
    """Sums are float32, results rounded once."""
    x = random_tensor(rng, 80, (6, 6, 6), 16, np.float16)
    weight, bias = random_weight(rng, (3, 3, 3), 16, 8, np.float16)
    wide = x.map(lambda f: f.astype(np.float32))
    w, b = weight.astype(np.float32), bias.astype(np.float32)
    for y, expected in (
        (spcy.subm_conv(x, weight, bias), spcy.subm_conv(wide, w, b)),
        (spcy.conv(x, weight, bias, stride=2), spcy.conv(wide, w, b, stride=2)),
        (spcy.avg_pool(x, 2), spcy.avg_pool(wide, 2)),
        (spcy.max_pool(x, 2), spcy.max_pool(wide, 2)),
        (x + x, wide + wide),
        (x * 2, wide * 2),
    ):
        assert y.dtype == np.float16
        expected = get(expected.features)
        np.testing.assert_allclose(
            get(y.features), expected, rtol=2**-10, atol=2**-10 * np.abs(expected).max()
        )
    assert spcy.global_max_pool(x).dtype == np.float16
    points = put(rng.random((9, 3)) * 6)
    np.testing.assert_array_equal(
        get(spcy.devoxelize(x, points)), get(spcy.devoxelize(wide, points)).astype(np.float16)
    )
    on_host = x.to("cpu")
    assert on_host.dtype == np.float16
    np.testing.assert_array_equal(on_host.features, get(x.features))


@on_gpu
def test_tf32_is_used_only_where_it_is_allowed(backend, rng):
    x = random_tensor(rng, 80, (6, 6, 6), 16, np.float32)
    weight, _ = random_weight(rng, (3, 3, 3), 16, 8)
    exact = get(spcy.subm_conv(x, weight).features)
    with spcy.allow_tf32():
        rounded = get(spcy.subm_conv(x, weight).features)
        with spcy.allow_tf32(False):
            np.testing.assert_array_equal(get(spcy.subm_conv(x, weight).features), exact)
    np.testing.assert_array_equal(get(spcy.subm_conv(x, weight).features), exact)
    error = np.abs(rounded - exact).max() / np.abs(exact).max()
    if backend == "cuda" and error == 0:
        pytest.skip("a GPU without tf32")
    assert 1e-6 < error < 2**-9


# ---- what a step costs -------------------------------------------------------------------------------


def cost(counts):
    return counts.kernels, counts.synchronisations, counts.uploads


@emulated
def test_cost_of_entering(backend, rng):
    indices, features = put(random_indices(rng, 300, (9, 9, 9))), put(rng.random((300, 4)))
    with counting() as counts:
        spcy.SparseTensor(indices, features, shape=(9, 9, 9))
    assert counts.synchronisations == 3  # bounds, whether keys ascend, whether they differ
    assert counts.uploads == 0


@emulated
def test_cost_of_rulebooks_and_layers(backend, rng):
    """A rulebook makes the host wait once; its tiles and what runs them never."""
    x = random_tensor(rng, 300, (9, 9, 9), 8)
    weight, bias = random_weight(rng, (3, 3, 3), 8, 8)
    offsets = spcy.kernel_offsets((3, 3, 3)) - 1
    with counting() as counts:
        spcy.submanifold_rulebook(x.coords, offsets)
    assert (counts.synchronisations, counts.uploads) == (1, 0)
    assert counts.kernels <= 5
    with counting() as counts:
        spcy.conv_rulebook(x.coords, spcy.kernel_offsets((2, 2, 2)), stride=2)
    assert (counts.synchronisations, counts.uploads) == (1, 0)
    assert counts.kernels == 5
    with counting() as counts:
        y = spcy.subm_conv(x, weight, bias, activation="relu")
    assert (counts.synchronisations, counts.uploads) == (0, 0)
    assert counts.kernels <= 6 + 2
    for layer, kernels in (
        (lambda: spcy.subm_conv(x, weight, bias, residual=y, activation="relu"), 2),
        (lambda: spcy.max_pool(x, 2), 2),
    ):
        layer()
        with counting() as counts:
            layer()
        assert counts.kernels <= kernels
        assert (counts.synchronisations, counts.uploads) == (0, 0)


@emulated
def test_a_network_never_waits_once_its_rulebooks_are_built(backend, rng):
    x = random_tensor(rng, 300, (9, 9, 9), 8, batch_size=2)
    weight, bias = random_weight(rng, (3, 3, 3), 8, 8)
    small, _ = random_weight(rng, (2, 2, 2), 8, 8)
    head, _ = random_weight(rng, (1, 1, 1), 16, 4)

    def network():
        y = spcy.subm_conv(x, weight, bias, activation="relu")
        y = spcy.subm_conv(y, weight, residual=x)
        down = spcy.conv(y, small, stride=2)
        down = (down + spcy.subm_conv(down, weight)).map(lambda f: f * (f > 0)) * 0.5
        up = spcy.concat([spcy.inverse_conv(down, small), spcy.unpool(spcy.avg_pool(y, 2))])
        up = spcy.add(up, up)
        spcy.conv_transpose(down, small, stride=2)
        return spcy.global_avg_pool(up), spcy.global_max_pool(spcy.subm_conv(up, head)), up.to_dense()

    first = network()
    with counting() as counts:
        second = network()
    assert (counts.synchronisations, counts.uploads) == (0, 0)
    assert counts.kernels <= 40
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(get(a), get(b))


def test_importing_the_cuda_half_needs_no_gpu():
    """Modules are imported, kernels compiled when first called."""
    if cuda_on_cpu.available():
        pytest.skip(cuda_on_cpu.available())
    with cuda_on_cpu.installed(), counting() as counts:
        import spcy._cuda  # noqa: F401
    assert counts.kernels == 0


@on_gpu
def test_levels_of_one_stride_move_apart(backend):
    x = spcy.SparseTensor(np.array([[0, 0], [0, 1], [0, 5]]), np.ones((3, 1)))
    weight = np.arange(1.0, 4).reshape(3, 1, 1)
    here = [spcy.conv(x, put(weight), stride=2, padding=p, sites="floor") for p in (0, 1)]
    there = [y.to("cpu") for y in here]
    assert there[0].coords is not there[1].coords
    for y, moved in zip(here, there, strict=True):
        expected = get(spcy.inverse_conv(y, put(weight)).features)
        np.testing.assert_array_equal(spcy.inverse_conv(moved, weight).features, expected)
