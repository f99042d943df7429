"""Python threads that meet on coords and networks, with the GIL or without: same objects, the same bits."""

import copy
import os
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import random_indices, random_tensor, random_weight
from test_backend import run

import spcy
from spcy import _threads, nn
from spcy._once import Kept, update
from spcy._stencil import stencil_of
from spcy.pool import batches
from spcy.rulebook import floored

THREADS = 8
WITHOUT_GIL = not getattr(sys, "_is_gil_enabled", lambda: True)()
ROUNDS = 100 if WITHOUT_GIL else 3
BOX, CORNER = spcy.kernel_offsets((3, 3, 3)) - 1, spcy.kernel_offsets((2, 2, 2))


@pytest.fixture(autouse=True)
def _eager():
    """Let the GIL, where there is one, change hands all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
    spcy.set_num_threads(None)


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(THREADS) as threads:
        yield threads


def together(pool, work):
    """Return what work(thread) gives in threads that begin at the same moment."""
    barrier = threading.Barrier(THREADS)

    def begin(thread):
        barrier.wait()
        return work(thread)

    return list(pool.map(begin, range(THREADS)))


def strided(coords):
    return spcy.conv_rulebook(coords, CORNER, stride=2)


# What coords keep, each made when it is first asked for.
KEPT = {
    "rank": lambda coords: [coords._sites.rows.rank],
    "hash": lambda coords: [coords._sites.hashmap],
    "batches": lambda coords: [batches(coords)],
    "submanifold": lambda coords: [spcy.submanifold_rulebook(coords, BOX)],
    "strided": strided,
    "floor": lambda coords: floored(coords, stencil_of(BOX, 3), (2, 2, 2), (1, 1, 1)),
    "generative": lambda coords: spcy.transposed_rulebook(coords, CORNER, stride=2),
    "second_level": lambda coords: strided(strided(coords)[1]),
    "backwards": lambda coords: [strided(coords)[0].transposed()],
    "cut_points": lambda coords: [spcy.submanifold_rulebook(coords, BOX)._tiles(128)],
    "tiles": lambda coords: [spcy.submanifold_rulebook(coords, BOX)._conv_tiles(128)],
    "tiles_backwards": lambda coords: [strided(coords)[0].transposed()._conv_tiles(128)],
}


@pytest.mark.parametrize("what", KEPT)
def test_threads_get_the_same_object(what, rng, pool):
    indices = random_indices(rng, 400, (9, 9, 9), batch_size=2)
    for _ in range(ROUNDS):
        coords = spcy.Coords(indices, (9, 9, 9), 2)
        found = together(pool, lambda _, coords=coords: KEPT[what](coords))
        assert [[*map(id, made)] for made in found] == [[*map(id, found[0])]] * THREADS


def test_threads_that_ask_for_different_things(rng, pool):
    """Each begins with another: locks of levels, rulebooks and orders are taken in every order there is."""
    indices = random_indices(rng, 400, (9, 9, 9), batch_size=2)
    names = [*KEPT]
    for _ in range(ROUNDS):
        coords = spcy.Coords(indices, (9, 9, 9), 2)

        def work(thread, coords=coords):
            made = {name: KEPT[name](coords) for name in names[thread:] + names[:thread]}
            return [[*map(id, made[name])] for name in names], made

        found = together(pool, work)
        assert [ids for ids, _ in found] == [found[0][0]] * THREADS


def operations(x, weights):
    """Every kind of operation, by name."""
    (w3, bias), (w2, _) = weights
    down = spcy.conv(x, w2, stride=2)
    points = np.random.default_rng(3).uniform(0, 9, (200, 3))
    return {
        "subm_conv": lambda: spcy.subm_conv(x, w3, bias, activation="relu"),
        "conv": lambda: spcy.conv(x, w3, stride=2, padding=1),
        "floor": lambda: spcy.conv(x, w3, stride=2, padding=1, sites="floor"),
        "conv_transpose": lambda: spcy.conv_transpose(x, w2, stride=2),
        "inverse_conv": lambda: spcy.inverse_conv(down, w2),
        "max_pool": lambda: spcy.max_pool(x, 3, 2),
        "avg_pool": lambda: spcy.avg_pool(x, 2),
        "unpool": lambda: spcy.unpool(spcy.max_pool(x, 2)),
        "vjp": lambda: spcy.vjp(spcy.subm_conv, x, w3, bias)[1](x.features),
        "global": lambda: [pool(x) for pool in (spcy.global_avg_pool, spcy.global_max_pool)],
        "devoxelize": lambda: spcy.devoxelize(x, points, "linear", batch=np.zeros(200, int)),
        "rows_of": lambda: x.rows_of(x.indices[::-1]),
    }


def arrays_of(result):
    if isinstance(result, spcy.SparseTensor):
        return [result.indices, result.features]
    return [*result] if isinstance(result, (tuple, list)) else [result]


def test_operations_of_threads_have_the_bits_of_one(rng, pool, monkeypatch):
    monkeypatch.setattr(_threads, "GRAIN", 1000)
    x = random_tensor(rng, 400, (9, 9, 9), 4, batch_size=2)
    weights = [random_weight(rng, size, 4, 4) for size in ((3, 3, 3), (2, 2, 2))]
    expected = {name: arrays_of(call()) for name, call in operations(x, weights).items()}
    for turn in range(ROUNDS):
        spcy.set_num_threads(1 + turn % 3)
        fresh = spcy.SparseTensor(x.indices, x.features, shape=x.shape, batch_size=2)

        def work(thread, fresh=fresh):
            calls = operations(fresh, weights)
            names = [*calls][thread:] + [*calls][:thread]
            return {name: calls[name]() for name in names}

        found = together(pool, work)
        for name, arrays in expected.items():
            for results in found:
                for actual, wanted in zip(arrays_of(results[name]), arrays, strict=True):
                    np.testing.assert_array_equal(actual, wanted, err_msg=name)
                if isinstance(results[name], spcy.SparseTensor):
                    assert results[name].coords is found[0][name].coords, name


def network():
    down = nn.Sequential(nn.Conv(8, 8, 2, stride=2, ndim=3, rng=1), nn.BatchNorm(8), nn.ReLU())
    body = nn.Residual(nn.Sequential(nn.SubMConv(8, 8, 3, ndim=3, rng=2), nn.BatchNorm(8)))
    head = nn.Sequential(nn.InverseConv(8, 4, 2, ndim=3, rng=3), nn.Linear(4, 3, rng=4))
    first = nn.Sequential(nn.SubMConv(4, 8, 3, ndim=3, rng=0), nn.BatchNorm(8), nn.ReLU())
    return nn.Sequential(first, down, body, nn.ReLU(), head)


def test_a_network_in_eval(rng, pool):
    """Norms are folded while other threads run, and read the arrays."""
    x = random_tensor(rng, 400, (9, 9, 9), 4)
    expected = network().eval()(x).features
    for _ in range(ROUNDS):
        net = network().eval()
        fresh = spcy.SparseTensor(x.indices, x.features, shape=x.shape)

        def work(thread, net=net, fresh=fresh):
            if thread % 2:
                assert len(net.eval().state_dict()) == 22
            y = net(fresh)
            return y.coords is fresh.coords, y.features

        for restored, features in together(pool, work):
            assert restored
            np.testing.assert_array_equal(features, expected)


def test_a_network_in_training(rng, pool):
    """Each thread adds its share, all alike here: to every gradient and to every running mean."""
    x = random_tensor(rng, 400, (9, 9, 9), 4)

    def step(net, x):
        y, pull = net.vjp(x)
        return pull(np.ones_like(y.features))[0]

    alone = network()
    for _ in range(THREADS):
        expected = step(alone, x)
    for _ in range(ROUNDS):
        net = network()
        fresh = spcy.SparseTensor(x.indices, x.features, shape=x.shape)
        for gradient in together(pool, lambda _, net=net, fresh=fresh: step(net, fresh)):
            np.testing.assert_array_equal(gradient, expected)
        for (name, actual), wanted in zip(net.state_dict().items(), alone.state_dict().values(), strict=True):
            np.testing.assert_array_equal(actual, wanted, err_msg=name)
        for (name, actual), wanted in zip(net.parameters().items(), alone.parameters().values(), strict=True):
            np.testing.assert_array_equal(actual.grad, wanted.grad, err_msg=name)


def test_no_update_is_lost(pool):
    parameter = nn.Parameter(np.zeros(3))
    counts = 200 * ROUNDS

    def work(_):
        for _ in range(counts // 10):
            update(parameter, "data", lambda old: old + 1)

    together(pool, work)
    np.testing.assert_array_equal(parameter.data, THREADS * (counts // 10))


def test_copies_while_others_derive(rng, pool):
    indices = random_indices(rng, 300, (9, 9, 9))
    for _ in range(ROUNDS):
        coords = spcy.Coords(indices)

        def work(thread, coords=coords):
            child = strided(coords)[1]
            book = spcy.submanifold_rulebook(coords, BOX)
            book._conv_tiles(128)
            if thread % 2:
                return copy.deepcopy((coords, child, book))
            return pickle.loads(pickle.dumps((coords, child, book)))

        for other, child, book in together(pool, work):
            assert child.parent is other
            assert strided(other)[1] is child
            assert book.transposed() is book.transposed()
            np.testing.assert_array_equal(book.in_rows, spcy.submanifold_rulebook(coords, BOX).in_rows)


def test_settings_change_while_others_run(rng, pool):
    x = random_tensor(rng, 300, (9, 9, 9), 4)
    weight = random_weight(rng, (3, 3, 3), 4, 4)[0]
    expected = spcy.subm_conv(x, weight).features

    def work(thread):
        for turn in range(5 * ROUNDS):
            if thread:
                assert spcy.get_num_threads() >= 1
                np.testing.assert_array_equal(spcy.subm_conv(x, weight).features, expected)
            else:
                spcy.set_num_threads(2 if turn % 2 else None)
                spcy.set_backend("cpu")

    together(pool, work)


def test_what_fails_is_not_kept_and_holds_no_lock(pool):
    kept, tries = Kept(), []

    def build():
        tries.append(1)
        if len(tries) < THREADS:
            raise MemoryError
        return object()

    def work(_):
        try:
            return kept.once("key", build)
        except MemoryError:
            return None

    found = together(pool, work)
    assert sum(each is None for each in found) == THREADS - 1 == len(tries) - 1
    assert kept.once("key", build) is next(each for each in found if each is not None)


def test_a_forked_child_does_not_wait_for_a_thread_that_is_not_there():
    """Fork while another thread derives; the child's own threads find the locks open, and share them."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    code = """
import os, threading, warnings, numpy as np, spcy
from concurrent.futures import ThreadPoolExecutor
warnings.simplefilter("ignore")
sites = np.argwhere(np.ones((1, 8, 8, 8), bool))
coords = spcy.Coords(sites)
box = spcy.kernel_offsets((3, 3, 3)) - 1
other = spcy.submanifold_rulebook(coords, box[9:18])
held, go = threading.Event(), threading.Event()

def hold():
    with coords._sites.lock(), other._kept.lock():
        held.set()
        go.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
pid = os.fork()
if pid == 0:
    barrier = threading.Barrier(8)

    def derive(_):
        barrier.wait()
        return spcy.submanifold_rulebook(coords, box), other.transposed()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(derive, range(8)))
    alike = all(a is found[0][0] and b is found[0][1] for a, b in found)
    os._exit(0 if alike and found[0][0].num_pairs == 22 ** 3 else 1)
go.set()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    out = run(code)
    assert out.stdout.strip() == "0", out.stderr


@pytest.mark.torch
def test_tensors_of_one_indices_share_coords(rng, pool):
    torch = pytest.importorskip("torch")
    from spcy.torch import minkowski, spconv, torchsparse

    indices = torch.from_numpy(random_indices(rng, 300, (9, 9, 9)))
    features = torch.ones(300, 4)
    layer = minkowski.MinkowskiConvolution(4, 4, kernel_size=2, stride=2, dimension=3)
    for _ in range(ROUNDS):
        sites = indices.clone()
        engine = minkowski.SparseTensor(features, sites)

        def work(_, sites=sites, engine=engine):
            a = spconv.SparseConvTensor(features, sites, [9, 9, 9], 1)
            b = torchsparse.SparseTensor(features, sites)
            with torch.no_grad():
                c = layer(engine)
            coords = a._level.coords([9, 9, 9], 1), b.level().coords()
            return (*map(id, coords), c.coordinate_map_key.get_key()), coords, a, b

        found = together(pool, work)
        assert [ids for ids, *_ in found] == [found[0][0]] * THREADS
        assert len(engine.coordinate_manager._maps) == 2
