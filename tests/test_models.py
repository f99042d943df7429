"""Networks of other libraries: the same outputs from the same weights."""

from pathlib import Path

import numpy as np
import pytest
import reference_networks
import seeded
from helpers import get, put

import spcy
from spcy import models

DATA = Path(__file__).parent / "data"


def as_spconv2(array):
    """(C_out, *kernel_size, C_in)."""
    return np.moveaxis(array, -1, 0)


def as_spconv1(array):
    return array


def as_spconv2_native(array):
    return array.swapaxes(-1, -2)


def library_state(net, seed, convolution, rename=lambda name, value: name):
    """Seeded weights under a library's names, in its layout, for the shapes of a network."""
    shapes = {}
    for name, array in net.state_dict().items():
        shape = (
            convolution(array).shape if array.ndim > 2 else array.T.shape if array.ndim == 2 else array.shape
        )
        shapes[rename(name, array)] = shape
    return seeded.state(shapes, seed)


def compare(y, indices, features, tolerance=1e-5):
    """The same sites in any order, and close features, relative to the largest."""
    rows = get(y.rows_of(put(np.ascontiguousarray(indices, np.int32))))
    assert sorted(rows) == list(range(y.num_sites))
    expected = np.empty_like(features)
    expected[rows] = features
    np.testing.assert_allclose(get(y.features), expected, rtol=0, atol=tolerance * abs(features).max())


# The lidar backbones, beside outputs that spconv 2.3.8 gave (see peers/spconv_networks.py)

BACKBONES = {models.VoxelBackBone8x: (4, 30, 1), models.VoxelResBackBone8x: (5, 20, 2)}
GRID = (41, 24, 24)


def backbone_state(network, as_library=as_spconv2):
    in_channels, _, seed = BACKBONES[network]
    state = library_state(network(in_channels), seed, as_spconv2)
    return {n: as_library(np.moveaxis(a, 0, -1)) if a.ndim > 1 else a for n, a in state.items()}


def backbone_input(network):
    in_channels, num_sites, seed = BACKBONES[network]
    indices, features = seeded.scene(GRID, num_sites, in_channels, seed)
    return spcy.SparseTensor(indices, features, shape=GRID, batch_size=2)


SPCONV = {"spconv1": as_spconv1, "spconv2.0": as_spconv2_native, "spconv2": as_spconv2}


@pytest.mark.parametrize("source", SPCONV)
@pytest.mark.parametrize("network", BACKBONES)
def test_backbone_gives_what_spconv_gave(network, source):
    state = backbone_state(network, SPCONV[source])
    state["conv_input.1.num_batches_tracked"] = np.array(7)
    net = network.from_state_dict(state, source)
    assert net.arguments == {"in_channels": BACKBONES[network][0]}
    y = net(backbone_input(network))
    with np.load(DATA / "spconv_networks.npz") as archive:
        for name in models.BackboneFeatures._fields:
            key = f"{network.__name__}/{name}"
            compare(getattr(y, name), archive[f"{key}_indices"], archive[f"{key}_features"])
    assert y.output.shape == (2, 3, 3)
    assert y.x_conv4.coords.parent is y.x_conv3.coords


@pytest.mark.parametrize("source", SPCONV)
def test_openpcdet_checkpoints_are_of_any_spconv(source):
    network = models.VoxelBackBone8x
    state = backbone_state(network, SPCONV[source])
    detector = {f"backbone_3d.{name}": array for name, array in state.items()}
    detector |= {"dense_head.conv_cls.weight": np.zeros((2, 3, 1, 1)), "vfe.x": np.zeros(1)}
    expected = network.from_state_dict(state, source).state_dict()
    for given in (state, detector):
        found = network.from_state_dict(given, "openpcdet").state_dict()
        assert list(found) == list(expected)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_mink_unet_is_spconvs():
    """MinkowskiEngine's network, beside what it gave built of spconv's layers (peers/spconv_networks.py)."""
    net = models.MinkUNet(3, 5, "14A", rng=0)
    state = library_state(net, 3, as_spconv2)
    for name, array in state.items():
        if array.ndim == 5:
            stride = 2 if "s2" in name else 1
            state[name] = spcy.convert_weight(array, "spconv2", array.shape[1:-1], stride=stride)
    net.load_state_dict(state)
    indices, features = seeded.scene((32, 32, 48), 60, 3, 3)
    y = net.eval()(spcy.SparseTensor(indices, features, shape=(32, 32, 48), batch_size=2))
    with np.load(DATA / "spconv_networks.npz") as archive:
        compare(y, archive["MinkUNet14A/output_indices"], archive["MinkUNet14A/output_features"])


def test_backbone_vjp():
    """Gradients through every level at once are those of a small step."""
    net = models.VoxelBackBone8x(4, rng=0).eval().astype(np.float64)
    x = backbone_input(models.VoxelBackBone8x)
    x = x.replace(x.features.astype(np.float64))
    rng = np.random.default_rng(0)
    y, vjp = net.vjp(x)
    dy = [rng.standard_normal(t.features.shape) for t in y]
    dy[3] = None
    (dx,) = vjp(dy)

    def total(features):
        y = net(x.replace(features))
        return sum(float((g * t.features).sum()) for g, t in zip(dy, y, strict=True) if g is not None)

    step = 1e-6 * rng.standard_normal(x.features.shape)
    change = total(x.features + step) - total(x.features - step)
    assert change == pytest.approx(2 * float((dx * step).sum()), rel=1e-4)
    assert set(net.parameters()) == {n for n, p in net.parameters().items() if p.grad is not None}


# The U-Nets, beside plain loops from their libraries' definitions


def cells(array, first_fastest):
    """(K, C_in, C_out) in a library's order of kernel cells; a matrix where K is 1."""
    axes = range(array.ndim - 2)
    order = [*(reversed(axes) if first_fastest else axes), array.ndim - 2, array.ndim - 1]
    flat = array.transpose(order).reshape(-1, *array.shape[-2:])
    return flat[0] if len(flat) == 1 else flat


def minkowski_name(name, array):
    parts = name.split(".")
    if any(part.startswith(("bn", "norm")) for part in parts) or ".downsample.1." in name:
        return ".".join([*parts[:-1], "bn", parts[-1]])
    return name.replace(".weight", ".kernel")


def scene(ndim, channels, seed):
    """Sites on both sides of 0, in two batches."""
    indices, features = seeded.scene((14,) * ndim, 40, channels, seed)
    return indices - np.r_[0, [7] * ndim].astype(np.int32), features


def check_unet(net, expected, ndim, channels, seed):
    indices, features = scene(ndim, channels, seed)
    level = expected(reference_networks.Level(indices, np.float64(features), 1))
    x = spcy.SparseTensor(put(indices), put(features))
    y = net(x)
    assert y.coords is x.coords
    np.testing.assert_array_equal(level.coords, indices)
    assert abs(level.features).max() > 0.05
    compare(y, indices, level.features, 2e-5)


@pytest.mark.parametrize(
    ("variant", "ndim", "stem"), [("14A", 3, 5), ("14C", 2, 3), ("18B", 2, 5), ("34C", 2, 5)]
)
def test_minkunet_of_minkowski_engine(variant, ndim, stem):
    shape = models.MinkUNet(3, 7, variant, stem, ndim)
    state = library_state(shape, 5, lambda a: cells(a, True), minkowski_name)
    state["final.bias"] = state["final.bias"][None]
    state["bn0.bn.num_batches_tracked"] = np.array(7)
    net = models.MinkUNet.from_state_dict(
        state, "minkowski", variant=variant, stem_kernel_size=stem, ndim=ndim
    )
    library = reference_networks.MinkowskiEngine(state)
    check_unet(net, lambda x: library.minkunet(x, stem), ndim, 3, 5)


def torchsparse_name(name, array):
    return name.replace(".weight", ".kernel") if array.ndim > 2 else name


@pytest.mark.parametrize(("width", "ndim"), [(0.5, 3), (1.0, 2)])
def test_minkunet_of_torchsparse(width, ndim):
    shape = models.MinkUNet42(4, 7, width, ndim)
    state = library_state(shape, 6, lambda a: cells(a, a.shape[0] % 2 == 1), torchsparse_name)
    state["point_transforms.0.0.weight"] = np.zeros((2, 2))  # of layers that the network never calls
    net = models.MinkUNet42.from_state_dict(state, "torchsparse", width=width, ndim=ndim)
    assert net.arguments["in_channels"], net.arguments["out_channels"] == (4, 7)
    check_unet(net, reference_networks.TorchSparse(state).minkunet, ndim, 4, 6)


def test_minkunet_with_kernels_of_torchsparse():
    """The architecture of MinkowskiEngine's example, with the other order of even kernels' cells."""
    shape = models.MinkUNet(3, 7, "14A", 3, 2)
    state = library_state(
        shape,
        8,
        lambda a: cells(a, a.shape[0] % 2 == 1),
        lambda n, a: n.replace(".weight", ".kernel") if a.ndim > 2 else n,
    )

    class Ported(reference_networks.MinkowskiEngine):
        norms = reference_networks.TorchSparse.norms
        first_fastest = reference_networks.TorchSparse.first_fastest

    net = models.MinkUNet.from_state_dict(state, "torchsparse", variant="14A", stem_kernel_size=3, ndim=2)
    check_unet(net, lambda x: Ported(state).minkunet(x, 3), 2, 3, 8)


def scn_name(name, array):
    return name.replace("running_mean", "runningMean").replace("running_var", "runningVar")


def groups(array):
    flat = cells(array, False)
    return flat if flat.ndim == 2 else flat[:, None]


def check_scn_unet(channels, reps, residual, ndim):
    state = library_state(models.SparseConvNetUNet(3, 7, channels, reps, residual, ndim), 7, groups, scn_name)
    net = models.SparseConvNetUNet.from_state_dict(
        state, "sparseconvnet", channels=channels, reps=reps, residual_blocks=residual, ndim=ndim
    )
    library = reference_networks.SparseConvNet(state)
    check_unet(net, lambda x: library.unet(x, len(channels), reps, residual), ndim, 3, 7)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("reps", "ndim"), [(1, 3), (2, 2)])
def test_unet_of_sparseconvnet(residual, reps, ndim):
    check_scn_unet([8, 16, 24, 32], reps, residual, ndim)


@pytest.mark.usefixtures("backend")
def test_a_network_on_every_backend():
    check_scn_unet([8, 16], 1, False, 2)


def test_the_published_sizes():
    """MinkowskiNet of the SPVNAS paper has 21.7 million parameters, MinkUNet34C 37.9 million."""
    sizes = {
        21.7: models.MinkUNet42(4, 19, rng=0),
        37.9: models.MinkUNet(3, 20, "34C", rng=0),
    }
    for millions, net in sizes.items():
        assert round(sum(p.data.size for p in net.parameters().values()) / 1e6, 1) == millions


# What does not fit


def test_a_state_that_does_not_fit_is_reported_name_by_name():
    network = models.VoxelBackBone8x
    state = backbone_state(network)
    del state["conv4.2.1.running_mean"]
    state["conv4.2.1.runing_mean"] = np.zeros(64, np.float32)
    state["conv2.0.0.weight"] = np.moveaxis(state["conv2.0.0.weight"], 0, -1)
    state["conv1.0.1.bias"] = np.zeros(3, np.float32)
    state["conv_out.0.weight"] = state["conv_out.0.weight"][:100]
    state["conv_out.1.weight"] = np.ones(128, int)
    with pytest.raises(ValueError, match=r"^state must fit VoxelBackBone8x with source='spconv2'") as caught:
        network.from_state_dict(state, "spconv2")
    assert str(caught.value).splitlines()[1:] == [
        "  conv1.0.1.bias: expected shape (16,), got (3,)",
        "  conv2.0.0.weight must have shape (C_out, 3, 3, 3, C_in) for source='spconv2', "
        "got (3, 3, 3, 16, 32)",
        "  conv4.2.1.running_mean: missing",
        "  conv_out.0.weight: expected shape (3, 1, 1, 64, 128) as (*kernel_size, C_in, C_out), "
        "got (3, 1, 1, 64, 100)",
        "  conv_out.1.weight: expected floating-point numbers, got int64",
        "  conv4.2.1.runing_mean: unexpected",
    ]


@pytest.mark.parametrize("network", BACKBONES)
def test_another_layout_is_never_taken(network):
    for source, layout in SPCONV.items():
        state = backbone_state(network, layout)
        for other in SPCONV.keys() - {source}:
            with pytest.raises(ValueError, match=f"source='{other}'"):
                network.from_state_dict(state, other)


def test_bad_sources_and_arguments():
    state = backbone_state(models.VoxelBackBone8x)
    with pytest.raises(ValueError, match=r"^source must be one of 'spconv1', .*got 'minkowski'"):
        models.VoxelBackBone8x.from_state_dict(state, "minkowski")
    with pytest.raises(ValueError, match="60 names that do not"):
        models.VoxelBackBone8x.from_state_dict({}, "openpcdet")
    with pytest.raises(ValueError, match=r"conv_input.0.weight: expected shape \(3, 3, 3, 5, 16\)"):
        models.VoxelBackBone8x.from_state_dict(state, "spconv2", in_channels=5)
    with pytest.raises(ValueError, match=r"^variant must be one of '14A', .*got '50A'"):
        models.MinkUNet(3, 20, "50A")
    with pytest.raises(TypeError, match=r"^state must have names as keys, got 0 of type int"):
        models.VoxelBackBone8x.from_state_dict({0: 1.0}, "openpcdet")


def test_half_precision_weights_become_single():
    state = backbone_state(models.VoxelBackBone8x)
    halves = {name: array.astype(np.float16) for name, array in state.items()}
    net = models.VoxelBackBone8x.from_state_dict(halves, "spconv2")
    for name, array in net.state_dict().items():
        assert array.dtype == np.float32
        expected = halves[name] if array.ndim == 1 else np.moveaxis(halves[name], 0, -1)
        np.testing.assert_array_equal(array, expected.astype(np.float32))
    assert not any(module.training for module in net.modules().values())


UNETS = {
    "minkowski": lambda: models.MinkUNet(2, 3, "14A", 3, 2, rng=0),
    "torchsparse": lambda: models.MinkUNet42(2, 3, 0.25, 2, rng=0),
    "scn": lambda: models.SparseConvNetUNet(2, 3, [8, 16, 24], 1, False, 2, rng=0),
    "scn_residual": lambda: models.SparseConvNetUNet(2, 3, [8, 16], 2, True, 2, rng=0),
}


@pytest.mark.parametrize("case", UNETS)
def test_vjp_of_the_unets(case):
    """The gradient along a small step is the change of the output, and reaches every parameter."""
    net = UNETS[case]().eval().astype(np.float64)
    indices, features = scene(2, 2, 9)
    x = spcy.SparseTensor(indices, features.astype(np.float64))
    rng = np.random.default_rng(0)
    y, vjp = net.vjp(x)
    dy = rng.standard_normal(y.features.shape)
    (dx,) = vjp(dy)
    step = 1e-6 * rng.standard_normal(features.shape)
    change = (
        dy * (net(x.replace(x.features + step)).features - net(x.replace(x.features - step)).features)
    ).sum()
    assert change == pytest.approx(2 * (dx * step).sum(), rel=1e-4)
    assert all(parameter.grad is not None for parameter in net.parameters().values())
