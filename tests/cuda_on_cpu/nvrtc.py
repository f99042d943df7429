"""Compile CUDA text with NVRTC, which needs neither a GPU nor a driver."""

import base64
import ctypes
import functools
import importlib.util
import json
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from .build import cache_folder, digest


class CompileError(Exception):
    """What NVRTC said."""


class Resources(NamedTuple):
    """What a kernel takes, by ptxas: of each thread, spilled bytes too; shared memory of a block."""

    registers: int
    stack_bytes: int
    spill_bytes: int
    shared_bytes: int


def _folders():
    """Return where the packages that carry NVRTC put it."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations if spec else ())]
    return [
        folder for root in roots for pattern in ("cu*/lib", "cuda_nvrtc/lib") for folder in root.glob(pattern)
    ]


@functools.cache
def _library():
    """Return NVRTC's library, or why there is none."""
    for folder in sorted(_folders(), reverse=True):
        libraries = sorted(folder.glob("libnvrtc.so.*"))
        if libraries:
            for builtins in folder.glob("libnvrtc-builtins.so.*"):  # it would not find them by itself
                ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
            return ctypes.CDLL(str(libraries[0]))
    for name in ("libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"):  # an installed toolkit's
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return "there is no NVRTC (package nvidia-cuda-nvrtc)"


def available():
    """Return why nothing can be compiled here, or None."""
    library = _library()
    return library if isinstance(library, str) else None


def compile_text(code, names, arch, options=()):
    """Return the cubin of a text and the `Resources` of each named kernel.

    A text that was compiled before is not again: it takes a minute for all convolutions of an architecture.
    """
    path = cache_folder() / f"{digest(_version(), code, *names, '', arch, *options)}.json"
    if path.exists():
        kept = json.loads(path.read_text())
        return base64.b64decode(kept["cubin"]), {n: Resources(*r) for n, r in kept["resources"].items()}
    cubin, resources = _compile(code, names, arch, options)
    text = json.dumps({"cubin": base64.b64encode(cubin).decode(), "resources": resources})
    with tempfile.NamedTemporaryFile("w", dir=cache_folder(), delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)
    return cubin, resources


def _version():
    major, minor = ctypes.c_int(), ctypes.c_int()
    _require(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    library = Path(_library()._name)
    size = library.stat().st_size if library.exists() else 0  # of a release its number does not tell apart
    return f"{major.value}.{minor.value} {size}"


def _compile(code, names, arch, options):
    library, program = _library(), ctypes.c_void_p()
    encoded = [option.encode() for option in (*options, f"-arch={arch}", "--ptxas-options=-v")]
    _require(library.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None))
    try:
        for name in names:
            _require(library.nvrtcAddNameExpression(program, name.encode()))
        done = library.nvrtcCompileProgram(program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded))
        log = _text(program, "ProgramLog")
        if done:
            raise CompileError(log)
        lowered = ctypes.c_char_p()
        by_symbol = {}
        for name in names:
            _require(library.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(lowered)))
            by_symbol[lowered.value.decode()] = name
        cubin = _text(program, "CUBIN", raw=True)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    found = _resources(log)
    return cubin, {name: found[symbol] for symbol, name in by_symbol.items()}


def _resources(log):
    """Read what ptxas prints of each kernel."""
    out = {}
    for part in log.split("Compiling entry function '")[1:]:

        def number(pattern, part=part):
            match = re.search(pattern, part)
            return int(match[1]) if match else 0

        spills = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
        used = number(r"Used (\d+) registers"), number(r"(\d+) bytes stack frame"), spills
        out[part.split("'")[0]] = Resources(*used, number(r"(\d+) bytes smem"))
    return out


def _text(program, what, raw=False):
    size = ctypes.c_size_t()
    _require(getattr(_library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _require(getattr(_library(), f"nvrtcGet{what}")(program, buffer))
    return buffer.raw if raw else buffer.value.decode()


def _require(status):
    if status:
        _library().nvrtcGetErrorString.restype = ctypes.c_char_p
        raise CompileError(_library().nvrtcGetErrorString(status).decode())
