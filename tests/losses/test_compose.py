"""Loss specifications: values, errors, and the loss tables of the papers."""

from typing import Annotated

import keras
import numpy as np
import pytest
from helpers.loss_references import reference

from marsls_keras.config import Config
from marsls_keras.errors import InputError
from marsls_keras.losses import LOSSES, WeightedSum, build_loss, read_loss
from marsls_keras.losses.parameters import FromMasks, NotNegative

EQ5 = {"smooth": 0, "epsilon": 1e-7}
"""The Dice of DualSwinFusionSeg, eq. 5."""

DUAL_SWIN = {
    "L1": {"bce": 1},
    "L2": {"dice": EQ5},
    "L3": {"bce": 0.5, "dice": {"weight": 0.5, **EQ5}},
    "L4": {"weighted_bce": 0.5, "dice": {"weight": 0.5, **EQ5}},
    "L5": {"focal": 1},
    "L6": {"focal": 0.5, "dice": {"weight": 0.5, **EQ5}},
    "L7": {"iou": 1},
    "L8": {"bce": 0.5, "iou": 0.5},
    "L9": {"tversky": {"alpha": 0.3, "beta": 0.7}},
    "L10": {"dice": {"weight": 0.5, **EQ5}, "boundary_dice": {"weight": 0.5, **EQ5}},
    "L11": {"dice": {"weight": 0.5, **EQ5}, "lovasz": 0.5},
    "L12": {"weighted_bce": 1, "dice": EQ5, "lovasz": 1},
}
RMAU_NET = {
    "Cross Entropy": {"bce": 1},
    "Focal": {"focal": 1},
    "Log-Cosh": {"log_cosh": 1},
    "IoU": {"iou": 1},
    "Tversky": {"tversky": 1},
    "Lovasz": {"lovasz": 1},
    "Boundary": {"boundary": 1},
    "Center": {"bce": 1, "center": 1},
    "Focal & IoU": {"focal": 0.5, "iou": 0.5},
}
PAPERS = [pytest.param(spec, id=row) for table in (DUAL_SWIN, RMAU_NET) for row, spec in table.items()]


def batch(seed: int = 0):
    rng = np.random.default_rng(seed)
    truth = np.zeros((2, 8, 8, 1), np.float32)
    truth[0, 2:7, 1:5] = truth[1, :3, 4:] = 1
    return (
        truth,
        rng.normal(0, 2, truth.shape).astype(np.float32),
        rng.choice([0, 1, 1, 2], truth.shape).astype(np.float32),
    )


MASKS = np.repeat([0, 1], [93, 50])
"""Masks whose N_neg / N_pos is 1.86."""


def value(loss, *args) -> float:
    return float(keras.ops.convert_to_numpy(loss(*args)))


@pytest.mark.parametrize("spec", PAPERS)
def test_every_row_of_the_papers_is_its_sum_of_terms_and_its_step_lowers_it(spec):
    truth, images, _ = batch()
    loss, expected = build_loss(spec, MASKS), 0.0
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 3, padding="same")])
    model.compile(keras.optimizers.SGD(0.01), loss=loss, run_eagerly=True, jit_compile=False)
    logits = model.predict_on_batch(images)
    for name, parameters in spec.items():
        weight, options = (
            (parameters, {}) if not isinstance(parameters, dict) else (parameters.get("weight", 1), dict(parameters))
        )
        options.pop("weight", None)
        if name == "weighted_bce":
            options["positive_weight"] = 1.86
        expected += weight * reference(name, truth, logits, **options)
    assert model.train_on_batch(images, truth) == pytest.approx(expected, rel=1e-5)
    assert model.test_on_batch(images, truth) < expected - 1e-6


def test_composition_is_the_weighted_sum():
    truth, logits, weight = batch(1)
    loss = build_loss({"bce": 0.3, "dice": {"weight": 1.7, "smooth": 2.0}, "iou": {"reduction": "per_tile"}})
    expected = 0.3 * reference("bce", truth, logits, weight) + 1.7 * reference(
        "dice", truth, logits, weight, smooth=2.0
    )
    assert value(loss, truth, logits, weight) == pytest.approx(
        expected + reference("iou", truth, logits, weight, "per_tile"), rel=5e-6
    )


def test_a_section_without_a_weight_has_weight_1_and_the_defaults():
    loss = build_loss({"tversky": {}, "dice": {"weight": 2}})
    assert loss.terms == {
        "tversky": {"weight": 1.0, "alpha": 0.3, "beta": 0.7, "smooth": 1.0, "reduction": "pooled"},
        "dice": {"weight": 2.0, "smooth": 1.0, "epsilon": 0.0, "reduction": "pooled"},
    }


def test_a_configuration_holds_a_specification():
    config = Config.model_validate({"loss": {"bce": 1, "tversky": {"weight": 0.5, "alpha": 0.6}}})
    assert {name: term["weight"] for name, term in build_loss(config.loss).terms.items()} == {"bce": 1, "tversky": 0.5}
    assert build_loss(Config().loss).terms == build_loss({"bce": 0.5, "dice": 0.5}).terms


def test_a_term_of_weight_zero_is_left_out():
    assert list(build_loss({"bce": 0, "dice": 2, "focal": {"weight": 0}, "weighted_bce": 0}).terms) == ["dice"]


def test_the_positive_weight_of_the_specification_comes_before_that_of_the_tiles():
    def kept(spec, *given):
        return build_loss(spec, *given).terms["weighted_bce"]["positive_weight"]

    assert kept({"weighted_bce": 1}, MASKS) == kept({"weighted_bce": {"positive_weight": None}}, MASKS) == 1.86
    assert kept({"weighted_bce": {"positive_weight": 5}}, MASKS) == kept({"weighted_bce": {"positive_weight": 5}}) == 5


def test_round_trip_through_the_configuration():
    loss = build_loss(
        {
            "focal": {"weight": 0.25, "alpha": None, "gamma": 1.5, "reduction": "per_tile"},
            "boundary": {"theta": 9},
            "weighted_bce": 2,
        },
        MASKS,
    )
    loss.name = "other"
    saved = keras.losses.serialize(loss)
    again = keras.losses.deserialize(saved, custom_objects={"WeightedSum": WeightedSum})
    assert again.get_config() == WeightedSum.from_config(loss.get_config()).get_config() == loss.get_config()
    assert (again.name, again.terms["boundary"]["theta"], again.terms["weighted_bce"]["positive_weight"]) == (
        "other",
        9,
        1.86,
    )
    assert (
        value(again, *batch(7))
        == value(loss, *batch(7))
        != value(build_loss({"focal": 0.25, "boundary": 1, "weighted_bce": 2}, MASKS), *batch(7))
    )


def refused(spec, *masks) -> str:
    with pytest.raises(InputError) as caught:
        build_loss(spec, *masks)
    return str(caught.value)


def test_unknown_names_are_an_error_that_lists_the_known():
    message = refused({"bce": 1, "dise": 1, "iuo": 1})
    assert "dise, iuo" in message and all(f"- {name}" in message for name in LOSSES)


def test_an_unknown_parameter_is_an_error_that_lists_those_of_the_term():
    assert refused({"focal": {"alhpa": 0.3, "beta": 1}}) == (
        "loss.focal has no parameter alhpa, beta. Did you mean alpha? It has: weight, alpha, gamma, label_smoothing, "
        "reduction."
    )


@pytest.mark.parametrize(
    "spec,place,received",
    [
        ({"bce": {"label_smoothing": 1}}, "loss.bce.label_smoothing", "1"),
        ({"bce": {"label_smoothing": -0.1}}, "loss.bce.label_smoothing", "-0.1"),
        ({"bce": {"label_smoothing": "a lot"}}, "loss.bce.label_smoothing", "'a lot'"),
        ({"bce": {"label_smoothing": True}}, "loss.bce.label_smoothing", "True"),
        ({"focal": {"alpha": 1.5}}, "loss.focal.alpha", "1.5"),
        ({"focal": {"gamma": float("nan")}}, "loss.focal.gamma", "nan"),
        ({"tversky": {"beta": float("inf")}}, "loss.tversky.beta", "inf"),
        ({"dice": {"smooth": -1}}, "loss.dice.smooth", "-1"),
        ({"dice": {"smooth": None}}, "loss.dice.smooth", "None"),
        ({"weighted_bce": {"positive_weight": 0}}, "loss.weighted_bce.positive_weight", "0"),
        ({"boundary": {"theta0": 4}}, "loss.boundary.theta0", "4"),
        ({"boundary": {"theta": 1}}, "loss.boundary.theta", "1"),
        ({"boundary": {"theta": 5.5}}, "loss.boundary.theta", "5.5"),
        ({"boundary_dice": {"radius": 0}}, "loss.boundary_dice.radius", "0"),
        ({"iou": {"reduction": "mean"}}, "loss.iou.reduction", "'mean'"),
        ({"iou": {"weight": -1}}, "loss.iou.weight", "-1"),
        ({"iou": -1}, "loss.iou.weight", "-1"),
        ({"iou": float("inf")}, "loss.iou.weight", "inf"),
        ({"iou": "much"}, "loss.iou", "'much'"),
        ({"iou": True}, "loss.iou", "True"),
        ({"iou": None}, "loss.iou", "None"),
    ],
)
def test_wrong_values_are_errors_that_name_their_place(spec, place, received):
    message = refused(spec)
    assert message.startswith(f"{place}: ") and message.endswith(f"Received: {received}")


def test_all_wrong_values_of_a_term_are_listed():
    message = refused({"tversky": {"alpha": -1, "beta": "x"}})
    assert "loss.tversky.alpha" in message and "loss.tversky.beta" in message


@pytest.mark.parametrize("spec", [{}, {"bce": 0}, {"bce": {"weight": 0}, "dice": 0.0}])
def test_weights_that_sum_to_zero_are_an_error(spec):
    assert "weights of all terms are 0" in refused(spec)


@pytest.mark.parametrize("given", [(), (None,), (np.ones((2, 2), np.uint8),)])
def test_weighted_bce_needs_a_positive_weight(given):
    assert refused({"weighted_bce": 1}, *given).startswith("loss.weighted_bce.positive_weight: ")


def test_any_term_may_take_a_parameter_from_the_training_masks(monkeypatch):
    def share(
        truth, logits, weight, *, rate: Annotated[float | None, FromMasks(np.mean)] = None, power: NotNegative = 2.0
    ):
        return rate * keras.ops.mean(keras.ops.abs(truth - logits) ** power * weight)

    monkeypatch.setitem(LOSSES, "share", share)
    assert read_loss({"share": 1})["share"] == {"weight": 1.0, "rate": None, "power": 2.0}
    assert refused({"share": 1}).startswith("loss.share.rate: ")
    assert "positive_weight" not in build_loss({"share": 1}, MASKS).terms["share"]
    truth, logits, weight = batch(2)
    expected = 50 / 143 * np.mean((truth - logits) ** 2 * weight)
    assert value(build_loss({"share": 1}, MASKS), truth, logits, weight) == pytest.approx(expected, rel=1e-5)
