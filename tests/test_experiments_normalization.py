"""The experiments on normalization and stochastic layers: verdicts, numbers, planted errors."""

import jax.numpy as jnp
import numpy as np
import pytest
from smoke import module, nightly, smoke

from jaxtrain import nn

VERDICTS = {
    "batch_norm_folding": ["true", "false", "depends", "depends", "true", "false"],
    "batch_norm_jacobian": ["false", "false", "true", "true", "true"],
    "normalization_axes": ["true", "true", "false", "true"],
    "test_time_average": [
        *["true", "depends", "true"],
        *["true", "false", "false", "true", "true"],
        *["true", "false", "true"],
    ],
    "whitening": ["true", "true", "true", "true"],
}  # fmt: skip
LONG = {"batch_norm_folding", "test_time_average"}
# Claims of trained nets, whose verdicts in smoke size are those of little training: of each
# experiment those that theory settles, by number of the claim.
SETTLED = {
    "batch_norm_noise": {0: "true"},
    "batch_norm_robustness": {0: "true"},
    "fractional_pooling": {0: "true", 1: "true"},
    "linear_bottleneck": {0: "true", 1: "true"},
    "running_statistics": {0: "true", 2: "true"},
    "stochastic_depth": {0: "true", 1: "true"},
}


def verdicts(result):
    return list(result.claims.values())


@pytest.mark.parametrize("name", nightly(VERDICTS, LONG))
def test_verdicts_in_smoke_size(name):
    assert verdicts(smoke(name)) == VERDICTS[name]


@pytest.mark.nightly
@pytest.mark.parametrize("name", SETTLED)
def test_verdicts_that_theory_settles(name):
    found = verdicts(smoke(name))
    assert {claim: found[claim] for claim in SETTLED[name]} == SETTLED[name]
    assert all(np.isfinite(value) for value in smoke(name).numbers.values())


def always(value):
    return lambda *_: value


def trained(losses, *rest):
    """What `train` finds: losses of two seeds at two epochs, of training and test set."""
    return np.broadcast_to(losses, (2, 2, 2)), *rest


# The experiment, what is planted in it as a function of the original, and the verdicts, by number
# of the claim, that this turns.
PLANTED = [
    (
        "batch_norm_jacobian",
        {"right": always(lambda y: module("batch_norm_jacobian").printed(y))},
        {3: "depends"},
    ),
    (
        "batch_norm_jacobian",
        {"printed": always(lambda y: module("batch_norm_jacobian").right(y))},
        {0: "true", 4: "false"},
    ),
    (
        "batch_norm_folding",
        {"identity_errors": lambda f: lambda config, eps: f(config, 2 * eps)},
        {4: "false"},
    ),
    (
        "batch_norm_noise",
        {
            "train": always(lambda *_: trained(1.0, None)),
            "spread": always(
                lambda config, _: np.outer([1, 2], np.array(config.noise_sizes) ** -1.0)
            ),
        },
        {0: "false"},
    ),
    (
        "batch_norm_robustness",
        {"accuracies": always(lambda config, norm: np.full((3, 3), 0.5 if norm else 0.95))},
        {0: "false"},
    ),
    (
        "normalization_axes",
        {"norms": lambda norms: lambda config: norms(config) | {"layer norm": nn.batch_norm()}},
        {0: "depends", 1: "depends", 3: "depends"},
    ),
    (
        "normalization_axes",
        {"images": always(lambda config, seed: jnp.ones((6, 2, 2, 9)))},
        {2: "true"},
    ),
    (
        "whitening",
        {"norms": lambda norms: lambda config: norms(config) | {"whitening": nn.batch_norm()}},
        {1: "false", 3: "false"},
    ),
    ("whitening", {"within": always(lambda cov, groups: cov[None])}, {2: "false"}),
    (
        "test_time_average",
        {"masks": lambda masks: lambda n, p: (masks(n, p)[0], np.full(2**n, 2.0**-n))},
        {0: "depends", 2: "depends"},
    ),
    (
        "test_time_average",
        {"ACTIVATIONS": lambda found: dict.fromkeys(found, found["linear"])},
        {4: "true", 9: "true"},
    ),
    (
        "test_time_average",
        {
            "errors": always(lambda found: {"mean": 1e-15, "moments": 1.0}),
            "monte_carlo": always(lambda config, *_: 1 / np.array(config.samples)),
        },
        {7: "false", 9: "true", 10: "false"},
    ),
    (
        "stochastic_depth",
        {
            "train": always(lambda *_: trained(1.0)[0]),
            "blocks": lambda f: lambda body, depth, last: f(lambda x: 1.1 * body(x), depth, last),
        },
        {0: "false", 1: "false"},
    ),
    (
        "fractional_pooling",
        {
            "train": always(lambda *_: {"one": np.ones(2), "means": np.ones((2, 2))}),
            "pooled_size": always(lambda n, ratio: int(np.ceil(n / ratio))),
            "regions": lambda f: lambda n, ratio, overlapping: f(n, ratio, False),
        },
        {0: "depends", 1: "depends"},
    ),
    (
        "running_statistics",
        {"averages": lambda f: lambda *args: [1.1 * found for found in f(*args)]},
        {0: "false"},
    ),
    (
        "linear_bottleneck",
        {"train": always(lambda *_: (np.ones((2, 2)), 1, np.array([1, 9])))},
        {0: "false", 1: "depends"},
    ),
]


@pytest.mark.nightly
@pytest.mark.parametrize("name, plants, turned", PLANTED)
def test_a_planted_error_turns_the_verdict(name, plants, turned, monkeypatch):
    for what, plant in plants.items():
        monkeypatch.setattr(module(name), what, plant(getattr(module(name), what)))
    monkeypatch.setattr(module(name), "draw", always(None))
    found = verdicts(module(name).run(module(name).SIZES["smoke"]))
    assert {claim: found[claim] for claim in turned} == turned
    known = SETTLED.get(name) or dict(enumerate(VERDICTS[name]))
    assert all(known[claim] != verdict for claim, verdict in turned.items())


@pytest.mark.fast
@pytest.mark.parametrize("better, verdict", [("batch", "true"), ("none", "false")])
def test_the_verdicts_on_smoothness(better, verdict, monkeypatch):
    name = "batch_norm_smoothness"

    def measure(config, norm):
        return np.full((1, 2, config.stages + 1, 4), 1.0 if norm == better else 2.0)

    monkeypatch.setattr(module(name), "measure", measure)
    monkeypatch.setattr(module(name), "draw", always(None))
    assert verdicts(module(name).run(module(name).SIZES["smoke"])) == [verdict] * 4


@pytest.mark.fast
@pytest.mark.parametrize("better, verdict", [(0.5, "true"), (0.0, "false")])
def test_the_verdicts_on_coadaptation(better, verdict, monkeypatch):
    name = "dropout_coadaptation"

    def train(config, rate):
        low = 0.1 if rate == better else 0.2
        return [np.full((2, 3), low), np.full((2, 3), low), np.full((2, 2), 1 - low)]

    monkeypatch.setattr(module(name), "train", train)
    monkeypatch.setattr(module(name), "draw", always(None))
    assert verdicts(module(name).run(module(name).SIZES["smoke"])) == [verdict] * 3
