#!/usr/bin/env python3
"""Train the network whose weights `spcy demo` draws with, on generated streets.

    python tools/train_demo.py --out spcy/demo/street.npz

It needs NumPy alone, and some minutes on one core. Streets that training never saw test it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from spcy import nn
from spcy._files import require_writable, write_npz
from spcy.demo import network
from spcy.demo.scene import CLASSES, Box, Ground, Pole, Thing, box, generate_scene, look_around

STEPS = 900
SCENES = 2  # in a step
RATE = 4e-3  # of learning, at its highest
UNSEEN = (100, 101, 102)  # seeds of the streets that test it


class Ellipsoid(NamedTuple):
    """An ellipsoid along the axes."""

    middle: np.ndarray
    half: np.ndarray

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the greatest x, y and z."""
        return self.middle - self.half, self.middle + self.half

    def span(self, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the distances along each ray where it enters and leaves, near > far where it misses."""
        along, centre = rays / self.half[:, None], self.middle / self.half
        square = (along**2).sum(axis=0)
        nearest = centre @ along / square
        gap = nearest**2 - (centre @ centre - 1) / square
        reach = np.sqrt(np.abs(gap))
        return nearest - reach, np.where(gap > 0, nearest + reach, -np.inf)


class Loose(NamedTuple):
    """What shapes have in common; a ray is stopped somewhere in it, or gets through."""

    shapes: tuple[Box | Ellipsoid, ...]
    depth: float  # mean way into it, metres
    rng: np.random.Generator

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the greatest x, y and z."""
        low, high = zip(*(shape.bounds() for shape in self.shapes), strict=True)
        return np.max(low, axis=0), np.min(high, axis=0)

    def hit(self, rays: np.ndarray) -> np.ndarray:
        """Return the distance along each ray from the sensor, inf where it misses."""
        near, far = zip(*(shape.span(rays) for shape in self.shapes), strict=True)
        near, far = np.max(near, axis=0), np.min(far, axis=0)
        inside = np.flatnonzero((near > 0) & (near < far))
        way = near[inside] + self.rng.exponential(self.depth, len(inside))
        out = np.full(rays.shape[1], np.inf)
        out[inside] = np.where(way < far[inside], way, np.inf)
        return out


class Turned(NamedTuple):
    """A thing turned about the sensor's upright axis."""

    thing: Thing
    angle: float

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the greatest x, y and z, of a box about it that is turned with it."""
        low, high = self.thing.bounds()
        flat = turn(self.angle)[:2, :2]
        with np.errstate(invalid="ignore"):  # NaN, of what has no end
            middle, half = flat @ (low + high)[:2] / 2, np.abs(flat) @ (high - low)[:2] / 2
        return np.append(middle - half, low[2]), np.append(middle + half, high[2])

    def hit(self, rays: np.ndarray) -> np.ndarray:
        """Return the distance along each ray from the sensor, inf where it misses."""
        return self.thing.hit(np.ascontiguousarray(turn(-self.angle) @ rays))


def turn(angle: float) -> np.ndarray:
    """Return the rotation about the upright axis, (3, 3)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)


def turned_box(middle: Sequence[float], size: Sequence[float], angle: float) -> Turned:
    """Return a box turned about its own middle."""
    return Turned(box(turn(-angle) @ np.float32(middle), size), angle)


def varied_street(rng: np.random.Generator) -> list[tuple[str, Thing]]:
    """Return what a street may hold that the demo's own does not: gardens, trees, people, other cars.

    Parameters
    ----------
    rng : numpy.random.Generator

    Returns
    -------
    list of (class, Thing)
        The classes are `network.LABELS`.
    """
    ground = Ground()
    things: list[tuple[str, Thing]] = [("ground", ground)]
    middle = rng.uniform(-3, 3)  # of the street, which the sensor need not keep to
    for side in (-1, 1):
        kerb = rng.uniform(3, 8)
        front = kerb + rng.uniform(2, 10)

        def across(y, side=side):
            return middle + side * y

        things.append(("wall", box((0, across(45), 0), (160, 2, 24))))
        things += _houses(rng, ground, across, front)
        if rng.random() < 0.6:
            things += _gardens(rng, ground, across, rng.uniform(kerb, front), front)
        for _ in range(rng.integers(4, 14)):
            x, y = rng.uniform(-60, 60), across(rng.uniform(kerb, kerb + 3))
            top = ground.height(x) + rng.uniform(2, 8)
            things.append(("pole", Pole(x, y, rng.uniform(0.04, 0.18), top)))
        for _ in range(rng.integers(0, 16)):
            things += _plant(rng, ground, rng.uniform(-50, 50), across(rng.uniform(kerb, front + 3)))
        for _ in range(rng.integers(0, 5)):
            x, y = rng.uniform(-30, 30), across(rng.uniform(1.5, front))
            size = rng.uniform((0.3, 0.4, 1.5), (0.5, 0.7, 1.9))
            person = turned_box((x, y, ground.height(x) + size[2] / 2), size, rng.uniform(0, np.pi))
            things.append(("other", person))
        for x in np.arange(-48, 49, rng.uniform(5.5, 10)):
            if rng.random() < 0.6:
                things += _car(rng, ground, x + rng.uniform(-1, 1), across(kerb - 1.2), 0.08)
    for _ in range(rng.integers(0, 4)):
        x = rng.choice([-1, 1]) * rng.uniform(6, 40)
        things += _car(rng, ground, x, middle + rng.uniform(-2, 2), rng.choice([0.1, 1.5]))
    return things


def _houses(rng, ground: Ground, across, front: float) -> list[tuple[str, Thing]]:
    things: list[tuple[str, Thing]] = []
    x = rng.uniform(-80, -70)
    while x < 75:
        width, depth, height = rng.uniform(5, 20), rng.uniform(5, 12), rng.uniform(2.5, 14)
        y = across(front + depth / 2 + rng.uniform(0, 2))
        middle = (x + width / 2, y, ground.height(x) + height / 2 - 1)
        things.append(("wall", turned_box(middle, (width, depth, height + 2), rng.normal(0, 0.03))))
        x += width + rng.choice([0, 0, rng.uniform(1, 15)])
    return things


def _gardens(rng, ground: Ground, across, edge: float, front: float) -> list[tuple[str, Thing]]:
    """Return raised ground up to the houses, with low walls and hedges before it."""
    things: list[tuple[str, Thing]] = []
    x = rng.uniform(-60, -50)
    while x < 60:
        width, raised, tall = rng.uniform(4, 20), rng.uniform(-0.2, 0.9), rng.uniform(0.4, 2)
        floor = ground.height(x + width / 2)
        lawn = box((x + width / 2, across((edge + front) / 2), floor + raised - 1), (width, front - edge, 2))
        things.append(("ground", lawn))
        kind = rng.random()
        middle = (x + width / 2, across(edge), floor + tall / 2)
        if kind < 0.45:
            things.append(("wall", box(middle, (width, rng.uniform(0.1, 0.4), max(tall, raised + 0.3)))))
            for place in rng.uniform(x, x + width, rng.integers(0, 5)):
                behind = across(edge + rng.uniform(0.2, 1.5))
                half = rng.uniform((0.4, 0.3, 0.3), (2.0, 0.9, 1.2))
                things.append(("other", _leaves((place, behind, floor + raised + half[2]), half, 0.25, rng)))
        elif kind < 0.75:
            for place in np.arange(x, x + width, 0.8):
                half = np.array([0.9, rng.uniform(0.3, 0.6), tall * rng.uniform(0.45, 0.6)], np.float32)
                things.append(("other", _leaves((place, *middle[1:]), half, 0.15, rng)))
        x += width + rng.choice([0, rng.uniform(1, 6)])
    return things


def _plant(rng, ground: Ground, x: float, y: float) -> list[tuple[str, Thing]]:
    """Return a bush or a tree."""
    floor = ground.height(x)
    if rng.random() < 0.5:
        half = rng.uniform((0.4, 0.4, 0.4), (1.8, 1.8, 1.5)).astype(np.float32)
        return [("other", _leaves((x, y, floor + 0.7 * half[2]), half, 0.25, rng))]
    half = rng.uniform((1, 1, 1), (3, 3, 3)).astype(np.float32)
    top = floor + rng.uniform(1.5, 3.5)
    crown = _leaves((x, y, top + 0.7 * half[2]), half, 0.6, rng)
    return [("pole", Pole(x, y, rng.uniform(0.08, 0.25), top + 0.3)), ("other", crown)]


def _leaves(middle: Sequence[float], half: np.ndarray, depth: float, rng) -> Loose:
    return Loose((Ellipsoid(np.float32(middle), np.float32(half)),), depth, rng)


def _car(rng, ground: Ground, x: float, y: float, sway: float) -> list[tuple[str, Thing]]:
    """Return a car or a van: a body and a cabin with more or less round corners, and glass."""
    z, angle = ground.height(x), rng.normal(0, sway)
    long, wide = rng.uniform(3.6, 4.9), rng.uniform(1.6, 1.95)
    under, waist, tall = rng.uniform(0.15, 0.35), rng.uniform(0.75, 1.0), rng.uniform(1.35, 1.7)
    if rng.random() < 0.15:
        waist = tall = rng.uniform(1.6, 2.3)
    shift = long * rng.uniform(-0.12, 0.12)
    cabin = (long * rng.uniform(0.45, 0.65), wide - rng.uniform(0.05, 0.3), tall - waist + 0.1)
    middle = (x + shift * np.cos(angle), y + shift * np.sin(angle), z + (waist + tall) / 2)
    body = _rounded(
        (x, y, z + (under + waist) / 2), (long, wide, waist - under), angle, rng.choice([0.01, 0.06]), rng
    )
    return [("car", body), ("car", _rounded(middle, cabin, angle, rng.choice([0.01, 0.3]), rng))]


def _rounded(middle: Sequence[float], size: Sequence[float], angle: float, depth: float, rng) -> Turned:
    """Return a box whose ends an ellipsoid about its lower middle cuts off."""
    place, half = turn(-angle) @ np.float32(middle), np.float32(size) / 2
    low = place - np.float32([0, 0, half[2]])
    cut = Ellipsoid(low, half * np.float32([*rng.uniform(1.0, 1.35, 2), rng.uniform(2.1, 3.0)]))
    return Turned(Loose((box(place, size), cut), depth, rng), angle)


def training_scan(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a generated scan, varied so that what is learned holds for real ones.

    Other lidars, lost rays, a view to one side and not far down, as cameras have; any heading, a slant,
    hills; and the place within a voxel. Heights and intensities are no input of the network.

    Parameters
    ----------
    rng : numpy.random.Generator

    Returns
    -------
    points : ndarray of shape (M, 3), float32
    truth : ndarray of shape (M,), uint8
        Indices into `network.LABELS`.
    """
    if rng.random() < 0.25:
        scan = generate_scene(int(rng.integers(1 << 20, 1 << 31)))
    else:
        beams = int(rng.choice([32, 64, 64]))
        elevations = np.radians(np.linspace(rng.uniform(-26, -22), rng.uniform(1, 6), beams))
        things = varied_street(rng)
        scan = look_around(things, rng, elevations, int(rng.integers(1000, 2200)), rng.uniform(0.02, 0.3))
    points, truth = scan.points, scan.truth
    if rng.random() < 0.5:
        azimuth = np.arctan2(points[:, 1], points[:, 0])
        seen = np.cos(azimuth - rng.uniform(-np.pi, np.pi)) > np.cos(np.radians(rng.uniform(35, 90)))
        seen &= points[:, 2] > np.tan(np.radians(rng.uniform(-30, -12))) * np.hypot(*points[:, :2].T)
        points, truth = points[seen], truth[seen]
    wave, phase = rng.normal(0, 0.15, (3, 2)), rng.uniform(0, 2 * np.pi, 3)
    hills = np.sin(points[:, :2] @ wave.T.astype(np.float32) + phase) @ rng.normal(0, 0.08, 3)
    points = points.copy()
    points[:, 2] += hills + points[:, :2] @ rng.normal(0, 0.02, 2)
    points = points @ turn(rng.uniform(-np.pi, np.pi)).T * np.float32([1, rng.choice([-1, 1]), 1])
    return (points + rng.uniform(-1, 1, 3)).astype(np.float32), truth


def training_batch(rng: np.random.Generator):
    """Return (tensor, label of each site): the commonest of its points'."""
    scans = [training_scan(rng) for _ in range(SCENES)]
    points, truth = (np.concatenate(arrays) for arrays in zip(*scans, strict=True))
    batch = np.repeat(np.arange(SCENES, dtype=np.int32), [len(scan[0]) for scan in scans])
    tensor, rows, _ = network.voxelize(points, batch)
    cells = rows.astype(np.int64) * len(network.LABELS) + truth
    votes = np.bincount(cells, minlength=tensor.num_sites * len(network.LABELS))
    return tensor, votes.reshape(tensor.num_sites, -1).argmax(axis=1)


def accuracy(net: nn.Module, seeds: Sequence[int]) -> np.ndarray:
    """Return the share of points that are labelled rightly, for each of `CLASSES`, in streets.

    Parameters
    ----------
    net : Module
        In eval mode.
    seeds : sequence of int
        Of `generate_scene`.

    Returns
    -------
    ndarray of shape (len(CLASSES),)
    """
    right, total = np.zeros(len(CLASSES)), np.zeros(len(CLASSES))
    for seed in seeds:
        scan = generate_scene(seed)
        agrees = network.label_points(net, scan.points) == scan.truth
        right += np.bincount(scan.truth, agrees, len(CLASSES))
        total += np.bincount(scan.truth, minlength=len(CLASSES))
    return right / total


def train(steps: int, seed: int) -> nn.Sequential:
    """Return a trained network, in eval mode.

    Parameters
    ----------
    steps : int
    seed : int
        Of the weights and the scenes: the same seed gives the same network.

    Returns
    -------
    Sequential
    """
    rng = np.random.default_rng(seed)
    net = network.unet(rng)
    optimiser = nn.optim.AdamW(net.parameters(), weight_decay=0.01)
    start, mean = perf_counter(), 0.0
    for step in range(steps):
        # up in a tenth of the steps, down along a cosine
        warm = min(1, (step + 1) / (0.1 * steps))
        optimiser.lr = RATE * warm * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        x, labels = training_batch(rng)
        shares = np.bincount(labels, minlength=len(network.LABELS)) / len(labels)
        y, vjp = net.vjp(x)
        loss, dlogits = nn.softmax_cross_entropy(y, labels, weight=1 / np.sqrt(shares + 1e-3))
        optimiser.zero_grad()
        vjp(dlogits)
        optimiser.step()
        mean += 0.02 * (loss - mean) if step else loss
        if step % 25 == 24:
            print(f"step {step + 1}: loss {mean:.3f}, {perf_counter() - start:.0f} s", flush=True)
    return net.eval()


def main(argv: Sequence[str] | None = None) -> None:
    """Train, test on streets that training never saw, and write the weights.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(network.WEIGHTS), metavar="FILE")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.steps < 1:
        parser.error(f"--steps must be at least 1, got {args.steps}")
    if args.out.suffix != ".npz" or args.out.is_dir():
        parser.error(f"--out must be a file that ends in .npz, got {args.out}")
    try:
        require_writable(args.out)
    except OSError as error:
        parser.error(f"--out: {error}")
    net = train(args.steps, args.seed)
    state = {name: array.astype(np.float16) for name, array in net.state_dict().items()}
    write_npz(args.out, state, compressed=True)
    net.load_state_dict(state)
    shares = accuracy(net, UNSEEN)
    print(", ".join(f"{name} {share:.1%}" for name, share in zip(CLASSES, shares, strict=True)))
    print(f"mean {shares.mean():.1%}; wrote {args.out}")


if __name__ == "__main__":
    main()
