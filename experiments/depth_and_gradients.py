"""What becomes of activations and gradients in a net of 100 layers?

In the linear net `y = W_n ... W_1 x` with every W_i = w I the activation after i layers is w^i x,
and the gradient of the sum of y with respect to W_i has the size w^(n - 1) |x|: the matrix itself
is left out. So y of 100 layers carries w^100, its gradients w^99. With matrices w Q, Q orthogonal,
lengths do exactly the same; with Gaussian entries of std w / sqrt(width) they do so on the average.

References:
    Y. Bengio, P. Simard, P. Frasconi, "Learning long-term dependencies with gradient descent is
    difficult", 1994.
    A. Saxe, J. McClelland, S. Ganguli, "Exact solutions to the nonlinear dynamics of learning in
    deep linear neural networks", 2014.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, panels, truth
from jaxtrain import _compat

KINDS = "scaled identity", "scaled orthogonal", "Gaussian"


@dataclasses.dataclass(frozen=True)
class Config:
    """Every kind of matrices at every scale.

    Attributes:
        scales: w.
        depth: layers.
        width: units of a layer.
        seeds: of the random matrices.
    """

    scales: tuple[float, ...] = (0.9, 1.0, 1.5)
    depth: int = 100
    width: int = 64
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


SIZES = {
    "smoke": Config(width=8, seeds=(0,)),
    "default": Config(),
    "full": Config(width=256, seeds=tuple(range(20))),
}


def matrices(kind: str, scale: float, config: Config, seed: int) -> np.ndarray:
    """Returns the weights of all layers, (depth, width, width)."""
    shape = (config.depth, config.width, config.width)
    if kind == "scaled identity":
        return scale * np.broadcast_to(np.eye(config.width), shape)
    gaussian = np.random.default_rng(seed).normal(size=shape)
    if kind == "Gaussian":
        return scale * gaussian / np.sqrt(config.width)
    return scale * np.linalg.qr(gaussian)[0]


@jax.jit
def lengths(weights):
    """Returns |h_i| / |x| after each layer, and |dL/dW_i| of each layer for L = |y|."""

    def layer(h, w):
        return w @ h, jnp.linalg.norm(w @ h)

    def last(weights):
        x = jnp.ones(weights.shape[-1]) / weights.shape[-1] ** 0.5
        y, norms = jax.lax.scan(layer, x, weights)
        return jnp.linalg.norm(y), norms

    gradients, norms = jax.grad(last, has_aux=True)(weights)
    return norms, jnp.linalg.norm(gradients, axis=(1, 2))


def measure(config: Config) -> dict[tuple[str, float], np.ndarray]:
    """Returns both lengths by kind and scale, (seeds, 2, depth)."""
    with _compat.enable_x64(True):
        return {
            (kind, scale): np.array(
                [lengths(matrices(kind, scale, config, seed)) for seed in config.seeds]
            )
            for kind in KINDS
            for scale in config.scales
        }


def draw(config: Config, measured):
    """Draws activations up to each layer and the gradient of each layer."""
    title = f"What becomes of activations and gradients in {config.depth} layers?"
    figure, row = panels(title, 2, width=5.5, sharey=True)
    layers = np.arange(1, config.depth + 1)
    for i, axes in enumerate(row):
        for (kind, scale), norms in measured.items():
            color = f"C{config.scales.index(scale)}"
            if kind == "Gaussian":
                axes.semilogy(layers, norms[:, i].T, color=color, lw=0.7, alpha=0.6)
            elif kind == "scaled identity":
                axes.semilogy(layers, norms[0, i], color=color, lw=2.5, label=f"w = {scale}")
        for limit, name in (2.0**-24, "smallest float16"), (65504, "largest float16"):
            axes.axhline(limit, color="black", lw=1, ls=":")
            axes.text(1, limit * 1.6, name, fontsize=9)
    row[0].plot([], [], color="grey", lw=0.7, label="Gaussian matrices of the same scale")
    row[0].set(xlabel="layer", ylabel="length, relative to the input", ylim=(1e-8, 1e20))
    row[0].set_title("Activations: w^i", fontsize=11)
    row[0].legend()
    row[1].set(xlabel="layer")
    row[1].set_title(f"Gradients of the weights: w^{config.depth - 1} in every layer", fontsize=11)
    return figure


def run(config: Config) -> Result:
    """Measures the lengths in all layers and compares them with the powers of w."""
    measured = measure(config)
    n = config.depth
    powers = np.arange(1, n + 1)
    numbers, exact, average = {}, [], []
    for (kind, scale), norms in measured.items():
        activations, gradients = norms[:, 0], norms[:, 1]
        slope = np.log(activations[:, -1]) / n
        numbers[f"{kind}, w = {scale}: activation after {n} layers"] = np.median(activations[:, -1])
        numbers[f"{kind}, w = {scale}: gradient of layer 1"] = np.median(gradients[:, 0])
        if kind == "Gaussian":
            numbers[f"{kind}, w = {scale}: growth per layer"] = np.exp(slope.mean())
            average.append(abs(slope - np.log(scale)).max() < 0.1)
        else:
            exact.append(np.allclose(activations, scale**powers, rtol=1e-10))
            exact.append(np.allclose(gradients, scale ** (n - 1), rtol=1e-10))
    return Result(
        claims={
            "With matrices w I or w Q lengths after n layers are w^n, gradients w^(n - 1)": truth(
                exact
            ),
            "Gaussian matrices of that scale do the same within 10 % per layer": truth(average),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, measured),
    )
