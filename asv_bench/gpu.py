"""What compare.py measures with --backend cuda: spcy's steps on a GPU, beside spconv's and beside floors.

A time is that of many calls in a row, between two CUDA events, divided by their number; the least of some
rounds. Rulebooks make the host wait, and their times include it. The floor of a convolution is the greater
of two times: its products at the speed at which cuBLAS multiplies large matrices of the same numbers here,
and the bytes of features, weight, result and pairs at the speed at which this GPU copies. Results are first
compared with the CPU's.
"""

import contextlib
import importlib
import sys
from importlib.util import find_spec

import numpy as np
from benchmarks.network import LAYERS, backbone

import spcy

CHANNELS = (16, 32, 64, 128)
MATHS = {  # numbers, and by how much a result may differ from float64, relative to the greatest
    "float32": 1e-5,
    "tf32": 5e-3,
    "float16": 5e-3,
    "bfloat16": 3e-2,
    "float64": 1e-12,
}
PEERS = ("spconv.pytorch", "spconv_triton.pytorch", "spconv_triton")
EDGE = 4096  # of the matrices that are multiplied


class Timer:
    """Times functions that work on the GPU."""

    def __init__(self, rounds, seconds):
        import cupy

        self.cupy, self.rounds, self.seconds = cupy, rounds, seconds

    def __call__(self, run):
        """Return the milliseconds of a call."""
        run()
        calls = max(1, min(200, int(1e3 * self.seconds / self.rounds / max(self._once(run, 1), 1e-3))))
        return min(self._once(run, calls) for _ in range(self.rounds))

    def _once(self, run, calls):
        begin, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        begin.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        return self.cupy.cuda.get_elapsed_time(begin, end) / calls


class Floors:
    """How fast the GPU copies, and multiplies large matrices."""

    def __init__(self, timer, edge):
        self.timer, self.edge, self.known = timer, edge, {}
        cupy = timer.cupy
        a = cupy.zeros(edge * edge, np.float32)
        b = cupy.empty_like(a)
        self.bytes_per_ms = 2 * a.nbytes / timer(lambda: cupy.copyto(b, a))

    def flop_per_ms(self, math):
        """Return the speed of matrix products; of float32's where a type has none."""
        if math not in self.known:
            cupy = self.timer.cupy
            # Only the environment turns tf32 on in cuBLAS: half of float16's speed stands for it.
            dtype = {"tf32": "float16", "bfloat16": "float16"}.get(math, math)
            a = cupy.ones((self.edge, self.edge), dtype)
            speed = 2 * self.edge**3 / self.timer(lambda: a @ a)
            self.known[math] = speed / 2 if math == "tf32" else speed
        return self.known[math]

    def of(self, math, flop, num_bytes):
        """Return the milliseconds that products and bytes take at least."""
        return {"flop": flop / self.flop_per_ms(math), "bytes": num_bytes / self.bytes_per_ms}


def measure(name, coords, args):
    """Yield a row of results for each operation on the sites of a scene."""
    timer = Timer(args.rounds, args.seconds)
    floors = Floors(timer, args.edge)
    device = coords.to("cuda")
    peer = find_peer()
    box = spcy.kernel_offsets((3, 3, 3))

    def row(kind, ms, **more):
        return {"scene": name, "sites": len(coords), "kind": kind, "ms": ms} | more

    indices, grid = device.indices, (device.shape, device.batch_size)
    yield row("coords", {"spcy": timer(lambda: spcy.Coords(indices, *grid))})
    plain = timer(lambda: spcy.Coords(indices, *grid))
    for kind, build in (
        ("rulebook submanifold", lambda c: spcy.submanifold_rulebook(c, box - 1)),
        ("rulebook stride 2", lambda c: spcy.conv_rulebook(c, box, stride=2, padding=1)),
    ):
        whole = timer(lambda build=build: build(spcy.Coords(indices, *grid)))
        yield row(kind, {"spcy": whole - plain}, with_coords=whole)

    pairs = spcy.submanifold_rulebook(coords, box - 1).num_pairs
    for channels in CHANNELS:
        for math in MATHS:
            if math == "bfloat16" and not find_spec("ml_dtypes"):
                continue
            if math == "float64" and channels != 64:
                continue
            yield row(f"submanifold {channels} -> {channels}", {}, math=math) | conv(
                timer, floors, coords, device, pairs, channels, math, peer
            )
    yield row("VoxelBackBone8x float16", {"spcy": network(timer, device, np.float16)})
    with spcy.allow_tf32():
        yield row("VoxelBackBone8x tf32", {"spcy": network(timer, device, np.float32)})


def conv(timer, floors, coords, device, pairs, channels, math, peer):
    """Return what a submanifold convolution takes, and how near it is to float64's result on the CPU."""
    import cupy

    rng = np.random.default_rng(0)
    features = rng.standard_normal((len(coords), channels))
    weight = rng.standard_normal((3, 3, 3, channels, channels)) / (9 * channels) ** 0.5
    dtype = {"tf32": "float32"}.get(math, math)
    if math == "bfloat16":
        from ml_dtypes import bfloat16 as dtype
    x_host, w_host = features.astype(dtype), weight.astype(dtype)
    x, w = spcy.SparseTensor(device, cupy.asarray(x_host)), cupy.asarray(w_host)
    exact = spcy.subm_conv(spcy.SparseTensor(coords, np.float64(x_host)), np.float64(w_host)).features
    with spcy.allow_tf32() if math == "tf32" else contextlib.nullcontext():
        y = spcy.subm_conv(x, w)
        error = np.abs(np.float64(y.features.get()) - exact).max() / np.abs(exact).max()
        if error > MATHS[math]:
            raise AssertionError(f"{math}, {channels} channels: differs by {error:.2g} from the CPU's")
        ms = {"spcy": timer(lambda: spcy.subm_conv(x, w))}
    if peer and math in ("float32", "float16"):
        try:
            ms[peer] = timer(peer_conv(peer, device, x_host, w_host))
        except Exception as failure:  # another library, its own troubles
            print(f"{peer}: {type(failure).__name__}: {failure}", file=sys.stderr)
    flop = 2 * pairs * channels**2
    num_bytes = x_host.nbytes * 2 + w_host.nbytes + 4 * pairs
    return {
        "ms": ms,
        "pairs": pairs,
        "error": float(error),
        "tflops": {engine: flop / t / 1e9 for engine, t in ms.items()},
        "floor_ms": floors.of(math, flop, num_bytes),
    }


def network(timer, device, dtype):
    """Return what VoxelBackBone8x takes, from sites to output."""
    import cupy

    rng, parameters = np.random.default_rng(0), []
    for layer in LAYERS:
        shape = (*layer.kernel_size, layer.c_in, layer.c_out)
        weight = rng.standard_normal(shape) * (layer.c_in * 9) ** -0.5
        parameters.append((cupy.asarray(weight.astype(dtype)), cupy.zeros(layer.c_out, dtype)))
    features = cupy.asarray(rng.standard_normal((len(device), LAYERS[0].c_in)).astype(dtype))
    indices, grid = device.indices, (device.shape, device.batch_size)
    return timer(lambda: backbone(spcy.SparseTensor(spcy.Coords(indices, *grid), features), parameters))


def find_peer():
    """Return the name of another engine that is installed, or None."""
    for name in PEERS:
        try:
            if hasattr(importlib.import_module(name), "SubMConv3d"):
                return name
        except Exception as failure:  # it may be there and not fit this machine
            print(f"{name} is left out: {type(failure).__name__}: {failure}", file=sys.stderr)
    return None


def peer_conv(name, device, features, weight):
    """Return another engine's submanifold convolution, its rulebook built before."""
    import torch

    torch.set_grad_enabled(False)
    library, channels = importlib.import_module(name), features.shape[1]
    layer = library.SubMConv3d(channels, channels, 3, padding=1, bias=False, indice_key="same").cuda()
    layer = layer.to(torch.from_numpy(features).dtype).eval()
    indices = torch.from_dlpack(device.indices)
    x = library.SparseConvTensor(
        torch.from_numpy(features).cuda(), indices, list(device.shape), device.batch_size
    )
    x = layer(x)  # makes the pairs, which the tensor keeps
    return lambda: layer(x)


def show(row):
    """Print a row."""
    words = f"{row['scene']:24} {row['kind']:24} {row.get('math', ''):9}"
    for engine, ms in row["ms"].items():
        words += f"  {engine} {ms:9.4f} ms"
        if "tflops" in row:
            words += f" {row['tflops'][engine]:7.2f} TFLOP/s"
    if "floor_ms" in row:
        words += "  floors: " + ", ".join(f"{ms:.4f} ms of {what}" for what, ms in row["floor_ms"].items())
    print(words, flush=True)


def machine():
    """Return the GPU's name, compute capability and the versions of what runs on it."""
    import cupy

    properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    name = properties["name"].decode()
    capability = cupy.cuda.Device().compute_capability
    return f"{name}, compute capability {capability}, CuPy {cupy.__version__}"
