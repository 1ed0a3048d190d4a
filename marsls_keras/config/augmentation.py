"""The section `augmentation`: probability and strength of each random transformation, and presets."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from marsls_keras.config.section import Positive, Probability, Section
from marsls_keras.suggestions import did_you_mean


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    """Check that the first number is not above the second."""
    if value[0] > value[1]:
        raise ValueError("expected two numbers, the lower one first")
    return value


class Affine(Section):
    """Configure a random affine transformation: shift, scale and rotation in one resampling.

    Example:
        >>> Affine(probability=0.5, rotation=45).scale
        (0.9, 1.1)
    """

    probability: Probability = Field(0.0, description="Probability per tile.")
    shift: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Largest shift, as a fraction of the tile's side, drawn uniformly from ± this, for rows and "
        "columns separately. This default and the next two are those of DualSwinFusionSeg, Table 4.",
    )
    scale: tuple[Positive, Positive] = Field(
        (0.9, 1.1), description="Smallest and largest scale, drawn uniformly; above 1 enlarges."
    )
    rotation: float = Field(
        20.0,
        ge=0,
        le=180,
        description="Largest rotation about the centre in degrees, drawn uniformly from ± this.",
    )

    _bounds = field_validator("scale")(_ordered)


class Elastic(Section):
    """Configure the elastic deformation: a smooth random displacement of pixels.

    Example:
        >>> Elastic(probability=0.2, amplitude=8).distance
        32.0
    """

    probability: Probability = Field(0.0, description="Probability per tile.")
    amplitude: Positive = Field(
        4.0,
        description="Standard deviation of the displacement in pixels; at most a quarter of `distance`, since a larger "
        "one would fold the image over itself.",
    )
    distance: float = Field(
        32.0,
        ge=4,
        description="Correlation length of the displacement in pixels: at this distance its correlation is 1/e.",
    )

    @model_validator(mode="after")
    def _unfolded(self) -> Elastic:
        """Check that the displacement is small enough not to fold the image."""
        if self.amplitude > self.distance / 4:
            raise ValueError(
                f"amplitude ({self.amplitude:g}) must be at most a quarter of distance ({self.distance:g})"
            )
        return self


class Crop(Section):
    """Configure the random resized crop: a random rectangle, enlarged to the size of the tile.

    Example:
        >>> Crop(probability=0.2).area
        (0.5, 1.0)
    """

    probability: Probability = Field(0.0, description="Probability per tile.")
    area: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = Field(
        (0.5, 1.0),
        description="Smallest and largest area of the rectangle, as a fraction of the tile, drawn uniformly.",
    )
    aspect: tuple[Positive, Positive] = Field(
        (0.75, 1.3333),
        description="Smallest and largest ratio of width to height, drawn uniformly on a logarithmic scale.",
    )

    _bounds = field_validator("area", "aspect")(_ordered)


class Blur(Section):
    """Configure the Gaussian blur of red, green and blue.

    Example:
        >>> Blur(probability=0.15).sigma
        (0.8, 1.4)
    """

    probability: Probability = Field(0.0, description="Probability per tile.")
    sigma: tuple[Annotated[float, Field(gt=0, le=8)], Annotated[float, Field(gt=0, le=8)]] = Field(
        (0.8, 1.4),
        description="Smallest and largest standard deviation in pixels, drawn uniformly; the radius of the kernel is "
        "twice that. The default corresponds to the kernels of 3 to 7 pixels of DualSwinFusionSeg.",
    )

    _bounds = field_validator("sigma")(_ordered)


class Light(Section):
    """Configure random brightness and contrast, the same for red, green and blue.

    Example:
        >>> Light(probability=0.3).brightness
        0.2
    """

    probability: Probability = Field(0.0, description="Probability per tile.")
    brightness: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Largest brightness offset, on the tiles' scale of [0, 1], drawn uniformly from ± this.",
    )
    contrast: float = Field(0.2, ge=0, lt=1, description="The contrast factor is drawn uniformly from 1 ± this.")


class Noise(Section):
    """Configure Gaussian noise on red, green and blue.

    Example:
        >>> Noise(probability=0.2).deviation
        0.05
    """

    probability: Probability = Field(0.0, description="Probability per tile.")
    deviation: Positive = Field(0.05, description="Standard deviation of the noise, on the tiles' scale of [0, 1].")


PRESETS: dict[str, dict[str, Any]] = {
    "none": {"horizontal_flip": 0.0, "vertical_flip": 0.0, "rot90": 0.0},
    "flips": {},
    # DualSwinFusionSeg, Table 4. A blur kernel of 3 to 7 pixels corresponds to sigma 0.8 to 1.4.
    "dual_swin": {
        "rot90": 0.5,
        "affine": {"probability": 0.5},
        "blur": {"probability": 0.15},
        "light": {"probability": 0.3},
    },
    # RMAU-Net, section III-A: CutMix, and a rotation by 90, 180 or 270 degrees. Here 0 is one of four rotations, so
    # 3/4 of the tiles rotate.
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
"""Differences of each preset from the defaults, which are those of `flips`."""


class Augmentation(Section):
    """Configure the random transformations of training tiles, each with its probability (section `augmentation`).

    A key `preset` stands for a set of values, which other keys can override. After reading, only the values are kept.

    Example:
        >>> augmentation = Augmentation.model_validate({"preset": "dual_swin", "affine": {"rotation": 45}})
        >>> augmentation.affine.probability, augmentation.affine.rotation
        (0.5, 45.0)
    """

    horizontal_flip: Probability = Field(0.5, description="Probability that columns are mirrored.")
    vertical_flip: Probability = Field(0.5, description="Probability that rows are mirrored.")
    rot90: Probability = Field(
        1.0,
        description="Probability of a rotation by 0 to 3 quarter turns, drawn uniformly; a tile that is not square "
        "gets half turns only. Set it to 0 if rotating the illumination in the gray band hurts.",
    )
    affine: Affine = Field(Affine(), description="Shift, scale and rotation.")
    elastic: Elastic = Field(Elastic(), description="Smooth random displacement.")
    crop: Crop = Field(Crop(), description="Random resized crop.")
    blur: Blur = Field(Blur(), description="Gaussian blur of red, green and blue.")
    light: Light = Field(Light(), description="Brightness and contrast of red, green and blue, the same for all three.")
    noise: Noise = Field(Noise(), description="Gaussian noise on red, green and blue.")
    channel_dropout: Probability = Field(
        0.0,
        description="Probability that the bands of one modality (red, green and blue; dem and slope; thermal; gray) "
        "are set to 0 in the network input, which is their mean after the z-score.",
    )
    cutmix: Probability = Field(
        0.0,
        description="Probability that the landslides of another tile of the batch are pasted, with all bands, mask "
        "and weight (Yun et al. 2019, in the form of RMAU-Net, section III-A).",
    )
    mosaic: Probability = Field(0.0, description="Probability of a mosaic of four tiles of the batch, cut at random.")
    custom: dict[str, dict[str, Any]] = Field(
        {},
        description="Transforms of plug-ins with their options, such as `{mine.Speckle: {probability: 0.5}}`, applied "
        "after all others.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, values: Any) -> Any:
        """Replace the key `preset` by its values, overridden by the other keys."""
        if isinstance(values, str):
            raise ValueError(
                f"expected keys and values, such as {{preset: {values if values in PRESETS else 'flips'}}}"
            )
        if not isinstance(values, dict) or "preset" not in values:
            return values
        given = dict(values)
        name = given.pop("preset")
        if not isinstance(name, str) or name not in PRESETS:
            raise ValueError(
                f"there is no preset {name!r}; known: {', '.join(PRESETS)}.{did_you_mean(str(name), PRESETS)}"
            )
        merged: dict[str, Any] = dict(PRESETS[name])
        for key, value in given.items():
            inner = merged.get(key)
            merged[key] = {**inner, **value} if isinstance(inner, dict) and isinstance(value, dict) else value
        return merged
