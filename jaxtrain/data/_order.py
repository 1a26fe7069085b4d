"""The order of the examples as arithmetic on the step."""

import dataclasses
import functools
from typing import Any

import numpy as np

from jaxtrain import _check


def words(n: int, seed: int, stream: int) -> np.ndarray:
    """Returns n raw words of Philox with the key (seed, stream).

    NumPy guarantees the raw stream of a bit generator, not what its `Generator` makes of it.
    """
    return np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(n)


@functools.lru_cache(maxsize=4)
def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """Permutes 0..n-1: the stable argsort of n random words."""
    order = np.argsort(words(n, seed, epoch), kind="stable").astype(np.int32)
    order.setflags(write=False)  # one array serves all who ask
    return order


@functools.lru_cache(maxsize=4)
def _drawn(order: "Order", epoch: int) -> np.ndarray:
    """Draws n of n examples with replacement, each with its weight's share."""
    share = np.cumsum(order.weights, dtype=np.float64)
    # 52 bits: with one more, u * sum could round to sum, which is no example's.
    u = (words(order.n, order.seed, epoch) >> np.uint64(12)) * 2.0**-52
    drawn = np.searchsorted(share, u * share[-1], side="right").astype(np.int32)
    drawn.setflags(write=False)
    return drawn


def check_seed(where: str, seed: int) -> None:
    """Checks that `seed` is an int in [0, 2**32)."""
    _check.integer(where, "seed", seed, least=0, bits=32)


@dataclasses.dataclass(frozen=True, eq=False)
class Order:
    """Says which examples form the batch of each step.

    With S = ceil(n / batch_size) steps per epoch, step t takes the slots of batch t mod S from
    the permutation of epoch t // S, which depends on (seed, epoch) alone. The position in the
    data is therefore one integer, and a run resumes exactly at any step. In each epoch every
    example comes once (but see weights); the last batch is filled up with -1.

    Args:
        n: Number of examples, >= 1.
        batch_size: Examples per step over all devices, in [1, n].
        seed: Integer in [0, 2**32).
        shuffle: Whether to permute; without it every epoch runs 0..n-1, for evaluation.
        weights: Numbers >= 0, (n,): an epoch is then n draws with replacement, example i with the
            probability weights[i] / sum(weights). `losses.class_weights(label)[label]` makes
            classes equally frequent. Of an example that comes twice in one batch both copies are
            augmented alike. None means that every example comes once.

    Raises:
        ConfigError: If an argument is outside its range.

    Example:
        >>> order = Order(5, 2, shuffle=False)
        >>> order.steps_per_epoch
        3
        >>> order.indices(2)
        array([ 4, -1], dtype=int32)
    """

    n: int
    batch_size: int
    _: dataclasses.KW_ONLY
    seed: int = 0
    shuffle: bool = True
    weights: Any = None

    def __post_init__(self):
        _check.integer("Order", "n", self.n)
        _check.integer("Order", "batch_size", self.batch_size)
        check_seed("Order", self.seed)
        if self.batch_size > self.n:
            rule = f"at most the number of examples, {self.n}"
            _check.fail("Order", "batch_size", rule, self.batch_size)
        if self.weights is not None:
            rule = f"{self.n} finite numbers >= 0, not all 0"
            try:
                w = np.asarray(self.weights, np.float64)
            except (TypeError, ValueError):
                _check.fail("Order", "weights", rule, self.weights, error=TypeError)
            if w.shape != (self.n,) or not (np.isfinite(w) & (w >= 0)).all() or not w.any():
                _check.fail("Order", "weights", rule, self.weights)
            if not self.shuffle:
                _check.fail("Order", "weights", "None without shuffle", self.weights)
            object.__setattr__(self, "weights", w)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every example comes once, ceil(n / batch_size)."""
        return -(-self.n // self.batch_size)

    def indices(self, step: int) -> np.ndarray:
        """Returns the examples of one step.

        Args:
            step: Steps before this one, >= 0, counted over all epochs.

        Returns:
            Their numbers, (batch_size,) int32, -1 where the slot is padding.
        """
        _check.integer("Order.indices", "step", step, least=0)
        epoch, batch = divmod(int(step), self.steps_per_epoch)
        slots = np.arange(self.batch_size, dtype=np.int32) + batch * self.batch_size
        real = slots < self.n
        if self.shuffle:
            weighted = self.weights is not None
            of_epoch = _drawn(self, epoch) if weighted else permutation(self.n, self.seed, epoch)
            slots = of_epoch[np.where(real, slots, 0)]
        return np.where(real, slots, np.int32(-1))
