"""Paths, rules, parts of trees, and numbers over all leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain import tree
from jaxtrain.errors import ConfigError

NET = {
    "conv0": {"kernel": np.ones((3, 3)), "bias": np.ones(3)},
    "blocks": [{"dense0": {"kernel": np.ones(2)}}, {"dense0": {"kernel": np.ones(4)}}],
}


@pytest.mark.fast
@pytest.mark.parametrize(
    "rule, names",
    [
        ("conv0/kernel", ["conv0/kernel"]),
        ("*kernel", ["blocks/0/dense0/kernel", "blocks/1/dense0/kernel", "conv0/kernel"]),
        (("blocks/1/*", "*/bias"), ["blocks/1/dense0/kernel", "conv0/bias"]),
        ((), []),
        (lambda path, leaf: leaf.ndim == 2, ["conv0/kernel"]),
        (lambda path, leaf: path.startswith("blocks/0"), ["blocks/0/dense0/kernel"]),
    ],
)
def test_rules(rule, names):
    chosen = jax.tree_util.tree_leaves_with_path(tree.select(rule, NET))
    assert [tree.path_name(path) for path, yes in chosen if yes is True] == names
    assert sum(yes is False for _, yes in chosen) == 4 - len(names)


@pytest.mark.fast
def test_a_glob_that_matches_nothing_names_the_nearest():
    message = "select: rule must be a glob .* got 'conv0/kernels'; did you mean 'conv0/kernel'"
    with pytest.raises(ConfigError, match=message):
        tree.select(("*/bias", "conv0/kernels"), NET)


@pytest.mark.fast
def test_partition_and_merge():
    chosen, rest = tree.partition(NET, "*kernel")
    assert chosen["conv0"]["bias"] is None and rest["conv0"]["kernel"] is None
    assert chosen["conv0"]["kernel"] is NET["conv0"]["kernel"]
    for whole in (tree.merge(chosen, rest), tree.merge(rest, chosen)):
        assert jax.tree.structure(whole) == jax.tree.structure(NET)
        assert all(
            a is b for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(NET), strict=True)
        )
    # A part can be split again: its holes stay holes.
    assert tree.partition(rest, "*/bias")[0] == rest


@pytest.mark.fast
def test_all_finite():
    clean = {"x": jnp.ones(2, jnp.bfloat16), "n": jnp.arange(3), "key": jax.random.key(0), "f": 1.0}
    for value, expected in ((1.0, True), (jnp.nan, False), (-jnp.inf, False)):
        found = jax.jit(tree.all_finite)({**clean, "last": jnp.array([0.0, value])})
        assert found.dtype == bool and found.shape == () and bool(found) is expected
    assert bool(tree.all_finite({})) and bool(tree.all_finite(jnp.zeros((0, 2))))


@pytest.mark.fast
def test_count():
    assert tree.count(NET) == 9 + 3 + 2 + 4
    assert tree.count(jax.eval_shape(lambda: {"a": jnp.zeros((2, 3)), "b": jnp.zeros(())})) == 7
    assert tree.count({}) == 0


@pytest.mark.fast
@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-30])
def test_global_norm(scale):
    leaves = [scale * np.random.default_rng(0).normal(size=n).astype(np.float32) for n in (50, 7)]
    expected = np.linalg.norm(np.concatenate(leaves).astype(np.float64))
    # A sum of 57 squares: at most 57 + 4 roundings of 6e-8, halved by the root.
    assert float(jax.jit(tree.global_norm)(leaves)) == pytest.approx(expected, rel=2e-6)


@pytest.mark.fast
def test_global_norm_at_the_edges(x64):
    for zero in ({}, jnp.zeros(3), {"a": jnp.zeros((0, 2)), "b": jnp.zeros(())}):
        assert float(tree.global_norm(zero)) == 0
    assert float(tree.global_norm([jnp.array([jnp.inf, 1.0])])) == np.inf
    assert np.isnan(float(tree.global_norm([jnp.array([jnp.nan, 1.0])])))
    mixed = {"a": jnp.full(1, 3, jnp.bfloat16), "b": jnp.full(1, 4, jnp.float32)}
    norm = tree.global_norm(mixed)
    assert norm.dtype == jnp.float64 and float(norm) == 5
