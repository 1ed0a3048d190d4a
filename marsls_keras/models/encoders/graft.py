"""Networks of a library as encoders: copied onto given images up to their maps, under names that tell the stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


def graft(network: keras.Model, taps: Mapping[str, Any], x: Any, prefix: str) -> dict[str, Any]:
    """Copy a functional network onto images, up to the maps of a pyramid; what no map needs is left out.

    Layers are copied because libraries name those of every network alike, while variables are known by their paths
    here. Rescaling and normalisation of pixels are left out, since bands come normalised.

    Args:
        network: Functional network with one input of any height and width, for as many bands as x has.
        taps: Its symbolic maps by level, the finest first; P1 is optional.
        x: Symbolic images (B, H, W, bands).
        prefix: Format of what the name of a layer begins with, with a field for the number of its stage, such as
            "stage{}_rgb_".

    Returns:
        The maps by level. Stage 0 holds all layers that P2, the map at stride 4, needs; stage n those that P(n + 2)
        needs besides.

    Example:
        >>> network = keras.applications.MobileNetV3Small((None, None, 4), include_top=False, weights=None)
        >>> x = keras.Input((None, None, 4))
        >>> maps = graft(network, {"P2": network.get_layer("expanded_conv_project_bn").output}, x, "stage{}_")
        >>> maps["P2"].shape
        (None, None, None, 16)
    """
    graph = keras.Model(network.inputs, list(taps.values()))
    order = {operation.name: i for i, operation in enumerate(graph.operations)}
    ends = sorted(order[tap._keras_history.operation.name] for level, tap in taps.items() if level != "P1")

    def renamed(layer: keras.Layer) -> keras.Layer:
        name = prefix.format(sum(order[layer.name] > end for end in ends)) + layer.name
        if isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization):
            return keras.layers.Identity(name=name)
        return layer.__class__.from_config({**layer.get_config(), "name": name})

    copy = keras.models.clone_model(graph, input_tensors=[x], clone_function=renamed)
    return dict(zip(taps, copy.outputs, strict=True))
