"""What outputs and labels may be: their types and shapes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import _check


def real(where: str, argument: str, x: Any) -> jax.Array:
    """Returns x as an array, which must be of bools, integers or floats."""
    x = _check.array(where, argument, x)
    if not _check.is_real(x.dtype):
        _check.fail(where, argument, "bool, integer or floating", str(x.dtype), error=TypeError)
    return x


def floating(where: str, argument: str, x: Any) -> jax.Array:
    """Returns x, which must be floating, in float32 or better."""
    x = _check.array(where, argument, x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        _check.fail(where, argument, "floating", str(x.dtype), error=TypeError)
    return x.astype(np.promote_types(x.dtype, np.float32))


def check_labels(where: str, logits: jax.Array, labels: jax.Array) -> str:
    """Returns "classes" for integer labels of shape (...), "probabilities" for floating (..., K).

    The dtype decides and the shape must follow: where the batch has as many examples as there
    are classes, the shape alone would not tell.
    """
    if logits.ndim == 0 or logits.shape[-1] == 0:
        _check.fail(where, "logits", "of shape (..., K), K >= 1", logits.shape)
    if jnp.issubdtype(labels.dtype, jnp.integer):
        kind, shape = "classes", logits.shape[:-1]
        fix = "give classes, or probabilities as floats"
    elif jnp.issubdtype(labels.dtype, jnp.floating):
        kind, shape = "probabilities", logits.shape
        fix = "give probabilities, or classes as integers"
    else:
        _check.fail(where, "labels", "integer or floating", str(labels.dtype), error=TypeError)
    if labels.shape != shape:
        rule = f"of shape {shape} for {labels.dtype} labels and logits {logits.shape}"
        _check.fail(where, "labels", rule, labels.shape, fix)
    return kind


def check_classes(
    where: str,
    logits: jax.Array,
    labels: jax.Array,
    fix: str = "give classes, such as labels.argmax(-1)",
) -> None:
    """Checks that labels are integer classes, of shape (...) for logits (..., K)."""
    if check_labels(where, logits, labels) != "classes":
        _check.fail(where, "labels", "integer", str(labels.dtype), fix, TypeError)


def widened(labels: jax.Array) -> jax.Array:
    """Returns integers in 32 bits or more: in 8 bits the class 256 is 0, and -1 is 255."""
    narrow = jnp.issubdtype(labels.dtype, jnp.integer) and labels.dtype.itemsize < 4
    return labels.astype(jnp.int32) if narrow else labels


def at_class(x: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns x[..., labels], NaN where a label is outside [0, K)."""
    labels = widened(labels)
    labels = jnp.where(labels < 0, x.shape[-1], labels)  # -1 would be the last class
    return jnp.take_along_axis(x, labels[..., None], -1, mode="fill", fill_value=jnp.nan)[..., 0]


def binary(where: str, argument: str, x: Any, labels: Any) -> tuple[jax.Array, jax.Array]:
    """Returns x as `floating` does and labels q in its type and shape, NaN outside [0, 1]."""
    x, q = floating(where, argument, x), real(where, "labels", labels)
    if x.ndim == 0 or q.shape != x.shape:
        rule = f"of the shape of the {argument}, {x.shape}, with an axis for the batch"
        fix = "for one class of K per example take the softmax forms"
        _check.fail(where, "labels", rule, q.shape, fix)
    q = q.astype(x.dtype)
    return x, jnp.where((q >= 0) & (q <= 1), q, jnp.nan)


def per_example(x: jax.Array) -> jax.Array:
    """Returns the mean over all axes but the first."""
    return x.mean(range(1, x.ndim))
