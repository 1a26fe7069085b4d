"""The experiments on data, penalties and generalization: verdicts, numbers, planted errors."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from smoke import module, nightly, smoke

from jaxtrain import augment

VERDICTS = {
    "zig_zag": ["true", "false", "true"],
    "feature_scaling": ["false", "true", "true", "false", "true", "true", "true"],
    "polynomial_order": ["true", "true", "true", "true", "false"],
    "overtraining": ["true", "true", "true", "false"],
    "penalized_risk": ["depends", "true", "true", "true"],
    "l1_l2_path": ["true", "true", "false", "true", "false", "true"],
    "decay_or_l2": ["true", "false", "true", "false", "true", "true"],
    "early_stopping": ["true", "true", "false", "true"],
    "duplicates": ["true", "true", "true"],
    "outliers": ["true", "false", "true", "true", "true"],
    "lighting": ["true", "true", "depends"],
    "flips": [],
    "mixing_and_erasing": ["true"],
    "multi_crop": ["true"],
}
LONG = {
    "zig_zag", "penalized_risk", "decay_or_l2", "duplicates", "flips", "mixing_and_erasing",
    "multi_crop",
}  # fmt: skip


@pytest.mark.parametrize("name", nightly(VERDICTS, LONG))
def test_verdicts_in_smoke_size(name):
    """What comes after these depends on how many runs there are."""
    result = smoke(name)
    assert list(result.claims.values())[: len(VERDICTS[name])] == VERDICTS[name]
    assert all(np.isfinite(list(result.numbers.values())))


def verdicts(name, monkeypatch, config=None, **planted):
    """Runs the smoke size with some of the module's names replaced, without a figure."""
    for what, value in {"draw": lambda *args: None, **planted}.items():
        monkeypatch.setattr(module(name), what, value)
    return list(module(name).run(config or module(name).SIZES["smoke"]).claims.values())


# Positive inputs.


@pytest.mark.fast
def test_the_signs_of_an_examples_gradient(x64):
    zig_zag = module("zig_zag")
    x = np.array([[1.0, 2.0], [1.0, -2.0], [-1.0, -0.5]])
    assert zig_zag.one_sign(x, np.ones(3)).tolist() == [True, False, True]
    w, v = np.array([0.5, -1.0, 2.0]), np.array([1.0, 0.0, 3.0])
    by_hand = ((x @ w[:2] + 2 - v) ** 2).mean()
    # Terms of one sign, some ten roundings.
    np.testing.assert_allclose(zig_zag.loss(jnp.array(w), x, v), by_hand, rtol=10 * 2**-53)


@pytest.mark.nightly
def test_positive_inputs_in_the_place_of_centred_ones(monkeypatch):
    zig_zag = module("zig_zag")
    of = zig_zag.examples
    same = verdicts(
        "zig_zag",
        monkeypatch,
        examples=lambda config, kind, d, seed: of(config, "positive", d, seed),
    )
    assert same == ["true", "true", "false"]


# The scale of features.


@pytest.mark.fast
def test_the_printed_regression(x64):
    scaling = module("feature_scaling")
    x, v = scaling.printed()
    by_hand = [2 / 3 * sum((0 - v) * x[:, i]) for i in range(2)]
    slopes = scaling.gradient(x, v)
    np.testing.assert_allclose(slopes, by_hand, rtol=6 * 2**-53)  # sums of three of one sign
    # As printed, to the last digit.
    assert slopes.round(4).tolist() == [-1381.6533, -0.0225]
    numbers = smoke("feature_scaling").numbers
    for what, digits in (
        ("ratio of the gradients at w = 0", "6.1e+04"),
        ("condition number", "1.39e+10"),
        ("condition number with bias", "1.01e+12"),
        ("condition number, standardized", "28.2"),
    ):
        found = numbers[f"printed table: {what}"]
        assert f"{found:.{len(digits.partition('e')[0]) - 1}g}" == digits


@pytest.mark.fast
def test_computed_steps_are_those_of_gradient_descent():
    scaling = module("feature_scaling")
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(20, 2)) * [1, 3], rng.normal(size=20)
    a = np.concatenate([np.ones((20, 1)), x], axis=1)
    curvatures = np.linalg.eigvalsh(2 * a.T @ a / 20)
    least = np.linalg.lstsq(a, v)[0]
    w, excess = np.zeros(3), []
    for _ in range(300):
        excess.append((((a @ w - v) ** 2) - ((a @ least - v) ** 2)).mean())
        w = w - 2 / (curvatures[0] + curvatures[-1]) * 2 * a.T @ (a @ w - v) / 20
    excess = np.array(excess) / excess[0]
    h, error = scaling.modes(x, v)
    # Some ten units of the largest curvature, ten times the smallest.
    np.testing.assert_allclose(np.sort(h), curvatures, rtol=100 * 2**-53)
    # Risks of size 1, in 20 steps of some ten roundings.
    found = scaling.excess(h, error, np.arange(20))
    np.testing.assert_allclose(found, excess[:20], rtol=0, atol=200 * 2**-53)
    steps = scaling.steps_to(1e-6, h, error)
    assert np.ceil(steps) == (excess < 1e-6).argmax()


@pytest.mark.fast
def test_the_right_division_turns_the_verdicts_on_scaling(monkeypatch):
    scaling = module("feature_scaling")
    right = scaling.SCALINGS["/ std"]
    scalings = scaling.SCALINGS | {"/ std^2": right}
    found = verdicts("feature_scaling", monkeypatch, by_variance=right, SCALINGS=scalings)
    assert found[3:5] == ["true", "false"] and found[-1] == "false"


# Polynomials.

# Medians over 200 seeds of other examples: 20 of them by order, and order 5 by their number.
TEST_RISKS = [0.119, 0.044, 0.067, 0.091, 0.156, 0.213, 0.422, 0.994, 2.44, 7.10]
TRAINING_RISKS = {1: 0.371, 2: 0.290, 3: 0.270, 10: 0.150}
BY_SIZE = {4: 17.6, 8: 8.16, 20: 0.159, 100: 0.0187}


@pytest.fixture(scope="module")
def risks():
    order = module("polynomial_order")
    cases = {(20, p) for p in range(1, 11)} | {(n, 5) for n in BY_SIZE}
    return {case: np.array([order.risks(*case, seed) for seed in range(200)]) for case in cases}


def is_median(samples, printed):
    """Tells whether a printed number can be the median of another 200 such samples.

    The rank of the one median among the others has the standard deviation sqrt(200) / 2 = 7.1 for
    the true median, and sqrt(2) times that, 10, for another sample's: 3.3 of these are 33 ranks.
    """
    low, high = np.sort(samples)[[100 - 33, 100 + 33 - 1]]
    return low <= printed <= high


@pytest.mark.fast
def test_risks_by_order_and_by_size(risks):
    for p, printed in enumerate(TEST_RISKS, 1):
        assert is_median(risks[20, p][:, 1], printed), p
    for p, printed in TRAINING_RISKS.items():
        assert is_median(risks[20, p][:, 0], printed), p
    for n, printed in BY_SIZE.items():
        assert is_median(risks[n, 5][:, 1], printed), n
    medians = [np.median(risks[20, p][:, 1]) for p in range(1, 11)]
    assert np.argmin(medians) + 1 == 2
    # A number beside it is not taken for it.
    assert not is_median(risks[20, 2][:, 1], TEST_RISKS[0])


@pytest.mark.fast
def test_the_exact_test_risk_is_the_mean_over_many_points():
    polynomial = module("_polynomial")
    # Midpoints are off by h^2 / 48 of the change of slope, here below 60, with h = 2e-5.
    x = (np.arange(100_000) + 0.5) / 50_000 - 1
    for reach, w in ((1.0, np.array([1.0, 2.0])), (0.5, np.array([2.0, 4.0, 3.0, -2.0, 1.0]))):
        at = reach * x
        error = sum(c * at**i for i, c in enumerate(w)) - (at**2 + 3 * at + 3)
        found = polynomial.test_risk(w, reach=reach)
        np.testing.assert_allclose(found, (error**2).mean(), rtol=0, atol=5e-10)
    assert polynomial.test_risk(polynomial.TRUE) == 0


@pytest.mark.fast
def test_wrong_fits_turn_the_verdicts_on_order(monkeypatch):
    order = module("polynomial_order")

    def without_square(h, v):
        return np.linalg.lstsq(np.where(np.arange(h.shape[1]) == 2, 0, h), v)[0]

    found = verdicts("polynomial_order", monkeypatch, fit=without_square)
    assert found[:2] == ["false", "false"]
    shrunk = verdicts("polynomial_order", monkeypatch, fit=lambda h, v: 0 * h[0])
    assert shrunk[1:4] == ["false", "true", "true"] and shrunk[4] == "true"
    # The ends count twice as much as they should: (10 - 3) / 3 of 1e-5.
    x = np.linspace(-1, 1, 100_001)
    assert order.VARIANCE == pytest.approx((3 * x + x**2).var(), rel=2.4e-5)


def iterates(h, v, times, strength=0.0):
    """Gradient descent on mean (h w - v)^2 + strength |w|^2, by NumPy."""
    n = len(v)
    rate = 1 / (2 * np.linalg.eigvalsh(h.T @ h / n)[-1] + 2 * strength)
    w, found = np.zeros(h.shape[1]), []
    for t in range(max(times) + 1):
        if t in times:
            found.append(w)
        w = w - rate * (2 * h.T @ (h @ w - v) / n + 2 * strength * w)
    return np.array(found)


@pytest.mark.fast
@pytest.mark.parametrize("strength", [0.0, 0.1])
def test_descent_is_that_of_numpy(x64, strength):
    polynomial = module("_polynomial")
    times = np.array([0, 1, 5, 40])
    h, v = polynomial.many(8, 5, range(3))
    w, _ = polynomial.descend(h, v, times, strength=strength)
    # Numbers below 4 in 40 steps of sums of six: 2^-52 each.
    for i in range(3):
        expected = iterates(h[i], v[i], times, strength)
        np.testing.assert_allclose(w[i], expected, rtol=0, atol=240 * 2**-52)


def test_the_printed_weights():
    numbers = smoke("overtraining").numbers
    printed = {"w(0)": 4.359, "w_t1": 0.804, "w_t2": 0.262, "w_t3": 4.094}
    for name, distance in printed.items():
        assert round(numbers[f"printed weights: |{name} - w*|"], 3) == distance
    assert numbers["share of runs that end above 1.5 times their least test risk"] >= 0.8


# Medians over 200 seeds of other examples, after 5 steps at the rate 1 / L.
EARLY = {1.0: [2.87, 1.67, 0.86, 0.90, 0.48, 0.59], 0.5: [3.06, 1.01, 0.27, 0.15, 0.04, 0.03]}


@pytest.mark.fast
@pytest.mark.parametrize("reach", EARLY)
def test_weights_after_five_steps(x64, reach):
    polynomial = module("_polynomial")
    h, v = polynomial.many(8, 5, range(200), reach=reach)
    early = abs(polynomial.descend(h, v, np.array([5]))[0][:, 0])
    for i, printed in enumerate(EARLY[reach]):
        # They are printed to 0.01: up to half of that is what has been rounded.
        assert any(is_median(early[:, i], printed + r) for r in (-0.005, 0, 0.005)), i


@pytest.mark.fast
def test_penalized_risks_of_the_printed_weights():
    penalized = module("penalized_risk")
    values = penalized.example()
    assert [round(v, 4) for v in values.values()] == [100, 19.0388, 44.7628]
    assert penalized.as_printed(values) == [True, True, False]
    assert penalized.as_printed(values | {"w_t3": 44.7613}) == [True, True, True]


# Penalties.


@pytest.mark.fast
def test_planted_methods_turn_the_verdicts_on_l1(monkeypatch):
    path = module("l1_l2_path")
    right = path.optimizer
    found = verdicts(
        "l1_l2_path", monkeypatch, optimizer=lambda method, s: right("L1, proximal", s)
    )
    assert found[2] == "true" and found[4:6] == ["true", "false"]
    found = verdicts("l1_l2_path", monkeypatch, optimizer=lambda method, s: right("L2", s))
    assert found[:2] == ["false", "false"]


@pytest.mark.fast
def test_decay_and_l2_of_sgd_and_momentum_by_numpy(x64):
    decay = module("decay_or_l2")
    config = dataclasses.replace(decay.SIZES["smoke"], steps=50)
    h, s, rate = decay.CURVATURES, config.strength, decay.RATES["momentum"]
    found = decay.with_each(lambda tx: decay.on_quadratic(config, tx), "momentum", s)
    for how, inside, outside in (("none", 0, 0), ("L2", s, 0), ("decay", 0, s)):
        w, m = np.zeros(10), np.zeros(10)
        for _ in range(50):
            m = decay.MU * m + h * (w - 1) + inside * w
            w = w - rate * (m + outside * w)
        np.testing.assert_allclose(found[how][-1], w, rtol=150 * 2**-53)  # 50 steps of three
    assert decay.difference(found) > 0.1
    plain = decay.with_each(lambda tx: decay.on_quadratic(config, tx), "SGD", s)
    assert decay.difference(plain) < decay.SAME["quadratic"]


@pytest.mark.fast
def test_shrinkage_by_steps_and_by_penalty(x64):
    """Against solving with the whole matrices."""
    stopping, polynomial = module("early_stopping"), module("_polynomial")
    config = stopping.SIZES["smoke"]
    t, h, least, eta, stopped, penalized, frame = stopping.measure(
        dataclasses.replace(config, steps=100, seeds=(0, 1))
    )
    x, v = polynomial.examples(8, 5, 1)
    a, b = 2 * x.T @ x / 8, 2 * x.T @ v / 8
    k = 150
    strength = stopping.GRID[k] * np.linalg.eigvalsh(a)[-1]
    solved = np.linalg.solve(a + strength * np.eye(6), b)
    # The strength is a third of the largest curvature: some ten roundings, times a condition of 4.
    np.testing.assert_allclose(penalized[1, k] @ frame[1], solved, rtol=40 * 2**-52)
    # Numbers below 4 in 100 steps of sums of six.
    expected = iterates(x, v, [100])[0]
    np.testing.assert_allclose(stopped[1, -1] @ frame[1], expected, rtol=0, atol=600 * 2**-52)


@pytest.mark.fast
def test_a_wrong_rule_turns_the_verdicts_on_early_stopping(monkeypatch):
    stopping = module("early_stopping")
    right = stopping.shrunk_by_penalty
    found = verdicts("early_stopping", monkeypatch, shrunk_by_penalty=lambda h, s: right(h, 10 * s))
    assert found[1] == "false"
    found = verdicts("early_stopping", monkeypatch, shrunk_by_steps=lambda h, eta, t: h * eta * t)
    assert found[0] == "false"


# Duplicates.


@pytest.mark.fast
def test_copies_draw_the_fit_as_the_formula_says(monkeypatch):
    duplicates = module("duplicates")
    config = dataclasses.replace(duplicates.SIZES["smoke"], copies=(0, 2))
    residual, formula, others, test = duplicates.influence(config, 3)
    # Some ten roundings, times the square of the condition 3.4.
    np.testing.assert_allclose(residual, formula, rtol=120 * 2**-53)
    assert abs(residual[1]) < abs(residual[0]) and others[1] > others[0] and test.min() > 0
    assert duplicates.weights(4, 2).tolist() == [0.5, 1 / 6, 1 / 6, 1 / 6]


@pytest.mark.nightly
def test_a_wrong_weight_turns_the_verdict_on_duplicates(monkeypatch):
    duplicates = module("duplicates")
    right = duplicates.weights
    found = verdicts("duplicates", monkeypatch, weights=lambda n, copies: right(n, copies + 1))
    assert found[0] == "false"


# Outliers.


@pytest.mark.fast
def test_distances_of_the_two_people():
    outliers = module("outliers")
    numbers = smoke("outliers").numbers
    assert numbers["2.51 m: |z|"] > 3 and max(numbers["1.82 m: |z|"], numbers["24 kg: |z|"]) < 3
    a, b = 0.17 / 0.12, -36 / 15
    covariance = np.array([[1, 0.8], [0.8, 1]])
    by_hand = np.array([a, b]) @ np.linalg.inv(covariance) @ np.array([a, b])
    # Some ten roundings, times the condition 9 of the correlations.
    assert outliers.distance(outliers.THIN) == pytest.approx(by_hand, rel=90 * 2**-53)
    # chi-square with two degrees of freedom: exp(-d2 / 2).
    assert np.exp(-by_hand / 2) < 1e-7


@pytest.mark.fast
def test_fits_by_reweighting_are_the_least_losses(x64):
    """No step away from them lowers the loss, and squared errors give least squares."""
    outliers, polynomial = module("outliers"), module("_polynomial")
    h, v = polynomial.examples(41, 2, 0)
    v = v + np.where(np.arange(41) < 4, 10.0, 0.0)
    losses = {
        "squared": lambda e: e**2,
        "p = 1.5": lambda e: abs(e) ** 1.5,
        "Huber": lambda e: np.where(abs(e) < 1, e**2 / 2, abs(e) - 1 / 2),
        "absolute": abs,
    }
    rng = np.random.default_rng(1)
    for name, loss in losses.items():
        w = np.asarray(outliers.fit(outliers.LOSSES[name], h, v))
        least = loss(h @ w - v).mean()
        for d in rng.normal(size=(50, 3)):
            assert loss(h @ (w + 1e-3 * d) - v).mean() > least - 1e-9, name
        if name == "squared":
            # Some ten roundings, times the square of a condition below 10.
            np.testing.assert_allclose(w, np.linalg.lstsq(h, v)[0], rtol=1000 * 2**-53)


@pytest.mark.fast
def test_planted_losses_turn_the_verdicts_on_outliers(monkeypatch):
    outliers = module("outliers")
    squared, huber = (outliers.LOSSES[name] for name in ("squared", "Huber"))
    swapped = dict.fromkeys(outliers.LOSSES, squared) | {"squared": huber}
    found = verdicts("outliers", monkeypatch, LOSSES=swapped, THIN=np.array([1.65, 60.0]))
    assert found[2:] == ["false", "false", "false", "false"]


# Augmentation.


@pytest.mark.fast
def test_gains_are_told_from_noise():
    above_zero = module("_experiment").above_zero
    gains = np.array([[1.0, 1.1, 0.9, 1.0], [1.0, -1.0, 2.0, -1.0], [-1.0, -1.1, -0.9, -1.0]])
    assert above_zero(gains).tolist() == [True, False, False]


@pytest.mark.fast
def test_flips_in_both_worlds():
    flips = module("flips")
    images = np.arange(2 * 3 * 4.0).reshape(2, 3, 4, 1).repeat(100, 0)
    mirrored, labels = flips.mirrored(images, np.zeros(200), seed=[0, 1])
    as_it_is = (mirrored == images).all((1, 2, 3))
    assert (mirrored[~as_it_is] == images[~as_it_is][:, :, ::-1]).all()
    # Four standard deviations of 200 coins.
    assert abs(as_it_is.sum() - 100) < 4 * 50**0.5 and labels.shape == (200,)


@pytest.mark.fast
def test_verdicts_on_flips(monkeypatch):
    flips = module("flips")
    labels = module("_digits").examples()[1][1]

    def run(hurt, helped):
        """The share of right answers falls in some classes of digits, and rises elsewhere."""

        def train(config, world, flip):
            right = np.tile(np.arange(360) % 10 < 8, (4, 1))
            right[np.arange(4), np.arange(4)] ^= True  # seeds differ
            if flip and world == flips.WORLDS[0]:
                right[:, np.isin(labels, hurt)] = False
            if flip and world == flips.WORLDS[1]:
                right[:, : int(360 * helped)] = True
            return right

        return verdicts("flips", monkeypatch, train=train)

    assert run([2, 5], 0.5) == ["true", "true", "true", "true"]
    assert run([0, 8], 0.0) == ["true", "false", "false", "false"]
    assert run([], 0.0) == ["false", "false", "false", "false"]


@pytest.mark.fast
def test_verdicts_on_mixing(monkeypatch):
    mixing = module("mixing_and_erasing")
    labels = np.full((3, 10), 0.1)
    config = mixing.Config(examples=(32, 64), seeds=tuple(range(4)))
    noise = np.array([0.001, 0.0, -0.001, 0.0])
    gains = dict(zip(mixing.METHODS.values(), ([0, 0], [0.1, 0.1], [0.1, -0.1], [0.2, 0.3]),
                     strict=True))  # fmt: skip

    def train(config, method):
        return 0.5 + np.array(gains[method])[:, None] + noise * any(gains[method])

    def samples():
        return {name: (None, labels) for name in mixing.METHODS}

    planted = {"config": config, "train": train, "samples": samples}
    found = verdicts("mixing_and_erasing", monkeypatch, **planted)
    assert found == ["true", "true", "depends", "true", "true"]
    labels[1, 2] = 0.2
    assert verdicts("mixing_and_erasing", monkeypatch, **planted)[0] == "false"


@pytest.mark.fast
def test_the_first_five_crops_and_the_ten():
    crops = module("multi_crop")
    image = jnp.arange(64.0).reshape(8, 8, 1)
    views = np.asarray(crops.views(image))
    ten = np.asarray(augment.ten_crop(image, crops.SIZE))
    for part, own in ((ten[:5], views[:5]), (ten[5:], views[9:])):
        assert {one.tobytes() for one in part} == {one.tobytes() for one in own}
    assert len({one.tobytes() for one in views[:9]}) == 9


@pytest.mark.fast
def test_accuracies_of_several_crops():
    crops = module("multi_crop")
    p = np.zeros((1, 2, 14, 10))
    p[..., 0] = 0.6, 0.1, 0.1, *([0.5] * 6), *([0.9] * 5)  # of class 0, by view
    p[..., 1] = 1 - p[..., 0]
    several, alone, ten = crops.accuracies(p, np.array([1, 0]))
    # Of class 0 are 0.6, 0.35, 0.27, ... on average, and 0.6 of all ten.
    assert several[:, 0].tolist() == [0.5] * 9 and ten.tolist() == [0.5]
    several, alone, ten = crops.accuracies(p, np.array([1, 1]))
    assert several[:, 0].tolist() == [0.0] + [1.0] * 8 and ten.tolist() == [0.0]
    assert alone[:3, 0].tolist() == [0.0, 1.0, 1.0]


def test_colors_of_lighting():
    numbers = smoke("lighting").numbers
    lighting = module("lighting")
    for k, variance in enumerate(lighting.VARIANCES, 1):
        # Four times sqrt(2 / 51,200) = 0.6 %, the error of a variance of 51,200 normal numbers.
        assert numbers[f"lam_{k}"] == pytest.approx(variance, rel=0.025)
    # Of white, what is above is cut off: E min(0, s z) = -s / sqrt(2 pi), per channel.
    std = lighting.SIZES["smoke"].std * np.sqrt((lighting.COMPONENTS**2) @ lighting.VARIANCES**2)
    expected = np.linalg.norm(std) / np.sqrt(2 * np.pi)
    n = lighting.SIZES["smoke"].draws * lighting.SIZES["smoke"].repeats
    # s sqrt(1/2 - 1/(2 pi)) / sqrt(n) per channel; lam has an error of 2.5 %.
    assert numbers["white: size of the mean of all colors"] == pytest.approx(
        expected, abs=4 * np.linalg.norm(std) * 0.59 / n**0.5 + 0.025 * expected
    )
