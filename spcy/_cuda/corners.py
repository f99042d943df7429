"""The sites at the corners of the cells between sites' centres that hold points, and linear weights."""

import cupy
import numpy as np

from ._kernel import columns, kernel, launch, type_name


def ranks(queries, keys, shift, ranks, n_threads):
    """Write the rank of each corner of each cell."""
    count, corners = ranks.shape
    searched = queries, np.int64(count), keys, np.int64(len(keys) - 1), columns(shift)
    launch(kernel("corners", "ranks", len(shift) - 1), count * corners // 2, *searched, ranks)


def interpolate(features, ranks, site_order, order, starts, fractions, renormalize, out, n_threads):
    """Write the weighted mean of the corners that are there, or their weighted sum; 0 where none is."""
    (num, channels), ndim = out.shape, fractions.shape[1]
    cells = ranks, site_order, order, starts, np.int64(len(ranks)), fractions, np.int32(renormalize)
    function = kernel("corners", "interpolate", type_name(features.dtype), ndim)
    launch(function, out.size, features, *cells, np.int64(num), np.int32(channels), out)


def interpolate_gradient(gradient, ranks, site_order, order, starts, fractions, renormalize, out, n_threads):
    """Write the gradient of the features, summed by cells, and of a cell by some points at a time."""
    (num, ndim), (sites, channels), (cells, corners) = fractions.shape, out.shape, ranks.shape
    shares = cupy.empty((num, corners), out.dtype)
    around = cupy.full((sites, corners), -1, np.int32)
    places = ranks, order, starts, np.int64(cells), fractions, np.int32(renormalize), np.int64(num)
    launch(kernel("corners", "share", type_name(out.dtype), ndim), num, *places, shares)
    launch(kernel("corners", "turn", ndim), ranks.size, ranks, np.int64(cells), around)
    function = kernel("corners", "interpolate_gradient", type_name(gradient.dtype), ndim)
    to = around, shares, site_order, np.int64(sites), np.int32(channels), out
    launch(function, out.size, gradient, order, starts, *to)
