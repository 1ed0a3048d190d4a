"""Tables of published results: the form of their files, and the figures of the papers in them."""

import pytest

from competition.recipe_parts import require_parts
from marsls_keras.config import recipe_folder, recipes
from marsls_keras.config.tables import ResultTable, TableRow, load_table, table_names
from marsls_keras.errors import InputError

ROWS = [(name, row) for name in table_names() for row in load_table(name).rows]


def test_every_table_of_the_papers_with_figures_is_there():
    assert table_names() == [
        *(f"dualswin-{n}" for n in (3, 5, 6, 7, 8, 9, 10, 11, 12)),
        *(f"marslsnet-{n}" for n in (2, 3, 4)),
        *(f"mmlsv2-{n}" for n in (2, 3, 4)),
        *(f"rmau-{n}" for n in (4, 6, 7, 8, 9, 10)),
    ]
    assert not set(table_names()) & set(recipes())


@pytest.mark.parametrize("name", table_names())
def test_every_row_has_figures_and_a_valid_configuration(name):
    table = load_table(name)
    releases = {table.data, "mmls_v1", "landslide4sense"}
    for row in table.rows:
        assert row.published.miou is not None
        if row.not_offered is None:
            for release in releases:
                require_parts(table.configuration(row, release))


@pytest.mark.parametrize("name,row", ROWS, ids=lambda value: getattr(value, "name", value))
def test_the_figures_agree_with_one_another(name, row):
    """The mean of both IoU is the mIoU, and precision and recall give F1, as far as the papers' digits go."""
    p = row.published
    if name == "mmlsv2-4" and row.name == "RGB":
        assert (p.iou_bg, p.iou_fg, p.miou) == (0.808, 0.614, 0.711)
    if p.iou_fg and p.iou_bg:
        assert p.miou == pytest.approx((p.iou_fg + p.iou_bg) / 2, abs=0.0016)
    if p.precision and p.recall:
        # The rows in which the papers' own figures differ by more than rounding.
        assert p.f1 == pytest.approx(2 * p.precision * p.recall / (p.precision + p.recall), abs=0.0011)


def test_settings_of_the_papers():
    table = load_table("mmlsv2-2")
    training = table.configuration(table.rows[0], "mmls_v2").training
    assert (training.optimizer, training.learning_rate, training.epochs, training.batch_size) == ("adam", 1e-3, 100, 128)
    assert training.schedule.model_dump() == {"name": "step", "every": 30, "factor": 0.1}
    bands = load_table("mmlsv2-4")
    assert bands.configuration(bands.rows[1], "mmls_v2").data.bands == ("red", "green", "blue", "dem")
    rmau = load_table("rmau-6")
    by_release = [rmau.configuration(rmau.rows[3], release).data.bands for release in ("mmls_v1", "landslide4sense")]
    assert [len(found) for found in by_release] == [7, 10] and "ndvi" in by_release[1]  # all is one of the names


def test_published_figures_by_hand():
    """Copied from the papers once more, from places all over the tables."""
    for name, row, key, value in (
        ("mmlsv2-2", "DeepLabV3+", "miou", 0.829),
        ("mmlsv2-3", "SegFormer", "recall", 0.856),
        ("marslsnet-2", "PSP Net", "precision", 0.7304),
        ("marslsnet-3", "MarsLS-Net (M-4)", "parameters", 293200),
        ("dualswin-10", "E11: IA eca, IE eca, DO cbam, fusion cbam", "deviation", 0.011),
        ("dualswin-12", "Standard (no EMA)", "f1", 0.8611),
        ("rmau-8", "U-Net+ & SE Att.", "miou", 0.6286),
        ("rmau-9", "Threshold 0.95", "f1", 0.7463),
    ):
        found = {r.name: r.published for r in load_table(name).rows}[row]
        assert getattr(found, key) == value, (name, row)


def test_names_that_are_close_or_have_no_figures():
    with pytest.raises(InputError, match="Did you mean mmlsv2-2"):
        load_table("mmlsv2_2")
    with pytest.raises(InputError, match="lists augmentations, without scores"):
        load_table("dualswin-4")
    with pytest.raises(InputError, match=r"no configuration file nowhere\.yaml"):
        load_table("nowhere.yaml")


def test_wrong_files_name_the_key(tmp_path):
    path = tmp_path / "mine.yaml"
    good = (recipe_folder() / "tables" / "dualswin-9.yaml").read_text(encoding="utf-8")
    for old, new, wrong in (
        ("title:", "titel:", "titel: Extra inputs"),
        ("miou: 0.836", "miou: 1.836", "rows.0.published.miou"),
        ("data: challenge", "data: chalenge", "Did you mean challenge"),
        ("name: Hybrid", "name: UNet++", "the row UNet++ is there twice"),
        ('name: "Hybrid"', 'name: "UNet++"', "the row UNet++ is there twice"),
    ):
        if old in good:
            path.write_text(good.replace(old, new), encoding="utf-8")
            with pytest.raises(InputError, match="mine.yaml") as error:
                load_table(str(path))
            assert wrong in str(error.value)


def test_a_row_changes_the_recipe_after_the_table():
    rows = (TableRow(name="a", settings={"model.name": "mars_ls_net", "model.options.size": "s3"}),)
    table = ResultTable(title="t", source="s", recipe="unet", settings={"model.options.depth": 2}, rows=rows)
    assert table.configuration(rows[0], "mmls_v2").model.options == {"size": "s3"}  # another network, other options
    with pytest.raises(InputError, match="of the row a(?s:.*)unknown key training.epoch"):
        table.configuration(rows[0], "mmls_v2", {"training.epoch": 3})


def test_a_row_that_is_not_offered_has_no_settings():
    with pytest.raises(ValueError, match="is not offered has no settings"):
        TableRow(name="a", not_offered="why", settings={"model.name": "unet"})
