"""Noise, erased boxes, and augmentations made of others."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key
from scipy import stats
from training import images

from jaxtrain import augment, losses, nn, optim, train
from jaxtrain.errors import ConfigError

ONES = jnp.ones((9, 12, 2))


def drawn(f, image=ONES, n=300, **options):
    """Returns f of an image under n keys."""
    keys = jax.random.split(key(0), n)
    return np.asarray(jax.jit(jax.vmap(lambda key: f(key, image, **options)))(keys))


def boxes(y):
    """Returns first and last (row, column) of the zeros in each image, which must be a box."""
    gone = (y == 0).all(-1)
    assert ((y == 0).any(-1) == gone).all()
    rows, columns = gone.any(2), gone.any(1)
    np.testing.assert_array_equal(gone, rows[:, :, None] & columns[:, None])
    first = np.stack([rows.argmax(1), columns.argmax(1)], -1)
    size = np.stack([rows.sum(1), columns.sum(1)], -1)
    last = first + size
    assert all(row[a:b].all() for row, (a, _), (b, _) in zip(rows, first, last, strict=True))
    return first, last


def test_gaussian_noise_has_the_deviation_asked_for():
    image = jnp.full((20, 20, 3), 0.5)
    y = drawn(augment.gaussian_noise, image, 10, std=0.1)
    assert stats.kstest(y.ravel() - 0.5, stats.norm(0, 0.1).cdf).pvalue > 1e-3
    raw = drawn(augment.gaussian_noise, jnp.full((20, 20, 3), 128, jnp.uint8), 10, std=0.1)
    # Rounding adds 1/12 to the variance 25.5^2; 12000 numbers know a deviation to 0.65 %.
    assert abs(raw.std() / 25.5 - 1) < 4 * 0.0065
    assert raw.dtype == np.uint8
    clipped = drawn(augment.gaussian_noise, image, 1, std=10.0)
    assert clipped.min() == 0 and clipped.max() == 1


@pytest.mark.parametrize("per", ["pixel", "element"])
def test_salt_and_pepper_in_equal_parts(per):
    y = drawn(augment.salt_and_pepper, 0.5 * ONES, probability=0.3, per=per)
    n = y.size if per == "element" else y.size // 2
    for value, p in ((0, 0.15), (1, 0.15), (0.5, 0.7)):
        assert abs((y == value).mean() - p) < 4 * np.sqrt(p * (1 - p) / n)
    assert (y[..., 0] == y[..., 1]).all() == (per == "pixel")


def test_cutout_has_its_center_at_any_pixel():
    first, last = boxes(drawn(augment.cutout, n=2000, size=4))
    # Of a 4 x 4 square with the center, its third pixel, in the image.
    assert (last - first).max() == 4 and (last - first).min() == 2
    for i, size in ((0, 9), (1, 12)):
        center = np.where(first[:, i] == 0, last[:, i] - 2, first[:, i] + 2)
        counts = np.bincount(center, minlength=size)
        assert len(counts) == size and stats.chisquare(counts).pvalue > 1e-3
    first, last = boxes(drawn(augment.cutout, n=2000, size=5, inside=True))
    assert (last - first == 5).all()
    for i, room in ((0, 5), (1, 8)):
        counts = np.bincount(first[:, i])
        assert len(counts) == room and stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.fast
def test_cutout_puts_there_what_is_asked_for():
    cutout = functools.partial(augment.cutout, key(1), size=30)  # all of it, wherever the center
    image = jnp.full((4, 5, 3), 100, jnp.uint8)
    np.testing.assert_array_equal(cutout(image, fill=7), np.full((4, 5, 3), 7))
    np.testing.assert_array_equal(cutout(image, fill=(1, 2, 3))[0, 0], [1, 2, 3])
    noise = np.asarray(
        augment.cutout(key(0), jnp.zeros((30, 30, 3), jnp.uint8), size=99, fill="noise")
    )
    assert (
        noise.dtype == np.uint8
        and stats.kstest(noise.ravel() + 0.5, "uniform", (0, 256)).pvalue > 1e-3
    )
    noise = np.asarray(
        augment.cutout(key(0), jnp.zeros((9, 9, 1)), size=99, fill="noise", high=4.0)
    )
    # All of 81 are below 3 with probability (3/4)^81 = 8e-11.
    assert 3 < noise.max() <= 4 and noise.min() >= 0


def test_training_sees_erased_images_and_evaluation_the_whole_ones():
    """E50, and E51: what erases regions is cutout."""
    net, dataset = nn.serial(nn.flatten(), nn.dense(3)), images(8)
    erase = functools.partial(augment.cutout, size=99)
    step = train.make_step(net, losses.softmax_cross_entropy, optim.sgd(1.0), augment=erase)
    mask, index = np.ones(8, np.float32), np.arange(8, dtype=np.int32)
    batch = {"image": dataset.image, "label": dataset.label, "mask": mask, "index": index}
    ts = step.init(key(0), batch)
    new, _ = jax.jit(step.apply)(ts, batch)
    before, after = (jax.device_get(t.params["dense0"]) for t in (ts, new))
    np.testing.assert_array_equal(before["kernel"], after["kernel"])  # all inputs are 0
    assert (before["bias"] != after["bias"]).any()
    logits = train.predict(net, new, dataset.image)
    expected = dataset.image.reshape(8, -1) @ after["kernel"] + after["bias"]
    # Sums of 32 numbers below 8, 2^-22 each, in two programs.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=64 * 2**-22)


def test_random_erasing_draws_area_ratio_place_and_whether():
    image = jnp.ones((60, 80, 1))
    f = functools.partial(augment.random_erasing, fill=0)
    y = drawn(f, image, area=(0.1, 0.3), ratio=(0.5, 2.0), probability=1.0)
    first, last = boxes(y)
    height, width = (last - first).T
    # All boxes of these ranges fit; rounding of sides of 15 and more changes them by 3 %.
    assert stats.kstest(height * width / 4800, "uniform", (0.1, 0.2)).pvalue > 1e-3
    low, high = np.log([0.5, 2])
    assert stats.kstest(np.log(width / height), "uniform", (low, high - low)).pvalue > 1e-3
    room = np.array([60, 80]) - (last - first)
    # Whole numbers 0 to room, in the middles of room + 1 equal parts of [0, 1].
    assert stats.kstest(((first + 0.5) / (room + 1)).ravel(), "uniform").pvalue > 1e-3
    share = (drawn(f, image, probability=0.3) == 0).any((1, 2, 3)).mean()
    assert abs(share - 0.3) < 4 * np.sqrt(0.21 / 300)


def test_random_erasing_erases_nothing_where_nothing_fits():
    y = drawn(augment.random_erasing, jnp.ones((4, 40, 1)), 20, probability=1.0,
              area=(0.9, 0.9), ratio=(1.0, 1.0))  # fmt: skip
    assert (y == 1).all()


@pytest.mark.fast
def test_compose_applies_one_after_the_other_with_keys_of_their_own():
    add = lambda key, image: image + jax.random.uniform(key, image.shape)  # noqa: E731
    double = lambda _, image: 2 * image  # noqa: E731
    x = jnp.zeros((1, 2, 1))
    first, second = (jax.random.uniform(jax.random.fold_in(key(3), i), x.shape) for i in (0, 2))
    y = augment.compose(add, double, add)(key(3), x)
    np.testing.assert_array_equal(y, 2 * first + second)
    np.testing.assert_array_equal(augment.compose()(key(3), x), x)


def test_maybe_applies_as_often_as_it_says():
    invert = augment.maybe(lambda _, image: 1 - image, 0.2)
    share = (drawn(invert, n=1000) == 0).all((1, 2, 3)).mean()
    assert abs(share - 0.2) < 4 * np.sqrt(0.16 / 1000)
    nothing = augment.maybe(functools.partial(augment.random_crop, padding=2), 0.0)
    assert (drawn(nothing, n=20) == 1).all()


@pytest.mark.fast
@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda x: augment.gaussian_noise(key(0), x, std=-1.0),
            "gaussian_noise: std must be a fin",
        ),
        (
            lambda x: augment.salt_and_pepper(key(0), x, probability=2.0),
            "a number in [0, 1], got 2.0",
        ),
        (lambda x: augment.cutout(key(0), x, size=0), "cutout: size must be an int >= 1, got 0"),
        (
            lambda x: augment.cutout(key(0), x, size=5, inside=True),
            "at most the image's shorter side",
        ),
        (lambda x: augment.cutout(key(0), x, size=2, fill="nois"), "fill must be one of ['noise']"),
        (
            lambda x: augment.random_erasing(key(0), x, area=(0.5, 2.0)),
            "the upper end of area must",
        ),
        (
            lambda x: augment.maybe(augment.random_flip, 1.1),
            "maybe: probability must be a number in",
        ),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ConfigError) as error:
        call(jnp.ones((4, 4, 3)))
    assert message in str(error.value)
    with pytest.raises(TypeError, match=r"compose: functions must be a function, got 3; give f\(k"):
        augment.compose(augment.random_flip, 3)
