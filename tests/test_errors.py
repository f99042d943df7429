"""Every message for a bad argument: it names the argument, and the row where one is at fault."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import get, put, random_indices

import spcy

pytestmark = pytest.mark.usefixtures("backend")


def material():
    """Good arguments to spoil: 2-D tensors of 12 sites and 3 channels."""
    rng = np.random.default_rng(0)
    indices = random_indices(rng, 12, (6, 5), 2)
    a = SimpleNamespace(
        indices=indices,
        features=rng.standard_normal((12, 3)).astype(np.float32),
        f64=rng.standard_normal((12, 3)),
        weight=np.ones((3, 3, 3, 4), np.float32),
        square=np.ones((3, 3, 3, 3), np.float32),
        even=np.ones((2, 3, 3, 4), np.float32),
        bias=np.ones(4, np.float32),
        points=rng.uniform(0, 4, (12, 2)),
        mask=np.ones(12, bool),
        offsets=np.array([[0, 0], [0, 1]]),
    )
    for name, array in vars(a).items():
        setattr(a, name, array if name == "offsets" else put(array))
    a.coords = spcy.Coords(a.indices, (6, 5), 2)
    a.x = spcy.SparseTensor(a.coords, a.features)
    a.unbounded = spcy.SparseTensor(a.indices, a.features)
    a.child = spcy.conv(a.x, a.square, stride=2, padding=1)
    a.other = spcy.prune(a.x, put(np.arange(12) > 3))
    return a


def changed(array, place, value):
    """Return a copy with one value changed."""
    array = get(array).copy()
    array[place] = value
    return put(array)


def sites(*rows):
    return put(np.array(rows))


BIG = 2**31 - 1


def custom_level(coords, offsets):
    """A tensor on the level that a stencil reaches."""
    _, level = spcy.conv_rulebook(coords, offsets, stride=2)
    return spcy.SparseTensor(level, put(np.ones((len(level), 1))))


VALUE_ERRORS = {
    # coords: ndim, dtype, rows
    "indices_1d": (lambda a: spcy.Coords(a.indices[0]), r"^indices .*shape \(N, 1 \+ D\).*got shape \(3,\)"),
    "indices_no_axis": (lambda a: spcy.Coords(a.indices[:, :1]), r"^indices .*got shape \(12, 1\)"),
    "indices_5_axes": (lambda a: spcy.Coords(put(np.zeros((1, 6), int))), r"^indices .*got shape \(1, 6\)"),
    "indices_ragged": (lambda a: spcy.Coords([[0, 1], [0]]), r"^indices "),
    "indices_beyond_int32": (
        lambda a: spcy.Coords(changed(a.indices.astype(int), (7, 1), 2**31)),
        r"^indices .*int32.*row 7\b",
    ),
    "twin": (
        lambda a: spcy.Coords(changed(a.indices, 9, get(a.indices)[4])),
        r"^indices .*unique.*rows 4 and 9\b",
    ),
    "twin_unbounded": (
        lambda a: spcy.Coords(sites([0, -3], [0, 5], [0, -3])),
        r"^indices .*\[0, -3\] in rows 0 and 2\b",
    ),
    "negative": (
        lambda a: spcy.Coords(changed(a.indices, (5, 2), -1), (6, 5)),
        r"^indices .*shape \(6, 5\).*-1\] in row 5\b",
    ),
    "beyond_shape": (
        lambda a: spcy.Coords(changed(a.indices, (8, 1), 6), (6, 5)),
        r"^indices .*shape \(6, 5\).*\[6, .*row 8\b",
    ),
    "negative_batch": (
        lambda a: spcy.Coords(changed(a.indices, (2, 0), -1)),
        r"^indices .*batch.*got -1 in row 2\b",
    ),
    "beyond_batch_size": (
        lambda a: spcy.Coords(changed(a.indices, (3, 0), 2), None, 2),
        r"^indices .*batch_size 2.*got 2 in row 3\b",
    ),
    "batch_size_0": (lambda a: spcy.Coords(a.indices, None, 0), r"^batch_size .*got 0"),
    "shape_length": (lambda a: spcy.Coords(a.indices, (6, 5, 4)), r"^shape .*got \(6, 5, 4\)"),
    "shape_0": (lambda a: spcy.Coords(a.indices, (6, 0)), r"^shape .*at least 1.*got \(6, 0\)"),
    "key_space": (
        lambda a: spcy.Coords(sites([0, -BIG, -BIG, -BIG], [0, BIG, BIG, BIG])),
        r"^indices .*key space.*64",
    ),
    "query_columns": (lambda a: a.coords.rows_of(a.indices[:, :2]), r"^indices .*3 columns.*got 2"),
    "union_shape": (lambda a: spcy.union(a.coords, a.unbounded.coords), r"^b .*\(6, 5\).*None"),
    # tensors
    "features_rows": (lambda a: spcy.SparseTensor(a.coords, a.features[:5]), r"^features .*12 rows.*got 5"),
    "features_1d": (
        lambda a: spcy.SparseTensor(a.coords, a.features[:, 0]),
        r"^features .*\(N, C\).*got shape \(12,\)",
    ),
    "features_no_channel": (lambda a: a.x.replace(a.features[:, :0]), r"^features .*C >= 1.*\(12, 0\)"),
    "shape_again": (
        lambda a: spcy.SparseTensor(a.coords, a.features, shape=(7, 5)),
        r"^shape .*\(6, 5\).*got \(7, 5\)",
    ),
    "batch_size_again": (
        lambda a: spcy.SparseTensor(a.coords, a.features, batch_size=3),
        r"^batch_size .*2.*got 3",
    ),
    "dense_unbounded": (lambda a: a.unbounded.to_dense(), r"^to_dense needs a shape.*unbounded"),
    "from_dense_2d": (lambda a: spcy.SparseTensor.from_dense(a.features), r"^array .*\(12, 3\)"),
    "to_nowhere": (lambda a: a.x.to("gpu"), r"^backend .*got 'gpu'"),
    "plus_other": (lambda a: a.x + a.other, r"same coords.*spcy\.add"),
    "times_other": (lambda a: a.x * a.other, r"same coords.*spcy\.add"),
    "plus_shape": (lambda a: a.x + a.unbounded, r"same coords"),
    "plus_channels": (lambda a: a.x + a.x.replace(a.features[:, :2]), r"3 channels.*got 2"),
    "add_channels": (lambda a: spcy.add(a.x, a.other.map(lambda f: f[:, :2])), r"^y .*3 channels.*got 2"),
    "add_shape": (lambda a: spcy.add(a.x, a.unbounded), r"\(6, 5\).*None"),
    "concat_grid": (
        lambda a: spcy.concat([a.x, a.x, a.unbounded]),
        r"^tensors\[2\] .*grid of tensors\[0\], .*\(6, 5\).*got 2 and None",
    ),
    "mask_length": (lambda a: spcy.prune(a.x, a.mask[:5]), r"^mask .*\(12,\).*got \(5,\)"),
    # rulebooks
    "offsets_1d": (lambda a: spcy.submanifold_rulebook(a.coords, [0, 1]), r"^offsets .*\(K, 2\).*\(2,\)"),
    "offsets_columns": (
        lambda a: spcy.conv_rulebook(a.coords, [[0, 1, 2]]),
        r"^offsets .*\(K, 2\).*\(1, 3\)",
    ),
    "offsets_none": (
        lambda a: spcy.submanifold_rulebook(a.coords, np.zeros((0, 2), int)),
        r"^offsets .*K >= 1",
    ),
    "offsets_twin": (
        lambda a: spcy.submanifold_rulebook(a.coords, [[0, 1], [1, 1], [0, 1]]),
        r"^offsets .*\[0, 1\] in rows 0 and 2",
    ),
    "rulebook_stride": (lambda a: spcy.conv_rulebook(a.coords, a.offsets, stride=0), r"^stride .*got 0"),
    "kernel_size_0": (lambda a: spcy.kernel_offsets((3, 0)), r"^kernel_size .*got \(3, 0\)"),
    # weights
    "weight_rank": (lambda a: spcy.conv(a.x, a.weight[0]), r"^weight .*4 axes.*got shape \(3, 3, 4\)"),
    "weight_rank_subm": (
        lambda a: spcy.subm_conv(a.x, a.weight[None]),
        r"^weight .*4 axes.*got shape \(1, 3, 3, 3, 4\)",
    ),
    "weight_channels": (
        lambda a: spcy.conv(a.x, a.weight.swapaxes(2, 3)),
        r"^weight .*3, the channels of x.*\(3, 3, 4, 3\)",
    ),
    "weight_empty": (lambda a: spcy.conv(a.x, a.weight[:0]), r"^weight .*\(0, 3, 3, 4\)"),
    "weight_even": (lambda a: spcy.subm_conv(a.x, a.even), r"^weight .*odd.*got \(2, 3\)"),
    "bias_length": (lambda a: spcy.conv(a.x, a.weight, a.bias[:3]), r"^bias .*\(4,\).*got \(3,\)"),
    "activation": (
        lambda a: spcy.conv(a.x, a.weight, activation="softplus"),
        r"^activation .*None, 'relu', .*'silu', got 'softplus'",
    ),
    "residual_channels": (
        lambda a: spcy.subm_conv(a.x, a.weight, residual=a.x),
        r"^residual .*4 channels.*got 3",
    ),
    "residual_sites": (
        lambda a: spcy.subm_conv(a.x, a.weight, residual=spcy.conv(a.x, a.weight, stride=2)),
        r"^residual .*the output's sites",
    ),
    "bias_rank": (lambda a: spcy.subm_conv(a.x, a.weight, a.bias[None]), r"^bias .*\(4,\).*got \(1, 4\)"),
    "groups_0": (lambda a: spcy.conv(a.x, a.weight, groups=0), r"^groups .*at least 1.*got 0"),
    "groups_of_inputs": (lambda a: spcy.conv(a.x, a.weight, groups=2), r"^groups .*divide.*got 2 for 3 .*4"),
    "groups_of_outputs": (lambda a: spcy.subm_conv(a.x, a.weight, groups=3), r"^groups .*got 3 for 3 .*4"),
    "groups_weight": (
        lambda a: spcy.conv_transpose(a.x, a.square, groups=3),
        r"^weight .*C_in // groups = 1, for 3 channels of x in 3 groups.*\(3, 3, 3, 3\)",
    ),
    "offsets_dilation": (
        lambda a: spcy.conv(a.x, a.square.reshape(9, 3, 3), offsets=a.offsets, dilation=2),
        r"^dilation .*offsets.*got \(2, 2\)",
    ),
    "offsets_weight": (
        lambda a: spcy.subm_conv(a.x, a.square.reshape(9, 3, 3), offsets=a.offsets),
        r"^weight .*2 cells.*offsets.*\(9, 3, 3\)",
    ),
    "offsets_box": (
        lambda a: spcy.conv_transpose(a.x, a.square, offsets=a.offsets),
        r"^weight .*3 axes, \(K, C_in // groups, C_out\).*\(3, 3, 3, 3\)",
    ),
    "offsets_3d": (
        lambda a: spcy.conv(a.x, a.square[0], offsets=[[0, 0, 0]]),
        r"^offsets .*\(K, 2\).*\(1, 3\)",
    ),
    "sites": (lambda a: spcy.conv(a.x, a.weight, sites="all"), r"^sites .*'reached', 'floor', got 'all'"),
    "pool_sites": (lambda a: spcy.sum_pool(a.x, 2, sites=None), r"^sites .*'reached', 'floor', got None"),
    "pool_empty": (lambda a: spcy.max_pool(a.x, 2, empty=0), r"^empty .*'ignore', 'zero', got 0"),
    # geometry
    "stride_0": (lambda a: spcy.conv(a.x, a.weight, stride=0), r"^stride .*at least 1.*got 0"),
    "stride_negative": (
        lambda a: spcy.conv_transpose(a.x, a.weight, stride=(1, -1)),
        r"^stride .*got \(1, -1\)",
    ),
    "stride_length": (
        lambda a: spcy.conv(a.x, a.weight, stride=(1, 1, 1)),
        r"^stride .*2 ints.*got \(1, 1, 1\)",
    ),
    "padding_negative": (lambda a: spcy.conv(a.x, a.weight, padding=-1), r"^padding .*at least 0.*got -1"),
    "dilation_0": (lambda a: spcy.subm_conv(a.x, a.weight, dilation=0), r"^dilation .*at least 1.*got 0"),
    "output_padding_negative": (
        lambda a: spcy.conv_transpose(a.x, a.weight, output_padding=-1),
        r"^output_padding .*got -1",
    ),
    "kernel_too_large": (
        lambda a: spcy.conv(a.x, put(np.ones((9, 3, 3, 4), np.float32)), padding=(1, 0)),
        r"\b(kernel|window).*\(6, 5\)",
    ),
    "dilated_too_large": (lambda a: spcy.max_pool(a.x, 3, dilation=3), r"\b(kernel|window).*\(6, 5\)"),
    "all_padding": (lambda a: spcy.conv_transpose(a.other, a.weight, padding=9), r"^padding "),
    "pool_0": (lambda a: spcy.sum_pool(a.x, 0), r"^kernel_size .*got 0"),
    "pool_length": (lambda a: spcy.max_pool(a.x, (2, 2, 2)), r"^kernel_size .*got \(2, 2, 2\)"),
    "pool_stride": (lambda a: spcy.max_pool(a.x, 2, 0), r"^stride .*got 0"),
    "count": (lambda a: spcy.avg_pool(a.x, 2, count="all"), r"^count .*'sites'.*'window'.*got 'all'"),
    "int32_overflow": (
        lambda a: spcy.conv_transpose(
            spcy.SparseTensor(sites([0, 2**30, 0]), a.features[:1]), a.weight, stride=4
        ),
        r"int32",
    ),
    "shape_overflow": (
        lambda a: spcy.conv_transpose(
            spcy.SparseTensor(sites([0, 1, 1]), a.features[:1], shape=(2**20, 2)), a.weight, stride=2**20
        ),
        r"int32|key space",
    ),
    # levels
    "inverse_without_parent": (lambda a: spcy.inverse_conv(a.x, a.weight), r"^x .*(parent|made by)"),
    "inverse_kernel": (lambda a: spcy.inverse_conv(a.child, a.even), r"^weight .*\(3, 3\).*got \(2, 3\)"),
    "inverse_kernel_shape": (
        lambda a: spcy.inverse_conv(a.child, a.square.reshape(9, 1, 3, 3)),
        r"^weight .*\(3, 3\).*got \(9, 1\)",
    ),
    "inverse_to_other": (lambda a: spcy.inverse_conv(a.child, a.weight, to=a.other), r"^to .*made from"),
    "inverse_to_itself": (
        lambda a: spcy.inverse_conv(a.child, a.weight, to=a.child.coords),
        r"^to .*made from",
    ),
    "unpool_without_parent": (lambda a: spcy.unpool(a.x), r"^x .*(parent|made by)"),
    "unpool_to_other": (lambda a: spcy.unpool(a.child, to=a.other.coords), r"^to .*made from"),
    # voxels
    "points_1d": (lambda a: spcy.voxelize(a.points[0], 1), r"^points .*\(M, D\).*\(2,\)"),
    "points_nan": (
        lambda a: spcy.voxelize(changed(a.points, (6, 1), np.nan), 1),
        r"^points .*finite.*row 6\b",
    ),
    "points_inf": (
        lambda a: spcy.voxelize(changed(a.points, (3, 0), -np.inf), 1, bounds=(0, 4)),
        r"^points .*finite.*row 3\b",
    ),
    "points_too_far": (
        lambda a: spcy.voxelize(changed(a.points, (2, 0), 1e12), 1),
        r"^points .*int32.*row 2\b",
    ),
    "voxel_size_0": (lambda a: spcy.voxelize(a.points, 0), r"^voxel_size .*positive.*got 0"),
    "voxel_size_negative": (lambda a: spcy.voxelize(a.points, (1, -1)), r"^voxel_size .*positive"),
    "voxel_size_nan": (lambda a: spcy.voxelize(a.points, np.nan), r"^voxel_size .*nan"),
    "voxel_size_length": (
        lambda a: spcy.voxelize(a.points, (1, 1, 1)),
        r"^voxel_size .*2 numbers.*got \(1, 1, 1\)",
    ),
    "bounds_swapped": (lambda a: spcy.voxelize(a.points, 1, bounds=(4, 0)), r"^bounds "),
    "bounds_single": (lambda a: spcy.voxelize(a.points, 1, bounds=4), r"^bounds .*\(low, high\)"),
    "reduce": (
        lambda a: spcy.voxelize(a.points, 1, reduce="median"),
        r"^reduce .*'mean'.*'first'.*got 'median'",
    ),
    "max_points_0": (lambda a: spcy.voxelize(a.points, 1, max_points=0), r"^max_points .*got 0"),
    "point_features": (
        lambda a: spcy.voxelize(a.points, 1, features=a.features[:5]),
        r"^features .*12 rows.*got 5",
    ),
    "point_batch_length": (
        lambda a: spcy.voxelize(a.points, 1, batch=a.indices[:5, 0]),
        r"^batch .*\(12,\).*got \(5,\)",
    ),
    "point_batch_negative": (
        lambda a: spcy.voxelize(a.points, 1, batch=changed(a.indices[:, 0], 7, -1)),
        r"^batch .*got -1 in row 7\b",
    ),
    "mode": (lambda a: spcy.devoxelize(a.x, a.points, "cubic"), r"^mode .*'nearest'.*'linear'.*got 'cubic'"),
    "devoxelize_nan": (
        lambda a: spcy.devoxelize(a.x, changed(a.points, (4, 0), np.nan), "linear", batch=a.indices[:, 0]),
        r"^points .*finite.*row 4\b",
    ),
    "devoxelize_columns": (lambda a: spcy.devoxelize(a.x, a.points[:, :1]), r"^points .*2 columns.*got 1"),
    "devoxelize_no_batch": (lambda a: spcy.devoxelize(a.x, a.points), r"^batch .*batch_size 2"),
    "devoxelize_batch": (
        lambda a: spcy.devoxelize(a.x, a.points, batch=changed(a.indices[:, 0], 3, 9)),
        r"^batch .*batch_size 2.*got 9 in row 3\b",
    ),
    "voxelize_batch_size": (
        lambda a: spcy.voxelize(a.points, 1, batch=a.indices[:, 0], batch_size=1),
        r"^batch .*batch_size 1.*got 1 in row",
    ),
    # stencils
    "dilation_overflow": (lambda a: spcy.kernel_offsets((3,), 2**31 - 1), r"^dilation .*int32"),
    "offsets_unsigned": (
        lambda a: spcy.submanifold_rulebook(a.coords, np.array([[0, 0], [2**64 - 1, 0]], np.uint64)),
        r"^offsets .*int32.*in row 1\b",
    ),
    "offsets_least": (
        lambda a: spcy.submanifold_rulebook(a.coords, [[-(2**63), 0]]),
        r"^offsets .*int32.*in row 0\b",
    ),
    "inverse_stencil": (
        lambda a: spcy.inverse_conv(
            custom_level(a.coords, [[0, 0], [1, 0], [0, 1]]), put(np.ones((2, 2, 1, 1)))
        ),
        r"^weight .*3 axes, \(K, C_in // groups, C_out\).*got shape \(2, 2, 1, 1\)",
    ),
    "inverse_stencil_cells": (
        lambda a: spcy.inverse_conv(
            custom_level(a.coords, [[0, 0], [1, 0], [0, 1]]), put(np.ones((2, 1, 1)))
        ),
        r"^weight .*3 cells.*got shape \(2, 1, 1\)",
    ),
    "inverse_permuted_box": (
        lambda a: spcy.inverse_conv(
            custom_level(a.coords, [[1, 1], [0, 0], [1, 0], [0, 1]]), put(np.ones((2, 2, 1, 1)))
        ),
        r"^weight .*3 axes, \(K, C_in // groups, C_out\).*got shape \(2, 2, 1, 1\)",
    ),
    # the rest
    "threads_0": (lambda a: spcy.set_num_threads(0), r"^n .*at least 1.*got 0"),
    "threads_many": (lambda a: spcy.set_num_threads(10**6), r"^n .*at most 512.*got 1000000"),
}
TYPE_ERRORS = {
    "masked": (
        lambda a: spcy.SparseTensor(a.coords, np.ma.masked_array(get(a.features))),
        r"^features .*mask",
    ),
    "union_arrays": (lambda a: spcy.union(a.coords, a.indices), r"^b must be Coords"),
    "rulebook_of_a_tensor": (lambda a: spcy.submanifold_rulebook(a.x, [[0, 0]]), r"^coords must be Coords"),
    "add_array": (lambda a: spcy.add(a.x, a.features), r"^y must be a SparseTensor"),
    "global_pool_of_an_array": (lambda a: spcy.global_max_pool(a.features), r"^x must be a SparseTensor"),
    "tensor_as_array": (lambda a: np.asarray(a.x), r"no array: take x\.features"),
    "kernel_offsets_int": (lambda a: spcy.kernel_offsets(3), r"^kernel_size .*sequence"),
    # coords: ndim, dtype, rows
    "indices_float": (lambda a: spcy.Coords(a.indices.astype(float)), r"^indices .*integer.*got float64"),
    "indices_bool": (lambda a: spcy.Coords(a.indices > 0), r"^indices .*integer.*got bool"),
    "batch_size_float": (lambda a: spcy.Coords(a.indices, None, 1.5), r"^batch_size .*float"),
    "shape_int": (lambda a: spcy.Coords(a.indices, 6), r"^shape .*got 6"),
    "shape_float": (lambda a: spcy.Coords(a.indices, (6.0, 5)), r"^shape .*float"),
    "query_float": (lambda a: a.coords.rows_of(a.indices * 1.0), r"^indices .*integer"),
    # tensors
    "features_int": (
        lambda a: spcy.SparseTensor(a.coords, a.indices),
        r"^features .*float32, float64, float16 or bfloat16.*got int32",
    ),
    "features_half": (lambda a: a.x.map(lambda f: f.astype(np.int16)), r"^features .*got int16"),
    "features_complex": (lambda a: a.x.replace(a.features * 1j), r"^features .*got complex64"),
    "from_dense_int": (
        lambda a: spcy.SparseTensor.from_dense(put(np.ones((1, 2, 2, 1), int))),
        r"^array .*int64",
    ),
    "plus_dtype": (lambda a: a.x + a.x.replace(a.f64), r"float32.*got float64"),
    "plus_array": (lambda a: a.x + a.features, r"unsupported operand"),
    "array_plus": (lambda a: a.features + a.x, r"SparseTensor"),
    "plus_text": (lambda a: a.x + "1", r"unsupported operand"),
    "add_dtype": (lambda a: spcy.add(a.x, a.x.replace(a.f64)), r"^y .*float32.*got float64"),
    "concat_dtype": (lambda a: spcy.concat([a.x, a.x.replace(a.f64)]), r"^tensors\[1\] .*float32"),
    "concat_nothing": (lambda a: spcy.concat([]), r"^tensors .*at least one"),
    "mask_dtype": (lambda a: spcy.prune(a.x, a.indices[:, 0]), r"^mask .*bool.*got int32"),
    # rulebooks
    "offsets_float": (
        lambda a: spcy.submanifold_rulebook(a.coords, [[0.0, 1]]),
        r"^offsets .*integer.*float64",
    ),
    # weights
    "weight_dtype": (
        lambda a: spcy.subm_conv(a.x, a.weight.astype(float)),
        r"^weight .*float32.*got float64",
    ),
    "weight_int": (lambda a: spcy.conv_transpose(a.x, a.weight.astype(int)), r"^weight .*float32.*got int64"),
    "residual_type": (
        lambda a: spcy.subm_conv(a.x, a.weight, residual=a.x.features),
        r"^residual .*SparseTensor.*ndarray",
    ),
    "residual_dtype": (
        lambda a: spcy.subm_conv(
            a.x, a.weight, residual=spcy.subm_conv(a.x, a.weight).map(lambda f: f.astype(np.float64))
        ),
        r"^residual .*float32.*got float64",
    ),
    "bias_dtype": (lambda a: spcy.conv(a.x, a.weight, a.bias.astype(float)), r"^bias .*float32.*got float64"),
    "x_array": (lambda a: spcy.conv(a.features, a.weight), r"^x .*SparseTensor.*got ndarray"),
    # geometry
    "groups_float": (lambda a: spcy.conv(a.x, a.weight, groups=1.0), r"^groups .*int.*float"),
    "offsets_of_floats": (
        lambda a: spcy.subm_conv(a.x, a.square.reshape(9, 3, 3), offsets=get(a.points)),
        r"^offsets .*integer.*float64",
    ),
    "stride_float": (lambda a: spcy.conv(a.x, a.weight, stride=2.0), r"^stride .*int.*float"),
    # levels
    "inverse_to_array": (lambda a: spcy.inverse_conv(a.child, a.weight, to=a.indices), r"^to .*got ndarray"),
    # voxels
    "points_int": (lambda a: spcy.voxelize(a.indices, 1), r"^points .*float32 or float64.*int32"),
    "point_batch_float": (
        lambda a: spcy.voxelize(a.points, 1, batch=a.points[:, 0]),
        r"^batch .*integer.*float64",
    ),
    # the rest
    "threads_float": (lambda a: spcy.set_num_threads(2.0), r"^n .*float"),
}
CASES = [
    *[(ValueError, *case) for case in VALUE_ERRORS.items()],
    *[(TypeError, *case) for case in TYPE_ERRORS.items()],
]


@pytest.mark.parametrize(
    ("error", "call", "message"), [pytest.param(error, *case, id=name) for error, name, case in CASES]
)
def test_bad_argument(error, call, message):
    a = material()
    before = {
        name: get(v).copy() for name, v in vars(a).items() if hasattr(v, "dtype") and hasattr(v, "flags")
    }
    features = [get(t.features).copy() for t in (a.x, a.child)]
    with pytest.raises(error, match=message):
        call(a)
    assert len(before) == 10
    for name, array in before.items():
        np.testing.assert_array_equal(get(getattr(a, name)), array)
    for tensor, array in zip((a.x, a.child), features, strict=True):
        np.testing.assert_array_equal(get(tensor.features), array)
    # A failed call leaves nothing behind: the same coords still work.
    y = spcy.conv(a.x, a.square, stride=2, padding=1)
    assert y.coords is a.child.coords
    np.testing.assert_array_equal(get(y.features), features[1])


def test_features_that_were_reshaped_are_refused():
    features = np.zeros((4, 3), np.float32)
    x = spcy.SparseTensor(put(np.array([[0, i] for i in range(4)])), put(features))
    if x.backend == "cpu":
        x.features.resize((2, 6), refcheck=False)
        for call in (lambda: spcy.subm_conv(x, np.zeros((3, 6, 2), np.float32)), lambda: spcy.max_pool(x, 2)):
            with pytest.raises(ValueError, match=r"^x must have 4 rows of features, got 2"):
                call()


def test_offsets_of_too_many_remainders_are_refused(backend):
    if backend == "cuda":
        pytest.skip("the CUDA builder has no table of remainders")
    offsets = np.stack([np.arange(30_000), np.random.default_rng(0).integers(0, 30_000, 30_000)], axis=1)
    with pytest.raises(ValueError, match=r"^offsets have too many different remainders"):
        spcy.conv_rulebook(spcy.Coords([[0, 0, 0]]), offsets, stride=(1, 30_000))


def test_a_bad_call_changes_no_setting():
    threads, backend = spcy.get_num_threads(), spcy.get_backend()
    for bad in (0, -1, 1.5, "2", True):
        with pytest.raises((ValueError, TypeError), match=r"^n "):
            spcy.set_num_threads(bad)
    with pytest.raises(ValueError, match=r"^backend "):
        spcy.set_backend("tpu")
    assert (spcy.get_num_threads(), spcy.get_backend()) == (threads, backend)


def test_too_many_output_sites_are_refused_before_they_are_made():
    """One site, a window of 2**33 cells."""
    x = spcy.SparseTensor(put(np.array([[0, 0, 0, 0]])), put(np.ones((1, 1), np.float32)))
    with pytest.raises(ValueError, match=r"^kernel_size .*2147483647"):
        spcy.max_pool(x, (2048, 2048, 2048), 1)
