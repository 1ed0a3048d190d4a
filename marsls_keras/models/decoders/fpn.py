"""Feature pyramid network: one way down the scales, and the sum of all."""

from __future__ import annotations

from typing import Any

from keras import layers

from marsls_keras.models.decoders.blocks import conv_bn_relu, to_finest, top_down


def fpn(maps: list[Any], channels: int, name: str) -> Any:
    """Decode a pyramid: laterals and top-down sums, Conv 3 x 3 - BatchNorm - ReLU on each scale, and the sum of all at the finest.

    Args:
        maps: n maps, the finest first.
        channels: Channels C.
        name: What the names of the layers begin with.

    Returns:
        (B, h, w, C) of the finest map's size.

    Reference:
        Lin et al., "Feature Pyramid Networks", CVPR 2017; the sum of the scales for segmentation as in Kirillov et al., "Panoptic Feature
        Pyramid Networks", CVPR 2019, with one convolution a scale.
    """
    smooth = [conv_bn_relu(x, channels, 3, f"{name}_smooth{i}") for i, x in enumerate(top_down(maps, channels, name))]
    return layers.Add(name=f"{name}_sum")(to_finest(smooth, name))
