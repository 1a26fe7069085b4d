"""The experiments on optimization theory: their verdicts, the lectures' numbers, planted errors."""

import jax.numpy as jnp
import numpy as np
import pytest
from smoke import module, smoke

from jaxtrain import optim

VERDICTS = {
    "condition_number": ["true", "true", "true", "true"],
    "convergence_rates": ["true", "true", "false"],
    "deep_linear_chain": ["depends", "true"],
    "depth_and_gradients": ["true", "true"],
    "finite_differences": ["true", "false", "false", "depends"],
    "momentum_forms": ["true", "depends", "false", "true"],
    "nesterov_lookahead": ["depends", "false", "true"],
    "noise_floor": ["true", "false", "depends", "true", "true"],
    "optimal_step": ["true", "false", "false", "depends"],
    "saddle_points": ["true", "true", "true", "depends", "true", "depends", "false", "true"],
}


def verdicts(result):
    return list(result.claims.values())


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts_in_smoke_size(name):
    assert verdicts(smoke(name)) == VERDICTS[name]


# As the lectures print them, to their last digit.
NUMBERS = [
    ("optimal_step", "example: eps*", 0.6667),
    ("optimal_step", "example: J(w - eps* g)", 0.1667),
    ("optimal_step", "example: printed model at eps*", 4.3333),
    ("optimal_step", "example: J(w)", 3.5),
    ("optimal_step", "example: J(w - g'g g)", 653.5),
    ("deep_linear_chain", "change of y, 8 layers of 0.5", 2.14),
    ("deep_linear_chain", "change of y, 8 layers of 1", -0.0957),
    ("deep_linear_chain", "change of y, 8 layers of 1.5", -0.0998),
    ("condition_number", "gradient descent: steps, kappa = 10", 71),
    ("condition_number", "gradient descent: steps, kappa = 100", 709),
    ("condition_number", "momentum: steps, kappa = 10", 27),
    ("condition_number", "momentum: steps, kappa = 100", 95),
    ("momentum_forms", "terminal speed, mu = 0.9", 10),
    ("momentum_forms", "example: accumulator after 4 steps", -0.3515),
    ("momentum_forms", "example: velocity after 4 steps", -0.6439),
    ("finite_differences", "central, eps = 0.1", 3.01),
    ("finite_differences", "central, eps = 0.01", 3.0001),
    ("finite_differences", "central, eps = 0.001", 3.000001),
    ("finite_differences", "forward, eps = 0.1", 3.31),
    ("finite_differences", "forward, eps = 0.01", 3.0301),
    ("finite_differences", "forward, eps = 0.001", 3.003001),
]


@pytest.mark.parametrize("name, what, value", NUMBERS)
def test_the_lectures_numbers(name, what, value):
    digits = len(str(value).partition(".")[2])
    assert round(smoke(name).numbers[what], digits) == value


@pytest.mark.parametrize(
    "kind, scale, activation, gradient",
    [("scaled identity", 0.9, 2.656e-5, 2.951e-5), ("scaled identity", 1.5, 4.066e17, 2.710e17)],
)
def test_a_hundred_layers(kind, scale, activation, gradient):
    numbers = smoke("depth_and_gradients").numbers
    for what, value in (("activation after 100 layers", activation), ("gradient", gradient)):
        (found,) = (v for k, v in numbers.items() if f"{kind}, w = {scale}: {what}" in k)
        assert float(f"{found:.3e}") == value


@pytest.mark.fast
@pytest.mark.parametrize("method, steps", [("gradient descent", 7082), ("momentum", 321)])
def test_steps_at_a_condition_number_of_1000(x64, method, steps):
    distances = module("condition_number").distances(method, [1000.0], 8000)[0]
    assert (distances < 1e-6).argmax() == steps


def test_the_probability_of_a_minimum():
    samples = module("saddle_points").SIZES["smoke"].samples
    exact = 1 / 2, (2 - 2**0.5) / 4, (np.pi - 8**0.5) / (4 * np.pi)
    for n, p in enumerate(exact, 1):
        found = smoke("saddle_points").numbers[f"P(minimum), {n} dimensions"]
        # Four standard errors.
        assert found == pytest.approx(p, abs=4 * (p * (1 - p) / samples) ** 0.5)


def always(value):
    return lambda *_: value


# The experiment, what is planted in it as a function of the original, and the verdicts, by number
# of the claim, that this turns.
PLANTED = [
    ("optimal_step", "best_step", always(lambda gg, ghg: gg), {0: "false"}),
    (
        "optimal_step",
        "printed_model",
        always(lambda j, eps, gg, ghg: j - eps * gg + eps**2 * ghg / 2),
        {1: "true"},
    ),
    ("deep_linear_chain", "chain", always(jnp.sum), {0: "true"}),
    (
        "deep_linear_chain",
        "step",
        lambda step: lambda w: step(w) / 2,
        {0: "false", 1: "false"},
    ),
    (
        "condition_number",
        "optimizer",
        lambda best: lambda method, kappa: best("gradient descent", kappa),
        {1: "false"},
    ),
    (
        "condition_number",
        "optimizer",
        lambda best: lambda method, kappa: best("momentum", kappa),
        {0: "false"},
    ),
    ("condition_number", "curvature", always(lambda x: np.eye(2)), {2: "false", 3: "false"}),
    ("momentum_forms", "speed", lambda speed: lambda mu, n: speed(mu**2, n), {0: "false"}),
    (
        "momentum_forms",
        "FORMS",
        lambda forms: dict.fromkeys(forms, optim.momentum),
        {1: "true", 2: "true", 3: "false"},
    ),
    (
        "nesterov_lookahead",
        "printed",
        always(lambda rate: module("nesterov_lookahead").mean_form(rate)),
        {1: "true"},
    ),
    (
        "nesterov_lookahead",
        "mean_form",
        lambda mean_form: lambda rate: mean_form(100 * rate),
        {2: "false"},
    ),
    (
        "nesterov_lookahead",
        "form",
        lambda form: lambda changing, nesterov, **options: form(changing, **options),
        {0: "true"},
    ),
    (
        "saddle_points",
        "METHODS",
        lambda methods: methods | {"noisy gradients": methods["gradient descent"]},
        {2: "false"},
    ),
    (
        "saddle_points",
        "METHODS",
        lambda methods: methods | {"gradient descent": methods["noisy gradients"]},
        {1: "false"},
    ),
    (
        "saddle_points",
        "landscape",
        always(lambda w: (w**2).sum(-1) / 2),
        {2: "false", 3: "false", 7: "false"},
    ),
    (
        "saddle_points",
        "NEWTON",
        lambda newton: dict.fromkeys(newton, newton["saddle-free Newton"]),
        {4: "depends", 5: "true", 6: "true"},
    ),
    ("saddle_points", "minima", always(lambda n, samples: 1.0), {0: "false"}),
    ("convergence_rates", "convex_bound", always(lambda t: 1 / (8 * t)), {1: "false"}),
    (
        "convergence_rates",
        "quadratic",
        always(lambda kappa: lambda w: (w**4).sum() / 12),
        {0: "false"},
    ),
    ("convergence_rates", "huber", always(lambda delta: lambda w: 0 * w.sum()), {2: "true"}),
    (
        "finite_differences",
        "DIFFERENCES",
        lambda differences: differences | {"central": differences["forward"]},
        {0: "false"},
    ),
    (
        "finite_differences",
        "printed",
        lambda printed: module("finite_differences").DIFFERENCES["central"],
        {2: "true"},
    ),
    ("finite_differences", "tanh", always(lambda bug: jnp.tanh), {3: "false"}),
    (
        "depth_and_gradients",
        "matrices",
        lambda matrices: lambda *args: 1.2 * matrices(*args),
        {0: "false", 1: "false"},
    ),
    ("noise_floor", "floor", always(lambda rate: rate), {0: "false"}),
    (
        "noise_floor",
        "squares",
        always(lambda tx, config: np.full(config.steps + 1, 0.1 / 1.9)),
        {0: "depends", 1: "true", 3: "false"},
    ),
    ("noise_floor", "variance_ratio", always(lambda beta, config: 1 - beta), {4: "false"}),
]


@pytest.mark.nightly
@pytest.mark.parametrize("name, what, plant, turned", PLANTED)
def test_a_planted_error_turns_the_verdict(name, what, plant, turned, monkeypatch):
    monkeypatch.setattr(module(name), what, plant(getattr(module(name), what)))
    monkeypatch.setattr(module(name), "draw", always(None))
    found = verdicts(module(name).run(module(name).SIZES["smoke"]))
    assert {claim: found[claim] for claim in turned} == turned
    assert all(VERDICTS[name][claim] != verdict for claim, verdict in turned.items())
