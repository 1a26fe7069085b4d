import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from catalogue import LOSSES

from jaxtrain import _compat, losses
from jaxtrain.errors import ConfigError, DataError

FOLDER = pathlib.Path(__file__).parent / "vectors"
VECTORS = dict(np.load(FOLDER / "torch_losses.npz"))
SKLEARN = dict(np.load(FOLDER / "sklearn_losses.npz"))
CE = losses.softmax_cross_entropy


def oracle(z, q, a=0.0):
    z = np.asarray(z, np.float64)
    z = z - z.max(-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return -(((1 - a) * q + a / z.shape[-1]) * log_p).sum(-1)


@pytest.mark.fast
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_cross_entropy_equals_the_definition(dtype, smoothing):
    rng = np.random.default_rng(0)
    z = jnp.asarray(3 * rng.normal(size=(2, 5, 7)), dtype)
    y = rng.integers(0, 7, (2, 5))
    expected = oracle(z.astype(jnp.float32), np.eye(7)[y], smoothing)
    # log_p is below 16 in size, and the sums of 7 terms lose at most 8 half-units of that in the
    # last place, 2^-21. bfloat16 logits are exact in float32, so the same holds there.
    for labels in (jnp.asarray(y, jnp.int32), jnp.asarray(np.eye(7)[y], dtype)):
        loss = CE(z, labels, smoothing=smoothing)
        assert loss.shape == (2, 5) and loss.dtype == jnp.float32
        np.testing.assert_allclose(loss, expected, atol=8 * 2**-21, rtol=0)


def test_cross_entropy_in_float64(x64):
    z, y = np.random.default_rng(1).normal(size=(4, 3)), np.array([0, 1, 2, 1])
    loss = CE(jnp.asarray(z), jnp.asarray(y))
    assert loss.dtype == jnp.float64
    # The bound above with log_p below 4, 2^-52.
    np.testing.assert_allclose(loss, oracle(z, np.eye(3)[y]), atol=8 * 2**-52, rtol=0)


@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_is_stable_at_huge_logits(soft):
    z = jnp.array([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0], [1e4, 1e4, -1e4]])
    y = jnp.array([0, 1, 0])
    labels = jax.nn.one_hot(y, 3) if soft else y
    loss, gradient = CE(z, labels), jax.grad(lambda z: CE(z, labels).sum())(z)
    # Exact but for log 2, rounded once.
    np.testing.assert_allclose(loss, [0, 2e4, np.log(2)], rtol=1.2e-7)
    np.testing.assert_array_equal(gradient, [[0, 0, 0], [1, -1, 0], [-0.5, 0.5, 0]])


def test_cross_entropy_keeps_small_losses():
    # With the log-sum-exp unshifted, 1e4 swallows the loss: its unit in the last place is 1e-3.
    # exp(-9) is below one; 1 + it rounds by 6e-8, which is 5e-4 of the loss.
    loss = CE(jnp.array([1e4, 1e4 - 9]), jnp.int32(0))
    np.testing.assert_allclose(loss, np.log1p(np.exp(-9)), rtol=5e-4)


def test_gradient_is_p_minus_q_under_jit_and_vmap():
    z = jax.random.normal(jax.random.key(0), (6, 4))
    y = jnp.array([0, 1, 2, 3, 0, 1])
    gradient = jax.jit(jax.vmap(jax.grad(lambda z, y: CE(z, y, smoothing=0.2))))(z, y)
    q = 0.8 * jax.nn.one_hot(y, 4) + 0.05
    # Numbers below 1, some ten roundings of 2^-25.
    np.testing.assert_allclose(gradient, jax.nn.softmax(z) - q, atol=3e-7, rtol=0)


def test_batch_as_large_as_classes_takes_classes():
    # Exact but for the logarithm, to a unit in the last place.
    loss = CE(jnp.zeros((4, 4)), jnp.arange(4))
    np.testing.assert_allclose(loss, np.full(4, np.log(4)), rtol=1.2e-7)


def test_labels_that_are_no_class_give_nan():
    forms = [functools.partial(losses.hinge, form=form) for form in ("sum", "mean", "max")]
    for f in (CE, losses.focal, *forms):
        loss = f(jnp.zeros((3, 2)), jnp.array([-1, 2, 1]))
        np.testing.assert_array_equal(jnp.isnan(loss), [True, True, False])


def test_excluded_classes_may_have_logits_of_minus_infinity():
    for f in (CE, losses.focal):
        value, slope = jax.value_and_grad(f)(jnp.array([0.0, -jnp.inf]), jnp.int32(0))
        assert value == 0 and not slope.any()


@pytest.mark.fast
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_labels_of_8_bits_know_more_than_256_classes(dtype):
    z = jnp.zeros((3, 300)).at[:, 257].set(1.0).at[:, 44].set(-1.0)
    y = jnp.asarray(np.array([1, 100, 255]).astype(dtype))
    weigh = losses.class_weighted(losses.hinge, np.arange(300.0))
    ignoring = functools.partial(CE, ignore_index=-156)  # 100 in 8 bits
    for f in (ignoring, losses.focal, losses.hinge, weigh):
        np.testing.assert_array_equal(f(z, y), f(z, y.astype(jnp.int32)))
    assert jnp.isnan(CE(z, y)[2]) == (dtype == np.int8)


def test_smoothing_may_be_traced():
    z, y = jnp.arange(8.0).reshape(2, 4), jnp.array([3, 0])
    traced = jax.vmap(lambda a: CE(z, y, smoothing=a))(jnp.array([0.0, 0.1]))
    np.testing.assert_array_equal(traced[0], CE(z, y))
    # The same operations, compiled or not: one rounding of numbers below 4 may differ, by 2^-22.
    np.testing.assert_allclose(traced[1], CE(z, y, smoothing=0.1), atol=2.4e-7, rtol=0)


@pytest.mark.fast
@pytest.mark.parametrize(
    "labels, message",
    [
        (jnp.arange(4.0), r"shape \(4, 4\) for float32 labels"),
        (jnp.eye(4, dtype=jnp.int32), r"shape \(4,\) for int32 labels"),
        (jnp.arange(3), "got"),
        (jnp.zeros((4, 3)), "got"),
        (jnp.zeros((4, 1), jnp.int32), "got"),
    ],
)
def test_labels_of_the_wrong_shape_are_refused(labels, message):
    with pytest.raises(ConfigError, match=message):
        CE(jnp.zeros((4, 4)), labels)


def test_wrong_kinds_are_refused():
    with pytest.raises(TypeError, match="logits must be floating, got 'int32'"):
        CE(jnp.zeros((4, 4), jnp.int32), jnp.arange(4))
    with pytest.raises(TypeError, match="labels must be integer or floating, got 'bool'"):
        CE(jnp.zeros((4, 4)), jnp.zeros(4, bool))
    with pytest.raises(TypeError, match="outputs must be floating"):
        losses.squared_error(jnp.arange(3), jnp.arange(3.0))
    for smoothing in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="smoothing"):
            CE(jnp.zeros((4, 4)), jnp.arange(4), smoothing=smoothing)


@pytest.mark.fast
def test_squared_error_is_the_mean_per_example():
    rng = np.random.default_rng(2)
    y, v = rng.normal(size=(2, 5, 3, 2))
    expected = ((y - v) ** 2).reshape(5, 6).mean(1)
    # Rounding of the inputs, the difference, the square and six sums: below 20 half-units.
    np.testing.assert_allclose(
        losses.squared_error(jnp.float32(y), jnp.float32(v)), expected, rtol=1.2e-6
    )
    assert losses.squared_error(jnp.ones(3, jnp.bfloat16), jnp.zeros(3)).dtype == jnp.float32


def test_squared_error_refuses_to_broadcast():
    with pytest.raises(ConfigError, match=r"targets must be of the shape of the outputs, \(4, 1\)"):
        losses.squared_error(jnp.zeros((4, 1)), jnp.zeros(4))


C, Q, BITS = VECTORS["classes"], VECTORS["probabilities"], VECTORS["bits"]
V, W = VECTORS["targets"], VECTORS["weights"]


with_options = functools.partial
CASES = {
    "softmax_cross_entropy": (CE, C),
    "softmax_cross_entropy, smoothing": (with_options(CE, smoothing=0.125), C),
    "softmax_cross_entropy, ignore_index": (with_options(CE, ignore_index=1), C),
    "softmax_cross_entropy, probabilities": (CE, Q),
    "class_weighted": (losses.class_weighted(CE, W), C),
    "hinge, mean": (with_options(losses.hinge, form="mean"), C),
    "sigmoid_cross_entropy": (losses.sigmoid_cross_entropy, BITS),
    "sigmoid_cross_entropy, probabilities": (losses.sigmoid_cross_entropy, Q),
    "binary_hinge": (losses.binary_hinge, BITS),
    "focal": (losses.focal, C),
    "focal, 0.5": (with_options(losses.focal, gamma=0.5), C),
    "sigmoid_focal": (losses.sigmoid_focal, BITS),
    "sigmoid_focal, no alpha": (with_options(losses.sigmoid_focal, gamma=1.5, alpha=None), BITS),
    "squared_error": (losses.squared_error, V),
    "absolute_error": (losses.absolute_error, V),
    "huber": (losses.huber, V),
    "huber, 2": (with_options(losses.huber, delta=2.0), V),
    "minkowski": (losses.minkowski, V),
}


@functools.cache
def values_and_gradients(dtype):
    """Of all cases, in one program."""

    def swapped(loss, targets, z):
        return loss(z, targets)

    def all_of(z):
        found = {}
        for name, (loss, targets) in CASES.items():
            if targets.dtype == np.float64:
                targets = targets.astype(z.dtype)
            value, pull = jax.vjp(functools.partial(swapped, loss, jnp.asarray(targets)), z)
            found[name] = value, *pull(jnp.ones_like(value))
        return found

    with _compat.enable_x64(dtype == "float64"):
        return jax.device_get(jax.jit(all_of)(jnp.asarray(VECTORS["logits"], dtype)))


@pytest.mark.fast
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_equals_torch(name, dtype):
    """At logits of +-1e4, +-1e-30, 0 and equal ones too."""
    value, gradient = values_and_gradients(dtype)[name]
    narrow, wide = jnp.dtype(dtype), np.promote_types(jnp.dtype(dtype), np.float32)
    assert value.dtype == wide and gradient.dtype == narrow
    # Two dozen roundings of numbers below 8 or of those that are compared, and the last one of a
    # gradient in bfloat16.
    eps, last = float(jnp.finfo(wide).eps), float(jnp.finfo(narrow).eps)
    np.testing.assert_allclose(value, VECTORS[name], rtol=12 * eps, atol=96 * eps)
    expected = VECTORS[f"{name}, gradient"]
    np.testing.assert_allclose(gradient.astype(wide), expected, rtol=12 * last, atol=96 * eps)


def test_smooth_l1_is_huber_divided_by_delta():
    z = jnp.asarray(VECTORS["logits"], np.float32)
    found = losses.huber(z, jnp.asarray(V), delta=2.0) / 2
    # A difference, a product, a sum of four and two factors, 2^-24 each.
    np.testing.assert_allclose(found, VECTORS["smooth_l1, 2"], rtol=4.8e-7)


@pytest.mark.fast
def test_hinge_has_three_forms():
    # The scores of a cat, a car and a frog in CS231n.
    f, y = SKLEARN["scores"], np.arange(3)
    m = np.maximum(0, f - f[np.arange(3), y][:, None] + 1)
    m[np.arange(3), y] = 0
    expected = {"sum": [2.9, 0, 12.9], "mean": m.sum(1) / 3, "max": SKLEARN["hinge"]}
    for form, values in expected.items():
        found = losses.hinge(jnp.asarray(f, np.float32), jnp.asarray(y), form=form)
        # Three roundings of numbers below 16, 2^-21 each.
        np.testing.assert_allclose(found, values, atol=3 * 2**-21, rtol=0)


OPTAX = {
    "smoothing": (
        lambda z: CE(z, jnp.asarray(C), smoothing=0.125),
        lambda z, optax: optax.softmax_cross_entropy(
            z, optax.smooth_labels(jax.nn.one_hot(C, 4, dtype=z.dtype), 0.125)
        ),
    ),
    "sigmoid": (
        lambda z: losses.sigmoid_cross_entropy(z, jnp.asarray(BITS)),
        lambda z, optax: optax.sigmoid_binary_cross_entropy(z, BITS.astype(z.dtype)).mean(1),
    ),
    "focal": (
        lambda z: losses.sigmoid_focal(z, jnp.asarray(BITS)),
        lambda z, optax: optax.sigmoid_focal_loss(z, BITS.astype(z.dtype), alpha=0.25).mean(1),
    ),
    "hinge": (
        lambda z: losses.binary_hinge(z, jnp.asarray(BITS)),
        lambda z, optax: optax.hinge_loss(z, (2 * BITS - 1).astype(z.dtype)).mean(1),
    ),
    "hinge, max": (
        lambda z: losses.hinge(z, jnp.asarray(C), form="max"),
        lambda z, optax: optax.multiclass_hinge_loss(z, jnp.asarray(C)),
    ),
    "huber": (
        lambda z: losses.huber(z, jnp.asarray(V), delta=2.0),
        lambda z, optax: optax.huber_loss(z, jnp.asarray(V, z.dtype), delta=2.0).mean(1),
    ),
    "squared": (
        lambda z: losses.squared_error(z, jnp.asarray(V)) / 2,
        lambda z, optax: optax.l2_loss(z, jnp.asarray(V, z.dtype)).mean(1),
    ),
}


@pytest.mark.parametrize("name", OPTAX)
def test_equals_optax(name):
    ours, theirs = OPTAX[name]
    z = jnp.asarray(VECTORS["logits"][:5], np.float32)
    z = jnp.concatenate([z, jnp.zeros((6, 4))])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = theirs(z, optax.losses)
    # Ten roundings in all, of numbers below 2 or of those that are compared: 2^-24 of them.
    np.testing.assert_allclose(ours(z), expected, rtol=6e-7, atol=6e-7)


@pytest.mark.fast
@pytest.mark.parametrize("loss", [losses.absolute_error, losses.minkowski, losses.huber])
def test_errors_of_zero_have_no_gradient(loss):
    for options in [{"p": 1.0}, {"p": 1.5}] if loss is losses.minkowski else [{}]:
        slope = jax.grad(lambda y: loss(y, jnp.zeros(1), **options).sum())  # noqa: B023
        assert slope(jnp.zeros(1)) == 0
        assert slope(jnp.full(1, 3.0)) == -slope(jnp.full(1, -3.0)) > 0


def test_minkowski_lies_between_the_absolute_and_the_squared_error():
    y, v = jnp.asarray(VECTORS["logits"], np.float32), jnp.asarray(V, np.float32)
    # A power is right to two units in the last place, 2^-22.
    for p, loss in ((1, losses.absolute_error), (2, losses.squared_error)):
        np.testing.assert_allclose(losses.minkowski(y, v, p=p), loss(y, v), rtol=2.4e-7)
    traced = jax.vmap(lambda p: losses.minkowski(y, v, p=p))(jnp.array([1.0, 1.5]))
    np.testing.assert_allclose(traced[1], losses.minkowski(y, v), rtol=2.4e-7)


def test_focal_is_the_cross_entropy_at_gamma_zero():
    z = jnp.asarray(VECTORS["logits"], np.float32)
    for soft in (jnp.asarray(C), jnp.asarray(Q, np.float32)):
        value, pull = jax.vjp(lambda z: losses.focal(z, soft, gamma=0), z)  # noqa: B023
        expected, pull_expected = jax.vjp(lambda z: CE(z, soft), z)  # noqa: B023
        np.testing.assert_array_equal(value, expected)
        # A factor of 1 more: at most one unit of what is compared, or of the largest p.
        np.testing.assert_allclose(pull(value), pull_expected(value), rtol=1.2e-7, atol=1.2e-7)
    found = losses.sigmoid_focal(z, jnp.asarray(BITS), gamma=0, alpha=None)
    expected = losses.sigmoid_cross_entropy(z, jnp.asarray(BITS))
    np.testing.assert_allclose(found, expected, rtol=1.2e-7)


@pytest.mark.fast
def test_bits_may_be_bools_integers_and_floats():
    z = jnp.array([[1.0, -2.0], [0.5, 3.0]])
    q = np.array([[1, 0], [0, 1]])
    for loss in (losses.sigmoid_cross_entropy, losses.sigmoid_focal, losses.binary_hinge):
        kinds = [loss(z, jnp.asarray(q, dtype)) for dtype in (bool, np.uint8, np.float32)]
        np.testing.assert_array_equal(kinds[0], kinds[1])
        np.testing.assert_array_equal(kinds[0], kinds[2])
        for bad in ([[1, 0], [-1, 1]], [[1.0, 0.0], [-1.0, 1.0]], [[1.0, 0.0], [0.0, 1.5]]):
            np.testing.assert_array_equal(jnp.isnan(loss(z, jnp.array(bad))), [False, True])


def test_an_ignored_label_has_neither_loss_nor_gradient():
    z, y = jnp.zeros((4, 3)), jnp.array([0, -100, -1, 2])
    for weigh in (lambda f: f, lambda f: losses.class_weighted(f, [1.0, 2.0, 4.0])):
        loss = weigh(functools.partial(CE, ignore_index=-100, smoothing=0.1))
        np.testing.assert_array_equal(jnp.isnan(loss(z, y)), [False, False, True, False])
        gradient = jax.grad(lambda z: loss(z, y).sum())(z)  # noqa: B023
        assert loss(z, y)[1] == 0 and not gradient[1].any()
    for labels, bad in ((z, 1), (y, 1.0)):
        with pytest.raises(ConfigError, match="ignore_index must be None, or with integer labels"):
            CE(z, labels, ignore_index=bad)


@pytest.mark.fast
def test_class_weights_are_those_of_sklearn():
    y = SKLEARN["labels"]
    w = losses.class_weights(y)
    # A product and a quotient, in both: 2^-53 each.
    np.testing.assert_allclose(w, SKLEARN["class_weights"], rtol=4.4e-16)
    # With these the mean over the examples is torch's, the mean over the weights: they add up to n,
    # but for some roundings of a sum in pairs.
    np.testing.assert_allclose(w[y].mean(), 1, rtol=8 * 2**-53)
    for bad, classes in ((y[:70], 2), (y, 2), (y - 1, None), (y[:0], None), (y / 2, None)):
        with pytest.raises(DataError, match="class_weights: labels must be"):
            losses.class_weights(bad, classes=classes)
    with pytest.raises(DataError, match=r"labels must be in \[0, 2\), got -1"):
        losses.class_weights(np.array([0, 1, -1]))


def test_torchs_weighted_mean_divides_by_the_weights():
    z, y = jnp.asarray(VECTORS["logits"][:5], np.float32), C[:5]
    loss = losses.class_weighted(CE, W / W[y].mean())(z, jnp.asarray(y))
    # Losses to three of 2^-24, weights, their products, a sum of five and a quotient to one each.
    np.testing.assert_allclose(loss.mean(), VECTORS["class_weighted, torch's mean"], rtol=6e-7)


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="class_weighted: weights must be one number for each of"):
        losses.class_weighted(CE, [1.0, 2.0])(jnp.zeros((4, 3)), jnp.arange(4))
    for bad in ([-1.0, 1.0], [np.nan, 1.0], 2.0):
        with pytest.raises(ConfigError, match="class_weighted: weights must be a vector"):
            losses.class_weighted(CE, bad)
    with pytest.raises(TypeError, match="labels must be integer, got 'float32'"):
        losses.class_weighted(CE, [1.0, 2.0])(jnp.zeros((4, 2)), jnp.zeros((4, 2)))
    with pytest.raises(ConfigError, match=r"weights must be of shape \(4,\), got \(4, 1\)"):
        losses.sample_weighted(CE)(jnp.zeros((4, 2)), (jnp.zeros(4, int), jnp.ones((4, 1))))
    with pytest.raises(TypeError, match="targets must be a pair of targets and weights"):
        losses.sample_weighted(CE)(jnp.zeros((4, 2)), jnp.zeros(4, int))
    with pytest.raises(TypeError, match="loss must be a function"):
        losses.sample_weighted(None)
    for bad in ([1.0, -1.0], [1.0, np.nan]):
        with pytest.raises(ConfigError, match="sample_weighted: weights must be finite numbers >="):
            losses.sample_weighted(CE)(jnp.zeros((2, 2)), (jnp.zeros(2, int), jnp.array(bad)))
    for bad in ("ab", {0: 1.0}, None):
        with pytest.raises((TypeError, ConfigError), match="class_weighted: weights must be"):
            losses.class_weighted(CE, bad)


@pytest.mark.fast
def test_other_losses_refuse_wrong_kinds():
    z = jnp.zeros((4, 3))
    with pytest.raises(TypeError, match="hinge: labels must be integer, .* give classes, such as"):
        losses.hinge(z, z)
    with pytest.raises(ConfigError, match=r"labels must be of the shape of the logits.* softmax"):
        losses.sigmoid_cross_entropy(z, jnp.arange(4))
    with pytest.raises(ConfigError, match=r"labels must be of the shape of the scores, \(4, 3\)"):
        losses.binary_hinge(z, jnp.arange(4))
    for loss in (CE, losses.hinge, losses.focal):
        with pytest.raises(ConfigError, match=r"logits must be of shape \(..., K\), K >= 1"):
            loss(z[:, :0], jnp.arange(4))
    with pytest.raises(ConfigError, match="targets must be of the shape of the outputs"):
        losses.huber(z, jnp.zeros(4))
    for call in (
        lambda: losses.hinge(z, jnp.arange(4), form="weston"),
        lambda: losses.hinge(z, jnp.arange(4), margin=0),
        lambda: losses.huber(z, z, delta=0.0),
        lambda: losses.minkowski(z, z, p=0.5),
        lambda: losses.focal(z, jnp.arange(4), gamma=-1),
        lambda: losses.sigmoid_focal(z, z, alpha=1.5),
        lambda: losses.binary_hinge(z, z, margin=-1.0),
    ):
        with pytest.raises(ConfigError, match="must be"):
            call()


@pytest.mark.fast
@pytest.mark.parametrize("bad", [None, "ab", [[0.0], [0.0, 1.0]]], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_what_is_no_array_is_refused_by_name(name, bad):
    f, targets = LOSSES[name]
    z = jnp.zeros((len(jax.tree.leaves(targets)[0]), 3))
    calls = {"logits|scores|outputs": (bad, targets), "labels|targets": (z, bad)}
    if name == "sample_weighted":
        calls = {"weights": (z, (targets[0], bad)), "labels": (z, (bad, targets[1]))}
    for argument, given in calls.items():
        with pytest.raises(TypeError, match=rf"^\w+: ({argument}) must be an array of numbers"):
            f(*given)


@pytest.mark.fast
def test_complex_targets_are_refused():
    with pytest.raises(TypeError, match="squared_error: targets must be bool, integer or floating"):
        losses.squared_error(jnp.zeros(2), jnp.array([1j, 1.0]))
