"""Does clipping the gradient's norm keep a recurrent net from exploding?

A gradient longer than a threshold is shortened to it, its direction kept:

    if |g| > threshold:  g = threshold * g / |g|

Some notes print the condition as `|g| > threshold * g`, a number against a vector. Read entry by
entry, it stands here beside the right one and nowhere else.

The net reads n pairs of a number in [0, 1] and a mark, two of which are 1, and is to give the sum
of the marked numbers:

    h = tanh(h W + x U + b),        y = h v + c,        W orthogonal at first

A run has exploded when its loss is over 3 times the first or not finite.

References:
    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
    2013.
    S. Hochreiter, J. Schmidhuber, "Long short-term memory", 1997: the adding problem.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._experiment import Result, panels, truth
from jaxtrain import optim, tree

THRESHOLD = 1.0
RULES = {"not clipped": optax.identity(), "clipped": optim.clip_by_global_norm(THRESHOLD)}
HIDDEN, BATCH = 32, 32
SAME = 1e-5  # of norms and cosines of float32 gradients with 1,153 entries


@dataclasses.dataclass(frozen=True)
class Config:
    """Every rate with and without clipping, from every seed.

    Attributes:
        rates: of plain gradient descent, ascending.
        steps: of each run.
        length: n, numbers in a sequence.
        seeds: of params and sequences.
    """

    rates: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    steps: int = 1000
    length: int = 20
    seeds: tuple[int, ...] = tuple(range(8))


SIZES = {
    "smoke": Config(rates=(0.3,), steps=60, length=10, seeds=(0, 1)),
    "default": Config(),
    "full": Config(steps=2000, length=40, seeds=tuple(range(16))),
}


def init(seed: int):
    rng = np.random.default_rng([seed, 0])
    params = {
        "W": np.linalg.qr(rng.normal(size=(HIDDEN, HIDDEN)))[0],
        "U": rng.normal(size=(2, HIDDEN)),
        "b": np.zeros(HIDDEN),
        "v": rng.normal(size=HIDDEN) / HIDDEN**0.5,
        "c": np.zeros(()),
    }
    return {name: array.astype(np.float32) for name, array in params.items()}


def sequences(seed: int, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Returns the batches of all steps: inputs, (steps, length, BATCH, 2), and sums."""
    rng, n = np.random.default_rng([seed, 1]), config.length
    shape = config.steps, 1, BATCH
    numbers = rng.random((config.steps, n, BATCH))
    first, second = rng.integers(0, n // 2, shape), rng.integers(n // 2, n, shape)
    places = np.arange(n)[:, None]
    marks = (places == first) | (places == second)
    x = np.stack([numbers, marks], axis=-1)
    return x.astype(np.float32), (numbers * marks).sum(1).astype(np.float32)


def loss(params, x, y):
    def step(h, x):
        return jnp.tanh(h @ params["W"] + x @ params["U"] + params["b"][None]), None

    h, _ = jax.lax.scan(step, jnp.zeros((BATCH, HIDDEN)), x)
    return jnp.mean((h @ params["v"] + params["c"] - y) ** 2)


def cosine(a, b):
    norms = tree.global_norm(a), tree.global_norm(b)
    products = jax.tree.map(lambda x, y: jnp.vdot(x / norms[0], y / norms[1]), a, b)
    return sum(jax.tree.leaves(products))


def train(rule, config: Config):
    """Trains at every rate from every seed.

    Returns:
        Losses, norms before and after the rule, and the cosine between these gradients, each
        (seeds, rates, steps).
    """

    def run(start, x, y, rate):
        descent = optim.sgd(rate)

        def step(carry, batch):
            params, state = carry
            value, g = jax.value_and_grad(loss)(params, *batch)
            clipped, _ = rule.update(g, optax.EmptyState())
            updates, state = descent.update(clipped, state)
            seen = value, tree.global_norm(g), tree.global_norm(clipped), cosine(g, clipped)
            return (optax.apply_updates(params, updates), state), seen

        return jax.lax.scan(step, (start, descent.init(start)), (x, y))[1]

    starts = jax.tree.map(lambda *leaves: np.stack(leaves), *map(init, config.seeds))
    x, y = map(np.stack, zip(*(sequences(seed, config) for seed in config.seeds), strict=True))
    runs = jax.jit(jax.vmap(jax.vmap(run, (None, None, None, 0)), (0, 0, 0, None)))
    return [np.asarray(found) for found in runs(starts, x, y, jnp.array(config.rates))]


def exploded(losses) -> np.ndarray:
    """Tells which runs, (seeds, rates), have exploded."""
    return ~(losses <= 3 * losses[..., :1]).all(-1)


def right(g, threshold):
    norm = np.linalg.norm(g)
    return threshold * g / norm if norm > threshold else g


def printed(g, threshold):
    norm = np.linalg.norm(g)
    return np.where(norm > threshold * g, threshold * g / norm, g)


CONDITIONS = {"|g| > threshold": right, "|g| > threshold * g": printed}


def compare(rule) -> np.ndarray:
    """Applies a rule to random gradients.

    Returns:
        In columns the threshold, the norms before and after, and the cosine between both.
    """
    rng = np.random.default_rng(0)
    found = []
    for before in np.geomspace(1e-2, 1e3, 41):
        for threshold in (1.0, 5.0):
            g = rng.normal(size=10)
            g *= before / np.linalg.norm(g)
            clipped = rule(g, threshold)
            after = np.linalg.norm(clipped)
            found.append((threshold, before, after, g @ clipped / (before * after)))
    return np.array(found).T


def clips(threshold, before, after, cosine) -> str:
    """Says whether only long gradients are shortened, to the threshold, and none turned."""
    return truth(
        [np.allclose(after, np.minimum(before, threshold), rtol=SAME), (cosine > 1 - SAME).all()]
    )


def draw(config: Config, losses, shares, compared):
    """Draws losses at the least rate at which most runs explode, shares, and both conditions."""
    title = "Does clipping keep a recurrent net from exploding?"
    figure, (left, middle, last) = panels(title, 3)
    colors = {"not clipped": "C3", "clipped": "C0"}
    at = shares["not clipped"].argmax()  # the least rate at which most runs explode
    for name, values in losses.items():
        for run in values[:, at]:
            end = next((k for k, x in enumerate(run) if not x < 1e4), len(run))
            left.loglog(np.arange(1, end + 1), run[:end], color=colors[name], lw=1, alpha=0.6)
            if end < len(run):
                left.plot(end + 1, 2e4, "X", color=colors[name], ms=9)
        left.plot([], [], color=colors[name], lw=2, label=name)
    left.axhline(1 / 6, color="black", lw=1, ls=":", zorder=3)
    left.text(1, 0.14, "answer 1 always", va="top")
    left.set(xlabel="step", ylabel="loss", ylim=(0.02, 6e4))
    left.set_title(f"Rate {config.rates[at]}, {len(config.seeds)} seeds", fontsize=11)
    left.legend(loc="center right")
    for name, share in shares.items():
        middle.semilogx(config.rates, 100 * share, "o-", color=colors[name], lw=2, label=name)
    middle.set(xlabel="rate", ylabel="exploded runs [%]", ylim=(-5, 105))
    middle.set_title("Clipping bears larger rates, not all", fontsize=11)
    middle.legend()
    for color, (condition, rows) in zip(("C0", "C1"), compared.items(), strict=True):
        for threshold, marker in ((1.0, "o"), (5.0, "^")):
            before, after = rows[1:3, rows[0] == threshold]
            label = f"{condition}, threshold {threshold:g}"
            last.loglog(before, after, color + marker, ms=5, mfc="none", label=label)
    last.set(xlabel="|g| before", ylabel="|g| after", ylim=(0.005, 1e5))
    last.set_title("The condition, and how it is misprinted", fontsize=11)
    last.legend(fontsize=9)
    return figure


def run(config: Config) -> Result:
    """Trains with and without clipping, and applies both conditions."""
    trained = {name: train(rule, config) for name, rule in RULES.items()}
    losses = {name: seen[0] for name, seen in trained.items()}
    shares = {name: exploded(x).mean(0) for name, x in losses.items()}
    rescued = ~exploded(losses["clipped"])[exploded(losses["not clipped"])]
    _, before, after, cosines = (x[np.isfinite(trained["clipped"][1])] for x in trained["clipped"])
    compared = {condition: compare(rule) for condition, rule in CONDITIONS.items()}
    numbers = {
        f"{name}, rate {rate}: exploded runs": share
        for name, found in shares.items()
        for rate, share in zip(config.rates, found, strict=True)
    }
    numbers |= {
        "share of the exploded runs that do not with clipping": rescued.mean(),
        "clipped: longest gradient before": before.max(),
        "clipped: longest gradient after": after.max(),
        "clipped: share of steps where it was": (before > THRESHOLD).mean(),
        "clipped: smallest cosine with the gradient": cosines.min(),
    }
    return Result(
        claims={
            "Clipping shortens long gradients to the threshold, leaves short ones alone and keeps"
            " all directions": clips(THRESHOLD, before, after, cosines),
            "There is a rate at which all runs explode without clipping and none with it": truth(
                ((shares["not clipped"] == 1) & (shares["clipped"] == 0)).any()
            ),
            "A run that explodes without clipping does not with it": truth(rescued),
            "With clipping no rate makes the net explode": truth(shares["clipped"] == 0),
            "The condition |g| > threshold * g clips": clips(*compared["|g| > threshold * g"]),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, losses, shares, compared),
    )
