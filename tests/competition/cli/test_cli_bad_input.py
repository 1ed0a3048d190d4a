"""User errors: each has its exit code and one message that says what to do, and leaves no file behind."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.cli import SETTINGS, limited, marsls, process, snapshot, strict_json, succeed
from helpers.records import edited

from marsls_keras.config import read_config

TEST_IMAGES = "test/images"


def refused(*arguments, code=2):
    """Run a command that must fail without changing the current folder, and return its message."""
    before = snapshot(".")
    result = marsls(*arguments)
    assert result.code == code, result
    assert result.out == "", result
    assert "Traceback" not in result.err and "This is a bug" not in result.err, result
    assert result.err.count("Error: ") == 1, result
    assert snapshot(".") == before
    return result.err


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_run):
    """Return a folder with data (16, 4 and 4 tiles), a run named default (two folds), and its recipe default.yaml."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(tiny_run.data, home / "data")
    shutil.copytree(tiny_run.path, home / "runs/default")
    shutil.copy(tiny_run.recipe, home / "default.yaml")
    return home


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MARSLS_DATA", raising=False)
    monkeypatch.delenv("MARSLS_RUNS", raising=False)


@pytest.fixture
def data(home):
    """Copy the data to the current folder, to be damaged."""
    return Path(shutil.copytree(home / "data", "data"))


@pytest.fixture
def run(home):
    """Copy the run to the current folder, to be damaged."""
    shutil.copytree(home / "runs", "runs")
    return Path("runs/default")


def files(folder):
    return sorted(Path(folder).glob("*.tif"))


def write(path, array, **options):
    tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})


# ----------------------------------------------------------------------------------------------------------------- data


HELP = ("https://github.com/MAIN-Lab/MMLS_v2", "CodaBench", "marsls synth data", "train/images")


@pytest.mark.parametrize("arguments", [["check"], ["train"], ["check", "nowhere"], ["train", "--data", "nowhere"]])
def test_no_data_folder(arguments):
    message = refused(*arguments)
    folder = "nowhere" if "nowhere" in arguments else "data"
    assert f"There is no data folder {folder} (set it with --data or MARSLS_DATA)." in message
    assert all(part in message for part in HELP)


def test_a_folder_without_splits():
    Path("data/other").mkdir(parents=True)
    for arguments in (["check"], ["train"]):
        message = refused(*arguments)
        assert "data holds none of the folders train, val, test." in message
        assert all(part in message for part in HELP)


def empty_split(data):
    for file in files(data / "val/images"):
        file.unlink()
    return [("empty split", f"{data}/val/images holds no .tif file; fill it or remove {data}/val")]


def unreadable(data):
    file = files(data / "train/images")[3]
    file.write_bytes(b"no TIFF at all")
    return [("unreadable image", f"{file}: unreadable or truncated TIFF"), ("", "Download or copy the file again")]


def truncated(data):
    file = files(data / "train/images")[0]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return [("unreadable image", f"{file}: unreadable or truncated TIFF"), ("", "Download or copy the file again")]


def truncated_mask(data):
    file = files(data / "val/masks")[0]
    file.write_bytes(file.read_bytes()[:-40])
    return [("unreadable mask", f"{file}: unreadable or truncated TIFF")]


def wrong_shape(data):
    file = files(data / "train/images")[1]
    write(file, np.zeros((48, 32, 7), np.float32), planarconfig="contig")
    return [("wrong shape", f"{file}: 48 x 32 pixels, expected 32 x 32 as the others have")]


def wrong_mask_shape(data):
    file = files(data / "train/masks")[1]
    write(file, np.zeros((32, 31), np.uint8))
    return [("wrong shape", f"{file}: 32 x 31 pixels, its image has 32 x 32")]


def wrong_bands(data):
    file = files(data / "train/images")[2]
    write(file, np.zeros((32, 32, 3), np.float32), planarconfig="contig")
    return [("unreadable image", f"{file}: expected 7 bands of H x W, found 32x32x3")]


def image_without_mask(data):
    image = files(data / "train/images")[4]
    (data / "train/masks" / image.name).unlink()
    return [("missing mask", f"{image} has no mask of the same name or grid cell")]


def mask_without_image(data):
    mask = files(data / "val/masks")[1]
    (data / "val/images" / mask.name).unlink()
    return [("missing image", f"{mask} has no image of the same name or grid cell")]


def no_masks(data):
    shutil.rmtree(data / "train/masks")
    return [("missing mask", f"{data}/train has images but no folder masks")]


def grey_mask(data):
    mask = files(data / "train/masks")[5]
    write(mask, np.tile(np.arange(32, dtype=np.uint8), (32, 1)))
    return [("unreadable mask", f"{mask}: a mask holds 0 and 1 (or 0 and 255), found 0, 1, 2, 3, 4, …")]


def tile_in_train_and_test(data):
    image = files(data / "train/images")[6]
    copy = data / "test" / "images" / "col00900_row00900.tif"
    shutil.copy(image, copy)
    shutil.copy(data / "train/masks" / image.name, data / "test/masks" / copy.name)
    return [("overlap", f"the same tile is in test and train: {image}, {copy}")]


def tile_twice(data):
    image = files(data / "train/images")[6]
    for kind in ("images", "masks"):
        shutil.copy(data / "train" / kind / image.name, data / "train" / kind / "col00900_row00900.tif")
    return [
        ("duplicate", f"the same tile is in train more than once: {image}, {data}/train/images/col00900_row00900.tif")
    ]


def mixed_releases(data):
    succeed("synth", "raw", "--release", "challenge", "--size", 32, "--train", 16, "--val", 4, "--test", 0)
    image = files(data / "train/images")[7]
    shutil.copy(Path("raw/train/images", image.name), image)
    return [("mixed releases", f"1 of challenge (such as {image})"), ("", "Keep one release to a folder")]


def garbage_values(data):
    image = files(data / "train/images")[8]
    write(image, np.full((32, 32, 7), 3e7, np.float32), planarconfig="contig")
    return [("unreadable image", f"{image}: values up to 3e+07, which no band has")]


def several(data):
    return unreadable(data) + wrong_shape(data) + grey_mask(data) + mixed_releases(data)


def several_in_the_folders(data):
    return image_without_mask(data) + mask_without_image(data)


DAMAGES = [
    empty_split,
    unreadable,
    truncated,
    truncated_mask,
    wrong_shape,
    wrong_mask_shape,
    wrong_bands,
    image_without_mask,
]
DAMAGES += [mask_without_image, no_masks, grey_mask, tile_in_train_and_test, tile_twice, mixed_releases, garbage_values]
DAMAGES += [several, several_in_the_folders]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_data(data, damage):
    expected = damage(data)
    before = snapshot(".")
    table, machine = marsls("check", data), marsls("check", data, "--json")
    assert snapshot(".") == before
    assert (table.code, table.err, machine.code, machine.err) == (2, "", 2, "")
    problems = strict_json(machine.out)["problems"]
    for kind, text in expected:
        assert any(kind in p["kind"] and text in p["message"] and p["severity"] == "error" for p in problems), problems
        assert text in table.out
    errors = sum(problem["severity"] == "error" for problem in problems)
    assert errors == len([kind for kind, _ in expected if kind])
    assert f"{errors} error(s)" in table.out

    message = refused("train", *SETTINGS)
    assert f"data has {errors} problem(s):" in message
    assert all(text in message for _, text in expected)


def test_check_lists_folder_and_content_together(data):
    expected = image_without_mask(data) + unreadable(data) + wrong_bands(data)
    result = marsls("check")
    assert result.code == 2 and all(text in result.out for _, text in expected)


def test_all_tiles_unreadable(data):
    for file in files(data / "train/images") + files(data / "val/images") + files(data / TEST_IMAGES):
        file.write_bytes(b"")
    result = marsls("check")
    assert result.code == 2 and result.err == ""
    assert "data: no readable tile" in result.out and "24 error(s)" in result.out
    assert "data has 24 problem(s):" in (message := refused("train"))
    assert "… and 4 more" in message


def test_no_labelled_tile():
    succeed("synth", "data", "--size", 32, "--train", 2, "--val", 0, "--test", 3)
    shutil.rmtree("data/train")
    assert "The data has no tile in the split train or val" in refused("train", *SETTINGS)


def test_unlabelled_validation_tiles(data):
    shutil.rmtree(data / "val/masks")
    message = refused("train", *SETTINGS)
    assert "4 tiles of the pool have no mask, such as data/val/images/" in message and "data.pool" in message
    assert marsls("check").code == 0  # nothing is wrong with the folder itself


def test_too_few_tiles_for_the_folds(data):
    message = refused("train", *SETTINGS, "--set", "data.folds=100")
    assert "cannot be divided into 100 folds. Lower data.folds or block_size." in message


@pytest.mark.parametrize("numbers", [["--train", "0"], ["--val", "-1"], ["--size", "31"], ["--seed", "-1"]])
def test_synth_numbers(numbers):
    option, value = numbers
    assert f"{option.removeprefix('--')} must be at least" in (message := refused("synth", "made", *numbers))
    assert f"Received: {value}." in message


def test_synth_does_not_write_into_other_files(data):
    assert "data already exists and is not an empty folder: choose another folder or remove it." in refused(
        "synth", "data"
    )
    Path("file").write_text("mine")
    assert "file already exists and is not an empty folder" in refused("synth", "file")


# -------------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--config", "nope"], ["There is no configuration 'nope'.", "- default", "- demo"]),
        (["--config", "nope.yaml"], ["There is no configuration file nope.yaml."]),
        (["--config", "list.yaml"], ["Configuration list.yaml must hold keys and values, found list."]),
        (["--config", "broken.yaml"], ["Configuration broken.yaml cannot be read", "line 2"]),
        (["--config", "."], ["There is no configuration '.'"]),
        (["--set", "training.epoch=1"], ["unknown key training.epoch, did you mean epochs?"]),
        (["--set", "trainig.epochs=1"], ["unknown key trainig, did you mean training?"]),
        (["--set", "training.zzz=1"], ["unknown key training.zzz; known here: epochs, batch_size"]),
        (
            ["--set", "training.epochs"],
            ["--set training.epochs: expected section.key=value, such as training.epochs=30."],
        ),
        (["--set", "=3"], ["--set =3: expected section.key=value"]),
        (["--set", "loss={bce: 1"], ["--set loss={bce: 1: the value is no valid YAML"]),
        (["--set", "training.epochs=many"], ["training.epochs: Input should be a valid integer", "Received: 'many'"]),
        (["--set", "training.epochs=0"], ["training.epochs: Input should be greater than or equal to 1. Received: 0"]),
        (["--set", "training.learning_rate=.nan"], ["training.learning_rate: Input should be a finite number"]),
        (
            ["--set", "data.bands=[red, infrared]"],
            ["data.bands: bands must be all, or one or more different ones of red, green"],
        ),
        (
            ["--set", "data.release=mmls_v3"],
            [
                "data.release: Input should be 'auto', 'mmls_v1', 'mmls_v2', 'challenge', ",
                "or 'nepal'. Did you mean mmls_v2?",
                "'mmls_v3'",
            ],
        ),
        (["--set", "inference.view_sets=[all]"], ["There is no set of views 'all'. Known: identity, flips"]),
        (["--set", "loss={bce: 0}"], ["loss needs weights of 0 or more that do not sum to 0", "Received: {'bce': 0"]),
        (["--set", "loss={focale: 1}"], ["loss: unknown focale. Did you mean focal? Known:", "- bce", "- dice"]),
        (
            ["--set", "loss={focal: {gama: 1}}"],
            ["loss.focal has no parameter gama. Did you mean gamma? It has: weight, ", "gamma"],
        ),
        (["--set", "loss={focal: {gamma: -1}}"], ["loss.focal.gamma: ", "greater than or equal to 0. Received: -1"]),
        (
            ["--set", "augmentation.preset=weak"],
            ["there is no preset 'weak'; known: none, flips, dual_swin, rmau_net, strong"],
        ),
        (
            ["--set", "augmentation.blur.sigma=[2, 1]"],
            ["augmentation.blur.sigma: expected two numbers, the lower one first"],
        ),
        (
            ["--set", "data.sampling=windows", "--set", "data.window_sizes=[40]"],
            ["divisible by 32; the tiles or windows are 40 x 40."],
        ),
        (["--set", "training.schedule.name=linear"], ["training.schedule: ", "'linear'", "'cosine'"]),
        (["--set", "training.schedule.every=3"], ["training.schedule: the key 'name' is missing", "{name: cosine}"]),
        (["--set", "training.optimizer=adam"], ["adam has no weight decay: set weight_decay to 0"]),
        (["--epochs", "0"], ["training.epochs: Input should be greater than or equal to 1. Received: 0"]),
        (["--set", "model.name=unett"], ["There is no model 'unett'. Did you mean unet? Known:", "- unet"]),
        (
            ["--config", "unet", "--set", "model.options.filters=4"],
            ["unet has no option filters. Did you mean base_filters? It has: base_filters, depth, dropout."],
        ),
        (
            ["--config", "unet", "--set", "model.options.base_filters=big"],
            ["model.options.base_filters: expected int, such as 16. Received: 'big'"],
        ),
        (
            ["--config", "unet", "--set", "model.options.base_filters=0"],
            ["model.options: unet needs", "Received: bands=7, base_filters=0"],
        ),
        (
            ["--config", "unet", "--set", "model.options.depth=6"],
            ["unet needs height and width divisible by 64; the tiles or windows are 32 x 32."],
        ),
        (["--fold", "5"], ["There is no fold 5: with cv blocks the folds are 0 to 4."]),
        (["--fold", "2", "--set", "data.folds=2"], ["There is no fold 2: with cv blocks the folds are 0 to 1."]),
        (["--fold", "1", "--set", "data.cv=official"], ["There is no fold 1: with cv official the folds are 0 to 0."]),
        (["--fold", "first"], ["--fold first: expected a number from 0, all or full."]),
        (["--fold", "-1"], ["--fold -1: expected a number from 0, all or full."]),
        (["--fold", "1.0"], ["--fold 1.0: expected a number from 0, all or full."]),
        (["--run", "a/b"], ["--run a/b: expected a plain name"]),
        (["--run", ".."], ["--run ..: expected a plain name"]),
        (["--run", "a+b"], ["--run a+b: expected a plain name"]),
        (
            ["--run", "a@ema"],
            ["--run a@ema: expected a plain name", "RUN@SET was removed", "a is the run with its best weights."],
        ),
    ],
)
def test_train_arguments(home, arguments, parts):
    Path("list.yaml").write_text("- a\n")
    Path("broken.yaml").write_text("a: [\n")
    message = refused("train", "--data", home / "data", *arguments)
    assert all(part in message for part in parts), message


def test_several_wrong_keys_at_once(home):
    message = refused(
        "train", "--data", home / "data", "--set", "training.epoch=1", "--set", "data.folds=1", "--set", "lost.bce=1"
    )
    for part in (
        "unknown key training.epoch, did you mean epochs?",
        "data.folds: Input should be greater",
        "unknown key lost",
    ):
        assert f"\n  - {part}" in message


def test_a_run_keeps_its_configuration_and_data(home, run):
    arguments = ["train", "--config", home / "default.yaml"]
    message = refused(
        *arguments, "--data", home / "data", "--set", "training.learning_rate=0.5", "--set", "training.seed=77"
    )
    assert "Run runs/default has another configuration:" in message and "Choose another name with --run." in message
    had = read_config(home / "default.yaml").training
    assert (
        f"\n  - training.learning_rate: {had.learning_rate} → 0.5" in message
        and f"\n  - training.seed: {had.seed} → 77" in message
    )
    shutil.copytree(home / "data", "data")
    for kind in ("images", "masks"):
        files(f"data/train/{kind}")[0].unlink()
    message = refused(*arguments)
    assert "Run runs/default was begun on other data:" in message and "Choose another name with --run." in message
    assert "tiles: {'train': 16, 'val': 4} → {'train': 15, 'val': 4}" in message


def test_a_finished_fold_is_not_trained_again(home, run):
    message = refused("train", "--config", home / "default.yaml", "--data", home / "data", "--fold", 0)
    assert "Fold 0 of run default is finished. Train it longer with --resume --epochs " in message


# ----------------------------------------------------------------------------------------------------------------- runs

USES = [
    ["tune"],
    ["submit"],
    ["evaluate", "default"],
    ["predict", "default", "--images", "images", "--out", "out"],
]


@pytest.mark.parametrize("use", [*USES, ["report", "default"]], ids=lambda use: use[0])
def test_unknown_run(use):
    arguments = ["other" if part == "default" else part for part in use] + (
        ["--run", "other"] if use[0] in ("tune", "submit") else []
    )
    assert "There is no run 'other' in runs. There is none yet: marsls train makes one." in refused(*arguments)
    for name in ("first", "second"):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "splits.json").write_text("{}")
    Path("runs/junk").mkdir()
    assert "There is no run 'other' in runs. There are: first, second." in refused(*arguments)


@pytest.mark.parametrize("use", USES, ids=lambda use: use[0])
def test_missing_folds_are_named(home, run, use):
    shutil.rmtree(run / "fold_1")
    shutil.copytree(home / "data" / TEST_IMAGES, "images")
    message = refused(*use)
    assert "Run default is not complete:" in message and "\n  - fold 1 is missing: marsls train" in message
    assert "--run default --fold 1" in message
    assert "fold 0" not in message.split("\n", 1)[1].split("To use only")[0]
    assert "To use only what is there, say so: --folds 0" in message
    result = marsls(*use, "--folds", "0")  # on purpose
    assert result.code == 0, result


def test_every_bad_fold_is_named_with_its_reason(home):
    run = Path("runs/four")
    four = ["--data", home / "data", *SETTINGS, "--set", "data.folds=4", "--run", "four"]
    succeed("train", *four, "--fold", 0)
    for fold in (1, 2):
        shutil.copytree(run / "fold_0", run / f"fold_{fold}")
    (run / "fold_1/metrics.json").unlink()
    config = run / "fold_2/config.yaml"
    config.write_text(config.read_text().replace("learning_rate: 0.001", "learning_rate: 0.25"))
    message = refused("submit", "--run", "four")
    assert "fold 1 is unfinished: marsls train" in message and "--fold 1 --epochs 1 --resume" in message
    assert "fold 2 is from another configuration (training.learning_rate: 0.001 → 0.25)" in message
    assert "fold 3 is missing: marsls train" in message
    assert "say so: --folds 0" in message
    message = refused("submit", "--run", "four", "--folds", "0,2")
    assert "fold 2 is from another configuration" in message and "fold 1" not in message
    assert "fold 2 is from another configuration" in refused("train", *four, "--fold", 2)


def test_an_unfinished_fold_is_not_begun_again_by_accident(home, run):
    (run / "fold_1/metrics.json").unlink()
    message = refused("train", "--config", home / "default.yaml", "--data", home / "data", "--fold", 1)
    assert "fold 1 is unfinished" in message and "--resume" in message and "--overwrite" in message


@pytest.mark.parametrize("use", USES, ids=lambda use: use[0])
def test_damaged_weights(home, run, use):
    shutil.copytree(home / "data" / TEST_IMAGES, "images")
    weights = run / "fold_1/best.weights.h5"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert f"fold 1 has other weights than it was finished with ({weights} is missing or changed)" in refused(*use)
    weights.unlink()
    assert f"({weights} is missing or changed)" in refused(*use)


def test_a_report_shows_the_folds_that_are_there(run):
    (run / "fold_1/best.weights.h5").unlink()
    succeed("report", "default")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "fold 1 has other weights than it was finished with" in page
    (run / "report.html").unlink()
    shutil.rmtree(run / "fold_0")
    assert "Run default has no finished fold yet: fold 0 is missing" in refused("report", "default")


@pytest.mark.parametrize("name", ["config.yaml", "splits.json", "fingerprint.json", "fold_0/metrics.json"])
def test_damaged_files_of_a_run(run, name):
    (run / name).write_text("{{")
    assert str(run / name) in refused("submit")


def test_a_decision_about_other_weights(home, run):
    succeed("tune", "--for", "published")
    path = run / "fold_0/metrics.json"
    weights = run / "fold_0/best.weights.h5"
    shutil.copy(run / "fold_1/best.weights.h5", weights)
    digest = json.loads((run / "fold_1/metrics.json").read_text())["weights_sha256"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights_sha256": digest}))
    message = refused("submit")
    assert (
        f"{run}/decision.json was taken before fold 0 of run default was trained anew. Run marsls tune again."
        in message
    )


@pytest.mark.parametrize(
    ("folds", "part"),
    [
        ("x", "--folds x: expected numbers with commas between them, such as 0,1, or full."),
        ("0;1", "--folds 0;1: expected numbers"),
        ("", "--folds : expected numbers"),
        ("0,", "--folds 0,: expected numbers"),
        ("2", "There is no fold 2: with cv blocks the folds are 0 to 1."),
        ("-1", "There is no fold -1: with cv blocks the folds are 0 to 1."),
    ],
)
def test_bad_folds(run, folds, part):
    Path("images").mkdir()
    for use in USES:
        assert part in refused(*use, "--folds", folds)


def test_the_same_run_twice(run):
    for command in ("tune", "submit"):
        assert "--run default is given twice" in refused(command, "--run", "default", "--run", "default")


def test_runs_that_do_not_fit_together(home, run):
    shutil.copytree(run, "runs/other")
    splits = json.loads((run / "splits.json").read_text())
    turned = [tile | {"fold": 1 - tile["fold"]} for tile in splits["tiles"]]
    Path("runs/other/splits.json").write_text(json.dumps(splits | {"tiles": turned}))
    edited(Path("runs/other"))
    message = refused("tune", "--run", "default", "--run", "other")
    assert "Runs default and other have different folds or tiles, so their predictions cannot be averaged." in message


def test_data_that_have_changed(home, run, data):
    mask = files(data / "train/masks")[0]
    write(mask, 1 - tifffile.imread(mask))
    for use in (["tune"], ["evaluate", "default"], ["report", "default"]):
        message = refused(*use, "--data", "data")
        assert "The data in data are not those that run default was trained on" in message
        assert "pixels or masks of some tiles have changed" in message


# ----------------------------------------------------------------------------------------------------------- the images


@pytest.mark.parametrize("other", ["x.tiff", "X.tif"])
def test_names_that_clash(home, run, other):
    Path("images").mkdir()
    source, second, third = files(home / "data" / TEST_IMAGES)[:3]
    for file, name in ((source, "x.tif"), (second, other), (third, "y.tif")):
        shutil.copy(file, Path("images", name))
    for use in (["submit", "--images", "images"], USES[3]):
        message = refused(*use)
        assert (
            "Names in images clash" in message
            and "- x.tif" in message
            and f"- {other}" in message
            and "y.tif" not in message
        )


def test_no_images(run):
    assert "There is no folder images. Give the folder that holds the image tiles." in refused(
        "submit", "--images", "images"
    )
    Path("images").mkdir()
    for use in (["submit", "--images", "images"], USES[3]):
        assert "images holds no .tif, .h5 or .png file" in refused(*use)


def test_data_without_test_images(home, run, data):
    shutil.rmtree(data / "test")
    path = run / "fingerprint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_root": str(data.resolve())}))
    message = refused("submit")
    assert (
        f"The data of run default in {data.resolve()} have no test images. Give their folder with --images." in message
    )
    assert "has no tile in the split 'test'" in refused("evaluate", "default", "--split", "test")


def test_damaged_images_are_all_listed(home, run):
    shutil.copytree(home / "data" / TEST_IMAGES, "images")
    first, second, third = files("images")[:3]
    first.write_bytes(b"no TIFF")
    write(second, np.zeros((32, 32, 3), np.float32), planarconfig="contig")
    for use in (["submit", "--images", "images"], USES[3]):
        message = refused(*use)
        assert (
            f"{first}: unreadable or truncated TIFF" in message
            and f"{second}: expected 7 bands" in message
            and str(third) not in message
        )


def test_images_that_are_too_small_for_the_network(run):
    Path("images").mkdir()
    Path("submissions").mkdir()
    write(
        "images/col00001_row00001.tif", np.random.default_rng(0).random((31, 32, 7), np.float32), planarconfig="contig"
    )
    for use in (["submit", "--images", "images"], USES[3]):
        assert "unet needs height and width divisible by 2; the tiles or windows are 31 x 32." in refused(*use)


def test_another_family_of_releases(home, run):
    succeed("synth", "old", "--release", "mmls_v1", "--size", 32, "--train", 4, "--val", 4, "--test", 2)
    part = "holds tiles of mmls_v1, but the run was trained on mmls_v2, whose bands have other scales."
    for use in (
        ["submit", "--images", "old/test_partition"],
        ["predict", "default", "--images", "old/test_partition", "--out", "out"],
    ):
        message = refused(*use)
        assert f"old/test_partition {part}" in message and "--release" in message
    assert part in refused("evaluate", "default", "--split", "test", "--data", "old")
    assert marsls("submit", "--images", "old/test_partition", "--release", "mmls_v2").code == 0  # forced


def test_a_run_on_mmls_v1_does_not_predict_mmls_v2(home):
    succeed("synth", "old", "--release", "mmls_v1", "--size", 32, "--train", 8, "--val", 0, "--test", 1)
    succeed("train", "--data", "old", *SETTINGS, "--fold", 0)
    message = refused("submit", "--folds", "0", "--images", home / "data/test")
    assert f"{home}/data/test holds tiles of mmls_v2, but the run was trained on mmls_v1" in message


@pytest.mark.parametrize("command", ["check", "submit", "evaluate", "predict"])
def test_unknown_release(run, command):
    use = {"check": ["check", "."]} | {use[0]: use for use in USES}
    message = refused(*use[command], "--release", "mmls_v3")
    assert "--release" in message and "'mmls_v3'" in message and "'challenge'" in message


def test_the_training_tiles_of_every_fold_are_submitted_with_a_warning_but_not_scored(home, run):
    images = home / "data" / "train" / "images"
    result = marsls("submit", "--images", images, "--folds", "0")
    assert (
        result.code == 0
        and "Warning: " in result.err
        and "were in the training data of every fold that is used" in result.err
    )
    manifest = json.loads(Path("submissions/default.json").read_text())
    assert 0 < manifest["seen_by_every_fold"] == manifest["seen_in_training"] < len(files(images))
    message = refused("evaluate", "default", "--split", "train", "--folds", "0")
    assert f"{manifest['seen_by_every_fold']} tiles were in the training data of every fold that is used:" in message


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluate_without_masks(home, run, data, split):
    shutil.rmtree(data / split / "masks")
    assert f"The split {split} of data has no masks, so it cannot be scored." in refused(
        "evaluate", "default", "--split", split, "--data", "data"
    )


def test_mosaic_of_tiles_without_a_place(home, run):
    Path("images").mkdir()
    for i, file in enumerate(files(home / "data" / TEST_IMAGES)[:2]):
        write(f"images/tile{i}.tif", tifffile.imread(file), planarconfig="contig")
    result = marsls(*USES[3], "--mosaic")
    assert result.code == 2 and "2 tiles have no georeferencing" in result.err and "images/tile0.tif" in result.err
    assert not Path("out").exists()


# ----------------------------------------------------------------------------------------------- submission and scoring


@pytest.mark.parametrize("out", ["masks.tif", "masks", "folder", "folder.zip"])
def test_submit_to_a_name_that_is_no_zip(run, out):
    for folder in ("folder", "folder.zip"):
        Path(folder).mkdir()
    message = refused("submit", "--out", out)
    assert f"{out}: expected the name of a file ending in .zip" in message
    assert "view(s)" not in message  # said before the work is done


@pytest.mark.parametrize("what", ["folder", "text"])
def test_submit_with_a_bad_ledger_keeps_the_zip(home, run, what):
    Path("submissions").mkdir()
    ledger = Path("submissions/ledger.csv")
    ledger.mkdir() if what == "folder" else ledger.write_text("my,notes\n")
    result = marsls("submit")
    assert result.code == 2 and "Traceback" not in result.err
    assert (
        "submissions/default.zip is written and verified, but not noted in the ledger: submissions/ledger.csv"
        in result.err
    )
    if what == "text":
        assert "Move it away" in result.err and ledger.read_text() == "my,notes\n"
    assert marsls("score", "submissions/default.zip", "--masks", home / "data/test/masks").code == 0


@pytest.fixture
def submission(home, run):
    """Write a zip."""
    succeed("submit", "--out", "a.zip")
    return Path("a.zip")


def test_score_with_missing_and_extra_entries(home, submission):
    masks = Path(shutil.copytree(home / "data/test/masks", "masks"))
    gone, *_, last = files(masks)
    gone.unlink()
    message = refused("score", submission, "--masks", masks)
    assert (
        f"a.zip cannot be scored against masks:\n  - {gone.name}: not expected, there is no such test image" in message
    )
    last.rename(masks / "col00900_row00900.tif")
    message = refused("score", submission, "--masks", masks)
    assert (
        f"{gone.name}, {last.name}: not expected" in message
        and "col00900_row00900.tif: missing (1 of 3 masks)" in message
    )


def test_score_with_a_broken_zip(home, submission):
    masks = home / "data/test/masks"
    whole = submission.read_bytes()
    submission.write_bytes(whole[:-20])
    assert (
        "a.zip cannot be scored" in (message := refused("score", submission, "--masks", masks))
        and "truncated or damaged zip" in message
    )
    damaged = bytearray(whole)
    damaged[60:70] = bytes(10)
    submission.write_bytes(damaged)
    assert "damaged in the zip" in refused("score", submission, "--masks", masks)
    submission.write_bytes(b"text")
    assert "not a zip file" in refused("score", submission, "--masks", masks)
    submission.unlink()
    assert "there is no such file" in refused("score", submission, "--masks", masks)


def test_score_without_masks(submission):
    assert "There is no folder masks. Give the folder that holds the true masks." in refused(
        "score", submission, "--masks", "masks"
    )
    Path("masks").mkdir()
    assert "masks holds no .tif file, expected the true masks." in refused("score", submission, "--masks", "masks")
    Path("masks/a.tif").write_bytes(b"no TIFF")
    assert "masks/a.tif: unreadable or truncated TIFF" in refused("score", submission, "--masks", "masks")


# ---------------------------------------------------------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["trian"], ["No such command 'trian'"]),
        (["train", "--epoch", "3"], ["No such option", "--epoch"]),
        (["train", "--devices", "0"], ["--devices", "1"]),
        (["train", "--fold"], ["--fold", "requires an argument"]),
        (["synth"], ["Missing argument"]),
        (["synth", "out", "--train", "many"], ["--train", "valid integer"]),
        (["synth", "out", "--release", "mmls_v3"], ["--release", "'mmls_v3'", "'challenge'"]),
        (["predict", "default"], ["Missing option", "--images"]),
        (["score", "a.zip"], ["Missing option", "--masks"]),
        (["score", "a.zip", "--masks", "m", "--worst", "-1"], ["--worst", "0"]),
        (["evaluate", "default", "--split", "all"], ["--split", "'all'", "'oof'"]),
        (["tune", "everything"], ["unexpected", "everything"]),
        (["check", "data", "more"], ["unexpected extra argument", "more"]),
        (["report"], ["Missing argument"]),
    ],
)
def test_usage(arguments, parts):
    message = refused(*arguments)
    assert all(part in message for part in parts), message


def test_usage_in_a_process():
    result = process("trian")
    assert (result.code, result.out) == (2, "")
    # The message names the help option.
    assert "Usage: marsls" in result.err and "No such command 'trian'" in result.err and "-h" in result.err


def test_debug_shows_the_traceback(data):
    unreadable(data)
    quiet, loud = marsls("train"), marsls("--debug", "train")
    assert quiet.code == loud.code == 2
    assert "Traceback" not in quiet.err
    assert loud.err.startswith("Traceback (most recent call last)") and "in load" in loud.err
    assert loud.err.endswith(quiet.err)
    assert marsls("train") == quiet  # not from now on


# ------------------------------------------------------------------------------------------------------------ full disk


def test_disk_full_in_synth():
    before = snapshot(".")
    result = limited("synth", "made", "--size", 64, "--train", 2, "--val", 0, "--test", 0)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("Error: Could not write ") and "made" in result.err and "File too large" in result.err
    assert snapshot(".") == before


@pytest.mark.slow
def test_disk_full_in_submit(run):
    succeed("synth", "many", "--size", 32, "--train", 1, "--val", 0, "--test", 100)
    succeed("submit", "--out", "submissions/a.zip")
    before = snapshot(".")
    result = limited("submit", "--images", "many/test", "--out", "submissions/a.zip")
    assert (result.code, result.out) == (1, ""), result
    assert (
        "Error: Could not write submissions/a.zip: File too large." in result.err
        and "Nothing was changed" in result.err
    )
    assert "Traceback" not in result.err
    assert snapshot(".") == before


@pytest.mark.slow
def test_disk_full_in_predict(run):
    succeed("synth", "big", "--size", 128, "--train", 1, "--val", 0, "--test", 1)
    result = limited("predict", "default", "--images", "big/test", "--out", "out")
    assert (result.code, result.out) == (1, ""), result
    assert "Error: Could not write out/probability/col" in result.err and "File too large" in result.err
    assert "Traceback" not in result.err
    # Only the list of what was to be written, by which a next predict knows what may go; no half of a raster.
    assert [path for path in Path("out").rglob("*") if path.is_file()] == [Path("out/prediction.json")]


def test_predict_to_a_file(home, run):
    Path("out").write_text("mine")
    message = refused("predict", "default", "--images", home / "data/test", "--out", "out", code=2)
    assert "--out out is a file" in message


@pytest.mark.slow
def test_exhausted_memory_is_no_bug(capsys):
    import tensorflow as tf

    from competition.cli.app import _explain

    with pytest.raises(tf.errors.ResourceExhaustedError) as caught:
        tf.ones([2**20, 2**20, 64])  # more bytes than a process can have addresses
    assert _explain(caught.value) == 1
    message = capsys.readouterr().err
    assert "Error: memory or disk ran out: " in message and "batch_size" in message and "This is a bug" not in message
