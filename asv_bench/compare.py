"""Time spcy beside other engines, in one process, interleaved; check first that they agree.

    python asv_bench/compare.py [--sites N ...] [--scan FILE --voxel M] [--threads 1 2] [--png FILE]

The other engines are spconv's CPU wheel, PyTorch's dense convolution and SciPy's sparse matrices: give them a
throw-away environment with spcy and threadpoolctl in it. Those that are not installed are left out. Times are
medians of interleaved rounds, each call after one that is not timed: the process's CPU time on one
thread, which other programs hardly disturb, and the time on the clock on more.

Outputs must agree on one thread. On more, a wrong result is noted and its time printed all the same: that of
spconv 2.3.8's convolution is wrong on two threads, and differently in every run.

gpu.py times spcy on a GPU.
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # they slow NumPy's own matmul
    os.environ.pop(name, None)

import numpy as np  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))

from benchmarks import network  # noqa: E402
from benchmarks.common import random, weight  # noqa: E402
from benchmarks.scenes import scene  # noqa: E402
from engines import ENGINES, KINDS, Engine, Norm, Spcy, Unfit  # noqa: E402
from report import chart, judge, show, show_targets  # noqa: E402
from timing import SETTLE, Task, interleaved, on_threads  # noqa: E402

import spcy  # noqa: E402

CONVS = [("submanifold", c, c) for c in (16, 32, 64, 128)]
CONVS += [("stride 2", 32, 64), ("inverse", 64, 32), ("transposed", 64, 32)]
CONVS += [("submanifold", c, c, "float64") for c in (32, 64)]
SGEMM = random((1024, 1024))  # its product with itself is timed beside convolutions
IDLE = 0.3  # programs that the machine may be busy with


def scenes(args):
    """Yield (name, coords)."""
    for sites in args.sites:
        yield f"{args.scene} {sites:,}", network.coords(args.scene, sites)
    for scan in args.scan:
        coords = network.scan_coords(scan, args.voxel, args.range)
        yield f"{Path(scan).stem} {len(coords):,}", coords


def installed(coords):
    """Return the engines that are there."""
    engines = []
    for engine in ENGINES:
        try:
            engines.append(engine(coords))
        except ImportError as error:
            print(f"{engine.name} is left out: {error}", file=sys.stderr)
    return engines


def as_numpy(result):
    """Return a result's parts as arrays or numbers."""
    return [part.numpy() if hasattr(part, "numpy") else part for part in result]


def require_equal(ours, theirs):
    """Compare results: the sites, and the features or the number of pairs."""
    (our_sites, our_values), (their_sites, their_values) = as_numpy(ours), as_numpy(theirs)
    if their_sites is None:  # dense
        b, *cell = our_sites.T
        their_values = np.moveaxis(their_values, 1, -1)[b, *cell]
    else:
        order = np.lexsort(their_sites.T[::-1])
        np.testing.assert_array_equal(our_sites, their_sites[order])
        if np.ndim(our_values):  # features, not a number of pairs
            their_values = their_values[order]
    np.testing.assert_allclose(our_values, their_values, rtol=0, atol=1e-4 * np.abs(our_values).max())


class Bench:
    """Runs operations on a scene with a number of threads."""

    def __init__(self, name, coords, threads, args):
        self.name, self.coords, self.threads, self.args = name, coords, threads, args
        self.engines = installed(coords)
        self.clock = time.process_time if threads == 1 else time.perf_counter

    def set_threads(self, threads):
        for engine in {Engine, *map(type, self.engines)}:
            engine.set_threads(threads)

    def row(self, get_task, **what):
        """Check that the engines agree about an operation, time it, and return a row of results."""
        tasks, notes = {}, {}
        self.set_threads(1)
        for engine in self.engines:
            try:
                if task := get_task(engine):
                    tasks[engine.name] = task
            except Unfit as reason:
                notes[engine.name] = str(reason)
        ours, *others = (task.run(*task.prepare()) for task in tasks.values())
        for result in others:
            require_equal(ours, result)
        self.set_threads(self.threads)
        for name, task in tasks.items():
            try:
                require_equal(ours, task.run(*task.prepare()))
            except AssertionError:
                notes[name] = f"is wrong on {self.threads} threads"
        return self.timed(tasks, **what) | {"notes": notes}

    def timed(self, tasks, group, kind, pairs=0, channels=(), dtype="float32"):
        """Return a row of results that there is nothing to compare with."""
        beside = {}
        if group == "conv":
            beside["SGEMM"] = Task(lambda: SGEMM @ SGEMM)
        if self.threads > 1:
            beside["one thread"] = on_threads(1, tasks["spcy"])
            tasks = tasks | {"spcy": on_threads(self.threads, tasks["spcy"])}
        settle = SETTLE if self.threads > 1 else 0
        seconds = interleaved(tasks | beside, self.clock, self.args.rounds, self.args.seconds, settle)
        beside = {name: seconds.pop(name) for name in beside}
        flop = 2 * pairs * math.prod(channels) if channels else 0
        return {
            "scene": self.name,
            "sites": len(self.coords),
            "threads": self.threads,
            "group": group,
            "kind": kind,
            "channels": channels,
            "dtype": dtype,
            "pairs": pairs,
            "ms": {engine: s * 1e3 for engine, s in seconds.items()},
            "gflops": {engine: flop / s / 1e9 for engine, s in seconds.items()} if flop else {},
            "sgemm": 2 * len(SGEMM) ** 3 / beside["SGEMM"] / 1e9 if "SGEMM" in beside else None,
            "one_thread_ms": beside["one thread"] * 1e3 if "one thread" in beside else None,
            "notes": {},
        }

    def conv(self, kind, c_in, c_out, dtype="float32", group="conv"):
        """Return the row of a convolution between so many channels."""
        w = weight(c_in, c_out, (KINDS[kind].kernel_size,) * 3, dtype)
        level = self.coords if KINDS[kind].level == "fine" else Spcy(self.coords).coarse(self.coords)
        features = np.random.default_rng(0).standard_normal((len(level), c_in)).astype(dtype)
        what = {
            "group": group,
            "kind": kind,
            "pairs": self.pairs("stride 2" if kind == "inverse" else kind),
            "channels": (c_in, c_out),
            "dtype": dtype,
        }
        return self.row(lambda e: e.conv(kind, lambda indices: features[level.rows_of(indices)], w), **what)

    def bfloat16(self, channels):
        """Return the row of a submanifold convolution in bfloat16, beside the same in float32."""
        tasks = {}
        for name, dtype in (("spcy", "bfloat16"), ("in float32", "float32")):
            w = weight(channels, channels, dtype=dtype)
            features = random((len(self.coords), channels), dtype)
            tasks[name] = Spcy(self.coords).conv("submanifold", lambda _, features=features: features, w)
        what = {"group": "conv", "kind": "submanifold", "pairs": self.pairs("submanifold")}
        return self.timed(tasks, **what, channels=(channels, channels), dtype="bfloat16")

    def pairs(self, kind):
        """Return the number of pairs of a rulebook."""
        task = Spcy(self.coords).rulebook(kind)
        return task.run(*task.prepare())[1]

    def rulebook(self, kind):
        """Return the row of building a rulebook."""
        return self.row(lambda e: e.rulebook(kind), group="rulebook", kind=kind, pairs=self.pairs(kind))

    def network(self):
        """Return the row of VoxelBackBone8x with its batch norms, from sites to output."""
        rng, norms = np.random.default_rng(0), []
        for layer in network.LAYERS:
            w = weight(layer.c_in, layer.c_out, layer.kernel_size) * np.float32((layer.c_in * 9) ** -0.5)
            scale, variance = rng.uniform(0.5, 1.5, (2, layer.c_out))
            shift, mean = rng.normal(0, 0.1, (2, layer.c_out))
            norms.append(Norm(w, *(a.astype(np.float32) for a in (scale, shift, mean, variance))))
        features = rng.standard_normal((len(self.coords), 4), dtype=np.float32)
        return self.row(lambda e: e.network(features, norms), group="network", kind="VoxelBackBone8x")

    def orders(self):
        """Yield rows for making coords, of sites in ascending order and in any."""
        shuffled = np.random.default_rng(0).permutation(self.coords.indices)
        for order, indices in (("sorted", self.coords.indices), ("shuffled", shuffled)):
            arguments = indices, self.coords.shape, self.coords.batch_size
            task = Task(spcy.Coords, lambda arguments=arguments: arguments)
            yield self.timed({"spcy": task}, group="coords", kind=order)


def measure(name, coords, threads, args):
    """Yield a row of results for each operation."""
    bench = Bench(name, coords, threads, args)
    for kind in ("submanifold", "stride 2", "transposed"):
        yield bench.rulebook(kind)
    yield from bench.orders()
    for conv in CONVS:
        yield bench.conv(*conv)
    if find_spec("ml_dtypes"):
        for channels in (64, 128):
            yield bench.bfloat16(channels)
    yield bench.network()


def calls(args):
    """Yield rows for calls with few sites."""
    for sites in (1, 1000):
        coords = spcy.Coords(*scene("street", sites))
        yield Bench(f"street {sites:,}", coords, 1, args).conv("submanifold", 16, 16, group="call")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sites", nargs="*", type=int, default=[10_000, 100_000], help="of generated scenes")
    parser.add_argument("--scene", choices=["surface", "street", "uniform"], default="surface")
    parser.add_argument("--scan", nargs="*", default=[], help="real scans, one more scene each")
    parser.add_argument("--voxel", nargs="+", type=float, default=[0.1], help="metres: one number, or z y x")
    parser.add_argument(
        "--range", nargs=6, type=float, metavar="M", help="of scans: low z y x, high z y x; default all"
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3, help="for an engine and an operation, about")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--png", type=Path, help="draw a chart there (needs matplotlib)")
    args = parser.parse_args()
    if args.png and not find_spec("matplotlib"):
        parser.error("--png needs matplotlib: pip install matplotlib")
    for scan in args.scan:
        if not Path(scan).is_file():
            parser.error(f"--scan: no file {scan}")
    if len(args.voxel) not in (1, 3):
        parser.error(f"--voxel must be one number, or z y x, got {len(args.voxel)} numbers")
    args.voxel = args.voxel[0] if len(args.voxel) == 1 else args.voxel
    machine = f"{platform.machine()}, {os.cpu_count()} cores, SIMD {spcy._cpu.simd.current()}"
    load = os.getloadavg()[0]
    print(f"spcy {spcy.__version__} on {machine}, busy with {load:.1f} programs before this one")
    rows = []
    for name, coords in scenes(args):
        for threads in args.threads:
            for row in measure(name, coords, threads, args):
                rows.append(row)
                show(row)
    for row in calls(args):
        rows.append(row)
        show(row)
    targets = judge(rows)
    show_targets(targets)
    if load > IDLE and max(args.threads) > 1:
        print(f"Other programs held {load:.1f} cores: ratios of more than one thread mean little.")
    if args.json:
        about = {"machine": machine, "load": load, "versions": versions()}
        result = about | {"rows": rows, "targets": targets}
        args.json.write_text(json.dumps(result, indent=1))
    if args.png:
        chart(rows, machine, args.png)


def versions():
    """Return the version of each engine that is there."""
    found = {"spcy": spcy.__version__, "numpy": np.__version__}
    return found | {name: version(name) for name in ("spconv", "torch", "scipy") if name in sys.modules}


if __name__ == "__main__":
    main()
