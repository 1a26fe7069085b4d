"""Augmentations of signals and of tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key
from scipy import stats

from jaxtrain import augment
from jaxtrain.errors import ConfigError

N = 400
PAD = 0
TOKENS = jnp.array([5, 6, 7, 8, 9, PAD, PAD, PAD])


def many(f, x, **options):
    """Returns f of x under many keys."""
    keys = jax.random.split(key(0), N)
    return np.asarray(jax.jit(jax.vmap(lambda k: f(k, x, **options)))(keys))


@pytest.mark.fast
def test_noise_has_the_power_that_is_asked_for():
    x = jnp.asarray(3 * np.sin(np.arange(1000.0)), np.float32)
    for options, std in ((dict(snr=20.0), 0.3 / np.sqrt(2)), (dict(std=0.5), 0.5)):
        noise = many(augment.audio_noise, x, **options) - np.asarray(x)
        # 400,000 draws: five deviations of a deviation and of a mean. The power of the sine over
        # 1000 samples is off by 1 / (2000 sin 1) of 1/2 at most, its root by half of that.
        n = noise.size
        assert noise.std() == pytest.approx(std, rel=5 / np.sqrt(2 * n) + 3e-4)
        assert abs(noise.mean()) < 5 * std / np.sqrt(n)
        assert stats.kstest(noise[:, 0], stats.norm(0, std).cdf).pvalue > 1e-3
    quiet = augment.audio_noise(key(0), x, snr=np.inf)
    np.testing.assert_array_equal(quiet, x)


@pytest.mark.fast
def test_shift_and_gain():
    x = jnp.arange(1, 7)
    for circular in (False, True):
        y = many(augment.audio_shift, x, limit=2, circular=circular)
        expected = {}
        for shift in range(-2, 3):
            row = np.roll(x, shift)
            if not circular and shift:
                row[slice(None, shift) if shift > 0 else slice(shift, None)] = 0
            expected[tuple(row.tolist())] = shift
        found = [expected[tuple(row)] for row in y.tolist()]
        # Each of five with the probability 1/5, within five standard deviations.
        assert (abs(np.bincount(np.array(found) + 2) - N / 5) < 5 * np.sqrt(N * 0.16)).all()
    gain = 20 * np.log10(many(augment.audio_gain, jnp.ones((3, 2)), decibels=6.0))
    assert np.ptp(gain, axis=(1, 2)).max() == 0
    assert stats.kstest(gain[:, 0, 0], "uniform", (-6, 12)).pvalue > 1e-3
    # Of 400 none is within 0.3 of an end with probability (1 - 0.3 / 12)^400 = 4e-5. The power and
    # the logarithm are right to some units of float32, 4.8e-7 at 6.
    assert 5.7 < gain.max() < 6 + 2e-6 and -6 - 2e-6 < gain.min() < -5.7
    loud = many(augment.audio_gain, jnp.array([30000, -7], jnp.int16), decibels=20.0)
    assert loud.dtype == np.int16 and loud[:, 0].min() > 0 and loud[:, 0].max() == 32767


@pytest.mark.fast
def test_nothing_happens_at_zero():
    x = jnp.asarray(np.random.default_rng(0).normal(size=9), np.float32)
    np.testing.assert_array_equal(augment.audio_noise(key(0), x, std=0.0), x)
    np.testing.assert_array_equal(augment.audio_shift(key(0), x, limit=0), x)
    np.testing.assert_array_equal(augment.audio_gain(key(0), x, decibels=0.0), x)
    table = jnp.ones((10, 2), jnp.int32)
    for f in (
        functools.partial(augment.token_dropout, rate=0.0),
        functools.partial(augment.random_swap, swaps=0),
        functools.partial(augment.synonyms, table=table, rate=0.0),
        functools.partial(augment.insert_words, words=[3], rate=0.0),
    ):
        np.testing.assert_array_equal(f(key(0), TOKENS), TOKENS)


@pytest.mark.fast
def test_token_dropout_keeps_the_order_and_fills_up():
    y = many(augment.token_dropout, TOKENS, rate=0.3)
    length = (y != PAD).sum(1)
    # 2000 tokens of which 0.7 stay; five standard deviations.
    assert abs(length.sum() - 0.7 * 5 * N) < 5 * np.sqrt(5 * N * 0.21)
    for row, n in zip(y, length, strict=True):
        assert (np.diff(row[:n]) > 0).all() and (row[n:] == PAD).all()
    some = many(augment.token_dropout, TOKENS, rate=0.5, words=[6, 9])
    assert set(np.unique(some, axis=0)[:, :3].ravel()) == {5, 6, 7, 8}
    assert all({5, 7, 8} <= set(row) for row in some.tolist())
    unknown = many(augment.token_dropout, TOKENS, rate=0.5, replace=1)
    assert (unknown[:, 5:] == PAD).all()
    assert ((unknown[:, :5] == np.asarray(TOKENS)[:5]) | (unknown[:, :5] == 1)).all()
    assert abs((unknown[:, :5] == 1).mean() - 0.5) < 5 * np.sqrt(0.25 / (5 * N))


@pytest.mark.fast
def test_swaps_exchange_two_tokens_and_leave_the_padding():
    y = many(augment.random_swap, TOKENS)
    assert (np.sort(y[:, :5]) == np.asarray(TOKENS)[:5]).all() and (y[:, 5:] == PAD).all()
    moved = (y != np.asarray(TOKENS)).sum(1)
    # The two places are the same with probability 1/5.
    assert set(moved) == {0, 2} and abs((moved == 0).sum() - N / 5) < 5 * np.sqrt(N * 0.16)
    empty = augment.random_swap(key(0), jnp.zeros(4, jnp.int32), swaps=3)
    np.testing.assert_array_equal(empty, np.zeros(4))
    assert augment.random_swap(key(0), []).shape == (0,)


@pytest.mark.fast
def test_synonyms_come_from_the_table():
    table = np.full((10, 3), -1, np.int32)
    table[5], table[7, 1] = [1, 2, 3], 4
    y = many(augment.synonyms, TOKENS, table=jnp.asarray(table), rate=0.6)
    np.testing.assert_array_equal(y[:, [1, 3, 4]], np.tile([6, 8, 9], (N, 1)))
    count = np.bincount(y[:, 0], minlength=6)[[1, 2, 3, 5]]
    expected = N * np.array([0.2, 0.2, 0.2, 0.4])
    assert (abs(count - expected) < 5 * np.sqrt(expected)).all()
    assert set(y[:, 2]) == {4, 7}


@pytest.mark.fast
def test_words_are_put_in_after_tokens():
    y = many(augment.insert_words, TOKENS, words=[2, 3], rate=0.3)
    for row in y.tolist():
        tokens = [t for t in row if t not in (2, 3, PAD)]
        assert tokens == [5, 6, 7, 8, 9][: len(tokens)] and row[0] == 5
        end = row.index(PAD) if PAD in row else len(row)
        assert set(row[end:]) <= {PAD}
    put_in = np.isin(y, [2, 3]).sum(1)
    # 1.5 of them, less what falls off: of four the last with probability 4/5, of five one.
    mean = 1.5 - 0.8 * 5 * 0.3**4 * 0.7 - 0.3**5
    assert abs(put_in.mean() - mean) < 5 * 1.03 / np.sqrt(N) and put_in.max() >= 3
    assert abs((y == 2).sum() - (y == 3).sum()) < 5 * np.sqrt(put_in.sum())


@pytest.mark.fast
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: augment.audio_noise(key(0), jnp.ones(3)), "snr and std must be one number"),
        (lambda: augment.audio_shift(key(0), jnp.ones(3), limit=-1), "limit must be an int >= 0"),
        (lambda: augment.audio_gain(key(0), jnp.ones(3), decibels=-1), "decibels must be"),
        (lambda: augment.token_dropout(key(0), TOKENS, rate=1.0), "rate must be a number in"),
        (lambda: augment.random_swap(key(0), TOKENS[None]), r"tokens must be of shape \(length,\)"),
        (
            lambda: augment.synonyms(key(0), TOKENS, jnp.arange(3), rate=0.1),
            "table must be of shape",
        ),
        (lambda: augment.insert_words(key(0), TOKENS, [], rate=0.1), "words must be ids"),
        (lambda: augment.insert_words(key(0), TOKENS, [1.5], rate=0.1), "words must be integers"),
        (
            lambda: augment.synonyms(key(0), "ab", [[1]], rate=0.1),
            "synonyms: tokens must be an arr",
        ),
        (lambda: augment.audio_gain(key(0), None, decibels=1), "audio_gain: signal must be an arr"),
        (
            lambda: augment.audio_gain(key(0), jnp.ones(3, jnp.uint8), decibels=1),
            "signal must be of signed integers or floats, got 'uint8'; take 128 from uint8",
        ),
        (lambda: augment.audio_shift(key(0), [], limit=1), r"signal must be of shape \(samples,"),
        (
            lambda: augment.audio_gain(key(0), np.ones((2, 9, 1)), decibels=1.0),
            r"signal must be .*, got \(2, 9, 1\); jax.vmap takes a batch",
        ),
    ],
)
def test_refuses(call, message):
    with pytest.raises((ConfigError, TypeError), match=message):
        call()


@pytest.mark.fast
def test_an_id_outside_the_table_has_no_synonyms():
    tokens = jnp.array([-1, 3, 200], jnp.int32)
    y = augment.synonyms(key(0), tokens, jnp.full((3, 1), 2), rate=0.999)
    np.testing.assert_array_equal(y, tokens)
