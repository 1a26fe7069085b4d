"""Training on the shipped digits, which several experiments share: a run is one program."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtrain import data, losses, nn, optim


@functools.cache
def examples(noise: float = 0.0, split: str = "stratified"):
    """Returns the training and the test set, each as standardized images and labels.

    Args:
        noise: the share of the training labels that are drawn anew from all classes.
        split: as in `data.digits`.
    """
    training, test = data.digits(split=split)
    stats = data.standardize.fit(training.image, per="all")
    rng = np.random.default_rng(0)
    label = np.where(
        rng.random(len(training)) < noise,
        rng.integers(0, 10, len(training), np.int32),
        training.label,
    )
    return [
        (data.standardize.apply(stats, dataset.image), y)
        for dataset, y in ((training, label), (test, test.label))
    ]


def batches(n: int, batch_size: int, epochs: int, seed: int) -> np.ndarray:
    """Returns the examples of each step, (epochs, steps, batch_size); what does not fit is left."""
    rng, steps = np.random.default_rng(seed), n // batch_size
    order = [rng.permutation(n)[: steps * batch_size] for _ in range(epochs)]
    return np.stack(order).reshape(epochs, steps, batch_size).astype(np.int32)


def evaluate(net: nn.Layer, params: Any, state: Any, x: Any, labels: Any, ctx: Any = nn.EVAL):
    """Returns the mean cross-entropy and the accuracy."""
    logits, _ = net.apply(params, state, x, ctx)
    hits = logits.argmax(-1) == labels
    return losses.softmax_cross_entropy(logits, labels).mean(), hits.astype(logits.dtype).mean()


def train(
    net: nn.Layer,
    tx: optax.GradientTransformation,
    seed: jax.Array,
    order: jax.Array,
    see: Callable[[Any, Any, Any], Any],
    *,
    noise: float = 0.0,
    split: str = "stratified",
) -> Any:
    """Trains from the params of `seed` on the batches `order`, (epochs, steps, batch_size).

    Returns:
        `see(params, state, opt_state)` before the first epoch and after each.
    """
    x, labels = map(jnp.asarray, examples(noise, split)[0])
    params, state = net.init(jax.random.key(seed), x[:1])

    def loss(params, state, batch):
        logits, state = net.apply(params, state, x[batch], nn.Context(train=True))
        return losses.softmax_cross_entropy(logits, labels[batch]).mean(), state

    def step(carry, batch):
        params, state, opt_state = carry
        at = optim.grad_params(params, opt_state)
        grads, state = jax.grad(loss, has_aux=True)(at, state, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), None

    def epoch(carry, batches):
        carry, _ = jax.lax.scan(step, carry, batches)
        return carry, see(*carry)

    start = params, state, tx.init(params)
    _, seen = jax.lax.scan(epoch, start, order)
    return jax.tree.map(lambda first, later: jnp.concatenate([first[None], later]), see(*start), seen)
