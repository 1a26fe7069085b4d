"""What does Rprop do with the gradients of mini-batches?

Rprop moves by the sign of the gradient, with a step size d of its own for every weight:

    d = eta_plus d  if the sign of g is that of the last g,  eta_minus d  if it has turned
    w = w - sign(g) d

It follows that a gradient scaled by any positive factor per weight gives the same path. It follows
too that mini-batches are counted, not averaged. The worked example has four mini-batches with
gradients 0.1, 0.1, 0.1, -0.5, which sum to -0.2: w should rise. Hinton's has nine of 0.1 and one
of -0.9, which sum to 0: w should stay. In an epoch of the first d changes by
1.2^2 * 0.5^2 = 0.36, of the second by 1.2^8 * 0.5^2 = 1.075.

References:
    M. Riedmiller, H. Braun, "A direct adaptive method for faster backpropagation learning: the
    RPROP algorithm", 1993.
    T. Tieleman, G. Hinton, "Neural networks for machine learning", lecture 6.5, 2012.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments import _digits
from experiments._experiment import Result, panels, path, truth
from jaxtrain import _compat, losses, models, nn, optim

RATE = 0.01
PATTERNS = {"3 : 1": [0.1] * 3 + [-0.5], "9 : 1": [0.1] * 9 + [-0.9]}
OPTIMIZERS = {
    "Rprop": optim.rprop(RATE),
    "SGD": optim.sgd(RATE),
    "RMSProp": optim.rmsprop(RATE, decay=0.99),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """All patterns under all optimizers, and full-batch runs on the digits.

    Attributes:
        epochs: how often a pattern is repeated.
        steps: full-batch on the digits.
        decades: the gradients' factors are between 10^-decades and 10^decades.
        seeds: of the params and the factors.
    """

    epochs: int = 100
    steps: int = 100
    decades: float = 3.0
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


SIZES = {
    "smoke": Config(steps=10, seeds=(0,)),
    "default": Config(),
    "full": Config(steps=1000, seeds=tuple(range(20))),
}


def positions(tx, pattern, epochs: int) -> np.ndarray:
    """Returns the positions of one weight, from 0 on."""
    g = jnp.asarray(pattern)
    steps = epochs * len(pattern)
    run = jax.jit(lambda w: path(tx, lambda w, k: g[k % len(g)], w, steps))
    return np.asarray(run(jnp.zeros(())))


def full_batch(config: Config) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Trains on all digits, with the gradient as it is and rescaled.

    Returns:
        For Rprop and SGD the losses, (seeds, 2, steps + 1), and by how much the weights of the two
        runs differ at most, (seeds,).
    """
    x, labels = _digits.examples()[0]
    net = models.mlp([32, 10], activation=jnp.tanh)

    def runs(tx, seed):
        key = jax.random.key(seed)
        params, state = net.init(key, x[:1])
        start, unravel = ravel_pytree(params)

        def loss(w):
            logits, _ = net.apply(unravel(w), state, x, nn.Context(train=True))
            return losses.softmax_cross_entropy(logits, labels).mean()

        decades = jax.random.uniform(key, start.shape, minval=-1, maxval=1) * config.decades
        factors = jnp.stack([jnp.ones_like(decades), 10**decades])
        iterates = jax.vmap(
            lambda c: path(tx, lambda w, k: c * jax.grad(loss)(w), start, config.steps)
        )(factors)
        return jax.lax.map(jax.vmap(loss), iterates), jnp.abs(iterates[0] - iterates[1]).max()

    found = {}
    for name in ("Rprop", "SGD"):
        one = jax.jit(lambda seed, tx=OPTIMIZERS[name]: runs(tx, seed))
        found[name] = tuple(map(np.stack, zip(*map(one, config.seeds), strict=True)))
    return found


def draw(config: Config, paths, trained):
    """Draws one epoch, all epochs, and the full-batch runs."""
    figure, (left, middle, right) = panels("What does Rprop do with mini-batches?", 3)
    colors = dict(zip(OPTIMIZERS, ("C3", "C0", "C2"), strict=True))
    for name in ("Rprop", "SGD"):
        w = paths["3 : 1", name][:5]
        left.plot(w, "o-", color=colors[name], lw=2, label=name)
        left.annotate(f"{w[-1]:+.4f}", (4, w[-1]), (-6, 8), textcoords="offset points", ha="right")
    for k, g in enumerate(PATTERNS["3 : 1"]):
        left.text(k + 0.5, 0.0085, f"g = {g}", ha="center", fontsize=9)
    left.axhline(0, color="black", lw=1, ls=":")
    left.set(xlabel="mini-batch", ylabel="weight", xticks=range(5), ylim=(-0.042, 0.012))
    left.set_title("One epoch: the whole gradient asks to rise", fontsize=11)
    left.legend(loc="lower left")
    for (pattern, name), w in paths.items():
        every = w[:: len(PATTERNS[pattern])]
        line = "--" if pattern == "3 : 1" else "-"
        middle.plot(every, line, color=colors[name], lw=2, label=f"{name}, {pattern}")
    middle.set(xlabel="epoch", ylabel="weight")
    middle.set_yscale("symlog", linthresh=0.1)
    middle.set_title("Many epochs", fontsize=11)
    middle.legend(fontsize=8)
    for name, (loss, _) in trained.items():
        as_is, rescaled = np.median(loss, 0)
        right.semilogy(as_is, color=colors[name], lw=2, label=name)
        label = f"{name}, gradient rescaled"
        style = {"color": "black" if name == "Rprop" else colors[name], "ls": "--"}
        right.semilogy(rescaled, lw=1.5, label=label, **style)
    right.set(xlabel="step", ylabel="training loss", ylim=(1e-8, 5))
    right.set_title(f"Full batch, each weight's gradient times $10^{{\\pm{config.decades:g}}}$",
                    fontsize=11)  # fmt: skip
    right.legend(fontsize=9)
    return figure


def run(config: Config) -> Result:
    """Repeats the patterns, and trains full-batch."""
    with _compat.enable_x64(True):
        paths = {
            (pattern, name): positions(tx, g, config.epochs)
            for pattern, g in PATTERNS.items()
            for name, tx in OPTIMIZERS.items()
        }
    trained = full_batch(config)
    # What each epoch adds to the weight.
    drifts = {case: np.diff(w[:: len(PATTERNS[case[0]])]) for case, w in paths.items()}
    numbers = {f"{p}, {name}: after one epoch": d[0] for (p, name), d in drifts.items()}
    for (pattern, name), w in paths.items():
        numbers[f"{pattern}, {name}: after {config.epochs} epochs"] = w[-1]
    rprop, _, rmsprop = (abs(drifts["9 : 1", name]) for name in OPTIMIZERS)
    halfway = rmsprop[config.epochs // 2]
    numbers["9 : 1, RMSProp: drift per epoch, half-way"] = halfway
    numbers["9 : 1, RMSProp: drift per epoch, at the end"] = rmsprop[-1]
    for name, (_, apart) in trained.items():
        numbers[f"full batch, {name}: weights differ by rescaling, at most"] = apart.max()
    return Result(
        claims={
            "In an epoch of mini-batches Rprop moves the way of the whole gradient": truth(
                drifts["3 : 1", "Rprop"][0] > 0
            ),
            "Repeated, mini-batches whose whole gradient is 0 or opposite drive Rprop ever"
            " faster": truth(
                [abs(drifts[p, "Rprop"][-1]) > abs(drifts[p, "Rprop"][0]) for p in PATTERNS]
            ),
            "By nine gradients of 0.1 and one of -0.9 RMSProp drifts a thousand times less": truth(
                1000 * rmsprop[-1] < rprop[-1]
            ),
            "RMSProp stays bounded: its drift dies out": truth(rmsprop[-1] < halfway / 2),
            "Full-batch Rprop takes the same path however gradients are rescaled": truth(
                trained["Rprop"][1] == 0
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, paths, trained),
    )
