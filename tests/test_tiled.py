"""Networks over tiles: the bits of the whole, and receptive fields that are the truth."""

import doctest
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers import random_indices
from hypothesis import given, settings
from hypothesis import strategies as st

import spcy
from spcy import models, nn, tiled
from spcy.demo import network as demo

BOXES = {1: (90,), 2: (30, 40), 3: (17, 18, 19)}


def norm(channels, rng):
    """A norm with statistics that are not those of new ones."""
    layer = nn.BatchNorm(channels)
    layer.running_mean.data = rng.standard_normal(channels).astype(np.float32)
    layer.running_var.data = rng.uniform(0.5, 2, channels).astype(np.float32)
    return layer


def block(a, b, ndim, rng):
    return nn.Sequential(nn.SubMConv(a, b, 3, bias=False, ndim=ndim, rng=rng), norm(b, rng), nn.ReLU())


def u_net(ndim, rng, kernel_size=2, padding=0, sites="reached"):
    down = nn.Conv(8, 8, kernel_size, 2, padding, ndim=ndim, rng=rng, sites=sites)
    up = nn.InverseConv(8, 8, kernel_size, ndim=ndim, rng=rng)
    below = nn.Sequential(down, block(8, 8, ndim, rng), up)
    return nn.Sequential(
        block(3, 8, ndim, rng), nn.Concat(nn.Identity(), below), nn.Linear(16, 5, rng=rng), nn.LayerNorm(5)
    )


def there_and_back(ndim, rng):
    there = nn.ConvTranspose(4, 4, 3, 2, 1, ndim=ndim, rng=rng)
    back = nn.InverseConv(4, 3, 3, ndim=ndim, rng=rng)
    return nn.Sequential(
        nn.SubMConv(3, 4, 3, ndim=ndim, rng=rng), there, nn.SubMConv(4, 4, 3, ndim=ndim, rng=rng), back
    )


ZOO = {
    "one": lambda ndim, rng: nn.SubMConv(3, 4, 3, ndim=ndim, rng=rng),
    "dilated": lambda ndim, rng: nn.SubMConv(3, 4, 3, dilation=2, ndim=ndim, rng=rng),
    "grows": lambda ndim, rng: nn.Sequential(nn.Conv(3, 4, 3, 1, 1, ndim=ndim, rng=rng), nn.SiLU()),
    "to one side": lambda ndim, rng: nn.SubMConv(
        3, 4, offsets=np.arange(4)[:, None] * np.ones(ndim, int), ndim=ndim, rng=rng
    ),
    "strided": lambda ndim, rng: nn.Sequential(
        nn.Conv(3, 4, 3, 2, 1, ndim=ndim, rng=rng), nn.GELU(), nn.Conv(4, 4, 2, 3, ndim=ndim, rng=rng)
    ),
    "floor": lambda ndim, rng: nn.Conv(3, 4, 1, 3, ndim=ndim, rng=rng, sites="floor"),
    "finer": lambda ndim, rng: nn.ConvTranspose(3, 4, 3, 2, 1, ndim=ndim, rng=rng),
    "there and back": there_and_back,
    "max pool": lambda ndim, rng: nn.Sequential(
        nn.MaxPool(3, 2, 1), nn.SubMConv(3, 4, 3, ndim=ndim, rng=rng)
    ),
    "avg pool": lambda ndim, rng: nn.Sequential(nn.SubMConv(3, 3, 3, ndim=ndim, rng=rng), nn.AvgPool(2)),
    "residual": lambda ndim, rng: nn.Sequential(nn.Residual(block(3, 3, ndim, rng)), nn.LeakyReLU(0.1)),
    "u-net": u_net,
    "u-net 3": partial(u_net, kernel_size=3, padding=1),
    "u-net floor": partial(u_net, kernel_size=3, padding=1, sites="floor"),
}  # fmt: skip
MODELS = {
    "VoxelBackBone8x": (lambda: models.VoxelBackBone8x(3, rng=0), (41, 60, 60), 1200),
    "VoxelResBackBone8x": (lambda: models.VoxelResBackBone8x(3, rng=0), (41, 60, 60), 1200),
    "MinkUNet14A": (lambda: models.MinkUNet(3, 5, "14A", stem_kernel_size=3, ndim=2, rng=0), (150, 160), 900),
    "MinkUNet42": (lambda: models.MinkUNet42(3, 5, width=0.25, ndim=2, rng=0), (150, 160), 900),
    "SparseConvNetUNet": (
        lambda: models.SparseConvNetUNet(3, 5, [8, 8, 8], 1, True, ndim=2, rng=0),
        (60, 70),
        500,
    ),
}


def tensor(rng, ndim, num_sites=300, batch_size=2, bounded=True, box=None):
    box = box or BOXES[ndim]
    low = 0 if bounded else -9
    indices = random_indices(rng, min(num_sites, batch_size * int(np.prod(box)) // 2), box, batch_size, low)
    features = rng.standard_normal((len(indices), 3)).astype(np.float32)
    return spcy.SparseTensor(indices, features, shape=box if bounded else None, batch_size=batch_size)


def assert_same(actual, expected, x):
    if isinstance(expected, tuple):
        assert type(actual) is type(expected)
        for a, b in zip(actual, expected, strict=True):
            assert_same(a, b, x)
        return
    assert (actual.coords is x.coords) == (expected.coords is x.coords)
    np.testing.assert_array_equal(actual.indices, expected.indices)
    np.testing.assert_array_equal(actual.features, expected.features)
    assert (actual.shape, actual.batch_size, actual.dtype) == (
        expected.shape,
        expected.batch_size,
        expected.dtype,
    )
    np.testing.assert_array_equal(actual.coords.origin, expected.coords.origin)
    np.testing.assert_array_equal(actual.coords.voxel_size, expected.coords.voxel_size)


@pytest.mark.paired("name", "ndim", "bounded")
@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("name", ZOO)
def test_bits_are_those_of_the_whole(name, ndim, bounded, rng):
    net = ZOO[name](ndim, rng).eval()
    x = tensor(rng, ndim, bounded=bounded)
    expected = net(x)
    for options in (
        {"tile": 7},
        {"tile": 11, "halo": 30},
        {"sites": 3 * x.num_sites // 4},
        {"budget": 1 << 24},
    ):
        assert_same(tiled.apply(net, x, **options), expected, x)
    parts = [*tiled.iterate(net, x, tile=8)]
    together = np.concatenate([part.indices for part in parts])
    assert len(together) == len(np.unique(together, axis=0)) == expected.num_sites
    rows = expected.rows_of(together)
    np.testing.assert_array_equal(np.concatenate([p.features for p in parts]), expected.features[rows])


@pytest.mark.parametrize("name", MODELS)
def test_bits_of_whole_models(name, rng):
    make, box, num_sites = MODELS[name]
    net = make().eval()
    x = tensor(rng, len(box), num_sites, 1, box=box)
    assert len(tiled.tiles(net, x, tile=32)) > 1
    assert_same(tiled.apply(net, x, tile=32), net(x), x)


def test_tiles_end_where_the_grids_of_outputs_do(rng):
    net = MODELS["VoxelBackBone8x"][0]().eval()
    box = (41, 60, 100)
    made = tiled.tiles(net, tensor(rng, 3, 1200, 1, box=box), tile=50)
    assert 2 <= len(made) <= 4
    assert all(low >= 0 for tile in made for low in tile.low)
    assert all(high <= n for tile in made for high, n in zip(tile.high, box, strict=True))


def test_bits_of_the_demos_network(rng):
    net = demo.load()
    points = rng.uniform(0, [40, 40, 4], (20_000, 3))
    x = demo.voxelize(points).tensor
    assert len(tiled.tiles(net, x, sites=x.num_sites // 2)) > 3
    assert_same(tiled.apply(net, x, sites=x.num_sites // 2), net(x), x)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_bits_in_other_dtypes(dtype, rng):
    dtype = (
        np.dtype(getattr(pytest.importorskip("ml_dtypes"), dtype)) if dtype == "bfloat16" else np.dtype(dtype)
    )
    net = u_net(2, rng).astype(dtype).eval()
    x = tensor(rng, 2)
    x = x.replace(x.features.astype(dtype))
    assert_same(tiled.apply(net, x, tile=8), net(x), x)


def test_bits_do_not_depend_on_threads(rng, threads):
    net = u_net(2, rng).eval()
    x = tensor(rng, 2)
    assert_same(tiled.apply(net, x, tile=10), net(x), x)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_bits_of_drawn_layers(data):
    ndim = data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    layers, channels = [], 3
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["subm", "conv", "pool", "finer"]))
        size = data.draw(st.integers(1, 3))
        stride = data.draw(st.integers(1, 3))
        padding = data.draw(st.integers(0, size - 1))
        dilation = data.draw(st.integers(1, 2))
        sites = data.draw(st.sampled_from(["reached", "floor"]))
        if kind == "subm":
            layers.append(
                nn.SubMConv(channels, 4, 2 * (size // 2) + 1, dilation=dilation, ndim=ndim, rng=rng)
            )
        elif kind == "conv":
            layers.append(
                nn.Conv(channels, 4, size, stride, padding, dilation, ndim=ndim, rng=rng, sites=sites)
            )
        elif kind == "pool":
            layers.append(nn.AvgPool(size, stride, padding, dilation, sites=sites))
            continue
        else:
            layers.append(nn.ConvTranspose(channels, 4, size, min(stride, 2), padding, ndim=ndim, rng=rng))
        channels = 4
    net = nn.Sequential(*layers).eval()
    x = tensor(rng, ndim, data.draw(st.integers(1, 60)), data.draw(st.integers(1, 2)), False)
    tile = data.draw(st.integers(1, 12)) * int(max(tiled._walk(net, ndim).align))
    assert_same(tiled.apply(net, x, tile=tile), net(x), x)


def test_the_documentation():
    """Its page lists what is public, and its example runs."""
    page = (Path(__file__).parents[1] / "docs" / "api" / "tiled.md").read_text()
    public = {name for name, item in vars(tiled).items() if getattr(item, "__module__", "") == tiled.__name__}
    assert set(re.findall(r"^   (\w+)$", page, re.M)) == {name for name in public if not name.startswith("_")}
    assert doctest.testmod(tiled).attempted > 10
    assert doctest.testmod(tiled).failed == 0
    exec(re.search(r"```python\n(.*?)```", page, re.S)[1], {})


# Receptive fields


@pytest.mark.parametrize("ndim", [1, 2])
@pytest.mark.parametrize("name", [n for n in ZOO if n not in ("floor",)])
def test_the_field_is_the_truth(name, ndim, rng):
    """On a full grid, weights above 0: the outputs that change are those that the field says, all of them."""
    net = ZOO[name](ndim, rng)
    for parameter in net.parameters().values():
        parameter.data = np.abs(parameter.data) + np.float32(0.1)
    net = net.eval().astype(np.float64)
    left, right, stride = tiled.receptive_field(net, ndim)
    box = (60,) if ndim == 1 else (36, 38)
    cells = np.stack(np.meshgrid([0], *map(np.arange, box), indexing="ij"), -1).reshape(-1, 1 + ndim)
    features = rng.uniform(1, 2, (len(cells), 3))
    x = spcy.SparseTensor(cells, features)
    y = net(x)
    reached = [[], []]
    for step in range(-6, 6):  # along the diagonal, all phases of the strides
        row = int(x.rows_of([[0, *(n // 2 + step for n in box)]])[0])
        changed = features.copy()
        changed[row] *= 5
        moved = (net(x.replace(changed)).features != y.features).any(axis=1)
        if not moved.any():  # a cell between two windows
            continue
        corners = y.indices[moved][:, 1:] * np.array([float(s) for s in stride])
        distance = cells[row, 1:] - corners
        assert (distance >= -np.array(left)).all()
        assert (distance <= np.array(right)).all()
        reached[0].append(distance.min(axis=0))
        reached[1].append(distance.max(axis=0))
    if name not in ("u-net floor", "max pool"):  # there a window's sites count, or the greatest does
        assert (np.min(reached[0], axis=0) <= -np.array(left) + 1).all()
        assert (np.max(reached[1], axis=0) >= np.array(right) - 1).all()


def test_known_fields():
    same = partial(nn.SubMConv, 4, 4, 3, ndim=1)
    assert tiled.receptive_field(same())[:2] == ((1,), (1,))
    assert tiled.receptive_field(nn.Sequential(same(), same(dilation=2)))[:2] == ((3,), (3,))
    assert tiled.receptive_field(nn.Conv(4, 4, 3, 2, 1, ndim=1)) == ((1,), (1,), (2,))
    assert tiled.receptive_field(nn.Conv(4, 4, 2, 2, ndim=1)) == ((0,), (1,), (2,))
    assert tiled.receptive_field(nn.Conv(4, 4, 1, 4, ndim=1, sites="floor")) == ((0,), (3,), (4,))
    down = nn.Sequential(nn.Conv(4, 4, 2, 2, ndim=1), same(), nn.InverseConv(4, 4, 2, ndim=1))
    assert tiled.receptive_field(down) == ((3,), (3,), (1,))
    assert tiled.receptive_field(nn.MaxPool(2), ndim=2) == ((0, 0), (1, 1), (2, 2))
    assert tiled.receptive_field(nn.SubMConv(4, 4, (3, 1), ndim=2)) == ((1, 0), (1, 0), (1, 1))
    fields = tiled.receptive_field(models.VoxelBackBone8x(4, rng=0).eval())
    assert [tuple(map(int, f.stride)) for f in fields] == [(16, 8, 8), (1,) * 3, (2,) * 3, (4,) * 3, (8,) * 3]


def test_a_module_says_its_own_field(rng):
    class Halves(nn.Module):
        receptive_field = tiled.ReceptiveField((0, 0), (1, 1), (2, 2))

        def forward(self, x):
            return spcy.sum_pool(x, 2)

    class Own(nn.Module):
        def __init__(self):
            self.conv = nn.SubMConv(3, 4, 3, ndim=2, rng=0)

        def forward(self, x):
            return self.conv(x)

    x = tensor(rng, 2)
    net = nn.Sequential(nn.SubMConv(3, 3, 3, ndim=2, rng=0), Halves())
    assert tiled.receptive_field(net) == ((1, 1), (2, 2), (2, 2))
    assert_same(tiled.apply(net, x, tile=6), net(x), x)
    own = nn.Sequential(Own())
    with pytest.raises(
        TypeError, match=r"net\.0, a Own, has a forward of its own: give it .* receptive_field"
    ):
        tiled.apply(own, x, tile=6)
    own[0].receptive_field = 1
    assert_same(tiled.apply(own, x, tile=6), own(x), x)


# Tiles


def test_every_cell_has_one_tile(rng):
    x = tensor(rng, 2, 400)
    for options in ({"tile": 6}, {"tile": (5, 9)}, {"sites": 120}):
        made = tiled.tiles(nn.Conv(3, 4, 3, 1, 1, ndim=2), x, **options)
        owners = np.zeros((60, 60), int)
        for tile in made:
            part = tuple(slice(a + 10, b + 10) for a, b in zip(tile.low, tile.high, strict=True))
            owners[part] += 1
        at = x.indices[:, 1:] + 10
        assert owners.max() == 1
        assert (owners[tuple(at.T)] == 1).all()
        if "sites" in options:
            assert max(len(tile.rows) for tile in made) <= 120


def test_tiles_are_small_where_sites_are_dense(rng):
    dense = random_indices(rng, 800, (40, 40))
    thin = random_indices(rng, 200, (400, 400)) + np.int32([0, 40, 0])
    x = spcy.SparseTensor(np.unique(np.concatenate([dense, thin]), axis=0), np.ones((1000, 1), np.float32))
    made = tiled.tiles(nn.SubMConv(1, 1, 3, ndim=2), x, sites=150)
    areas = [(np.prod(np.subtract(t.high, t.low)), len(t.rows)) for t in made]
    assert max(areas)[0] > 20 * min(areas)[0]


@pytest.mark.parametrize("num_sites", [0, 1])
def test_few_sites(num_sites, rng):
    x = tensor(rng, 2, num_sites)
    for name in ("u-net", "strided", "finer"):
        net = ZOO[name](2, rng).eval()
        for options in ({"tile": 8}, {"sites": 5}, {"budget": 1 << 20}):
            assert_same(tiled.apply(net, x, **options), net(x), x)
        assert len([*tiled.iterate(net, x, tile=8)]) <= 1 + 3 * num_sites


def test_a_budget_holds(rng):
    """Tiles of a smaller budget take less memory, as NumPy counts it, than the whole."""
    import tracemalloc

    net = u_net(3, rng).eval()
    x = tensor(rng, 3, 40_000, 1, False, (60, 60, 60))
    peaks = []
    for budget in (None, 1 << 23):
        fresh = spcy.SparseTensor(x.indices, x.features)
        tracemalloc.start()
        if budget is None:
            net(fresh)
        else:
            for _ in tiled._runs(net, fresh, None, None, budget, None, False):
                pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    plan = tiled._Cutter(net, x, None).at.nbytes
    assert peaks[1] < peaks[0]
    assert peaks[1] < (1 << 23) + 12 * plan


def test_progress(rng, capsys):
    pytest.importorskip("tqdm", reason="tqdm is not installed here")
    net = nn.SubMConv(3, 4, 3, ndim=2, rng=0)
    assert len([*tiled.iterate(net, tensor(rng, 2), tile=20, progress=True)]) == 4
    assert "4/4" in capsys.readouterr().err


def test_progress_needs_tqdm():
    code = (
        "import sys; sys.modules['tqdm'] = None\nimport numpy as np, spcy\nfrom spcy import nn, tiled\n"
        "x = spcy.SparseTensor([[0, 1]], np.ones((1, 1), np.float32))\n"
        "tiled.apply(nn.SubMConv(1, 1, 3, ndim=1), x, tile=5, progress=True)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'progress needs tqdm: pip install "spcy[progress]"' in out.stderr


def bad_calls():
    x = spcy.SparseTensor([[0, i, i] for i in range(20)], np.ones((20, 3), np.float32))
    net = nn.SubMConv(3, 4, 3, ndim=2)
    yield TypeError, "net must be a spcy.nn.Module, got int", lambda: tiled.receptive_field(3)
    yield TypeError, "x must be a SparseTensor", lambda: tiled.apply(net, 3, tile=5)
    yield ValueError, "one of tile, sites and budget", lambda: tiled.apply(net, x)
    yield ValueError, "one of tile, sites and budget", lambda: tiled.apply(net, x, tile=5, sites=7)
    yield ValueError, "either tile or sites", lambda: tiled.tiles(net, x)
    yield (
        ValueError,
        r"tile must be at least the stride of the network, \[4, 4\], got \[3, 9\]",
        lambda: tiled.apply(nn.Conv(3, 4, 2, 4, ndim=2), x, tile=(3, 9)),
    )
    yield ValueError, "tile must be at least 1", lambda: tiled.apply(net, x, tile=0)
    yield (
        ValueError,
        r"halo must be at least the receptive field, \[1, 1\] cells to the left",
        lambda: tiled.apply(net, x, tile=5, halo=0),
    )
    yield ValueError, "sites must be at least 3: so many does the tile", lambda: tiled.apply(net, x, sites=2)
    yield (
        ValueError,
        r"budget must be at least \d+ bytes: the smallest tile sees \d+ sites",
        lambda: tiled.apply(net, x, budget=10),
    )
    yield ValueError, "budget must be at least 1 byte", lambda: tiled.apply(net, x, budget=0)
    yield TypeError, "budget must be an int", lambda: tiled.apply(net, x, budget=1e9)
    yield ValueError, "ndim must be given", lambda: tiled.receptive_field(nn.MaxPool(2))
    yield (
        ValueError,
        "net.1, a BatchNorm in training, depends on the statistics of all sites",
        lambda: tiled.apply(nn.Sequential(net, nn.BatchNorm(4)), x, tile=5),
    )
    yield (
        ValueError,
        "net.1, a Dropout in training, depends on random numbers",
        lambda: tiled.apply(nn.Sequential(net, nn.Dropout(0.5)), x, tile=5),
    )
    yield (
        ValueError,
        "net.1, a GlobalPool, depends on all sites",
        lambda: tiled.apply(nn.Sequential(net, nn.GlobalPool()), x, tile=5),
    )
    yield (
        ValueError,
        "net.1 goes back to a level that no layer",
        lambda: tiled.receptive_field(nn.Sequential(net, nn.InverseConv(4, 4, 2, ndim=2))),
    )

    class Odd(nn.SubMConv):
        def forward(self, x):
            return x

    yield TypeError, "net, a Odd, has a forward of its own", lambda: tiled.receptive_field(Odd(3, 4, 3))
    said = nn.SubMConv(3, 4, 3, ndim=2)
    said.receptive_field = tiled.ReceptiveField((1,), (1,), (1,))
    yield ValueError, "receptive_field of net must have 2 axes", lambda: tiled.apply(said, x, tile=5)


@pytest.mark.parametrize(
    ("kind", "message", "call"), [*bad_calls()], ids=lambda v: v if isinstance(v, str) else ""
)
def test_errors_name_what_is_wrong(kind, message, call):
    with pytest.raises(kind, match=message):
        call()
