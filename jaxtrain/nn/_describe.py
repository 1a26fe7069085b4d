"""Nets as JSON: what `train.load` rebuilds a network from. Names are looked up, never imported."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check, nn
from jaxtrain.nn._combine import concatenate
from jaxtrain.nn._layer import Layer

_KNOWN: tuple[Any, ...] = (
    *(nn.identity, nn.relu, nn.leaky_relu, nn.elu, nn.selu, nn.silu, nn.swish, nn.softplus),
    *(nn.sigmoid, nn.softmax, nn.tanh, jax.nn.gelu, concatenate),
)
FUNCTIONS = {
    **{f.__name__: f for f in _KNOWN},
    **{f"jax.nn.{f.__name__}": f for f in (jax.nn.elu, jax.nn.leaky_relu)},
}


def describe(net: Layer) -> dict[str, Any] | str:
    """Returns a net as JSON values, from which `build` makes it again.

    Initializers are left out: they are not needed once there are params.

    Args:
        net: a net of the layers and activations of `jaxtrain.nn`; options of an activation are
            bound by `functools.partial`.

    Raises:
        TypeError: a layer or an option is something else; the path to it is noted.

    Example:
        >>> describe(nn.serial(nn.dense(2), jax.nn.relu))["serial"]["relu0"]
        {'layer': 'relu'}
    """
    function = getattr(net.make, "function", None)
    if function is not None:
        return _describe_function(function)
    if net.make is None or getattr(nn, net.kind, None) is not net.make:
        _check.fail("describe", "a layer", "of jaxtrain.nn", net, "keep its code", TypeError)
    options = {}
    for name, value in net.given.items():
        if not name.endswith("_init"):
            with nn._layer.naming(name):
                options[name] = _encode(value)
    return {net.kind: options}


def build(description: Mapping[str, Any] | str) -> Layer:
    """Returns the net that `describe` described.

    Raises:
        TypeError: the description names something that is not a layer.
    """
    if isinstance(description, str) or description.keys() <= FUNCTIONS.keys():
        return nn._layer.as_layer(_build_function(description))
    (kind, options), *more = description.items()
    make: Any = getattr(nn, kind, None)
    if more or not hasattr(make, "constructs"):
        _check.fail("build", "a layer", "the name of one of jaxtrain.nn", kind, error=TypeError)
    return make(**{name: _decode(value) for name, value in options.items()})


def _encode(value):
    if isinstance(value, Layer):
        return {"layer": describe(value)}
    if isinstance(value, type | np.dtype):
        return {"dtype": jnp.dtype(value).name}
    if callable(value):
        return {"function": _describe_function(value)}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, list | tuple):
        return [_encode(v) for v in value]
    if value is not None and not isinstance(value, bool | int | float | str):
        _check.fail("describe", "an option", "a number, text, array or layer", value, "", TypeError)
    return value


def _decode(value):
    if isinstance(value, list):
        return tuple(map(_decode, value))
    if not isinstance(value, dict):
        return value
    if "layer" in value:
        return build(value["layer"])
    if "function" in value:
        return _build_function(value["function"])
    if "array" in value:
        return np.array(value["array"], value["dtype"])
    return jnp.dtype(value["dtype"])


def _describe_function(f):
    """Returns the name of a known function, or {name: options} of a partial of one."""
    if isinstance(f, functools.partial) and not f.args:
        options = {name: _encode(value) for name, value in f.keywords.items()}
        return {_describe_function(f.func): options}
    for name, known in FUNCTIONS.items():
        if f is known:
            return name
    rule = f"one of {sorted(FUNCTIONS)}"
    _check.fail("describe", "a function", rule, f, "keep its code", TypeError)


def _build_function(description):
    if isinstance(description, str):
        _check.choice("build", "a function", description, FUNCTIONS)
        return FUNCTIONS[description]
    (name, options), *more = description.items()
    if more:
        _check.fail("build", "a function", "one", list(description))
    return functools.partial(
        _build_function(name), **{name: _decode(value) for name, value in options.items()}
    )
