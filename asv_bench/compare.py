"""Time spcy beside spconv's CPU wheel, in one process, interleaved; check first that they agree.

    python asv_bench/compare.py [--scan FILE --voxel M [M M]] [--threads 1 2] [--json FILE]

spconv needs PyTorch: give both a throw-away environment of their own, with spcy in it. Without them
spcy is timed alone. Numbers are medians of interleaved rounds; where other programs hold the cores,
``--cpu-time`` counts the process's own time instead (one thread only).
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # they slow NumPy's own matmul
    os.environ.pop(name, None)

import numpy as np  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))

from benchmarks.common import surface, weight  # noqa: E402

import spcy  # noqa: E402
from spcy.demo.scan import read_scan  # noqa: E402

BOX = spcy.kernel_offsets((3, 3, 3))
CHANNELS = (16, 32, 64, 128)


def spconv_operations(coords):
    """Return spconv's operations on the same sites, or None where it is not installed."""
    try:
        import torch
        from spconv.core import ConvAlgo
        from spconv.pytorch import ops
    except ImportError as error:
        print(f"spconv is left out: {error}", file=sys.stderr)
        return None
    torch.set_grad_enabled(False)
    indices, shape = torch.from_numpy(np.array(coords.indices)), list(coords.shape)
    threes, ones, zeros = [3] * 3, [1] * 3, [0] * 3

    def submanifold():
        args = (indices, 1, shape, ConvAlgo.Native, threes, ones, ones, ones, zeros)
        return ops.get_indice_pairs(*args, subm=True)

    def stride_2():
        return ops.get_indice_pairs(indices, 1, shape, ConvAlgo.Native, threes, [2] * 3, ones, ones, zeros)

    def convolution(features, w, subm):
        out_indices, pairs, counts = submanifold() if subm else stride_2()
        x = torch.from_numpy(features)
        filters = torch.from_numpy(np.ascontiguousarray(np.moveaxis(w, -1, 0)))  # (C_out, 3, 3, 3, C_in)

        def run():
            return ops.indice_conv(
                x, filters, pairs, counts, len(out_indices), False, subm, ConvAlgo.Native
            ).numpy()

        return run, out_indices.numpy()

    return {
        "submanifold": submanifold,
        "stride_2": stride_2,
        "convolution": convolution,
        "threads": torch.set_num_threads,
    }


def spcy_rulebook(coords, build):
    """Return a function that builds a rulebook on coords that have none; their own cost is not counted."""

    def run():
        coords._sites.derived.clear()
        coords._sites.children.clear()
        return build(coords)

    return run


def scenes(args):
    """Yield (name, coords)."""
    for sites in args.sites:
        indices = surface(sites)
        yield f"surface {len(indices):,}", spcy.Coords(indices, indices[:, 1:].max(axis=0) + 1, 1)
    for scan in args.scan:
        points = read_scan(scan).points[:, ::-1]  # z, y, x
        voxels = spcy.voxelize(points, args.voxel).tensor.indices.copy()
        voxels[:, 1:] -= voxels[:, 1:].min(axis=0)
        yield f"{Path(scan).stem} {len(voxels):,}", spcy.Coords(voxels, voxels[:, 1:].max(axis=0) + 1, 1)


def require_equal(ours, our_indices, theirs, their_indices):
    """Compare outputs by their sites."""
    order = np.lexsort(their_indices.T[::-1])
    np.testing.assert_array_equal(our_indices, their_indices[order])
    np.testing.assert_allclose(ours, theirs[order], rtol=0, atol=1e-4 * np.abs(ours).max())


def interleaved(functions, rounds, clock):
    """Return the median seconds of each function, their runs interleaved."""
    times = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            start = clock()
            function()
            times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(name, coords, threads, args):
    """Yield a row of results for each operation."""
    peer = spconv_operations(coords)
    spcy.set_num_threads(threads)
    if peer:
        peer["threads"](threads)
    clock = time.process_time if args.cpu_time else time.perf_counter
    rng = np.random.default_rng(0)

    def row(operation, functions, flop=0, pairs=0):
        seconds = interleaved(functions, args.rounds, clock)
        return {
            "scene": name,
            "sites": len(coords),
            "operation": operation,
            "threads": threads,
            "pairs": pairs,
            "ms": {engine: s * 1e3 for engine, s in seconds.items()},
            "gflops": {engine: flop / s / 1e9 for engine, s in seconds.items()} if flop else {},
        }

    offsets = {"submanifold": BOX - 1, "stride_2": BOX}
    builders = {
        "submanifold": lambda c: spcy.submanifold_rulebook(c, offsets["submanifold"]),
        "stride_2": lambda c: spcy.conv_rulebook(c, offsets["stride_2"], stride=2, padding=1)[0],
    }
    for kind, build in builders.items():
        functions = {"spcy": spcy_rulebook(coords, build)}
        pairs = functions["spcy"]().num_pairs
        if peer:
            functions["spconv"] = peer[kind]
        yield row(f"rulebook {kind}", functions, pairs=pairs)

    for c_in, c_out in [(c, c) for c in CHANNELS] + [(32, 64)]:
        subm = c_in == c_out
        x = spcy.SparseTensor(coords, rng.standard_normal((len(coords), c_in), dtype=np.float32))
        w = weight((3, 3, 3), c_in, c_out)
        run = (
            (lambda x=x, w=w: spcy.subm_conv(x, w))
            if subm
            else (lambda x=x, w=w: spcy.conv(x, w, stride=2, padding=1))
        )
        functions, y = {"spcy": run}, run()
        pairs = builders["submanifold" if subm else "stride_2"](coords).num_pairs
        if peer:
            functions["spconv"], indices = peer["convolution"](x.features, w, subm)
            peer["threads"](1)
            theirs = functions["spconv"]()
            require_equal(y.features, y.indices, theirs, indices)
            peer["threads"](threads)
            if not np.allclose(theirs, functions["spconv"](), rtol=0, atol=1e-3 * np.abs(theirs).max()):
                print(f"  spconv's result on {threads} threads is another than on one", file=sys.stderr)
        yield row(
            f"{'subm' if subm else 'stride-2'} {c_in} -> {c_out}", functions, 2 * pairs * c_in * c_out, pairs
        )

    n = 1024
    a, b = rng.standard_normal((2, n, n), dtype=np.float32)
    with threads_of_numpy(threads):
        yield row("NumPy SGEMM 1024", {"spcy": lambda: a @ b}, 2 * n**3)


def threads_of_numpy(threads):
    """Limit NumPy's BLAS to so many threads."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(threads, user_api="blas")


def show(row):
    """Print a row."""
    ms, gflops = row["ms"], row["gflops"]
    ratio = f"{ms['spconv'] / ms['spcy']:6.2f}x" if "spconv" in ms else ""
    cells = [f"{e} {ms[e]:9.3f} ms" + (f" {gflops[e]:5.0f} GFLOP/s" if gflops else "") for e in ms]
    print(
        f"{row['scene']:26} {row['threads']} thr  {row['operation']:22} {'   '.join(cells)}   {ratio}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scan", nargs="*", default=[], help="real scans, one more scene each")
    parser.add_argument("--voxel", nargs="+", type=float, default=[0.1], help="metres: one number, or z y x")
    parser.add_argument(
        "--sites", nargs="*", type=int, default=[10_000, 100_000], help="of generated surfaces"
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--cpu-time", action="store_true", help="count the process's own time (one thread)")
    parser.add_argument("--json", type=Path, help="write the rows there")
    args = parser.parse_args()
    args.voxel = args.voxel[0] if len(args.voxel) == 1 else args.voxel
    if args.cpu_time and args.threads != [1]:
        parser.error("--cpu-time goes with --threads 1")
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"spcy {spcy.__version__}, SIMD {spcy._cpu.simd.current()}, {machine}")
    rows = []
    for name, coords in scenes(args):
        for threads in args.threads:
            for row in measure(name, coords, threads, args):
                rows.append(row)
                show(row)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
