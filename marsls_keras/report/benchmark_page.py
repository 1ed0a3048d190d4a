"""Render the table of a benchmark as one self-contained HTML page, with the chart of accuracy against latency."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from marsls_keras import __version__
from marsls_keras.files import write_text
from marsls_keras.report.plots import plain, plain_text, png

_PARTS = {"blocks": ("held out in blocks", "#0072B2", "o"), "regions": ("regions held out", "#D55E00", "s")}


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        title: Its heading.
        columns: Names of the columns; the first has the names of the rows.
        rows: The cells.
        note: Sentences below it.

    Example:
        >>> TextTable("Cost", ["", "parameters"], [["unet", "1,946,097"]]).note
        ''
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""


@dataclass(frozen=True)
class Point:
    """A row of a benchmark in the chart.

    Attributes:
        name: Name of the row.
        part: "blocks" or "regions".
        latency: Seconds for a tile.
        miou: The mIoU.
        interval: Its 95 % interval, or None.

    Example:
        >>> Point("unet", "blocks", 0.02, 0.75, (0.70, 0.79)).part
        'blocks'
    """

    name: str
    part: str
    latency: float
    miou: float
    interval: tuple[float, float] | None


def accuracy_against_latency(points: Sequence[Point]) -> Figure | None:
    """Draw the mIoU of each row against its latency for a tile, with intervals; None without points.

    Example:
        >>> accuracy_against_latency([Point("unet", "blocks", 0.02, 0.75, None)]).axes[0].get_xlabel()
        'latency for a tile, ms'
    """
    if not points:
        return None
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    for part, (label, colour, marker) in _PARTS.items():
        chosen = [point for point in points if point.part == part]
        for i, point in enumerate(chosen):
            x = 1000 * point.latency
            low, high = point.interval or (point.miou, point.miou)
            axes.plot([x, x], [low, high], color=colour, linewidth=1, alpha=0.6)
            axes.plot([x], [point.miou], marker, color=colour, label=None if i else label)
            axes.annotate(
                plain_text(point.name), (x, point.miou), xytext=(5, 3), textcoords="offset points", fontsize=8
            )
    axes.set(xlabel="latency for a tile, ms", ylabel="mIoU")
    latencies = [point.latency for point in points]
    if max(latencies) > 8 * min(latencies):
        axes.set_xscale("log")
    plain(axes)
    axes.legend(fontsize=9, frameon=False)
    return figure


def write_page(
    path: Path,
    title: str,
    source: str,
    tables: Sequence[TextTable],
    notes: Sequence[str],
    points: Sequence[Point],
) -> None:
    """Write the page of a benchmark, atomically.

    Args:
        path: File to write.
        title: What is compared.
        source: Where the published figures are from.
        tables: The tables, in order.
        notes: Sentences that belong to them.
        points: Points of the chart; without any there is none.

    Raises:
        RunError: If the file cannot be written.

    Example:
        >>> write_page(Path("table.html"), "Networks", "a paper", [TextTable("Cost", [""], [["unet"]])], [], [])
        >>> "<td>unet</td>" in Path("table.html").read_text()
        True
    """
    loader = PackageLoader("marsls_keras.report", "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("benchmark.html.j2").render(
        title=title, source=source, tables=tables, notes=notes, chart=_chart(points), version=__version__
    )
    write_text(path, page)


def _chart(points: Sequence[Point]) -> dict[str, Any] | None:
    figure = accuracy_against_latency(points)
    if figure is None:
        return None
    best = max(points, key=lambda point: point.miou)
    return {
        "src": "data:image/png;base64," + base64.b64encode(png(figure)).decode(),
        "alt": f"mIoU against latency of {len(points)} results; the highest is {best.name} with {best.miou:.4f}",
    }
