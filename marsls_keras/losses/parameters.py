"""Validate the parameters of a loss term from a specification, and compute missing ones from training masks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import numpy as np
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


@dataclass(frozen=True)
class FromMasks:
    """Annotation of a parameter that is computed from the training masks if it is not given.

    Attributes:
        compute: Function from an integer array of masks {0, 1}, of any shape, to the value.

    Example:
        >>> Threshold = Annotated[float | None, FromMasks(lambda masks: float(masks.mean()))]
    """

    compute: Callable[[np.ndarray], float]


def read_term(name: str, function: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """Validate the weight and parameters of a term, and fill in defaults.

    Args:
        name: Name of the term.
        function: The term; its keyword-only arguments are the parameters, validated by their annotations.
        values: Weight and parameters in the specification.

    Raises:
        InputError: If a parameter is unknown, has the wrong type or is out of range.

    Example:
        >>> from marsls_keras.losses import LOSSES
        >>> read_term("dice", LOSSES["dice"], {"smooth": 2.0})
        {'weight': 1.0, 'smooth': 2.0, 'epsilon': 0.0, 'reduction': 'pooled'}
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
        wrong = [
            f"loss.{name}.{key}: {e['msg'].removeprefix('Value error, ')}. Received: {e['input']!r}"
            for key, e in found.items()
        ]
        raise InputError(wrong[0] if len(wrong) == 1 else f"loss.{name}:{listing(wrong)}") from None


def fill_from_masks(
    name: str, function: Callable[..., Any], term: dict[str, Any], masks: np.ndarray | None
) -> dict[str, Any]:
    """Compute the missing parameters of a term from training masks (`FromMasks`).

    Args:
        name: Name of the term.
        function: The term.
        term: Its weight and parameters, as `read_term` returns them.
        masks: Training masks {0, 1}, an integer array of any shape; None if there are none.

    Raises:
        InputError: If a value is needed and there are no masks, or the computed one is out of range.

    Example:
        >>> from marsls_keras.losses import LOSSES
        >>> term = read_term("weighted_bce", LOSSES["weighted_bce"], {})
        >>> fill_from_masks("weighted_bce", LOSSES["weighted_bce"], term, np.array([0, 0, 0, 1]))["positive_weight"]
        3.0
    """
    marks = {
        key: mark
        for key, field in _section(function).model_fields.items()
        for mark in field.metadata
        if isinstance(mark, FromMasks)
    }
    lacking = [key for key in marks if term[key] is None]
    if not lacking:
        return term
    if masks is None:
        raise InputError(
            f"loss.{name}.{lacking[0]}: expected a number, since there are no training masks to compute it from."
        )
    return read_term(name, function, {**term, **{key: float(marks[key].compute(masks)) for key in lacking}})


@cache
def _section(function: Callable[..., Any]) -> type[Section]:
    """Return a configuration section class with a term's weight and parameters as keys."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    keys = {
        # A parameter without an annotation, in a plug-in, takes any value.
        p.name: (Any if p.annotation is inspect.Parameter.empty else p.annotation, p.default)
        for p in parameters
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    fields: dict[str, Any] = {"weight": (NotNegative, 1.0), **keys}
    return create_model(function.__name__, __base__=Section, **fields)
