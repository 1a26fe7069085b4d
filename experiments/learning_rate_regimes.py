"""Which learning rate is the best one?

The loss curves that every course shows: at a very high rate the loss rises, at a high one it falls
fast and gets stuck, at a good one it falls far, at a low one slowly. The answer that goes with
them: all of them, one after the other; begin high and decay.

An MLP is trained by plain SGD on the shipped digits, which it can learn by heart, and with a fifth
of the labels drawn at random, where gradients of mini-batches stay noisy. Good is the rate whose
loss ends lowest; low and very high are the ends of the range; high is the rate after the good one.
Each rate is kept, or decayed to 0 on a cosine. The loss is that of the whole training set.

References:
    I. Goodfellow, Y. Bengio, A. Courville, "Deep learning", 2016, section 8.3.1.
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _digits
from experiments._experiment import Result, panels, truth
from jaxtrain import models, optim, schedules

NET = models.mlp([32, 10])
DATA = {"digits": 0.0, "a fifth of the labels random": 0.2}  # the share of random labels
KEPT, DECAYED = "kept", "decayed"


@dataclasses.dataclass(frozen=True)
class Config:
    """Every rate, kept and decayed, on both data sets from every seed.

    Attributes:
        rates: ascending.
        epochs: of each run.
        batch_size: of the mini-batches.
        seeds: of the params and of the batches.
    """

    rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    epochs: int = 40
    batch_size: int = 32
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


SIZES = {
    "smoke": Config(rates=(0.001, 0.1, 10.0), epochs=2, seeds=(0,)),
    "default": Config(),
    "full": Config(epochs=200, seeds=tuple(range(10))),
}


def training_loss(config: Config, noise: float, decayed: bool) -> np.ndarray:
    """Returns the median over seeds before the first epoch and after each, (rates, epochs + 1)."""
    x, labels = _digits.examples(noise)[0]
    order = np.stack(
        [_digits.batches(len(x), config.batch_size, config.epochs, s) for s in config.seeds]
    )
    steps = order.shape[1] * order.shape[2]

    def run(rate, seed, order):
        schedule = schedules.cosine(rate, steps=steps) if decayed else rate

        def see(params, state, opt_state):
            return _digits.evaluate(NET, params, state, x, labels)[0]

        return _digits.train(NET, optim.sgd(schedule), seed, order, see, noise=noise)

    runs = jax.jit(jax.vmap(jax.vmap(run, (None, 0, 0)), (0, None, None)))
    losses = np.asarray(runs(jnp.array(config.rates), jnp.array(config.seeds), order))
    return np.median(np.where(np.isfinite(losses), losses, np.inf), 1)


def regimes(losses) -> dict[str, int]:
    """Names rates, as indices into them."""
    good, last = int(losses[:, -1].argmin()), len(losses) - 1
    return {"very high": last, "high": min(good + 1, last), "good": good, "low": 0}


def run(config: Config) -> Result:
    """Trains at all rates and compares where the losses lead."""
    found = {
        (name, how): training_loss(config, noise, how == DECAYED)
        for name, noise in DATA.items()
        for how in (KEPT, DECAYED)
    }
    np.savez("/tmp/regimes.npz", **{f"{a}|{b}": v for (a, b), v in found.items()})
    for k, v in found.items():
        print(k); print(np.round(v[:, [0,1,2,5,10,20,30,40]], 4))
