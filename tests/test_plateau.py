"""reduce_on_plateau against torch, NumPy and where torch is wrong."""

import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest

from jaxtrain import optim
from jaxtrain.errors import ConfigError, StateError

TORCH = np.load(pathlib.Path(__file__).parent / "vectors" / "torch_plateau.npz")
NAMES, CASES = list(TORCH["names"]), [json.loads(case) for case in TORCH["cases"]]


@functools.partial(jax.jit, static_argnames=("mode", "threshold_mode"))
def run(values, numbers, *, mode, threshold_mode):
    """The scale after each value, (cases, streams, values)."""

    def one(values, numbers):
        tx = optim.reduce_on_plateau(
            mode=mode, threshold_mode=threshold_mode, factor=0.5, min_scale=0.01, **numbers
        )

        def epoch(state, value):
            state = optim.report(state, value)
            return state, state.learning_rate_scale

        return jax.lax.scan(epoch, tx.init(jnp.zeros(())), values)[1]

    return jax.vmap(lambda numbers: jax.vmap(lambda v: one(v, numbers))(values))(numbers)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("kind", ["rel", "torch_rel", "abs"])
def test_equals_torch_and_numpy(x64, mode, kind):
    is_case = [
        c["mode"] == mode and c["threshold_mode"] == kind.removeprefix("torch_") for c in CASES
    ]
    cases = [case for case, yes in zip(CASES, is_case, strict=True) if yes]
    numbers = {n: np.array([c[n] for c in cases]) for n in ("threshold", "cooldown", "patience")}
    found = run(TORCH["values"], numbers, mode=mode, threshold_mode=kind)
    theirs = TORCH["scales"][is_case]
    for i, case in enumerate(cases):
        options = {**case, "threshold_mode": kind, "factor": 0.5, "min_scale": 0.01}
        for j, values in enumerate(TORCH["values"]):
            np.testing.assert_array_equal(found[i, j], oracles.plateau(values, **options))
            if kind != "rel" or (values[np.isfinite(values)] > 0).all():
                np.testing.assert_array_equal(found[i, j], theirs[i, j], NAMES[j])
    assert (theirs[:, :, -1] < 1).any() and (theirs[:, :, -1] == 1).any()


def test_equals_optax(x64):
    """Its patience is one more than ours, its count stands at updates."""
    theirs = optax.contrib.reduce_on_plateau(
        factor=0.5, patience=3, rtol=0.1, cooldown=2, min_scale=0.01
    )

    def update(state, value):
        _, state = theirs.update(jnp.zeros(()), state, value=value)
        return state, state.scale

    with jax.numpy_dtype_promotion("standard"):
        first = theirs.init(jnp.zeros(()))
        expected = jax.vmap(lambda v: jax.lax.scan(update, first, v)[1])(TORCH["values"])
    numbers = {n: np.array([v]) for n, v in (("threshold", 0.1), ("cooldown", 2), ("patience", 2))}
    found = run(TORCH["values"], numbers, mode="min", threshold_mode="torch_rel")[0]
    np.testing.assert_array_equal(found, expected)


report = jax.jit(optim.report)


def scales(values, **options):
    state, seen = optim.reduce_on_plateau(**options).init(jnp.zeros(())), []
    for value in values:
        state = report(state, value)
        seen.append(round(float(state.learning_rate_scale), 6))
    return seen


@pytest.mark.fast
def test_counts_as_torch_does():
    assert scales([1.0] * 6, patience=2) == [1, 1, 1, 0.1, 0.1, 0.1]
    assert scales([1.0] * 4, patience=0, factor=0.5) == [1, 0.5, 0.25, 0.125]
    # The report of the cut starts the cooldown; two more are not counted.
    assert scales([1.0] * 6, patience=0, cooldown=2, factor=0.5) == [1, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert scales([1.0] * 4, patience=0, min_scale=0.4, factor=0.5) == [1, 0.5, 0.4, 0.4]
    assert scales([1.0, 0.95, 0.85], patience=0, threshold=0.1) == [1, 0.1, 0.1]
    assert scales([1.0, 2.0, 1.5], patience=0, mode="max") == [1, 1, 0.1]


@pytest.mark.fast
def test_a_worse_negative_value_is_no_improvement():
    worse = [-1.0, -0.9999, -0.9998]
    assert scales(worse, patience=0, threshold=0.1) == [1, 0.1, 0.01]
    assert scales(worse, patience=0, threshold=0.1, threshold_mode="torch_rel") == [1, 1, 1]
    assert scales([-1.0, -1.05, -1.2], patience=0, threshold=0.1) == [1, 0.1, 0.1]


@pytest.mark.fast
def test_nan_and_infinity_are_no_improvement_and_never_best():
    state = optim.reduce_on_plateau(patience=2).init(jnp.zeros(()))
    for value in (math.nan, -math.inf, 0.5, math.nan, math.inf, -math.inf):
        state = optim.report(state, value)
    assert state.best == 0.5 and round(float(state.learning_rate_scale), 6) == 0.1
    state = optim.report(optim.reduce_on_plateau(mode="max").init(jnp.zeros(())), math.inf)
    assert optim.report(state, -5.0).best == -5


def test_in_a_loop():
    """Updates and the rate read are scaled; report finds the state anywhere and is jit-able."""
    tx = optax.chain(optim.adam(0.5), optim.reduce_on_plateau(patience=0, factor=0.25))
    wrapped = optim.guard(optim.accumulate(optim.freeze(tx, "frozen"), 1))
    params = {"kernel": jnp.ones(2), "frozen": jnp.ones(1)}
    update = jax.jit(wrapped.update)
    plain, state = tx.init(params["kernel"]), wrapped.init(params)
    for k, value in enumerate((1.0, 1.0, 1.0)):
        before = state
        plain, state = report(plain, value), report(state, value)
        scale = 0.25**k
        assert optim.learning_rate(state) == 0.5 * scale
        adam = optax.tree.get(state, "AdamState")
        assert jax.tree.leaves(adam)
        jax.tree.map(np.testing.assert_array_equal, adam, optax.tree.get(before, "AdamState"))
        updates, plain = tx.update(params["kernel"], plain)
        # Adam's first steps on a constant gradient are the rate, to a few roundings.
        np.testing.assert_allclose(updates, -0.5 * scale, rtol=1e-6)
        updates, state = update(params, state, params)
        np.testing.assert_allclose(updates["kernel"], -0.5 * scale, rtol=1e-6)
        assert updates["frozen"] == 0
    assert jax.tree.structure(state) == jax.tree.structure(before)
    with pytest.raises(StateError, match="opt_state must be a state with a reduce_on_plateau"):
        optim.report(optim.sgd(0.1).init(params), 1.0)


@pytest.mark.fast
def test_a_resumed_run_takes_the_options_of_its_call():
    state = optim.reduce_on_plateau(patience=5).init(jnp.zeros(()))
    tx = optim.reduce_on_plateau(patience=0)
    _, state = tx.update(jnp.zeros(()), state)
    for value in (1.0, 1.0):
        state = optim.report(state, value)
    assert state.learning_rate_scale < 1


@pytest.mark.fast
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"mode": "mim"}, "mode must be one of .* did you mean 'min'"),
        ({"threshold_mode": "relative"}, "threshold_mode must be one of"),
        ({"factor": 1.0}, "factor must be a number in \\[0, 1\\)"),
        ({"patience": -1}, "patience must be an int >= 0"),
        ({"cooldown": -1}, "cooldown must be an int >= 0"),
        ({"threshold": 1.0}, "threshold must be a number in"),
        ({"threshold": -1.0, "threshold_mode": "abs"}, "threshold must be a finite number >= 0"),
        ({"min_scale": 1.0}, "min_scale must be"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ConfigError, match=f"reduce_on_plateau: {message}"):
        optim.reduce_on_plateau(**arguments)
