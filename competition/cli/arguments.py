"""Arguments that files can be named by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from marsls_keras.errors import InputError
from marsls_keras.files import require_text


def require_arguments(arguments: Iterable[str], environment: Mapping[str, str]) -> None:
    """Refuse arguments, and variables of ours, that are no text: with a NUL character, or bytes that are no UTF-8.

    Raises:
        InputError: If there are any.
    """
    named = [*(("", value) for value in arguments)]
    named += [(f"{name}=", value) for name, value in environment.items() if name.startswith("MARSLS_")]
    for name, value in named:
        try:
            require_text(value)
        except ValueError:
            raise InputError(f"{name}{ascii(value)[1:-1]}: expected text in UTF-8, without NUL characters.") from None
