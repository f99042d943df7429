"""The outputs of real libraries for small inputs, matched by coordinates.

All cases of both files are compared.
"""

import ast
from pathlib import Path

import numpy as np
import pytest
from helpers import get, put

import spcy

FOLDER = Path(__file__).parents[2] / "shared" / "golden"

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the golden vectors are not part of the repository"),
]


class Case:
    """The arrays of one case by name, with spcy's tensors made of them."""

    def __init__(self, library, name):
        with np.load(FOLDER / f"{library}.npz") as archive:
            self.arrays = {k.split("/")[1]: archive[k] for k in archive.files if k.split("/")[0] == name}
        self.meta = ast.literal_eval(str(self.arrays["meta"])) if "meta" in self.arrays else {}

    def __getitem__(self, name):
        return self.arrays[name]

    def get(self, name):
        return put(self.arrays[name].reshape(-1)) if name in self.arrays else None


def compare(indices, features, expected_indices, expected_features):
    """Same sites in any order, and close features."""
    order = [np.lexsort(get(i).T[::-1]) for i in (indices, expected_indices)]
    np.testing.assert_array_equal(get(indices)[order[0]], expected_indices[order[1]])
    atol = 2e-5 * max(1, abs(expected_features).max())
    np.testing.assert_allclose(get(features)[order[0]], expected_features[order[1]], rtol=0, atol=atol)


# spconv: indices (batch, z, y, x), weights (C_out, *kernel_size, C_in).


def spconv_tensor(case):
    return spcy.SparseTensor(
        put(case["in_indices"]),
        put(case["in_features"]),
        shape=case["in_shape"],
        batch_size=int(case["batch"]),
    )


def krsc(weight):
    return put(np.ascontiguousarray(np.moveaxis(weight, 0, -1)))


SPCONV = {
    "subm3": lambda x, w, b: spcy.subm_conv(x, w, b),
    "subm_531": lambda x, w, b: spcy.subm_conv(x, w, b),
    "subm1": lambda x, w, b: spcy.subm_conv(x, w, b),
    "conv3_s2p1": lambda x, w, b: spcy.conv(x, w, b, stride=2, padding=1),
    "conv2_s2": lambda x, w, b: spcy.conv(x, w, b, stride=2),
    "conv1_s2": lambda x, w, b: spcy.conv(x, w, b, stride=2),
    "convT3_s2p1": lambda x, w, b: spcy.conv_transpose(x, w, b, stride=2, padding=1),
    "maxpool2": lambda x, w, b: spcy.max_pool(x, 2, empty="zero"),
    "maxpool2_neg": lambda x, w, b: spcy.max_pool(x, 2, empty="zero"),
}


@pytest.mark.parametrize("name", SPCONV)
def test_spconv(name):
    case = Case("spconv238_cpu", name)
    weight = None
    if name == "subm1":  # spconv reads the memory of this one (C_out, 1, 1, 1, C_in) array as (C_in, C_out)
        weight = put(case["weight"].reshape(1, 1, 1, 4, 6))
    elif "weight" in case.arrays:
        weight = krsc(case["weight"])
    y = SPCONV[name](spconv_tensor(case), weight, case.get("bias"))
    compare(y.indices, y.features, case["out_indices"], case["out_features"])
    assert y.shape == tuple(case["out_shape"])


def test_spconv_inverse():
    case = Case("spconv238_cpu", "inverse3_s2p1")
    x = spconv_tensor(case)
    down = spcy.conv(x, krsc(case["down_weight"]), stride=2, padding=1)
    compare(down.indices, down.features, case["down_out_indices"], case["down_out_features"])
    y = spcy.inverse_conv(down, krsc(case["weight"]))
    compare(y.indices, y.features, case["out_indices"], case["out_features"])
    assert y.coords is x.coords


# MinkowskiEngine: absolute coordinates (batch, x, y, z) on an unbounded grid, kernels (K, C_in, C_out) with
# the first axis fastest; odd kernels are centred, even ones start at 0.


def me_tensor(case):
    """Return the tensor with its coordinates divided by the tensor stride."""
    indices = divided(case["in_coords"], case["in_tensor_stride"])
    return spcy.SparseTensor(put(indices), put(case["in_features"]))


def divided(coords, tensor_stride):
    assert not (coords[:, 1:] % tensor_stride).any()
    return coords // np.r_[1, tensor_stride].astype(np.int32)


def cube(kernel, size):
    return put(
        np.ascontiguousarray(kernel.reshape(size, size, size, *kernel.shape[1:]).transpose(2, 1, 0, 3, 4))
    )


# The order of its HYPER_CROSS: the middle, then one step forth and back along each axis.
CROSS = [[0, 0, 0], *(sign * axis for axis in np.eye(3, dtype=int) for sign in (1, -1))]

ME = {
    "conv3": lambda x, case: spcy.subm_conv(x, cube(case["kernel"], 3)),
    "conv2_s2": lambda x, case: spcy.conv(
        x, cube(case["kernel"], 2), case.get("bias"), stride=2, sites="floor"
    ),
    "conv3_s2": lambda x, case: spcy.conv(x, cube(case["kernel"], 3), stride=2, padding=1, sites="floor"),
    "cross3": lambda x, case: spcy.subm_conv(x, put(case["kernel"]), offsets=CROSS),
    "conv3_expand": lambda x, case: spcy.conv(x, cube(case["kernel"], 3), padding=1),
    "genT2_s2": lambda x, case: spcy.conv_transpose(x, cube(case["kernel"], 2), stride=2),
    "maxpool2_s2": lambda x, case: spcy.max_pool(x, 2, sites="floor"),
    "avgpool2_s2": lambda x, case: spcy.avg_pool(x, 2, sites="floor"),
}


@pytest.mark.parametrize("name", ME)
def test_minkowski(name):
    case = Case("me054_cpu", name)
    y = ME[name](me_tensor(case), case)
    compare(
        y.indices, y.features, divided(case["out_coords"], case["out_tensor_stride"]), case["out_features"]
    )


def test_minkowski_transposed_back_to_a_known_level():
    case = Case("me054_cpu", "convT2_s2_reuse")
    x = spcy.SparseTensor(put(case["out_coords"]), put(np.ones((60, 5), np.float32)))
    down = spcy.max_pool(x, 2)
    coarse = divided(case["in_coords"], case["in_tensor_stride"])
    rows = get(down.rows_of(put(coarse)))
    assert sorted(rows) == list(range(down.num_sites))
    features = np.empty((len(rows), 5), np.float32)
    features[rows] = case["in_features"]
    y = spcy.inverse_conv(down.replace(put(features)), cube(case["kernel"], 2))
    compare(y.indices, y.features, case["out_coords"], case["out_features"])


def test_minkowski_interpolation():
    """It interpolates between the low corners of cells and takes an empty corner for 0."""
    case = Case("me054_cpu", "interp")
    x = spcy.SparseTensor(put(case["in_coords"]), put(case["in_features"]))
    batch, points = put(case["q"][:, 0].astype(int)), put(case["q"][:, 1:] + np.float32(0.5))
    out = spcy.devoxelize(x, points, "linear", batch=batch, renormalize=False)
    np.testing.assert_allclose(get(out), case["out"], atol=2e-5)
    scaled = spcy.devoxelize(x, points, "linear", batch=batch)
    assert abs(get(scaled) - case["out"]).max() > 0.1
