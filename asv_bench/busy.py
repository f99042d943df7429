"""Time spcy where other programs hold the cores, and where several callers share them.

    python asv_bench/busy.py [--scan FILE --voxel Z Y X --range ...] [--against PYTHON] [--runs N]

Every variant is a process of its own: one thread, two threads, and with `--against` two threads of the
spcy that another Python has, such as the last release. Neighbours are processes that spin. Runs are
interleaved: each times calls for one second, for every variant and number of neighbours. What is printed
are medians over the runs: of a run's median, mean and 99th percentile. Then come callers beside each
other, eight Python threads or two worker processes.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

import numpy as np  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))

from benchmarks.common import random, weight  # noqa: E402
from benchmarks.network import backbone, coords, parameters, scan_coords  # noqa: E402
from benchmarks.scenes import scene  # noqa: E402

import spcy  # noqa: E402

NEIGHBOURS = (0, 1, 2)
TITLES = {"network": "VoxelBackBone8x", "convolution": "submanifold 16 -> 16"}
SITES = 13_000  # where no scan is given
SMALL_SITES = 3_000  # of the networks that worker processes run
CALLERS = 8
NETWORKS = 60


def jobs(args):
    """Return what is timed, by name: functions without arguments, their rulebooks ready."""
    sites = scan_coords(args.scan, args.voxel, args.range) if args.scan else coords("street", SITES)
    x, y = (spcy.SparseTensor(sites, random((len(sites), channels))) for channels in (4, 16))
    w = weight(16, 16)
    return {
        "network": lambda: backbone(x, parameters()),
        "convolution": lambda: spcy.subm_conv(y, w),
    }


def small_network(seed):
    """Run a network on a small scene, from sites to output."""
    x = spcy.SparseTensor(spcy.Coords(*scene("street", SMALL_SITES)), random((SMALL_SITES, 16)))
    x = spcy.subm_conv(spcy.subm_conv(x, weight(16, 16)), weight(16, 16))
    return float(spcy.conv(x, weight(16, 32), stride=2).features.sum())


def workers(threads, processes):
    """Return the seconds that worker processes take for some small networks."""
    spcy.set_num_threads(threads)
    small_network(0)
    if not processes:
        start = time.perf_counter()
        for seed in range(NETWORKS):
            small_network(seed)
        return time.perf_counter() - start
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(small_network, range(4 * processes)))  # the workers are there
        start = time.perf_counter()
        list(pool.map(small_network, range(NETWORKS)))
        return time.perf_counter() - start


def callers(job, threads, count):
    """Return calls per second of so many Python threads at once."""
    spcy.set_num_threads(threads)
    calls = 20 * CALLERS
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda _: job(), range(count)))
        start = time.perf_counter()
        list(pool.map(lambda _: job(), range(calls)))
        return calls / (time.perf_counter() - start)


def timed(job, threads, seconds):
    """Return the milliseconds of each call, one after the other."""
    spcy.set_num_threads(threads)
    job()
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        job()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def serve(args):
    """Do what lines of the standard input ask for, and answer each by a line."""
    ready = jobs(args)
    for line in sys.stdin:
        kind, *rest = json.loads(line)
        if kind == "time":
            answer = timed(ready[rest[0]], *rest[1:])
        elif kind == "callers":
            answer = callers(ready[rest[0]], *rest[1:])
        else:
            answer = workers(*rest)
        print(json.dumps(answer), flush=True)


class Variant:
    """A process that runs the jobs."""

    def __init__(self, python, threads, argv):
        self.threads = threads
        command = [python, __file__, "--serve", *argv]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *what):
        """Return the answer to a request."""
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


class Neighbours:
    """Processes that spin, as many as are wanted."""

    def __init__(self):
        code = "while True: pass"
        self.processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(max(NEIGHBOURS))]

    def let_spin(self, count):
        """Let so many of them go on, and wait until it shows."""
        for number, process in enumerate(self.processes):
            process.send_signal(signal.SIGCONT if number < count else signal.SIGSTOP)
        time.sleep(0.2)

    def stop(self):
        """End them."""
        for process in self.processes:
            process.kill()


def summary(times):
    """Return the median, the mean and the 99th percentile."""
    return statistics.median(times), statistics.fmean(times), float(np.percentile(times, 99))


def measure(variants, args):
    """Return, by job, neighbours and variant, the medians of what each run gave."""
    found, neighbours = {}, Neighbours()
    try:
        for _ in range(args.runs):
            for count in NEIGHBOURS:
                neighbours.let_spin(count)
                for job in TITLES:
                    for name, variant in variants.items():
                        times = variant.ask("time", job, variant.threads, args.seconds)
                        found.setdefault((job, count, name), []).append(summary(times))
    finally:
        neighbours.stop()
    return {key: [statistics.median(part) for part in zip(*runs, strict=True)] for key, runs in found.items()}


def beside_each_other(variants, args):
    """Return medians of callers beside each other: calls per second, and seconds of worker processes."""
    found = {}
    for _ in range(args.runs):
        for name, variant in variants.items():
            if variant.threads == 2:
                for count in (1, CALLERS):
                    for job in TITLES:
                        answer = variant.ask("callers", job, 2, count)
                        found.setdefault((name, f"{job}, {count} callers"), []).append(answer)
            for processes in (0, 2):
                answer = variant.ask("workers", variant.threads if variant.threads == 1 else None, processes)
                found.setdefault((name, f"{processes} worker processes"), []).append(answer)
    return {key: statistics.median(values) for key, values in found.items()}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scan", type=Path, help="a real scan; else a street is generated")
    parser.add_argument("--voxel", nargs=3, type=float, default=[0.1, 0.05, 0.05], help="metres, z y x")
    parser.add_argument(
        "--range", nargs=6, type=float, metavar="M", help="of the scan: low z y x, high z y x"
    )
    parser.add_argument("--against", metavar="PYTHON", help="a Python that has another spcy")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1, help="of a run of a job")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.scan and not args.scan.is_file():
        parser.error(f"--scan: no file {args.scan}")
    if args.serve:
        return serve(args)
    argv = sys.argv[1:]
    variants = {n: Variant(sys.executable, t, argv) for n, t in (("1 thread", 1), ("2 threads", 2))}
    if args.against:
        variants["2, the other"] = Variant(args.against, 2, argv)
    times, beside = measure(variants, args), beside_each_other(variants, args)
    print(f"{'milliseconds':24}{'neighbours':>12} {'':16}{'median':>9}{'mean':>9}{'99th':>9}")
    for (job, count, name), values in times.items():
        print(f"{TITLES[job]:24}{count:12} {name:16}" + "".join(f"{v:9.3f}" for v in values))
    for (name, what), value in beside.items():
        unit = "calls/s" if "callers" in what else f"ms for {NETWORKS} small networks"
        print(f"{name:16}{what:32}{value if 'callers' in what else value * 1e3:10.1f} {unit}")
    if args.json:
        rows = [[*key, *values] for key, values in times.items()]
        others = [[*key, value] for key, value in beside.items()]
        args.json.write_text(json.dumps({"times": rows, "beside": others}, indent=1))
    return None


if __name__ == "__main__":
    main()
