"""The experiments on adaptive methods, L-BFGS and clipping: their numbers, and what turns them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain import optim

pytest.importorskip("matplotlib.figure")

from experiments import adam_first_steps as first_steps  # noqa: E402
from experiments import adam_or_momentum as tuning  # noqa: E402
from experiments import (  # noqa: E402
    adaptive_rates,
    clipping,
    lbfgs_minibatches,
    rprop_minibatches,
    trajectories,
)


def smoke(module):
    result = module.run(module.SIZES["smoke"])
    assert all(np.isfinite(list(result.numbers.values())))
    return list(result.claims.values()), result.numbers


# Adam's first steps.


@pytest.mark.fast
def test_adam_first_steps_in_smoke_size():
    verdicts, numbers = smoke(first_steps)
    assert verdicts == ["true", "depends", "true", "false"]
    # Half a unit of the last digit printed; eps = 1e-8 takes off 3e-7 of the longest.
    for b2, first, longest, at in ((0.999, 3.1623, 6.5685, 12), (0.99, 1.0, 2.131, 13)):
        where = f"no correction, b2 = {b2}: "
        np.testing.assert_allclose(numbers[where + "first step"], first, rtol=0, atol=5e-5)
        np.testing.assert_allclose(numbers[where + "longest step"], longest, rtol=0, atol=5e-4)
        assert numbers[where + "step of the longest"] == at
    first = numbers["no correction, b2 = 0.9: first step"]
    np.testing.assert_allclose(first, 0.3162, rtol=0, atol=5e-5)
    assert numbers["no correction, b2 = 0.9: longest step"] <= 1


@pytest.mark.fast
def test_a_wrong_adam_turns_the_verdicts(monkeypatch):
    def wrong(rate, *, b2, bias_correction=True):
        return optim.adam(rate, b1=0.91, b2=b2, eps=1e-7, bias_correction=bias_correction)

    monkeypatch.setattr(first_steps, "optimizer", wrong)
    assert smoke(first_steps)[0] == ["false", "depends", "false", "false"]


@pytest.mark.fast
def test_the_loop_from_1_is_adam(x64):
    # Five steps of some ten roundings of 2^-53 each.
    run = jax.jit(lambda w: first_steps.path(optim.adam(0.1), lambda w, k: w, w, 5))
    np.testing.assert_allclose(first_steps.loop(1, 0.1, 5), run(jnp.ones(())), rtol=6e-15)
    assert np.isnan(first_steps.loop(0, 0.1, 5)[1:]).all()


# The lengths of adaptive steps.


@pytest.mark.fast
def test_adaptive_rates_in_smoke_size():
    verdicts, numbers = smoke(adaptive_rates)
    assert verdicts == ["true", "true", "true", "depends"]
    ada = [numbers[f"AdaGrad: step {t}"] for t in (1, 100)]
    # At step 100 a sum of as many equal squares, whose root counts half: 50 of 2^-24 at most.
    np.testing.assert_allclose(ada, [1, 0.1], rtol=3e-6)
    tiny = [numbers[f"AdaGrad, eps {at} the root: first step, g = 10 eps"]
            for at in ("outside", "inside")]  # fmt: skip
    np.testing.assert_allclose(tiny[0], 0.909, rtol=0, atol=5e-4)  # half a unit of the last digit
    np.testing.assert_allclose(tiny[1], 0.00316, rtol=0, atol=5e-6)


@pytest.mark.nightly
@pytest.mark.fast
@pytest.mark.parametrize(
    "name, wrong, verdicts",
    [
        ("AdaGrad", {"initial_accumulator": 0.1}, ["false", "true", "false", "depends"]),
        ("RMSProp", {"bias_correction": True}, ["true", "false", "true", "depends"]),
    ],
)
def test_a_wrong_accumulator_turns_the_verdicts(name, wrong, verdicts, monkeypatch):
    make = adaptive_rates.METHODS[name]
    monkeypatch.setitem(adaptive_rates.METHODS, name, lambda **o: make(**o, **wrong))
    assert smoke(adaptive_rates)[0] == verdicts


# Rprop and mini-batches.


@pytest.mark.nightly
def test_rprop_minibatches_in_smoke_size():
    verdicts, numbers = smoke(rprop_minibatches)
    assert verdicts == ["false", "depends", "true", "false", "true"]
    for what, printed, digits in [
        ("3 : 1, Rprop: after one epoch", -0.0292, 4),
        ("3 : 1, SGD: after one epoch", 0.002, 4),
        ("9 : 1, Rprop: after one epoch", -0.1865, 4),
        ("9 : 1, SGD: after one epoch", 0, 4),
        ("3 : 1, Rprop: after 100 epochs", -0.0459, 4),
        ("9 : 1, Rprop: after 100 epochs", -3415.7, 1),
        ("9 : 1, RMSProp: after 100 epochs", -0.512, 3),
    ]:
        # Half a unit of the last digit printed.
        np.testing.assert_allclose(numbers[what], printed, rtol=0, atol=0.5 * 10.0**-digits)


@pytest.mark.nightly
def test_averaging_turns_the_verdict_on_rprop(monkeypatch):
    # SGD in Rprop's place averages: it does what the whole gradient asks, and is not scale-free.
    monkeypatch.setitem(rprop_minibatches.OPTIMIZERS, "Rprop", optim.sgd(0.01))
    verdicts = smoke(rprop_minibatches)[0]
    assert (verdicts[0], verdicts[4]) == ("true", "false")


# L-BFGS on mini-batches.


@pytest.mark.nightly
def test_lbfgs_minibatches_in_smoke_size():
    verdicts, _ = smoke(lbfgs_minibatches)
    assert len(verdicts) == 4 and verdicts[0] == "true"


@pytest.mark.fast
def test_a_run_is_judged_by_what_the_budget_pays_for():
    config = dataclasses.replace(lbfgs_minibatches.SIZES["smoke"], epochs=10)
    cost = np.array([[0, 4, 10, 12], [0, 9, 11, 12], [0, 1, 2, 3]])
    j = np.array([[9, 5, 3, 1], [9, 4, 2, 0], [9, 1, np.nan, np.nan]])
    np.testing.assert_array_equal(lbfgs_minibatches.paid(config, cost, j), [3, 4, np.inf])


@pytest.mark.nightly
def test_the_cost_counts_all_gradients(x64):
    """A search costs at least one gradient a step, on a mini-batch the one before it too."""
    config = lbfgs_minibatches.SIZES["smoke"]
    found = lbfgs_minibatches.measure(lbfgs_minibatches.PROBLEMS["softmax regression"], config)
    n, size = 1437, config.batch_size
    per_record = {
        "L-BFGS, full batch": 2,
        "momentum, full batch": 2,
        "L-BFGS, mini-batches": 4 * 2 * size / n,
        "momentum, mini-batches": 8 * size / n,
    }
    for name, least in per_record.items():
        steps = np.diff(found[name][0][0])
        assert (steps >= least - 1e-12).all()
        if "momentum" in name:
            np.testing.assert_allclose(steps, least)


# Adam or momentum.


@pytest.mark.fast
@pytest.mark.parametrize(
    "difference, verdict",
    [([0.01, 0.02, 0.03], "true"), ([-0.01, -0.02, -0.03], "false"), ([0.1, -0.1, 0.0], "depends")],
)
def test_a_difference_counts_from_two_standard_errors_on(difference, verdict):
    accuracy = np.array([0.9, 0.8, 0.95])
    assert tuning.compare(accuracy + np.array(difference), accuracy) == verdict


@pytest.mark.nightly
def test_adam_or_momentum_in_smoke_size():
    config = tuning.SIZES["smoke"]
    verdicts, numbers = smoke(tuning)
    assert len(verdicts) == 4
    assert all(numbers[f"{split}, Adam: test accuracy"] > 0.3 for split in config.splits)
    order, validation = tuning.draws(1437, config, seed=0)
    assert len(validation) == 287 and not set(validation) & set(order.ravel())
    # Chosen by validation accuracy, whatever the test accuracies are.
    measured = np.array([[[0.7, 0.9], [0.7, 0.9]], [[0.8, 0.1], [0.8, 0.2]]])
    monkey = {name: measured for name in tuning.OPTIMIZERS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "accuracies", lambda name, split, config: monkey[name])
        patch.setattr(tuning, "draw", lambda *args: None)
        chosen = tuning.run(config).numbers
    np.testing.assert_allclose(chosen["stratified, momentum, tuned: test accuracy"], 0.15)


# Clipping.


def test_clipping_in_smoke_size():
    verdicts, numbers = smoke(clipping)
    assert verdicts == ["true", "true", "true", "true", "false"]
    # A norm to some ten roundings, the factor and the product.
    np.testing.assert_allclose(numbers["clipped: longest gradient after"], 1, rtol=12 * 2**-24)


@pytest.mark.nightly
def test_clipping_by_value_turns_the_verdict(monkeypatch):
    # It caps every entry and thereby turns the gradient.
    monkeypatch.setitem(clipping.RULES, "clipped", optim.clip_by_value(0.1))
    assert smoke(clipping)[0][0] == "false"
    monkeypatch.setitem(clipping.RULES, "clipped", optax.identity())
    assert smoke(clipping)[0][:4] == ["depends", "false", "false", "false"]


@pytest.mark.fast
def test_which_condition_clips():
    right, printed = (clipping.compare(rule) for rule in clipping.CONDITIONS.values())
    assert clipping.clips(*right) == "true"
    assert clipping.clips(*printed) == "false"
    short = printed[1] < printed[0]
    assert (printed[2][short] > printed[1][short]).all()  # lengthened


@pytest.mark.fast
def test_a_run_has_exploded_beyond_three_times_its_first_loss():
    losses = np.array([[[1, 3, 0.1], [1, 3.1, 0.1], [1, np.nan, 1]]])
    assert clipping.exploded(losses).tolist() == [[False, True, True]]


# The family of trajectories.


@pytest.mark.nightly
def test_trajectories_in_smoke_size():
    verdicts, numbers = smoke(trajectories)
    assert verdicts[:2] == ["true", "true"] and verdicts[3] == "false"
    np.testing.assert_allclose(numbers["saddle, Newton: cost at the end"], 0, atol=1e-12)


@pytest.mark.nightly
def test_another_accumulator_turns_the_verdict_on_adagrad(x64, monkeypatch):
    config = trajectories.SIZES["smoke"]
    right = trajectories.adagrad_paths(config, 0.5)
    np.testing.assert_allclose(right[..., 0], right[..., 1], atol=trajectories.SAME)
    adagrad = optim.adagrad
    monkeypatch.setattr(optim, "adagrad", lambda rate: adagrad(rate, initial_accumulator=0.1))
    wrong = trajectories.adagrad_paths(config, 0.5)
    assert (abs(wrong[1:, :, 0] - wrong[1:, :, 1]).max(1) > trajectories.SAME).all()
