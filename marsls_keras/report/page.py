"""Render the report on runs as one self-contained HTML page, for screens, phones and paper."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from marsls_keras import __version__
from marsls_keras.config.strict_yaml import load_yaml
from marsls_keras.counts import SCORES
from marsls_keras.files import write_text
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.decision_elements import Card, MaskStep, in_order
from marsls_keras.inference.decision_elements.across_borders import ACROSS_BORDERS
from marsls_keras.inference.decision_elements.threshold import THRESHOLD
from marsls_keras.report import number_text, plots, tile_pictures
from marsls_keras.report.leaderboard import Answer, leaderboard_chart
from marsls_keras.report.run_summary import (
    Evaluation,
    FoldReport,
    RunReport,
    evaluate,
    headline,
    not_comparable,
    remarks,
)
from marsls_keras.report.study_plots import study_plots

if TYPE_CHECKING:
    from marsls_keras.report.augmentation_preview import Preview

WORST, BEST = 6, 4
"""Number of tiles shown with the lowest and with the highest mIoU."""

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
        leaderboard=_leaderboard(answers),
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
    """Return the template variables of a run, with its charts and pictures."""
    config = load_yaml(run.config, f"The configuration of run {run.name} cannot be read") or {}
    data = config.get("data", {})
    folds = sorted(run.folds, key=lambda fold: fold.fold)
    order = evaluation.worst_first
    worst = order[:WORST]
    # A tile among the worst is not shown again among the best.
    best = order[WORST:][-BEST:][::-1]
    tuning = run.tuning if run.decided_alone else None
    return {
        "name": run.name,
        "model": config.get("model", {}).get("name", "?"),
        "release": run.fingerprint.get("release", "?"),
        "folds": [fold.fold for fold in folds],
        "fold_rows": [_fold_row(fold, run) for fold in folds],
        "seconds": sum(fold.metrics.get("seconds", 0) for fold in folds),
        "missing": run.missing,
        "remarks": remarks(run, evaluation),
        "holding_out": _HOLDING_OUT.get(
            data.get("cv", ""), "No tile was predicted by a network that was trained on it."
        ),
        "headline": headline(run, evaluation),
        "score_rows": _score_rows(run, evaluation),
        "baseline": tuning and tuning.baseline,
        "gain": tuning and tuning.gain,
        "bias": run.tuning and run.tuning.bias,
        "gap": _gap(run, evaluation, data.get("cv", "")),
        "regions": evaluation.regions if data.get("cv") in ("geographic", "areas") else None,
        "threshold": run.threshold,
        "views": run.views,
        "elements": run.tuning.elements if run.tuning else [],
        "cards": _cards(run.decision or Decision()),
        "view_sets": _view_sets(run),
        "decision": None if run.decision is None else json.dumps(run.decision.to_json(), indent=2, ensure_ascii=False),
        "tiles": len(evaluation.index),
        "pool": len(run.refs),
        "pooled": evaluation.pooled,
        "charts": _charts(run, evaluation) if len(evaluation.index) else [],
        "maps": _maps(run, evaluation),
        "curves": [_curves(fold) for fold in folds if fold.rows],
        "study": run.study,
        "study_plots": [{"title": title, **_image(figure, alt)} for title, figure, alt in study_plots(run.study)]
        if run.study
        else [],
        "preview": None if preview is None else _preview(preview),
        "worst": [_shown_tile(run, evaluation, i) for i in worst],
        "best": [_shown_tile(run, evaluation, i) for i in best],
        "tile_rows": [_tile_row(run, evaluation, i) for i in order],
        "fingerprint": _fingerprint_rows(run.fingerprint),
        "bands": run.fingerprint.get("bands", {}),
        "environment": _environment(run),
        "config": run.config,
    }


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


def _leaderboard(answers: Sequence[Answer]) -> dict[str, Any] | None:
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


def _score_rows(run: RunReport, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the rows of the table of scores, each with "label", "threshold", "views", "scores" and "interval"."""
    rows = []
    tuning = run.tuning
    whose = "" if run.decided_alone or tuning is None else "ensemble, "
    if tuning and tuning.nested:
        rows.append(
            {"label": f"{whose}tuned, nested", "threshold": None, "views": "per fold", **tuning.nested.model_dump()}
        )
    if whose and tuning and tuning.tuned:
        rows.append(
            {"label": f"{whose}tuned", "threshold": run.threshold, "views": run.views, **tuning.tuned.model_dump()}
        )
    if evaluation.scores:
        label = (
            "this run alone"
            if whose
            else "not tuned"
            if not tuning
            else "baseline, kept"
            if run.kept_plain
            else "tuned"
        )
        own = {
            "threshold": run.threshold,
            "views": run.views,
            "scores": evaluation.scores,
            "interval": evaluation.interval,
        }
        rows.append({"label": label, **own})
        if among := run.among_neighbours:
            rows.append({**own, "label": f"{label}, windows see all neighbours", **among})
    if tuning and tuning.baseline and (whose or not run.kept_plain):
        rows.append({"label": f"{whose}baseline", **tuning.baseline.model_dump()})
    return rows


def _gap(run: RunReport, evaluation: Evaluation, cv: str) -> str | None:
    """Return a sentence on the score in a new region; None without predictions or for tiles of unknown position."""
    if not evaluation.scores or all(ref.cell is None for ref in run.refs):
        return None
    if cv not in ("geographic", "areas"):
        return (
            "The folds are no regions: each network saw ground next to the tiles that it is judged on. A new region "
            "scores lower; folds with data.cv geographic or areas tell by how much."
        )
    if run.among_neighbours is None:
        return None
    among = run.among_neighbours["scores"]["miou"]
    return (
        "Each region was predicted as if nothing around it were known, as a new one is: "
        f"mIoU {evaluation.scores['miou']:.4f}. With all neighbouring images, as in a published region, "
        f"it is {among:.4f} ({among - evaluation.scores['miou']:+.4f})."
    )


def _fold_row(fold: FoldReport, run: RunReport) -> dict[str, Any]:
    nested = run.tuning.nested if run.tuning and run.decided_alone else None
    per_fold = {row.fold: row for row in nested.per_fold} if nested else {}
    return {
        **{key: fold.metrics.get(key) for key in ("tiles", "best_epoch", "best_weights", "seconds", "weights_sha256")},
        "fold": fold.fold,
        "epochs": len(fold.rows),
        "scores": fold.metrics.get("scores", {}),
        "nested": per_fold.get(fold.fold),
    }


def _cards(decision: Decision) -> list[Card]:
    """Return the cards of a decision at the head of a run, the threshold first."""
    across = ", across tile borders" if decision.across_borders else ""
    cards = []
    for element in sorted(in_order(), key=lambda element: element is not THRESHOLD):
        if element is not ACROSS_BORDERS and element.is_said(decision[element]):
            card = element.card(decision[element])
            cards.append(replace(card, note=card.note + across) if isinstance(element, MaskStep) else card)
    return cards


def _view_sets(run: RunReport) -> list[dict[str, Any]]:
    """Return the rows of the table of view sets, with the gain in mIoU over a single view."""
    sets = run.tuning.view_sets if run.tuning else {}
    plain = sets["identity"].miou if "identity" in sets else None
    used = None if run.kept_plain else run.views  # the baseline uses threshold 0.5, not the best one of identity
    return [
        {
            "name": name,
            **values.model_dump(),
            "gain": None if plain is None or name == "identity" else values.miou - plain,
            "used": used == name,
        }
        for name, values in sets.items()
    ]


def _tile_row(run: RunReport, evaluation: Evaluation, i: int) -> dict[str, Any]:
    position = int(evaluation.index[i])
    ref, counts = run.refs[position], evaluation.counts
    pixels = run.masks[position].size
    return {
        "id": ref.id,
        "cell": ref.cell,
        "fold": int(run.held_out_by[position]),
        "true": float(counts.tp[i] + counts.fn[i]) / pixels,
        "predicted": float(counts.tp[i] + counts.fp[i]) / pixels,
        "scores": {name: float(values[i]) for name, values in evaluation.tiles.items()},
    }


def _shown_tile(run: RunReport, evaluation: Evaluation, i: int) -> dict[str, Any]:
    position = int(evaluation.index[i])
    ref = run.refs[position]
    probability, predicted = run.probability[position], run.predicted[position]
    pictures = tile_pictures.tile_pictures(
        ref.id, run.images[position], run.bands, run.masks[position], probability, predicted
    )
    return {**_tile_row(run, evaluation, i), "pictures": [_small(p) for p in pictures]}


def _fingerprint_rows(fingerprint: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of the table of the data as (name, text); the bands have a table of their own."""
    ratio = fingerprint.get("foreground_ratio", {})
    tiles = fingerprint.get("tiles", {})
    rows = [
        ("release", fingerprint.get("release")),
        ("tiles", ", ".join(f"{number} {split}" for split, number in tiles.items())),
        ("size", " × ".join(map(str, fingerprint.get("size", []))) + " pixels"),
        ("landslide per tile", f"{ratio['min']:.2%} to {ratio['max']:.2%}, mean {ratio['mean']:.2%}" if ratio else ""),
        ("pixels without data", number_text.number(fingerprint.get("no_data_pixels"))),
        ("folder", fingerprint.get("data_root")),
        ("SHA-256", fingerprint.get("sha256")),
    ]
    return [(name, str(value)) for name, value in rows if value]


def _environment(run: RunReport) -> dict[str, Any]:
    """Return the table of the environments of the folds; folds with equal environments share a column."""

    def flat(value: Any, prefix: str = "") -> dict[str, str]:
        if not isinstance(value, dict):
            return {prefix: ", ".join(map(str, value)) if isinstance(value, list) else str(value)}
        return {
            k: v
            for name, inner in value.items()
            for k, v in flat(inner, f"{prefix}.{name}" if prefix else name).items()
        }

    columns: list[tuple[list[int], dict[str, str]]] = []
    for fold in sorted(run.folds, key=lambda fold: fold.fold):
        values = flat(fold.environment)
        same = next((numbers for numbers, known in columns if known == values), None)
        if same is not None:
            same.append(fold.fold)
        else:
            columns.append(([fold.fold], values))
    keys = dict.fromkeys(key for _, values in columns for key in values)
    heads = [f"fold{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}" for numbers, _ in columns]
    return {"heads": heads, "rows": [(key, [values.get(key, "–") for _, values in columns]) for key in keys]}
