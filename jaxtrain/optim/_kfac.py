"""K-FAC: natural gradients with a Kronecker-factored curvature, for dense and conv layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.custom_batching import sequential_vmap
from jax.typing import ArrayLike

from jaxtrain import _check, _compat, losses, nn, tree
from jaxtrain.errors import StateError
from jaxtrain.nn._conv import per_axis
from jaxtrain.nn._look import walk, with_probes
from jaxtrain.schedules import Schedule

from ._base import (
    as_float,
    linear,
    one_minus_power,
    ratio,
    scale_by_learning_rate,
    scaled,
    widened,
)
from ._momentum import scale_by_momentum

KINDS = ("dense", "conv")


class KFACFactors(NamedTuple):
    """The Kronecker factors of a layer's curvature, or their damped inverses.

    Both have the leading axes of the layer's kernel where it stands in a `repeat`.

    Attributes:
      A: second moment of the inputs, (inputs, inputs): one more than the kernel's with a bias.
      G: second moment of the gradients at the outputs, (features, features).
    """

    A: jax.Array
    G: jax.Array


class KFACState(NamedTuple):
    """The number of updates; by layer path, the factors' means from 0 and the last inverses."""

    count: jax.Array  # type: ignore[assignment]
    factors: dict[str, KFACFactors]
    inverses: dict[str, KFACFactors]


def kfac_factors(
    net: nn.Layer,
    loss: Callable[[Any, Any], jax.Array],
    *,
    fisher: str | Callable[[jax.Array, Any], Any] = "model",
) -> Callable[..., dict[str, dict[str, KFACFactors]]]:
    """Makes the function that measures the Kronecker factors of a batch.

    For a layer `s = a @ W`, the row a its input with a 1 appended where there is a bias, and W the
    kernel with the bias as its last row, over the real examples of all devices::

        A = mean of a.T @ a        G = mean of g.T @ g,    g = d loss / d s

    A convolution's rows are the patches under its window: A is then a mean over positions too, and
    G a sum over them. So it is for a dense layer of sequences.

    Args:
      net: the network.
      loss: `f(outputs, targets) -> (batch,)`.
      fisher: whose targets g comes from. "model": drawn from the model's own distribution, of which
        `losses.softmax_cross_entropy` and `losses.squared_error` are the -log p (the second of
        normal distributions); the curvature is then the Fisher and the Gauss-Newton matrix.
        "empirical": those of the batch. `draw(key, output) -> target`, for one example: drawn so,
        for another loss that is a -log p.

    Returns:
      `observe(params, state, batch, ctx) -> {"factors": factors by layer path}` for
      `train.make_step(observe=)`, at least float32.

    Raises:
      ConfigError: `fisher="model"` with another loss, a convolution in groups, or weight_norm.

    Example:
      >>> observe = kfac_factors(nn.dense(2, bias=False), losses.softmax_cross_entropy)
      >>> batch = {"image": 2 * jnp.eye(4), "mask": jnp.ones(4)}
      >>> ctx = nn.Context(True, jax.random.key(0))
      >>> A, G = observe({"kernel": jnp.zeros((4, 2))}, {}, batch, ctx)["factors"][""]
      >>> A.diagonal().tolist(), G.tolist()
      ([1.0, 1.0, 1.0, 1.0], [[0.25, -0.25], [-0.25, 0.25]])

    References:
      Martens and Grosse, Optimizing Neural Networks with Kronecker-factored Approximate Curvature,
      2015. Grosse and Martens, A Kronecker-factored Approximate Fisher Matrix for Convolution
      Layers, 2016. Kunstner, Balles and Hennig, Limitations of the Empirical Fisher Approximation
      for Natural Gradient Descent, 2019.
    """
    if not callable(fisher):
        _check.choice("kfac_factors", "fisher", fisher, ("model", "empirical"))
    if fisher == "model":
        if "ignore_index" in getattr(loss, "keywords", {}):
            fix = "pass fisher='empirical'"
            _check.fail("kfac_factors", "loss", "without ignore_index", loss, fix)
        loss = getattr(loss, "func", loss)  # smoothed labels are none of the model's
        draws = {losses.softmax_cross_entropy: _draw_class, losses.squared_error: _draw_values}
        if loss not in draws:
            fix = "pass fisher='empirical' or a function draw(key, output) -> target"
            rule = f"one of {[f.__name__ for f in draws]} with fisher='model'"
            _check.fail("kfac_factors", "loss", rule, loss, fix)
        fisher = draws[loss]
    _check_layers("kfac_factors", net)
    tapped = nn.tap(net, lambda path, layer: layer.kind in KINDS, _see)

    def observe(params, state, batch, ctx):
        real, label = batch["mask"] > 0, batch.get("label")

        def forward(probes):
            outputs, new = tapped.apply(with_probes(params, probes), state, batch["image"], ctx)
            return outputs, nn.split_taps(new)[1]

        def psum(x):
            return x if ctx.axis_name is None else lax.psum(x, ctx.axis_name)

        shapes = jax.eval_shape(forward, {})[1]
        probes = {path: jnp.zeros(s.shape, s.dtype) for path, (_, s) in shapes.items()}
        probes = _compat.to_varying(probes, ctx.axis_name)
        outputs, pull, seen = jax.vjp(forward, probes, has_aux=True)
        if callable(fisher):
            label = jax.vmap(fisher)(ctx.child("fisher").keys(len(real)), outputs)
        cotangent = jax.grad(lambda y: jnp.where(real, loss(y, label), 0).sum())(outputs)
        (gradients,) = pull(cotangent)
        sums = {path: _sums(a, gradients[path], real) for path, (a, _) in seen.items()}
        sums, count = psum((sums, batch["mask"].sum()))
        return {"factors": scaled(1 / as_float(jnp.maximum(count, 1)), sums, sums)}

    return observe


def _check_layers(where, net):
    for path, layer in walk(net):
        if layer.kind == "conv" and layer.options["groups"] > 1:
            rule = "without convolutions in groups, whose factors would be those of each group"
            _check.fail(where, "net", rule, f"{layer!r} at {'/'.join(path)}")
        if layer.kind == "weight_norm":
            rule = "without weight_norm, whose kernel is not the one that multiplies the inputs"
            _check.fail(where, "net", rule, f"{layer!r} at {'/'.join(path)}")


def _draw_class(key, logits):
    return jax.random.categorical(key, logits)


def _draw_values(key, y):
    # The mean of (y - v)^2 over n values is -log p(v) for a variance of n / 2.
    return y + math.sqrt(y.size / 2) * jax.random.normal(key, y.shape, y.dtype)


def _see(layer, params, x, y):
    """Records the rows that multiply the kernel, (batch, positions, inputs), and the output."""
    window = params["kernel"].shape[:-2]
    if layer.kind == "conv":
        strides, dilation = (
            per_axis("conv", name, layer.options[name], len(window))
            for name in ("strides", "dilation")
        )
        patches = lax.conv_general_dilated_patches(
            jnp.moveaxis(x, -1, 1),
            window,
            strides,
            layer.options["padding"],
            rhs_dilation=dilation,
            precision=lax.Precision.HIGHEST,
        )
        patches = patches.reshape(len(x), x.shape[-1], math.prod(window), -1)
        x = patches.transpose(0, 3, 2, 1)  # to (batch, positions, window, channels)
    a = x.reshape(len(x), -1, math.prod(window) * params["kernel"].shape[-2])
    if "bias" in params:
        a = jnp.concatenate([a, jnp.ones_like(a[..., :1])], -1)
    return y, (a, y)


def _sums(a, g, real):
    """Sums the second moments of a layer's rows and output gradients over the real examples."""

    def total(z):
        z = jnp.where(real.reshape((1,) * (z.ndim - 3) + (-1, 1, 1)), z, 0)
        return jnp.einsum("...bpi,...bpj->...ij", z, z, precision=lax.Precision.HIGHEST)

    a, g = widened((a, g.reshape(*a.shape[:-1], g.shape[-1])))
    return KFACFactors(total(a) / a.shape[-2], total(g))


def scale_by_kfac(
    net: nn.Layer,
    *,
    damping: ArrayLike = 1e-3,
    decay: ArrayLike = 0.95,
    every: int = 1,
    norm_constraint: ArrayLike | None = 1e-3,
) -> optax.GradientTransformationExtraArgs:
    """Multiplies by the inverse of a Kronecker-factored curvature, layer by layer.

    With the gradient V of a dense or conv layer's kernel, the bias's as its last row, and with
    bias-corrected means A and G of the factors of `kfac_factors`::

        update = inv(A + pi * sqrt(damping) * I) @ V @ inv(G + sqrt(damping) / pi * I)
        pi**2 = mean eigenvalue of A / mean eigenvalue of G

    which is `kron(A, G) + damping * I` inverted, but for two terms that pi makes small. Other
    params keep their gradients, as if their curvature were I. All updates u of gradients g are then
    multiplied by `min(1, sqrt(norm_constraint / sum(u * g)))`: a step u changes the model's
    distribution by a Kullback-Leibler divergence of at most half of norm_constraint.

    Args:
      net: the network, whose params are to be updated.
      damping: > 0, the curvature that is added to all directions.
      decay: the weight of the past in the means, in [0, 1).
      every: updates between two inversions, >= 1; the factors are averaged at each.
      norm_constraint: > 0, or None for none. The norm is that of the step if the learning rate
        comes before, as in `kfac`.

    Returns:
      The transformation; `update(grads, state, params, factors=)` takes what the function of
      `kfac_factors` returns, and gives updates in the gradients' dtype.

    Raises:
      ConfigError: an argument is out of range, or the net has a convolution in groups or
        weight_norm.
      StateError: at init, the params are not the net's; at update, factors of layers are missing.

    Example:
      >>> tx = scale_by_kfac(nn.dense(2, bias=False), damping=1e-9, norm_constraint=None)
      >>> factors = {"": KFACFactors(jnp.diag(jnp.array([1.0, 4.0])), jnp.eye(2))}
      >>> grads = {"kernel": jnp.ones((2, 2))}
      >>> tx.update(grads, tx.init(grads), factors=factors)[0]["kernel"].round(2).tolist()
      [[1.0, 1.0], [0.25, 0.25]]

    References:
      Martens and Grosse, 2015, sections 6.3 and 6.6; Grosse and Martens, 2016; Ba, Grosse and
      Martens, Distributed Second-Order Optimization using Kronecker-Factored Approximations, 2017
      (the constraint). There the damping is adapted and the rate found from a quadratic model.
    """
    where = "scale_by_kfac"
    _check.positive(where, "damping", damping)
    _check.fraction(where, "decay", decay)
    _check.integer(where, "every", every)
    if norm_constraint is not None:
        _check.positive(where, "norm_constraint", norm_constraint)
    _check_layers(where, net)
    layers = list(walk(net))
    repeats = [path for path, layer in layers if layer.kind == "repeat"]
    stacks = {  # how many leading axes the params have, one for each `repeat` around the layer
        "/".join(path): sum(path[: len(above)] == above for above in repeats)
        for path, layer in layers
        if layer.kind in KINDS
    }

    def init(params):
        factors = {}
        for path, V in _matrices(params, stacks).items():
            *stack, inputs, features = V.shape
            A, G = (jnp.zeros((*stack, n, n), V.dtype) for n in (inputs, features))
            factors[path] = KFACFactors(A, G)
        if stacks and not factors:
            fix = "pass the net that made them"
            _check.fail(where, "params", f"those of layers {list(stacks)}", "none", fix, StateError)
        inverses = jax.tree.map(jnp.zeros_like, factors)
        return KFACState(jnp.zeros((), jnp.int32), factors, inverses)

    def update(updates, state, params=None, *, factors=None, **_):
        if missing := sorted(state.factors.keys() - (factors or {}).keys()):
            rule = f"those of layers {missing} too"
            fix = "pass make_step(observe=kfac_factors(net, loss))"
            _check.fail(where, "factors", rule, factors, fix, StateError)
        count = optax.safe_increment(state.count)
        batch = {}
        for path, (A, _) in state.factors.items():
            n = A.shape[-1]  # leaves out the bias's coordinate where the bias is frozen
            batch[path] = KFACFactors(factors[path].A[..., :n, :n], factors[path].G)
        factors = linear(decay, state.factors, 1 - decay, batch)
        weights = one_minus_power(decay, count)  # what those of the mean sum to
        with jax.default_matmul_precision("highest"):
            inverses = lax.cond(
                state.count % jnp.asarray(every, jnp.int32) == 0,
                lambda: {
                    path: _damped_inverses(scaled(1 / weights, f, f), damping, stacks[path])
                    for path, f in factors.items()
                },
                lambda: state.inverses,
            )
            natural = {
                path: inverses[path].A @ V @ inverses[path].G
                for path, V in _matrices(updates, stacks).items()
            }

        def direction(path, g):
            path, _, name = tree.path_name(path).rpartition("/")
            if path not in natural:
                return g
            rows = math.prod(g.shape[stacks[path] : -1])
            U = natural[path]
            return U[..., -1, :] if name == "bias" else U[..., :rows, :].reshape(g.shape)

        u = jax.tree_util.tree_map_with_path(direction, widened(updates))
        nu = as_float(1)
        if norm_constraint is not None:
            products = jax.tree.map(lambda u, g: as_float((u * g).sum()), u, widened(updates))
            size, c = sum(jax.tree.leaves(products), as_float(0)), as_float(norm_constraint)
            nu = jnp.sqrt(c / jnp.maximum(size, c))
        return scaled(nu, u, updates), KFACState(count, factors, inverses)

    return optax.GradientTransformationExtraArgs(init, update)


def _matrices(params, stacks):
    """The kernels that there are, biases as a last row, by layer path, (..., inputs, features)."""
    flat = {tree.path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    matrices = {}
    for path, stack in stacks.items():
        kernel, bias = (flat.get(f"{path}/{name}".lstrip("/")) for name in ("kernel", "bias"))
        if kernel is not None:
            rows = kernel.reshape(*kernel.shape[:stack], -1, kernel.shape[-1])
            last = [] if bias is None else [bias[..., None, :]]
            matrices[path] = jnp.concatenate(widened([rows, *last]), -2)
    return matrices


def _damped_inverses(factors, damping, stack):
    if stack:
        return jax.vmap(lambda one: _damped_inverses(one, damping, stack - 1))(factors)
    a, g = (jnp.trace(F) / len(F) for F in factors)
    pi = jnp.sqrt(ratio(a, g))
    pi = jnp.where(pi > 0, pi, 1)  # a factor of 0, such as that of a frozen layer
    root = jnp.sqrt(jnp.asarray(damping, pi.dtype))

    def inverse(F, d):
        # The floor keeps a singular F positive definite in spite of rounding, for Cholesky.
        d = jnp.maximum(d, 10 * jnp.finfo(F.dtype).eps * jnp.trace(F))
        eye = jnp.eye(len(F), dtype=F.dtype)
        return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(F + d * eye), eye)

    if jax.default_backend() == "cpu":
        # Two batched calls of LAPACK can wait for each other for ever (jaxlib 0.10.2, two cores).
        inverse = sequential_vmap(inverse)
    return KFACFactors(inverse(factors.A, pi * root), inverse(factors.G, root / pi))


def kfac(
    net: nn.Layer,
    learning_rate: Schedule | ArrayLike,
    *,
    momentum: ArrayLike = 0.9,
    damping: ArrayLike = 1e-3,
    decay: ArrayLike = 0.95,
    every: int = 1,
    norm_constraint: ArrayLike | None = 1e-3,
) -> optax.GradientTransformationExtraArgs:
    """Makes K-FAC: `v = momentum * v + u; w = w + v`.

    u is the update of `scale_by_kfac` for `-learning_rate * g`, which `norm_constraint` bounds.

    Args:
      net: the network, whose params are to be updated.
      learning_rate: a number > 0, a schedule, or a traced array.
      momentum: as in `scale_by_momentum`.
      damping, decay, every, norm_constraint: as in `scale_by_kfac`.

    Returns:
      The optimizer, for `train.make_step(net, loss, tx, observe=kfac_factors(net, loss))`.

    Raises:
      ConfigError: an argument is out of range.

    Example:
      >>> net = nn.dense(1)
      >>> tx, observe = kfac(net, 0.1), kfac_factors(net, losses.squared_error)
      >>> params, state = net.init(jax.random.key(0), jnp.ones((4, 3)))
      >>> batch = {"image": jnp.ones((4, 3)), "mask": jnp.ones(4)}
      >>> seen = observe(params, state, batch, nn.Context(True, jax.random.key(1)))
      >>> updates, _ = tx.update(params, tx.init(params), params, **seen)
      >>> jax.tree.map(jnp.shape, updates)
      {'bias': (1,), 'kernel': (3, 1)}
    """
    scale = scale_by_kfac(
        net, damping=damping, decay=decay, every=every, norm_constraint=norm_constraint
    )
    rate = scale_by_learning_rate(learning_rate)
    return optax.chain(rate, scale, scale_by_momentum(momentum=momentum))
