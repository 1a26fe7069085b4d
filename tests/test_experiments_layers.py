"""The experiments on activations, initialization and depth: verdicts, numbers, planted errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from smoke import module, nightly
from smoke import smoke as smoke_of_any

from jaxtrain import nn
from jaxtrain.nn import initializers

VERDICTS = {
    "symmetry": ["true"] * 5,
    "initial_statistics": ["true", "true", "true", "false"] + ["true"] * 5,
    "relu_before_softmax": ["true", "true", "true", "false"],
}
LONG = {"symmetry", "initial_statistics", "relu_before_softmax"}


def smoke(name):
    result = smoke_of_any(name)
    assert all(np.isfinite(list(result.numbers.values())))
    return result


def verdicts(name, monkeypatch, **planted):
    """Runs the smoke size with some of the module's names replaced, without a figure."""
    for what, value in {"draw": lambda *args: None, **planted}.items():
        monkeypatch.setattr(module(name), what, value)
    return list(module(name).run(module(name).SIZES["smoke"]).claims.values())


@pytest.mark.parametrize("name", nightly(VERDICTS, LONG))
def test_verdicts_in_smoke_size(name):
    assert list(smoke(name).claims.values()) == VERDICTS[name]


# Symmetry.


@pytest.mark.nightly
def test_different_first_weights_turn_the_verdict_on_symmetry(monkeypatch):
    symmetry = module("symmetry")
    random = initializers.normal(0.1), initializers.zeros
    inits = symmetry.INITS | {"all 0.1": random, "zeros": random}
    assert verdicts("symmetry", monkeypatch, INITS=inits)[:2] == ["false", "depends"]


@pytest.mark.fast
def test_a_permutation_must_reach_both_kernels():
    symmetry = module("symmetry")
    config = symmetry.SIZES["smoke"]
    net = symmetry.make(config, initializers.normal(0.5), initializers.normal(0.5))
    params, _ = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    trained = jax.tree.map(lambda leaf: leaf[None, None], params)
    assert symmetry.permutation_error(config, trained) < symmetry.SAME
    with pytest.MonkeyPatch.context() as patch:
        right = symmetry.permuted
        patch.setattr(
            symmetry, "permuted", lambda p, order: right(p, order) | {"dense1": p["dense1"]}
        )
        assert symmetry.permutation_error(config, trained) > symmetry.SAME


# Statistics of ten layers.


@pytest.mark.nightly
def test_numbers_of_ten_layers():
    numbers = smoke("initial_statistics").numbers
    assert round(numbers["tanh, 1: std of layer 10"], 3) == 0.982
    # sqrt(v E f'^2) = sqrt(0.05) per layer for small tanh, nine times.
    ratio = numbers["tanh, 0.01: std of the gradient, layer 1 / layer 10"]
    np.testing.assert_allclose(ratio, 0.05**4.5, rtol=0.15)
    growth = numbers["ReLU, misprint: growth of the rms per layer"]
    np.testing.assert_allclose(growth, 250, rtol=0.1)


@pytest.mark.fast
def test_infinitely_many_units():
    statistics = module("initial_statistics")
    mean, std, factor = statistics.mean_field(statistics.HE)
    np.testing.assert_allclose(mean, np.pi**-0.5, rtol=1e-6)
    np.testing.assert_allclose(std, (1 - 1 / np.pi) ** 0.5, rtol=1e-6)
    # The weight of the point z = 0 is half a step, 4e-5.
    np.testing.assert_allclose(factor, 1, rtol=1e-4)
    printed = 0.627929, 0.486262, 0.408236, 0.357638, 0.321622
    lecun = statistics.mean_field(statistics.LECUN)[1]
    np.testing.assert_allclose(lecun[:5], printed, atol=1e-6)
    np.testing.assert_allclose(lecun[9], 0.228473, atol=1e-6)


@pytest.mark.nightly
def test_wrong_kernels_turn_the_verdicts_on_ten_layers(monkeypatch):
    statistics = module("initial_statistics")
    # Theory keeps the right variances; so does the misprint, which becomes He's.
    wrong = {
        statistics.SMALL: initializers.normal(0.02),
        statistics.LARGE: initializers.normal(0.1),
        statistics.LECUN: initializers.he_normal(),
        statistics.RELU_LECUN: initializers.he_normal(),
        statistics.HE: initializers.lecun_normal(),
        statistics.MISPRINT: initializers.he_normal(),
    }
    rules = {name: (f, wrong[name], v) for name, (f, _, v) in statistics.RULES.items()}
    found = verdicts("initial_statistics", monkeypatch, RULES=rules)
    assert [found[i] for i in (2, 4, 5, 7, 8)] == ["false", "false", "false", "false", "false"]
    assert found[0] != "true" and found[6] != "true"


# Units that have stopped.


@pytest.mark.nightly
def test_stopped_units_in_smoke_size():
    result = smoke("stopped_units")
    found = list(result.claims.values())
    assert found[:3] == ["true"] * 3 and found[5] == "true"
    assert result.numbers["slope of sigmoid at 10"] == pytest.approx(4.5396e-5, rel=1e-4)
    assert result.numbers["slope of tanh at -10"] == pytest.approx(8.24e-9, rel=1e-3)
    assert result.numbers["slope of ReLU at 0"] == 0


@pytest.mark.fast
def test_a_stopped_unit_that_moves_is_found_out():
    moved = module("stopped_units").moved_when_stopped
    stopped = np.array([[[[False, True], [True, True]]]])  # (rates, seeds, epochs + 1, units)
    kernels = np.zeros((1, 1, 2, 3, 2))
    kernels[0, 0, 1, :, 0] = 1  # alive at the start, so it may
    assert not moved(stopped, kernels)
    kernels[0, 0, 1, 2, 1] = 1
    assert moved(stopped, kernels)


# Activations.


@pytest.mark.fast
def test_verdicts_on_activations(monkeypatch):
    compared = module("activations_compared")
    monkeypatch.setattr(compared, "draw", lambda *args: None)
    config = compared.Config(rates=(0.1, 1.0), every=1, seeds=(0, 1, 2, 3))

    def run(reached, accuracy):
        """The slow rate first; after `reached` looks the fast one is at the error."""

        def train(config, name):
            errors = np.ones((2, 4, 500))
            errors[0, :, 400:] = errors[1, :, reached[name] :] = 0.2
            return errors, np.full((2, 4), accuracy[name]) + [[0.0], [0.1]]

        monkeypatch.setattr(compared, "train", train)
        return compared.run(config)

    reached = dict.fromkeys(compared.ACTIVATIONS, 20) | {"sigmoid": 130, "tanh": 120}
    accuracy = dict.fromkeys(compared.ACTIVATIONS, 0.8)
    result = run(reached, accuracy)
    verdicts = ["true", "true", "depends", "false", "depends", "depends"]
    assert list(result.claims.values()) == verdicts
    assert result.numbers["tanh / ReLU: steps"] == 6
    assert result.numbers["Swish: test accuracy [%]"] == pytest.approx(90)
    result = run(reached | {"ReLU": 150}, accuracy | {"Swish": 0.7})
    assert list(result.claims.values()) == ["false", "false", "depends", "true", "false", "depends"]


@pytest.mark.nightly
def test_activations_compared_in_smoke_size():
    steps = smoke("activations_compared").numbers
    assert 0 < steps["ReLU: steps to 25 % training error"] < 200


@pytest.mark.fast
def test_an_error_that_is_never_reached_counts_as_two_runs():
    compared = module("activations_compared")
    errors = np.array([[[0.9, 0.25, 0.3], [0.9, 0.8, 0.7]]])
    assert compared.steps_to(compared.Config(every=4), errors).tolist() == [[4, 24]]


# Modes of BatchNorm.


@pytest.mark.nightly
def test_batch_norm_modes_in_smoke_size():
    found = smoke("batch_norm_modes")
    assert list(found.claims.values())[:2] == ["true", "true"]
    assert found.numbers["train mode, shuffled, batches of 1: test accuracy [%]"] < 20
    assert found.numbers["eval mode, shuffled, batches of 1: test accuracy [%]"] > 80


@pytest.mark.nightly
def test_eval_mode_with_the_batchs_statistics_is_found_out():
    modes = module("batch_norm_modes")
    config, net = modes.SIZES["smoke"], modes.make(0.9)
    init = jax.vmap(lambda seed: net.init(jax.random.key(seed), jnp.zeros((1, 8, 8, 1))))
    trained = init(jnp.array(config.seeds))
    right = modes.in_batches
    with pytest.MonkeyPatch.context() as patch:
        assert modes.evaluate(config, net, *trained)[1] < modes.ROUNDING
        patch.setattr(
            modes, "in_batches", lambda net, n, ctx, *args: right(net, n, modes.TRAIN, *args)
        )
        assert modes.evaluate(config, net, *trained)[1] > modes.ROUNDING


# ReLU before the softmax.


def test_without_the_relu_no_class_is_lost(monkeypatch):
    relu = module("relu_before_softmax")
    nets = dict.fromkeys(relu.NETS, relu.MLP)
    assert verdicts("relu_before_softmax", monkeypatch, NETS=nets) == ["false"] * 3 + ["true"]


# Lottery tickets.


@pytest.mark.fast
def test_the_smallest_weights_that_are_left_are_pruned(monkeypatch):
    lottery = module("lottery_ticket")
    monkeypatch.setattr(lottery, "SHARES", {"dense0": 0.2})
    rng = np.random.default_rng(0)
    kernel, mask = rng.normal(size=(5, 6)), np.ones((5, 6))
    for left in (24, 19, 15):  # 30 - 6, 24 - 5, 19 - 4
        params = {"dense0": {"kernel": jnp.asarray(kernel, jnp.float32)}}
        pruned = lottery.smallest_removed({"dense0": jnp.asarray(mask, jnp.float32)}, params)
        new = np.asarray(pruned["dense0"])
        assert new.sum() == left and (new <= mask).all()
        gone = (mask > 0) & (new == 0)
        assert abs(kernel[gone]).max() < abs(kernel[new > 0]).min()
        mask = new
    other = lottery.shuffled(jax.random.key(0), {"dense0": jnp.asarray(mask)})["dense0"]
    assert other.sum() == mask.sum() and (np.asarray(other) != mask).any()


@pytest.mark.fast
def test_pruned_weights_have_no_part_and_no_gradient():
    net = nn.serial(nn.dense(2))
    start = {"dense0": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}
    mask = {"dense0": jnp.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])}
    own, x = module("lottery_ticket").masked(net, start, mask), jnp.array([[1.0, 2.0, 3.0]])
    params, _ = own.init(jax.random.key(0), x)
    y, back = jax.vjp(lambda p: own.apply(p, {}, x, nn.EVAL)[0], params)
    assert y.tolist() == [[1.0, 3.0]]
    (gradient,) = back(jnp.ones_like(y))
    assert gradient["dense0"]["kernel"].tolist() == [[1, 0], [0, 0], [0, 3]]


@pytest.mark.fast
def test_verdicts_on_lottery_tickets(monkeypatch):
    lottery = module("lottery_ticket")
    left = np.array([1.0, 0.5, 0.08])
    flat = np.full((3, 4, 2), 0.9) + np.linspace(0, 0.001, 4)[:, None]

    def run(ticket, new, random):
        changes = {lottery.TICKET: ticket, lottery.NEW: new, lottery.RANDOM: random}
        found = {name: flat + np.reshape(c, (3, 1, 1)) for name, c in changes.items()}
        monkeypatch.setattr(lottery, "train", lambda config: (left, found))
        monkeypatch.setattr(lottery, "draw", lambda *args: None)
        return list(lottery.run(lottery.Config()).claims.values())

    none = [0.0, 0.0, 0.0]
    assert run(none, [0, -0.1, -0.1], [0, -0.1, -0.1]) == ["true"] * 5
    assert run(none, none, none) == ["true", "false", "false", "false", "true"]
    assert run([0, 0, -0.5], none, none) == ["false"] * 5


@pytest.mark.nightly
def test_lottery_ticket_in_smoke_size():
    assert smoke("lottery_ticket").numbers["rewound, 100.0 % left: test accuracy [%]"] > 80


# Depth without normalization.


@pytest.mark.nightly
def test_deep_nets_in_smoke_size():
    result = smoke("deep_without_normalization")
    numbers = result.numbers
    assert list(result.claims.values())[2:] == ["true", "false"]
    # LSUV makes the variance before each ReLU 1, whose second moment behind it is 1 / 2.
    assert 0.3 < numbers["plain, LSUV: std of the signal after the last layer"] < 0.8
    assert numbers["plain, 0.01: training loss"] > 2.2


@pytest.mark.fast
def test_fixup_begins_as_the_identity():
    deep = module("deep_without_normalization")
    x = jax.random.normal(jax.random.key(0), (4, 64))
    net = deep.fixup(10)
    params, state = net.init(jax.random.key(1), x)
    assert not net.apply(params, state, x, nn.EVAL)[0].any()
    stats = nn.unit_stats(net, params, state, x)["blocks"]
    np.testing.assert_allclose(stats.std, stats.std[0], rtol=1e-6)
