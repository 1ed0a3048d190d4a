"""Predict every tile of a folder, and write probabilities and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competition.commands.outputs import begin, finish, require_free
from competition.submission.write import expected_names
from marsls_keras.data.formats.georeference import require_one_grid
from marsls_keras.data.formats.tiff import write_raster
from marsls_keras.data.formats.tile import resample
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.splits import Fold
from marsls_keras.errors import InputError
from marsls_keras.inference.decision_files import decision_of
from marsls_keras.inference.ensemble import predict_decided, tell_leaked
from marsls_keras.inference.geotiff import join_tiles
from marsls_keras.inference.inputs import purpose_of, read_inputs, surrounded
from marsls_keras.inference.sliding_window import cells_seen
from marsls_keras.inference.uncertainty import entropy
from marsls_keras.runs.opened import open_runs
from marsls_keras.training.pseudo_labelling import pseudo_trained

_CHUNK = 256  # tiles predicted at a time, which bounds the memory that a large folder needs


@dataclass(frozen=True)
class PredictRequest:
    """Arguments of `marsls predict`.

    Attributes:
        names: Names of the runs.
        images: Folder of image tiles.
        out: Folder to write to.
        runs: Folder of the runs.
        folds: Folds to use; all by default.
        release: Release of the images, or "auto".
        mosaic: Whether all tiles of each kind are also joined to one raster.
        uncertainty: Whether variance and entropy are written, too.
        overwrite: Whether rasters of an earlier predict in `out` are removed first (`competition.commands.outputs`).

    Example:
        >>> PredictRequest(["default"], Path("phase2"), Path("out"), folds=[0, 1]).release
        'auto'
    """

    names: Sequence[str]
    images: Path
    out: Path
    runs: Path = Path("runs")
    folds: Sequence[Fold] | None = None
    release: str = "auto"
    mosaic: bool = False
    uncertainty: bool = False
    overwrite: bool = False


def predict(request: PredictRequest) -> dict[str, Any]:
    """Write probability and mask of every tile of a folder as TIFFs, with the tile's size and georeferencing.

    The rasters are `out/probability/<name>.tif`, float32, and `out/mask/<name>.tif`, uint8 {0, 1}; with `uncertainty`
    also `out/variance/<name>.tif`, the variance of the landslide probability over members and views
    (`RunningVariance`), and `out/entropy/<name>.tif`, that of the probability that is written, in bits (`entropy`),
    both float32. With `mosaic` each kind is also joined to one raster, `out/probability.tif` and so on.

    Raises:
        InputError: If a run or fold is missing, an image cannot be used, `out` is read as data or holds rasters, or
            tiles off one grid are to be joined.
        RunError: If a file cannot be written.

    Example:
        >>> predict(PredictRequest(["default"], Path("phase2"), Path("out")))["tiles"]  # doctest: +SKIP
        276
    """
    images, out = request.images, request.out
    if images.is_file():
        run = " ".join(f"--run {name}" for name in request.names)
        raise InputError(
            f"--images {images} is a file, expected a folder of tiles. A raster of any size is mapped by "
            f"marsls map {images} {run} -o OUT"
        )
    opened, used = open_runs(request.names, request.runs, request.folds)
    dataset = Dataset.from_images(images)
    aim = purpose_of(dataset, opened[0])
    decision = decision_of(opened, used, aim).fit(dataset.tiles)
    sizes = expected_names(images, request.release)  # every header is read before the first raster is written
    earlier = require_free(out, images, request.overwrite)
    if request.mosaic:
        require_one_grid([ref.image for ref in dataset.tiles])
    number = len(dataset.tiles)
    kinds = ("probability", "mask", *(("variance", "entropy") if request.uncertainty else ()))
    written: dict[str, list[Path]] = {kind: [] for kind in kinds}
    joined = [out / f"{kind}.tif" for kind in written] if request.mosaic else []
    planned = [*joined, *(out / kind / f"{ref.image.stem}.tif" for kind in written for ref in dataset.tiles)]
    foreground = 0
    sight = cells_seen(decision.view_set, dataset.tiles[0], request.release, opened[0].config.data.resize)
    if sight:
        dataset = surrounded(dataset, opened[0])
    # Windows see other tiles, wherever they are in the order of names, as components do.
    step = number if sight or decision.across_borders else _CHUNK
    for first in range(0, number, step):
        chosen = dataset.tiles[first : min(first + step, number)]
        cache = opened[0].config.data.cache if step > _CHUNK else "memory"
        inputs = read_inputs(dataset, chosen, opened, request.release, sight, cache, str(images))
        probability, _, leaked, _, variance = predict_decided(opened, used, inputs, decision, request.uncertainty)
        tell_leaked(leaked)
        if first == 0:
            begin(out, earlier, planned)
        done = decision.full_size(probability, chosen, [sizes[ref.image.name] for ref in chosen])
        for i, (ref, geo, (values, mask)) in enumerate(zip(chosen, inputs.wanted.geo, done, strict=True)):
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
        **decision.to_values(),
        "pseudo_labels": pseudo_trained(opened, used),
        "foreground_ratio": foreground / pixels,
        "folders": [str(out / kind) for kind in written],
        "mosaics": [str(path) for path in joined],
    }
