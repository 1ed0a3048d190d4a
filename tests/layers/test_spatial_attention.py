"""All layouts of the attention against NumPy, pixel by pixel, and against Keras' MultiHeadAttention."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.layers import SpatialAttention

SHAPE = (2, 8, 12, 5)


@pytest.fixture
def policy():
    """Sets a precision for one test."""
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def inputs(shape=SHAPE):
    return np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)


def built(layout="rows", num_heads=2, key_dim=2, channels=5):
    """Return a layer whose variables all have different values."""
    layer = SpatialAttention(num_heads, key_dim, layout)
    layer.build((None, None, None, channels))
    generator = np.random.default_rng(1)
    for variable in layer.weights:
        variable.assign(generator.normal(0, 0.7, variable.shape))
    return layer


def brute_force(layer, x):
    """Compute equations 2 to 5 of the paper, one query at a time, in float64."""
    weights = {v.name: v.numpy().astype(np.float64) for v in layer.weights}
    n, d = layer.num_heads, layer.key_dim
    x = x.astype(np.float64)
    if layer.layout == "pooled":
        b, h, w, c = x.shape
        x = x.reshape(b, h // 4, 4, w // 4, 4, c).mean((2, 4))
    q, k, v = np.split(x @ weights["qkv_kernel"] + weights["qkv_bias"], 3, axis=-1)
    values = np.zeros_like(q)
    for b, row, column in np.ndindex(q.shape[:3]):
        seen = {"rows": (b, row), "columns": (b, slice(None), column), "pooled": b}[layer.layout]
        keys, content = (a[seen].reshape(-1, n * d) for a in (k, v))
        for head in range(n):
            part = slice(head * d, head * d + d)
            score = np.exp(keys[:, part] @ q[b, row, column, part] / np.sqrt(d))
            values[b, row, column, part] = score / score.sum() @ content[:, part]
    values = values @ weights["output_kernel"] + weights["output_bias"]
    if layer.layout == "pooled":
        values = np.array(tf.image.resize(values, [4 * side for side in values.shape[1:3]], "bilinear"))
    return values


def keras_attention(layer, axis):
    """Apply Keras' MultiHeadAttention with the same weights along an axis."""
    n, d = layer.num_heads, layer.key_dim
    theirs = keras.layers.MultiHeadAttention(n, d, attention_axes=axis)
    theirs.build(SHAPE, SHAPE)
    kernel, bias, output_kernel, output_bias = (v.numpy() for v in layer.weights)
    projections = zip(np.split(kernel, 3, 1), np.split(bias, 3), strict=True)
    weights = [part for k, b in projections for part in (k.reshape(-1, n, d), b.reshape(n, d))]
    theirs.set_weights([*weights, output_kernel.reshape(n, d, -1), output_bias])
    return theirs


@pytest.mark.parametrize("heads,key_dim", [(2, 2), (1, 3), (3, 1)])
@pytest.mark.parametrize("layout", ["rows", "columns", "pooled"])
def test_values_equal_numpy(layout, heads, key_dim):
    layer, x = built(layout, heads, key_dim), inputs()
    assert layer(x).numpy() == pytest.approx(brute_force(layer, x), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("layout,axis", [("rows", 2), ("columns", 1)])
def test_values_and_gradients_are_those_of_keras(layout, axis):
    x, results = tf.constant(inputs()), []
    ours = built(layout)
    theirs = keras_attention(ours, axis)
    for compute in (ours, lambda x: theirs(x, x)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = compute(x)
            loss = tf.reduce_sum(tf.sin(outputs))
        results.append((outputs.numpy(), tape.gradient(loss, x).numpy()))
    for mine, other in zip(*results, strict=True):
        assert mine == pytest.approx(other, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("layout", ["rows", "columns", "pooled"])
@pytest.mark.parametrize("channels", [3, 64])
def test_parameters_are_those_of_keras_in_every_layout(layout, channels):
    theirs = keras.layers.MultiHeadAttention(2, 2)
    theirs.build((1, 4, channels), (1, 4, channels))
    assert built(layout, channels=channels).count_params() == theirs.count_params()


@pytest.mark.parametrize(
    "layout,influenced", [("rows", (slice(1, 2), slice(None))), ("columns", (slice(None), slice(3, 4)))]
)
def test_a_pixel_reaches_its_line_and_no_other(layout, influenced):
    layer, x = built(layout), inputs((1, 6, 7, 5))
    changed = x.copy()
    changed[0, 1, 3] += 1
    differs = np.abs(layer(changed) - layer(x)).max((0, 3)) > 1e-6
    expected = np.zeros((6, 7), bool)
    expected[influenced] = True
    assert np.array_equal(differs, expected)


@pytest.mark.parametrize("layout", ["rows", "pooled"])  # columns are in test_every_layer.py
def test_symbolic_eager_and_compiled_calls_agree(layout):
    layer, x = built(layout), inputs()
    symbolic = keras.Input((None, None, 5))
    model = keras.Model(symbolic, layer(symbolic))
    assert model.output_shape == (None, None, None, 5)
    for other in (model(x), tf.function(layer)(x)):
        assert np.array(other) == pytest.approx(layer(x).numpy(), abs=1e-5)


@pytest.mark.parametrize("layout", ["rows", "columns", "pooled"])
def test_no_tensor_has_a_score_for_every_pair_of_pixels(layout):
    graph = tf.function(built(layout)).get_concrete_function(tf.TensorSpec((1, 32, 32, 5))).graph
    sizes = [output.shape.num_elements() or 0 for operation in graph.get_operations() for output in operation.outputs]
    scores = 2 * 32 * 32 * 32 if layout != "pooled" else 2 * 64 * 64
    assert max(sizes) == max(scores, 32 * 32 * 12)  # 2 heads; the projections are the largest when pooled
    assert max(sizes) < (32 * 32) ** 2


def test_the_bias_of_the_keys_changes_nothing():
    layer, x = built(), inputs()
    before = layer(x).numpy()
    layer.qkv_bias.assign(layer.qkv_bias.numpy() + np.repeat([0.0, 5.0, 0.0], 4))
    assert layer(x).numpy() == pytest.approx(before, abs=1e-5)


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("layout", ["rows", "pooled"])
def test_mixed_precision_is_near(policy, name, layout):
    exact = built(layout)(inputs()).numpy()
    policy(name)
    layer = built(layout)
    outputs = layer(inputs(), training=True)
    assert outputs.dtype == name.removeprefix("mixed_") and {v.dtype for v in layer.weights} == {"float32"}
    assert tf.cast(outputs, tf.float32).numpy() == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("options", [{"num_heads": 0}, {"key_dim": -1}, {"layout": "full"}])
def test_arguments_out_of_range_are_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"a layout of rows, columns, pooled. Received: .*{name}={value!r}"):
        SpatialAttention(**options)


def test_a_size_that_cannot_be_pooled_is_refused():
    with pytest.raises(ValueError, match="divisible by 4. Received: 8 x 10"):
        built("pooled")(inputs((1, 8, 10, 5)))
