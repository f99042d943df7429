"""The sdist has all that a build needs, and the wheel made from it works away from the checkout."""

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMOKE = """
import numpy as np, spcy
x = spcy.SparseTensor([[0, 4], [0, 5], [0, 9]], np.ones((3, 1)))
assert spcy.subm_conv(x, np.ones((3, 1, 1))).features[:, 0].tolist() == [2, 2, 1]
print(spcy.__file__)
"""

NOT_COPIED = (
    ".git",
    ".venv",
    ".asv",
    ".gpu",
    ".*_cache",
    ".hypothesis",
    "build",
    "_build",
    "*.so",
    "__pycache__",
    "out",
)
DATA_ONLY = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in 3.11.0 .. 3.11.3


def build(source, folder, *options, **env):
    """Build in isolation, as pip does; return the output."""
    command = [sys.executable, "-W", "ignore", "-m", "build", *options, "--outdir", str(folder), str(source)]
    done = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, check=False, cwd=folder
    )
    output = done.stdout + done.stderr
    if "No matching distribution found" in output:
        pytest.skip("pip cannot reach a package index for the build's own requirements")
    assert done.returncode == 0, output[-3000:]
    return output


@pytest.mark.parametrize("compiler", ["g++", "clang++", "clang++-14", "clang++-19"])
def test_headers_are_for_every_compiler(compiler, tmp_path):
    """Only one of them builds spcy here: the others look at what it is built of."""
    if shutil.which(compiler) is None or not (ROOT / "src").exists():
        pytest.skip(f"there is no {compiler}, or no source, here")
    names = [
        str(path.relative_to(ROOT / "src")) for path in ROOT.glob("src/c*/*.h") if path.parent.name != "cuda"
    ]
    assert len(names) > 30
    alone = {"cpu/grad_tile.h"}  # it has names that conv_tile.h has
    for together in ({*names} - alone, alone):
        source = tmp_path / "all.cpp"
        source.write_text("".join(f'#include "{name}"\n' for name in sorted(together)))
        flags = ["-std=c++17", "-fsyntax-only", "-w"]
        if platform.machine() in ("x86_64", "AMD64"):
            flags += [f"-DSPCY_HAVE_{level}" for level in ("AVX2", "AVX512", "AVX512_BF16")]
        done = subprocess.run(
            [compiler, *flags, f"-I{ROOT / 'src'}", source], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[:3000]


def copy_sources(folder):
    return shutil.copytree(ROOT, folder / "spcy", ignore=shutil.ignore_patterns(*NOT_COPIED))


def run_wheel(wheel, folder, code):
    """Run code against an unpacked wheel, away from the checkout; return what it printed."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    env = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", SMOKE + code]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    where, _, printed = done.stdout.partition("\n")
    assert Path(where).is_relative_to(folder)
    return printed.strip()


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    if not (ROOT / "setup.py").exists():
        pytest.skip("the tests run away from a checkout")
    folder = tmp_path_factory.mktemp("sdist")
    source = copy_sources(tmp_path_factory.mktemp("source"))  # two that build in one folder would collide
    build(source, folder, "--sdist", SOURCE_DATE_EPOCH="1700000000")
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def sdist(archive, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, **DATA_ONLY)
    return next(folder.iterdir())


@pytest.mark.thorough
def test_sdist_has_the_sources_and_the_tests(sdist):
    tracked = [*ROOT.glob("src/*/*.*"), *ROOT.glob("spcy/**/*.py"), *ROOT.glob("tests/*.py")]
    # Tests that run beside this one leave bytecode.
    wanted = {path.relative_to(ROOT) for path in tracked if path.suffix != ".pyc"}
    wanted |= {
        Path("CHANGELOG.md"),
        Path("LICENSE"),
        Path("README.md"),
        Path("spcy/_cpu/simd.pxd"),
        Path("asv_bench/asv.conf.json"),
    }
    names = {path.relative_to(sdist) for path in sdist.rglob("*")}
    assert wanted <= names
    assert not [name for name in names if name.suffix in {".so", ".bin"}]


@pytest.mark.thorough
def test_sdists_of_the_same_sources_are_the_same(archive, tmp_path):
    """In folders of any name, of files of other times and modes."""
    source = copy_sources(tmp_path)
    (source / "setup.py").touch()
    (source / "README.md").chmod(0o660)
    build(source, tmp_path, "--sdist", SOURCE_DATE_EPOCH="1700000000")
    (again,) = tmp_path.glob("*.tar.gz")
    assert again.read_bytes() == archive.read_bytes()


@pytest.mark.parametrize("other", ["sys.maxsize = 2**31 - 1", "sys.byteorder = 'big'"])
def test_other_machines_are_refused_with_a_sentence(other):
    if not (ROOT / "setup.py").exists():
        pytest.skip("the tests run away from a checkout")
    code = f"import runpy, sys; {other}; runpy.run_path('setup.py')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "64-bit little-endian machines" in done.stderr.splitlines()[-1]


@pytest.mark.thorough
def test_wheel_of_the_sdist_works_and_is_single_threaded_without_openmp(sdist, tmp_path):
    """As every other test runs what was built with OpenMP, and optimized, this one need not take as long."""
    output = build(sdist, tmp_path, "--wheel", SPCY_NO_OPENMP="1", CXXFLAGS="-O0")
    assert output.count("spcy is built single-threaded") == 1
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    data = {"spcy/py.typed", "spcy/_cpu/conv.pyi", "spcy/demo/page.html", "spcy/demo/street.npz"}
    assert data <= set(names)
    assert not [name for name in names if name.startswith(("src/", "tests/")) or name.endswith(".pyx")]
    code = "spcy.set_num_threads(4); print(spcy._cpu.threads.has_openmp(), spcy.get_num_threads())"
    assert run_wheel(wheel, tmp_path / "site", code) == "False 1"
