"""Pictures: each site at its place, in its colour; what cannot be drawn is refused."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import get, put, random_tensor
from matplotlib.figure import Figure

import spcy
from spcy import plot


@pytest.fixture
def ax():
    return Figure(figsize=(4, 4)).subplots()


def cells(image):
    """The value of each cell that is drawn: {(x, y): value}, x and y the middle of the cell."""
    values = np.ma.getdata(image.get_array())
    left, right, bottom, top = image.get_extent()
    rows, columns = values.shape[:2]
    y = np.linspace(bottom, top, 2 * rows + 1)[1::2]
    y = y[::-1] if image.origin == "upper" else y
    x = np.linspace(left, right, 2 * columns + 1)[1::2]
    drawn = np.isfinite(values) if values.ndim == 2 else values[..., 3] > 0
    return {
        (round(x[j], 6), round(y[i], 6)): values[i, j].tolist()
        for i, j in zip(*np.nonzero(drawn), strict=True)
    }


def test_two_axes_are_drawn_as_a_matrix(rng, backend):
    ax = Figure(figsize=(1, 1)).subplots()  # too small for gaps between cells
    x = random_tensor(rng, 40, (11, 18), 2)
    image = plot.sites(x, x.features[:, 1], ax=ax)
    indices, features = get(x.indices).tolist(), get(x.features).tolist()
    assert cells(image) == {
        (j + 0.5, i + 0.5): value for (_, i, j), (_, value) in zip(indices, features, strict=True)
    }
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 18), (11, 0))


def test_large_cells_have_a_gap_between(ax):
    coords = spcy.Coords([[0, 0, 0], [0, 0, 1]], shape=(1, 2))
    image = plot.sites(coords, [1.0, 2.0], ax=ax)
    row = np.ma.getdata(image.get_array())[10]
    assert np.isnan(row).sum() in (2, 4)
    assert np.nanmin(row[: len(row) // 2]) == np.nanmax(row[: len(row) // 2]) == 1
    assert image.get_extent() == [0, 2, 1, 0]


def test_more_axes_are_drawn_from_above(ax):
    sites = [[0, 2, 5, 0], [0, 2, 5, 3], [0, 2, 5, 1], [0, 4, 6, 1]]
    image = plot.sites(spcy.Coords(sites), [1, 2, 3, 4], ax=ax)
    assert cells(image) == {(2.5, 5.5): 2, (4.5, 6.5): 4}
    assert (ax.get_xlim(), ax.get_ylim()) == ((2, 5), (5, 7))
    assert cells(plot.sites(spcy.Coords(sites), [1, np.nan, 3, 4], ax=ax))[2.5, 5.5] == 3
    height = plot.sites(spcy.Coords(sites), ax=Figure().subplots())
    assert cells(height) == {(2.5, 5.5): 3.5, (4.5, 6.5): 1.5}


def test_cells_lie_where_origin_and_voxel_size_say(ax):
    points = np.array([[1.3, -0.7, 0.1], [2.1, 0.3, 0.1]])
    x = spcy.voxelize(points, (0.5, 0.2, 1.0), bounds=((1, -1, 0), (3, 1, 1))).tensor
    image = plot.sites(x, "red", ax=ax)
    assert set(cells(image)) == {(1.25, -0.7), (2.25, 0.3)}
    assert np.allclose([ax.get_xlim(), ax.get_ylim()], [(1, 3), (-1, 1)])
    level = plot.sites(spcy.max_pool(x, (2, 2, 1)), ax=ax)
    assert set(cells(level)) == {(1.5, -0.8), (2.5, 0.4)}


def test_values_may_be_colours(ax, dtype):
    coords = spcy.Coords([[0, 0, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0]])
    rgb = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0.2]])
    assert [*cells(plot.sites(coords, rgb, ax=ax)).values()] == [
        [255, 0, 0, 255],
        [0, 255, 0, 255],
        [0, 0, 51, 255],
    ]
    faint = np.hstack([rgb, [[0.2], [0.4], [0.6]]])
    assert [c[3] for c in cells(plot.sites(coords, faint, ax=ax)).values()] == [51, 102, 153]
    assert cells(plot.sites(coords, "#0000ff", ax=ax))[0.5, 0.5] == [0, 0, 255, 255]
    numbers = np.array([1, np.nan, 3]).astype(dtype)
    assert [*cells(plot.sites(coords, numbers, ax=ax)).values()] == [1, 3]
    assert [*cells(plot.sites(coords, [True, False, True], ax=ax)).values()] == [1, 0, 1]


def test_style_reaches_imshow(ax):
    image = plot.sites(spcy.Coords([[0, 0, 0, 0]]), [4], ax=ax, cmap="magma", vmin=1, vmax=9, alpha=0.5)
    assert (image.get_cmap().name, image.get_clim(), image.get_alpha()) == ("magma", (1, 9), 0.5)


def test_small_cells_are_enlarged_and_far_ones_take_no_memory(ax):
    image = plot.sites(spcy.Coords([[0, 0, 0, 0], [0, 2_000_000, 1_000_000, 0], [0, -7, 3, 0]]), ax=ax)
    assert image.get_array().size < 1e6
    assert len(cells(image)) >= 2
    left, right, bottom, top = image.get_extent()
    assert left <= -7
    assert right >= 2_000_001
    assert bottom <= 0
    assert top >= 1_000_001
    cloud = spcy.Coords(np.stack([np.zeros(5000), *3 * [np.arange(5000)]], axis=1).astype(int))
    assert max(plot.sites(cloud, ax=Figure(figsize=(4, 4)).subplots()).get_array().shape) < 310


def test_limits_that_were_set_stay_and_others_grow(ax):
    ax.set_xlim(0, 3)
    x = spcy.Coords([[0, 1, 1, 0], [0, 90, 2, 0]])
    assert set(cells(plot.sites(x, ax=ax))) == {(1.5, 1.5)}
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 3), (1, 3))
    plot.sites(spcy.Coords([[0, 2, 8, 0]]), ax=ax)
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 3), (1, 9))
    assert set(cells(plot.sites(spcy.Coords([[0, 7, 8, 0]]), ax=ax))) == set()  # nothing in sight


@pytest.mark.parametrize("shape", [None, (4, 4, 4)])
def test_no_sites(shape, ax):
    coords = spcy.Coords(np.empty((0, 4), int), shape)
    assert cells(plot.sites(coords, ax=ax)) == {}
    assert plot.levels([coords], ax=[ax])
    rulebook = spcy.submanifold_rulebook(coords, [[0, 0, 1]])
    assert len(plot.pairs(rulebook, 0, coords, ax=ax).U) == 0


REFUSED = {
    "no tensor": (TypeError, "x must be a SparseTensor or Coords, got ndarray", [np.ones(3)]),
    "one axis": (ValueError, "x must have 2 .. 4 axes, got 1", [spcy.Coords([[0, 1]])]),
    "too few": (ValueError, r"shape \(2,\), \(2, 3\) or \(2, 4\), got \(3,\)", ["sites", [1, 2, 3]]),
    "a column": (ValueError, r"got \(2, 1\)", ["sites", [[1], [2]]]),
    "no numbers": (TypeError, "values must be numbers, colours or .*, got dtype <U1", ["sites", ["a", "b"]]),
    "bright": (ValueError, r"values must be colours in 0 .. 1, got 0 .. 255", ["sites", [[0, 0, 255]] * 2]),
    "NaN": (ValueError, r"values must be colours in 0 .. 1, got nan", ["sites", [[0, 0, np.nan]] * 2]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_sites_refuses(case, ax):
    kind, message, (x, *values) = REFUSED[case]
    x = spcy.Coords([[0, 1, 1], [0, 2, 2]]) if isinstance(x, str) else x
    with pytest.raises(kind, match=message):
        plot.sites(x, *values, ax=ax)


def test_levels_share_colours_and_name_their_sizes(rng):
    x = random_tensor(rng, 200, (16, 16, 16), 1)
    levels = [x, spcy.max_pool(x, 2), spcy.max_pool(x, (2, 4, 2)).coords]
    panels = Figure().subplots(2, 2)
    images = plot.levels(levels, ax=panels)
    assert len({image.get_clim() for image in images}) == 1
    assert [image.axes for image in images] == [*panels.flat][:3]
    titles = [axes.get_title() for axes in panels.flat]
    assert titles[0] == "level 1: 200 sites of 1"
    assert titles[2].endswith(f"{levels[2].num_sites} sites of 2 x 4")
    assert titles[3] == ""
    assert plot.levels(levels, ax=panels, vmin=0, cmap="Blues")[0].get_clim()[0] == 0


def test_levels_make_a_figure(rng):
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    x = random_tensor(rng, 20, (8, 8), 1)
    images = plot.levels([x, spcy.max_pool(x, 2)])
    assert len(images[0].figure.axes) == 2
    assert plot.sites(x).axes is images[1].axes is pyplot.gca()
    pyplot.close("all")


def test_levels_refuses(ax):
    coords = spcy.Coords([[0, 1, 1]])
    with pytest.raises(ValueError, match="levels must be at least one SparseTensor or Coords, got none"):
        plot.levels([], ax=ax)
    with pytest.raises(TypeError, match=r"levels\[1\] must be a SparseTensor or Coords, got int"):
        plot.levels([coords, 3], ax=ax)
    with pytest.raises(ValueError, match="ax must have 2 axes, one for each level, got 1"):
        plot.levels([coords, coords], ax=ax)


def test_pairs_are_arrows_from_input_to_output(ax):
    coords = spcy.Coords([[0, 2, 1], [0, 2, 2], [0, 0, 3]])
    rulebook = spcy.submanifold_rulebook(coords, [[0, 1], [0, 0]])
    arrows = plot.pairs(rulebook, 0, coords, ax=ax)  # from (2, 2) to (2, 1)
    assert (arrows.XY.tolist(), arrows.U.tolist(), arrows.V.tolist()) == ([[2.5, 2.5]], [-1], [0])
    assert len(ax.images) == 1
    assert len(plot.pairs(rulebook, 1, coords, ax=ax).U) == 3


def test_pairs_of_levels(backend):
    coords = spcy.Coords(put(np.array([[0, 0, 0, 0], [0, 3, 1, 0]])))
    rulebook, out = spcy.conv_rulebook(coords, spcy.kernel_offsets((2, 2, 2)), stride=2)
    ax = Figure().subplots()
    arrows = plot.pairs(rulebook, 0, coords, out, ax=ax)
    assert (arrows.XY.tolist(), arrows.U.tolist(), arrows.V.tolist()) == ([[0.5, 0.5]], [0.5], [0.5])
    assert len(ax.images) == 2


def test_pairs_refuses(ax):
    coords = spcy.Coords([[0, 2, 1], [0, 2, 2]])
    rulebook = spcy.submanifold_rulebook(coords, [[0, 1]])
    with pytest.raises(TypeError, match="rulebook must be a Rulebook, got Coords"):
        plot.pairs(coords, 0, coords, ax=ax)
    with pytest.raises(TypeError, match="coords must be Coords, got SparseTensor"):
        plot.pairs(rulebook, 0, spcy.SparseTensor(coords, np.ones((2, 1))), ax=ax)
    with pytest.raises(ValueError, match=r"k must be in \[0, 1\), got 1"):
        plot.pairs(rulebook, 1, coords, ax=ax)
    with pytest.raises(ValueError, match="out_coords must have the rulebook's 2 sites, got 1"):
        plot.pairs(rulebook, 0, coords, spcy.Coords([[0, 1, 1]]), ax=ax)
    line = spcy.Coords([[0, 1]])
    with pytest.raises(ValueError, match=r"^coords must have 2 .. 4 axes, got 1"):
        plot.pairs(spcy.submanifold_rulebook(line, [[0]]), 0, line, ax=ax)
    assert not ax.images


def test_a_missing_matplotlib_is_named_with_its_extra():
    code = "import sys; sys.modules['matplotlib'] = None; import spcy; import spcy.plot"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert 'ImportError: spcy.plot needs matplotlib: pip install "spcy[plot]"' in done.stderr
    code = "import sys, spcy; assert not {'matplotlib', 'spcy.plot'} & {*sys.modules}"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_documentation(monkeypatch):
    """Its page lists what is public, and its example runs."""
    from matplotlib import pyplot

    page = (Path(__file__).parents[1] / "docs" / "api" / "plot.md").read_text()
    assert re.findall(r"^   (\w+)$", page, re.M) == ["sites", "levels", "pairs"]
    assert {*plot.__all__} == {"sites", "levels", "pairs"}
    found = doctest.testmod(plot)
    assert found.attempted > 10
    assert found.failed == 0
    pyplot.switch_backend("agg")
    monkeypatch.setattr(pyplot, "show", lambda: None)
    exec(re.search(r"```python\n(.*?)```", page, re.S)[1], {})
    pyplot.close("all")
