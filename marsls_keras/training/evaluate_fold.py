"""Evaluation at the end of training: out-of-fold predictions of the best weights, their scores, and metrics.json."""

from __future__ import annotations

import datetime
import time
from typing import Any

from marsls_keras.counts import confusion, detection
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.normalization import Normalizer
from marsls_keras.data.splits import Fold
from marsls_keras.errors import RunError
from marsls_keras.files import sha256, write_json
from marsls_keras.inference.member import Member, predict_views, rebuild
from marsls_keras.inference.oof_cache import save_oof
from marsls_keras.runs.fold_lock import close
from marsls_keras.runs.run import Run, read_history
from marsls_keras.training.callbacks.weight_checkpoint import WeightCheckpoint
from marsls_keras.training.recovery import Recovery


def evaluate_fold(
    run: Run,
    fold: Fold,
    held_out: Tiles,
    normalizer: Normalizer,
    checkpoint: WeightCheckpoint,
    recovery: Recovery,
    began: float,
) -> dict[str, Any]:
    """Predict the held-out tiles with the best weights, score them, and write oof.npz and metrics.json.

    metrics.json is written last and marks the fold as finished. Where nothing was held out, scores and counts are null.

    Args:
        run: The run.
        fold: Number of the fold, or "full".
        held_out: The held-out tiles of the fold; may be empty.
        normalizer: Normalisation of the fold.
        checkpoint: The callback that kept weights.
        recovery: Batch size, accumulation and learning-rate factor that training ended with.
        began: Value of `time.perf_counter` when training began, in seconds.

    Returns:
        The content of metrics.json.

    Raises:
        RunError: If no epoch had a finite loss, or a file cannot be written.

    Example:
        >>> metrics = evaluate_fold(run, 0, held_out, normalizer, checkpoint, Recovery(16, 1), began)  # doctest: +SKIP
        >>> metrics["scores"]["miou"]  # doctest: +SKIP
        0.7642
    """
    folder = run.fold_path(fold)
    if checkpoint.best["epoch"] < 0:
        raise RunError(f"Training of fold {fold} of run {run.name} never gave a finite loss on the held-out tiles.")
    weights = run.weights_path(fold)
    (folder / checkpoint.best["file"]).replace(weights)
    member = Member(run, fold, rebuild(run, weights, normalizer.bands), normalizer)
    rows = read_history(folder / "history.csv")
    metrics = {
        "fold": fold,
        "epochs": len(rows),
        "tiles": len(held_out),
        "best_epoch": checkpoint.best["epoch"],
        "best_weights": checkpoint.best["weights"],
        "weights_sha256": sha256(weights),
        **_judge(member, held_out),
        "batch_size": recovery.batch_size,
        "accumulate": recovery.accumulate,
        "trouble": list(recovery.trouble),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "seconds_with_setup": round(time.perf_counter() - began, 1),
        "files_sha256": {name: sha256(path) for name, path in run.bound_files(fold).items()},
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / "metrics.json", metrics)
    close(folder)
    return metrics


def _judge(member: Member, held_out: Tiles) -> dict[str, Any]:
    """Write the predictions of the held-out tiles to oof.npz; return scores and pixel counts at the threshold 0.5."""
    if not len(held_out):
        return {"scores": None, "counts": None}
    (seen,) = predict_views(member, held_out.images, ["identity"], held_out.bands)
    weights = sha256(member.run.weights_path(member.fold))
    save_oof(member.run.oof_path(member.fold), [ref.id for ref in held_out.refs], {"identity": seen}, weights)
    counts = confusion(held_out.masks, seen.probability >= 0.5)
    return {
        "scores": counts.scores(),
        "counts": {"tp": counts.tp, "fp": counts.fp, "fn": counts.fn, "tn": counts.tn},
        **({} if seen.landslide is None else {"detection": detection(held_out.masks, seen.landslide)}),
    }
