"""Check the encoding of arguments and environment variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from marsls_keras.errors import InputError
from marsls_keras.files import require_text


def require_arguments(arguments: Iterable[str], environment: Mapping[str, str]) -> None:
    """Raise an error if an argument or a variable MARSLS_… has a NUL character or is not valid UTF-8.

    Args:
        arguments: The arguments of the command.
        environment: The environment variables.

    Raises:
        InputError: If one does; it is named.

    Example:
        >>> require_arguments(["train", "--fold", "0"], {"MARSLS_DATA": "data"})
    """
    named = [*(("", value) for value in arguments)]
    named += [(f"{name}=", value) for name, value in environment.items() if name.startswith("MARSLS_")]
    for name, value in named:
        try:
            require_text(value)
        except ValueError:
            raise InputError(f"{name}{ascii(value)[1:-1]}: expected text in UTF-8, without NUL characters.") from None
