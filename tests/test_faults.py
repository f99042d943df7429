"""Memory that is refused anywhere in a call, disks that are full, folders that take no file."""

import os
import shutil
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path

import fault_child
import numpy as np
import pytest

import spcy
from spcy import models
from spcy.__main__ import main
from spcy._cpu import threads
from spcy.scan import label_scan

HERE = Path(__file__).parent
resource = pytest.importorskip("resource", reason="the system has no limits of processes")

# Memory


def compiled(folder, source, command, *options):
    """Return the library that a compiler makes of a source."""
    if sys.platform != "linux":
        pytest.skip("the allocators are put in place as on Linux")
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed here")
    path = folder / f"{Path(source).stem}.so"
    subprocess.run([command, "-O1", "-shared", "-fPIC", *options, "-o", path, HERE / source], check=True)
    return path


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        pytest.skip("the interpreter came without its headers")
    options = [f"-I{headers}", f"-I{np.get_include()}"]
    return compiled(tmp_path_factory.mktemp("library"), "fault_alloc.c", "gcc", *options)


def run_child(*arguments, **environment):
    """Run the operations in a process of their own, which may crash; return how often each was refused."""
    environment = os.environ | {"PYTHONPATH": str(Path(spcy.__file__).parents[1])} | environment
    command = [sys.executable, "-X", "faulthandler", HERE / "fault_child.py", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return {name: int(count) for name, count in map(str.split, done.stdout.splitlines())}


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "least"), [("data", 20), ("objects", 100)])
def test_memory_that_is_refused_once(kind, least, library):
    """It is said, nothing is held, and the same call on the same coords then gives the right numbers."""
    refused = run_child(kind, library, *fault_child.OPERATIONS)
    assert set(refused) == set(fault_child.OPERATIONS)
    assert min(refused.values()) >= least


@pytest.mark.skipif(not threads.has_openmp(), reason="this build has no OpenMP")
def test_memory_that_is_refused_to_the_team(tmp_path):
    """Callers then work alone."""
    library = compiled(tmp_path, "fault_new.cpp", "g++", "-std=c++17")
    run_child("new", "", "subm_conv", LD_PRELOAD=str(library))


# Files


POINTS = np.random.default_rng(0).uniform(0, 9, (3000, 3)).astype(np.float32)
NET = models.SparseConvNetUNet(3, 2, [4, 6], rng=0).eval()
SETTINGS = models.ScanSettings((0.5, 0.5, 0.5), None, (0, 1, 2))


def label(name, inputs, out):
    label_scan(inputs / name, out, [np.ones(len(POINTS), np.int16)])


def command(*arguments):
    """Run the command line; raise what it says."""
    status = main([str(argument) for argument in arguments])
    if status:
        raise OSError(f"exit status {status}")


WRITERS = {
    "model.npz": lambda inputs, out: models.save(out, NET, SETTINGS),
    "output.npz": lambda inputs, out: command("run", inputs / "model.npz", inputs / "scan.npy", "-o", out),
    "scan.npy.npy": lambda inputs, out: label("scan.npy", inputs, out),
    "scan.las": lambda inputs, out: label("scan.las", inputs, out),
    "scan.laz": lambda inputs, out: label("scan.laz", inputs, out),
    "scan.parquet": lambda inputs, out: label("scan.parquet", inputs, out),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    np.save(folder / "scan.npy", POINTS)
    models.save(folder / "model.npz", NET, SETTINGS)
    laspy, arrow = pytest.importorskip("laspy"), pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for suffix in ("las", "laz"):
        cloud = laspy.LasData(laspy.LasHeader(version="1.4", point_format=6))
        cloud.x, cloud.y, cloud.z = POINTS.T
        cloud.write(folder / f"scan.{suffix}")
    parquet.write_table(arrow.table(dict(zip("xyz", POINTS.T, strict=True))), folder / "scan.parquet")
    return folder


@contextmanager
def little_room(size):
    """Let no file grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def refusal(write, inputs, out, capsys):
    """Return what an OSError of the system says, or the command line."""
    try:
        write(inputs, out)
    except OSError as error:
        return f"{error}{capsys.readouterr().err}"
    raise AssertionError("written")


def listing(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
@pytest.mark.parametrize("size", [0, 1500])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_what_was_there(name, size, there, inputs, tmp_path, capsys):
    if there:
        (tmp_path / name).write_bytes(b"what was there")
    before = listing(tmp_path)
    with little_room(size):
        said = refusal(WRITERS[name], inputs, tmp_path / name, capsys)
    assert listing(tmp_path) == before
    assert "File too large" in said or "written" in said  # as NumPy says it
    assert str(tmp_path / name) in said
    WRITERS[name](inputs, tmp_path / name)
    assert [*listing(tmp_path)] == [Path(name)]


@pytest.mark.parametrize("name", WRITERS)
def test_a_place_that_takes_no_file_is_named(name, inputs, tmp_path, capsys):
    """Permissions do not bind every user that runs the tests; a file is no folder for anybody."""
    (tmp_path / "file").write_bytes(b"what was there")
    assert str(tmp_path / "file") in refusal(WRITERS[name], inputs, tmp_path / "file" / name, capsys)
    assert listing(tmp_path) == {Path("file"): b"what was there"}


def test_a_demo_writes_all_or_nothing(inputs, tmp_path, capsys):
    pytest.importorskip("matplotlib.pyplot")
    (tmp_path / "sites.npz").write_bytes(b"what was there")
    (tmp_path / "file").write_bytes(b"a file")
    before = listing(tmp_path)

    def demo(inputs, out):
        command("demo", inputs / "scan.npy", "--out", out)

    with little_room(200_000):  # for some pictures
        said = refusal(demo, inputs, tmp_path, capsys)
    assert f"File too large: '{tmp_path}'" in said
    assert f"'{tmp_path}/file/out'" in refusal(demo, inputs, tmp_path / "file" / "out", capsys)
    assert listing(tmp_path) == before
