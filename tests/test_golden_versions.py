"""What earlier versions of spcy computed, and the networks they saved: the same sites, close features."""

import golden_cases
import numpy as np
import pytest

import spcy

VERSIONS = sorted(
    path.name.removesuffix(".npz") for path in golden_cases.FOLDER.glob("*.npz") if "-" not in path.name
)
# Relative to the largest value. The inputs are eighths, so that only divisions, roots and exponentials are
# rounded, and the sums of a network: 16-bit results by one rounding more.
TOLERANCE = {"float32": 2e-6, "float64": 4e-15, "float16": 2**-11, "bfloat16": 2**-8}
NETWORK_TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=VERSIONS)
def recorded(request):
    with np.load(golden_cases.FOLDER / f"{request.param}.npz") as archive:
        return request.param, dict(archive)


def parts(arrays, start):
    """The arrays whose names start so, without that."""
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def compare(found, expected, tolerance, dtype):
    for name, array in expected.items():
        if array.dtype.kind in "iu":
            np.testing.assert_array_equal(found[name], array, err_msg=name)
            assert found[name].dtype == array.dtype
        else:
            assert found[name].dtype == dtype
            atol = tolerance * max(1, abs(array).max(initial=0))
            np.testing.assert_allclose(np.float64(found[name]), array, rtol=0, atol=atol, err_msg=name)


@pytest.mark.usefixtures("simd")
@pytest.mark.parametrize("case", golden_cases.CASES)
def test_results(case, dtype, recorded):
    _, arrays = recorded
    expected = parts(arrays, f"{case}/{dtype}/")
    whole = parts(arrays, f"{case}/{golden_cases.DTYPES[0]}/")
    if not whole:
        pytest.skip("the case is younger")
    if dtype.name == "bfloat16":
        expected = {name: np.float64(array.view(dtype)) for name, array in expected.items()}
    expected |= {name: array for name, array in whole.items() if array.dtype.kind in "iu"}
    found = golden_cases.run(case, parts(arrays, "input/"), dtype)
    assert set(found) == set(expected)
    compare(
        found,
        {n: a if a.dtype.kind in "iu" else np.float64(a) for n, a in expected.items()},
        TOLERANCE[dtype.name],
        dtype,
    )


@pytest.mark.usefixtures("simd")
@pytest.mark.parametrize("name", golden_cases.NETWORKS)
def test_saved_networks(name, recorded):
    version, arrays = recorded
    path = golden_cases.FOLDER / f"{version}-{name}.npz"
    if not path.exists():
        pytest.skip("the network is younger")
    found = golden_cases.run_network(path, arrays["input/scan"])
    compare(found, parts(arrays, f"network {name}/"), NETWORK_TOLERANCE, np.float32)


def test_this_version_has_its_files():
    """A release adds them (tools/golden.py)."""
    assert spcy.__version__ in VERSIONS
