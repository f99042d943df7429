"""What a bug report needs to say about an installation."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import _backend, _check, _threads
from ._cpu import simd, threads
from ._version import __version__

# The extras, by the names of their distributions.
_OPTIONAL = (
    *("cupy-cuda13x", "cupy-cuda12x", "cupy"),
    *(
        "torch",
        "ml_dtypes",
        "safetensors",
        "scipy",
        "sparse",
        "matplotlib",
        "plotly",
        "pypcd4",
        "laspy",
        "trimesh",
        "pyarrow",
        "dask",
        "distributed",
        "tqdm",
    ),
)
_MAPS = Path("/proc/self/maps")


def show_config(mode: str = "stdout") -> dict[str, dict[str, Any]] | None:
    """Show versions, SIMD level, threads and CUDA, as a bug report needs them.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print, or return; as for `numpy.show_config`.

    Returns
    -------
    dict or None
        With "dicts", the sections, each a dict.

    Raises
    ------
    ValueError
        If `mode` is neither of the two.

    Examples
    --------
    >>> import spcy
    >>> config = spcy.show_config("dicts")
    >>> [*config], config["versions"]["spcy"] == spcy.__version__
    (['versions', 'platform', 'simd', 'threads', 'backend'], True)
    """
    _check.choice(mode, ("stdout", "dicts"), "mode")
    config: dict[str, dict[str, Any]] = {
        "versions": dict(_versions()),
        "platform": {"system": platform.platform(), "machine": platform.machine()},
        "simd": {
            "level": simd.current(),
            "from": "SPCY_SIMD" if os.environ.get("SPCY_SIMD") else "the best of this CPU and build",
            "available": ", ".join(simd.available()),
        },
        "threads": {
            "number": _threads.get_num_threads(),
            "from": _threads.source(),
            "OpenMP": ", ".join(_runtimes()) or "not in this build",
        },
        "backend": _backend_config(),
    }
    if mode == "dicts":
        return config
    for section, facts in config.items():
        print(f"{section}:")
        for name, fact in facts.items():
            print(f"  {name}: {fact}")
    return None


def _versions() -> Iterator[tuple[str, str]]:
    from importlib import metadata  # a third of the time to import spcy: it imports `email`

    yield "spcy", __version__
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "NumPy", np.__version__
    for name in _OPTIONAL:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _runtimes() -> list[str]:
    """Return the OpenMP runtimes in this process: another library may have brought a second one."""
    if not threads.has_openmp():
        return []
    try:
        files = {line.split()[-1] for line in _MAPS.read_text().splitlines()}
    except OSError:  # no Linux
        return ["in this build"]
    known = ("libgomp", "libomp", "libiomp")
    return sorted(name for name in files if Path(name).name.startswith(known)) or ["in this build"]


def _backend_config() -> dict[str, Any]:
    in_force: str
    try:
        in_force = _backend.get_backend()
    except (RuntimeError, ValueError) as error:  # SPCY_BACKEND asks for what is not there
        in_force = f"none: {error}"
    return {"in force": in_force, "CUDA": _backend.missing() or _cuda()}


def _cuda() -> str:
    """Return the GPUs, with CUDA's versions as CuPy numbers them."""
    import cupy

    runtime, found = cupy.cuda.runtime, []
    for device in range(runtime.getDeviceCount()):
        name = runtime.getDeviceProperties(device)["name"].decode()
        found.append(f"{name} (compute capability {cupy.cuda.Device(device).compute_capability})")
    versions = f"runtime {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}"
    return f"{', '.join(found)}; {versions}"
