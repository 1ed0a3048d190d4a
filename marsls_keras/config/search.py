"""The section `search` of a recipe: the search space of `marsls search`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from marsls_keras.config.schema import Config
from marsls_keras.config.section import Section


class Range(Section):
    """Define a range of numbers of the search space, both ends included.

    Example:
        >>> Range(low=1e-4, high=1e-2, log=True).ends
        (0.0001, 0.01)
        >>> Range(type="int", low=1, high=9, step=4).ends
        (1, 9)
    """

    type: Literal["float", "int"] = Field("float", description="`int` draws whole numbers.")
    low: float = Field(description="The lowest value.")
    high: float = Field(description="The highest value.")
    log: bool = Field(
        False,
        description="Draw uniformly on a logarithmic scale, as suits learning rates and weight decay. Not together "
        "with `step`.",
    )
    step: float | None = Field(
        None,
        gt=0,
        description="Draw in steps of this size from `low`; they must lead to `high`. `null`: no steps.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be less than high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 where log is true, found {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step do not go together")
        if self.type == "int" and any(value % 1 for value in (self.low, self.high, self.step or 1)):
            raise ValueError("low, high and step must be whole numbers where type is int")
        steps = (self.high - self.low) / (self.step or 1)
        if self.step is not None and abs(steps - round(steps)) > 1e-9 * steps:
            raise ValueError(f"step ({self.step:g}) must lead from low ({self.low:g}) to high ({self.high:g})")
        return self

    @property
    def ends(self) -> tuple[float, float] | tuple[int, int]:
        """The lowest and the highest value."""
        return (int(self.low), int(self.high)) if self.type == "int" else (self.low, self.high)


Distribution = Range | tuple[Any, ...]
"""Search space of one key: a range, or a tuple of values, which may be whole sections."""


class Recipe(Config):
    """Hold a configuration and its search space, as read from a YAML file of `configs/`.

    A run stores the configuration without the search space.

    Example:
        >>> recipe = Recipe.model_validate({"search": {"training.learning_rate": [1e-3, 1e-4]}})
        >>> recipe.search, recipe.config == Config()
        ({'training.learning_rate': (0.001, 0.0001)}, True)
    """

    search: dict[str, Distribution] = Field(
        {},
        description="What `marsls search` tries: for each key, written with dots as for `--set`, a list of "
        "values or a range. Empty: learning rate, weight decay, loss and augmentation around the recipe's own.",
    )

    @field_validator("search", mode="before")
    @classmethod
    def _distributions(cls, value: Any) -> Any:
        """Read the search space of every key, and report all errors together."""
        if not isinstance(value, dict):
            raise ValueError(
                "expected keys of the configuration with what to try, such as {training.learning_rate: [1e-3, 1e-4]}"
            )
        read, wrong = {}, []
        for key, given in value.items():
            try:
                read[key] = _distribution(given)
            except ValidationError as error:
                wrong += [
                    ": ".join([str(key), *map(str, e["loc"]), e["msg"].removeprefix("Value error, ")])
                    for e in error.errors()
                ]
            except ValueError as error:
                wrong.append(f"{key}: {error}")
        if wrong:
            raise ValueError("; ".join(wrong))
        return read

    @property
    def config(self) -> Config:
        """The configuration without the search space."""
        return Config(**{name: getattr(self, name) for name in Config.model_fields})


def _distribution(value: Any) -> Distribution:
    """Read the search space of one key.

    Raises:
        ValueError: If it is neither a list of different values nor a valid range.
    """
    if isinstance(value, dict):
        return Range(**value)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(
            f"expected a list of values, or a range such as {{low: 1e-4, high: 1e-2, log: true}}, found {value!r}"
        )
    if any(one == other and type(one) is type(other) for i, one in enumerate(value) for other in value[:i]):
        raise ValueError(f"the same value is listed twice in {value!r}")
    return tuple(value)
