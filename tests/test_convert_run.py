"""From another library's checkpoint and a scan to a network's outputs, on the command line."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch_files
from test_models import (
    BACKBONES,
    backbone_state,
    cells,
    library_state,
    scn_name,
    torchsparse_name,
)

import spcy
from spcy import _checkpoint, models
from spcy.__main__ import main

BOUNDS = ((0.0, -1.2, -2.0), (2.4, 1.2, 2.0))  # 24 x 24 x 40 voxels
VOXEL = (0.1, 0.1, 0.1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scan(num_points=3000, columns=4):
    rng = np.random.default_rng(0)
    points = rng.uniform([-0.5, -1.5, -2.2], [3, 1.5, 2.2], (num_points, 3))
    points[:, 2] = np.sin(points[:, 0]) + 0.01 * points[:, 2]
    return np.column_stack([points, rng.random((num_points, columns - 3))]).astype(np.float32)


def run_spcy(capsys, *arguments):
    """Return (exit status, what it printed, the error)."""
    try:
        status = main([str(a) for a in arguments])
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    return status, out, [line for line in err.splitlines() if not line.endswith(" ms")]


def backbone_options(network=models.VoxelBackBone8x):
    flat = [str(value) for side in BOUNDS for value in side]
    return [
        "--network",
        network.__name__,
        "--voxel-size",
        *map(str, VOXEL),
        "--bounds",
        *flat,
        "-o",
        "model.npz",
    ]


def write_detector(network=models.VoxelBackBone8x):
    state = backbone_state(network)
    detector = {f"backbone_3d.{name}": array for name, array in state.items()}
    torch_files.save("detector.pth", {"epoch": 80, "model_state": detector})
    return state


@pytest.mark.parametrize("network", BACKBONES)
def test_a_detector_from_checkpoint_to_outputs(network, folder, capsys):
    in_channels = BACKBONES[network][0]
    state = write_detector(network)
    options = [*backbone_options(network), "--source", "openpcdet", "--key", "model_state", "--max-points", 5]
    status, out, err = run_spcy(capsys, "convert", "detector.pth", *options)
    assert (status, err) == (0, [])
    assert out.startswith(f"model.npz: {network.__name__}, ")
    points = scan(columns=in_channels)
    if in_channels == 4:
        points.tofile("scan.bin")
    else:
        np.save("scan.npy", points)
    name = "scan.bin" if in_channels == 4 else "scan.npy"
    status, out, err = run_spcy(capsys, "run", "model.npz", name, "-o", "out.npz")
    assert (status, err) == (0, [])
    lines = out.splitlines()
    assert lines[0].startswith(f"{name}: 3000 points, ")
    assert lines[-1] == "out.npz"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [name, "detector.pth", "model.npz", "out.npz"]
    )

    # By hand, as the detector defines its input: means of at most 5 points, on z, y, x, 41 cells high.
    low, high = np.float32(BOUNDS[0]), np.float32(BOUNDS[1])
    inside = ((points[:, :3] >= low) & (points[:, :3] < high)).all(1)
    cell = np.floor((np.float64(points[:, :3]) - BOUNDS[0]) / VOXEL).astype(int)
    voxels = {}
    for row in np.flatnonzero(inside):
        voxels.setdefault((0, *cell[row, ::-1]), []).append(row)
    features = np.stack([points[rows[:5]].astype(np.float64).mean(0) for rows in voxels.values()])
    x = spcy.SparseTensor(
        np.array(list(voxels)), features.astype(np.float32), shape=(41, 24, 24), batch_size=1
    )
    expected = network.from_state_dict(state, "spconv2")(x)
    with np.load("out.npz") as archive:
        for name, y in expected._asdict().items():
            rows = y.rows_of(archive[f"{name}_indices"])
            assert sorted(rows) == list(range(y.num_sites))
            found = archive[f"{name}_features"]
            np.testing.assert_allclose(found, y.features[rows], atol=1e-5 * abs(y.features).max())
        np.testing.assert_allclose(archive["x_conv1_voxel_size"], VOXEL)
        for row in (0, 7, 100):
            site = archive["point_rows"][row]
            assert (site < 0) == (not inside[row])
            assert site < 0 or tuple(archive["input_indices"][site]) == (0, *cell[row, ::-1])


def test_a_segmentation_network_of_any_extent(folder, capsys):
    shape = models.MinkUNet42(4, 7, 0.25)
    state = library_state(shape, 6, lambda a: cells(a, a.shape[0] % 2 == 1), torchsparse_name)
    np.savez("minkunet.npz", **state)
    options = ["--network", "MinkUNet42", "--source", "torchsparse", "--set", "width=0.25"]
    status, _, err = run_spcy(
        capsys,
        "convert",
        "minkunet.npz",
        *options,
        "--voxel-size",
        *VOXEL,
        "--columns",
        3,
        0,
        1,
        2,
        "-o",
        "m.npz",
    )
    assert (status, err) == (0, [])
    np.savez("scan.npz", points=scan())
    assert run_spcy(capsys, "run", "m.npz", "scan.npz")[0] == 0
    x, rows, _ = spcy.voxelize(scan()[:, :3], VOXEL, features=scan()[:, [3, 0, 1, 2]])
    y = models.MinkUNet42.from_state_dict(state, "torchsparse", width=0.25)(x)
    with np.load("output.npz") as archive:
        np.testing.assert_array_equal(archive["point_rows"], rows)
        np.testing.assert_array_equal(archive["output_indices"], x.indices)
        np.testing.assert_allclose(archive["output_features"], y.features, atol=1e-5)


def test_settings_of_every_kind_reach_the_network(folder, capsys):
    net = models.SparseConvNetUNet(3, 5, [8, 16], 2, True, rng=0)
    settings = models.ScanSettings((0.1, 0.2, 0.3), None, (0, 1, 2))
    models.save("a.npz", net, settings)
    twin, read = models.load("a.npz")
    assert twin.arguments == net.arguments
    assert read == settings
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(twin.state_dict()[name], array)
    state = library_state(net, 7, lambda a: cells(a, False), scn_name)
    np.savez("scn.npz", **state)
    sets = ["--set", "channels=8,16", "--set", "reps=2", "--set", "residual_blocks=true"]
    status, _, err = run_spcy(
        capsys,
        "convert",
        "scn.npz",
        "--network",
        "SparseConvNetUNet",
        "--source",
        "sparseconvnet",
        *sets,
        "--voxel-size",
        *VOXEL,
        "-o",
        "b.npz",
    )
    assert (status, err) == (0, [])
    assert models.load("b.npz")[0].arguments == net.arguments


CONVERT = {
    "no_file": (["nothing.pth"], "nothing.pth: no such file"),
    "not_weights": (["scan.bin"], r"unknown kind of weights '\.bin'"),
    "no_key": (["detector.pth", "--key", "model"], "no name starts with key='model'"),
    "all_names": (
        ["detector.pth"],
        r"'epoch' is of type int; choose a part of it: key='model_state' \(60",
    ),
    "source": (
        ["detector.pth", "--key", "model_state", "--source", "minkowski"],
        "source must be one of 'spconv1'",
    ),
    "layout": (
        ["detector.pth", "--key", "model_state.backbone_3d", "--source", "spconv1"],
        r"12 names that do not \(with source='spconv2' they do\):",
    ),
    "network": (["detector.pth", "--network", "ResNet"], r"invalid choice: 'ResNet'"),
    "set": (
        ["detector.pth", "--key", "model_state", "--set", "width"],
        "--set must be NAME=VALUE, got 'w",
    ),
    "set_unknown": (
        ["detector.pth", "--set", "width=2"],
        "--set width=2: VoxelBackBone8x has in_channels",
    ),
    "set_rng": (["detector.pth", "--set", "rng=5"], "--set rng=5: VoxelBackBone8x has in_channels"),
    "set_none": (
        ["detector.pth", "--network", "MinkUNet"],
        "--set variant=VALUE must be given for MinkUNet",
    ),
    "set_inf": (
        ["detector.pth", "--network", "MinkUNet42", "--set", "width=inf"],
        "--set width must be a finite number, got 'inf'",
    ),
    "set_text": (
        ["detector.pth", "--network", "MinkUNet42", "--set", "width=abc"],
        "--set width must be a finite number, got 'abc'",
    ),
    "set_bool": (
        ["detector.pth", "--network", "SparseConvNetUNet", "--set", "residual_blocks=2"],
        "--set residual_blocks must be true or false, got '2'",
    ),
    "set_empty": (
        ["detector.pth", "--network", "SparseConvNetUNet", "--set", "channels="],
        "--set channels must be ints with commas, got ''",
    ),
    "voxel_size": (
        ["detector.pth", "--key", "model_state", "--voxel-size", "0", "1", "1"],
        "voxel_size must be pos",
    ),
    "bounds": (
        ["detector.pth", "--key", "model_state", "--bounds", *"012312"],
        "bounds must be .*low < high",
    ),
    "columns": (["detector.pth", "--key", "model_state", "--columns", "0", "1"], "columns must be 4"),
    "out": (["detector.pth", "-o", "model.onnx"], r"--out must end in \.npz"),
    "out_folder": (["detector.pth", "-o", "none/model.npz"], "--out must be in a folder"),
}


@pytest.mark.parametrize("case", CONVERT)
def test_a_bad_conversion_says_what_and_writes_nothing(case, folder, capsys):
    write_detector()
    scan().tofile("scan.bin")
    arguments, message = CONVERT[case]
    before = sorted(path.name for path in folder.rglob("*"))
    options = [*backbone_options(), "--source", "openpcdet", *arguments[1:]]
    status, out, err = run_spcy(capsys, "convert", arguments[0], *options)
    assert (status, out, len(err)) == (2, "", 13 if case == "layout" else 1)  # a line for each name
    assert err[0].startswith("spcy: error: ")
    assert all(line.startswith("  conv") for line in err[1:])
    np.testing.assert_array_equal(before, sorted(path.name for path in folder.rglob("*")))
    assert re.search(message, err[0]), err[0]


def replaced(path, **changes):
    """A copy of a network's file with entries changed, or left out where None."""
    with np.load(path) as archive:
        arrays = {**dict(archive), **changes}
    np.savez("spoiled.npz", **{name: array for name, array in arrays.items() if array is not None})
    return "spoiled.npz"


def document(**changes):
    with np.load("model.npz") as archive:
        settings = json.loads(str(archive["spcy_network"]))
    return np.array(json.dumps({**settings, **changes}))


RUN = {
    "no_model": (lambda: ("nothing.npz", "scan.bin"), "nothing.npz: no such file"),
    "a_folder": (lambda: (".", "scan.bin"), "is a folder"),
    "not_npz": (lambda: ("scan.bin", "scan.bin"), "scan.bin: damaged file .*not a zip"),
    "weights_only": (lambda: ("plain.npz", "scan.bin"), "plain.npz: not a network that"),
    "no_weight": (
        lambda: (replaced("model.npz", **{"conv1.0.0.weight": None}), "scan.bin"),
        "conv1.0.0.weight: miss",
    ),
    "another": (
        lambda: (replaced("model.npz", spcy_network=document(network="X")), "scan.bin"),
        "damaged .*'X'",
    ),
    "version": (
        lambda: (replaced("model.npz", spcy_network=document(version=2)), "scan.bin"),
        "version must be 1",
    ),
    "json": (lambda: (replaced("model.npz", spcy_network=np.array("{")), "scan.bin"), "spoiled.npz: "),
    "no_json": (
        lambda: (replaced("model.npz", spcy_network=np.array("3")), "scan.bin"),
        "spoiled.npz: damaged",
    ),
    "huge": (
        lambda: (replaced("model.npz", spcy_network=document(arguments={"in_channels": 10**13})), "scan.bin"),
        "spoiled.npz: ",
    ),
    "truncated": (lambda: ("cut.npz", "scan.bin"), "cut.npz: damaged file"),
    "no_scan": (lambda: ("model.npz", "nothing.bin"), "nothing.bin: no such file"),
    "few_columns": (lambda: ("model.npz", "xyz.npy"), r"xyz.npy: scan must have shape \(M, >= 4\)"),
    "nan_after_another": (
        lambda: ("model.npz", "nans.npy"),
        r"nans.npy: scan must be finite .*in row 4 \(of the points with finite coordinates: 1 are left out\)",
    ),
    "too_low": (lambda: ("low.npz", "scan.bin"), r"scan.bin, through low.npz: kernel_size must be no larger"),
    "nan": (lambda: ("model.npz", "nan.npy"), r"nan.npy: scan must be finite in columns .*in row 5"),
    "out": (lambda: ("model.npz", "scan.bin", "-o", "out.txt"), r"--out must end in \.npz"),
    "out_is_the_model": (
        lambda: ("model.npz", "scan.bin", "-o", "./model.npz"),
        "--out must not replace what is read, got 'model.npz'",
    ),
    "out_is_the_scan": (
        lambda: ("model.npz", "scan.npz", "-o", "scan.npz"),
        "--out must not replace what is read, got 'scan.npz'",
    ),
}


@pytest.mark.parametrize("case", RUN)
def test_a_bad_run_says_what_and_writes_nothing(case, folder, capsys):
    write_detector()
    options = [*backbone_options(), "--source", "openpcdet", "--key", "model_state"]
    assert run_spcy(capsys, "convert", "detector.pth", *options)[0] == 0
    Path("cut.npz").write_bytes(Path("model.npz").read_bytes()[:-1000])
    points = scan()
    points.tofile("scan.bin")
    np.savez("plain.npz", weight=points)
    np.savez("scan.npz", points=points)
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    np.save("xyz.npy", points[:, :3])
    points[5, 3] = np.nan
    np.save("nan.npy", points)
    points[2, 1] = np.nan
    np.save("nans.npy", points)
    low = document(scan={**models.load("model.npz")[1]._asdict(), "bounds": ((0, -1, -0.1), (2, 1, 0.1))})
    Path(replaced("model.npz", spcy_network=low)).rename("low.npz")
    make, message = RUN[case]
    arguments = make()
    status, out, err = run_spcy(capsys, "run", *arguments)
    assert (status, out) == (2, "")
    assert all(line.startswith("  ") for line in err[1:])  # a list of names
    assert re.search(message, "\n".join(err)), err
    assert not Path("output.npz").exists()
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_an_empty_scan_region_has_empty_outputs(folder, capsys):
    """No point inside the bounds."""
    write_detector()
    options = [*backbone_options(), "--source", "openpcdet", "--key", "model_state"]
    assert run_spcy(capsys, "convert", "detector.pth", *options)[0] == 0
    (scan() + np.float32(50)).tofile("scan.bin")
    assert run_spcy(capsys, "run", "model.npz", "scan.bin")[0] == 0
    with np.load("output.npz") as archive:
        assert archive["output_features"].shape == (0, 128)
        assert (archive["point_rows"] == -1).all()


def test_points_that_are_not_finite_keep_their_rows(folder, capsys):
    net = models.SparseConvNetUNet(3, 2, [8, 16], rng=0)
    models.save("model.npz", net, models.ScanSettings((0.5, 0.5, 0.5), None, (0, 1, 2)))
    points = scan(20)
    points[[0, 5], [1, 2]] = np.nan, np.inf
    np.save("scan.npy", points)
    status, out, _ = run_spcy(capsys, "run", "model.npz", "scan.npy")
    assert status == 0
    assert out.startswith("scan.npy: 18 points (2 more left out, not finite), ")
    with np.load("output.npz") as archive:
        rows, indices = archive["point_rows"], archive["input_indices"]
    assert np.flatnonzero(rows < 0).tolist() == [0, 5]
    assert len(rows) == 20
    kept = rows >= 0
    np.testing.assert_array_equal(indices[rows[kept], 1:], np.floor(points[kept, :3] / 0.5))


def test_nothing_half_written_is_left(folder, capsys, monkeypatch):
    write_detector()
    Path("model.npz").write_bytes(b"what was there")

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    options = [*backbone_options(), "--source", "openpcdet", "--key", "model_state"]
    status, _, err = run_spcy(capsys, "convert", "detector.pth", *options)
    assert status == 2
    assert "No space left" in err[0]
    assert Path("model.npz").read_bytes() == b"what was there"
    assert sorted(path.name for path in folder.iterdir()) == ["detector.pth", "model.npz"]


def test_a_folder_that_cannot_be_written_is_found_first(folder, capsys, monkeypatch):
    """Permissions do not bind every user that runs the tests."""

    def refuse(dir):
        raise PermissionError(13, "Permission denied", f"{dir}/tmp123")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    (folder / "ro").mkdir()
    options = [*backbone_options(), "--source", "openpcdet", "-o", "ro/m.npz"]
    for arguments, name in (
        (["run", "nothing.npz", "nothing.bin", "-o", "ro/o.npz"], "ro/o.npz"),
        (["convert", "nothing.pth", *options], "ro/m.npz"),
        (["demo", "--out", "ro"], "ro"),
    ):
        status, out, err = run_spcy(capsys, *arguments)
        assert (status, out) == (2, "")
        assert err == [f"spcy: error: [Errno 13] Permission denied: '{name}'"]


def test_an_error_of_a_save_names_its_path(tmp_path, monkeypatch):
    def fail(file, **arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.npz'$"):
        models.save(tmp_path / "a.npz", models.MinkUNet42(1, 2, 0.25), models.ScanSettings(VOXEL, None, (0,)))


def test_a_network_of_its_own_or_of_2_axes_is_not_saved(tmp_path):
    settings = models.ScanSettings(VOXEL, None, (0,))
    with pytest.raises(TypeError, match=r"^net must be one of VoxelBackBone8x, .*got Sequential"):
        models.save(tmp_path / "a.npz", spcy.nn.Sequential(), settings)
    with pytest.raises(TypeError, match=r"^settings must be ScanSettings, got NoneType"):
        models.save(tmp_path / "a.npz", models.MinkUNet42(1, 2, 0.25), None)
    with pytest.raises(ValueError, match=r"^net must have 3 axes"):
        models.save(tmp_path / "a.npz", models.MinkUNet42(1, 2, 0.25, 2), settings)
    with pytest.raises(ValueError, match=r"^path must end in \.npz"):
        models.save(tmp_path / "a.pth", models.MinkUNet42(1, 2, 0.25), settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_network_comes_back_in_its_dtype(dtype, folder, capsys):
    dtype = _checkpoint.numpy_dtype(dtype)
    net = models.SparseConvNetUNet(np.int64(3), 2, np.array([8, 16]), rng=0).astype(dtype).eval()
    settings = models.ScanSettings(VOXEL, None, (0, 1, 2))
    models.save("model.npz", net, settings)
    twin, _ = models.load("model.npz")
    for name, array in net.state_dict().items():
        assert twin.state_dict()[name].dtype == array.dtype
        np.testing.assert_array_equal(twin.state_dict()[name], array)
    np.save("scan.npy", scan())
    assert run_spcy(capsys, "run", "model.npz", "scan.npy")[0] == 0
    x, _, _ = models.scan_tensor(net, settings, scan())
    assert x.dtype == dtype
    with np.load("output.npz") as archive:
        np.testing.assert_array_equal(archive["output_features"], net(x).features.astype(np.float64))
    net.linear.astype(np.float32)
    with pytest.raises(TypeError, match=r"net must have one dtype.* got float32 in linear\.weight beside"):
        models.save("model.npz", net, settings)


HUGE = {
    "reps": {"channels": [2, 3], "reps": 10**9},
    "levels": {"channels": [1] * 5000},
    "out_channels": {"channels": [1], "out_channels": 10**9},
    "channels": {"channels": [1, 10**6]},
}


@pytest.mark.parametrize("case", HUGE)
def test_settings_of_a_huge_network_are_refused_at_once(case, folder):
    net = models.SparseConvNetUNet(1, 2, [4], rng=0)
    net.arguments |= HUGE[case]
    models.save("model.npz", net, models.ScanSettings(VOXEL, None, (0,)))
    with pytest.raises(ValueError, match=r"model\.npz: its arguments are of a much larger network"):
        models.load("model.npz")
    net.arguments["channels"] = [1] * 10_000
    models.save("model.npz", net, models.ScanSettings(VOXEL, None, (0,)))
    with pytest.raises(ValueError, match=r"model\.npz: its settings have more than 16384 characters"):
        models.load("model.npz")


@pytest.mark.usefixtures("backend")
def test_a_run_on_every_backend(folder, capsys):
    net = models.SparseConvNetUNet(3, 2, [8, 16], rng=0).eval()
    models.save("model.npz", net, models.ScanSettings((0.5, 0.5, 0.5), None, (0, 1, 2)))
    np.save("scan.npy", scan(20))
    assert run_spcy(capsys, "run", "model.npz", "scan.npy")[0] == 0
    with spcy.use_backend("cpu"):
        net, settings = models.load("model.npz")
        x, rows, _ = models.scan_tensor(net, settings, scan(20))
        y = net(x)
    with np.load("output.npz") as archive:
        np.testing.assert_array_equal(archive["output_indices"], y.indices)
        np.testing.assert_allclose(archive["output_features"], y.features, atol=1e-5)
        np.testing.assert_array_equal(archive["point_rows"], rows)
