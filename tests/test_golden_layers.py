"""The golden outputs again, through `spcy.nn` and `spcy.convert_weight`."""

import pytest
from test_golden import FOLDER, Case, compare, divided, me_tensor, spconv_tensor

import spcy
from spcy import nn

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the golden vectors are not part of the repository"
)


def loaded(layer, case, source, weight, bias="bias"):
    """A layer with a case's weight and bias."""
    stride = layer._geometry.get("stride", 1)
    state = {"weight": spcy.convert_weight(case[weight], source, layer.kernel_size, stride=stride)}
    if layer.bias is not None:
        state["bias"] = case[bias].reshape(-1)
    layer.load_state_dict(state)
    return layer.eval()


SPCONV = {
    "subm3": lambda a, b, bias: nn.SubMConv(a, b, 3, bias=bias),
    "subm_531": lambda a, b, bias: nn.SubMConv(a, b, (5, 3, 1), bias=bias),
    "subm1": lambda a, b, bias: nn.SubMConv(a, b, 1, bias=bias),
    "conv3_s2p1": lambda a, b, bias: nn.Conv(a, b, 3, 2, 1, bias=bias),
    "conv2_s2": lambda a, b, bias: nn.Conv(a, b, 2, 2, bias=bias),
    "conv1_s2": lambda a, b, bias: nn.Conv(a, b, 1, 2, bias=bias),
    "convT3_s2p1": lambda a, b, bias: nn.ConvTranspose(a, b, 3, 2, 1, bias=bias),
}


@pytest.mark.parametrize("name", SPCONV)
def test_spconv(name):
    case = Case("spconv238_cpu", name)
    weight = case["weight"]
    layer = SPCONV[name](weight.shape[-1], weight.shape[0], "bias" in case.arrays)
    y = loaded(layer, case, "spconv2", "weight")(spconv_tensor(case))
    compare(y.indices, y.features, case["out_indices"], case["out_features"])
    assert y.shape == tuple(case["out_shape"])


def test_spconv_inverse():
    case = Case("spconv238_cpu", "inverse3_s2p1")
    a, b, c = case["down_weight"].shape[-1], case["weight"].shape[-1], case["weight"].shape[0]
    down = loaded(nn.Conv(a, b, 3, 2, 1, bias=False), case, "spconv2", "down_weight")
    up = loaded(nn.InverseConv(b, c, 3, bias=False), case, "spconv2", "weight")
    x = spconv_tensor(case)
    y = nn.Sequential(down, up)(x)
    compare(y.indices, y.features, case["out_indices"], case["out_features"])
    assert y.coords is x.coords


MINKOWSKI = {
    "conv3": lambda a, b, bias: nn.SubMConv(a, b, 3, bias=bias),
    "conv2_s2": lambda a, b, bias: nn.Conv(a, b, 2, 2, bias=bias),
    "conv3_expand": lambda a, b, bias: nn.Conv(a, b, 3, padding=1, bias=bias),
    "genT2_s2": lambda a, b, bias: nn.ConvTranspose(a, b, 2, 2, bias=bias),
}


@pytest.mark.parametrize("name", MINKOWSKI)
def test_minkowski(name):
    case = Case("me054_cpu", name)
    layer = MINKOWSKI[name](*case["kernel"].shape[-2:], "bias" in case.arrays)
    y = loaded(layer, case, "minkowski", "kernel")(me_tensor(case))
    sites = divided(case["out_coords"], case["out_tensor_stride"])
    compare(y.indices, y.features, sites, case["out_features"])
