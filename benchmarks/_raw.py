"""The training programs by hand: dict pytrees and plain JAX, the yardstick beside our steps.

A model is `init_x(key) -> params, stats` and `x(params, stats, batch, axis_name) -> logits, stats`;
a batch is a dict of image (b, 28, 28, 1) float32, label (b,) int32, index (b,) int32 and mask (b,)
float32, 1 for a real example and 0 for padding.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

DECAY = 0.9  # of the running statistics
MOMENTUM = 0.9


def dense(params, x):
    return x @ params["kernel"] + params["bias"][None]


def conv(kernel, x):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def max_pool(x):
    """Takes the maximum of each 2x2 window, (b, h, w, c) -> (b, h/2, w/2, c)."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))


def batch_norm(params, stats, x, mask, axis_name, *, eps=1e-5):
    """Normalises x (b, h, w, c) by the mean and variance of the real examples of all devices."""
    # The sums are taken around a value near the mean: around 0 they cancel for a large offset.
    shift = lax.stop_gradient(x[:1].mean((0, 1, 2), keepdims=True))
    weight = mask[:, None, None, None]
    d = x - shift
    n = mask.sum() * (x.shape[1] * x.shape[2])
    mean = (weight * d).sum((0, 1, 2)) / jnp.maximum(n, 1)
    m2 = (weight * d * d).sum((0, 1, 2)) - n * mean**2
    rows = jnp.stack([jnp.full_like(mean, n), shift.ravel() + mean, m2])[None]
    if axis_name is not None:
        devices = lax.axis_size(axis_name)
        here = jax.nn.one_hot(lax.axis_index(axis_name), devices, dtype=x.dtype)
        rows = lax.psum(here[:, None, None] * rows, axis_name)

    # Chan's formula; a batch of padding alone gives NaN, and the guard keeps the old state.
    counts, means, m2s = jnp.moveaxis(rows, 1, 0)
    n = counts.sum(0)
    mean = (counts * means).sum(0) / n
    m2 = (m2s + counts * (means - mean[None]) ** 2).sum(0)
    a = params["scale"] * lax.rsqrt(m2 / n + eps)
    y = x * a[None, None, None] + (params["bias"] - mean * a)[None, None, None]
    return y, {
        "mean": DECAY * stats["mean"] + (1 - DECAY) * mean,
        "var": DECAY * stats["var"] + (1 - DECAY) * m2 / jnp.maximum(n - 1, 1),
    }


def init_mlp(key, *, sizes=(784, 512, 512, 10)):
    keys = jax.random.split(key, len(sizes) - 1)
    he = jax.nn.initializers.he_normal()
    return {
        f"dense{i}": {"kernel": he(k, (m, n)), "bias": jnp.zeros(n)}
        for i, (k, m, n) in enumerate(zip(keys, sizes[:-1], sizes[1:], strict=True))
    }, {}


def mlp(params, stats, batch, axis_name):
    x = batch["image"].reshape(len(batch["image"]), -1)
    x = jax.nn.relu(dense(params["dense0"], x))
    x = jax.nn.relu(dense(params["dense1"], x))
    return dense(params["dense2"], x), stats


def init_cnn(key, *, widths=(1, 32, 64, 128), classes=10):
    *keys, last = jax.random.split(key, len(widths))
    he = jax.nn.initializers.he_normal()
    params, stats = {}, {}
    for i, (k, m, n) in enumerate(zip(keys, widths[:-1], widths[1:], strict=True)):
        params[f"conv{i}"] = he(k, (3, 3, m, n))
        params[f"batch_norm{i}"] = {"scale": jnp.ones(n), "bias": jnp.zeros(n)}
        stats[f"batch_norm{i}"] = {"mean": jnp.zeros(n), "var": jnp.ones(n)}
    params["dense"] = {"kernel": he(last, (widths[-1], classes)), "bias": jnp.zeros(classes)}
    return params, stats


def cnn(params, stats, batch, axis_name):
    x, new = batch["image"], {}
    for i in range(3):
        norm = f"batch_norm{i}"
        x = conv(params[f"conv{i}"], x)
        x, new[norm] = batch_norm(params[norm], stats[norm], x, batch["mask"], axis_name)
        x = jax.nn.relu(x)
        x = max_pool(x) if i < 2 else x.mean((1, 2))
    return dense(params["dense"], x), new


def init_state(params, stats):
    momentum = jax.tree.map(jnp.zeros_like, params)
    return {"params": params, "momentum": momentum, "stats": stats}, jnp.zeros((), jnp.int32)


def all_finite(tree):
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def make_step(apply, axis_name=None, *, learning_rate=0.1):
    """Makes step((state, skipped), batch): Nesterov SGD, skipped where anything is not finite."""

    def psum(tree):
        return tree if axis_name is None else lax.psum(tree, axis_name)

    def step(ts, batch):
        old, skipped = ts
        label, mask = batch["label"], batch["mask"]
        count = psum(mask.sum())

        def mean_loss(params):
            logits, stats = apply(params, old["stats"], batch, axis_name)
            log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], 1)[:, 0]
            correct = (lax.argmax(logits, 1, label.dtype) == label).astype(mask.dtype)
            return -(mask * log_p).sum() / count, ((mask * correct).sum() / count, stats)

        params = old["params"]
        if axis_name is not None:
            # Without it the gradients of replicated params would come summed, and be summed twice.
            params = lax.pcast(params, axis_name, to="varying")
        (loss, (accuracy, stats)), grads = jax.value_and_grad(mean_loss, has_aux=True)(params)
        grads, loss, accuracy = psum((grads, loss, accuracy))

        momentum = jax.tree.map(lambda m, g: MOMENTUM * m + g, old["momentum"], grads)
        params = jax.tree.map(
            lambda p, g, m: p - learning_rate * (g + MOMENTUM * m), old["params"], grads, momentum
        )
        new = {"params": params, "momentum": momentum, "stats": stats}
        ok = all_finite((loss, grads, new))
        kept = jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, old)
        return (kept, skipped + jnp.where(ok, 0, 1)), {"loss": loss, "accuracy": accuracy}

    return step


def single(apply, *, learning_rate=0.1):
    """Compiles the step for one device; the state is donated."""
    return jax.jit(make_step(apply, learning_rate=learning_rate), donate_argnums=0)


def sharded(apply, mesh, *, learning_rate=0.1):
    """Compiles the step for a mesh of one axis: batch split over it, state replicated, donated."""
    (axis_name,) = mesh.axis_names
    step = jax.shard_map(
        make_step(apply, axis_name, learning_rate=learning_rate),
        mesh=mesh,
        in_specs=(P(), P(axis_name)),
        out_specs=P(),
    )
    return jax.jit(step, donate_argnums=0)


def place(tree, device_or_sharding):
    """Copies a tree to where the step wants it, so that donation leaves the caller's arrays."""
    return jax.jit(lambda t: t, out_shardings=device_or_sharding)(tree)
