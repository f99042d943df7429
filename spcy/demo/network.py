"""A U-Net that labels what a lidar sees, and its trained weights."""

from importlib import resources

import numpy as np

import spcy
from spcy import nn
from spcy._backend import to_host
from spcy.demo.scene import CLASSES

LABELS = (*CLASSES, "other")
VOXEL_SIZE = 0.2  # metres
CHANNELS = (16, 24, 32, 48)  # of the levels
WEIGHTS = "street.npz"  # the network's state_dict in float16, as tools/train_demo.py writes it


def unet(rng: np.random.Generator | int | None = None) -> nn.Sequential:
    """Return the network: what `voxelize` makes to a score for each of `LABELS`.

    Parameters
    ----------
    rng : numpy.random.Generator or int, optional
        Draws the weights.

    Returns
    -------
    Sequential
    """
    rng = np.random.default_rng(rng)
    first = CHANNELS[0]
    return nn.Sequential(_block(4, first, rng), _level(CHANNELS, rng), nn.Linear(first, len(LABELS), rng=rng))


def _level(channels: tuple[int, ...], rng: np.random.Generator) -> nn.Sequential:
    """Return a level of the U and all below it."""
    here, *below = channels
    if not below:
        return nn.Sequential(_block(here, here, rng), _block(here, here, rng))
    down = nn.Conv(here, below[0], 2, 2, bias=False, rng=rng), nn.BatchNorm(below[0]), nn.ReLU()
    up = nn.InverseConv(below[0], here, 2, bias=False, rng=rng), nn.BatchNorm(here), nn.ReLU()
    branch = nn.Sequential(*down, _level(tuple(below), rng), *up)
    return nn.Sequential(
        _block(here, here, rng), nn.Concat(nn.Identity(), branch), _block(2 * here, here, rng)
    )


def _block(channels_in: int, channels_out: int, rng: np.random.Generator) -> nn.Sequential:
    conv = nn.SubMConv(channels_in, channels_out, 3, bias=False, rng=rng)
    return nn.Sequential(conv, nn.BatchNorm(channels_out), nn.ReLU())


def voxelize(points: np.ndarray, batch: np.ndarray | None = None) -> spcy.Voxels:
    """Voxelize points as the network takes them.

    Parameters
    ----------
    points : ndarray of shape (M, 3)
        In metres, z up.
    batch : ndarray of shape (M,), int, optional

    Returns
    -------
    Voxels
        Features are 1 and the mean offset of a site's points from its centre, in voxels: nothing that
        tells where the sensor stood, or how strongly a thing reflects.
    """
    points = np.asarray(points, dtype=np.float64)
    return spcy.voxelize(points, VOXEL_SIZE, features=point_features(points), batch=batch)


def point_features(points: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """Return the features of points whose mean over a site the network takes.

    Parameters
    ----------
    points : ndarray of shape (M, 3), float64
        In metres, z up.
    values : ndarray, optional
        Whatever else is known of them; it is not used.

    Returns
    -------
    ndarray of shape (M, 4), float32
        1, and where each point lies in its voxel.
    """
    features = np.empty((len(points), 4), np.float32)
    features[:, 0] = 1
    for start in range(0, len(points), 1 << 14):  # what is in between stays in the cache
        position = points[start : start + (1 << 14)] / VOXEL_SIZE
        position -= np.floor(position)
        features[start : start + (1 << 14), 1:] = position - 0.5
    return features


def load() -> nn.Sequential:
    """Return the network with the weights that come with spcy, ready to run.

    Returns
    -------
    Sequential
    """
    net = unet()
    with resources.files("spcy.demo").joinpath(WEIGHTS).open("rb") as file, np.load(file) as state:
        net.load_state_dict(dict(state))
    return net.eval()


def label_points(net: nn.Module, points: np.ndarray) -> np.ndarray:
    """Label points by the site that they lie in.

    Parameters
    ----------
    net : Module
        From `load` or `unet`.
    points : ndarray of shape (M, 3)
        In metres, z up.

    Returns
    -------
    ndarray of shape (M,), uint8
        Indices into `LABELS`.
    """
    voxels = voxelize(points)
    labels = net(voxels.tensor).features.argmax(axis=1).astype(np.uint8)
    return to_host(labels[voxels.rows])
