"""How `marsls` parses its words: flags are shown without a type, `tune training` means `search`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

_ALIASES = {"tune training": "search", "tune decision": "tune"}
"""Earlier names of commands, which scripts use."""


class Command(TyperCommand):
    """A command whose help shows flags without the type `<bool>`, and whose unknown options are looked up elsewhere.

    Example:
        >>> import typer
        >>> application = typer.Typer(add_completion=False)
        >>> @application.command(cls=Command)
        ... def hello(loud: bool = False) -> None:
        ...     '''Say hello.'''
        >>> application(["--loud"], standalone_mode=False)
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, among them --help; a flag has no type to show."""
        return without_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; if an option is unknown here, the error names the commands that have it."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = getattr(error, "option_name", None)
            siblings = ctx.parent.command.commands if ctx.parent is not None else {}
            others = [
                name
                for name, command in siblings.items()
                if option and not command.hidden and any(option in parameter.opts for parameter in command.params)
            ]
            if others and type(error).__name__ == "NoSuchOption":
                error.message += f". It is an option of marsls {', '.join(others)}"  # type: ignore[attr-defined]
            raise


class Group(TyperGroup):
    """The group of all commands; `tune training` is another name of `search`, and `tune decision` of `tune`.

    Example:
        >>> import typer
        >>> application = typer.Typer(cls=Group, add_completion=False)
        >>> @application.command()
        ... def search() -> None:
        ...     print("searching")
        >>> @application.command()
        ... def tune() -> None:
        ...     print("tuning")
        >>> application(["tune", "training"], standalone_mode=False)
        searching
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options, among them --help; a flag has no type to show."""
        return without_types(super().get_params(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return name, command and remaining arguments."""
        alias = _ALIASES.get(" ".join(args[:2]))
        return super().resolve_command(ctx, [alias, *args[2:]] if alias else args)


def without_types(parameters: list[Any]) -> list[Any]:
    """Give every flag among the parameters of a command an empty type, which the help shows as nothing.

    Example:
        >>> without_types([])
        []
    """
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
