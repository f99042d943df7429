"""The command line: ``python -m spcy demo | convert | run | info``."""

import argparse
import inspect
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import spcy
from spcy._files import require_writable, write_npz
from spcy.scan import READERS, read_scan


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"spcy: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; None for those of the process.

    Returns
    -------
    int
        Exit status: 0; 2 if an argument or a scan is bad; 130, 143, 141 if interrupted, terminated, cut off.
    """
    parser = _Parser(prog="spcy", description=spcy.__doc__)
    parser.add_argument("--version", action="version", version=f"spcy {spcy.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="label a lidar scan by its local geometry and run a sparse network on it",
        description="Label a lidar scan by its local geometry, run a sparse network on it, and say how long "
        "each step took. Results go to stdout, progress to stderr.",
    )
    demo.add_argument(
        "scan",
        nargs="?",
        metavar="SCAN",
        help=f"{', '.join(READERS)}; left out: a generated street",
    )
    _add_columns(demo)
    demo.add_argument(
        "--out",
        type=_folder,
        metavar="DIR",
        help="write pictures, a 3-D page and an .npz of the results there",
    )
    demo.add_argument(
        "--backend", choices=("cpu", "cuda", "auto"), help="where to compute; default as set in SPCY_BACKEND"
    )
    demo.add_argument("--json", action="store_true", help="print the results as one JSON document")
    demo.set_defaults(run=_demo)
    _add_convert(commands)
    _add_run(commands)
    _add_info(commands)
    args = parser.parse_args(argv)
    try:
        with _ended_by_terminate():
            status = args.run(args)
        if sys.stdout is not None:  # what it is where the shell closed it
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("spcy: interrupted", file=sys.stderr)
        return 130
    except _Terminated:
        print("spcy: terminated", file=sys.stderr)
        return 143
    except BrokenPipeError:  # whoever read our results has had enough; Python must not flush them again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ImportError, MemoryError, OSError, RuntimeError, ValueError) as error:
        lines = [" ".join(line.split()) for line in str(error).splitlines()]
        print("spcy: error:", "\n  ".join(filter(None, lines)), file=sys.stderr)
        return 2


class _Terminated(BaseException):
    """The process was asked to end."""


@contextmanager
def _ended_by_terminate() -> Iterator[None]:
    """Let SIGTERM end what runs as Ctrl-C does, unless somebody uses it: what is half written is removed."""
    used = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    if used or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> NoReturn:
        raise _Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _add_convert(commands: "argparse._SubParsersAction[Any]") -> None:
    convert = commands.add_parser(
        "convert",
        help="turn a trained network's checkpoint into a file that run takes",
        description="Turn the weights of another library's trained network into an .npz that holds all that "
        "'spcy run' needs. Every weight must fit; what does not is listed by name.",
    )
    convert.add_argument("checkpoint", metavar="CHECKPOINT", help=".pth, .pt, .ckpt, .safetensors or .npz")
    convert.add_argument("--network", required=True, choices=tuple(spcy.models.NETWORKS))
    convert.add_argument(
        "--source", required=True, help="the library it is from, as for the network's from_state_dict"
    )
    convert.add_argument("--key", help="take only this part of the checkpoint, such as model_state")
    convert.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="arguments",
        help="an argument of the network, such as variant=34C, width=0.5 or channels=16,32,48",
    )
    convert.add_argument(
        "--voxel-size", required=True, nargs=3, type=float, metavar=("X", "Y", "Z"), help="edges of a voxel"
    )
    convert.add_argument(
        "--bounds",
        nargs=6,
        type=float,
        metavar=("X0", "Y0", "Z0", "X1", "Y1", "Z1"),
        help="leave out points outside; detectors need them",
    )
    convert.add_argument(
        "--columns",
        nargs="+",
        type=int,
        metavar="N",
        help="columns of a scan that are features; default the first",
    )
    convert.add_argument("--max-points", type=int, metavar="N", help="use the first N points of a voxel")
    convert.add_argument("-o", "--out", required=True, metavar="MODEL.npz")
    convert.set_defaults(run=_convert)


def _add_run(commands: "argparse._SubParsersAction[Any]") -> None:
    run = commands.add_parser(
        "run",
        help="run a converted network on a scan, or label the points of many files",
        description="Voxelize a scan as the network's file says, run the network, and write its outputs. "
        "With a folder as --out: label the points of all scans together, in tiles, on as many workers as are "
        "asked for, and write each file anew with its labels. A run that was stopped goes on if run again.",
    )
    run.add_argument("model", metavar="MODEL", help="what 'spcy convert' wrote; or street, the demo's")
    run.add_argument(
        "scan",
        nargs="+",
        metavar="SCAN",
        help=f"{', '.join(READERS)}; patterns and folders, for labels",
    )
    _add_columns(run)
    run.add_argument(
        "-o",
        "--out",
        default="output.npz",
        metavar="OUT",
        help="an .npz for the outputs of one scan, default output.npz in this folder; or a folder for labels",
    )
    run.add_argument(
        "--backend", choices=("cpu", "cuda", "auto"), help="as for demo; labels are made on the CPU"
    )
    labels = run.add_argument_group("for labels")
    labels.add_argument("--voxel", nargs="+", type=float, metavar="M", help="edge of a voxel, or three")
    labels.add_argument(
        "--features",
        type=lambda text: text.split(","),
        metavar="NAME,..",
        help="columns that the network takes, as they are called in the file",
    )
    labels.add_argument("--tile", type=int, metavar="CELLS", help="edge of a tile, in voxels")
    workers = labels.add_mutually_exclusive_group()
    workers.add_argument("--workers", type=int, metavar="N", help="processes; default this one alone")
    workers.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster, such as tcp://host:8786")
    labels.add_argument("--keep-going", action="store_true", help="leave out files that cannot be read")
    labels.add_argument("--drop-invalid", action="store_true", help="label points without coordinates -1")
    run.set_defaults(run=_run)


def _add_columns(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--columns",
        metavar="NAME,..",
        help="what a row of a file that does not say it holds, such as x,y,z,intensity,ring, or how many "
        "numbers; default for .bin: found out",
    )


def _add_info(commands: "argparse._SubParsersAction[Any]") -> None:
    info = commands.add_parser("info", help="print versions, SIMD level, threads and CUDA, for a bug report")
    info.set_defaults(run=_info)


def _folder(name: str) -> Path:
    """Return the path of an argument; an empty one would be this folder."""
    if not name:
        raise argparse.ArgumentTypeError("--out must name a folder")
    return Path(name)


def _demo(args: argparse.Namespace) -> int:
    """Run the demo: first everything that can be refused, then the work."""
    from spcy.demo import report
    from spcy.demo.run import Steps, run_demo
    from spcy.demo.scene import generate_scene

    if args.scan is None and args.columns is not None:
        raise ValueError("--columns are those of a SCAN, and there is none")
    with spcy.use_backend(args.backend or spcy.get_backend()):
        steps = Steps()
        with steps("read" if args.scan is not None else "generate"):
            scan = generate_scene() if args.scan is None else read_scan(args.scan, args.columns)
        if args.out is not None:
            from spcy.demo import output  # needs matplotlib

            output.prepare_folder(args.out)
            if args.scan is not None:
                _require_other(args.out / "sites.npz", args.scan)
        try:
            result = run_demo(scan, steps)
        except ValueError as error:
            raise ValueError(f"{scan.name}: {error}") from error
    files = []
    if args.out is not None:
        with steps("write"):
            files = [str(path) for path in output.write_files(result, args.out)]
    document = report.document(result, steps.seconds, files)
    print(json.dumps(document, indent=2, allow_nan=False) if args.json else report.text(document))
    return 0 if result.restored else 1


def _convert(args: argparse.Namespace) -> int:
    """Convert a checkpoint."""
    from spcy import models

    _require_npz(args.out, args.checkpoint)
    network = models.NETWORKS[args.network]
    arguments = _settings(network, args.arguments)
    state = spcy.load_weights(args.checkpoint, args.key)
    net = network.from_state_dict(state, args.source, **arguments)
    columns = args.columns or range(net.arguments["in_channels"])
    bounds = args.bounds and (args.bounds[:3], args.bounds[3:])
    settings = models.ScanSettings(args.voxel_size, bounds, tuple(columns), args.max_points)
    models.save(args.out, net, settings)
    count = sum(array.size for array in net.state_dict().values())
    print(f"{args.out}: {args.network}, {count} numbers, {Path(args.out).stat().st_size} bytes")
    return 0


def _run(args: argparse.Namespace) -> int:
    """Run a converted network, or label files."""
    suffix = Path(args.out).suffix
    if Path(args.out).is_dir() or args.out.endswith(os.sep) or not suffix:
        return _label(args)
    if suffix != ".npz":
        raise ValueError(
            f"--out must end in .npz, or be a folder (with {os.sep} behind it), got {args.out!r}"
        )
    if len(args.scan) != 1:
        raise ValueError(f"--out must be a folder for {len(args.scan)} scans, got {args.out!r}")
    (args.scan,) = args.scan
    from spcy import models
    from spcy._backend import to_host
    from spcy._width import widened
    from spcy.demo.run import Steps

    _require_npz(args.out, args.model, args.scan)
    with spcy.use_backend(args.backend or spcy.get_backend()):
        steps = Steps()
        with steps("load"):
            net, settings = models.load(args.model)
        with steps("read"):
            scan = read_scan(args.scan, args.columns)
        try:
            with steps("voxelize"):
                given: Any = scan.columns  # a file has them
                x, rows, _ = models.scan_tensor(net, settings, given)
        except ValueError as error:
            counted = f" (of the points with finite coordinates: {scan.left_out} are left out)"
            raise ValueError(f"{args.scan}: {error}{counted if scan.left_out else ''}") from error
        try:
            with steps("network"):
                y = net(x)
        except ValueError as error:  # bounds can be too low for a network's levels
            raise ValueError(f"{args.scan}, through {args.model}: {error}") from error
    outputs = {"output": y} if isinstance(y, spcy.SparseTensor) else y._asdict()
    arrays = {"point_rows": scan.rows_in_file(rows), "input_indices": to_host(x.indices)}
    for name, tensor in outputs.items():
        arrays[f"{name}_indices"] = to_host(tensor.indices)
        arrays[f"{name}_features"] = widened(to_host(tensor.features))
        arrays[f"{name}_origin"] = tensor.coords.origin
        arrays[f"{name}_voxel_size"] = tensor.coords.voxel_size
    with steps("write"):
        write_npz(Path(args.out), arrays)
    left_out = f" ({scan.left_out} more left out, not finite)" if scan.left_out else ""
    print(f"{scan.name}: {len(scan.points)} points{left_out}, {x.num_sites} voxels, {type(net).__name__}")
    for name, tensor in outputs.items():
        print(
            f"{name:>8}: {tensor.num_sites:>8} sites {tensor.num_channels:>4} channels, shape {tensor.shape}"
        )
    print(args.out)
    return 0


def _label(args: argparse.Namespace) -> int:
    """Label the points of files."""
    if not args.out:
        raise ValueError("--out must name a folder")
    if args.backend == "cuda":
        raise ValueError("--backend must be cpu for labels: workers run on the CPU")
    if args.workers is not None and args.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {args.workers}")
    if args.voxel is not None and len(args.voxel) not in (1, 3):
        raise ValueError(f"--voxel must be one number or three, got {len(args.voxel)}")
    from spcy.dask import command

    return command.run(args)


def _info(args: argparse.Namespace) -> int:
    """Print what a bug report needs."""
    spcy.show_config()
    return 0


def _require_npz(name: str, *inputs: str) -> None:
    """Refuse an output that cannot be written, or is an input, before the work."""
    path = Path(name)
    if path.suffix != ".npz":
        raise ValueError(f"--out must end in .npz, got {name!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--out must be in a folder that is there, got {name!r}")
    if path.is_dir():
        raise IsADirectoryError(f"--out must be a file, got the folder {name!r}")
    for other in inputs:
        _require_other(path, other)
    require_writable(path)


def _require_other(path: Path, read: str) -> None:
    """Refuse to replace a file that is read."""
    if path.exists() and Path(read).exists() and path.samefile(read):
        raise ValueError(f"--out must not replace what is read, got {str(path)!r} for {read!r}")


def _settings(network: type, texts: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of a network that NAME=VALUE texts give."""
    parameters = dict(inspect.signature(network).parameters)
    del parameters["rng"]
    given = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"--set must be NAME=VALUE, got {text!r}")
        if name not in parameters:
            raise ValueError(f"--set {text}: {network.__name__} has {', '.join(parameters)}")
        read, expected = _KINDS[parameters[name].annotation]
        try:
            given[name] = read(value)
        except (KeyError, ValueError):
            raise ValueError(f"--set {name} must be {expected}, got {value!r}") from None
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in (*given, "in_channels", "out_channels"):
            raise ValueError(f"--set {name}=VALUE must be given for {network.__name__}")
    return given


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


_KINDS: dict[str, tuple[Callable[[str], Any], str]] = {  # of a network's arguments, by their annotation
    "int": (int, "an int"),
    "float": (_finite, "a finite number"),
    "str": (str, "text"),
    "bool": (lambda text: {"true": True, "false": False}[text.lower()], "true or false"),
    "Sequence[int]": (lambda text: [int(part) for part in text.split(",")], "ints with commas"),
}


if __name__ == "__main__":
    sys.exit(main())
