"""The block of MarsLS-Net, which multiplies kernels first, against the paper's figure built of Keras layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.layers import PenAttention, ProgressiveExpansion

F, K = 3, 3
SHAPE = (2, 8, 12, F)


@pytest.fixture
def policy():
    """Sets a precision for one test."""
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def inputs(shape=SHAPE):
    return np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)


def built(**options):
    """Return a block whose variables all have different values."""
    block = PenAttention(F, **{"kernel_size": K, **options})
    block.build((None, None, None, F))
    generator = np.random.default_rng(1)
    for variable in block.weights:
        value = generator.normal(0, 0.4, variable.shape)
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.name else value)
    return block


def plain(kernel_size=K, expansion_terms=2, layout="rows", conv_pe=True, mhsa=True):
    """Build the block of the paper's figure 2 of Keras layers: two branches, expansion, attention and projections."""
    layers = keras.layers
    x = keras.Input((None, None, F))
    context = x
    if conv_pe:
        branches = []
        for i in (1, 2):
            h = layers.Conv2D(F, kernel_size, padding="same", dilation_rate=2, name=f"conv{i}")(x)
            h = layers.ReLU()(layers.BatchNormalization(momentum=0.9, name=f"bn{i}")(h))
            branches.append(ProgressiveExpansion(expansion_terms)(h))
        context = layers.Concatenate()(branches)
    if mhsa and layout == "pooled":
        channels = context.shape[-1]
        tokens = layers.AveragePooling2D(4)(context)
        attended = layers.MultiHeadAttention(2, 2, attention_axes=(1, 2), name="mhsa")(tokens, tokens)
        context = layers.UpSampling2D(4, interpolation="bilinear")(attended)
        assert context.shape[-1] == channels
    elif mhsa:
        context = layers.MultiHeadAttention(2, 2, attention_axes={"rows": 2, "columns": 1}[layout], name="mhsa")(
            context, context
        )
    context = layers.Conv2D(F, 1, name="reduce")(context)
    y = layers.Conv2D(F, kernel_size, padding="same", name="merge")(layers.Concatenate()([context, x]))
    y = layers.LayerNormalization(name="norm")(
        layers.ReLU()(layers.BatchNormalization(momentum=0.9, name="merge_norm")(y))
    )
    return keras.Model(x, y)


def as_plain(values, terms):
    """Convert weights or gradients by the block's variable paths to those of the plain model, by path."""
    out, order = {}, np.arange(F)
    if "branches/kernel" in values:
        # The block's expansion is term by term, of both branches each; the plain one is branch by branch.
        order = np.arange(terms * 2 * F).reshape(terms, 2, F).transpose(1, 0, 2).ravel()
        for i in (0, 1):
            mine = slice(i * F, i * F + F)
            out |= {f"conv{i + 1}/{name}": values[f"branches/{name}"][..., mine] for name in ("kernel", "bias")}
            out |= {
                f"bn{i + 1}/{k.split('/')[1]}": v[mine] for k, v in values.items() if k.startswith("branches_norm/")
            }
    if "attention/qkv_kernel" in values:
        kernels = np.split(values["attention/qkv_kernel"][order], 3, 1)
        for name, kernel, bias in zip(
            ("query", "key", "value"), kernels, np.split(values["attention/qkv_bias"], 3), strict=True
        ):
            out |= {f"mhsa/{name}/kernel": kernel.reshape(-1, 2, 2), f"mhsa/{name}/bias": bias.reshape(2, 2)}
        output = values["attention/output_kernel"][:, order].reshape(2, 2, -1)
        out |= {
            "mhsa/attention_output/kernel": output,
            "mhsa/attention_output/bias": values["attention/output_bias"][order],
        }
    out |= {k: v for k, v in values.items() if k.startswith(("reduce/", "merge/", "merge_norm/", "norm/"))}
    return {**out, "reduce/kernel": values["reduce/kernel"][:, :, order]}


def by_path(variables, values, prefix=""):
    return {v.path.removeprefix(prefix): np.array(value) for v, value in zip(variables, values, strict=True)}


def gradients(function, variables, x):
    """Return outputs in training, and the gradients of a loss with respect to the variables and the input."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = function(x, training=True)
        loss = tf.reduce_sum(
            tf.sin(outputs) * tf.constant(np.random.default_rng(3).normal(size=outputs.shape), tf.float32)
        )
    *of_variables, of_input = tape.gradient(loss, [*(v.value for v in variables), x])
    return outputs.numpy(), of_variables, of_input.numpy()


VARIANTS = [
    {},
    {"layout": "columns", "kernel_size": 4},
    {"layout": "pooled", "kernel_size": 5},
    *(
        {"expansion_terms": 1},
        {"expansion_terms": 3},
        {"mhsa": False},
        {"conv_pe": False},
        {"mhsa": False, "expansion_terms": 1},
    ),
]


@pytest.mark.parametrize("options", VARIANTS)
def test_values_statistics_and_gradients_are_those_of_the_plain_form(options):
    block, reference, x = built(**options), plain(**options), inputs()
    terms, prefix = options.get("expansion_terms", 2), f"{block.name}/"
    assert block.count_params() == reference.count_params()

    def weights():
        return as_plain(by_path(block.weights, block.weights, prefix), terms)

    for variable in reference.weights:
        variable.assign(weights()[variable.path])
    assert block(x).numpy() == pytest.approx(reference(x).numpy(), rel=1e-3, abs=1e-4)
    outputs, of_variables, of_input = gradients(block, block.trainable_variables, x)
    expected, of_plain, of_plain_input = gradients(reference, reference.trainable_variables, x)
    assert outputs == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert of_input == pytest.approx(of_plain_input, rel=1e-3, abs=2e-4 * float(np.abs(of_plain_input).max()))
    ours, theirs = (
        as_plain(by_path(block.trainable_variables, of_variables, prefix), terms),
        by_path(reference.trainable_variables, of_plain),
    )
    assert ours.keys() == theirs.keys()
    scale = max(float(np.abs(gradient).max()) for gradient in theirs.values())
    for path, gradient in theirs.items():
        assert ours[path] == pytest.approx(gradient, rel=1e-3, abs=2e-5 * scale), path
    for variable in reference.non_trainable_variables:  # the moving statistics after that step
        assert weights()[variable.path] == pytest.approx(variable.numpy(), rel=1e-4, abs=1e-5), variable.path


def test_symbolic_eager_and_compiled_calls_agree():
    block, x = built(), inputs((2, 7, 5, F))
    symbolic = keras.Input((None, None, F))
    model = keras.Model(symbolic, block(symbolic))
    assert model.output_shape == (None, None, None, F)
    for other in (model(x), tf.function(block)(x), model.predict(x, verbose=0)):
        assert np.array(other) == pytest.approx(block(x).numpy(), rel=1e-4, abs=1e-4)


def test_the_squares_of_the_dilated_kernels_are_in_the_loss():
    block = built(l2=0.25)
    kernel = block.branches.kernel.numpy()
    assert [float(loss) for loss in block.losses] == pytest.approx([0.25 * (kernel**2).sum()], rel=1e-5)
    assert built(conv_pe=False).losses == []


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_near(policy, name):
    exact = built()
    policy(name)
    block = built()
    outputs = block(inputs(), training=True)
    assert outputs.dtype == name.removeprefix("mixed_") and {v.dtype for v in block.weights} == {"float32"}
    assert {part.compute_dtype for part in block._flatten_layers()} == {name.removeprefix("mixed_")}
    difference = tf.cast(outputs, tf.float32).numpy() - exact(inputs(), training=True).numpy()
    assert np.sqrt(np.mean(difference**2)) < 0.05
