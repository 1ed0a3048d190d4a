"""Predict test images with an ensemble and write a verified zip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from competition.ledger.ledger import append_ledger, ledger_row
from competition.submission.suitable import for_challenge
from competition.submission.write import expected_names, images_of, write_submission
from marsls_keras import __version__
from marsls_keras.data.fingerprint import images_digest
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.splits import Fold
from marsls_keras.errors import InputError, MarslsError
from marsls_keras.files import read_json
from marsls_keras.inference.align import described
from marsls_keras.inference.decision_files import decision_of
from marsls_keras.inference.ensemble import predict_decided, tell_leaked
from marsls_keras.inference.inputs import Say, purpose_of, read_images
from marsls_keras.runs.opened import open_runs
from marsls_keras.training.pseudo_labelling import pseudo_trained
from marsls_keras.view_sets import of_windows


def submit(
    names: Sequence[str],
    runs: Path,
    images: Path | None,
    out: Path | None,
    folds: Sequence[Fold] | None,
    release: str,
    say: Say,
    alignment: str | None = None,
) -> dict[str, Any]:
    """Predict test images with an ensemble and write a verified zip; return its manifest, the path as "path".

    Raises:
        InputError: If a run or fold is missing, or the images cannot be used.
        RunError: If the zip cannot be written.
    """
    opened, used = open_runs(names, runs, folds)
    for run in opened:
        if not for_challenge(run):
            raise InputError(
                f"Run {run.name} was trained on {run.fingerprint['release']}; CodaBench takes masks of the Mars-LS challenge only. "
                f"marsls predict {run.name} writes those of other tiles."
            )
    images = images or images_of(opened[0])
    out = out or Path("submissions") / f"{'+'.join(names)}.zip"
    decision = decision_of(opened, used, say, purpose_of(Dataset.from_images(images), opened[0], say))
    expected = expected_names(images, release)
    tiles, number = read_images(images, release, opened, decision.view_set, say), len(expected)
    decision = decision.fit(tiles.refs[:number], say)
    if of_windows(decision.view_set) and len(tiles) == number and not decision.isolated:
        say("The score to expect is that of windows which saw labelled neighbours' images, too; marsls tune --for region measures without.")
    manifest: dict[str, Any] = {
        "images": str(images.resolve()),
        "release": tiles.release,
        "images_sha256": images_digest(tiles.subset(range(number))),
        "surroundings": len(tiles) - number,
        "runs": {run.name: {"folds": run.digest(used), "data": run.fingerprint["sha256"]} for run in opened},
        "folds": used,
        **decision.to_values(),
        "decision": decision.to_json(),
        "marsls_keras": __version__,
        "alignment": described(alignment, number),
        "pseudo_labels": pseudo_trained(opened, used, say),
        "expected": decision.expected
        and {
            "miou": decision.expected.scores.miou,
            "interval": decision.expected.interval,
            "measured_on": f"tiles held out by folds {', '.join(map(str, decision.folds))}",
        },
    }

    def masks() -> Iterator[tuple[str, np.ndarray]]:  # computed once the place to write to has been checked
        probability, seen, leaked, *_ = predict_decided(opened, used, tiles, decision, say, alignment, number)
        manifest["seen_in_training"], manifest["seen_by_every_fold"] = seen, len(leaked)
        if seen > len(leaked):
            others = seen - len(leaked)
            say(f"{others} of {number} images were training tiles of some folds; those that trained on one do not predict it.")
        tell_leaked(leaked, say)
        refs = tiles.refs[:number]
        sizes = [expected[ref.image.name] for ref in refs]
        for ref, (_, mask) in zip(refs, decision.full_size(probability, refs, sizes), strict=True):
            yield ref.image.name, mask

    write_submission(masks(), out, expected, manifest)
    manifest = read_json(out.with_suffix(".json")) | {"path": str(out)}
    try:
        append_ledger(out.parent / "ledger.csv", ledger_row(manifest))
    except MarslsError as error:
        raise type(error)(f"{out} is written and verified, but not noted in the ledger: {error}") from error
    return manifest
