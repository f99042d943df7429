"""The lidar backbones and MinkUNet beside spconv itself, where it is installed.

`test_models.py` has what it gave once.

python -m venv peers && peers/bin/pip install . pytest torch spconv && peers/bin/pytest tests/peers
"""

from pathlib import Path

import numpy as np
import pytest
import seeded

import spcy

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
pytest.importorskip("spconv", reason="spconv is not installed here")
networks = pytest.importorskip("spconv_networks")

KEPT = Path(__file__).parents[1] / "data" / "spconv_networks.npz"


@pytest.mark.parametrize("case", networks.CASES)
def test_whole_backbone(case, tmp_path):
    """From a checkpoint as OpenPCDet writes it, through spcy's reader, to spconv's outputs."""
    _, in_channels, shape, num_sites, seed = networks.CASES[case]
    arrays, state = networks.run(case, *networks.CASES[case])
    detector = {f"backbone_3d.{name}": tensor for name, tensor in state.items()}
    detector["dense_head.conv_cls.weight"] = torch.zeros(2, 3, 1, 1)
    torch.save({"epoch": 80, "it": 10, "model_state": detector}, tmp_path / "detector.pth")

    loaded = spcy.load_weights(tmp_path / "detector.pth", key="model_state")
    net = getattr(spcy.models, case).from_state_dict(loaded, "openpcdet")
    indices, features = seeded.scene(shape, num_sites, in_channels, seed)
    y = net(spcy.SparseTensor(indices, features, shape=shape, batch_size=2))
    with np.load(KEPT) as kept:
        assert {key for key in kept if key.startswith(case)} == set(arrays)
        for name, tensor in y._asdict().items():
            rows = tensor.rows_of(arrays[f"{case}/{name}_indices"].astype(np.int32))
            assert sorted(rows) == list(range(tensor.num_sites))
            expected = arrays[f"{case}/{name}_features"]
            atol = 1e-5 * abs(expected).max()
            np.testing.assert_allclose(tensor.features[rows], expected, rtol=0, atol=atol)
            np.testing.assert_allclose(kept[f"{case}/{name}_features"], expected, rtol=0, atol=atol)
    assert list(net.state_dict()) == [name for name in state if not name.endswith("num_batches_tracked")]


@pytest.mark.parametrize("case", networks.U_NETS)
def test_whole_u_net(case):
    """MinkowskiEngine's network built of spconv's layers, its weights converted one by one."""
    _, in_channels, shape, num_sites, seed = networks.U_NETS[case]
    arrays, state = networks.run(case, *networks.U_NETS[case])
    net = spcy.models.MinkUNet(in_channels, 5, case.removeprefix("MinkUNet"))
    net.load_state_dict(
        {
            name: spcy.convert_weight(t.numpy(), "spconv2", t.shape[1:-1], stride=2 if "s2" in name else 1)
            if t.ndim == 5
            else t.numpy()
            for name, t in state.items()
        }
    )
    indices, features = seeded.scene(shape, num_sites, in_channels, seed)
    y = net.eval()(spcy.SparseTensor(indices, features, shape=shape, batch_size=2))
    rows = y.rows_of(arrays[f"{case}/output_indices"].astype(np.int32))
    assert sorted(rows) == list(range(y.num_sites))
    expected = arrays[f"{case}/output_features"]
    atol = 1e-5 * abs(expected).max()
    np.testing.assert_allclose(y.features[rows], expected, rtol=0, atol=atol)
    with np.load(KEPT) as kept:
        np.testing.assert_allclose(kept[f"{case}/output_features"], expected, rtol=0, atol=atol)


def layers(spconv):
    """Pairs of a layer of spconv and one of ours, for every kind of convolution."""
    nn = spcy.nn
    return {
        "subm": (spconv.SubMConv3d(4, 6, 3), nn.SubMConv(4, 6, 3)),
        "subm_1": (spconv.SubMConv3d(4, 6, 1), nn.SubMConv(4, 6, 1)),
        "subm_135": (spconv.SubMConv3d(4, 6, (1, 3, 5)), nn.SubMConv(4, 6, (1, 3, 5))),
        "conv": (spconv.SparseConv3d(4, 6, 3, 2, 1), nn.Conv(4, 6, 3, 2, 1)),
        "conv_1_s2": (spconv.SparseConv3d(4, 6, 1, 2), nn.Conv(4, 6, 1, 2)),
        "conv_1": (spconv.SparseConv3d(4, 6, 1), nn.Conv(4, 6, 1)),
        "transpose": (spconv.SparseConvTranspose3d(4, 6, 3, 2, 1), nn.ConvTranspose(4, 6, 3, 2, 1)),
    }


@pytest.mark.parametrize("case", layers(networks.spconv))
def test_layer_with_its_weight(case):
    torch.manual_seed(0)
    theirs, ours = layers(networks.spconv)[case]
    weight = theirs.weight.detach().numpy()
    stride = tuple(theirs.stride)
    ours.load_state_dict(
        {
            "weight": spcy.convert_weight(weight, "spconv2", ours.kernel_size, stride=stride),
            "bias": theirs.bias.detach().numpy(),
        }
    )
    indices, features = seeded.scene((9, 8, 7), 40, 4, 3)
    tensors = torch.from_numpy(features), torch.from_numpy(indices)
    with torch.no_grad():
        expected = theirs.train()(networks.spconv.SparseConvTensor(*tensors, [9, 8, 7], 2))
    y = ours(spcy.SparseTensor(indices, features, shape=(9, 8, 7), batch_size=2))
    assert y.shape == tuple(expected.spatial_shape)
    rows = y.rows_of(expected.indices.numpy())
    assert sorted(rows) == list(range(y.num_sites))
    np.testing.assert_allclose(y.features[rows], expected.features.numpy(), rtol=0, atol=1e-5)
