"""Layers that sample: exact expectations over all masks, masks that no device changes."""

import dataclasses
import functools
import itertools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key
from training import compiles

from jaxtrain import nn
from jaxtrain.errors import ConfigError

VECTORS = np.load(pathlib.Path(__file__).parent / "vectors" / "torch_activations.npz")
KEY = key(0)
TRAIN = nn.Context(train=True, key=key(1))


def apply(layer, x, params=None, ctx=nn.EVAL):
    return layer.apply(params or {}, {}, jnp.asarray(x), ctx)[0]


# All masks of a layer, each with its probability.


def every(monkeypatch, keep, sizes, f):
    """Returns p and f() for every mask; the Bernoulli draws of f take the next of `sizes` bits."""
    bits = np.array(list(itertools.product((False, True), repeat=sum(sizes))))

    def of(bits):
        parts = iter(np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]))

        def bernoulli(key, p, shape):
            assert p == keep
            return bits[next(parts)].reshape(shape)

        monkeypatch.setattr(jax.random, "bernoulli", bernoulli)
        return f()

    ys = np.asarray(jax.jit(jax.vmap(of))(jnp.asarray(bits)))
    monkeypatch.undo()
    return np.where(bits, keep, 1 - keep).prod(1), ys


def mean_and_variance(p, ys):
    assert p.sum() == pytest.approx(1, abs=1e-14)
    mean = np.tensordot(p, ys, 1)
    return mean, np.tensordot(p, (ys - mean) ** 2, 1)


SIX = np.array([[0.5, -1.0, 2.0, 3.0, -0.25, 1.5]])


@pytest.mark.parametrize("form", ["inverted", "vanilla"])
@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_dropout_has_in_train_mode_the_mean_of_eval_mode(form, rate, monkeypatch, x64):
    """Over its 2^6 masks, and so for whatever is linear in them; tanh is not."""
    keep, w = 1 - rate, np.random.default_rng(0).normal(size=(6, 2))
    layer = nn.dropout(rate, form=form)
    p, ys = every(monkeypatch, keep, [6], lambda: apply(layer, SIX, ctx=TRAIN))
    mean, variance = mean_and_variance(p, ys)
    scale = 1 / keep if form == "inverted" else 1
    np.testing.assert_allclose(mean, apply(layer, SIX), rtol=1e-14)
    np.testing.assert_allclose(variance, keep * rate * (scale * SIX) ** 2, rtol=1e-13)
    for f, same in ((lambda x: x @ w, True), (lambda x: np.tanh(x @ w), False)):
        mean, _ = mean_and_variance(p, f(ys))
        assert np.allclose(mean, f(np.asarray(apply(layer, SIX))), rtol=0, atol=1e-14) == same


@pytest.mark.fast
def test_the_neuron_of_the_lectures(monkeypatch, x64):
    """Four masks of w1 x + w2 y, kept with probability p: p (w1 x + w2 y), half of it for 1/2."""
    x, w = np.array([[3.0, -2.0]]), np.array([[0.7], [0.4]])
    for keep in (0.5, 0.75):
        net = nn.serial(nn.dropout(1 - keep, form="vanilla"), lambda x: x @ w)
        p, ys = every(monkeypatch, keep, [2], lambda: apply(net, x, ctx=TRAIN)[0, 0])  # noqa: B023
        assert sorted(ys) == pytest.approx([-0.8, 0, 1.3, 2.1])
        mean, _ = mean_and_variance(p, ys)
        # Multiplied by the probability to keep; by that to drop it would be right for 1/2 alone.
        assert mean == pytest.approx(keep * 1.3) == apply(net, x).item()


def test_after_vanilla_dropout_the_outgoing_kernel_is_scaled(x64):
    """Not the incoming one, but where the activation is positively homogeneous."""
    x, keep = np.random.default_rng(0).normal(size=(4, 3)), 0.6
    for activation, either in ((nn.tanh, False), (nn.relu, True)):
        net = nn.serial(
            incoming=nn.dense(5), a=activation, drop=nn.dropout(1 - keep, form="vanilla"),
            outgoing=nn.dense(2),
        )  # fmt: skip
        params, _ = net.init(KEY, jnp.asarray(x))
        params["outgoing"]["bias"] = jnp.ones(2)  # which stays as it is
        plain = net.replace(drop=nn.dropout(0.0))

        def scaled(name):
            layer = {**params[name], "kernel": keep * params[name]["kernel"]}  # noqa: B023
            return apply(plain, x, {**params, name: layer})  # noqa: B023

        np.testing.assert_allclose(scaled("outgoing"), apply(net, x, params), rtol=1e-13)
        assert np.allclose(scaled("incoming"), apply(net, x, params), rtol=1e-13) == either


@pytest.mark.fast
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_alpha_dropout_keeps_mean_and_variance(rate, monkeypatch, x64):
    """Of an element that is +1 or -1 with equal probability, over its two masks."""
    x = np.array([[1.0], [-1.0]])
    p, ys = every(monkeypatch, 1 - rate, [1], lambda: apply(nn.alpha_dropout(rate), x, ctx=TRAIN))
    mean, variance = mean_and_variance(np.repeat(p, 2) / 2, ys.ravel())
    assert abs(mean) < 1e-15 and variance == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("bias", [True, False])
def test_drop_connect_over_all_masks(bias, monkeypatch, x64):
    """Mean and variance over 2^6 masks are what eval mode takes the Gaussian of."""
    keep, x = 0.7, np.array([[2.0, -3.0]])
    layer = nn.drop_connect(2 if bias else 3, 1 - keep, bias=bias)
    rng, shapes = np.random.default_rng(0), jax.eval_shape(layer.init, KEY, jnp.asarray(x))[0]
    params = {name: jnp.asarray(rng.normal(size=shape.shape)) for name, shape in shapes.items()}
    sizes = [p.size for p in params.values()]
    masked = every(monkeypatch, keep, sizes, lambda: apply(layer, x, params, TRAIN))
    mean, variance = mean_and_variance(*masked)
    np.testing.assert_allclose(apply(layer, x, params), mean, rtol=1e-13)
    moments = layer.replace(test="moments", samples=1)
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype: jnp.ones(shape, dtype))
    with_key = dataclasses.replace(TRAIN, train=False)
    np.testing.assert_allclose(
        (apply(moments, x, params, with_key) - mean) ** 2, variance, rtol=1e-12
    )


@pytest.mark.parametrize("form", ["vanilla", "inverted"])
def test_stochastic_depth_over_all_masks(form, monkeypatch, x64):
    """Three blocks with linear bodies: the mean of the 2^3 nets is the eval net."""
    x = np.random.default_rng(0).normal(size=(1, 3))
    net = nn.serial(*(nn.stochastic_depth(nn.dense(3), 0.25, form=form) for _ in range(3)))
    params, _ = net.init(KEY, jnp.asarray(x))
    p, ys = every(monkeypatch, 0.75, [1, 1, 1], lambda: apply(net, x, params, TRAIN))
    np.testing.assert_allclose(mean_and_variance(p, ys)[0], apply(net, x, params), rtol=1e-13)
    np.testing.assert_array_equal(ys[0], x)  # all bodies are skipped
    y = x
    for block in params.values():
        y = y + y @ np.asarray(block["body"]["kernel"]) / (0.75 if form == "inverted" else 1)
    np.testing.assert_allclose(ys[-1], y, rtol=1e-13)  # none is


# Random draws: what they depend on.


def layers():
    return {
        "channel": nn.dropout(0.5, per="channel"),
        "example": nn.dropout(0.5, per="example"),
        "alpha_dropout": nn.alpha_dropout(0.5),
        "gaussian_noise": nn.gaussian_noise(1.0),
        "rrelu": nn.rrelu(),
        "drop_connect": nn.drop_connect(3, 0.5),
        "stochastic_depth": nn.stochastic_depth(nn.dropout(0.5), 0.5),
        "batch": nn.dropout(0.5, per="batch"),
    }


@pytest.mark.parametrize("given", [True, False])
def test_draws_are_the_same_on_any_number_of_devices(given):
    net = nn.parallel(**layers(), combine=nn.identity)
    x = -jnp.ones((8, 2, 4))
    params, _ = net.init(KEY, x)
    index = jnp.arange(100, 108, dtype=jnp.int32) if given else None

    @jax.jit
    def whole(x, index):
        return apply(net, x, params, dataclasses.replace(TRAIN, index=index))

    want = whole(x, index)
    for n in (2,) if given else (2, 4, 8):
        parts = jax.tree.map(lambda a: a.reshape(n, 8 // n, *a.shape[1:]), (x, index))  # noqa: B023
        got = jax.pmap(
            lambda x, index: apply(
                net, x, params, dataclasses.replace(TRAIN, index=index, axis_name="data")
            ),
            "data",
            devices=jax.devices()[:n],
        )(*parts)
        # Sums of the same four products.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a.reshape(b.shape), b, atol=1e-6), got, want
        )
    if given:  # and in any part of the batch, in any order, down to one example and none
        for some in (np.array([6, 1, 3]), np.array([5]), np.array([], int)):
            part = whole(x[some], index[some])
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[some], atol=1e-6), part, want)  # noqa: B023


@pytest.mark.fast
def test_what_dropout_drops_as_a_whole():
    x, ctx = jnp.ones((64, 3, 5, 8)), dataclasses.replace(TRAIN, key=jax.random.key(0))
    shapes = {"channel": (64, 1, 1, 8), "example": (64, 1, 1, 1), "batch": (1, 1, 1, 1)}
    for per, shape in shapes.items():
        y = np.asarray(apply(nn.dropout(0.25, per=per), x, ctx=ctx))
        kept = y[tuple(slice(n) for n in shape)]
        np.testing.assert_array_equal(y, np.broadcast_to(kept, y.shape))
        n = kept.size
        # A binomial: five standard deviations; for the batch, 0 or 1.
        assert abs((kept != 0).mean() - 0.75) <= max(5 * math.sqrt(0.1875 / n), 0.75 * (n == 1))
        assert set(np.unique(y)) <= {0, np.float32(4 / 3)}
    both = {
        apply(nn.dropout(0.5, per="batch"), x[:1], ctx=dataclasses.replace(TRAIN, key=key(i)))
        .sum()
        .item()
        for i in range(10)
    }
    assert both == {0, 240}


@pytest.mark.fast
def test_a_body_is_skipped_independently_of_what_it_draws():
    layer = nn.stochastic_depth(nn.dropout(0.5, per="example"), 0.5)
    y = apply(layer, jnp.ones((1000, 1)), ctx=TRAIN)
    # The body gives 2 or 0. A binomial: five standard deviations.
    assert abs((y == 3).mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 1000)


@pytest.mark.fast
def test_padding_changes_no_draw(x64):
    net, x = nn.parallel(**layers(), combine=nn.identity), jnp.ones((4, 6))
    params, _ = net.init(KEY, x)

    @jax.jit
    def draws(mask):
        ctx = dataclasses.replace(TRAIN, mask=mask)
        return apply(net, x, params, ctx), apply(net, x, params, TRAIN)

    jax.tree.map(np.testing.assert_array_equal, *draws(jnp.array([1.0, 1, 0, 0])))


@pytest.mark.fast
def test_without_a_key():
    x = jnp.ones((2, 3))
    for layer in layers().values():
        params, _ = layer.init(KEY, x)
        apply(layer, x, params)
        with pytest.raises(ValueError, match="Context: key must be given where a layer samples"):
            apply(layer, x, params, nn.Context(train=True))
    nothing = (nn.alpha_dropout(0.0), nn.gaussian_noise(0.0), nn.stochastic_depth(nn.identity, 0.0))
    for layer in nothing:
        y = apply(layer, x, ctx=nn.Context(train=True))
        np.testing.assert_array_equal(y, apply(layer, x))
    moments = nn.drop_connect(3, 0.5, test="moments")
    rule = r"drop_connect: ctx.key must be given where test='moments', got None; pass Context\("
    with pytest.raises(ConfigError, match=rule):
        apply(moments, x, moments.init(KEY, x)[0])


@pytest.mark.fast
@pytest.mark.parametrize(
    "make, rule",
    [
        (lambda: nn.dropout(0.5, per="pixel"), "dropout: per must be one of"),
        (lambda: nn.alpha_dropout(1.0), r"alpha_dropout: rate must be a number in \[0, 1\)"),
        (lambda: nn.gaussian_noise(-1.0), "gaussian_noise: std must be"),
        (
            lambda: apply(nn.gaussian_noise(1.0), np.zeros((2, 3), np.uint8)),
            "gaussian_noise: x must be of a floating dtype, got 'uint8'; put",
        ),
        (lambda: nn.drop_connect(0, 0.5), "features must be an int >= 1"),
        (lambda: nn.drop_connect(2, 1.5), "drop_connect: rate must be"),
        (lambda: nn.drop_connect(2, 0.5, test="moment"), "did you mean 'moments'"),
        (lambda: nn.drop_connect(2, 0.5, samples=0), "drop_connect: samples must be"),
        (lambda: nn.stochastic_depth(nn.dense(2), 1.0), "stochastic_depth: rate must be"),
        (
            lambda: nn.stochastic_depth(nn.dense(2), 0.5, per="element"),
            "stochastic_depth: per must",
        ),
        (lambda: nn.survival(5, 4), "survival: l must be at most L = 4, got 5"),
        (lambda: nn.survival(1, 0), "survival: L must be an int >= 1"),
        (lambda: nn.survival(1, 4, last=0.0), "survival: last must be a finite number > 0"),
        (lambda: nn.survival(1, 4, last=1.5), "survival: last must be a probability > 0, got 1.5"),
    ],
)
def test_mistakes_are_refused(make, rule):
    with pytest.raises((ValueError, TypeError), match=rule):
        make()


# Values.


@pytest.mark.fast
@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("name", ["dropout", "alpha_dropout"])
def test_a_kept_and_a_dropped_element_equal_torch_s(name, rate, x64):
    for x, expected in zip((-1.0, 2.0), VECTORS[f"{name}, {rate}"], strict=True):
        y = apply(getattr(nn, name)(rate), jnp.full((4, 100), x), ctx=TRAIN)
        np.testing.assert_allclose(np.unique(y), expected, rtol=1e-14)


@pytest.mark.fast
def test_alpha_dropout_behind_selu_keeps_mean_and_variance():
    z = jax.random.normal(jax.random.key(0), (1000, 100))
    ctx = dataclasses.replace(TRAIN, key=jax.random.key(1))
    y = apply(nn.alpha_dropout(0.2), nn.selu(z), ctx=ctx)
    # Of 100,000 numbers with a fourth moment below 8: five standard deviations.
    assert abs(y.mean()) < 5 / math.sqrt(1e5) and abs(y.var() - 1) < 5 * math.sqrt(7 / 1e5)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_gaussian_noise(dtype):
    ctx = dataclasses.replace(TRAIN, key=jax.random.key(0))
    y = apply(nn.gaussian_noise(0.5), jnp.full((100, 100), 3, dtype), ctx=ctx)
    noise = np.asarray(y.astype(float)) - 3
    # Five standard deviations, and the rounding of bfloat16 at 3, 2^-7, which has mean 0.
    assert y.dtype == dtype and abs(noise.mean()) < 5 * 0.5 / 100
    assert abs(noise.std() - 0.5) < 5 * 0.5 / math.sqrt(2 * 10_000) + 1e-3
    np.testing.assert_array_equal(apply(nn.gaussian_noise(0.5), y), y)


def relu_of_gaussian(m, std):
    """E max(u, 0) and E max(u, 0)^2 of u ~ N(m, std^2)."""
    density = math.exp(-((m / std) ** 2) / 2) / math.sqrt(2 * math.pi)
    below = (1 + math.erf(m / std / math.sqrt(2))) / 2
    return m * below + std * density, (m**2 + std**2) * below + m * std * density


def test_moment_matching_goes_through_the_activation(x64):
    n = 10_000
    layer = nn.drop_connect(1, 0.4, activation=nn.relu, test="moments", samples=n, bias=False)
    x, w = np.array([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0]]), np.array([[1.0], [0.6], [-0.5]])
    ctx = nn.Context(train=False, key=jax.random.key(0))
    y = apply(layer, x, {"kernel": jnp.asarray(w)}, ctx)
    for i in range(2):
        m, std = 0.6 * (x[i] @ w).item(), math.sqrt(0.24 * (x[i] ** 2 @ w**2).item())
        mean, second = relu_of_gaussian(m, std)
        assert abs(y[i, 0] - mean) < 5 * math.sqrt((second - mean**2) / n)
        assert abs(max(m, 0) - mean) > 0.1  # which the mean rule gives
    again = apply(
        layer,
        x[1:],
        {"kernel": jnp.asarray(w)},
        dataclasses.replace(ctx, index=jnp.array([1], jnp.int32)),
    )
    np.testing.assert_array_equal(again, y[1:])


@pytest.mark.fast
def test_drop_connect_draws_a_mask_for_each_example_and_one_for_all_places():
    params = {"kernel": jnp.ones((1, 40)), "bias": jnp.ones(40)}
    y = np.asarray(apply(nn.drop_connect(40, 0.5), jnp.ones((8, 5, 1)), params, TRAIN))
    # Weight and bias are dropped independently.
    assert set(np.unique(y)) == {0, 1, 2} and len({row[0].tobytes() for row in y}) == 8
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))


@pytest.mark.fast
def test_moments_of_large_float16_inputs_and_of_zeros():
    layer, ctx = nn.drop_connect(2, 0.5, test="moments"), nn.Context(train=False, key=key(0))
    params, _ = layer.init(KEY, jnp.zeros((1, 4)))
    for size in (1e4, 0):
        x = jnp.full((3, 4), size, jnp.float16)
        y, vjp = jax.vjp(lambda x: apply(layer, x, params, ctx), x)
        assert y.dtype == np.float16 and np.isfinite(y).all() and np.isfinite(vjp(y)[0]).all()


@pytest.mark.fast
def test_the_linear_decay_rule():
    for L in (1, 2, 54):
        assert [nn.survival(0, L), nn.survival(L, L)] == [1, 0.5]
        # Huang et al., section 4: (3 L - 1) / 4 blocks are expected, 40 of 54.
        assert sum(nn.survival(i, L) for i in range(1, L + 1)) == pytest.approx((3 * L - 1) / 4)
    assert nn.survival(3, 4, last=0.2) == pytest.approx(0.4) and nn.survival(3, 4, last=1) == 1


@pytest.mark.fast
def test_a_skipped_body_has_no_gradient_and_the_names_are_those_of_residual():
    net, plain = (
        nn.serial(block=f(nn.serial(nn.dense(3), nn.batch_norm()), shortcut=nn.dense(3)))
        for f in (functools.partial(nn.stochastic_depth, rate=0.5, per="batch"), nn.residual)
    )
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)), np.float32)
    params, state = net.init(KEY, x)
    assert jax.tree.structure((params, state)) == jax.tree.structure(plain.init(KEY, x))
    assert "block/body/dense0" in nn.summary(net, x)

    @jax.jit
    @jax.grad
    def gradient(params, seed):
        ctx = dataclasses.replace(TRAIN, key=jax.random.fold_in(KEY, seed))
        return jnp.sin(net.apply(params, state, x, ctx)[0]).sum()

    blocks = [gradient(params, seed)["block"] for seed in range(10)]
    assert {bool(block["body"]["dense0"]["kernel"].any()) for block in blocks} == {True, False}
    assert all(block["shortcut"]["kernel"].any() for block in blocks)


# The mean over the noise.


def noisy_net():
    return nn.serial(
        nn.dense(8), nn.remat(nn.batch_norm()), nn.relu, nn.dropout(0.3),
        nn.repeat(nn.serial(nn.dense(8), nn.batch_norm(), nn.gaussian_noise(0.2)), 2), nn.dense(3),
    )  # fmt: skip


def test_predict_mc_averages_passes_of_train_mode():
    net, x = noisy_net(), jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), np.float32)
    params, state = net.init(KEY, x)
    state = jax.tree.map(lambda s: s + 0.5, state)
    index = jnp.arange(10, 16, dtype=jnp.int32)
    quiet = nn.rewrite(net, lambda path, f: f.replace(frozen=True) if f.kind == "batch_norm" else f)

    @jax.jit
    def sample(i):
        ctx = nn.Context(train=True, key=jax.random.fold_in(KEY, i), index=index)
        return nn.softmax(quiet.apply(params, state, x, ctx)[0])

    ys = np.stack([sample(i) for i in range(5)])
    predict = functools.partial(nn.predict_mc, net, params, state, samples=5, transform=nn.softmax)
    mean, std = predict(x, KEY, index=index)
    # Five numbers below 1 in float32, in another order.
    np.testing.assert_allclose(mean, ys.mean(0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(std, ys.std(0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(mean.sum(1), 1, rtol=1e-6)  # probabilities, not logits, are averaged
    assert (std > 1e-3).all()
    for half in (slice(0, 3), slice(3, 6)):
        part = predict(x[half], KEY, index=index[half])
        np.testing.assert_allclose(part[0], mean[half], rtol=0, atol=1e-6)
    in_jit = jax.jit(lambda x: predict(x, KEY, index=index))(x)
    np.testing.assert_allclose(in_jit, (mean, std), rtol=0, atol=1e-6)
    with compiles() as programs:
        other = predict(x + 1, key(7), index=index)
    assert "run" not in programs and not np.allclose(other[0], mean, atol=1e-3)


def test_one_pass_of_eval_mode_is_the_mean_where_the_net_is_linear():
    """And the average of S samples comes as near as 1 / sqrt(S)."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(50, 20)), np.float32)
    net = nn.serial(nn.dropout(0.5), nn.dense(4))
    params, state = net.init(KEY, x)
    expected, errors = apply(net, x, params), []
    for samples in (16, 1024):
        mean, std = nn.predict_mc(net, params, state, x, jax.random.key(0), samples=samples)
        assert (abs(mean - expected) < 5 * std / math.sqrt(samples)).mean() > 0.99
        errors.append(jnp.sqrt(((mean - expected) ** 2).mean()).item())
    # The ratio of two estimates of a standard deviation, each to 1 / sqrt(2 * 200).
    assert errors[0] / errors[1] == pytest.approx(8, rel=5 * math.sqrt(2 / 400))


@pytest.mark.fast
def test_predict_mc_of_odd_nets():
    x = jnp.ones((2, 3), jnp.bfloat16)
    mean, std = nn.predict_mc(nn.serial(nn.relu), {}, {}, x, KEY, samples=1)
    assert mean.dtype == np.float32 and (mean == 1).all() and not std.any()
    assert nn.predict_mc(nn.dropout(0.5), {}, {}, x[:0], KEY)[0].shape == (0, 3)
    with pytest.raises(ValueError, match="predict_mc: samples must be an int >= 1, got 0"):
        nn.predict_mc(nn.dropout(0.5), {}, {}, x, KEY, samples=0)
