"""Generate `configs/KEYS.md`, the reference of all configuration keys: `python -m marsls_keras.config.reference`."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import annotated_types
import yaml
from pydantic.fields import FieldInfo

from marsls_keras.config.augmentation import PRESETS, Augmentation
from marsls_keras.config.recipe_files import recipe_folder
from marsls_keras.config.search import Range, Recipe
from marsls_keras.config.section import Section
from marsls_keras.files import write_text

_HEAD = """# Reference of keys

<!-- Written by `python -m marsls_keras.config.reference` from the descriptions in marsls_keras/config: edit those. -->

Every key of a recipe, with the values it takes, its default, and when to change it. A recipe needs only the keys that
it changes. `--set` takes a key as it is written here: `--set training.epochs=30`. An unknown key is an error that names
the nearest one.
"""

_TABLE = "| key | values | default | what it does |\n|---|---|---|---|\n"


def reference() -> str:
    """Return the text of `configs/KEYS.md`: a Markdown table for each section, and one of the augmentation presets.

    Example:
        >>> "| `training.epochs` | whole number ≥ 1 | `60` |" in reference()
        True
    """
    contents = " · ".join(f"[{name}](#{name})" for name in Recipe.model_fields)
    return "\n".join(
        [_HEAD, f"Sections: {contents}\n", *(_page(name, field) for name, field in Recipe.model_fields.items())]
    )


def _page(name: str, field: FieldInfo) -> str:
    """Return the Markdown of one section of a recipe."""
    kind = field.annotation
    if _is_section(kind):
        page = f"{field.description}\n\n{_TABLE}" + "\n".join(_rows(name, kind)) + "\n"
        return f"## {name}\n\n{page}" + (
            f"\n### Presets of augmentation\n\n{_presets()}" if kind is Augmentation else ""
        )
    page = f"## {name}\n\n{field.description}\n\nDefault: {_default(field)}.\n"
    if name != "search":
        return page
    return f"{page}\nA range has these keys:\n\n{_TABLE}" + "\n".join(_rows("search.KEY", Range)) + "\n"


def _rows(prefix: str, section: Any) -> Iterator[str]:
    """Yield the table rows of a section's keys, including those of nested sections."""
    if section is Augmentation:
        meaning = "A set of values, see below. It begins the section anew."
        yield f"| `{prefix}.preset` | {_choices(PRESETS)} | `flips` | {meaning} |"
    for name, field in section.model_fields.items():
        key, kinds = f"{prefix}.{name}", [kind for kind in typing.get_args(field.annotation) if _is_section(kind)]
        if _is_section(field.annotation):
            yield f"| **`{key}`** | section | | {field.description} |"
            yield from _rows(key, field.annotation)
        elif kinds:
            yield f"| **`{key}`** | section | {_default(field)} | {field.description} |"
            yield from _rows_of_kinds(key, kinds)
        else:
            yield f"| `{key}` | {_values(field.annotation, field.metadata)} | {_default(field)} | {field.description} |"


def _rows_of_kinds(prefix: str, kinds: list[type[Section]]) -> Iterator[str]:
    """Yield the table rows of a section of several kinds, which its key `name` selects."""
    names = {kind.model_fields["name"].default: kind for kind in kinds}
    meanings = " ".join(f"`{name}`: {kind.model_fields['name'].description}" for name, kind in names.items())
    yield f"| `{prefix}.name` | {_choices(names)} | | {meanings} |"
    for name, kind in names.items():
        for key, field in kind.model_fields.items():
            if key != "name":
                values = _values(field.annotation, field.metadata)
                yield f"| `{prefix}.{key}` | {values} | {_default(field)} | With `name: {name}`. {field.description} |"


def _is_section(kind: Any) -> bool:
    """Return whether a type is a subclass of `Section`."""
    return isinstance(kind, type) and issubclass(kind, Section)


def _values(kind: Any, metadata: Iterable[Any] = ()) -> str:
    """Describe the values of a type in words, such as "whole number ≥ 1"."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _values(inner[0], inner[1:])
    if origin is Literal:
        return _choices(inner)
    if origin in (types.UnionType, typing.Union):
        return " or ".join("`null`" if one is types.NoneType else _values(one, metadata) for one in inner)
    if origin is tuple:
        values = _values(inner[0]).replace("number", "numbers")
        return f"list of {values}" if inner[-1] is Ellipsis else f"two {values}"
    names: dict[Any, str] = {int: "whole number", float: "number", str: "text", bool: _choices(("true", "false"))}
    return " ".join([names.get(kind, "section"), *_bounds(metadata)])


def _bounds(metadata: Iterable[Any]) -> list[str]:
    """Describe the bounds of a number, such as ["≥ 0, < 1"]; return an empty list if there are none."""
    found = {
        sign: getattr(bound, name)
        for entry in metadata
        for bound in (entry.metadata if isinstance(entry, FieldInfo) else [entry])
        for sign, name in (("≥", "ge"), (">", "gt"), ("≤", "le"), ("<", "lt"))
        if isinstance(bound, getattr(annotated_types, name.title()))
    }
    if set(found) == {"≥", "≤"}:
        return [f"from {found['≥']} to {found['≤']}"]
    return [", ".join(f"{sign} {bound}" for sign, bound in found.items())] if found else []


def _choices(names: Iterable[str]) -> str:
    """Join names for a table cell, separated by bars."""
    return " \\| ".join(f"`{name}`" for name in names)


def _default(field: FieldInfo) -> str:
    """Return the default of a key as one line of YAML; empty if the key is required."""
    if field.is_required():
        return ""
    value = field.default.model_dump() if isinstance(field.default, Section) else field.default
    if isinstance(value, tuple):
        value = list(value)
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return f"`{text.strip().removesuffix('...').strip()}`"


def _presets() -> str:
    """Return the table of presets: probability of each transformation, and its parameters that are not the default."""
    presets = {name: Augmentation.model_validate({"preset": name}) for name in PRESETS}
    lines = ["| change | " + " | ".join(f"`{name}`" for name in presets) + " |", "|---" * (len(presets) + 1) + "|"]
    for change, default in Augmentation():
        if change == "custom":
            continue
        cells = [_strength(getattr(preset, change), default) for preset in presets.values()]
        lines.append(f"| `{change}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _strength(value: Any, default: Any) -> str:
    """Return the table cell of one transformation in one preset."""
    if not isinstance(value, Section):
        return f"{value:g}"
    strength = {
        key: list(part) if isinstance(part, tuple) else part for key, part in value if part != getattr(default, key)
    }
    probability = strength.pop("probability", 0)
    return f"{probability:g}" + (
        f" ({', '.join(f'{key} {part}' for key, part in strength.items())})" if strength else ""
    )


if __name__ == "__main__":
    write_text(sys.argv[1] if len(sys.argv) > 1 else recipe_folder() / "KEYS.md", reference())
