"""Members fitted to the images they are to predict: their statistics, without any mask, in place of those of the training tiles.

This is transductive: the mask of an image depends on the other images of its folder, and what was measured out-of-fold was measured
without it. So it is never done unless asked for, and everything that is written says that it was done. Between regions of MMLS v1 it makes
things worse (see the README): it can undo a change of the instrument or of the processing, but it also takes away what regions differ in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.errors import InputError
from marsls_keras.inference.member import Member
from marsls_keras.lazy_imports import keras
from marsls_keras.training.weight_averaging import recalibrate

ALIGNMENTS = ("statistics", "batchnorm")
"""Ways to fit a member to images."""


def align(member: Member, tiles: Tiles, how: str) -> Member:
    """Return a member fitted to images; one that was fitted by `batchnorm` is the same network, changed.

    statistics: mean and standard deviation of the z-score are those of these images instead of the training tiles'. A change of brightness
    and contrast of a whole band then changes nothing; but neither does a region that really is steeper or warmer.

    batchnorm: the moving statistics of batch normalisation are those that these images give, tile after tile as they lie in the folder, in
    batches of `inference.batch_size`; weights and z-score stay (Li et al., "Revisiting batch normalization for practical domain
    adaptation", arXiv:1603.04779, 2016, which computes each layer's over the whole target domain). Here they are the mean of those of the
    batches, as `recalibrate` has them, each weighted by its tiles; every layer sees what the layers before it give with the batch's own
    statistics, and nothing is dropped.

    Args:
        member: A trained fold.
        tiles: All images that are to be predicted; no mask is looked at.
        how: "statistics" or "batchnorm".

    Raises:
        InputError: If the run has no z-score, or its network no batch normalisation, so that there is nothing to fit.
        ValueError: If there is no such way.
    """
    if how not in ALIGNMENTS:
        raise ValueError(f"how must be one of {', '.join(ALIGNMENTS)}. Received: {how}")
    name = member.run.name
    if how == "statistics":
        if member.normalizer.mean is None:
            raise InputError(f"--align statistics: run {name} was trained with data.normalization.zscore false, so it has none.")
        return replace(member, normalizer=member.normalizer.refitted(tiles.images, tiles.bands, tiles.valid))
    if not any(isinstance(layer, keras.layers.BatchNormalization) for layer in member.model._flatten_layers()):
        raise InputError(f"--align batchnorm: the network of run {name} has no batch normalisation. Leave it out, or use statistics.")
    with _nothing_dropped(member.model):
        recalibrate(member.model, _batches(member, tiles))
    return member


def described(how: str | None, tiles: int, held_out: bool = False) -> dict[str, Any] | None:
    """Return what a manifest or a result says of the alignment to some tiles, or of each fold's to those it held out; None if none was."""
    if how is None:
        return None
    images = "the images that its fold held out" if held_out else "all of these images"
    note = f"transductive: each mask depends on {images}; the decision was taken, and what is expected measured, without alignment"
    return {"method": how, "tiles": tiles, "note": note}


def _batches(member: Member, tiles: Tiles) -> Iterator[tuple[Any]]:
    size = member.run.config.inference.batch_size
    for first in range(0, len(tiles), size):
        inputs = member.normalizer.apply(tiles.images[first : first + size], tiles.bands)
        yield (member.normalizer.assemble(inputs),)


@contextmanager
def _nothing_dropped(model: keras.Model) -> Iterator[None]:
    """Let training within the block leave out neither units nor branches, which would change the statistics."""
    from marsls_keras.layers.drop_path import DropPath

    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Dropout | DropPath)]
    rates = [layer.rate for layer in layers]
    try:
        for layer in layers:
            layer.rate = 0.0
        yield
    finally:
        for layer, rate in zip(layers, rates, strict=True):
            layer.rate = rate
