"""spcy.torch.minkowski: MinkowskiEngine's own outputs, its formulas by plain loops, names and mistakes."""

import ast
import copy
import gc
import inspect
import itertools
import pickle
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

import spcy.torch.minkowski as ME  # noqa: E402
from spcy.torch.minkowski.kernels import offsets_of  # noqa: E402

pytestmark = pytest.mark.torch

GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "me054_cpu.npz"
CUBE, CROSS, CUSTOM = ME.RegionType.HYPER_CUBE, ME.RegionType.HYPER_CROSS, ME.RegionType.CUSTOM
MODES = ME.SparseTensorQuantizationMode


def scene(num=60, channels=3, ndim=3, reach=7, batches=2, seed=0, dtype=torch.float64, step=1):
    """Return distinct coordinates, negative ones too, and features."""
    rng = np.random.default_rng(seed)
    cells = np.unique(rng.integers(-reach, reach, (num, ndim)), axis=0)
    batch = rng.integers(0, batches, (len(cells), 1))
    order = rng.permutation(len(cells))
    coordinates = torch.from_numpy(np.concatenate([batch, step * cells], 1)[order]).int()
    features = torch.from_numpy(rng.standard_normal((len(cells), channels))).to(dtype)
    return features, coordinates


def rows_of(tensor):
    """Return the features by coordinates."""
    return {tuple(c): f for c, f in zip(tensor.C.tolist(), tensor.F.detach().numpy(), strict=True)}


def same(y, expected, atol=1e-10):
    """Same sites, ascending if a layer made them, and close features."""
    got = rows_of(y)
    assert got.keys() == expected.keys()
    for c, f in expected.items():
        np.testing.assert_allclose(got[c], f, rtol=0, atol=atol)


def ascending(y):
    assert y.C.tolist() == sorted(y.C.tolist())


def windows(x, outputs, offsets, step):
    """Yield for each output the kernel offsets that have an input, and its row."""
    inputs = {tuple(c): row for row, c in enumerate(x.C.tolist())}
    for b, *u in outputs:
        met = [
            (k, (b, *(a + o * s for a, o, s in zip(u, off, step, strict=True))))
            for k, off in enumerate(offsets)
        ]
        yield (b, *u), [(k, inputs[c]) for k, c in met if c in inputs]


def floor_cells(x, step):
    return {(b, *(a // s * s for a, s in zip(c, step, strict=True))) for b, *c in x.C.tolist()}


# MinkowskiEngine's own outputs.


def golden(name):
    with np.load(GOLDEN) as archive:
        case = {k.split("/")[1]: archive[k] for k in archive.files if k.split("/")[0] == name}
    case["meta"] = ast.literal_eval(str(case["meta"])) if "meta" in case else {}
    return case


def golden_layer(name, case):
    """Return the layer of a case."""
    if name.startswith(("maxpool", "avgpool")):
        kind = ME.MinkowskiMaxPooling if name.startswith("max") else ME.MinkowskiAvgPooling
        return kind(kernel_size=2, stride=2, dimension=3)
    _, c_in, c_out = case["kernel"].shape
    meta = {k: v for k, v in case["meta"].items() if k != "note"}
    kind = ME.MinkowskiConvolution
    if name.startswith("convT"):
        kind, meta = ME.MinkowskiConvolutionTranspose, {"kernel_size": 2, "stride": 2}
    elif name.startswith("genT"):
        kind, meta = ME.MinkowskiGenerativeConvolutionTranspose, {"kernel_size": 2, "stride": 2}
    elif name == "cross3":
        meta = {"kernel_generator": ME.KernelGenerator(3, region_type=CROSS, dimension=3)}
    layer = kind(c_in, c_out, dimension=3, **meta)
    state = {k: torch.from_numpy(case[k]) for k in ("kernel", "bias") if k in case}
    layer.load_state_dict({k: v.reshape(dict(layer.named_parameters())[k].shape) for k, v in state.items()})
    return layer


@pytest.mark.skipif(not GOLDEN.exists(), reason="the golden vectors are not part of the repository")
@pytest.mark.parametrize(
    "name",
    [
        "conv3",
        "conv3_s2",
        "conv2_s2",
        "conv3_expand",
        "convT2_s2_reuse",
        "genT2_s2",
        "maxpool2_s2",
        "avgpool2_s2",
        "cross3",
    ],
)
def test_the_outputs_are_those_of_minkowski_engine(name):
    case = golden(name)
    layer, stride = golden_layer(name, case), case["in_tensor_stride"].tolist()
    x = ME.SparseTensor(
        torch.from_numpy(case["in_features"]), torch.from_numpy(case["in_coords"]), tensor_stride=stride
    )
    if name == "convT2_s2_reuse":  # the coordinates that it goes back to
        x._manager.insert_and_map(torch.from_numpy(case["out_coords"]), 1)
    y = layer(x)
    assert y.tensor_stride == case["out_tensor_stride"].tolist()
    same(
        y, {tuple(c): f for c, f in zip(case["out_coords"].tolist(), case["out_features"], strict=True)}, 2e-5
    )


@pytest.mark.skipif(not GOLDEN.exists(), reason="the golden vectors are not part of the repository")
def test_interpolation_is_that_of_minkowski_engine():
    case = {k: torch.from_numpy(v) for k, v in golden("interp").items() if k != "meta"}
    x = ME.SparseTensor(case["in_features"], case["in_coords"])
    torch.testing.assert_close(ME.MinkowskiInterpolation()(x, case["q"]), case["out"], rtol=0, atol=1e-5)
    torch.testing.assert_close(x.features_at_coordinates(case["q"]), case["out"], rtol=0, atol=1e-5)


# Its formulas by plain loops.


def test_the_cells_of_kernels():
    assert offsets_of(CUBE, (3, 2), ()).tolist() == [[-1, 0], [0, 0], [1, 0], [-1, 1], [0, 1], [1, 1]]
    assert offsets_of(CROSS, (5, 3), ()).tolist() == [
        [0, 0],
        [1, 0],
        [2, 0],
        [-2, 0],
        [-1, 0],
        [0, 1],
        [0, -1],
    ]


CONVS = [
    {"kernel_size": 3},
    {"kernel_size": 2},
    {"kernel_size": (3, 5, 1)},
    {"kernel_size": (4, 2, 3), "dilation": (1, 2, 1)},
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 2, "stride": 2},
    {"kernel_size": 3, "stride": 4},
    {"kernel_size": (5, 2, 3), "stride": (2, 3, 1)},
    {"kernel_size": 1, "stride": 2},
    {"kernel_generator": ME.KernelGenerator((5, 3, 1), region_type=CROSS, dilation=2, dimension=3)},
    {
        "kernel_generator": ME.KernelGenerator(
            region_type=CUSTOM,
            region_offsets=torch.tensor([[0, 0, 0], [1, -2, 3], [-1, 0, 0]]),
            stride=2,
            dimension=3,
        )
    },
]


@pytest.mark.parametrize("step", [1, 2, (1, 3, 2)])
@pytest.mark.parametrize("geometry", CONVS, ids=str)
def test_convolution(geometry, step):
    steps = (step,) * 3 if isinstance(step, int) else step
    features, coordinates = scene(step=np.array(steps))
    x = ME.SparseTensor(features, coordinates, tensor_stride=step)
    layer = ME.MinkowskiConvolution(3, 4, bias=True, dimension=3, **geometry).double()
    y = layer(x)
    kernel = layer.kernel_generator
    stride = [t * s for t, s in zip(steps, kernel.kernel_stride, strict=True)]
    assert y.tensor_stride == stride
    reach = [t * d for t, d in zip(steps, kernel.kernel_dilation, strict=True)]
    weight, bias = layer.kernel.detach().numpy(), layer.bias.detach().numpy()[0]
    expected = {
        u: bias + sum(features[row].numpy() @ weight[k] for k, row in met)
        for u, met in windows(x, floor_cells(x, stride), kernel.offsets, reach)
    }
    same(y, expected)
    if kernel.kernel_stride != [1, 1, 1]:
        ascending(y)
    else:
        assert y.coordinate_map_key == x.coordinate_map_key


@pytest.mark.parametrize("kernel_size", [3, 2, (1, 3, 2)])
@pytest.mark.parametrize("stride", [1, 2])
def test_expanding_convolution(kernel_size, stride):
    features, coordinates = scene(30)
    x = ME.SparseTensor(features, coordinates)
    layer = ME.MinkowskiConvolution(
        3, 2, kernel_size=kernel_size, stride=stride, expand_coordinates=True, dimension=3
    ).double()
    y = layer(x)
    offsets = layer.kernel_generator.offsets
    reached = {(b, *(a + o)) for b, *c in coordinates.tolist() for a in [np.array(c)] for o in offsets}
    reached = {tuple(map(int, u)) for u in reached if not any(int(a) % stride for a in u[1:])}
    weight = layer.kernel.detach().numpy()
    expected = {
        u: sum((features[row].numpy() @ weight[k] for k, row in met), np.zeros(2))
        for u, met in windows(x, reached, offsets, (1, 1, 1))
    }
    same(y, expected)
    ascending(y)


def transposed(x, outputs, layer, step):
    """Return the outputs of a transposed layer, or of a pool, by plain loops."""
    expected = {}
    inputs = {tuple(c): row for row, c in enumerate(x.C.tolist())}
    offsets = layer.kernel_generator.offsets
    for b, *u in outputs:
        out = 0
        for k, off in enumerate(offsets):
            c = (b, *(a - o * s for a, o, s in zip(u, off, step, strict=True)))
            if c in inputs:
                out = out + x.F[inputs[c]].detach().numpy() @ layer.kernel[k].detach().numpy()
        expected[b, *u] = out + np.zeros(layer.out_channels)
    return expected


@pytest.mark.parametrize(("kernel_size", "stride"), [(2, 2), (3, 2), (3, 3), (4, 2), ((2, 3, 1), (2, 1, 1))])
def test_transposed_convolution_goes_back(kernel_size, stride):
    features, coordinates = scene()
    x = ME.SparseTensor(features, coordinates)
    down = ME.MinkowskiConvolution(3, 4, kernel_size=3, stride=stride, dimension=3).double()
    up = ME.MinkowskiConvolutionTranspose(4, 2, kernel_size=kernel_size, stride=stride, dimension=3).double()
    coarse = down(x)
    y = up(coarse)
    assert y.coordinate_map_key == x.coordinate_map_key
    assert y.C.tolist() == coordinates.tolist()
    same(y, transposed(coarse, coordinates.tolist(), up, (1, 1, 1)))


@pytest.mark.parametrize(("kernel_size", "stride"), [(2, 2), (3, 2), ((2, 3, 1), (2, 1, 1))])
@pytest.mark.parametrize("kind", ["generative", "plain"])
def test_transposed_convolution_makes_sites(kernel_size, stride, kind):
    step = np.array((2, 2, 2))
    features, coordinates = scene(20, step=step)
    x = ME.SparseTensor(features, coordinates, tensor_stride=2)
    make = (
        ME.MinkowskiGenerativeConvolutionTranspose
        if kind == "generative"
        else ME.MinkowskiConvolutionTranspose
    )
    layer = make(3, 2, kernel_size=kernel_size, stride=stride, dimension=3).double()
    y = layer(x)
    fine = [2 // s for s in layer.kernel_generator.kernel_stride]
    assert y.tensor_stride == fine
    reached = {
        (b, *(int(a + o * f) for a, o, f in zip(c, off, fine, strict=True)))
        for b, *c in coordinates.tolist()
        for off in layer.kernel_generator.offsets
    }
    same(y, transposed(x, reached, layer, fine))
    ascending(y)
    again = layer(x)
    assert (again.coordinate_map_key == y.coordinate_map_key) == (kind == "plain")


def test_coordinates_that_are_no_multiples_of_the_tensor_stride():
    features, coordinates = scene()
    x = ME.SparseTensor(features, coordinates, tensor_stride=2)
    layer = ME.MinkowskiConvolution(3, 2, kernel_size=3, dimension=3).double()
    weight = layer.kernel.detach().numpy()
    cells = [tuple(c) for c in coordinates.tolist()]
    met = windows(x, cells, layer.kernel_generator.offsets, (2, 2, 2))
    same(layer(x), {u: sum(features[row].numpy() @ weight[k] for k, row in pairs) for u, pairs in met})
    down = ME.MinkowskiConvolution(3, 2, kernel_size=2, stride=2, dimension=3).double()
    weight = down.kernel.detach().numpy()
    met = windows(x, floor_cells(x, (4, 4, 4)), down.kernel_generator.offsets, (2, 2, 2))
    zero = np.zeros(2)
    same(down(x), {u: sum((features[row].numpy() @ weight[k] for k, row in p), zero) for u, p in met})


@pytest.mark.parametrize("given", ["tensor", "key", "sparse"])
def test_convolution_onto_given_coordinates(given):
    features, coordinates = scene()
    _, wanted = scene(40, seed=5)
    x = ME.SparseTensor(features, coordinates)
    layer = ME.MinkowskiConvolution(3, 2, kernel_size=3, dimension=3).double()
    to = wanted
    if given == "key":
        to, _ = x.coordinate_manager.insert_and_map(wanted, 1)
    elif given == "sparse":
        to = ME.SparseTensor(torch.ones(len(wanted), 1), wanted, coordinate_manager=x.coordinate_manager)
    y = layer(x, to)
    assert y.C.tolist() == wanted.tolist()
    weight = layer.kernel.detach().numpy()
    met = windows(x, map(tuple, wanted.tolist()), layer.kernel_generator.offsets, (1, 1, 1))
    same(y, {u: sum((features[row].numpy() @ weight[k] for k, row in p), np.zeros(2)) for u, p in met})


def test_channelwise_convolution():
    features, coordinates = scene()
    x = ME.SparseTensor(features, coordinates)
    layer = ME.MinkowskiChannelwiseConvolution(3, kernel_size=3, stride=2, bias=True, dimension=3).double()
    assert layer.kernel.shape == (27, 3)
    weight, bias = layer.kernel.detach().numpy(), layer.bias.detach().numpy()[0]
    met = windows(x, floor_cells(x, (2, 2, 2)), layer.kernel_generator.offsets, (1, 1, 1))
    same(layer(x), {u: bias + sum(features[row].numpy() * weight[k] for k, row in p) for u, p in met})


@pytest.mark.parametrize("geometry", [(2, 2), (3, 3), (3, 2), (3, 1), (3, 4)], ids=str)
@pytest.mark.parametrize("kind", ["Sum", "Avg", "Max"])
def test_pools(kind, geometry):
    kernel_size, stride = geometry
    features, coordinates = scene()
    x = ME.SparseTensor(features, coordinates)
    y = getattr(ME, f"Minkowski{kind}Pooling")(kernel_size, stride, dimension=3)(x)
    low = 0 if kernel_size == stride else -(kernel_size // 2)
    offsets = [*itertools.product(range(low, low + kernel_size), repeat=3)]
    reduce = {"Sum": sum, "Avg": lambda v: sum(v) / len(v), "Max": np.maximum.reduce}[kind]
    empty = np.full(3, np.finfo(np.float64).min if kind == "Max" else 0.0)
    expected = {}
    for u, met in windows(x, floor_cells(x, (stride,) * 3), offsets, (1, 1, 1)):
        expected[u] = reduce([features[row].numpy() for _, row in met]) if met else empty
    same(y, expected)


@pytest.mark.parametrize("kernel_size", [2, 3])
@pytest.mark.parametrize(
    "more",
    [{}, {"dilation": 2}, {"kernel_generator": ME.KernelGenerator(3, 3, region_type=CROSS, dimension=3)}],
    ids=str,
)
def test_pools_of_whole_cells(kernel_size, more):
    """All sites of a cell, where they are no multiples of the tensor stride too."""
    size = 3 if "kernel_generator" in more else kernel_size
    features, coordinates = scene()
    x = ME.SparseTensor(features, coordinates, tensor_stride=2)
    y = ME.MinkowskiSumPooling(size, size, **more, dimension=3)(x)
    cells = {}
    for (b, *c), f in zip(coordinates.tolist(), features.numpy(), strict=True):
        cell = (b, *(a // (2 * size) * 2 * size for a in c))
        cells[cell] = cells.get(cell, 0) + f
    same(y, cells)
    back = ME.MinkowskiPoolingTranspose(size, size, **more, dimension=3)(y)
    same(
        back,
        {(b, *c): cells[b, *(a // (2 * size) * 2 * size for a in c)] for b, *c in coordinates.tolist()},
    )


def test_expanding_convolution_keeps_multiples_of_the_tensor_stride():
    features, coordinates = scene(step=2)
    odd = coordinates.clone()
    odd[::2, 1] += 1
    x = ME.SparseTensor(features, odd, tensor_stride=2)
    y = ME.MinkowskiConvolution(3, 2, kernel_size=3, expand_coordinates=True, dimension=3).double()(x)
    even = ME.SparseTensor(features[1::2], odd[1::2], tensor_stride=2)
    z = ME.MinkowskiConvolution(3, 2, kernel_size=3, expand_coordinates=True, dimension=3).double()(even)
    assert not (y.C[:, 1:] % 2).any()
    assert torch.equal(y.C, z.C)


@pytest.mark.parametrize("kernel_size", [2, 3])
def test_transposed_pool_copies(kernel_size):
    features, coordinates = scene()
    x = ME.SparseTensor(features, coordinates)
    coarse = ME.MinkowskiSumPooling(kernel_size, kernel_size, dimension=3)(x)
    y = ME.MinkowskiPoolingTranspose(kernel_size, kernel_size, dimension=3)(coarse)
    there = rows_of(coarse)
    same(
        y, {(b, *c): there[b, *(a // kernel_size * kernel_size for a in c)] for b, *c in coordinates.tolist()}
    )


@pytest.mark.parametrize("kind", ["Sum", "Avg", "Max"])
@pytest.mark.parametrize("of", [ME.SparseTensor, ME.TensorField])
def test_global_pools(kind, of):
    features, coordinates = scene(batches=4)
    coordinates[coordinates[:, 0] == 2, 0] = 3  # no site in batch 2
    y = getattr(ME, f"MinkowskiGlobal{kind}Pooling")()(of(features, coordinates))
    assert y.C.tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [3, 0, 0, 0]]
    for b, row in zip([0, 1, 3], y.F, strict=True):
        part = features[coordinates[:, 0] == b]
        expected = {"Sum": part.sum(0), "Avg": part.mean(0), "Max": part.amax(0)}[kind]
        torch.testing.assert_close(row, expected)


def test_a_field_and_the_sites_of_its_cells_keep_apart():
    """They have one tensor stride, and layers find each."""
    features, coordinates = twice(*scene())
    field = ME.TensorField(features, coordinates + 0.25)
    x = field.sparse()
    assert x.coordinate_map_key != field.coordinate_field_map_key
    assert x.coordinate_map_key == ME.CoordinateMapKey([1, 1, 1], "")  # what transposed layers go back to
    y = ME.MinkowskiGlobalSumPooling()(field)
    torch.testing.assert_close(y.F.sum(0), features.sum(0))
    assert len(y) == 2
    assert field.coordinate_manager.size(field.coordinate_field_map_key) == len(features)


@pytest.mark.parametrize("kind", ["Sum", "Avg", "Max"])
def test_global_pools_where_other_tensors_have_other_batches(kind):
    features, coordinates = scene()
    coordinates[:, 0] *= 2  # as many numbers below the greatest as the manager has batches
    x = ME.SparseTensor(features, coordinates)
    last = torch.IntTensor([[2**31 - 2, 0, 0, 0]])
    ME.SparseTensor(features[:1], last, coordinate_manager=x.coordinate_manager)
    y = getattr(ME, f"MinkowskiGlobal{kind}Pooling")()(x)
    assert y.C[:, 0].tolist() == [0, 2, 2**31 - 2]
    for b, row in zip([0, 2], y.F, strict=False):
        part = features[coordinates[:, 0] == b]
        expected = {"Sum": part.sum(0), "Avg": part.mean(0), "Max": part.amax(0)}[kind]
        torch.testing.assert_close(row, expected)
    assert not y.F[2].any()


def test_broadcasts_and_instance_norm():
    features, coordinates = scene(batches=3)
    x = ME.SparseTensor(features, coordinates)
    mean = ME.MinkowskiGlobalAvgPooling()(x)
    spread = mean.F[coordinates[:, 0].long()]
    torch.testing.assert_close(ME.MinkowskiBroadcast()(x, mean).F, spread)
    torch.testing.assert_close(ME.MinkowskiBroadcastAddition()(x, mean).F, features + spread)
    torch.testing.assert_close(ME.MinkowskiBroadcastMultiplication()(x, mean).F, features * spread)
    torch.testing.assert_close(
        ME.MinkowskiBroadcastConcatenation()(x, mean).F, torch.cat([features, spread], 1)
    )
    for kind, eps in ((ME.MinkowskiInstanceNorm, 1e-8), (ME.MinkowskiStableInstanceNorm, 1e-6)):
        y = kind(3).double()(x).F
        for b in range(3):
            part = features[coordinates[:, 0] == b]
            expected = (part - part.mean(0)) / (part.var(0, unbiased=False) + eps).sqrt()
            torch.testing.assert_close(y[coordinates[:, 0] == b], expected)


# Tensors.


def twice(features, coordinates):
    """Return rows of which some have the same coordinates, in any order."""
    order = torch.from_numpy(np.random.default_rng(1).permutation(2 * len(features)))
    return torch.cat([features, 2 * features + 1])[order], torch.cat([coordinates, coordinates])[order]


@pytest.mark.parametrize(
    "mode", [MODES.RANDOM_SUBSAMPLE, MODES.UNWEIGHTED_AVERAGE, MODES.UNWEIGHTED_SUM, MODES.MAX_POOL]
)
@pytest.mark.parametrize("of", ["sparse", "field"])
def test_rows_with_the_same_coordinates(mode, of):
    features, coordinates = twice(*scene())
    if of == "sparse":
        x = ME.SparseTensor(features, coordinates, quantization_mode=mode)
        rows, first = x.inverse_mapping, x.unique_index
        assert torch.equal(x.C[rows], coordinates)
        assert torch.equal(coordinates[first], x.C)
        assert (first.diff() > 0).all()  # the order of the first ones
    else:
        x = ME.TensorField(features, coordinates + 0.25, quantization_mode=mode).sparse()
    found = {}
    for c, f in zip(coordinates.tolist(), features.numpy(), strict=True):
        found.setdefault(tuple(c), []).append(f)
    reduce = {
        MODES.RANDOM_SUBSAMPLE: lambda v: v[0],
        MODES.UNWEIGHTED_AVERAGE: lambda v: sum(v) / len(v),
        MODES.UNWEIGHTED_SUM: sum,
        MODES.MAX_POOL: np.maximum.reduce,
    }[mode]
    same(x, {c: reduce(v) for c, v in found.items()})


def test_arithmetic():
    features, coordinates = scene()
    other, others = scene(50, seed=3)
    x = ME.SparseTensor(features, coordinates)
    y = ME.SparseTensor(other, others, coordinate_manager=x.coordinate_manager)
    torch.testing.assert_close((x + x * x).F, features + features**2)
    torch.testing.assert_close((x / x - 3).F, features / features - 3)
    mine, theirs = rows_of(x), rows_of(y)
    for function in (np.add, np.subtract, np.multiply):
        expected = {}
        for c in mine.keys() | theirs.keys():
            a = mine.get(c, np.zeros(3))
            expected[c] = function(a, theirs[c]) if c in theirs else a
        z = {np.add: x + y, np.subtract: x - y, np.multiply: x * y}[function]
        same(z, expected)
        ascending(z)
    z = ME.MinkowskiUnion()(x, y, x)
    same(z, {c: 2 * mine.get(c, 0) + theirs.get(c, np.zeros(3)) for c in mine.keys() | theirs.keys()})
    x = ME.SparseTensor(features.clone(), coordinates)
    x += x
    torch.testing.assert_close(x.F, 2 * features)


def test_joins_and_stacks():
    features, coordinates = scene()
    x = ME.SparseTensor(features, coordinates)
    torch.testing.assert_close(ME.cat(x, x).F, torch.cat([features, features], 1))
    torch.testing.assert_close(ME.cat([x, x]).F, torch.cat([features, features], 1))
    torch.testing.assert_close(ME.sum(x, x, x).F, 3 * features)
    torch.testing.assert_close(ME.mean(x, x * 2).F, 1.5 * features)
    torch.testing.assert_close(ME.var(x, x * 3).F, features**2)
    layers = ME.MinkowskiReLU(), ME.MinkowskiSigmoid()
    y = ME.MinkowskiStackCat(*layers)(x)
    torch.testing.assert_close(y.F, torch.cat([features.relu(), features.sigmoid()], 1))
    torch.testing.assert_close(ME.MinkowskiStackSum(*layers)(x).F, features.relu() + features.sigmoid())


def test_dense_and_back():
    features, coordinates = scene(reach=5)
    coordinates[:, 1:] += 5
    doubled = torch.cat([coordinates[:, :1], 2 * coordinates[:, 1:]], 1)
    x = ME.SparseTensor(features, doubled, tensor_stride=2)
    dense, low, stride = x.dense(torch.Size([3, 1, 12, 11, 10]))
    assert dense.shape == (3, 3, 12, 11, 10)
    assert stride.tolist() == [2, 2, 2]
    at = coordinates.long()
    torch.testing.assert_close(dense[at[:, 0], :, at[:, 1], at[:, 2], at[:, 3]], features)
    assert (dense != 0).any(1).sum() == len(features)
    same(
        ME.to_sparse(dense),
        {tuple(c): f for c, f in zip(coordinates.tolist(), features.numpy(), strict=True)},
    )
    assert len(ME.to_sparse_all(dense)) == 3 * 12 * 11 * 10
    assert torch.equal(ME.MinkowskiToDenseTensor(dense.shape)(ME.to_sparse_all(dense)), dense)
    moved, low, _ = x.dense(min_coordinate=torch.IntTensor([-2, 0, -4]))
    assert low.tolist() == [[-2, 0, -4]]
    torch.testing.assert_close(moved[at[:, 0], :, at[:, 1] + 1, at[:, 2], at[:, 3] + 2], features)
    coo, low, _ = x.sparse(torch.IntTensor([0, 0, 0]), torch.IntTensor([30, 30, 30]))
    torch.testing.assert_close(coo.to_dense().movedim(-1, 1)[:, :, :12, :11, :10], dense[:2])


def test_batches_apart():
    features, coordinates = scene(batches=3)
    coordinates[coordinates[:, 0] == 1, 0] = 2
    for x in (ME.SparseTensor(features, coordinates), ME.TensorField(features, coordinates)):
        parts = x.decomposed_coordinates_and_features
        assert [len(c) for c in parts[0]] == [int((coordinates[:, 0] == b).sum()) for b in range(3)]
        for b in range(3):
            at = coordinates[:, 0] == b
            assert torch.equal(x.coordinates_at(b).int(), coordinates[at, 1:])
            assert torch.equal(parts[1][b], features[at])
        assert x.coordinate_manager.number_of_unique_batch_indices() == 2


def test_pruning():
    features, coordinates = scene()
    x = ME.SparseTensor(features.requires_grad_(), coordinates)
    mask = features[:, 0] > 0
    y = ME.MinkowskiPruning()(x, mask)
    assert torch.equal(y.C, coordinates[mask])
    assert torch.equal(y.F, features[mask])
    y.F.sum().backward()
    assert torch.equal(features.grad, mask[:, None].expand(-1, 3).double())
    assert len(ME.MinkowskiPruning()(x, mask & False)) == 0


def test_a_field_through_a_network_and_back():
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.uniform(-9, 9, (300, 4)))
    points[:, 0] = points[:, 0] > 0
    field = ME.TensorField(torch.from_numpy(rng.standard_normal((300, 3))).requires_grad_(), points)
    net = torch.nn.Sequential(
        ME.MinkowskiLinear(3, 8),
        ME.MinkowskiBatchNorm(8),
        ME.MinkowskiReLU(),
        ME.MinkowskiToSparseTensor(),
        ME.MinkowskiConvolution(8, 16, kernel_size=3, stride=2, dimension=3),
        ME.MinkowskiConvolution(16, 16, kernel_size=3, stride=2, dimension=3),
    ).double()
    x = field.sparse()
    y = net(field)
    out = y.slice(field)
    assert isinstance(out, ME.TensorField)
    cells = torch.cat([points[:, :1], (points[:, 1:] / 4).floor() * 4], 1).int().tolist()
    there = rows_of(y)
    for c, f in zip(cells, out.F.detach().numpy(), strict=True):
        np.testing.assert_array_equal(f, there[tuple(c)])
    assert out.C is field.C
    joined = y.cat_slice(field)
    assert torch.equal(joined.F[:, 16:], field.F)
    joined.F.sum().backward()
    assert field.F.grad is not None
    onto = field.sparse(coordinate_map_key=y.coordinate_map_key)
    assert torch.equal(onto.C, y.C)
    assert len(x.slice(field)) == 300


def test_splat_and_interpolate():
    field = ME.TensorField(torch.tensor([[1.0], [2.0]]), torch.tensor([[0, 0.1], [0, 1.1]]))
    x = field.splat()
    assert x.C.tolist() == [[0, 0], [0, 1], [0, 2]]
    torch.testing.assert_close(x.F.flatten(), torch.tensor([0.9, 0.1 + 1.8, 0.2]))
    torch.testing.assert_close(x.interpolate(field).F.flatten(), torch.tensor([0.81 + 0.19, 1.71 + 0.02]))
    x = ME.SparseTensor(x.F, x.C)
    torch.testing.assert_close(x.interpolate(field).F.flatten(), torch.tensor([0.81 + 0.19, 1.71 + 0.02]))


@pytest.mark.parametrize("tensor_stride", [1, 2])
@pytest.mark.parametrize("off", [0, 1])
def test_interpolation_maps(tensor_stride, off):
    features, coordinates = scene(200, reach=4)
    coordinates[:, 1:] = coordinates[:, 1:] * tensor_stride + off * (coordinates[:, 1:2] > 0)
    x = ME.SparseTensor(features, coordinates, tensor_stride=tensor_stride)
    points = torch.from_numpy(np.random.default_rng(2).uniform(-5, 5, (40, 4)))
    points[:, 0] = points[:, 0] > 0
    out, (rows, at), weights = ME.MinkowskiInterpolation(return_kernel_map=True, return_weights=True)(
        x, points
    )
    expected = torch.zeros(40, 3, dtype=torch.float64).index_add_(
        0, at.long(), features[rows.long()] * weights[:, None]
    )
    torch.testing.assert_close(out, expected)
    distance = (x.C[rows.long(), 1:] - points[at.long(), 1:]).abs() / tensor_stride
    torch.testing.assert_close(weights, (1 - distance).prod(1))


# The manager.


def test_kernel_maps():
    features, coordinates = scene()
    x = ME.SparseTensor(features, coordinates)
    y = ME.MinkowskiConvolution(3, 2, kernel_size=3, stride=2, dimension=3).double()(x)
    maps = y.coordinate_manager.kernel_map(1, 2, stride=2, kernel_size=3)
    offsets = torch.from_numpy(offsets_of(CUBE, (3, 3, 3), ()))
    for k, (i, o) in maps.items():
        assert torch.equal(x.C[i.long(), 1:], y.C[o.long(), 1:] + offsets[k])
    expected = windows(x, map(tuple, y.C.tolist()), offsets.tolist(), (1, 1, 1))
    assert sum(m.shape[1] for m in maps.values()) == sum(len(p) for _, p in expected)
    rows, cells = x.coordinate_manager.stride_map(x.coordinate_map_key, y.coordinate_map_key)
    assert torch.equal(torch.div(x.C[rows, 1:], 2, rounding_mode="floor") * 2, y.C[cells, 1:])
    pooled = y.coordinate_manager.kernel_map(1, 2, stride=2, kernel_size=2, is_pool=True)
    assert torch.equal(pooled[0].long(), torch.stack([rows, cells]))


def test_keys():
    key = ME.CoordinateMapKey(4)
    assert not key.is_key_set()
    assert key != ME.CoordinateMapKey(4)
    with pytest.raises(ValueError, match="must be set"):
        key.get_key()
    key.set_key([1, 2, 3], "a")
    assert key == ME.CoordinateMapKey([1, 2, 3], "a")
    assert hash(key) == hash(ME.CoordinateMapKey([1, 2, 3], "a"))
    assert key.get_key() == ([1, 2, 3], "a")
    assert key.get_coordinate_size() == 4
    assert repr(key) == "coordinate map key:[1, 2, 3]:a"


def test_a_manager_that_tensors_share():
    features, coordinates = scene()
    ME.set_sparse_tensor_operation_mode(ME.SparseTensorOperationMode.SHARE_COORDINATE_MANAGER)
    try:
        x, y = ME.SparseTensor(features, coordinates), ME.SparseTensor(features, coordinates)
        assert x.coordinate_manager is y.coordinate_manager is ME.global_coordinate_manager()
        same(x + y, {c: 2 * f for c, f in rows_of(x).items()})
    finally:
        ME.clear_global_coordinate_manager()
        ME.set_sparse_tensor_operation_mode(ME.SparseTensorOperationMode.SEPARATE_COORDINATE_MANAGER)
    assert ME.SparseTensor(features, coordinates).coordinate_manager is not x.coordinate_manager


def test_tensors_do_not_change_with_their_arguments():
    features, coordinates = scene()
    points, given = coordinates + 0.25, coordinates.clone()
    field, x = ME.TensorField(features, points), ME.SparseTensor(features, given)
    points += 9
    given += 9
    field.coordinate_manager.get_coordinate_field(field.coordinate_key).zero_()
    x.coordinate_manager.get_coordinates(1).zero_()
    assert torch.equal(field.sparse().C, coordinates)
    assert torch.equal(field.C, coordinates + 0.25)
    assert torch.equal(x.C, coordinates)
    conv = ME.MinkowskiConvolution(3, 2, kernel_size=3, dimension=3).double()
    expected = conv(x).F
    x.C.zero_()
    assert torch.equal(conv(x).F, expected)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_copies(how):
    features, coordinates = scene()
    x, field = ME.SparseTensor(features, coordinates), ME.TensorField(features, coordinates + 0.25)
    net = torch.nn.Sequential(
        ME.MinkowskiConvolution(3, 4, kernel_size=2, stride=2, dimension=3),
        ME.MinkowskiReLU(),
        ME.MinkowskiConvolutionTranspose(4, 3, kernel_size=2, stride=2, dimension=3),
    ).double()
    y = net(x)
    assert torch.equal(how(net)(how(x)).F, y.F)
    a, b = how((x, y._with(y.F.detach())))
    assert torch.equal((a + b).F, (x + y).F)
    assert torch.equal(how(field).sparse().F, field.sparse().F)


def test_managers_go_with_their_tensors():
    features, coordinates = scene()
    conv = ME.MinkowskiConvolution(3, 3, kernel_size=2, expand_coordinates=True, dimension=3).double()

    def run():
        x, field = ME.SparseTensor(features, coordinates), ME.TensorField(features, coordinates + 0.25)
        y = conv(x)
        loss = (x + y).F.sum() + ME.MinkowskiGlobalMaxPooling()(y).F.sum()
        loss += field.splat().interpolate(field).F.sum() + field.sparse().slice(field).F.sum()
        loss.backward()
        return weakref.ref(x.coordinate_manager), weakref.ref(field.coordinate_manager)

    gc.disable()
    try:
        assert [each() for each in run()] == [None, None]
    finally:
        gc.enable()


def test_a_manager_that_threads_share():
    features, coordinates = scene(dtype=torch.float32)
    x = ME.SparseTensor(features, coordinates)
    start, wrong = threading.Barrier(4), []

    def run(number):
        mask = coordinates[:, 1] % 4 == number
        start.wait()
        for _ in range(50):
            field = ME.TensorField(features, coordinates + float(number), coordinate_manager=x._manager)
            if not torch.equal(ME.MinkowskiPruning()(x, mask).C, coordinates[mask]):
                wrong.append("pruned")
            if not torch.equal(field.sparse().C, coordinates + number):
                wrong.append("field")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong


def test_kernel_maps_of_whole_cells():
    features, coordinates = scene()
    x = ME.SparseTensor(features, coordinates)
    manager, fine = x.coordinate_manager, x.coordinate_map_key
    coarse = manager.stride(fine, 2)
    geometry = {"stride": 2, "kernel_size": 2, "is_pool": True}
    down = manager.kernel_map(fine, coarse, **geometry)
    up = manager.kernel_map(coarse, fine, **geometry, is_transpose=True)
    assert [*down] == [*up] == [0]
    assert torch.equal(down[0].flip(0), up[0])


@pytest.mark.filterwarnings("ignore")  # of PyTorch's compiler
def test_compiled():
    features, coordinates = scene(dtype=torch.float32)
    norm = ME.MinkowskiInstanceNorm(3).requires_grad_(False)
    compiled, x = torch.compile(norm, backend="eager"), ME.SparseTensor(features, coordinates)
    torch.testing.assert_close(compiled(x).F, norm(x).F)


# Gradients.


LAYERS = {
    "conv": lambda: ME.MinkowskiConvolution(3, 2, kernel_size=3, bias=True, dimension=3),
    "conv, stride 2": lambda: ME.MinkowskiConvolution(3, 2, kernel_size=3, stride=2, bias=True, dimension=3),
    "conv, size 1": lambda: ME.MinkowskiConvolution(3, 2, kernel_size=1, bias=True, dimension=3),
    "expanding": lambda: ME.MinkowskiConvolution(3, 2, kernel_size=2, expand_coordinates=True, dimension=3),
    "generative": lambda: ME.MinkowskiGenerativeConvolutionTranspose(
        3, 2, kernel_size=2, stride=2, dimension=3
    ),
    "channelwise": lambda: ME.MinkowskiChannelwiseConvolution(3, kernel_size=3, stride=2, dimension=3),
    "sum pool": lambda: ME.MinkowskiSumPooling(3, 2, dimension=3),
    "average pool": lambda: ME.MinkowskiAvgPooling(2, 2, dimension=3),
    "maximum pool": lambda: ME.MinkowskiMaxPooling(3, 2, dimension=3),
    "transposed pool": lambda: ME.MinkowskiPoolingTranspose(2, 2, dimension=3),
    "global maximum": ME.MinkowskiGlobalMaxPooling,
    "global average": ME.MinkowskiGlobalAvgPooling,
    "instance norm": lambda: ME.MinkowskiInstanceNorm(3),
    "block": lambda: ME.modules.resnet_block.Bottleneck(
        3,
        2,
        stride=2,
        dimension=3,
        downsample=ME.MinkowskiConvolution(3, 8, kernel_size=1, stride=2, dimension=3),
    ),
    "weighed block": lambda: ME.modules.senet_block.SEBasicBlock(3, 3, reduction=3, D=3),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name):
    features, coordinates = scene(8, reach=2, step=np.array([2, 2, 2]))
    layer = LAYERS[name]().double()
    parameters = dict(layer.named_parameters())

    def run(features, *values):
        x = ME.SparseTensor(features, coordinates, tensor_stride=2)
        return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), (x,)).F

    inputs = features.requires_grad_(), *parameters.values()
    fast = "block" in name  # along one direction: they have many parameters
    assert torch.autograd.gradcheck(run, inputs, check_undefined_grad=False, fast_mode=fast)


def test_gradients_of_tensors():
    features, coordinates = twice(*scene(6, reach=2))
    other, others = scene(10, seed=4, reach=2)
    points = torch.from_numpy(np.random.default_rng(2).uniform(-3, 3, (20, 4))).clamp(min=0)
    features.requires_grad_()

    def run(features):
        field = ME.TensorField(features, coordinates + 0.3)
        x = ME.SparseTensor(features, coordinates, quantization_mode=MODES.MAX_POOL)
        y = ME.SparseTensor(other, others, coordinate_manager=x.coordinate_manager)
        parts = x + y, ME.MinkowskiUnion()(x, y), field.sparse(), field.splat(), field.sparse().slice(field)
        parts += (ME.SparseTensor(features, coordinates, quantization_mode=MODES.UNWEIGHTED_AVERAGE),)
        return (
            *(p.F for p in parts),
            x.features_at_coordinates(points),
            x.dense(min_coordinate=torch.IntTensor([-3] * 3))[0],
        )

    assert torch.autograd.gradcheck(run, (features,))


def test_functions_by_themselves():
    features, coordinates = scene(12, reach=3)
    x = ME.SparseTensor(features.requires_grad_(), coordinates)
    kernel = torch.randn(27, 3, 2, dtype=torch.float64, requires_grad=True)
    generator, key = ME.KernelGenerator(3, 2, dimension=3), ME.CoordinateMapKey(4)
    mode, keys = ME.ConvolutionMode.DEFAULT, (x.coordinate_map_key, key, x.coordinate_manager)
    from spcy.torch.minkowski.utils.gradcheck import gradcheck

    assert gradcheck(ME.MinkowskiConvolutionFunction(), (x.F, kernel, generator, mode, *keys))
    assert key.get_tensor_stride() == [2, 2, 2]
    pool = ME.PoolingMode.LOCAL_AVG_POOLING
    assert gradcheck(ME.MinkowskiLocalPoolingFunction(), (x.F, pool, generator, *keys))
    rows, cols = torch.tensor([0, 2, 2, 1]), torch.tensor([0, 1, 2, 1])
    vals = torch.tensor([1.0, 2.0, 3.0, 4.0])
    mat = torch.randn(3, 2, requires_grad=True)
    dense = torch.zeros(4, 3).index_put((rows, cols), vals)
    torch.testing.assert_close(ME.spmm(rows, cols, vals, (4, 3), mat), dense @ mat)
    torch.testing.assert_close(ME.spmm(rows.float(), cols.double(), vals, [4, 3], mat), dense @ mat)
    mean = (dense != 0).float() / (dense != 0).sum(1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(ME.MinkowskiSPMMAverageFunction.apply(rows, cols, (4, 3), mat), mean @ mat)


# Helpers.


def test_quantize():
    rng = np.random.default_rng(0)
    points = rng.uniform(-2, 2, (200, 3))
    labels = rng.integers(0, 2, 200).astype(np.int32)
    cells, out, first, inverse = ME.utils.sparse_quantize(
        points, labels=labels, ignore_label=-1, return_index=True, return_inverse=True, quantization_size=0.8
    )
    np.testing.assert_array_equal(cells[inverse], np.floor(points / 0.8))
    np.testing.assert_array_equal(cells, np.floor(points[first] / 0.8))
    assert (np.diff(first) > 0).all()
    for cell, label in enumerate(out):
        there = np.unique(labels[inverse == cell])
        assert label == (there[0] if len(there) == 1 else -1)
    cells, features = ME.utils.sparse_quantize(torch.from_numpy(points), torch.from_numpy(points))
    assert torch.equal(cells, features.floor().int())
    only = ME.utils.sparse_quantize(points, return_maps_only=True)
    assert len(only) == len(np.unique(np.floor(points), axis=0))
    assert len(ME.utils.sparse_quantize(np.zeros((5, 2)) - 3)) == 1


def test_collate():
    samples = [
        (np.array([[0.5, -1.5]]), np.ones((1, 2)), np.array([3])),
        (np.zeros((2, 2)), np.zeros((2, 2)), np.array([4, 5])),
    ]
    coords, feats, labels = ME.utils.batch_sparse_collate(samples)
    assert coords.tolist() == [[0, 0, -2], [1, 0, 0], [1, 0, 0]]
    assert coords.dtype is torch.int32
    assert feats.shape == (3, 2)
    assert labels.tolist() == [3, 4, 5]
    assert ME.utils.batched_coordinates([samples[0][0]], dtype=torch.float32).tolist() == [[0.0, 0.5, -1.5]]
    coords, *_ = ME.utils.SparseCollation(limit_numpoints=1)(samples)
    assert len(coords) == 1


def test_summary(capsys):
    features, coordinates = scene(dtype=torch.float32)
    net = torch.nn.Sequential(
        ME.MinkowskiConvolution(3, 4, kernel_size=3, dimension=3), ME.MinkowskiLinear(4, 2)
    )
    assert ME.utils.summary(net, ME.SparseTensor(features, coordinates))[0] == 27 * 12 + 10
    assert "MinkowskiConvolution-1" in capsys.readouterr().out


def test_hashes_tell_rows_apart():
    rows = np.random.default_rng(0).integers(0, 8, (500, 3))
    distinct = len(np.unique(rows, axis=0))
    assert len(np.unique(ME.utils.fnv_hash_vec(rows))) == distinct
    assert len(np.unique(ME.utils.ravel_hash_vec(rows))) == distinct


# Names, checkpoints, install.


def test_parameters_have_their_names_and_shapes():
    conv = ME.MinkowskiConvolution(4, 8, kernel_size=(3, 1, 2), bias=True, dimension=3)
    assert {k: tuple(v.shape) for k, v in conv.state_dict().items()} == {"kernel": (6, 4, 8), "bias": (1, 8)}
    assert ME.MinkowskiConvolution(4, 8, kernel_size=1, dimension=3).kernel.shape == (4, 8)
    assert ME.MinkowskiConvolution(4, 8, kernel_size=1, stride=2, dimension=3).kernel.shape == (1, 4, 8)
    block = ME.modules.resnet_block.BasicBlock(4, 8, dimension=3)
    assert [*block.state_dict()][:2] == ["conv1.kernel", "norm1.bn.weight"]
    assert "linear.weight" in ME.MinkowskiLinear(2, 3).state_dict()


def test_synchronized_norms():
    net = torch.nn.Sequential(ME.MinkowskiBatchNorm(4), ME.MinkowskiReLU())
    state = net.state_dict()
    converted = ME.MinkowskiSyncBatchNorm.convert_sync_batchnorm(net)
    assert isinstance(converted[0], ME.MinkowskiSyncBatchNorm)
    assert isinstance(converted[0].bn, torch.nn.SyncBatchNorm)
    assert converted.state_dict().keys() == state.keys()


def test_layers_have_the_arguments_of_minkowski_engine():
    convolution = "in_channels out_channels kernel_size stride dilation bias kernel_generator"
    for kind, more in (
        (ME.MinkowskiConvolution, "expand_coordinates convolution_mode dimension"),
        (ME.MinkowskiConvolutionTranspose, "expand_coordinates convolution_mode dimension"),
        (ME.MinkowskiGenerativeConvolutionTranspose, "convolution_mode dimension"),
    ):
        assert " ".join(inspect.signature(kind).parameters) == f"{convolution} {more}"
    pool = "kernel_size stride dilation kernel_generator dimension"
    assert " ".join(inspect.signature(ME.MinkowskiMaxPooling).parameters) == pool
    tensor = (
        "features coordinates tensor_stride coordinate_map_key coordinate_manager quantization_mode "
        "allocator_type minkowski_algorithm requires_grad device"
    )
    assert " ".join(inspect.signature(ME.SparseTensor).parameters) == tensor


# Mistakes.


def mistakes():
    features, coordinates = scene()
    x = ME.SparseTensor(features, coordinates)
    stranger = ME.SparseTensor(features, coordinates)
    field, pooled = ME.TensorField(features, coordinates), ME.MinkowskiGlobalAvgPooling()(x)
    conv = ME.MinkowskiConvolution(3, 2, kernel_size=3, dimension=3).double()
    up = ME.MinkowskiConvolutionTranspose(3, 2, kernel_size=2, stride=2, dimension=3).double()
    negative = coordinates.clone()
    negative[7, 0] = -1
    far = coordinates.double()
    far[5, 2] = torch.nan
    return {
        "features must have as many rows as coordinates, 59, got 58": lambda: ME.SparseTensor(
            features[1:], coordinates
        ),
        r"got -1 in row 7": lambda: ME.SparseTensor(features, negative),
        r"coordinates must be finite and fit in int32, got .*nan.* in row 5": lambda: ME.SparseTensor(
            features, far
        ),
        "coordinates must be given": lambda: ME.SparseTensor(features),
        "tensors must share a coordinate manager.*give coordinate_manager": lambda: x + stranger,
        "must be on the same coordinates.*unites them": lambda: x.__iadd__(
            ME.MinkowskiConvolution(3, 3, kernel_size=1, stride=2, dimension=3).double()(x)
        ),
        "MinkowskiUnion unites different ones": lambda: ME.cat(
            x, ME.MinkowskiAvgPooling(2, 2, dimension=3)(x)
        ),
        "stride must divide the input's tensor stride .*a transposed layer goes back": lambda: up(x),
        "input must have 3 channels, in_channels of the layer, got 1": lambda: conv(x._with(features[:, :1])),
        "features must have 59 rows, one per site, got 9": lambda: conv(x._with(features[:9])),
        "input must have 3 axes": lambda: conv(ME.SparseTensor(features, coordinates[:, :3])),
        "dimension must be the number of spatial axes": lambda: ME.MinkowskiConvolution(3, 2, kernel_size=3),
        "kernel_size must be at least 1": lambda: ME.MinkowskiConvolution(3, 2, dimension=3),
        "stride must be at least 1": lambda: ME.MinkowskiConvolution(
            3, 2, kernel_size=3, stride=0, dimension=3
        ),
        "kernel_size must be odd": lambda: ME.KernelGenerator(2, region_type=CROSS, dimension=3),
        "mask must be": lambda: ME.MinkowskiPruning()(x, torch.ones(3)),
        "coordinate_manager must be given with coordinate_map_key": lambda: ME.SparseTensor(
            features, coordinate_map_key=x.coordinate_map_key
        ),
        "the coordinate manager must have coordinates for": lambda: conv(
            x, ME.CoordinateMapKey([4, 4, 4], "no")
        ),
        "min_coordinate must be given where coordinates are negative": lambda: x.dense(),
        "shape must hold all sites": lambda: x.dense(torch.Size([2, 3, 4, 4, 4]), torch.IntTensor([0, 0, 0])),
        "tensor_stride must be an int or 3 ints, .* got 1.5": lambda: ME.SparseTensor(
            features, coordinates, tensor_stride=1.5
        ),
        "tensor_stride must fit in int32, got 2147483648": lambda: ME.SparseTensor(
            features, coordinates, tensor_stride=2**31
        ),
        "kernel_size must be an int or 3 ints": lambda: ME.MinkowskiConvolution(
            3, 2, kernel_size=2.5, dimension=3
        ),
        "in_channels must be an int of at least 1, got 0": lambda: ME.MinkowskiConvolution(
            0, 2, kernel_size=3, dimension=3
        ),
        "kernel_generator must have 3 axes, the dimension of the layer, got 2": lambda: (
            ME.MinkowskiSumPooling(kernel_generator=ME.KernelGenerator(3, dimension=2), dimension=3)
        ),
        "kernel_generator must be a KernelGenerator": lambda: ME.MinkowskiSumPooling(
            kernel_generator=3, dimension=3
        ),
        "features must have 59 rows, one for each of the points": lambda: ME.TensorField(
            features[:3], coordinate_field_map_key=field.coordinate_key, coordinate_manager=field._manager
        ),
        "must have points for": lambda: x._manager.get_coordinate_field(x.coordinate_map_key),
        "features must have 59 rows, one per site, got shape": lambda: x + torch.zeros(4, 59, 3),
        "a CoordinateMapKey must be given, got str": lambda: field.sparse(coordinate_map_key="a"),
        "features must have 2 rows, one per site": lambda: ME.MinkowskiBroadcastFunction.apply(
            features,
            features[:1],
            ME.BroadcastMode.ELEMENTWISE_ADDITON,
            x.coordinate_map_key,
            None,
            x._manager,
        ),
        r"in_map must be 2 rows in \[0, 3\)": lambda: ME.MinkowskiDirectMaxPoolingFunction.apply(
            torch.tensor([0, 9]), torch.tensor([0, 1]), features[:3], 2
        ),
        r"out_map must be 2 rows in \[0, 2\)": lambda: ME.MinkowskiDirectMaxPoolingFunction.apply(
            torch.tensor([0, 1]), torch.tensor([0, 9]), features[:3], 2
        ),
        r"mask must have dtype bool and shape \(59,\)": lambda: x._manager.prune(
            x.coordinate_map_key, torch.ones(3, dtype=torch.bool)
        ),
        "as many channels to be united, got 3 and 1": lambda: ME.MinkowskiUnion()(
            x, x._with(features[:, :1])
        ),
        "input_glob must have 3 channels, as input, got 2": lambda: ME.MinkowskiBroadcastAddition()(
            x, pooled._with(pooled.F[:, :2])
        ),
        "out_coordinate_map_key must be the origin's or not set": lambda: ME.MinkowskiGlobalAvgPooling()(
            x, x.coordinate_map_key
        ),
        "input must have 5 channels, as the layer, got 3": lambda: ME.MinkowskiInstanceNorm(5)(x),
        "input must be a SparseTensor or a TensorField, got Tensor": lambda: ME.MinkowskiReLU()(features),
        "tensors must be SparseTensors or TensorFields, got Tensor at 0": lambda: ME.cat(features, features),
        "tensors must be at least two, got 0": lambda: ME.cat(),
        "X must be a TensorField or a SparseTensor": lambda: x.slice(features),
        r"samples must be of a float dtype and of shape \(N, 4\)": lambda: (
            x._manager.interpolation_map_weight(x.coordinate_map_key, coordinates)
        ),
        r"the points must be of a float dtype and of shape \(N, 4\)": lambda: x.features_at_coordinates(
            features
        ),
        "max_coords must hold all sites": lambda: x.sparse(max_coords=torch.IntTensor([0, 0, 0])),
        "rows must be ints": lambda: ME.spmm(
            features[:2, 0], features[:2, 0], features[:2, 0], (2, 3), features
        ),
        "coordinates must begin with a batch index of at least 0": lambda: field._manager.insert_and_map(
            negative
        ),
        "stride must be at least 1, got": lambda: x._manager.stride(x.coordinate_map_key, -2),
        "data must hold at least one sample": lambda: ME.utils.batch_sparse_collate([]),
        "must have as many samples": lambda: ME.utils.sparse_collate([coordinates], []),
        "quantization_size must be a positive number": lambda: ME.utils.sparse_quantize(
            far, quantization_size=-1
        ),
        "data must hold coordinates, features and perhaps labels": lambda: ME.utils.batch_sparse_collate(
            [(coordinates, features, features, features)]
        ),
        "arg must be an int or 3 ints": lambda: ME.convert_to_int_list([np.complex64(2)] * 3, 3),
        "return_index must be True": lambda: ME.utils.sparse_quantize(far, return_inverse=True),
    }


@pytest.mark.filterwarnings("ignore:coordinates implicitly converted")
@pytest.mark.parametrize("message", mistakes())
def test_mistakes_say_what_to_do(message):
    with pytest.raises((TypeError, ValueError), match=message):
        mistakes()[message]()


@pytest.mark.parametrize(
    "call",
    [
        lambda x, key: ME.MinkowskiInstanceNormFunction.apply(x, key),
        lambda x, key: ME.MinkowskiInterpolationFunction.apply(x, torch.zeros(1, 4), key),
        lambda x, key: ME.MinkowskiGlobalPoolingFunction.apply(
            x, ME.PoolingMode.GLOBAL_MAX_POOLING_KERNEL, key
        ),
    ],
)
def test_functions_need_a_manager(call):
    x = ME.SparseTensor(*scene())
    with pytest.raises(TypeError, match="a CoordinateManager must be given, got NoneType"):
        call(x.F, x.coordinate_map_key)


def test_coordinates_of_another_dtype_are_rounded_down_with_a_warning():
    features, coordinates = scene()
    with pytest.warns(UserWarning, match="implicitly converted"):
        x = ME.SparseTensor(features, coordinates + 0.7)
    assert torch.equal(x.C, coordinates)


def test_far_sites():
    """At the ends of int32, where differences do not fit."""
    coordinates = torch.IntTensor([[0, 2**31 - 1], [0, -(2**31)]])
    x = ME.SparseTensor(torch.ones(2, 1), coordinates)
    conv = ME.MinkowskiConvolution(1, 1, kernel_size=3, dimension=1)
    torch.testing.assert_close(conv(x).F, conv.kernel[1].expand(2, 1))
    down = ME.MinkowskiConvolution(1, 1, kernel_size=2, stride=2, dimension=1)
    assert down(x).C.tolist() == [[0, -(2**31)], [0, 2**31 - 2]]
    assert x.sparse()[0].shape == (1, 2**32, 1)
    with pytest.raises(ValueError, match="int32"):
        ME.MinkowskiConvolution(1, 1, kernel_size=3, expand_coordinates=True, dimension=1)(x)


def test_no_sites():
    x = ME.SparseTensor(torch.zeros(0, 3), torch.zeros(0, 4, dtype=torch.int32))
    for layer in (
        ME.MinkowskiConvolution(3, 2, kernel_size=3, dimension=3),
        ME.MinkowskiConvolution(3, 2, kernel_size=2, stride=2, dimension=3),
        ME.MinkowskiMaxPooling(2, 2, dimension=3),
        ME.MinkowskiBatchNorm(3).eval(),
        ME.MinkowskiGlobalAvgPooling(),
    ):
        assert len(layer(x)) == 0
    assert "SparseTensor" in repr(x)
