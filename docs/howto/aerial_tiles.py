"""
Label aerial tiles
==================

Surveyors give away cities as LAZ files of some million points each, in metres from a far origin, cut where
it suited them. spcy labels them in tiles of its own with a halo around each, so that nothing shows where
files end: every point gets the label that the network would give it if all files were one.
"""

import tempfile
from pathlib import Path

import laspy
import matplotlib.pyplot as plt
import numpy as np
from distributed import Client

import spcy.dask
from spcy.demo import network
from spcy.demo.scene import generate_scene
from spcy.scan import read_scan

# Two files of a generated street, cut through its middle, in coordinates like UTM's.
folder = Path(tempfile.mkdtemp())
points = generate_scene(seed=3).points + np.array([691_000.0, 5_335_000.0, 520.0])
for name, half in (("west.laz", points[:, 0] < 691_000), ("east.laz", points[:, 0] >= 691_000)):
    las = laspy.LasData(laspy.LasHeader(point_format=6, version="1.4"))
    las.header.scales, las.header.offsets = [0.001] * 3, np.floor(points.min(axis=0))
    las.xyz = points[half]
    las.write(folder / name)

# %%
# On the command line that is ``spcy run street 'tiles/*.laz' --out labelled --workers 4``. Here the same
# from Python, with threads as workers. A file of one's own network, made by ``spcy convert`` or
# ``spcy.models.save``, takes the place of ``street``.

with Client(processes=False, dashboard_address=None, silence_logs="ERROR") as client:
    done = spcy.dask.label_files(
        network.load(),
        sorted(folder.glob("*.laz")),
        folder / "labelled",
        network.VOXEL_SIZE,
        client=client,
        columns=(),
        features=network.point_features,
    )
print(done.points, "points;", [path.name for path in done.written])

# %%
# The labels are in the files' own field ``classification``, where every viewer finds them.

figure, panels = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
for path, axes in zip(done.written[::-1], panels, strict=True):
    scan = read_scan(path, columns=["classification"])
    x, y, _, label = scan.columns.T
    for number, name in enumerate(network.LABELS):
        these = label == number
        axes.plot(x[these], y[these], ",", color=f"C{number}")
        axes.plot([], [], "s", color=f"C{number}", label=name)
    axes.set(title=path.name, aspect="equal", adjustable="datalim")
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.tick_params(axis="x", labelrotation=30)
panels[1].legend(fontsize="small", loc="upper right")
plt.show()

# %%
# What is stopped (Ctrl-C, a power cut, a worker without memory) goes on where it was when it is started
# again with the same arguments. Larger jobs need nothing but more workers: :doc:`/scaling` says what they
# cost.
