"""What a run is worth and what it says: evaluation, prediction of any folder, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from competition.commands.outputs import begin, finish, require_free
from competition.commands.workflow import open_runs
from competition.ledger.answers import LEDGER, answers
from competition.search.study_record import StudyRecord
from competition.submission.write import expected_names
from marsls_keras.counts import confusion, detection
from marsls_keras.data.decoded.load import Tiles, require_same_family
from marsls_keras.data.derived.derive import load_with_neighbours
from marsls_keras.data.formats.georeference import require_one_grid
from marsls_keras.data.formats.tiff import write_raster
from marsls_keras.data.formats.tile import resample
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.splits import Fold, blocks_of, require_held_out
from marsls_keras.errors import InputError
from marsls_keras.inference.align import described
from marsls_keras.inference.decision import PLAIN, REGION, decision_path, full_size, plain_decision, read_decision, segment
from marsls_keras.inference.ensemble import fitting, predict_decided, refuse_leaked, tell_leaked
from marsls_keras.inference.geotiff import join_tiles, require_rasterio
from marsls_keras.inference.inputs import Say, bands_of, decision_of, purpose_of, surrounded
from marsls_keras.inference.sliding_window import cells_seen
from marsls_keras.inference.tta import of_windows, views_of
from marsls_keras.inference.uncertainty import entropy
from marsls_keras.intervals import region_spread, score_interval
from marsls_keras.progress import stage
from marsls_keras.records import read_record
from marsls_keras.runs.names import run_folder
from marsls_keras.runs.records import EnvironmentRecord
from marsls_keras.runs.run import Run, read_history
from marsls_keras.training.pseudo_labelling import pseudo_trained
from marsls_keras.tuning.out_of_fold import collect, pool_tiles

if TYPE_CHECKING:
    from marsls_keras.report import RunReport

_CHUNK = 256  # tiles predicted at a time, which bounds the memory that a large folder needs


def evaluate(
    name: str,
    runs: Path,
    split: str,
    folds: Sequence[Fold] | None,
    data: Path | None,
    release: str,
    say: Say,
    alignment: str | None = None,
    purpose: str | None = None,
) -> dict[str, Any]:
    """Score a run on labelled tiles, pooled and per tile, and as a detection of tiles with landslide if the network has a head for it.

    Args:
        name: Name of the run.
        runs: Folder of the runs.
        split: "oof" for the pool's out-of-fold predictions, or "train", "val", "test" for the ensemble's predictions of a split, of which
            tiles that were trained on are predicted by the folds that did not train on them.
        folds: Folds to use; all by default.
        data: Data folder, where the run's own are not meant.
        release: Release of the tiles in `data`, or "auto".
        say: Told what is being done.
        alignment: How members are fitted to the images first, "statistics" or "batchnorm": to all images of the split, or out-of-fold each
            to those that it held out. The decision stays the one that was taken without.
        purpose: Whose decision is followed, and how windows see out-of-fold tiles: "region", what a fold held out alone, or "published",
            all images of the pool. By default that of the decision there is.

    Raises:
        InputError: If run, fold, split or masks are missing, or there is nothing in a member to fit.
    """
    if split == "oof":
        require_held_out(folds)
    opened, used = open_runs([name], runs, folds)
    run = opened[0]
    isolated = False
    if split == "oof":
        pool = pool_tiles(run, data)
        decision = fitting(decision_of(opened, used, say, purpose), pool.refs, say)
        isolated = (purpose or decision.get("for", REGION)) == REGION
        oof = collect(opened, pool, views_of(decision["views"]), folds, say, isolated, alignment)
        tiles, places, blocks = oof.tiles, oof.places, oof.blocks
        probability = oof.probability(decision["views"], decision["weights"], decision["averaging"])
        landslide = oof.image_probability(decision["views"], decision["weights"])
    else:
        dataset = Dataset.open(data or run.data_root, release=release, conflicts=run.config.data.conflicts)
        refs = dataset.split(split)
        if not all(ref.labelled for ref in refs):
            raise InputError(f"The split {split} of {dataset.root} has no masks, so it cannot be scored.")
        config = run.config.data
        decision = decision_of(opened, used, say, purpose)
        sight = cells_seen(decision["views"], refs[0], release, config.resize)
        tiles = load_with_neighbours(dataset, refs, bands_of([run]), release, config.resize, config.cache, sight)
        require_same_family(run.fingerprint["release"], tiles.release, f"The split {split}")
        decision = fitting(decision, refs, say)
        probability, _, leaked, landslide, _ = predict_decided(opened, used, tiles, decision, say, alignment, len(refs))
        refuse_leaked(leaked)
        tiles, places = tiles.subset(range(len(refs))), refs  # without their surroundings
        blocks = np.array(blocks_of(refs, tiles.traces, run.config.data.block_size))
    counts = confusion(tiles.masks, segment(decision, probability, places), axis=(1, 2))
    regions = region_spread(counts, oof.folds) if split == "oof" and oof.geographic else None
    among = None
    if regions and isolated and of_windows(decision["views"]) and alignment is None:
        among = _among_neighbours(opened, pool, decision, folds, say)
    per_tile = counts.scores()
    return {
        "run": name,
        "split": split,
        "folds": used,
        "tiles": len(tiles),
        **{key: decision[key] for key in PLAIN},
        "alignment": described(alignment, len(tiles), held_out=split == "oof"),
        "scores": counts.pooled().scores(),
        "interval": score_interval(counts, blocks),
        "regions": regions,
        "among_neighbours": among,
        "isolated": isolated,
        "detection": None if landslide is None else detection(tiles.masks, landslide),
        "per_tile": [
            {
                "tile": ref.id,
                **{score: float(values[i]) for score, values in per_tile.items()},
                **({} if landslide is None else {"landslide": float(landslide[i])}),
            }
            for i, ref in enumerate(tiles.refs)
        ],
    }


def _among_neighbours(
    opened: Sequence[Run], pool: Tiles, decision: dict[str, Any], folds: Sequence[Fold] | None, say: Say
) -> dict[str, Any]:
    """Return the scores of the same decision where windows see the images of all tiles around, as in a published region."""
    other = collect(opened, pool, views_of(decision["views"]), folds, say)
    probability = other.probability(decision["views"], decision["weights"], decision["averaging"])
    counts = confusion(other.tiles.masks, segment(decision, probability, other.places), axis=(1, 2))
    return {"scores": counts.pooled().scores(), "interval": score_interval(counts, other.blocks)}


def predict(
    names: Sequence[str],
    runs: Path,
    images: Path,
    out: Path,
    folds: Sequence[Fold] | None,
    release: str,
    mosaic: bool,
    say: Say,
    alignment: str | None = None,
    uncertainty: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write probability and mask of every tile of a folder as TIFFs, of the tile's own size and georeferenced as it is.

    The rasters are `out/probability/<name>.tif`, float32, and `out/mask/<name>.tif`, uint8 {0, 1}; with `uncertainty` also
    `out/variance/<name>.tif`, the variance of the landslide probability over members and views (`RunningVariance`), and
    `out/entropy/<name>.tif`, that of the probability that is written, in bits (`entropy`), both float32. With `mosaic` each kind is also
    joined to one raster, `out/probability.tif` and so on. With `alignment` members are fitted to the images of the folder first. With
    `overwrite` rasters of an earlier predict in `out` are removed first (`competition.commands.outputs`).

    Raises:
        InputError: If a run or fold is missing, an image cannot be used, `out` is read as data or holds rasters, or tiles off one grid are
            to be joined.
        RunError: If a file cannot be written.
    """
    opened, used = open_runs(names, runs, folds)
    dataset = Dataset.from_images(images)
    aim = purpose_of(dataset, opened[0], say)
    decision = fitting(decision_of(opened, used, say, aim), dataset.tiles, say)
    sizes = expected_names(images, release)  # every header is read before the first raster is written
    earlier = require_free(out, images, overwrite)
    if mosaic:
        require_rasterio()
        require_one_grid([ref.image for ref in dataset.tiles])
    number = len(dataset.tiles)
    written: dict[str, list[Path]] = {kind: [] for kind in ("probability", "mask", *(("variance", "entropy") if uncertainty else ()))}
    joined = [out / f"{kind}.tif" for kind in written] if mosaic else []
    planned = [*joined, *(out / kind / f"{ref.image.stem}.tif" for kind in written for ref in dataset.tiles)]
    foreground = 0
    sight = cells_seen(decision["views"], dataset.tiles[0], release, opened[0].config.data.resize)
    if sight:
        dataset = surrounded(dataset, opened[0], say)
    # Windows see other tiles, wherever they are in the order of names, as components do; alignment is to all of them.
    step = number if sight or decision["across_borders"] or alignment else _CHUNK
    for first in range(0, number, step):
        chosen = dataset.tiles[first : min(first + step, number)]
        config = opened[0].config.data
        cache = config.cache if step > _CHUNK else "memory"
        tiles = load_with_neighbours(dataset, chosen, bands_of(opened), release, config.resize, cache, sight)
        for run in opened:
            require_same_family(run.fingerprint["release"], tiles.release, str(images))
        probability, _, leaked, _, variance = predict_decided(opened, used, tiles, decision, say, alignment, len(chosen), uncertainty)
        tell_leaked(leaked, say)
        if first == 0:
            begin(out, earlier, planned)
        done = full_size(decision, probability, chosen, [sizes[ref.image.name] for ref in chosen])
        for i, (ref, geo, (values, mask)) in enumerate(zip(chosen, tiles.geo[: len(chosen)], done, strict=True)):
            foreground += int(mask.sum())
            bands = [values, mask]
            if variance is not None:
                bands += [resample(variance[i], *sizes[ref.image.name], order=1), entropy(values)]
            for kind, band in zip(written, bands, strict=True):
                path = out / kind / f"{ref.image.stem}.tif"
                write_raster(path, band, geo)
                written[kind].append(path)
    for path, files in zip(joined, written.values(), strict=False):
        join_tiles(files, path)
    finish(out, planned)
    pixels = sum(height * width for height, width in sizes.values())
    return {
        "out": str(out),
        "tiles": number,
        **{key: decision[key] for key in PLAIN},
        "alignment": described(alignment, number),
        "pseudo_labels": pseudo_trained(opened, used, say),
        "foreground_ratio": foreground / pixels,
        "folders": [str(out / kind) for kind in written],
        "mosaics": [str(path) for path in joined],
    }


def report(names: Sequence[str], runs: Path, out: Path | None, data: Path | None, say: Say, ledger: Path | None = None) -> Path:
    """Write one HTML page about one or more runs, over the folds that are finished, and what the leaderboard said of submissions.

    Raises:
        InputError: If a run is missing or has no finished fold, or its data are gone, or the ledger is missing (if asked for) or damaged.
    """
    opened = [Run.open(run_folder(runs, name)) for name in names]
    path = out or decision_path(opened[:1]).with_name("report.html")
    from marsls_keras.report import Answer, write_report  # with Matplotlib

    lines = answers(ledger or LEDGER) if ledger or LEDGER.exists() else []
    scored = [
        Answer(line["zip"], line["phase"], line["score"], line["expected"], line["interval"]) for line in lines if line["score"] is not None
    ]
    gathered = [_gather(run, data, say) for run in opened]
    with stage("Drawing the report"):
        write_report(gathered, path, scored)
    return path


def _gather(run: Run, data: Path | None, say: Say) -> RunReport:
    trouble = {fold: run.trouble(fold) for fold in range(run.splits.folds)}
    folds = [fold for fold, reason in trouble.items() if reason is None]
    if not folds:
        raise InputError(f"Run {run.name} has no finished fold yet: {trouble[0]}")
    from marsls_keras.report import FoldReport, RunReport

    decision = read_decision([run], folds)
    pool = pool_tiles(run, data)
    followed = fitting(decision or plain_decision([run]), pool.refs, say)
    oof = collect([run], pool, views_of(followed["views"]), folds, say, followed.get("for", REGION) == REGION)
    # Of an ensemble's decision, what concerns one run: weights are of no use for it alone.
    probability = oof.probability(followed["views"], averaging=followed["averaging"])
    return RunReport(
        name=run.name,
        config=(run.path / "config.yaml").read_text(encoding="utf-8"),
        fingerprint=run.fingerprint,
        folds=[
            FoldReport(
                fold=fold,
                rows=read_history(run.fold_path(fold) / "history.csv"),
                metrics=run.metrics(fold),
                environment=read_record(run.fold_path(fold) / "environment.json", EnvironmentRecord),
            )
            for fold in folds
        ],
        missing=[reason for reason in trouble.values() if reason],
        decision=decision,
        refs=oof.tiles.refs,
        held_out_by=oof.folds,
        blocks=oof.blocks.tolist(),
        images=oof.tiles.images,
        valid=oof.tiles.valid,
        bands=oof.tiles.bands,
        masks=oof.tiles.masks,
        probability=probability,
        predicted=segment(followed, probability, oof.places),
        study=read_record(searched, StudyRecord) if (searched := run.path / "search" / "study.json").exists() else None,
    )
