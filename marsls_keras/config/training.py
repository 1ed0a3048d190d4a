"""The section `training`: optimiser, learning-rate schedule, weight averaging, precision and random seed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from marsls_keras.config.section import Positive, Section


class Constant(Section):
    """Configure a constant learning rate.

    Example:
        >>> Constant().name
        'constant'
    """

    name: Literal["constant"] = Field("constant", description="The learning rate stays.")


class Cosine(Section):
    """Configure cosine decay of the learning rate to zero.

    Loshchilov & Hutter, "SGDR", ICLR 2017, without restarts.

    Example:
        >>> Cosine().name
        'cosine'
    """

    name: Literal["cosine"] = Field(
        "cosine",
        description="The learning rate falls to zero at the last epoch, along half a cosine.",
    )


class Step(Section):
    """Configure step decay: multiply the learning rate by `factor` after every `every` epochs.

    Example:
        >>> Step(every=10).factor
        0.1
    """

    name: Literal["step"] = Field(
        "step",
        description="The learning rate is multiplied by `factor` after every `every` epochs.",
    )
    every: int = Field(20, ge=1, description="Epochs between two steps.")
    factor: float = Field(0.1, gt=0, lt=1, description="Factor of the learning rate at each step.")


class Exponential(Section):
    """Configure exponential decay: multiply the learning rate by exp(-rate) after every epoch.

    Example:
        >>> Exponential().rate
        0.01
    """

    name: Literal["exponential"] = Field(
        "exponential",
        description="The learning rate is multiplied by exp(-`rate`) after every epoch.",
    )
    rate: Positive = Field(0.01, description="Rate of decay per epoch. 0.01 is how MarsLS-Net's schedule is read here.")


Schedule = Annotated[Constant | Cosine | Step | Exponential, Field(discriminator="name")]


class Training(Section):
    """Configure optimiser, schedule, weight averaging, precision and random seed (section `training`).

    Example:
        >>> training = Training(epochs=30, swa_epochs=5)
        >>> training.weight_sets
        ('last', 'ema', 'swa')
    """

    epochs: int = Field(
        60,
        ge=1,
        description="Epochs per fold; each epoch visits every training tile once. `--epochs` sets it for one command; "
        "a larger number with `--resume` continues a finished fold.",
    )
    batch_size: int = Field(
        16,
        ge=1,
        description="Tiles per step; with windows, as many pixels as in this number of tiles. 16 is that of MarsLS-Net "
        "and DualSwinFusionSeg. If memory runs out in the first steps, it is halved and `accumulate` doubled.",
    )
    accumulate: int = Field(
        1,
        ge=1,
        description="Batches whose gradients are averaged for one update. Raise it for a larger effective batch than "
        "memory allows. Learning rate, moving average and clipping then work per update; the last update of an epoch "
        "may have fewer batches.",
    )
    optimizer: Literal["adam", "adamw"] = Field(
        "adamw",
        description="AdamW (Loshchilov & Hutter 2019), or Adam, which is AdamW without weight decay.",
    )
    learning_rate: Positive = Field(
        1e-3,
        description="Peak learning rate, after the warm-up. The default is Adam's own and suits networks trained from "
        "random weights; pretrained encoders want less (`encoder_learning_rate`).",
    )
    schedule: Schedule = Field(
        Cosine(),
        description="Learning rate after the warm-up; epochs are counted from its end. Setting only `name` gives the "
        "defaults of that schedule. Cosine is DualSwinFusionSeg's, exponential MarsLS-Net's.",
    )
    warmup_epochs: float = Field(
        3,
        ge=0,
        description="Epochs in which the learning rate grows linearly from near 0; fractions are allowed. In a "
        "training of no more epochs than this, a quarter of them. 3 is DualSwinFusionSeg's.",
    )
    weight_decay: float = Field(
        1e-4,
        ge=0,
        description="Decoupled weight decay of AdamW, multiplied by the learning rate at each update. Biases, "
        "normalisations, and Swin V2's `cpb_mlp` and `logit_scale` do not decay. 1e-4 is DualSwinFusionSeg's. Must be "
        "0 with `optimizer: adam`.",
    )
    encoder_learning_rate: Positive | None = Field(
        None,
        description="Peak learning rate of the encoder, usually below `learning_rate` for pretrained weights. `null` "
        "means `learning_rate`. Refused for a network without an encoder.",
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Layer-wise decay: each encoder level has the learning rate of the next deeper one times this, the "
        "deepest that of the encoder times this (ELECTRA, Clark et al. 2020). 1 is one rate for all; try 0.8 with "
        "pretrained weights. Refused for a network without an encoder.",
    )
    clip_norm: Positive | None = Field(
        None,
        description="Largest global norm (Euclidean, of all gradients together); larger gradients are scaled down to "
        "it. `null` does not clip. Set it, for example to 1, if the loss jumps.",
    )
    ema_decay: float | None = Field(
        0.99,
        gt=0,
        lt=1,
        description="Decay per update of the exponential moving average (EMA) of the weights, which is evaluated in "
        "addition to the weights themselves. 0.99 averages over about 100 updates, some six epochs of 17 updates; "
        "DualSwinFusionSeg has 0.995. `null`: no average.",
    )
    ema_warmup: bool = Field(
        False,
        description="Let the decay at update t be at most (1 + t) / (10 + t), so that a short training does not "
        "average over its first weights. Needs `ema_decay`.",
    )
    swa_epochs: int = Field(
        0,
        ge=0,
        description="Also average the weights at the ends of this number of last epochs (stochastic weight averaging, "
        "SWA), with recalibrated batch-normalisation statistics; each of these epochs takes a third to a half longer. "
        "0: no such average.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Stop after this number of epochs without a better mIoU on the held-out tiles. `null` trains all "
        "epochs, as the cosine schedule needs. A training that stops before its last `swa_epochs` epochs has no SWA "
        "weights.",
    )
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32",
        description="Precision of the network's computation; weights, loss and logits are always float32. `auto` is "
        "`mixed_bfloat16` if GPU or CPU computes it natively, else `float32`; also `float32` for networks of depthwise "
        "convolutions on a CPU, where it is faster. `mixed_float16` is for GPUs without bfloat16. The default is the "
        "same on all devices.",
    )
    xla: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether XLA compiles the training step. `auto`: on one GPU only, and not with `deterministic`; "
        "on two CPU cores it made the U-Net's step 1.4 times slower. JAX always compiles.",
    )
    deterministic: bool = Field(
        False,
        description="Bit-identical results in every training, also after a kill and `--resume`, at some cost in speed. "
        "Holds for the same machine and number of threads.",
    )
    callbacks: dict[str, dict[str, Any]] = Field(
        {},
        description="Keras callbacks with their options, of a plug-in or of Keras, such as "
        "`{keras.callbacks.TerminateOnNaN: {}}`. They are called after the built-in ones.",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**31,
        description="Seed of initial weights, folds, order of tiles, augmentation and dropout. Change it to see how "
        "much results vary by chance.",
    )

    @property
    def weight_sets(self) -> tuple[str, ...]:
        """Names of the weight sets: "last", the trained weights, and their averages "ema" and "swa" if configured."""
        return ("last", *["ema"] * (self.ema_decay is not None), *["swa"] * (self.swa_epochs > 0))

    @property
    def warmup(self) -> float:
        """Epochs of the warm-up: `warmup_epochs` if that is less than `epochs`, else a quarter of `epochs`."""
        return self.warmup_epochs if self.warmup_epochs < self.epochs else self.epochs / 4

    @field_validator("xla", mode="before")
    @classmethod
    def _yaml_switch(cls, value: Any) -> Any:
        """Convert a bare on or off, which YAML 1.1 reads as a boolean, back to text."""
        return ("on" if value else "off") if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Training:
        if self.swa_epochs > self.epochs:
            raise ValueError(f"swa_epochs ({self.swa_epochs}) must not be more than epochs ({self.epochs})")
        if self.optimizer == "adam" and self.weight_decay:
            raise ValueError(
                f"adam has no weight decay: set weight_decay to 0 instead of {self.weight_decay:g}, "
                "or optimizer to adamw"
            )
        if self.ema_warmup and self.ema_decay is None:
            raise ValueError("ema_warmup needs an ema_decay")
        return self
