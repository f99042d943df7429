"""
Move a pipeline to CUDA
=======================

A pipeline that runs on the CPU runs on a GPU with the same calls: one flag says where arrays enter, and two
lines say where the weights live and where results come back. The backend's tests pass on GPUs of two kinds
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

spcy.set_backend("auto")  # a CUDA GPU if there is one, else the CPU; "cuda" raises where there is none
place = spcy.get_backend()
print("backend:", place)

# %%
# What changes
# ------------
#
# Only the lines with a comment. Everything between them follows its arrays: no call says ``cuda``.

cloud = generate_scene(0).points  # NumPy's, as a driver or a file gives it
net = network.load().to(place)  # weights go there once; in place, for networks


def at_home(array):
    """Return an array as NumPy's, from wherever it is."""
    return array if isinstance(array, np.ndarray) else array.get()


def step(cloud):
    """Label a cloud."""
    voxels = network.voxelize(cloud)  # NumPy's arrays enter here: the flag takes them to the GPU
    scores = net(voxels.tensor).features
    labels = scores.argmax(axis=1)[voxels.rows]  # NumPy's methods are CuPy's too
    return at_home(labels.astype(np.uint8))  # the only line that waits for the result, and brings it back


labels = step(cloud)
print(type(labels).__module__, labels.dtype, labels.shape)

# %%
# - ``SPCY_BACKEND=cuda`` in the environment is the flag for a program that is not to be edited, and
#   ``with spcy.use_backend("cuda"):`` the flag for one block, in one thread or task.
# - ``tensor.to("cuda")`` and ``tensor.to("cpu")`` return tensors, with their sites; networks move in place.
# - Arrays that are on the GPU already, CuPy's or PyTorch's, enter whatever the flag says, without a copy.
# - Code of your own between the calls takes the module that fits: ``cupy.get_array_module(features)``.
#
# What raises
# -----------
#
# Nothing is copied between devices unasked. A weight left behind raises at the first call that meets it, and
# the message says which argument it was and what moves it.

x = network.voxelize(cloud).tensor
try:
    if place == "cuda":
        spcy.subm_conv(x, np.ones((3, 3, 3, 4, 8), np.float32))  # NumPy's weight, and a tensor on the GPU
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
plans = {(*sorted((layer.sites_in, layer.sites_out)), layer.pairs) for layer in ran.layers if layer.pairs}
size = {
    "points and their features": cloud.size * 8 + len(cloud) * 4 * 4,  # float64, and 4 of float32
    "weights": sum(array.nbytes for array in net.state_dict().values()),
    "rulebooks": sum(pairs * 2 * 4 for *_, pairs in plans),  # pairs of int32; layers share them
    "features of all layers": sum(layer.sites_out * layer.channels_out * 4 for layer in ran.layers),
    "scores of each point": len(cloud) * len(network.LABELS) * 4,
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

calls = sum(layer.flop > 0 for layer in ran.layers)
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

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
colours = {"crosses for each cloud": "#d35400", "crosses once": "#f5b041", "stays on the device": "#2e86c1"}
kinds = [0, 1, 2, 2, 2, 0]
megabytes = np.array([*size.values()]) / 1e6
for kind, (name, colour) in enumerate(colours.items()):
    rows = [row for row, its in enumerate(kinds) if its == kind]
    bars = left.barh(rows, megabytes[rows], color=colour, label=name)
    left.bar_label(bars, fmt="%.1f", padding=3, fontsize="small")
left.set(title="what crosses the border, MB", yticks=range(len(size)), yticklabels=[*size])
left.margins(x=0.12)
left.invert_yaxis()
left.legend(fontsize="small", loc="lower right")
right.plot(counts, new, ".-", color="#7f8c8d", label=f"new sites, on {place}")
right.plot(counts, ready, ".-", color="#2e86c1", label=f"rulebooks ready, on {place}")
right.axhline(0.04 * calls, color="#d35400", label=f"what {calls} calls cost the host on CUDA, at least")
right.set(title="time of the network", xlabel="sites", ylabel="ms", xscale="log", yscale="log")
right.legend(fontsize="small", loc="upper left")
plt.show()

# %%
# Below the line no GPU is faster. Above it one may be, and the more so the wider the layers: rulebooks of new
# sites wait for the host too, which is most of what a whole lidar network takes there. Sites that stay the
# same leave no waits, and then a CUDA graph makes one launch of all calls (:doc:`/backends` shows it).
#
# Half precision
# --------------
#
# ``astype`` converts a network in place, and features follow by ``map``. On CUDA, float16 and bfloat16 run on
# tensor cores; ``with spcy.allow_tf32():`` lets float32 do so without converting anything. On CPUs float16
# halves memory, not time. Look at what it does to your results before you look at the clock:

net.astype(np.float16)
halves = at_home(net(voxels.tensor.map(lambda features: features.astype(np.float16))).features.argmax(axis=1))
print(f"labels that float16 keeps: {np.mean(halves[at_home(voxels.rows)] == labels):.2%}")

# %%
# Streams and memory
# ------------------
#
# - spcy launches on CuPy's current stream: inside ``with stream:`` a cloud's copy in, network and copy out
#   run in order, and beside those of another stream. What waits for the host: a rulebook, once for its sites.
# - The rulebooks of a tensor's sites live as long as its ``coords``: keep the ``coords`` of sites that stay,
#   drop the tensors of clouds that are done. What they leave goes to CuPy's pool, which keeps it for the next
#   cloud; ``cupy.get_default_memory_pool().free_all_blocks()`` gives it to other programs.
# - Compiled kernels are cached on disk by CuPy; the first run of all takes seconds longer: warm up, as
#   :doc:`robot_loop` does.
# - ``spcy info`` says what CuPy, driver and GPU spcy sees.

spcy.set_backend("cpu")
