"""Nets as JSON: what `train.load` rebuilds a network from. Names are looked up, never imported."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check, nn
from jaxtrain.nn._combine import concatenate
from jaxtrain.nn._layer import Layer

_KNOWN: tuple[Any, ...] = (
    *(jax.nn.relu, jax.nn.elu, jax.nn.selu, jax.nn.gelu, jax.nn.silu, jax.nn.softplus),
    *(jax.nn.sigmoid, jax.nn.leaky_relu, jnp.tanh, concatenate),
)
FUNCTIONS = {f.__name__: f for f in _KNOWN}


def describe(net: Layer) -> dict[str, Any] | str:
    """Returns a net as JSON values, from which `build` makes it again.

    Initializers are left out: they are not needed once there are params.

    Args:
        net: a net of the layers of `jaxtrain.nn` and of JAX's activation functions.

    Raises:
        TypeError: a layer or an option is something else; the path to it is noted.

    Example:
        >>> describe(nn.serial(nn.dense(2), jax.nn.relu))["serial"]["relu0"]
        {'layer': 'relu'}
    """
    if getattr(net.make, "function", None) is FUNCTIONS.get(net.kind, net):
        return net.kind
    if net.make is None or getattr(nn, net.kind, None) is not net.make:
        rule = "of jaxtrain.nn or an activation of jax.nn"
        _check.fail("describe", "a layer", rule, net, "keep its code", TypeError)
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
    if isinstance(description, str):
        return nn._layer.as_layer(_function(description))
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
        name = getattr(value, "__name__", "")
        if FUNCTIONS.get(name) is not value:
            rule = f"one of {sorted(FUNCTIONS)}"
            _check.fail("describe", "a function", rule, value, error=TypeError)
        return {"function": name}
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
        return _function(value["function"])
    if "array" in value:
        return np.array(value["array"], value["dtype"])
    return jnp.dtype(value["dtype"])


def _function(name):
    _check.choice("build", "a function", name, FUNCTIONS)
    return FUNCTIONS[name]
