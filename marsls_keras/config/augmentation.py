"""The augmentation section: each change with its probability per tile and its strength, and presets of them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from marsls_keras.config.section import Positive, Probability, Section
from marsls_keras.suggestions import did_you_mean


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("expected two numbers, the lower one first")
    return value


class Affine(Section):
    """Shift as a share of the side, down and right by themselves; scale factor, above 1 larger; rotation in degrees, about the centre.

    Each is drawn evenly between its bounds, ± where there is one bound.
    """

    probability: Probability = 0.0
    shift: float = Field(0.05, ge=0, lt=1)
    scale: tuple[Positive, Positive] = (0.9, 1.1)
    rotation: float = Field(20.0, ge=0, le=180)

    _bounds = field_validator("scale")(_ordered)


class Elastic(Section):
    """Smooth random displacement: its standard deviation in pixels, and the distance in pixels over which it varies.

    Pixels that far apart move alike with a correlation of 1/e. An amplitude of more than a quarter of it would fold the picture over.
    """

    probability: Probability = 0.0
    amplitude: Positive = 4.0
    distance: float = Field(32.0, ge=4)

    @model_validator(mode="after")
    def _unfolded(self) -> Elastic:
        if self.amplitude > self.distance / 4:
            raise ValueError(f"amplitude ({self.amplitude:g}) must be at most a quarter of distance ({self.distance:g})")
        return self


class Crop(Section):
    """Random resized crop: its area as a share of the tile's, and its ratio of width to height, evenly on a logarithmic scale."""

    probability: Probability = 0.0
    area: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.5, 1.0)
    aspect: tuple[Positive, Positive] = (0.75, 1.3333)

    _bounds = field_validator("area", "aspect")(_ordered)


class Blur(Section):
    """Gaussian blur of red, green and blue; sigma in pixels, the kernel reaching twice as far."""

    probability: Probability = 0.0
    sigma: tuple[Annotated[float, Field(gt=0, le=8)], Annotated[float, Field(gt=0, le=8)]] = (0.8, 1.4)

    _bounds = field_validator("sigma")(_ordered)


class Light(Section):
    """Brightness and contrast of red, green and blue together: an offset of ± brightness in values of [0, 1], a factor of 1 ± contrast."""

    probability: Probability = 0.0
    brightness: float = Field(0.2, ge=0, le=1)
    contrast: float = Field(0.2, ge=0, lt=1)


class Noise(Section):
    """Gaussian noise on red, green and blue; its standard deviation in values of [0, 1]."""

    probability: Probability = 0.0
    deviation: Positive = 0.05


PRESETS: dict[str, dict[str, Any]] = {
    "none": {"horizontal_flip": 0.0, "vertical_flip": 0.0, "rot90": 0.0},
    "flips": {},
    # DualSwinFusionSeg, Table 4; a blur kernel of 3 to 7 pixels has sigma 0.8 to 1.4 where the kernel sets it.
    "dual_swin": {
        "rot90": 0.5,
        "affine": {"probability": 0.5},
        "blur": {"probability": 0.15},
        "light": {"probability": 0.3},
    },
    # RMAU-Net, section IV-A: a turn by 90, 180 or 270 degrees (with 0 being one of four, 3/4 of the tiles turn), and CutMix.
    "rmau_net": {"horizontal_flip": 0.0, "vertical_flip": 0.0, "rot90": 1.0, "cutmix": 0.5},
    "strong": {
        "affine": {"probability": 0.5, "shift": 0.1, "scale": (0.8, 1.25), "rotation": 45.0},
        "elastic": {"probability": 0.2},
        "crop": {"probability": 0.2},
        "blur": {"probability": 0.2},
        "light": {"probability": 0.5},
        "noise": {"probability": 0.2},
        "channel_dropout": 0.1,
        "cutmix": 0.2,
        "mosaic": 0.2,
    },
}
"""What the presets change of the defaults, which are those of `flips`."""


class Augmentation(Section):
    """Random changes of training tiles, each with its probability per tile.

    A key `preset` (none, flips, dual_swin, rmau_net, strong) stands for its values; keys beside it change single ones. Once read, only the
    values are kept. rot90 turns by 0 to 3 quarter turns, evenly drawn. blur, light and noise change red, green and blue and no other band.
    channel_dropout sets the bands of one modality (red, green and blue; dem and slope; thermal; gray) to 0 as the network sees them: their
    mean, after the z-score. cutmix pastes the landslides of another tile of the batch, mosaic is a random cut of four tiles.
    """

    horizontal_flip: Probability = 0.5
    vertical_flip: Probability = 0.5
    rot90: Probability = 1.0
    affine: Affine = Affine()
    elastic: Elastic = Elastic()
    crop: Crop = Crop()
    blur: Blur = Blur()
    light: Light = Light()
    noise: Noise = Noise()
    channel_dropout: Probability = 0.0
    cutmix: Probability = 0.0
    mosaic: Probability = 0.0

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, values: Any) -> Any:
        if isinstance(values, str):
            raise ValueError(f"expected keys and values, such as {{preset: {values if values in PRESETS else 'flips'}}}")
        if not isinstance(values, dict) or "preset" not in values:
            return values
        given = dict(values)
        name = given.pop("preset")
        if not isinstance(name, str) or name not in PRESETS:
            raise ValueError(f"there is no preset {name!r}; known: {', '.join(PRESETS)}.{did_you_mean(str(name), PRESETS)}")
        merged: dict[str, Any] = dict(PRESETS[name])
        for key, value in given.items():
            inner = merged.get(key)
            merged[key] = {**inner, **value} if isinstance(inner, dict) and isinstance(value, dict) else value
        return merged
