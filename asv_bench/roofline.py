"""Time everything but convolutions beside the bytes that it has to move, and beside PyTorch.

    python asv_bench/roofline.py [--scan FILE --voxel M] [--points N] [--channels C] [--dtype D]

An operation's floor is the time in which the machine copies as many bytes as the operation must read and
write, all its arrays once: the features' own copy is timed beside it, on as many threads. Printed are
milliseconds, and how many floors they are; where PyTorch is installed and has the same operation, its
milliseconds too, on the same threads. Operations that take over twice their floor are named at the end.
Times are medians of interleaved rounds.
"""

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

import numpy as np  # noqa: E402
from benchmarks.around import CLASSES, OPERATIONS, cloud_of  # noqa: E402
from benchmarks.scenes import points, voxel_size  # noqa: E402
from timing import SETTLE, Task, interleaved  # noqa: E402

import spcy  # noqa: E402
from spcy.scan import read_scan  # noqa: E402

COPIES = 20  # of the features, that are timed at once
OVER = 2  # floors that are worth a look


def twins(cloud):
    """Return PyTorch's operations, by spcy's names, and their gradients: functions without arguments."""
    try:
        import torch
        from torch.nn import functional
    except ImportError as error:
        print(f"PyTorch is left out: {error}")
        return {}

    channels, sites = cloud.x.num_channels, cloud.x.num_sites
    dtype = getattr(torch, cloud.x.dtype.name)

    def features(columns):
        return torch.randn(sites, columns, dtype=dtype, requires_grad=True)

    def twin(function, *inputs):
        y = function(*inputs)
        dy = torch.randn_like(y)
        backward = lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True)  # noqa: E731
        return (lambda: function(*inputs)), backward

    x, scale, shift = (
        features(channels),
        *(torch.ones(channels, dtype=dtype, requires_grad=True) for _ in "ab"),
    )
    mean, variance = torch.zeros(channels, dtype=dtype), torch.ones(channels, dtype=dtype)
    weight = torch.randn(channels, channels, dtype=dtype, requires_grad=True)
    logits, labels = features(CLASSES), torch.randint(0, CLASSES, (sites,))

    def norm(x, scale, shift):
        return functional.batch_norm(x, mean, variance, scale, shift, training=True)

    def cross_entropy():
        return torch.autograd.grad(functional.cross_entropy(logits, labels), logits)

    return {
        "ReLU": twin(functional.relu, x),
        "LeakyReLU": twin(functional.leaky_relu, x),
        "GELU": twin(functional.gelu, x),
        "GELU tanh": twin(lambda x: functional.gelu(x, approximate="tanh"), x),
        "SiLU": twin(functional.silu, x),
        "BatchNorm": twin(norm, x, scale, shift),
        "LayerNorm": twin(lambda x, a, b: functional.layer_norm(x, (channels,), a, b), x, scale, shift),
        "Linear": twin(functional.linear, x, weight, shift),
        "Dropout": twin(functional.dropout, x),
        "cross entropy": (cross_entropy, None),
        "global max pool": twin(lambda x: x.max(dim=0).values, x),
        "global avg pool": twin(lambda x: x.mean(dim=0), x),
        "global sum pool": twin(lambda x: x.sum(dim=0), x),
        "x + y": twin(torch.add, x, features(channels)),
        "concat": twin(lambda *x: torch.cat(x, dim=1), x, features(channels)),
    }


def set_threads(threads):
    """Let spcy and PyTorch have so many threads."""
    spcy.set_num_threads(threads)
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(threads)


def copying(array, threads):
    """Return what copies an array COPIES times, in as many parts as threads."""
    parts = np.array_split(array, threads)
    pairs = [(np.empty_like(part), part) for part in parts]
    pool = ThreadPoolExecutor(threads)

    def copy(pair):
        for _ in range(COPIES):
            np.copyto(*pair)

    return lambda: list(pool.map(copy, pairs))


def measure(cloud, threads, args):
    """Yield (operation, direction, milliseconds, floor, PyTorch's milliseconds or None)."""
    set_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    settle = SETTLE if threads > 1 else 0
    others = twins(cloud)
    copy = Task(copying(cloud.x.features, threads))
    for name, make in OPERATIONS.items():
        if args.only and not any(word in name for word in args.only):
            continue
        made = make(cloud)
        other = others.get(name, (None, None))
        sides = zip(
            ("forward", "gradient"),
            (made.forward, made.gradient),
            (made.forward_bytes, made.gradient_bytes),
            other,
            strict=True,
        )
        for side, run, size, twin in sides:
            if run is None:
                continue
            tasks = {"spcy": Task(run), "copy": copy}
            if twin is not None:
                tasks["torch"] = Task(twin)
            seconds = interleaved(tasks, clock, args.rounds, args.seconds, settle)
            floor = seconds["copy"] / COPIES * size / (2 * cloud.x.features.nbytes)
            yield name, side, 1e3 * seconds["spcy"], 1e3 * floor, 1e3 * seconds.get("torch", np.nan)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scan", type=Path, help="a file of points; without one, a generated street")
    parser.add_argument(
        "--voxel", type=float, nargs="+", default=[0.1], help="edges of a cell: one, or z y x"
    )
    parser.add_argument("--points", type=int, default=100_000, help="of the generated street")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--dtype", choices=["float32", "float64", "bfloat16", "float16"], default="float32")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", help="operations whose names hold one of these words")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="for an operation, about")
    args = parser.parse_args()
    if args.scan and not args.scan.is_file():
        parser.error(f"no file {args.scan}")
    if args.scan:
        found, voxel = np.ascontiguousarray(read_scan(args.scan).points[:, ::-1]), args.voxel
    else:
        found, voxel = points("street", args.points), voxel_size("street")
    cloud = cloud_of(found, voxel if len(voxel) > 1 else voxel[0], args.channels, args.dtype)
    print(f"{len(found):,} points, {cloud.x.num_sites:,} sites, {args.channels} channels, {args.dtype}")
    over = []
    for threads in args.threads:
        print(f"\n| {threads} thread{'s' * (threads > 1)} | | ms | floors | PyTorch, ms |")
        print("|---|---|---|---|---|")
        for name, side, ms, floor, torch in measure(cloud, threads, args):
            beside = "" if np.isnan(torch) else f"{torch:.2f}"
            print(f"| {name} | {side} | {ms:.2f} | {ms / floor:.1f} | {beside} |", flush=True)
            if ms > OVER * floor:
                over.append((ms / floor, f"{name}, {side}, {threads} threads"))
    print(f"\nOver {OVER} floors: {len(over)}")
    for floors, words in sorted(over, reverse=True):
        print(f"{floors:8.1f}  {words}")


if __name__ == "__main__":
    main()
