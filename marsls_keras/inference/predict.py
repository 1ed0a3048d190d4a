"""Trained folds as members of an ensemble, and their predictions under views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from marsls_keras.data.bands import BANDS
from marsls_keras.data.normalize import Normalizer
from marsls_keras.errors import InputError
from marsls_keras.files import read_json
from marsls_keras.inference.views import apply_view, invert_view
from marsls_keras.models import build_model, require_size
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


def predict_views(member: Member, images: np.ndarray, views: Sequence[str], stored: Sequence[str] = BANDS) -> Iterator[np.ndarray]:
    """Yield, view after view, the landslide probability of canonical tiles, turned back.

    Args:
        member: A trained fold.
        images: float32 (N, H, W, C), canonical, not normalised.
        views: Names of views.
        stored: Names of the C bands; those of a Mars tile by default.

    Yields:
        float32 (N, H, W), one for each view.

    Raises:
        InputError: If the network cannot take tiles of this size.
    """
    config = member.run.config
    require_size(config.model.name, config.model.options, *images.shape[1:3])
    # A percentile stretch looks at all pixels of a tile alike, so normalising before turning is the same as after it.
    inputs = member.normalizer.apply(images, stored)
    number = len(inputs)
    batch = min(config.inference.batch_size, number)
    # The last batch is filled up, since every other batch size costs a compilation of its own.
    inputs = np.concatenate([inputs, np.repeat(inputs[-1:], -number % batch, axis=0)])
    for view in views:
        turned = np.ascontiguousarray(apply_view(inputs, view))
        logits = member.model.predict(turned, batch_size=batch, verbose=0)[:number, ..., 0]
        yield np.ascontiguousarray(invert_view(sigmoid(logits), view))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits in float32, without overflow."""
    return (0.5 * (1 + np.tanh(0.5 * logits.astype(np.float32)))).astype(np.float32)
