"""The training programs by hand: dict pytrees and plain JAX, the yardstick beside our steps.

A model is `x(params, stats, batch, axis_name) -> logits, stats`, with the params and statistics of
ours; a batch is a dict of image (b, h, w, c) float32, label (b,) int32, index (b,) int32 and mask
(b,) float32, 1 for a real example and 0 for padding. The image's dtype is the one computed in;
params and statistics are float32.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

DECAY = 0.9  # of the running statistics
MOMENTUM = 0.9


def dense(params, x):
    return x @ params["kernel"].astype(x.dtype) + params["bias"].astype(x.dtype)[None]


def conv(params, x, strides=1):
    kernel = params["kernel"].astype(x.dtype)
    return lax.conv_general_dilated(
        x, kernel, (strides, strides), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def max_pool(x):
    """Takes the maximum of each 2x2 window, (b, h, w, c) -> (b, h/2, w/2, c)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c)
    corners = (x[:, :, i, :, j] for i in range(2) for j in range(2))
    # The gradient of max would split ties, at several times the cost of giving it to the first.
    return functools.reduce(lambda m, y: jnp.where((y > m) | (y != y), y, m), corners)


def batch_norm(params, stats, x, mask, axis_name, *, eps=1e-5):
    """Normalises x (b, h, w, c) by the mean and variance of the real examples of all devices."""
    # The sums are taken around a value near the mean: around 0 they cancel for a large offset.
    dtype, x = x.dtype, x.astype(jnp.float32)
    shift = lax.stop_gradient(x[:1].mean((0, 1, 2), keepdims=True))
    real = mask > 0
    d = jnp.where(real[:, None, None, None], x - shift, 0)
    n = real.sum(dtype=x.dtype) * (x.shape[1] * x.shape[2])
    total = d.sum((0, 1, 2))
    mean = total / jnp.maximum(n, 1)
    m2 = jnp.maximum((d * d).sum((0, 1, 2)) - total * mean, 0)
    mean = mean + shift.ravel()
    if axis_name is not None:
        n, mean, m2 = combine(n, mean, m2, axis_name)
    var = m2 / jnp.maximum(n, 1)
    a = params["scale"] * lax.rsqrt(var + eps)
    y = x * a[None, None, None] + (params["bias"] - mean * a)[None, None, None]
    new = {"mean": mean, "var": m2 / jnp.maximum(n - 1, 1)}
    average = lambda old, new: jnp.where(n > 0, DECAY * old + (1 - DECAY) * new, old)  # noqa: E731
    return y.astype(dtype), jax.tree.map(average, stats, lax.stop_gradient(new))


def combine(n, mean, m2, axis_name):
    """Combines the counts, means and squared deviations of all devices by Chan's formula."""
    here = jax.nn.one_hot(lax.axis_index(axis_name), lax.axis_size(axis_name), dtype=bool)
    row = jnp.stack([jnp.full_like(mean, n), mean, m2])
    rows = lax.psum(jnp.where(here[:, None, None], row[None], 0), axis_name)
    counts, means, m2s = jnp.moveaxis(rows, 1, 0)
    n = counts[:, 0].sum()
    delta = means - means[:1]
    mean_delta = (counts * delta).sum(0) / jnp.maximum(n, 1)
    m2 = (m2s + counts * (delta - mean_delta[None]) ** 2).sum(0)
    return n, means[0] + mean_delta, m2


def mlp(params, stats, batch, axis_name):
    x = batch["image"].reshape(len(batch["image"]), -1)
    for i in range(len(params)):
        x = dense(params[f"dense{i}"], jax.nn.relu(x) if i else x)
    return x, stats


def cnn(params, stats, batch, axis_name):
    x, new = batch["image"], {}
    for i in range(len(stats)):
        norm = f"batch_norm{i}"
        x = conv(params[f"conv{i}"], max_pool(x) if i else x)
        x, new[norm] = batch_norm(params[norm], stats[norm], x, batch["mask"], axis_name)
        x = jax.nn.relu(x)
    return dense(params["dense0"], x.mean((1, 2))), new


def resnet(params, stats, batch, axis_name):
    def conv_norm(p, s, x, strides=1):
        x = conv(p["conv"], x, strides)
        x, new = batch_norm(p["norm"], s["norm"], x, batch["mask"], axis_name)
        return x, {"norm": new}

    def block(p, s, x):
        strides, body, new = 2 if "shortcut" in p else 1, {}, {}
        y, body["first"] = conv_norm(p["body"]["first"], s["body"]["first"], x, strides)
        y = jax.nn.relu(y)
        y, body["second"] = conv_norm(p["body"]["second"], s["body"]["second"], y)
        if "shortcut" in p:
            x, new["shortcut"] = conv_norm(p["shortcut"], s["shortcut"], x, strides)
        return jax.nn.relu(x + y), {"residual": {"body": body, **new}}

    x, stem = conv_norm(params["stem"], stats["stem"], batch["image"])
    x, new = jax.nn.relu(x), {"stem": stem}
    for name in sorted(set(stats) - set(new)):  # block0_0, block0_1, ...
        x, new[name] = block(params[name]["residual"], stats[name]["residual"], x)
    return dense(params["head"], x.mean((1, 2))), new


def init_state(params, stats, key):
    """Makes the state, with the leaves that ours has: dispatch takes time for each."""
    zero, one = jnp.zeros((), jnp.int32), jnp.ones(())
    return {
        "step": zero,
        "params": params,
        "stats": stats,
        "momentum": {"count": zero, "lead": one, "buffer": jax.tree.map(jnp.zeros_like, params)},
        "schedule": {"count": zero, "learning_rate": one},
        "key": key,
        "guard": {"skipped": zero, "in_a_row": zero, "scale": one, "clean_steps": zero},
    }


def all_finite(tree):
    bad = [~jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    # XLA would repeat a reduction by `and` in each of the step's selects.
    return jnp.argmax(jnp.stack([jnp.array(False), *bad])) == 0


def make_step(apply, axis_name=None, *, learning_rate, dtype=jnp.float32):
    """Makes step(ts, batch): Nesterov SGD, skipped where anything is not finite."""

    def psum(tree):
        return tree if axis_name is None else lax.psum(tree, axis_name)

    def step(ts, batch):
        batch = {**batch, "image": batch["image"].astype(dtype)}
        label, mask = batch["label"], batch["mask"]
        count = psum(mask.sum())

        def mean_loss(params):
            logits, stats = apply(params, ts["stats"], batch, axis_name)
            log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
            total = -(mask * jnp.take_along_axis(log_p, label[:, None], 1)[:, 0]).sum()
            correct = (lax.argmax(logits, 1, label.dtype) == label).astype(mask.dtype)
            return total / count, (stats, total, (mask * correct).sum())

        grads, (stats, loss, correct) = jax.grad(mean_loss, has_aux=True)(ts["params"])
        grads, loss, correct = psum((grads, loss, correct))

        buffer = jax.tree.map(lambda m, g: MOMENTUM * m + g, ts["momentum"]["buffer"], grads)
        params = jax.tree.map(
            lambda p, g, m: p - learning_rate * (g + MOMENTUM * m), ts["params"], grads, buffer
        )
        new = {
            "params": params,
            "stats": stats,
            "momentum": {
                "count": ts["momentum"]["count"] + 1,
                "lead": jnp.full((), learning_rate * MOMENTUM),
                "buffer": buffer,
            },
            "schedule": {
                "count": ts["schedule"]["count"] + 1,
                "learning_rate": jnp.full((), learning_rate),
            },
        }
        square = sum((g * g).sum() for g in jax.tree.leaves(grads))  # finite only if all grads are
        ok = all_finite((loss, square, new))
        new = jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, {name: ts[name] for name in new})
        guard = ts["guard"]
        guard = {
            "skipped": guard["skipped"] + jnp.where(ok, 0, 1),
            "in_a_row": jnp.where(ok, 0, guard["in_a_row"] + 1),
            "scale": guard["scale"],
            "clean_steps": jnp.where(ok, guard["clean_steps"] + 1, 0),
        }
        records = {
            "loss": {"total": loss, "count": count},
            "accuracy": {"total": correct, "count": count},
            "grad_norm": {"total": jnp.sqrt(square), "count": jnp.ones(())},
        }
        seen = {
            **jax.tree.map(lambda x: jnp.where(ok, x, 0), records),
            "learning_rate": new["schedule"]["learning_rate"],
            "skipped_in_a_row": guard["in_a_row"],
        }
        return {**ts, **new, "step": ts["step"] + 1, "guard": guard}, seen

    return step


def compiled(apply, mesh, **options):
    """Compiles the step for a mesh of one axis: batch split over it, state replicated, donated."""
    (axis_name,) = mesh.axis_names
    if mesh.size == 1:
        return jax.jit(make_step(apply, **options), donate_argnums=0)
    step = jax.shard_map(
        make_step(apply, axis_name, **options),
        mesh=mesh,
        in_specs=(P(), P(axis_name)),
        out_specs=P(),
        check_vma=False,  # gradients stay the device's own, and are summed once, above
    )
    return jax.jit(step, donate_argnums=0)
