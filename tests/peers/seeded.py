"""A scene and weights that are the same wherever they are made, for networks that run side by side."""

import numpy as np


def state(shapes, seed):
    """Weights, and statistics of norms, for names and shapes; RandomState's numbers never change."""
    rng = np.random.RandomState(seed)
    arrays = {}
    for name in sorted(shapes):
        shape = shapes[name]
        array = rng.standard_normal(shape)
        if len(shape) > 1:  # of a layer: the smaller of the ends that can be channels says little here
            array *= np.sqrt(2 * max(shape[0], shape[-1]) / array.size)
        elif "var" in name.lower().rsplit(".", 1)[-1] or name.endswith("weight"):
            array = 1 + 0.2 * np.tanh(array)
        else:
            array *= 0.1
        arrays[name] = array.astype(np.float32)
    return arrays


def scene(shape, num_sites, channels, seed, batch_size=2):
    """Sites of a surface in each batch, as (indices, features)."""
    rng = np.random.RandomState(seed)
    flat = rng.randint(0, shape[1:], (batch_size * num_sites, len(shape) - 1))
    height = (shape[0] * (0.5 + 0.3 * np.sin(flat.sum(1) / 5))).astype(int)
    batch = np.repeat(np.arange(batch_size), num_sites)
    indices = np.unique(np.column_stack([batch, height, flat]), axis=0).astype(np.int32)
    rng.shuffle(indices)
    return indices, rng.standard_normal((len(indices), channels)).astype(np.float32)
