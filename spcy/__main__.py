"""The command line: ``python -m spcy demo [SCAN] [--out DIR] [--backend B] [--json]``."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import spcy


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
        Exit status: 0; 2 if an argument or a scan is bad, 130 and 141 if interrupted or cut off.
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
        help=".bin (KITTI), .npy, .npz, .pcd or .ply; left out: a generated street",
    )
    demo.add_argument(
        "--out", type=_folder, metavar="DIR", help="write pictures and an .npz of the results there"
    )
    demo.add_argument(
        "--backend", choices=("cpu", "cuda", "auto"), help="where to compute; default as set in SPCY_BACKEND"
    )
    demo.add_argument("--json", action="store_true", help="print the results as one JSON document")
    demo.set_defaults(run=_demo)
    args = parser.parse_args(argv)
    try:
        status = args.run(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("spcy: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our results has had enough; Python must not flush them again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print("spcy: error:", " ".join(str(error).split()), file=sys.stderr)
        return 2


def _folder(name: str) -> Path:
    """Return the path of an argument; an empty one would be this folder."""
    if not name:
        raise argparse.ArgumentTypeError("--out must name a folder")
    return Path(name)


def _demo(args: argparse.Namespace) -> int:
    """Run the demo: first everything that can be refused, then the work."""
    from spcy.demo import report
    from spcy.demo.run import Steps, run_demo
    from spcy.demo.scan import read_scan
    from spcy.demo.scene import generate_scene

    with spcy.use_backend(args.backend or spcy.get_backend()):
        steps = Steps()
        with steps("read" if args.scan is not None else "generate"):
            scan = read_scan(args.scan) if args.scan is not None else generate_scene()
        if args.out is not None:
            from spcy.demo import output  # needs matplotlib

            output.prepare_folder(args.out)
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


if __name__ == "__main__":
    sys.exit(main())
