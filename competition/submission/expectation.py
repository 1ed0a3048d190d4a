"""Compare the score of a submission with the one expected in its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from competition.console import bounds
from marsls_keras.errors import InputError
from marsls_keras.files import read_json, sha256


def expectation(zip_path: str | Path, miou: float) -> dict[str, Any] | None:
    """Compare a score with the one expected in the manifest, and list reasons if it is outside the interval.

    Args:
        zip_path: The submission.
        miou: Its score.

    Returns:
        The expected "miou" and its "interval" (or None), "inside", whether the score is within the interval (None
        without interval), and "why", reasons as text if it is not, else empty. None if no manifest of these bytes lies
        beside the zip, or it has no expected score.

    Example:
        >>> import json
        >>> _ = Path("a.zip").write_bytes(b"")
        >>> manifest = {"sha256": sha256(Path("a.zip")), "expected": {"miou": 0.8, "interval": [0.75, 0.85]}}
        >>> _ = Path("a.json").write_text(json.dumps(manifest))
        >>> expectation("a.zip", 0.71)["inside"]
        False
    """
    path = Path(zip_path).with_suffix(".json")
    if not path.is_file():
        return None
    try:
        manifest = read_json(path)
    except InputError:  # `submit --verify` says what is wrong with it; the score does not depend on it
        return None
    if not isinstance(manifest, dict) or manifest.get("sha256") != sha256(Path(zip_path)):
        return None
    try:
        expected = float(manifest["expected"]["miou"])
        ends = manifest["expected"]["interval"]
        interval = None if ends is None else (float(ends[0]), float(ends[1]))
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    inside = None if interval is None else interval[0] <= miou <= interval[1]
    return {
        "miou": expected,
        "interval": interval,
        "inside": inside,
        "why": _reasons(manifest) if inside is False else [],
    }


def expectation_lines(expected: dict[str, Any], miou: float) -> list[str]:
    """Format the result of `expectation` as lines of text.

    Example:
        >>> expectation_lines({"miou": 0.8, "interval": (0.75, 0.85), "inside": True, "why": []}, 0.82)
        ['Expected was 0.8000 (0.7500–0.8500), from its manifest.']
    """
    lines = [f"Expected was {expected['miou']:.4f} ({bounds(expected['interval'])}), from its manifest."]
    if expected["inside"] is False:
        side = "below" if miou < expected["interval"][0] else "above"
        lines += [
            f"The score is {side} that interval. Why it can be:",
            *(f"  - {reason}" for reason in expected["why"]),
        ]
    return lines


def _reasons(manifest: dict[str, Any]) -> list[str]:
    """Return possible reasons, from the manifest, why a score lies outside its interval."""
    measured = manifest["expected"].get("measured_on") or "tiles held out by its folds"
    decision = manifest.get("decision")
    isolated = isinstance(decision, dict) and bool(decision.get("isolated"))
    reasons = [
        f"The interval is of tiles like those that were trained on ({measured}). These may be of another region."
    ]
    if isinstance(seen := manifest.get("seen_by_every_fold"), int) and seen:
        reasons.insert(0, f"{seen} of the images were training tiles of every fold: such a score says nothing.")
    if "@" in str(manifest.get("views")) and not isolated:
        reasons.append(
            "There the windows of the views saw all neighbours of a tile; "
            "marsls tune --for region measures without them."
        )
    if isinstance(decision, dict) and decision.get("nested") is None and decision.get("expected"):
        reasons.append("It was measured on one fold only.")
    return [*reasons, "A 95 % interval misses one time in twenty even where nothing is different."]
