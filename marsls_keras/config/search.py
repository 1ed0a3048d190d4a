"""The search section of a recipe: for keys of the configuration, the values that `marsls tune training` tries."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from marsls_keras.config.schema import Config
from marsls_keras.config.section import Section


class Range(Section):
    """Numbers from low to high, both included: whole ones if `type` is int; evenly in their logarithm with `log`; in steps with `step`."""

    type: Literal["float", "int"] = "float"
    low: float
    high: float
    log: bool = False
    step: float | None = Field(None, gt=0)

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
"""A range, or the values of which one is taken: anything that the key may be, a whole section too."""


class Recipe(Config):
    """A configuration, and what to search from there on; a run knows its configuration alone.

    search: dotted keys, as for --set, and for each a list of values, or a range {low, high, log, step, type}.
    """

    search: dict[str, Distribution] = {}

    @field_validator("search", mode="before")
    @classmethod
    def _distributions(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("expected keys of the configuration with what to try, such as {training.learning_rate: [1e-3, 1e-4]}")
        read, wrong = {}, []
        for key, given in value.items():
            try:
                read[key] = _read(given)
            except ValidationError as error:
                wrong += [": ".join([str(key), *map(str, e["loc"]), e["msg"].removeprefix("Value error, ")]) for e in error.errors()]
            except ValueError as error:
                wrong.append(f"{key}: {error}")
        if wrong:
            raise ValueError("; ".join(wrong))
        return read

    @property
    def config(self) -> Config:
        """The configuration alone."""
        return Config(**{name: getattr(self, name) for name in Config.model_fields})


def _read(value: Any) -> Distribution:
    """Return what a key's value in the section `search` says.

    Raises:
        ValueError: If it is neither a list of different values nor a possible range.
    """
    if isinstance(value, dict):
        return Range(**value)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"expected a list of values, or a range such as {{low: 1e-4, high: 1e-2, log: true}}, found {value!r}")
    if any(one == other and type(one) is type(other) for i, one in enumerate(value) for other in value[:i]):
        raise ValueError(f"the same value is listed twice in {value!r}")
    return tuple(value)
