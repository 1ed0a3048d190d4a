"""Copy functional networks of libraries into encoders, with layers renamed by stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


def graft(network: keras.Model, taps: Mapping[str, Any], x: Any, prefix: str) -> dict[str, Any]:
    """Copy the layers of a functional network that its feature maps need, and apply the copies to images.

    Layers are copied to give them unique names: libraries use the same names in every network, and variables are
    identified by their paths here. Rescaling and normalisation of pixels are replaced by the identity, since bands are
    normalised already.

    Args:
        network: Functional network with one input of any height and width, for as many bands as x has.
        taps: Its symbolic maps by level, the finest first; P1 is optional.
        x: Symbolic images (B, H, W, bands).
        prefix: Format of the prefix of layer names, with a field for the number of the stage, such as "stage{}_rgb_".

    Returns:
        Maps by level. Stage 0 has the layers up to P2, the map at stride 4; stage n those from P(n + 1) to P(n + 2).

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
