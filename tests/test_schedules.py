"""Schedules against NumPy in float64, at every kind of count."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain import schedules
from jaxtrain.errors import ConfigError

LAST = 2**31 - 1


def cosine(count, value, steps, end):
    return end + (value - end) * (1 + math.cos(math.pi * min(count, steps) / steps)) / 2


CASES = {
    "constant": (schedules.constant(0.3), lambda k: 0.3),
    "step_decay": (
        schedules.step_decay(0.3, every=30, factor=0.1),
        lambda k: 0.3 * 0.1 ** (k // 30),
    ),
    # The drop at 2^24 + 1 is one that float32 counts cannot see.
    "late step_decay": (
        schedules.step_decay(0.3, every=2**24 + 1, factor=0.5),
        lambda k: 0.3 * 0.5 ** (k // (2**24 + 1)),
    ),
    "cosine": (schedules.cosine(0.3, steps=100, end=0.01), lambda k: cosine(k, 0.3, 100, 0.01)),
    "long cosine": (schedules.cosine(0.3, steps=LAST), lambda k: cosine(k, 0.3, LAST, 0)),
    "warmup": (
        schedules.warmup(schedules.cosine(0.3, steps=100), steps=10, start=0.03),
        lambda k: 0.03 + 0.27 * k / 10 if k < 10 else cosine(k - 10, 0.3, 100, 0),
    ),
    "constant warmup": (
        schedules.warmup(0.3, steps=2**24 + 1, kind="constant", start=0.1),
        lambda k: 0.1 if k < 2**24 + 1 else 0.3,
    ),
    "join": (
        schedules.join([0.2, schedules.step_decay(0.3, every=5, factor=0.5), 0.0], [7, 2**31 - 3]),
        lambda k: 0.2 if k < 7 else 0.3 * 0.5 ** ((k - 7) // 5) if k < 2**31 - 3 else 0.0,
    ),
}
COUNTS = [0, 1, 5, 6, 7, 9, 10, 11, 12, 29, 30, 50, 60, 90, 99, 100, 101, 110, 1000]
COUNTS += [2**24 + k for k in range(-2, 4)] + [LAST - k for k in range(4)]
every_schedule = pytest.mark.parametrize("schedule, expected", CASES.values(), ids=CASES)


@pytest.mark.fast
@every_schedule
def test_values_in_float32(schedule, expected):
    expected = [expected(k) for k in COUNTS]
    found = jax.jit(jax.vmap(schedule))(jnp.array(COUNTS, jnp.int32))
    assert found.dtype == jnp.float32
    # A cosine of an angle near pi that is off by 2e-7 is off by less than 1e-7 of the largest
    # value, 0.3; 0.1**3 as exp(3 log 0.1) is good to 7 * 6e-8 relative.
    np.testing.assert_allclose(found, expected, rtol=5e-7, atol=1e-7)
    for counts in (np.array(COUNTS), jnp.array(COUNTS, jnp.int32)):
        np.testing.assert_allclose(schedule(counts), found, rtol=2e-7, atol=1e-7)
    for kind in (int, np.int32, np.int64, jnp.int32):
        one = schedule(kind(7))
        assert one.shape == () and one.dtype == jnp.float32
        np.testing.assert_allclose(one, expected[COUNTS.index(7)], rtol=5e-7)


@every_schedule
def test_values_in_float64(x64, schedule, expected):
    found = jax.vmap(schedule)(jnp.array(COUNTS, jnp.int32))
    assert found.dtype == jnp.float64
    # As above with roundings of 1.1e-16.
    np.testing.assert_allclose(found, [expected(k) for k in COUNTS], rtol=1e-14, atol=1e-15)


@pytest.mark.fast
@every_schedule
def test_past_the_largest_count(schedule, expected):
    assert float(schedule(2**31)) == float(schedule(np.int64(2**40))) == float(schedule(LAST))


@pytest.mark.fast
def test_exact_at_the_ends():
    assert float(schedules.cosine(0.3, steps=7)(0)) == np.float32(0.3)
    assert float(schedules.cosine(0.3, steps=7)(7)) == 0.0
    assert float(schedules.cosine(0.3, steps=7, end=0.1)(8)) == np.float32(0.1)
    assert float(schedules.step_decay(0.3, every=7, factor=0.1)(6)) == np.float32(0.3)
    assert float(schedules.warmup(0.3, steps=7)(0)) == 0.0
    assert float(schedules.warmup(0.3, steps=7)(7)) == np.float32(0.3)


@pytest.mark.fast
def test_traced_values():
    def at(value):
        decay = schedules.step_decay(value, every=2, factor=value)
        return schedules.warmup(decay, steps=2, start=value)(4) + schedules.cosine(value, steps=8)(
            4
        )

    found = jax.jit(jax.vmap(at))(jnp.array([0.5, 0.25]))
    np.testing.assert_allclose(found, [0.5**2 + 0.25, 0.25**2 + 0.125], rtol=1e-6)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (
            schedules.step_decay(0.3, every=30, factor=0.1),
            optax.exponential_decay(0.3, 30, 0.1, staircase=True),
        ),
        (schedules.cosine(0.3, steps=100), optax.cosine_decay_schedule(0.3, 100)),
        (
            schedules.warmup(schedules.cosine(0.3, steps=90), steps=10, start=0.03),
            optax.warmup_cosine_decay_schedule(0.03, 0.3, 10, 100),
        ),
    ],
    ids=["step_decay", "cosine", "warmup"],
)
def test_equals_optax(ours, theirs):
    counts = jnp.arange(120)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = jax.vmap(theirs)(counts)
    # Two float32 evaluations, each as far off as in test_values_in_float32.
    np.testing.assert_allclose(ours(counts), expected, rtol=1e-6, atol=2e-7)


BAD = [
    (schedules.constant, (-1,), {}, "constant: value must be a finite number >= 0, got -1"),
    (schedules.constant, (math.nan,), {}, "value must be"),
    (schedules.step_decay, (0,), {"every": 1, "factor": 1}, "step_decay: value must be"),
    (schedules.step_decay, (1,), {"every": 0, "factor": 1}, "every must be an int >= 1, got 0"),
    (schedules.step_decay, (1,), {"every": 1, "factor": 0}, "factor must be"),
    (schedules.cosine, (math.inf,), {"steps": 1}, "cosine: value must be"),
    (schedules.cosine, (1,), {"steps": -1}, "steps must be an int >= 1, got -1"),
    (schedules.cosine, (1,), {"steps": 1, "end": -1}, "end must be"),
    (schedules.warmup, (-1,), {"steps": 1}, "value must be"),
    (schedules.warmup, (1,), {"steps": 0}, "warmup: steps must be"),
    (schedules.warmup, (1,), {"steps": 1, "kind": "lin"}, "kind must be one of"),
    (schedules.warmup, (1,), {"steps": 1, "start": -1}, "start must be"),
    (schedules.warmup, (1,), {"steps": 1, "kind": "constant"}, "start must be a finite number > 0"),
    (schedules.join, ([1, 2], []), {}, "boundaries must be 1 counts"),
    (schedules.join, ([1, 2, 3], [5, 5]), {}, "boundaries must be increasing"),
    (schedules.join, ([1, 2], [0]), {}, "boundaries must be an int >= 1"),
    (schedules.join, ([1, -2], [1]), {}, "value must be"),
    (schedules.join, ([], []), {}, "schedules must be"),
]


@pytest.mark.fast
@pytest.mark.parametrize("make, positional, named, message", BAD)
def test_bad_arguments(make, positional, named, message):
    with pytest.raises(ConfigError, match=message):
        make(*positional, **named)


@pytest.mark.fast
def test_wrong_kinds():
    with pytest.raises(TypeError, match="steps must be an int"):
        schedules.cosine(1.0, steps=1.5)
    with pytest.raises(TypeError, match="value must be"):
        schedules.warmup("cosine", steps=1)
    with pytest.raises(TypeError, match="count must be an integer, got"):
        schedules.constant(1.0)(0.5)
