"""Time and peak memory per site, from ten thousand to ten million surface sites, on one thread.

    python asv_bench/growth.py [--sites N ...]

Every figure is taken in a process of its own, and memory is what that process needs beyond one that
only loads the sites: the budget is 16 bytes for each pair and 40 for each site.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from benchmarks.common import random, weight
from benchmarks.rulebook import stride_2, submanifold
from benchmarks.scenes import scene

import spcy

CHANNELS = 16


def nothing(indices):
    return lambda: None


def build(kind):
    return lambda indices: lambda: kind(spcy.Coords(indices))


def convolution(indices):
    coords = spcy.Coords(indices)
    x = spcy.SparseTensor(coords, random((len(coords), CHANNELS)))
    w = weight(CHANNELS, CHANNELS)
    spcy.subm_conv(x, w)
    return lambda: spcy.subm_conv(x, w)


WORK = {
    "nothing": nothing,
    "submanifold": build(submanifold),
    "stride_2": build(stride_2),
    "convolution": convolution,
}


def peak_bytes():
    """Return the most memory that this process has held."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measure(work, path):
    """Do one thing once; return its seconds, the peak memory and the pairs."""
    spcy.set_num_threads(1)
    indices = np.load(path)
    for prepare in WORK.values():  # what is done once in a process
        prepare(indices[:100])()
    run = WORK[work](indices)
    start = time.process_time()
    result = run()
    seconds = time.process_time() - start
    return {"seconds": seconds, "peak": peak_bytes(), "pairs": getattr(result, "num_pairs", 0)}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sites", nargs="+", type=int, default=[10**4, 10**5, 10**6, 10**7])
    parser.add_argument("--runs", type=int, default=3, help="of each, of which the best counts")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(*args.child)))
        return
    for sites in args.sites:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "indices.npy")
            np.save(path, scene("surface", sites)[0])
            compare(sites, path, args.runs)


def compare(sites, path, num_runs):
    """Print the figures of a number of sites."""
    for work in WORK:
        command = [sys.executable, __file__, "--child", work, str(path)]
        runs = [json.loads(subprocess.check_output(command)) for _ in range(num_runs)]
        seconds, peak = (min(run[key] for run in runs) for key in ("seconds", "peak"))
        if work == "nothing":
            idle = peak
            continue
        line = f"{sites:>10,} sites  {work:12} {seconds / sites * 1e9:6.1f} ns/site"
        if pairs := runs[0]["pairs"]:
            line += f"  {(peak - idle) / sites:6.1f} bytes/site of {16 * pairs / sites + 40:6.1f} allowed"
        print(line, flush=True)


if __name__ == "__main__":
    main()
