"""Models of the JSON files of a run: metrics.json, environment.json, recipe.json, and full.json of a refit."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from marsls_keras.config.section import Probability
from marsls_keras.counts import Counts
from marsls_keras.json_records import Confusion, Digest, FoldName, Name, Number, Positive, Record, Scored, Share

Weights = Literal["last", "ema", "swa"]
"""Name of a weight set."""

_ANEW = "Restore the file from a copy, or train the fold anew with --overwrite."


class _ImageScores(Record):
    """Scores of the detection head, one decision per tile."""

    f1: Share
    accuracy: Share
    precision: Share
    recall: Share


class _Detection(Record):
    """Evaluation of the detection head: threshold, scores and counts of tiles."""

    threshold: Share
    scores: _ImageScores
    counts: Confusion

    @model_validator(mode="after")
    def _agree(self) -> _Detection:
        for name, value in Counts(**self.counts.model_dump()).image_scores().items():
            if abs(getattr(self.scores, name) - value) > 1e-6:
                raise ValueError(f"scores.{name} is {getattr(self.scores, name):g}, but the counts give {value:g}")
        return self


def _bound(name: str) -> str:
    """Check that a name is one of `BOUND`."""
    if name not in BOUND:
        raise ValueError(f"expected one of {', '.join(BOUND)}")
    return name


BOUND = ("splits.json", "normalization.json", "full.json")
"""Files of run and fold that the scores of a fold depend on, besides its weights."""


class PluginsRecord(Record):
    """Model of plugins.json: the SHA-256 of the file of each plug-in, by its name in the configuration.

    Example:
        >>> PluginsRecord(sha256={"/home/me/mine.py": "0" * 64}).sha256["/home/me/mine.py"][:4]
        '0000'
    """

    sha256: dict[str, Digest]


class MetricsRecord(Scored):
    """Model of metrics.json; see `marsls_keras.training.evaluate_fold.evaluate_fold`.

    Example:
        >>> read_record("runs/default/fold_0/metrics.json", MetricsRecord)["best_epoch"]  # doctest: +SKIP
        41
    """

    fold: Number | Literal["full"]
    epochs: Positive
    tiles: Number
    best_epoch: Number
    best_weights: Weights
    weights_sha256: Digest
    detection: _Detection | None = None
    each: Any = None  # scores of each weight set, which versions up to 0.2 could write; no longer read
    batch_size: Positive
    accumulate: Positive
    trouble: list[str]
    seconds: Annotated[float, Field(ge=0)]
    seconds_with_setup: Annotated[float, Field(ge=0)]
    finished: Name
    files_sha256: dict[Annotated[str, AfterValidator(_bound)], Digest] = {}  # earlier versions did not write it

    remedy: ClassVar[str] = _ANEW

    @model_validator(mode="after")
    def _possible(self) -> MetricsRecord:
        if self.best_epoch >= self.epochs:
            raise ValueError(f"best_epoch counts from 0, so it should be below epochs ({self.epochs})")
        return self


class EnvironmentRecord(Record):
    """Model of environment.json: software and devices that a fold was trained with.

    It is informative only, so unknown keys of newer versions are allowed.

    Example:
        >>> EnvironmentRecord(marsls_keras="1.0", backend="tensorflow", devices=["CPU"], python="3.12").backend
        'tensorflow'
    """

    model_config = ConfigDict(extra="allow")

    marsls_keras: Name
    backend: Name
    devices: list[Name]

    remedy: ClassVar[str] = _ANEW


class _Averaged(Record):
    """The elements of a decision that determine mean probabilities; `Decision` checks the others."""

    model_config = ConfigDict(extra="allow")

    views: Name
    weights: dict[Name, Probability] | None
    averaging: Literal["probability", "logit"]


class _Pseudo(Record):
    """Model of `marsls_keras.training.pseudo_labels.PseudoRecord` in full.json."""

    folder: Name
    images_sha256: Digest
    tiles: Positive
    left_out: Number
    confidence: Share
    confident: Share
    landslide: Share
    folds: dict[FoldName, Digest]
    decision: _Averaged


class FullRecord(Record):
    """Model of full.json; see `marsls_keras.training.refit.RefitPlan`.

    Example:
        >>> FullRecord(epochs=23, weights="ema", folds=[0, 1], best_epochs=[20, 26], best_weights=["ema", "ema"]).epochs
        23
    """

    epochs: Positive
    weights: Weights
    folds: list[Number]
    best_epochs: list[Positive]
    best_weights: list[Weights]
    pseudo: _Pseudo | None = None

    remedy: ClassVar[str] = "Restore the file from a copy, or begin the refit anew with --overwrite."

    @model_validator(mode="after")
    def _possible(self) -> FullRecord:
        if len({len(self.folds), len(self.best_epochs), len(self.best_weights)}) > 1:
            raise ValueError("folds, best_epochs and best_weights should be as many")
        return self


class RecipeRecord(Record):
    """Model of recipe.json: the recipe of a run, and its number of epochs, if the run began with another number.

    Example:
        >>> RecipeRecord(recipe="default", epochs=73).epochs
        73
    """

    recipe: Name
    epochs: Positive

    remedy: ClassVar[str] = "Remove the file; then marsls train goes on with the epochs in the run's config.yaml."
