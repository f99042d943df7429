"""Pictures of the results, seen from above; needs matplotlib."""

import numpy as np

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
except ImportError as error:
    raise ImportError('pictures need matplotlib and plotly: pip install "spcy[plot]"') from error

from spcy import plot
from spcy.demo import network
from spcy.demo.geometry import LABELS
from spcy.demo.run import Result

LABEL_COLOURS = np.array([[0.76, 0.70, 0.62], [0.12, 0.38, 0.72], [0.85, 0.10, 0.12], [0.16, 0.60, 0.34]])
LEARNED_COLOURS = np.vstack([LABEL_COLOURS[:3], [1.0, 0.6, 0.0], LABEL_COLOURS[3:]])
NORMAL_COLOURS = np.array([[0.86, 0.26, 0.20], [0.18, 0.62, 0.30], [0.36, 0.50, 0.86]])  # along x, y, z
UNKNOWN = np.array([0.8, 0.8, 0.8])
WIDTH = 12.0  # inches
DPI = 120


def draw_labels(result: Result) -> Figure:
    """Return a picture of the sites in the colours of their labels."""
    figure, [axes] = _panels(result.points, f"{result.scan.name}: sites by label", legend=True)
    _draw_labelled(axes, result, result.labels, LABELS.index("pole-like"), LABEL_COLOURS)
    _legend(figure, _counted(LABELS, result.labels), LABEL_COLOURS)
    return figure


def draw_learned(result: Result) -> Figure:
    """Return pictures of the sites in the colours of their labels by geometry, and by the network."""
    figure, panels = _panels(
        result.points, f"{result.scan.name}: sites by geometry and by the network", 2, legend=True
    )
    names = network.LABELS
    _draw_labelled(panels[0], result, result.labels, LABELS.index("pole-like"), LABEL_COLOURS)
    _draw_labelled(panels[1], result, result.learned, names.index("pole"), LEARNED_COLOURS)
    geometry, learned = _counted(LABELS, result.labels), _counted(names, result.learned)
    panels[0].set_title("labels from geometry: " + ", ".join(geometry), fontsize="medium")
    panels[1].set_title("learned labels: " + ", ".join(learned), fontsize="medium")
    _legend(figure, list(network.LABELS), LEARNED_COLOURS)
    return figure


def draw_normals(result: Result) -> Figure:
    """Return a picture of the sites in the colours of their normals."""
    figure, [axes] = _panels(result.points, f"{result.scan.name}: sites by normal", legend=True)
    squared = result.geometry.normal**2  # sums to 1, or to 0 where the normal is not known
    colours = squared @ NORMAL_COLOURS + (1 - squared.sum(axis=1, keepdims=True)) * UNKNOWN
    plot.sites(result.voxels.tensor, colours, ax=axes)
    names = ["normal along x", "along y", "along z (level)", "too few neighbours"]
    _legend(figure, names, np.vstack([NORMAL_COLOURS, UNKNOWN]))
    return figure


def draw_levels(result: Result) -> Figure:
    """Return a picture of the sites of each level in the colours of their height."""
    levels = result.network.levels
    figure, panels = _panels(result.points, f"{result.scan.name}: sites level by level", len(levels))
    images = plot.levels(levels, ax=panels)
    for axes in panels[: len(levels)]:
        axes.set_title(f"{axes.get_title()} m", fontsize="medium")
    figure.colorbar(images[0], cax=figure.add_axes((0.92, 0.25, 0.012, 0.5)), label="z (m)")
    return figure


def _panels(
    points: np.ndarray, title: str, count: int = 1, legend: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure whose panels all show the extent of the points, in the same scale along x and y."""
    low, high = points[:, :2].min(axis=0) - 1, points[:, :2].max(axis=0) + 1
    ratio = np.clip((high - low)[1] / (high - low)[0], 0.1, 1.5)
    columns = 1 if legend or ratio < 0.25 else 2
    rows = -(-count // columns)
    left, gap = (0.7 if np.abs([low, high]).max() < 1e5 else 1.1), 0.45  # inches; numbers like UTM's are long
    right, top, bottom = (0.2, 0.5 if count == 1 else 0.75, 0.9) if legend else (1.2, 0.75, 0.55)
    width = (WIDTH - left - right - gap * (columns - 1)) / columns
    height = width * ratio
    total = rows * height + (rows - 1) * gap + top + bottom
    figure = Figure(figsize=(WIDTH, total), dpi=DPI)
    figure.suptitle(title, y=1 - 0.2 / total)
    edges = {
        "left": left / WIDTH,
        "right": 1 - right / WIDTH,
        "top": 1 - top / total,
        "bottom": bottom / total,
    }
    gaps = {"wspace": gap / width, "hspace": gap / height}
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False, gridspec_kw=edges | gaps)
    for axes in panels.flat:
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
        axes.ticklabel_format(style="plain", useOffset=False)  # 5335120, not 20 beside +5.3351e6
    for axes in panels[-1]:
        axes.set_xlabel("x (m)")
    for axes in panels[:, 0]:
        axes.set_ylabel("y (m)")
    return figure, list(panels.flat)


def _draw_labelled(axes: Axes, result: Result, labels: np.ndarray, pole: int, colours: np.ndarray) -> None:
    """Fill cells in the colours of their labels, poles as dots on top: they are a cell or two wide."""
    plot.sites(result.voxels.tensor, colours[labels], ax=axes)
    poles = result.points[labels == pole]
    axes.scatter(poles[:, 0], poles[:, 1], s=12, color=colours[pole], linewidths=0)


def _counted(names: tuple[str, ...], labels: np.ndarray) -> list[str]:
    """Return the names of labels with the number of sites of each."""
    counts = np.bincount(labels, minlength=len(names))
    return [f"{name} ({count:,})" for name, count in zip(names, counts, strict=True)]


def _legend(figure: Figure, names: list[str], colours: np.ndarray) -> None:
    """Put the meaning of the colours below the panels."""
    marks = [Line2D([], [], linestyle="", marker="s", markersize=9, color=colour) for colour in colours]
    figure.legend(marks, names, loc="lower center", ncols=len(names), frameon=False)
