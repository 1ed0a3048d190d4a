"""Render the report on runs as one self-contained HTML page, for screens, phones and paper."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from marsls_keras import __version__
from marsls_keras.config.strict_yaml import load_yaml
from marsls_keras.counts import SCORES
from marsls_keras.files import write_text
from marsls_keras.report import number_text, plots, tile_pictures
from marsls_keras.report.leaderboard import Answer
from marsls_keras.report.page_pictures import leaderboard_image, run_pictures
from marsls_keras.report.page_tables import run_tables
from marsls_keras.report.run_summary import Evaluation, RunReport, evaluate, headline, not_comparable, remarks

if TYPE_CHECKING:
    from marsls_keras.report.augmentation_preview import Preview

_HOLDING_OUT = {
    "blocks": "Each tile was predicted by a network that was trained without it and without its block of neighbours.",
    "geographic": "Each tile was predicted by a network that was trained on other regions only.",
    "areas": (
        "Each tile was predicted by a network that was trained on other areas only, none of which touches its own."
    ),
    "holdout": (
        "The tiles that were held out, a random share, were predicted by a network that was trained without them."
    ),
    "official": "The tiles of the validation split were predicted by a network that was trained on the training split.",
}


def write_report(runs: list[RunReport], path: Path, answers: Sequence[Answer] = ()) -> None:
    """Write the report on one or several runs as one self-contained HTML page, atomically.

    Args:
        runs: The runs, in the order in which they are shown.
        path: File to write.
        answers: Leaderboard scores of submissions, in the order in which they are shown.

    Raises:
        ValueError: If there is no run.

    Example:
        >>> from marsls_keras.data.index.tile_ref import TileRef
        >>> masks = np.eye(8, dtype="uint8")[None]
        >>> tile = {"refs": (TileRef("a", None, None, "train", "base", None),), "blocks": ["a"], "bands": ("gray",)}
        >>> arrays = {"images": masks[..., None], "masks": masks, "probability": 0.9 * masks, "predicted": masks}
        >>> run = RunReport("default", "", {}, [], ["not begun"], None, held_out_by=np.array([0]), **tile, **arrays)
        >>> write_report([run], Path("report.html"))
        >>> Path("report.html").read_text()[:15]
        '<!DOCTYPE html>'
    """
    if not runs:
        raise ValueError("A report needs at least one run. Received: []")
    from marsls_keras.report.augmentation_preview import preview  # runs the training pipeline, which needs TensorFlow

    write_text(path, render(runs, [preview(run) for run in runs], answers))


def render(runs: list[RunReport], previews: list[Preview | None] | None = None, answers: Sequence[Answer] = ()) -> str:
    """Render the report as HTML.

    Args:
        runs: The runs, in the order in which they are shown.
        previews: Preview of the training inputs of each run, or None; no previews by default.
        answers: Leaderboard scores of submissions, in the order in which they are shown.

    Example:
        >>> from marsls_keras.data.index.tile_ref import TileRef
        >>> masks = np.eye(8, dtype="uint8")[None]
        >>> tile = {"refs": (TileRef("a", None, None, "train", "base", None),), "blocks": ["a"], "bands": ("gray",)}
        >>> arrays = {"images": masks[..., None], "masks": masks, "probability": 0.9 * masks, "predicted": masks}
        >>> run = RunReport("default", "", {}, [], ["not begun"], None, held_out_by=np.array([0]), **tile, **arrays)
        >>> "not begun" in render([run])
        True
    """
    sections = [
        _section(run, evaluate(run), seen) for run, seen in zip(runs, previews or [None] * len(runs), strict=True)
    ]
    loader = PackageLoader("marsls_keras.report", "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number_text.FILTERS)
    return environment.get_template("page.html.j2").render(
        runs=sections,
        apart=not_comparable(runs),
        answers=answers,
        leaderboard=leaderboard_image(answers),
        errors=tile_pictures.ERROR_COLOURS,
        probability_colours=tile_pictures.gradient(tile_pictures.PROBABILITY_COLOURS),
        outline=plots.SKY,
        slope_colours=tile_pictures.gradient(tile_pictures.SLOPE_COLOURS),
        made=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        version=__version__,
        score_names={"miou": "mIoU", "iou_fg": "IoU landslide", "iou_bg": "IoU background", "f1": "F1"}
        | {k: k for k in SCORES[4:]},
    )


def _section(run: RunReport, evaluation: Evaluation, preview: Preview | None) -> dict[str, Any]:
    """Return the template variables of a run, with its tables, charts and pictures."""
    config = load_yaml(run.config, f"The configuration of run {run.name} cannot be read") or {}
    cv = config.get("data", {}).get("cv", "")
    return {
        "name": run.name,
        "model": config.get("model", {}).get("name", "?"),
        "release": run.fingerprint.get("release", "?"),
        "folds": sorted(fold.fold for fold in run.folds),
        "seconds": sum(fold.metrics.get("seconds", 0) for fold in run.folds),
        "missing": run.missing,
        "remarks": remarks(run, evaluation),
        "holding_out": _HOLDING_OUT.get(cv, "No tile was predicted by a network that was trained on it."),
        "headline": headline(run, evaluation),
        "threshold": run.threshold,
        "views": run.views,
        "tiles": len(evaluation.index),
        "pool": len(run.refs),
        "study": run.study,
        "config": run.config,
        **run_tables(run, evaluation, cv),
        **run_pictures(run, evaluation, preview),
    }
