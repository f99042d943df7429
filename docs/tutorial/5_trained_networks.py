"""
5. Trained networks
===================

A trained network is an architecture and a dict of arrays. The arrays come from spcy itself, or from a
checkpoint of another library, which is read without PyTorch and without running anything that is in the
file.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

import spcy.plot
from spcy.demo import network
from spcy.demo.scene import generate_scene

scan = generate_scene()
points = scan.points[:, :3]

# %%
# The demo's U-Net was trained on generated streets, and its weights come with spcy.

net = network.load()
x, rows, _ = network.voxelize(points)
labels = net(x).features.argmax(axis=1)
print(spcy.nn.summary(net, x))

colours = ("tan", "royalblue", "red", "orange", "seagreen")
figure, axes = plt.subplots(figsize=(11, 5), layout="constrained")
axes.set(xlim=(-40, 40), ylim=(-16, 16), xlabel="x (m)", ylabel="y (m)")
image = spcy.plot.sites(x, labels, ax=axes, cmap=ListedColormap(colours), vmin=-0.5, vmax=4.5)
names = [f"{name}, {count} sites" for name, count in zip(network.LABELS, np.bincount(labels), strict=True)]
figure.colorbar(image, location="top", shrink=0.8).set_ticks(range(5), labels=names)
plt.show()

# %%
# Labels of sites are labels of points, through the row of each point's site.

known = scan.truth < len(network.LABELS)
print(f"{np.mean(labels[rows][known] == scan.truth[known]):.2%} of {known.sum()} points")

# %%
# A backbone of OpenPCDet, trained with spconv, takes the state dict under OpenPCDet's names. Here a file of
# random numbers stands for the checkpoint; ``source`` says which library laid the weights out, and is never
# guessed.

rng = np.random.default_rng(0)
backbone = spcy.models.VoxelBackBone8x(4)
state = {
    name: np.moveaxis(array, -1, 0) if array.ndim == 5 else array  # spconv 2 keeps (C_out, z, y, x, C_in)
    for name, array in backbone.state_dict().items()
}
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "checkpoint.npz")
    np.savez(path, **state)
    backbone = spcy.models.VoxelBackBone8x.from_state_dict(spcy.load_weights(path), source="spconv2")

settings = spcy.models.ScanSettings((0.1, 0.1, 0.1), ((-40, -40, -3), (40, 40, 1)), columns=(0, 1, 2, 3))
x, _, _ = spcy.models.scan_tensor(backbone, settings, np.column_stack([points, np.zeros(len(points))]))
features = backbone(x)
print(x, features.x_conv4, features.output, sep="\n")

# %%
# A name that is missing, unexpected or of another shape is an error that lists all of them, and changes
# nothing.

state = {"conv_input.0.weight": np.zeros((16, 3, 3, 3, 4))}
try:
    spcy.models.VoxelBackBone8x.from_state_dict(state, source="spconv2")
except ValueError as error:
    print("\n".join(str(error).splitlines()[:5]))
