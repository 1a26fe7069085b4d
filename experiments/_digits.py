"""Training on the shipped digits, which several experiments share: a run is one program."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtrain import data, losses, nn, optim

# Standard deviations of noise that images get anew at every visit; that of the pixels is 1. A small
# net learns the digits by heart, and the gradients of all batches end at 0; with noise they do not.
NOISE = {"digits": 0.0, "digits with noise": 1.0}


@functools.cache
def examples(split: str = "stratified") -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the training and the test set of a split, standardized images and labels each."""
    sets = data.digits(split=split)
    stats = data.standardize.fit(sets[0].image, per="all")
    return [(data.standardize.apply(stats, part.image), part.label) for part in sets]


def noisy(key: jax.Array, x: jax.Array, noise: float) -> jax.Array:
    """Adds Gaussian noise of a standard deviation, that of the pixels being 1."""
    return x + noise * jax.random.normal(key, x.shape, x.dtype)


def batches(n: int, batch_size: int, epochs: int, seed: int) -> np.ndarray:
    """Returns the examples of each step, (epochs, steps, batch_size); what does not fit is left."""
    rng, steps = np.random.default_rng(seed), n // batch_size
    order = [rng.permutation(n)[: steps * batch_size] for _ in range(epochs)]
    return np.stack(order).reshape(epochs, steps, batch_size).astype(np.int32)


def orders(n: int, batch_size: int, epochs: int, seeds: Sequence[int]) -> np.ndarray:
    """Returns the batches of every seed, (seeds, epochs, steps, batch_size)."""
    return np.stack([batches(n, batch_size, epochs, seed) for seed in seeds])


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
    training: tuple[Any, Any] | None = None,
    augment: Callable[[jax.Array, Any, Any], tuple[Any, Any]] | None = None,
) -> Any:
    """Trains from the params of `seed` on the batches `order`, (epochs, steps, batch_size).

    Args:
        net: any layer.
        tx: any optimizer.
        seed: of the params, of the noise and of what layers draw.
        order: numbers of training examples.
        see: what is recorded, `see(params, state, opt_state)`.
        noise: as in `NOISE`.
        training: images and labels; None means those of `examples()`.
        augment: what each batch goes through, `augment(key, images, labels) -> images, labels`.

    Returns:
        The records, the first before training and then one after each epoch.
    """
    x, labels = map(jnp.asarray, training or examples()[0])
    key = jax.random.key(seed)
    first = x[:1] if augment is None else jax.eval_shape(augment, key, x[:1], labels[:1])[0]
    params, state = net.init(key, first)

    def loss(params, state, images, labels, ctx):
        logits, state = net.apply(params, state, images, ctx)
        return losses.softmax_cross_entropy(logits, labels).mean(), state

    def step(carry, now):
        (params, state, opt_state), (k, batch) = carry, now
        ctx = nn.Context(train=True, key=jax.random.fold_in(key, k), index=batch)
        images, targets = x[batch], labels[batch]
        if noise:
            images = noisy(ctx.key, images, noise)
        if augment is not None:
            images, targets = augment(ctx.key, images, targets)
        at = optim.grad_params(params, opt_state)
        grads, state = jax.grad(loss, has_aux=True)(at, state, images, targets, ctx)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), None

    def epoch(carry, now):
        carry, _ = jax.lax.scan(step, carry, now)
        return carry, see(*carry)

    start = params, state, tx.init(params)
    k = jnp.arange(order.shape[0] * order.shape[1], dtype=jnp.int32).reshape(order.shape[:2])
    _, seen = jax.lax.scan(epoch, start, (k, order))
    return jax.tree.map(
        lambda first, later: jnp.concatenate([first[None], later]), see(*start), seen
    )


def trained(
    net: nn.Layer,
    tx: optax.GradientTransformation,
    seed: jax.Array,
    order: jax.Array,
    **options: Any,
) -> tuple[Any, Any]:
    """Trains, as `train` does, and returns the params and the state at the end."""
    found = train(net, tx, seed, order, lambda params, state, _: (params, state), **options)
    return jax.tree.map(lambda leaf: leaf[-1], found)


def training_loss(
    net: nn.Layer,
    tx: optax.GradientTransformation,
    seed: jax.Array,
    order: jax.Array,
    *,
    noise: float = 0.0,
) -> jax.Array:
    """Trains, and returns the loss of the training set before training and after each epoch."""
    x, labels = map(jnp.asarray, examples()[0])
    x = noisy(jax.random.key(0), x, noise)

    def see(params, state, opt_state):
        return evaluate(net, params, state, x, labels)[0]

    return train(net, tx, seed, order, see, noise=noise)
