"""K-FAC: its factors and its directions against NumPy, alone and in training."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from catalogue import key
from training import distance, images, small_net

from benchmarks import kfac as benchmark
from jaxtrain import _compat, losses, models, nn, optim, schedules, train, tree
from jaxtrain.errors import ConfigError, StateError
from jaxtrain.optim import KFACFactors

RNG = np.random.default_rng(0)
MLP = models.mlp([4, 3], activation=jnp.tanh)
IMAGES = RNG.normal(size=(9, 5, 6, 2))
CTX = nn.Context(True, key(0))


def make_batch(image, label, pad=0):
    """The batch with some padding of huge values behind it."""
    n = len(image)
    image = np.concatenate([image, np.full((pad, *image.shape[1:]), 1e3)])
    label = np.concatenate([label, np.zeros((pad, *label.shape[1:]), label.dtype)])
    mask = (np.arange(n + pad) < n).astype(np.float32)
    return {"image": image, "label": label, "index": np.arange(n + pad), "mask": mask}


def factors_of(net, params, image, *, loss=losses.squared_error, label=None, pad=0, **options):
    """The factors where the output gradients are those of squared error to fixed random targets."""
    state = net.init(key(0), image)[1]
    if label is None:
        y = jax.eval_shape(lambda: net.apply(params, state, image, CTX)[0])
        label = np.random.default_rng(1).normal(size=y.shape)
    observe = optim.kfac_factors(net, loss, **{"fisher": "empirical"} | options)
    batch = make_batch(image, label, pad)
    return jax.jit(observe)(params, state, batch, CTX)["factors"]


@functools.partial(jax.jit, static_argnums=0)
def first_update(tx, grads, factors):
    return tx.update(grads, tx.init(grads), grads, factors=factors)


def matrix(params):
    return np.concatenate([params["kernel"], params["bias"][None]])


def close(found, true, tolerance=1e-12):
    assert distance(jax.tree.map(np.asarray, found), jax.tree.map(np.asarray, true)) <= tolerance


# Factors


@pytest.mark.parametrize("pad", [0, 3])
def test_factors_equal_numpy(x64, pad):
    x, label = RNG.normal(size=(7, 5)), np.arange(7) % 3
    params, _ = MLP.init(key(1), x)
    found = factors_of(MLP, params, x, loss=losses.softmax_cross_entropy, label=label, pad=pad)

    def output_gradient(logits):
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return p - np.eye(3)[label]

    true = oracles.kfac_factors([matrix(p) for p in params.values()], x, output_gradient)
    close(found, {name: KFACFactors(A, G) for name, (A, G, _) in zip(params, true, strict=True)})
    # The oracle's own gradients are those of the mean loss, or the above would mean little.
    loss = lambda p: losses.softmax_cross_entropy(MLP.apply(p, {}, x, CTX)[0], label).mean()  # noqa: E731
    close([matrix(g) for g in jax.grad(loss)(params).values()], [V for *_, V in true])


@pytest.mark.parametrize("options", [
    {"window": (2, 3), "strides": (1, 2), "padding": "SAME"},
    {"window": 3, "strides": 2, "padding": [(0, 2), (1, 1)], "bias": False},
    {"window": (3, 2), "padding": "VALID"},
    {"window": (2, 3), "strides": (2, 1), "dilation": (3, 2)},
])  # fmt: skip
def test_the_rows_of_a_convolution_multiply_its_kernel(x64, options):
    """y = patches @ kernel is what the rows are; A is their mean over examples and positions."""
    net = nn.conv(4, **options)
    params, _ = net.init(key(1), IMAGES)
    y = net.apply(params, {}, IMAGES, CTX)[0]
    rows = optim._kfac._see(net, params, jnp.asarray(IMAGES), y)[1][0]
    kernel = params["kernel"].reshape(-1, 4)
    W = np.concatenate([kernel, params["bias"][None]]) if "bias" in params else kernel
    close((rows @ W).reshape(y.shape), y)
    A, G = factors_of(net, params, IMAGES)[""]
    close(A, np.einsum("bpi,bpj->ij", rows, rows) / (rows.shape[0] * rows.shape[1]))
    assert G.shape == (4, 4)


def test_a_convolution_over_one_pixel_is_a_dense_layer_of_sequences(x64):
    params, _ = nn.conv(3, 1).init(key(1), IMAGES)
    conv = factors_of(nn.serial(nn.conv(3, 1), nn.flatten()), {"conv0": params}, IMAGES)
    flat = {"dense0": {**params, "kernel": params["kernel"][0, 0]}}
    sequence = nn.serial(nn.dense(3), nn.flatten())
    dense = factors_of(sequence, flat, IMAGES.reshape(9, 30, 2))
    close(conv["conv0"], dense["dense0"])


def test_a_convolution_over_the_whole_image_is_a_dense_layer(x64):
    net = nn.serial(nn.conv(3, (5, 6), padding="VALID"), nn.flatten())
    params, _ = net.init(key(1), IMAGES)
    conv = factors_of(net, params, IMAGES)["conv0"]
    flat = {**params["conv0"], "kernel": params["conv0"]["kernel"].reshape(60, 3)}
    close(conv, factors_of(nn.dense(3), flat, IMAGES.reshape(9, 60))[""])


@pytest.mark.fast
def test_sums_over_positions_give_the_curvature_of_one_position(x64):
    """With one example the gradient is a sum over positions of outer products of rows of both."""
    net = nn.serial(nn.conv(3, 1, bias=False), nn.global_avg_pool())
    x = np.broadcast_to(RNG.normal(size=2), (1, 5, 6, 2))
    params, _ = net.init(key(1), x)
    label = np.zeros((1, 3))
    A, G = factors_of(net, params, x, label=label)["conv0"]
    y = net.apply(params, {}, x, CTX)[0][0]
    # All 30 positions see the same row a and get a 30th of the gradient g.
    a, g = x[0, 0, 0], 2 * y / 3
    close((A, G), (np.outer(a, a), np.outer(g, g) / 30))


def test_repeated_layers_are_as_if_written_out(x64):
    body = nn.serial(nn.dense(4), nn.repeat(nn.serial(nn.dense(4), jnp.tanh), 2))
    net, x = nn.repeat(body, 2), RNG.normal(size=(7, 4))
    params, _ = net.init(key(1), x)
    outer, inner = params["dense0"], params["repeat0"]["dense0"]
    places = {"a": (0,), "b": (0, 0), "c": (0, 1), "d": (1,), "e": (1, 0), "f": (1, 1)}
    flat = {
        name: jax.tree.map(lambda x, i=i: x[i], outer if len(i) == 1 else inner)
        for name, i in places.items()
    }
    layers = {name: nn.dense(4) for name in flat}
    tanh = {name: nn.serial(nn.dense(4), jnp.tanh) for name in "bcef"}
    written = nn.serial(**layers | tanh)
    params_ = {name: {"dense0": p} if name in tanh else p for name, p in flat.items()}
    repeated, single = factors_of(net, params, x), factors_of(written, params_, x)
    updates, updates_ = (
        first_update(tx, p, f)[0]
        for tx, p, f in [
            (optim.scale_by_kfac(net), params, repeated),
            (optim.scale_by_kfac(written), params_, single),
        ]
    )
    for name, i in places.items():
        path = "dense0" if len(i) == 1 else "repeat0/dense0"
        path_ = f"{name}/dense0" if name in tanh else name
        close(jax.tree.map(lambda F, i=i: F[i], repeated[path]), single[path_])
        mine = updates["dense0"] if len(i) == 1 else updates["repeat0"]["dense0"]
        theirs = updates_[name]["dense0"] if name in tanh else updates_[name]
        close(jax.tree.map(lambda u, i=i: u[i], mine), theirs)


def test_layers_in_wrappers_keep_their_path(x64):
    x = RNG.normal(size=(7, 5))
    params, _ = MLP.init(key(1), x)
    wrapped = nn.rewrite(MLP, lambda path, layer: nn.remat(layer) if path else layer)
    close(factors_of(nn.cast(wrapped, jnp.float64), params, x), factors_of(MLP, params, x))
    thin = factors_of(nn.cast(MLP, jnp.bfloat16), params, x)
    assert all(f.dtype == jnp.float32 for f in jax.tree.leaves(thin))


# Where the output gradients come from


def last_G(net, outputs, n, loss, **options):
    """The last factor G of n examples with the same outputs."""
    params = {"kernel": np.zeros((1, len(outputs))), "bias": np.asarray(outputs)}
    label = np.zeros(n, int)
    return factors_of(net, params, np.zeros((n, 1)), loss=loss, label=label, **options)[""].G


def test_the_models_own_labels(x64):
    """The mean of G is the Hessian of the loss, which one draw of n examples shows to n**-0.5."""
    logits, n = np.array([1.0, 0.0, -1.0]), 4000
    p = np.exp(logits) / np.exp(logits).sum()
    drawn = functools.partial(last_G, nn.dense(3), logits, n, fisher="model")
    G = drawn(losses.softmax_cross_entropy)
    # Entries of g.T @ g are at most 1, so a standard error is at most 0.5 / n**0.5: five of them.
    np.testing.assert_allclose(G, np.diag(p) - np.outer(p, p), rtol=0, atol=2.5 * n**-0.5)
    smooth = functools.partial(losses.softmax_cross_entropy, smoothing=0.5)
    close(drawn(smooth), G)
    empirical = last_G(nn.dense(3), logits, n, losses.softmax_cross_entropy)
    close(empirical, np.outer(p - np.eye(3)[0], p - np.eye(3)[0]))
    # Squared error: 2 / 3 of the identity; a square of a normal number has a variance of 2.
    G = drawn(losses.squared_error)
    np.testing.assert_allclose(G, 2 / 3 * np.eye(3), rtol=0, atol=5 * 2 / 3 * (2 / n) ** 0.5)


def test_the_draw_depends_on_the_example_and_the_key_alone(x64):
    x = RNG.normal(size=(8, 5))
    params, _ = MLP.init(key(1), x)
    observe = jax.jit(optim.kfac_factors(MLP, losses.squared_error))

    def factors(order, key):
        batch = {"image": x[order], "mask": np.ones(len(order), np.float32)}
        return observe(params, {}, batch, nn.Context(True, key, np.arange(8)[order]))["factors"]

    there, back = factors(np.arange(8), key(0)), factors(np.arange(8)[::-1], key(0))
    close(back, there)
    assert distance(factors(np.arange(8), key(1)), there) > 0.1


# Directions


@pytest.mark.parametrize("options", [
    {"c": None}, {"c": None, "every": 3, "decay": 0.5}, {"c": 1e-3, "damping": 1.0}, {"c": 1e9},
])  # fmt: skip
def test_updates_equal_numpy(x64, options):
    rng, steps = np.random.default_rng(2), 10
    z = [rng.normal(size=(steps, 20, n)) for n in (5, 3)]
    factors = [[a.T @ a / 20 for a in part] for part in z]
    gradients = rng.normal(size=(steps, 5, 3))
    rates = [0.1 * 0.5 ** (k // 4) for k in range(steps)]
    true = oracles.kfac(zip(*factors, strict=True), gradients, rates, **options)

    options = {("norm_constraint" if name == "c" else name): v for name, v in options.items()}
    tx = optim.kfac(nn.dense(3), schedules.step_decay(0.1, every=4, factor=0.5), **options)
    params = {"kernel": np.zeros((4, 3)), "bias": np.zeros(3)}

    def step(state, seen):
        V, factors = seen
        grads = {"kernel": V[:-1], "bias": V[-1]}
        updates, state = tx.update(grads, state, params, factors={"": factors})
        return state, jnp.concatenate([updates["kernel"], updates["bias"][None]])

    stream = gradients, KFACFactors(*map(np.stack, factors))
    state, found = jax.jit(lambda: jax.lax.scan(step, tx.init(params), stream))()
    # Inverses of condition at most 100 at roundings of 1e-16, summed over 10 steps.
    close(found, true, 1e-12)
    assert int(state[1].count) == steps
    if options == {"norm_constraint": 1e9}:
        close(found, oracles.kfac(zip(*factors, strict=True), gradients, rates))


def test_one_output_and_squared_error_is_the_gauss_newton_step(x64):
    x, v, net = RNG.normal(size=(20, 3)), RNG.normal(size=(20, 1)), nn.dense(1)
    params, _ = net.init(key(1), x)
    loss = lambda p: losses.squared_error(net.apply(p, {}, x, CTX)[0], v).mean()  # noqa: E731
    # A target a standard deviation away: g**2 is its expectation, 2.
    above = lambda key, y: y + np.sqrt(0.5)  # noqa: E731
    factors = factors_of(net, params, x, label=v, fisher=above)
    close(factors[""].G, np.array([[2.0]]))
    grads, a = jax.grad(loss)(params), np.column_stack([x, np.ones(20)])
    for damping in (1e-24, 1e-2):
        tx = optim.kfac(net, 1.0, damping=damping, norm_constraint=None)
        updates, _ = first_update(tx, grads, factors)
        w = matrix(optax.apply_updates(params, updates))
        # For one output the split of the damping only scales: (2 + r / pi) (A + pi r) in all.
        A, r = a.T @ a / 20, damping**0.5
        pi = np.sqrt(np.trace(A) / 4 / 2)
        step = np.linalg.solve(A + pi * r * np.eye(4), matrix(grads)) / (2 + r / pi)
        close(w, matrix(params) - step, 1e-10)
        if damping == 1e-24:
            close(w, np.linalg.lstsq(a, v)[0], 1e-10)


def test_other_params_take_the_gradient(x64):
    net = nn.serial(nn.dense(4, bias=False), nn.batch_norm(), jax.nn.relu, nn.dense(2))
    x = RNG.normal(size=(7, 3))
    params, _ = net.init(key(1), x)
    tx = optim.kfac(net, 0.1, norm_constraint=None)
    updates, state = first_update(tx, params, factors_of(net, params, x))
    close(updates["batch_norm0"], jax.tree.map(lambda p: -0.1 * p, params["batch_norm0"]))
    assert sorted(state[1].factors) == ["dense0", "dense1"]
    assert distance(updates["dense1"], jax.tree.map(lambda p: -0.1 * p, params["dense1"])) > 0.1


def test_the_constraint_bounds_the_norm_of_the_step(x64):
    x = RNG.normal(size=(7, 5))
    params, _ = MLP.init(key(1), x)
    factors = factors_of(MLP, params, x)

    def size(lr, constraint):
        """The inner product of the step u and what came in, -lr * g."""
        updates, _ = first_update(optim.kfac(MLP, lr, norm_constraint=constraint), params, factors)
        products = jax.tree.map(lambda u, g: np.sum(u * g) * -lr, updates, params)
        return float(sum(jax.tree.leaves(products)))

    whole = size(1.0, None)  # that of the natural step
    assert whole > 1e-4 and size(1e-6, 1e-4) == pytest.approx(1e-12 * whole, rel=1e-12)
    # The bounded step is nu times the natural one, whose norm is nu**2 * whole.
    nu = size(1.0, 1e-4) / whole
    assert nu**2 * whole == pytest.approx(1e-4, rel=1e-12)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_zero_gradients_and_dtypes(dtype):
    params = {"kernel": jnp.zeros((4, 3), dtype), "bias": jnp.ones(3, dtype)}
    tx = optim.kfac(nn.dense(3), 0.1)
    zero = {"": KFACFactors(jnp.zeros((5, 5)), jnp.zeros((3, 3)))}
    none = jax.tree.map(jnp.zeros_like, params)
    updates, state = first_update(tx, none, zero)
    assert all((u == 0).all() and u.dtype == dtype for u in jax.tree.leaves(updates))
    assert all(f.dtype == jnp.float32 for f in jax.tree.leaves(state[1].factors))
    assert jax.tree.map(jax.typeof, jax.jit(tx.init)(params)) == jax.tree.map(jax.typeof, state)


@pytest.mark.parametrize("n", [10, 200])
def test_singular_factors_in_float32(n):
    """Cholesky's factorization of a rank-one matrix fails but for a floor of the damping."""
    z = 100 * RNG.normal(size=n).astype(np.float32)
    factors = {"": KFACFactors(jnp.asarray(np.outer(z, z)), jnp.ones((2, 2)))}
    tx = optim.scale_by_kfac(nn.dense(2, bias=False), damping=1e-30, norm_constraint=None)
    grads = {"kernel": jnp.asarray(np.outer(z, [1, 1]), jnp.float32)}
    updates, _ = first_update(tx, grads, factors)
    # z / z'z, halved by the other factor. The inverse is up to 1e6 times as large, its roundings
    # 1e-1 of this: what counts is that the direction is that of the gradient, not NaN.
    expected = np.outer(z, [1, 1]) / (z @ z) / 2
    u = np.asarray(updates["kernel"])
    assert np.sum(u * expected) > 0.9 * np.linalg.norm(u) * np.linalg.norm(expected)


# In training


def trajectory(how, n, net, tx, *, steps=5, check_vma=True, **options):
    observe = optim.kfac_factors(net, losses.softmax_cross_entropy)
    dataset = images(dtype=np.float64)
    with _compat.enable_x64(True):
        step = train.make_step(net, losses.softmax_cross_entropy, tx, observe=observe, **options)
        run = train.parallelize(step, how=how, devices=n, check_vma=check_vma)
        batch = make_batch(dataset.image[:11], dataset.label[:11], pad=5)
        batch["index"] = batch["index"].astype(np.int32)
        ts = run.place(run.init(key(3), batch))
        first = jax.device_get(ts)
        for _ in range(steps):
            ts, seen = run.step(ts, batch)
            jax.block_until_ready(ts)
        assert int(ts.guard.skipped) == 0
        return first, jax.device_get((ts, seen))


@pytest.fixture(scope="module")
def reference():
    net = small_net()
    return trajectory("single", 1, net, optim.kfac(net, 0.1, every=2))[1]


@pytest.mark.parametrize("how, n", [
    ("shard_map", 8),
    *(pytest.param(*way, marks=pytest.mark.nightly)
      for way in itertools.product(("jit", "pmap", "shard_map"), (1, 2, 4, 8))),
])  # fmt: skip
def test_all_ways_are_one_in_float64(how, n, reference):
    """A convolution, BatchNorm and dropout; of eight devices two have nothing but padding."""
    net = small_net()
    found = trajectory(how, n, net, optim.kfac(net, 0.1, every=2))[1]
    # Sums in another order, roundings of 1e-16, through inverses of condition up to 1e4.
    assert distance(found, reference) <= 1e-10


def test_frozen_params_are_left_out():
    net = nn.serial(nn.global_avg_pool(), nn.dense(4), jnp.tanh, nn.dense(3))
    tx = optim.kfac(net, 0.1)
    for freeze, sizes in [("*/bias", [(2, 4), (4, 3)]), ("dense0/*", [(5, 3)])]:
        first, (ts, _) = trajectory("single", 1, net, tx, steps=1, freeze=freeze)
        factors = ts.opt_state[1].factors.values()
        assert [(len(f.A), len(f.G)) for f in factors] == sizes
        before, after = first.params, ts.params
        frozen = ["dense0/bias", "dense1/bias"] if freeze == "*/bias" else ["dense0/*"]
        moved = tree.select(lambda path, leaf: bool(leaf), jax.tree.map(np.any, jax.tree.map(
            np.not_equal, before, after)))  # fmt: skip
        assert moved == jax.tree.map(lambda x: not x, tree.select(tuple(frozen), before))


def test_every_kind_of_hyperparameter_gives_the_same_update():
    x = RNG.normal(size=(7, 5)).astype(np.float32)
    params, _ = MLP.init(key(1), x)
    factors = factors_of(MLP, params, x)
    numbers = {"learning_rate": 0.1, "damping": 1e-2, "decay": 0.9, "momentum": 0.5, "every": 2}
    make = functools.partial(optim.kfac, MLP)

    def update(tx):
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(params, state, params, factors=factors)
        return updates, jax.tree.structure(state)

    expected, structure = update(make(**numbers))
    assert update(make(**numbers | {"learning_rate": schedules.constant(0.1)}))[1] == structure
    close(jax.jit(lambda n: update(make(**n))[0])(numbers), expected, 1e-5)
    injected = optax.inject_hyperparams(optim.kfac)(MLP, **numbers)
    close(update(injected)[0], expected, 1e-5)
    chained = optax.chain(optax.clip(1e9), make(**numbers), optax.identity())
    close(update(chained)[0], expected, 1e-5)
    kernels = optax.masked(make(**numbers), tree.select("*", params))
    close(update(kernels)[0], expected, 1e-5)


@pytest.mark.nightly
def test_k_fac_needs_half_the_steps_on_badly_scaled_inputs(tmp_path):
    """Of SGD's with the best of 27 settings, as the benchmark says of a larger problem."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 6))
    v = np.tanh(x @ rng.normal(size=(6, 2)))
    x = (x * np.logspace(0, -2, 6)).astype(np.float32)
    problem = benchmark.Problem(models.mlp([8, 2], activation=jnp.tanh), x, v)
    file = tmp_path / "kfac.json"
    benchmark.main(problem, seeds=[0, 1], budgets=[400], kfac_steps=200, save=file)
    row = json.loads(file.read_text())["SGD's steps"]["400"]
    assert row["K-FAC steps"] <= 200 and len(row["by seed"]) == 2
    # The loss was not reached by standing still.
    assert row["loss"] < 0.5 * np.mean(v**2)


# What is refused


BAD = [
    ({"damping": 0}, "damping must be a finite number > 0"),
    ({"damping": -1.0}, "damping must be"),
    ({"decay": 1.0}, "decay must be a number in \\[0, 1\\)"),
    ({"every": 0}, "every must be an int >= 1"),
    ({"norm_constraint": 0.0}, "norm_constraint must be a finite number > 0"),
    ({"momentum": 1.0}, "momentum must be"),
    ({"learning_rate": -1.0}, "learning_rate must be"),
]


@pytest.mark.fast
@pytest.mark.parametrize("arguments, message", BAD)
def test_bad_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        optim.kfac(MLP, **{"learning_rate": 0.1} | arguments)


@pytest.mark.fast
def test_mistakes_are_named():
    net = nn.serial(a=nn.conv(2, 3), b=nn.repeat(nn.conv(2, 3, groups=2), 2))
    rule = "net must be without convolutions in groups, .* got 'conv.*groups=2.* at b'"
    for make in (optim.scale_by_kfac, lambda net: optim.kfac(net, 0.1)):
        with pytest.raises(ConfigError, match=f"scale_by_kfac: {rule}"):
            make(net)
    with pytest.raises(ConfigError, match=f"kfac_factors: {rule}"):
        optim.kfac_factors(net, losses.softmax_cross_entropy)
    with pytest.raises(ConfigError, match="without weight_norm, .* got 'weight_norm.* at wide'"):
        optim.kfac(nn.serial(wide=nn.weight_norm(nn.dense(3))), 0.1)
    with pytest.raises(ConfigError, match="loss must be one of .* pass fisher='empirical'"):
        optim.kfac_factors(MLP, lambda y, v: losses.squared_error(y, v))
    ignoring = functools.partial(losses.softmax_cross_entropy, ignore_index=-1)
    with pytest.raises(ConfigError, match="loss must be without ignore_index"):
        optim.kfac_factors(MLP, ignoring)
    with pytest.raises(ConfigError, match="did you mean 'empirical'"):
        optim.kfac_factors(MLP, losses.squared_error, fisher="empiric")
    params = MLP.init(key(0), jnp.zeros((1, 5)))[0]
    tx = optim.kfac(MLP, 0.1)
    with pytest.raises(StateError, match=r"factors must be those of layers \['dense0', 'dense1'\]"):
        tx.update(params, tx.init(params), params)
    with pytest.raises(StateError, match="params must be those of layers .*; pass the net that"):
        tx.init({"head": params["dense0"]})
