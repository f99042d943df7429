"""Compile CUDA text with g++ into libraries that run on this machine."""

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
COMPILER = os.environ.get("CXX") or "g++"
FLAGS = ["-std=c++17", "-O1", "-g1", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off", "-w"]
FLAGS += ["-fwhole-program"]  # a stage's text has many kernels: compile those that are exported
HERE_FLAGS = [f"-fdebug-prefix-map={HERE}=", "-I", str(HERE)]  # so that lines are named after #line alone
EXTRA_FLAGS = os.environ.get("SPCY_CUDA_ON_CPU_FLAGS", "").split()  # -fsanitize=address, libasan preloaded
_SHARED = re.compile(
    r"(?P<dynamic>extern\s+)?__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s+)?"
    r"(?P<type>[^;\[\],]*?)\s*\b(?P<name>\w+)\s*(?P<axes>(?:\[[^\]]*\]\s*)*);"
)

_INCLUDE = re.compile(
    r'^#include "common/.*"$', re.MULTILINE
)  # NVRTC sees none: what they name stands before


class CompileError(Exception):
    """What the compiler said."""


class _Export(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("entry", ctypes.c_void_p),
        ("parameters", ctypes.c_int),
        ("describe", ctypes.CFUNCTYPE(None, *[ctypes.POINTER(ctypes.c_int)] * 3)),
    )


class Kernel:
    """An exported kernel: its entry, and the parameters.

    Those are (size, size of the element that it points to or 0, kind of the number it is or points to).
    """

    def __init__(self, library, export):
        sizes, elements, kinds = ((ctypes.c_int * export.parameters)() for _ in range(3))
        export.describe(sizes, elements, kinds)
        self.entry = export.entry
        self.parameters = list(zip(sizes, elements, (chr(kind) for kind in kinds), strict=True))
        self.library = library


class Library:
    """A compiled text with its kernels by name; `checked` if its memory accesses are reported."""

    def __init__(self, path, checked):
        runtime()
        self.path, self.checked = path, checked
        handle = ctypes.CDLL(str(path))
        count = ctypes.c_int.in_dll(handle, "emu_export_count").value
        exports = (_Export * count).in_dll(handle, "emu_exports")
        self.kernels = {export.name.decode(): Kernel(self, export) for export in exports}
        self.begin, self.size = _extent(path)

    def with_lines(self, message):
        """Replace <offset into the library> by file and line."""

        def line(match):
            offset = hex(int(match[1], 16) - 1)  # a return address lies behind the call
            command = ["addr2line", "-e", str(self.path), offset]
            if not shutil.which("addr2line"):
                return f"at {offset}"
            return (
                subprocess.run(command, capture_output=True, text=True, check=True)
                .stdout.split()[0]
                .lstrip("/")
            )

        return re.sub(r"<(0x[0-9a-f]+)>", line, message)


def available():
    """Return why kernels cannot be compiled here, or None."""
    return None if shutil.which(COMPILER) else f"there is no {COMPILER}"


def cache_folder():
    """Return the folder where compiled libraries stay."""
    given = os.environ.get("SPCY_CUDA_ON_CPU_CACHE")
    folder = Path(given) if given else Path(tempfile.gettempdir(), f"spcy_cuda_on_cpu_{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@functools.cache
def runtime():
    """Return the machine: one library for all, whose symbols the kernels bind to."""
    path = _compiled((HERE / "runtime.cpp").read_text(), "-O2", "-fno-whole-program", precompile=False)
    machine = ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    machine.emu_run.restype = ctypes.c_char_p
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    machine.emu_run.argtypes = [
        *[pointer] * 4, number, pointer, number, pointer, ctypes.c_int, pointer, number,
    ]  # fmt: skip
    return machine


@functools.cache
def library(code, names, options=(), checked=False):
    """Return a text's library, with the named kernels exported."""
    exports = ", ".join(f'EMU_EXPORT("{name}", {name})' for name in names)
    text = "\n".join(
        [
            '#include "cuda.h"',
            '#line 1 "kernels.cu"',
            _INCLUDE.sub("", shared_memory(code)),
            f'extern "C" {{ EMU_VISIBLE emu::Export emu_exports[] = {{{exports}}};',
            f"EMU_VISIBLE int emu_export_count = {len(names)}; }}",
        ]
    )
    defines = [option for option in options if option.startswith(("-D", "-U"))]
    instrumented = ["-fsanitize=thread"] if checked else EXTRA_FLAGS  # the two sanitizers exclude each other
    return Library(_compiled(text, *instrumented, *defines), checked)


def shared_memory(code):
    """Write __shared__ declarations as calls of the machine; lines stay where they are."""

    def declaration(match):
        kind, name, axes = match["type"], match["name"], match["axes"].strip()
        if match["dynamic"]:
            return f"auto* {name} = static_cast<{kind}*>(emu_shared(nullptr, 0));"
        return f"static const char {name}_site = 0; auto& {name} = emu::shared<{kind}{axes}>(&{name}_site);"

    code = _SHARED.sub(declaration, code)
    if "__shared__" in re.sub(r"//.*", "", code):
        raise CompileError("a __shared__ declaration must have the form: __shared__ type name[size];")
    return code


def _compiled(text, *flags, precompile=True):
    """Return the library of a C++ text, from the cache if it was compiled before, in whatever checkout."""
    compile_ = [COMPILER, *FLAGS, *flags]
    target = cache_folder() / f"{digest(*compile_, _header(), text)}.so"
    if target.exists():
        return target
    headers = ["-I", str(_precompiled(compile_))] if precompile else []
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        source, made, linked = (Path(folder, f"kernels.{suffix}") for suffix in ("cpp", "o", "so"))
        source.write_text(text)
        _run([*compile_, *headers, *HERE_FLAGS, "-x", "c++", "-c", str(source), "-o", str(made)])
        # No -fsanitize=thread here: it would link libtsan, whose entry points runtime.cpp has.
        _run([COMPILER, *EXTRA_FLAGS, "-shared", str(made), "-o", str(linked)])
        linked.replace(target)
    return target


def _precompiled(compile_):
    """Return the folder of cuda.h as g++ has it after parsing, which takes longer than most kernels do.

    What it cannot use, of another version, it leaves, and so does clang: cuda.h itself follows.
    """
    target = cache_folder() / digest(*compile_, _header())
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
            made = Path(folder, "headers")
            made.mkdir()
            header = ["-x", "c++-header", str(HERE / "cuda.h")]
            _run([*compile_, *HERE_FLAGS, *header, "-o", str(made / "cuda.h.gch")])
            with contextlib.suppress(OSError):  # another process was as fast
                made.rename(target)
    return target


def _header():
    return (HERE / "cuda.h").read_text()


def digest(*texts):
    """Return the name under which what is made from texts is kept."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]


def _run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE)
    if done.returncode:
        raise CompileError(done.stderr)


def _extent(path):
    """Return where a loaded library lies in memory, and how much it takes."""
    spans = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path)):
            spans += [int(end, 16) for end in line.split()[0].split("-")]
    return (min(spans), max(spans) - min(spans)) if spans else (0, 0)
