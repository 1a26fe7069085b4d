"""Newton, BFGS, L-BFGS and their line search against NumPy, SciPy, optax, torch and the papers."""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from catalogue import FULL_BATCH
from trajectories import START, joined, split

from jaxtrain import optim, schedules
from jaxtrain.errors import ConfigError

each_method = pytest.mark.parametrize("make", FULL_BATCH.values(), ids=FULL_BATCH)


def history(n=25, dimensions=9):
    """Params and gradients of a quadratic, some of them with the sign of a concave one."""
    r = np.random.default_rng(0)
    root = r.normal(size=(dimensions, dimensions))
    params = START + r.normal(size=(n, dimensions))
    gradients = params @ (root @ root.T / dimensions + 0.3 * np.eye(dimensions))
    gradients[::6] *= -1
    return params, gradients


DIRECTIONS = {
    "bfgs": (optim.scale_by_bfgs, oracles.bfgs, {}),
    "bfgs, scaled": (optim.scale_by_bfgs, oracles.bfgs, {"scale_initial": True}),
    "lbfgs": (optim.scale_by_lbfgs, oracles.lbfgs, {}),
    "lbfgs, memory 3": (optim.scale_by_lbfgs, oracles.lbfgs, {"memory": 3}),
    "lbfgs, memory 1": (optim.scale_by_lbfgs, oracles.lbfgs, {"memory": 1}),
    "lbfgs, not scaled": (optim.scale_by_lbfgs, oracles.lbfgs, {"scale_initial": False}),
}


def directions(tx, params, gradients):
    """The updates along a given history, and the last state."""

    def step(state, row):
        w, g = map(split, row)
        updates, state = tx.update(g, state, w)
        return state, joined(updates)

    rows = jnp.asarray(params), jnp.asarray(gradients)
    return jax.jit(lambda rows: jax.lax.scan(step, tx.init(split(rows[0][0])), rows))(rows)


@pytest.mark.parametrize("make, oracle, options", DIRECTIONS.values(), ids=DIRECTIONS)
def test_directions_equal_numpy(x64, make, oracle, options):
    """Before the first pair, with a part of the memory, wrapped round, and with pairs skipped."""
    params, gradients = history()
    state, found = directions(make(**options), params, gradients)
    kept = len(oracles.pairs(params, gradients))
    assert int(state.pairs) == kept and 10 < kept < 24
    for k, direction in enumerate(np.asarray(found)):
        true = oracle(params[: k + 1], gradients[: k + 1], **options)
        np.testing.assert_allclose(direction, true, rtol=0, atol=1e-10 * np.abs(true).max())


def test_directions_in_float32():
    """Two pairs and three products for a direction, on a quadratic of condition 4.

    Each inner product of 9 terms is off by at most 9 roundings of 2^-24 of the product of its
    lengths, which the curvatures 0.5 to 2 make up to 4 times as large as itself; a direction
    is a sum of as many of them as there are pairs twice over.
    """
    r = np.random.default_rng(1)
    params = r.normal(size=(12, 9))
    gradients = params * np.linspace(0.5, 2, 9)
    thin, thick = params.astype(np.float32), gradients.astype(np.float32)
    for make, oracle in (
        (optim.scale_by_bfgs, oracles.bfgs),
        (optim.scale_by_lbfgs, oracles.lbfgs),
    ):
        _, found = directions(make(), thin, thick)
        true = oracle(thin.astype(float), thick.astype(float))
        bound = 9 * 4 * 2 * 10 * 2.0**-24 * np.linalg.norm(true)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found[-1], true, rtol=0, atol=bound)


CURVATURE = np.array([1.0, 3.0, 10.0])
CONVEX_START = np.array([1.0, -0.5, 0.25])


def without_search(tx, steps=20):
    """All iterates on the sum of CURVATURE * cosh(w)."""

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(jnp.asarray(CURVATURE) * jnp.sinh(w), state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), w

    w = jnp.asarray(CONVEX_START)
    return np.asarray(jax.lax.scan(step, (w, tx.init(w)), length=steps)[1])


# Twenty steps towards the minimum at 0; a product with a history of condition 10 to 100 has about
# 100 roundings of 1e-16 times that.
PATHS = {"rtol": 0, "atol": 1e-12}


@pytest.mark.parametrize("scale", [True, False])
def test_equals_optax(x64, scale):
    ours = optim.lbfgs(0.5, memory=3, scale_initial=scale, line_search=None)
    with jax.numpy_dtype_promotion("standard"):
        theirs = without_search(optax.lbfgs(0.5, 3, scale_init_precond=scale, linesearch=None))
    np.testing.assert_allclose(without_search(ours), theirs, **PATHS)


def test_equals_torch(x64):
    vectors = np.load(pathlib.Path(__file__).parent / "vectors" / "torch_lbfgs.npz")
    g = CURVATURE * np.sinh(CONVEX_START)
    # torch's first step is at most 1 long in the sum of magnitudes.
    first = min(1, 1 / np.abs(g).sum()) / min(1, 1 / np.linalg.norm(g))
    rate = schedules.join([0.5 * first, 0.5], [1])
    # From update 18 on torch drops pairs: it takes s'y <= 1e-10 for no curvature.
    ours = without_search(optim.lbfgs(rate, memory=3, line_search=None), steps=18)
    np.testing.assert_allclose(ours, vectors["path"][:18], **PATHS)
    found = optim.minimize(rosenbrock, np.full(6, -0.5), optim.lbfgs(), progress=False)
    # Both stop where the gradient is below 1e-5, the curvature there being at least 0.1.
    np.testing.assert_allclose(found.params, vectors["rosenbrock"], rtol=0, atol=1e-4)


# Newton.

H = np.diag([1.0, 5.0, -0.1]) + 0.3
B = np.array([1.0, -2.0, 0.5])


def quadratic(w, hessian=H):
    return w @ jnp.asarray(hessian) @ w / 2 - jnp.asarray(B) @ w


def one_step(tx, f, w):
    """The params after one update, and the state."""

    @jax.jit
    def run(w):
        value, grad = jax.value_and_grad(f)(w)
        updates, state = tx.update(grad, tx.init(w), w, value=value, grad=grad, value_fn=f)
        return optax.apply_updates(w, updates), state

    w, state = run(jnp.asarray(w))
    return np.asarray(w), state


@pytest.mark.parametrize("damping", [0.0, 0.5])
@pytest.mark.parametrize("saddle_free", [False, True])
def test_newton_equals_numpy(x64, damping, saddle_free):
    w = np.array([0.3, -1.0, 2.0])
    found, _ = one_step(optim.newton(0.7, damping=damping, saddle_free=saddle_free), quadratic, w)
    direction = oracles.newton(H, H @ w - B, damping, saddle_free)
    np.testing.assert_allclose(found, w - 0.7 * direction, rtol=0, atol=1e-10)


@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
def test_newton_takes_one_step_on_a_quadratic(x64, line_search):
    convex = H + np.eye(3)
    for tx in (optim.newton(line_search=line_search), optim.newton(saddle_free=True)):
        found, _ = one_step(tx, lambda w: quadratic(w, convex), [3.0, -2.0, 1.0])
        np.testing.assert_allclose(found, np.linalg.solve(convex, B), rtol=0, atol=1e-10)


def saddle(w):
    return w[0] ** 2 - w[1] ** 2 / 2


def test_newton_at_a_saddle(x64):
    """Pure Newton lands on it, as it would on a maximum; its cures go down instead."""
    w = [1.0, 0.5]
    found, _ = one_step(optim.newton(), saddle, w)
    np.testing.assert_allclose(found, 0, atol=1e-10)
    for cure in (optim.newton(damping=2.0), optim.newton(saddle_free=True)):
        found, _ = one_step(cure, saddle, w)
        assert saddle(found) < saddle(np.array(w)) and abs(found[1]) > 0.5


def test_newton_turns_an_uphill_direction_round(x64):
    """Below the saddle Newton's direction leads up to it."""
    w = [0.1, 1.0]
    found, _ = one_step(optim.newton(line_search="strong_wolfe"), saddle, w)
    assert saddle(found) < saddle(np.array(w)) and abs(found[1]) > 1


def test_newton_on_a_singular_hessian(x64):
    """No step where there is no curvature, and a finite one along the rest."""

    def trough(w):
        return (w[0] + w[1] - 1) ** 2 + 0.1 * w[2]

    for tx in (optim.newton(), optim.newton(saddle_free=True)):
        found, _ = one_step(tx, trough, [0.0, 0.0, 0.0])
        np.testing.assert_allclose(found, [0.5, 0.5, 0.0], rtol=0, atol=1e-10)


# The line search.


def forms(b1, b2):
    c1, c2 = (math.sqrt(1 + b * b) - b for b in (b1, b2))
    return lambda a: c1 * jnp.sqrt((1 - a) ** 2 + b2 * b2) + c2 * jnp.sqrt(a * a + b1 * b1)


def wavy(a, b=0.01, length=39):
    wave = 2 * (1 - b) / (length * jnp.pi) * jnp.sin(length * jnp.pi / 2 * a)
    return wave + jnp.where(jnp.abs(a - 1) < b, (a - 1) ** 2 / (2 * b) + b / 2, jnp.abs(a - 1))


# Moré and Thuente 1994, tables 1 to 6: function, c1, c2, then for the first trials 1e-3, 0.1, 10
# and 1000 the evaluations and the step found.
TABLES = [
    (lambda a: -a / (a * a + 2), 1e-3, 0.1, (6, 3, 1, 4), (1.4, 1.4, 10, 37)),
    (lambda a: (a + 4e-3) ** 5 - 2 * (a + 4e-3) ** 4, 0.1, 0.1, (12, 8, 8, 11), (1.6,) * 4),
    (wavy, 0.1, 0.1, (12, 12, 10, 13), (1.0,) * 4),
    (forms(1e-3, 1e-3), 1e-3, 1e-3, (4, 1, 3, 4), (0.085, 0.10, 0.35, 0.83)),
    (forms(1e-2, 1e-3), 1e-3, 1e-3, (6, 3, 7, 8), (0.075, 0.078, 0.073, 0.076)),
    (forms(1e-3, 1e-2), 1e-3, 1e-3, (13, 11, 8, 11), (0.93, 0.93, 0.92, 0.92)),
    # Where much decrease is asked for, the first stage matters; these are of SciPy's `DCSRCH`.
    (lambda a: -a / (a * a + 2), 0.5, 0.5, (6, 5, 3, 6), (1.365, 1.1756, 0.7017, 0.9935)),
    (forms(1e-2, 1e-3), 0.3, 0.3, (3, 2, 5, 7), (0.0210, 0.0244, 0.0139, 0.0126)),
]


@pytest.mark.parametrize("f, c1, c2, evaluations, steps", TABLES, ids=range(1, 9))
def test_line_search_equals_the_tables_of_its_paper(x64, f, c1, c2, evaluations, steps):
    value, slope = jax.value_and_grad(f)(0.0)

    def search(first):
        tx = optax.chain(optim.scale_by_learning_rate(first), optim.strong_wolfe(c1=c1, c2=c2))
        w = jnp.zeros(())
        step, state = tx.update(-1.0, tx.init(w), w, value=value, grad=slope, value_fn=f)
        return step, state[-1]

    a, state = jax.jit(jax.vmap(search))(jnp.array([1e-3, 0.1, 10, 1000]))
    assert state.evaluations.tolist() == list(evaluations)
    np.testing.assert_allclose(a, steps, rtol=0.05 / 0.75)  # two digits are printed
    assert (state.value <= value + c1 * a * slope).all()
    assert (jnp.abs(state.grad) <= c2 * jnp.abs(slope)).all()
    np.testing.assert_allclose(state.value, jax.vmap(f)(a), rtol=1e-12)


def test_line_search_finds_the_optimal_step(x64):
    """On a quadratic g'g / g'Hg is exact, and the whole epsilon**2 belongs to the prediction."""
    hessian = jnp.array([[3.0, 1.0], [1.0, 2.0]])
    f = lambda w: w @ hessian @ w / 2  # noqa: E731
    tx = optax.chain(optim.sgd(1.0), optim.strong_wolfe(c2=1e-4))
    w, state = one_step(tx, f, [1.0, -2.0])
    g = np.array([1.0, -3.0])
    assert float(state[-1].step) == pytest.approx(2 / 3, rel=1e-12)
    assert g @ g / (g @ hessian @ g) == pytest.approx(2 / 3, rel=1e-12)
    assert float(f(jnp.asarray(w))) == pytest.approx(0.1667, abs=5e-5)


@pytest.mark.fast
def test_line_search_steps_back_from_what_is_not_finite():
    f = lambda w: (w - 3 * jnp.log(1 - w)).sum()  # noqa: E731, nan beyond 1, a minimum at -2
    tx = optax.chain(optim.scale_by_learning_rate(1.0), optim.strong_wolfe(c2=0.1))
    w = jnp.array([-6.0])
    value, grad = jax.value_and_grad(f)(w)
    updates, state = tx.update(100 * grad, tx.init(w), w, value=value, grad=grad, value_fn=f)
    assert float(updates[0]) != 0 and np.isfinite(state[-1].value) and state[-1].value < value


@pytest.mark.fast
def test_line_search_that_finds_nothing_lower_stays():
    w = jnp.ones(2)
    tx = optim.strong_wolfe(max_evaluations=5)
    wrong = dict(value=1.0, grad=jnp.ones(2), value_fn=lambda w: 2 - w.sum() / 2)
    updates, state = tx.update(-jnp.ones(2), tx.init(w), w, **wrong)
    assert not updates.any() and float(state.value) == 1 and int(state.evaluations) <= 5
    np.testing.assert_array_equal(state.grad, 1.0)


# Against SciPy.


def rosenbrock(w):
    return (100 * (w[1:] - w[:-1] ** 2) ** 2 + (1 - w[:-1]) ** 2).sum()


def logistic():
    """A standardized logistic regression with lambda = 1e-2."""
    r = np.random.default_rng(0)
    x = r.normal(size=(200, 20))
    x = (x - x.mean(0)) / x.std(0)
    labels = np.sign(x @ r.normal(size=20) + r.normal(size=200))
    margins = jnp.asarray(labels[:, None] * x)
    return lambda w: jnp.logaddexp(0.0, -(margins @ w)).mean() + 1e-2 * (w @ w)


# From all of these SciPy's methods, too, reach Rosenbrock's global minimum; there is a local one.
STARTS = np.random.default_rng(2).normal(size=(5, 20))


def evaluations(f, lowest, starts, tx):
    """How many value-and-gradients it takes until f - lowest < 1e-10, counted where they happen."""
    calls = []

    @jax.custom_vjp
    def counted(w):
        return f(w)

    def forward(w):
        jax.debug.callback(calls.append, w[0])
        return f(w), w

    counted.defvjp(forward, lambda w, cotangent: (cotangent * jax.grad(f)(w),))

    @jax.jit
    def run(w):
        def step(carry):
            w, state = carry
            value, grad = optax.value_and_grad_from_state(counted)(w, state=state)
            updates, state = tx.update(grad, state, w, value=value, grad=grad, value_fn=counted)
            return optax.apply_updates(w, updates), state

        def far(carry):
            count, search = carry[1][0].count, carry[1][-1]
            return ~(search.value - lowest < 1e-10) & (count < 200)

        return jax.lax.while_loop(far, step, (w, tx.init(w)))[1][-1]

    reported = 0
    for start in starts:
        search = jax.block_until_ready(run(jnp.asarray(start)))
        reported += 1 + int(search.evaluations)
        assert float(search.value) - lowest < 1e-10
    jax.effects_barrier()
    assert len(calls) == reported
    return reported


@pytest.mark.parametrize("problem", ["rosenbrock", "logistic"])
@pytest.mark.parametrize("method", ["L-BFGS-B", "BFGS"])
def test_no_more_evaluations_than_scipy(x64, problem, method):
    scipy = pytest.importorskip("scipy.optimize")
    f, starts = (rosenbrock, STARTS[:, :6]) if problem == "rosenbrock" else (logistic(), STARTS)
    value_and_grad = jax.jit(jax.value_and_grad(f))
    tx = optim.lbfgs(memory=10) if method == "L-BFGS-B" else optim.bfgs()
    options = {"gtol": 1e-12, "maxiter": 1000}
    options |= {"ftol": 0, "maxcor": 10} if method == "L-BFGS-B" else {}
    logs = []
    for start in starts:
        values = []

        def fun(w, values=values):
            value, grad = value_and_grad(w)
            values.append(float(value))
            return values[-1], np.asarray(grad)

        scipy.minimize(fun, start, jac=True, method=method, options=options)
        logs.append(np.array(values))
    lowest = min(log.min() for log in logs)
    theirs = sum(1 + int(np.argmax(log - lowest < 1e-10)) for log in logs)
    ours = evaluations(f, lowest, starts, tx)
    assert ours <= 1.1 * theirs, (ours, theirs)


# What holds for all of them.


def loss(params):
    """Convex, of a tree of any float types."""
    return sum(jnp.cosh(p.astype(jnp.float32) - 1).sum() for p in jax.tree.leaves(params))


def update(tx, params, state):
    value, grads = jax.value_and_grad(loss)(params)
    return tx.update(grads, state, params, value=value, grad=grads, value_fn=loss)


PARAMS = {"kernel": np.full((2, 3), 0.5, np.float32), "bias": np.zeros((), np.float32), "none": {}}


@pytest.mark.fast
@each_method
def test_the_state_is_the_same_for_every_kind_of_rate(make):
    seen = []

    def look(learning_rate):
        tx = make(learning_rate)
        state = tx.init(PARAMS)
        seen.append(jax.tree.map(jax.typeof, state))
        seen.append(jax.eval_shape(lambda s: update(tx, PARAMS, s)[1], state))

    look(0.1)
    look(schedules.cosine(0.1, steps=3))
    look(jnp.float32(0.1))
    jax.eval_shape(lambda lr: look(lr), 0.1)
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in seen]
    assert len(shapes) == 8 and all(tree == shapes[0] for tree in shapes)


@pytest.mark.fast
@each_method
def test_dtypes(make):
    params = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(2, jnp.float32), "c": jnp.ones((0, 2))}
    tx = make(0.1)
    updates, state = jax.eval_shape(lambda p: update(tx, p, tx.init(p)), params)
    assert jax.tree.map(lambda u: u.dtype, updates) == jax.tree.map(lambda p: p.dtype, params)
    kept = [x.dtype for x in jax.tree.leaves(state[0])]
    assert all(dtype in (jnp.float32, jnp.int32) for dtype in kept)


@each_method
def test_falls_under_jit_and_vmap(make):
    """Three steps lower the loss; starts and rates by the batch give what each gives alone."""

    def run(lr, start):
        tx = make(lr)

        def step(carry, _):
            params, state = carry
            updates, state = update(tx, params, state)
            return (optax.apply_updates(params, updates), state), loss(params)

        params = jax.tree.map(lambda p: p * start, PARAMS)
        (params, state), values = jax.lax.scan(step, (params, tx.init(params)), length=3)
        return params, values, optim.learning_rate(state)

    rates, starts = jnp.array([0.3, 0.2]), jnp.array([1.0, -0.5])
    params, values, shown = jax.jit(jax.vmap(run))(rates, starts)
    alone, _, _ = jax.jit(run)(rates[1], starts[1])
    assert (jnp.diff(values) < 0).all() and shown.tolist() == rates.tolist()
    for batch, one in zip(jax.tree.leaves(params), jax.tree.leaves(alone), strict=True):
        # Other sums inside the batch, of terms of size 1, through three steps.
        np.testing.assert_allclose(batch[1], one, rtol=0, atol=1e-5)


@each_method
def test_a_zero_gradient_moves_nothing(make):
    params = jax.tree.map(np.ones_like, PARAMS)
    tx = make(0.5)
    step = jax.jit(lambda s: update(tx, params, s))
    state = tx.init(params)
    for _ in range(2):
        updates, state = step(state)
        assert not any(np.any(u) for u in jax.tree.leaves(updates))
    numbers = [x for x in jax.tree.leaves(state[0]) if x.dtype == jnp.float32]
    assert all(np.isfinite(x).all() for x in numbers)


@pytest.mark.fast
@pytest.mark.parametrize("make", [optim.scale_by_bfgs, optim.scale_by_lbfgs])
def test_counts_saturate(make):
    tx = make()
    update = jax.jit(tx.update)
    w = jnp.ones(3)
    last = jnp.int32(2**31 - 2)
    state = update(w, tx.init(w), w)[1]._replace(count=last, pairs=last)
    for _ in range(3):
        w = w * 0.5
        direction, state = update(w, state, w)
        assert int(state.count) == int(state.pairs) == 2**31 - 1
        assert np.isfinite(direction).all()


@pytest.mark.fast
def test_inject_hyperparams():
    def first_update(make):
        tx = make(0.25, line_search=None)
        return jax.jit(lambda: update(tx, PARAMS, tx.init(PARAMS))[0])()

    for make, static in ((optim.newton, ()), (optim.lbfgs, "memory"), (optim.bfgs, ())):
        injected = first_update(optax.inject_hyperparams(make, static_args=static))
        jax.tree.map(np.testing.assert_array_equal, injected, first_update(make))


def test_bfgs_stays_positive_definite_where_it_is_badly_scaled():
    """Brown's function, in float32: curvatures from 2 to 1e12."""

    def f(w):
        return (w[0] - 1e6) ** 2 + (w[1] - 2e-6) ** 2 + (w[0] * w[1] - 2) ** 2

    start = np.array([1.0, 1.5], np.float32)
    found = optim.minimize(f, start, optim.bfgs(), tolerance=0.1, progress=False)
    assert "<= tolerance" in found.reason and found.value < 1e-9


def test_no_params_at_all():
    for make in FULL_BATCH.values():
        updates, _ = make(1.0).update(
            {}, make(1.0).init({}), {}, value=jnp.float32(1), grad={}, value_fn=lambda w: 1.0
        )
        assert updates == {}


BAD = [
    (optim.lbfgs, {"memory": 0}, "scale_by_lbfgs: memory must be an int >= 1, got 0"),
    (optim.lbfgs, {"line_search": "wolfe"}, "lbfgs: line_search must be .*'strong_wolfe'"),
    (optim.lbfgs, {"learning_rate": -1.0}, "learning_rate must be"),
    (optim.bfgs, {"scale_initial": "no"}, "scale_by_bfgs: scale_initial must be one of"),
    (optim.bfgs, {"line_search": True}, "bfgs: line_search must be"),
    (optim.newton, {"damping": -1.0}, "scale_by_newton: damping must be a finite number >= 0"),
    (optim.newton, {"saddle_free": None}, "saddle_free must be"),
    (optim.strong_wolfe, {"c1": 1.0}, "c1 must be a number in"),
    (optim.strong_wolfe, {"c2": -0.1}, "c2 must be a number in"),
    (optim.strong_wolfe, {"c1": 0.5, "c2": 0.4}, "c1 must be at most c2 = 0.4, got 0.5"),
    (optim.strong_wolfe, {"first_trial": 1}, "first_trial must be one of"),
    (optim.strong_wolfe, {"max_evaluations": 0}, "max_evaluations must be an int >= 1"),
]


@pytest.mark.fast
@pytest.mark.parametrize("make, arguments, message", BAD)
def test_bad_arguments(make, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make(**arguments)


@pytest.mark.fast
def test_a_traced_memory_and_masked_params_are_refused():
    tx = optax.inject_hyperparams(optim.lbfgs)(memory=3)
    with pytest.raises(TypeError, match="static_args='memory' to optax.inject_hyperparams"):
        jax.jit(tx.init)(jnp.ones(2))
    w = {"a": jnp.ones(2), "b": jnp.ones(2)}
    for tx in (optim.freeze(optim.lbfgs(), "b"), optim.freeze(optim.newton(), "b")):
        with pytest.raises(ConfigError, match="got MaskedNode.*; freeze by train"):
            tx.update(
                w, tx.init(w), w, value=jnp.float32(2), grad=w, value_fn=lambda w: w["a"] @ w["b"]
            )


@pytest.mark.fast
def test_what_update_must_be_given():
    w = jnp.ones(2)
    for tx, given, missing in (
        (optim.lbfgs(), {}, "scale_by_lbfgs: params must be given to update, got None"),
        (optim.bfgs(), {}, "scale_by_bfgs: params"),
        (optim.lbfgs(), {"params": w}, "strong_wolfe: value must be given"),
        (optim.newton(), {"params": w}, "scale_by_newton: value_fn must be .* optim.minimize"),
    ):
        with pytest.raises(ConfigError, match=missing):
            tx.update(w, tx.init(w), **given)
