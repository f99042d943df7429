"""Build the CPU extensions: one per stage, and the tile kernels once per SIMD level."""

import gzip
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if sys.maxsize < 2**63 - 1 or sys.byteorder != "little":
    sys.exit("spcy is for 64-bit little-endian machines: its keys and vectors would be wrong here")

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

STAGES = (
    "memory",
    "threads",
    "simd",
    "coords",
    "hashmap",
    "rulebook",
    "conv",
    "pool",
    "corners",
    "rows",
    "pointwise",
    "norm",
    "loss",
    "grad",
)
AVX512 = ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mfma", "-mf16c"]
TILE_LEVELS = {
    "avx512_bf16": [*AVX512, "-mavx512bf16"],
    "avx512": AVX512,
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "baseline": [],
}
SOURCES = {"threads": ["src/cpu/team.cpp"]}
INCLUDES = {"memory": [numpy.get_include()]}
# The sources of a stage's kernels that every level has.
TILES = {
    "conv": ("tile", "pointwise_loop"),
    "coords": ("coords_loop",),
    "corners": ("corners_loop",),
    "grad": ("grad_tile", "maxima_loop"),
    "loss": ("loss_loop",),
    "norm": ("norm_loop", "pointwise_loop"),
    "pointwise": ("pointwise_loop",),
    "pool": ("pool_loop",),
}
X86 = sysconfig.get_platform().endswith(("x86_64", "amd64"))  # what is built for, not built on
if not X86 or os.environ.get("SPCY_PORTABLE") == "1":
    TILE_LEVELS = {"baseline": []}
OPTIMIZE = [
    "-O3",
    "-std=c++17",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",
    "-g0",
]
# Of kernels: where two programs share a core, a loop that begins within a cache line is a twentieth slower.
# Where one begins would change with whatever is built beside it. And Python's own flags may say that
# counters wrap, which costs convolutions a fiftieth.
OF_KERNELS = ["-falign-loops=64", "-fno-wrapv"]
LAST = shlex.split(os.environ.get("CXXFLAGS", ""))  # who builds has the last word: sanitizers, -O0
OPENMP = OPENMP_LINK = ["-fopenmp"]
if sys.platform == "darwin":  # Apple's clang has OpenMP, but no runtime and no word for it
    OPENMP, OPENMP_LINK = ["-Xpreprocessor", "-fopenmp"], ["-lomp"]
OPENMP_PROBE = """
#include <omp.h>
int main() { return omp_get_max_threads() < 1; }
"""
DEBUG = os.environ.get("SPCY_DEBUG_CYTHON") == "1"
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "freethreading_compatible": True,  # by what spcy/_once.py says
}


class BuildExt(build_ext):
    """Choose flags once the real compiler is known, and compile on every core."""

    openmp_link, runtime = OPENMP_LINK, []

    def finalize_options(self):
        """Use every core where no number was asked for."""
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self):
        """Write the C++ of the stages: here, since an sdist wants none."""
        options = {"build_dir": "build/cython", "compiler_directives": DIRECTIVES}
        written = {extension.name: extension for extension in cythonize(self.extensions, **options)}
        for extension in self.extensions:
            extension.sources = written[extension._full_name].sources
        super().run()

    def build_extensions(self):
        """Compile the tile kernels first: convolutions and gradients link them."""
        if self.compiler.compiler_type == "msvc":
            self.take_clang()
        openmp, openmp_link = self.openmp_flags()
        macros = [(f"SPCY_HAVE_{level.upper()}", "1") for level in TILE_LEVELS]
        sources = sorted({name for names in TILES.values() for name in names})
        objects = {name: self.tile_objects(name) for name in sources}
        for extension in self.extensions:
            extension.extra_compile_args = self.spelled(OPTIMIZE + openmp + LAST)
            extension.extra_link_args = openmp_link + self.runtime
            extension.define_macros += macros
            stage = extension.name.rpartition(".")[2]
            if stage in TILES:
                extension.extra_objects = [built for name in TILES[stage] for built in objects[name]]
                extension.depends = [*extension.depends, *extension.extra_objects]
        super().build_extensions()

    def take_clang(self):
        """Compile by clang-cl, with LLVM's libraries: Microsoft's compiler has no vector extensions."""
        self.compiler.initialize()
        self.compiler.cc = shutil.which("clang-cl")
        if self.compiler.cc is None:
            raise SystemExit("spcy needs LLVM's clang-cl on Windows, and there is none on PATH")
        library = Path(self.compiler.cc).parents[1] / "lib"
        self.openmp_link = [str(library / "libomp.lib")]
        # What tells CPUs apart.
        self.runtime = [str(next(library.glob("clang/*/lib/windows/clang_rt.builtins-x86_64.lib")))]

    def spelled(self, flags):
        """Return clang's flags as the compiler takes them."""
        return [f"/clang:{flag}" for flag in flags] if self.compiler.compiler_type == "msvc" else flags

    def openmp_flags(self):
        """Return the OpenMP flags of compiler and linker, or none after one warning if a probe fails."""
        if os.environ.get("SPCY_NO_OPENMP") == "1":
            print("warning: SPCY_NO_OPENMP=1: spcy is built single-threaded", file=sys.stderr)
            return [], []
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.cpp")
            source.write_text(OPENMP_PROBE)
            program = Path(folder, "probe")
            try:
                flags = self.spelled(OPENMP)
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=flags)
                # The linker gets LDFLAGS with extensions only, and sanitizers' objects need them here too.
                flags = self.openmp_link + shlex.split(os.environ.get("LDFLAGS", ""))
                self.compiler.link_executable(objects, str(program), extra_postargs=flags)
                subprocess.run([program], check=True)
            except Exception as error:  # every compiler says it in its own way
                print(f"warning: no OpenMP ({error}): spcy is built single-threaded", file=sys.stderr)
                return [], []
        return OPENMP, self.openmp_link

    def tile_objects(self, name):
        """Compile a source once per SIMD level."""

        def compile_for(level):
            return self.compiler.compile(
                [f"src/cpu/{name}.cpp"],
                output_dir=str(Path(self.build_temp, level)),
                macros=[("SPCY_LEVEL", level)],
                include_dirs=["src"],
                extra_postargs=self.spelled(OPTIMIZE + OF_KERNELS + TILE_LEVELS[level] + LAST),
            )

        with ThreadPoolExecutor(self.parallel) as pool:
            return [built for objects in pool.map(compile_for, TILE_LEVELS) for built in objects]


class Sdist(sdist):
    """Leave out of the archive who made it and, where SOURCE_DATE_EPOCH is set, when."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        """Write files in the order of their names; the one format is gztar."""
        epoch = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))

        def plain(info):
            info.mtime, info.uid, info.gid, info.uname, info.gname = epoch, 0, 0, "", ""
            info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
            return info

        name = f"{base_name}.tar.gz"
        with (
            open(name, "wb") as file,
            gzip.GzipFile("", "wb", 9, file, epoch) as packed,
            tarfile.open(fileobj=packed, mode="w") as tar,
        ):
            tar.add(base_dir, filter=plain)  # sorts
        return name


headers = sorted(str(header) for header in Path("src").glob("*/*.h"))
extensions = [
    Extension(
        f"spcy._cpu.{stage}",
        [f"src/cpu/{stage}.pyx", *SOURCES.get(stage, ())],
        include_dirs=["src", *INCLUDES.get(stage, ())],
        depends=[*headers, *(f"src/cpu/{name}.cpp" for names in TILES.values() for name in names)],
        language="c++",
    )
    for stage in STAGES
]
setup(
    ext_modules=extensions,
    cmdclass={"build_ext": BuildExt, "sdist": Sdist},
)
