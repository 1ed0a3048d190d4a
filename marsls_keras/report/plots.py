"""Charts of a run: training curves, scores by threshold, maps of the tile grid, histogram over tiles.

Figures are made through Matplotlib's object interface: no window, no global state.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from marsls_keras.counts import BINS, counts_at_thresholds
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.files import atomic
from marsls_keras.report.run_summary import BASELINE, Evaluation, RunReport, threshold_band

# Okabe and Ito's colours, which stay apart under every kind of colour blindness.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILION, YELLOW, GREY = "#56B4E9", "#D55E00", "#F0E442", "#8A8A8A"
_FOLD_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW, "#000000")
_NOT_SCORED = "#D0D0D0"

WIDTH = 5.0  # inches; the text of a chart of this width is readable on a phone 360 pixels wide
_DPI = 150


def png(figure: Figure) -> bytes:
    r"""Encode a figure as PNG, at 150 dots per inch.

    Example:
        >>> png(Figure(figsize=(1, 1)))[:4]
        b'\x89PNG'
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def save_curves(path: Path, rows: list[dict[str, float]], title: str) -> None:
    r"""Write the training curves of a fold as PNG, atomically.

    Args:
        path: Where to write.
        rows: Rows of its history.csv; miou_ema and ema may be absent.
        title: Title of the picture.

    Example:
        >>> save_curves(Path("curves.png"), [{"epoch": 0.0, "loss": 0.5, "val_loss": 0.6, "val_miou": 0.7}], "fold 0")
        >>> Path("curves.png").read_bytes()[:4]
        b'\x89PNG'
    """
    with atomic(path) as temporary:
        temporary.write_bytes(png(training_curves(rows, title)))


def best_row(rows: list[dict[str, float]]) -> int | None:
    """Return the index of the first row with the highest val_miou, None if there is none.

    Example:
        >>> best_row([{"val_miou": 0.6}, {"val_miou": 0.7}, {"val_miou": 0.7}])
        1
    """
    values = np.array([row.get("val_miou", np.nan) for row in rows])
    return None if not rows or np.isnan(values).all() else int(np.nanargmax(values))


def training_curves(rows: list[dict[str, float]], title: str) -> Figure:
    """Plot loss, mIoU and learning rate against the epoch, counted from 1.

    Example:
        >>> figure = training_curves([{"epoch": 0.0, "loss": 0.5, "val_loss": 0.6, "val_miou": 0.7}], "fold 0")
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['loss', 'mIoU', 'learning rate']
    """
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    loss, miou, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.4))
    epochs = [row["epoch"] + 1 for row in rows]
    # A line through a single epoch is invisible without a marker.
    marker: dict[str, Any] = {"marker": "o", "markersize": 4} if len(rows) == 1 else {}

    def draw(axes: Any, key: str, label: str, **style: Any) -> None:
        if rows and key in rows[0]:
            axes.plot(epochs, [row.get(key, np.nan) for row in rows], label=label, **marker, **style)

    draw(loss, "loss", "training", color=GREY, linewidth=1.2)
    draw(loss, "val_loss", "held out", color=BLUE, linewidth=1.6)
    draw(miou, "miou", "training", color=GREY, linewidth=1.2)
    averaged = bool(rows) and "miou_ema" in rows[0]
    if averaged:  # without averaging there are only the last weights
        draw(miou, "miou_last", "held out, last weights", color=ORANGE, linewidth=1, alpha=0.55)
        draw(miou, "miou_ema", "held out, averaged weights", color=GREEN, linewidth=1, alpha=0.55)
    draw(miou, "val_miou", "held out, better of both" if averaged else "held out", color=BLUE, linewidth=1.6)
    draw(rate, "learning_rate", "learning rate", color=GREY, linewidth=1.4)
    best = best_row(rows)
    if best is not None:
        for axes in (loss, miou):
            axes.axvline(epochs[best], color="black", linewidth=0.8, linestyle=":")
        miou.plot(epochs[best], rows[best]["val_miou"], "o", color="black", markersize=4)
        miou.set_title(f"best: {rows[best]['val_miou']:.4f} in epoch {epochs[best]:.0f}", fontsize=9, loc="right")
    for axes, label in ((loss, "loss"), (miou, "mIoU"), (rate, "learning rate")):
        axes.set_ylabel(label)
        plain(axes)
    for axes in (loss, miou):
        if axes.lines:
            axes.legend(fontsize=8, frameon=False)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    rate.set_ylim(bottom=0)
    rate.set_xlabel("epoch")
    rate.set_xlim(0.5, max(epochs, default=1) + 0.5)
    rate.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    figure.align_ylabels()
    figure.suptitle(plain_text(title), fontsize=11)
    return figure


def threshold_curve(evaluation: Evaluation, threshold: float) -> Figure:
    """Plot the scores against the threshold, with the 95 % interval of the mIoU and the threshold in use.

    Example:
        >>> from marsls_keras.data.index.tile_ref import TileRef
        >>> from marsls_keras.report.run_summary import FoldReport, evaluate
        >>> masks = np.eye(8, dtype="uint8")[None]
        >>> tile = {"refs": (TileRef("a", None, None, "train", "base", None),), "blocks": ["a"], "bands": ("gray",)}
        >>> arrays = {"images": masks[..., None], "masks": masks, "probability": 0.9 * masks, "predicted": masks}
        >>> fold = FoldReport(0, [], {}, {})
        >>> run = RunReport("default", "", {}, [fold], [], None, held_out_by=np.array([0]), **tile, **arrays)
        >>> threshold_curve(evaluate(run), 0.5).axes[0].get_ylabel()
        'score over all pixels'
    """
    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    axes = figure.subplots()
    thresholds = np.arange(BINS) / BINS
    scores = counts_at_thresholds(evaluation.histograms.sum(0)).scores()
    if band := threshold_band(evaluation.histograms):
        axes.fill_between(thresholds, *band, color=BLUE, alpha=0.2, linewidth=0, label="mIoU, 95 % band")
    for name, label, color, style in (
        ("miou", "mIoU", BLUE, "-"),
        ("iou_fg", "IoU landslide", VERMILION, "--"),
        ("iou_bg", "IoU background", GREY, "-."),
        ("f1", "F1", GREEN, ":"),
    ):
        axes.plot(thresholds, scores[name], style, color=color, label=label, linewidth=1.8 if name == "miou" else 1.3)
    axes.axvline(BASELINE, color="black", linewidth=0.8, linestyle=(0, (1, 3)))
    if threshold != BASELINE:
        axes.axvline(threshold, color="black", linewidth=1)
    axes.plot(
        threshold,
        evaluation.scores["miou"],
        "o",
        color="black",
        markersize=5,
        label=f"as decided, threshold {threshold:g}",
    )
    # The scores at thresholds near 0 and 1 are low and would compress the rest of the scale.
    middle = slice(BINS // 10, BINS * 9 // 10)
    lowest = min(float(scores[name][middle].min()) for name in ("miou", "iou_fg", "iou_bg", "f1"))
    axes.set(xlim=(0, 1), ylim=(min(np.floor(lowest * 10) / 10, 0.9), 1))
    axes.set(xlabel="threshold on the probability (dotted: 0.5)", ylabel="score over all pixels")
    figure.legend(fontsize=8, frameon=False, ncols=3, loc="outside lower center")
    plain(axes)
    return figure


def tile_histogram(values: np.ndarray) -> Figure:
    """Plot the histogram of a score over tiles, (M,) in [0, 1], with its median.

    Example:
        >>> tile_histogram(np.array([0.2, 0.8, 0.9])).axes[0].get_ylabel()
        'tiles'
    """
    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    axes = figure.subplots()
    axes.hist(values, bins=np.linspace(0, 1, 21).tolist(), color=SKY, edgecolor="white")
    median = float(np.median(values))
    axes.axvline(median, color="black", linewidth=1)
    axes.annotate(
        f"median {median:.2f}",
        (median, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if median > 0.5 else 5, -12),
        textcoords="offset points",
        ha="right" if median > 0.5 else "left",
        fontsize=9,
    )
    axes.set(xlim=(0, 1), xlabel="IoU of landslide in the tile", ylabel="tiles")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)
    return figure


def fold_map(run: RunReport) -> Figure | None:
    """Draw a map of the tile grid, coloured by the fold that holds out each tile; None without grid cells.

    Example:
        >>> from marsls_keras.data.index.tile_ref import TileRef
        >>> masks = np.eye(8, dtype="uint8")[None]
        >>> tile = {"refs": (TileRef("a", None, None, "train", "base", (3, 5)),), "blocks": ["a"], "bands": ("gray",)}
        >>> arrays = {"images": masks[..., None], "masks": masks, "probability": 0.9 * masks, "predicted": masks}
        >>> run = RunReport("default", "", {}, [], [], None, held_out_by=np.array([0]), **tile, **arrays)
        >>> fold_map(run).axes[0].get_xlabel()
        'column of the grid'
    """
    folds = sorted({int(fold) for fold in run.held_out_by if fold >= 0})
    values = np.full(len(run.refs), 0.0)
    for position, fold in enumerate(folds, 1):
        values[run.held_out_by == fold] = position
    colours = [_NOT_SCORED, *(_FOLD_COLOURS[i % len(_FOLD_COLOURS)] for i in range(len(folds)))]
    labels = [
        f"never ({int((run.held_out_by < 0).sum())})",
        *(f"{fold} ({int((run.held_out_by == fold).sum())})" for fold in folds),
    ]
    # The grey of tiles that always train is dropped from the scale where there are none.
    start = 0 if (run.held_out_by < 0).any() or not folds else 1
    figure = _grid_map(
        run.refs, values - start, ListedColormap(colours[start:]), Normalize(-0.5, len(colours) - start - 0.5)
    )
    if figure is not None:
        bar = _bar(figure, "fold that holds out the tile (number of tiles)")
        bar.set_ticks(list(range(len(colours) - start)), labels=labels[start:])
        bar.ax.tick_params(length=0)
    return figure


def score_map(run: RunReport, evaluation: Evaluation) -> Figure | None:
    """Draw a map of the tile grid, coloured by the IoU of landslide of each tile; None without grid cells.

    Example:
        >>> from marsls_keras.data.index.tile_ref import TileRef
        >>> from marsls_keras.report.run_summary import FoldReport, evaluate
        >>> masks = np.eye(8, dtype="uint8")[None]
        >>> tile = {"refs": (TileRef("a", None, None, "train", "base", (3, 5)),), "blocks": ["a"], "bands": ("gray",)}
        >>> arrays = {"images": masks[..., None], "masks": masks, "probability": 0.9 * masks, "predicted": masks}
        >>> fold = FoldReport(0, [], {}, {})
        >>> run = RunReport("default", "", {}, [fold], [], None, held_out_by=np.array([0]), **tile, **arrays)
        >>> score_map(run, evaluate(run)).axes[0].get_ylabel()
        'row'
    """
    values = np.full(len(run.refs), 2.0)  # above the scale, so drawn grey
    values[evaluation.index] = evaluation.tiles["iou_fg"]
    colours = colormaps["cividis"].with_extremes(over=_NOT_SCORED)
    figure = _grid_map(run.refs, values, colours, Normalize(0, 1))
    if figure is not None:
        _bar(figure, "IoU of landslide in the tile" + (" (grey: no prediction)" if (values > 1).any() else ""))
    return figure


def _grid_map(refs: Sequence[TileRef], values: np.ndarray, colours: Any, norm: Any) -> Figure | None:
    """Draw one map of values per raster, each value in the grid cell of its tile; cells without a tile stay white."""
    rasters = sorted({ref.raster for ref in refs if ref.cell is not None})
    if not rasters:
        return None
    grids = {}
    for raster in rasters:
        chosen = [i for i, ref in enumerate(refs) if ref.raster == raster and ref.cell is not None]
        cells = np.array([refs[i].cell for i in chosen])
        (top, left), (bottom, right) = cells.min(0), cells.max(0)
        grid = np.ma.array(np.zeros((bottom - top + 1, right - left + 1)), mask=True)
        grid[cells[:, 0] - top, cells[:, 1] - left] = values[chosen]
        grids[raster] = grid, (left - 0.5, right + 0.5, bottom + 0.5, top - 0.5)
    heights = [grid.shape[0] / grid.shape[1] for grid, _ in grids.values()]
    width = WIDTH
    # The height follows the grids, within limits: a single column of tiles would make a very tall figure.
    figure = Figure(figsize=(width, float(np.clip(0.88 * width * sum(heights) + 1.1, 2.6, 8))), layout="constrained")
    for axes, (raster, (grid, extent)) in zip(
        figure.subplots(len(grids), 1, squeeze=False)[:, 0], grids.items(), strict=True
    ):
        axes.imshow(grid, extent=extent, cmap=colours, norm=norm, interpolation="nearest")
        axes.set(xlabel="column of the grid", ylabel="row")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if len(grids) > 1:
            axes.set_title(plain_text(raster), fontsize=9)
        plain(axes)
        axes.grid(False)
    return figure


def _bar(figure: Figure, label: str) -> Any:
    """Add the colour bar of a map below it."""
    bar = figure.colorbar(
        figure.axes[0].images[0], ax=figure.axes, location="bottom", aspect=40, pad=0.02, extend="neither"
    )
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=9)
    return bar


def plain(axes: Any) -> None:
    """Style axes with no frame at the top and right, and a faint grid behind the data.

    Example:
        >>> axes = Figure().subplots()
        >>> plain(axes)
        >>> axes.spines["top"].get_visible()
        False
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)


def plain_text(text: str) -> str:
    r"""Escape dollar signs, which Matplotlib would read as the delimiters of a formula.

    Example:
        >>> print(plain_text("$run"))
        \$run
    """
    return text.replace("$", r"\$")
