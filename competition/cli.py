"""The command `marsls`: parse, call, print."""

from __future__ import annotations

import io
import json
import logging
import os
import shlex
import sys
import traceback
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from competition.cli_ledger import ledger_app
from marsls_keras import __version__
from marsls_keras.errors import InputError, Interrupted, MarslsError

app = typer.Typer(
    help="Segment Martian landslides in seven-band orbital tiles: check, train, tune, submit, score, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(ledger_app, name="ledger")
_state = {"debug": False}
_INTERRUPTED = 130  # 128 + SIGINT, as a shell has it

_Runs = Annotated[Path, Option("--runs", envvar="MARSLS_RUNS", help="Folder of the runs.")]
_Folds = Annotated[str | None, Option(help="Only these folds, such as 0,1; or full, the refit on all tiles.")]
_Json = Annotated[bool, Option("--json", help="Print JSON.")]
_OwnData = Annotated[Path | None, Option("--data", help="Where the run's data are now, if they were moved.")]
_RunNames = Annotated[list[str] | None, Option("--run", help="Run; repeat for an ensemble of several. Default: default.")]


_Form = StrEnum("_Form", ["mmls_v1", "mmls_v2", "challenge", "landslide4sense", "bijie", "nepal"])
_FormOrAuto = StrEnum("_FormOrAuto", ["auto", "mmls_v1", "mmls_v2", "challenge", "landslide4sense", "bijie", "nepal"])
_Release = Annotated[_FormOrAuto, Option(help="What the tiles are; auto tells by names and values.")]


class _Split(StrEnum):
    oof = "oof"
    train = "train"
    val = "val"
    test = "test"


class _Align(StrEnum):
    statistics = "statistics"
    batchnorm = "batchnorm"


_AlignTo = Annotated[_Align | None, Option("--align", help="Fit to all of these images together (transductive): z-score or BatchNorm.")]


class _What(StrEnum):
    decision = "decision"
    training = "training"


_Pruner = StrEnum("_Pruner", ["none", "median", "asha", "hyperband"])


def _version(wanted: bool) -> None:
    if wanted:
        print(f"marsls-keras {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    debug: Annotated[bool, Option("--debug", help="Show tracebacks and the messages of TensorFlow.")] = False,
    version: Annotated[bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    _state["debug"] |= debug  # the demo's steps are commands within a command


def _backend() -> None:
    """Import the deep-learning backend, which takes seconds, without its chatter."""
    from competition.console import quiet_stderr

    if not _state["debug"]:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    wanted = os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # else ~/.keras/keras.json would decide
    if wanted not in ("tensorflow", "jax") or find_spec(wanted) is None:
        hint = 'pip install "marsls-keras[jax]" brings it.' if wanted == "jax" else "Expected tensorflow or jax."
        raise InputError(f"KERAS_BACKEND={wanted}: there is no such backend here. {hint}")
    with quiet_stderr(_state["debug"]):
        from marsls_keras.training.device import accelerators

        accelerators()


def _parse_folds(text: str | None) -> list[Any] | None:
    if text is None or text == "full":
        return [text] if text else None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--folds {text}: expected numbers with commas between them, such as 0,1, or full.") from None


@app.command()
def synth(
    out: Annotated[Path, Argument(help="Folder to make.")],
    release: Annotated[_Form, Option(help="On-disk form of the tiles.")] = _Form.mmls_v2,
    train: Annotated[int, Option(help="Training tiles.")] = 40,
    val: Annotated[int, Option(help="Validation tiles.")] = 8,
    test: Annotated[int, Option(help="Test tiles.")] = 12,
    size: Annotated[int, Option(help="Height and width in pixels.")] = 128,
    seed: Annotated[int, Option(help="Equal seeds give equal tiles.")] = 0,
) -> None:
    """Make synthetic tiles, to try everything without data: of Valles Marineris, or in the form of a dataset of Earth."""
    from competition.console import show
    from marsls_keras.data.synth import write_dataset

    counts = write_dataset(out, release.value, train, val, test, size, seed)
    show(f"{out}: " + ", ".join(f"{number} {split} tiles" for split, number in counts.items()))


@app.command()
def check(
    data: Annotated[Path, Argument(envvar="MARSLS_DATA", help="Data folder.")] = Path("data"),
    release: _Release = _FormOrAuto.auto,
    resize: Annotated[int | None, Option(min=16, help="Bring tiles that differ in size to this one, as data.resize does.")] = None,
    images: Annotated[Path | None, Option(help="Also compare this folder of images, such as those to be predicted.")] = None,
    plot: Annotated[Path | None, Option(help="Draw the bands' distributions to this .png or .svg.")] = None,
    as_json: _Json = False,
) -> None:
    """Say what is in a data folder and what is wrong with it; exit code 2 if anything must be mended."""
    from competition.check import check_data
    from competition.console import show_check, show_json

    result = check_data(data, release.value, resize, images, plot)
    show_json(result) if as_json else show_check(result)
    if any(problem["severity"] == "error" for problem in result["problems"]):
        raise typer.Exit(2)


@app.command()
def models(as_json: _Json = False) -> None:
    """List the networks and their parameter counts, for seven bands and default options."""
    _backend()
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


@app.command()
def bench(
    config: Annotated[str, Option(help="Name of a recipe, or a YAML file.")] = "default",
    data: Annotated[Path | None, Option(envvar="MARSLS_DATA", help="Data folder; generated tiles by default.")] = None,
    settings: Annotated[list[str] | None, Option("--set", help="section.key=value; repeatable.")] = None,
    seconds: Annotated[float, Option(help="How long each figure is measured.")] = 8,
    peer: Annotated[str | None, Option(help="Also measure the same network in another library, in turns: torch.")] = None,
    as_json: _Json = False,
) -> None:
    """Measure decoding, the data pipeline, training and inference on this machine."""
    if peer is not None:  # the two share a GPU's memory, so neither may take all of it at once
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    _backend()
    from competition import bench as measure
    from competition.console import say, show, show_json

    result = measure.bench(config, settings or [], data, seconds, peer, say)
    show_json(result) if as_json else show(*measure.tables(result))


@app.command()
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
    pretrained: Annotated[str | None, Option(metavar="FILE", help="SwinV2 of timm to begin with: safetensors, or hf:REPOSITORY.")] = None,
    deterministic: Annotated[bool, Option("--deterministic", help="The same result to the bit, at some cost in speed.")] = False,
    devices: Annotated[int, Option(min=1, help="GPUs of this machine that share each batch.")] = 1,
    jobs: Annotated[int, Option(min=1, help="Folds to train at once, each on a GPU of its own, or sharing the cores.")] = 1,
    settings: Annotated[list[str] | None, Option("--set", help="section.key=value; repeatable.")] = None,
    runs: _Runs = Path("runs"),
) -> None:
    """Train one fold or all of them."""
    environments: list[dict[str, str]] = []
    if jobs > 1 and devices > 1:
        raise InputError(f"--jobs {jobs} and --devices {devices}: give one of them. Folds at once have one device each.")
    if jobs > 1 and fold == "all":
        from competition.side_by_side import device_environments

        environments = device_environments(jobs)
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # this process trains nothing, and must leave the GPUs to those that do
    _backend()
    from competition import workflow
    from competition.console import say, score_table, show

    settings = [
        *(settings or []),
        *(["training.deterministic=true"] if deterministic else []),
        *([f"model.pretrained={json.dumps(pretrained)}"] if pretrained is not None else []),  # JSON quotes as YAML does
    ]
    trained, results = workflow.train(config, settings, data, fold, runs, run, resume, overwrite, say, devices, environments, epochs=epochs)
    if fold == "full":
        done = results[0]
        show(f"{trained.name}: refit on all tiles, {done['epochs']} epoch(s), weights {done['best_weights']}.")
        show("It held nothing out, so it has no score.")
        show(_next("submit", ("--run", None if trained.name == "default" else trained.name), ("--folds", "full"), ("--runs", runs)))
        return
    if results:
        rows = [(f"fold {r['fold']}, epoch {r['best_epoch'] + 1} ({r['best_weights']})", r["scores"], None) for r in results]
        show(score_table(f"{trained.name}: held-out tiles at threshold 0.5", rows))
    left = [str(k) for k in range(trained.splits.folds) if trained.trouble(k)]
    named = [("--run", None if trained.name == "default" else trained.name), ("--runs", runs)]
    if left:
        show(f"Left to train: fold {', '.join(left)}.")
        show(_next("train", *named))
    else:
        show(_next("tune", *named))


def _next(command: str, *options: tuple[str, object]) -> str:
    """Return the line that says what to type next, as a shell takes it; options without value or with the usual one are left out."""
    given = [(flag, str(value)) for flag, value in options if value is not None and (flag, str(value)) != ("--runs", "runs")]
    return f"Next: marsls {shlex.join([command, *(word for option in given for word in option)])}"


@app.command()
def evaluate(
    run: Annotated[str, Argument(help="Name of the run.")],
    split: Annotated[_Split, Option(help="oof: the pool, out-of-fold; or a labelled split, predicted by the ensemble.")] = _Split.oof,
    folds: _Folds = None,
    data: _OwnData = None,
    release: _Release = _FormOrAuto.auto,
    worst: Annotated[int, Option(min=0, help="How many of the worst tiles to list.")] = 5,
    runs: _Runs = Path("runs"),
    as_json: _Json = False,
) -> None:
    """Score a run on labelled tiles, pooled and per tile, with a 95 % interval."""
    _backend()
    from competition import results
    from competition.console import detection_table, say, score_table, show, show_json

    result = results.evaluate(run, runs, split.value, _parse_folds(folds), data, release.value, say)
    if as_json:
        show_json(result)
        return
    title = f"{run} on {result['tiles']} tiles of {split.value}, views {result['views']}, threshold {result['threshold']:g}"
    show(score_table(title, [("pooled", result["scores"], result["interval"])]))
    if result["detection"]:
        show(detection_table(f"Tiles with landslide, threshold {result['detection']['threshold']:g}", result["detection"]))
    if worst:
        show(score_table("Worst tiles", [(t["tile"], t, None) for t in sorted(result["per_tile"], key=lambda t: t["miou"])[:worst]]))


@app.command()
def predict(
    run: Annotated[list[str], Argument(help="One run, or several to average.")],
    images: Annotated[Path, Option(help="Folder of image tiles.")],
    out: Annotated[Path, Option(help="Folder to write to.")],
    folds: _Folds = None,
    release: _Release = _FormOrAuto.auto,
    mosaic: Annotated[bool, Option("--mosaic", help="Also join all tiles to one GeoTIFF (needs the extra geo).")] = False,
    align: _AlignTo = None,
    runs: _Runs = Path("runs"),
    as_json: _Json = False,
) -> None:
    """Write probability and mask of every tile of a folder as TIFFs, with the tile's georeferencing."""
    _backend()
    from competition import results
    from competition.console import say, show, show_json

    result = results.predict(run, runs, images, out, _parse_folds(folds), release.value, mosaic, say, align and align.value)
    if as_json:
        show_json(result)
    else:
        show(
            f"{result['tiles']} tiles to {out}/probability and {out}/mask, {result['foreground_ratio']:.1%} landslide.", *result["mosaics"]
        )


@app.command()
def tune(
    what: Annotated[_What, Argument(help="decision: how predictions become masks. training: its settings.")] = _What.decision,
    run: _RunNames = None,
    folds: Annotated[str | None, Option("--folds", "--fold", help="Only these folds, such as 0,1; training: 0 by default.")] = None,
    data: Annotated[Path | None, Option("--data", help="Data folder of training; else where the run's data are now.")] = None,
    views: Annotated[list[str] | None, Option(help="decision: candidate set of views, such as d4 or d4@256; repeatable.")] = None,
    runs: _Runs = Path("runs"),
    config: Annotated[str | None, Option(help="training: name of a recipe, or a YAML file; default by default.")] = None,
    settings: Annotated[list[str] | None, Option("--set", help="training: section.key=value; repeatable.")] = None,
    epochs: Annotated[int | None, Option(help="training: epochs of a trial; the recipe's by default.")] = None,
    trials: Annotated[int | None, Option(min=1, help="Weights that are tried, 200; training: trials of the study, 40.")] = None,
    jobs: Annotated[int | None, Option(min=1, help="training: trials at once, each on a GPU of its own, or sharing the cores.")] = None,
    storage: Annotated[str | None, Option(help="training: journal file, or URL of a database that several machines share.")] = None,
    pruner: Annotated[_Pruner | None, Option(help="training: what stops hopeless trials early; median by default.")] = None,
    as_json: _Json = False,
) -> None:
    """Choose threshold, views, weights and post-processing on out-of-fold predictions; or search over training."""
    from competition.cli_search import SearchOptions, tune_training

    options = SearchOptions(config, settings, epochs, trials if what is _What.training else None, jobs, storage, pruner and pruner.value)
    if what is _What.training:
        if views:
            raise InputError("--views is for marsls tune decision.")
        raise typer.Exit(tune_training(options, run or [], _parse_folds(folds), data, runs, as_json, _backend, _next))
    options.refuse()
    _backend()
    from competition import workflow
    from competition.console import elements_table, say, score_table, show, show_json
    from competition.decision import described
    from marsls_keras.training.run_dir import Run

    names = run or ["default"]
    decision, path = workflow.tune(names, runs, _parse_folds(folds), data, trials or 200, views or [], say)
    if as_json:
        show_json(decision)
        return
    honest = decision["nested"]
    rows = [("threshold 0.5, no views", decision["baseline"]["scores"], decision["baseline"]["interval"])]
    if honest:
        rows.append(("tuned, nested across folds", honest["scores"], honest["interval"]))
    rows.append(("tuned, on the same tiles", decision["tuned"]["scores"], decision["tuned"]["interval"]))
    show(score_table(f"{'+'.join(names)}: {len(decision['folds'])} fold(s), out-of-fold", rows))
    show(elements_table("Elements of the decision, nested" + ("" if honest else " across halves of the fold"), decision["elements"]))
    if honest:
        gain = decision["gain"]
        low, high = gain["interval"]
        show(f"Gain of tuning: {gain['miou']:+.4f} mIoU (95 % interval {low:+.4f} to {high:+.4f}).")
        show("Quote the nested figure." if gain["miou"] > 0 else "Tuning did not help, so the plain decision is kept.")
    else:
        show("There is one fold only, so the tuned figure is optimistic; quote that of threshold 0.5.")
    show(f"Decision: {described(decision)} → {path}")
    if workflow.for_challenge(Run.open(runs / names[0])):
        show(_next("submit", *(("--run", name) for name in run or []), ("--folds", folds), ("--runs", runs)))


@app.command(hidden=True)
def trial() -> None:
    """Train one trial of a search; `tune training` starts it and tells it what to do."""
    _backend()
    from competition.trial import run_trial

    raise typer.Exit(run_trial())


@app.command()
def submit(
    context: typer.Context,
    run: _RunNames = None,
    images: Annotated[Path | None, Option(help="Folder of test images; test/images of the run's data by default.")] = None,
    out: Annotated[Path | None, Option(help="The zip; submissions/<run>.zip by default.")] = None,
    folds: _Folds = None,
    release: _Release = _FormOrAuto.auto,
    verify: Annotated[Path | None, Option(metavar="ZIP", help="Write nothing; check this zip, whoever made it, against --images.")] = None,
    align: _AlignTo = None,
    runs: _Runs = Path("runs"),
    as_json: _Json = False,
) -> None:
    """Predict the test images with all folds and views, and write a verified zip for CodaBench; or check one that is there."""
    if verify is not None:
        from competition.console import show_inspection, show_json
        from competition.inspection import expected_masks, inspect_zip, refuse_other_options

        refuse_other_options({name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")})
        inspected = inspect_zip(verify, expected_masks(images, run or [], runs, release.value))
        show_json(inspected) if as_json else show_inspection(inspected)
        raise typer.Exit(0 if inspected["good"] else 2)
    _backend()
    from competition import workflow
    from competition.console import say, show, show_json

    manifest = workflow.submit(run or ["default"], runs, images, out, _parse_folds(folds), release.value, say, align and align.value)
    if as_json:
        show_json(manifest)
        return
    show(f"{manifest['path']}: {manifest['tiles']} masks, {manifest['foreground_ratio']:.1%} landslide, verified.")
    if expected := manifest["expected"]:
        low, high = expected["interval"]
        show(f"Expected mIoU on tiles like those of training: {expected['miou']:.4f} ({low:.4f}–{high:.4f}).")


@app.command()
def score(
    zip_file: Annotated[Path, Argument(metavar="ZIP", help="A submission.")],
    masks: Annotated[Path, Option(help="Folder of the true masks.")],
    worst: Annotated[int, Option(min=0, help="How many of the worst tiles to list.")] = 0,
    csv: Annotated[Path | None, Option(help="Also write scores and counts of every tile to this file, the worst first.")] = None,
    as_json: _Json = False,
) -> None:
    """Say what CodaBench would say about a submission."""
    from competition.console import score_table, show, show_json
    from competition.scoring import score as score_zip
    from competition.scoring import write_tiles

    result = score_zip(zip_file, masks)
    if csv is not None:
        write_tiles(csv, result.tiles)
    if as_json:
        show_json({"zip": str(zip_file), "tiles": len(result.tiles), "scores": result.scores, "per_tile": result.tiles})
        return
    show(score_table(f"{zip_file}: {len(result.tiles)} tiles", [("pooled", result.scores, None)]))
    if worst:
        show(score_table("Worst tiles", [(tile["name"], tile, None) for tile in result.tiles[:worst]]))


@app.command()
def report(
    run: Annotated[list[str], Argument(help="One run, or several to compare.")],
    out: Annotated[Path | None, Option(help="The page; runs/<run>/report.html by default.")] = None,
    data: _OwnData = None,
    ledger: Annotated[Path | None, Option(help="Ledger with the leaderboard's answers; submissions/ledger.csv if there.")] = None,
    runs: _Runs = Path("runs"),
) -> None:
    """Write one HTML page: curves, thresholds, confusion, best and worst tiles, comparison of runs, the leaderboard's answers."""
    _backend()
    from competition import results
    from competition.console import say, show

    show(str(results.report(run, runs, out, data, say, ledger)))


@app.command()
def demo(
    out: Annotated[Path, Option(help="Folder to work in.")] = Path("demo"),
) -> None:
    """Do the whole job on generated tiles: synth, check, train, tune, submit, score, report."""
    from competition.demo import run_demo

    run_demo(out, _run)


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed while running, 2 wrong input or usage."""
    _state["debug"] = False
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # where a name or a sign cannot be written, it shows as its code
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(arguments)
        sys.stdout.flush()  # here, a full disk can still be told
        return code
    except (KeyboardInterrupt, typer.Abort):
        print("Interrupted.", file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:  # the last place where an error can become a message
        if isinstance(error, SystemExit):
            raise
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
    if _state["debug"]:
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


if __name__ == "__main__":
    sys.exit(main())
