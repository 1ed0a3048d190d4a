"""Checks that every network must pass: a case holds a network and its options, a check tests one property."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from helpers.weights import perturb, silent
from marsls_keras.losses import build_loss
from marsls_keras.models import build_model, encoder_groups, load_pretrained, require_size
from marsls_keras.models.encoders import ENCODERS, Encoder
from marsls_keras.models.encoders.mit import MIT, mit
from marsls_keras.models.networks import REGISTERED, STAGES


@contextmanager
def thin_mit() -> Iterator[None]:
    """Register the encoder mit_thin, a MiT that is smaller than the published ones, inside a with block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MIT, "mit_thin", ((1, 1, 1, 1), (8, 16, 20, 32)))
        patch.setitem(ENCODERS, "mit_thin", Encoder(partial(mit, "mit_thin"), STAGES[1:]))
        patch.setitem(REGISTERED["encoder"], "mit_thin", STAGES[1:])
        yield


@dataclass(frozen=True)
class ModelCase:
    """A network with options, to be checked.

    Attributes:
        name: Its name in the registry.
        options: Its options.
        size: Height and width of the images.
        sizes: Other sizes that it takes.
        no_gradient: Ends of the paths of variables that change nothing, such as a bias before a normalisation with the
            batch's statistics.
    """

    name: str
    options: dict[str, Any]
    size: tuple[int, int]
    sizes: tuple[tuple[int, int], ...]
    no_gradient: tuple[str, ...] = ()
    images: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Draw the images."""
        object.__setattr__(self, "images", images(*self.size))

    def __str__(self) -> str:
        """Name the case in the list of tests."""
        return self.name

    def build(self, seed: int = 1) -> keras.Model:
        """Return a network whose weights all have random values."""
        keras.utils.set_random_seed(seed)
        return perturb(build_model(self.name, **self.options), seed)


def images(height: int, width: int, number: int = 2, bands: int = 7) -> np.ndarray:
    """Return images of noise."""
    return np.random.default_rng(0).normal(0, 1, (number, height, width, bands)).astype(np.float32)


def logits(model: keras.Model, x: np.ndarray, **options: Any) -> dict[str, np.ndarray]:
    """Return the outputs of a network for images, by name."""
    found = model(x, **options)
    return {name: np.array(value) for name, value in (found if isinstance(found, dict) else {"mask": found}).items()}


def gradients(model: keras.Model, x: np.ndarray) -> list[Any]:
    """Return the gradient of every trainable variable by the loss of one step of training."""
    truth = np.random.default_rng(2).integers(0, 2, (*x.shape[:3], 1)).astype(np.float32)
    truth[1:] = 0  # an image without landslide, for networks that tell such images apart
    model.compile(loss=build_loss({"bce": 1, "dice": 1}), jit_compile=False)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, truth, model(x, training=True))
    return tape.gradient(loss, [v.value for v in model.trainable_variables])


def check_gradient(case: ModelCase, model: keras.Model) -> None:
    """Check that a gradient reaches every trainable variable."""
    dead = silent(model.trainable_variables, gradients(model, case.images))
    assert not [path for path in dead if not path.endswith(case.no_gradient or "no such end")], dead


def check_round_trip(case: ModelCase, model: keras.Model, folder: Path) -> None:
    """Check that a network restored from its configuration and weight file gives the same outputs."""
    again = type(model).from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert [(v.path, v.shape) for v in again.weights] == [(v.path, v.shape) for v in model.weights]
    assert len({v.path for v in model.weights}) == len(model.weights)
    expected = logits(model, case.images)
    assert not np.allclose(logits(again, case.images)["mask"], expected["mask"])
    model.save_weights(folder / "a.weights.h5")
    again.load_weights(folder / "a.weights.h5")
    found = logits(again, case.images)
    assert found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in expected)
    heads = [logits(network, case.images, training=True).keys() for network in (model, again)]
    assert heads[0] == heads[1]


def check_calls(case: ModelCase, model: keras.Model) -> None:
    """Check that eager, symbolic and compiled calls agree, with static and with dynamic sizes."""
    expected = logits(model, case.images)
    assert expected["mask"].shape == (*case.images.shape[:3], 1) and expected["mask"].dtype == "float32"
    symbol = keras.Input(case.images.shape[1:])
    outputs = model(symbol)
    mask = outputs["mask"] if isinstance(outputs, dict) else outputs
    assert mask.shape == (None, *case.size, 1) and mask.dtype == "float32"
    unknown = tf.function(lambda x: model(x), input_signature=[tf.TensorSpec((None, None, None, 7))])
    for size in (case.size, case.sizes[0]):
        x = images(*size)
        for name, value in logits(model, x).items():
            compiled = unknown(x)
            found = compiled[name] if isinstance(compiled, dict) else compiled
            assert np.array(found) == pytest.approx(value, rel=1e-3, abs=1e-3 * float(np.abs(value).max()))


def check_sizes(case: ModelCase, model: keras.Model) -> None:
    """Check that images of every size that the registry allows give finite logits of that size."""
    for size in case.sizes:
        require_size(case.name, case.options, *size)
        found = logits(model, images(*size))["mask"]
        assert found.shape == (2, *size, 1) and np.isfinite(found).all()


def check_fit(case: ModelCase) -> None:
    """Check that training on one batch lowers the loss."""
    keras.utils.set_random_seed(0)
    model, x = build_model(case.name, **case.options), images(*case.size, number=4)
    x[..., 4] = np.sign(x[:, :1, :1, 4])  # each tile is one thing or the other
    truth = (x[..., 4:5] > 0).astype(np.float32)
    # Without a graph, which takes longer to trace than it saves in so few steps.
    model.compile(keras.optimizers.Adam(0.02), build_loss({"bce": 0.5, "dice": 0.5}), run_eagerly=True)
    losses = [float(model.train_on_batch(x, truth)) for _ in range(8)]
    assert np.isfinite(losses).all() and losses[-1] < 0.95 * losses[0], losses


def check_half_precision(case: ModelCase, model: keras.Model, policy: str) -> None:
    """Check that under mixed precision logits and weights are float32, and logits are not rounded."""
    keras.config.set_dtype_policy(policy)
    try:
        half = case.build()
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(model.get_weights())
    kind = policy.removeprefix("mixed_")
    assert {v.dtype for v in half.trainable_variables} == {"float32"}
    assert kind in {layer.compute_dtype for layer in half.layers}
    for name, expected in logits(model, case.images).items():
        found = logits(half, case.images)[name]
        assert found.dtype == "float32" and not np.array_equal(
            found, np.array(tf.cast(tf.cast(found, kind), "float32"))
        )
        error = np.abs(found - expected)
        assert 0 < error.max() and np.sqrt(np.mean(error**2)) < 0.1 * np.abs(expected).max()
    training = logits(half, case.images, training=True)
    assert {value.dtype.name for value in training.values()} == {"float32"}


def check_under_decoder(
    encoder: str,
    decoder: str,
    tensors: dict[str, np.ndarray],
    kernel: str,
    stem: str,
    folder: Path,
    no_gradient: tuple[str, ...] = (),
    **options: Any,
) -> None:
    """Check a pretrained encoder below a decoder: band weights follow band names, and every variable has a gradient.

    Args:
        encoder: Name of the encoder.
        decoder: Name of the decoder.
        tensors: The checkpoint.
        kernel: Name of the first convolution's kernel in it, (out, in, h, w).
        stem: Path of the same in the network, for the group aux_1.
        folder: Folder for the checkpoint.
        no_gradient: Ends of the paths of variables that change nothing.
        options: Further options of the encoder; drop_path=None if it has no stochastic depth.
    """
    save_file(tensors, folder / "w.safetensors")
    bands = ("dem", "blue", "red", "slope")
    network = {"encoder": encoder, "decoder": decoder, "decoder_channels": 8, "groups": {"aux_1": list(bands)}}
    chosen = {"drop_path": 0.0, **options}
    network |= {"encoder_options": {option: value for option, value in chosen.items() if value is not None}}
    model = build_model("segmenter", bands, **network)
    load_pretrained(model, str(folder / "w.safetensors"), encoder_groups("segmenter", bands, network))
    published = tensors[kernel].transpose(2, 3, 1, 0)
    expected = np.stack([published.mean(2), published[:, :, 2], published[:, :, 0], published.mean(2)], 2) * 0.75
    found = next(v for v in model.variables if v.path == stem)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-8)
    x = images(64, 96, bands=4)
    assert model(x).shape == (2, 64, 96, 1)
    dead = silent(model.trainable_variables, gradients(model, x))
    assert not [path for path in dead if not path.endswith(no_gradient or "no such end")], dead
