"""Write probability and mask of every tile of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from competition.commands.outputs import begin, finish, require_free
from competition.submission.write import expected_names
from marsls_keras.data.decoded.checks import require_same_family
from marsls_keras.data.formats.georeference import require_one_grid
from marsls_keras.data.formats.tiff import write_raster
from marsls_keras.data.formats.tile import resample
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.load_folder import load_with_neighbours
from marsls_keras.data.splits import Fold
from marsls_keras.inference.align import described
from marsls_keras.inference.decision_files import decision_of
from marsls_keras.inference.ensemble import predict_decided, tell_leaked
from marsls_keras.inference.geotiff import join_tiles, require_rasterio
from marsls_keras.inference.inputs import Say, bands_of, purpose_of, surrounded
from marsls_keras.inference.sliding_window import cells_seen
from marsls_keras.inference.uncertainty import entropy
from marsls_keras.runs.opened import open_runs
from marsls_keras.training.pseudo_labelling import pseudo_trained

if TYPE_CHECKING:
    pass


_CHUNK = 256  # tiles predicted at a time, which bounds the memory that a large folder needs


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
    decision = decision_of(opened, used, say, aim).fit(dataset.tiles, say)
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
    sight = cells_seen(decision.view_set, dataset.tiles[0], release, opened[0].config.data.resize)
    if sight:
        dataset = surrounded(dataset, opened[0], say)
    # Windows see other tiles, wherever they are in the order of names, as components do; alignment is to all of them.
    step = number if sight or decision.across_borders or alignment else _CHUNK
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
        done = decision.full_size(probability, chosen, [sizes[ref.image.name] for ref in chosen])
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
        **decision.to_values(),
        "alignment": described(alignment, number),
        "pseudo_labels": pseudo_trained(opened, used, say),
        "foreground_ratio": foreground / pixels,
        "folders": [str(out / kind) for kind in written],
        "mosaics": [str(path) for path in joined],
    }
