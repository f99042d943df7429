"""The main job: from a scan to labels, a network's output, pictures and a report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import spcy
from spcy.__main__ import main
from spcy.demo.backbone import CHANNELS, cells_around
from spcy.demo.geometry import (
    LABELS,
    WINDOW,
    height_above_ground,
    local_geometry,
    moment_weight,
    moments,
    voxelize_scan,
)
from spcy.demo.report import document, text
from spcy.demo.run import VOXEL_SIZE, Steps, run_demo
from spcy.demo.scene import CLASSES, generate_scene
from spcy.scan import Scan

KITTI = Path(__file__).parents[2] / "shared" / "data" / "kitti_000008.bin"
needs_kitti = pytest.mark.skipif(not KITTI.exists(), reason="the KITTI scan is not on this machine")
FILES = ["labels.png", "learned.png", "normals.png", "levels.png", "scan.html", "sites.npz"]


def run_python(*arguments):
    """Run this Python on the spcy under test."""
    env = {**os.environ, "PYTHONPATH": str(Path(spcy.__file__).parents[1])}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)


def cloud(points):
    return Scan("cloud", np.asarray(points, dtype=np.float64))


def small_scan(folder):
    """Write a fiftieth of the street's points, and return where."""
    np.save(folder / "scan.npy", generate_scene().points[::50])
    return str(folder / "scan.npy")


@pytest.fixture(scope="module")
def street():
    return run_demo(generate_scene(), Steps())


# The command line


@pytest.fixture(scope="module", params=["generated", pytest.param("kitti", marks=needs_kitti)])
def job(request, tmp_path_factory):
    """A whole run as its user sees it: (what it read, its folder, the finished process)."""
    folder = tmp_path_factory.mktemp("job") / "made" / "by the job"
    scan = [str(KITTI)] if request.param == "kitti" else []
    return request.param, folder, run_python("-m", "spcy", "demo", *scan, "--out", str(folder), "--json")


def test_job_succeeds_with_progress_on_stderr(job):
    _, _, done = job
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert all(line.startswith("spcy: ") and line.endswith(" ms") for line in lines)
    steps = [line.split(": ")[1] for line in lines]
    assert steps == [*steps[:1], "voxelize", "geometry", "labels", "learned labels", "network", "write"]


def test_job_prints_one_json_document(job):
    kind, folder, done = job
    report = json.loads(done.stdout)
    assert report["spcy"] == spcy.__version__
    assert report["backend"] == "cpu"
    assert report["threads"] >= 1
    assert report["load"] is None or report["load"] >= 0
    assert report["scan"]["left_out"] == 0
    assert report["voxel_size"] == VOXEL_SIZE
    if kind == "kitti":
        assert report["scan"] == {"name": KITTI.name, "points": 17238, "left_out": 0}
        assert report["agreement"] is None
    else:
        assert report["scan"]["name"] == "generated street"
        assert set(report["agreement"]) == {"all", *LABELS}
        assert set(report["learned_agreement"]) == {"all", *CLASSES}
    assert sum(report["labels"].values()) == report["levels"][0]["sites"]
    assert report["restored"] is True
    assert report["files"] == [str(folder / name) for name in FILES]
    seconds = report["seconds"]
    assert seconds.pop("total") == pytest.approx(sum(seconds.values()))


def test_job_reports_every_layer(job):
    report = json.loads(job[2].stdout)
    levels, layers = report["levels"], report["layers"]
    assert [level["voxel_size"] for level in levels] == [VOXEL_SIZE * 2**i for i in range(4)]
    assert all(1 <= level["sites"] <= level["cells"] for level in levels)
    kinds = [(layer["kind"], layer["level_in"], layer["level_out"]) for layer in layers]
    down = [("submanifold", 1, 1)] * 2
    for level in (1, 2, 3):
        down += [("strided", level, level + 1)] + [("submanifold", level + 1, level + 1)] * 2
    assert kinds == down + [("inverse", 4, 3), ("inverse", 3, 2), ("inverse", 2, 1)]
    for layer in layers:
        assert layer["sites_in"] == levels[layer["level_in"] - 1]["sites"]
        assert layer["sites_out"] == levels[layer["level_out"] - 1]["sites"]
        assert layer["channels_out"] == CHANNELS[layer["level_out"] - 1]
        assert layer["flop"] == 2 * layer["pairs"] * layer["channels_in"] * layer["channels_out"]
        assert layer["rulebook_ms"] >= 0
        assert layer["gflop_per_s"] == pytest.approx(layer["flop"] / layer["conv_ms"] / 1e6)
    assert report["flop"] == sum(layer["flop"] for layer in layers)
    assert report["dense_flop"] == sum(layer["dense_flop"] for layer in layers)
    assert report["wasted_by_dense"] == 1 - report["flop"] / report["dense_flop"]
    assert report["wasted_by_dense"] > 0.9


def test_job_writes_pictures_and_results(job):
    _, folder, done = job
    report = json.loads(done.stdout)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    for name in FILES[:4]:
        image = (folder / name).read_bytes()
        assert image.startswith(b"\x89PNG\r\n")
        assert 10_000 < len(image) < 200_000
    with np.load(folder / "sites.npz") as archive:
        arrays = dict(archive)
    sites, points = report["levels"][0]["sites"], report["scan"]["points"]
    assert {name: array.shape for name, array in arrays.items()} == {
        "voxel_size": (),
        "indices": (sites, 4),
        "points": (sites, 3),
        "labels": (sites,),
        "label_names": (len(LABELS),),
        "learned": (sites,),
        "learned_names": (len(CLASSES) + 1,),
        "height": (sites,),
        "normal": (sites, 3),
        "linearity": (sites,),
        "planarity": (sites,),
        "verticality": (sites,),
        "features": (sites, CHANNELS[0]),
        "point_rows": (points,),
    }
    counts = np.bincount(arrays["labels"], minlength=len(LABELS))
    assert dict(zip(arrays["label_names"].tolist(), counts.tolist(), strict=True)) == report["labels"]
    counts = np.bincount(arrays["learned"], minlength=len(CLASSES) + 1)
    assert dict(zip(arrays["learned_names"].tolist(), counts.tolist(), strict=True)) == report["learned"]
    cells = np.floor(arrays["points"] / VOXEL_SIZE)
    assert (cells == arrays["indices"][:, 1:]).mean() > 0.999  # rounding at a voxel's face
    assert np.isfinite(arrays["features"]).all()


@needs_kitti
def test_kitti_looks_like_a_street(capsys):
    assert main(["demo", str(KITTI), "--json"]) == 0
    labels = json.loads(capsys.readouterr().out)["labels"]
    total = sum(labels.values())
    assert 0.15 < labels["ground"] / total < 0.5
    assert 0.05 < labels["wall"] / total < 0.4
    assert 0 < labels["pole-like"] < 50


def test_text_report(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    points = generate_scene().points.copy()
    points[::1000] = np.nan
    np.save("scan.npy", points)
    assert main(["demo", "scan.npy", "--out", "."]) == 0
    text = capsys.readouterr().out
    left_out = len(points[::1000])
    assert f"scan: scan.npy, {len(points) - left_out:,} points, {left_out} more left out (not finite)" in text
    assert "points whose" not in text
    assert "sites of each learned label: ground " in text
    assert "rulebook ms  conv ms  GFLOP/s" in text
    assert "first level's sites restored exactly: yes" in text
    assert "of them on empty space" in text
    assert [line for line in text.splitlines() if line.startswith("wrote")] == [
        f"wrote {name}" for name in FILES
    ]
    with np.load("sites.npz") as archive:
        rows, indices = archive["point_rows"], archive["indices"]
    assert len(rows) == len(points)
    np.testing.assert_array_equal(rows < 0, np.isnan(points[:, 0]))
    cells = np.floor(points[rows >= 0] / VOXEL_SIZE)
    assert (cells == indices[rows[rows >= 0], 1:]).mean() > 0.999  # rounding at a voxel's face
    widths = {len(line) for line in text.splitlines() if line.lstrip().startswith(tuple("123456789"))}
    assert len(widths) == 2  # two tables, each of straight columns


def test_second_run_replaces_the_files(tmp_path, capsys):
    np.save(tmp_path / "scan.npy", generate_scene().points[::20])
    (tmp_path / "labels.png").write_bytes(b"old")
    (tmp_path / "mine.txt").write_text("untouched")
    assert main(["demo", str(tmp_path / "scan.npy"), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "labels.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "mine.txt", "scan.npy"])


def test_failed_write_leaves_no_piece(tmp_path, capsys, monkeypatch):
    def savez(file, **_):
        file.write(b"a piece")
        raise OSError("No space left on device")

    scan, out = small_scan(tmp_path), tmp_path / "out"
    monkeypatch.setattr(np, "savez", savez)
    assert main(["demo", scan, "--out", str(out)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"spcy: error: {out}: No space left on device"
    assert list(out.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="other systems have no SIGTERM to wait for")
def test_terminate_leaves_no_piece(tmp_path):
    scan, out = small_scan(tmp_path), tmp_path / "out"
    code = f"""
import os, signal, sys, time
import numpy as np
from spcy.__main__ import main

def savez(file, **arrays):
    file.write(b"a piece")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

np.savez = savez
sys.exit(main(["demo", {scan!r}, "--out", {str(out)!r}]))
"""
    done = run_python("-c", code)
    assert done.returncode == 143
    assert done.stderr.splitlines()[-1] == "spcy: terminated"
    assert not [*out.glob("*.npz"), *out.glob(".*")]


def test_the_scan_is_not_replaced(tmp_path, capsys):
    np.savez(tmp_path / "sites.npz", points=generate_scene().points[::50])
    content = (tmp_path / "sites.npz").read_bytes()
    assert main(["demo", str(tmp_path / "sites.npz"), "--out", str(tmp_path)]) == 2
    assert "--out must not replace what is read" in capsys.readouterr().err
    assert (tmp_path / "sites.npz").read_bytes() == content


def test_output_that_nobody_takes_is_no_error(tmp_path, monkeypatch):
    scan = small_scan(tmp_path)
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["demo", scan]) == 0


@pytest.mark.parametrize("columns", [None, "5", "x,y,z,intensity,ring"])
def test_columns_of_bare_numbers(columns, tmp_path, capsys):
    points = generate_scene().points[::50]
    ring = np.arange(len(points), dtype=np.float32) % 32
    np.column_stack([points, 8 * ring, ring]).astype("<f4").tofile(tmp_path / "scan.bin")
    options = [] if columns is None else ["--columns", columns]
    assert main(["demo", str(tmp_path / "scan.bin"), "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)["scan"]["points"] == len(points)


REFUSED = {
    "columns of nothing": (["demo", "--columns", "5"], "--columns are those of a SCAN, and there is none"),
    "columns": (["demo", "{tmp}/far.npy", "--columns", "5"], "far.npy: columns must be those of the file"),
    "no command": ([], "the following arguments are required: COMMAND"),
    "unknown command": (["dance"], "invalid choice: 'dance'"),
    "unknown option": (["demo", "--fast"], "unrecognized arguments: --fast"),
    "unknown backend": (["demo", "--backend", "tpu"], "invalid choice: 'tpu'"),
    "no gpu": (["demo", "--backend", "cuda", "--out", "{tmp}/out"], "backend 'cuda' is not available"),
    "missing file": (["demo", "{tmp}/nowhere.bin", "--out", "{tmp}/out"], "nowhere.bin: no such file"),
    "truncated file": (["demo", "{tmp}/cut.bin", "--out", "{tmp}/out"], "cut.bin: truncated"),
    "too far apart": (["demo", "{tmp}/far.npy"], "far.npy: indices span"),
    "out is a file": (["demo", "--out", "{tmp}/cut.bin"], "--out must be a folder"),
    "out is nothing": (["demo", "--out", ""], "--out must name a folder"),
    "out in a file": (["demo", "--out", "{tmp}/cut.bin/out"], "Not a directory"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case, tmp_path, capsys):
    arguments, message = REFUSED[case]
    (tmp_path / "cut.bin").write_bytes(bytes(17))
    np.save(tmp_path / "far.npy", np.array([[-9e7, -9e7, -9e7], [9e7, 9e7, 9e7]]))
    try:
        status = main([argument.format(tmp=tmp_path) for argument in arguments])
    except SystemExit as exit_:  # argparse's way out
        status = exit_.code
    printed = capsys.readouterr()
    assert status == 2
    assert printed.out == ""
    *progress, line = printed.err.splitlines()
    assert line.startswith("spcy: error: ")
    assert message in line
    assert all(line.endswith(" ms") for line in progress)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.bin", "far.npy"]


def test_refused_without_a_traceback():
    done = run_python("-m", "spcy", "demo", "nowhere.bin")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "spcy: error: nowhere.bin: no such file\n"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_refuses_a_folder_it_may_not_write(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert main(["demo", "--out", str(tmp_path)]) == 2
    tmp_path.chmod(0o700)
    assert "Permission denied" in capsys.readouterr().err


def test_far_coordinates_are_written_whole():
    """As surveyors write them, and within the picture."""
    pictures = pytest.importorskip("spcy.demo.pictures")
    points = np.array([[691_200.0, 5_335_100, 0], [691_300, 5_335_130, 5]])
    figure, [axes] = pictures._panels(points, "", legend=True)
    figure.canvas.draw()
    assert axes.yaxis.get_offset_text().get_text() == ""
    labels = [label for label in axes.get_yticklabels() if label.get_text()]
    assert {label.get_text()[:4] for label in labels} == {"5335"}
    assert min(label.get_window_extent().x0 for label in labels) > 0


def test_libraries_are_needed_for_pictures_alone(tmp_path):
    code = """
import sys
sys.modules.update(dict.fromkeys({}))
from spcy.__main__ import main
sys.exit(main({}))"""
    demo = ["demo", small_scan(tmp_path)]
    assert run_python("-c", code.format(["matplotlib", "plotly"], demo)).returncode == 0
    said = 'spcy: error: pictures need matplotlib and plotly: pip install "spcy[plot]"'
    for library in ("matplotlib", "plotly"):
        done = run_python("-c", code.format([library], [*demo, "--out", str(tmp_path / "out")]))
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == said
        assert not (tmp_path / "out").exists()


def test_version(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"spcy {spcy.__version__}\n"


@pytest.mark.parametrize(
    "points",
    [
        [[1e6, -1e6, 30.0]],
        [[0.0, 0.0, 0.0], [5000.0, 0.0, 0.0]],
        [[0.0, 0.0, z] for z in np.arange(0, 3, 0.05)],
    ],
    ids=["one far off", "two far apart", "upright line"],
)
def test_tiny_scans(points, tmp_path, capsys):
    np.save(tmp_path / "scan.npy", np.array(points))
    assert main(["demo", str(tmp_path / "scan.npy"), "--out", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["restored"] is True


# What it finds


def test_labels_agree_with_the_truth(street):
    agrees = street.labels[street.voxels.rows] == street.scan.truth
    shares = {name: agrees[street.scan.truth == label].mean() for label, name in enumerate(LABELS)}
    assert agrees.mean() > 0.96
    assert shares["ground"] > 0.97
    assert shares["wall"] > 0.9
    assert shares["pole-like"] > 0.7
    assert shares["other"] > 0.97
    called_pole = street.labels[street.voxels.rows] == LABELS.index("pole-like")
    assert agrees[called_pole].mean() > 0.9


def test_normals_of_the_street(street):
    truth = np.empty(len(street.points), dtype=int)
    truth[street.voxels.rows] = street.scan.truth
    known = street.geometry.neighbours >= 20
    ground = street.geometry.normal[known & (truth == 0)]
    wall = street.geometry.normal[known & (truth == 1)]
    assert np.median(np.abs(ground[:, 2])) > 0.99
    assert np.median(np.abs(wall[:, 2])) < 0.1
    np.testing.assert_allclose(np.linalg.norm(ground, axis=1), 1)


def test_height_above_ground_follows_the_slope(street):
    truth = np.empty(len(street.points), dtype=int)
    truth[street.voxels.rows] = street.scan.truth
    height = street.height[truth == 0]
    assert np.nanquantile(height, 0.95) < 0.3
    x, _, z = street.points[truth == 1].T
    error = street.height[truth == 1] - (z - 0.02 * x + 1.73)
    assert np.nanmedian(np.abs(error)) < 0.25


def test_one_echo_from_below_does_not_lower_the_ground():
    x, y = np.meshgrid(np.arange(0, 10, 0.1), np.arange(0, 10, 0.1))
    points = np.column_stack([x.ravel(), y.ravel(), np.zeros(x.size)])
    points = np.vstack([points, [5.0, 5.0, -3.0]])
    height = height_above_ground(points, solid=np.arange(len(points)) < x.size)
    np.testing.assert_allclose(height[:-1], 0)
    assert height[-1] == -3
    assert np.isnan(height_above_ground(points, solid=np.zeros(len(points), bool))).all()


def test_network_restores_the_sites_and_uses_every_level(street):
    assert street.restored
    assert street.output.coords is street.voxels.tensor.coords
    levels = street.network.levels
    assert [child.parent for child in levels[1:]] == levels[:-1]
    assert (street.output.features != 0).any()
    again = run_demo(street.scan, Steps())
    np.testing.assert_array_equal(again.output.features, street.output.features)
    np.testing.assert_array_equal(again.labels, street.labels)


def test_cells_around_is_the_box():
    coords = spcy.Coords([[0, -2, 5, 7], [0, 3, 5, 9]])
    assert cells_around(coords) == 6 * 1 * 3


# How it finds it


def test_moments_over_a_window_are_exact(rng):
    points = rng.uniform(-0.6, 0.6, size=(300, 3)) + 1000
    x = voxelize_scan(points, VOXEL_SIZE).tensor
    summed = spcy.subm_conv(x.map(moments), moment_weight(WINDOW, centre=3)).features
    place = x.indices[:, 1:] + 0.5 + x.features.astype(np.float64)  # in voxels
    for row in range(0, x.num_sites, 17):
        inside = (np.abs(x.indices[:, 1:] - x.indices[row, 1:]) <= 3).all(axis=1)
        about = place[inside] - x.indices[row, 1:] - 0.5
        np.testing.assert_allclose(summed[row], moments(about).sum(axis=0), rtol=1e-5, atol=1e-3)


def test_moments_of_merged_cells_are_exact(rng):
    points = rng.uniform(-0.5, 0.5, size=(200, 3))
    x = voxelize_scan(points, VOXEL_SIZE).tensor
    y = spcy.conv(x.map(moments), moment_weight((2, 2, 2), centre=0.5), stride=2)
    place = x.indices[:, 1:] + 0.5 + x.features.astype(np.float64)
    for row in range(0, y.num_sites, 7):
        inside = (x.indices[:, 1:] // 2 == y.indices[row, 1:]).all(axis=1)
        about = place[inside] - 2 * y.indices[row, 1:] - 1
        np.testing.assert_allclose(y.features[row], moments(about).sum(axis=0), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("normal", [[0, 0, 1], [1, 0, 0], [1, 2, 2], [-3, 1, 0.5]])
@pytest.mark.parametrize("origin", [0.0, 5e5], ids=["near", "far from the origin"])
def test_geometry_of_a_plane(normal, origin, rng):
    normal = np.array(normal) / np.linalg.norm(normal)
    along = np.linalg.svd(normal[None])[2][1:]
    points = rng.uniform(-1.5, 1.5, size=(20_000, 2)) @ along + origin
    geometry = local_geometry(voxelize_scan(points, VOXEL_SIZE).tensor)
    full = geometry.neighbours > 30
    assert (np.abs(geometry.normal[full] @ normal) > 0.98).all()
    assert np.median(geometry.planarity[full]) > 0.6
    np.testing.assert_allclose(geometry.verticality[full], 1 - abs(normal[2]), atol=0.2)


@pytest.mark.parametrize("direction", [[0, 0, 1], [1, 1, 0], [1, 2, 3]])
def test_geometry_of_a_line(direction):
    direction = np.array(direction) / np.linalg.norm(direction)
    points = np.linspace(-2, 2, 400)[:, None] * direction + 0.03
    geometry = local_geometry(voxelize_scan(points, VOXEL_SIZE).tensor)
    assert (np.abs(geometry.axis @ direction) > 0.99).all()
    assert (geometry.linearity > 0.9).all()
    assert (geometry.planarity < 0.1).all()


def test_geometry_of_too_few_sites_is_zero():
    geometry = local_geometry(
        voxelize_scan(np.array([[0.0, 0, 0], [9.0, 9, 9], [9.15, 9, 9]]), VOXEL_SIZE).tensor
    )
    assert geometry.neighbours.tolist() == [1, 2, 2]
    for array in geometry[1:]:
        assert not array.any()


def test_interrupt_is_one_line(capsys, monkeypatch):
    def run_demo(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("spcy.demo.run.run_demo", run_demo)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "spcy: interrupted"


def test_a_reader_that_has_had_enough_is_no_error(tmp_path):
    command = [sys.executable, "-m", "spcy", "demo", small_scan(tmp_path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        printed = process.stderr.read()
    assert process.returncode == 141
    assert "Traceback" not in printed
    assert "error" not in printed


def test_a_file_name_need_not_be_text(tmp_path, capsys):
    scan = os.fsencode(tmp_path) + b"/\xff.npy"
    try:
        with open(scan, "wb") as file:
            np.save(file, np.random.default_rng(0).random((500, 3)).astype(np.float32) * 10)
    except OSError as error:
        pytest.skip(f"this file system wants text for a name: {error}")
    assert main(["demo", os.fsdecode(scan), "--out", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)
    assert "scan: ?.npy" in capsys.readouterr().out


@pytest.mark.parametrize(("load", "said"), [(1e6, True), (0.0, False), (None, False)])
def test_report_says_why_times_are_long(street, load, said):
    found = document(street, {"read": 1.0}, []) | {"load": load}
    assert ("other programs" in text(found)) == said
