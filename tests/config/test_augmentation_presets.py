"""Augmentation presets: their values, overriding keys, and settings."""

import pytest

from marsls_keras.config import PRESETS, Augmentation, load_config, parse_config, read_config, write_config


def test_presets_are_the_tables_of_the_papers():
    flips = {"horizontal_flip": 0.5, "vertical_flip": 0.5}
    off = {
        name: {**section, "probability": 0.0}
        for name, section in Augmentation().model_dump().items()
        if isinstance(section, dict) and section
    }
    off |= {"channel_dropout": 0.0, "cutmix": 0.0, "mosaic": 0.0, "custom": {}}
    expected = {
        "none": {**off, "horizontal_flip": 0.0, "vertical_flip": 0.0, "rot90": 0.0},
        "flips": {**off, **flips, "rot90": 1.0},
        # DualSwinFusionSeg, Table 4.
        "dual_swin": {
            **off,
            **flips,
            "rot90": 0.5,
            "affine": {"probability": 0.5, "shift": 0.05, "scale": (0.9, 1.1), "rotation": 20.0},
            "blur": {"probability": 0.15, "sigma": (0.8, 1.4)},
            "light": {"probability": 0.3, "brightness": 0.2, "contrast": 0.2},
        },
        # RMAU-Net, section III-A: quarter turns and CutMix.
        "rmau_net": {**off, "horizontal_flip": 0.0, "vertical_flip": 0.0, "rot90": 1.0, "cutmix": 0.5},
    }
    for name, values in expected.items():
        assert parse_config({"augmentation": {"preset": name}}, "x").augmentation.model_dump() == values
    assert Augmentation() == Augmentation(preset="flips") and list(PRESETS) == [*expected, "strong"]
    strong = Augmentation(preset="strong").model_dump(exclude={"custom"})
    assert all((value["probability"] if isinstance(value, dict) else value) > 0 for value in strong.values())


def test_keys_beside_a_preset_change_single_values():
    augmentation = parse_config(
        {"augmentation": {"preset": "dual_swin", "rot90": 1, "affine": {"rotation": 45}, "blur": {"probability": 0}}},
        "x",
    )
    preset = Augmentation(preset="dual_swin").model_dump()
    preset["rot90"], preset["affine"]["rotation"], preset["blur"]["probability"] = 1.0, 45.0, 0.0
    assert augmentation.augmentation.model_dump() == preset
    # The presets themselves stay as they are.
    assert Augmentation(preset="dual_swin").affine.rotation == 20 and PRESETS["dual_swin"]["affine"] == {
        "probability": 0.5
    }


@pytest.mark.parametrize(
    "settings,expected",
    [
        (["augmentation.preset=strong"], {"preset": "strong"}),
        (["augmentation.preset=none"], {"preset": "none"}),
        # A preset begins the section anew; what comes later changes it.
        (["augmentation.rot90=0", "augmentation.preset=rmau_net"], {"preset": "rmau_net"}),
        (["augmentation.preset=rmau_net", "augmentation.rot90=0"], {"preset": "rmau_net", "rot90": 0}),
        (
            ["augmentation.preset=strong", "augmentation.affine.rotation=10"],
            {"preset": "strong", "affine": {"rotation": 10}},
        ),
        # The default recipe's own preset stays where single keys are set, and where it is said again.
        (["augmentation.affine.probability=0.5"], {"affine": {"probability": 0.5}}),
        (["augmentation.cutmix=0.1", "augmentation.preset=flips"], {"cutmix": 0.1}),
        (["augmentation={preset: strong, mosaic: 0}"], {"preset": "strong", "mosaic": 0}),
    ],
)
def test_presets_by_setting(settings, expected):
    assert load_config("unet", settings)[1].augmentation == Augmentation(**expected)


def test_a_preset_is_kept_as_its_values(tmp_path):
    write_config(tmp_path / "config.yaml", parse_config({"augmentation": {"preset": "dual_swin"}}, "x"))
    text = (tmp_path / "config.yaml").read_text()
    assert "preset" not in text and "rotation: 20.0" in text
    assert read_config(tmp_path / "config.yaml").augmentation == Augmentation(preset="dual_swin")
