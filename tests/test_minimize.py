"""The one-call driver: when it stops, what it says, and what it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain import optim, schedules
from jaxtrain.errors import ConfigError

CURVATURE = jnp.array([1.0, 10.0])


def bowl(params):
    return (CURVATURE * (params["w"] - 3) ** 2).sum() + 1


START = {"w": np.zeros(2, np.float32)}


def run(tx, fun=bowl, start=START, **options):
    return optim.minimize(fun, start, tx, progress=False, **options)


@pytest.mark.parametrize(
    "tx",
    [
        optim.sgd(0.05),
        optim.momentum(0.02, nesterov="lookahead"),
        optim.momentum(0.02, nesterov="shifted"),
        optim.adam(0.3),
        optim.newton(),
        optim.bfgs(),
        optim.lbfgs(),
        optax.adam(0.3),
        optax.lbfgs(),
    ],
    ids=["sgd", "lookahead", "shifted", "adam", "newton", "bfgs", "lbfgs", "optax", "optax lbfgs"],
)
def test_minimizes_with_any_optimizer(tx):
    with jax.numpy_dtype_promotion("standard"):  # for optax
        found = run(tx, tolerance=1e-3)
    assert "gradient norm" in found.reason and "<= tolerance 0.001" in found.reason
    assert found.reason.endswith("not at `params`") == (found.grad_norm > 1e-3)
    # A gradient of 1e-3 is 1e-3 / 2 from the minimum; where it is taken at a point ahead, params
    # lag behind that by 0.9 of the last step, which is up to 0.02 / (1 - 0.9) * 2 of the distance.
    np.testing.assert_allclose(found.params["w"], 3, atol=5e-3)
    assert found.value == pytest.approx(float(bowl(found.params)), rel=1e-6)
    assert all(len(column) == found.steps + 1 for column in found.history.values())
    assert found.history["value"][0] == pytest.approx(100, rel=1e-6)
    assert found.history["grad_norm"][-1] <= 1e-3 < found.history["grad_norm"][-2]


@pytest.mark.fast
def test_the_start_is_kept():
    start = {"w": jnp.zeros(2)}
    run(optim.sgd(0.05), start=start, steps=3)
    np.testing.assert_array_equal(start["w"], 0)


@pytest.mark.fast
def test_params_that_were_measured_are_those_returned():
    """Shifted momentum trains other params than it evaluates; the value is that of the latter."""
    found = run(optim.momentum(0.02, nesterov="shifted"), steps=5)
    assert found.steps == 5 and found.reason == "all 5 steps made"
    assert found.evaluations == 7
    assert found.value == pytest.approx(float(bowl(found.params)), rel=1e-6)
    assert found.value != pytest.approx(found.history["value"][-1], rel=1e-3)
    norm = np.linalg.norm(jax.grad(bowl)(found.params)["w"])
    assert found.grad_norm == pytest.approx(norm, rel=1e-6)


@pytest.mark.parametrize(
    "tx", [optim.lbfgs(), optim.adam(0.1), optax.lbfgs()], ids=["lbfgs", "adam", "optax"]
)
def test_counts_every_evaluation(tx):
    calls = []

    @jax.custom_vjp
    def counted(params):
        return bowl(params)

    def forward(params):
        jax.debug.callback(lambda w: calls.append(w), params["w"])
        return bowl(params), params

    counted.defvjp(forward, lambda params, cotangent: (jax.grad(bowl)(params),))
    found = run(tx, counted, steps=20)
    jax.effects_barrier()
    assert found.evaluations == len(calls)


@pytest.mark.fast
def test_stops_when_the_value_stays():
    found = run(optim.sgd(0.01), tolerance=0, value_tolerance=1e-3)
    assert (
        found.reason.startswith("value changed by") and "<= value_tolerance 0.001" in found.reason
    )
    changes = np.abs(np.diff(found.history["value"]))
    assert changes[-1] <= 1e-3 < changes[-2]


@pytest.mark.fast
def test_a_start_without_slope_is_the_end():
    found = run(optim.lbfgs(), start={"w": jnp.full(2, 3.0)})
    assert (found.steps, found.evaluations, found.value) == (0, 1, 1)
    assert found.reason == "gradient norm 0 <= tolerance 1e-05"


def test_what_is_not_finite_is_not_taken():
    """The barrier is infinite beyond 1; the params before it, and their value, come back."""

    def barrier(w):
        return -jnp.log(1 - w) - 3 * w

    found = run(optim.sgd(schedules.join([0.1, 5.0], [2])), barrier, jnp.float32(0))
    assert found.reason == "not finite at step 3; params are those before it"
    assert np.isfinite(found.value) and found.value == pytest.approx(float(barrier(found.params)))
    assert found.steps == 2 and len(found.history["value"]) == 3
    assert np.isfinite(found.history["value"]).all()
    assert run(optim.sgd(0.2), barrier, jnp.float32(2)).reason == "not finite at the start"
    # A line search keeps out of there.
    found = run(optim.lbfgs(), barrier, jnp.float32(0), tolerance=1e-3)
    assert float(found.params) == pytest.approx(2 / 3, abs=1e-3)


@pytest.mark.fast
def test_says_when_the_line_search_finds_nothing():
    """In float32 a bowl on a pedestal has no lower value long before its slope is zero."""
    found = run(optim.lbfgs(), lambda p: bowl(p) + 1e6, tolerance=0)
    assert found.reason == "line search found no lower value"
    assert found.steps < 50


def test_many_steps_per_dispatch_are_the_same_steps():
    """The 1500 steps go out in ever larger groups, in one program."""
    found = run(optim.sgd(1e-4), steps=1500, tolerance=0)
    w, values = np.zeros(2), []
    for _ in range(1501):
        values.append(float(np.asarray(CURVATURE) @ (w - 3) ** 2 + 1))
        w = w - 1e-4 * 2 * np.asarray(CURVATURE) * (w - 3)
    # 1500 roundings of 2^-24 in w, doubled in its square.
    np.testing.assert_allclose(found.history["value"], values, rtol=2 * 1500 * 2.0**-24)


def test_compiles_one_program_for_all_its_steps(caplog):
    with jax.log_compiles(), caplog.at_level("WARNING"):
        run(optim.adam(1e-3), steps=40, tolerance=0)
    compiled = [r.message for r in caplog.records if r.message.startswith("Compiling jit(advance)")]
    assert len(compiled) == 1


def test_shows_progress(capsys):
    optim.minimize(bowl, START, optim.sgd(0.05), steps=20)
    shown = capsys.readouterr().out
    assert "step" in shown and "value" in shown and "gradient" in shown
    optim.minimize(bowl, START, optim.sgd(0.05), steps=20, progress=False)
    assert capsys.readouterr().out == ""


@pytest.mark.fast
@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": 0}, "minimize: steps must be an int >= 1, got 0"),
        ({"tolerance": -1.0}, "minimize: tolerance must be a finite number >= 0"),
        ({"value_tolerance": float("nan")}, "minimize: value_tolerance must be"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ConfigError, match=message):
        run(optim.sgd(0.1), **options)
