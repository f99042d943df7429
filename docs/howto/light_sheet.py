"""
Nuclei in a light-sheet volume
==============================

A cleared brain under a light-sheet microscope is a volume of 10**11 voxels; the stained nuclei fill a
hundredth of it. Thresholding makes them sites, and what follows costs what they cost.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

import spcy

rng = np.random.default_rng(0)
shape, count, radius = (64, 256, 256), 400, 3.0

# Nuclei of about the same size, some of them touching, in noise.
centres = rng.uniform(8, np.array(shape) - 8, (count, 3))
volume = rng.normal(100, 4, shape).astype(np.float32)
near = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3, indexing="ij"), axis=-1)
for centre in centres:
    cell = np.round(centre).astype(int)
    distance = np.linalg.norm(cell + near - centre, axis=-1)
    inside = tuple((cell + near).clip(0, np.array(shape) - 1).reshape(-1, 3).T)
    np.maximum.at(volume, inside, 100 + 400 * np.exp(-((distance / radius) ** 2)).ravel())

# %%
# The voxels above a threshold, with the batch axis in front and channels behind, as a dense array has them.

start = time.perf_counter()
bright = np.where(volume > 160, volume - 100, 0)
x = spcy.SparseTensor.from_dense(bright[None, ..., None])
print(f"{x.num_sites} sites: {x.num_sites / volume.size:.1%} of the volume")

# A Gaussian smooths, at the sites only; a nucleus' middle is what no neighbour exceeds.
g = np.exp(-np.square(np.arange(-2, 3)) / 4)
smooth = spcy.subm_conv(x, np.einsum("i,j,k->ijk", g, g, g)[..., None, None].astype(np.float32))
highest = spcy.devoxelize(spcy.max_pool(smooth, 5, stride=1, padding=2), x.indices[:, 1:] + 0.5)
peak = (smooth.features >= highest)[:, 0]
found = x.indices[peak, 1:]
seconds = time.perf_counter() - start

distance = np.linalg.norm(centres[:, None] - found[None], axis=-1)
print(
    f"{len(found)} nuclei found of {count}, {np.mean(distance.min(axis=1) < 2):.0%} within 2 voxels:",
    f"{seconds:.2f} s",
)

# %%
# Volumes that fit no memory are zarr or Dask arrays: ``spcy.dask.label_volume`` runs a network over them,
# block by block with exact halos, and gives an array of labels.

figure, panels = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
panels[0].imshow(volume.max(axis=0), cmap="gray")
panels[0].set(title="brightest voxel along the axis")
panels[1].imshow(volume.max(axis=0), cmap="gray")
panels[1].plot(found[:, 2], found[:, 1], "+", color="#ffb000", markersize=5)
panels[1].set(title=f"{len(found)} nuclei")
plt.show()
