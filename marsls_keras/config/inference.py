"""The section `inference`: batch size and test-time augmentation (TTA)."""

from __future__ import annotations

from pydantic import Field, field_validator

from marsls_keras.config.section import Section
from marsls_keras.errors import InputError
from marsls_keras.view_sets import views_of


class Inference(Section):
    """Configure the batch size of prediction and the view sets of test-time augmentation (section `inference`).

    Example:
        >>> Inference(views="flips@256").views
        'flips@256'
    """

    batch_size: int = Field(
        16,
        ge=1,
        description="Tiles per prediction step. It affects speed and memory, not results; lower it if memory runs out. "
        "With several devices it must be a multiple of their number.",
    )
    views: str = Field(
        "identity",
        description="View set of predictions until `marsls tune` has chosen one: the predictions of its views are "
        "averaged (test-time augmentation, TTA). Sets and single views are joined by `+`, such as "
        "`identity+horizontal_flip`. `flips@256` has the views of `flips` on overlapping windows of 256 "
        "pixels across tile borders. The default, the tile itself, costs one prediction; `flips` costs four, `d4` "
        "eight.",
    )
    view_sets: tuple[str, ...] = Field(
        ("identity", "flips", "paper", "rotations", "d4"),
        description="View sets among which `marsls tune` chooses; `--views` replaces them. `paper` is that of "
        "DualSwinFusionSeg. Sets of windows (`d4@256`) are not in the default, since each costs about four times as "
        "much.",
    )

    @field_validator("views")
    @classmethod
    def _a_view_set(cls, value: str) -> str:
        return cls._known_view_sets((value,))[0]

    @field_validator("view_sets")
    @classmethod
    def _known_view_sets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("view_sets must be one or more sets of views, such as [identity, d4]")
        for name in value:
            try:
                views_of(name)
            except InputError as error:
                raise ValueError(str(error).removesuffix(".")) from None
        return value
