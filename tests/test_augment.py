"""What holds for every augmentation of the catalogue; each one's numbers are tested beside it."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import AUGMENTATIONS, IMAGE_FUNCTIONS, MIXINGS, key

from jaxtrain import augment
from jaxtrain.errors import ConfigError, DataError

SHAPE = (8, 7, 3)
DTYPES = ["uint8", "bfloat16", "float64"]
ALL = AUGMENTATIONS | {
    name: lambda key, image, f=f: f(image) for name, f in IMAGE_FUNCTIONS.items()
}
partial = functools.partial


def images(dtype, n=4):
    rng = np.random.default_rng(0)
    if np.issubdtype(dtype, np.integer):
        return jnp.asarray(rng.integers(0, 256, (n, *SHAPE)), dtype)
    return jnp.asarray(rng.uniform(size=(n, *SHAPE)), dtype)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ALL)
def test_shape_and_dtype_stay(name, dtype, x64):
    x = jax.ShapeDtypeStruct((4, *SHAPE), dtype)
    keys = jax.eval_shape(lambda key: jax.random.split(key, 4), key(0))
    y = jax.eval_shape(jax.vmap(ALL[name]), keys, x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MIXINGS)
def test_mixings_keep_shapes_and_dtypes(name, dtype, x64):
    x = jax.ShapeDtypeStruct((4, *SHAPE), dtype)
    for q in ("float32", "bfloat16", "float64"):
        labels = jax.ShapeDtypeStruct((4, 5), q)
        y, mixed = jax.eval_shape(MIXINGS[name], key(0), x, labels)
        assert (y.shape, y.dtype, mixed.shape, mixed.dtype) == (x.shape, x.dtype, (4, 5), q)


@pytest.mark.parametrize(
    "dtype, part",
    [("float32", slice(0, None, 5))]  # all together take long to compile
    + [
        pytest.param(dtype, slice(None), marks=pytest.mark.nightly)
        for dtype in ("uint8", "float32")
    ],
)
def test_each_image_is_augmented_by_itself_within_its_range(dtype, part):
    keys, x = jax.random.split(key(0), 4), images(dtype)
    chosen = dict(list(ALL.items())[part])
    each = jax.jit(lambda keys, x: {name: jax.vmap(f)(keys, x) for name, f in chosen.items()})
    together = each(keys, x)
    again = each(keys.at[0].set(keys[3]), x.at[0].set(x[3]))
    for name, y in together.items():
        y, other = np.asarray(y), np.asarray(again[name])
        # Weights that add up to 1 may round to a little more, twice in two directions.
        assert y.min() >= 0 and y.max() <= (255 if dtype == "uint8" else 1 + 2**-22), name
        # Not of the others in the batch, and the same wherever it stands in it.
        np.testing.assert_array_equal(other[1:], y[1:], err_msg=name)
        np.testing.assert_array_equal(other[0], y[3], err_msg=name)
        # Of fewer pixels than levels, equalize changes none, as in Pillow.
        assert (y != x).any() or name in ("crop", "center_crop", "resize", "equalize"), name


IDENTITIES = {
    "random_crop": partial(augment.random_crop, padding=0),
    "random_flip": partial(augment.random_flip, probability=0.0),
    "random_affine": augment.random_affine,
    "random_rotation": partial(augment.random_rotation, degrees=0.0),
    "random_lens_distortion": partial(augment.random_lens_distortion, strength=0.0),
    "elastic": partial(augment.elastic, alpha=0.0, sigma=1.0),
    "color_jitter": augment.color_jitter,
    "color_jitter, traced": lambda key, x: jax.vmap(
        lambda s: augment.color_jitter(key, x, brightness=s, contrast=s, saturation=s, hue=s)
    )(jnp.zeros(1))[0],
    "pca_lighting": partial(augment.pca_lighting, std=0.0),
    "gaussian_noise": partial(augment.gaussian_noise, std=0.0),
    "salt_and_pepper": partial(augment.salt_and_pepper, probability=0.0),
    "random_erasing": partial(augment.random_erasing, probability=0.0),
    "maybe": augment.maybe(partial(augment.random_crop, padding=3), 0.0),
    "affine": lambda _, x: augment.affine(x, np.eye(2), (0, 0)),
    "affine, there and back": lambda _, x: _shifted(_shifted(_padded(x), (1, 2)), (-1, -2)),
    "flip, twice": lambda _, x: augment.flip(augment.flip(x, axis="both"), axis="both"),
    "rotate, two half turns": lambda _, x: augment.rotate(augment.rotate(x, 180), 180),
    "rotate, a turn": lambda _, x: augment.rotate(x, 360.0),
    "lens_distortion": lambda _, x: augment.lens_distortion(x, 0.0),
    "resize": lambda _, x: augment.resize(x, SHAPE[:2], method="cubic"),
    "blend": lambda _, x: augment.blend(x, 0, 1.0),
    "brightness": lambda _, x: augment.brightness(x, 1.0),
    "contrast": lambda _, x: augment.contrast(x, 1.0),
    "saturation": lambda _, x: augment.saturation(x, 1.0),
    "hue": lambda _, x: augment.hue(x, 0.0),
    "sharpen": lambda _, x: augment.sharpen(x, 1.0),
    "gaussian_blur": lambda _, x: augment.gaussian_blur(x, 0.0),
}


def _padded(x):
    return jnp.pad(x, ((2, 2), (2, 2), (0, 0)))


def _shifted(x, t):
    y = augment.affine(x, np.eye(2), t)
    return y if t[0] > 0 else augment.center_crop(y, SHAPE[:2])


@pytest.mark.parametrize(
    "dtype", ["uint8", "float32", pytest.param("bfloat16", marks=pytest.mark.nightly)]
)
def test_zero_strength_and_inverse_pairs_change_nothing(dtype):
    x = images(dtype, 1)[0]
    same = jax.jit(lambda key, x: {name: f(key, x) for name, f in IDENTITIES.items()})(key(0), x)
    for name, y in same.items():
        np.testing.assert_array_equal(y, x, err_msg=name)


@pytest.mark.fast
def test_keys_come_first_and_defaults_are_keywords():
    for name in {name.split(",")[0] for name in ALL | MIXINGS}:
        parameters = list(inspect.signature(getattr(augment, name)).parameters.values())
        first = parameters[0].name
        random = name in {n.split(",")[0] for n in AUGMENTATIONS | MIXINGS}
        assert first == ("key" if random else "image"), name
        for p in parameters:
            plain = p.kind is p.POSITIONAL_OR_KEYWORD and p.default is not p.empty
            assert not plain, (name, p.name)


def test_a_gradient_reaches_the_image_and_the_strength():
    x = images("float32", 1)[0]

    def f(x, degrees):
        y = augment.rotate(x, degrees)
        return (augment.contrast(y, 1.2) ** 2).sum()

    dx, degrees = jax.jit(jax.grad(f, (0, 1)))(x, 20.0)
    assert (dx != 0).any() and np.isfinite(dx).all() and np.isfinite(degrees)


@pytest.mark.parametrize("bad", [None, "ab"])
@pytest.mark.parametrize("name", ALL | MIXINGS)
def test_what_is_no_image_is_refused_by_name(name, bad):
    call = (
        (lambda: MIXINGS[name](key(0), bad, bad))
        if name in MIXINGS
        else lambda: ALL[name](key(0), bad)
    )
    where = name.split(",")[0]
    with pytest.raises(TypeError, match=rf"^{where}: images? must be an array of numbers, got"):
        call()


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 4, 0)], ids=str)
@pytest.mark.parametrize("name", ALL)
def test_images_of_no_pixels_are_refused(name, shape):
    with pytest.raises(ConfigError, match=r"image must be of (shape|3 channels|1 or 3)"):
        ALL[name](key(0), jnp.zeros(shape))


OPTIONS = {"fill": (1, 2), "high": -1, "order": 2}


@pytest.mark.fast
@pytest.mark.parametrize("name", [name for name in ALL if "," not in name])
def test_errors_name_the_function_that_was_called(name):
    f = (AUGMENTATIONS | IMAGE_FUNCTIONS)[name]
    arguments = ((key(0),) if name in AUGMENTATIONS else ()) + (jnp.ones(SHAPE),)
    for argument in inspect.signature(f).parameters.keys() & OPTIONS:
        with pytest.raises(ConfigError, match=f"^{name}: {argument} must be"):
            f(*arguments, **{argument: OPTIONS[argument]})


FILLS = {
    "rotate": lambda x, fill: augment.rotate(x, 30.0, fill=fill),
    "random_crop": lambda x, fill: augment.random_crop(key(0), x, padding=2, fill=fill),
    "cutout": lambda x, fill: augment.cutout(key(0), x, size=2, fill=fill),
    "auto_augment": lambda x, fill: augment.auto_augment(key(0), x, fill=fill),
}


@pytest.mark.fast
@pytest.mark.parametrize("bad", [300, -5, np.nan, None, (1, 2), (1, 2, 256), True, 1j], ids=str)
@pytest.mark.parametrize("name", FILLS)
def test_a_fill_is_in_the_range_of_the_type(name, bad):
    with pytest.raises((ConfigError, TypeError), match=f"^{name}: fill must be"):
        FILLS[name](jnp.zeros((4, 4, 3), jnp.uint8), bad)


@pytest.mark.fast
def test_a_fill_is_rounded_and_has_channels():
    x = jnp.ones((1, 1, 3), jnp.uint8)
    crop = functools.partial(augment.random_crop, key(0), x, padding=1, size=(3, 3))
    expected = np.full((3, 3, 3), [0, 7, 255])
    expected[1, 1] = 1
    np.testing.assert_array_equal(crop(fill=(0.4, 6.6, 255)), expected)
    np.testing.assert_array_equal(jax.jit(crop)(fill=jnp.array([0.4, 6.6, 300.0])), expected)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda x: augment.affine(x, [[np.nan, 0], [0, 1]], (0, 0)),
            ConfigError,
            "affine: matrix must be finite",
        ),
        (
            lambda x: augment.affine(x, np.eye(2), (np.inf, 0)),
            ConfigError,
            "affine: shift must be finite",
        ),
        (
            lambda x: augment.fit_lighting(np.full((2, 2, 3), np.nan)),
            DataError,
            "fit_lighting: images must be finite",
        ),
        (
            lambda x: augment.fit_lighting(x, high="a"),
            TypeError,
            "fit_lighting: high must be a finite number > 0, got 'a'",
        ),
        (
            lambda x: augment.fit_lighting(x[:1, :2]),
            DataError,
            r"fit_lighting: images must be an array with .* for each channel, got \(1, 2, 3\)",
        ),
        (
            lambda x: augment.fit_lighting(("a", "b")),
            TypeError,
            "fit_lighting: images must be numbers, got '<U1'",
        ),
        (
            lambda x: augment.crop(x, None, (2, 2)),
            TypeError,
            r"crop: corner must be a pair \(top, left\), got None",
        ),
        (
            lambda x: augment.crop(x, (0, 0), "abc"),
            TypeError,
            "crop: shape must be a pair of ints, got 'abc'",
        ),
        (
            lambda x: augment.random_scale(key(0), x, scale=2.0),
            TypeError,
            r"random_scale: scale must be a pair \(low, high\), got 2.0",
        ),
        (
            lambda x: augment.resample(x, None),
            TypeError,
            "resample: at must be an array of numbers, got None",
        ),
        (
            lambda x: augment.blend(x, "ab", 0.5),
            TypeError,
            "blend: other must be an array of numbers, got .ab.",
        ),
        (
            lambda x: augment.blend(x, jnp.ones(2), 0.5),
            ConfigError,
            r"blend: other must be of a shape that broadcasts to \(4, 4, 3\), got \(2,\)",
        ),
        (
            lambda x: augment.audio_noise(key(0), x[0], snr="a"),
            TypeError,
            "audio_noise: snr must be a number",
        ),
        (
            lambda x: augment.token_dropout(key(0), [1, 2], rate=0.1, pad=None),
            TypeError,
            "token_dropout: pad must be an int",
        ),
        (
            lambda x: augment.token_dropout(key(0), np.ones(2, np.uint8), rate=0.1, replace=256),
            ConfigError,
            r"token_dropout: replace must be an int >= 0 and below 2\*\*8, got 256",
        ),
        (
            lambda x: augment.multi_scale_crops(x, sizes=(4,), crop=None),
            TypeError,
            "multi_scale_crops: crop must be an int >= 1, got None",
        ),
        (
            lambda x: augment.predict_views(lambda x: x, x[:0], augment.flips),
            ConfigError,
            r"predict_views: images must be a batch of at least one, got \(0, 4, 3\)",
        ),
        (
            lambda x: augment.search_policy(len, trials=1, sub_policies=0),
            ConfigError,
            "search_policy: sub_policies must be an int >= 1, got 0",
        ),
        (
            lambda x: augment.autocontrast(x, cutoff=50),
            ConfigError,
            r"cutoff must be a number in \[0, 50\), got 50",
        ),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call(jnp.ones((4, 4, 3)))
