"""Normalizations against NumPy and torch, their gradients, their statistics, and their limits."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key
from jax.sharding import PartitionSpec as P

from jaxtrain import _compat, nn
from jaxtrain.errors import ConfigError

KEY = key(0)
TRAIN = nn.Context(train=True)
VECTORS = np.load(pathlib.Path(__file__).parent / "vectors" / "torch_norm.npz")


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def close(found, expected, tolerance=1e-12):
    """Relative to the largest element of each leaf."""

    def leaf(a, b):
        scale = np.abs(b).max(initial=1e-3)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)

    jax.tree.map(leaf, found, jax.tree.map(np.asarray, expected))


def run(layer, x, ctx=TRAIN):
    """The outputs and state of a fresh layer."""
    return jax.jit(lambda x: layer.apply(*layer.init(KEY, x), x, ctx))(x)


# NumPy, of real and of complex numbers: f(x + i h d) = f(x) + i h f'(x) d, without rounding.


def standardized(x, axes, eps=1e-5):
    d = x - x.mean(axes, keepdims=True)
    return d / np.sqrt((d * d).mean(axes, keepdims=True) + eps)


def by_group(x, groups):
    split = x.reshape(*x.shape[:-1], groups, -1)
    return standardized(split, (*range(1, x.ndim - 1), x.ndim)).reshape(x.shape)


def rms(x, eps=1e-6):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


def inverse_root(s):
    """By the iteration of Denman and Beavers, which needs no eigenvectors."""
    y, z = s, np.eye(len(s))
    for _ in range(40):
        y, z = (y + np.linalg.inv(z)) / 2, (z + np.linalg.inv(y)) / 2
    return z


def whitening(x, groups, eps=1e-5):
    """The distances from the mean by group, and the matrices that whiten them."""
    d = (x - x.mean(tuple(range(x.ndim - 1)))).reshape(-1, groups, x.shape[-1] // groups)
    covs = np.einsum("ngi,ngj->gij", d, d) / len(d)
    return d, np.stack([inverse_root(cov + eps * np.eye(len(cov))) for cov in covs])


def zca(x, groups):
    return np.einsum("ngi,gij->ngj", *whitening(x, groups)).reshape(x.shape)


IMAGES = (3, 4, 3, 6)
NUMPY = {
    "batch_norm": (nn.batch_norm(), IMAGES, lambda x: standardized(x, (0, 1, 2))),
    "layer_norm": (nn.layer_norm(eps=0.3), (3, 4, 6), lambda x: standardized(x, -1, 0.3)),
    "layer_norm of images": (
        nn.layer_norm(per="example"),
        IMAGES,
        lambda x: standardized(x, (1, 2, 3)),
    ),
    "layer_norm, a scale for each feature": (
        nn.layer_norm(per="example", params="feature"),
        IMAGES,
        lambda x: standardized(x, (1, 2, 3)),
    ),
    "instance_norm": (nn.instance_norm(), IMAGES, lambda x: standardized(x, (1, 2))),
    "group_norm": (nn.group_norm(3), IMAGES, lambda x: by_group(x, 3)),
    "group_norm of vectors": (nn.group_norm(2, scale=False), (3, 6), lambda x: by_group(x, 2)),
    "rms_norm": (nn.rms_norm(bias=True), (3, 4, 6), rms),
    "decorrelated_batch_norm": (nn.decorrelated_batch_norm(2), IMAGES, lambda x: zca(x, 2)),
}


@pytest.mark.parametrize("name", NUMPY)
def test_equals_numpy(name, x64):
    """Outputs, and the derivative in a random direction."""
    layer, shape, normalize = NUMPY[name]
    x, dx, w = (numbers(*shape, seed=seed) for seed in range(3))
    x = 2 * x + 3
    fresh = jax.eval_shape(layer.init, KEY, x)[0]
    params, dparams = (
        {k: numbers(*p.shape, seed=seed) for k, p in fresh.items()} for seed in (3, 4)
    )

    def by_numpy(params, x):
        return params.get("scale", 1) * normalize(x) + params.get("bias", 0)

    @jax.jit
    def ours(primals, tangents, w):
        state = layer.init(KEY, x)[1]

        def f(params, x):
            return layer.apply(params, state, x, TRAIN)[0]

        return *jax.jvp(f, primals, tangents), jax.vjp(f, *primals)[1](w)

    primals, tangents = (params, x), (dparams, dx)
    y, dy, gradient = ours(primals, tangents, w)
    h = 1e-30
    tilted = jax.tree.map(lambda a, d: a + 1j * h * d, primals, tangents)
    # x * a + (bias - mean * a) cancels a few eps of x / std.
    close(y, by_numpy(*primals))
    close(dy, by_numpy(*tilted).imag / h)
    # The transpose, which training uses, against the derivative just found.
    products = jax.tree.map(lambda g, d: (np.asarray(g) * d).sum(), gradient, tangents)
    assert sum(jax.tree.leaves(products)) == pytest.approx((w * np.asarray(dy)).sum(), rel=1e-11)


# torch.

TORCH = {
    "batch_norm 1d": nn.batch_norm(),
    "batch_norm 2d": nn.batch_norm(),
    "layer_norm": nn.layer_norm(),
    "layer_norm of images": nn.layer_norm(per="example", params="feature"),
    "layer_norm, channels": nn.layer_norm(per="example"),
    "instance_norm": nn.instance_norm(),
    "group_norm": nn.group_norm(2),
    "rms_norm": nn.rms_norm(eps=float(np.finfo(np.float64).eps)),
    "decorrelated_batch_norm": nn.decorrelated_batch_norm(2),
    "weight_norm": nn.weight_norm(nn.conv(4, 3)),
}


@pytest.mark.parametrize("name", TORCH)
def test_equals_torch(name, x64):
    """BatchNorm for three batches in train mode, and in eval mode after them."""
    v = {k.removeprefix(f"{name}/"): a for k, a in VECTORS.items() if k.startswith(f"{name}/")}
    params = {k: v[k] for k in ("kernel", "scale", "bias") if k in v}
    x, layer = v["x"], TORCH[name]
    batches = x if "mean" in v else x[None]
    fresh = jax.eval_shape(layer.init, KEY, batches[0])[0]
    assert {k: p.shape for k, p in fresh.items()} == {k: p.shape for k, p in params.items()}

    def apply(params, x):
        state = layer.init(KEY, batches[0])[1]
        if "mean" not in v:
            return layer.apply(params, state, x, TRAIN)
        ys = []
        for batch in x:
            y, state = layer.apply(params, state, batch, TRAIN)
            ys.append(y)
        return jnp.stack([*ys, layer.apply(params, state, x[0], nn.EVAL)[0]]), state

    @jax.jit
    def everything(params, x, dy):
        y, pullback, state = jax.vjp(apply, params, x, has_aux=True)
        return y, pullback(dy), state

    y, gradients, state = everything(params, x, v["dy"])
    close(y, v["y"])
    # torch's gradient of ZCA divides by the differences of eigenvalues, of some 1e-2.
    tolerance = 1e-10 if name == "decorrelated_batch_norm" else 1e-12
    close(gradients, ({k: v[f"d{k}"] for k in params}, v["dx"]), tolerance)
    if "mean" in v:
        close(state, {"mean": v["mean"], "var": v["var"]})


# flax, whose params and statistics are ours.

FLAX = {
    "BatchNorm": (
        lambda linen: linen.BatchNorm(use_running_average=False),
        nn.batch_norm(decay=0.99, unbiased=False),
    ),
    "LayerNorm": (lambda linen: linen.LayerNorm(), nn.layer_norm(eps=1e-6)),
    "LayerNorm of images": (
        lambda linen: linen.LayerNorm(reduction_axes=(1, 2, 3)),
        nn.layer_norm(per="example", eps=1e-6),
    ),
    "LayerNorm, features": (
        lambda linen: linen.LayerNorm(reduction_axes=(1, 2, 3), feature_axes=(1, 2, 3)),
        nn.layer_norm(per="example", params="feature", eps=1e-6),
    ),
    "InstanceNorm": (lambda linen: linen.InstanceNorm(), nn.instance_norm(eps=1e-6)),
    "GroupNorm": (lambda linen: linen.GroupNorm(2), nn.group_norm(2, eps=1e-6)),
    "RMSNorm": (lambda linen: linen.RMSNorm(), nn.rms_norm()),
}


@pytest.mark.parametrize("name", FLAX)
def test_equals_flax(name):
    make, ours = FLAX[name]
    theirs = make(pytest.importorskip("flax.linen"))
    x = jnp.asarray(numbers(2, 4, 3, 6), np.float32)

    @jax.jit
    def both(x):
        variables = theirs.init(KEY, x)
        params = jax.tree.map(lambda p: p + jnp.cos(p) * jnp.arange(6.0), variables["params"])
        stats = variables.get("batch_stats", {})
        y, new = theirs.apply({"params": params, "batch_stats": stats}, x, mutable="batch_stats")
        return (y, new.get("batch_stats", {})), ours.apply(params, stats, x, TRAIN)

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected, found = both(x)
    # Float32, their variance by E[x^2] - E[x]^2.
    close(found, expected, 1e-5)


# Identities.


@pytest.mark.fast
def test_one_group_is_layer_norm_and_a_channel_per_group_instance_norm():
    x = jnp.asarray(numbers(2, 4, 3, 6), jnp.float32)
    params = {"scale": jnp.asarray(numbers(6), jnp.float32), "bias": jnp.arange(6.0)}
    layers = {
        **{f"{g} groups": nn.group_norm(g) for g in (1, 3, 6)},
        "layer": nn.layer_norm(per="example"),
        "instance": nn.instance_norm(),
    }

    @jax.jit
    def outputs(x):
        return {name: layer.apply(params, {}, x, TRAIN)[0] for name, layer in layers.items()}

    y = outputs(x)
    # Sums of at most 72 numbers, in another order: some roundings of 6e-8.
    close(y["1 groups"], y["layer"], 1e-6)
    close(y["6 groups"], y["instance"], 1e-6)
    assert abs(y["1 groups"] - y["3 groups"]).max() > 0.1 < abs(y["3 groups"] - y["6 groups"]).max()


@pytest.mark.fast
def test_an_example_does_not_see_the_others():
    """In train and eval mode, alone and in a batch; and an empty batch is no mistake."""
    x = jnp.asarray(numbers(3, 2, 3, 4), jnp.float32)
    ys = outputs_of_all(x)
    others = outputs_of_all(x.at[1:].set(7))
    alone = outputs_of_all(x[:1])
    for name in ("layer_norm", "layer_norm of images", "instance_norm", "group_norm", "rms_norm"):
        np.testing.assert_array_equal(others[name][0], ys[name][0])
        close(alone[name], ys[name][:1], 1e-6)
        layer = ALL[name]
        y, _ = jax.eval_shape(lambda x: layer.apply({}, {}, x, TRAIN), x[:0])  # noqa: B023
        assert y.shape == (0, 2, 3, 4)
    assert abs(others["batch_norm"] - ys["batch_norm"])[0].max() > 0.1


def test_a_feature_per_group_decorrelates_nothing(x64):
    """Then it is batch_norm, its running matrix the inverse standard deviation."""
    x = jnp.asarray(numbers(9, 4) * [1, 2, 3, 4] + 5)
    found = run(nn.decorrelated_batch_norm(4, decay=0.0), x)
    expected = run(nn.batch_norm(decay=0.0), x)
    close(found[0], expected[0])
    close(found[1]["mean"], expected[1]["mean"])
    close(found[1]["whitening"][:, 0, 0], 1 / np.sqrt(x.var(0) + 1e-5))


def test_the_identity_can_be_recovered(x64):
    """By scale = sqrt(var + eps), bias = mean; sqrt(var) is short by a factor 1 - eps / (2 var)."""
    x, eps = numbers(64, 3) + 2, 1e-3
    layer, mean, var = nn.batch_norm(eps=eps), x.mean(0), x.var(0)

    @jax.jit
    def y(scale):
        state = layer.init(KEY, x)[1]
        return layer.apply({"scale": scale, "bias": mean}, state, jnp.asarray(x), TRAIN)[0]

    close(y(np.sqrt(var + eps)), x)
    short = (np.asarray(y(np.sqrt(var))) - mean) / (x - mean)
    close(short, np.broadcast_to(1 / np.sqrt(1 + eps / var), x.shape), 1e-11)
    assert abs(short - 1).min() > 1e-4


# The gradient of BatchNorm.


def printed(y, delta, eps):
    """With the cross terms of the notes: -(y_w - mean)^2 / (n sigma^3) for all t != w."""
    n, d = len(y), y - y.mean(0)
    sigma = np.sqrt((d * d).mean(0) + eps)
    jacobian = (np.eye(n)[..., None] - 1 / n) / sigma - (d**2)[None] / (n * sigma**3)
    return (delta[:, None] * jacobian).sum(0)


def test_the_closed_form_of_the_gradient(x64):
    """Against autodiff, finite differences, the notes' Jacobian; and the sums that it makes 0."""
    eps, scale = 0.1, np.array([2.0, -1.0, 0.5])
    layer = nn.batch_norm(eps=eps)

    @jax.jit
    def both(x, dy):
        params, state = layer.init(KEY, x)
        params = params | {"scale": scale}
        y, pullback = jax.vjp(lambda params, x: layer.apply(params, state, x, TRAIN)[0], params, x)
        return y, pullback(dy), nn.bn_vjp(x, scale, dy, eps=eps)

    images = numbers(2, 3, 4, 3)
    _, (dparams, dx), found = both(images, np.sin(images))
    close(found, (dx, dparams["scale"], dparams["bias"]))
    x, dy, direction = (numbers(6, 3, seed=seed) for seed in range(3))
    _, (dparams, dx), found = both(x, dy)
    close(found, (dx, dparams["scale"], dparams["bias"]))

    h = 1e-5  # rounding 1e-15 / h, truncation h^2
    up, down = (np.asarray(both(x + s * h * direction, dy)[0]) for s in (1, -1))
    difference, dx, delta = ((up - down) * dy).sum() / (2 * h), np.asarray(found[0]), scale * dy
    assert abs((dx * direction).sum() - difference) < 1e-8
    assert abs((printed(x, delta, eps) * direction).sum() - difference) > 1e-2

    # sum (u dx) is 0 only for eps = 0, since mean (u^2) = var / (var + eps).
    sigma = np.sqrt(x.var(0) + eps)
    u = (x - x.mean(0)) / sigma
    np.testing.assert_allclose(dx.sum(0), 0, rtol=0, atol=1e-13)
    close((u * dx).sum(0), eps / sigma**3 * (u * delta).sum(0))
    tiny = np.asarray(nn.bn_vjp(jnp.asarray(x), jnp.asarray(scale), jnp.asarray(dy), eps=1e-30)[0])
    np.testing.assert_allclose((u * tiny).sum(0), 0, rtol=0, atol=1e-13)


@pytest.mark.fast
def test_mean_and_variance_are_all_that_is_normalized():
    """A coin stays a coin: its sides are now -1 and 1, not Gaussian."""
    y, _ = run(nn.batch_norm(), jnp.array([[2.0], [5.0], [5.0], [2.0]]))
    # eps / 2 of the variance 2.25, and a rounding or two.
    np.testing.assert_allclose(y, [[-1], [1], [1], [-1]], rtol=0, atol=2.5e-6)


@pytest.mark.fast
def test_training_and_evaluation_are_two_functions_of_a_small_batch():
    """Of one vector nothing is left but the bias, and the running variance is drawn to 0."""
    layer, x = nn.batch_norm(), jnp.array([[3.0, -2.0]])
    params, state = layer.init(KEY, x)
    y, after = layer.apply(params | {"bias": jnp.array([5.0, 7.0])}, state, x, TRAIN)
    # x * a + (bias - mean * a) rounds at 6e-8 * 3 * 316, both.
    np.testing.assert_allclose(y, [[5, 7]], rtol=0, atol=1.2e-4)
    assert (after["var"] == np.float32(0.9)).all()
    # eps / 2 of the variance 1, and a rounding or two.
    np.testing.assert_allclose(layer.apply(params, state, x, nn.EVAL)[0], x, rtol=5.2e-6)


def test_the_average_of_standard_deviations_is_below_that_of_variances(x64):
    """By Jensen's inequality, strictly where batches differ."""
    batches = [jnp.asarray(numbers(8, 3, seed=seed)) * (1 + seed) for seed in range(4)]
    states = {}
    for running in ("var", "std"):
        layer = nn.batch_norm(running=running)
        params, state = layer.init(KEY, batches[0])
        apply = jax.jit(layer.apply)
        for x in batches:
            state = apply(params, state, x, TRAIN)[1]
        states[running] = state[running]
    assert (states["std"] < jnp.sqrt(states["var"]) - 0.01).all()


# Whitening.


def correlated(n=512, features=4, seed=0, dtype=np.float64):
    x = numbers(n, features, seed=seed) @ numbers(features, features, seed=9)
    return jnp.asarray(x + 3, dtype)


@pytest.mark.fast
def test_whitening_removes_correlations_and_batch_norm_does_not():
    x = correlated(dtype=np.float32)
    covariances = {}
    for layer in (nn.decorrelated_batch_norm(), nn.decorrelated_batch_norm(2), nn.batch_norm()):
        y = run(layer, x)[0]
        covariances[str(layer)] = np.cov(np.asarray(y).T, bias=True)
    whole, halves, none = covariances.values()
    # eps over the least eigenvalue, 0.051 of all and 2 of the first half, or the least variance, 2;
    # and float32's 1e-7 times the condition, 252 and 4.
    assert abs(whole - np.eye(4)).max() < 2.3e-4
    assert abs(halves[:2, :2] - np.eye(2)).max() < 6e-6 < 0.1 < abs(halves[:2, 2:]).max()
    np.testing.assert_allclose(none, np.corrcoef(np.asarray(x).T), rtol=0, atol=6e-6)


def test_whitening_where_eigenvalues_are_equal(x64):
    """The covariance is 1 / 2 times the identity; an eigenvector's derivative does not exist."""
    layer = nn.decorrelated_batch_norm(eps=1e-5)

    @jax.jit
    def derivative(x, dx):
        return jax.jvp(lambda x: layer.apply(*layer.init(KEY, x), x, TRAIN)[0], (x,), (dx,))[1]

    x, dx = np.sqrt(2) * np.concatenate([np.eye(4), -np.eye(4)]), numbers(8, 4)
    close(derivative(x, dx), zca(x + 1e-30j * dx, 1).imag / 1e-30)
    # Of five examples in four dimensions, two of them the same: a covariance of rank 3.
    x = np.concatenate([numbers(4, 4), numbers(4, 4)[:1]]) @ np.diag([1, 1, 1, 0])
    dx = numbers(5, 4, seed=1) @ np.diag([1, 1, 1, 0])
    # Rounding 1e-16 of the covariance over eps = 1e-5.
    close(derivative(x, dx), zca(x + 1e-30j * dx, 1).imag / 1e-30, 1e-9)


@pytest.mark.fast
def test_whitening_a_singular_covariance_in_float32():
    """Its eigenvalues are 4e4 and, rounded by 2e-3, three zeros: some of these below -eps."""
    x = jnp.asarray(100 * numbers(64, 1) @ np.ones((1, 4)), np.float32)
    layer = nn.decorrelated_batch_norm()

    @jax.jit
    def both(x):
        y, pullback = jax.vjp(lambda x: layer.apply(*layer.init(KEY, x), x, TRAIN)[0], x)
        return y, pullback(jnp.sin(y))[0]

    y, dx = both(x)
    assert np.isfinite(dx).all()
    # Unit variance along (1, 1, 1, 1) / 2, nothing across. Distances below 256 times numbers below
    # 1 / sqrt(eps) = 316 times 3/4 round by 2^-9, in sums of four; 64 of their sums, of any sign.
    np.testing.assert_allclose((y.sum(1) / 2).std(), 1, rtol=0, atol=8 * 2**-9 / np.sqrt(64))
    np.testing.assert_allclose(y - y.mean(1, keepdims=True), 0, rtol=0, atol=4 * 2**-9)


def test_running_mean_and_whitening_of_three_batches(x64):
    layer = nn.decorrelated_batch_norm(2, decay=0.8)
    params, state = layer.init(KEY, correlated())
    expected = {"mean": np.zeros(4), "whitening": np.stack([np.eye(2)] * 2)}
    apply = jax.jit(layer.apply)
    for seed in range(3):
        x = correlated(50, seed=seed)
        _, state = apply(params, state, x, TRAIN)
        new = {"mean": np.asarray(x).mean(0), "whitening": whitening(np.asarray(x), 2)[1]}
        expected = jax.tree.map(lambda old, new: 0.8 * old + 0.2 * new, expected, new)
    close(state, expected)
    d = (np.asarray(x) - expected["mean"]).reshape(50, 2, 2)
    y = np.einsum("ngi,gij->ngj", d, expected["whitening"]).reshape(50, 4)
    frozen = nn.decorrelated_batch_norm(2, frozen=True)
    for mode in (apply(params, state, x, nn.EVAL), jax.jit(frozen.apply)(params, state, x, TRAIN)):
        close(mode[0], y)
        jax.tree.map(np.testing.assert_array_equal, mode[1], state)


def test_whitening_statistics_are_recomputed_from_all_batches(x64):
    net = nn.serial(nn.decorrelated_batch_norm(2), nn.batch_norm())
    batches = [correlated(n, seed=n) for n in (20, 30)]
    params, state = net.init(KEY, batches[0])
    found = nn.recompute_batch_stats(net, params, state, batches)["decorrelated_batch_norm0"]
    whole = np.concatenate(batches)
    close(found, {"mean": whole.mean(0), "whitening": whitening(whole, 2)[1]})


# Devices, padding, precision.


def outputs(layers, x, mask, dy, axis_name=None):
    """Outputs and gradients with respect to x, and the states, by name."""
    ctx = nn.Context(train=True, mask=mask, axis_name=axis_name)

    def of(layer):
        variables = layer.init(KEY, x)
        y, pullback, state = jax.vjp(lambda x: layer.apply(*variables, x, ctx), x, has_aux=True)
        return (y, pullback(dy)[0]), state

    results = {name: of(layer) for name, layer in layers.items()}
    return tuple({name: r[i] for name, r in results.items()} for i in range(2))


def over_devices(how, devices, layers, *args):
    """The same with the batch split; check_vma proves that the states are equal on all."""
    f, devices = functools.partial(outputs, layers, axis_name="data"), jax.devices()[:devices]
    if how == "jit":
        mesh = _compat.make_mesh(devices, ("data",))
        args = jax.device_put(args, jax.sharding.NamedSharding(mesh, P("data")))
        return jax.block_until_ready(jax.jit(functools.partial(outputs, layers))(*args))
    if how == "shard_map":
        mesh = _compat.make_mesh(devices, ("data",))
        specs = dict(in_specs=(P("data"),) * 3, out_specs=(P("data"), P()), check_vma=True)
        return jax.block_until_ready(jax.jit(jax.shard_map(f, mesh=mesh, **specs))(*args))
    split = (a.reshape(len(devices), -1, *a.shape[1:]) for a in args)
    mapped = jax.block_until_ready(jax.pmap(f, "data", out_axes=(0, None), devices=devices)(*split))
    return jax.tree.map(lambda a: a.reshape(args[0].shape), mapped[0]), mapped[1]


@pytest.mark.parametrize(
    "how, devices", [("shard_map", 1), ("shard_map", 4), ("shard_map", 8), ("jit", 8)]
)
def test_devices_share_their_statistics(how, devices, x64):
    """Padding stands last, on one device in part, on the next everything."""
    x = jnp.asarray(100 + numbers(16, 3, 4) * (1 + np.arange(16.0)[:, None, None]))
    mask = jnp.asarray(np.arange(16) < 11, np.float64)
    dy = jnp.asarray(numbers(16, 3, 4, seed=1)) * mask[:, None, None]
    layers = {"batch": nn.batch_norm(), "decorrelated": nn.decorrelated_batch_norm(2)}
    found, states = over_devices(how, devices, layers, x, mask, dy)
    short = jax.jit(functools.partial(outputs, layers))(x[:11], jnp.ones(11), dy[:11])
    # x / std is some 100, which mean and variance of other parts round differently.
    close((jax.tree.map(lambda y: y[:11], found), states), short, 1e-11)
    assert all(abs(dx[11:]).max() == 0 for _, dx in found.values())


@pytest.mark.parametrize("how", ["shard_map", "pmap"])
def test_statistics_of_groups_of_devices(how, x64):
    """Each group normalizes as if alone; the state is that of all."""
    x, mask = jnp.asarray(numbers(8, 5, 3) + np.arange(8.0)[:, None, None]), jnp.ones(8)
    dy = jnp.asarray(numbers(8, 5, 3, seed=1))
    layers = {"all": nn.batch_norm(), "groups": nn.batch_norm(group_size=2)}
    found, states = over_devices(how, 4, layers, x, mask, dy)
    close(states["groups"], states["all"])
    alone = jax.jit(functools.partial(outputs, {"all": nn.batch_norm()}))
    for half in (slice(0, 4), slice(4, 8)):
        expected, _ = alone(x[half], mask[half], dy[half])
        close([a[half] for a in found["groups"]], list(expected["all"]))


@pytest.mark.fast
def test_groups_of_devices_need_devices():
    net = nn.serial(norm=nn.batch_norm(group_size=3))
    params, state = net.init(KEY, jnp.zeros((1, 2)))
    with pytest.raises(ConfigError, match="batch_norm: group_size must be None where no axis is"):
        net.apply(params, state, jnp.ones((4, 2)), TRAIN)
    assert net.apply(params, state, jnp.ones((4, 2)), nn.EVAL)[0].shape == (4, 2)
    over = jax.vmap(net.apply, (None, None, 0, None), axis_name="data")
    with pytest.raises(ConfigError, match="group_size must be a divisor of the 4 devices, got 3"):
        over(params, state, jnp.ones((4, 2, 2)), nn.Context(train=True, axis_name="data"))


@pytest.mark.fast
@pytest.mark.parametrize("layer", [nn.batch_norm(), nn.decorrelated_batch_norm()])
def test_an_empty_batch_leaves_the_state_alone(layer):
    y, after = run(layer, jnp.zeros((0, 3)))
    assert y.shape == (0, 3)
    jax.tree.map(np.testing.assert_array_equal, after, layer.init(KEY, y)[1])


@pytest.mark.fast
@pytest.mark.parametrize("make", [nn.batch_norm, nn.decorrelated_batch_norm])
@pytest.mark.parametrize("left_out", [0, 3, 7])
@pytest.mark.parametrize("value", [1e4, np.nan, np.inf])
def test_a_masked_example_anywhere_has_no_part(make, left_out, value):
    x, mask = numbers(8, 4).astype(np.float32), np.ones(8, np.float32)
    rest = np.delete(x, left_out, axis=0)
    x[left_out], mask[left_out] = value, 0
    layer = make()
    params, state = layer.init(KEY, x)
    ctx = nn.Context(train=True, mask=jnp.asarray(mask))
    y, after = layer.apply(params, state, jnp.asarray(x), ctx)
    expected, state = layer.apply(params, state, jnp.asarray(rest), nn.Context(train=True))
    # Sums of 8 products in float32, of distances from 0 or from the first example.
    np.testing.assert_allclose(np.delete(y, left_out, axis=0), expected, rtol=0, atol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5), after, state)


@pytest.mark.fast
def test_whitening_a_batch_of_padding_leaves_the_state_alone():
    layer, x = nn.decorrelated_batch_norm(), jnp.ones((4, 3))
    params, state = layer.init(KEY, x)
    ctx = nn.Context(train=True, mask=jnp.zeros(4))

    def f(x):
        y, after = layer.apply(params, state, x, ctx)
        return y.sum(), (y, after)

    grad, (y, after) = jax.jit(jax.grad(f, has_aux=True))(x)
    jax.tree.map(np.testing.assert_array_equal, after, state)
    assert np.isfinite(y).all() and np.isfinite(grad).all()


ALL = {
    "batch_norm": nn.batch_norm(),
    "layer_norm": nn.layer_norm(),
    "layer_norm of images": nn.layer_norm(per="example"),
    "instance_norm": nn.instance_norm(),
    "group_norm": nn.group_norm(2),
    "rms_norm": nn.rms_norm(),
    "decorrelated_batch_norm": nn.decorrelated_batch_norm(2),
}


@jax.jit
def outputs_of_all(x):
    return {name: layer.apply(*layer.init(KEY, x), x, TRAIN)[0] for name, layer in ALL.items()}


def test_far_from_zero(x64):
    """Numbers of size 1 at 1e4 in float32 against the same in float64."""
    x = jnp.asarray(1e4 + numbers(16, 3, 2, 4), np.float32)
    found, exact = outputs_of_all(x), outputs_of_all(x.astype(np.float64))
    for name in ALL:
        # What holds a mean in its state rounds it, and x * a + (bias - mean * a) once more, by
        # 6e-4. Distances between examples' numbers are exact; std is here at least a tenth.
        tolerance = 3e-3 if "batch_norm" in name else 1e-5
        np.testing.assert_allclose(found[name], exact[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_types_are_normalized_in_float32(dtype, x64):
    """Inputs to 1e4, whose squares float16 does not hold, and whose mean bfloat16 does not."""
    x = jnp.asarray(1e4 * np.tanh(numbers(16, 3, 2, 4)), dtype)
    found, exact = outputs_of_all(x), outputs_of_all(x.astype(np.float64))
    for name, y in found.items():
        assert y.dtype == x.dtype
        # Rounded once, at its own size of at most some 4.
        rounding = 4 * float(jnp.finfo(dtype).eps)
        y = np.asarray(y, np.float64)
        np.testing.assert_allclose(y, exact[name], rtol=0, atol=rounding, err_msg=name)


@pytest.mark.fast
def test_without_variance():
    """Of equal numbers y is the bias, 0, and for rms_norm sign(x); of zeros 0; gradients finite."""

    @jax.jit
    def both(x):
        y, pullback = jax.vjp(outputs_of_all, x)
        return y, pullback(jax.tree.map(jnp.ones_like, y))[0]

    for number in (0.0, 3.0):
        ys, dx = both(jnp.full((4, 3, 2, 4), number))
        for name, y in ys.items():
            expected = float(number > 0 and name == "rms_norm")
            # BatchNorm rounds 3 * 316 at 6e-8, twice.
            np.testing.assert_allclose(y, expected, rtol=0, atol=1.2e-4, err_msg=name)
        assert np.isfinite(dx).all()


# Weights.


@pytest.mark.parametrize(
    "inner, shape", [(nn.dense(3), (5, 4)), (nn.conv(3, 2, bias=False), (2, 3, 3, 2))]
)
def test_weight_norm_separates_length_and_direction(inner, shape, x64):
    """It starts as the layer that it wraps; no step along the gradient changes |v| at first."""
    layer = nn.weight_norm(inner)

    @jax.jit
    def everything(x):
        params, state = layer.init(KEY, x)
        v, scale = params["kernel"], params["scale"]

        def y(layer=layer, **changes):
            return layer.apply(params | changes, state, x, nn.EVAL)[0]

        dv = jax.grad(lambda v: jnp.sin(y(kernel=v)).sum())(v)
        return (y(inner), y(), y(kernel=7 * v), y(scale=2 * scale)), (v, dv)

    (plain, first, longer, doubled), (v, dv) = everything(numbers(*shape))
    close((first, longer, doubled), (plain, plain, 2 * plain))  # the bias is still 0
    along = (dv * v).reshape(-1, 3).sum(0)
    assert abs(along).max() < 1e-13 < 1e-3 < abs(dv).max()


@pytest.mark.fast
def test_weight_norm_of_a_kernel_of_zeros_is_zero():
    layer, x = nn.weight_norm(nn.dense(3, kernel_init=nn.initializers.zeros)), jnp.ones((2, 4))

    @jax.jit
    def sum_of_y():
        params = layer.init(KEY, x)[0]
        return jax.value_and_grad(lambda p: layer.apply(p, {}, x, nn.EVAL)[0].sum())(params)

    y, grads = sum_of_y()
    assert y == 0 and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


# What is refused.


@pytest.mark.fast
@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: nn.layer_norm(eps=0), "layer_norm: eps must be"),
        (lambda: nn.layer_norm(per="image"), "layer_norm: per must be"),
        (lambda: nn.layer_norm(params="all"), "layer_norm: params must be"),
        (lambda: nn.instance_norm(eps=-1), "instance_norm: eps must be"),
        (lambda: nn.group_norm(0), "group_norm: groups must be"),
        (lambda: nn.rms_norm(eps=np.inf), "rms_norm: eps must be"),
        (lambda: nn.batch_norm(group_size=0), "batch_norm: group_size must be"),
        (lambda: nn.decorrelated_batch_norm(0), "decorrelated_batch_norm: groups must be"),
        (lambda: nn.decorrelated_batch_norm(decay=1), "decorrelated_batch_norm: decay must be"),
        (lambda: nn.decorrelated_batch_norm(eps=0), "decorrelated_batch_norm: eps must be"),
        (lambda: nn.bn_vjp(jnp.ones((2, 1)), jnp.ones(1), jnp.ones((2, 1)), eps=0), "bn_vjp: eps"),
    ],
)
def test_arguments_that_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.fast
@pytest.mark.parametrize(
    "layer, shape, message",
    [
        (nn.group_norm(), (2, 6), "group_norm: groups must be a divisor of the 6 channels, got 32"),
        (
            nn.decorrelated_batch_norm(4),
            (2, 6),
            "decorrelated_batch_norm: groups must be a divisor of the 6 channels, got 4",
        ),
        (nn.instance_norm(), (2, 6), "instance_norm: x must be .* more than one position"),
        (nn.instance_norm(), (2, 1, 1, 6), "instance_norm: x must be .* more than one position"),
        (nn.weight_norm(jax.nn.relu), (2, 6), "weight_norm: layer must be one with a kernel"),
        (nn.weight_norm(nn.remat(nn.dense(3))), (2, 6), "weight_norm: layer must be one with a"),
    ],
)
def test_inputs_that_are_refused(layer, shape, message):
    with pytest.raises(ConfigError, match=message):
        nn.serial(layer).init(KEY, jnp.zeros(shape))


@pytest.mark.fast
@pytest.mark.parametrize("name", ALL)
def test_params_of_other_channels_are_refused(name):
    """A single channel would be repeated for all of them."""
    layer, x = ALL[name], jax.ShapeDtypeStruct((2, 3, 3, 4), np.float32)
    variables = jax.eval_shape(layer.init, KEY, jax.ShapeDtypeStruct((2, 3, 3, 2), np.float32))
    with pytest.raises(ConfigError, match=rf"{layer.kind}: x must be \(batch, ..., 2\), got"):
        jax.eval_shape(lambda v, x: layer.apply(*v, x, TRAIN), variables, x)
    with pytest.raises(TypeError, match=f"{layer.kind}: x must be of a floating dtype"):
        layer.init(KEY, jnp.zeros((2, 3, 3, 2), np.int32))
