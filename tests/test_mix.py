"""Mixing the examples of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import key
from scipy import stats

from jaxtrain import augment
from jaxtrain.errors import ConfigError

N, SIDE = 6, 64
LABELS = np.eye(N, dtype=np.float32)
# Constant images: what is left in a mixed one tells the weight and the partner.
IMAGES = np.broadcast_to(np.arange(N, dtype=np.float32)[:, None, None, None], (N, SIDE, SIDE, 1))


def drawn(f, images=IMAGES, labels=LABELS, n=300, **options):
    """Returns f of a batch under n keys."""
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    each = jax.jit(jax.vmap(lambda key: f(key, images, labels, **options)))
    return jax.tree.map(np.asarray, each(jax.random.split(key(0), n)))


def weights(labels):
    """Returns lam of batches of one-hot labels, where the partner is another example."""
    own = np.einsum("kii->ki", labels)
    return own, own < 1


@pytest.mark.fast
def test_mixup_equals_the_definition():
    x = np.random.default_rng(0).normal(size=(N, 3, 2, 1)).astype(np.float32)
    for per in ("batch", "example"):
        for k in range(3):
            y, q = map(np.asarray, augment.mixup(key(k), x, LABELS, alpha=1.0, per=per))
            assert q.sum(1) == pytest.approx(1, abs=1.2e-7)  # 1 - lam and the sum are rounded once
            # Three roundings of numbers below 4, 2^-23 each.
            expected = np.einsum("ij,jabc->iabc", q, x)
            np.testing.assert_allclose(y, expected, rtol=0, atol=3.6e-7)
            own, mixed = weights(q[None])
            assert (np.ptp(own[mixed]) == 0) == (per == "batch")


@pytest.mark.parametrize("per", ["batch", "example"])
def test_mixup_draws_from_a_beta_distribution_and_any_partner(per):
    _, q = drawn(augment.mixup, IMAGES[:, :1, :1], alpha=0.4, per=per)
    own, mixed = weights(q)
    # In a permutation of six every one is its own partner once in six times.
    partners = (q * (1 - LABELS) > 0).mean(0)[~np.eye(N, dtype=bool)]
    assert (np.abs(partners - 1 / 6) < 4 * np.sqrt(5 / 36 / 300)).all()
    rows = zip(own, mixed, strict=True)
    lam = [row[m][0] for row, m in rows if m.any()] if per == "batch" else own[mixed]
    # Below 1e-6 of 1 a weight is lost to rounding, and with it whoever has it.
    seen = stats.beta.cdf(1 - 1e-6, 0.4, 0.4)
    assert stats.kstest(lam, lambda v: stats.beta.cdf(v, 0.4, 0.4) / seen).pvalue > 1e-3


def test_mixup_rounds_integers_and_keeps_types():
    x = np.random.default_rng(0).integers(0, 256, (N, 4, 3, 1), np.uint8)
    y, q = augment.mixup(key(1), x, LABELS, alpha=1.0)
    assert y.dtype == np.uint8
    expected = np.einsum("ij,jabc->iabc", np.asarray(q), x.astype(float))
    # Rounded to an integer, and before that three times as numbers below 256, by 2^-17 each.
    np.testing.assert_allclose(np.asarray(y, float), expected, rtol=0, atol=0.5 + 3 * 2**-17)
    bf16 = augment.mixup(key(1), jnp.asarray(x, jnp.bfloat16), jnp.asarray(LABELS, jnp.bfloat16))
    assert bf16[0].dtype == bf16[1].dtype == jnp.bfloat16


# The mean of (sqrt(u) - u/4)^2, (sqrt(u) - u/2)^2 and u over u = 1 - lam ~ U(0, 1): what is left
# of a side sqrt(u) whose center, or whose corner, is uniform in [0, 1] and that is cut off there.
AREAS = {"center_clip": 0.5 - 0.2 + 1 / 48, "corner_clip": 0.5 - 0.4 + 1 / 12, "inside": 0.5}


@pytest.mark.parametrize("box", AREAS)
def test_cutmix_covers_as_much_as_derived_and_labels_say_so(box):
    """E88: the label must follow the area that is really replaced."""
    printed = {"center_clip": 0.321, "corner_clip": 0.183, "inside": 0.5}
    assert round(AREAS[box], 3) == printed[box]
    y, q = drawn(augment.cutmix, n=1000, box=box)
    own, _ = weights(q)
    first = y[:, :, :, :, 0] != np.arange(N)[:, None, None]
    area = first.mean((2, 3))
    mixed = first.any((2, 3))
    np.testing.assert_array_equal(own, 1 - area)  # multiples of 2^-12
    cut = area.max(1)[mixed.any(1)]
    # Four standard errors, 0.02 to 0.04. Boxes that are empty look like nobody's partner: sides
    # below half of 64 pixels' one, u < 2e-4. Rounding of sides has no preference.
    assert abs(cut.mean() - AREAS[box]) < 4 * cut.std() / np.sqrt(len(cut))
    # A box is one rectangle, the same in all images that have a partner.
    rows, columns = first.any(3), first.any(2)
    np.testing.assert_array_equal(first, rows[..., None] & columns[:, :, None])


def test_cutmix_may_take_the_weight_as_drawn():
    y, q = drawn(augment.cutmix, n=300, box="center_clip", adjust_lambda=False)
    own, mixed = weights(q)
    lam = own.min(1)[mixed.any(1)]
    assert stats.kstest(lam, "uniform").pvalue > 1e-3


def test_same_class_partners_keep_labels_and_mix_images():
    classes = np.array([0, 1, 0, 1, 1, 2])
    labels = np.eye(3, dtype=np.float32)[classes]
    y, q = drawn(augment.mix_same_class, IMAGES[:, :1, :1], labels, n=400)
    # lam + (1 - lam) is rounded once.
    np.testing.assert_allclose(q, np.broadcast_to(labels, q.shape), rtol=0, atol=1.2e-7)
    y = y[..., 0, 0, 0]
    for i, c in enumerate(classes):
        same = np.flatnonzero(classes == c)
        # Three roundings of numbers below 8, 2^-22 each.
        assert y[:, i].min() > same.min() - 7.2e-7 and y[:, i].max() < same.max() + 7.2e-7
        # Half of the way on average to a partner that is any of them; four standard errors.
        expected = (i + same.mean()) / 2
        assert abs(y[:, i].mean() - expected) <= 4 * y[:, i].std() / np.sqrt(400) + 7.2e-7


@pytest.mark.parametrize("f", [augment.mixup, augment.cutmix, augment.mix_same_class])
def test_zero_strength_is_the_identity_and_one_example_stays(f):
    y, q = f(key(0), IMAGES, LABELS, alpha=0.0)
    np.testing.assert_array_equal(y, IMAGES)
    np.testing.assert_array_equal(q, LABELS)
    y, q = f(key(0), IMAGES[2:3], LABELS[2:3])
    # lam x + (1 - lam) x: four roundings of 2^-24.
    np.testing.assert_allclose(y, IMAGES[2:3], rtol=2.4e-7)
    np.testing.assert_allclose(q, LABELS[2:3], rtol=2.4e-7)


@pytest.mark.fast
@pytest.mark.parametrize("f", [augment.mixup, augment.cutmix, augment.mix_same_class])
def test_labels_must_be_probabilities(f):
    with pytest.raises(TypeError, match=r"labels must be floating, got 'int32'; jax.nn.one_hot"):
        f(key(0), IMAGES, jnp.arange(N))
    with pytest.raises(ConfigError, match=r"labels must be of shape \(6, classes\), got \(5, 6\)"):
        f(key(0), IMAGES, LABELS[:5])
    with pytest.raises(ConfigError, match="alpha must be a finite number >= 0, got -1"):
        f(key(0), IMAGES, LABELS, alpha=-1)
    with pytest.raises(ConfigError, match="per must be|box must be|must be of shape"):
        options = {augment.mixup: {"per": "x"}, augment.cutmix: {"box": "x"}}.get(f)
        f(key(0), IMAGES, LABELS, **options) if options else f(key(0), IMAGES, LABELS[0])
