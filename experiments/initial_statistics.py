"""What do ten layers make of a signal, and of its gradient, before any training?

A batch of 1000 inputs N(0, 1) passes ten layers `h = f(h W)` of 500 units, with six rules for the
entries of W: the five of the slides, and He's rule as some of them print it. Then a random gradient
N(0, 1) is sent back from the last layer to the first. For infinitely many units the mean square q
of a layer and that of the gradient, p, follow

    q <- E f(z)^2,   z ~ N(0, v q),   v = 500 Var(W)        p <- v E f'(z)^2 p  (backwards)

which is drawn as lines; the gradient's assumes that it is independent of the signal. Claims about
a rule are those of the slides, and each holds if it does for the mean over seeds, within what is
said or, for finite nets, within five standard errors and 10 / 500: each layer multiplies q by
1 + O(1 / 500).

References:
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", 2010.
    K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", 2015.
    B. Poole et al., "Exponential expressivity in deep neural networks through transient chaos",
    2016.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, truth
from jaxtrain import _compat, nn
from jaxtrain.nn import initializers

LAYERS, UNITS = 10, 500


def misprinted(key, shape, dtype):
    """Divides by sqrt(2 / fan_in), as printed, where He et al. multiply."""
    return jax.random.normal(key, shape, dtype) / np.sqrt(2 / shape[0])


RULES = {  # the activation, the initializer, and 500 Var(W)
    "tanh, 0.01": (jnp.tanh, initializers.normal(0.01), UNITS * 1e-4),
    "tanh, 1": (jnp.tanh, initializers.normal(1.0), float(UNITS)),
    "tanh, 1 / sqrt(n)": (jnp.tanh, initializers.lecun_normal(), 1.0),
    "ReLU, 1 / sqrt(n)": (nn.relu, initializers.lecun_normal(), 1.0),
    "ReLU, sqrt(2 / n)": (nn.relu, initializers.he_normal(), 2.0),
    "ReLU, misprint": (nn.relu, misprinted, UNITS**2 / 2),
}
SMALL, LARGE, LECUN, RELU_LECUN, HE, MISPRINT = RULES
BINS = np.linspace(-1, 1, 31)  # of the slides' histograms


@dataclasses.dataclass(frozen=True)
class Config:
    """Every rule from every seed.

    Attributes:
        examples: of the batch.
        seeds: of the kernels, the batch and the gradient.
    """

    examples: int = 1000
    seeds: tuple[int, ...] = tuple(range(8))


SIZES = {
    "smoke": Config(examples=50, seeds=(0, 1, 2, 3, 4)),
    "default": Config(),
    "full": Config(seeds=tuple(range(50))),
}


def net(f, kernel_init=initializers.zeros) -> nn.Layer:
    """Returns ten layers of one activation."""
    layer = nn.serial(w=nn.dense(UNITS, bias=False, kernel_init=kernel_init), f=f)
    return nn.repeat(layer, LAYERS)


@functools.partial(jax.jit, static_argnums=0)
def statistics(f, params, x, v):
    """Returns the statistics of all layers, the gradients' norms in W, and histograms.

    The gradient v comes back to the last layer's output.
    """

    def loss(y):
        return (v * y).sum()

    def see(layer, params, x, y):
        return y, jnp.histogram(y, jnp.asarray(BINS, y.dtype))[0].astype(y.dtype) / y.size

    stats = nn.unit_stats(net(f), params, {}, x, loss=loss)
    tapped = nn.tap(net(f), "f", see)
    gradient, seen = jax.grad(
        lambda p: (lambda y, seen: (loss(y), seen))(*tapped.apply(p, {}, x, nn.EVAL)),
        has_aux=True,
    )(params)
    (histogram,) = nn.split_taps(seen)[1].values()
    return stats["f"], jnp.linalg.norm(gradient["w"]["kernel"], axis=(1, 2)), histogram


def measure(config: Config):
    """Returns the statistics by rule, the leading axis the seeds."""
    found = {}
    for name, (f, kernel_init, _) in RULES.items():
        runs = []
        for seed in config.seeds:
            k_params, k_x, k_v = jax.random.split(jax.random.key(seed), 3)
            x, v = (jax.random.normal(k, (config.examples, UNITS)) for k in (k_x, k_v))
            params, _ = net(f, kernel_init).init(k_params, x)
            runs.append(jax.device_get(statistics(f, params, x, v)))
        found[name] = jax.tree.map(lambda *leaves: np.stack(leaves), *runs)
    return found


def mean_field(name: str) -> np.ndarray:
    """Returns mean and std of each layer, and how often longer a gradient is before than after."""
    f, _, v = RULES[name]
    z = np.linspace(-8, 8, 160_001)
    weights = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    q, table = 1.0, []
    for _ in range(LAYERS):
        x = np.sqrt(v * q) * z
        y = np.tanh(x) if f is jnp.tanh else np.maximum(x, 0)
        slope = 1 - y**2 if f is jnp.tanh else y > 0
        mean, q = weights @ y, weights @ y**2
        table.append((mean, np.sqrt(q - mean**2), np.sqrt(v * weights @ slope**2)))
    return np.array(table).T


def draw(found):
    """Draws the slides' histograms, and the size of signal and gradient in each layer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 8), layout="constrained")
    figure.suptitle("What do ten layers make of a signal, and of its gradient?", fontsize=14)
    left, right = figure.subfigures(1, 2, width_ratios=(2.2, 1))
    grid = left.subplots(len(RULES), LAYERS, sharex=True)
    what = "activations in [-1, 1] of layers 1 to 10; the zeros of ReLUs are cut off"
    left.supxlabel(what, fontsize=11)
    for i, (name, (stats, _, histogram)) in enumerate(found.items()):
        for j, axes in enumerate(grid[i]):
            axes.stairs(histogram.mean(0)[j], BINS, fill=True, color=f"C{i}")
            axes.set(yticks=[], xticks=[-1, 1], xlim=(-1.05, 1.05))
            if RULES[name][0] is nn.relu:
                axes.set_ylim(0, 0.15)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.set_title(f"std {stats.std[:, j].mean():.2g}", fontsize=9)
        grid[i, 0].set_ylabel(name.replace(", ", "\n"), fontsize=10, color=f"C{i}")
    signal, gradient = right.subplots(2, 1)
    layers = np.arange(1, LAYERS + 1)
    for i, (name, (stats, _, _)) in enumerate(found.items()):
        _, std, factor = mean_field(name)
        back = np.cumprod(np.append(1, factor[:0:-1]))[::-1]
        for axes, seen, theory in (
            (signal, stats.std, std),
            (gradient, stats.gradient.std, back),
        ):
            axes.semilogy(layers, theory, color=f"C{i}", lw=1)
            axes.semilogy(layers, seen.mean(0), "o", color=f"C{i}", ms=5, label=name)
    signal.set(ylabel="std of the activations", ylim=(1e-8, 1e26))
    signal.legend(fontsize=9, ncols=2, loc="upper left")
    signal.set_title("Forwards: dots measured, lines for infinitely many units", fontsize=11)
    gradient.set(xlabel="layer", ylabel="std of the gradient there", ylim=(1e-8, 1e26))
    gradient.set_title("Backwards, from layer 10 to layer 1", fontsize=11)
    for axes in (signal, gradient):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xticks(layers)
    return figure


def near(values, theory, rtol: float = 10 / UNITS) -> np.ndarray:
    """Says whether means over seeds are those of theory, within rtol and five standard errors."""
    error = values.std(0, ddof=1) / len(values) ** 0.5
    return abs(values.mean(0) - theory) < rtol * theory + 5 * error


def run(config: Config) -> Result:
    """Measures all rules and compares them with the slides and with theory."""
    with _compat.enable_x64(True):  # the misprint's squares leave the range of float32
        found = measure(config)
    stds = {name: stats.std for name, (stats, _, _) in found.items()}
    means = {name: stats.mean for name, (stats, _, _) in found.items()}
    back = {name: stats.gradient.std.mean(0) for name, (stats, _, _) in found.items()}
    of_weights = {name: norms.mean(0) for name, (_, norms, _) in found.items()}
    theory = {name: mean_field(name) for name in RULES}
    rms = np.sqrt(stds[MISPRINT] ** 2 + means[MISPRINT] ** 2)
    growth = (rms[:, -1] / rms[:, 0]) ** (1 / (LAYERS - 1))
    numbers = {}
    for name in RULES:
        for layer in (1, 2, 3, 5, 8, 10):
            numbers[f"{name}: std of layer {layer}"] = stds[name][:, layer - 1].mean()
        numbers[f"{name}: std of the gradient, layer 1 / layer 10"] = back[name][0] / back[name][-1]
        ratio = of_weights[name][0] / of_weights[name][-1]
        numbers[f"{name}: gradient of the kernel, layer 1 / layer 10"] = ratio
    flat = np.full(LAYERS, 1 / np.sqrt(np.pi)), np.full(LAYERS, np.sqrt(1 - 1 / np.pi))
    saturated = found[LARGE][0].saturated
    numbers["tanh, 1: fraction of slopes below 0.05"] = saturated.mean()
    numbers["ReLU, sqrt(2 / n): mean of the activations"] = means[HE].mean()
    numbers["ReLU, misprint: growth of the rms per layer"] = growth.mean()
    return Result(
        claims={
            "tanh with entries of std 0.01: the signal falls to 0.2236 of itself per layer and is"
            " gone after ten": truth(
                np.append(
                    near(stds[SMALL][:, :8], theory[SMALL][1, :8], 0.05),
                    near(stds[SMALL][:, 1:] / stds[SMALL][:, :-1], 0.05**0.5, 0.05)[4:],
                )
            ),
            "Its gradient vanishes too, layer by layer on the way back": truth(
                np.diff(back[SMALL]) > 0
            ),
            "tanh with entries of std 1: units saturate, the std is 0.9817 and nine slopes of ten"
            " are below 0.05": truth(
                np.append(abs(stds[LARGE].mean(0)[2:] - 0.981673) < 0.001, saturated > 0.9)
            ),
            "So its gradients vanish": truth(np.diff(back[LARGE]) > 0),
            "tanh with 1 / sqrt(n): the std falls slowly, from 0.628 to 0.228": truth(
                abs(stds[LECUN].mean(0) - theory[LECUN][1]) < 0.01
            ),
            "ReLU with 1 / sqrt(n): the std is halved in two layers": truth(
                near(stds[RELU_LECUN][:, 2:] / stds[RELU_LECUN][:, :-2], 0.5)
            ),
            "ReLU with sqrt(2 / n): mean 0.564 and std 0.826 in every layer": truth(
                np.append(near(means[HE], flat[0]), near(stds[HE], flat[1]))
            ),
            "Its gradients are of one size in all layers, within a factor of 10": truth(
                back[HE].max() < 10 * back[HE].min()
            ),
            "He's rule as printed, / sqrt(2 / n), multiplies the rms by 250 per layer": truth(
                abs(growth.mean() / (UNITS / 2) - 1) < 0.05
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(found),
    )
