"""Work for ncu: a rulebook, convolutions and their gradients on a scene of the benchmarks."""

import numpy as np

from common import SITES, TINY, bench_modules

bench_modules()

import cupy  # noqa: E402
from benchmarks.scenes import scene  # noqa: E402

import spcy  # noqa: E402

indices, shape = scene("surface", SITES)
coords = spcy.Coords(cupy.asarray(indices), shape, 1)
for channels in (8,) if TINY else (64, 128):
    x = cupy.asarray(np.random.default_rng(0).standard_normal((len(coords), channels)).astype(np.float16))
    w = cupy.ones((3, 3, 3, channels, channels), np.float16)
    y, vjp = spcy.vjp(spcy.subm_conv, spcy.SparseTensor(coords, x), w)
    vjp(y.features)
spcy.conv_rulebook(coords, spcy.kernel_offsets((3, 3, 3)), stride=2, padding=1)
cupy.cuda.Device().synchronize()
