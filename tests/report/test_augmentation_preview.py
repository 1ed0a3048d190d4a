"""Preview of augmented training inputs in the report."""

import io

import numpy as np
import yaml
from helpers.reports import SIZE, N, Page, make_run
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from marsls_keras.config import parse_config
from marsls_keras.report import write_report
from marsls_keras.report.augmentation_preview import OUTLINE, preview
from marsls_keras.report.page import render


def run_with(**sections):
    config = parse_config(sections, "x")
    return make_run(config=yaml.safe_dump(config.model_dump(mode="json")))


def test_a_run_that_an_earlier_version_trained_is_shown():
    old = parse_config({"augmentation": {"preset": "none"}}, "x").model_dump(mode="json")
    old["training"]["keep_each"] = True
    assert len(preview(make_run(config=yaml.safe_dump(old))).rows) == 3


def pixels(picture):
    return (imread(io.BytesIO(picture.png), format="png")[..., :3] * 255).round().astype(int)


def symmetries(image):
    return [np.rot90(flipped, turns) for flipped in (image, image[:, ::-1]) for turns in range(4)]


def outlined(image):
    return (image == (np.array(to_rgb(OUTLINE)) * 255).round()).all(-1)


def test_a_few_training_tiles_as_they_are_and_as_they_come():
    run = run_with(augmentation={"preset": "none"})
    rows = preview(run).rows
    names = [row.title for row in rows]
    held = {ref.id: fold for ref, fold in zip(run.refs, run.held_out_by, strict=True)}
    assert len(names) == 3 and all(held[name] != 0 for name in names)  # fold 0 trains on what it does not hold out
    for row in rows:
        tile = int(row.title.removeprefix("train/t"))
        colours, relief = ([pixels(p) for p in pictures] for pictures in row.pictures)
        assert len(colours) == len(relief) == 6
        # Without augmentation the inputs are unchanged.
        assert all(np.array_equal(p, colours[0]) for p in colours) and all(np.array_equal(p, relief[0]) for p in relief)
        image = run.images[tile, ..., :3]
        low, high = np.percentile(image, (1, 99))
        edge = outlined(colours[0])
        expected = (np.clip((image - low) / (high - low), 0, 1) * 255).round()
        assert np.abs(colours[0] - expected)[~edge].max() <= 1  # by way of the z-score and back
        mask = run.masks[tile] > 0
        padded = np.pad(mask, 1, mode="edge")
        inner = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        assert np.array_equal(edge, mask & ~inner)


def test_flips_and_turns_are_those_of_the_pipeline_for_bands_and_mask_alike():
    seen = set()
    for row in preview(run_with(augmentation={"preset": "flips"})).rows:
        colours, relief = row.pictures
        first = symmetries(pixels(colours[0]))
        for a, b in zip(colours[1:], relief[1:], strict=True):
            (which,) = [k for k, turned in enumerate(first) if np.array_equal(turned, pixels(a))]
            # Light falls on the turned terrain as on any, so only the outline tells how the relief was turned.
            assert np.array_equal(outlined(pixels(b)), outlined(symmetries(pixels(relief[0]))[which]))
            seen.add(which)
    assert len(seen) > 3


def test_photometry_shows_in_the_colours_and_leaves_the_relief():
    still = {"preset": "none"}
    run = run_with(augmentation={**still, "light": {"probability": 1.0}, "noise": {"probability": 1.0}})
    for row in preview(run).rows:
        colours, relief = ([pixels(p) for p in pictures] for pictures in row.pictures)
        assert len({p.tobytes() for p in colours}) == 6 and len({p.tobytes() for p in relief}) == 1


def test_windows_are_shown_where_training_sees_windows():
    run = run_with(data={"sampling": "windows", "window_sizes": [16, 48]}, training={"batch_size": 4})
    rows = preview(run).rows
    assert [row.title for row in rows] == ["windows of 16 × 16 pixels", "windows of 48 × 48 pixels"]
    for row, size in zip(rows, (16, 48), strict=True):
        assert [len(pictures) for pictures in row.pictures] == [6, 6]
        assert {pixels(p).shape for pictures in row.pictures for p in pictures} == {(size, size, 3)}
    # Windows of 48 pixels among tiles of 32 see pixels that are not published, or held out.
    dark = [(pixels(p) == round(0.15 * 255)).all(-1).mean() for p in rows[1].pictures[0]]
    assert max(dark) > 0.05 and min(dark) < 0.9


def test_bands_without_colours_or_relief():
    rows = preview(run_with(data={"bands": ["dem", "slope"]})).rows
    assert [[p.label for p in pictures][:2] for pictures in rows[0].pictures] == [
        ["relief, as it is", "relief, draw 1"]
    ]
    rows = preview(run_with(data={"bands": ["thermal", "red"]})).rows
    assert [pictures[0].label for pictures in rows[0].pictures] == ["thermal, as it is"]
    grey = pixels(rows[0].pictures[0][0])
    assert (np.ptp(grey, axis=-1) == 0)[~outlined(grey)].all()


def test_the_changes_are_told_and_those_without_effect_too():
    made = preview(run_with(augmentation={"preset": "dual_swin"}))
    assert made.changes == [
        "horizontal_flip 50%",
        "vertical_flip 50%",
        "rot90 50%",
        "affine 50% (shift 0.05, scale 0.9 to 1.1, rotation 20)",
        "blur 15% (sigma 0.8 to 1.4)",
        "light 30% (brightness 0.2, contrast 0.2)",
    ]
    assert made.notes == []
    made = preview(run_with(augmentation={"preset": "strong"}, data={"bands": ["gray"]}))
    assert [note.split(" nothing")[0] for note in made.notes] == [
        "Blur, light and noise change",
        "Channel dropout changes",
    ]
    assert preview(run_with(augmentation={"preset": "flips"}, data={"bands": ["gray"]})).notes == []


def test_the_page_has_the_pictures_with_alternative_text(tmp_path):
    write_report([run_with(augmentation={"preset": "dual_swin"})], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    parsed = Page(page)
    assert (
        "What training sees Tiles are changed at random each time they come. "
        "Here: horizontal_flip 50%; vertical_flip 50%;" in parsed.text
    )
    alts = [alt for alt in parsed.attributes("img", "alt") if "draw" in alt]
    assert len(alts) == 3 * 2 * 5 and all("% landslide" in alt for alt in alts)
    assert "What training sees" not in render([make_run()])
    write_report([run_with(augmentation={"preset": "none"})], tmp_path / "report.html")
    assert "Tiles come as they are." in Page((tmp_path / "report.html").read_text(encoding="utf-8")).text


def test_without_a_finished_fold_there_is_none_and_few_tiles_are_enough(tmp_path):
    assert preview(make_run(folds=(), tuned=False)) is None
    held_out_by = np.zeros(N, int)
    held_out_by[5] = 1
    run = make_run(held_out_by=held_out_by, folds=(0,), tuned=False)
    (row,) = preview(run).rows
    assert row.title == "train/t5" and [len(pictures) for pictures in row.pictures] == [6, 6]
    empty = make_run(masks=np.zeros((N, SIZE, SIZE), np.uint8), tuned=False)
    assert len(preview(empty).rows) == 3
