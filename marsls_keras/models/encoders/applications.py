"""Networks of keras.applications as encoders: ResNet, DenseNet, EfficientNet V1 and V2, MobileNetV3.

keras-hub 0.32 has more, but needs tensorflow-text, which fits one minor version of TensorFlow only: 72 MB to download,
250 MB on disk and 6 seconds at every import. Its weights must be downloaded. Its DINOv2 and DINOv3 are built for one
size of images, while networks here accept tiles and windows of any size. So HGNetV2, DINOv2 and DINOv3 are in
`hgnet_v2` and `dino`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import keras

from marsls_keras.models.encoders.graft import graft
from marsls_keras.models.pyramid import FINEST, LEVELS

_BLOCKS_V1, _BLOCKS_V2 = (1, 2, 3, 5, 7), (1, 2, 3, 5, 6)
"""Last blocks of the EfficientNets at strides 2 to 32."""
_PREPROCESSING = {"include_preprocessing": False}


@dataclass(frozen=True)
class Application:
    """Description of a network of keras.applications: builder, layers of the feature maps, and range of pixels.

    Attributes:
        builder: Name of its function in keras.applications.
        ends: Prefix of layer names for each of P1 to P5; the output of the last layer with the prefix is the map.
        options: Arguments of the function.
        pixels: Format of pixels in pretraining: "caffe" (blue, green, red in [0, 255] minus their means), "tf" ([-1,
            1]), or "torch" (z-scores of ImageNet).

    Example:
        >>> APPLICATIONS["keras_resnet50"].builder, APPLICATIONS["keras_resnet50"].pixels
        ('ResNet50', 'caffe')
    """

    builder: str
    ends: tuple[str, ...]
    options: dict[str, Any]
    pixels: str


def _resnet(depth: int) -> Application:
    return Application(f"ResNet{depth}", ("conv1_relu", *(f"conv{n}_block" for n in range(2, 6))), {}, "caffe")


def _densenet(depth: int) -> Application:
    return Application(
        f"DenseNet{depth}", ("conv1_relu", "pool2_relu", "pool3_relu", "pool4_relu", "relu"), {}, "torch"
    )


def _efficientnet(size: str) -> Application:
    return Application(f"EfficientNet{size}", tuple(f"block{n}" for n in _BLOCKS_V1), {}, "torch")


def _efficientnet_v2(size: str) -> Application:
    return Application(f"EfficientNetV2{size}", tuple(f"block{n}" for n in _BLOCKS_V2), _PREPROCESSING, "tf")


_SMALL = (
    "activation",
    "expanded_conv_project_bn",
    "expanded_conv_2_add",
    "expanded_conv_7_add",
    "expanded_conv_10_add",
)
_LARGE = (
    "expanded_conv_add",
    "expanded_conv_2_add",
    "expanded_conv_5_add",
    "expanded_conv_11_add",
    "expanded_conv_14_add",
)

APPLICATIONS: dict[str, Application] = {
    **{f"keras_resnet{depth}": _resnet(depth) for depth in (50, 101, 152)},
    **{f"keras_densenet{depth}": _densenet(depth) for depth in (121, 169, 201)},
    **{f"keras_efficientnet_b{n}": _efficientnet(f"B{n}") for n in range(6)},
    **{f"keras_efficientnet_v2_{size.lower()}": _efficientnet_v2(size) for size in ("B0", "B1", "B2", "B3", "S")},
    "keras_mobilenet_v3_small": Application("MobileNetV3Small", _SMALL, _PREPROCESSING, "tf"),
    "keras_mobilenet_v3_large": Application("MobileNetV3Large", _LARGE, _PREPROCESSING, "tf"),
}
"""Encoders by name."""


def build_application(name: str, bands: int, weights: str | None = None) -> keras.Model:
    """Build a network of keras.applications without its classifier.

    Args:
        name: One of `APPLICATIONS`.
        bands: Number of input bands.
        weights: File of weights that Keras published ("…_notop.h5"), for three bands; None for random ones.

    Example:
        >>> build_application("keras_mobilenet_v3_small", 7).output_shape
        (None, None, None, 576)
    """
    application = APPLICATIONS[name]
    function = getattr(keras.applications, application.builder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This model usually expects 1 or 3 input channels", UserWarning)
        return function(include_top=False, weights=weights, input_shape=(None, None, bands), **application.options)


def application(name: str, x: Any, group: str = "") -> dict[str, Any]:
    """Apply a network of keras.applications to images, with random weights.

    The rescaling of pixels and the classifier are left out.

    Parameters for 3 bands, with moving statistics: ResNet50 23,587,712; DenseNet121 7,037,504; EfficientNet-B0
    3,634,844 and V2-B0 5,668,432, without the last convolution; MobileNetV3 small 881,520 and large 2,838,912,
    likewise.

    Args:
        name: One of `APPLICATIONS`.
        x: Symbolic images (B, H, W, bands), H and W multiples of 32.
        group: Part of the names of the layers, to make them unique with several encoders in a network.

    Returns:
        {"P1": …, …, "P5": …}, Pn (B, H / 2^n, W / 2^n, channels). Layers are named stage<n>[_<group>]__<name>__<Keras'
        own name>.

    Reference:
        He et al., "Deep Residual Learning", CVPR 2016; Huang et al., "Densely Connected Convolutional Networks", CVPR
        2017; Tan & Le, "EfficientNet", ICML 2019, and "EfficientNetV2", ICML 2021; Howard et al., "Searching for
        MobileNetV3", ICCV 2019.

    Example:
        >>> {level: x.shape[-1] for level, x in application("keras_resnet50", keras.Input((None, None, 7))).items()}
        {'P1': 64, 'P2': 256, 'P3': 512, 'P4': 1024, 'P5': 2048}
    """
    network = build_application(name, x.shape[-1])
    ends = zip((FINEST, *LEVELS), APPLICATIONS[name].ends, strict=True)
    taps = {level: _last(network, end) for level, end in ends}
    return graft(network, taps, x, f"stage{{}}_{group}__{name}__" if group else f"stage{{}}__{name}__")


def _last(network: keras.Model, beginning: str) -> Any:
    """Return the output of the last layer whose name has a prefix.

    The prefix "activation" stands for the first activation layer instead, since Keras numbers these globally.
    """
    if beginning == "activation":
        return next(layer.output for layer in network.layers if isinstance(layer, keras.layers.Activation))
    return [layer.output for layer in network.layers if layer.name.startswith(beginning)][-1]
