"""The results as one document, for machines as JSON and for people as text."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

import spcy
from spcy.demo import network
from spcy.demo.backbone import cells_around
from spcy.demo.geometry import LABELS
from spcy.demo.run import VOXEL_SIZE, Result


def document(result: Result, seconds: dict[str, float], files: list[str]) -> dict[str, Any]:
    """Return the results as what JSON can hold.

    Parameters
    ----------
    result : Result
    seconds : dict of str to float
        Wall time of each step.
    files : list of str
        What was written.

    Returns
    -------
    dict
    """
    scan, layers = result.scan, result.network.layers
    flop, dense_flop = sum(layer.flop for layer in layers), sum(layer.dense_flop for layer in layers)
    return {
        "spcy": spcy.__version__,
        "backend": result.output.backend,
        "threads": spcy.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # programs that want a core
        "scan": {"name": scan.name, "points": len(scan.points), "left_out": scan.left_out},
        "voxel_size": VOXEL_SIZE,
        "labels": _counts(result.labels, LABELS),
        "agreement": _agreement(result, result.labels, LABELS),
        "learned": _counts(result.learned, network.LABELS),
        "learned_agreement": _agreement(result, result.learned, network.LABELS),
        "levels": [
            {
                "level": number,
                "voxel_size": float(coords.voxel_size[0]),
                "sites": coords.num_sites,
                "cells": cells_around(coords),
            }
            for number, coords in enumerate(result.network.levels, 1)
        ],
        "layers": [layer._asdict() | {"gflop_per_s": layer.flop / layer.conv_ms / 1e6} for layer in layers],
        "flop": flop,
        "dense_flop": dense_flop,
        "wasted_by_dense": 1 - flop / dense_flop,
        "restored": result.restored,
        "seconds": seconds | {"total": sum(seconds.values())},
        "files": files,
    }


def _counts(labels: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """Return how many sites have each label."""
    return dict(zip(names, np.bincount(labels, minlength=len(names)).tolist(), strict=True))


def _agreement(result: Result, labels: np.ndarray, names: Sequence[str]) -> dict[str, float] | None:
    """Return the share of points whose site has their true label, in all and for each label."""
    truth = result.scan.truth
    if truth is None:
        return None
    agrees = labels[result.voxels.rows] == truth
    shares = {name: agrees[truth == label].mean() for label, name in enumerate(names) if label in truth}
    return {"all": float(agrees.mean())} | {name: float(share) for name, share in shares.items()}


def text(document: dict[str, Any]) -> str:
    """Return the same for people: a few lines and two tables."""
    scan, layers, seconds = document["scan"], document["layers"], document["seconds"]
    left_out = f", {scan['left_out']:,} more left out (not finite)" if scan["left_out"] else ""
    lines = [
        f"spcy {document['spcy']}, backend {document['backend']}, threads {document['threads']}",
        f"scan: {scan['name']}, {scan['points']:,} points{left_out}",
        f"sites of each label: {_listed(document['labels'], '{:,}')}",
        f"sites of each learned label: {_listed(document['learned'], '{:,}')}",
    ]
    if document["agreement"] is not None:
        lines += [
            f"points whose label is the true one: {_listed(document['agreement'], '{:.1%}')}",
            f"points whose learned label is the true one: {_listed(document['learned_agreement'], '{:.1%}')}",
        ]
    lines += [
        "",
        *_table("level voxel sites cells occupied", [_level_row(level) for level in document["levels"]]),
    ]
    header = "layer kind level sites_in sites_out channels pairs rulebook_ms conv_ms GFLOP/s"
    rows = [[str(number), *_layer_row(layer)] for number, layer in enumerate(layers, 1)]
    lines += ["", *_table(header, rows), ""]
    rulebook_ms, conv_ms = (sum(layer[name] for layer in layers) for name in ("rulebook_ms", "conv_ms"))
    return "\n".join(
        [
            *lines,
            f"all layers: rulebooks {rulebook_ms:.1f} ms, convolutions {conv_ms:.1f} ms, "
            f"{document['flop'] / 1e9:.2f} GFLOP, {document['flop'] / conv_ms / 1e6:.0f} GFLOP/s",
            f"a dense network over the same boxes: {document['dense_flop'] / 1e9:,.0f} GFLOP, "
            f"{document['wasted_by_dense']:.2%} of them on empty space",
            f"first level's sites restored exactly: {'yes' if document['restored'] else 'NO'}",
            f"seconds: {_listed(seconds, '{:.3f}')}",
            *_busy(document),
            *(f"wrote {file}" for file in document["files"]),
        ]
    )


def _busy(document: dict[str, Any]) -> list[str]:
    """Return why times may be far from those of an idle machine."""
    cores = os.cpu_count() or 1
    if document["load"] is None or document["load"] <= cores:
        return []
    load = f"{document['load']:.1f} programs want {cores} cores"
    return [f"other programs hold cores ({load}): on an idle machine these times are shorter"]


def _level_row(level: dict[str, Any]) -> list[str]:
    """Return the cells of one line of the table of levels."""
    sites, cells = level["sites"], level["cells"]
    return [
        str(level["level"]),
        f"{level['voxel_size']:g} m",
        f"{sites:,}",
        f"{cells:,}",
        f"{sites / cells:.3%}",
    ]


def _layer_row(layer: dict[str, Any]) -> list[str]:
    """Return the cells of one line of the table of layers."""
    return [
        layer["kind"],
        f"{layer['level_in']} > {layer['level_out']}",
        f"{layer['sites_in']:,}",
        f"{layer['sites_out']:,}",
        f"{layer['channels_in']} > {layer['channels_out']}",
        f"{layer['pairs']:,}",
        f"{layer['rulebook_ms']:.2f}",
        f"{layer['conv_ms']:.2f}",
        f"{layer['gflop_per_s']:.0f}",
    ]


def _listed(values: dict[str, float], form: str) -> str:
    """Return "name value, name value"."""
    return ", ".join(f"{name} {form.format(value)}" for name, value in values.items())


def _table(header: str, rows: list[list[str]]) -> list[str]:
    """Return the lines of a table, its columns flushed right."""
    rows = [[title.replace("_", " ") for title in header.split()], *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
