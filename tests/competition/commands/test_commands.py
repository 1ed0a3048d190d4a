"""Commands on an existing run, and errors before anything is written."""

import shutil

import pytest
import yaml

from competition.cli import main
from competition.commands.predict import PredictRequest, predict
from competition.commands.submit import SubmitRequest, submit
from competition.commands.train import TrainRequest, train
from marsls_keras.config import read_config
from marsls_keras.data.synthetic.mars import write_dataset
from marsls_keras.errors import InputError
from marsls_keras.runs.run import Run


def test_train_goes_on_with_the_configuration_and_data_of_the_run(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MARSLS_DATA", raising=False)
    runs = tiny_run.copy(tmp_path / "runs")
    shutil.rmtree(runs / "tiny" / "fold_1")
    reason = Run.open(runs / "tiny").fold(1).trouble
    hint = reason.partition(": marsls ")[2].split()
    assert hint == ["train", "--run", "tiny", "--runs", str(runs), "--fold", "1"]
    assert main(hint) == 0  # what the message says to type is what trains it
    assert "Next: marsls tune --run tiny" in capsys.readouterr().out
    assert Run.open(runs / "tiny").finished_folds() == [0, 1]
    assert read_config(runs / "tiny" / "fold_1" / "config.yaml") == read_config(tiny_run.path / "config.yaml")


def test_a_setting_that_differs_from_the_run_is_refused_by_name(tiny_run, tmp_path):
    runs = tiny_run.copy(tmp_path / "runs")
    with pytest.raises(InputError, match="training.epochs: 2 → 3"):
        train(TrainRequest(settings=["training.epochs=3"], fold="0", runs=runs, name="tiny"))


def test_a_run_that_an_earlier_version_trained_goes_on(tiny_run, tmp_path, capsys):
    """Its files have a key that was removed since; giving that key now is an error that explains why."""
    runs = tiny_run.copy(tmp_path / "runs")
    shutil.rmtree(runs / "tiny" / "fold_1")
    for path in (runs / "tiny" / "config.yaml", runs / "tiny" / "fold_0" / "config.yaml"):
        values = yaml.safe_load(path.read_text())
        values["training"]["keep_each"] = True
        path.write_text(yaml.safe_dump(values))
    command = ["train", "--run", "tiny", "--runs", str(runs)]
    assert main([*command, "--set", "training.keep_each=false"]) == 2
    assert (
        "unknown key training.keep_each: it was removed, since members of one training gained nothing"
        in capsys.readouterr().err
    )
    assert main(command) == 0
    assert "Fold 0 of run tiny is finished already." in capsys.readouterr().err
    assert Run.open(runs / "tiny").finished_folds() == [0, 1]


def test_mosaic_of_tiles_without_georeferencing_is_refused_before_anything_is_written(tiny_run, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    write_dataset(tmp_path / "bare", "mmls_v1", train=4, val=0, test=0, size=32)
    out = tmp_path / "out"
    # Files of mmls_v1 have no georeferencing; under another name they read as mmls_v2, which the run can predict.
    source = next((tmp_path / "bare" / "train_partition" / "images").iterdir())
    shutil.copy(source, images / "tile.tif")
    with pytest.raises(InputError, match=r"(?s)1 tiles have no georeferencing.*tile\.tif"):
        predict(PredictRequest(["tiny"], images, out, tiny_run.runs, mosaic=True))
    assert not out.exists()


def test_predict_reads_every_header_before_it_writes(tiny_run, tmp_path):
    images = shutil.copytree(tiny_run.data / "test" / "images", tmp_path / "images")
    last = sorted(images.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:200])
    with pytest.raises(InputError, match=last.name):
        predict(PredictRequest(["tiny"], images, tmp_path / "out", tiny_run.runs))
    assert not (tmp_path / "out").exists()


def test_predict_to_a_file_is_refused(tiny_run, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        predict(PredictRequest(["tiny"], tiny_run.data / "test", tmp_path / "out", tiny_run.runs))
    assert (tmp_path / "out").read_text() == "mine"


def test_a_submission_that_fails_makes_no_folder(tiny_run, tmp_path):
    images = shutil.copytree(tiny_run.data / "test" / "images", tmp_path / "images")
    broken = sorted(images.iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:-100])
    with pytest.raises(InputError, match=broken.name):
        submit(SubmitRequest(["tiny"], images, tmp_path / "new" / "x.zip", tiny_run.runs))
    assert not (tmp_path / "new").exists()
