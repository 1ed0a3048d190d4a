"""The search space: keys of a configuration, and the values or ranges they are drawn from."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import optuna
import yaml

from competition.recipe_parts import require_parts
from marsls_keras.config import Config, Distribution, Range, Recipe, parse_config, set_key
from marsls_keras.errors import InputError

_DRAWS = 64

_FIXED = {
    **dict.fromkeys(
        ("data.release", "data.resize", "data.pool", "data.cv", "data.folds", "data.holdout", "data.block_size"),
        "tiles",
    ),
    "training.seed": "tiles",
    "training.epochs": "epochs",
    "training": "epochs",
    "data": "tiles",
    "inference": "threshold and views",
}
"""Keys that cannot be searched, each with what trials are compared on.

That must be equal for all trials, else the one with the easiest comparison would win."""


@dataclass(frozen=True)
class Space:
    """The search space around a configuration: which keys are drawn from which values.

    Attributes:
        base: The configuration.
        keys: A range or a tuple of values for each dotted key; a section comes before the keys in it.

    Example:
        >>> from marsls_keras.config import load_recipe
        >>> space = Space.of(load_recipe("unet", ["search={training.learning_rate: [0.001, 0.01]}"])[1])
        >>> space.configuration({"training.learning_rate": 0.01}).training.learning_rate
        0.01
    """

    base: Config
    keys: dict[str, Distribution]

    @classmethod
    def of(cls, recipe: Recipe) -> Space:
        """Return the search space of a recipe, or the default one, after checking that every value is valid.

        Raises:
            InputError: If a key is unknown or cannot be searched, or a value is refused; the key is named.
        """
        keys = recipe.search or default_keys(recipe.config)
        # A section comes before the keys in it, and the key that names its kind (preset, name) before its other keys.
        order = sorted(keys, key=lambda key: (key.count("."), not key.endswith((".preset", ".name"))))
        space = cls(recipe.config, {key: keys[key] for key in order})
        space._check()
        return space

    def draw(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """Draw a value for each key that applies.

        A parameter of a loss term applies only if the loss has the term.
        """
        chosen: dict[str, Any] = {}
        for key, values in self.keys.items():
            if self._applies(key, chosen):
                chosen[key] = self._value(key, _suggest(trial, key, values))
        return chosen

    def chosen(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the configuration values of a finished trial's parameters."""
        return {key: self._value(key, parameters[key]) for key in self.keys if key in parameters}

    def configuration(self, chosen: Mapping[str, Any]) -> Config:
        """Return the configuration with the chosen values, validated like one from a file.

        Raises:
            InputError: If it is invalid.
        """
        values = self._values(chosen)
        config = parse_config(
            values,
            f"with {yaml.safe_dump(dict(chosen), default_flow_style=True, sort_keys=False, width=10**6).strip()}",
        )
        require_parts(config)
        return config

    def _values(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        values = self.base.model_dump(mode="json")
        for key, value in chosen.items():
            parts = key.split(".")
            term = values["loss"].get(parts[1]) if parts[0] == "loss" and len(parts) == 3 else None
            if isinstance(term, int | float):  # a bare weight becomes a section, which can hold a parameter
                values["loss"][parts[1]] = {"weight": term}
            set_key(values, parts, value)
        return values

    def _applies(self, key: str, chosen: Mapping[str, Any]) -> bool:
        section, *rest = key.split(".")
        return section != "loss" or len(rest) < 2 or rest[0] in self._values(chosen)["loss"]

    def _value(self, key: str, parameter: Any) -> Any:
        """Return the value of Optuna's parameter: the number itself, or the choice with that label."""
        values = self.keys[key]
        return parameter if isinstance(values, Range) else values[labels(values).index(parameter)]

    def _check(self) -> None:
        """Check that all values are valid, key by key, and then their combinations in random draws.

        Raises:
            InputError: If a value or a combination is invalid.
        """
        for key, values in self.keys.items():
            if not all(key.split(".")):
                raise InputError(
                    f"search: {key!r}: expected a key of the configuration, such as training.learning_rate."
                )
            if reason := _FIXED.get(key, _FIXED["inference"] if key.startswith("inference.") else None):
                raise InputError(
                    f"search: {key} cannot be searched: trials are compared on the same {reason}. "
                    "Remove it from the recipe."
                )
            for value, around in itertools.product(
                values.ends if isinstance(values, Range) else values, self._around(key)
            ):
                try:
                    self.configuration({**around, key: value})
                except InputError as error:
                    raise InputError(f"search: {key}: {error}") from None
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(_DRAWS):
            chosen = self.draw(study.ask())
            try:
                self.configuration(chosen)
            except InputError as error:
                raise InputError(f"search: not all of its values go together: {error}") from None

    def _around(self, key: str) -> Iterator[dict[str, Any]]:
        """Yield the changes with which a key is checked: none, or a loss that has the key's term.

        Raises:
            InputError: If no loss has the term.
        """
        if self._applies(key, {}):
            yield {}
            return
        found = False
        term = key.split(".")[1]
        for other in ("loss", f"loss.{term}"):
            values = self.keys.get(other, ())
            for value in values.ends[1:] if isinstance(values, Range) else values:
                if self._applies(key, {other: value}):
                    yield {other: value}
                    found = True
                    break
        if not found:
            raise InputError(f"search: {key}: neither the recipe's loss nor one of the search has the term {term}.")


def default_keys(config: Config) -> dict[str, Distribution]:
    """Return the default search space of a recipe: learning rate, weight decay, loss and augmentation.

    The losses are the recipe's own and common ones: cross-entropy or focal loss with Dice (DualSwinFusionSeg,
    RMAU-Net), Tversky, and the Lovász hinge.

    Example:
        >>> list(default_keys(Config()))
        ['training.learning_rate', 'training.weight_decay', 'loss', 'augmentation']
    """
    rate = config.training.learning_rate
    losses: list[Any] = [
        config.loss,
        {"bce": 0.5, "dice": 0.5},
        {"focal": {"weight": 0.5, "gamma": 2.0}, "dice": 0.5},
        {"bce": 0.5, "tversky": {"weight": 0.5, "alpha": 0.3, "beta": 0.7}},
        {"bce": 0.5, "lovasz": 0.5},
    ]
    augmentations = [
        config.augmentation.model_dump(mode="json"),
        *({"preset": name} for name in ("flips", "dual_swin", "strong")),
    ]
    decay = (
        {"training.weight_decay": Range(low=1e-6, high=1e-2, log=True)} if config.training.optimizer == "adamw" else {}
    )
    return {
        "training.learning_rate": Range(low=rate / 10, high=rate * 10, log=True),
        **decay,
        "loss": _different("loss", losses),
        "augmentation": _different("augmentation", augmentations),
    }


def _different(section: str, values: list[Any]) -> tuple[Any, ...]:
    """Return the values of a section without those that parse to the same as an earlier one."""
    meant: dict[int, Any] = {}
    for i, value in enumerate(values):
        meaning = getattr(parse_config({section: value}, section), section)
        if meaning not in meant.values():
            meant[i] = meaning
    return tuple(values[i] for i in meant)


def _suggest(trial: optuna.trial.BaseTrial, key: str, values: Distribution) -> Any:
    if not isinstance(values, Range):
        return trial.suggest_categorical(key, labels(values))
    low, high = values.ends
    if values.type == "int":
        return trial.suggest_int(key, cast(int, low), cast(int, high), log=values.log, step=int(values.step or 1))
    return trial.suggest_float(key, low, high, log=values.log, step=values.step)


def labels(values: tuple[Any, ...]) -> list[Any]:
    """Return the categories that Optuna stores for values: scalars unchanged, lists and sections as YAML.

    Example:
        >>> labels((0.1, None, {"bce": 1}))
        [0.1, None, '{bce: 1}']
    """
    plain = (str, int, float, bool, type(None))
    return [
        value
        if isinstance(value, plain)
        else yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6).strip()
        for value in values
    ]
