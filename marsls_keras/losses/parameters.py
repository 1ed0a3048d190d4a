"""The parameters of a loss term: what they may be, and reading them from a specification."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, create_model

from marsls_keras.config.section import Section
from marsls_keras.errors import InputError, listing
from marsls_keras.suggestions import did_you_mean


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd")
    return value


NotNegative = Annotated[float, Field(ge=0)]
Smoothing = Annotated[float, Field(ge=0, lt=1)]
Window = Annotated[int, Field(ge=3), AfterValidator(_odd)]


def read_term(name: str, function: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return the weight and all parameters of a term, defaults filled in.

    Args:
        name: Name of the term.
        function: The term; its parameters are its keyword-only ones, their annotations say what they may be.
        values: What the specification gives.

    Raises:
        InputError: If a parameter is unknown, has the wrong type or is out of range.
    """
    section = _section(function)
    try:
        return section.model_validate(values, strict=True).model_dump()
    except ValidationError as error:
        found = {str(e["loc"][0]): e for e in error.errors()}
        unknown = [key for key, e in found.items() if e["type"] == "extra_forbidden"]
        if unknown:
            hint = did_you_mean(unknown[0], section.model_fields)
            what = f"loss.{name} has no parameter {', '.join(unknown)}.{hint}"
            raise InputError(f"{what} It has: {', '.join(section.model_fields)}.") from None
        wrong = [f"loss.{name}.{key}: {e['msg'].removeprefix('Value error, ')}. Received: {e['input']!r}" for key, e in found.items()]
        raise InputError(wrong[0] if len(wrong) == 1 else f"loss.{name}:{listing(wrong)}") from None


@cache
def _section(function: Callable[..., Any]) -> type[Section]:
    """Return a section of the configuration with a term's weight and parameters as keys."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    keys = {p.name: (p.annotation, p.default) for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    fields: dict[str, Any] = {"weight": (NotNegative, 1.0), **keys}
    return create_model(function.__name__, __base__=Section, **fields)
