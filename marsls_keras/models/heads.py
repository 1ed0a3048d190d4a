"""Model class of networks with several heads, which are all trained and fused to one mask at inference."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from marsls_keras.layers.resize import area
from marsls_keras.losses import build_loss
from marsls_keras.models.networks import LANDSLIDE, MASK


@keras.saving.register_keras_serializable("marsls_keras")
class MultiHeadModel(keras.Model):
    """Functional model with several heads: train each head with its own loss, and predict one mask.

    The heads are the layers named "mask_…", logits (B, h, w, 1) of any size, and "landslide", logits (B, 1), if there
    is one. Where there are several masks, a layer "mask" makes one of them, called with their list and the image
    (`MeanProbability`).

    | call | returns |
    |---|---|
    | `training=True` | {"mask_…": logits, …} and "landslide" if there is one |
    | otherwise | the outputs: logits (B, H, W, 1), or {"mask", "landslide"} |

    The training loss is the sum of:
    - The mean over the masks of the compiled loss. Truth and weights are resized to each mask by area averaging, the
      truth weighted by the weights. A pixel that is half landslide has the truth 1/2, which every term of `build_loss`
      accepts.
    - With a head "landslide", the binary cross-entropy of the image-level label, which is 1 if any pixel of weight
      above 0 is landslide. Images whose every pixel has weight 0 do not count.
    - What the layers add, such as weight penalties, once.

    In evaluation the loss is that of the prediction. Metrics always see the predicted mask only. RMAU-Net does not say
    how its losses are weighted against each other; equal weights are a choice.

    Args:
        inputs: As in keras.Model.
        outputs: The mask (B, H, W, 1), or {"mask": …, "landslide": …}.
        name: As in keras.Model.
        **kwargs: As in keras.Model.

    Example:
        >>> from marsls_keras.models import build_model
        >>> model = build_model("rmau_net", bands=7, filters=2, poolings=1, tile_size=16)
        >>> tuple(model(np.ones((1, 16, 16, 7), "float32")).shape)
        (1, 16, 16, 1)
        >>> sorted(model(np.ones((1, 16, 16, 7), "float32"), training=True))
        ['mask_128', 'mask_256', 'mask_64']
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(inputs, outputs, name=name, **kwargs)
        found = {layer.name: layer for layer in self.layers}
        heads = {
            name: layer.output for name, layer in found.items() if name.startswith(f"{MASK}_") or name == LANDSLIDE
        }
        # The method alone: Keras would save the layers a second time if the model were an attribute.
        self._run_heads = keras.Model(self.inputs, heads).call
        self._join = found.get(MASK)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return the logits of all heads in training, else the outputs of the functional model."""
        return (
            self._run_heads([inputs], training=True) if training else super().call(inputs, training=training, mask=mask)
        )

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the total loss of all predicted heads, a float32 scalar.

        Args:
            x: Images (B, H, W, C); not used.
            y: Masks (B, H, W, 1) of {0, 1}.
            y_pred: Result of `call`.
            sample_weight: Optional (B, H, W, 1).
            training: Not used.
        """
        heads = y_pred if isinstance(y_pred, dict) else {MASK: y_pred}
        loss = keras.losses.get(self.loss)
        y = ops.cast(y, "float32")
        weight = ops.ones_like(y) if sample_weight is None else ops.broadcast_to(sample_weight, ops.shape(y))
        costs = []
        for logits in (logits for name, logits in heads.items() if name != LANDSLIDE):
            _, height, width, _ = ops.shape(logits)
            share = area(weight, height, width)
            costs.append(loss(ops.divide_no_nan(area(y * weight, height, width), share), logits, share))
        total = sum(costs) / len(costs)
        if LANDSLIDE in heads:
            total += _detection_loss(y, weight, heads[LANDSLIDE])
        return total + sum(self._aggregate_additional_loss(extra) for extra in self.losses)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Update the metrics with the predicted mask, and return their results."""
        return super().compute_metrics(x, y, self._mask(x, y_pred), sample_weight)

    def _mask(self, x: Any, y_pred: Any) -> Any:
        if not isinstance(y_pred, dict):
            return y_pred
        masks = [logits for name, logits in y_pred.items() if name != LANDSLIDE]
        return masks[0] if MASK in y_pred or self._join is None else self._join(masks, x)


def _detection_loss(truth: Any, weight: Any, logits: Any) -> Any:
    """Return the image-level binary cross-entropy of "any landslide", the mean over images with any weight above 0."""
    seen = ops.cast(weight > 0, "float32")
    label = ops.max(ops.cast(truth, "float32") * seen, axis=(1, 2), keepdims=True)  # (B, 1, 1, 1)
    # As a mask of one pixel an image fits `build_loss`, which averages over the devices that share a batch.
    return build_loss({"bce": 1.0})(label, logits[:, :, None, None], ops.max(seen, axis=(1, 2), keepdims=True))
