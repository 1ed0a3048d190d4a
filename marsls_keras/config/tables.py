"""Tables of published results: YAML files of `configs/tables/`, whose rows are changes of one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from marsls_keras.config.config_file import read_yaml_file
from marsls_keras.config.keys import set_key
from marsls_keras.config.recipe_files import recipe_folder, recipe_path
from marsls_keras.config.schema import Config
from marsls_keras.config.section import Positive, Probability, Section
from marsls_keras.config.validate import parse_config
from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError, listing
from marsls_keras.suggestions import did_you_mean
from marsls_keras.view_sets import views_of

WITHOUT_FIGURES = {
    "dualswin-4": "Table 4 of DualSwinFusionSeg lists augmentations, without scores: they are the preset dual_swin",
    "rmau-5": "Table V of RMAU-Net lists derived bands, without scores: rmau-6 compares them",
}
"""Tables of the papers that have no figures to compare with, by the name they would have."""


class Published(Section):
    """The figures that a paper gives for a row; None where it gives none.

    Example:
        >>> Published(miou=0.829, f1=0.876).miou
        0.829
    """

    miou: Probability | None = Field(None, description="mIoU.")
    iou_fg: Probability | None = Field(None, description="IoU of landslide.")
    iou_bg: Probability | None = Field(None, description="IoU of background.")
    f1: Probability | None = Field(None, description="F1, which is also Dice.")
    precision: Probability | None = Field(None, description="Precision.")
    recall: Probability | None = Field(None, description="Recall.")
    deviation: Positive | None = Field(None, description="Standard deviation of the mIoU over the paper's folds.")
    parameters: Positive | None = Field(None, description="Number of parameters.")
    latency: Positive | None = Field(None, description="Time for an image, in seconds.")
    training: Positive | None = Field(None, description="Time of training, in hours.")


class TableRow(Section):
    """A row: changes of the table's recipe, how it predicts, and what the paper reports.

    Example:
        >>> row = TableRow(name="PSPNet", settings={"model.name": "pspnet"}, published=Published(miou=0.828))
        >>> row.threshold, row.views
        (0.5, 'identity')
    """

    name: str = Field(min_length=1, description="Name of the row, as in the paper.")
    settings: dict[str, Any] = Field({}, description="Changes of the recipe: dotted keys and values.")
    release_settings: dict[str, dict[str, Any]] = Field(
        {}, description="More changes if the data are of a release, by its name; for bands that others do not have."
    )
    views: str = Field("identity", description="View set that is averaged for predictions.")
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="Least probability of landslide.")
    note: str | None = Field(None, description="How the row differs from the paper's.")
    not_offered: str | None = Field(None, description="Why the row cannot be trained; its figures are still shown.")
    published: Published = Field(Published(), description="The paper's figures.")

    @field_validator("views")
    @classmethod
    def _on_tiles(cls, value: str) -> str:
        try:
            views_of(value)
        except InputError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("release_settings")
    @classmethod
    def _known_releases(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            _require_release(name)
        return value

    @model_validator(mode="after")
    def _offered(self) -> TableRow:
        if self.not_offered and (self.settings or self.release_settings):
            raise ValueError("a row that is not offered has no settings")
        return self


class ResultTable(Section):
    """A table of results: the recipe that its rows change, the rows, and where the published figures are from.

    Example:
        >>> table = ResultTable(title="Networks", source="own", recipe="unet", rows=(TableRow(name="U-Net"),))
        >>> table.configuration(table.rows[0], "mmls_v2").model.name
        'unet'
    """

    title: str = Field(min_length=1, description="What the table compares.")
    source: str = Field(min_length=1, description="Paper and number of the table.")
    data: str | None = Field(None, description="Release that the published figures are of; null without such figures.")
    judged: str | None = Field(None, description="The tiles that the published figures are of.")
    recipe: str = Field(description="The recipe that the settings change: a name in configs/, or a YAML file.")
    settings: dict[str, Any] = Field({}, description="The paper's settings: dotted keys and values.")
    remarks: tuple[str, ...] = Field((), description="Sentences below the table.")
    rows: tuple[TableRow, ...] = Field(min_length=1, description="The rows; differences are to the first one.")

    @field_validator("data")
    @classmethod
    def _known_release(cls, value: str | None) -> str | None:
        if value is not None:
            _require_release(value)
        return value

    @field_validator("rows")
    @classmethod
    def _each_once(cls, value: tuple[TableRow, ...]) -> tuple[TableRow, ...]:
        names = [row.name for row in value]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(f"the row {twice[0]} is there twice")
        return value

    def configuration(self, row: TableRow, release: str, changes: dict[str, Any] | None = None) -> Config:
        """Return the configuration of a row: the recipe with the settings of the table, of the row, and changes.

        Args:
            row: A row that is offered.
            release: Release of the data.
            changes: Dotted keys and values that are set last.

        Raises:
            InputError: If a key or value is invalid; the row is named.
        """
        values = read_yaml_file(recipe_path(self.recipe))
        values.pop("search", None)
        own = {**row.settings, **row.release_settings.get(release, {})}
        for key, value in {**self.settings, **own, **(changes or {})}.items():
            set_key(values, key.split("."), value)
        return parse_config(values, f"of the row {row.name}")


def _require_release(name: str) -> None:
    if name not in RELEASES:
        raise ValueError(f"there is no release {name!r}.{did_you_mean(name, RELEASES)} Known: {', '.join(RELEASES)}")


def table_names() -> list[str]:
    """Return the names of the tables in `configs/tables/`, by paper and number.

    Example:
        >>> table_names()[:3]
        ['dualswin-3', 'dualswin-5', 'dualswin-6']
    """
    names = [path.stem for path in (recipe_folder() / "tables").glob("*.yaml")]
    return sorted(names, key=lambda name: (name.partition("-")[0], int(name.partition("-")[2])))


def load_table(name: str) -> ResultTable:
    """Read a table by name, or a YAML file of the same form by path.

    Args:
        name: Name of a table ("mmlsv2-2"), or path of a YAML file.

    Raises:
        InputError: If there is no such table or file, or a key or value is invalid.

    Example:
        >>> load_table("mmlsv2-2").rows[2].published.miou
        0.828
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = recipe_folder() / "tables" / f"{name}.yaml"
        if name not in table_names():
            known = f"Known: {', '.join(table_names())}; or give a YAML file."
            if name in WITHOUT_FIGURES:
                raise InputError(f"--table {name}: {WITHOUT_FIGURES[name]}. {known}")
            raise InputError(f"--table {name}: there is no such table.{did_you_mean(name, table_names())} {known}")
    values = read_yaml_file(path)
    try:
        return ResultTable.model_validate(values)
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, e['loc'])) or 'the table'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        raise InputError(f"Table {path}:{listing(wrong)}") from None
