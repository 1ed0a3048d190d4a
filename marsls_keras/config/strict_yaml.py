"""Parse YAML strictly: no duplicate keys, plain values only, and bounded time for any file."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from marsls_keras.errors import InputError
from marsls_keras.files import require_text

_MOST_CHARACTERS = 1 << 16
"""Largest number of characters; a complete configuration has a twentieth, and parsing twice as many takes a second."""

_MOST_VALUES = 10_000
"""Largest number of values; those of an alias count at every use."""

_MOST_LEVELS = 32
"""Largest number of nested levels; a configuration has five."""


class _Loader(yaml.SafeLoader):
    """YAML loader that reads 1e-3 as a number, as in YAML 1.2, reads dates as text, and refuses duplicate keys."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node; refuse too many levels here already, as PyYAML slows down with every level."""
        self._depth += 1
        if self._depth > _MOST_LEVELS:
            raise yaml.composer.ComposerError(
                None, None, f"it is nested more than {_MOST_LEVELS} levels deep", self.peek_event().start_mark
            )
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping; refuse duplicate keys, of which PyYAML would take the last."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value} is there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_yaml(text: str, wrong: str) -> Any:
    """Parse YAML strictly; 1e-3 is a number, as in YAML 1.2, and a date is text.

    Args:
        text: The YAML text.
        wrong: Beginning of error messages, such as "Configuration a.yaml cannot be read".

    Raises:
        InputError: If the text is no valid YAML, too large, nested too deeply or within itself, or has a duplicate
            key or an invalid value, such as an integer of more than 64 bits or a value that does not match its tag.

    Example:
        >>> load_yaml("training: {learning_rate: 1e-3}", "mine.yaml cannot be read")
        {'training': {'learning_rate': 0.001}}
        >>> load_yaml("{a: 1, a: 2}", "mine.yaml cannot be read")
        Traceback (most recent call last):
            ...
        marsls_keras.errors.InputError: mine.yaml cannot be read: the key a is there twice
        ...
    """
    if len(text) > _MOST_CHARACTERS:
        raise InputError(
            f"{wrong}: it has {len(text):,} characters, and no configuration has more than {_MOST_CHARACTERS:,}."
        )
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count_values(node, (), {})
        value = loader.construct_document(node)
        require_text(value)
        _require_plain(value)
    except RecursionError:
        raise InputError(f"{wrong}: it is nested too deeply.") from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, KeyError, IndexError, AttributeError) as error:
        # PyYAML raises the last of these if a tag does not match its value, such as !!int x or !!float "".
        raise InputError(f"{wrong}: {str(error).partition(';')[0]}") from None
    return value


def _count_values(node: yaml.Node, above: tuple[int, ...], known: dict[int, int]) -> int:
    """Count the values of a node, including those behind aliases; refuse too many values or levels, and recursion."""
    if id(node) in above:
        raise ValueError(f"an alias names what it stands in, in line {node.start_mark.line + 1}")
    if len(above) > _MOST_LEVELS:
        raise ValueError(f"it is nested more than {_MOST_LEVELS} levels deep, in line {node.start_mark.line + 1}")
    if id(node) not in known:
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        inner = parts if isinstance(node, yaml.CollectionNode) else []
        known[id(node)] = 1 + sum(_count_values(part, (*above, id(node)), known) for part in inner)
        if known[id(node)] > _MOST_VALUES:
            raise ValueError(f"it has more than {_MOST_VALUES:,} values, aliases counted")
    return known[id(node)]


def _require_plain(value: Any) -> None:
    """Refuse values that no configuration needs: bytes, sets and dates by tag, and integers of more than 64 bits."""
    if isinstance(value, dict):
        for inner in value.values():
            _require_plain(inner)
    elif isinstance(value, list):
        for inner in value:
            _require_plain(inner)
    elif isinstance(value, int) and abs(value) >= 1 << 63:
        raise ValueError("a whole number has more than 64 bits")
    elif value is not None and not isinstance(value, str | bool | int | float):
        raise ValueError(f"expected text, numbers, lists and sections, found a {type(value).__name__}")
