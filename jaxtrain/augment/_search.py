"""A random search of policies."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxtrain import _check
from jaxtrain.data._order import check_seed, words

from ._effects import OPERATIONS, check_operations


class PolicySearch(NamedTuple):
    """What `search_policy` found.

    Attributes:
        policy: the best.
        ranking: (score, policy) of all, the best first.
    """

    policy: tuple
    ranking: tuple


def random_policy(
    seed: int, trial: int = 0, *, sub_policies: int = 5, operations: Sequence[str] = OPERATIONS
) -> tuple:
    """Draws a policy from the search space of AutoAugment.

    Each sub-policy has two operations (name, probability, magnitude), of 16 names, 11
    probabilities 0, 0.1, ..., 1 and 10 magnitudes 0, ..., 9: five sub-policies are drawn from
    (16 * 11 * 10)^10 = 2.9e32. `identity` stands where the paper mixes in a second image.

    Args:
        seed: in [0, 2**32).
        trial: the number of the draw with this seed, at least 0.
        sub_policies: how many.
        operations: the names.

    Returns:
        The sub-policies, as `auto_augment` takes them; the same on every machine.

    Example:
        >>> random_policy(0, sub_policies=1) == random_policy(0, sub_policies=1)
        True
    """
    _check.integer("random_policy", "trial", trial, least=0)
    return _drawn("random_policy", seed, trial, sub_policies, operations)


def _drawn(where, seed, trial, sub_policies, operations):
    check_seed(where, seed)
    _check.integer(where, "sub_policies", sub_policies)
    check_operations(where, operations)
    raw = words(6 * sub_policies, seed, trial)
    draws = raw.reshape(sub_policies, 2, 3) % np.array([len(operations), 11, 10], np.uint64)
    return tuple(
        tuple((operations[int(i)], int(p) / 10, int(m)) for i, p, m in sub) for sub in draws
    )


def search_policy(
    score: Callable[[tuple], float],
    *,
    trials: int,
    seed: int = 0,
    sub_policies: int = 5,
    operations: Sequence[str] = OPERATIONS,
) -> PolicySearch:
    """Searches a policy for `auto_augment` at random.

    Args:
        score: from a policy to a number, the higher the better, such as the accuracy on a
            validation set of a small network trained with it.
        trials: how many policies are drawn, those of `random_policy(seed, trial)`.
        seed: in [0, 2**32).
        sub_policies: how many each has.
        operations: the names that they are drawn from.

    Returns:
        The best policy, the first drawn among equals, and the ranking of all.

    Raises:
        ConfigError: If a score is not a finite number.

    Example:
        >>> found = search_policy(lambda policy: policy[0][0][1], trials=20)
        >>> found.policy[0][0][1]
        1.0

    References:
        E. Cubuk, B. Zoph, D. Mane, V. Vasudevan, Q. Le, AutoAugment: Learning Augmentation
        Policies from Data, 2018: the space, which they searched by a recurrent controller.
    """
    _check.function("search_policy", "score", score)
    _check.integer("search_policy", "trials", trials)
    ranking = []
    for trial in range(trials):
        policy = _drawn("search_policy", seed, trial, sub_policies, operations)
        _check.finite("search_policy", "the result of score", value := score(policy))
        ranking.append((float(value), policy))
    ranking.sort(key=lambda pair: -pair[0])
    return PolicySearch(ranking[0][1], tuple(ranking))
