"""PSPNet decoder: means of the coarsest map over grids of several sizes, beside the map itself."""

from __future__ import annotations

from typing import Any

from keras import layers

from marsls_keras.layers import AdaptivePooling
from marsls_keras.models.decoders.blocks import conv_bn_relu, resize_like

_BINS = (1, 2, 3, 6)


def pspnet(maps: list[Any], channels: int, name: str, dropout: float = 0.0) -> Any:
    """Decode a feature pyramid with PSPNet: pyramid pooling of the coarsest map, and a 1 x 1 convolution.

    The map is averaged over grids of 1, 2, 3 and 6 parts a side; each result gets a 1 x 1 convolution to a quarter of
    the map's channels and is resized back. That of the whole image has a bias instead of the normalisation, as in
    segmentation_models.pytorch: one pixel an image is too little for statistics of a batch.

    Args:
        maps: n maps, the finest first; only the last is used.
        channels: Channels C.
        name: Prefix of the names of the layers.
        dropout: Rate at which whole channels are dropped at the end, in [0, 1).

    Returns:
        (B, h, w, C) of the coarsest map's size.

    Reference:
        Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, section 3.2; the 1 x 1 convolution at the end is that
        of segmentation_models.pytorch, where the authors have a 3 x 3 one.

    Example:
        >>> pyramid = [keras.Input((32 // 2**i, 32 // 2**i, 8)) for i in range(4)]
        >>> pspnet(pyramid, channels=16, name="decoder").shape
        (None, 4, 4, 16)
    """
    x, context = maps[-1], []
    width = max(1, x.shape[-1] // len(_BINS))
    for bins in _BINS:
        part = AdaptivePooling(bins, name=f"{name}_pool{bins}")(x)  # (B, bins, bins, C_n)
        if bins == 1:
            initial = {"kernel_initializer": "he_normal", "activation": "relu"}
            part = layers.Conv2D(width, 1, name=f"{name}_context{bins}_conv", **initial)(part)
        else:
            part = conv_bn_relu(part, width, 1, f"{name}_context{bins}")
        context.append(resize_like(part, x, f"{name}_context{bins}_up", align_corners=True))
    together = layers.Concatenate(name=f"{name}_context")([*context, x])  # (B, h, w, 2 C_n)
    together = conv_bn_relu(together, channels, 1, f"{name}_bottleneck")
    return layers.SpatialDropout2D(dropout, name=f"{name}_dropout")(together) if dropout else together
