"""The experiments on rates and averages in training: their verdicts, and what turns them."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain import nn, optim

pytest.importorskip("matplotlib")

from experiments import (  # noqa: E402
    averaged_weights,
    learning_rate_regimes,
    linear_scaling,
    step_decay_drops,
    warmup,
)

# None where so few epochs and seeds leave it to rounding.
VERDICTS = {
    averaged_weights: ["true", "true", None, None, None, None, "false"],
    learning_rate_regimes: ["true", "false", "true", "false"],
    linear_scaling: ["true", "true", "false"],
    step_decay_drops: [None, "true", None],
    warmup: ["true", "true", "false"],
}


def verdicts(module, config=None):
    return list(module.run(config or module.SIZES["smoke"]).claims.values())


@pytest.fixture
def undrawn(monkeypatch):
    for module in VERDICTS:
        monkeypatch.setattr(module, "draw", lambda *args: None)


@pytest.mark.nightly
@pytest.mark.parametrize("module", VERDICTS, ids=lambda module: module.__name__)
def test_verdicts_in_smoke_size(module):
    result = module.run(module.SIZES["smoke"])
    for verdict, expected in zip(result.claims.values(), VERDICTS[module], strict=True):
        assert expected in (verdict, None)
    assert np.isfinite(list(result.numbers.values())).all()


# The four regimes of the learning rate.

KEPT = [[2.4, 2.3, 2.2], [2.4, 1.0, 0.1], [2.4, 0.5, 0.3], [2.4, 9.0, 9.0]]
DECAYED = [[2.4, 2.3, 2.3], [2.4, 1.0, 0.08], [2.4, 0.5, 0.05], [2.4, 9.0, 9.0]]


@pytest.mark.fast
@pytest.mark.parametrize(
    "changes, turned",
    [
        ([], None),
        ([("kept", 3, 2, 2.2)], 0),  # a very high rate that learns
        ([("kept", 2, 1, 1.1)], 1),  # a high one that is slow at first
        ([("kept", 0, 1, 2.5)], 2),  # a low one that rises
        ([("decayed", 1, 2, 0.2), ("decayed", 2, 2, 0.2)], 3),  # decay that does not help
    ],
)
def test_other_curves_turn_the_verdict_on_regimes(changes, turned, undrawn, monkeypatch):
    losses = {"kept": np.array(KEPT), "decayed": np.array(DECAYED)}
    for how, rate, epoch, loss in changes:
        losses[how][rate, epoch] = loss

    def training_loss(config, noise, decay):
        return losses["decayed" if decay else "kept"]

    monkeypatch.setattr(learning_rate_regimes, "training_loss", training_loss)
    config = learning_rate_regimes.Config(rates=(0.001, 0.1, 0.3, 10.0), epochs=2)
    expected = ["false" if claim == turned else "true" for claim in range(4)]
    assert verdicts(learning_rate_regimes, config) == expected


# Cuts of the rate.


@pytest.mark.fast
def test_each_cut_is_compared_with_the_same_run_without_it():
    right = [[1, 1, 1], [1, 0.1, 0.1], [1, 0.1, 0.01]]
    np.testing.assert_allclose(step_decay_drops.factors(2), right)
    config = step_decay_drops.Config(cuts=(1, 2), epochs=3)
    loss = np.array([[8, 4, 4, 4], [8, 4, 2, 2], [8, 4, 2, 0.5]])[None, :, None]
    found = step_decay_drops.effects(config, loss)
    np.testing.assert_allclose(np.exp(found[0, :, 0]), [1 / 2, 1 / 4])


@pytest.mark.nightly
def test_cuts_that_are_not_made_turn_the_verdicts(undrawn, monkeypatch):
    monkeypatch.setattr(step_decay_drops, "factors", lambda cuts: np.ones((cuts + 1, cuts + 1)))
    assert verdicts(step_decay_drops) == ["false", "false", "false"]


# Warm-up.


@pytest.mark.nightly
def test_a_warmup_from_the_rate_itself_rescues_no_run(undrawn, monkeypatch):
    monkeypatch.setattr(warmup, "STARTS", {"without": 1.0, "with": 1.0})
    assert verdicts(warmup) == ["false", "true", "false"]
    monkeypatch.setattr(warmup, "STARTS", {"without": 0.0, "with": 1.0})
    assert verdicts(warmup) == ["false", "false", "true"]


# Large batches.


@pytest.mark.nightly
def test_the_rate_of_the_small_batch_turns_the_verdict(undrawn, monkeypatch):
    monkeypatch.setitem(linear_scaling.RULES, "(kb, k eta)", linear_scaling.RULES["(kb, eta)"])
    assert verdicts(linear_scaling)[0] == "false"


@pytest.mark.fast
def test_the_largest_k_is_the_last_before_the_first_that_is_not_close(undrawn, monkeypatch):
    # (data sets, ks, rules, epochs): the log of the ratio is all that counts.
    found = np.zeros((2, 3, 3, 4))
    found[0, 1, 0, 2] = 0.1  # k = 4 is not close, k = 8 is again
    found[:, :, 1, :2] = 0.5  # a warm-up lags as long as it lasts
    monkeypatch.setattr(linear_scaling, "measure", lambda config: (np.zeros((2, 4)), found))
    result = linear_scaling.run(linear_scaling.Config(ks=(2, 4, 8), epochs=3, warm=1))
    assert list(result.claims.values()) == ["depends", "false", "depends"]
    limits = [k for what, k in result.numbers.items() if "close up to k" in what]
    assert limits == [2, 8]


# Averages of the weights.


@pytest.mark.fast
def test_which_weights_are_averaged(x64):
    """Of w_t = t after update t, in 4 epochs of 3 updates."""
    tx = optax.chain(*averaged_weights.averages(4, 3))
    w, state = jnp.zeros(()), tx.init(jnp.zeros(()))
    for _ in range(12):
        updates, state = tx.update(jnp.ones(()), state, w)
        w = optax.apply_updates(w, updates)
    found = [float(average.eval_params(w)) for average in state]
    t = np.arange(13)
    ema = (t[1:] * 0.005 * 0.995 ** (12 - t[1:])).sum()
    np.testing.assert_allclose(found, [ema, t[1:].mean(), (9 + 12) / 2], rtol=1e-12)


@pytest.mark.nightly
def test_averages_of_one_update_and_old_statistics_turn_the_verdicts(undrawn, monkeypatch):
    last = [optim.ema(0.0)] * 3
    monkeypatch.setattr(averaged_weights, "averages", lambda epochs, steps: last)
    monkeypatch.setattr(nn, "recompute_batch_stats", lambda net, params, state, batches: state)
    found = verdicts(averaged_weights)
    assert [found[claim] for claim in (0, 1, 2, 4, 5)] == ["false"] * 5


@pytest.mark.fast
def test_the_right_recursion_turns_the_verdict_on_the_misprint(undrawn, monkeypatch):
    same = dict.fromkeys(averaged_weights.NAMES, np.ones((1, 2, 3)))
    losses = dict.fromkeys(averaged_weights.ENDS, same)
    monkeypatch.setattr(averaged_weights, "losses_of", lambda config, noise: losses)
    assert verdicts(averaged_weights)[-1] == "false"
    decay = averaged_weights.DECAY
    monkeypatch.setattr(averaged_weights, "printed", lambda a, w: decay * a + (1 - decay) * w)
    assert verdicts(averaged_weights)[-1] == "true"
