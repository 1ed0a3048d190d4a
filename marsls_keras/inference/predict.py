"""Trained folds as members of an ensemble, and their predictions under views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from marsls_keras.data.bands import BANDS
from marsls_keras.data.normalize import Normalizer
from marsls_keras.data.store import Images, chunks
from marsls_keras.errors import InputError
from marsls_keras.files import read_json
from marsls_keras.inference.views import ViewPrediction, apply_view, invert_view, view_turn
from marsls_keras.models import build_model, require_size
from marsls_keras.models.heads import LANDSLIDE, MASK
from marsls_keras.training.device import use_xla
from marsls_keras.training.run_dir import Run


@dataclass(frozen=True)
class Member:
    """One trained fold, ready to predict.

    Attributes:
        run: Its run.
        fold: Its number.
        model: Network with the best weights.
        normalizer: Normalisation of that fold.
    """

    run: Run
    fold: int
    model: keras.Model
    normalizer: Normalizer


def load_member(run: Run, fold: int) -> Member:
    """Rebuild a fold's network from the registry and give it its best weights.

    Raises:
        InputError: If the fold is not finished or its weights were changed (their SHA-256 is checked).
    """
    run.finished_folds([fold])
    normalizer = Normalizer.from_json(read_json(run.fold_path(fold) / "normalization.json"))
    return Member(run, fold, rebuild(run, run.fold_path(fold) / "best.weights.h5", normalizer.bands), normalizer)


def rebuild(run: Run, weights: Path, bands: Sequence[str]) -> keras.Model:
    """Return a run's network for these bands with the weights of a file.

    Raises:
        InputError: If the weights do not fit the network.
    """
    keras.config.set_dtype_policy(run.config.training.precision)
    model = build_model(run.config.model.name, bands=bands, **run.config.model.options)
    try:
        model.load_weights(weights)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{weights} does not fit the network of run {run.name}: {error}") from error
    model.compile(jit_compile=use_xla(run.config.training))
    return model


def predict_views(member: Member, images: Images, views: Sequence[str], stored: Sequence[str] = BANDS) -> Iterator[ViewPrediction]:
    """Yield, view after view, the landslide probability of canonical tiles, turned back.

    Args:
        member: A trained fold.
        images: float32 (N, H, W, C), canonical, not normalised; in memory or on disk, they become network input some at a time.
        views: Names of views.
        stored: Names of the C bands; those of a Mars tile by default.

    Yields:
        float32 probabilities, one prediction for each view.

    Raises:
        InputError: If the network cannot take tiles of this size.
    """
    config = member.run.config
    require_size(config.model.name, config.model.options, *images.shape[1:3])
    batch = min(config.inference.batch_size, len(images))
    directions = member.normalizer.directions
    parts = list(chunks(images, batch))

    def filled_up(part: slice) -> np.ndarray:
        # A percentile stretch looks at all pixels of a tile alike, so normalising before turning is the same as after it.
        inputs = member.normalizer.apply(images[part], stored)
        # The last batch is filled up, since every other batch size costs a compilation of its own.
        return np.concatenate([inputs, np.repeat(inputs[-1:], -len(inputs) % batch, axis=0)])

    only = filled_up(parts[0]) if len(parts) == 1 else None
    for view in views:
        probability, landslide = np.empty(images.shape[:3], np.float32), []
        for part in parts:
            inputs, number = filled_up(part) if only is None else only, part.stop - part.start
            turned = np.ascontiguousarray(apply_view(inputs, view))
            if directions.vectors:
                turned = directions.turn(turned, view_turn(view))
            turned = member.normalizer.assemble(turned)
            outputs = member.model.predict(turned, batch_size=batch, verbose=0)
            outputs = outputs if isinstance(outputs, dict) else {MASK: outputs}
            found = {name: sigmoid(logits[:number, ..., 0]) for name, logits in outputs.items()}
            probability[part] = invert_view(found[MASK], view)
            landslide += [found[LANDSLIDE]] if LANDSLIDE in found else []
        yield ViewPrediction(probability, np.concatenate(landslide) if landslide else None)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits in float32, without overflow."""
    return (0.5 * (1 + np.tanh(0.5 * logits.astype(np.float32)))).astype(np.float32)
