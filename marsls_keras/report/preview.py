"""What training sees: a few tiles as the run's own pipeline changes them, several times each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from scipy.ndimage import binary_erosion

from marsls_keras.config import Augmentation, Config, parse_config
from marsls_keras.config.yaml_text import load_yaml
from marsls_keras.data.augmentation.photometric import ChannelDropout, Photometry
from marsls_keras.data.decoded.disk_cache import select
from marsls_keras.data.grid.tile_grid import Mosaic
from marsls_keras.data.normalization import Normalizer
from marsls_keras.data.pipeline.batches import TrainingBatches
from marsls_keras.data.pipeline.window_sampling import tile_windows
from marsls_keras.report.contents import RunReport
from marsls_keras.report.panels import Picture, hillshade, limits, picture
from marsls_keras.report.plots import SKY

OUTLINE = SKY
_TILES, _COLUMNS = 3, 6
_UNSEEN = 0.15  # grey of pixels without weight


@dataclass(frozen=True)
class Row:
    """One tile several times, or windows of one size.

    Attributes:
        title: What it shows.
        pictures: Its pictures, for each band or bands shown one after the other.
    """

    title: str
    pictures: list[list[Picture]]


@dataclass(frozen=True)
class Preview:
    """What training sees.

    Attributes:
        changes: The changes that may happen, one phrase each.
        notes: What of the configuration has no effect, one sentence each.
        rows: The pictures.
    """

    changes: list[str]
    notes: list[str]
    rows: list[Row]


def preview(run: RunReport) -> Preview | None:
    """Return what the first finished fold's training saw; None if no fold is finished."""
    if not run.folds:
        return None
    config = parse_config(load_yaml(run.config, f"The configuration of run {run.name} cannot be read") or {}, f"of run {run.name}")
    training = np.flatnonzero(run.held_out_by != min(fold.fold for fold in run.folds))
    if not len(training):  # a report knows only the tiles that some finished fold holds out; of one fold, other folds train on them
        training = np.arange(len(run.images))
    valid = None if run.valid is None else run.valid[training]
    normalizer = Normalizer.fit(select(run.images, training), config.data, run.bands, valid)
    rows = _windows if config.data.sampling == "windows" else _tiles
    notes = _without_effect(config, normalizer.directions.carried)
    return Preview(_changes(config.augmentation), notes, rows(run, config, normalizer, training))


def _tiles(run: RunReport, config: Config, normalizer: Normalizer, training: np.ndarray) -> list[Row]:
    """Return a row for each of a few tiles: as it is, then as it comes in one epoch after the other."""
    # With little, middling and much landslide, of those tiles that have any.
    share = run.masks.mean((1, 2))
    order = sorted(training[share[training] > 0] if share[training].any() else training, key=lambda tile: share[tile])
    chosen = [order[i] for i in np.unique(np.linspace(0, len(order) - 1, _TILES + 2).round().astype(int)[1:-1])]
    images, masks = normalizer.apply(run.images[chosen], run.bands), run.masks[chosen]
    number, height, width = masks.shape
    options = {"augmentation": config.augmentation, "seed": config.training.seed, "batch_size": number}
    batches = TrainingBatches(images, masks, epochs=_COLUMNS - 1, **_bands(normalizer), **options)
    places = tile_windows(Mosaic.apart(number, height, width), steps=_COLUMNS - 1, **options).places[0]
    shown = normalizer.assemble(images)
    seen = [[(shown[i], masks[i], np.ones(masks[i].shape))] for i in range(number)]
    for place, batch in zip(places, batches.dataset().as_numpy_iterator(), strict=True):
        for tile, image, mask, weight in zip(place[:, 0] // height, *batch, strict=True):
            seen[tile].append((image, mask[..., 0], weight[..., 0]))
    labels = ["as it is", *(f"draw {i}" for i in range(1, _COLUMNS))]
    return [_row(run.refs[chosen[i]].id, labels, seen[i], normalizer) for i in range(number)]


def _windows(run: RunReport, config: Config, normalizer: Normalizer, training: np.ndarray) -> list[Row]:
    """Return a row for each size of windows, with the first ones that training saw."""
    images, masks = normalizer.inputs(select(run.images, training), run.bands), run.masks[training]
    sizes = config.data.window_sizes
    batches = TrainingBatches(
        images,
        masks,
        **_bands(normalizer),
        augmentation=config.augmentation,
        seed=config.training.seed,
        batch_size=config.training.batch_size,
        epochs=_COLUMNS * len(sizes),
        mosaic=Mosaic.of([run.refs[i] for i in training], masks.shape[1], masks.shape[2], max(sizes)),
        sizes=sizes,
    )
    seen: dict[int, list[Any]] = {size: [] for size in sizes}
    for image, mask, weight in batches.dataset().as_numpy_iterator():
        seen[image.shape[1]] += zip(image, mask[..., 0], weight[..., 0], strict=True)
        if all(len(windows) >= _COLUMNS for windows in seen.values()):
            break
    labels = [f"window {i}" for i in range(1, _COLUMNS + 1)]
    return [_row(f"windows of {size} × {size} pixels", labels, seen[size][:_COLUMNS], normalizer) for size in sizes]


def _bands(normalizer: Normalizer) -> dict[str, Any]:
    """Return what training batches must know of the bands."""
    return {"bands": normalizer.directions.carried, "units": normalizer.units, "finish": normalizer.assemble}


def _row(title: str, labels: list[str], seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]], normalizer: Normalizer) -> Row:
    """Return the pictures of network input (H, W, C), mask (H, W) and weight (H, W), all coloured on the scale of the first."""
    bands = normalizer.bands
    images = [normalizer.restore(image) for image, _, _ in seen]
    views = {}
    if all(band in bands for band in ("red", "green", "blue")):
        rgb = [image[..., [bands.index(band) for band in ("red", "green", "blue")]] for image in images]
        low, high = limits(rgb[0])
        views["RGB"] = [(colours - low) / (high - low) for colours in rgb]
    if "dem" in bands:
        views["relief"] = [hillshade(image[..., bands.index("dem")])[..., None] * np.ones(3) for image in images]
    if not views:
        low, high = limits(images[0][..., 0])
        views[bands[0]] = [(image[..., :1] - low) / (high - low) * np.ones(3) for image in images]
    return Row(
        title,
        [
            [
                picture(f"{view}, {label}", f"{title}, {label}: {view}, {mask.mean():.1%} landslide", _marked(colours, mask, weight))
                for label, colours, (_, mask, weight) in zip(labels, pictures, seen, strict=True)
            ]
            for view, pictures in views.items()
        ],
    )


def _marked(colours: np.ndarray, mask: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return a picture (H, W, 3) with landslides outlined, and dark where pixels do not count."""
    colours = np.where(weight[..., None] > 0, colours, _UNSEEN)
    landslide = mask > 0
    colours[landslide & ~binary_erosion(landslide, border_value=1)] = to_rgb(OUTLINE)
    return colours


def _changes(config: Augmentation) -> list[str]:
    """Return the changes that may happen, with probability and strength."""
    found = []
    for name, value in config.model_dump().items():
        probability = value.pop("probability") if isinstance(value, dict) else value
        strength = ", ".join(f"{key} {_number(inner)}" for key, inner in value.items()) if isinstance(value, dict) else ""
        if probability:
            found.append(f"{name} {probability:.0%}" + (f" ({strength})" if strength else ""))
    return found


def _number(value: float | tuple[float, float]) -> str:
    return " to ".join(f"{number:g}" for number in value) if isinstance(value, tuple) else f"{value:g}"


def _without_effect(config: Config, bands: Sequence[str]) -> list[str]:
    """Return what of the configuration changes nothing with the bands that there are."""
    augmentation = config.augmentation
    notes = []
    photometry = max(part.probability for part in (augmentation.blur, augmentation.light, augmentation.noise))
    if photometry and not Photometry(augmentation, bands, [1.0] * len(bands)).active:
        notes.append("Blur, light and noise change nothing: red, green and blue are not among the bands.")
    if augmentation.channel_dropout and not ChannelDropout(augmentation.channel_dropout, bands).active:
        notes.append("Channel dropout changes nothing: all bands are of one modality.")
    return notes
