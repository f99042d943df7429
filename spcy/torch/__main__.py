"""Run a script that imports another engine on spcy: ``python -m spcy.torch SCRIPT ARGS..``."""

import runpy
import sys
from pathlib import Path

from ._install import ENGINES, install


def main() -> None:
    """Run the script that the command line names, with its arguments."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: python -m spcy.torch SCRIPT [ARGS..]\n")
        print(f"Run a script that imports {' or '.join(ENGINES)} on spcy instead.")
        raise SystemExit(0 if len(sys.argv) > 1 else 2)
    script = sys.argv[1]
    if not Path(script).is_file():
        raise SystemExit(f"python -m spcy.torch: SCRIPT must be a file, got {script}")
    for name in ENGINES:
        install(name)
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
