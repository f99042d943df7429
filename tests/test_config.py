"""What a bug report says about an installation."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import spcy
from spcy import _config, _threads
from spcy.__main__ import main
from spcy._cpu import simd


def config():
    return spcy.show_config("dicts")


def in_another_process(code, **env):
    env = {**os.environ, "PYTHONPATH": str(Path(spcy.__file__).parents[1]), **env}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_says_versions_of_what_is_there():
    versions = config()["versions"]
    assert versions["spcy"] == spcy.__version__
    assert versions["NumPy"] == np.__version__
    assert versions["Python"].startswith(platform.python_version())
    assert "matplotlib" in versions
    assert "nothing-of-this-name" not in versions
    loaded = "import sys, spcy; spcy.show_config('dicts'); print({'torch', 'scipy'} & {*sys.modules})"
    assert in_another_process(loaded) == "set()\n"


def test_prints_what_it_returns(capsys):
    assert spcy.show_config() is None
    lines = capsys.readouterr().out.splitlines()
    expected = []
    for section, facts in config().items():
        expected += [f"{section}:", *(f"  {name}: {fact}" for name, fact in facts.items())]
    assert lines == expected


def test_says_the_simd_level():
    facts = config()["simd"]
    assert facts["level"] == simd.current()
    assert facts["available"].split(", ") == [*simd.available()]
    code = "import spcy; print(*spcy.show_config('dicts')['simd'].values(), sep='; ')"
    assert in_another_process(code, SPCY_SIMD="baseline").startswith("baseline; SPCY_SIMD; ")
    best = f"{simd.available()[0]}; the best of this CPU and build; "
    assert in_another_process(code, SPCY_SIMD="").startswith(best)


def test_says_where_the_number_of_threads_comes_from(monkeypatch):
    monkeypatch.setattr(_threads, "_default", None)
    monkeypatch.setattr(_threads, "_followed", {})
    monkeypatch.setattr(_threads, "_num_threads", None)
    monkeypatch.setattr(_threads, "_quota", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0))
    assert config()["threads"]["from"] == f"{cores} cores in the CPU affinity, control groups' quota 3"
    monkeypatch.setattr(_threads, "_quota", lambda: _threads._NO_QUOTA)
    assert config()["threads"]["from"] == f"{cores} cores in the CPU affinity"
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")
    monkeypatch.setattr(_threads, "_default", None)
    facts = config()["threads"]
    assert (facts["number"], facts["from"]) == (2, "OMP_NUM_THREADS")
    followed = {"torch.get_num_threads": lambda: 1, "the threads of a Dask worker": lambda: None}
    monkeypatch.setattr(_threads, "_followed", followed)
    assert config()["threads"]["from"].startswith("torch.get_num_threads, at most the cores (")
    monkeypatch.setattr(_threads, "_num_threads", 5)
    facts = config()["threads"]
    assert (facts["number"], facts["from"]) == (5, "spcy.set_num_threads")


def test_says_the_openmp_runtimes(monkeypatch, tmp_path):
    if not _threads._native.has_openmp():
        assert config()["threads"]["OpenMP"] == "not in this build"
        return
    maps = tmp_path / "maps"
    maps.write_text(
        "1-2 r-xp 0 08:01 7 /a/libgomp.so.1\n2-3 r-xp 0 08:01 8 /b/libiomp5.so\n3-4 rw-p 0 00:00 0\n"
    )
    monkeypatch.setattr(_config, "_MAPS", maps)
    assert config()["threads"]["OpenMP"] == "/a/libgomp.so.1, /b/libiomp5.so"
    monkeypatch.setattr(_config, "_MAPS", tmp_path / "none")
    assert config()["threads"]["OpenMP"] == "in this build"


def test_says_what_cuda_there_is(backend):
    facts = config()["backend"]
    assert facts["in force"] == backend
    if backend == "cuda":
        assert "compute capability" in facts["CUDA"]
        assert "driver" in facts["CUDA"]


def test_a_backend_that_cannot_run_is_told_not_raised():
    code = "import spcy; print(spcy.show_config('dicts')['backend']['in force'])"
    assert in_another_process(code, SPCY_BACKEND="tpu").startswith("none: backend must be one of 'cpu'")


def test_refuses_other_modes():
    with pytest.raises(ValueError, match="mode must be one of 'stdout', 'dicts', got 'json'"):
        spcy.show_config("json")


def test_command(capsys):
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    spcy.show_config()
    assert printed == capsys.readouterr().out
