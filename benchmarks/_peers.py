"""The same networks in flax linen + optax and in torch, by the idioms of their documentation.

A peer is `f(params, stats, batch, learning_rate, precision) -> step, ts`, with step(ts, batch) ->
(ts, {"loss": ...}), from the weights of `_raw`. Neither masks padding nor guards against NaN, and
flax's documented step does not donate its state.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen
from flax.training import train_state

from benchmarks import _raw as raw

WIDTHS = (32, 64, 128)
CLASSES = 10


class MLP(linen.Module):
    """784-512-512-10."""

    dtype: Any

    @linen.compact
    def __call__(self, x):
        """Returns the logits."""
        dense = functools.partial(linen.Dense, dtype=self.dtype)
        x = x.reshape(len(x), -1)
        for i in range(2):
            x = linen.relu(dense(512, name=f"dense{i}")(x))
        return dense(CLASSES, name="dense2")(x)


class CNN(linen.Module):
    """Three blocks of convolution, BatchNorm and ReLU."""

    dtype: Any

    @linen.compact
    def __call__(self, x):
        """Returns the logits."""
        for i, width in enumerate(WIDTHS):
            x = linen.max_pool(x, (2, 2), (2, 2)) if i else x
            x = linen.Conv(width, (3, 3), use_bias=False, dtype=self.dtype, name=f"conv{i}")(x)
            norm = linen.BatchNorm(
                False, momentum=raw.DECAY, dtype=self.dtype, name=f"batch_norm{i}"
            )
            x = linen.relu(norm(x))
        return linen.Dense(CLASSES, dtype=self.dtype, name="dense0")(x.mean((1, 2)))


class LinenState(train_state.TrainState):
    """flax's state with the running statistics."""

    batch_stats: Any


def by_linen(params, stats, batch, learning_rate, precision):
    net = (CNN if stats else MLP)(jnp.dtype(precision))
    tx = optax.sgd(learning_rate, raw.MOMENTUM, nesterov=True)
    ts = LinenState.create(apply_fn=net.apply, params=params, tx=tx, batch_stats=stats)

    @jax.jit
    def step(ts, batch):
        def mean_loss(params):
            variables = {"params": params, "batch_stats": ts.batch_stats}
            logits, new = ts.apply_fn(variables, batch["image"], mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(
                logits.astype(jnp.float32), batch["label"]
            )
            return losses.mean(), (logits, new)

        value_and_grad = jax.value_and_grad(mean_loss, has_aux=True)
        (loss, (logits, new)), grads = value_and_grad(ts.params)
        ts = ts.apply_gradients(grads=grads, batch_stats=new.get("batch_stats", {}))
        return ts, {"loss": loss, "accuracy": (logits.argmax(-1) == batch["label"]).mean()}

    return step, ts


def by_torch(params, stats, batch, learning_rate, precision):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def affine(layer, p):
        kernel = np.moveaxis(np.array(p["kernel"]), (-1, -2), (0, 1))
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(kernel))
            if "bias" in p:
                layer.bias.copy_(torch.from_numpy(np.array(p["bias"])))
        return layer

    layers: list = []
    if stats:
        for i, (m, n) in enumerate(zip((1, *WIDTHS), WIDTHS, strict=False)):
            layers += [torch.nn.MaxPool2d(2)] if i else []
            conv = torch.nn.Conv2d(m, n, 3, padding=1, bias=False)
            layers += [affine(conv, params[f"conv{i}"]), torch.nn.BatchNorm2d(n), torch.nn.ReLU()]
        layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
        layers += [affine(torch.nn.Linear(n, CLASSES), params["dense0"])]
    else:
        layers += [torch.nn.Flatten()]
        for i in range(len(params)):
            p = params[f"dense{i}"]
            layers += [torch.nn.ReLU()] if i else []
            layers += [affine(torch.nn.Linear(*p["kernel"].shape), p)]
    net = torch.nn.Sequential(*layers).to(device, memory_format=torch.channels_last)
    tx = torch.optim.SGD(
        net.parameters(), learning_rate, momentum=raw.MOMENTUM, nesterov=True, fused=True
    )
    image = torch.from_numpy(np.array(batch["image"])).permute(0, 3, 1, 2).to(device)
    label = torch.from_numpy(np.array(batch["label"], np.int64)).to(device)
    cast = torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")

    def step(ts, batch):
        tx.zero_grad()
        with cast:
            loss = torch.nn.functional.cross_entropy(net(image), label)
        loss.backward()
        tx.step()
        return ts, {"loss": loss.item()}

    return step, None
