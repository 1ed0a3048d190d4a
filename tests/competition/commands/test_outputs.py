"""Output folders of `marsls predict`: the real command, on folders that are or look like data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from competition.cli import main
from competition.commands.outputs import MANIFEST, begin, finish, require_free
from marsls_keras.errors import InputError
from marsls_keras.files import sha256


def predict(tiny_run, images: Path, out: Path, *options: str) -> int:
    return main(
        [
            "predict",
            "tiny",
            "--runs",
            str(tiny_run.runs),
            "--images",
            str(images),
            "--out",
            str(out),
            "--folds",
            "0",
            *options,
        ]
    )


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("out", ["", "test", "test/masks", "test/images", "test/new", "val/masks", "val"])
def test_a_data_set_is_not_written_to(tiny_run, tmp_path, capsys, out):
    data = Path(shutil.copytree(tiny_run.data, tmp_path / "data"))
    shutil.rmtree(data / "test" / "masks")
    before = tree(data)
    assert predict(tiny_run, data / "test", data / out) == 2
    assert f"--out {data / out}" in capsys.readouterr().err and tree(data) == before


def test_pictures_of_another_layout_are_not_given_masks(tmp_path):
    """The folder `mask` beside images is read as their masks: an evaluation of them said 1.0000."""
    (tmp_path / "data" / "test" / "image").mkdir(parents=True)
    (tmp_path / "data" / "test" / "image" / "a.tif").touch()
    with pytest.raises(InputError, match="results would be taken for its masks"):
        require_free(tmp_path / "data" / "test", tmp_path / "data" / "test" / "image", True)


def test_the_folder_of_the_images_is_not_written_to(tiny_run, tmp_path, capsys):
    images = Path(shutil.copytree(tiny_run.data / "test" / "images", tmp_path / "tiles"))
    before = tree(images)
    for out in (images, images / "images", images / "img" / "out"):
        assert predict(tiny_run, images, out) == 2 and tree(images) == before
        assert "images are read from there" in capsys.readouterr().err
    (tmp_path / "link").symlink_to(images)
    assert predict(tiny_run, images, tmp_path / "link") == 2 and tree(images) == before


def test_an_earlier_run_is_replaced_only_when_asked_and_never_a_users_file(tiny_run, tmp_path, capsys):
    images = Path(shutil.copytree(tiny_run.data / "test" / "images", tmp_path / "tiles"))
    out = tmp_path / "out"
    assert predict(tiny_run, images, out) == 0
    written = tree(out)
    manifest = json.loads((out / MANIFEST).read_text())["rasters"]
    assert manifest == {name: digest for name, digest in written.items() if name != MANIFEST} and len(manifest) == 8
    gone = sorted(images.iterdir())[0]
    gone.unlink()
    assert predict(tiny_run, images, out) == 2 and tree(out) == written
    assert "holds 8 rasters of an earlier predict" in (told := capsys.readouterr().err) and "--overwrite" in told
    assert predict(tiny_run, images, out, "--overwrite") == 0
    left = tree(out)
    assert f"mask/{gone.name}" in written and f"mask/{gone.name}" not in left and len(left) == 7
    # A mask that was corrected by hand, and one that came from elsewhere.
    mask = out / "mask" / sorted(images.iterdir())[0].name
    bytes_before = mask.read_bytes()
    tifffile.imwrite(mask, np.ones((32, 32), np.uint8))
    (out / "notes.txt").write_text("mine")
    changed = tree(out)
    assert predict(tiny_run, images, out, "--overwrite") == 2 and tree(out) == changed
    assert f"{mask}, which was changed since predict wrote it" in capsys.readouterr().err
    mask.write_bytes(bytes_before)
    shutil.copy(mask, out / "mask" / "another.tif")
    assert predict(tiny_run, images, out, "--overwrite") == 2
    assert (
        "another.tif, which no earlier predict wrote" in capsys.readouterr().err
        and (out / "mask" / "another.tif").exists()
    )


def test_other_rasters_are_not_mixed_with(tmp_path):
    (tmp_path / "out" / "mask").mkdir(parents=True)
    for name in ("a.tif", "mask/b.TIF", "c.png"):
        (tmp_path / "out" / name).touch()
        with pytest.raises(InputError, match=f"{name}, which no earlier predict wrote"):
            require_free(tmp_path / "out", tmp_path, True)
        (tmp_path / "out" / name).unlink()
    (tmp_path / "out" / "notes.txt").touch()
    assert require_free(tmp_path / "out", tmp_path, False) == []


def test_what_a_killed_predict_left_can_be_removed(tmp_path):
    out = tmp_path / "out"
    files = [out / "mask" / "a.tif", out / "mask" / "b.tif"]
    begin(out, [], files)
    files[0].parent.mkdir()
    files[0].write_bytes(b"half")
    with pytest.raises(InputError, match="--overwrite"):
        require_free(out, tmp_path / "images", False)
    assert require_free(out, tmp_path / "images", True) == files[:1]
    begin(out, files[:1], files)
    assert not files[0].exists()
    for file in files:
        file.write_bytes(file.name.encode())
    finish(out, files)
    assert require_free(out, tmp_path / "images", True) == files


@pytest.mark.parametrize("text", ["[]", "{}", '{"rasters": [1]}', '{"rasters": {"mask/a.tif": 3}}', "{"])
def test_a_damaged_manifest_is_named(tmp_path, text):
    (tmp_path / "mask").mkdir()
    (tmp_path / "mask" / "a.tif").touch()
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=f"{MANIFEST} is damaged"):
        require_free(tmp_path, tmp_path / "images", True)
