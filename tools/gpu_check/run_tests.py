"""Run the tests marked cuda: what PTX means first, then all in parallel, where pytest-xdist is there."""

import sys
from importlib.util import find_spec

import pytest

from common import ROOT, TINY, report

OPTIONS = ["-q", "-W", "default", "-p", "no:cacheprovider", "-m", "cuda", f"--rootdir={ROOT}"]
FIRST = "test_cuda_ptx.py"


class Recorder:
    """Writes each failure as it happens, and at the end the counts."""

    def __init__(self):
        self.counts = {}

    def pytest_runtest_logreport(self, report):
        """Count an outcome."""
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] = self.counts.get(report.outcome, 0) + 1
        if report.failed:
            record(failed=report.nodeid, text=str(report.longrepr)[-600:])

    def pytest_collectreport(self, report):
        """Write what could not be collected."""
        if report.failed:
            record(failed=report.nodeid, text=str(report.longrepr)[-600:])

    def pytest_sessionfinish(self):
        """Write the counts."""
        record(counts=self.counts)


def record(**values):
    """Write a result of this stage."""
    report("tests", **values)


def main():
    """Return whether a test failed."""
    folder = ROOT / "tests"
    parallel = ["-n", "12"] if find_spec("xdist") and not TINY else []
    missing = [("hypothesis", "test_properties.py"), ("ml_dtypes", "test_weights.py")]
    left_out = [f"--ignore={folder / name}" for module, name in missing if not find_spec(module)]
    status = pytest.main([*OPTIONS, str(folder / FIRST)], plugins=[Recorder()])
    rest = (
        [str(folder / "test_hashmap.py")] if TINY else [f"--ignore={folder / FIRST}", *left_out, str(folder)]
    )
    return int(status) | int(pytest.main([*OPTIONS, *parallel, *rest], plugins=[Recorder()]))


if __name__ == "__main__":
    sys.exit(main())
