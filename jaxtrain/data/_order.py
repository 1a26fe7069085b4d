"""The order of the examples as arithmetic on the step."""

import dataclasses
import functools

import numpy as np

from jaxtrain import _check


@functools.lru_cache(maxsize=4)
def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """Permutes 0..n-1: the stable argsort of n raw words of Philox with the key (seed, epoch).

    NumPy guarantees the raw stream of a bit generator, not what its `Generator` makes of it.
    """
    words = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n)
    order = np.argsort(words, kind="stable").astype(np.int32)
    order.setflags(write=False)  # one array serves all who ask
    return order


def check_seed(where: str, seed: int) -> None:
    """Checks that `seed` is an int in [0, 2**32)."""
    _check.integer(where, "seed", seed, least=0, bits=32)


@dataclasses.dataclass(frozen=True)
class Order:
    """Says which examples form the batch of each step.

    With S = ceil(n / batch_size) steps per epoch, step t takes the slots of batch t mod S from
    the permutation of epoch t // S, which depends on (seed, epoch) alone. The position in the
    data is therefore one integer, and a run resumes exactly at any step. In each epoch every
    example comes once; the last batch is filled up with -1.

    Args:
        n: Number of examples, >= 1.
        batch_size: Examples per step over all devices, in [1, n].
        seed: Integer in [0, 2**32).
        shuffle: Whether to permute; without it every epoch runs 0..n-1, for evaluation.

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

    def __post_init__(self):
        _check.integer("Order", "n", self.n)
        _check.integer("Order", "batch_size", self.batch_size)
        check_seed("Order", self.seed)
        if self.batch_size > self.n:
            rule = f"at most the number of examples, {self.n}"
            _check.fail("Order", "batch_size", rule, self.batch_size)

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
            slots = permutation(self.n, self.seed, epoch)[np.where(real, slots, 0)]
        return np.where(real, slots, np.int32(-1))
