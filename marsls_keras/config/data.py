"""The section `data`: tiles and bands, cross-validation folds, normalisation and sampling."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from marsls_keras.bands.derived import DERIVED
from marsls_keras.bands.names import ALL
from marsls_keras.config.section import Section
from marsls_keras.datasets import RELEASES, known_bands, unknown_bands
from marsls_keras.suggestions import did_you_mean


class Normalization(Section):
    """Configure the normalisation of tiles: percentile stretch, then z-score (section `data.normalization`).

    Example:
        >>> Normalization(percentiles=(1, 99)).percentiles
        (1.0, 99.0)
    """

    percentiles: tuple[float, float] | None = Field(
        None,
        description="Two percentiles, low and high, in percent: in each tile and band the values there become 0 and 1, "
        "and values beyond are clipped. `null` applies no stretch, with which a plain U-Net scored better. "
        "DualSwinFusionSeg (section 4.1) has `[1, 99]`. Refused together with `data.sampling: windows`, as it would "
        "cause steps at tile borders.",
    )
    zscore: bool = Field(
        True,
        description="Subtract the mean and divide by the standard deviation of each band, both computed over the valid "
        "pixels of the fold's training tiles. Set it to `false` only if all bands have the same scale already.",
    )

    @field_validator("percentiles")
    @classmethod
    def _ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        """Check that the percentiles are in order and between 0 and 100."""
        if value is not None and not 0 <= value[0] < value[1] <= 100:
            raise ValueError("percentiles must be two numbers with 0 <= low < high <= 100")
        return value


class Data(Section):
    """Configure tiles and input bands, cross-validation folds, normalisation and sampling (section `data`).

    Example:
        >>> data = Data(bands="all", cv="areas")
        >>> data.bands, data.cv
        (('all',), 'areas')
    """

    release: str = Field(
        "auto",
        description="The published dataset of the tiles, which defines their bands and values. `auto` detects it from "
        "all files of the folder; name it if the detection fails.",
    )
    bands: tuple[str, ...] = Field(
        (ALL,),
        description="Input bands of the network, in this order: bands that the tiles hold, `all` for all of these, "
        "and bands derived from them, such as `[all, ndvi, hillshade]` (listed in marsls_keras/data/README.md). `all` "
        "is the default because eight more terrain bands gave no significant gain.",
    )
    resize: int | None = Field(
        None,
        ge=16,
        description="Height and width, in pixels, to which tiles are resampled: bands bilinear, masks by the nearest "
        "pixel. Needed where tiles differ in size, as Bijie's do (128). `null` keeps their size. Predictions are "
        "brought back to the tile's own size.",
    )
    cache: Literal["auto", "memory", "disk"] = Field(
        "auto",
        description="Where decoded tiles are kept: in memory, or on disk (in `MARSLS_CACHE`, else `marsls` in the "
        "user's cache folder). `auto` takes the disk beyond 1 GiB of decoded images.",
    )
    conflicts: Literal["error", "union", "ignore"] = Field(
        "error",
        description="What happens to the same image in the same grid cell with different masks. `error` stops; "
        "`union` keeps one copy with the landslides of all masks; `ignore` trains and validates on no copy (one in "
        "test stays as published). MMLS v1 has six such cells.",
    )
    pool: tuple[Literal["train", "val"], ...] = Field(
        ("train", "val"),
        description="Labelled splits whose tiles are divided into folds. Without effect with `cv: official`.",
    )
    cv: Literal["blocks", "geographic", "areas", "holdout", "official"] = Field(
        "blocks",
        description="How tiles are divided into folds. `blocks`: blocks of neighbouring tiles, stratified by "
        "landslide; says what to expect beside labelled tiles. `geographic`: regions; `areas`: whole connected areas; "
        "both say what to expect elsewhere, which is less. `holdout`: one random share of the blocks. `official`: "
        "train on train, validate on val. Tiles that overlap on the map, and copies in any orientation, stay in one "
        "fold.",
    )
    folds: int = Field(
        5,
        ge=2,
        description="Number of folds with `cv` blocks and geographic, and the most there are with areas; holdout and "
        "official have one. 5 is DualSwinFusionSeg's.",
    )
    holdout: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Fraction of the tiles that `cv: holdout` holds out. 0.2 and 0.3 are the 80:20 and 70:30 of "
        "RMAU-Net.",
    )
    block_size: int = Field(
        2,
        ge=1,
        description="Side of a block in grid cells: 2 keeps 2 × 2 neighbouring tiles in one fold. Larger blocks make "
        "folds more independent and less alike. A tile without a grid cell in its name is a block of its own.",
    )
    normalization: Normalization = Field(
        Normalization(),
        description="Normalisation of the tiles for the network input: percentile stretch, then z-score.",
    )
    sampling: Literal["tiles", "windows"] = Field(
        "tiles",
        description="What training samples: single `tiles`, or square `windows` from anywhere in the image that the "
        "training tiles were cut from. A tile without a grid cell in its name has no neighbours, so its windows "
        "contain only this tile.",
    )
    window_sizes: tuple[Annotated[int, Field(ge=16)], ...] = Field(
        (128, 192, 256),
        description="Sides of the windows in pixels, with `sampling: windows`. They take turns from batch to batch, "
        "and each must fit the network (a U-Net of depth 4 needs multiples of 16).",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Data:
        if self.sampling == "windows" and self.normalization.percentiles is not None:
            raise ValueError(
                "sampling windows does not go together with normalization.percentiles, which stretch each tile by "
                "itself, so that windows would see a step at every border: set normalization.percentiles to null, or "
                "sampling to tiles"
            )
        return self

    @field_validator("release")
    @classmethod
    def _known_release(cls, value: str) -> str:
        """Check that the release is known; raise the error that pydantic raises for a `Literal`."""
        known = ["auto", *RELEASES]
        if value not in known:
            *first, last = map(repr, known)
            expected = f"{', '.join(first)} or {last}"
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
        return value

    @field_validator("window_sizes")
    @classmethod
    def _different_sizes(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("window_sizes must be one or more different sizes in pixels")
        return value

    @field_validator("bands", mode="before")
    @classmethod
    def _one_word(cls, value: Any) -> Any:
        """Accept "all" in place of a list."""
        return (value,) if value == ALL else value

    @field_validator("bands")
    @classmethod
    def _known_bands(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown_bands(value) or not value or len(set(value)) != len(value):
            known = (*known_bands(), *DERIVED)
            hints = "".join(f" {name} is unknown.{did_you_mean(name, known)}" for name in unknown_bands(value))
            raise ValueError(
                f"bands must be all, or one or more different ones of {', '.join(known)}.{hints}".removesuffix(".")
            )
        return value

    @field_validator("pool")
    @classmethod
    def _different_splits(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("pool must name one or both of train and val, once each")
        return value
