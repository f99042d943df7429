"""
3. Levels
=========

A strided convolution or a pool makes a coarser *level*, which knows the level it was made from. An inverse
convolution goes back to exactly those sites.
"""

import matplotlib.pyplot as plt
import numpy as np

import spcy.plot
from spcy.demo.scene import generate_scene

scan = generate_scene()  # a street, as a rotating lidar sees it
x, rows, _ = spcy.voxelize(scan.points[:, :3], 0.2)
levels = [x]
for _ in range(3):
    levels.append(spcy.max_pool(levels[-1], 2))
print(*levels, sep="\n")

# %%
# Where a level's cells lie in space follows from its parent: `origin` and `voxel_size`.

figure, panels = plt.subplots(2, 2, figsize=(11, 6), sharex=True, sharey=True, layout="constrained")
plt.setp(panels, xlim=(-30, 30), ylim=(-15, 15))
height, *_ = spcy.plot.levels(levels, ax=panels)
figure.colorbar(height, ax=panels, label="z (m)")
figure.supxlabel("x (m)")
figure.supylabel("y (m)")
plt.show()

# %%
# The same geometry gives the same coordinates, so that the results of two layers can be added. An inverse
# convolution restores the sites of its level's parent, in the same rows.

rng = np.random.default_rng(0)
down, up = rng.standard_normal((2, 2, 2, 3, 8)), rng.standard_normal((2, 2, 2, 8, 3))
a, b = spcy.conv(x, down.astype(x.dtype), stride=2), spcy.conv(x, -down.astype(x.dtype), stride=2)
print(a.coords is b.coords, spcy.inverse_conv(a, up.astype(x.dtype)).coords is x.coords)

# %%
# A network of the shape of a U: down, and back up with what each level had on the way down.

down1, down2, up2, up1 = rng.standard_normal((4, 2, 2, 2, 8, 8)).astype(x.dtype) / 8
top = spcy.subm_conv(x, rng.standard_normal((3, 3, 3, 3, 8)).astype(x.dtype), activation="relu")
middle = spcy.conv(top, down1, stride=2, activation="relu")
bottom = spcy.conv(middle, down2, stride=2, activation="relu")
middle = spcy.inverse_conv(bottom, up2, residual=middle, activation="relu")
top = spcy.inverse_conv(middle, up1, residual=top, activation="relu")
per_point = spcy.devoxelize(top, scan.points[:, :3])
print(top, per_point.shape)
