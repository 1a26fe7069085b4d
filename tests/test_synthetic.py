"""Generators: the same numbers from a seed everywhere, and the process that they promise."""

import inspect

import catalogue
import numpy as np
import pytest

from jaxtrain import data
from jaxtrain.data import _order, synthetic
from jaxtrain.errors import ConfigError

each_generator = pytest.mark.parametrize("name", catalogue.GENERATORS)


@pytest.mark.fast
def test_the_catalogue_lists_every_generator():
    found = {
        name
        for name, f in vars(synthetic).items()
        if inspect.isfunction(f) and f.__module__ == synthetic.__name__ and name[0] != "_"
    }
    assert found - catalogue.OTHERS[synthetic] == set(catalogue.GENERATORS)


@pytest.mark.fast
@each_generator
def test_a_seed_makes_a_data_set(name):
    make = catalogue.GENERATORS[name]
    dataset, again, other = make(12), make(12), make(12, seed=1)
    assert len(dataset) == 12 and dataset.image.dtype == np.float32
    assert dataset.label.shape == ((12, 1) if dataset.classes is None else (12,))
    np.testing.assert_array_equal(dataset.image, again.image)
    np.testing.assert_array_equal(dataset.label, again.label)
    assert (dataset.image != other.image).any()
    for bad in ({"n": 0}, {"n": 12, "seed": -1}, {"n": 12, "noise": -1.0}):
        with pytest.raises(ConfigError, match=f"{name}: {list(bad)[-1]} must be"):
            make(**bad)


@pytest.mark.fast
def test_the_numbers_never_change():
    words = np.random.Philox(key=np.array([3, 2**62], np.uint64)).random_raw(2)
    x = synthetic.polynomial(2, seed=3).image[:, 0]
    np.testing.assert_allclose(x, words / 2.0**63 - 1, rtol=2**-24)  # rounded once
    golden = np.float32([-0.4369085218129989, 0.7785713907214395])
    np.testing.assert_array_equal(synthetic.polynomial(2).image[:, 0], golden)


def test_normal_numbers_are_normal():
    z = np.sort(synthetic._normal(0, 0, 20000))
    erf = pytest.importorskip("scipy.special").ndtr
    gap = np.abs(erf(z) - (np.arange(20000) + 0.5) / 20000).max()
    assert gap < 1.63 / np.sqrt(20000)  # Kolmogorov and Smirnov at 1 %


def test_the_order_of_the_epochs_is_not_that_of_the_examples():
    x = synthetic.polynomial(50).image[:, 0]
    # Of two random orders one place in 50 agrees on average; ten do with probability 1 / 10!.
    assert (np.argsort(x) != _order.permutation(50, 0, 0)).sum() > 40


@pytest.mark.fast
def test_polynomial_has_bounded_uniform_noise():
    dataset = synthetic.polynomial(4000, noise=0.5, width=2.0)
    x, y = dataset.image[:, 0].astype(float), dataset.label[:, 0].astype(float)
    e = np.sort(y - (x**2 + 3 * x + 3))
    for values, bound in ((e, 0.5), (np.sort(x), 2.0)):
        # x and y, below 16, are rounded by 2^-24 and 2^-21; 2 x + 3 is below 8.
        assert np.abs(values).max() <= bound + 1e-6
        gap = np.abs(values / bound / 2 + 0.5 - (np.arange(4000) + 0.5) / 4000).max()
        assert gap < 1.63 / np.sqrt(4000)  # as above
    w = np.linalg.lstsq(synthetic.powers(x[:, None], 5), x**2 + 3 * x + 3, rcond=None)[0]
    # Six weights, of which three are 0; some notes print five, [3, 1, 0, 0, 0].
    # The condition 53 of the powers, times 2^-53 of a norm 4.4 of w, a few times.
    np.testing.assert_allclose(w, [3, 3, 1, 0, 0, 0], rtol=0, atol=1e-13)


def test_the_risk_is_smallest_for_the_true_order():
    """Medians over fits of 20 points: 0.119, 0.044, 0.067, 0.091, 0.156 for orders 1 to 5."""
    whole = synthetic.polynomial(200 * 20)
    t = np.linspace(-1, 1, 201)[:, None]
    risk = np.empty((200, 5))
    for i, part in enumerate(np.arange(4000).reshape(200, 20)):
        x, y = np.float64(whole.image[part]), np.float64(whole.label[part, 0])
        for order in range(1, 6):
            w = np.linalg.lstsq(synthetic.powers(x, order), y, rcond=None)[0]
            fit = synthetic.powers(t, order) @ w
            risk[i, order - 1] = ((fit - (t**2 + 3 * t + 3)[:, 0]) ** 2).mean()
    # The share of risks below the true median deviates by 1 / (2 sqrt(200)); that below another
    # median of 200 by sqrt(2) as much, 0.05: four of them, whatever the distribution.
    share = (risk < [0.119, 0.044, 0.067, 0.091, 0.156]).mean(0)
    np.testing.assert_allclose(share, 0.5, rtol=0, atol=0.2)
    assert np.median(risk, 0).argmin() == 1


@pytest.mark.fast
def test_projectile_falls_as_long_as_gravity_says():
    np.testing.assert_allclose(np.sqrt(2 / 9.81), 0.4515, rtol=0, atol=5e-5)  # four digits
    dataset = synthetic.projectile(100, factor=np.sqrt(2 / 9.81))
    v, h = dataset.image.T
    d = dataset.label[:, 0]
    # d and v, the quotient, all of them twice by the square, it, the product and h: 9 of 2^-24.
    np.testing.assert_allclose(9.81 / 2 * (d / v) ** 2, h, rtol=5.4e-7)
    noisy = synthetic.projectile(100, factor=np.sqrt(2 / 9.81), noise=0.1).label[:, 0]
    # All of 100 errors are below 0.09 once in 40,000 times; two d below 64 round by 2^-19 each.
    assert 0.09 < np.abs(noisy - d).max() < 0.1 + 2**-18


@pytest.mark.fast
def test_spirals_wind_around_the_centre():
    dataset = synthetic.spirals(90, noise=0.0, turns=2.0)
    assert np.bincount(dataset.label).tolist() == [30, 30, 30]
    r = np.linalg.norm(dataset.image, axis=1)
    assert r.max() < 1
    turned = np.arctan2(*dataset.image.T[::-1]) / (2 * np.pi) - dataset.label / 3 - 2 * r
    # Coordinates and a norm below 1: four of 2^-24, twice; angles below 4, 2^-22 / (2 pi).
    np.testing.assert_allclose(turned, np.rint(turned), rtol=0, atol=5.2e-7)


@pytest.mark.fast
@pytest.mark.parametrize("condition", [1.0, 1e4, 1e10])
def test_ill_conditioned_regression_has_the_condition(x64, condition):
    for rotated in (False, True):
        dataset = synthetic.ill_conditioned_regression(
            60, features=4, condition=condition, rotated=rotated
        )
        x = dataset.image
        _, s, vt = np.linalg.svd(x)
        # To a few 1e-16 of the largest, up to 1e5 times the smallest; twice that in a square.
        np.testing.assert_allclose((s / s[0]) ** 2, condition ** -(np.arange(4) / 3), rtol=1e-10)
        # w = V 1: of size 1 along each of the directions, as precise as these.
        w = np.linalg.lstsq(x, dataset.label, rcond=None)[0]
        np.testing.assert_allclose(np.linalg.norm(w), 2, rtol=1e-10)
        if condition > 1:
            np.testing.assert_allclose(abs(vt @ w), np.ones((4, 1)), rtol=1e-10)
        z = data.standardize.apply(data.standardize.fit(x), x)
        cured = np.linalg.cond(z.T @ z)
        assert (cured < 10) == (not rotated or condition == 1)
    with pytest.raises(ConfigError, match="features must be at most n = 3, got 4"):
        synthetic.ill_conditioned_regression(3, features=4)


@pytest.mark.fast
def test_mismatched_scales_have_the_numbers_of_the_notes(x64):
    dataset = synthetic.mismatched_scales()
    x, t = dataset.image, dataset.label
    gradient = -2 / 3 * x.T @ t
    ratio = gradient[0] / gradient[1]
    biased = np.hstack([x, np.ones((3, 1))])
    z = data.standardize.apply(data.standardize.fit(x), x)
    conditions = [np.linalg.cond(a.T @ a) for a in (x, biased, z)]
    # To half a unit of the last digit printed.
    printed = [-1381.65, -0.0225, 6.1e4, 1.39e10, 1.01e12, 28.2]
    half = np.array([5e-3, 5e-5, 500, 5e7, 5e9, 0.05])
    found = [*gradient[:, 0], *ratio, *conditions]
    assert (abs(np.subtract(found, printed)) <= half).all()


def test_signals_are_templates_and_noise():
    clean, noisy = (synthetic.signals(500, noise=noise).image[..., 0] for noise in (0.0, 0.25))
    assert synthetic.signals(500).label.tolist() == list(range(10)) * 50
    # A template of at most 1.2 on a line of at most 0.375.
    assert np.abs(clean).max() < 1.575
    # The line shows but for 0.4 * 40 samples, of deviation 0.2 / sqrt(12) * 40 = 2.31, and one at
    # each end, of 38; four deviations of the mean of 500.
    straight = np.isclose(np.diff(clean, 2), 0, atol=1e-6)
    assert abs(straight.mean() - 20 / 38) < 4 * 2.31 / 38 / np.sqrt(500)
    e = noisy - clean
    # A moving mean of five has 1 - k/5 in common with that k later. The squares of these add up to
    # 3.4, as if 20,000 / 3.4 numbers were independent: four deviations of a deviation of those.
    np.testing.assert_allclose(e.std(), 0.25 * np.sqrt(1.01), rtol=4 / np.sqrt(2 * 20000 / 3.4))
    # Bartlett's deviation of a first autocorrelation with these is 0.0036: four.
    found = (e[:, 1:] * e[:, :-1]).mean() / e.var()
    np.testing.assert_allclose(found, 0.8 / 1.01, rtol=0, atol=0.0144)


@pytest.mark.fast
def test_random_features_descend_twice():
    whole = synthetic.linear_teacher(400)
    clean = synthetic.linear_teacher(400, noise=0.0).label
    risk = {}
    for width in (50, 100, 1000):
        f = synthetic.random_features(whole.image, width)
        w = np.linalg.lstsq(f[:100], whole.label[:100], rcond=None)[0]
        risk[width] = ((f[100:] @ w - clean[100:]) ** 2).mean()
    # 0.64, 41 and 0.36 for this seed.
    assert risk[100] > 5 * risk[50] > 5 * risk[1000]
    np.testing.assert_array_equal(
        synthetic.random_features(whole.image, 50),
        synthetic.random_features(whole.image, 100)[:, :50],
    )


def test_bad_options_are_refused():
    for call in (
        lambda: synthetic.polynomial(3, width=0.0),
        lambda: synthetic.projectile(3, factor=-1.0),
        lambda: synthetic.spirals(3, classes=0),
        lambda: synthetic.spirals(3, turns=-1),
        lambda: synthetic.ill_conditioned_regression(3, condition=0.5),
        lambda: synthetic.signals(3, length=0),
        lambda: synthetic.linear_teacher(3, features=0),
        lambda: synthetic.random_features(np.ones((2, 2)), 0),
        lambda: synthetic.powers(np.ones((2, 1)), -1),
    ):
        with pytest.raises(ConfigError, match="must be"):
            call()
