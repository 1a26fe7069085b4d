"""A polynomial, y = 3 + 3 x + x^2, of which several experiments see v = y + noise in [-1, 1].

The model of order P is linear in its features, `h'w` with h = (1, x, ..., x^P).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtrain import _compat, losses, optim
from jaxtrain.data import synthetic

TRUE = np.array([3.0, 3.0, 1.0])  # `synthetic.polynomial` unless told otherwise


def examples(n: int, order: int, seed: int, *, reach: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Returns h, (n, order + 1), and v, (n,), for x uniform in [-reach, reach]."""
    with _compat.enable_x64(True):  # or the data set would be float32
        dataset = synthetic.polynomial(n, width=reach, seed=seed)
    return synthetic.powers(dataset.image, order), dataset.label[:, 0]


def many(n: int, order: int, seeds, *, reach: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Returns the examples of all seeds, (seeds, n, order + 1) and (seeds, n)."""
    h, v = zip(*(examples(n, order, seed, reach=reach) for seed in seeds), strict=True)
    return np.stack(h), np.stack(v)


def fit(h, v) -> np.ndarray:
    """Returns the weights of the least squared error, the shortest of them."""
    return np.linalg.lstsq(h, v)[0]


def moments(order: int, *, reach: float = 1.0) -> np.ndarray:
    """Returns E h h' over x uniform in [-reach, reach]."""
    k = np.add.outer(np.arange(order + 1), np.arange(order + 1))
    return np.where(k % 2, 0, reach**k / (k + 1))


def test_risk(w, *, reach: float = 1.0) -> np.ndarray:
    """Returns E (h'w - y)^2, exactly, for weights along the last axis."""
    size = max(w.shape[-1], len(TRUE))
    pad = [(0, 0)] * (w.ndim - 1) + [(0, size - w.shape[-1])]
    d = np.pad(w, pad) - np.pad(TRUE, (0, size - len(TRUE)))
    return np.einsum("...i,ij,...j->...", d, moments(size - 1, reach=reach), d)


def train_risk(w, h, v):
    """Returns the mean squared error on examples."""
    return losses.squared_error((h @ w)[:, None], v[:, None]).mean()


def descend(h, v, times, *, strength: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Descends from w = 0 along the gradient of R + strength |w|^2, R the training risk.

    Args:
        h: features, (seeds, n, order + 1).
        v: targets, (seeds, n).
        times: numbers of steps, ascending.
        strength: of the penalty.

    Returns:
        The weights after so many steps, (seeds, times, order + 1), and the rates, (seeds,): each
        1 over the largest curvature with the penalty.
    """
    curvatures = 2 * np.linalg.norm(h, ord=2, axis=(1, 2)) ** 2 / h.shape[1]
    rates = 1 / (curvatures + 2 * strength)
    lengths = np.diff(times, prepend=0)

    def one(h, v, rate):
        tx = optax.chain(optim.l2(strength, scale="sum"), optim.sgd(rate))

        def step(_, carry):
            w, state = carry
            updates, state = tx.update(jax.grad(train_risk)(w, h, v), state, w)
            return optax.apply_updates(w, updates), state

        def leap(carry, length):
            carry = jax.lax.fori_loop(0, length, step, carry)
            return carry, carry[0]

        w = jnp.zeros(h.shape[1])
        return jax.lax.scan(leap, (w, tx.init(w)), lengths)[1]

    return np.asarray(jax.jit(jax.vmap(one))(h, v, rates)), rates
