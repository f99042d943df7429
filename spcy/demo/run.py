"""What the demo does, step by step."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

import spcy
from spcy._backend import to_host
from spcy.demo import network as learned_network
from spcy.demo.backbone import Network
from spcy.demo.geometry import Geometry, height_above_ground, label_sites, local_geometry, voxelize_scan
from spcy.scan import Scan

VOXEL_SIZE = 0.1  # metres


@dataclass
class Steps:
    """Time the steps and report them on stderr as they end.

    Attributes
    ----------
    seconds : dict of str to float
        Wall time of each step.
    """

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the body of a with statement as one step."""
        start = perf_counter()
        yield
        self.seconds[name] = perf_counter() - start
        print(f"spcy: {name}: {self.seconds[name] * 1e3:.0f} ms", file=sys.stderr, flush=True)


@dataclass
class Result:
    """All that the demo found; row i of every array belongs to site i.

    Attributes
    ----------
    scan : Scan
    voxels : Voxels
        The first level, and the site of each point.
    points : ndarray of shape (N, 3), float64
        Mean of the points of each site, in metres.
    geometry : Geometry
    height : ndarray of shape (N,), float64
        Above the ground, in metres; NaN where no ground was found.
    labels : ndarray of shape (N,), uint8
        By geometry: indices into `spcy.demo.geometry.LABELS`.
    learned : ndarray of shape (N,), uint8
        By the trained network: indices into `spcy.demo.network.LABELS`.
    network : Network
        The levels it went through and the layers it ran.
    output : SparseTensor
        What came out of its last layer.
    """

    scan: Scan
    voxels: spcy.Voxels
    points: np.ndarray
    geometry: Geometry
    height: np.ndarray
    labels: np.ndarray
    learned: np.ndarray
    network: Network
    output: spcy.SparseTensor

    @property
    def restored(self) -> bool:
        """Whether the network came back to exactly the sites it started from, row by row."""
        first = self.voxels.tensor.coords.to(self.output.backend)
        same = np.array_equal(to_host(self.output.indices), self.voxels.tensor.indices)
        return self.output.coords is first and same


def run_demo(scan: Scan, steps: Steps) -> Result:
    """Voxelize a scan, label it by its local geometry and by a trained network, and run a backbone on it.

    Parameters
    ----------
    scan : Scan
        From a file, or generated.
    steps : Steps
        Where the times go.

    Returns
    -------
    Result
    """
    with steps("voxelize"), spcy.use_backend("cpu"):  # the geometry, up to the labels, is NumPy's
        voxels = voxelize_scan(scan.points, VOXEL_SIZE)
        x = voxels.tensor
        points = (x.indices[:, 1:] + 0.5 + x.features.astype(np.float64)) * VOXEL_SIZE
    with steps("geometry"), spcy.use_backend("cpu"):
        geometry = local_geometry(x)
    with steps("labels"), spcy.use_backend("cpu"):
        height = height_above_ground(points, solid=geometry.neighbours >= 3)
        labels = label_sites(points, geometry, height)
    with steps("learned labels"):
        learned = np.empty(x.num_sites, np.uint8)
        learned[voxels.rows] = learned_network.label_points(learned_network.load(), scan.points)
    with steps("network"):
        network = Network()
        output = network(x.to(spcy.get_backend()))
    return Result(scan, voxels, points, geometry, height, labels, learned, network, output)
