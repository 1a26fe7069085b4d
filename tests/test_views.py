"""Views of an image at test time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import augment
from jaxtrain.errors import ConfigError

IMAGE = jnp.arange(7 * 10 * 2, dtype=jnp.int32).reshape(7, 10, 2)


@pytest.mark.fast
def test_five_and_ten_crop():
    x, five = np.asarray(IMAGE), augment.five_crop(IMAGE, 4)
    # The middle of 7 - 4 = 3 and 10 - 4 = 6 free pixels: 1.5, rounded down, and 3.
    corners = [(0, 0), (0, 6), (3, 0), (3, 6), (1, 3)]
    np.testing.assert_array_equal(five, [x[i : i + 4, j : j + 4] for i, j in corners])
    np.testing.assert_array_equal(five[4], augment.center_crop(IMAGE, (4, 4)))
    ten = augment.ten_crop(IMAGE, 4)
    np.testing.assert_array_equal(ten, np.concatenate([five, np.asarray(five)[:, :, ::-1]]))
    assert ten.dtype == IMAGE.dtype
    whole = augment.five_crop(IMAGE[:, :7], 7)
    np.testing.assert_array_equal(whole, np.stack([x[:, :7]] * 5))
    np.testing.assert_array_equal(augment.flips(IMAGE), [x, x[:, ::-1]])


def test_multi_scale_crops_are_the_fifty_views():
    image = jnp.asarray(np.random.default_rng(0).integers(0, 256, (12, 18, 3)), np.uint8)
    sizes = (6, 7, 9, 12, 15)
    views = jax.jit(functools.partial(augment.multi_scale_crops, sizes=sizes, crop=6))(image)
    assert views.shape == (50, 6, 6, 3) and views.dtype == np.uint8
    np.testing.assert_array_equal(views[30:40], augment.ten_crop(image, 6))  # 12: as it is
    smallest = augment.resize(image, (6, 9))
    np.testing.assert_array_equal(views[:10], augment.ten_crop(smallest, 6))
    shape = jax.eval_shape(augment.multi_scale_crops, jax.ShapeDtypeStruct((300, 400, 3), np.uint8))
    assert shape.shape == (50, 224, 224, 3)


def probabilities(x):
    """Something that is not linear and sees where things are."""
    weight = jnp.cos(jnp.arange(x[0].size * 3, dtype=np.float32)).reshape(-1, 3)
    return jax.nn.softmax(x.reshape(len(x), -1) @ weight)


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_predict_views_averages_probabilities(batch_size):
    images = jnp.asarray(np.random.default_rng(0).normal(size=(5, 6, 7, 1)), np.float32)
    views = functools.partial(augment.ten_crop, size=4)
    f = functools.partial(augment.predict_views, probabilities, views=views, batch_size=batch_size)
    p = jax.jit(f)(images)
    expected = [np.mean(probabilities(views(image)), 0) for image in images]
    # Logits are sums of 16 products below 8, each rounded by 2^-22; p changes by as much of itself.
    np.testing.assert_allclose(p, expected, rtol=16 * 2**-22)
    np.testing.assert_allclose(p.sum(1), 1, rtol=6 * 2**-24)  # three quotients, a mean, two sums
    logits = [jax.nn.softmax(jnp.log(probabilities(views(x))).mean(0)) for x in images]
    assert np.abs(p - np.array(logits)).max() > 0.01  # the mean of the logits is another


@pytest.mark.fast
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: augment.five_crop(IMAGE, 8), "five_crop: size must be at most"),
        (lambda: augment.ten_crop(IMAGE, 0), "size must be an int >= 1"),
        (lambda: augment.multi_scale_crops(IMAGE, sizes=(5,), crop=6), "sizes must be an int >= 6"),
        (lambda: augment.multi_scale_crops(IMAGE, sizes=()), "sizes must be a sequence of ints"),
        (
            lambda: augment.predict_views(jnp.mean, jnp.ones((1, 4, 4, 1)), augment.flips),
            "what predict returns must be one row for each of 2 views",
        ),
        (
            lambda: augment.predict_views(probabilities, IMAGE[None], augment.flips, batch_size=0),
            "predict_views: batch_size must be an int >= 1",
        ),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
