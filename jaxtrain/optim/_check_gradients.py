"""Gradients against finite differences."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxtrain import _check, _compat, tree

ROUNDING, GREAT = 2.0**-52, 1e-7


class Slope(NamedTuple):
    """Derivatives of a function in one direction.

    Attributes:
      path: the parameter's '/'-joined path.
      index: of the number in the parameter, or of the random direction.
      numeric: the difference quotient that was compared.
      analytic: what JAX gives.
      left: the one-sided difference quotient from below.
      right: the one from above.
    """

    path: str
    index: tuple[int, ...]  # type: ignore[assignment]
    numeric: float
    analytic: float
    left: float
    right: float

    def __str__(self) -> str:
        where = f"{self.path or 'params'}{list(self.index)}"
        slopes = f"from the left {self.left:.9g}, from the right {self.right:.9g}"
        return f"{where}: numeric {self.numeric:.9g}, analytic {self.analytic:.9g} ({slopes})"


class GradientReport(NamedTuple):
    """What `check_gradients` found; printed, a few lines for people.

    Attributes:
      errors: for each parameter's path, `|numeric - analytic| / (|numeric| + |analytic|)` with the
        norms over all its numbers or directions.
      worst: the largest difference in the parameter with the largest error.
      kinks: where the function bends at the params and the analytic derivative lies between the
        slopes on both sides; they are left out of the errors.
    """

    errors: dict[str, float]
    worst: Slope
    kinks: list[Slope]

    @property
    def error(self) -> float:
        """The largest of the errors."""
        return float(np.max(list(self.errors.values())))

    @property
    def verdict(self) -> str:
        """Up to 1e-7 "great", to 1e-5 "good", to 1e-3 "look" (at it), beyond "wrong"."""
        bounds = {"great": GREAT, "good": 1e-5, "look": 1e-3}
        return next((name for name, bound in bounds.items() if self.error <= bound), "wrong")

    def __str__(self) -> str:
        lines = [f"gradients: {self.verdict}, relative error {self.error:.1e}"]
        lines += [f"  {path or 'params'}: {error:.1e}" for path, error in self.errors.items()]
        lines += [f"worst: {self.worst}", *(f"kink: {kink}" for kink in self.kinks)]
        return "\n".join(lines)


def check_gradients(
    fun: Callable[[Any], jax.Array],
    params: Any,
    *,
    method: str = "central",
    directions: int | None = None,
    key: jax.Array | None = None,
    eps: float | None = None,
) -> GradientReport:
    """Compares the gradient of a function with difference quotients, in float64.

    For each number of the params, or for random unit vectors d in each parameter::

        "central": (fun(w + h * d) - fun(w - h * d)) / (2 * h)
        "forward": (fun(w + h * d) - fun(w)) / h

    with `h = eps * max(1, |w|)`. Differences below the rounding errors of `fun` count for 1e-7
    at most, so that a true gradient of zero, as a bias before BatchNorm has, is not found wrong.

    Args:
      fun: `f(params) -> scalar`, in the dtype of its params; other arrays that it uses may be of
        any type, but all that it casts to float32 is rounding error here. Without dropout, or with
        the same mask in every call.
      params: a tree of floating-point arrays, of any precision; float64 inside.
      method: "central", with an error of order h**2, or "forward", of order h.
      directions: None for each number by itself, two calls of `fun` a number; n for n random
        directions in each parameter.
      key: of the random directions; None means `jax.random.key(0)`.
      eps: > 0; None means where truncation and rounding balance, 6e-6 and for "forward" 1.5e-8.

    Returns:
      The report: an error for each parameter, a verdict, and the kinks.

    Raises:
      ConfigError: an argument is out of range, or `fun` does not give a float64 scalar.

    Example:
      >>> report = check_gradients(lambda w: w**3, 1.0, eps=0.1)
      >>> round(report.worst.numeric, 6), report.worst.analytic, report.verdict
      (3.01, 3.0, 'wrong')
      >>> check_gradients(lambda w: w**3, 1.0).verdict
      'great'
    """
    where = "check_gradients"
    _check.choice(where, "method", method, ("central", "forward"))
    if directions is not None:
        _check.integer(where, "directions", directions)
    if eps is None:
        eps = ROUNDING ** (1 / 3 if method == "central" else 1 / 2)
    _check.positive(where, "eps", eps)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            rule = f"of a floating-point type at {tree.path_name(path)!r}"
            _check.fail(where, "params", rule, str(dtype), error=TypeError)
    if tree.count(params) == 0:
        _check.fail(where, "params", "a tree with numbers in it", params)
    with _compat.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        return _checked(fun, params, method, directions, key, eps)


def _checked(fun, params, method, directions, key, eps):
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
    out = jax.eval_shape(fun, params)
    if out.shape != () or out.dtype != jnp.float64:
        rule = "a function that computes a scalar in the dtype of its params, here float64"
        _check.fail("check_gradients", "fun", rule, f"{out.dtype}{list(out.shape)}")
    slopes = _slopes(fun, params, directions, key, eps)

    leaves = jax.tree_util.tree_leaves_with_path(params)
    counts = [(directions or x.size) if x.size else 0 for _, x in leaves]
    leaf = np.repeat(np.arange(len(leaves)), counts)
    places, start = [], 0
    for (_, x), n in zip(leaves, counts, strict=True):
        places += [(start, start + x.size, k) for k in range(n)]
        start += x.size

    analytic, left, right, noise = slopes(places)
    numeric = (left + right) / 2 if method == "central" else right
    off = abs(numeric - analytic)
    within_noise = off <= noise
    kinked = _kinked(slopes, places, analytic, left, right, noise)

    errors = {}
    for i, (path, _) in enumerate(leaves):
        here = (leaf == i) & ~kinked
        difference, *both = (np.linalg.norm(v[here]) for v in (off, numeric, analytic))
        error = float(difference / sum(both)) if difference else 0.0
        errors[tree.path_name(path)] = min(error, GREAT) if within_noise[here].all() else error

    def slope(i):
        path, x = leaves[leaf[i]]
        k = places[i][2]
        index = (k,) if directions else tuple(map(int, np.unravel_index(k, x.shape)))
        values = (float(v[i]) for v in (numeric, analytic, left, right))
        return Slope(tree.path_name(path), index, *values)

    worst = np.argmax(list(errors.values()))
    worst = np.argmax(np.where((leaf == worst) & ~kinked, off, -1))
    return GradientReport(errors, slope(worst), [slope(i) for i in np.flatnonzero(kinked)])


def _slopes(fun, params, directions, key, eps):
    """The function that gives the slopes of fun at places (start, stop, k) of the params."""
    w, unravel = ravel_pytree(params)
    gradient, _ = ravel_pytree(jax.grad(fun)(params))
    key = jax.random.key(0) if key is None else key

    def direction(start, stop, k):
        """A unit vector within w[start:stop]: along its k-th number, or random."""
        i = jnp.arange(w.size)
        if directions is None:
            return jnp.asarray(i == start + k, w.dtype)
        random = jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, start), k), w.shape)
        d = jnp.where((start <= i) & (i < stop), random, 0)
        return d / jnp.linalg.norm(d)

    @jax.jit
    def about(w, gradient, shrink, place):
        d = direction(*place)
        return d, d @ gradient, shrink * eps * jnp.maximum(1, jnp.abs(d * w).max())

    @jax.jit
    def along(w, d, t):
        return fun(unravel(w + t * d))

    f = float(along(w, w, 0.0))

    def slopes(places, shrink=1.0):
        """The analytic and both one-sided numeric slopes, and the rounding error of these."""
        rows = []
        for place in places:
            d, analytic, h = about(w, gradient, shrink, place)
            rows.append((analytic, h, along(w, d, -h), along(w, d, h)))
        analytic, h, below, above = np.array(jax.device_get(rows)).reshape(-1, 4).T
        # The sums within fun are off by more than one last place; 32 is generous, not derived.
        noise = 32 * ROUNDING * np.maximum(abs(f), np.maximum(abs(below), abs(above))) / h
        return analytic, (f - below) / h, (above - f) / h, noise

    return slopes


def _kinked(slopes, places, analytic, left, right, noise):
    """Where fun bends within h, and the analytic slope is one that it has on either side."""
    bend, slack = right - left, 1e-4 * (abs(left) + abs(right)) + 4 * noise
    between = abs(analytic - (left + right) / 2) <= abs(bend) / 2 + slack
    (suspects,) = np.nonzero((abs(bend) > slack) & between)
    kinked = np.zeros(len(places), bool)
    # A smooth bend is proportional to h. At h / 2 alone, a kink at a distance of h / 3 looks so.
    for shrink in (1 / 2, 1 / 4):
        _, left, right, noise = slopes([places[i] for i in suspects], shrink)
        rest = abs(right - left - shrink * bend[suspects])
        kinked[suspects] |= rest > abs(bend[suspects]) / 10 + 4 * noise
    return kinked
