#!/usr/bin/env python3
"""Keep what this version of spcy computes, for all later ones to compare with.

    python tools/golden.py

It writes tests/data/golden/VERSION.npz and a saved network beside it for each of tests/golden_cases.py, and
replaces nothing: a release adds its files once. tests/test_golden_versions.py reads those of every version.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import golden_cases
import ml_dtypes

import spcy
from spcy import models


def main() -> int:
    """Write the files; return the exit status."""
    folder, version = golden_cases.FOLDER, spcy.__version__
    there = [*folder.glob(f"{version}*")]
    if there:
        print(f"golden.py: {there[0]} is there: results of a version are written once", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    inputs = golden_cases.make_inputs()
    arrays = {f"input/{name}": array for name, array in inputs.items()}
    for name in golden_cases.CASES:
        for dtype in golden_cases.DTYPES:
            for part, array in golden_cases.run(name, inputs, dtype).items():
                bits = array.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else array
                if array.dtype.kind not in "iu" or dtype == golden_cases.DTYPES[0]:  # sites have no dtype
                    arrays[f"{name}/{dtype}/{part}"] = bits
    for name, make in golden_cases.NETWORKS.items():
        path = folder / f"{version}-{name}.npz"
        models.save(path, settled(make()), golden_cases.SETTINGS)
        for part, array in golden_cases.run_network(path, inputs["scan"]).items():
            arrays[f"network {name}/{part}"] = array
    np.savez_compressed(folder / f"{version}.npz", **arrays)
    for path in sorted(folder.glob(f"{version}*")):
        print(f"{path}: {path.stat().st_size} bytes")
    return 0


def settled(net: models.network.Network) -> models.network.Network:
    """Give norms numbers of their own, as training would."""
    rng = np.random.default_rng(3)
    state = net.state_dict()
    for name, array in state.items():
        if array.ndim == 1:
            state[name] = (1 + 0.2 * rng.random(array.shape)).astype(array.dtype)
    net.load_state_dict(state)
    return net


if __name__ == "__main__":
    sys.exit(main())
