"""
4. Training
===========

A network of submanifold convolutions learns handwritten digits, in NumPy alone. Its input are the inked
pixels, about half of each picture; all pictures of a batch share one sparse tensor.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import spcy
from spcy import nn

images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16
order = np.random.default_rng(0).permutation(len(images))
train, test = order[:1400], order[1400:]

figure, panels = plt.subplots(1, 8, figsize=(11, 1.8))
for axes, image, label in zip(panels, images[order], labels[order], strict=False):
    axes.imshow(np.where(image[..., 0] > 0, image[..., 0], np.nan), cmap="Blues", vmin=-0.5)
    axes.set(title=str(label), xticks=[], yticks=[])
plt.show()

# %%
# Layers are objects with parameters; a `Sequential` runs them one after the other. Layers on the same sites
# share their rulebook, with no name to pass around.


def block(c_in, c_out, rng):
    """Return a convolution, a batch norm and a ReLU."""
    return nn.Sequential(
        nn.SubMConv(c_in, c_out, 3, bias=False, ndim=2, rng=rng), nn.BatchNorm(c_out), nn.ReLU()
    )


rng = np.random.default_rng(1)
network = nn.Sequential(
    block(1, 32, rng),
    block(32, 32, rng),
    nn.MaxPool(2),
    block(32, 64, rng),
    nn.GlobalPool("max"),
    nn.Linear(64, 10, rng=rng),
)
print(nn.summary(network, spcy.SparseTensor.from_dense(images[:100])))

# %%
# There is no tape: `vjp` returns the output and a function that takes a gradient back through the layers,
# and adds to that of each parameter.

optimizer = nn.optim.AdamW(network.parameters(), lr=3e-3)
losses = []
for _ in range(6):
    for batch in np.array_split(rng.permutation(train), 28):
        x = spcy.SparseTensor.from_dense(images[batch])
        logits, vjp = spcy.vjp(network, x)
        loss, dlogits = nn.softmax_cross_entropy(logits, labels[batch])
        network.zero_grad()
        vjp(dlogits)
        optimizer.step()
        losses.append(loss)

figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
axes.semilogy(losses)
axes.set(xlabel="step", ylabel="cross entropy")
plt.show()

# %%
# After `eval`, batch norms use the statistics of the training, and are folded into the convolutions before
# them.

network.eval()
scores = network(spcy.SparseTensor.from_dense(images[test]))
print(f"{np.mean(scores.argmax(axis=1) == labels[test]):.1%} of {len(test)} unseen digits")

# %%
# The parameters are arrays with names; `numpy.savez` keeps them, and `load_state_dict` takes them back, or
# says which names are missing, unexpected or of another shape.

print(*(f"{name} {array.shape}" for name, array in network.state_dict().items()), sep="\n")
