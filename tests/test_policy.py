"""Policies: each operation is Pillow's, each is drawn as often as the policy says."""

import collections
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key

from benchmarks.augment import by_switch
from jaxtrain import augment
from jaxtrain.augment import _effects, _policies, _policy
from jaxtrain.errors import ConfigError

VECTORS = np.load(pathlib.Path(__file__).parent / "vectors" / "pil_policy.npz")
STRENGTHS = (0, 1, 3, 4, 7, 9)  # as the script that wrote them has, of 9
NAMES = [name for name in augment.OPERATIONS if name not in ("identity", "cutout")]


def keys(n, seed=0):
    return jax.random.split(key(seed), n)


@pytest.mark.fast
@pytest.mark.parametrize("kind", ["color", "gray"])
def test_operations_equal_pillow(kind):
    image = jnp.asarray(VECTORS[kind], np.int32)
    h, w, c = image.shape
    effects = [
        _effects.effect(name, k / 9, sign, (h, w), augment.Ranges())
        for name in NAMES
        for k in STRENGTHS
        for sign in (1, -1)
    ]
    effects = _effects.stacked(effects, (len(NAMES), len(STRENGTHS), 2))
    apply = functools.partial(
        _effects.apply,
        names=frozenset(NAMES),
        x=image,
        fill=np.zeros(c, np.int32),
        place=np.zeros(2, np.float32),
    )
    found = jax.jit(jax.vmap(jax.vmap(jax.vmap(apply))))(effects)
    for name, y in zip(NAMES, found, strict=True):
        np.testing.assert_array_equal(y, VECTORS[f"{kind}, {name}"], err_msg=name)


@pytest.mark.parametrize(
    "f",
    [
        augment.auto_augment,
        *(
            pytest.param(f, marks=pytest.mark.nightly)
            for f in (
                functools.partial(augment.trivial_augment, operations=augment.OPERATIONS),
                functools.partial(augment.auto_augment, policy="svhn"),
                functools.partial(augment.auto_augment, policy="imagenet"),
                augment.rand_augment,
            )
        ),
    ],
    ids=["cifar10", "trivial", "svhn", "imagenet", "rand"],
)
def test_equals_a_switch_between_operations(f):
    random = np.random.default_rng(0)
    images = random.normal(120, 40, (64, 12, 10, 3)).clip(0, 255).astype(np.uint8)
    options = dict(fill=(10, 20, 30))
    ours = jax.jit(jax.vmap(functools.partial(f, **options)))(keys(64), images)
    theirs = jax.jit(jax.vmap(functools.partial(by_switch, f, **options)))(keys(64), images)
    np.testing.assert_array_equal(ours, theirs)
    assert np.mean(np.any(ours != images, (1, 2, 3))) > 0.5


@pytest.mark.fast
def test_sub_policies_and_operations_are_drawn_as_often_as_the_policy_says():
    # Solarization at three thresholds, and a second operation that shows in the other pixel.
    policy = [
        [("solarize", 0.2, 9), ("identity", 1.0, 0)],
        [("identity", 1.0, 0), ("cutout", 1.0, 9)],
        [("translate_x", 1.0, 9)],
        [("solarize", 0.0, 9)],
    ]
    image = jnp.array([[[10], [200], [30]]], jnp.uint8)
    ranges = augment.Ranges(translate=1, cutout=6)
    f = functools.partial(augment.auto_augment, image=image, policy=policy, ranges=ranges, fill=99)
    n = 4000
    y = np.asarray(jax.jit(jax.vmap(f))(keys(n)))[:, 0, :, 0]
    count = collections.Counter("-".join(map(str, row)) for row in y)
    expected = {
        "245-55-225": 0.05,  # p = 0.2 of a quarter
        "99-99-99": 0.25,
        "99-10-200": 0.125,  # both signs
        "200-30-99": 0.125,
        "10-200-30": 0.45,
    }
    assert count.keys() == expected.keys()
    for name, p in expected.items():
        # Five standard deviations.
        assert abs(count[name] - n * p) < 5 * np.sqrt(n * p * (1 - p)), name


def test_rand_and_trivial_augment_draw_each_operation_as_often():
    # Brightness 0.1 and 1.9 at full magnitude, solarization of all, and nothing.
    image = jnp.full((1, 1, 1), 100, jnp.uint8)
    names = ("identity", "brightness", "invert")
    n = 3000
    f = functools.partial(augment.rand_augment, image=image, layers=1, operations=names)
    y = np.asarray(jax.jit(jax.vmap(functools.partial(f, magnitude=30)))(keys(n))).ravel()
    for value, p in {100: 1 / 3, 10: 1 / 6, 190: 1 / 6, 155: 1 / 3}.items():
        assert abs((y == value).sum() - n * p) < 5 * np.sqrt(n * p * (1 - p)), value
    # 31 magnitudes of the factor 1 +- 0.99 i / 30.
    f = functools.partial(augment.trivial_augment, image=image, operations=("brightness",))
    y = np.asarray(jax.jit(jax.vmap(f))(keys(n))).ravel()
    values, count = np.unique(y, return_counts=True)
    factor = np.concatenate([1 + 0.99 * np.arange(31) / 30, 1 - 0.99 * np.arange(1, 31) / 30])
    expected = np.unique((np.float32(factor) * np.float32(100)).astype(np.uint8))
    np.testing.assert_array_equal(values, expected)
    assert abs(count[values == 100] - n / 31) < 5 * np.sqrt(n / 31)


@pytest.mark.fast
def test_nothing_happens_at_zero():
    random = np.random.default_rng(0)
    image = jnp.asarray(random.uniform(size=(6, 5, 3)), np.float32)
    signed = sorted(_effects.MOVES | _effects.BLENDS | {"posterize", "solarize", "cutout"})
    f = functools.partial(augment.rand_augment, image=image, operations=(*signed, "identity"))
    y = jax.jit(jax.vmap(functools.partial(f, magnitude=0)))(keys(20))
    np.testing.assert_array_equal(y, np.broadcast_to(image, y.shape))
    never = [[(name, 0.0, 9)] for name in augment.OPERATIONS]
    y = augment.auto_augment(key(0), image, policy=never)
    np.testing.assert_array_equal(y, image)


def test_types_ranges_and_independence():
    image = jnp.asarray(VECTORS["gray"])
    f = jax.jit(jax.vmap(functools.partial(augment.auto_augment, policy="svhn", fill=0)))
    images = jnp.stack([image, image // 2, 255 - image, image])
    levels = f(keys(4), images)
    alone = jnp.stack([f(k[None], x[None])[0] for k, x in zip(keys(4), images, strict=True)])
    np.testing.assert_array_equal(levels, alone)
    assert levels.dtype == np.uint8
    floats = f(keys(4), images.astype(np.float32) / np.float32(255))
    # A level, its share of 1 and 255 times that: three roundings of 2^-24.
    np.testing.assert_allclose(floats * 255, levels, rtol=3 * 2**-24)
    half = f(keys(4), (images.astype(np.float32) / np.float32(255)).astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16 and 0 <= half.min() and half.max() <= 1


@pytest.mark.fast
def test_the_policies_are_those_of_the_paper():
    space = {"shear_x", "shear_y", "translate_x", "translate_y", "rotate", "autocontrast"}
    space |= {"invert", "equalize", "solarize", "posterize", "contrast", "color", "brightness"}
    space |= {"sharpness", "cutout", "identity"}
    assert set(augment.OPERATIONS) == space and len(space) == 16
    for name, policy in _policies.POLICIES.items():
        assert len(policy) == 25 and all(len(sub) == 2 for sub in policy)
        for operation, p, magnitude in (o for sub in policy for o in sub):
            assert operation in space and 0 <= p <= 1 and magnitude in range(10), name
            assert p in [i / 10 for i in range(11)]
    first = {name: policy[0] for name, policy in _policies.POLICIES.items()}
    assert first == {
        "cifar10": (("invert", 0.1, 7), ("contrast", 0.2, 6)),
        "svhn": (("shear_x", 0.9, 4), ("invert", 0.2, 3)),
        "imagenet": (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    }
    counts = {name: len(set(policy)) for name, policy in _policies.POLICIES.items()}
    assert counts == {"cifar10": 25, "svhn": 25, "imagenet": 20}


@pytest.mark.fast
def test_random_search():
    # The lectures' number, 2.9e32: 16 names, 11 probabilities and 10 magnitudes, ten times.
    assert f"{(len(augment.OPERATIONS) * 11 * 10) ** 10:.1e}" == "2.9e+32"
    policies = [augment.random_policy(3, trial) for trial in range(400)]
    draws = [operation for policy in policies for sub in policy for operation in sub]
    assert len(draws) == 4000 and len(set(policies)) == 400
    for i, choices in enumerate((augment.OPERATIONS, [p / 10 for p in range(11)], range(10))):
        found = [draw[i] for draw in draws]
        n = len(draws) / len(choices)
        assert all(abs(found.count(choice) - n) < 5 * np.sqrt(n) for choice in choices)
        assert set(found) == set(choices)
    score = lambda policy: sum(p for sub in policy for _, p, _ in sub)  # noqa: E731
    found = augment.search_policy(score, trials=20, seed=3)
    scores = [value for value, _ in found.ranking]
    assert scores == sorted(map(score, policies[:20]), reverse=True)
    assert score(found.policy) == scores[0] and found.ranking[0][1] == found.policy
    image = jnp.asarray(VECTORS["gray"][:4, :4])
    assert augment.auto_augment(key(0), image, policy=found.policy).shape == (4, 4, 1)
    with pytest.raises(ConfigError, match="the result of score must be a finite number, got nan"):
        augment.search_policy(lambda policy: float("nan"), trials=1)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(policy="cifar"), "auto_augment: policy must be one of .* did you mean 'cifar10'"),
        (dict(policy=[[("rotat", 1.0, 3)]]), "auto_augment: an operation must be one of"),
        (dict(policy=[[("rotate", 1.5, 3)]]), r"the probability of 'rotate' must be a number in"),
        (dict(policy=[[("rotate", 1.0, 10)]]), r"the magnitude of 'rotate' must be a number in"),
        (dict(image=jnp.ones((4, 4, 2))), "auto_augment: image must be of 1 or 3 channels"),
        (dict(policy=[]), "auto_augment: policy must be"),
        (dict(policy=None), "auto_augment: policy must be"),
        (dict(policy=[("rotate", 1.0, 3)]), "auto_augment: policy must be"),
        (dict(ranges=3), "auto_augment: ranges must be a Ranges, got 3"),
        (dict(ranges=augment.Ranges(shear=-1.0)), r"ranges.shear must be a finite number >= 0"),
        (dict(ranges=augment.Ranges(posterize=9)), r"ranges.posterize must be at most"),
        (dict(fill=(1, 2, 3)), "auto_augment: fill must be a number or 1, one for each channel"),
    ],
)
def test_refuses(options, message):
    options = dict(image=jnp.ones((4, 4, 1))) | options
    with pytest.raises((ConfigError, TypeError), match=message):
        augment.auto_augment(key(0), **options)


def test_calls_outside_of_jit_share_a_program(monkeypatch):
    apply, traced = _policy.apply, []
    monkeypatch.setattr(_policy, "apply", lambda *given: traced.append(given) or apply(*given))
    for seed in range(3):
        augment.rand_augment(key(seed), jnp.ones((3, 2, 1)), operations=["solarize"])
    assert len(traced) == 1


@pytest.mark.fast
def test_rand_augment_refuses():
    image = jnp.ones((4, 4, 1))
    with pytest.raises(ConfigError, match=r"rand_augment: magnitude must be a number in \[0, 30\]"):
        augment.rand_augment(key(0), image, magnitude=31)
    with pytest.raises(ConfigError, match="rand_augment: layers must be an int >= 1"):
        augment.rand_augment(key(0), image, layers=0)
    with pytest.raises(ConfigError, match="trivial_augment: an operation must be one of"):
        augment.trivial_augment(key(0), image, operations=("blur",))
    for bad in ("rotate", (), None):
        with pytest.raises(ConfigError, match="rand_augment: operations must be a sequence of"):
            augment.rand_augment(key(0), image, operations=bad)
