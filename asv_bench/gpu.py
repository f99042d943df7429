"""Time spcy on a GPU beside spconv-triton, torch's dense convolution and floors.

    python asv_bench/gpu.py warm [--only REGEX]
    python asv_bench/gpu.py speed --out FILE.jsonl [--tiny] [--only REGEX]

`warm` compiles the peer's kernels into Triton's cache, in many processes. `speed` writes a JSON line for each
row as soon as it has it, the most important first. With --tiny everything is small and runs on the CUDA that
tests emulate: it tells nothing but that the code works.

SPCY_BENCH_CLOUD names a file of points (npz, `pc`: x, y, z), SPCY_BENCH_SCAN a scan of KITTI; without them, a
generated surface stands for them.

Times are medians, of the GPU between two events ("events"), or of the host with waiting for the end ("host"),
where a call makes it wait; host time of a call is that of issuing it ("issue"). A floor is the greater of two
times: the bytes that must move at the speed at which this GPU copies, and the products at that of large
matrices. Results are first compared with float64's, in rows drawn at random, and with the peer's.
"""

import argparse
import contextlib
import json
import os
import re
import sys
import time
import traceback
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from benchmarks.network import LAYERS, backbone
from benchmarks.scenes import scene as generated
from gpu_clock import Ceilings, Clock
from gpu_peer import Peer, warm

import spcy

TOLERANCE = {"float32": 1e-5, "tf32": 5e-3, "float16": 5e-3, "bfloat16": 3e-2}  # relative to the greatest
BOX = spcy.kernel_offsets((3, 3, 3))
GRID = (41, 1600, 1408)
SAMPLED = 200  # rows
DENSE_BYTES = 4e9  # that a dense grid may take
TINY_SITES, TINY_CHANNELS = 12, 16
SCANS = {"cloud": "SPCY_BENCH_CLOUD", "kitti": "SPCY_BENCH_SCAN"}  # without them, a surface is generated
GENERATED = {"cloud": 125_565, "kitti": 13_089}  # sites of it


class Row(NamedTuple):
    """A line of the table: what is measured by which method of `Bench`, and the goal."""

    name: str
    measure: str
    arguments: tuple
    ratio: float | None = None  # to the peer
    most_ms: float | None = None

    @property
    def goal(self):
        """Return the goal in words."""
        words = [f"{self.ratio}x spconv-triton"] if self.ratio else []
        return ", ".join(words + ([f"at most {self.most_ms} ms"] if self.most_ms else []))

    def met(self, ms, peer_ms):
        """Return whether the goal is reached, None if nobody can tell."""
        if self.ratio and peer_ms is None:
            return None
        return (not self.ratio or peer_ms / ms >= self.ratio) and (not self.most_ms or ms <= self.most_ms)


def conv_row(scene, kind, channels, math):
    return Row(f"{kind} {scene} {channels} {math}", "conv", (scene, kind, channels, math), 1.3)


ROWS = (
    conv_row("random", "subm", 256, "float16"),
    *[conv_row("cloud", "subm", channels, "float16") for channels in (64, 128, 32, 16)],
    Row("network KITTI", "network", (), 2.0),
    Row("network KITTI graph", "graph", (), None, 0.35),
    Row("rulebook subm 126k", "rulebook", ("cloud", "subm"), 1.5),
    Row("rulebook subm 1M", "rulebook", ("surface", "subm"), 1.5, 1.0),
    *[Row(f"gradients cloud {c} float16", "gradients", ("cloud", c, "float16"), 1.3) for c in (64, 128, 32)],
    Row("host time of subm_conv", "issue", (), None, 0.015),
    *[conv_row("random", "subm", c, math) for c in (64, 128) for math in ("float16", "bfloat16")],
    conv_row("random", "stride 2", 64, "float16"),
    conv_row("random", "inverse", 64, "float16"),
    conv_row("random", "subm", 64, "tf32"),
    conv_row("random", "subm", 64, "float32"),
    Row("network KITTI rulebooks ready", "network_ready", ()),
    Row("rulebook subm 13k", "rulebook", ("kitti", "subm"), 1.5),
    *[
        Row(f"rulebook {kind} {size}", "rulebook", (scene, kind), 1.5, most)
        for kind in ("stride 2", "transposed")
        for scene, size, most in (("kitti", "13k", None), ("cloud", "126k", None), ("surface", "1M", 1.0))
    ],
)


# ---- sites -------------------------------------------------------------------------------------------


@cache
def sites(name, tiny=False):
    """Return the host's coords of a scene, in ascending order."""
    rng = np.random.default_rng(0)
    if tiny or name == "random":
        grid = (HIGH_TINY, 8, 8) if tiny else GRID
        flat = np.unique(rng.integers(0, np.prod(grid), TINY_SITES if tiny else 50_000))
        cells = np.stack(np.unravel_index(flat, (1, *grid)), 1).astype(np.int32)
        return spcy.Coords(cells, grid, 1)
    if name == "surface":
        indices, shape = generated("surface", 1_000_000)
        return spcy.Coords(indices, shape, 1)
    if SCANS[name] not in os.environ:
        indices, shape = generated("surface", GENERATED[name])
        return spcy.Coords(indices, (max(shape[0], GRID[0]), *shape[1:]), 1)
    if name == "cloud":
        points = np.load(os.environ["SPCY_BENCH_CLOUD"])["pc"]
        found = spcy.voxelize(np.ascontiguousarray(points[:, ::-1]), 0.1).tensor.coords.indices.copy()
        found[:, 1:] -= found[:, 1:].min(axis=0)
        return spcy.Coords(found, tuple(int(n) + 1 for n in found[:, 1:].max(axis=0)), 1)
    points = np.fromfile(os.environ["SPCY_BENCH_SCAN"], np.float32).reshape(-1, 4)[:, 2::-1]
    bounds = (-3, -40, 0), (1, 40, 70.4)
    found = spcy.voxelize(np.ascontiguousarray(points), (0.1, 0.05, 0.05), bounds=bounds).tensor.coords
    return spcy.Coords(found.indices.copy(), (found.shape[0] + 1, *found.shape[1:]), 1)


HIGH_TINY = 41  # cells along z: the network halves them to the last


def number_type(math):
    """Return the dtype of an arithmetic's numbers."""
    if math == "bfloat16":
        from ml_dtypes import bfloat16

        return np.dtype(bfloat16)
    return np.dtype({"tf32": "float32"}.get(math, math))


def exact_rows(x, weight, in_rows, out_rows, offset_ptr, wanted):
    """Return rows of a convolution's output by float64."""
    place = np.full(max(int(out_rows.max(initial=0)), int(wanted.max())) + 1, -1)
    place[wanted] = np.arange(len(wanted))
    y = np.zeros((len(wanted), weight.shape[-1]))
    for k, w in enumerate(np.float64(weight)):
        pairs = slice(offset_ptr[k], offset_ptr[k + 1])
        to = place[out_rows[pairs]]
        y[to[to >= 0]] += np.float64(x[in_rows[pairs][to >= 0]]) @ w  # an offset has a row once
    return y


def difference(a, b):
    """Return the greatest difference relative to the greatest number."""
    a, b = np.float64(a), np.float64(b)
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) if b.size else 0.0


def require_near(what, a, b, math, factor=1):
    """Return the difference of results, which must be small."""
    error = difference(a, b)
    if not error <= factor * TOLERANCE[math]:
        raise AssertionError(f"{what} differs by {error:.2g} where {factor * TOLERANCE[math]:.2g} may be")
    return error


# ---- rows --------------------------------------------------------------------------------------------


class Bench:
    """Measures the rows."""

    def __init__(self, tiny):
        import cupy

        self.cupy, self.tiny, self.clock = cupy, tiny, Clock(tiny)
        self.ceilings, self.device_sites = Ceilings(self.clock), {}
        self.peer = None if tiny else Peer.find()

    def sites(self, name):
        """Return coords on the host and on the device."""
        host = sites("kitti" if self.tiny else name, self.tiny)
        if name not in self.device_sites:
            self.device_sites[name] = host.to("cuda")
        return host, self.device_sites[name]

    def beside(self, measure, check=None):
        """Return the peer's milliseconds and its difference; None, with the reason printed, without it."""
        if self.peer is None:
            return {"peer_ms": None}
        try:
            ms, result = measure(self.peer)
        except Exception as failure:  # another library, its own troubles
            print(f"{Peer.NAME}: {type(failure).__name__}: {str(failure)[:300]}", file=sys.stderr)
            return {"peer_ms": None}
        return {"peer_ms": ms, "peer_difference": check(result) if check else None}

    def arrays(self, num, channels, math, seed=0):
        """Return features and a weight on the host."""
        rng, dtype = np.random.default_rng(seed), number_type(math)
        x = rng.standard_normal((num, channels), np.float32).astype(dtype)
        w = rng.standard_normal((27, channels, channels), np.float32) / np.float32(9 * channels) ** 0.5
        return x, w.astype(dtype)

    def conv(self, scene, kind, channels, math):
        """Measure a convolution, its rulebook ready."""
        channels = TINY_CHANNELS if self.tiny else channels
        _, fine = self.sites(scene)
        if kind == "subm":
            book, level = spcy.submanifold_rulebook(fine, BOX - 1), fine
        else:
            book, coarse = spcy.conv_rulebook(fine, BOX, stride=2, padding=1)
            level = coarse if kind == "inverse" else fine
        pairs = [book.in_rows.get(), book.out_rows.get()]
        pairs = pairs[::-1] if kind == "inverse" else pairs
        x_host, w_host = self.arrays(len(level), channels, math)
        x = spcy.SparseTensor(level, self.cupy.asarray(x_host))
        w = self.cupy.asarray(w_host).reshape(3, 3, 3, channels, channels)
        run = {
            "subm": lambda: spcy.subm_conv(x, w),
            "stride 2": lambda: spcy.conv(x, w, stride=2, padding=1),
            "inverse": lambda: spcy.inverse_conv(x, w),
        }[kind]
        with spcy.allow_tf32() if math == "tf32" else contextlib.nullcontext():
            y = run()
            found = np.float32(y.features.get())
            wanted = self.sample(len(found))
            exact = exact_rows(x_host, w_host, *pairs, book.offset_ptr.get(), wanted)
            error = require_near("float64", found[wanted], exact, math)
            ms = self.clock.events(run)
        out_indices = y.coords.indices.get()

        def peer(other):
            call, indices = other.conv(fine_indices, fine.shape, kind, x_host, w_host, math)
            return self.clock.events(call), (indices, call().float().cpu().numpy())

        def check(result):
            theirs = in_order(*result)
            return require_near(Peer.NAME, theirs, in_order(out_indices, found), math, 2)

        fine_indices = fine.indices.get()
        flop = 2 * len(pairs[0]) * channels**2
        num_bytes = (
            (len(x_host) + len(found)) * channels * x_host.itemsize + w_host.nbytes + 4 * len(pairs[0])
        )
        row = {"ms": ms, "clock": "events", "math": math, "flop": flop, "bytes": num_bytes, "error": error}
        row |= {"sites": len(x_host), "pairs": len(pairs[0])} | self.beside(peer, check)
        dense = 2 * np.prod(fine.shape, dtype=float) * channels * x_host.itemsize
        fits = self.peer is not None and kind == "subm" and dense <= DENSE_BYTES
        return row | {"dense_ms": self.clock.events(self.peer.dense(fine, x_host, w_host)) if fits else None}

    def sample(self, num):
        """Return rows drawn at random."""
        return np.unique(np.random.default_rng(7).integers(0, num, SAMPLED))

    def rulebook(self, scene, kind):
        """Measure sites to pairs, which makes the host wait."""
        host, device = self.sites(scene)
        build = {
            "subm": lambda c: (spcy.submanifold_rulebook(c, BOX - 1), c),
            "stride 2": lambda c: spcy.conv_rulebook(c, BOX, stride=2, padding=1),
            "transposed": lambda c: spcy.transposed_rulebook(c, BOX, stride=2, padding=1),
        }[kind]
        (ours, out), (exact, exact_out) = build(device), build(host)
        for name in ("in_rows", "out_rows", "offset_ptr"):
            np.testing.assert_array_equal(getattr(ours, name).get(), getattr(exact, name))
        np.testing.assert_array_equal(out.indices.get(), exact_out.indices)
        indices, grid = device.indices, (device.shape, device.batch_size)
        ms = self.clock.host(lambda: build(spcy.Coords(indices, *grid)))

        def peer(other):
            call = other.pairs(host.indices, host.shape, kind)
            return self.clock.host(call), int((call()[2] >= 0).sum())

        def check(num_pairs):
            if num_pairs != exact.num_pairs:
                raise AssertionError(f"{Peer.NAME} has {num_pairs} pairs, spcy {exact.num_pairs}")
            return 0.0

        num_bytes = 16 * len(host) + 8 * exact.num_pairs + (0 if kind == "subm" else 16 * len(exact_out))
        row = {"ms": ms, "clock": "host", "math": None, "flop": 0, "bytes": num_bytes, "error": 0.0}
        return row | {"sites": len(host), "pairs": exact.num_pairs} | self.beside(peer, check)

    def gradients(self, scene, channels, math):
        """Measure a submanifold convolution with its gradients by features and weight."""
        channels = TINY_CHANNELS if self.tiny else channels
        _, coords = self.sites(scene)
        x_host, w_host = self.arrays(len(coords), channels, math)
        dy_host = self.arrays(len(coords), channels, math, 1)[0]
        x = spcy.SparseTensor(coords, self.cupy.asarray(x_host))
        w = self.cupy.asarray(w_host).reshape(3, 3, 3, channels, channels)
        dy = self.cupy.asarray(dy_host)

        def run():
            return spcy.vjp(spcy.subm_conv, x, w)[1](dy)

        dx, dw = (a.get() for a in run() if a is not None)
        book = spcy.submanifold_rulebook(coords, BOX - 1)
        rows = book.in_rows.get(), book.out_rows.get(), book.offset_ptr.get()
        wanted = self.sample(len(coords))
        exact = exact_rows(dy_host, w_host.transpose(0, 2, 1), rows[1], rows[0], rows[2], wanted)
        error = require_near("float64 (features)", dx[wanted], exact, math)
        for k in (0, 13):
            part = slice(rows[2][k], rows[2][k + 1])
            exact = np.float64(x_host[rows[0][part]]).T @ np.float64(dy_host[rows[1][part]])
            if exact.any():
                dw_k = dw.reshape(27, channels, channels)[k]
                error = max(error, require_near("float64 (weight)", dw_k, exact, math))

        def peer(other):
            call = other.gradients(coords.indices.get(), coords.shape, x_host, w_host, dy_host, math)
            return self.clock.events(call), call()[0].float().cpu().numpy()

        pairs = book.num_pairs
        row = {"ms": self.clock.events(run), "clock": "events", "math": math, "error": error}
        row |= {"flop": 6 * pairs * channels**2, "sites": len(coords), "pairs": pairs}
        # Forward reads x and w and writes y; back reads dy and x for dw, dy and w for dx, writes both.
        row["bytes"] = 6 * x_host.nbytes + 4 * w_host.nbytes + 4 * pairs
        return row | self.beside(peer, lambda theirs: require_near(Peer.NAME, theirs, dx, math, 2))

    # The network

    @cache  # noqa: B019
    def network_parameters(self):
        """Return the host's weights and biases in float16."""
        rng, made = np.random.default_rng(0), []
        for layer in LAYERS:
            shape = (*layer.kernel_size, layer.c_in, layer.c_out)
            weight = rng.standard_normal(shape) * (2 / (layer.c_in * 9)) ** 0.5
            made.append(
                (weight.astype(np.float16), (rng.standard_normal(layer.c_out) / 10).astype(np.float16))
            )
        return made

    def network_input(self):
        """Return coords, features and parameters on the device."""
        host, device = self.sites("kitti")
        features = np.random.default_rng(1).standard_normal((len(host), 4)).astype(np.float16)
        parameters = [tuple(map(self.cupy.asarray, pair)) for pair in self.network_parameters()]
        return device, features, self.cupy.asarray(features), parameters

    def network_row(self, device, features, y):
        """Return the work of the network, and how near the result is to float32's on the CPU."""
        x, flop, num_bytes = spcy.SparseTensor(device, features), 0, 0
        coords = x.coords
        for layer in LAYERS:
            box = spcy.kernel_offsets(layer.kernel_size)
            book, out = spcy.submanifold_rulebook(coords, box - 1), coords
            if layer.stride is not None:
                book, out = spcy.conv_rulebook(coords, box, stride=layer.stride, padding=layer.padding)
            flop += 2 * book.num_pairs * layer.c_in * layer.c_out
            num_bytes += 2 * (len(coords) * layer.c_in + len(out) * layer.c_out) + 4 * book.num_pairs
            num_bytes += 2 * len(box) * layer.c_in * layer.c_out
            coords = out
        host, _ = self.sites("kitti")
        parameters = [tuple(np.float32(a) for a in pair) for pair in self.network_parameters()]
        exact = backbone(spcy.SparseTensor(host, np.float32(features.get())), parameters)
        np.testing.assert_array_equal(y.coords.indices.get(), exact.coords.indices)
        error = require_near("float32 on the CPU", y.features.get(), exact.features, "float16", 3)
        return {"math": "float16", "flop": flop, "bytes": num_bytes, "error": error, "sites": len(host)}

    def network(self):
        """Measure VoxelBackBone8x from sites to output, rulebooks and all."""
        device, features_host, features, parameters = self.network_input()
        indices, grid = device.indices, (device.shape, device.batch_size)

        def run():
            return backbone(spcy.SparseTensor(spcy.Coords(indices, *grid), features), parameters)

        y = run()
        row = self.network_row(device, features, y) | {"ms": self.clock.host(run), "clock": "host"}
        ours = in_order(y.coords.indices.get(), y.features.get())

        def peer(other):
            call = other.network(indices.get(), device.shape, features_host, self.network_parameters())
            result = call()
            theirs = result.indices.cpu().numpy(), result.features.float().cpu().numpy()
            return self.clock.host(call), theirs

        return row | self.beside(
            peer, lambda theirs: require_near(Peer.NAME, in_order(*theirs), ours, "float16", 3)
        )

    def network_ready(self):
        """Measure the same with its rulebooks ready: by the host, which issues it slower than it runs."""
        device, _, features, parameters = self.network_input()
        x = spcy.SparseTensor(device, features)
        y = backbone(x, parameters)
        ms = self.clock.host(lambda: backbone(x, parameters))
        return self.network_row(device, features, y) | {"ms": ms, "clock": "host", "peer_ms": None}

    def graph(self):
        """Measure the same as a CUDA graph."""
        device, _, features, parameters = self.network_input()
        x, stream = spcy.SparseTensor(device, features), self.cupy.cuda.Stream(non_blocking=True)
        self.clock.synchronize()  # that stream waits for no other
        with stream:
            backbone(x, parameters)
            stream.begin_capture()
            y = backbone(x, parameters)
            graph = stream.end_capture()
        graph.launch(self.cupy.cuda.Stream.null)
        self.clock.synchronize()
        row = self.network_row(device, features, y)
        ms = self.clock.events(lambda: graph.launch(self.cupy.cuda.Stream.null))
        return row | {"ms": ms, "clock": "events", "peer_ms": None}

    def issue(self):
        """Measure what a call costs the host."""
        _, coords = self.sites("kitti")
        x_host, w_host = self.arrays(len(coords), 16, "float16")
        x = spcy.SparseTensor(coords, self.cupy.asarray(x_host))
        w = self.cupy.asarray(w_host).reshape(3, 3, 3, 16, 16)
        ms = self.clock.issue(lambda: spcy.subm_conv(x, w))

        def peer(other):
            call, _ = other.conv(coords.indices.get(), coords.shape, "subm", x_host, w_host, "float16")
            return self.clock.issue(call), None

        row = {"ms": ms, "clock": "issue", "math": None, "flop": 0, "bytes": 0, "error": None}
        return row | {"sites": len(coords)} | self.beside(peer)


def in_order(indices, features):
    """Return features in ascending order of their sites."""
    return features[np.lexsort(indices.T[::-1])]


def finished(row, measured, ceilings):
    """Return a row of results with floor, ratios and goal."""
    ms, peer_ms = measured["ms"], measured["peer_ms"]
    floor = ceilings.floor(measured["math"], measured["flop"], measured["bytes"])
    return measured | {
        "floor_ms": floor,
        "to_floor": ms / floor if floor else None,
        "to_peer": peer_ms / ms if peer_ms else None,
        "goal": row.goal,
        "met": row.met(ms, peer_ms) if row.goal else None,
    }


def speed(args, write):
    """Measure all rows that are asked for."""
    bench = Bench(args.tiny)
    write({"row": "machine"} | machine())
    for row in ROWS:
        if not re.search(args.only, row.name) or (args.tiny and row.measure == "graph"):
            continue  # the emulation captures no streams
        start, result = time.perf_counter(), {"row": row.name}
        try:
            measured: Any = getattr(bench, row.measure)(*row.arguments)
            result |= finished(row, measured, bench.ceilings)
        except Exception as failure:  # a row never stops the next one
            where = traceback.format_exc()[-1500:]
            result |= {"failure": f"{type(failure).__name__}: {failure}"[:500], "where": where}
        write(result | {"seconds": time.perf_counter() - start})
    write(bench.ceilings.row())


def peer_cases(only):
    """Return what the peer compiles for the rows that are asked for."""
    cases = set()
    for row in ROWS:
        if not re.search(only, row.name):
            continue
        if row.measure == "conv":
            *_, channels, math = row.arguments
            cases.add((math, channels, channels, False))
        if row.measure == "gradients":
            cases.add((row.arguments[2], row.arguments[1], row.arguments[1], True))
        if row.measure == "network":
            cases |= {("float16", layer.c_in, layer.c_out, False) for layer in LAYERS}
    gradients = {case[:3] for case in cases if case[3]}
    return sorted(case for case in cases if case[3] or case[:3] not in gradients)


def machine():
    """Return the GPU, its driver, and versions."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    found = {"device": properties["name"].decode(), "spcy": spcy.__version__, "cupy": cupy.__version__}
    found["capability"] = str(cupy.cuda.Device().compute_capability)
    scans = {name: variable in os.environ for name, variable in SCANS.items()}
    return found | {"numpy": np.__version__, "real scans": scans} | Peer.versions()


def show(row):
    """Return a row in one line."""
    if "failure" in row:
        return f"{row['row']:32} FAILED {row['failure']}"
    if "ms" not in row:
        return json.dumps(row)
    numbers = [("ms", row["ms"]), ("peer", row["peer_ms"]), ("dense", row.get("dense_ms"))]
    numbers += [("floor", row["floor_ms"]), ("to peer", row["to_peer"]), ("to floor", row["to_floor"])]
    words = "  ".join(f"{name} {value:.4g}" for name, value in numbers if value is not None)
    met = {True: "met", False: "NOT met", None: "?"}[row["met"]]
    return f"{row['row']:32} {words}" + (f"  {row['goal']}: {met}" if row["goal"] else "")


@contextlib.contextmanager
def emulated():
    """Run on the CUDA that tests emulate."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import cuda_on_cpu

    with cuda_on_cpu.installed():
        yield


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["warm", "speed"])
    parser.add_argument("--out", type=Path, help="JSON lines are added there")
    parser.add_argument("--tiny", action="store_true", help="small, on the CUDA that tests emulate")
    parser.add_argument("--only", default="", help="a regular expression: rows whose names have it")
    args = parser.parse_args(arguments)
    if args.what == "warm":
        warm(peer_cases(args.only))
        return
    if args.out is None:
        parser.error(f"{args.what} needs --out")
    with args.out.open("a") as file, emulated() if args.tiny else contextlib.nullcontext():

        def write(row):
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(show(row), flush=True)

        speed(args, write)


if __name__ == "__main__":
    main()
