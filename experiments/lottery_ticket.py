"""Does a pruned net train better from its own first weights than from new ones?

An MLP is trained on the shipped digits. Then the smallest fifth of what is left of each hidden
layer's kernel, and a tenth of the last one's, is set to 0 for good, the rest goes back to its first
values and is trained anew, round after round. What is left is the "winning ticket". Beside it the
same mask is trained from new random values, and a random mask with as many weights of each layer
from the first values. Every run takes as many steps.

One is better than another if its test accuracy is higher in the mean over seeds, by three standard
errors of their difference.

References:
    J. Frankle, M. Carbin, "The lottery ticket hypothesis: finding sparse, trainable neural
    networks", 2019.
    H. Zhou, J. Lan, R. Liu, J. Yosinski, "Deconstructing lottery tickets: zeros, signs, and the
    supermask", 2019.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import models, nn, optim

SHARES = {"dense0": 0.2, "dense1": 0.2, "dense2": 0.1}  # pruned in a round, by layer
TICKET, NEW, RANDOM = "rewound", "new first weights", "random mask"


@dataclasses.dataclass(frozen=True)
class Config:
    """Every round from every seed.

    Attributes:
        rounds: of pruning.
        widths: of the hidden layers.
        rate: of Adam.
        epochs: of each run.
        batch_size: of the mini-batches.
        seeds: of the params, the batches and the random masks.
    """

    rounds: int = 18
    widths: tuple[int, ...] = (100, 50)
    rate: float = 3e-3
    epochs: int = 12
    batch_size: int = 48
    seeds: tuple[int, ...] = tuple(range(8))


SIZES = {
    "smoke": Config(rounds=13, widths=(20, 20), epochs=4, seeds=(0, 1, 2)),
    "default": Config(),
    "full": Config(rounds=24, widths=(300, 100), epochs=30, seeds=tuple(range(20))),
}


def masked(net: nn.Layer, start, masks) -> nn.Layer:
    """Returns the net that begins with the params `start` and sees its kernels times the masks."""

    def prune(params):
        return {
            name: {**own, "kernel": own["kernel"] * masks[name]} for name, own in params.items()
        }

    def apply(params, state, x, ctx):
        return net.apply(prune(params), state, x, ctx)

    return nn.Layer(lambda key, x: (start, {}), apply)


def smallest_removed(masks, params):
    """Returns the masks without the smallest weights of each layer, `SHARES` of what they hold."""

    def remove(mask, kernel, share):
        sizes = jnp.where(mask > 0, jnp.abs(kernel), jnp.inf)
        # Of the k that are left the (share k) smallest go.
        k = jnp.round(share * mask.sum()).astype(int)
        return jnp.where(sizes > jnp.sort(sizes.ravel())[k - 1], mask, 0)

    return {
        name: remove(mask, params[name]["kernel"], SHARES[name]) for name, mask in masks.items()
    }


def shuffled(key, masks):
    """Returns masks with as many ones in other places."""
    return {
        name: jax.random.permutation(jax.random.fold_in(key, i), mask.ravel()).reshape(mask.shape)
        for i, (name, mask) in enumerate(masks.items())
    }


def train(config: Config):
    """Returns the fraction of weights left, and test accuracies by round, seed and epoch."""
    net = models.mlp([*config.widths, 10])
    train_set, test_set = (tuple(map(jnp.asarray, part)) for part in _digits.examples())
    order = _digits.orders(len(train_set[0]), config.batch_size, config.epochs, config.seeds)
    seeds = jnp.array(config.seeds)

    def first(seed):
        return net.init(jax.random.key(seed), train_set[0][:1])[0]

    @jax.jit
    @jax.vmap
    def trained(start, masks, seed, order):
        own = masked(net, start, masks)

        def see(params, state, opt_state):
            return params, _digits.evaluate(own, params, state, *test_set)[1]

        params, accuracy = _digits.train(own, optim.adam(config.rate), seed, order, see)
        return jax.tree.map(lambda leaf: leaf[-1], params), accuracy

    start, other = jax.vmap(first)(seeds), jax.vmap(first)(seeds + len(seeds))
    masks = {name: jnp.ones_like(own["kernel"]) for name, own in start.items()}
    left, found = [], {TICKET: [], NEW: [], RANDOM: []}
    for k in range(config.rounds + 1):
        count = sum(mask[0].sum() for mask in masks.values())
        left.append(float(count) / sum(mask[0].size for mask in masks.values()))
        keys = jax.vmap(jax.random.key)(seeds + 1000 * k)
        for name, runs in {
            NEW: (other, masks),
            RANDOM: (start, jax.vmap(shuffled)(keys, masks)),
            TICKET: (start, masks),
        }.items():
            params, accuracy = trained(*runs, seeds, order)
            found[name].append(np.asarray(accuracy))
        masks = jax.jit(jax.vmap(smallest_removed))(masks, params)
    return np.array(left), {name: np.stack(runs) for name, runs in found.items()}


def gain(a, b) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean of a - b over seeds after the last epoch, and its standard error."""
    d = a[..., -1] - b[..., -1]
    return d.mean(-1), d.std(-1, ddof=1) / d.shape[-1] ** 0.5


def draw(config: Config, left, found):
    """Draws accuracies by what is left, gains of the ticket, and how fast some learn."""
    title = "Does a pruned net train better from its own first weights than from new ones?"
    figure, (first, middle, last) = panels(title, 3)
    percent = 100 * left
    for i, (name, accuracy) in enumerate(found.items()):
        end = accuracy[..., -1]
        error = 3 * end.std(1, ddof=1) / end.shape[1] ** 0.5
        options = {"fmt": "o-", "ms": 4, "lw": 2, "capsize": 2, "color": f"C{i}", "label": name}
        first.errorbar(percent, 100 * end.mean(1), 100 * error, **options)
        if name != TICKET:
            mean, error = gain(found[TICKET], accuracy)
            options["label"] = f"rewound - {name}"
            middle.errorbar(percent, 100 * mean, 300 * error, **options)
    first.axhline(100 * found[TICKET][0, :, -1].mean(), color="black", lw=1, ls=":")
    first.set(ylabel="test accuracy [%]")
    first.set_title("With three standard errors; dotted: the whole net", fontsize=11)
    first.legend(loc="lower left")
    middle.axhline(0, color="black", lw=1, ls=":")
    middle.set(ylabel="gain of the ticket [points of accuracy]")
    middle.set_title("What the first weights are worth, and the mask", fontsize=11)
    middle.legend(loc="upper left")
    for axes in (first, middle):
        axes.set(xscale="log", xlabel="weights left [%]")
        ticks = [100, 50, 20, 10, 5, 2]
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        axes.invert_xaxis()
    for i, share in enumerate((1.0, 0.2, 0.05)):
        at = int(abs(np.log(left / share)).argmin())
        for name, style in ((TICKET, "-"), (NEW, "--")):
            label = f"{percent[at]:.0f} % left, {name}"
            curve = 100 * found[name][at].mean(0)
            last.plot(curve, style, color=f"C{i + 4}", lw=2, label=label)
    last.set(xlabel="epoch", ylabel="test accuracy [%]", ylim=(0, 100))
    last.set_title("How fast they learn", fontsize=11)
    last.legend(fontsize=9, loc="lower right")
    return figure


def run(config: Config) -> Result:
    """Prunes in rounds and compares the tickets with their controls."""
    left, found = train(config)
    ends = {name: accuracy[..., -1].mean(1) for name, accuracy in found.items()}
    numbers = {
        f"{name}, {100 * share:.1f} % left: test accuracy [%]": 100 * ends[name][k]
        for name in found
        for k, share in enumerate(left)
        if k % 3 == 0
    }

    def above(other, rounds):
        mean, error = gain(found[TICKET][rounds], found[other][rounds])
        return mean > 3 * error

    lost = found[TICKET][:, :, -1] - found[TICKET][:1, :, -1]
    kept = lost.mean(1) > -0.01
    smallest = left[kept].min()
    numbers["smallest ticket within a point of the whole net [% of weights]"] = 100 * smallest
    few, many = left < 0.1, (left > 0.3) & (left < 1)
    numbers["gain over new first weights, below 10 % [points]"] = 100 * np.mean(
        gain(found[TICKET][few], found[NEW][few])[0]
    )
    untrained = found[TICKET][few, :, 0]
    numbers["tickets below 10 %, untrained: test accuracy [%]"] = 100 * untrained.mean()
    return Result(
        claims={
            "A tenth of the weights, rewound, is within a point of the whole net": truth(
                smallest < 0.1
            ),
            "Below a tenth of the weights a ticket is better than its mask with new weights": truth(
                above(NEW, few)
            ),
            "With a third or more of the weights it is": truth(above(NEW, many)),
            "Below a tenth it is better than a random mask": truth(above(RANDOM, few)),
            "Such a ticket is right about most digits before it is trained": truth(
                untrained.mean(1) > 0.5
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, left, found),
    )
