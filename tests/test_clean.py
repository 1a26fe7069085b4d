"""Checks of data: what they report equals SciPy and scikit-learn, and is what was planted."""

import functools
import io
import pathlib

import catalogue
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import data
from jaxtrain.data import clean
from jaxtrain.data.clean import _duplicates
from jaxtrain.errors import ConfigError, DataError

VECTORS = np.load(pathlib.Path(__file__).parent / "vectors" / "sklearn_data.npz")
ODD = VECTORS["odd"]
RNG = np.random.default_rng(0)
HEIGHT = RNG.normal(1.75, 0.08, 500)
WEIGHT = 24 * HEIGHT**2 * np.exp(RNG.normal(0, 0.15, 500))
PEOPLE = np.stack([HEIGHT, WEIGHT], 1)


@pytest.fixture
def pandas():
    return pytest.importorskip("pandas")


# Outliers.


@pytest.mark.fast
def test_a_tall_man_is_an_outlier_by_himself():
    heights = np.append(HEIGHT, 2.51)  # 9 standard deviations away
    for method in ("z", "mad", "iqr"):
        report = clean.outliers(heights, method=method)
        assert 500 in report.indices and report.scores.argmax() == 500
        assert report.table["value"][0] == 2.51


@pytest.mark.fast
def test_a_thin_man_is_an_outlier_only_with_his_height():
    height = np.append(np.linspace(1.1, 1.95, 500), 1.82)  # of children too
    weight = np.append(22 * height[:-1] ** 2 * np.exp(RNG.normal(0, 0.1, 500)), 24.0)
    people = np.stack([height, weight], 1)
    z = abs(people[-1] - people.mean(0)) / people.std(0)
    assert z.max() < 2
    # Mean and deviation of 501 numbers: less than 501 of 2^-53.
    np.testing.assert_allclose(clean.outliers(people).scores[-1], z.max(), rtol=5.6e-14)
    report = clean.mahalanobis(people)
    assert report.scores.argmax() == 500 and report.scores[500] > 4 * report.threshold
    # Chi-square with two degrees, from a quantile to some units of 2.2e-16.
    assert report.threshold == pytest.approx(-2 * np.log(0.001), rel=1e-14)


@pytest.mark.fast
@pytest.mark.parametrize("method", ["z", "mad"])
def test_scores_equal_scipy_s(method):
    report = clean.outliers(ODD, method=method)
    # Mean and deviation, or median, of 72 numbers: less than 72 of 2^-53.
    np.testing.assert_allclose(report.scores, VECTORS[method], rtol=8e-15)


def test_z_scores_by_the_other_deviation():
    z = abs(ODD - ODD.mean(0)) / ODD.std(0, ddof=1)
    report = clean.outliers(ODD, threshold=2 * (72 / 71) ** 0.5)
    assert report.indices.tolist() == np.flatnonzero(z.max(1) > 2).tolist() != []


@pytest.mark.fast
def test_interquartile_flags_equal_scipy_s():
    report = clean.outliers(ODD, method="iqr")
    np.testing.assert_array_equal(report.indices, np.flatnonzero(VECTORS["iqr, flags"]))
    assert 12 <= len(report.indices) < 60


def test_z_is_blind_where_the_others_are_not():
    few = np.array([1.71, 1.65, 1.80, 1.75, 1.68, 1.78, 2.51])
    z = clean.outliers(few)
    assert len(z.indices) == 0 and z.scores.max() <= 6**0.5
    assert clean.outliers(few, method="mad").indices.tolist() == [6]
    assert clean.outliers(few, method="iqr").indices.tolist() == [6]


@pytest.mark.fast
def test_what_a_feature_without_spread_and_gaps_do():
    x = np.array(
        [[1.0, 5.0, np.nan], [1.0, np.nan, np.nan], [1.0, 5.0, np.nan], [2.0, 5.0, np.nan]]
    )
    for method in ("mad", "iqr"):
        report = clean.outliers(np.repeat(x, [9, 1, 1, 1], 0), method=method)
        assert report.indices.tolist() == [11] and np.isinf(report.scores[11])
        assert report.table["feature"] == ["0"]
    infinite = clean.outliers(np.append(np.arange(9.0), np.inf))
    assert infinite.indices.tolist() == [9]
    assert len(clean.outliers(np.full((5, 2), 0.1)).indices) == 0
    images = clean.outliers(np.append(np.zeros((20, 2, 2)), [[[0, 0], [9, 0]]], 0))
    assert images.table["feature"] == ["1, 0"] and images.table["example"].tolist() == [20]


# Mahalanobis distance.


@pytest.mark.fast
def test_mahalanobis_equals_sklearn_and_the_formula():
    x = VECTORS["x"]
    # The inverse of a covariance of condition 3.4e4^2 loses as many times 2^-53.
    found = clean.mahalanobis(x, ddof=0).scores
    np.testing.assert_allclose(found, VECTORS["mahalanobis"], rtol=1.3e-7)
    c = x - x.mean(0)
    formula = np.einsum("ni,ij,nj->n", c, np.linalg.inv(np.cov(x.T)), c)
    np.testing.assert_allclose(clean.mahalanobis(x).scores, formula, rtol=1.3e-7)


def test_robust_covariance_sees_what_hides_itself():
    pytest.importorskip("sklearn")
    report = clean.mahalanobis(ODD, robust=True)
    # As above, of the same 60 people.
    np.testing.assert_allclose(report.scores, VECTORS["mahalanobis, robust"], rtol=1.3e-7)
    hidden = range(60, 72)
    assert set(hidden) <= set(report.indices)
    assert len(set(hidden) & set(clean.mahalanobis(ODD).indices)) <= 2
    more = np.concatenate([ODD, ODD.sum(1, keepdims=True), np.full((72, 1), np.pi)], 1)
    scaled = clean.mahalanobis(more * np.array([1e-3, *[1e3] * (more.shape[1] - 1)]), robust=True)
    np.testing.assert_allclose(scaled.scores, report.scores, rtol=1.3e-7)


@pytest.mark.fast
def test_mahalanobis_does_not_count_what_adds_nothing():
    more = np.concatenate([PEOPLE, PEOPLE @ [[1.0], [2.0]], np.full((500, 1), np.pi)], 1)
    plain, report = clean.mahalanobis(PEOPLE), clean.mahalanobis(more * [1e6, 1, 1, 1e9])
    # The condition 185 of the two features, squared, times 2^-53, a few times.
    np.testing.assert_allclose(report.scores, plain.scores, rtol=2e-11)
    assert report.threshold == plain.threshold
    assert not clean.mahalanobis(np.full((5, 2), 0.1)).scores.any()
    # The share of a normal population that is reported is the level: four deviations.
    normal = clean.mahalanobis(np.random.default_rng(1).normal(size=(5000, 3)), level=0.05)
    assert abs(len(normal.indices) / 5000 - 0.05) < 4 * (0.05 * 0.95 / 5000) ** 0.5


# Duplicates and nulls.


@pytest.mark.fast
def test_repeats_and_copies_are_told_apart():
    """Age, education, birthplace repeat; a height to a hundredth with the same weight does not."""
    n = 400
    coarse = np.stack([RNG.integers(20, 30, n), RNG.integers(0, 3, n), RNG.integers(0, 4, n)], 1)
    report = clean.duplicates(coarse, label=RNG.integers(0, 3, n))
    assert len(report.table["chance"]) > 50 and not report.table["suspicious"].any()
    fine = np.stack([RNG.integers(20, 70, n), RNG.normal(175, 8, n).round(3)], 1)
    weight = RNG.normal(75, 9, n).round(2)
    fine[100], weight[100] = fine[7], weight[7]
    report = clean.duplicates(fine, label=weight)
    assert report.indices.tolist() == [100] and report.table["examples"] == [[7, 100]]
    assert report.table["suspicious"].tolist() == [True]
    assert report.table["conflict"].tolist() == [False]
    # c_j examples share each value: (n - 1) prod_j (c_j - 1) / (n - 1).
    columns = [*fine.T, weight]
    count = [np.sum(c == c[7]) for c in columns]
    chance = (n - 1) * np.prod([(c - 1) / (n - 1) for c in count])
    # Three quotients and their product.
    np.testing.assert_allclose(report.table["chance"], [chance], rtol=8 * 2**-53)


@pytest.mark.fast
def test_duplicates_with_conflicting_labels():
    x = np.array([[0.0, 1.0], [2.0, 3.0], [-0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [2.0, 3.0]])
    report = clean.duplicates(x, label=[0, 1, 0, 1, 2, 0])
    np.testing.assert_array_equal(report.scores, [0, 0, 1, 1, 0, 2])
    assert report.indices.tolist() == [2, 3, 5]
    found = zip(report.table["examples"], report.table["conflict"], strict=True)
    assert sorted(found) == [([0, 2], False), ([1, 3, 5], True)]
    assert len(np.unique(np.delete(x + 0.0, report.indices, 0), axis=0)) == 3
    assert len(clean.duplicates(x[[0, 1, 4]]).indices) == 0


@pytest.mark.fast
def test_the_digits_have_one_pair_of_equal_images():
    train, test = data.digits()
    images = np.concatenate([train.image, test.image])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)
    planted = np.append(images, images[5:6], 0)
    assert clean.duplicates(planted).indices.tolist() == [1797]


@pytest.mark.fast
def test_near_duplicates_are_those_of_all_pairs(monkeypatch):
    monkeypatch.setattr(_duplicates, "BLOCK", 16)
    x = RNG.normal(1e3, 1, size=(75, 3, 2))
    x[70], x[20] = x[3] + 1e-3, x[17]
    flat = x.reshape(75, -1)
    d = np.sqrt(((flat[:, None] - flat) ** 2).sum(-1))
    d[np.triu_indices(75)] = np.inf
    report = clean.near_duplicates(x, 0.01)
    # A sum of six squares and a root; the differences are the same.
    np.testing.assert_allclose(report.scores, d.min(1), rtol=8 * 2**-53)
    assert report.indices.tolist() == [20, 70]
    assert report.table["nearest"].tolist() == [17, 3]
    assert clean.near_duplicates(x, 0).indices.tolist() == [20]
    assert clean.near_duplicates(x[:1], 1.0).indices.tolist() == []


@pytest.mark.fast
def test_nulls_of_any_kind():
    x = np.array([[1.0, np.nan, 3.0], [1.0, 2.0, 3.0], [np.nan, np.nan, 3.0]])
    for array in (x, np.where(np.isnan(x), None, x.astype(object))):
        report = clean.nulls(array)
        np.testing.assert_array_equal(report.scores, [1, 0, 2])
        assert report.table["feature"] == ["1", "0"]
        assert report.table["missing"].tolist() == [2, 1]
    assert len(clean.nulls(np.arange(3)).indices) == 0
    assert clean.nulls(np.array([1, "NaT"], "M8[s]")).indices.tolist() == [1]


# Labels and samples.


@pytest.mark.fast
def test_label_noise_is_what_was_planted():
    true = RNG.integers(0, 3, 300)
    labels = true.copy()
    wrong = RNG.choice(300, 20, replace=False)
    labels[wrong] = (true[wrong] + 1) % 3
    p = np.full((300, 3), 0.1) + RNG.uniform(0, 0.02, (300, 3))
    p[np.arange(300), true] += 0.6
    p /= p.sum(1, keepdims=True)
    report = clean.label_noise(p, labels)
    # The rule in words, with loops.
    t = [p[labels == j, j].mean() for j in range(3)]
    found = []
    for i in range(300):
        likely = [j for j in range(3) if p[i, j] >= t[j]]
        if likely and max(likely, key=lambda j, i=i: p[i, j]) != labels[i]:
            found.append(i)
    assert report.indices.tolist() == found
    assert set(report.indices) == set(wrong)
    at = report.table["example"]
    np.testing.assert_array_equal(report.table["suggested"], true[at])
    # A class that nobody has can be no suggestion.
    assert len(clean.label_noise(np.array([[0.9, 0.1], [0.2, 0.8]]), [0, 0]).indices) == 0


@pytest.mark.fast
def test_compare_equals_scipy():
    x, other, label = VECTORS["x"], VECTORS["other"], VECTORS["label"]
    labels = label, np.repeat(np.arange(4), [3, 9, 20, 1])
    same = [np.zeros((len(y), 1)) for y in labels]
    counts = clean.compare(*same, labels=labels, level=0.999, correction=None)
    # Special functions are right to some 1e-13, whatever the version.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-12)
    close(counts.scores, [1, VECTORS["chi-square"][1]])
    close(counts.table["statistic"], VECTORS["chi-square"][:1])
    report = clean.compare(x, other, level=0.999, correction=None)
    statistic, p = VECTORS["ks"].T
    close(report.scores, p)
    place = [report.names.tolist().index(name) for name in report.table["feature"]]
    close(report.table["statistic"], statistic[place])
    bh = clean.compare(x, other, correction="bh")
    close(bh.scores, VECTORS["bh"])
    holm = clean.compare(x, other)
    p = p[:5]
    expected = np.array([max((5 - (p < q).sum()) * q for q in p[p <= own]) for own in p])
    expected = np.minimum(expected, 1)
    close(holm.scores, expected)
    assert holm.indices.tolist() == np.flatnonzero(expected <= 0.01).tolist() != []
    assert report.of == "features"


def test_two_samples_of_one_population_pass_and_a_shift_is_seen():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(800, 30)), rng.normal(size=(700, 30))
    assert len(clean.compare(a, b).indices) == 0
    b[:, 7] += 0.4
    # A shift by d moves the distribution function by up to d phi(0) = 0.16; 0.1 is p = 0.001.
    assert clean.compare(a, b).indices.tolist() == [7]


# Frames, reports, errors.


def test_frames_keep_their_names(pandas):
    index = [f"person {i}" for i in range(500)]
    frame = pandas.DataFrame({"height": HEIGHT, "weight": WEIGHT}, index=index)
    frame.iloc[3, 0] = 2.51
    report = clean.outliers(frame)
    assert report.indices[0] == 3 and report.names[3] == "person 3"
    assert report.table["feature"][0] == "height" and "person 3" in str(report)
    assert clean.outliers(frame["height"]).indices[0] == 3
    assert 3 in clean.mahalanobis(frame).indices
    near = clean.near_duplicates(pandas.concat([frame, frame.iloc[[8]] + 1e-9]), 1e-6)
    assert near.table["nearest"].tolist() == ["person 8"]

    frame["city"] = ["Toronto", "Waterloo"] * 250
    frame.iloc[7] = frame.iloc[4]
    frame.loc["person 9", "city"] = None
    frame.loc["person 10", "weight"] = np.nan
    assert clean.duplicates(frame).table["examples"] == [["person 4", "person 7"]]
    assert clean.duplicates(frame, label="city").table["conflict"].tolist() == [False]
    nulls = clean.nulls(frame)
    assert nulls.indices.tolist() == [9, 10] and nulls.table["feature"] == ["weight", "city"]
    with pytest.raises(DataError, match=r"numeric columns, got \{'city': '(object|str)'\}"):
        clean.outliers(frame)
    numbers = frame[["height", "weight"]]
    shifted = numbers.assign(height=numbers.height + 0.05, city=frame.city)
    report = clean.compare(frame, shifted, labels="city")
    assert report.names.tolist() == ["height", "weight", "labels"]
    assert report.table["feature"] == ["height"]
    holes = np.array([[1.0, pandas.NA], [np.float64(2), "a"], [None, pandas.NaT]], object)
    np.testing.assert_array_equal(clean.nulls(holes).scores, [1, 0, 2])
    with pytest.raises(ConfigError, match="duplicates: label must be one of .*did you mean 'city'"):
        clean.duplicates(frame, label="sity")
    with pytest.raises(ConfigError, match=r"compare: labels must be one of \['height', "):
        clean.compare(frame, numbers, labels="city")
    integers = pandas.DataFrame({"n": pandas.array([1, 2, None, 90] + [2] * 30, "Int64")})
    assert clean.outliers(integers).indices.tolist() == [3]
    assert clean.nulls(integers).indices.tolist() == [2]


REPORTS = {
    "duplicates": lambda: clean.duplicates(np.repeat(PEOPLE, [2] + [1] * 499, 0)),
    "near_duplicates": lambda: clean.near_duplicates(PEOPLE, 0.05),
    "nulls": lambda: clean.nulls(np.where(PEOPLE > 95, np.nan, PEOPLE)),
    "outliers": lambda: clean.outliers(np.append(PEOPLE, [[2.51, 120]], 0)),
    "mahalanobis": lambda: clean.mahalanobis(np.append(PEOPLE, [[1.82, 24.0]], 0)),
    "label_noise": lambda: clean.label_noise(
        np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9], [0.05, 0.95]]), [0, 0, 1, 1, 0]
    ),
    "compare": lambda: clean.compare(PEOPLE, PEOPLE[:100] * [1, 1.3]),
    "infinite": lambda: clean.outliers(np.append(np.zeros(20), 1), method="iqr"),
    "nothing": lambda: clean.duplicates(PEOPLE),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_can_be_read_and_seen(name):
    pytest.importorskip("matplotlib")
    report = REPORTS[name]()
    lines = str(report).splitlines()
    count = len(report.indices)
    assert lines[0].startswith(f"{count} of {len(report.scores)} {report.of}: {report.meaning}")
    assert (count > 0) == (len(lines) > 1) == (name != "nothing")
    assert len({len(column) for column in report.table.values()}) == 1
    figure = report.figure()
    figure.savefig(io.BytesIO(), dpi=40)
    threshold = figure.axes[0].lines[2].get_ydata()
    np.testing.assert_array_equal(threshold, [report.threshold] * 2)
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_xdata(), report.indices)


@pytest.mark.fast
@pytest.mark.parametrize("name", catalogue.CHECKS)
def test_checks_read_any_type_and_change_nothing(name):
    x = np.random.default_rng(4).integers(0, 256, (20, 2, 2, 1), np.uint8)
    for dtype in ("uint8", "float32", jnp.bfloat16):
        examples = x.astype(dtype)
        report = catalogue.CHECKS[name](examples)
        np.testing.assert_array_equal(examples, x.astype(dtype))
        assert len(report.scores) == len(report.names) == (20 if report.of == "examples" else 4)
        assert not np.isnan(report.scores).any() and str(report)


def test_a_long_report_is_cut():
    text = str(clean.duplicates(np.repeat(PEOPLE[:14], 2, 0)))
    assert text.splitlines()[-1] == "... and 4 more" and len(text.splitlines()) == 13


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: clean.outliers(np.zeros((0, 2))), "outliers: x must be of at least one example"),
        (lambda: clean.nulls(1.0), "nulls: x must be of at least one example"),
        (lambda: clean.outliers(np.array(["a"])), "x must be of bool, integer or float type"),
        (lambda: clean.outliers(PEOPLE, method="iqd"), "did you mean 'iqr'"),
        (lambda: clean.outliers(PEOPLE, threshold=-1), "threshold must be a finite number >= 0"),
        (lambda: clean.mahalanobis(PEOPLE[:2]), "of more examples than features, 2, got 2"),
        (lambda: clean.mahalanobis(PEOPLE, level=1), r"level must be a number in \[0, 1\), got 1"),
        (lambda: clean.mahalanobis(PEOPLE, robust=1), "robust must be True or False"),
        (
            lambda: clean.mahalanobis(np.append(PEOPLE, [[1, np.nan]], 0)),
            r"got \{\(500, 1\): nan\}",
        ),
        (lambda: clean.near_duplicates(PEOPLE, -1), "threshold must be a finite number >= 0"),
        (lambda: clean.near_duplicates([[np.inf]], 1), "clean.nulls finds missing ones"),
        (lambda: clean.duplicates(PEOPLE, label=[1]), "label must be of length 500, got 1"),
        (lambda: clean.label_noise([[0.5, 0.4]], [0]), r"of sum 1 for each example, got \{0: "),
        (lambda: clean.label_noise([[0.5, 0.5]], [2]), r"labels must be in \[0, 2\), got \{0: 2\}"),
        (lambda: clean.label_noise([[0.5, 0.5]], [0.0]), "labels must be 1 integers"),
        (
            lambda: clean.compare(PEOPLE, PEOPLE[:, :1]),
            r"test must be of the features \['0', '1'\]",
        ),
        (lambda: clean.compare(PEOPLE, PEOPLE * np.nan), "with values of feature 0 in both sets"),
        (lambda: clean.compare(PEOPLE, PEOPLE, correction="b"), "correction must be one of"),
        (lambda: clean.compare(PEOPLE, [["a"]]), "compare: test must be of bool, integer or float"),
        (
            lambda: clean.label_noise([[np.nan, 0.5]], [0]),
            "label_noise: probabilities must be finite",
        ),
        (lambda: clean.label_noise([["a"]], [0]), "label_noise: probabilities must be of bool"),
        (
            lambda: clean.duplicates(PEOPLE, label="y"),
            "duplicates: label must be an array where there is no frame, got 'y'",
        ),
        (
            lambda: clean.compare(PEOPLE, PEOPLE, labels="y"),
            "compare: labels must be an array where there is no frame, got 'y'",
        ),
        *(
            (
                lambda labels=labels: clean.compare(PEOPLE, PEOPLE[:100], labels=labels),
                rf"compare: labels must be a pair of shapes \(500,\) and \(100,\), got {got}",
            )
            for labels, got in (
                (([0] * 450, [0] * 100), r"\(\(450,\), \(100,\)\)"),
                (([0] * 100, [0] * 500), r"\(\(100,\), \(500,\)\)"),
                (np.zeros(600), "'ndarray'"),
                (([0] * 500,), "'tuple'"),
                (5, "'int'"),
            )
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises((ConfigError, DataError, TypeError), match=message):
        call()


def test_robust_needs_sklearn(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.covariance", None)
    with pytest.raises(ImportError, match="robust must be False without it.*install scikit-learn"):
        clean.mahalanobis(PEOPLE, robust=True)
