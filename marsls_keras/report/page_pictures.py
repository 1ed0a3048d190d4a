"""Charts, maps and pictures of a run in the report, as the images that the page's template shows."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from marsls_keras.report import plots, tile_pictures
from marsls_keras.report.leaderboard import Answer, leaderboard_chart
from marsls_keras.report.page_tables import tile_row
from marsls_keras.report.region_map import region_maps
from marsls_keras.report.run_summary import Evaluation, FoldReport, RunReport
from marsls_keras.report.study_plots import study_plots

if TYPE_CHECKING:
    from marsls_keras.report.augmentation_preview import Preview

WORST, BEST = 6, 4
"""Number of tiles shown with the lowest and with the highest mIoU."""


def run_pictures(run: RunReport, evaluation: Evaluation, preview: Preview | None) -> dict[str, Any]:
    """Return the images of a run, as variables of the template.

    Args:
        run: The run.
        evaluation: Its scores.
        preview: Preview of the training inputs, or None.

    Example:
        >>> from marsls_keras.report.run_summary import evaluate
        >>> from marsls_keras.data.index.tile_ref import TileRef
        >>> masks = np.eye(8, dtype="uint8")[None]
        >>> tile = {"refs": (TileRef("a", None, None, "train", "base", None),), "blocks": ["a"], "bands": ("gray",)}
        >>> arrays = {"images": masks[..., None], "masks": masks, "probability": 0.9 * masks, "predicted": masks}
        >>> run = RunReport("default", "", {}, [], [], None, held_out_by=np.array([0]), **tile, **arrays)
        >>> run_pictures(run, evaluate(run), None)["worst"]  # no tile was predicted
        []
    """
    worst = evaluation.worst_first[:WORST]
    # A tile among the worst is not shown again among the best.
    best = evaluation.worst_first[WORST:][-BEST:][::-1]
    return {
        "charts": _charts(run, evaluation) if len(evaluation.index) else [],
        "maps": _maps(run, evaluation),
        "region_maps": region_maps(run, evaluation),
        "curves": [_curves(fold) for fold in sorted(run.folds, key=lambda fold: fold.fold) if fold.rows],
        "study_plots": [{"title": title, **_image(figure, alt)} for title, figure, alt in study_plots(run.study)]
        if run.study
        else [],
        "preview": None if preview is None else _preview(preview),
        "worst": [_shown_tile(run, evaluation, i) for i in worst],
        "best": [_shown_tile(run, evaluation, i) for i in best],
    }


def leaderboard_image(answers: Sequence[Answer]) -> dict[str, Any] | None:
    """Return the chart of expected and actual scores of submissions; None without any.

    Example:
        >>> leaderboard_image([]) is None
        True
    """
    chart = leaderboard_chart(answers)
    if chart is None:
        return None
    shown = [
        f"{answer.name} {answer.expected:.4f} and {answer.score:.4f}"
        for answer in answers
        if answer.expected is not None
    ]
    return _image(
        chart,
        f"Chart of expected and actual mIoU of {len(shown)} submissions: "
        f"{', '.join(shown[:8])}{', …' if shown[8:] else ''}",
    )


def _image(content: bytes | Figure, alt: str) -> dict[str, Any]:
    """Return source (data URL), alternative text and size in pixels of an image."""
    data = plots.png(content) if isinstance(content, Figure) else content
    # With width and height, from the PNG header, browsers reserve the space before the image is decoded.
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    return {
        "src": "data:image/png;base64," + base64.b64encode(data).decode(),
        "alt": alt,
        "width": width,
        "height": height,
    }


def _charts(run: RunReport, evaluation: Evaluation) -> list[dict[str, Any]]:
    curve = (
        f"mIoU, IoU and F1 against the threshold; mIoU is {evaluation.scores['miou']:.4f} "
        f"at the threshold used, {run.threshold:g}"
    )
    values = evaluation.tiles["iou_fg"]
    spread = f"Histogram of the IoU of landslide over {len(values)} tiles, median {np.median(values):.2f}"
    return [
        {"title": "Scores at every threshold", **_image(plots.threshold_curve(evaluation, run.threshold), curve)},
        {"title": "IoU of landslide, tile by tile", **_image(plots.tile_histogram(values), spread)},
    ]


def _maps(run: RunReport, evaluation: Evaluation) -> list[dict[str, Any]]:
    drawn = {
        "Which fold holds out which tile": (plots.fold_map(run), "Map of the tiles on their grid, coloured by fold"),
        "Where landslides are found": (
            plots.score_map(run, evaluation) if len(evaluation.index) else None,
            "Map of the tiles on their grid, coloured by the IoU of landslide in each",
        ),
    }
    return [{"title": title, **_image(figure, alt)} for title, (figure, alt) in drawn.items() if figure is not None]


def _curves(fold: FoldReport) -> dict[str, Any]:
    best = plots.best_row(fold.rows)
    row = {} if best is None else fold.rows[best]
    reached = f"best mIoU {row['val_miou']:.4f} in epoch {row['epoch'] + 1:.0f}" if row else "no finite mIoU"
    alt = f"Loss, mIoU and learning rate of fold {fold.fold} over {len(fold.rows)} epochs; {reached}"
    return _image(plots.training_curves(fold.rows, f"fold {fold.fold}"), alt)


def _preview(preview: Preview) -> dict[str, Any]:
    rows = [
        {"title": row.title, "views": [[_small(p) for p in pictures] for pictures in row.pictures]}
        for row in preview.rows
    ]
    return {"changes": preview.changes, "notes": preview.notes, "rows": rows}


def _small(picture: tile_pictures.Picture) -> dict[str, Any]:
    return {"label": picture.label, **_image(picture.png, picture.alt)}


def _shown_tile(run: RunReport, evaluation: Evaluation, i: int) -> dict[str, Any]:
    position = int(evaluation.index[i])
    ref = run.refs[position]
    probability, predicted = run.probability[position], run.predicted[position]
    pictures = tile_pictures.tile_pictures(
        ref.id, run.images[position], run.bands, run.masks[position], probability, predicted
    )
    return {**tile_row(run, evaluation, i), "pictures": [_small(p) for p in pictures]}
