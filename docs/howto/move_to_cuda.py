"""
Move a pipeline to CUDA
=======================

A pipeline that runs on the CPU runs on a GPU with the same calls: one flag says where arrays enter, and two
lines say where the weights live and where results come back. The backend ran on GPUs of two kinds
(:doc:`/backends`), but no GPU has run this page yet: it takes what the machine has, and what is printed and
drawn here is that of the backend which the first line names.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

import spcy
from spcy import nn
from spcy.demo import network
from spcy.demo.scene import generate_scene

# A CUDA GPU if there is one, else the CPU; "cuda" raises there.
spcy.set_backend("auto")
place = spcy.get_backend()
print("backend:", place)

# %%
# What changes
# ------------
#
# Only the lines below a comment. Everything between them follows its arrays: no call says ``cuda``.

cloud = generate_scene(0).points

# Weights go there once; networks move in place.
net = network.load().to(place)


def at_home(array):
    """Return an array as NumPy's, from wherever it is."""
    return array if isinstance(array, np.ndarray) else array.get()


def step(cloud):
    """Label a cloud."""
    # NumPy's arrays enter here: the flag takes them to the GPU.
    voxels = network.voxelize(cloud)
    scores = net(voxels.tensor).features
    labels = scores.argmax(axis=1)[voxels.rows].astype(np.uint8)
    # Wait for the result, and bring it back.
    return at_home(labels)


labels = step(cloud)
print(type(labels).__module__, labels.dtype, labels.shape)

# %%
# - ``SPCY_BACKEND=cuda`` in the environment is the flag for a program that is not to be edited, and
#   ``with spcy.use_backend("cuda"):`` the flag for one block, in one thread or task.
# - ``tensor.to("cuda")`` and ``tensor.to("cpu")`` return tensors, with their sites; networks move in place.
# - Arrays that are on the GPU already, CuPy's or PyTorch's, enter whatever the flag says, without a copy.
# - Code of your own between the calls takes the module that fits: ``cupy.get_array_module(features)``.
#   Methods of arrays, as ``argmax`` here, are the same in both.
#
# What raises
# -----------
#
# Nothing is copied between devices unasked. A weight left behind raises at the first call that meets it, and
# the message says which argument it was and what moves it.

x = network.voxelize(cloud).tensor
try:
    if place == "cuda":
        weight = np.ones((3, 3, 3, 4, 8), np.float32)  # left behind
        spcy.subm_conv(x, weight)
    else:
        spcy.set_backend("cuda")
except (RuntimeError, TypeError) as error:
    print(f"{type(error).__name__}: {error}")

# %%
# ============================================================  ==========================================
# NumPy's weight, bias, mask or points beside a tensor on CUDA  TypeError: ``cupy.asarray`` moves it
# a CUDA array beside a tensor on the CPU                       TypeError: ``cupy.asnumpy`` moves it
# arrays on another GPU than the current one                    ValueError: ``with cupy.cuda.Device(..):``
# ``np.asarray(y.features)``, or Matplotlib, on CuPy's arrays   CuPy's TypeError: ``.get()`` copies
# ============================================================  ==========================================
#
# What crosses the border
# -----------------------
#
# Points go in, a label for each comes back; sites, rulebooks and the features of all layers are made on the
# device and stay there. So reduce before you bring back: the scores that these labels are the highest of
# would be many times their bytes.

voxels = network.voxelize(cloud)
ran = nn.summary(net, voxels.tensor)
# Layers of one geometry share a rulebook: pairs of two int32.
plans = {(*sorted((r.sites_in, r.sites_out)), r.pairs) for r in ran.layers}
features = sum(r.sites_out * r.channels_out for r in ran.layers)
num, scores = len(cloud), len(network.LABELS)
weights = sum(a.nbytes for a in net.state_dict().values())
size = {
    "points (float64), features": num * (3 * 8 + 4 * 4),
    "weights": weights,
    "rulebooks": sum(8 * pairs for *_, pairs in plans),
    "features of all layers": 4 * features,
    "scores of the points": 4 * num * scores,
    "labels of the points": labels.nbytes,
}

# %%
# When it pays
# ------------
#
# A call costs the host about 40 microseconds on CUDA before the GPU has done anything (measured on an H200:
# :doc:`/performance`). A network of small layers is that many calls, however few sites it has; a
# cloud that a CPU labels in less is better left there. Here: the time of the network on clouds of growing
# size, on this machine's backend, with rulebooks built and ready, and with those of new sites.

calls = sum(r.flop > 0 for r in ran.layers)
counts, ready, new = [], [], []
order = np.random.default_rng(0).permutation(len(cloud))
for count in np.geomspace(300, len(cloud), 7).astype(int):
    part, times = cloud[order[:count]], []
    for _ in range(5):
        tensor = network.voxelize(part).tensor
        for _ in "new", "ready":
            start = time.perf_counter()
            at_home(net(tensor).features.argmax(axis=1))
            times.append(1e3 * (time.perf_counter() - start))
    counts.append(tensor.num_sites)
    new.append(min(times[::2]))
    ready.append(min(times[1::2]))

figure, panels = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
left, right = panels
colours = {
    "crosses for each cloud": "#d35400",
    "crosses once": "#f5b041",
    "stays on the device": "#2e86c1",
}
values = np.array([*size.values()]) / 1e6
shown = zip(colours.items(), ([0, 5], [1], [2, 3, 4]), strict=True)
for (kind, colour), rows in shown:
    bars = left.barh(rows, values[rows], color=colour, label=kind)
    left.bar_label(bars, fmt="%.1f", padding=3, fontsize="small")
left.set(title="what crosses the border, MB")
left.set_yticks(range(len(size)), [*size])
left.margins(x=0.12)
left.invert_yaxis()
left.legend(fontsize="small", loc="lower right")
right.plot(counts, new, ".-", label=f"new sites, {place}")
right.plot(counts, ready, ".-", label=f"rulebooks ready, {place}")
least = f"{calls} calls of 40 us on CUDA"
right.axhline(0.04 * calls, color="black", label=least)
right.set(title="time of the network, ms", xlabel="sites")
right.set(xscale="log", yscale="log")
right.legend(fontsize="small", loc="upper left")
plt.show()

# %%
# Below the line the same calls on a GPU are no faster. Above it they may be, and the more so the wider the
# layers. Rulebooks of new sites are the host's time too, and on the H200 the host's is most of a whole lidar
# network's. Sites that stay the same leave no waits, and then a CUDA graph makes one launch of all calls
# (:doc:`/backends` shows it).
#
# Half precision
# --------------
#
# ``astype`` converts a network in place, and features follow by ``map``. On CUDA, float16 and bfloat16 run on
# tensor cores; ``with spcy.allow_tf32():`` lets float32 do so without converting anything. On CPUs float16
# halves memory, not time. Look at what it does to your results before you look at the clock:

net.astype(np.float16)
x = voxels.tensor.map(lambda features: features.astype(np.float16))
again = net(x).features.argmax(axis=1)[voxels.rows]
print(f"labels that float16 keeps: {np.mean(at_home(again) == labels):.2%}")

# %%
# Streams and memory
# ------------------
#
# - spcy launches on CuPy's current stream: inside ``with stream:`` all of a cloud's work is that stream's.
#   Layers never make the host wait, but for a rulebook, once for its sites.
# - The rulebooks of a tensor's sites live as long as its ``coords``: keep the ``coords`` of sites that stay,
#   drop the tensors of clouds that are done. What they leave goes to CuPy's pool, which keeps it for the next
#   cloud; ``cupy.get_default_memory_pool().free_all_blocks()`` gives it to other programs.
# - Compiled kernels are cached on disk by CuPy; the first run of all takes seconds longer: warm up, as
#   :doc:`robot_loop` does.
# - ``spcy info`` says what CuPy, driver and GPU spcy sees.

spcy.set_backend("cpu")
