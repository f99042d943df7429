"""MinkowskiEngine's own MinkUNet, unmodified, on spcy: beside `spcy.models.MinkUNet`, or the engine.

``python asv_bench/minkowski.py SOURCE`` runs a MinkowskiEngine checkout's ``examples/minkunet.py``.
With ``--engine`` MinkowskiEngine itself runs it, where it is installed: data and weights are the same.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
import types
from pathlib import Path

CLASSES = 20


def main():
    """Print seconds of what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a checkout of MinkowskiEngine")
    parser.add_argument("--variants", nargs="+", default=["14A", "18A", "34C"])
    parser.add_argument("--sites", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--engine", action="store_true", help="MinkowskiEngine itself instead of spcy")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    import torch

    torch.set_num_threads(arguments.threads)
    if not arguments.engine:
        import spcy.torch

        spcy.torch.install("MinkowskiEngine")
    engine, networks = importlib.import_module("MinkowskiEngine"), example(arguments.source)
    coordinates, features, labels = data(arguments.sites)
    print(f"{len(features)} sites, {arguments.threads} threads, MinkowskiEngine of {engine.__file__}")
    for variant in arguments.variants:
        net = getattr(networks, f"MinkUNet{variant}")(3, CLASSES, D=3)
        draw(net)
        tasks = {
            "eval": lambda net=net: evaluate(net, engine, features, coordinates),
            "train": lambda net=net: step(net, engine, features, coordinates, labels),
        }
        if not arguments.engine:
            tasks["spcy.models, eval"] = beside(net, variant, features, coordinates)
        seconds = {name: [] for name in tasks}
        for _ in range(arguments.rounds + 1):  # the first warms up
            for name, task in tasks.items():
                start = time.perf_counter()
                task()
                seconds[name].append(time.perf_counter() - start)
        figures = (f"{name} {min(each[1:]):.3f} s" for name, each in seconds.items())
        print(f"MinkUNet{variant}: " + ", ".join(figures))


def example(source):
    """Return the example's networks; the point cloud that it reads, by open3d, is not needed here."""
    sys.modules.setdefault("open3d", types.ModuleType("open3d"))
    sys.path.insert(0, str(source.resolve()))
    os.chdir(tempfile.mkdtemp())
    Path("1.ply").touch()
    return importlib.import_module("examples.minkunet")


def data(num_sites):
    """Return coordinates, features and labels of a room's surfaces."""
    import numpy as np
    import torch

    rng = np.random.default_rng(0)
    edge = int((num_sites / 4) ** 0.5)
    cells = rng.integers(0, edge, (8 * num_sites, 3))
    cells[np.arange(len(cells)), rng.integers(0, 3, len(cells))] = rng.integers(0, 2, len(cells))
    cells = np.unique(cells, axis=0)
    cells = cells[rng.permutation(len(cells))[:num_sites]]
    coordinates = np.concatenate([np.zeros((len(cells), 1), int), cells], 1)
    features = rng.random((len(cells), 3), np.float32)
    labels = rng.integers(0, CLASSES, len(cells))
    return torch.from_numpy(coordinates).int(), torch.from_numpy(features), torch.from_numpy(labels)


def draw(net):
    """Give the norms some statistics, the same for every engine."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for name, value in sorted(net.state_dict().items()):
        if value.is_floating_point():
            low, high = (0.5, 1.5) if name.endswith(("running_var", "bn.weight")) else (-0.05, 0.05)
            value.uniform_(low, high, generator=generator)


def evaluate(net, engine, features, coordinates):
    """Run a forward pass; coordinates are new to the engine."""
    import torch

    net.eval()
    with torch.no_grad():
        return net(engine.SparseTensor(features, coordinates)).F


def step(net, engine, features, coordinates, labels):
    """Run a step of training, which leaves the weights as they are."""
    import torch

    net.train()
    net.zero_grad()
    y = net(engine.SparseTensor(features, coordinates)).F
    torch.nn.functional.cross_entropy(y, labels).backward()


def beside(net, variant, features, coordinates):
    """Return a forward pass of spcy's own network of the same weights, after comparing what they give."""
    import MinkowskiEngine as engine
    import numpy as np

    import spcy

    state = {name: value.numpy() for name, value in net.state_dict().items()}
    own = spcy.models.MinkUNet.from_state_dict(state, "minkowski", variant=variant).eval()

    def run():
        return own(spcy.SparseTensor(coordinates.numpy(), features.numpy())).features

    expected = evaluate(net, engine, features, coordinates).numpy()
    np.testing.assert_allclose(run(), expected, rtol=0, atol=1e-4 * abs(expected).max())
    return run


if __name__ == "__main__":
    main()
