"""Networks over points on Dask's workers: the bits of the whole, whatever is cut, killed or broken."""

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from dask_nets import Noted

import spcy
from spcy import nn
from spcy.scan import open_scan, read_scan

pytest.importorskip("distributed", reason="Dask is not installed")
import dask
import dask.array as da
import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from distributed import Client, LocalCluster

import spcy.dask
from spcy.__main__ import main
from spcy.dask._job import make_job
from spcy.dask._worker import use_worker_threads
from spcy.demo import network as street
from spcy.demo.scene import generate_scene

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of libraries that Dask calls
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
VOXEL = 0.5
MANY = [*range(250, 4000, 250)]


@pytest.fixture(scope="module", autouse=True)
def _quick_workers():
    """Let workers, of which some are killed, start from one process that has imported Dask."""
    method = "forkserver" if sys.platform == "linux" else "spawn"
    with dask.config.set({"distributed.worker.multiprocessing-method": method}):
        yield


@pytest.fixture(scope="module")
def client():
    """Two worker processes of one thread each."""
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": "CRITICAL"}
    with LocalCluster(**options) as cluster, Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture
def on_workers(client):
    with client.as_current():
        yield client


def u_net(ndim=3, channels=3):
    rng = np.random.default_rng(0)
    options = {"ndim": ndim, "rng": rng}
    down, up = nn.Conv(8, 8, 3, 2, 1, **options), nn.InverseConv(8, 8, 3, **options)
    below = nn.Sequential(down, nn.ReLU(), up)
    layers = (
        nn.SubMConv(channels, 8, 3, **options),
        nn.Concat(nn.Identity(), below),
        nn.Linear(16, 5, rng=rng),
    )
    return nn.Sequential(*layers).eval()


def cloud(rng, number=4000, ndim=3):
    """Points of which many share a voxel, some lie on the borders of voxels, and some far below 0."""
    points = rng.uniform(-9, 9, (number, ndim))
    points[: number // 4] = np.round(points[: number // 4] / VOXEL) * VOXEL
    return points


def frame(points, values=None):
    columns = dict(zip("xyz", points.T, strict=False))
    return pd.DataFrame({**columns, **(values or {})})


def cut(table, ends):
    """A Dask DataFrame of the rows up to each end."""
    pieces = [table.iloc[a:b] for a, b in itertools.pairwise([0, *ends, len(table)])]
    return dd.concat([dd.from_pandas(piece, npartitions=1, sort=False) for piece in pieces])


def in_memory(net, points, features=None, voxel_size=VOXEL):
    x, rows, _ = spcy.voxelize(
        points, voxel_size, features=np.float32(points if features is None else features)
    )
    return net(x).features.argmax(axis=1)[rows]


@pytest.mark.parametrize(
    ("ends", "tile"),
    [
        ([], 6),
        ([1], 7),
        ([1000, 1000, 3999], 64),
        ([1000, 1000, 3999], 6),
        *((MANY, t) for t in (9, None)),
    ],
    ids=lambda value: len(value) if isinstance(value, list) else value,
)
def test_labels_are_those_of_the_whole(ends, tile, rng):
    points, net = cloud(rng), u_net()
    labels = spcy.dask.predict(net, cut(frame(points), ends), VOXEL, tile=tile)
    assert labels.npartitions == len(ends) + 1
    np.testing.assert_array_equal(labels.compute(scheduler="synchronous"), in_memory(net, points))


def test_the_order_of_points_and_partitions_does_not_matter(rng):
    points, net = cloud(rng), u_net()
    points[:, 2] *= 1e-3  # features far from each other in size
    expected = in_memory(net, points)
    for _ in range(3):
        order = rng.permutation(len(points))
        ends = np.sort(rng.integers(0, len(points), 7)).tolist()
        labels = spcy.dask.predict(
            net, cut(frame(points[order]), ends), VOXEL, tile=9, sites=200, partitions=3
        )
        np.testing.assert_array_equal(labels.compute(scheduler="synchronous"), expected[order])


@pytest.mark.parametrize("far", [0, 1e7, -1e7])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_axes_and_places(ndim, far, rng):
    points, net = cloud(rng, 1000, ndim) + far, u_net(ndim, 1)
    values = rng.uniform(0, 1, 1000)
    table = frame(points, {"intensity": values})
    options = {"coordinates": list("xyz"[:ndim]), "columns": ["intensity"], "tile": 8}
    labels = spcy.dask.predict(net, cut(table, [300, 700]), VOXEL, **options)
    expected = in_memory(net, points, values[:, None])
    np.testing.assert_array_equal(labels.compute(scheduler="synchronous"), expected)


def test_features_of_points(rng):
    points, net = cloud(rng), u_net(channels=2)

    def features(points, values):
        return np.column_stack([np.ones(len(points)), points[:, 2] * values[:, 0]]).astype(np.float32)

    values = rng.uniform(0, 1, (len(points), 1)).astype(np.float32)
    table = cut(frame(points, {"i": values[:, 0]}), [700])
    labels = spcy.dask.predict(net, table, VOXEL, columns=["i"], features=features)
    expected = in_memory(net, points, features(points, values))
    np.testing.assert_array_equal(labels.compute(scheduler="synchronous"), expected)


def test_labels_join_their_points(rng):
    def join(part, labels):
        return part.assign(label=labels)

    table = frame(cloud(rng, 300))
    table.index = rng.permutation(1000)[:300]
    points = cut(table, [100])
    labels = spcy.dask.predict(u_net(), points, VOXEL)
    joined = dd.map_partitions(join, points, labels, align_dataframes=False)
    joined = joined.compute(scheduler="synchronous")
    assert joined.index.equals(table.index)
    np.testing.assert_array_equal(joined["label"], in_memory(u_net(), table.to_numpy()))


def test_numbers_that_two_doubles_do_not_add_up(rng):
    points, net = np.zeros((60, 3)), u_net(channels=1)
    values = (rng.standard_normal(60) * 1e-20 ** rng.integers(0, 3, 60)).astype(np.float32)
    table = frame(points, {"v": values})
    job = make_job(net, VOXEL, 3, 1, tile=None, sites=9, invalid="raise", features=None)
    assert len(np.unique(job.enter(points, values[:, None]).rows)) > 1
    labels = spcy.dask.predict(net, cut(table, [7, 30]), VOXEL, columns=["v"])
    np.testing.assert_array_equal(
        labels.compute(scheduler="synchronous"), in_memory(net, points, values[:, None])
    )


@pytest.mark.usefixtures("on_workers")
def test_on_workers(rng):
    points, net = cloud(rng, 20_000), u_net()
    points = points[np.argsort(points[:, 0])]
    labels = spcy.dask.predict(net, cut(frame(points), [1, 3000, 9000]), VOXEL, tile=16)
    np.testing.assert_array_equal(labels.compute(), in_memory(net, points))


@pytest.mark.parametrize("chunks", [5, (20, 3, 7), -1], ids=str)
@pytest.mark.usefixtures("on_workers")
def test_volumes(chunks, rng):
    volume = rng.uniform(0, 1, (20, 17, 9)).astype(np.float32) ** 3
    net, at = u_net(channels=1), np.nonzero(volume > 0.5)
    labels = spcy.dask.label_volume(net, da.from_array(volume, chunks=chunks), 0.5)
    indices = np.column_stack([np.zeros(len(at[0]), int), *at])
    expected = np.full(volume.shape, -1)
    expected[at] = net(spcy.SparseTensor(indices, volume[at][:, None])).features.argmax(axis=1)
    np.testing.assert_array_equal(labels.compute(), expected)
    assert labels.dtype == np.int16


def test_zarr(tmp_path, rng):
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    volume = rng.uniform(0, 1, (12, 12)).astype(np.float32)
    zarr.save_array(str(tmp_path / "a.zarr"), volume)
    net = nn.SubMConv(1, 3, 3, ndim=2, rng=0).eval()
    labels = spcy.dask.label_volume(net, da.from_zarr(str(tmp_path / "a.zarr")), 0.7)
    np.testing.assert_array_equal(labels.compute(scheduler="synchronous") < 0, volume <= 0.7)


def test_no_points():
    empty = cut(frame(np.zeros((5, 3))), [2])
    labels = spcy.dask.predict(u_net(), empty[empty["x"] > 1], VOXEL).compute(scheduler="synchronous")
    assert len(labels) == 0
    volume = da.zeros((4, 4, 4), chunks=2)
    labels = spcy.dask.label_volume(u_net(channels=1), volume, 0.5).compute(scheduler="synchronous")
    np.testing.assert_array_equal(labels, np.full((4, 4, 4), -1))


# Threads, and what travels


def test_threads_are_the_workers(client):
    def threads():
        use_worker_threads()
        return spcy.get_num_threads()

    assert set(client.run(lambda: os.environ["OMP_NUM_THREADS"]).values()) == {"1"}
    assert client.submit(threads, pure=False).result() == 1
    options = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": ":0", "processes": False}
    cores = len(os.sched_getaffinity(0))
    before = spcy.get_num_threads()
    with LocalCluster(**options) as cluster, Client(cluster, set_as_default=False) as other:
        assert other.submit(threads, pure=False).result() == min(2, cores)
    assert spcy.get_num_threads() == before


def count(folder, what):
    return len([*Path(folder).glob(f"{what}-*")])


@pytest.mark.usefixtures("on_workers")
def test_the_network_travels_once_to_each_worker(tmp_path, rng):
    points = cut(frame(cloud(rng)), list(range(500, 4000, 500)))
    spcy.dask.predict(Noted(tmp_path), points, VOXEL, tile=6).compute()
    assert count(tmp_path, "ran") > 20
    assert 1 <= count(tmp_path, "unpickled") <= 4  # two workers; the scheduler may look too


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["itself", "another"])
def test_a_worker_is_killed(how, on_workers, tmp_path, rng):
    points = cloud(rng)
    points = points[np.argsort(points[:, 0])]
    net = Noted(tmp_path, "die" if how == "itself" else "sleep")
    labels = spcy.dask.predict(net, cut(frame(points), [1000, 2000, 3000]), VOXEL, tile=8)
    future = on_workers.compute(labels)
    if how == "another":
        while not count(tmp_path, "ran"):
            time.sleep(0.02)
        os.kill(int(next(tmp_path.glob("ran-*")).name.split("-")[1]), signal.SIGKILL)
    np.testing.assert_array_equal(future.result(timeout=60), in_memory(net, points))
    on_workers.wait_for_workers(2, timeout=60)


@pytest.mark.thorough
def test_a_worker_runs_out_of_memory(tmp_path, rng):
    points, net = cloud(rng), Noted(tmp_path, "hoard")
    options = {"n_workers": 1, "threads_per_worker": 1, "memory_limit": "600MB", "silence_logs": "CRITICAL"}
    with LocalCluster(dashboard_address=":0", **options) as cluster, Client(cluster):
        labels = spcy.dask.predict(net, cut(frame(points), [2000]), VOXEL)
        np.testing.assert_array_equal(labels.compute(), in_memory(net, points))
    assert (tmp_path / "once").exists()
    assert count(tmp_path, "ran") == 3  # killed, again, and in memory here


# Files


def write_scans(folder, points, kinds=("npy", "laz", "parquet", "npz", "bin")):
    """Write points to one file of each kind; LAS keeps thousandths, and .bin float32."""
    folder.mkdir(exist_ok=True)
    written = []
    for kind, part in zip(kinds, np.array_split(points, len(kinds)), strict=True):
        path = folder / f"{kind}_{len(written)}.{kind}"
        if kind == "npy":
            np.save(path, part)
        elif kind == "npz":
            np.savez(path, part)
        elif kind == "bin":
            np.column_stack([part, np.full(len(part), 0.5)]).astype("<f4").tofile(path)
        elif kind == "parquet":
            table = pa.table({"id": np.arange(len(part)), **dict(zip("xyz", part.T, strict=True))})
            pa.parquet.write_table(table, path, row_group_size=300)
        else:
            laspy = pytest.importorskip("laspy")
            las = laspy.LasData(laspy.LasHeader(point_format=6, version="1.4"))
            las.header.scales, las.header.offsets = [0.001] * 3, np.floor(part.min(axis=0))
            las.x, las.y, las.z = part.T
            las.write(path)
        written.append(path)
    return written


def points_of(path):
    return open_scan(path).read(0, open_scan(path).num_points, ["x", "y", "z"]).astype(np.float64)


def labels_in(path):
    if path.suffix == ".npy":
        return np.load(path)
    return read_scan(path, ["classification" if path.suffix in (".las", ".laz") else "label"]).columns[:, 3]


def expected_labels(net, paths):
    parts = [points_of(path) for path in paths]
    return np.split(in_memory(net, np.concatenate(parts)), np.cumsum([len(p) for p in parts])[:-1])


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(spcy.dask.files, "CHUNK", 500)


def test_files_of_all_kinds(client, small_chunks, tmp_path, rng):
    net, paths = u_net(), write_scans(tmp_path / "in", cloud(rng, 5000))
    out = tmp_path / "out"
    done = spcy.dask.label_files(net, paths, out, VOXEL, client=client, tile=12)
    assert (len(done.written), done.kept, done.failed, done.points) == (5, [], {}, 5000)
    for path, written, expected in zip(paths, done.written, expected_labels(net, paths), strict=True):
        np.testing.assert_array_equal(labels_in(written), expected)
        if path.suffix in (".laz", ".parquet"):
            np.testing.assert_array_equal(points_of(written), points_of(path))
    assert sorted(p.name for p in out.iterdir()) == sorted([p.name for p in done.written] + ["spcy-run.json"])
    again = spcy.dask.label_files(net, paths, out, VOXEL, client=client, tile=12)
    assert (again.written, len(again.kept), again.points) == ([], 5, 0)
    done.written[1].unlink()
    again = spcy.dask.label_files(net, paths, out, VOXEL, client=client, tile=12)
    assert again.written == [done.written[1]]
    np.testing.assert_array_equal(labels_in(done.written[1]), expected_labels(net, paths)[1])


def test_files_of_bare_numbers(client, small_chunks, tmp_path, rng):
    rows = np.column_stack([cloud(rng, 1001), rng.uniform(0, 1, (1001, 2))]).astype(np.float32)
    (tmp_path / "in").mkdir()
    rows.tofile(tmp_path / "in" / "a.bin")
    np.save(tmp_path / "in" / "b.npy", rows)
    paths = sorted((tmp_path / "in").iterdir())
    options = {"client": client, "tile": 8, "file_columns": "x,y,z,i,ring"}
    with pytest.raises(ValueError, match=r"file's, x, y, z, i, ring, got 'time'"):
        spcy.dask.label_files(u_net(), paths, tmp_path / "none", VOXEL, columns=["time"], **options)
    net = nn.SubMConv(2, 4, 3, rng=0).eval()
    done = spcy.dask.label_files(net, paths, tmp_path / "out", VOXEL, columns=["ring", 3], **options)
    x = spcy.voxelize(rows[:, :3].astype(np.float64), VOXEL, features=rows[:, [4, 3]])
    expected = net(x.tensor).features.argmax(1)[x.rows]
    for written in done.written:
        np.testing.assert_array_equal(np.load(written), expected)


def test_a_run_goes_on(client, small_chunks, tmp_path, rng):
    net, paths = Noted(tmp_path, "fail"), write_scans(tmp_path / "in", cloud(rng), ["npy"] * 3)
    out = tmp_path / "out"
    with pytest.raises(OSError, match="the roof is leaking"):
        spcy.dask.label_files(net, paths, out, VOXEL, client=client, tile=8)
    assert not [*out.glob("*.npy")]
    finished = len([*(out / ".spcy-run/tiles").iterdir()])
    assert [*(out / ".spcy-run/rows").iterdir()]
    (tmp_path / "mended").touch()
    before = count(tmp_path, "ran")
    done = spcy.dask.label_files(net, paths, out, VOXEL, client=client, tile=8)
    for written, expected in zip(done.written, expected_labels(net, paths), strict=True):
        np.testing.assert_array_equal(np.load(written), expected)
    fresh = Noted(tmp_path / "fresh")
    fresh.folder.mkdir()
    spcy.dask.label_files(fresh, paths, tmp_path / "other", VOXEL, client=client, tile=8)
    if finished:
        assert count(tmp_path, "ran") - before < count(fresh.folder, "ran")


def test_files_that_cannot_be_read(client, small_chunks, tmp_path, rng):
    net, paths = u_net(), write_scans(tmp_path / "in", cloud(rng), ["npy", "laz", "npy"])
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[: len(content) // 2])
    (tmp_path / "in" / "empty.npy").touch()
    paths.append(tmp_path / "in" / "empty.npy")
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"(laz_1.laz|empty.npy).*(malformed|is empty)"):
        spcy.dask.label_files(net, paths, out, VOXEL, client=client, tile=8)
    done = spcy.dask.label_files(net, paths, out, VOXEL, client=client, tile=8, keep_going=True)
    assert set(done.failed) == {str(paths[1]), str(paths[3])}
    assert all(path in why for path, why in done.failed.items())
    assert [p.name for p in done.written] == ["npy_0.npy.npy", "npy_2.npy.npy"]
    names = [".spcy-run", "npy_0.npy.npy", "npy_2.npy.npy", "spcy-run.json"]
    assert sorted(path.name for path in out.iterdir()) == names


def test_refuses_before_anything_runs(client, tmp_path, rng):
    paths = write_scans(tmp_path / "in", cloud(rng, 50), ["npy", "npy"])
    out = tmp_path / "out"
    options = {"client": client}
    with pytest.raises(ValueError, match="paths must name at least one file"):
        spcy.dask.label_files(u_net(), [], out, VOXEL, **options)
    with pytest.raises(ValueError, match=r"columns must be below 3 \(x, y, z\), got 3"):
        spcy.dask.label_files(u_net(channels=4), paths, out, VOXEL, columns=(0, 1, 2, 3), **options)
    assert not out.exists() or not [*out.glob("*.npy")]
    spcy.dask.label_files(u_net(), paths, out, VOXEL, **options)
    with pytest.raises(ValueError, match=r"spcy-run\.json has other voxel_size, tile; name another"):
        spcy.dask.label_files(u_net(), paths, out, 2 * VOXEL, tile=99, **options)
    with pytest.raises(ValueError, match=r"spcy-run\.json has other network; "):
        spcy.dask.label_files(nn.SubMConv(3, 4, 3, rng=1).eval(), paths, out, VOXEL, **options)
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other" / "npy_0.npy", np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"names of their own, got several that become npy_0\.npy\.npy"):
        spcy.dask.label_files(u_net(), [*paths, tmp_path / "other" / "npy_0.npy"], out, VOXEL, **options)
    laz = write_scans(tmp_path / "laz", cloud(rng, 50), ["laz"])
    with pytest.raises(ValueError, match="out must not be where the inputs are"):
        spcy.dask.label_files(u_net(), laz, tmp_path / "laz", VOXEL, **options)


# The command


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    """A folder of LAZ files, the points in them, and their labels."""
    folder = tmp_path_factory.mktemp("streets")
    points = generate_scene(1).points.astype(np.float64)[::4] + [5e5, 5.4e6, 100]
    paths = write_scans(folder, points, ["laz"] * 4)
    parts = [points_of(path) for path in paths]
    labels = street.label_points(street.load(), np.concatenate(parts))
    return folder, np.split(labels, np.cumsum([len(part) for part in parts])[:-1])


def command(*arguments, **options):
    line = [sys.executable, "-m", "spcy", "run", "street", *map(str, arguments)]
    options = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(line, **options)


def check_labels(out, expected):
    for i, labels in enumerate(expected):
        np.testing.assert_array_equal(labels_in(out / f"laz_{i}.laz"), labels)


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["here", "2workers"])
def test_command(workers, streets, tmp_path, capfd):
    folder, expected = streets
    arguments = [str(folder / "*.laz"), "--out", str(tmp_path / "out"), *workers]
    if workers:
        process = command(*arguments)
        out, err = process.communicate(timeout=120)
        status = process.returncode
    else:
        status = main(["run", "street", *arguments])
        out, err = capfd.readouterr()
    assert status == 0, err
    assert "100%" in err
    number = sum(map(len, expected))
    assert out == f"{tmp_path}/out: 4 files written, 0 were there, 0 left out\n{number} points read\n"
    check_labels(tmp_path / "out", expected)
    assert json.loads((tmp_path / "out/spcy-run.json").read_text())["voxel_size"] == [0.2, 0.2, 0.2]


@pytest.mark.thorough
@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["killed", "Ctrl-C"])
def test_command_is_stopped_and_run_again(workers, streets, tmp_path):
    folder, expected = streets
    out = tmp_path / "out"
    process = command(folder, "--out", out, "--tile", 100, *workers, start_new_session=True)
    deadline = time.monotonic() + 60
    while not [*out.glob(".spcy-run/*/*.npz")] and time.monotonic() < deadline:
        time.sleep(0.005)
    if workers:
        os.killpg(process.pid, signal.SIGINT)  # to all of them, as a terminal does
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert err.endswith("\nspcy: interrupted\n")
        assert "Traceback" not in err
    else:
        process.kill()
        process.communicate()
    assert not [*out.glob("*.laz")]
    process = command(folder, "--out", out, "--tile", 100)
    text, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "4 files written" in text
    check_labels(out, expected)
    assert sorted(p.name for p in out.iterdir()) == [*(f"laz_{i}.laz" for i in range(4)), "spcy-run.json"]


@pytest.mark.thorough
def test_command_with_a_full_disk(streets, tmp_path):
    folder, expected = streets
    out = tmp_path / "out"

    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = command(folder, "--out", out, preexec_fn=little_room)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "spcy: error:" in err
    assert "File too large" in err
    assert not [*out.glob("*.laz")]
    assert not [*out.glob("**/.*.npz")]
    process = command(folder, "--out", out)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    check_labels(out, expected)


def test_command_refuses(streets, tmp_path, capsys):
    folder, _ = streets
    (tmp_path / "empty").mkdir()
    laz = folder / "laz_0.laz"
    for arguments, message in (
        ([tmp_path / "empty", "--out", tmp_path / "out"], "empty: expected a file that ends in .bin, .npy"),
        ([tmp_path / "none*.laz", "--out", tmp_path / "out"], "none*.laz: expected a file, found none"),
        ([laz, laz, "--out", "a.npz"], "--out must be a folder for 2 scans, got 'a.npz'"),
        ([laz, "--out", tmp_path / "out", "--tile", "4"], "tile must be at least the stride of the network"),
        ([laz, "--out", tmp_path / "out", "--workers", "0"], "--workers must be at least 1, got 0"),
        ([laz, "--out", tmp_path / "out", "--features", "intensity"], "--features are no input of street"),
        ([laz, "--out", tmp_path / "out", "--voxel", "1", "2"], "--voxel must be one number or three, got 2"),
        ([laz, "--out", folder], "out must not be where the inputs are"),
    ):
        assert main(["run", "street", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert message in err, err
        assert out == ""
        assert not [*tmp_path.glob("out/*.laz")]
    process = command(*arguments)
    assert process.communicate(timeout=60) == (out, err)
    assert process.returncode == 2


# Bad input


def test_points_that_are_not_finite(rng):
    points, net = cloud(rng), u_net()
    points[[5, 700, 3999], [0, 1, 2]] = np.nan, np.inf, -np.inf
    message = r"partition [01]: points must be finite, or invalid='drop', got \[.* in row \d+: [12] of "
    with pytest.raises(ValueError, match=message):
        spcy.dask.predict(net, cut(frame(points), [600]), VOXEL).compute(scheduler="synchronous")
    labels = spcy.dask.predict(net, cut(frame(points), [600]), VOXEL, invalid="drop")
    finite = np.isfinite(points).all(axis=1)
    labels = labels.compute(scheduler="synchronous").to_numpy()
    assert (labels[~finite] == -1).all()
    np.testing.assert_array_equal(labels[finite], in_memory(net, points[finite]))


def test_bad_arguments(rng):
    table, net = frame(cloud(rng, 50), {"name": ["a"] * 50}), u_net()
    points = cut(table, [20])
    strided = nn.Conv(3, 4, 2, 2, rng=0).eval()
    training = nn.Sequential(nn.Linear(3, 4, rng=0), nn.BatchNorm(4))
    for arguments, options, kind, message in (
        ((net, table, VOXEL), {}, TypeError, "points must be a dask.dataframe.DataFrame, got DataFrame"),
        ((net, points, 0), {}, ValueError, "voxel_size must be positive, got 0"),
        ((net, points[["x", "y"]], VOXEL), {}, ValueError, "points must have a column 'z', got x, y"),
        ((net, points, VOXEL), {"columns": ["name"]}, TypeError, "column 'name' must be of numbers, got "),
        ((net, points, VOXEL), {"columns": "x"}, TypeError, "columns must be a sequence of names"),
        (
            (net, points, VOXEL),
            {"tile": 1},
            ValueError,
            r"at least the stride of the network, \[2, 2, 2\], got",
        ),
        ((net, points, VOXEL), {"sites": 0}, ValueError, r"sites must be at least 1 .*, got 0"),
        ((net, points, VOXEL), {"partitions": 0}, ValueError, r"partitions must be at least 1 .*, got 0"),
        ((net, points, VOXEL), {"invalid": "keep"}, ValueError, "invalid must be one of"),
        ((strided, points, VOXEL), {}, ValueError, "net must return one tensor, on the sites of its input"),
        ((training, points, VOXEL), {}, ValueError, "depends on the statistics of all sites"),
    ):
        with pytest.raises(kind, match=message):
            spcy.dask.predict(*arguments, **options)
    with pytest.raises(TypeError, match=r"volume must be a dask\.array\.Array"):
        spcy.dask.label_volume(net, np.zeros((3, 3)), 0)
    with pytest.raises(ValueError, match=r"volume must be of numbers with 1 \.\. 4 axes, got bool"):
        spcy.dask.label_volume(net, da.zeros((3, 3), dtype=bool), 0)


def test_partitions_of_other_dtypes(rng):
    table = frame(cloud(rng, 50))
    points = dd.from_map(lambda dtype: table.astype(dtype), [np.float64, np.float32], meta=table.iloc[:0])
    with pytest.raises(
        TypeError, match="partition 1: column 'x' must be float64, as in the others, got float32"
    ):
        spcy.dask.predict(u_net(), points, VOXEL).compute(scheduler="synchronous")
    wrong = spcy.dask.predict(u_net(), cut(table, [20]), VOXEL, features=lambda points, _: points[:7])
    message = r"partition [01]: features must return an array of floats of shape \([23]0, C\)"
    with pytest.raises(ValueError, match=message):
        wrong.compute(scheduler="synchronous")
