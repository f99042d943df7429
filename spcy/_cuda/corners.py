"""The sites at the corners of the cells between sites' centres that hold points, and linear weights."""

import numpy as np

from ._kernel import columns, kernel, launch, type_name


def rows(queries, keys, shift, back, order, rows, n_threads):
    """Write the row of each corner of each cell; or `back`, the cells around each site, last corner first."""
    count, corners = rows.shape
    searched = queries, np.int64(count), keys, np.int64(len(keys) - 1), columns(shift), np.int32(back)
    launch(kernel("corners", "rows", len(shift) - 1), count * corners // 2, *searched, order, rows)


def interpolate(features, rows, order, starts, fractions, renormalize, totals, out, n_threads):
    """Write the weighted mean of the corners that are there, or their weighted sum; 0 where none is."""
    (num, channels), ndim = out.shape, fractions.shape[1]
    cells = rows, order, starts, np.int64(len(rows)), fractions, np.int32(renormalize), totals
    function = kernel("corners", "interpolate", type_name(features.dtype), ndim)
    launch(function, out.size, features, *cells, np.int64(num), np.int32(channels), out)


def interpolate_gradient(gradient, order, starts, fractions, totals, around, site_order, out, n_threads):
    """Write the gradient of the features, summed in double precision: by corners, then by points."""
    sites, channels = out.shape
    function = kernel("corners", "interpolate_gradient", type_name(out.dtype), fractions.shape[1])
    points = gradient, order, starts, fractions, totals
    launch(function, out.size, *points, around, site_order, np.int64(sites), np.int32(channels), out)
