"""The sections of the configuration: which keys there are, their defaults, and what their values may be."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from marsls_keras.bands.derived import DERIVED
from marsls_keras.bands.releases import ALL, KNOWN_BANDS, unknown_bands
from marsls_keras.config.augmentation import Augmentation
from marsls_keras.config.section import Positive, Section
from marsls_keras.errors import InputError
from marsls_keras.names import meant


class Model(Section):
    """The network: its name in the registry, the options that its builder takes, and the weights that its encoders begin with.

    pretrained: a safetensors or PyTorch file, hf: and the name of a repository of Hugging Face, or pip: and a name such as
    efficientnet_lite0 for weights that an installed package carries; auto: such weights if
    they are installed, else none; null is none. It is read when training begins, and never again.
    """

    name: str = "unet"
    options: dict[str, Any] = {}
    pretrained: str | None = Field(None, min_length=1)


class Normalization(Section):
    """How tiles become network input.

    percentiles: per tile and band, these percentiles are brought to 0 and 1 and what lies beyond is clipped; null for none.
    zscore: then subtract mean and divide by standard deviation, per band, of the fold's training tiles.
    """

    percentiles: tuple[float, float] | None = None
    zscore: bool = True

    @field_validator("percentiles")
    @classmethod
    def _ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1] <= 100:
            raise ValueError("percentiles must be two numbers with 0 <= low < high <= 100")
        return value


class Data(Section):
    """Which tiles and bands are used, and how tiles are divided into folds.

    release: what the tiles are; auto detects it. bands: the input bands, in the order the network gets them; all stands for those that
    the tiles hold, and others are derived from them (see marsls_keras/data/derived). resize: height and width that tiles of different
    sizes are brought to, bands bilinear and masks by the nearest pixel; null takes them as they are. cache: where decoded tiles are
    while they are used: in memory, on disk (in MARSLS_CACHE, or marsls in the user's cache folder), or auto: on disk if their images
    take more than 1 GiB. conflicts: what becomes of tiles that are there twice, the same image in the same grid cell with different
    masks: an error; union keeps the first alone, with the landslides of all masks; ignore takes the copies out of train and val, one in
    test stays as published. pool: the labelled splits that are divided into folds (cv official trains on train and validates on val
    instead). cv: folds of blocks of block_size x block_size grid cells, of geographic regions, or of whole connected areas (at most
    `folds` of them); or one fold: holdout, a random share of the blocks, stratified by landslide, or the official split. holdout: that
    share; 0.2 and 0.3 are RMAU-Net's 80:20 and 70:30. A tile without a grid cell is a block of its own; copies of a tile, turned or
    mirrored, and tiles that overlap on the map are in one block. sampling: training sees single tiles, or windows anywhere in the
    picture that the training tiles were cut from; window_sizes are the windows' sides in pixels, which take turns from batch to batch.
    """

    release: Literal["auto", "mmls_v1", "mmls_v2", "challenge", "landslide4sense", "bijie", "nepal"] = "auto"
    bands: tuple[str, ...] = (ALL,)
    resize: int | None = Field(None, ge=16)
    cache: Literal["auto", "memory", "disk"] = "auto"
    conflicts: Literal["error", "union", "ignore"] = "error"
    pool: tuple[Literal["train", "val"], ...] = ("train", "val")
    cv: Literal["blocks", "geographic", "areas", "holdout", "official"] = "blocks"
    folds: int = Field(5, ge=2)
    holdout: float = Field(0.2, gt=0, lt=1)
    block_size: int = Field(2, ge=1)
    normalization: Normalization = Normalization()
    sampling: Literal["tiles", "windows"] = "tiles"
    window_sizes: tuple[Annotated[int, Field(ge=16)], ...] = (128, 192, 256)

    @model_validator(mode="after")
    def _fits_together(self) -> Data:
        if self.sampling == "windows" and self.normalization.percentiles is not None:
            raise ValueError(
                "sampling windows does not go together with normalization.percentiles, which stretch each tile by itself, so that windows "
                "would see a step at every border: set normalization.percentiles to null, or sampling to tiles"
            )
        return self

    @field_validator("window_sizes")
    @classmethod
    def _some_sizes(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("window_sizes must be one or more different sizes in pixels")
        return value

    @field_validator("bands", mode="before")
    @classmethod
    def _one_word(cls, value: Any) -> Any:
        return (value,) if value == ALL else value

    @field_validator("bands")
    @classmethod
    def _known_bands(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown_bands(value) or not value or len(set(value)) != len(value):
            known = (*KNOWN_BANDS, *DERIVED)
            hints = "".join(f" {name} is unknown.{meant(name, known)}" for name in unknown_bands(value))
            raise ValueError(f"bands must be all, or one or more different ones of {', '.join(known)}.{hints}".removesuffix("."))
        return value

    @field_validator("pool")
    @classmethod
    def _some_pool(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("pool must name one or both of train and val, once each")
        return value


class Constant(Section):
    """The learning rate stays."""

    name: Literal["constant"] = "constant"


class Cosine(Section):
    """The learning rate falls to zero along half a cosine (Loshchilov & Hutter, "SGDR", ICLR 2017, without restarts)."""

    name: Literal["cosine"] = "cosine"


class Step(Section):
    """The learning rate is multiplied by `factor` after every `every` epochs."""

    name: Literal["step"] = "step"
    every: int = Field(20, ge=1)
    factor: float = Field(0.1, gt=0, lt=1)


class Exponential(Section):
    """The learning rate is multiplied by exp(-rate) after every epoch; MarsLS-Net trains with rate 0.01."""

    name: Literal["exponential"] = "exponential"
    rate: Positive = 0.01


Schedule = Annotated[Constant | Cosine | Step | Exponential, Field(discriminator="name")]


class Training(Section):
    """Optimisation and what it runs on.

    accumulate: batches whose gradients are averaged for one update. schedule: constant, cosine, step or exponential, after warmup_epochs
    of linear growth; of a training no longer than that, a quarter. weight_decay: decoupled, not of biases, normalisations, cpb_mlp and
    logit_scale. encoder_learning_rate: that of the encoder, if not learning_rate; for pretrained ones. layer_decay: a level of the
    encoder learns at the rate of the next, deeper one times this. clip_norm: the largest norm of all gradients together. ema_decay:
    exponential moving average of the weights; with ema_warmup its decay at update t is at most (1 + t) / (10 + t). swa_epochs: weights
    averaged over the last so many epochs. keep_each: keep the best of each set of weights, too, to be members of their own in an
    ensemble. patience: stop after so many epochs without a better mIoU. precision: auto is mixed_bfloat16 where the device computes it
    natively, but float32 for depthwise encoders on a CPU, and else float32. null is none.
    """

    epochs: int = Field(60, ge=1)
    batch_size: int = Field(16, ge=1)
    accumulate: int = Field(1, ge=1)
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: Positive = 1e-3
    schedule: Schedule = Cosine()
    warmup_epochs: float = Field(3, ge=0)
    weight_decay: float = Field(1e-4, ge=0)
    encoder_learning_rate: Positive | None = None
    layer_decay: float = Field(1.0, gt=0, le=1)
    clip_norm: Positive | None = None
    ema_decay: float | None = Field(0.99, gt=0, lt=1)
    ema_warmup: bool = False
    swa_epochs: int = Field(0, ge=0)
    keep_each: bool = False
    patience: int | None = Field(None, ge=1)
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    xla: Literal["auto", "on", "off"] = "auto"
    deterministic: bool = False
    seed: int = Field(0, ge=0, lt=2**31)

    @property
    def weight_sets(self) -> tuple[str, ...]:
        """Names of the sets of weights that training has: those that are trained, and the averages of them that it makes."""
        return ("last", *["ema"] * (self.ema_decay is not None), *["swa"] * (self.swa_epochs > 0))

    @property
    def warmup(self) -> float:
        """Epochs that the warm-up takes: those that are asked for, but a quarter of a training that would end before it."""
        return self.warmup_epochs if self.warmup_epochs < self.epochs else self.epochs / 4

    @field_validator("xla", mode="before")
    @classmethod
    def _yaml_switch(cls, value: Any) -> Any:
        # YAML 1.1 reads a bare on or off as a truth value.
        return ("on" if value else "off") if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Training:
        if self.swa_epochs > self.epochs:
            raise ValueError(f"swa_epochs ({self.swa_epochs}) must not be more than epochs ({self.epochs})")
        if self.optimizer == "adam" and self.weight_decay:
            raise ValueError(f"adam has no weight decay: set weight_decay to 0 instead of {self.weight_decay:g}, or optimizer to adamw")
        if self.ema_warmup and self.ema_decay is None:
            raise ValueError("ema_warmup needs an ema_decay")
        return self


class Inference(Section):
    """Prediction: tiles per step, and sets of views that are averaged (see marsls_keras/inference/tta.py).

    views: the set that a run predicts with unless marsls tune finds a better one. view_sets: the sets that it chooses among. <set>@<window>
    is a set of views of windows that reach across the borders of tiles.
    """

    batch_size: int = Field(16, ge=1)
    views: str = "identity"
    view_sets: tuple[str, ...] = ("identity", "flips", "paper", "rotations", "d4")

    @field_validator("views")
    @classmethod
    def _a_view_set(cls, value: str) -> str:
        return cls._known_views((value,))[0]

    @field_validator("view_sets")
    @classmethod
    def _known_views(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from marsls_keras.view_sets import views_of

        if not value:
            raise ValueError("view_sets must be one or more sets of views, such as [identity, d4]")
        for name in value:
            try:
                views_of(name)
            except InputError as error:
                raise ValueError(str(error).removesuffix(".")) from None
        return value


class Config(Section):
    """A whole recipe."""

    model: Model = Model()
    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    loss: dict[str, float | dict[str, Any]] = {"bce": 0.5, "dice": 0.5}
    training: Training = Training()
    inference: Inference = Inference()

    @field_validator("loss")
    @classmethod
    def _weights(cls, value: dict[str, Any]) -> dict[str, Any]:
        weights = [term.get("weight", 1.0) if isinstance(term, dict) else term for term in value.values()]
        if not all(isinstance(w, int | float) and math.isfinite(w) and w >= 0 for w in weights) or sum(weights) <= 0:
            raise ValueError("loss needs weights of 0 or more that do not sum to 0, such as {bce: 0.5, dice: 0.5}")
        return value
