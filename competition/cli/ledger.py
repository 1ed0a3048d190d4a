"""The commands `marsls ledger …`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, Typer
from typer.core import TyperGroup

from competition.cli.options import help_text, next_line
from competition.cli.parsing import Command, without_types

_Json = Annotated[bool, Option("--json", help="Print the result as JSON.")]


class _ShowByDefault(TyperGroup):
    """Command group that runs `marsls ledger` without a subcommand as `marsls ledger show`."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options, here only --help; a flag has no type to show."""
        return without_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the subcommand `show` if there is none."""
        alone = not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names)
        return super().parse_args(ctx, ["show", *args] if alone else args)


ledger_app = Typer(cls=_ShowByDefault, help="Compare expected scores with those of the leaderboard (show, add).")


def show(
    ledger: Annotated[Path | None, Option(help="The ledger file; by default submissions/ledger.csv.")] = None,
    as_json: _Json = False,
) -> None:
    """Show expected and leaderboard scores of each zip, and how they correlate.

    Example:
        ```sh
        marsls ledger show
        ```
    """
    from competition.console import show as print_out
    from competition.console import show_json, table
    from competition.ledger.answers import LEDGER, answers, correlations

    path = ledger or LEDGER
    lines = answers(path)
    related = correlations(lines)
    if as_json:
        show_json({"ledger": str(path), "lines": lines, "correlations": related})
        return

    def number(value: float | None, sign: str = "") -> str:
        return "–" if value is None else f"{value:{sign}z.4f}"

    rows = []
    for line in lines:
        bounds = "–".join(map(number, line["interval"] or ())) or "–"
        within = {None: "–", True: "yes", False: "no"}[line["inside"]]
        figures = [number(line["expected"]), bounds, number(line["score"]), number(line["difference"], "+"), within]
        rows.append([line["zip"], line["time"].split("T")[0], line["phase"] or "–", *figures])
    columns = ["zip", "written", "phase", "expected mIoU", "95 % interval", "leaderboard", "difference", "inside"]
    print_out(table(str(path), columns, rows))
    for group in related:
        whose = "all phases" if group["phase"] == "all" else f"phase {group['phase']}"
        print_out(
            f"{whose}, {group['lines']} zips: correlation of expected and actual "
            f"{number(group['pearson'], '+')} (Pearson), {number(group['spearman'], '+')} (Spearman)."
        )
    print_out("Inside: whether the leaderboard's score lies in the 95 % interval of the expected one.")
    print_out("Next: marsls report RUN draws expected scores against those of the leaderboard.")


def add(
    zip_file: Annotated[Path, Argument(metavar="ZIP", help="The zip that was submitted, or its name in the ledger.")],
    phase: Annotated[int, Option(help="Phase of the challenge, 1 or 2.")],
    score: Annotated[float, Option(help="The mIoU on the leaderboard, such as 0.86.")],
    name: Annotated[
        str | None, Option(help="Name of a zip that is not in the ledger yet; by default that of the file.")
    ] = None,
    ledger: Annotated[
        Path | None, Option(help="The ledger file; by default the one beside the zip, or submissions/ledger.csv.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Record the leaderboard score of a zip.

    Example:
        ```sh
        marsls ledger add submissions/default.zip --phase 1 --score 0.86
        ```
    """
    from competition.console import show as print_out
    from competition.console import show_json
    from competition.ledger.answers import record

    result = record(zip_file, phase, score, name, ledger)
    if as_json:
        show_json(result)
        return
    before = f" (was {result['replaced']})" if result["replaced"] else ""
    new = ", which was not in it yet" if result["new"] else ""
    print_out(f"{result['ledger']}: phase {phase}, score {score:g}{before}, noted for {result['zip']}{new}.")
    print_out(next_line("ledger") if ledger is None else next_line("ledger", "show", ("--ledger", ledger)))


for command in (show, add):
    ledger_app.command(cls=Command, help=help_text(command))(command)
