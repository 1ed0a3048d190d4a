"""Load a trained fold as an ensemble member, and predict tiles with it in the views of test-time augmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marsls_keras.bands.names import BANDS
from marsls_keras.data.decoded.disk_cache import Images, chunks
from marsls_keras.data.normalization import NormalizationRecord, Normalizer
from marsls_keras.data.splits import Fold
from marsls_keras.errors import InputError
from marsls_keras.inference.tta import ViewPrediction, apply_view, invert_view, view_turn, viewed_size
from marsls_keras.json_records import read_record
from marsls_keras.lazy_imports import keras
from marsls_keras.models import build_model, is_depthwise, require_size
from marsls_keras.models.networks import LANDSLIDE, MASK
from marsls_keras.progress import tracked
from marsls_keras.runs.run import Run
from marsls_keras.runtime import effective_precision, use_xla


@dataclass(frozen=True)
class Member:
    """Trained fold that is ready to predict.

    Attributes:
        run: Run of the fold.
        fold: Number of the fold, or "full".
        model: Network with the best weights.
        normalizer: Normalisation of the fold.

    Example:
        >>> load_member(Run.open("runs/base"), 0).fold  # doctest: +SKIP
        0
    """

    run: Run
    fold: Fold
    model: keras.Model
    normalizer: Normalizer


def load_member(run: Run, fold: Fold) -> Member:
    """Build the network of a fold and load its best weights.

    Raises:
        InputError: If the fold is not finished, or its weights do not have the recorded SHA-256.

    Example:
        >>> member = load_member(Run.open("runs/base"), 0)  # doctest: +SKIP
    """
    run.finished_folds([fold])
    normalizer = Normalizer.from_json(read_record(run.fold_path(fold) / "normalization.json", NormalizationRecord))
    return Member(run, fold, rebuild(run, run.weights_path(fold), normalizer.bands), normalizer)


def rebuild(run: Run, weights: Path, bands: Sequence[str]) -> keras.Model:
    """Build the network of a run for some bands and load weights from a file.

    Args:
        run: The run, whose configuration gives network, precision and XLA.
        weights: A `.weights.h5` file.
        bands: Bands that the network reads, derived ones included.

    Raises:
        InputError: If the weights do not fit the network.

    Example:
        >>> rebuild(run, run.weights_path(0), ["red", "green", "blue"]).input_shape  # doctest: +SKIP
        (None, None, None, 3)
    """
    network = run.config.model
    depthwise = is_depthwise(network.name, network.options)
    keras.config.set_dtype_policy(effective_precision(run.config.training.precision, depthwise))
    model = build_model(network.name, bands=bands, **network.options)
    try:
        model.load_weights(weights)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{weights} does not fit the network of run {run.name}: {error}") from error
    model.compile(jit_compile=use_xla(run.config.training))
    return model


def predict_views(
    member: Member, images: Images, views: Sequence[str], stored: Sequence[str] = BANDS
) -> Iterator[ViewPrediction]:
    """Predict tiles in each view, and yield the landslide probabilities with the view inverted.

    Args:
        member: A trained fold.
        images: float32 (N, H, W, C), canonical, not normalised; in memory or on disk. They are normalised batch by
            batch.
        views: Names of views.
        stored: Names of the C bands; those of a Mars tile by default.

    Yields:
        One prediction per view, float32.

    Raises:
        InputError: If the network cannot take tiles of this size.

    Example:
        >>> for seen in predict_views(member, tiles.images, ["identity", "rot90"], tiles.bands):  # doctest: +SKIP
        ...     print(seen.probability.shape)
        (12, 128, 128)
        (12, 128, 128)
    """
    config = member.run.config
    for view in views:
        require_size(config.model.name, config.model.options, *viewed_size(view, *images.shape[1:3]))
    batch = min(config.inference.batch_size, len(images))
    parts = list(chunks(images, batch))

    def normalized(part: slice) -> np.ndarray:
        # A percentile stretch does not depend on the order of pixels, so it commutes with the views.
        return member.normalizer.apply(images[part], stored)

    only = normalized(parts[0]) if len(parts) == 1 else None
    title = f"Predicting with run {member.run.name}, fold {member.fold}"
    for number, view in enumerate(views, 1):
        probability, landslide = np.empty(images.shape[:3], np.float32), []
        for part in tracked(f"{title}, view {number} of {len(views)}", parts):
            found = predict_inputs(member, normalized(part) if only is None else only, view, batch)
            probability[part] = found.probability
            landslide += [] if found.landslide is None else [found.landslide]
        yield ViewPrediction(probability, np.concatenate(landslide) if landslide else None)


def predict_inputs(member: Member, inputs: np.ndarray, view: str, batch: int) -> ViewPrediction:
    """Predict normalised tiles or windows in one view, and return the landslide probabilities with the view inverted.

    Args:
        member: A trained fold.
        inputs: Normalised bands, before the channels of the network are assembled, float32 (N, H, W, C).
        view: Name of a view.
        batch: Batch size; the last batch is padded, since another size would need another compilation.

    Returns:
        Probabilities per pixel, float32 (N, H, W), and per image if the network has a detection head.

    Example:
        >>> predict_inputs(member, member.normalizer.apply(images, bands), "identity", batch=8)  # doctest: +SKIP
    """
    number = len(inputs)
    turned = apply_view(np.concatenate([inputs, np.repeat(inputs[-1:], -number % batch, axis=0)]), view)
    directions = member.normalizer.directions
    turned = np.ascontiguousarray(turned)
    if directions.vectors:
        turned = directions.turn(turned, view_turn(view))
    # `predict` would build a pipeline, which takes longer than many a network.
    outputs = [
        member.model.predict_on_batch(member.normalizer.assemble(turned[start : start + batch]))
        for start in range(0, len(turned), batch)
    ]
    by_name = [part if isinstance(part, dict) else {MASK: part} for part in outputs]
    found = {name: sigmoid(np.concatenate([part[name] for part in by_name])[:number, ..., 0]) for name in by_name[0]}
    return ViewPrediction(invert_view(found[MASK], view, *inputs.shape[1:3]), found.get(LANDSLIDE))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Convert logits to probabilities in float32, without overflow.

    Example:
        >>> sigmoid(np.array([0.0, -1000.0])).tolist()
        [0.5, 0.0]
    """
    found: np.ndarray = 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float32)))
    return found.astype(np.float32)
