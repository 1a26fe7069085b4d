"""Pytrees by path: rules that choose leaves, parts of a tree, and numbers over all leaves.

A *rule* is a glob on the '/'-joined path (`*` crosses '/'), a tuple of globs, or a function
`f(path, leaf) -> bool` of the joined path.
"""

import functools
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check

Rule = str | tuple[str, ...] | Callable[[str, Any], bool]


def path_name(path: tuple) -> str:
    """Joins a key path of `jax.tree_util` with '/'.

    Args:
      path: the key path, as `jax.tree_util.tree_leaves_with_path` gives it.

    Returns:
      The name, "" for a tree that is one leaf.

    Example:
      >>> [path_name(p) for p, _ in jax.tree_util.tree_leaves_with_path({"a": [1, {"b": 2}]})]
      ['a/0', 'a/1/b']
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def select(rule: Rule, tree: Any) -> Any:
    """Marks the leaves that a rule chooses.

    Args:
      rule: a glob, a tuple of globs (any of them), or `f(path, leaf) -> bool`.
      tree: any pytree.

    Returns:
      The same tree with True or False for each leaf.

    Raises:
      ConfigError: a glob matches no leaf.

    Example:
      >>> select("*/kernel", {"dense0": {"kernel": 1.0, "bias": 2.0}})
      {'dense0': {'bias': False, 'kernel': True}}
    """
    if not callable(rule):
        globs = (rule,) if isinstance(rule, str) else rule
        if not isinstance(globs, tuple | list) or not all(isinstance(g, str) for g in globs):
            kinds = "a glob, a tuple of globs or a function of path and leaf"
            _check.fail("select", "rule", kinds, rule, error=TypeError)
        names = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
        for glob in globs:
            if not any(fnmatchcase(name, glob) for name in names):
                fix = _check.nearest(glob, names)
                _check.fail("select", "rule", "a glob that matches a leaf", glob, fix)

    def chosen(path, leaf):
        name = path_name(path)
        if callable(rule):
            return bool(rule(name, leaf))
        return any(fnmatchcase(name, glob) for glob in globs)

    return jax.tree_util.tree_map_with_path(chosen, tree)


def partition(tree: Any, rule: Rule) -> tuple[Any, Any]:
    """Splits a tree in two, each the whole tree with None in the holes; `merge` undoes it.

    Args:
      tree: any pytree.
      rule: which leaves go into the first part, as in `select`.

    Returns:
      The chosen part and the rest.

    Example:
      >>> partition({"kernel": 1.0, "bias": 2.0}, "kernel")
      ({'bias': None, 'kernel': 1.0}, {'bias': 2.0, 'kernel': None})
    """
    mask = select(rule, tree)
    chosen = jax.tree.map(lambda x, m: x if m else None, tree, mask)
    rest = jax.tree.map(lambda x, m: None if m else x, tree, mask)
    return chosen, rest


def merge(a: Any, b: Any) -> Any:
    """Fills the holes (None) of one tree with the leaves of the other.

    Args:
      a: a tree with None in the holes.
      b: the same tree with None elsewhere.

    Returns:
      The whole tree; where both have a leaf, that of `a`.

    Example:
      >>> merge({"kernel": 1.0, "bias": None}, {"kernel": None, "bias": 2.0})
      {'bias': 2.0, 'kernel': 1.0}
    """
    return jax.tree.map(lambda x, y: y if x is None else x, a, b, is_leaf=lambda x: x is None)


def all_finite(tree: Any) -> jax.Array:
    """Tells whether no floating-point leaf holds a NaN or an infinity.

    Args:
      tree: any pytree; integer leaves and PRNG keys always pass.

    Returns:
      A bool array of shape (); True for a tree without leaves.

    Example:
      >>> bool(all_finite({"x": jnp.array([1.0, jnp.nan]), "key": jax.random.key(0)}))
      False
    """
    bad = [~jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]
    # The first True, or the False before all. XLA would repeat an `and` of n flags in each of the
    # n selects of a guarded step (half of its compile time for 100 leaves); it leaves argmax alone.
    return jnp.argmax(jnp.stack([jnp.array(False), *bad])) == 0


def count(tree: Any) -> int:
    """Counts the numbers in all leaves.

    Args:
      tree: a pytree of arrays or `jax.ShapeDtypeStruct`.

    Returns:
      The sum of the leaves' sizes.

    Example:
      >>> count({"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)})
      16
    """
    return sum(np.size(x) for x in jax.tree.leaves(tree))


def global_norm(tree: Any) -> jax.Array:
    """Computes the Euclidean norm of all leaves as one vector.

    `s * sqrt(sum((x / s)**2))` with the s of `scaled_norm`, so that squares of finite leaves
    neither overflow nor underflow. Its gradient is not defined at a tree of zeros.

    Args:
      tree: a pytree of arrays.

    Returns:
      The norm, shape (), in the default float type; 0 for a tree without leaves.

    Example:
      >>> f"{global_norm({'kernel': jnp.array([3e30]), 'bias': jnp.array(4e30)}):.3g}"
      '5e+30'
    """
    s, norm = scaled_norm(tree)
    return s * norm


def scaled_norm(tree: Any) -> tuple[jax.Array, jax.Array]:
    """Computes a scale s and the norm of `tree / s`, both finite even where their product is not.

    Args:
      tree: a pytree of arrays.

    Returns:
      The largest magnitude (at most `1 / tiny`; 1 if it is zero or not finite) and the norm
      divided by it, shape (), in the default float type.

    Example:
      >>> [float(x) for x in scaled_norm(jnp.array([0.0, -4.0, 3.0]))]
      [4.0, 1.25]
    """
    dtype = jnp.result_type(float)
    leaves = [jnp.abs(x).astype(dtype) for x in jax.tree.leaves(tree)]
    zero = jnp.zeros((), dtype)
    largest = functools.reduce(jnp.maximum, (x.max(initial=0) for x in leaves), zero)
    # Where XLA multiplies by 1 / s instead of dividing, that must not be subnormal.
    largest = jnp.where(largest < jnp.inf, jnp.minimum(largest, 1 / jnp.finfo(dtype).tiny), 1)
    s = jnp.where(largest > 0, largest, 1)
    return s, jnp.sqrt(sum((((x / s) ** 2).sum() for x in leaves), zero))
