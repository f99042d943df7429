"""The 3-D page: what it holds, its size, and that a browser draws it."""

import base64
import json
import re
import time
import zlib
from types import SimpleNamespace

import browser
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

import spcy
from spcy.demo import network, page
from spcy.demo.geometry import LABELS, Geometry
from spcy.demo.run import VOXEL_SIZE, Result, Steps, run_demo
from spcy.demo.scene import generate_scene
from spcy.scan import Scan

LIMIT = 12_000_000


@pytest.fixture(scope="module")
def street():
    scan = generate_scene()
    return run_demo(Scan('</script> "street" & <b>', scan.points[::5]), Steps())


def cloud(points, rng):
    """A result of noise: nothing of it can be compressed."""
    voxels = spcy.voxelize(points, VOXEL_SIZE)
    num = voxels.tensor.num_sites
    normal = rng.standard_normal((num, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    share = rng.random(num)
    geometry = Geometry(np.ones(num, int), normal, normal, share, share, share)
    levels = [voxels.tensor]
    while len(levels) < 4:
        levels.append(spcy.max_pool(levels[-1], 2))
    walked = SimpleNamespace(levels=[level.coords for level in levels], layers=[])
    labels = [rng.integers(0, len(names), num).astype(np.uint8) for names in (LABELS, network.LABELS)]
    found = voxels.tensor.features, geometry, 40 * rng.random(num), *labels, walked, voxels.tensor
    return Result(Scan("noise", points), voxels, *found)


def unpacked(document):
    """The arrays as the page's script reads them."""
    data, arrays, start = zlib.decompress(base64.b64decode(document["packed"])), {}, 0
    for name, kind, length in document["arrays"]:
        dtype = np.dtype(kind)
        assert start % dtype.itemsize == 0
        arrays[name] = np.frombuffer(data, dtype, length, start)
        start += length * dtype.itemsize
    assert start == len(data)
    return arrays


def test_page_holds_the_sites(street):
    document = page.document(street)
    arrays = unpacked(document)
    cell = arrays["cell"].reshape(-1, 3)
    np.testing.assert_array_equal(cell + document["first"], street.voxels.tensor.indices[:, 1:])
    place = (cell + document["first"] + (arrays["within"].reshape(-1, 3) + 0.5) / 256) * document["edge"]
    np.testing.assert_allclose(place, street.points, atol=0.001)
    np.testing.assert_array_equal(arrays["label"], street.labels)
    np.testing.assert_array_equal(arrays["learned label"], street.learned)
    height = np.where(arrays["centimetres"] == page.NO_HEIGHT, np.nan, arrays["centimetres"] / 100)
    np.testing.assert_allclose(height, street.height, atol=0.0051)
    np.testing.assert_allclose(arrays["direction"].reshape(-1, 3) / 127, street.geometry.normal, atol=0.005)
    assert document["said"] == [
        f"{len(cell):,} sites",
        f"{len(cell):,} sites, as {len(cell):,} cubes of 0.1 m",
    ]
    assert document["base"] == [0, 0, 0]


def test_what_is_far_is_counted_from_near(street):
    """A surveyor's x and y are; heights are metres above the sea as they are."""
    points = generate_scene().points[::20] + np.array([691_000.0, -5_335_000, 520])
    document = page.document(run_demo(Scan("far", points), Steps()))
    assert document["base"] == [691_000, -5_335_000, 0]


def test_colours_are_those_of_the_pictures(street):
    document = page.document(street)
    arrays, ways = unpacked(document), {way["title"]: way for way in document["colours"]}
    assert [*ways] == ["label", "learned label", "normal", "height", "level 2", "level 3", "level 4"]
    for title, way in ways.items():
        assert arrays[title].max() < len(way["palette"])
    for way, labels in ((ways["label"], street.labels), (ways["learned label"], street.learned)):
        counted = [f"{name} ({np.sum(labels == n):,})" for n, name in enumerate(way["names"])]
        assert [text for _, text in way["legend"]] == counted
    colour = np.array([to_rgb(paint) for paint in ways["normal"]["palette"]])[arrays["normal"]]
    squared = street.geometry.normal**2
    known = squared.any(axis=1)
    np.testing.assert_allclose(colour[known], squared[known] @ page.NORMAL_COLOURS, atol=0.06)
    np.testing.assert_allclose(colour[~known], np.tile(page.UNKNOWN, (np.sum(~known), 1)), atol=0.01)
    low, high = np.nanmin(street.height), np.nanmax(street.height)
    assert arrays["height"][np.nanargmin(street.height)] == 0
    assert arrays["height"][np.nanargmax(street.height)] == page.SHADES - 1, (low, high)
    assert (arrays["height"][np.isnan(street.height)] == page.SHADES).all()


@pytest.mark.parametrize("level", [2, 3, 4])
def test_colours_of_a_level_tell_its_cells_apart(street, level):
    document = page.document(street)
    colour = unpacked(document)[f"level {level}"]
    coords = street.network.levels[level - 1]
    x = spcy.SparseTensor(coords, np.arange(len(coords))[:, None] + 0.0)
    centres = (street.voxels.tensor.indices[:, 1:] + 0.5) * VOXEL_SIZE
    rows = spcy.devoxelize(x, centres + 1e-6)[:, 0].astype(int)
    for row in rows[:: len(rows) // 50]:
        assert len(set(colour[rows == row])) == 1
    beside = spcy.submanifold_rulebook(coords, [[0, 0, 1]])
    by_row = np.zeros(len(coords), int)
    by_row[rows] = colour
    pairs = [r[np.isin(r, rows) & np.isin(o, rows)] for r, o in (beside.pairs(0), beside.pairs(0)[::-1])]
    assert (by_row[pairs[0]] != by_row[pairs[1]]).all()


def test_many_sites_are_thinned_evenly_and_the_page_says_so(street, monkeypatch):
    monkeypatch.setattr(page, "MOST_CUBES", 300)
    document = page.document(street, most=1000)
    num, arrays = street.voxels.tensor.num_sites, unpacked(document)
    rows = np.arange(1000) * num // 1000
    np.testing.assert_array_equal(arrays["label"], street.labels[rows])
    cubes = len(arrays["cube"])
    assert cubes <= 300
    edge = document["step"] * VOXEL_SIZE
    said = f"1,000 of {num:,} sites, evenly thinned"
    assert document["said"] == [said, f"{said}, as {cubes} cubes of {edge:g} m"]
    cell = arrays["cell"].reshape(-1, 3).astype(int) // document["step"]
    assert len(np.unique(cell, axis=0)) == len(np.unique(cell[arrays["cube"]], axis=0)) == cubes
    assert page.document(street, most=1000) == document


@pytest.mark.parametrize("wide", [30.0, 30_000.0])
def test_page_of_noise_fits(wide, rng):
    points = rng.uniform(0, [wide, wide, 50], (330_000, 3)) + [4e5, 5e6, 0]
    result = cloud(points, rng)
    text = page.page(result)
    assert 5_000_000 < len(text.encode()) <= LIMIT
    document = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert 150_000 < document["shown"] <= page.MOST_SITES
    assert np.abs(np.array(document["first"]) * VOXEL_SIZE - document["base"]).max() < wide + 1000


def test_what_does_not_fit_is_thinned_further(street, monkeypatch):
    monkeypatch.setattr(page, "MOST_BYTES", len(page.page(street).encode()) - 100_000)
    text = page.page(street)
    assert len(text.encode()) <= page.MOST_BYTES
    assert f"of {street.voxels.tensor.num_sites:,} sites, evenly thinned" in text


def test_heights_may_be_unknown(street):
    street = Result(**{**vars(street), "height": np.full(len(street.height), np.nan)})
    assert (unpacked(page.document(street))["height"] == page.SHADES).all()


def test_page_is_one_file_whatever_the_name(street):
    text = page.page(street)
    assert text.count("</script>") == 3
    assert "<title>&lt;/script&gt; &quot;street&quot; &amp; &lt;b&gt;</title>" in text
    assert not re.search(r'<(script|link|img)[^>]*(src|href)="(?!data:)', text)


@pytest.mark.thorough
@pytest.mark.skipif(browser.PATH is None, reason=browser.MISSING)
@pytest.mark.parametrize("size", [(1000, 750), (390, 844)], ids=["desktop", "phone"])
def test_a_browser_draws_it(street, size, tmp_path):
    path, picture = tmp_path / "scan.html", tmp_path / "picture.png"
    path.write_text(page.page(street), encoding="utf-8")
    num = street.voxels.tensor.num_sites
    with browser.page(tmp_path / "browser") as view:
        view.open(path.as_uri(), *size, mobile=size[0] < 500)
        view.until("document.documentElement?.dataset.drawn")
        ways = view.run("[...document.querySelectorAll('#colour option')].map(option => option.text)")
        assert ways == ["label", "learned label", "normal", "height", "level 2", "level 3", "level 4"]
        for form, said in enumerate((f"{num:,} sites", f"{num:,} sites, as {num:,} cubes of 0.1 m")):
            pictures = []
            # what is shown is one thing, as what another: and a phone differs in its size alone
            shown = (ways[:2] if size[0] < 500 else ways)[:: 3 if form else 1]
            for way in shown:
                place = ways.index(way)
                view.run(
                    f"colour.value = {place}; form.value = {form}; colour.dispatchEvent(new Event('change'))"
                )
                wanted = f"{way}, {('points', 'voxels')[form]}"
                view.until(f"document.documentElement.dataset.drawn === '{wanted}'")
                assert view.run("count.textContent") == said
                image = wait_for_another(view, picture, pictures)
                if (place, form) == (0, 0):
                    for colour in page.LABEL_COLOURS[:2]:
                        assert (np.abs(image - colour).max(axis=2) < 0.03).sum() > 300
            assert_says_what_a_site_is(street, hover(view))
        assert view.run("[document.documentElement.scrollWidth, innerWidth]") == [size[0], size[0]]
        assert view.problems == []


def wait_for_another(view, path, seen):
    """Return a picture of the page, in colours and unlike all that were seen."""
    for _ in range(100):
        time.sleep(0.1)
        view.screenshot(path)
        image = imread(path)[..., :3]
        if path.read_bytes() not in seen and (np.ptp(image, axis=2) > 0.08).sum() > 1500:
            seen.append(path.read_bytes())
            return image
    raise AssertionError("the page is blank, or draws the same in other colours")


def hover(view):
    """Move the mouse over the middle of the page until it says something."""
    left, top, width, height = view.run(
        "(box => [box.x, box.y, box.width, box.height])(view.getBoundingClientRect())"
    )
    for step in range(300):
        x, y = 0.4 + 0.2 * (step % 15) / 15, 0.44 + 0.12 * (step // 15) / 20
        view.point(left + x * width, top + y * height)
        time.sleep(0.1)
        if text := view.run("site.textContent"):
            return text
    raise AssertionError("the page says nothing of what is under the mouse")


def assert_says_what_a_site_is(street, text):
    place, label, learned, *_, cells = text.splitlines()
    row = int(re.match(r"site (\d+): ", place)[1])
    metres = [float(number) for number in re.findall(r"-?\d+\.\d\d", place)]
    np.testing.assert_allclose(metres, street.points[row], atol=0.0101)
    assert label == f"label: {LABELS[street.labels[row]]}"
    assert learned == f"learned label: {network.LABELS[street.learned[row]]}"
    assert f"({', '.join(map(str, street.voxels.tensor.indices[row, 1:]))})" in cells
    assert cells.count("(") == 4
