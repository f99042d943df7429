"""A slow oracle for every operation, from the definitions alone: NumPy, float64, any number of axes.

A layer is a table `rows` (K, outputs): the input row that kernel offset k brings to each output site, or -1.
Unpooling, global pooling and the union sum are `pool` over such a table.
"""

import itertools

import numpy as np


def box(kernel_size, dilation, centred=False):
    """Offsets of a box in C order; a centred box has its middle cell at 0."""
    middle = np.array(kernel_size) // 2 * centred
    return (np.array(list(np.ndindex(*kernel_size))) - middle) * np.array(dilation)


def rows_of(indices, sites):
    """Return the row of each site, -1 where there is none: from a dense grid, or a dict if that is large."""
    indices, sites = np.asarray(indices).astype(np.int64), np.asarray(sites)
    if len(indices) == 0:
        return np.full(len(sites), -1)
    low, high = indices.min(0), indices.max(0)
    if np.prod(high - low + 1.0) > 1e7:
        row = {tuple(site): i for i, site in enumerate(indices.tolist())}
        return np.array([row.get(tuple(site), -1) for site in sites.tolist()], int)
    grid = np.full(high - low + 1, -1)
    grid[tuple((indices - low).T)] = np.arange(len(indices))
    inside = ((sites >= low) & (sites <= high) & (sites == np.floor(sites))).all(1)
    rows = np.full(len(sites), -1)
    rows[inside] = grid[tuple((sites[inside].astype(np.int64) - low).T)]
    return rows


def subm_table(indices, offsets):
    return np.stack([rows_of(indices, indices + np.r_[0, off]) for off in offsets])


def conv_table(indices, shape, batch_size, offsets, stride, padding, output_padding=None):
    """Return (rows, output sites, output shape); transposed where output_padding is given."""
    at, s, p, last = np.asarray(indices)[:, 1:], np.array(stride), np.array(padding), offsets.max(0)
    transposed = output_padding is not None
    if shape is not None:
        low, n = 0 * s, np.array(shape)
        high = (n - 1) * s - 2 * p + last + output_padding if transposed else (n + 2 * p - last - 1) // s
    elif transposed:
        low, high = at.min(0, initial=0) * s - p + offsets.min(0), at.max(0, initial=0) * s - p + last
    else:
        low, high = (at.min(0, initial=0) + p - last) // s, (at.max(0, initial=0) + p - offsets.min(0)) // s
    axes = [np.arange(batch_size), *map(np.arange, low, high + 1)]
    sites = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    batch, u = sites[:, 0], sites[:, 1:]
    sources = [(u + p - off) / s if transposed else u * s - p + off for off in offsets]
    rows = np.stack([rows_of(indices, np.c_[batch, source]) for source in sources])
    reached = (rows >= 0).any(0)
    return rows[:, reached], sites[reached], None if shape is None else tuple((high + 1).tolist())


def floor_table(indices, offsets, stride, padding):
    """Return (rows, output sites) where those are floor(c / stride) of all sites."""
    sites = np.unique(np.asarray(indices) // np.r_[1, stride], axis=0)
    sources = [np.c_[sites[:, 0], sites[:, 1:] * stride - padding + off] for off in offsets]
    return np.stack([rows_of(indices, source) for source in sources]), sites


def rulebook(rows, sites):
    """Return (in_rows, out_rows, offset_ptr), ordered by (kernel offset, output site)."""
    order = np.lexsort(np.asarray(sites).T[::-1])
    out_rows = [order[row[order] >= 0] for row in rows]
    in_rows = [row[out] for row, out in zip(rows, out_rows, strict=True)]
    return np.concatenate(in_rows), np.concatenate(out_rows), np.cumsum([0, *map(len, out_rows)])


def swap(rows, num_in):
    """Return the table that leads back: for each of num_in sites, the output that reads it at offset k."""
    back = np.full((len(rows), num_in), -1)
    for k, row in enumerate(rows):
        back[k, row[row >= 0]] = np.flatnonzero(row >= 0)
    return back


def conv(features, weight, bias, rows, groups=1):
    if groups > 1:
        size = weight.shape[-1] // groups
        parts = (slice(g * size, (g + 1) * size) for g in range(groups))
        split = zip(np.split(features, groups, axis=1), parts, strict=True)
        return np.hstack([conv(x, weight[..., p], None if bias is None else bias[p], rows) for x, p in split])
    out = np.zeros((rows.shape[1], weight.shape[-1])) + (0 if bias is None else bias)
    for row, matrix in zip(rows, np.float64(weight).reshape(-1, *weight.shape[-2:]), strict=True):
        out[row >= 0] += np.float64(features)[row[row >= 0]] @ matrix
    return out


def pool(features, rows, kind, empty=0.0):
    """`kind` is max, sum, sites (mean of the occupied cells) or window (sum over the kernel volume)."""
    out = np.full((rows.shape[1], features.shape[1]), empty)
    for j, row in enumerate(rows.T):
        if (found := np.float64(features[row[row >= 0]])).size:
            out[j] = found.max(0) if kind == "max" else found.sum(0)
            out[j] /= {"sites": len(found), "window": len(row)}.get(kind, 1)
    return out


def voxelize(points, batch, features, origin, voxel_size, shape, reduce, max_points):
    """Return (sites, features, row of each point, points per site)."""
    every = np.c_[batch, np.floor((np.float64(points) - origin) / voxel_size)].astype(int)
    inside = ((every[:, 1:] >= 0) & (every[:, 1:] < shape) if shape else np.isfinite(every)).all(1)
    sites = np.unique(every[inside], axis=0)
    rows = np.where(inside, rows_of(sites, every), -1)
    groups = [np.float64(features[rows == i][:max_points]) for i in range(len(sites))]
    one = {"mean": np.mean, "sum": np.sum, "max": np.max, "first": lambda group, axis: group[0]}[reduce]
    return sites, np.stack([one(group, axis=0) for group in groups]), rows, np.array([len(g) for g in groups])


def devoxelize(features, indices, batch, v, mode, renormalize=True):
    """`v` is where the points lie, in cells: the middle of cell u is u + 0.5."""
    total, weights, linear = np.zeros((len(v), features.shape[1])), np.zeros((len(v), 1)), mode == "linear"
    for corner in itertools.product((0, 1), repeat=v.shape[1]) if linear else [0 * v[0]]:
        cell = np.floor(v - 0.5 * linear) + corner
        row = rows_of(indices, np.c_[batch, cell])
        weight = np.where(row < 0, 0, np.prod(1 - abs(v - 0.5 - cell), 1) if linear else 1)[:, None]
        total, weights = total + weight * features[row], weights + weight
    return total / np.where((weights > 0) & renormalize, weights, 1)
