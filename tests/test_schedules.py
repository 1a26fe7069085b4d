"""Schedules against NumPy in float64, at every kind of count, and against torch and optax."""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxtrain import schedules
from jaxtrain.errors import ConfigError

LAST = 2**31 - 1
TORCH = np.load(pathlib.Path(__file__).parent / "vectors" / "torch_schedules.npz")


# The formulas, in Python's integers and float64.


def cosine(count, value, steps, end=0.0):
    return end + (value - end) * (1 + math.cos(math.pi * min(count, steps) / steps)) / 2


def rising_cosine(count, value, steps, end):
    # cos(pi * count / steps), the multiples of its period taken off exactly.
    return end + (value - end) * (1 + math.cos(math.pi * (count % (2 * steps)) / steps)) / 2


def smith(count, low, high, steps, scale=lambda cycle: 1.0):
    """Smith's section 3.1, with x * steps in integers."""
    cycle = 1 + count // (2 * steps)
    x = abs(count - (2 * cycle - 1) * steps) / steps
    return low + (high - low) * max(0, 1 - x) * scale(cycle)


def sgdr(count, value, length, mult=1, decay=1.0, end=0.0):
    if mult == 1:
        cycle, count = divmod(count, length)
    else:
        cycle = 0
        while count >= length:
            count, length, cycle = count - length, length * mult, cycle + 1
    return cosine(count, max(value * decay**cycle, end), length, end)


def piecewise(count, points, bend):
    """Between (count, value) points; what bends takes the fraction of the way."""
    for (a, x), (b, y) in zip(points, points[1:], strict=False):
        if count <= b:
            return x + (y - x) * bend((count - a) / (b - a))
    return y


def half_cosine(t):
    return (1 - math.cos(math.pi * t)) / 2


def transformer(count, d, w):
    t = count + 1
    return d**-0.5 * min(t**-0.5, t * w**-1.5)


def our_transformer(d, w):
    peak = (d * w) ** -0.5
    after = schedules.inverse_sqrt(peak, rate=1 / w)
    return schedules.warmup(after, steps=w - 1, start=peak / w)


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
    "multi_step": (
        schedules.multi_step(0.3, boundaries=[7, 30, 60, 2**24 + 1, LAST - 1], factor=0.1),
        lambda k: 0.3 * 0.1 ** sum(k >= b for b in (7, 30, 60, 2**24 + 1, LAST - 1)),
    ),
    "exponential": (schedules.exponential(0.3, rate=0.01), lambda k: 0.3 * math.exp(-0.01 * k)),
    "inverse_time": (schedules.inverse_time(0.3, rate=0.1), lambda k: 0.3 / (1 + 0.1 * k)),
    "inverse_power": (schedules.inverse_power(0.3, power=0.7), lambda k: 0.3 / (k + 1) ** 0.7),
    "inverse_sqrt": (schedules.inverse_sqrt(0.3), lambda k: 0.3 / math.sqrt(k + 1)),
    "transformer": (our_transformer(512, 50), lambda k: transformer(k, 512, 50)),
    "linear": (schedules.linear(0.3, steps=100), lambda k: 0.3 * max(0, 1 - k / 100)),
    "linear_to": (
        schedules.linear_to(0.3, steps=100, end=0.003),
        lambda k: (1 - min(k / 100, 1)) * 0.3 + min(k / 100, 1) * 0.003,
    ),
    "rising linear_to": (
        schedules.linear_to(0.0, steps=LAST, end=0.3),
        lambda k: 0.3 * k / LAST,
    ),
    "polynomial": (
        schedules.polynomial(0.3, steps=100, power=2, end=0.01),
        lambda k: 0.01 + 0.29 * max(0, 1 - k / 100) ** 2,
    ),
    # A root near the end magnifies every error of 1 - t.
    "late polynomial": (
        schedules.polynomial(0.3, steps=2**24 + 3, power=0.5),
        lambda k: 0.3 * (max(0, 2**24 + 3 - k) / (2**24 + 3)) ** 0.5,
    ),
    "cosine": (schedules.cosine(0.3, steps=100, end=0.01), lambda k: cosine(k, 0.3, 100, 0.01)),
    "long cosine": (schedules.cosine(0.3, steps=LAST), lambda k: cosine(k, 0.3, LAST)),
    "rising cosine": (
        schedules.cosine(0.3, steps=9, end=0.01, after="rise"),
        lambda k: rising_cosine(k, 0.3, 9, 0.01),
    ),
    "triangular": (
        schedules.triangular(0.01, peak=0.3, steps=11),
        lambda k: smith(k, 0.01, 0.3, 11),
    ),
    "triangular2": (
        schedules.cyclic(0.01, peak=0.3, steps=11, mode="triangular2"),
        lambda k: smith(k, 0.01, 0.3, 11, lambda cycle: 0.5 ** min(cycle - 1, 1000)),
    ),
    "exp_range": (
        schedules.cyclic(0.01, peak=0.3, steps=11, mode="exp_range", rate=0.01),
        lambda k: smith(k, 0.01, 0.3, 11, lambda cycle: math.exp(-0.01 * k)),
    ),
    "skewed cyclic": (
        schedules.cyclic(0.01, peak=0.3, steps=3, down=8),
        lambda k: 0.01 + 0.29 * (k % 11 / 3 if k % 11 <= 3 else (11 - k % 11) / 8),
    ),
    "sgdr": (schedules.sgdr(0.3, first_cycle=10), lambda k: sgdr(k, 0.3, 10)),
    "growing sgdr": (
        schedules.sgdr(0.3, first_cycle=3, mult=2, decay=0.7, end=0.05),
        lambda k: sgdr(k, 0.3, 3, 2, 0.7, 0.05),
    ),
    # Restarts at 2^24 + 1 and a last cycle that ends past the last count.
    "late sgdr": (
        schedules.sgdr(0.3, first_cycle=2**24 + 1, mult=10**9),
        lambda k: sgdr(k, 0.3, 2**24 + 1, 10**9),
    ),
    "snapshot": (
        schedules.snapshot(0.3, steps=100, cycles=6),
        lambda k: 0.15 * (math.cos(math.pi * (k % 17) / 17) + 1),
    ),
    "one_cycle": (
        schedules.one_cycle(0.3, steps=100),
        lambda k: piecewise(k, [(0, 0.012), (29, 0.3), (99, 1.2e-6)], half_cosine),
    ),
    "long one_cycle": (
        schedules.one_cycle(0.3, steps=LAST, rise=0.5, start=0.1, end=0.0),
        lambda k: piecewise(k, [(0, 0.1), (LAST / 2 - 1, 0.3), (LAST - 1, 0.0)], half_cosine),
    ),
    "linear one_cycle": (
        schedules.one_cycle(
            0.3, steps=100, rise=0.4, phases=3, kind="linear", endpoint=False, start=0.01, end=0.001
        ),
        lambda k: piecewise(k, [(0, 0.01), (40, 0.3), (80, 0.01), (100, 0.001)], float),
    ),
    "warmup": (
        schedules.warmup(schedules.cosine(0.3, steps=100), steps=10, start=0.03),
        lambda k: 0.03 + 0.27 * k / 10 if k < 10 else cosine(k - 10, 0.3, 100),
    ),
    "constant warmup": (
        schedules.warmup(0.3, steps=2**24 + 1, kind="constant", start=0.1),
        lambda k: 0.1 if k < 2**24 + 1 else 0.3,
    ),
    "goyal_warmup": (
        schedules.goyal_warmup(0.05, 6, steps=50),
        lambda k: 0.05 + 0.005 * min(k, 50),
    ),
    "goyal_warmup and after": (
        schedules.goyal_warmup(
            0.05, 6, steps=10, after=schedules.step_decay(0.3, every=20, factor=0.1)
        ),
        lambda k: 0.05 + 0.025 * k if k < 10 else 0.3 * 0.1 ** ((k - 10) // 20),
    ),
    "join": (
        schedules.join([0.2, schedules.step_decay(0.3, every=5, factor=0.5), 0.0], [7, 2**31 - 3]),
        lambda k: 0.2 if k < 7 else 0.3 * 0.5 ** ((k - 7) // 5) if k < 2**31 - 3 else 0.0,
    ),
    "stretch": (
        schedules.stretch(schedules.cosine(0.3, steps=30), 2.5),
        lambda k: cosine(2 * k // 5, 0.3, 30),
    ),
    "stretched to the end": (
        schedules.stretch(schedules.cosine(0.3, steps=300), (2**31 - 3) // 300),
        lambda k: cosine(k // ((2**31 - 3) // 300), 0.3, 300),
    ),
    "compressed": (
        schedules.stretch(schedules.step_decay(0.3, every=35, factor=0.9), 0.3),
        lambda k: 0.3 * 0.9 ** (10 * k // 3 // 35),
    ),
    "compressed to the end": (
        schedules.stretch(schedules.linear_to(0.0, steps=LAST, end=0.3), 2 / 7),
        lambda k: 0.3 * min(7 * k // 2, LAST) / LAST,
    ),
}
COUNTS = [0, 1, 5, 6, 7, 9, 10, 11, 12, 20, 29, 30, 40, 49, 50, 60, 80, 90, 98, 99, 100, 101, 110]
COUNTS += [1000, *(2**24 + k for k in range(-2, 5)), *(2**31 - k for k in range(10, 0, -1))]
every_schedule = pytest.mark.parametrize("schedule, expected", CASES.values(), ids=CASES)


@pytest.mark.fast
@every_schedule
def test_values_in_float32(schedule, expected):
    expected = [expected(k) for k in COUNTS]
    found = jax.jit(jax.vmap(schedule))(jnp.array(COUNTS, jnp.int32))
    assert found.dtype == jnp.float32
    # A cosine of an angle near pi that is off by 2e-7 is off by less than 1e-7 of the largest
    # value, 0.3, and so is a point between two values; 0.1**3 as exp(3 log 0.1) is good to
    # 7 * 6e-8 relative, (2^31)**0.7 to 15 * 6e-8.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    for counts in (np.array(COUNTS), jnp.array(COUNTS, jnp.int32)):
        np.testing.assert_allclose(schedule(counts), found, rtol=1e-6, atol=1e-7)
    for kind in (int, np.int32, np.int64, jnp.int32):
        one = schedule(kind(7))
        assert one.shape == () and one.dtype == jnp.float32
        np.testing.assert_allclose(one, expected[COUNTS.index(7)], rtol=1e-6)


@every_schedule
def test_values_in_float64(x64, schedule, expected):
    counts = [*range(200), *COUNTS]
    found = jax.jit(jax.vmap(schedule))(jnp.array(counts, jnp.int32))
    assert found.dtype == jnp.float64
    # As above with roundings of 1.1e-16.
    np.testing.assert_allclose(found, [expected(k) for k in counts], rtol=2e-15, atol=2e-16)


@pytest.mark.fast
@every_schedule
def test_past_the_largest_count(schedule, expected):
    assert float(schedule(2**31)) == float(schedule(np.int64(2**40))) == float(schedule(LAST))


@pytest.mark.fast
def test_exact_at_the_ends():
    rate = np.float32(0.3)
    for make in (
        lambda **k: schedules.cosine(rate, **k),
        lambda **k: schedules.polynomial(rate, power=0.3, **k),
        lambda **k: schedules.linear_to(rate, **k),
    ):
        assert float(make(steps=7, end=0.0)(7)) == 0.0
        schedule = make(steps=7, end=0.1)
        assert [float(schedule(k)) for k in (0, 7, 8)] == [rate, np.float32(0.1), np.float32(0.1)]
    schedule = schedules.cosine(rate, steps=7, end=0.1, after="rise")
    assert float(schedule(7)) == np.float32(0.1) and float(schedule(14)) == rate
    assert float(schedules.step_decay(rate, every=7, factor=0.1)(6)) == rate
    assert float(schedules.multi_step(rate, boundaries=[7], factor=0.1)(6)) == rate
    assert float(schedules.warmup(rate, steps=7)(0)) == 0.0
    assert float(schedules.warmup(rate, steps=7)(7)) == rate
    for kind in ("cosine", "linear"):
        schedule = schedules.one_cycle(rate, steps=20, rise=0.5, kind=kind, start=0.1, end=0.01)
        found = [float(schedule(k)) for k in (0, 9, 19, LAST)]
        assert found == [np.float32(0.1), rate, np.float32(0.01), np.float32(0.01)]
    schedule = schedules.cyclic(0.1, peak=rate, steps=7, down=3)
    assert [float(schedule(k)) for k in (0, 7, 10)] == [np.float32(0.1), rate, np.float32(0.1)]


@pytest.mark.parametrize("mult", [1, 2, 3, 10])
def test_restarts_come_at_the_boundaries(x64, mult):
    """Exactly there, up to the last count that int32 can hold."""
    starts, length = [0], 7
    while len(starts) < 40 and starts[-1] + length <= LAST:
        starts, length = [*starts, starts[-1] + length], length * mult
    schedule = jax.jit(schedules.sgdr(0.3, first_cycle=7, mult=mult, decay=0.9))
    peaks = 0.3 * 0.9 ** np.arange(len(starts))
    np.testing.assert_allclose(schedule(jnp.array(starts)), peaks, rtol=1e-15)
    # A seventh before the end at most: (1 + cos(6 pi / 7)) / 2 = 0.0495.
    assert (schedule(jnp.array(starts[1:]) - 1) < 0.05 * peaks[:-1]).all()


# What the lectures say of them.


@pytest.mark.fast
def test_numbers_of_the_lectures():
    def at(schedule, counts):
        return [round(float(schedule(count)), 6) for count in counts]

    assert at(schedules.cosine(1.0, steps=100), (0, 50, 100)) == [1.0, 0.5, 0.0]
    assert at(schedules.linear(1.0, steps=100), (0, 25, 50, 100)) == [1.0, 0.75, 0.5, 0.0]
    assert at(schedules.inverse_time(1.0, rate=0.5), (0, 2, 6, 18)) == [1.0, 0.5, 0.25, 0.1]
    assert at(schedules.exponential(1.0, rate=0.01), (0, 100)) == [1.0, 0.367879]
    assert at(schedules.inverse_power(1.0, power=2), (0, 1, 9)) == [1.0, 0.25, 0.01]
    # Transformers count from t = 1: at t = 0 the rate would be infinite.
    assert at(schedules.inverse_sqrt(1.0), (0, 3, 99)) == [1.0, 0.5, 0.1]
    resnet = schedules.multi_step(0.1, boundaries=[30, 60, 90], factor=0.1)
    assert at(resnet, (0, 29, 30, 59, 60, 89, 90)) == [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4]
    assert at(schedules.step_decay(0.1, every=30, factor=0.1), (29, 30, 90)) == [0.1, 0.01, 1e-4]
    # alpha = k / tau, clamped after tau; 1 % of the first rate at the end.
    assert at(schedules.linear_to(1.0, steps=10, end=0.01), (0, 5, 10, 99)) == [
        1,
        0.505,
        0.01,
        0.01,
    ]
    # Two warm-ups: from 0 to the rate in 5000 updates, and from the rate of one worker to k times.
    assert at(schedules.warmup(0.1, steps=5000), (0, 2500, 5000)) == [0.0, 0.05, 0.1]
    assert at(schedules.goyal_warmup(0.1, 8, steps=5), (0, 5, 100)) == [0.1, 0.8, 0.8]
    epochs = schedules.stretch(schedules.step_decay(1.0, every=1, factor=0.9), 100)
    assert at(epochs, (0, 99, 100, 200)) == [1.0, 1.0, 0.9, 0.81]


@pytest.mark.fast
def test_scale_with_batch():
    assert schedules.scale_with_batch(0.1, 8192) == pytest.approx(3.2)
    assert schedules.scale_with_batch(0.1, 1024, rule="sqrt") == 0.2
    assert schedules.scale_with_batch(0.1, 32, base_batch_size=128) == 0.025
    scaled = schedules.scale_with_batch(schedules.cosine(0.1, steps=10), 512)
    assert float(scaled(5)) == pytest.approx(0.1, rel=1e-6)
    traced = jax.jit(lambda n: schedules.scale_with_batch(0.1, n))(jnp.float32(512))
    assert float(traced) == pytest.approx(0.2, rel=1e-6)


# Robbins and Monro: which of the two conditions hold.

BOTH = {
    "1/t": schedules.inverse_time(0.1, rate=1e-3),
    "t**-0.51": schedules.inverse_power(1.0, power=0.51),
    "warm-up, then 1/t": schedules.warmup(schedules.inverse_time(0.1, rate=1.0), steps=5000),
    "half the peak for twice the cycle": schedules.sgdr(1.0, first_cycle=10, mult=2, decay=0.5),
}
NO_SUM = {
    "exponential": schedules.exponential(1.0, rate=1e-3),
    "linear": schedules.linear(1.0, steps=10**6),
    "cosine": schedules.cosine(1.0, steps=10**6),
    "steps": schedules.step_decay(1.0, every=30, factor=0.1),
    "t**-1.1": schedules.inverse_power(1.0, power=1.1),
}
NO_SQUARES = {
    "constant": schedules.constant(0.1),
    "1/sqrt(t)": schedules.inverse_sqrt(0.1),
    "linear to 1 %": schedules.linear_to(1.0, steps=1000, end=0.01),
    "cycles": schedules.triangular(0.0, peak=1.0, steps=2**12),
    "restarts": schedules.sgdr(1.0, first_cycle=10, mult=2),
}


@pytest.mark.parametrize(
    "named, verdict",
    [(BOTH, (True, True)), (NO_SUM, (False, True)), (NO_SQUARES, (True, False))],
    ids=["both", "sum", "squares"],
)
def test_robbins_monro(named, verdict):
    for name, schedule in named.items():
        report = schedules.check_robbins_monro(schedule)
        assert report[:2] == verdict and report.satisfied == all(verdict), (name, report)


@pytest.mark.parametrize("power", [0.6, 0.75, 1.0, 1.25])
def test_robbins_monro_measures_the_exponent(x64, power):
    report = schedules.check_robbins_monro(schedules.inverse_power(1.0, power=power))
    # Each of 1024 parts of an octave is read at one point: off by at most power / 1024, less
    # what averages out, and its eighth root by an eighth.
    np.testing.assert_allclose(report[2:], [2 ** (1 - power), 2 ** (1 - 2 * power)], rtol=1e-4)
    assert str(report).count("holds") == sum(report[:2])
    assert ("sum = inf: violated" in str(report)) == (power == 1.25)


# Hyper-parameters that are traced.


def twice(make, *values):
    """The schedule made inside jit and vmap of hyper-parameters, and outside of numbers."""
    counts = np.arange(12)
    inside = jax.jit(jax.vmap(lambda *v: make(*v)(counts)))(*(jnp.array(v) for v in values))
    return inside, [make(*one)(counts) for one in zip(*values, strict=True)]


A, B, C = [0.5, 0.25], [0.125, 0.0625], [0.75, 1.5]
TRACED = {
    "constant": (schedules.constant, A),
    "step_decay": (lambda v, f: schedules.step_decay(v, every=2, factor=f), A, B),
    "multi_step": (lambda v, f: schedules.multi_step(v, boundaries=[3], factor=f), A, B),
    "exponential": (lambda v, r: schedules.exponential(v, rate=r), A, B),
    "inverse_time": (lambda v, r: schedules.inverse_time(v, rate=r), A, B),
    "inverse_power": (lambda v, p, r: schedules.inverse_power(v, power=p, rate=r), A, C, B),
    "inverse_sqrt": (lambda v, r: schedules.inverse_sqrt(v, rate=r), A, B),
    "linear": (lambda v: schedules.linear(v, steps=8), A),
    "linear_to": (lambda v, e: schedules.linear_to(v, steps=8, end=e), A, B),
    "polynomial": (lambda v, p, e: schedules.polynomial(v, steps=8, power=p, end=e), A, C, B),
    "cosine": (lambda v, e: schedules.cosine(v, steps=4, end=e, after="rise"), A, B),
    "triangular": (lambda v, p: schedules.triangular(v, peak=p, steps=3), B, A),
    "cyclic": (
        lambda v, p, r: schedules.cyclic(v, peak=p, steps=3, mode="exp_range", rate=r),
        *(B, A, B),
    ),
    "sgdr": (
        lambda v, d, e: schedules.sgdr(v, first_cycle=2, mult=2, decay=d, end=e),
        *(A, C, B),
    ),
    "snapshot": (lambda v: schedules.snapshot(v, steps=8, cycles=2), A),
    "one_cycle": (lambda v, s, e: schedules.one_cycle(v, steps=10, start=s, end=e), A, B, B),
    "warmup": (lambda v, s: schedules.warmup(v, steps=4, start=s), A, B),
    "goyal_warmup": (lambda v, k: schedules.goyal_warmup(v, k, steps=4), A, C),
    "join": (lambda a, b: schedules.join([a, schedules.linear(b, steps=3)], [4]), A, B),
}


@pytest.mark.parametrize("make, values", [(m, v) for m, *v in TRACED.values()], ids=TRACED)
def test_traced_hyper_parameters(make, values):
    inside, outside = twice(make, *values)
    # Programs of other shapes: a few roundings of 6e-8 of values up to 1.
    np.testing.assert_allclose(inside, outside, rtol=5e-7, atol=2e-7)


# Against torch and optax.

PER_UPDATE = -math.log(0.95)
EQUAL_TO_TORCH = {
    "step": schedules.step_decay(0.3, every=30, factor=0.5),
    "multi step": schedules.multi_step(0.3, boundaries=[30, 60, 90], factor=0.1),
    "exponential": schedules.exponential(0.3, rate=PER_UPDATE),
    "polynomial": schedules.polynomial(0.3, steps=150, power=2),
    "linear": schedules.linear_to(0.1, steps=50, end=0.3),
    "linear down": schedules.linear_to(0.3, steps=150, end=0.003),
    "constant": schedules.warmup(0.3, steps=50, kind="constant", start=0.1),
    "cosine": schedules.cosine(0.3, steps=60, end=0.01, after="rise"),
    "restarts": schedules.sgdr(0.3, first_cycle=30, end=0.01),
    "longer restarts": schedules.sgdr(0.3, first_cycle=9, mult=3, end=0.01),
    "triangular": schedules.cyclic(0.01, peak=0.3, steps=12, down=25),
    "triangular2": schedules.cyclic(0.01, peak=0.3, steps=12, mode="triangular2"),
    "exp range": schedules.cyclic(0.01, peak=0.3, steps=12, mode="exp_range", rate=-math.log(0.99)),
    "one cycle": schedules.one_cycle(0.3, steps=200),
    "one cycle, linear": schedules.one_cycle(0.3, steps=200, rise=0.333, start=0.03, kind="linear"),
    "one cycle, three phases": schedules.one_cycle(
        0.3, steps=200, rise=0.4, phases=3, end=0.3 / 25 / 100
    ),
    "sequential": schedules.join([0.03, schedules.exponential(0.3, rate=-math.log(0.9))], [20]),
}


def test_every_torch_vector_is_used():
    assert set(TORCH.files) == set(EQUAL_TO_TORCH)


@pytest.mark.parametrize("name", EQUAL_TO_TORCH)
def test_equals_torch(x64, name):
    expected = TORCH[name]
    found = jax.jit(EQUAL_TO_TORCH[name])(jnp.arange(len(expected)))
    # torch makes each of 200 rates from the one before: 200 roundings of 1.1e-16, of the largest
    # rate where a cosine nears 0.
    np.testing.assert_allclose(found, expected, rtol=2e-13, atol=1e-14)


COSINE, LINEAR = schedules.cosine(0.3, steps=100), schedules.linear_to(0.03, steps=10, end=0.3)
RATE = -math.log(0.5) / 40
# optax's linear one-cycle goes on from 0.85 of the way at the rate of the start.
ONE_CYCLE = [
    schedules.linear_to(0.012, steps=30, end=0.3),
    schedules.linear_to(0.3, steps=55, end=0.012),
    schedules.linear_to(0.012, steps=15, end=1.2e-6),
]
EQUAL_TO_OPTAX = {
    "constant": (schedules.constant(0.3), optax.constant_schedule(0.3)),
    "step_decay": (
        schedules.step_decay(0.3, every=30, factor=0.1),
        optax.exponential_decay(0.3, 30, 0.1, staircase=True),
    ),
    "multi_step": (
        schedules.multi_step(0.3, boundaries=[30, 60], factor=0.1),
        optax.piecewise_constant_schedule(0.3, {30: 0.1, 60: 0.1}),
    ),
    "exponential": (schedules.exponential(0.3, rate=RATE), optax.exponential_decay(0.3, 40, 0.5)),
    "linear_to": (LINEAR, optax.linear_schedule(0.03, 0.3, 10)),
    "polynomial": (
        schedules.polynomial(0.3, steps=70, power=3, end=0.01),
        optax.polynomial_schedule(0.3, 0.01, 3, 70),
    ),
    "cosine": (COSINE, optax.cosine_decay_schedule(0.3, 100)),
    "cosine to an end": (
        schedules.cosine(0.3, steps=100, end=0.03),
        optax.cosine_decay_schedule(0.3, 100, alpha=0.1),
    ),
    "warmup": (
        schedules.warmup(schedules.cosine(0.3, steps=90), steps=10, start=0.03),
        optax.warmup_cosine_decay_schedule(0.03, 0.3, 10, 100),
    ),
    "warmup exponential": (
        schedules.warmup(schedules.exponential(0.3, rate=RATE), steps=10, start=0.03),
        optax.warmup_exponential_decay_schedule(0.03, 0.3, 10, 40, 0.5),
    ),
    "one_cycle": (
        schedules.one_cycle(0.3, steps=77, rise=int(0.3 * 77) / 77, endpoint=False),
        optax.cosine_onecycle_schedule(77, 0.3),
    ),
    "one_cycle, linear": (
        schedules.join(ONE_CYCLE, [30, 85]),
        optax.linear_onecycle_schedule(100, 0.3),
    ),
    "sgdr": (
        schedules.sgdr(0.3, first_cycle=40, mult=2),
        optax.sgdr_schedule(
            {"init_value": 0.3, "peak_value": 0.3, "warmup_steps": 0, "decay_steps": steps}
            for steps in (40, 80)
        ),
    ),
    "join": (
        schedules.join([LINEAR, COSINE], [15]),
        optax.join_schedules(
            [optax.linear_schedule(0.03, 0.3, 10), optax.cosine_decay_schedule(0.3, 100)], [15]
        ),
    ),
}


@pytest.mark.parametrize("ours, theirs", EQUAL_TO_OPTAX.values(), ids=EQUAL_TO_OPTAX)
def test_equals_optax(x64, ours, theirs):
    counts = jnp.arange(120)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = jax.jit(jax.vmap(theirs))(counts)
    # A few roundings of 1.1e-16, of the largest rate where a cosine nears 0.
    np.testing.assert_allclose(jax.jit(ours)(counts), expected, rtol=1e-14, atol=2e-16)


@pytest.mark.fast
def test_a_warm_up_that_counts_from_one():
    """`value * (count + 1) / steps`, whose first update moves something."""
    schedule = schedules.warmup(0.4, steps=7, start=0.4 / 8)
    np.testing.assert_allclose(
        schedule(np.arange(9)), np.minimum(np.arange(1, 10) / 8, 1) * 0.4, 1e-6
    )


# Bad input.

BAD = [
    (schedules.constant, (-1,), {}, "constant: value must be a finite number >= 0, got -1"),
    (schedules.constant, (math.nan,), {}, "value must be"),
    (schedules.step_decay, (0,), {"every": 1, "factor": 1}, "step_decay: value must be"),
    (schedules.step_decay, (1,), {"every": 0, "factor": 1}, "every must be an int >= 1, got 0"),
    (schedules.step_decay, (1,), {"every": 1, "factor": 0}, "factor must be"),
    (schedules.multi_step, (0,), {"boundaries": [1], "factor": 1}, "multi_step: value must be"),
    (schedules.multi_step, (1,), {"boundaries": [0], "factor": 1}, "boundaries must be an int >="),
    (
        schedules.multi_step,
        (1,),
        {"boundaries": [5, 4], "factor": 1},
        "multi_step: boundaries must",
    ),
    (schedules.multi_step, (1,), {"boundaries": [1], "factor": -1}, "factor must be"),
    (schedules.exponential, (0,), {"rate": 1}, "exponential: value must be"),
    (schedules.exponential, (1,), {"rate": -1}, "rate must be a finite number >= 0, got -1"),
    (schedules.inverse_time, (0,), {"rate": 1}, "inverse_time: value must be"),
    (schedules.inverse_time, (1,), {"rate": -1}, "inverse_time: rate must be"),
    (schedules.inverse_power, (0,), {"power": 1}, "inverse_power: value must be"),
    (schedules.inverse_power, (1,), {"power": -1}, "power must be"),
    (schedules.inverse_power, (1,), {"power": 1, "rate": math.inf}, "rate must be"),
    (schedules.inverse_sqrt, (0,), {}, "inverse_sqrt: value must be"),
    (schedules.inverse_sqrt, (1,), {"rate": -1}, "inverse_sqrt: rate must be"),
    (schedules.linear, (0,), {"steps": 1}, "linear: value must be"),
    (schedules.linear, (1,), {"steps": 0}, "linear: steps must be"),
    (schedules.linear_to, (-1,), {"steps": 1, "end": 1}, "linear_to: value must be"),
    (schedules.linear_to, (1,), {"steps": 0, "end": 1}, "linear_to: steps must be"),
    (schedules.linear_to, (1,), {"steps": 1, "end": -1}, "linear_to: end must be"),
    (schedules.polynomial, (0,), {"steps": 1, "power": 1}, "polynomial: value must be"),
    (schedules.polynomial, (1,), {"steps": 0, "power": 1}, "steps must be"),
    (schedules.polynomial, (1,), {"steps": 1, "power": 0}, "power must be"),
    (schedules.polynomial, (1,), {"steps": 1, "power": 1, "end": -1}, "end must be"),
    (schedules.cosine, (math.inf,), {"steps": 1}, "cosine: value must be"),
    (schedules.cosine, (1,), {"steps": -1}, "steps must be an int >= 1, got -1"),
    (schedules.cosine, (1,), {"steps": 1, "end": -1}, "end must be"),
    (schedules.cosine, (1,), {"steps": 1, "after": "ris"}, "after must be .* did you mean 'rise'"),
    (schedules.triangular, (-1,), {"peak": 1, "steps": 1}, "triangular: value must be"),
    (schedules.triangular, (0,), {"peak": 0, "steps": 1}, "triangular: peak must be"),
    (schedules.triangular, (0,), {"peak": 1, "steps": 0}, "triangular: steps must be"),
    (schedules.cyclic, (-1,), {"peak": 1, "steps": 1}, "cyclic: value must be"),
    (schedules.cyclic, (0,), {"peak": 0, "steps": 1}, "peak must be"),
    (schedules.cyclic, (0,), {"peak": 1, "steps": 0}, "steps must be"),
    (schedules.cyclic, (0,), {"peak": 1, "steps": 1, "down": 0}, "down must be"),
    (schedules.cyclic, (0,), {"peak": 1, "steps": 1, "mode": "x"}, "mode must be one of"),
    (schedules.cyclic, (0,), {"peak": 1, "steps": 1, "rate": -1}, "rate must be a finite"),
    (
        schedules.cyclic,
        (0,),
        {"peak": 1, "steps": 1, "rate": 1},
        "rate must be 0 but for mode='exp",
    ),
    (schedules.sgdr, (0,), {"first_cycle": 1}, "sgdr: value must be"),
    (schedules.sgdr, (1,), {"first_cycle": 0}, "first_cycle must be"),
    (schedules.sgdr, (1,), {"first_cycle": 1, "mult": 0}, "mult must be an int >= 1, got 0"),
    (schedules.sgdr, (1,), {"first_cycle": 1, "decay": 0}, "decay must be"),
    (schedules.sgdr, (1,), {"first_cycle": 1, "end": -1}, "end must be"),
    (schedules.snapshot, (0,), {"steps": 1, "cycles": 1}, "snapshot: value must be"),
    (schedules.snapshot, (1,), {"steps": 1, "cycles": 0}, "cycles must be"),
    (schedules.snapshot, (1,), {"steps": 3, "cycles": 4}, "steps must be an int >= 4, got 3"),
    (schedules.one_cycle, (0,), {"steps": 10}, "one_cycle: peak must be"),
    (schedules.one_cycle, (1,), {"steps": 1}, "steps must be an int >= 2, got 1"),
    (schedules.one_cycle, (1,), {"steps": 10, "rise": 0.1}, "rise must be .* in .0.1, 1., got 0.1"),
    (schedules.one_cycle, (1,), {"steps": 10, "rise": 1.0}, "rise must be"),
    (schedules.one_cycle, (1,), {"steps": 10, "rise": 0.6, "phases": 3}, "in .0.1, 0.55., got"),
    (schedules.one_cycle, (1,), {"steps": 10, "rise": -1}, "rise must be"),
    (schedules.one_cycle, (1,), {"steps": 10, "start": -1}, "start must be"),
    (schedules.one_cycle, (1,), {"steps": 10, "end": -1}, "end must be"),
    (schedules.one_cycle, (1,), {"steps": 10, "kind": "cos"}, "kind must be one of"),
    (schedules.one_cycle, (1,), {"steps": 10, "phases": 4}, "phases must be one of"),
    (schedules.one_cycle, (1,), {"steps": 10, "endpoint": "no"}, "endpoint must be one of"),
    (schedules.warmup, (-1,), {"steps": 1}, "warmup: schedule_or_value must be"),
    (schedules.goyal_warmup, (1, 2), {"steps": 1, "after": -1}, "goyal_warmup: after must be"),
    (schedules.step_decay, (1,), {"every": 2**31, "factor": 1}, "and below 2\\*\\*31"),
    (schedules.warmup, (1,), {"steps": 0}, "warmup: steps must be"),
    (schedules.warmup, (1,), {"steps": 1, "kind": "lin"}, "kind must be one of"),
    (schedules.warmup, (1,), {"steps": 1, "start": -1}, "start must be"),
    (schedules.warmup, (1,), {"steps": 1, "kind": "constant"}, "start must be a finite number > 0"),
    (schedules.goyal_warmup, (0, 2), {"steps": 1}, "goyal_warmup: base must be"),
    (schedules.goyal_warmup, (1, 0), {"steps": 1}, "goyal_warmup: k must be"),
    (schedules.goyal_warmup, (1, 2), {"steps": 0}, "goyal_warmup: steps must be"),
    (schedules.join, ([1, 2], []), {}, "boundaries must be 1 counts"),
    (schedules.join, ([1, 2, 3], [5, 5]), {}, "join: boundaries must be increasing"),
    (schedules.join, ([1, 2], [0]), {}, "boundaries must be an int >= 1"),
    (schedules.join, ([1, -2], [1]), {}, "join: schedules must be .*, got -2"),
    (schedules.join, (0.1, []), {}, "join: schedules must be a sequence"),
    (schedules.join, ([], []), {}, "schedules must be"),
    (schedules.stretch, (schedules.constant(1), 0), {}, "stretch: factor must be"),
    (schedules.stretch, (schedules.constant(1), 1e-9), {}, "factor must be near a fraction"),
    (schedules.stretch, (schedules.constant(1), 1e10), {}, "factor must be near a fraction"),
    (schedules.scale_with_batch, (0, 1), {}, "scale_with_batch: value must be"),
    (schedules.scale_with_batch, (1, 0), {}, "batch_size must be"),
    (schedules.scale_with_batch, (1, 1), {"base_batch_size": 0}, "base_batch_size must be"),
    (schedules.scale_with_batch, (1, 1), {"rule": "square"}, "rule must be one of"),
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
