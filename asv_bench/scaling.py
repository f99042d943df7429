"""How long many points take on Dask's workers, beside a million of them in memory.

    python asv_bench/scaling.py FOLDER --millions 100 --workers 2 --limit 6

writes generated streets beside each other to FOLDER, four million points a file, if they are not there. Then
it labels them by the demo's network, in processes that may map so many GB each, and prints seconds, memory
and what the scheduler took of the processors. `--workers 0` is this process.
"""

import argparse
import resource
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import psutil

import spcy
import spcy.dask
from spcy.dask.command import local_client
from spcy.demo import network
from spcy.demo.scene import generate_scene

ACROSS = 40  # streets, 160 m from one to the next along x, 100 m along y
MILLION = 1_000_000
EACH = 4 * MILLION  # points of a file


def generate(folder: Path, files: int) -> list[Path]:
    paths = [folder / f"{i:05d}.npy" for i in range(files)]
    if not all(path.exists() for path in paths):
        folder.mkdir(parents=True, exist_ok=True)
        scans = [generate_scene(seed).points.astype(np.float64) for seed in range(ACROSS)]
        rest, street = np.empty((0, 3)), 0
        for path in paths:
            while len(rest) < EACH:
                j, i = divmod(street, ACROSS)
                scan = scans[(7 * i + 13 * j) % ACROSS]
                rest, street = np.concatenate([rest, scan + [160.0 * i, 100.0 * j, 0]]), street + 1
            np.save(path, rest[:EACH])
            rest = rest[EACH:]
    return paths


def in_memory(path: Path, rounds: int = 5) -> float:
    points, net, seconds = np.load(path)[:MILLION], network.load(), []
    for _ in range(rounds):
        start = time.perf_counter()
        network.label_points(net, points)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


class Peak:
    """The most memory that this process and its children hold together, and what looking took of a core."""

    def __enter__(self):
        self.bytes, self.seconds, self._done = 0, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self):
        here = psutil.Process()
        while not self._done.wait(0.1):
            try:
                found = sum(p.memory_info().rss for p in (here, *here.children(recursive=True)))
            except psutil.NoSuchProcess:
                continue
            self.bytes, self.seconds = max(self.bytes, found), time.thread_time()

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()


def processors() -> np.ndarray:
    """Return the seconds of processors that this process took, and its children."""
    here = psutil.Process()
    children = here.children(recursive=True)
    return np.array([sum(sum(p.cpu_times()[:2]) for p in some) for some in ([here], children)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--millions", type=int, default=100)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--limit", type=float, help="GB of addresses for each process")
    args = parser.parse_args()
    if args.millions < 4 or args.millions % 4:
        parser.error("--millions must be a multiple of 4: files have four million points")
    paths = generate(args.folder / "in", args.millions // 4)
    before = in_memory(paths[len(paths) // 2])
    if args.limit:
        size = int(args.limit * 1e9)
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    out = args.folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    options = {"columns": (), "features": network.point_features}
    with Peak() as peak:
        start = time.perf_counter()
        with local_client(args.workers or None) as client:
            started, taken, looked = time.perf_counter(), processors(), peak.seconds
            spcy.dask.label_files(network.load(), paths, out, network.VOXEL_SIZE, client=client, **options)
            ended, taken = time.perf_counter(), processors() - taken
            taken[0] -= peak.seconds - looked
    after = in_memory(paths[len(paths) // 2])
    each, alone = (ended - started) / args.millions, (before + after) / 2
    print(f"{args.workers} workers, {args.millions} million points; peak {peak.bytes / 1e9:.2f} GB")
    print(f"seconds: {ended - started:.1f}, and {started - start:.1f} to start")
    print(f"a million: {each:.3f} s; in memory, on {spcy.get_num_threads()} threads: {alone:.3f} s")
    print(f"ratio: {each / alone:.2f}")
    if args.workers:
        print(f"scheduler and client: {100 * taken[0] / taken[1]:.1f} % of what the workers took")


if __name__ == "__main__":
    main()
