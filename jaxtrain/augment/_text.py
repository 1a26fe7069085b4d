"""Augmentations of a sequence of tokens: words left out, exchanged, replaced and put in.

A sequence has a fixed length and is filled up with the id `pad`, which nothing else is.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxtrain import _check


def token_dropout(
    key: jax.Array,
    tokens: Any,
    *,
    rate: ArrayLike,
    pad: int = 0,
    words: Any = None,
    replace: int | None = None,
) -> jax.Array:
    """Leaves out tokens at random; the later ones move up.

    Args:
        key: the random key of this sequence.
        tokens: ids, (length,).
        rate: the fraction that is left out, in [0, 1).
        pad: the id that fills up.
        words: ids, (n,), of the only tokens to leave out, such as redundant words; None means all.
        replace: an id, such as that of an unknown word, that stands in for what is left out; with
            None there is none.

    Returns:
        Ids of the same shape and dtype.

    Example:
        >>> token_dropout(jax.random.key(0), jnp.array([5, 6, 0]), rate=0.0).tolist()
        [5, 6, 0]
    """
    _check.fraction("token_dropout", "rate", rate)
    tokens = _checked("token_dropout", tokens)
    pad = _id("token_dropout", "pad", pad, tokens)
    out = _drawn(key, tokens, rate, pad)
    if words is not None:
        out &= jnp.isin(tokens, _ids("token_dropout", "words", words).astype(tokens.dtype))
    if replace is not None:
        return jnp.where(out, _id("token_dropout", "replace", replace, tokens), tokens)
    stays = ~out & (tokens != pad)
    place = jnp.where(stays, jnp.cumsum(stays) - 1, len(tokens))
    return _placed(tokens, place, pad)


def random_swap(key: jax.Array, tokens: Any, *, swaps: int = 1, pad: int = 0) -> jax.Array:
    """Exchanges two random tokens, several times.

    Args:
        key: the random key of this sequence.
        tokens: ids, (length,), those of `pad` at the end.
        swaps: how many times, at least 0.
        pad: the id that fills up, which stays where it is.

    Returns:
        Ids of the same shape and dtype.

    Example:
        >>> sorted(random_swap(jax.random.key(0), jnp.array([5, 6, 7, 0])).tolist())
        [0, 5, 6, 7]

    References:
        J. Wei, K. Zou, EDA: Easy Data Augmentation Techniques for Boosting Performance on Text
        Classification Tasks, 2019.
    """
    _check.integer("random_swap", "swaps", swaps, least=0)
    tokens = _checked("random_swap", tokens)
    pad = _id("random_swap", "pad", pad, tokens)
    if not tokens.size:
        return tokens
    n = (tokens != pad).sum(dtype=np.int32)
    pairs = jax.random.randint(key, (swaps, 2), 0, jnp.maximum(n, 1), np.int32)
    return jax.lax.scan(_swapped, tokens, pairs)[0]


def _swapped(tokens, pair):
    return tokens.at[pair].set(tokens[pair[::-1]]), None


def synonyms(key: jax.Array, tokens: Any, table: Any, *, rate: ArrayLike) -> jax.Array:
    """Replaces tokens by synonyms at random.

    Args:
        key: the random key of this sequence.
        tokens: ids, (length,).
        table: (vocabulary, k), the synonyms of each id, each as likely; -1 where there are fewer.
            An id outside [0, vocabulary) has none.
        rate: the fraction of the tokens with synonyms that is replaced, in [0, 1).

    Returns:
        Ids of the same shape and dtype.

    Example:
        >>> table = jnp.array([[-1, -1], [2, -1], [1, -1]])
        >>> synonyms(jax.random.key(0), jnp.array([1, 2, 0]), table, rate=0.0).tolist()
        [1, 2, 0]

    References:
        J. Wei, K. Zou, EDA: Easy Data Augmentation Techniques for Boosting Performance on Text
        Classification Tasks, 2019.
    """
    _check.fraction("synonyms", "rate", rate)
    tokens = _checked("synonyms", tokens)
    table = _ids("synonyms", "table", table).astype(np.int32)
    if table.ndim != 2:
        _check.fail("synonyms", "table", "of shape (vocabulary, k)", table.shape)
    k_which, k_choice = jax.random.split(key)
    at = jnp.where(tokens < 0, len(table), tokens.astype(np.int32))  # -1 would be the last row
    found = table.at[at].get(mode="fill", fill_value=-1)
    choice = jnp.argmax(
        jnp.where(found >= 0, jax.random.uniform(k_choice, found.shape, np.float32), -1), axis=1
    )
    other = jnp.take_along_axis(found, choice[:, None], axis=1)[:, 0]
    replaced = jax.random.bernoulli(k_which, jnp.asarray(rate, np.float32), tokens.shape)
    return jnp.where(replaced & (other >= 0), other.astype(tokens.dtype), tokens)


def insert_words(
    key: jax.Array, tokens: Any, words: Any, *, rate: ArrayLike, pad: int = 0
) -> jax.Array:
    """Puts redundant words after tokens at random; what leaves the length is lost.

    Args:
        key: the random key of this sequence.
        tokens: ids, (length,), those of `pad` at the end.
        words: ids, (n,), of what is put in, each as likely.
        rate: the fraction of the tokens that a word follows, in [0, 1).
        pad: the id that fills up.

    Returns:
        Ids of the same shape and dtype.

    Example:
        >>> insert_words(jax.random.key(0), jnp.array([5, 6, 0]), [9], rate=0.0).tolist()
        [5, 6, 0]
    """
    _check.fraction("insert_words", "rate", rate)
    tokens = _checked("insert_words", tokens)
    pad = _id("insert_words", "pad", pad, tokens)
    words = _ids("insert_words", "words", words).astype(tokens.dtype)
    if words.ndim != 1 or words.size == 0:
        _check.fail("insert_words", "words", "ids of shape (n,), n >= 1", words.shape)
    k_which, k_choice = jax.random.split(key)
    followed = _drawn(k_which, tokens, rate, pad)
    before = jnp.cumsum(followed, dtype=np.int32) - followed.astype(np.int32)
    place = jnp.arange(len(tokens), dtype=np.int32) + before
    chosen = words[jax.random.randint(k_choice, tokens.shape, 0, len(words), np.int32)]
    y = _placed(tokens, place, pad)
    return y.at[jnp.where(followed, place + 1, len(tokens))].set(chosen, mode="drop")


def _checked(where, tokens):
    tokens = _ids(where, "tokens", tokens)
    if tokens.ndim != 1:
        _check.fail(where, "tokens", "of shape (length,)", tokens.shape, "jax.vmap takes a batch")
    return tokens


def _ids(where, argument, value):
    ids = _check.array(where, argument, value)
    if not jnp.issubdtype(ids.dtype, np.integer):
        if ids.size:
            _check.fail(where, argument, "integers", str(ids.dtype), error=TypeError)
        ids = ids.astype(np.int32)  # [] is of floats
    return ids


def _id(where, argument, value, tokens):
    """Returns an id in the type of the tokens."""
    limits = jnp.iinfo(tokens.dtype)
    bits = int(limits.max).bit_length()
    _check.integer(where, argument, value, least=int(limits.min), bits=bits)
    return jnp.asarray(value, tokens.dtype)


def _drawn(key, tokens, rate, pad):
    """Returns which tokens are drawn, each with the probability `rate`; never the padding."""
    drawn = jax.random.bernoulli(key, jnp.asarray(rate, np.float32), tokens.shape)
    return drawn & (tokens != pad)


def _placed(tokens, place, pad):
    """Returns tokens at new places, those from the length on left out, and `pad` elsewhere."""
    return jnp.full_like(tokens, pad).at[place].set(tokens, mode="drop")
