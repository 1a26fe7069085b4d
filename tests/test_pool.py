"""Fractional max-pooling against Graham's sequences and loops over their regions."""

import dataclasses
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key

from jaxtrain import nn
from jaxtrain.errors import ConfigError

TRAIN = nn.Context(train=True, key=key(1))
SEQUENCES, OVERLAPS = ("pseudorandom", "random"), (False, True)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def outputs(layer, x, ctx=nn.EVAL):
    return np.asarray(jax.jit(layer.apply)({}, {}, jnp.asarray(x), ctx)[0])


def pseudorandom(N, m):
    """The sequences ceil(N / m (i + u)) - ceil(N / m u) of all u; u in (0, 1) of the paper."""
    us = (np.arange(4 * N) + 0.5) / (4 * N)  # between the places where one of them changes
    i = np.arange(m + 1)
    return {tuple((np.ceil(N / m * (i + u)) - np.ceil(N / m * u)).astype(int)) for u in us}


def random(N, m):
    """The sequences of all orders of the floor and the ceiling of N / m."""
    steps = [N // m + 1] * (N % m) + [N // m] * (m - N % m)
    return {(0, *itertools.accumulate(order)) for order in itertools.permutations(steps)}


def pooled(x, sequences, overlapping):
    """Loops over the regions of one example, (*spatial, channels), with a sequence per axis."""
    shape = [len(a) - 1 for a in sequences]
    y = np.empty((*shape, x.shape[-1]), x.dtype)
    for place in np.ndindex(*shape):
        sides = zip(sequences, place, strict=True)
        region = tuple(slice(a[i], a[i + 1] + overlapping) for a, i in sides)
        y[place] = x[region].reshape(-1, x.shape[-1]).max(0)
    return y


@pytest.mark.parametrize("n, ratio", [(9, 1.5), (7, 1.2), (5, 1.9)])
@pytest.mark.parametrize("overlapping", OVERLAPS)
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_the_sequences_are_those_of_the_paper_and_all_of_them(sequence, overlapping, n, ratio):
    m, N = math.floor(n / ratio), n - overlapping
    x = np.broadcast_to(np.arange(n, dtype=np.float32)[:, None], (200, n, 1))
    layer = nn.fractional_max_pool(ratio, sequence=sequence, overlapping=overlapping)
    last = outputs(layer, x, TRAIN)[..., 0].astype(int)  # of each region
    drawn = {(0, *row) for row in (last + 1 - overlapping).tolist()}
    # The rarest of at most 20 is missed by 200 draws with a probability of 4e-5.
    families = {"pseudorandom": pseudorandom, "random": random}[sequence](N, m)
    assert drawn == families and all(a[-1] == N for a in drawn)
    if sequence == "pseudorandom":
        in_eval = outputs(layer, x[:2], nn.EVAL)[..., 0].astype(int)
        assert tuple(in_eval[0] + 1 - overlapping) in {a[1:] for a in families}
        np.testing.assert_array_equal(*in_eval)


@pytest.mark.parametrize("overlapping", OVERLAPS)
@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("train", [False, True])
def test_equals_a_loop_over_regions(train, sequence, overlapping):
    """The sequences of an example are read off an image that rises along each axis in turn."""
    x, ctx = numbers(3, 7, 10, 2), TRAIN if train else nn.EVAL
    layer = nn.fractional_max_pool(1.4, sequence=sequence, overlapping=overlapping)
    ramps = np.stack(np.meshgrid(*map(np.arange, (7, 10)), indexing="ij"), -1).astype(np.float32)
    ends = outputs(layer, np.stack([ramps] * 3), ctx).astype(int) + 1 - overlapping
    assert ends.shape == (3, 5, 7, 2)
    sequences = [[(0, *e[:, 0, 0]), (0, *e[0, :, 1])] for e in ends]
    want = [pooled(x_i, a, overlapping) for x_i, a in zip(x, sequences, strict=True)]
    np.testing.assert_array_equal(outputs(layer, x, ctx), want)
    # In train mode each example and axis has its own; in eval mode all have the same.
    assert (len({str(a) for a in sequences}) > 1) == train


@pytest.mark.fast
def test_output_sizes():
    """floor(n / ratio) for any ratio in (1, 2), also where the division rounds down."""
    for n, ratio in itertools.product((2, 3, 7, 12, 33, 39), (1.001, 1.1, 1.2, 2**0.5, 1.999)):
        layer, x = nn.fractional_max_pool(ratio), jax.ShapeDtypeStruct((2, n, 3), np.float32)
        y, _ = jax.eval_shape(layer.apply, {}, {}, x, nn.EVAL)
        assert y.shape == (2, math.floor(round(n / ratio, 6)), 3)
    assert outputs(nn.fractional_max_pool(1.1), numbers(1, 33, 1)).shape == (1, 30, 1)


@pytest.mark.fast
def test_regions_depend_on_the_example_and_not_on_its_batch():
    layer, x = nn.fractional_max_pool(1.5, sequence="random"), numbers(6, 9, 9, 1)
    index = jnp.array([3, 1, 4, 0, 5, 9], jnp.int32)
    whole = outputs(layer, x, dataclasses.replace(TRAIN, index=index))
    for part in (slice(0, 2), slice(3, 6)):
        ctx = dataclasses.replace(TRAIN, index=index[part])
        np.testing.assert_array_equal(outputs(layer, x[part], ctx), whole[part])
    other = dataclasses.replace(TRAIN, index=index, key=key(2))
    assert not np.array_equal(outputs(layer, x, other), whole)
    places = np.stack(np.meshgrid(*[np.arange(9, dtype=np.float32)] * 2, indexing="ij"), -1)
    last = outputs(layer, np.stack([places] * 6), TRAIN)
    rows, columns = last[:, :, 0, 0], last[:, 0, :, 1]
    assert not np.array_equal(rows, columns) and len(np.unique(rows, axis=0)) > 1


def test_gradient_goes_to_the_first_maximum():
    """Counts how often each pixel is the first maximum of its region, in reading order."""
    x = np.random.default_rng(0).integers(0, 3, (2, 6, 6, 1)).astype(np.float32)
    layer = nn.fractional_max_pool(1.5, overlapping=True)
    got = jax.grad(lambda x: layer.apply({}, {}, x, nn.EVAL)[0].sum())(jnp.asarray(x))
    a = (0, *outputs(layer, np.arange(6, dtype=np.float32).reshape(1, 6, 1)).ravel().astype(int))
    want = np.zeros_like(x)
    for b, i, j in itertools.product(range(2), range(4), range(4)):
        region = x[b, a[i] : a[i + 1] + 1, a[j] : a[j + 1] + 1, 0]
        row, column = np.unravel_index(region.argmax(), region.shape)
        want[b, a[i] + row, a[j] + column, 0] += 1
    np.testing.assert_array_equal(got, want)


@pytest.mark.fast
def test_odd_inputs():
    layer = nn.fractional_max_pool(1.5)
    assert outputs(layer, numbers(0, 6, 6, 2)).shape == (0, 4, 4, 2)
    for dtype in (jnp.bfloat16, jnp.float16, jnp.int32):
        x = jnp.asarray(1e4 * numbers(2, 6, 3), dtype)
        np.testing.assert_array_equal(
            outputs(layer, x), outputs(layer, x.astype(np.float32)).astype(dtype)
        )
    x = numbers(1, 6, 1)
    x[0, 0] = np.nan
    assert np.isnan(outputs(layer, x)).ravel().tolist() == [True, False, False, False]
    again = nn.build(json.loads(json.dumps(nn.describe(layer.replace(sequence="random")))))
    np.testing.assert_array_equal(
        outputs(again, numbers(2, 6, 3)), outputs(layer, numbers(2, 6, 3))
    )


@pytest.mark.fast
def test_what_does_not_fit_is_refused():
    for ratio in (1.0, 2, 0.5):
        with pytest.raises(ConfigError, match=r"ratio must be a number in \(1, 2\), got .* max_po"):
            nn.fractional_max_pool(ratio)
    with pytest.raises(ConfigError, match="sequence must be one of .*; did you mean 'random'"):
        nn.fractional_max_pool(1.5, sequence="randm")
    layer = nn.fractional_max_pool(1.5)
    for shape in ((1, 4, 1, 2), (4, 2)):
        with pytest.raises(
            ConfigError, match=r"x must be \(batch, \*spatial, channels\), of at le"
        ):
            outputs(layer, numbers(*shape))
    with pytest.raises(ValueError, match="Context: key must be given where a layer samples"):
        outputs(layer, numbers(1, 4, 2), nn.Context(train=True))
