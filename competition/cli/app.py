"""The command `marsls`: parse, call, print."""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from competition.cli.closed_output import close_output, output_closed
from competition.cli.ledger import ledger_app
from competition.cli.options import AsJson, Conflicts, Form, FormOrAuto, Release, Runs, next_line
from competition.cli.results import evaluate, predict, report, score
from competition.cli.submit import submit
from competition.cli.tune import tune
from marsls_keras import __version__
from marsls_keras.backend import backend, state
from marsls_keras.errors import InputError, Interrupted, MarslsError
from marsls_keras.runs.names import require_arguments

app = typer.Typer(
    help="Segment Martian landslides in seven-band orbital tiles: check, train, tune, submit, score, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(ledger_app, name="ledger")
_INTERRUPTED = 130  # 128 + SIGINT, as a shell has it


def _version(wanted: bool) -> None:
    if wanted:
        print(f"marsls-keras {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    debug: Annotated[bool, Option("--debug", help="Show tracebacks and the messages of TensorFlow.")] = False,
    version: Annotated[bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    state["debug"] |= debug  # the demo's steps are commands within a command


def synth(
    out: Annotated[Path, Argument(help="Folder to make.")],
    release: Annotated[Form, Option(help="On-disk form of the tiles.")] = Form.mmls_v2,
    train: Annotated[int, Option(help="Training tiles.")] = 40,
    val: Annotated[int, Option(help="Validation tiles.")] = 8,
    test: Annotated[int, Option(help="Test tiles.")] = 12,
    size: Annotated[int, Option(help="Height and width in pixels.")] = 128,
    seed: Annotated[int, Option(help="Equal seeds give equal tiles.")] = 0,
) -> None:
    """Make synthetic tiles, to try everything without data: of Valles Marineris, or in the form of a dataset of Earth."""
    from competition.console import show
    from marsls_keras.data.synthetic.mars import write_dataset

    counts = write_dataset(out, release.value, train, val, test, size, seed)
    show(f"{out}: " + ", ".join(f"{number} {split} tiles" for split, number in counts.items()))


def check(
    data: Annotated[Path, Argument(envvar="MARSLS_DATA", help="Data folder.")] = Path("data"),
    release: Release = FormOrAuto.auto,
    resize: Annotated[int | None, Option(min=16, help="Bring tiles that differ in size to this one, as data.resize does.")] = None,
    images: Annotated[Path | None, Option(help="Also compare this folder of images, such as those to be predicted.")] = None,
    conflicts: Annotated[Conflicts, Option(help="Copies of a tile whose masks differ, as data.conflicts.")] = Conflicts.error,
    plot: Annotated[Path | None, Option(help="Draw the bands' distributions to this .png or .svg.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is in a data folder and what is wrong with it; exit code 2 if anything must be mended."""
    from competition.commands.check import check_data
    from competition.console import show_check, show_json

    result = check_data(data, release.value, resize, images, plot, conflicts.value)
    show_json(result) if as_json else show_check(result)
    if any(problem["severity"] == "error" for problem in result["problems"]):
        raise typer.Exit(2)


def models(as_json: AsJson = False) -> None:
    """List the networks and their parameter counts, for seven bands and default options."""
    from competition.console import show, show_json, table
    from marsls_keras.models import describe_models

    rows = describe_models()
    if as_json:
        show_json(rows)
    else:
        show(
            table(
                "Models",
                ["name", "parameters", "trainable", "options"],
                [[r["name"], f"{r['parameters']:,}", f"{r['trainable']:,}", r["options"]] for r in rows],
            )
        )


def bench(
    config: Annotated[str, Option(help="Name of a recipe, or a YAML file.")] = "default",
    data: Annotated[Path | None, Option(envvar="MARSLS_DATA", help="Data folder; generated tiles by default.")] = None,
    settings: Annotated[list[str] | None, Option("--set", help="section.key=value; repeatable.")] = None,
    seconds: Annotated[float, Option(help="How long each figure is measured.")] = 8,
    peer: Annotated[str | None, Option(help="Also measure the same network in another library, in turns: torch.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure decoding, the data pipeline, training and inference on this machine."""
    if peer is not None:  # the two share a GPU's memory, so neither may take all of it at once
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from competition.bench import bench as measure
    from competition.console import say, show, show_json

    result = measure.bench(config, settings or [], data, seconds, peer, say)
    show_json(result) if as_json else show(*measure.tables(result))


def train(
    config: Annotated[str | None, Option(help="Name of a recipe, or a YAML file; default, or what the run was begun with.")] = None,
    data: Annotated[Path | None, Option(envvar="MARSLS_DATA", help="Data folder; data, or that of the run.")] = None,
    fold: Annotated[str, Option(help="Number of a fold, all, or full: the refit that holds nothing out.")] = "all",
    run: Annotated[str | None, Option(help="Name of the run; the configuration's by default.")] = None,
    resume: Annotated[bool, Option("--resume", help="Go on with an interrupted fold.")] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Train anew; the earlier fold is kept as fold_<k>.old.")] = False,
    epochs: Annotated[
        int | None,
        Option(help="Number of epochs; with --resume also more than the run was begun with; of fold full by default that of the folds."),
    ] = None,
    pseudo: Annotated[
        Path | None, Option(metavar="DIR", help="Images that fold full trains on, too, labelled by the finished folds (transductive).")
    ] = None,
    confidence: Annotated[
        float | None, Option(help="How certain a pixel of --pseudo has to be to count as landslide or as background; 0.9 by default.")
    ] = None,
    pretrained: Annotated[str | None, Option(metavar="FILE", help="First weights: FILE, pip:efficientnet_lite0, hf:REPOSITORY.")] = None,
    deterministic: Annotated[bool, Option("--deterministic", help="The same result to the bit, at some cost in speed.")] = False,
    devices: Annotated[int, Option(min=1, help="GPUs of this machine that share each batch.")] = 1,
    jobs: Annotated[int, Option(min=1, help="Folds to train at once, each on a GPU of its own, or sharing the cores.")] = 1,
    settings: Annotated[list[str] | None, Option("--set", help="section.key=value; repeatable.")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Train one fold or all of them."""
    environments: list[dict[str, str]] = []
    if jobs > 1 and devices > 1:
        raise InputError(f"--jobs {jobs} and --devices {devices}: give one of them. Folds at once have one device each.")
    if jobs > 1 and fold == "all":
        from competition.processes import device_environments

        environments = device_environments(jobs)
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # this process trains nothing, and must leave the GPUs to those that do
    from competition.commands import workflow
    from competition.console import say, score_table, show

    settings = [
        *(settings or []),
        *(["training.deterministic=true"] if deterministic else []),
        *([f"model.pretrained={json.dumps(pretrained)}"] if pretrained is not None else []),  # JSON quotes as YAML does
    ]
    if resume and overwrite:
        raise InputError("--resume goes on with a fold and --overwrite begins it anew: give one of them.")
    common = config, settings, data, fold, runs, run, resume, overwrite, say, devices, environments
    trained, results = workflow.train(*common, epochs=epochs, pseudo=pseudo, confidence=confidence)
    if fold == "full":
        done = results[0]
        show(f"{trained.name}: refit on all tiles, {done['epochs']} epoch(s), weights {done['best_weights']}.")
        show("It held nothing out, so it has no score.")
        show(next_line("submit", ("--run", None if trained.name == "default" else trained.name), ("--folds", "full"), ("--runs", runs)))
        return
    if results:
        rows = [(f"fold {r['fold']}, epoch {r['best_epoch'] + 1} ({r['best_weights']})", r["scores"], None) for r in results]
        show(score_table(f"{trained.name}: held-out tiles at threshold 0.5", rows))
    left = [str(k) for k in range(trained.splits.folds) if trained.trouble(k)]
    named = [("--run", None if trained.name == "default" else trained.name), ("--runs", runs)]
    if left:
        show(f"Left to train: fold {', '.join(left)}.")
        trial = workflow.trial_of(trained) is not None  # whose number of epochs has to be said again
        show(next_line("train", *named, ("--epochs", trained.config.training.epochs if trial else None)))
    else:
        show(next_line("tune", *named))


def trial() -> None:
    """Train one trial of a search; `tune training` starts it and tells it what to do."""
    backend()
    from competition.search.trial import run_trial

    raise typer.Exit(run_trial())


def demo(
    out: Annotated[Path, Option(help="Folder to work in.")] = Path("demo"),
) -> None:
    """Do the whole job on generated tiles: synth, check, train, tune, submit, score, report."""
    from competition.commands.demo import run_demo

    run_demo(out, _run)


for command in (synth, check, models, bench, train, evaluate, predict, tune, submit, score, report, demo):
    app.command()(command)
app.command(hidden=True)(trial)


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed while running, 2 wrong input or usage."""
    state["debug"] = False
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # where a name or a sign cannot be written, it shows as its code
            stream.reconfigure(errors="backslashreplace")
    try:
        require_arguments(sys.argv[1:] if arguments is None else arguments, os.environ)
        code = _run(arguments)
        if sys.stdout is not None:  # closed by whoever started this
            sys.stdout.flush()  # here, a full disk can still be told
        return code
    except (KeyboardInterrupt, typer.Abort):
        print("Interrupted.", file=sys.stderr)
        return _INTERRUPTED
    except SystemExit as stop:  # as typer and rich end where a pipe is closed
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        return close_output()
    except Exception as error:  # the last place where an error can become a message
        if isinstance(error, BrokenPipeError) and output_closed():
            return close_output()
        return _explain(error)


def _run(arguments: list[str] | None) -> int:
    """Run a command and return its exit code; errors are raised."""
    try:
        code = int(app(args=arguments, prog_name="marsls", standalone_mode=False) or 0)
    except typer.Exit as stop:
        code = stop.exit_code
    if code == _INTERRUPTED:  # typer makes an exit code of Ctrl-C
        raise KeyboardInterrupt
    return code


def _explain(error: Exception) -> int:
    """Print an error, with its traceback only if asked for, and return the exit code."""
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
    if type(error).__name__ == "ResourceExhaustedError" or "RESOURCE_EXHAUSTED" in str(error):  # also while events are written: the disk
        reason = str(error).splitlines()[0]
        print(f"Error: memory or disk ran out: {reason}\nLower batch_size in training and inference, or free some space.", file=sys.stderr)
        return 1
    print(f"Error: {type(error).__name__}: {error}\nThis is a bug; marsls --debug … shows where.", file=sys.stderr)
    return 1
