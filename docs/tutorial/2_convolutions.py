"""
2. Convolutions
===============

A dense convolution of a thin stroke fills the grid after a few layers. A *submanifold* convolution computes
its output only at the sites of its input, so that a stroke stays a stroke.
"""

import matplotlib.pyplot as plt
import numpy as np

import spcy.plot

t = np.linspace(0, 1, 2000)
stroke = np.stack([5.5 - 3.2 * np.sin(2 * np.pi * t), 2.2 + 13.6 * t], axis=1)
x = spcy.voxelize(stroke, 1.0, features=np.ones((2000, 1)), bounds=((0, 0), (11, 18))).tensor
ones = np.ones((3, 3, 1, 1))  # (*kernel_size, C_in, C_out)

regular, submanifold = [x], [x]
for _ in range(2):
    regular.append(spcy.conv(regular[-1], ones, padding=1))
    submanifold.append(spcy.subm_conv(submanifold[-1], ones))

figure, panels = plt.subplots(2, 3, figsize=(11, 5))
for name, row, tensors in zip(("conv", "subm_conv"), panels, (regular, submanifold), strict=True):
    for count, (axes, y) in enumerate(zip(row, tensors, strict=True)):
        spcy.plot.sites(y, y.features[:, 0], ax=axes)
        axes.set(title=f"{count} x {name}: {y.num_sites} sites", xticks=[], yticks=[])
plt.show()

# %%
# Both compute what a dense cross-correlation with zero padding does, at the sites they have. The output row
# of a site is ``bias + sum_k x[u + k] @ weight[k]`` over its occupied neighbours.

centre = x.indices[10]
window = x.to_dense()[0, centre[1] - 1 : centre[1] + 2, centre[2] - 1 : centre[2] + 2, 0]
print(window, window.sum(), submanifold[1].features[10, 0], sep="\n")

# %%
# Which input row meets which output row under each offset of the kernel is listed in a *rulebook*. It
# depends on the sites alone, is built once, and kept by the coordinates: the second layer of a geometry
# finds it there.

rulebook = spcy.submanifold_rulebook(x.coords, spcy.kernel_offsets((3, 3)) - 1)
print(rulebook, rulebook.pairs(0), sep="\n")

figure, axes = plt.subplots(figsize=(8, 5))
spcy.plot.pairs(rulebook, 0, x.coords, ax=axes)
axes.set(title="the pairs of the first offset, input to output", xticks=[], yticks=[])
plt.show()

# %%
# Bias, a residual and a ReLU are applied as an output row is written, and cost no pass over memory.

rng = np.random.default_rng(0)
w1, w2 = rng.standard_normal((2, 3, 3, 8, 8))
y = spcy.subm_conv(x, rng.standard_normal((3, 3, 1, 8)), np.zeros(8), activation="relu")
z = spcy.subm_conv(spcy.subm_conv(y, w1, activation="relu"), w2, residual=y, activation="relu")
print(z)
