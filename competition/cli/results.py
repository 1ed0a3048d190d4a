"""The commands `marsls evaluate`, `predict`, `score` and `report`: parse, call, print."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from competition.cli.options import Align, AlignTo, AsJson, Folds, FormOrAuto, OwnData, Purpose, Release, Runs, parse_folds
from marsls_keras.errors import InputError


class _Split(StrEnum):
    oof = "oof"
    train = "train"
    val = "val"
    test = "test"


def evaluate(
    run: Annotated[str, Argument(help="Name of the run.")],
    split: Annotated[_Split, Option(help="oof: the pool, out-of-fold; or a labelled split, predicted by the ensemble.")] = _Split.oof,
    folds: Folds = None,
    data: OwnData = None,
    release: Release = FormOrAuto.auto,
    align: Annotated[
        Align | None, Option(help="Fit to the split's images together (transductive), or oof each fold to what it held out.")
    ] = None,
    purpose: Annotated[Purpose | None, Option("--for", help="A new region, or tiles published among labelled ones.")] = None,
    worst: Annotated[int, Option(min=0, help="How many of the worst tiles to list.")] = 5,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Score a run on labelled tiles, pooled and per tile, with a 95 % interval."""
    from competition.commands import results
    from competition.console import bounds, detection_table, regions_line, say, score_table, show, show_json

    aim, chosen = purpose and purpose.value, parse_folds(folds)
    result = results.evaluate(run, runs, split.value, chosen, data, release.value, say, align and align.value, aim)
    if as_json:
        show_json(result)
        return
    title = f"{run} on {result['tiles']} tiles of {split.value}, views {result['views']}, threshold {result['threshold']:g}"
    if align:
        title += f", aligned to {'what each fold held out' if split is _Split.oof else 'them'} ({align.value}, transductive)"
    rows = [("pooled", result["scores"], result["interval"])]
    if among := result["among_neighbours"]:
        rows = [("isolated, as a new region", *rows[0][1:]), ("windows see all neighbours", among["scores"], among["interval"])]
    show(score_table(title, rows))
    if split is _Split.oof and not result["regions"]:
        show("Folds that are no regions say nothing about a new region, which scores lower: data.cv geographic or areas holds regions out.")
    if result["interval"] is None:
        show(f"{bounds(None).capitalize()}.")
    if result["regions"]:
        show(regions_line(result["regions"]))
    if result["detection"]:
        show(detection_table(f"Tiles with landslide, threshold {result['detection']['threshold']:g}", result["detection"]))
    if worst:
        show(score_table("Worst tiles", [(t["tile"], t, None) for t in sorted(result["per_tile"], key=lambda t: t["miou"])[:worst]]))


def predict(
    run: Annotated[list[str], Argument(help="One run, or several to average.")],
    images: Annotated[Path, Option(help="Folder of image tiles.")],
    out: Annotated[Path, Option(help="Folder to write to.")],
    folds: Folds = None,
    release: Release = FormOrAuto.auto,
    mosaic: Annotated[bool, Option("--mosaic", help="Also join all tiles to one GeoTIFF (needs the extra geo).")] = False,
    uncertainty: Annotated[bool, Option("--uncertainty", help="Also write the variance over members and views, and the entropy.")] = False,
    align: AlignTo = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Remove what an earlier predict wrote to --out first; nothing else.")] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Write probability and mask of every tile of a folder as TIFFs, with the tile's georeferencing."""
    from competition.commands import results
    from competition.console import say, show, show_json

    chosen = parse_folds(folds), release.value
    result = results.predict(run, runs, images, out, *chosen, mosaic, say, align and align.value, uncertainty, overwrite)
    if as_json:
        show_json(result)
    else:
        *folders, last = result["folders"]
        show(f"{result['tiles']} tiles to {', '.join(folders)} and {last}, {result['foreground_ratio']:.1%} landslide.", *result["mosaics"])


def score(
    zip_file: Annotated[Path, Argument(metavar="ZIP", help="A submission.")],
    masks: Annotated[Path, Option(help="Folder of the true masks.")],
    worst: Annotated[int, Option(min=0, help="How many of the worst tiles to list.")] = 0,
    csv: Annotated[Path | None, Option(help="Also write scores and counts of every tile to this file, the worst first.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what CodaBench would say about a submission, and whether that is within what its manifest expects."""
    from competition.console import score_table, show, show_json
    from competition.scoring import score as score_zip
    from competition.scoring import write_tiles
    from competition.submission.expectation import expectation, expectation_lines

    result = score_zip(zip_file, masks)
    if csv is not None:
        write_tiles(csv, result.tiles)
    expected = expectation(zip_file, result.scores["miou"])
    if as_json:
        found = {"zip": str(zip_file), "tiles": len(result.tiles), "scores": result.scores, "expected": expected}
        show_json({**found, "per_tile": result.tiles})
        return
    show(score_table(f"{zip_file}: {len(result.tiles)} tiles", [("pooled", result.scores, None)]))
    if expected:
        show(*expectation_lines(expected, result.scores["miou"]))
    if worst:
        show(score_table("Worst tiles", [(tile["name"], tile, None) for tile in result.tiles[:worst]]))


def report(
    run: Annotated[list[str], Argument(help="One run, or several to compare.")],
    out: Annotated[Path | None, Option(help="The page; runs/<run>/report.html by default.")] = None,
    data: OwnData = None,
    ledger: Annotated[Path | None, Option(help="Ledger with the leaderboard's answers; submissions/ledger.csv if there.")] = None,
    runs: Runs = Path("runs"),
) -> None:
    """Write one HTML page: curves, thresholds, confusion, best and worst tiles, comparison of runs, the leaderboard's answers."""
    from competition.commands import results
    from competition.console import say, show

    if out is not None and out.is_dir():
        raise InputError(f"--out {out} is a folder. Give the file to write, such as {out / 'report.html'}.")
    show(str(results.report(run, runs, out, data, say, ledger)))
