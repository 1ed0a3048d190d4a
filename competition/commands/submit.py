"""Predict test images with an ensemble and write a verified zip for CodaBench."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from marsls_keras.inference.decision_files import decision_of
from marsls_keras.inference.ensemble import predict_decided, tell_leaked
from marsls_keras.inference.inputs import purpose_of, read_images
from marsls_keras.runs.opened import open_runs
from marsls_keras.training.pseudo_labelling import pseudo_trained
from marsls_keras.view_sets import of_windows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SubmitRequest:
    """Arguments of `marsls submit`.

    Attributes:
        names: Names of the runs.
        images: Folder of test images; test/images of the first run's data by default.
        out: The zip; submissions/<runs>.zip by default.
        runs: Folder of the runs.
        folds: Folds to use; all by default.
        release: Release of the images, or "auto".

    Example:
        >>> SubmitRequest(["a", "b"], out=Path("both.zip")).runs
        PosixPath('runs')
    """

    names: Sequence[str] = ("default",)
    images: Path | None = None
    out: Path | None = None
    runs: Path = Path("runs")
    folds: Sequence[Fold] | None = None
    release: str = "auto"


def submit(request: SubmitRequest) -> dict[str, Any]:
    """Predict test images with an ensemble and write a verified zip.

    Returns:
        The manifest of the zip, with its path as "path".

    Raises:
        InputError: If a run or fold is missing, or the images cannot be used.
        RunError: If the zip cannot be written.

    Example:
        >>> submit(SubmitRequest(["default"]))["tiles"]  # doctest: +SKIP
        276
    """
    opened, used = open_runs(request.names, request.runs, request.folds)
    for run in opened:
        if not for_challenge(run):
            raise InputError(
                f"Run {run.name} was trained on {run.fingerprint['release']}; "
                "CodaBench takes masks of the Mars-LS challenge only. "
                f"marsls predict {run.name} writes those of other tiles."
            )
    images = request.images or images_of(opened[0])
    out = request.out or Path("submissions") / f"{'+'.join(request.names)}.zip"
    decision = decision_of(opened, used, purpose_of(Dataset.from_images(images), opened[0]))
    expected = expected_names(images, request.release)
    inputs = read_images(images, request.release, opened, decision.view_set)
    decision = decision.fit(inputs.refs)
    if of_windows(decision.view_set) and not inputs.surroundings and not decision.isolated:
        logger.info(
            "The score to expect is that of windows which saw labelled neighbours' images, too; "
            "marsls tune --for region measures without."
        )
    manifest: dict[str, Any] = {
        "images": str(images.resolve()),
        "release": inputs.tiles.release,
        "images_sha256": images_digest(inputs.wanted),
        "surroundings": inputs.surroundings,
        "runs": {run.name: {"folds": run.digest(used), "data": run.fingerprint["sha256"]} for run in opened},
        "folds": used,
        **decision.to_values(),
        "decision": decision.to_json(),
        "marsls_keras": __version__,
        "pseudo_labels": pseudo_trained(opened, used),
        "expected": decision.expected
        and {
            "miou": decision.expected.scores.miou,
            "interval": decision.expected.interval,
            "measured_on": f"tiles held out by folds {', '.join(map(str, decision.folds))}",
        },
    }

    def masks() -> Iterator[tuple[str, np.ndarray]]:  # computed once the place to write to has been checked
        probability, seen, leaked, *_ = predict_decided(opened, used, inputs, decision)
        manifest["seen_in_training"], manifest["seen_by_every_fold"] = seen, len(leaked)
        if seen > len(leaked):
            others = seen - len(leaked)
            logger.info(
                f"{others} of {inputs.number} images were training tiles of some folds; "
                "those that trained on one do not predict it."
            )
        tell_leaked(leaked)
        sizes = [expected[ref.image.name] for ref in inputs.refs]
        for ref, (_, mask) in zip(inputs.refs, decision.full_size(probability, inputs.refs, sizes), strict=True):
            yield ref.image.name, mask

    write_submission(masks(), out, expected, manifest)
    manifest = read_json(out.with_suffix(".json")) | {"path": str(out)}
    try:
        append_ledger(out.parent / "ledger.csv", ledger_row(manifest))
    except MarslsError as error:
        raise type(error)(f"{out} is written and verified, but not noted in the ledger: {error}") from error
    return manifest
