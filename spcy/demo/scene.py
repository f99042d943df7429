"""A street that needs no file: ground, walls, poles and cars, seen by a simulated rotating lidar."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np

from spcy.scan import Scan

CLASSES = ("ground", "wall", "pole", "car")
ELEVATIONS = np.radians(np.linspace(-24.8, 2.0, 64))  # of the beams
STEPS = 1800  # directions in one turn
SENSOR_HEIGHT = 1.73  # metres
SLOPE = 0.02  # of the street, along x
REACH = 80.0  # metres
NOISE = 0.02  # standard deviation of a measured distance, metres
LOST = 0.05  # share of the rays that bring nothing back
SLACK = 1e-4  # of the angles under which a thing is seen, radians: rays are float32


class Thing(Protocol):
    """What a ray can hit."""

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the greatest x, y and z, infinite where it does not end."""

    def hit(self, rays: np.ndarray) -> np.ndarray:
        """Return the distance along each ray from the sensor, inf where it misses."""


class Box(NamedTuple):
    """A box along the axes."""

    low: np.ndarray
    high: np.ndarray

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the greatest x, y and z."""
        return self.low, self.high

    def span(self, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the distances along each ray where it enters and leaves, near > far where it misses."""
        with np.errstate(divide="ignore"):
            inverse = 1 / rays
        to_low, to_high = self.low[:, None] * inverse, self.high[:, None] * inverse
        return np.minimum(to_low, to_high).max(axis=0), np.maximum(to_low, to_high).min(axis=0)

    def hit(self, rays: np.ndarray) -> np.ndarray:
        """Return the distance along each ray from the sensor, inf where it misses."""
        near, far = self.span(rays)
        return np.where((near > 0) & (near <= far), near, np.inf)


class Pole(NamedTuple):
    """An upright cylinder."""

    x: float
    y: float
    radius: float
    top: float

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the greatest x, y and z: it has a top and no foot."""
        place, half = np.array([self.x, self.y]), np.array([self.radius, self.radius])
        return np.append(place - half, -np.inf), np.append(place + half, self.top)

    def hit(self, rays: np.ndarray) -> np.ndarray:
        """Return the distance along each ray from the sensor, inf where it misses."""
        along = rays[0] * self.x + rays[1] * self.y
        square = rays[0] ** 2 + rays[1] ** 2
        inside = along**2 - square * (self.x**2 + self.y**2 - self.radius**2)
        distance = (along - np.sqrt(np.maximum(inside, 0))) / square
        return np.where((inside > 0) & (along > 0) & (distance * rays[2] < self.top), distance, np.inf)


class Ground(NamedTuple):
    """The sloping plane everything stands on."""

    def height(self, x: float) -> float:
        """Return z at x."""
        return SLOPE * x - SENSOR_HEIGHT

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the greatest x, y and z: it has no end."""
        return np.full(3, -np.inf), np.full(3, np.inf)

    def hit(self, rays: np.ndarray) -> np.ndarray:
        """Return the distance along each ray from the sensor, inf where it misses."""
        fall = SLOPE * rays[0] - rays[2]
        return np.where(fall > 0, SENSOR_HEIGHT / np.maximum(fall, 1e-9), np.inf)


def generate_scene(seed: int = 0) -> Scan:
    """Generate a street and scan it with one turn of the lidar.

    Parameters
    ----------
    seed : int, optional
        The same seed gives the same points.

    Returns
    -------
    Scan
        About 100,000 points, the sensor at (0, 0, 0), with the true class of each.
    """
    rng = np.random.default_rng(seed)
    return look_around(_street(rng), rng)


def look_around(
    things: Iterable[tuple[str, Thing]],
    rng: np.random.Generator,
    elevations: np.ndarray = ELEVATIONS,
    steps: int = STEPS,
    lost: float = LOST,
) -> Scan:
    """Scan things with one turn of the lidar.

    Parameters
    ----------
    things : iterable of (class, Thing)
        What can be hit; an index into `CLASSES` becomes the truth, one beyond them for another class.
    rng : numpy.random.Generator
        Draws the noise and the lost rays.
    elevations : ndarray of shape (beams,), optional
        In radians, ascending.
    steps : int, optional
        Directions in one turn.
    lost : float, optional
        Share of the rays that bring nothing back.

    Returns
    -------
    Scan
    """
    azimuths = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    rays = _rays(elevations, azimuths)
    distance = np.full(rays.shape[1:], REACH, dtype=np.float32)
    truth = np.zeros(distance.shape, dtype=np.uint8)
    for name, thing in things:
        window = _window(*thing.bounds(), elevations, azimuths)
        towards = rays[:, *window]
        hit = thing.hit(towards.reshape(3, -1)).reshape(towards.shape[1:])
        nearer = hit < distance[window]
        distance[window] = np.where(nearer, hit, distance[window])
        label = CLASSES.index(name) if name in CLASSES else len(CLASSES)
        truth[window] = np.where(nearer, label, truth[window])
    seen = (distance < REACH) & (rng.random(distance.shape) >= lost)
    distance += rng.normal(scale=NOISE, size=distance.shape).astype(np.float32)
    return Scan("generated street", np.ascontiguousarray((rays * distance)[:, seen].T), truth=truth[seen])


def _rays(elevations: np.ndarray, azimuths: np.ndarray) -> np.ndarray:
    """Return the unit directions of one turn, (3, beams, steps)."""
    flat = np.cos(elevations)[:, None]
    x, y, z = np.broadcast_arrays(
        flat * np.cos(azimuths), flat * np.sin(azimuths), np.sin(elevations)[:, None]
    )
    return np.stack([x, y, z]).astype(np.float32)


def _window(
    low: np.ndarray, high: np.ndarray, elevations: np.ndarray, azimuths: np.ndarray
) -> tuple[slice, np.ndarray | slice]:
    """Return the beams and the directions in which the sensor may see what lies within bounds."""
    near = np.hypot(*np.maximum(np.maximum(low, -high), 0)[:2])
    if not near > 0:  # it is above, below or all around the sensor; or NaN, of what has no end and was turned
        return slice(None), slice(None)
    far = np.hypot(*np.maximum(-low, high)[:2])
    lowest = np.arctan2(low[2], near if low[2] < 0 else far)
    highest = np.arctan2(high[2], near if high[2] > 0 else far)
    beams = slice(*np.searchsorted(elevations, (lowest - SLACK, highest + SLACK)))
    middle = np.arctan2(low[1] + high[1], low[0] + high[0])
    corners = np.arctan2([low[1], low[1], high[1], high[1]], [low[0], high[0], low[0], high[0]])
    sides = _wrap(corners - middle)
    turned = _wrap(azimuths - middle)
    return beams, np.flatnonzero((turned > sides.min() - SLACK) & (turned < sides.max() + SLACK))


def _wrap(angle: np.ndarray) -> np.ndarray:
    """Return the same direction in -pi .. pi."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _street(rng: np.random.Generator) -> list[tuple[str, Thing]]:
    """Return everything that can be hit, each with its class."""
    ground = Ground()
    things: list[tuple[str, Thing]] = [("ground", ground)]
    for side in (-1, 1):
        things.append(("wall", box((0, 40 * side, 0), (160, 2, 24))))  # the next street's backs
        x = -75.0
        while x < 75:  # houses, some with a gap between
            width, front, height = rng.uniform(9, 18), rng.uniform(10, 12), rng.uniform(6, 14)
            middle = (x + width / 2, side * (front + 5), ground.height(x) + height / 2 - 1)
            things.append(("wall", box(middle, (width, 10, height + 2))))
            x += width + rng.choice([0, 0, 6])
        for x in np.arange(-60, 61, 12) + rng.uniform(-3, 3, size=11):
            top = ground.height(x) + rng.uniform(4, 7)
            things.append(("pole", Pole(x, side * 7.5, rng.uniform(0.08, 0.16), top)))
        for x in np.arange(-45, 46, 9) + rng.uniform(-1.5, 1.5, size=11):
            if rng.random() < 0.7:
                things += _car(x, side * 5.2, ground)  # parked
    return things + _car(12.0, -1.8, ground) + _car(-17.0, 1.8, ground)  # driving


def _car(x: float, y: float, ground: Ground) -> list[tuple[str, Box]]:
    """Return the body and the cabin of a car."""
    z = ground.height(x)
    return [
        ("car", box((x, y, z + 0.55), (4.3, 1.8, 0.7))),
        ("car", box((x - 0.2, y, z + 1.2), (2.3, 1.6, 0.6))),
    ]


def box(middle: tuple[float, float, float], size: tuple[float, float, float]) -> Box:
    """Return the box around a middle."""
    half = np.array(size) / 2
    return Box(np.float32(middle - half), np.float32(middle + half))
