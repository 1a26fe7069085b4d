"""What the tests of training share: the programs compiled, distances of trees, a small problem."""

import contextlib
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain import nn
from jaxtrain.data import ArrayDataset


@contextlib.contextmanager
def compiles():
    """Yields the list of the names of the programs compiled meanwhile, eager operations too."""
    names = []

    def note(record):
        if found := re.match(r"Finished XLA compilation of (\S+)", record.getMessage()):
            names.append(re.sub(r"^\w+\((.*)\)$", r"\1", found[1]))
        return False  # nothing of it is printed

    loggers = [logging.getLogger(f"jax._src.{name}") for name in ("dispatch", "interpreters.pxla")]
    for logger in loggers:
        logger.addFilter(note)
    try:
        with jax.log_compiles():
            yield names
    finally:
        for logger in loggers:
            logger.removeFilter(note)


def distance(a, b):
    """The largest max|a - b| / max|b| of any leaf; keys and integers must be equal."""
    assert jax.tree.structure(a) == jax.tree.structure(b)

    def leaf(a, b):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        if not np.issubdtype(a.dtype, np.floating):
            return 0.0 if np.array_equal(a, b) else np.inf
        size = np.abs(b).max(initial=0)
        far = np.abs(a - b).max(initial=0)
        return float(far / size) if size else float(far)

    return max(map(leaf, jax.tree.leaves(a), jax.tree.leaves(b)))


def same_bytes(a, b):
    """Whether two trees have the same structure and the same bits."""
    return jax.tree.structure(a) == jax.tree.structure(b) and _bytes(a) == _bytes(b)


def _bytes(tree):
    data = [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for x in jax.tree.leaves(tree)
    ]
    return [(x.dtype, x.shape, np.asarray(x).tobytes()) for x in data]


def small_net(*, dropout=0.2, classes=3):
    """A convolution, BatchNorm, dropout; no bias before BatchNorm, where its gradient is zero."""
    return nn.serial(
        conv=nn.conv(4, 3, bias=False),
        norm=nn.batch_norm(),
        relu=jax.nn.relu,
        dropout=nn.dropout(dropout),
        pool=nn.global_avg_pool(),
        head=nn.dense(classes),
    )


def images(n=22, *, classes=3, dtype=np.float32):
    """A data set of random images whose mean tells their class."""
    rng = np.random.default_rng(0)
    label = np.arange(n) % classes
    image = rng.normal(size=(n, 4, 4, 2)) + label[:, None, None, None]
    return ArrayDataset(image.astype(dtype), label, classes=classes)
