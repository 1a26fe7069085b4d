"""Layers that sample in train mode."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check
from jaxtrain.nn import initializers
from jaxtrain.nn._combine import IDENTITY, identity, residual
from jaxtrain.nn._layer import EVAL, Context, Layer, constructor, fold_name, param_dtype
from jaxtrain.nn._linear import dense


def for_each(ctx: Context, f: Callable, *xs: jax.Array) -> jax.Array:
    """Returns f(key, x, ...) of every example, each with a key of its own."""
    return jax.vmap(f)(ctx.keys(len(xs[0])), *xs)


@constructor
def dropout(rate: float, *, form: str = "inverted", per: str = "element") -> Layer:
    """Sets each element to zero with probability `rate` in train mode.

    Each example has a mask of its own that depends on the key, the layer's name and the example's
    index, never on the device or the batch that it is in.

    Args:
        rate: probability to drop, in [0, 1); the keep probability is 1 - rate.
        form: "inverted" divides by 1 - rate in train mode; "vanilla" multiplies by it in eval mode.
        per: what is dropped as a whole: an "element", a "channel" (all places of an entry of the
            last axis: spatial dropout), an "example", or the "batch", on all devices.

    Example:
        >>> from jaxtrain import nn
        >>> ctx = nn.Context(train=True, key=jax.random.key(0))
        >>> y, _ = nn.dropout(0.5).apply({}, {}, jnp.ones((4, 100)), ctx)
        >>> sorted(set(y.ravel().tolist()))
        [0.0, 2.0]

    References:
        N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting",
        2014.
        J. Tompson et al., "Efficient object localization using convolutional networks", 2015, for
        channels.
    """
    _check.fraction("dropout", "rate", rate)
    _check.choice("dropout", "form", form, ("inverted", "vanilla"))
    _check.choice("dropout", "per", per, ("element", "channel", "example", "batch"))
    keep = 1 - rate

    def draw(key, x):
        ones = (1,) * x.ndim
        shape = {"element": x.shape, "channel": ones[1:] + x.shape[-1:]}.get(per, ones)
        return jax.random.bernoulli(key, keep, shape)

    def apply(params, state, x, ctx):
        if not ctx.train:
            return (x * keep if form == "vanilla" else x), state
        if rate == 0:
            return x, state
        if per == "batch":
            ctx = dataclasses.replace(ctx, index=jnp.zeros(x.shape[0], jnp.int32))
        kept = for_each(ctx, draw, x)
        return jnp.where(kept, x / keep if form == "inverted" else x, 0), state

    return Layer(lambda key, x: ({}, {}), apply)


@constructor
def alpha_dropout(rate: float) -> Layer:
    """Drops elements to where selu saturates, in train mode, and keeps their mean and variance.

        y = a (x or alpha') + b,   q = 1 - rate,   alpha' = -1.7581 = selu(-inf),
        a = (q + alpha'^2 q (1 - q))^(-1/2),   b = -a (1 - q) alpha'

    For elements of mean 0 and variance 1, as selu and `initializers.lecun_normal` make them.

    Args:
        rate: probability to drop, in [0, 1).

    Example:
        >>> from jaxtrain import nn
        >>> ctx = nn.Context(train=True, key=jax.random.key(0))
        >>> y, _ = nn.alpha_dropout(0.5).apply({}, {}, jnp.zeros((4, 100)), ctx)
        >>> sorted({round(v, 4) for v in y.ravel().tolist()})
        [-0.7792, 0.7792]

    References:
        G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-normalizing neural networks",
        2017.
    """
    _check.fraction("alpha_dropout", "rate", rate)
    q = 1 - rate
    alpha = -1.0507009873554805 * 1.6732632423543772
    a = (q + alpha**2 * q * (1 - q)) ** -0.5
    b = -a * (1 - q) * alpha

    def apply(params, state, x, ctx):
        if not ctx.train or rate == 0:
            return x, state
        kept = for_each(ctx, lambda key, x: jax.random.bernoulli(key, q, x.shape), x)
        return a * jnp.where(kept, x, alpha) + b, state

    return Layer(lambda key, x: ({}, {}), apply)


@constructor
def gaussian_noise(std: float) -> Layer:
    """Adds noise to each element in train mode: `y = x + std N(0, 1)`.

    Args:
        std: standard deviation of the noise, >= 0, in the unit of x.

    Example:
        >>> from jaxtrain import nn
        >>> ctx = nn.Context(train=True, key=jax.random.key(0))
        >>> y, _ = nn.gaussian_noise(2.0).apply({}, {}, jnp.zeros((100, 100)), ctx)
        >>> round(y.std().item(), 1)
        2.0

    References:
        C. Bishop, "Training with noise is equivalent to Tikhonov regularization", 1995.
    """
    _check.nonnegative("gaussian_noise", "std", std)

    def apply(params, state, x, ctx):
        param_dtype("gaussian_noise", x)
        if not ctx.train or std == 0:
            return x, state
        noise = for_each(ctx, lambda key, x: jax.random.normal(key, x.shape, x.dtype), x)
        return x + std * noise, state

    return Layer(lambda key, x: ({}, {}), apply)


@constructor
def drop_connect(
    features: int,
    rate: float,
    *,
    activation: Callable = identity,
    test: str = "mean",
    samples: int = 100,
    bias: bool = True,
    kernel_init=initializers.he_normal(),  # noqa: B008
    bias_init=initializers.zeros,
) -> Layer:
    """Makes a dense layer that drops each weight and bias, for each example anew, in train mode.

        train:            y = a(x @ (mask kernel) + mask bias),   mask ~ Bernoulli(p)
        eval, "mean":     y = a(m),   m = p (x @ kernel + bias)
        eval, "moments":  y = mean of a(u),   u ~ N(m, p (1 - p) (x^2 @ kernel^2 + bias^2))

    The mean rule is exact where a is linear; the other one takes the sum of many masked products
    for Gaussian.

    Args:
        features: the length of the output's last axis.
        rate: probability to drop, 1 - p, in [0, 1).
        activation: a, a function of one array.
        test: "mean" or "moments". The latter needs a key in eval mode too.
        samples: how many u are drawn for "moments".
        bias: False leaves the bias out.
        kernel_init: initializer of the (inputs, features) kernel.
        bias_init: initializer of the (features,) bias.

    Returns:
        A layer from (batch, ..., inputs) to (batch, ..., features), with the params of `dense`. In
        train mode the kernel is held once for each example of the batch.

    Raises:
        ConfigError: eval mode with test="moments" and without a key.

    Example:
        >>> from jaxtrain import nn
        >>> net = nn.drop_connect(3, 0.5, activation=nn.relu)
        >>> params, state = net.init(jax.random.key(0), jnp.zeros((1, 2)))
        >>> net.apply(params, state, jnp.ones((5, 2)), nn.EVAL)[0].shape
        (5, 3)

    References:
        L. Wan, M. Zeiler, S. Zhang, Y. LeCun, R. Fergus, "Regularization of neural networks using
        DropConnect", 2013.
    """
    _check.fraction("drop_connect", "rate", rate)
    _check.choice("drop_connect", "test", test, ("mean", "moments"))
    _check.integer("drop_connect", "samples", samples)
    p = 1 - rate
    plain = dense(features, bias=bias, kernel_init=kernel_init, bias_init=bias_init)

    def product(params, x):
        return plain.apply(params, {}, x, EVAL)[0]

    def apply(params, state, x, ctx):
        def masked(key, x):
            def mask(name, w):
                return jnp.where(jax.random.bernoulli(fold_name(key, name), p, w.shape), w, 0)

            return product({name: mask(name, w) for name, w in params.items()}, x)

        if ctx.train and rate > 0:
            return activation(for_each(ctx, masked, x)), state
        m = p * product(params, x)
        if test == "mean" or rate == 0:
            return activation(m), state
        if ctx.key is None:
            fix = "pass Context(train=False, key=...), or choose test='mean'"
            _check.fail("drop_connect", "ctx.key", "given where test='moments'", None, fix)
        # In float16, squares above 255 would overflow.
        z = x.astype(np.promote_types(x.dtype, np.float32))
        var = p * rate * product(jax.tree.map(jnp.square, params), z**2)
        std = jnp.where(var > 0, jnp.sqrt(jnp.where(var > 0, var, 1)), 0)  # a gradient at 0

        def mean(key, m, std):
            e = jax.random.normal(key, (samples, *m.shape), m.dtype)
            return activation(m[None] + std[None] * e).mean(0)

        return for_each(ctx, mean, m, std.astype(m.dtype)), state

    return Layer(plain.init, apply)


@constructor
def stochastic_depth(
    body: Layer,
    rate: float,
    *,
    shortcut: Layer = IDENTITY,
    form: str = "vanilla",
    per: str = "example",
) -> Layer:
    """Makes a residual block whose body is skipped with probability `rate` in train mode.

        train:  y = b body(x) + shortcut(x),   b ~ Bernoulli(1 - rate)
        eval:   y = (1 - rate) body(x) + shortcut(x)

    A skipped body is computed nevertheless, and its state updated; it has no gradient.

    Args:
        body: the residual branch.
        rate: probability to skip it, in [0, 1); for block l of L, `1 - survival(l, L)`.
        shortcut: the other branch, the identity by default.
        form: "vanilla" as above; "inverted" divides by 1 - rate in train mode instead.
        per: what has a b of its own: each "example", or as in the paper the whole "batch".

    Example:
        >>> from jaxtrain import nn
        >>> block = nn.stochastic_depth(nn.dense(2), 1 - nn.survival(1, 2))
        >>> params, state = block.init(jax.random.key(0), jnp.zeros((1, 2)))
        >>> block.apply(params, state, jnp.ones((5, 2)), nn.EVAL)[0].shape
        (5, 2)

    References:
        G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, "Deep networks with stochastic depth",
        2016.
    """
    _check.fraction("stochastic_depth", "rate", rate)
    _check.choice("stochastic_depth", "per", per, ("example", "batch"))
    skip = dropout(rate, form=form, per=per)

    def apply(params, state, x, ctx):
        y, state = body.apply(params, state, x, ctx)
        return skip.apply({}, {}, y, ctx.child("/skip"))[0], state  # no layer has such a name

    return residual(Layer(body.init, apply), shortcut=shortcut)


def survival(l: int, L: int, *, last: float = 0.5) -> float:  # noqa: E741
    """Computes the linear decay rule `p = 1 - l / L (1 - last)` of stochastic depth.

    Args:
        l: the block, from 1 to L; 0 stands for the input, which always survives.
        L: the number of blocks.
        last: the p of block L, in (0, 1].

    Returns:
        The probability that block l is not skipped.

    Example:
        >>> [survival(l, 4) for l in range(5)]
        [1.0, 0.875, 0.75, 0.625, 0.5]

    References:
        G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, "Deep networks with stochastic depth",
        2016, equation 4.
    """
    _check.integer("survival", "L", L)
    _check.integer("survival", "l", l, least=0)
    _check.positive("survival", "last", last)
    if last > 1:
        _check.fail("survival", "last", "a probability > 0", last)
    if l > L:
        _check.fail("survival", "l", f"at most L = {L}", l)
    return 1 - l / L * (1 - last)
