"""`spcy.torch.spconv` beside spconv itself, on one thread: on two its CPU convolutions are wrong.

python -m venv peers && peers/bin/pip install '.[torch]' pytest spconv && peers/bin/pytest tests/peers
"""

import itertools

import numpy as np
import pytest
import seeded

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
theirs = pytest.importorskip("spconv.pytorch", reason="spconv is not installed here")
import spconv.utils as their_utils  # noqa: E402
from cumm import tensorview as their_tv  # noqa: E402

import spcy.torch.spconv as ours  # noqa: E402

SHAPE, CHANNELS = [11, 12, 13], 6


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensor(engine, channels=CHANNELS, seed=0, relu=False):
    indices, features = seeded.scene(SHAPE, 90, channels, seed)
    features = torch.from_numpy(features)
    return engine.SparseConvTensor(features.relu() if relu else features, torch.from_numpy(indices), SHAPE, 2)


def by_sites(x):
    order = np.lexsort(x.indices.numpy().T[::-1])
    return x.indices.numpy()[order], x.features.detach().numpy()[order]


def assert_same(mine, peer):
    assert mine.spatial_shape == peer.spatial_shape
    for a, b in zip(by_sites(mine), by_sites(peer), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * max(1, abs(b).max(initial=0)))


LAYERS = {
    "subm": lambda s: s.SubMConv3d(CHANNELS, 8, 3, indice_key="a"),
    "subm with a stride": lambda s: s.SubMConv3d(CHANNELS, 8, 3, stride=2, padding=1),
    "subm dilated": lambda s: s.SubMConv3d(CHANNELS, 8, (3, 1, 5), dilation=2, bias=False),
    "subm 1": lambda s: s.SubMConv3d(CHANNELS, 8, 1),
    "conv": lambda s: s.SparseConv3d(CHANNELS, 8, 3, 2, 1),
    "conv 2": lambda s: s.SparseConv3d(CHANNELS, 8, 2, 2, bias=False),
    "conv dilated": lambda s: s.SparseConv3d(CHANNELS, 8, 3, 1, 2, 2),
    "conv uneven": lambda s: s.SparseConv3d(CHANNELS, 8, (3, 1, 1), (2, 1, 1), bias=False),
    "conv 1": lambda s: s.SparseConv3d(CHANNELS, 8, 1),
    "conv 1 stride 2": lambda s: s.SparseConv3d(CHANNELS, 8, 1, 2),
    "transposed": lambda s: s.SparseConvTranspose3d(CHANNELS, 8, 3, 2, 1),
    "transposed dilated": lambda s: s.SparseConvTranspose3d(CHANNELS, 8, 3, 2, 1, 2, bias=False),
    "inverse": lambda s: s.SparseSequential(
        s.SparseConv3d(CHANNELS, 8, 3, 2, 1, indice_key="d"), s.SparseInverseConv3d(8, 5, 3, indice_key="d")
    ),
    "inverse of a transposed": lambda s: s.SparseSequential(
        s.SparseConvTranspose3d(CHANNELS, 8, 2, 2, indice_key="t"),
        s.SparseInverseConv3d(8, 5, 2, indice_key="t"),
    ),
    "inverse of a pool": lambda s: s.SparseSequential(
        s.SparseMaxPool3d(2, indice_key="p"), s.SparseInverseConv3d(CHANNELS, 5, 2, indice_key="p")
    ),
    "max pool": lambda s: s.SparseMaxPool3d(3, 2, 1),
    "max pool of one stride": lambda s: s.SparseMaxPool3d(2),
    "block": lambda s: s.SparseSequential(
        s.SubMConv3d(CHANNELS, 8, 3, indice_key="a"),
        torch.nn.BatchNorm1d(8),
        torch.nn.ReLU(),
        s.SubMConv3d(8, 8, 3, indice_key="a"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    """In training: in eval mode spconv's CPU layers refuse a bias."""
    peer, mine = LAYERS[name](theirs), LAYERS[name](ours)
    mine.load_state_dict(peer.state_dict())
    assert_same(mine(tensor(ours)), peer(tensor(theirs)))
    peer.load_state_dict(mine.state_dict())


@pytest.mark.parametrize("name", [n for n in LAYERS if n.startswith("max pool")])
def test_gradients_of_pools(name):
    grads = []
    for engine in (ours, theirs):
        x = tensor(engine)
        x.features.requires_grad_()
        y = LAYERS[name](engine)(x)
        order = torch.from_numpy(np.lexsort(y.indices.numpy().T[::-1]).copy())
        y.features[order].square().sum().backward()
        grads.append(x.features.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("ndim", [1, 2, 4])
def test_other_dimensions(ndim):
    rng = np.random.default_rng(ndim)
    shape = [9, 8, 7, 6][:ndim]
    indices = np.unique(rng.integers(0, [2, *shape], (40, 1 + ndim)), axis=0).astype(np.int32)
    features = torch.from_numpy(rng.standard_normal((len(indices), 3)).astype(np.float32))
    for kind, arguments in (("SubMConv", (3,)), ("SparseConv", (3, 2, 1)), ("SparseConvTranspose", (2, 2))):
        out = []
        peer, mine = (getattr(s, f"{kind}{ndim}d")(3, 4, *arguments) for s in (theirs, ours))
        mine.load_state_dict(peer.state_dict())
        for engine, layer in ((ours, mine), (theirs, peer)):
            out.append(layer(engine.SparseConvTensor(features, torch.from_numpy(indices), shape, 2)))
        assert_same(*out)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence", "ignore:Sparse invariant")  # spconv's own
def test_dense_and_sums():
    for first in (True, False):
        torch.testing.assert_close(tensor(ours).dense(first), tensor(theirs).dense(first))
    pair = [s.functional.sparse_add(tensor(s), tensor(s, seed=1)) for s in (ours, theirs)]
    assert_same(*pair)


def test_the_pairs_of_a_key():
    data = []
    for engine in (ours, theirs):
        layer = engine.SparseConv3d(CHANNELS, 8, 3, 2, 1, indice_key="d")
        y = layer(tensor(engine))
        found = y.find_indice_pair("d")
        sites = y.indices.numpy()
        pairs = set()
        for k in range(27):
            rows = found.indice_pairs[:, k, : int(found.indice_pair_num[k])].numpy()
            pairs |= {(k, i, *sites[o].tolist()) for i, o in rows.T.tolist()}
        data.append((pairs, found.ksize, found.stride, found.padding, found.dilation, found.is_subm,
                     found.spatial_shape, found.out_spatial_shape))  # fmt: skip
    assert data[0] == data[1]


@pytest.mark.parametrize(("max_voxels", "max_points"), [*itertools.product((20, 1000), (1, 5))])
@pytest.mark.parametrize(("ndim", "dtype"), [(2, np.float32), (3, np.float32), (3, np.float64)])
def test_points_to_voxels(ndim, dtype, max_voxels, max_points):
    rng = np.random.default_rng(ndim)
    points = (rng.integers(-20, 100, (500, ndim + 1)) * 0.05).astype(dtype)  # many on faces
    arguments = [0.35] * ndim, [0.0] * ndim + [4.2] * ndim, ndim + 1, max_voxels, max_points
    name = f"Point2VoxelCPU{ndim}d"
    mine, peer = getattr(ours.utils, name)(*arguments), getattr(their_utils, name)(*arguments)
    assert list(peer.grid_size) == mine.grid_size
    # Not beside spconv: point_to_voxel_empty_mean, whose means are wrong there (its issue 477).
    results = (
        mine.point_to_voxel(ours.tensorview.from_numpy(points)),
        peer.point_to_voxel(their_tv.from_numpy(points)),
    )
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    from spconv.pytorch.utils import PointToVoxel

    pair = [kind(*arguments, torch.device("cpu")) for kind in (ours.utils.PointToVoxel, PointToVoxel)]
    for a, b in zip(*(g.generate_voxel_with_id(torch.from_numpy(points)) for g in pair), strict=True):
        torch.testing.assert_close(a, b)


def test_initial_values_are_spconvs():
    layers = []
    for engine in (ours, theirs):
        torch.manual_seed(7)
        layers.append(engine.SubMConv3d(16, 32, 3))
    for a, b in zip(*(layer.parameters() for layer in layers), strict=True):
        torch.testing.assert_close(a, b)
