"""Local geometry by sparse convolutions with fixed weights, and labels from it."""

from typing import NamedTuple

import numpy as np

import spcy

LABELS = ("ground", "wall", "pole-like", "other")
WINDOW = (7, 7, 7)  # cells around each site whose shape is looked at
ENOUGH = 8  # sites in a window to tell its shape
TALL = 1.75  # metres above ground that a car does not reach
UPPER = np.triu_indices(4)


class Geometry(NamedTuple):
    """Shape of the occupied sites around each site.

    Attributes
    ----------
    neighbours : ndarray of shape (N,), int64
        Number of sites in the window, the site itself included. With fewer than three, all else is 0.
    normal, axis : ndarray of shape (N, 3), float64
        Directions of least and of greatest extent.
    linearity, planarity : ndarray of shape (N,), float64
        (l1 - l2) / l1 and (l2 - l3) / l1, with l1 >= l2 >= l3 the standard deviations along the principal
        directions: near 1 on a line, or on a plane.
    verticality : ndarray of shape (N,), float64
        1 - abs(normal[:, 2]): 0 on level ground, 1 on an upright wall.
    """

    neighbours: np.ndarray
    normal: np.ndarray
    axis: np.ndarray
    linearity: np.ndarray
    planarity: np.ndarray
    verticality: np.ndarray


def voxelize_scan(points: np.ndarray, voxel_size: float) -> spcy.Voxels:
    """Voxelize points so that a site's features say where in its voxel its points lie.

    Parameters
    ----------
    points : ndarray of shape (M, 3)
        Coordinates in metres.
    voxel_size : float
        Edge of a voxel in metres.

    Returns
    -------
    Voxels
        Features are the mean offset of a site's points from the voxel's centre, in voxels: -0.5 .. 0.5.
    """
    position = np.asarray(points, dtype=np.float64) / voxel_size
    offset = position - np.floor(position) - 0.5
    return spcy.voxelize(points.astype(np.float64), voxel_size, features=offset.astype(np.float32))


def moments(offset: np.ndarray) -> np.ndarray:
    """Return 1, x, y, z, xx, xy, xz, yy, yz, zz of each offset, shape (N, 10)."""
    q = np.concatenate([np.ones_like(offset[:, :1]), offset], axis=1)
    return (q[:, :, None] * q[:, None, :])[:, *UPPER]


def moment_weight(kernel_size: tuple[int, int, int], centre: float, step: int = 1) -> np.ndarray:
    """Return the weight with which a convolution sums moments over a window.

    Moments about one cell's centre become moments about another's by a linear map that depends only on the
    kernel offset between the two, and that is what the weight of a convolution is. So the sums are exact, and
    no number grows with the distance from the origin.

    Parameters
    ----------
    kernel_size : tuple of int
        Edges of the window.
    centre : float
        The kernel offset, on every axis, about which the moments are wanted.
    step : int, optional
        Edge of a cell in voxels.

    Returns
    -------
    ndarray of shape (*kernel_size, 10, 10), float32
    """
    unit = np.zeros((10, 4, 4))  # each moment as the symmetric matrix q q^T, q = (1, x, y, z)
    unit[np.arange(10), *UPPER] = unit[np.arange(10), *UPPER[::-1]] = 1
    offsets = spcy.kernel_offsets(kernel_size)
    weight = np.empty((len(offsets), 10, 10), dtype=np.float32)
    for k, offset in enumerate(offsets):
        shift = np.eye(4)
        shift[1:, 0] = (offset - centre) * step  # (1, x, y, z) -> (1, x + dx, y + dy, z + dz)
        weight[k] = (shift @ unit @ shift.T)[:, *UPPER]
    return weight.reshape(*kernel_size, 10, 10)


def local_geometry(x: spcy.SparseTensor) -> Geometry:
    """Return the shape of each site's neighbourhood: moments -> covariance -> principal directions.

    The neighbourhood is a window of 7 x 7 x 7 voxels, or where that holds fewer than `ENOUGH` sites, far from
    the sensor, 7 x 7 x 7 cells of the next level.

    Parameters
    ----------
    x : SparseTensor
        Features are offsets from the voxels' centres, as `voxelize_scan` makes them.

    Returns
    -------
    Geometry
    """
    x = x.map(moments)
    near = spcy.subm_conv(x, moment_weight(WINDOW, centre=3))
    coarse = spcy.conv(x, moment_weight((2, 2, 2), centre=0.5), stride=2)
    wide = spcy.unpool(spcy.subm_conv(coarse, moment_weight(WINDOW, centre=3, step=2)))
    summed = np.where(near.features[:, :1] < ENOUGH, wide.features, near.features).astype(np.float64)
    neighbours = np.rint(summed[:, 0]).astype(np.int64)
    mean = summed[:, 1:4] / summed[:, :1]
    row, column = np.triu_indices(3)
    covariance = np.empty((len(summed), 3, 3))
    covariance[:, row, column] = summed[:, 4:] / summed[:, :1] - mean[:, row] * mean[:, column]
    covariance[:, column, row] = covariance[:, row, column]
    variance, direction = np.linalg.eigh(covariance)  # ascending
    l3, l2, l1 = np.sqrt(np.maximum(variance, 0)).T
    known = neighbours >= 3
    scale = known / np.maximum(l1, 1e-6)
    normal, axis = direction[:, :, 0] * known[:, None], direction[:, :, 2] * known[:, None]
    return Geometry(
        neighbours, normal, axis, (l1 - l2) * scale, (l2 - l3) * scale, (1 - np.abs(normal[:, 2])) * known
    )


def height_above_ground(points: np.ndarray, solid: np.ndarray) -> np.ndarray:
    """Return the height of points above the ground near them.

    Parameters
    ----------
    points : ndarray of shape (N, 3), float64
        Coordinates in metres.
    solid : ndarray of shape (N,), bool
        Points that may be ground: a single echo from below the street must not be.

    Returns
    -------
    ndarray of shape (N,), float64
        Height above the lowest solid point of the 5 x 5 m around; NaN where there is none.
    """
    flat, depth = points[:, :2], -points[:, 2:]
    deepest = spcy.voxelize(flat[solid], 1.0, features=depth[solid], reduce="max").tensor
    ground = spcy.max_pool(deepest, 5, stride=1, padding=2)
    known = ground.map(np.ones_like)
    height = points[:, 2] + spcy.devoxelize(ground, flat)[:, 0]
    return np.where(spcy.devoxelize(known, flat)[:, 0] > 0, height, np.nan)


def label_sites(points: np.ndarray, geometry: Geometry, height: np.ndarray) -> np.ndarray:
    """Label each site by its shape, its height and what stands around it.

    Ground is low, and level or, where the scan is thin, a level line. A wall is an upright plane, or an
    upright line among others, and tall. Pole-like is an upright line that is tall and stands alone.

    Parameters
    ----------
    points : ndarray of shape (N, 3), float64
        Mean of each site's points, in metres.
    geometry : Geometry
        Shape of each site's neighbourhood.
    height : ndarray of shape (N,), float64
        Height above the ground.

    Returns
    -------
    ndarray of shape (N,), uint8
        Indices into `LABELS`.
    """
    flat = points[:, :2]
    rise = np.abs(geometry.axis[:, 2])
    line = geometry.linearity > 0.5
    level = (rise < 0.4) & ((geometry.verticality < 0.2) | line)
    ground = (height < 0.35) & (level | (geometry.neighbours < 6))

    # Columns of 0.4 m, seen from above: which are tall, and how many tall ones stand near but not adjacent.
    above = np.float64(height > TALL)[:, None]
    columns = spcy.voxelize(flat, 0.4, features=above, reduce="max").tensor
    tall = spcy.devoxelize(spcy.max_pool(columns, 3, stride=1, padding=1), flat)[:, 0] > 0
    ring = np.ones((11, 11, 1, 1))
    ring[4:7, 4:7] = 0
    alone = spcy.devoxelize(spcy.subm_conv(columns, ring), flat)[:, 0] <= 1

    upright_line = line & (rise > 0.9)
    upright_plane = (geometry.verticality > 0.65) & (geometry.planarity > 0.3)
    labels = np.full(len(points), LABELS.index("other"), dtype=np.uint8)
    labels[(upright_plane | upright_line) & tall] = LABELS.index("wall")
    labels[upright_line & tall & alone] = LABELS.index("pole-like")
    labels[ground] = LABELS.index("ground")
    return labels
