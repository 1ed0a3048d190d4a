"""Tables of a run in the report, as the rows that the page's template shows."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from marsls_keras.inference.decision import Decision
from marsls_keras.inference.decision_elements import Card, MaskStep, in_order
from marsls_keras.inference.decision_elements.across_borders import ACROSS_BORDERS
from marsls_keras.inference.decision_elements.threshold import THRESHOLD
from marsls_keras.report import number_text
from marsls_keras.report.run_summary import Evaluation, FoldReport, RunReport


def run_tables(run: RunReport, evaluation: Evaluation, cv: str) -> dict[str, Any]:
    """Return the tables of a run, as variables of the template.

    Args:
        run: The run.
        evaluation: Its scores.
        cv: Kind of its folds, "data.cv" of its configuration.

    Example:
        >>> from marsls_keras.report.run_summary import evaluate
        >>> from marsls_keras.data.index.tile_ref import TileRef
        >>> masks = np.eye(8, dtype="uint8")[None]
        >>> tile = {"refs": (TileRef("a", None, None, "train", "base", None),), "blocks": ["a"], "bands": ("gray",)}
        >>> arrays = {"images": masks[..., None], "masks": masks, "probability": 0.9 * masks, "predicted": masks}
        >>> run = RunReport("default", "", {}, [], [], None, held_out_by=np.array([0]), **tile, **arrays)
        >>> run_tables(run, evaluate(run), "blocks")["fold_rows"]
        []
    """
    tuning = run.tuning if run.decided_alone else None
    return {
        "fold_rows": [_fold_row(fold, run) for fold in sorted(run.folds, key=lambda fold: fold.fold)],
        "score_rows": _score_rows(run, evaluation),
        "baseline": tuning and tuning.baseline,
        "gain": tuning and tuning.gain,
        "bias": run.tuning and run.tuning.bias,
        "gap": _gap(run, evaluation, cv),
        "regions": evaluation.regions if cv in ("geographic", "areas") else None,
        "elements": run.tuning.elements if run.tuning else [],
        "cards": _cards(run.decision or Decision()),
        "view_sets": _view_sets(run),
        "decision": None if run.decision is None else json.dumps(run.decision.to_json(), indent=2, ensure_ascii=False),
        "pooled": evaluation.pooled,
        "tile_rows": [tile_row(run, evaluation, i) for i in evaluation.worst_first],
        "fingerprint": _fingerprint_rows(run.fingerprint),
        "bands": run.fingerprint.get("bands", {}),
        "environment": _environment(run),
    }


def tile_row(run: RunReport, evaluation: Evaluation, i: int) -> dict[str, Any]:
    """Return the row of the i-th evaluated tile.

    Example:
        >>> from marsls_keras.report.run_summary import evaluate
        >>> from marsls_keras.data.index.tile_ref import TileRef
        >>> masks = np.eye(8, dtype="uint8")[None]
        >>> tile = {"refs": (TileRef("a", None, None, "train", "base", None),), "blocks": ["a"], "bands": ("gray",)}
        >>> arrays = {"images": masks[..., None], "masks": masks, "probability": 0.9 * masks, "predicted": masks}
        >>> fold = FoldReport(0, [], {}, {})
        >>> run = RunReport("default", "", {}, [fold], [], None, held_out_by=np.array([0]), **tile, **arrays)
        >>> tile_row(run, evaluate(run), 0)["scores"]["miou"]
        1.0
    """
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
