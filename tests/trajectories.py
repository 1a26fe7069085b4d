"""Optimizers run beside NumPy references: the problems, the runs and the tolerances."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtrain import optim, schedules

STEPS = 60
CURVATURE = np.array([1.0, 10.0, 100.0])
STREAM = np.random.default_rng(0).normal(size=(STEPS, 4))
START = np.concatenate([np.ones(3), [-1.2, 1.0], np.ones(4)])


def gradient(k, w, xp=np):
    """An ill-conditioned quadratic, Rosenbrock's function and fixed random gradients, in one."""
    x, y = w[3], w[4]
    rosenbrock = [2 * (x - 1) - 400 * x * (y - x * x), 200 * (y - x * x)]
    return xp.concatenate([CURVATURE * w[:3], xp.stack(rosenbrock), xp.asarray(STREAM)[k]])


def split(w):
    return {"quadratic": w[:3], "nets": [w[3:5], {"stream": w[5:]}]}


def joined(tree):
    return jnp.concatenate([tree["quadratic"], tree["nets"][0], tree["nets"][1]["stream"]])


def update(tx, params, state, k, gradient=gradient):
    """One update: the new params and state, and the gradients."""
    grads = split(gradient(k, joined(optim.grad_params(params, state)), jnp))
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state, grads


def train(tx, steps=STEPS, w=START, state=None, first=0, gradient=gradient):
    """Runs the optimizer under jit and scan and returns all iterates and the last state."""
    params = split(jnp.asarray(w))

    def step(carry, k):
        params, state, _ = update(tx, *carry, k, gradient)
        return (params, state), joined(params)

    carry = (params, tx.init(params) if state is None else state)
    (_, state), iterates = jax.jit(
        lambda carry: jax.lax.scan(step, carry, first + jnp.arange(steps, dtype=jnp.int32))
    )(carry)
    return np.asarray(iterates), state


def close(ours, theirs):
    # A step has about 10 roundings of 1e-16; momentum multiplies the sum over 60 steps by at
    # most 1 / (1 - 0.9): 60 * 10 * 1.1e-16 * 10 = 7e-13 of the largest parameter.
    assert np.isfinite(theirs).all()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max())


def equals_numpy(make, ours, oracle, theirs, rate, *, changing):
    """Compares `make(rate, **ours)` with `oracle(gradient, START, rates, **theirs)` in float64."""
    schedule = schedules.step_decay(rate, every=20, factor=0.1) if changing else rate
    rates = [rate * 0.1 ** (k // 20) if changing else rate for k in range(STEPS)]
    iterates, _ = train(make(schedule, **ours))
    expected = oracle(gradient, START, rates, **theirs)
    close(iterates, expected)
    # The first two steps by themselves: a difference of iterates cancels to about 1e-16 of them.
    for found, true in ((iterates[0] - START, expected[0] - START), (iterates[1], expected[1])):
        np.testing.assert_allclose(found, true, rtol=1e-12, atol=1e-15)


def float32_steps_equal_float64(tx, roundings=20):
    """Compares every single update in float32 with float64's, each from float64's own state."""

    def narrow(tree):
        return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, tree)

    def compare(carry, k):
        params, state = carry
        new, new_state, grads = update(tx, params, state, k)
        wide = joined(jax.tree.map(jnp.subtract, new, params))
        updates, _ = tx.update(narrow(grads), narrow(state), narrow(params))
        return (new, new_state), (joined(updates).astype(float), wide)

    params = split(jnp.asarray(START))
    run = jax.jit(functools.partial(jax.lax.scan, compare))
    _, (thin, wide) = run((params, tx.init(params)), jnp.arange(STEPS, dtype=jnp.int32))
    # Roundings of 2^-24 of the update's terms, which are as large as the leaf's largest update.
    largest = jax.tree.map(lambda x: jnp.full_like(x, jnp.abs(x).max()), jax.vmap(split)(wide))
    bound = roundings * 2.0**-24 * jax.vmap(joined)(largest)
    assert (np.abs(thin - wide) <= bound).all(), f"{(np.abs(thin - wide) / bound).max()} of it"


def one_weight(tx, gradients, *, dtype=jnp.float64):
    """The positions of one weight from 0 under given gradients, and the last state."""

    def step(carry, g):
        w, state = carry
        updates, state = tx.update(g, state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    w, gradients = jnp.zeros((), dtype), jnp.asarray(gradients, dtype)
    (_, state), positions = jax.jit(functools.partial(jax.lax.scan, step))(
        (w, tx.init(w)), gradients
    )
    return positions.tolist(), state
