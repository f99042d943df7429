"""Weights of other libraries: each entry lands where its library's documentation puts it."""

import itertools
from pathlib import Path

import numpy as np
import pytest

import spcy
from spcy import layout

SIZES = [(3,), (2, 3), (3, 3, 3), (2, 2, 2), (1, 3, 2), (3, 1, 1), (1, 1, 1), (2, 3, 1, 3)]
C_IN, C_OUT = 3, 5


def cell(r, kernel_size, first_fastest):
    """The number of a kernel cell."""
    axes = list(zip(r, kernel_size, strict=True))
    number = 0
    for i, k in axes[::-1] if first_fastest else axes:
        number = number * k + i
    return number


def numbered(first_fastest):
    def place(kernel_size):
        fastest = first_fastest(np.prod(kernel_size))
        return (np.prod(kernel_size), C_IN, C_OUT), lambda r, i, o: (cell(r, kernel_size, fastest), i, o)

    return place


# For each library, from a kernel size: the shape, and where entry (r, input channel, output channel) stands.
LAYOUTS = {
    "spconv1": lambda k: ((*k, C_IN, C_OUT), lambda r, i, o: (*r, i, o)),
    "spconv2.0": lambda k: ((*k, C_OUT, C_IN), lambda r, i, o: (*r, o, i)),
    "spconv2": lambda k: ((C_OUT, *k, C_IN), lambda r, i, o: (o, *r, i)),
    "minkowski": numbered(lambda volume: True),
    "torchsparse": numbered(lambda volume: volume % 2 == 1),
    "sparseconvnet": numbered(lambda volume: False),
    "torch": lambda k: ((C_OUT, C_IN, *k), lambda r, i, o: (o, i, *r)),
    "torch_transposed": lambda k: ((C_IN, C_OUT, *k), lambda r, i, o: (i, o, *r)),
}


@pytest.mark.parametrize("kernel_size", SIZES, ids=str)
@pytest.mark.parametrize("source", LAYOUTS)
def test_every_entry_lands_in_its_place(source, kernel_size, rng):
    shape, place = LAYOUTS[source](kernel_size)
    weight = rng.standard_normal(shape).astype(np.float32)
    before = weight.copy()
    converted = spcy.convert_weight(weight, source, kernel_size, stride=2)
    assert converted.shape == (*kernel_size, C_IN, C_OUT)
    assert converted.dtype == weight.dtype
    assert converted.flags.c_contiguous
    for entry in itertools.product(*map(range, converted.shape)):
        assert converted[entry] == weight[place(entry[:-2], *entry[-2:])]
    np.testing.assert_array_equal(weight, before)


@pytest.mark.parametrize("source", ["spconv2", "spconv2.0"])
def test_spconv2_reads_the_memory_of_one_cell_as_a_matrix(source, rng):
    weight = rng.standard_normal((C_OUT, 1, 1, 1, C_IN) if source == "spconv2" else (1, 1, 1, C_OUT, C_IN))
    read = spcy.convert_weight(weight, source, (1, 1, 1))
    np.testing.assert_array_equal(read[0, 0, 0], weight.reshape(C_IN, C_OUT))
    strided = spcy.convert_weight(weight, source, (1, 1, 1), stride=(2, 1, 1))
    np.testing.assert_array_equal(strided[0, 0, 0], weight.reshape(C_OUT, C_IN).T)
    # The same entries in memory that is not contiguous are the same weight.
    apart = np.repeat(weight, 2, axis=-1)[..., ::2]
    np.testing.assert_array_equal(spcy.convert_weight(apart, source, (1, 1, 1)), read)


@pytest.mark.parametrize("source", ["minkowski", "torchsparse", "sparseconvnet"])
def test_one_cell_may_be_a_matrix(source, rng):
    weight = rng.standard_normal((C_IN, C_OUT))
    np.testing.assert_array_equal(spcy.convert_weight(weight, source, (1, 1, 1))[0, 0, 0], weight)


def test_groups_of_sparseconvnet(rng):
    """Output channel j is of group j // (C_out // groups), and so has that group's weight."""
    weight = rng.standard_normal((8, 3, 2, 4))  # 3 groups of 2 input and 4 output channels
    converted = spcy.convert_weight(weight, "sparseconvnet", (2, 2, 2))
    assert converted.shape == (2, 2, 2, 2, 12)
    for k, group in itertools.product(range(8), range(3)):
        block = converted.reshape(8, 2, 12)[k, :, 4 * group : 4 * group + 4]
        np.testing.assert_array_equal(block, weight[k, group])
    flat = weight[:, 0].reshape(8 * 2, 4)  # as its first versions kept the weight of a deconvolution
    np.testing.assert_array_equal(spcy.convert_weight(flat, "sparseconvnet", (2, 2, 2)).reshape(16, 4), flat)


ERRORS = [
    (((3, 3, 3, 4, 5), "spconv2", (3, 3, 3)), r"\(C_out, 3, 3, 3, C_in\) for source='spconv2', got "),
    (((5, 3, 3, 3, 4), "spconv1", (3, 3, 3)), r"\(3, 3, 3, C_in, C_out\) .*got \(5, 3, 3, 3, 4\)"),
    (((3, 3, 4, 5), "spconv1", (3, 3, 3)), r"got \(3, 3, 4, 5\)"),
    (((5, 4, 3, 3, 2), "torch", (3, 3, 3)), r"\(C_out, C_in, 3, 3, 3\) .*got \(5, 4, 3, 3, 2\)"),
    (((8, 4, 5), "minkowski", (3, 3, 3)), r"\(27, C_in, C_out\) for source='minkowski'.*got \(8, 4, 5\)"),
    (((4, 5), "torchsparse", (2, 2, 2)), r"\(8, C_in, C_out\) .*got \(4, 5\)"),
    (((27, 1, 4), "sparseconvnet", (2, 2, 2)), r"\(8, groups, .*got \(27, 1, 4\)"),
    (((5, 2), "sparseconvnet", (2, 2, 2)), r"got \(5, 2\)"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_a_shape_that_does_not_fit_is_refused(arguments, message):
    shape, source, kernel_size = arguments
    with pytest.raises(ValueError, match=rf"^weight must have shape .*{message}"):
        spcy.convert_weight(np.zeros(shape), source, kernel_size)


def test_every_source_is_tested_and_in_the_table_of_the_docs():
    table = (Path(__file__).parents[1] / "docs" / "weights.md").read_text()
    assert set(layout.SOURCES) == set(LAYOUTS)
    assert all(f'| `"{source}"`' in table for source in layout.SOURCES)


def test_bad_arguments():
    weight = np.zeros((3, 3, 3, 4, 5))
    with pytest.raises(ValueError, match=r"^source must be one of 'spconv1', .*got 'spconv'"):
        spcy.convert_weight(weight, "spconv", (3, 3, 3))
    with pytest.raises(TypeError, match=r"^kernel_size must be a sequence .*got 3"):
        spcy.convert_weight(weight, "spconv1", 3)
    with pytest.raises(ValueError, match=r"^kernel_size .*got \(3, 0, 3\)"):
        spcy.convert_weight(weight, "spconv1", (3, 0, 3))
