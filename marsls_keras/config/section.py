"""Base class of all configuration sections, and the field types that several sections share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """Base class of configuration sections: frozen; unknown keys, NaN and infinite numbers are errors.

    Every key has a `Field(description=…)`, from which `marsls_keras.config.reference` writes the reference of keys.

    Example:
        >>> class Blur(Section):
        ...     sigma: Positive = 1.0
        >>> Blur(sigma=2).sigma
        2.0
        >>> Blur(sgima=2)
        Traceback (most recent call last):
            ...
        pydantic_core._pydantic_core.ValidationError: 1 validation error for Blur
        ...
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
