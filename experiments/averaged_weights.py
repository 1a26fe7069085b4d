"""Is an average of the weights better than the last ones?

An MLP with BatchNorm is trained with momentum 0.9 on the shipped digits, as they are and with noise
that each image gets anew at every visit, at rates that are kept and at the same decayed to 0 on a
cosine. Beside each run go averages of its weights w, which it does not know of:

    EMA        a = 0.995 a + 0.005 w        after every update, from the first weights
    all        the mean of all w since the start, Polyak's
    epochs     the mean of w at the ends of the epochs of the second half, as in SWA

BatchNorm's statistics are computed anew for averages, from the training set; the EMA is also
evaluated with those of training. Losses are those of the test set, with noise if trained with it.
One is lower than another if the mean over seeds of the log of their ratio is below 0.

Some notes print the EMA with the average on both sides, `a_t = 0.995 a_(t-1) + 0.005 a_t`, whose
one solution is a_t = a_(t-1). It is shown on x^2 / 2 with noisy gradients, and nowhere else.

References:
    B. Polyak, A. Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
    P. Izmailov et al., "Averaging weights leads to wider optima and better generalization", 2018.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import _digits
from experiments._experiment import Result, panels, path, truth
from jaxtrain import models, nn, optim, schedules

NET = models.mlp([32, 10], batch_norm=True)
DECAY = 0.995
EMA, STALE = f"EMA {DECAY}", f"EMA {DECAY}, statistics of training"
NAMES = ("last", EMA, "all", "epochs", STALE)
RATES = {"kept": lambda rate, steps: rate, "decayed": lambda rate, n: schedules.cosine(rate, steps=n)}
COLORS = dict(zip(NAMES, ("0.6", "C0", "C1", "C2", "C4"), strict=True))


@dataclasses.dataclass(frozen=True)
class Config:
    """Every rate, kept and decayed, on both data sets from every seed.

    Attributes:
        rates: ascending.
        epochs: of each run.
        batch_size: of the mini-batches.
        seeds: of the params, the batches and the noise.
    """

    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    epochs: int = 40
    batch_size: int = 32
    seeds: tuple[int, ...] = tuple(range(10))


SIZES = {
    "smoke": Config(rates=(0.1,), epochs=6, seeds=(0, 1)),
    "default": Config(),
    "full": Config(epochs=100, seeds=tuple(range(40))),
}


def averages(epochs: int, steps: int) -> list[optax.GradientTransformation]:
    """Returns those of all epochs of so many steps."""
    return [optim.ema(DECAY), optim.polyak(), optim.swa(start=epochs // 2 * steps, every=steps)]


def test_losses(config: Config, noise: float, how: str) -> dict[str, np.ndarray]:
    """Returns losses before training and after each epoch by name, (rates, seeds, epochs + 1)."""
    (x, labels), (test_x, test_labels) = _digits.examples()
    key = jax.random.key(0)
    x, test_x = _digits.noisy(key, jnp.asarray(x), noise), _digits.noisy(key, test_x, noise)
    order = _digits.orders(len(x), config.batch_size, config.epochs, config.seeds)

    def see(params, state, opt_state):
        def loss(params, state):
            return _digits.evaluate(NET, params, state, test_x, test_labels)[0]

        means = [average.eval_params(params) for average in opt_state[1:]]
        fresh = [loss(mean, nn.recompute_batch_stats(NET, mean, state, [x])) for mean in means]
        return dict(zip(NAMES, (loss(params, state), *fresh, loss(means[0], state)), strict=True))

    def run(rate, seed, order):
        epochs, steps, _ = order.shape
        descent = optim.momentum(RATES[how](rate, epochs * steps))
        tx = optax.chain(descent, *averages(epochs, steps))
        return _digits.train(NET, tx, seed, order, see, noise=noise)

    runs = jax.jit(jax.vmap(jax.vmap(run, (None, 0, 0)), (0, None, None)))
    found = runs(jnp.array(config.rates), jnp.array(config.seeds), order)
    return {name: np.asarray(loss) for name, loss in found.items()}


def printed(a, w):
    """Solves `b = DECAY a + (1 - DECAY) b` for b; w is not in it."""
    return (a - DECAY * a) / (1 - DECAY) * DECAY + (1 - DECAY) * a


def lower(a, b) -> np.ndarray:
    """Returns the mean and the standard error of log(a / b) after the last epoch, (2, rates)."""
    ratio = np.log(a[..., -1]) - np.log(b[..., -1])
    return np.stack([ratio.mean(1), ratio.std(1, ddof=1) / ratio.shape[1] ** 0.5])
