"""A layer is a pair of pure functions; a context tells it how it is being used."""

import contextlib
import dataclasses
import functools
import inspect
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check

PyTree = Any
RESERVED = ("layer", "tap", "probe")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """How a layer is being applied: everything that is neither parameter, state nor input.

    Attributes:
        train: True for batch statistics and dropout, False for inference. There is no default.
        key: the random key of this call; needed by stochastic layers in train mode.
        index: (batch,) int32, each example's number in the data set (or in the global batch).
            None means its position in the global batch.
        mask: (batch,) float, 1 for a real example and 0 for padding, which should hold finite
            numbers and stand last; None means all real.
        axis_name: the mapped axis of the caller's `pmap` or `shard_map`, if any.

    Example:
        >>> EVAL == Context(train=False)
        True
    """

    train: bool = dataclasses.field(metadata={"static": True})
    key: jax.Array | None = None
    index: jax.Array | None = None
    mask: jax.Array | None = None
    axis_name: str | None = dataclasses.field(default=None, metadata={"static": True})

    def __post_init__(self):
        _check.flag("Context", "train", self.train)

    def child(self, name: str | int | jax.Array) -> "Context":
        """Returns the context of the child `name`: the same, with the name folded into the key."""
        if self.key is None:
            return self
        return dataclasses.replace(self, key=fold_name(self.key, name))

    def keys(self, n: int) -> jax.Array:
        """Returns one key per example, (n,), that no device count and no batch split can change.

        Args:
            n: the number of examples here, the leading axis of the layer's input.

        Raises:
            ValueError: the context has no key, or `index` is not of length n.
        """
        if self.key is None:
            raise ValueError(
                "Context: key must be given where a layer samples, got None; "
                "pass Context(train=True, key=jax.random.key(0)) or use EVAL"
            )
        index = self.index
        if index is None:
            index = jnp.arange(n, dtype=jnp.int32)
            if self.axis_name is not None:
                index = index + n * jax.lax.axis_index(self.axis_name)
        if index.shape != (n,):
            _check.fail("Context", "index", f"of shape ({n},)", index.shape)
        if not jnp.issubdtype(index.dtype, jnp.integer):
            name = jnp.dtype(index.dtype).name
            _check.fail("Context", "index", "of an integer dtype", name, error=TypeError)
        return jax.vmap(jax.random.fold_in, (None, 0))(self.key, index)


EVAL = Context(train=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A layer: `init(key, x) -> params, state` and `apply(params, state, x, ctx) -> y, state`.

    `init` reads only `x.shape` and `x.dtype`. The leading axis of x is the batch. Layers are
    plain values: compared by identity, not pytrees, never holding an array.

    Attributes:
        init: makes params and state, two dicts (empty where there is nothing to hold).
        apply: the forward pass; returns a state with the structure that it got.
        make: the constructor that made it; None for a hand-written pair.
        options: the arguments that `make` was called with.

    Example:
        >>> double = Layer(lambda key, x: ({}, {}), lambda params, state, x, ctx: (2 * x, state))
        >>> double.apply({}, {}, 3.0, EVAL)[0]
        6.0
    """

    init: Callable[[jax.Array, Any], tuple[PyTree, PyTree]]
    apply: Callable[[PyTree, PyTree, Any, Context], tuple[Any, PyTree]]
    make: Callable[..., "Layer"] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The constructor's name, such as "conv"; "layer" for a hand-written pair."""
        return "layer" if self.make is None else self.make.__name__.strip("<>")

    @property
    def children(self) -> dict[str, "Layer"]:
        """The layers among the options."""
        return {k: v for k, v in self.options.items() if isinstance(v, Layer)}

    @property
    def given(self) -> dict[str, Any]:
        """The options that differ from the constructor's defaults."""
        parameters = inspect.signature(self.make).parameters if self.make else {}

        def is_default(name, value):
            default = parameters[name].default if name in parameters else inspect.Parameter.empty
            plain = isinstance(value, bool | int | float | str) and type(value) is type(default)
            return value is default or (plain and value == default)

        return {name: v for name, v in self.options.items() if not is_default(name, v)}

    def replace(self, **changes) -> "Layer":
        """Returns the layer that the same constructor makes with some options changed."""
        if self.make is None:
            raise ValueError("Layer.replace: make must be a constructor, got a hand-written layer")
        return self.make(**{**self.options, **changes})

    def __repr__(self):
        options = ", ".join(f"{k}={v!r}" for k, v in self.given.items())
        return f"{self.kind}({options})"


def as_layer(f: Layer | Callable) -> Layer:
    """Returns `f` if it is a layer, else the layer that applies the function `f` of one array."""
    if isinstance(f, Layer):
        return f
    if not callable(f):
        _check.fail("nn", "a layer", "a Layer or a function of one array", f, error=TypeError)
    if hasattr(f, "constructs"):
        _check.fail(
            "nn", "a layer", "a Layer", f.__name__, f"call it: {f.__name__}(...)", TypeError
        )

    def make():
        return as_layer(f)

    make.__name__ = getattr(f, "__name__", None) or getattr(f, "func", as_layer).__name__
    make.function = f  # type: ignore[attr-defined]
    return Layer(lambda key, x: ({}, {}), lambda params, state, x, ctx: (f(x), state), make)


def constructor(make: Callable[..., Layer]) -> Callable[..., Layer]:
    """Makes the layers that `make` returns remember the call: `layer.make` and `layer.options`.

    Arguments annotated `Layer` may be bare functions of one array. A constructor that takes
    `*unnamed` layers gets them as keywords, named by kind and counter (`conv0`, `conv1`). Arguments
    annotated `bool` must be such, and those whose default is a function must be one.

    Example:
        >>> @constructor
        ... def scaled(factor):
        ...     return Layer(lambda key, x: ({}, {}), lambda p, s, x, ctx: (factor * x, s))
        >>> scaled(3).replace(factor=4)
        scaled(factor=4)
    """
    signature = inspect.signature(make)

    @functools.wraps(make)
    def construct(*args, **kwargs) -> Layer:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        options: dict[str, Any] = {}
        for name, parameter in signature.parameters.items():
            value = bound.arguments[name]
            if parameter.kind is parameter.VAR_POSITIONAL:
                options.update(_named(value))
            elif parameter.kind is parameter.VAR_KEYWORD:
                for child in value:
                    if child in RESERVED or child in options or "/" in child:
                        _check.fail(make.__name__, "a layer's name", "new and not reserved", child)
                options.update({child: as_layer(layer) for child, layer in value.items()})
            elif parameter.annotation is Layer:
                options[name] = as_layer(value)
            else:
                # What a constructor says of its arguments is checked here for all of them.
                if parameter.annotation is bool:
                    _check.flag(make.__name__, name, value)
                elif callable(parameter.default) and parameter.default is not parameter.empty:
                    _check.function(make.__name__, name, value)
                options[name] = value
        return dataclasses.replace(make(**options), make=construct, options=options)

    construct.constructs = True  # type: ignore[attr-defined]
    return construct


def _named(layers) -> dict[str, Layer]:
    counts: dict[str, int] = {}
    named = {}
    for layer in map(as_layer, layers):
        i = counts.get(layer.kind, 0)
        named[f"{layer.kind}{i}"] = layer
        counts[layer.kind] = i + 1
    return named


def fold_name(key: jax.Array, name: str | int | jax.Array) -> jax.Array:
    """Folds a layer's name, or a repeat counter, into a key."""
    number = np.uint32(zlib.crc32(name.encode())) if isinstance(name, str) else name
    return jax.random.fold_in(key, number)


@contextlib.contextmanager
def naming(name: str):
    """Notes on any exception which layer it came from, and keeps its type."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in layer {name!r}")
        raise


def param_dtype(where: str, x) -> jnp.dtype:
    """Returns the dtype of a layer's params for the input x: x's own, but at least float32."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        fix = "put data.standardize or x.astype(jnp.float32) before it"
        _check.fail(where, "x", "of a floating dtype", jnp.dtype(x.dtype).name, fix, TypeError)
    return np.promote_types(x.dtype, jnp.float32)


def on_last_axis(a: jax.Array, ndim: int) -> jax.Array:
    """Gives `a`, a (features,) vector or more, leading axes of length 1 up to `ndim` axes."""
    return a.reshape((1,) * (ndim - a.ndim) + a.shape)
