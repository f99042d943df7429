"""The scenes that everything is measured on: generated, always the same, and a real scan if one is given.

``SPCY_BENCH_SCAN`` names the file of a scan, which is then the scene "scan"; ``SPCY_BENCH_VOXEL`` is the
edge of its voxels in metres, one number or "z y x", 0.1 if it is not set.
"""

import os
from functools import cache

import numpy as np

SCENES = ["street", "surface", "uniform", "scan"]
VOXEL = 0.1  # metres


@cache
def scene(name, num_sites):
    """Return the indices (num_sites, 4), ascending, and the shape of the box around them."""
    if name in ("street", "scan"):
        turns = [cells(turn, voxel_size(name)) for turn in turns_of(name, num_sites)]
    else:
        turns = [{"surface": surface, "uniform": uniform}[name](num_sites)]
    low = np.min([turn.min(axis=0) for turn in turns], axis=0)
    shape = tuple(int(n) for n in np.max([turn.max(axis=0) for turn in turns], axis=0) - low + 1)
    keys = np.concatenate(
        [np.ravel_multi_index((turn - low).T, shape) + b * np.prod(shape) for b, turn in enumerate(turns)]
    )
    keys, first = np.unique(keys, return_index=True)
    if len(keys) < num_sites:
        raise NotImplementedError(f"the scene {name!r} has only {len(keys)} sites")
    keys = np.sort(keys[np.argsort(first)[:num_sites]])  # as the lidar turns, or row by row
    indices = np.stack(np.unravel_index(keys, (len(turns), *shape)), axis=1).astype(np.int32)
    indices[:, 1:] -= indices[:, 1:].min(axis=0)
    return indices, tuple(int(n) for n in indices[:, 1:].max(axis=0) + 1)


@cache
def points(name, num_points):
    """Return the first points (num_points, 3) of a lidar: z, y, x in metres."""
    found = np.concatenate(turns_of(name, num_points))
    if len(found) < num_points:
        raise NotImplementedError(f"the scene {name!r} has only {len(found)} points")
    return found[:num_points]


def voxel_size(name):
    """Return the edges of a cell."""
    voxel = VOXEL
    if name == "scan":
        voxel = [float(v) for v in os.environ.get("SPCY_BENCH_VOXEL", str(VOXEL)).split()]
    return np.broadcast_to(voxel, 3)


def cells(found, voxel):
    """Return the cell of each point."""
    return np.floor(found / np.asarray(voxel)).astype(np.int64)


def turns_of(name, num):
    """Return enough turns of a lidar for so many sites or points, each a batch of its own."""
    if name == "street":
        return [turn(seed) for seed in range(1 + num // 40_000)]
    path = os.environ.get("SPCY_BENCH_SCAN")
    if not path:
        raise NotImplementedError("SPCY_BENCH_SCAN names no scan")
    from spcy.scan import read_scan

    found = read_scan(path).points[:, ::-1]
    return [found[np.argsort(np.arctan2(found[:, 1], found[:, 2]), kind="stable")]]


def turn(seed):
    """Return what a lidar of 64 beams sees in a street, direction by direction.

    A floor, houses with gaps between, poles and cars, with 2 cm of noise.
    """
    rng = np.random.default_rng(seed)
    azimuth, elevation = np.meshgrid(
        np.linspace(-np.pi, np.pi, 1800, endpoint=False), np.radians(np.linspace(-24.8, 2, 64)), indexing="ij"
    )
    flat = np.cos(elevation)
    rays = np.stack([np.sin(elevation), flat * np.sin(azimuth), flat * np.cos(azimuth)]).reshape(3, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.where(rays[0] < 0, -1.73 / rays[0], np.inf)
        front = rng.uniform(9, 14) / np.abs(rays[1])
        house = (np.abs(front * rays[2] + rng.uniform(0, 30)) % 30 < 22) & (front * rays[0] < 8)
        distance = np.minimum(distance, np.where(house, front, np.inf))
        for y, x, radius, top in street_furniture(rng):
            along = rays[1] * y + rays[2] * x
            square = rays[1] ** 2 + rays[2] ** 2
            inside = along**2 - square * (y**2 + x**2 - radius**2)
            hit = (along - np.sqrt(inside)) / square
            distance = np.minimum(distance, np.where((hit > 0) & (hit * rays[0] < top), hit, np.inf))
    seen = (distance < 80) & (rng.random(len(distance)) > 0.05)
    distance = distance[seen] + rng.normal(0, 0.02, seen.sum())
    return (rays[:, seen] * distance).T.astype(np.float32)


def street_furniture(rng):
    """Yield y, x, radius and top of poles and (round) cars."""
    for side in (-1, 1):
        for x in np.arange(-60, 61, 12):
            yield side * 7.5, x + rng.uniform(-3, 3), rng.uniform(0.08, 0.16), 5
        for x in np.arange(-45, 46, 9):
            yield side * 5.2, x + rng.uniform(-1.5, 1.5), 1.1, -0.3


def surface(num_sites):
    """Return cells of a rolling surface, as a depth camera sees one: about 11 pairs per site in 3x3x3."""
    side = int(np.sqrt(num_sites / 1.27)) + 2
    y, x = (a.ravel() for a in np.mgrid[:side, :side])
    z = (40 + 20 * np.sin(x / 37) + 15 * np.cos(y / 29)).astype(int)
    top = z + (np.random.default_rng(0).random(len(z)) < 0.27)
    return np.stack([z, y, x, top, y, x], axis=1).reshape(-1, 3)


def uniform(num_sites):
    """Return cells anywhere in a cube of which they fill a twentieth: about 2.3 pairs per site."""
    side = int(np.ceil((20 * num_sites) ** (1 / 3)))
    return np.random.default_rng(0).integers(0, side, (num_sites * 11 // 10, 3))
