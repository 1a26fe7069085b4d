"""The optimizers inside training code written for flax linen, flax nnx, equinox and haiku."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain import optim, schedules, tree

STEPS = 60
X = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
Y = np.sin(X.sum(1, keepdims=True))


@pytest.fixture(autouse=True)
def standard_promotion():
    """These libraries mix types and ranks on their own account."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def optimizer():
    """Clipping, decay of kernels, a scheduled rate and an average: every kind of state."""
    rate = schedules.warmup(schedules.cosine(0.1, steps=STEPS - 5), steps=5)
    return optax.chain(
        optim.clip_by_global_norm(1.0), optim.adamw(rate, weight_decay=1e-3), optim.ema(0.9)
    )


def check(losses, params, opt_state):
    assert losses[-1] < 0.1 * losses[0]
    assert 0 < float(optim.learning_rate(opt_state)) < 0.01
    averaged = optim.eval_params(params, opt_state)
    assert jax.tree.structure(averaged) == jax.tree.structure(params)
    # Not the params, but near them: the rate has fallen to zero.
    far = tree.global_norm(jax.tree.map(jnp.subtract, averaged, params))
    assert 0 < float(far) < 0.1 * float(tree.global_norm(params))


def test_flax_linen():
    linen = pytest.importorskip("flax.linen")
    train_state = pytest.importorskip("flax.training.train_state")
    net = linen.Sequential([linen.Dense(16), jnp.tanh, linen.Dense(1)])
    variables = net.init(jax.random.key(0), X)
    ts = train_state.TrainState.create(
        apply_fn=net.apply, params=variables["params"], tx=optimizer()
    )

    @jax.jit
    def step(ts):
        def loss(params):
            return ((ts.apply_fn({"params": params}, X) - Y) ** 2).mean()

        value, grads = jax.value_and_grad(loss)(ts.params)
        return ts.apply_gradients(grads=grads), value

    seen = []
    for _ in range(STEPS):
        ts, value = step(ts)
        seen.append(float(value))
    check(seen, ts.params, ts.opt_state)


def test_flax_nnx():
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0)
    net = nnx.Sequential(nnx.Linear(3, 16, rngs=rngs), jnp.tanh, nnx.Linear(16, 1, rngs=rngs))
    opt = nnx.Optimizer(net, optimizer(), wrt=nnx.Param)

    @nnx.jit
    def step(net, opt):
        value, grads = nnx.value_and_grad(lambda net: ((net(X) - Y) ** 2).mean())(net)
        opt.update(net, grads)
        return value

    seen = [float(step(net, opt)) for _ in range(STEPS)]
    pure = getattr(nnx, "as_pure", None) or nnx.pure  # the name before flax 0.12
    check(seen, pure(nnx.state(net, nnx.Param)), pure(opt.opt_state))


def test_equinox():
    eqx = pytest.importorskip("equinox")
    net = eqx.nn.MLP(3, 1, 16, 1, activation=jnp.tanh, key=jax.random.key(0))
    tx = optimizer()
    opt_state = tx.init(eqx.filter(net, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(net, opt_state):
        def loss(net):
            return ((jax.vmap(net)(X) - Y) ** 2).mean()

        value, grads = eqx.filter_value_and_grad(loss)(net)
        params = eqx.filter(net, eqx.is_inexact_array)
        updates, opt_state = tx.update(grads, opt_state, params)
        return eqx.apply_updates(net, updates), opt_state, value

    seen = []
    for _ in range(STEPS):
        net, opt_state, value = step(net, opt_state)
        seen.append(float(value))
    check(seen, eqx.filter(net, eqx.is_inexact_array), opt_state)


def test_haiku():
    haiku = pytest.importorskip("haiku")
    net = haiku.without_apply_rng(
        haiku.transform(lambda x: haiku.nets.MLP([16, 1], activation=jnp.tanh)(x))
    )
    params, tx = net.init(jax.random.key(0), X), optimizer()
    opt_state = tx.init(params)

    @jax.jit
    def step(params, opt_state):
        def loss(params):
            return ((net.apply(params, X) - Y) ** 2).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    seen = []
    for _ in range(STEPS):
        params, opt_state, value = step(params, opt_state)
        seen.append(float(value))
    check(seen, params, opt_state)
