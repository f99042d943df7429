"""
1. Sites
========

A sparse tensor is two arrays: the occupied cells of a grid, its *sites*, and a row of features for each.
Here the sites are those that a pen passes through.
"""

import matplotlib.pyplot as plt
import numpy as np

import spcy.plot

t = np.linspace(0, 1, 2000)
stroke = np.stack([5.5 - 3.2 * np.sin(2 * np.pi * t), 2.2 + 13.6 * t], axis=1)  # points (M, D), any unit
speed = np.hypot(*np.gradient(stroke, axis=0).T)[:, None]  # features (M, C)
x, rows, counts = spcy.voxelize(stroke, 1.0, features=speed, bounds=((0, 0), (11, 18)))
print(x)

# %%
# `voxelize` puts every point into its cell and reduces the features of a cell's points to one row, their
# mean unless it is told otherwise. ``rows`` is the site of each point, ``counts`` how many points a site
# has.
#
# A site's coordinates are ``(batch, *axes)``. Rows of the coordinates and of the features belong together,
# and sites that spcy makes are in ascending order of their coordinates. A notebook shows a tensor so:

x

# %%
# Its rows, and its sites from above:

print(x.indices[:4])
print(x.features[:4, 0])

figure, axes = plt.subplots(figsize=(8, 5))
spcy.plot.sites(x, x.features[:, 0], ax=axes)
axes.plot(stroke[:, 1], stroke[:, 0], color="black", linewidth=1)
axes.set(xlabel="axis 1", ylabel="axis 0", title=f"{x.num_sites} sites of {11 * 18} cells")
plt.show()

# %%
# Arrays that are already on a grid need no points: give the coordinates. Their order is kept. Nothing is
# dropped silently: a site outside the shape, or one that is there twice, is an error that names its row.

y = spcy.SparseTensor([[0, 2, 1], [0, 0, 3]], np.ones((2, 8), np.float32), shape=(4, 4))
print(y)
try:
    spcy.SparseTensor([[0, 2, 1], [0, 0, 3], [0, 2, 1]], np.ones((3, 8), np.float32))
except ValueError as error:
    print(error)

# %%
# A grid may also have no shape: indices of any sign, no border. And several samples share a tensor, told
# apart by their batch index.

events = spcy.SparseTensor([[0, -7], [0, 3], [1, 3]], np.ones((3, 1)))
print(events)
print(events.rows_of([[1, 3], [1, -7]]))  # -1: no such site

# %%
# Features go back to the points that the sites came from with `devoxelize`, from their cell or
# interpolated.

print(spcy.devoxelize(x, stroke[:3]), spcy.devoxelize(x, stroke[:3], mode="linear"), sep="\n")
