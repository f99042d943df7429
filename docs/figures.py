"""Draw the pictures of README and docs with the library itself: ``python docs/figures.py``."""

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import spcy
from spcy import plot
from spcy.demo import pictures
from spcy.demo.run import Steps, run_demo
from spcy.demo.scene import generate_scene

FOLDER = Path(__file__).parent / "img"
SPEED = Path(__file__).parent / "results" / "cpu.json"  # as asv_bench/compare.py found it
SHAPE = (11, 18)
INK, NEW, PAPER = "#1f5fa8", "#a9c9ea", "#e6e6e6"


def pen_stroke() -> spcy.SparseTensor:
    """Return the cells that a curve passes through."""
    t = np.linspace(0, 1, 2000)
    curve = np.stack([5.5 - 3.2 * np.sin(2 * np.pi * t), 2.2 + 13.6 * t], axis=1)
    return spcy.voxelize(curve, 1.0, features=np.ones((len(t), 1)), bounds=((0, 0), SHAPE)).tensor


def draw_rulebook() -> Figure:
    """Return the coordinate hash (sites and their rows) beside the pairs of one kernel offset."""
    stroke = pen_stroke()
    offset = (1, 1)
    rulebook = spcy.submanifold_rulebook(stroke.coords, [offset])
    figure = Figure(figsize=(12, 4.2), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_grid(
        left, f"coordinate hash: row of each site ({stroke.num_sites} sites of {np.prod(SHAPE)} cells)"
    )
    plot.sites(stroke, INK, ax=left)
    for row, (_, i, j) in enumerate(stroke.indices):
        left.text(j + 0.5, i + 0.5, str(row), color="white", ha="center", va="center", fontsize=9)
    _draw_grid(
        right, f"rulebook: {rulebook.num_pairs} pairs, input row > output row, of kernel offset {offset}"
    )
    plot.pairs(rulebook, 0, stroke.coords, ax=right)
    right.set_xlabel(", ".join(f"{i} > {j}" for i, j in zip(*rulebook.pairs(0), strict=True)))
    return figure


def draw_dilation() -> Figure:
    """Return the sites after no, one and two regular convolutions, and submanifold ones."""
    weight = np.ones((3, 3, 1, 1))
    stroke = pen_stroke()
    figure = Figure(figsize=(12, 5.6), dpi=100, layout="constrained")
    panels = figure.subplots(2, 3)
    layers = {
        "conv": lambda x: spcy.conv(x, weight, padding=1),
        "subm_conv": lambda x: spcy.subm_conv(x, weight),
    }
    for row, (name, layer) in zip(panels, layers.items(), strict=True):
        x = stroke
        for count, axes in enumerate(row):
            _draw_grid(axes, f"{count} x {name}: {x.num_sites} sites" if count else f"{x.num_sites} sites")
            plot.sites(x, NEW, ax=axes)
            plot.sites(stroke, INK, ax=axes)
            x = layer(x)
    return figure


def draw_semantics() -> Figure:
    """Return the output sites of each operation, where they lie in space, behind the input's."""
    x = spcy.SparseTensor(
        [[0, 2, 2], [0, 2, 3], [0, 3, 4], [0, 4, 4], [0, 8, 9], [0, 9, 14]], np.ones((6, 1)), shape=SHAPE
    )
    two, three = np.ones((2, 2, 1, 1)), np.ones((3, 3, 1, 1))
    coarse = spcy.conv(x, two, stride=2)
    outputs = {
        "subm_conv, 3 x 3": spcy.subm_conv(x, three),
        "conv, 3 x 3, padding 1": spcy.conv(x, three, padding=1),
        "conv, 2 x 2, stride 2": coarse,
        "conv, 3 x 3, stride 2, padding 1": spcy.conv(x, three, stride=2, padding=1),
        'the same, sites="floor"': spcy.conv(x, three, stride=2, padding=1, sites="floor"),
        "conv, 1 x 1, stride 2": spcy.conv(x, np.ones((1, 1, 1, 1)), stride=2),
        "conv_transpose, 2 x 2, stride 2": spcy.conv_transpose(x, two, stride=2),
        "conv 2 x 2, stride 2, then conv_transpose": spcy.conv_transpose(coarse, two, stride=2),
        "conv 2 x 2, stride 2, then inverse_conv": spcy.inverse_conv(coarse, two),
    }
    figure = Figure(figsize=(12, 8.2), dpi=100, layout="constrained")
    for axes, (name, y) in zip(figure.subplots(3, 3).flat, outputs.items(), strict=True):
        _draw_grid(axes, f"{name}: {x.num_sites} > {y.num_sites} sites")
        plot.sites(y, NEW, ax=axes)
        plot.sites(x, INK + "b0", ax=axes)
    return figure


def draw_speed() -> Figure:
    """Return how many times as fast as another library spcy is, where that was measured."""
    found = json.loads(SPEED.read_text())
    rows = [row for row in found["rows"] if "float64" not in row["what"]]
    figure = Figure(figsize=(12, 4.6), dpi=100, layout="constrained")
    axes, place = figure.subplots(), np.arange(len(rows))
    for threads, colour, shift in (("1 thread", NEW, -0.2), ("2 threads", INK, 0.2)):
        times = []
        for row in rows:
            ours, theirs = row[threads]["spcy"], row[threads]["spconv"]
            times.append(theirs / ours if row["unit"] == "ms" else ours / theirs)
        bars = axes.barh(place + shift, times, 0.38, color=colour, label=threads)
        axes.bar_label(bars, [f"{t:.0f}" if t >= 10 else f"{t:.1f}" for t in times], padding=3, fontsize=8)
    axes.axvline(1, color="#888888", linewidth=1)
    axes.set_yticks(place, [row["what"] for row in rows])
    axes.invert_yaxis()
    axes.set(xscale="log", xlim=(0.8, 150), xticks=[1, 2, 5, 10, 20, 50, 100])
    axes.set_xticklabels(["1", "2", "5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.set_title(f"times as fast as {found['against']}: {found['scene']}", fontsize="medium")
    axes.set_xlabel(f"{found['machine']}, {found['date']}", fontsize="small", color="#666666")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    return figure


def _draw_grid(axes: Axes, title: str) -> None:
    """Prepare axes for cells, the first axis downwards."""
    axes.set(xlim=(0, SHAPE[1]), ylim=(SHAPE[0], 0), aspect="equal", xticks=[], yticks=[])
    axes.set_title(title, fontsize="medium")
    axes.hlines(range(SHAPE[0] + 1), 0, SHAPE[1], color=PAPER, linewidth=0.8, zorder=0)
    axes.vlines(range(SHAPE[1] + 1), 0, SHAPE[0], color=PAPER, linewidth=0.8, zorder=0)


def main() -> int:
    """Write every picture."""
    FOLDER.mkdir(exist_ok=True)
    street = run_demo(generate_scene(), Steps())
    figures = {
        "rulebook": draw_rulebook(),
        "dilation": draw_dilation(),
        "semantics": draw_semantics(),
        "speed": draw_speed(),
        "learned": pictures.draw_learned(street),
        "levels": pictures.draw_levels(street),
    }
    for name, figure in figures.items():
        figure.savefig(FOLDER / f"{name}.png")
        print(FOLDER / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
