"""What notebooks show: well-formed, escaped, small, without scripts, and made at once."""

from time import perf_counter
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers import put, random_indices, random_tensor

import spcy
from spcy import nn


def parsed(item):
    """The elements that an object shows; what is not well-formed raises."""
    text = item._repr_html_()
    assert len(text) < 20_000
    root = ElementTree.fromstring(text)
    elements = [*root.iter()]
    assert not {"script", "link", "iframe"} & {element.tag for element in elements}
    assert not [name for e in elements for name in (*e.keys(), *e.attrib.values()) if name.startswith("on")]
    return root


def words(root):
    return " ".join(" ".join(root.itertext()).split())


def painted(root):
    """The cells of a picture that are painted: (row, column, shade)."""
    cells = set()
    for path in root.iter("{http://www.w3.org/2000/svg}path"):
        for run in path.get("d").split("M")[1:]:
            start, length = run.split("h")
            x, y = map(int, start.split())
            cells |= {(y, x + step, float(path.get("stroke-opacity"))) for step in range(int(length))}
    return cells


@pytest.mark.parametrize("num", [0, 1, 40])
@pytest.mark.parametrize("box", [(60,), (9, 8), (6, 7, 8), (5, 4, 5, 6)], ids=len)
def test_tensors_of_any_size(num, box, backend, rng):
    x = random_tensor(rng, num, box, 9, batch_size=2, shape=None, low=-3)
    root = parsed(x)
    assert f"{num} sites, 9 channels, float32, {backend}" in words(root)
    assert len([*root.iter("details")]) == 2
    assert len([*root.iter("tr")]) == (6 if num else 5) + 1 + min(num, 5)
    assert bool(painted(root)) == bool(num)
    assert "spcy.Coords" in words(parsed(x.coords))
    assert x._repr_html_() == x._repr_html_()


def test_a_grid_of_two_axes_is_drawn_as_a_matrix():
    coords = spcy.Coords([[0, 2, 1], [0, 2, 2], [0, 4, 6]], shape=(9, 9))
    assert painted(parsed(coords)) == {(0, 0, 1), (0, 1, 1), (2, 5, 1)}
    assert "2 .. 4 x 1 .. 6" in words(parsed(coords))
    assert "axis 0 down, axis 1 to the right" in words(parsed(coords))


def test_more_axes_are_drawn_along_the_widest_two_as_a_map():
    sites = [[0, 0, 0, 0], [0, 0, 3, 0], [0, 0, 3, 1], [0, 1, 3, 5]]
    root = parsed(spcy.Coords(sites))
    assert "axis 1 to the right, axis 2 up" in words(root)
    assert painted(root) == {(5, 0, 1), (5, 3, 1), (4, 3, 1), (0, 3, 1)}


def test_crowded_cells_are_darker(rng):
    sites = np.concatenate([random_indices(rng, 900, (40, 40)), [[0, 400, 400]]])
    shades = {shade for *_, shade in painted(parsed(spcy.Coords(sites)))}
    assert min(shades) < max(shades) == 1


def test_a_million_sites_take_no_time(rng):
    x = spcy.SparseTensor(random_indices(rng, 1_000_000, (400, 300, 30)), np.ones((1_000_000, 4)))
    x._repr_html_()
    times = []
    for _ in range(5):
        start = perf_counter()
        x._repr_html_()
        times.append(perf_counter() - start)
    assert min(times) < 0.1  # 0.02 on an idle core


def test_coordinates_at_the_ends_of_int32():
    ends = np.iinfo(np.int32)
    coords = spcy.Coords([[0, ends.min], [0, ends.max]])
    assert painted(parsed(coords)) == {(0, 0, 1), (0, 39, 1)}


def test_a_level_says_what_it_was_made_from(rng):
    x = random_tensor(rng, 40, (8, 8), 1)
    assert "made from 40 sites, shape (8, 8)" in words(parsed(spcy.max_pool(x, 2).coords))


def test_features_are_shown_in_their_dtype(dtype):
    x = spcy.SparseTensor(put(np.array([[0, 1]])), np.array([[1.5, np.nan]]).astype(dtype))
    assert "1.5 nan" in words(parsed(x))
    assert str(dtype) in words(parsed(x))


@pytest.mark.parametrize("num", [0, 40])
def test_rulebooks(num, backend, rng):
    coords = random_tensor(rng, num, (8, 8), 1).coords
    rulebook = spcy.submanifold_rulebook(coords, spcy.kernel_offsets((3, 3)) - 1)
    root = parsed(rulebook)
    assert f"9 offsets, {rulebook.num_pairs} pairs" in words(root)
    assert f"output sites {num}" in words(root)
    many = spcy.submanifold_rulebook(coords, spcy.kernel_offsets((31, 31)) - 15)
    (path,) = parsed(many).iter("{http://www.w3.org/2000/svg}path")
    assert path.get("d").count("M") <= 160


def test_summaries_escape_the_names_of_layers(rng):
    class Net(nn.Module):
        def __init__(self):
            setattr(self, "<b>&'\"", nn.SubMConv(1, 4, 3, ndim=2, rng=0))

        def forward(self, x):
            return getattr(self, "<b>&'\"")(x)

    summary = nn.summary(Net(), random_tensor(rng, 40, (8, 8), 1))
    root = parsed(summary)
    assert not [*root.iter("b")]
    assert "<b>&'\"" in words(root)
    assert words(root).count("SubMConv") == 1
    assert str(summary).split() == " ".join(cells(root)).split()
    (path,) = root.iter("{http://www.w3.org/2000/svg}path")
    assert path.get("d") == "M0.5 40v-40"  # the only layer takes all the time
    assert "total" in words(parsed(nn.Summary((), 0)))


def cells(root):
    return [cell.text or "" for row in root.iter("tr") for cell in row]
