"""Preview of training inputs: a few tiles or windows, augmented by the pipeline of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from scipy.ndimage import binary_erosion

from marsls_keras.config import Augmentation, Config, parse_config
from marsls_keras.config.strict_yaml import load_yaml
from marsls_keras.config.validate import drop_removed_keys
from marsls_keras.data.augmentation.photometric import ChannelDropout, Photometric
from marsls_keras.data.decoded.disk_cache import select
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.normalization import Normalizer
from marsls_keras.data.pipeline.batches import TrainingBatches
from marsls_keras.data.pipeline.window_sampling import tile_windows, window_sides
from marsls_keras.report.plots import SKY
from marsls_keras.report.run_summary import RunReport
from marsls_keras.report.tile_pictures import Picture, hillshade, limits, picture

OUTLINE = SKY
_TILES, _COLUMNS = 3, 6
_UNSEEN = 0.15  # grey level of pixels of weight 0


@dataclass(frozen=True)
class Row:
    """Pictures of one tile in several draws, or of windows of one size.

    Attributes:
        title: Name of the tile, or size of the windows.
        pictures: A list of pictures for each view (RGB, relief or a single band).

    Example:
        >>> Row("tile a", [[picture("RGB, as it is", "Tile a", np.zeros((4, 4, 3)))]]).title
        'tile a'
    """

    title: str
    pictures: list[list[Picture]]


@dataclass(frozen=True)
class Preview:
    """Pictures of augmented training inputs, with the augmentations in words.

    Attributes:
        changes: Augmentations that are on, one phrase each.
        notes: Settings that have no effect, one sentence each.
        rows: Rows of pictures.

    Example:
        >>> Preview(changes=["flip 50%"], notes=[], rows=[]).changes
        ['flip 50%']
    """

    changes: list[str]
    notes: list[str]
    rows: list[Row]


def preview(run: RunReport) -> Preview | None:
    """Draw augmented training inputs of the first finished fold; None if no fold is finished.

    Example:
        >>> from marsls_keras.data.index.tile_ref import TileRef
        >>> from marsls_keras.report.run_summary import FoldReport
        >>> masks = np.tri(64, dtype="uint8")[None].repeat(2, 0)
        >>> cells = [TileRef(name, None, None, "train", "base", None) for name in "ab"]
        >>> tiles = {"refs": tuple(cells), "blocks": ["a", "b"], "bands": ("gray",), "held_out_by": np.array([0, 1])}
        >>> images = masks[..., None].astype("float32")
        >>> arrays = {"images": images, "masks": masks, "probability": masks, "predicted": masks}
        >>> config = "data: {bands: [gray]}"
        >>> run = RunReport("default", config, {}, [FoldReport(0, [], {}, {})], [], None, **tiles, **arrays)
        >>> [row.title for row in preview(run).rows]
        ['b']
    """
    if not run.folds:
        return None
    values = load_yaml(run.config, f"The configuration of run {run.name} cannot be read") or {}
    drop_removed_keys(values)
    config = parse_config(values, f"of run {run.name}")
    training = np.flatnonzero(run.held_out_by != min(fold.fold for fold in run.folds))
    # The report has only tiles that a finished fold holds out. With one fold, those are none of its training tiles.
    if not len(training):
        training = np.arange(len(run.images))
    valid = None if run.valid is None else run.valid[training]
    normalizer = Normalizer.fit(select(run.images, training), config.data, run.bands, valid)
    sides = window_sides(config.data, [run.refs[i] for i in training], *run.masks.shape[1:3])
    rows = partial(_windows, sides) if sides else _tiles
    notes = _without_effect(config, normalizer.directions.carried)
    return Preview(_changes(config.augmentation), notes, rows(run, config, normalizer, training))


def _tiles(run: RunReport, config: Config, normalizer: Normalizer, training: np.ndarray) -> list[Row]:
    """Return a row for each of a few tiles: unchanged, then augmented as in successive epochs."""
    # Tiles of low, middle and high landslide share, among those with any landslide.
    share = run.masks.mean((1, 2))
    order = sorted(training[share[training] > 0] if share[training].any() else training, key=lambda tile: share[tile])
    chosen = [order[i] for i in np.unique(np.linspace(0, len(order) - 1, _TILES + 2).round().astype(int)[1:-1])]
    images, masks = normalizer.apply(run.images[chosen], run.bands), run.masks[chosen]
    number, height, width = masks.shape
    options = {"augmentation": config.augmentation, "seed": config.training.seed, "batch_size": number}
    batches = TrainingBatches(images, masks, epochs=_COLUMNS - 1, **_bands(normalizer), **options)
    places = tile_windows(TileGrid.apart(number, height, width), steps=_COLUMNS - 1, **options).places[0]
    shown = normalizer.assemble(images)
    seen = [[(shown[i], masks[i], np.ones(masks[i].shape))] for i in range(number)]
    for place, batch in zip(places, batches.dataset().as_numpy_iterator(), strict=True):
        for tile, image, mask, weight in zip(place[:, 0] // height, *batch, strict=True):
            seen[tile].append((image, mask[..., 0], weight[..., 0]))
    labels = ["as it is", *(f"draw {i}" for i in range(1, _COLUMNS))]
    return [_row(run.refs[chosen[i]].id, labels, seen[i], normalizer) for i in range(number)]


def _windows(
    sizes: tuple[int, ...], run: RunReport, config: Config, normalizer: Normalizer, training: np.ndarray
) -> list[Row]:
    """Return a row for each window size, with the first windows of training."""
    images, masks = normalizer.inputs(select(run.images, training), run.bands), run.masks[training]
    batches = TrainingBatches(
        images,
        masks,
        **_bands(normalizer),
        augmentation=config.augmentation,
        seed=config.training.seed,
        batch_size=config.training.batch_size,
        epochs=_COLUMNS * len(sizes),
        grid=TileGrid.of([run.refs[i] for i in training], masks.shape[1], masks.shape[2], max(sizes)),
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
    """Return the arguments of training batches that describe the bands."""
    return {"bands": normalizer.directions.carried, "units": normalizer.units, "finish": normalizer.assemble}


def _row(
    title: str, labels: list[str], seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]], normalizer: Normalizer
) -> Row:
    """Draw network inputs (H, W, C), masks (H, W) and weights (H, W), in the colour scale of the first input."""
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
                picture(
                    f"{view}, {label}",
                    f"{title}, {label}: {view}, {mask.mean():.1%} landslide",
                    _marked(colours, mask, weight),
                )
                for label, colours, (_, mask, weight) in zip(labels, pictures, seen, strict=True)
            ]
            for view, pictures in views.items()
        ],
    )


def _marked(colours: np.ndarray, mask: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Outline landslides in an image (H, W, 3), and darken pixels of weight 0."""
    colours = np.where(weight[..., None] > 0, colours, _UNSEEN)
    landslide = mask > 0
    colours[landslide & ~binary_erosion(landslide, border_value=1)] = to_rgb(OUTLINE)
    return colours


def _changes(config: Augmentation) -> list[str]:
    """Describe the enabled augmentations, each with probability and strength."""
    found = []
    for name, value in config.model_dump(exclude={"custom"}).items():
        probability = value.pop("probability") if isinstance(value, dict) else value
        strength = (
            ", ".join(f"{key} {_number(inner)}" for key, inner in value.items()) if isinstance(value, dict) else ""
        )
        if probability:
            found.append(f"{name} {probability:.0%}" + (f" ({strength})" if strength else ""))
    return [*found, *config.custom]


def _number(value: float | tuple[float, float]) -> str:
    return " to ".join(f"{number:g}" for number in value) if isinstance(value, tuple) else f"{value:g}"


def _without_effect(config: Config, bands: Sequence[str]) -> list[str]:
    """Return one sentence for each setting that has no effect with the given bands."""
    augmentation = config.augmentation
    notes = []
    photometry = max(part.probability for part in (augmentation.blur, augmentation.light, augmentation.noise))
    if photometry and not Photometric(augmentation, bands, [1.0] * len(bands)).active:
        notes.append("Blur, light and noise change nothing: red, green and blue are not among the bands.")
    if augmentation.channel_dropout and not ChannelDropout(augmentation.channel_dropout, bands).active:
        notes.append("Channel dropout changes nothing: all bands are of one modality.")
    return notes
