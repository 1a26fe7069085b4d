"""Modules of flax as layers, and their variables as params and state."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxtrain import _check, tree
from jaxtrain.nn._layer import Context, Layer, constructor, fold_name
from jaxtrain.nn._look import at, put
from jaxtrain.nn._norm import batch_norm
from jaxtrain.nn._stochastic import dropout

# The names under which modules ask for the mode, and the value that means train mode.
MODES = {
    **{"train": True, "training": True, "is_training": True},
    **{"deterministic": False, "use_running_average": False},
}
BY_EXAMPLE = "by_example"  # the random stream that is the same on all devices


def from_flax(module: Any, *, options: Callable[[Context], dict] | None = None) -> Layer:
    """Makes a layer of a flax module: linen or nnx.

    The collection `params` (nnx: each `Param`) becomes the params. What else there is becomes the
    state: `batch_stats` under the same names as here, any other collection `c` as `@c`. All of it
    can change in train mode alone. Random streams, "dropout" and the like, come from `ctx.key`.

    The module gets the part of the batch on its device, padding included. In train mode linen's
    `BatchNorm` and `Dropout` are computed as `batch_norm` and `dropout`: over all devices, without
    padding, masks by the example. In nnx `BatchNorm` is over all devices too, but counts padding.
    Whatever else samples depends on the key and the first example of the part, and so on the number
    of devices; whatever else changes state is averaged over them. To the functions that look inside
    a net, such as `recompute_batch_stats`, it is one layer. Its precision is its own `dtype=`.

    Args:
        module: a linen module; or for nnx a function `f(rngs) -> module`, or a module, whose
            present values are then the initial ones, whatever the key.
        options: function of the context that returns further keyword arguments of the module's
            call. None passes the mode as `train`, `training`, `is_training`, `deterministic` or
            `use_running_average`, whichever the call takes; an nnx module is also put into it.

    Returns:
        A layer. `nn.describe` refuses a net that contains it: keep the module's code, and pass the
        net to `train.load`.

    Raises:
        ConfigError: when applied, the module changes the structure of its variables, as `sow` does
            into any collection but `intermediates`, which is dropped.
        TypeError: `module` is none of these.

    Example:
        >>> from flax import linen
        >>> net = from_flax(linen.Sequential([linen.Dense(8), linen.relu, linen.Dense(2)]))
        >>> params, state = net.init(jax.random.key(0), jnp.zeros((1, 4)))
        >>> params["layers_0"]["kernel"].shape, state
        ((4, 8), {})

    References:
        J. Heek et al., "Flax: a neural network library and ecosystem for JAX", 2020.
    """
    from flax import linen, nnx

    if isinstance(module, linen.Module):
        return linen_module(module, options=options)
    if not isinstance(module, nnx.Module) and (not callable(module) or inspect.isclass(module)):
        rule = "a linen module, an nnx module or a function of rngs that makes one"
        fix = "pass lambda rngs: Net(..., rngs=rngs), or linen's Net(...)"
        _check.fail("from_flax", "module", rule, module, fix, TypeError)
    return nnx_module(module, options=options)


def from_variables(variables: dict) -> tuple[dict, dict]:
    """Splits the variables of a linen module into the params and state of its layer.

    Those of a layer or net of ours with the same names, too: a kernel, bias, scale, mean or var is
    the same in flax.

    Args:
        variables: collections by name, as from `module.init` or flax's `msgpack_restore`.

    Example:
        >>> params, state = from_variables({"params": {"bias": 0.0}, "batch_stats": {"mean": 1.0}})
        >>> params, state
        ({'bias': 0.0}, {'mean': 1.0})
    """
    others = {f"@{c}": v for c, v in variables.items() if c not in ("params", "batch_stats")}
    return variables.get("params", {}), {**variables.get("batch_stats", {}), **others}


def to_flax(params: dict, state: dict) -> dict:
    """Joins params and state into the variables of a linen module: undoes `from_variables`.

    For an nnx module, `nnx.replace_by_pure_dict(nnx.state(module), params)` and likewise with the
    state put them into what `nnx.update(module, ...)` takes.

    Args:
        params: those of a `from_flax` layer, or of a net of ours with the same names.
        state: likewise.

    Returns:
        Collections by name, without the empty ones. They go into `module.apply`, into
        `flax.serialization.msgpack_serialize` and into `train.save_safetensors`.

    Example:
        >>> to_flax({"bias": 0.0}, {"mean": 1.0})
        {'params': {'bias': 0.0}, 'batch_stats': {'mean': 1.0}}
    """
    others = {name[1:]: v for name, v in state.items() if name.startswith("@")}
    batch_stats = {name: v for name, v in state.items() if not name.startswith("@")}
    collections = {"params": params, "batch_stats": batch_stats, **others}
    return {name: v for name, v in collections.items() if v}


@constructor
def linen_module(module, *, options: Callable[[Context], dict] | None = None) -> Layer:
    """Makes a layer of a linen module; the arguments are those of `from_flax`."""
    from flax import linen

    options = options or _mode(module)

    def init(key, x):
        # Shapes alone: linen then computes no output.
        x = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)
        return from_variables(module.lazy_init(key, x, **options(Context(train=False))))

    def apply(params, state, x, ctx):
        variables = to_flax(params, state)
        mutable = [name for name in variables if name != "params"] if ctx.train else []
        rngs = {} if ctx.key is None else {"params": _key(ctx, x), BY_EXAMPLE: ctx.key}
        with linen.intercept_methods(_as_ours(ctx)):
            y, new = module.apply(variables, x, rngs=rngs, mutable=mutable, **options(ctx))
        return y, _agreed(state, from_variables(new)[1], ctx) if ctx.train else state

    return Layer(init, apply)


def _as_ours(ctx):
    """Returns an interceptor that computes linen's layers as ours, where these have the options."""
    from flax import linen

    kinds = {linen.BatchNorm: _batch_norm, linen.Dropout: _dropout}

    def intercept(call, args, kwargs, context):
        ours = kinds.get(type(context.module)) if ctx.train else None
        if ours is not None and context.method_name == "__call__":
            y = ours(context.module, ctx, *args, **kwargs)
            if y is not None:
                return y
        return call(*args, **kwargs)

    return intercept


def _batch_norm(module, ctx, x, use_running_average=None, **other):
    if use_running_average is None:
        use_running_average = module.use_running_average
    ours = module.axis in (-1, x.ndim - 1) and module.axis_index_groups is None and not other
    if use_running_average or not ours:
        return None
    dtype = np.promote_types(x.dtype, module.param_dtype)
    if ctx.mask is not None and len(ctx.mask) != len(x):
        ctx = dataclasses.replace(ctx, mask=None)
    layer = batch_norm(decay=module.momentum, eps=module.epsilon, unbiased=False)
    params, state = from_variables(module.variables)
    y, state = layer.apply(params, state, x.astype(dtype), ctx)
    for name, value in state.items():
        module.put_variable("batch_stats", name, value)
    return y.astype(module.dtype or dtype)


def _dropout(module, ctx, x, deterministic=None, **other):
    if deterministic is None:
        deterministic = module.deterministic
    whole = ctx.index is None or len(ctx.index) == len(x)
    by_example = whole and module.rate < 1 and not module.broadcast_dims
    if deterministic or other or not by_example or not module.has_rng(BY_EXAMPLE):
        return None
    ctx = dataclasses.replace(ctx, key=module.make_rng(BY_EXAMPLE))
    return dropout(module.rate).apply({}, {}, x, ctx)[0]


@constructor
def nnx_module(module, *, options: Callable[[Context], dict] | None = None) -> Layer:
    """Makes a layer of an nnx module; the arguments are those of `from_flax`."""
    from flax import nnx

    def split(model):
        return nnx.split(model, nnx.Param, nnx.RngState, ...)

    def make(key):
        return module if isinstance(module, nnx.Module) else module(nnx.Rngs(key))

    shapes = nnx.eval_shape(lambda: make(jax.random.key(0)))
    graph, p, rngs, s = split(shapes)
    options = options or _mode(shapes)

    def init(key, x):
        _, params, _, state = split(make(key))
        return _dicts(params), _dicts(state)

    def apply(params, state, x, ctx):
        sample = ctx.key is not None or (ctx.train and jax.tree.leaves(rngs))
        streams = _streams(rngs, _key(ctx, x) if sample else None)
        model = nnx.merge(graph, _fill(p, params), streams, _fill(s, state))
        model.train() if ctx.train else model.eval()
        model.set_attributes(nnx.BatchNorm, axis_name=ctx.axis_name, raise_if_not_found=False)
        y = model(x, **options(ctx))
        return y, _agreed(state, _dicts(split(model)[-1]), ctx) if ctx.train else state

    return Layer(init, apply)


def _mode(module) -> Callable[[Context], dict]:
    """Returns the function of the context that tells the module's call the mode."""
    asked = [name for name in MODES if name in inspect.signature(module.__call__).parameters]
    asked = [name for name in asked if getattr(module, name, None) is None]
    return lambda ctx: {name: ctx.train == MODES[name] for name in asked}


def _key(ctx, x):
    """Returns the key of this device's part of the batch, that of the first example."""
    return ctx.keys(len(jax.tree.leaves(x)[0]))[0]


def _agreed(old, new, ctx):
    """Returns the new state, the mean over the devices, of the structure of the old one."""
    before, after = map(jax.tree.structure, (old, new))
    if before != after:  # type: ignore[operator]
        fix = "sow into `intermediates` only, or give sow a reduce_fn that keeps the structure"
        rule = "one whose variables keep their structure"
        _check.fail("from_flax", "module", rule, after, fix)

    def agree(leaf):
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return lax.pmean(leaf, ctx.axis_name) if floating else leaf

    return new if ctx.axis_name is None else jax.tree.map(agree, new)


def _name(path) -> str:
    return tree.path_name(path).removesuffix("/value")


def _dicts(values) -> dict:
    """Returns what an nnx state holds as nested dicts of arrays, with text for numbers in paths."""
    found: dict = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(values):
        way, _, last = _name(path).rpartition("/")
        found = put(found, way, {last: leaf})
    return found


def _fill(abstract, values):
    """Undoes `_dicts`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: at(values, _name(path)), abstract)


def _streams(abstract, key):
    """Returns the state of the random streams, each with its own name in the key."""

    def stream(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.zeros(leaf.shape, leaf.dtype)
        if key is None:
            return None
        own = fold_name(key, _name(path))
        return jax.random.split(own, leaf.shape) if leaf.shape else own

    return jax.tree_util.tree_map_with_path(stream, abstract)
