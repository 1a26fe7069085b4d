import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import augment
from jaxtrain.errors import ConfigError

KEYS = 200


def augmented(f, image, **options):
    """Returns f of the image under many keys, (KEYS, height, width, channels)."""
    keys = jax.random.split(jax.random.key(0), KEYS)
    return np.asarray(jax.jit(jax.vmap(lambda key: f(key, image, **options)))(keys))


@pytest.fixture
def ramps():
    """An image whose value at each pixel is the pixel's place from the centre."""
    return jnp.moveaxis(jnp.indices((9, 9), jnp.float32) - 4, 0, -1)


@pytest.mark.fast
def test_random_crop_shifts_by_whole_pixels_up_to_the_padding(ramps):
    y = augmented(augment.random_crop, ramps, padding=2)
    shifts = {tuple(shift) for shift in y[:, 4, 4].tolist()}
    assert shifts == {(a, b) for a in range(-2, 3) for b in range(-2, 3)}
    # The image moves as a whole.
    inner = y[:, 3:6, 3:6] - y[:, 4:5, 4:5]
    np.testing.assert_array_equal(inner, np.broadcast_to(ramps[3:6, 3:6], inner.shape))


@pytest.mark.fast
def test_random_affine_reads_at_an_affine_map_of_the_pixels(ramps):
    # Interpolation is exact on a ramp: the values are the places that were read.
    y = augmented(augment.random_affine, ramps, distortion=0.2, shift=1.0)
    shift = y[:, 4, 4]
    matrix = np.stack([y[:, 5, 4] - shift, y[:, 4, 5] - shift], -1)
    places = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij"), -1)
    expected = np.einsum("kij,abj->kabi", matrix, places) + shift[:, None, None]
    # Places below 8, a few roundings of 2^-24 each.
    np.testing.assert_allclose(y[:, 3:6, 3:6], expected, rtol=0, atol=1e-5)
    # Of 200 uniform numbers the largest falls below 0.9 of the bound once in 10^9 times.
    for entry, bound in [*((e, 0.2) for e in (matrix - np.eye(2)).reshape(-1, 4).T)] + [
        (t, 1.0) for t in shift.T
    ]:
        assert 0.9 * bound < entry.max() < bound + 1e-5
        assert 0.9 * bound < -entry.min() < bound + 1e-5


@pytest.mark.fast
def test_random_affine_without_distortion_is_the_identity():
    image = jnp.asarray(np.random.default_rng(0).integers(0, 256, (8, 7, 3), np.uint8))
    y = augment.random_affine(jax.random.key(0), image, distortion=0.0)
    np.testing.assert_array_equal(y, image)


def test_random_affine_rounds_integers_and_fills_with_zeros():
    image = jnp.full((9, 9, 1), 7, jnp.uint8)
    y = augmented(augment.random_affine, image, distortion=0.2, shift=1.0)
    assert (y[:, 3:6, 3:6] == 7).all()
    assert (y[:, 0, 0] == 0).any()


def test_random_affine_keeps_float64(x64):
    image = np.random.default_rng(0).normal(size=(5, 5, 1))
    y = augment.random_affine(jax.random.key(0), jnp.asarray(image), distortion=0.0)
    np.testing.assert_array_equal(y, image)


@pytest.mark.fast
@pytest.mark.parametrize("options", [dict(distortion=1.0), dict(distortion=0.1, shift=-1)])
def test_random_affine_refuses(options):
    with pytest.raises(ConfigError, match="^random_affine: (distortion|shift) must be"):
        augment.random_affine(jax.random.key(0), jnp.ones((4, 4, 1)), **options)
