"""tools/train_demo.py trains the demo's network, and says before it starts what it cannot do."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from spcy.demo import network, scene

PATH = Path(__file__).parents[1] / "tools" / "train_demo.py"
pytestmark = pytest.mark.skipif(not PATH.exists(), reason="the tests run away from a checkout")


@pytest.fixture(scope="module")
def train():
    """The tool, as a module."""
    spec = importlib.util.spec_from_file_location("train_demo", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_training_is_reproducible(train, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SCENES", 1)
    states = []
    for name in ("a.npz", "b.npz"):
        train.main(["--steps", "2", "--seed", "5", "--out", str(tmp_path / name)])
        with np.load(tmp_path / name) as state:
            states.append(dict(state))
    assert network.unet().load_state_dict(states[0]) == ([], [])
    for name, array in states[0].items():
        np.testing.assert_array_equal(states[1][name], array, err_msg=name)
    assert capsys.readouterr().out.splitlines()[-1].endswith("b.npz")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "{tmp}/none/a.npz"], "--out: [Errno 2] No such file or directory: '{tmp}/none/a.npz'"),
        (["--out", "{tmp}"], "--out must be a file that ends in .npz"),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
    ],
)
def test_training_is_refused_before_it_starts(train, arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "train", None)
    with pytest.raises(SystemExit, match=r"^2$"):
        train.main([argument.format(tmp=tmp_path) for argument in arguments])
    assert message.format(tmp=tmp_path) in capsys.readouterr().err


def test_training_scans_hold_every_class(train, rng):
    seen = set()
    for _ in range(4):
        points, truth = train.training_scan(rng)
        assert points.dtype == np.float32
        assert len(points) == len(truth) > 1000
        assert np.isfinite(points).all()
        seen |= set(truth.tolist())
    assert seen == set(range(len(network.LABELS)))


def test_loose_things_stop_rays_inside(train, rng):
    rays = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0]], np.float32).T
    half = np.float32([1, 2, 1])
    for angle in (0, np.pi / 2):
        ball = train.Loose((train.Ellipsoid(np.float32([5, 0, 0]), half),), 0.2, rng)
        hit = train.Turned(ball, angle).hit(rays)
        assert np.isinf(hit).tolist() == ([False, True, True] if angle == 0 else [True, True, False])
        assert 4 <= hit[np.isfinite(hit)][0] < 6


@pytest.mark.parametrize("seed", range(3))
def test_things_are_seen_in_their_windows_alone(seed, train, monkeypatch):
    def scan():
        rng = np.random.default_rng(seed)
        return scene.look_around(train.varied_street(rng), rng, steps=400)

    found = scan()
    monkeypatch.setattr(scene, "_window", lambda *_: (slice(None), slice(None)))
    everywhere = scan()
    np.testing.assert_array_equal(found.truth, everywhere.truth)
    # NumPy's products of (3, 3) and more or fewer rays differ in the last bit on some processors.
    np.testing.assert_allclose(found.points, everywhere.points, rtol=0, atol=1e-3)


def test_what_has_no_end_is_seen_when_turned(train):
    for thing in (scene.Pole(5.0, 3.0, 0.2, 2.0), scene.Ground()):
        scans = [
            scene.look_around([("pole", each)], np.random.default_rng(0), steps=360, lost=0.0)
            for each in (thing, train.Turned(thing, np.pi / 2))
        ]
        assert 0 < len(scans[0].points) == len(scans[1].points)


@pytest.mark.parametrize(
    ("low", "high", "beams", "directions"),
    [
        ([1, -1, -1], [2, 1, 1], [0, 1, 2], [0, 1, 7]),  # across the first direction
        ([-2, -1, 0.1], [-1, 1, 1], [2], [3, 4, 5]),  # across pi, above
        ([-1, 3, -9], [1, 4, -7], [], [2]),  # below the lowest beam
        ([-1, -1, 5], [1, 1, 6], [0, 1, 2], range(8)),  # over the sensor
    ],
)
def test_windows_hold_what_may_be_seen(low, high, beams, directions):
    elevations, azimuths = np.radians([-40, 0, 40]), np.linspace(0, 2 * np.pi, 8, endpoint=False)
    window = scene._window(np.array(low), np.array(high), elevations, azimuths)
    assert np.arange(3)[window[0]].tolist() == beams
    assert np.arange(8)[window[1]].tolist() == list(directions)


def test_accuracy_is_by_class(train):
    class Wall:
        """Calls everything a wall."""

        def __call__(self, x):
            scores = np.zeros((x.num_sites, len(network.LABELS)), np.float32)
            scores[:, network.LABELS.index("wall")] = 1
            return x.replace(scores)

    assert train.accuracy(Wall(), [3]).tolist() == [0, 1, 0, 0]
