"""Count the floating-point operations of a network for one tile."""

from __future__ import annotations

import math
from typing import Any

from marsls_keras.lazy_imports import keras


def count_flops(model: keras.Model, height: int, width: int) -> int | None:
    """Return the floating-point operations of one prediction of a tile, a multiplication and an addition being two.

    Convolutions and matrix products are counted, as is usual; sums, normalisations and activations, which are a few
    percent, are not. TensorFlow's graph of the prediction is counted, with the sizes of all arrays filled in.

    Args:
        model: A network for float (B, H, W, C).
        height: Height H of the tile in pixels.
        width: Width W.

    Returns:
        The number; None if the backend is not TensorFlow, or the size of an array is known only when it is computed.

    Example:
        >>> image = keras.Input((None, None, 7))
        >>> model = keras.Model(image, keras.layers.Conv2D(4, 3, padding="same")(image))
        >>> count_flops(model, 8, 8) == 2 * 8 * 8 * 4 * 3 * 3 * 7  # without the biases
        True
    """
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    @tf.autograph.experimental.do_not_convert
    def predict(x: Any) -> Any:
        return model(x, training=False)

    bands = model.input_shape[-1]
    graph = tf.function(predict).get_concrete_function(tf.TensorSpec((1, height, width, bands))).graph
    counted = [_operations(operation) for operation in graph.get_operations()]
    return None if None in counted else sum(number for number in counted if number is not None)


def _operations(operation: Any) -> int | None:
    """Return the floating-point operations of a node of a graph, 0 for one that is not counted."""
    if operation.type not in ("Conv2D", "DepthwiseConv2dNative", "MatMul", "BatchMatMulV2", "Einsum"):
        return 0
    inputs = [tensor.shape.as_list() if tensor.shape.rank is not None else [None] for tensor in operation.inputs]
    output = operation.outputs[0].shape
    if not output.is_fully_defined() or any(None in shape for shape in inputs):
        return None
    first, second = inputs
    if operation.type == "Einsum":
        both, result = operation.get_attr("equation").decode().split("->")
        sizes = {
            name: size
            for part, shape in zip(both.split(","), inputs, strict=True)
            for name, size in zip(part, shape, strict=True)
        }
        summed = math.prod(size for name, size in sizes.items() if name not in result)
    elif operation.type == "Conv2D":
        summed = math.prod(second[:3])  # of a grouped convolution, the kernel has the inputs of one group
    elif operation.type == "DepthwiseConv2dNative":
        summed = math.prod(second[:2])
    else:
        turned = operation.get_attr("transpose_a" if operation.type == "MatMul" else "adj_x")
        summed = first[-2] if turned else first[-1]
    return 2 * output.num_elements() * summed
