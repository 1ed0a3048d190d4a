"""The optimiser: AdamW with accumulation, clipping, a moving average of the weights, and settings per variable.

Those settings are the exclusion from weight decay, and the learning rate by encoder level.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from marsls_keras.config import Training
from marsls_keras.models.registry import require_encoder
from marsls_keras.training.schedule import build_schedule
from marsls_keras.training.weight_averaging import ema_decay, moved_average


def build_optimizer(
    config: Training,
    steps_per_epoch: int,
    encoder: Sequence[str] = (),
    factor: float = 1.0,
    accumulate: int | None = None,
) -> AdamW:
    """Build the optimiser of a configuration: AdamW, or Adam, which is AdamW without weight decay.

    Args:
        config: The section `training` of the configuration.
        steps_per_epoch: Batches per epoch.
        encoder: Variable-path prefixes of the encoder's levels, one each, input first (`models.encoder_levels`).
        factor: Factor of every learning rate.
        accumulate: Batches per update; None takes that of the configuration.

    Raises:
        InputError: If the configuration sets learning rates of the encoder, and the network has none.

    Example:
        >>> build_optimizer(Training(clip_norm=1.0), steps_per_epoch=25).global_clipnorm
        1.0
    """
    require_encoder(config, encoder)
    accumulate = config.accumulate if accumulate is None else accumulate
    return AdamW(
        build_schedule(config, steps_per_epoch, factor, accumulate),
        weight_decay=config.weight_decay,  # 0 with Adam, which makes AdamW the same
        global_clipnorm=config.clip_norm,
        use_ema=config.ema_decay is not None,
        ema_momentum=config.ema_decay or 0.99,
        ema_warmup=config.ema_warmup,
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
        steps_per_epoch=steps_per_epoch,
        encoder=encoder,
        layer_decay=config.layer_decay,
        encoder_factor=(config.encoder_learning_rate or config.learning_rate) / config.learning_rate,
    )


@keras.saving.register_keras_serializable("marsls_keras")
class AdamW(keras.optimizers.AdamW):
    """Apply Keras' AdamW per update instead of per batch, with learning rates by encoder level.

    Source: Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR 2019.

    What differs from Keras 3.15, as the tests show:

    - With `gradient_accumulation_steps`, the moving average of the weights changes once per update. Keras changes it
      with every batch, and fails under MirroredStrategy.
    - With `global_clipnorm` and several devices, the sum of the devices' gradients is clipped. Keras clips the
      gradients of each device.
    - With `gradient_accumulation_steps` and `steps_per_epoch`, the last batches of an epoch make an update of their
      mean, even if they are fewer. Keras carries them over to the next epoch, and drops those of the last one.

    What is added:

    - Biases, scales and offsets of normalisations, `cpb_mlp` and `logit_scale` (Swin V2's position bias and
      temperature) have no weight decay.
    - Level i of the encoder's n levels (0 is the input) has the learning rate times
      encoder_factor * layer_decay ** (n - i), and its weight decay scales with it (Clark et al., "ELECTRA", ICLR 2020,
      section 3). All other variables have the learning rate itself.
    - The moving average can warm up: at update t, from 0, its decay is at most (1 + t) / (10 + t). After update 0 the
      average equals the weights, with or without warm-up.

    Args:
        learning_rate: A schedule, or a float.
        encoder: Variable-path prefixes of the encoder's levels, one each, input first; the longest matching prefix
            counts.
        layer_decay: Ratio of the learning rates of neighbouring encoder levels; 1 is one rate for all.
        encoder_factor: Factor of the learning rates of the encoder.
        ema_warmup: Whether the decay of the moving average warms up.
        steps_per_epoch: Batches per epoch; None if batches are not grouped into epochs.
        **kwargs: Passed to keras.optimizers.AdamW; `ema_overwrite_frequency` has no effect.

    Raises:
        ValueError: By `build`, if a level has no variables and `layer_decay` is not 1.

    Example:
        >>> AdamW(1e-3, weight_decay=1e-4, gradient_accumulation_steps=2, steps_per_epoch=5).updates(5)
        3
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        *,
        encoder: Sequence[str] = (),
        layer_decay: float = 1.0,
        encoder_factor: float = 1.0,
        ema_warmup: bool = False,
        steps_per_epoch: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.steps_per_epoch = steps_per_epoch
        self.encoder, self.layer_decay, self.encoder_factor, self.ema_warmup = (
            list(encoder),
            layer_decay,
            encoder_factor,
            ema_warmup,
        )

    def build(self, var_list: list[keras.Variable]) -> None:
        """Create the optimiser's variables, and the learning-rate factor and weight decay of each model variable."""
        if self.built:
            return
        super().build(var_list)
        levels = [self._level(variable.path) for variable in var_list]
        if self.layer_decay != 1 and (missing := [name for i, name in enumerate(self.encoder) if i not in levels]):
            raise ValueError(
                f"No variable belongs to the encoder's level {', '.join(missing)}. "
                f"Received: {[v.path for v in var_list]}"
            )
        depth = len(self.encoder)
        self._scales = [
            (self.encoder_factor if level < depth else 1.0) * self.layer_decay ** (depth - level) for level in levels
        ]
        self._decays = [self.weight_decay * _may_decay(variable) for variable in var_list]
        for variable, average in zip(var_list, self.averages, strict=False):
            average.assign(_copy(variable))  # the average of a variable without gradients is the variable

    def _level(self, path: str) -> int:
        """Return the encoder level of a variable by its path, or the number of levels if it is not in the encoder."""
        fitting = [level for level in self.encoder if path.startswith(level)]
        return self.encoder.index(max(fitting, key=len)) if fitting else len(self.encoder)

    def _backend_apply_gradients(self, grads: list, trainable_variables: list) -> None:
        """Sum the gradients over the devices, accumulate and clip them, and update the variables."""
        if keras.backend.backend() == "tensorflow":  # sum over the devices of a strategy
            grads = [
                gradient
                for gradient, _ in super()._all_reduce_sum_gradients(list(zip(grads, trainable_variables, strict=True)))
            ]
        if self.gradient_accumulation_steps:
            sums = [self._accumulated_gradients[self._get_variable_index(variable)] for variable in trainable_variables]
            grads, update = (
                [ops.add(total, gradient) for total, gradient in zip(sums, grads, strict=True)],
                self._is_update(),
            )
            for total, gradient in zip(sums, grads, strict=True):
                total.assign(ops.where(update, 0.0, gradient))
            grads = [gradient / ops.cast(self._group()[1], gradient.dtype) for gradient in grads]
        self._backend_update_step(self._clip_gradients(grads), trainable_variables, self.learning_rate)

    def _all_reduce_sum_gradients(self, grads_and_vars: list) -> list:
        """Return the gradients unchanged, which `_backend_apply_gradients` has summed over the devices."""
        return grads_and_vars  # summed already, before accumulation and clipping

    @property
    def iterations(self) -> Any:
        """Number of updates so far."""
        return self.updates(self._iterations)

    def updates(self, batches: Any) -> Any:
        """Return the number of complete updates in a number of batches since the start of training."""
        accumulate, steps = self.gradient_accumulation_steps or 1, self.steps_per_epoch
        if accumulate == 1:
            return batches
        if steps is None:
            return batches // accumulate
        return batches // steps * -(-steps // accumulate) + batches % steps // accumulate

    def _group(self) -> tuple[Any, Any]:
        """Return the index of the current batch within its update, from 0, and the number of batches of that update."""
        accumulate, steps = self.gradient_accumulation_steps, self.steps_per_epoch
        step = self._iterations if steps is None else self._iterations % steps
        place = step % accumulate
        return place, accumulate if steps is None else ops.minimum(accumulate, steps - (step - place))

    def _is_update(self) -> Any:
        """Return whether the current batch is the last one of its update, a bool scalar."""
        place, number = self._group()
        return ops.equal(place + 1, number)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a variable, its moments and its moving average.

        With accumulated gradients, a batch that does not complete an update leaves them unchanged. Under JAX a
        condition cannot assign variables, and under MirroredStrategy it cannot contain an update across devices; so
        the step is always computed, and reverted unless the batch completes an update.
        """
        index = self._get_variable_index(variable)
        touched = [variable, self._momentums[index], self._velocities[index]]
        if self.use_ema:
            touched.append(self._model_variables_moving_average[index])
        before = [_copy(v) for v in touched] if self.gradient_accumulation_steps else []
        rate = learning_rate * self._scales[index]
        if self._decays[index]:
            self.assign_sub(variable, variable * ops.cast(rate * self._decays[index], variable.dtype))
        super().update_step(gradient, variable, rate)
        if self.use_ema:
            decay = self.ema_decay(ops.cast(self.iterations, "float32"))
            self.assign(touched[-1], moved_average(touched[-1], variable, ops.cast(decay, variable.dtype)))
        if before:
            update = self._is_update()
            for v, value in zip(touched, before, strict=True):
                self.assign(v, ops.where(update, ops.convert_to_tensor(v), value))

    def ema_decay(self, done: Any) -> Any:
        """Return the decay of the moving average at an update, a float32 scalar (`weight_averaging.ema_decay`).

        Args:
            done: Number of earlier updates, a float32 scalar.
        """
        return ema_decay(self.ema_momentum, done, self.ema_warmup)

    @property
    def averages(self) -> list[keras.Variable]:
        """The moving average of each variable, in the order of the variables; empty without one."""
        return list(self._model_variables_moving_average) if self.use_ema else []

    def finalize_variable_values(self, var_list: list[keras.Variable]) -> None:
        """Leave the variables unchanged at the end of `fit`, where Keras replaces them by their averages.

        Keras does so even after an exception, which under JAX fails and hides that exception.
        `marsls_keras.training.weight_averaging.averaged_weights` sets the averages for a block instead.
        """

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        own = ("layer_decay", "encoder_factor", "ema_warmup", "steps_per_epoch")
        return {**super().get_config(), "encoder": list(self.encoder), **{name: getattr(self, name) for name in own}}


def _copy(variable: Any) -> Any:
    """Return a copy of a variable's value as a tensor."""
    # convert_to_tensor alone does not copy: TensorFlow returns the variable itself, JAX its buffer.
    return ops.copy(ops.convert_to_tensor(variable))


def _may_decay(variable: keras.Variable) -> bool:
    """Return whether weight decay applies to a variable."""
    # The name is the last part of the path. cpb_mlp is a layer, whose kernels are excluded as well.
    return not (re.search("bias|gamma|beta", variable.name) or re.search("cpb_mlp|logit_scale", variable.path))
