"""The command `marsls`: register all subcommands, run one, and turn errors into messages and exit codes."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer
from typer import Option

from competition.cli.arguments import require_arguments
from competition.cli.bench import bench
from competition.cli.benchmark import benchmark, benchmark_step
from competition.cli.check import check
from competition.cli.closed_output import close_output, output_closed
from competition.cli.demo import demo
from competition.cli.doctor import doctor
from competition.cli.evaluate import evaluate
from competition.cli.ledger import ledger_app
from competition.cli.map import map_
from competition.cli.messages import messages_on_stderr
from competition.cli.models import models
from competition.cli.new import new
from competition.cli.options import help_text
from competition.cli.parsing import Command, Group
from competition.cli.predict import predict
from competition.cli.recipes import recipes
from competition.cli.report import report
from competition.cli.running import INTERRUPTED, run
from competition.cli.score import score
from competition.cli.search import search
from competition.cli.stack import stack
from competition.cli.submit import submit
from competition.cli.synth import synth
from competition.cli.tile import tile
from competition.cli.train import train
from competition.cli.trial import trial
from competition.cli.tune import tune
from marsls_keras import __version__
from marsls_keras.backend import state
from marsls_keras.errors import Interrupted, MarslsError

app = typer.Typer(
    cls=Group,
    help="Segment Martian landslides in seven-band orbital tiles. In this order: check, train, tune, submit, report.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PANELS: dict[str, tuple[Callable[..., object], ...]] = {
    "Start": (demo, doctor, synth, check),
    "Train": (recipes, models, train, tune, search, bench, benchmark),
    "Results": (evaluate, predict, report),
    "Rasters of a region": (stack, tile, map_),
    "Challenge": (submit, score),
    "Your own parts": (new,),
}
"""The commands by the heading under which the help lists them."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"marsls-keras {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    debug: Annotated[
        bool, Option("--debug", help="Show tracebacks of errors, and the messages of TensorFlow.")
    ] = False,
    version: Annotated[bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    state["debug"] |= debug  # |=, since the steps of the demo are commands within a command


for panel, commands in PANELS.items():
    for command in commands:
        name = command.__name__.strip("_")  # map_, since map is a function of Python
        app.command(name, cls=Command, help=help_text(command), rich_help_panel=panel)(command)
app.add_typer(ledger_app, name="ledger", rich_help_panel="Challenge")
for hidden in (trial, benchmark_step):
    app.command(cls=Command, help=help_text(hidden), hidden=True)(hidden)


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed while running, 2 wrong input or usage.

    Args:
        arguments: The words after `marsls`; those of this process by default.

    Returns:
        The exit code; 130 after Ctrl-C, 141 if standard output is closed, 128 + its number after another signal.

    Example:
        >>> import contextlib
        >>> with contextlib.redirect_stdout(io.StringIO()) as output:
        ...     code = main(["--version"])
        >>> code, output.getvalue().split()[0]
        (0, 'marsls-keras')
    """
    state["debug"] = False
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the encoding lacks is shown as its code
            stream.reconfigure(errors="backslashreplace")
    try:
        require_arguments(sys.argv[1:] if arguments is None else arguments, os.environ)
        with messages_on_stderr():
            code = run(app, arguments)
        if sys.stdout is not None:  # None if the parent process closed it
            sys.stdout.flush()  # while a full disk can still be reported
        return code
    except (KeyboardInterrupt, typer.Abort):
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:  # typer and rich exit so if a pipe is closed
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        return close_output()
    except Exception as error:  # the last place where an error can become a message
        if isinstance(error, BrokenPipeError) and output_closed():
            return close_output()
        return _explain(error)


def _explain(error: Exception) -> int:
    """Print an error, with its traceback only under --debug, and return the exit code."""
    if state["debug"]:
        traceback.print_exc()
    if isinstance(error, Interrupted):
        print(f"{error} Go on with the same command and --resume.", file=sys.stderr)
        return error.exit_code
    if isinstance(error, MarslsError):
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    if hasattr(error, "exit_code") and hasattr(error, "show"):  # usage errors of the command-line parser
        error.show()
        return error.exit_code
    if isinstance(error, OSError):
        print(f"Error: {error.filename or 'reading or writing a file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    # TensorFlow reports a full disk, while it writes events, in the same way as full memory.
    if type(error).__name__ == "ResourceExhaustedError" or "RESOURCE_EXHAUSTED" in str(error):
        reason = str(error).splitlines()[0]
        print(
            f"Error: memory or disk ran out: {reason}\nLower batch_size in training and inference, or free some space.",
            file=sys.stderr,
        )
        return 1
    print(f"Error: {type(error).__name__}: {error}\nThis is a bug; marsls --debug … shows where.", file=sys.stderr)
    return 1
