"""Is the printed derivative of BatchNorm right?

BatchNorm makes u_t = (y_t - mean) / sigma of the n examples y_t of a batch, with
sigma = sqrt(var + eps). Every u depends on every y:

    printed   du_t/dy_w = (1{t = w} - 1 / n) / sigma - (y_w - mean)^2 / (n sigma^3)
    right     du_t/dy_w = (1{t = w} - 1 / n) / sigma - (y_t - mean) (y_w - mean) / (n sigma^3)

They agree for t = w. The gradient of a loss is the sum over t of du_t/dy_w dL/du_t; some notes
leave the last factor out. All are compared with central differences of NumPy in float64, and so is
`nn.bn_vjp`, the sum in closed form. Errors are relative to |dL/du| / sigma, the length of the
gradient if mean and sigma were constants.

References:
    S. Ioffe, C. Szegedy, "Batch normalization", 2015, section 3.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from experiments._experiment import Result, panels, truth
from jaxtrain import _compat, nn

EPS, H = 1e-5, 1e-5
# Of central differences with steps of H sigma: H^2 = 1e-10, and rounding, 1e-16 / H = 1e-11.
RIGHT, WRONG = 1e-8, 1e-2


@dataclasses.dataclass(frozen=True)
class Config:
    """Every size of the batch with every seed.

    Attributes:
        batch_sizes: n.
        seeds: of the batch and of the gradient that comes back to it.
    """

    batch_sizes: tuple[int, ...] = (3, 6, 12, 25, 50, 100)
    seeds: tuple[int, ...] = tuple(range(10))


SIZES = {
    "smoke": Config(batch_sizes=(6,), seeds=(0, 1)),
    "default": Config(),
    "full": Config(batch_sizes=(3, 6, 12, 25, 50, 100, 200, 400), seeds=tuple(range(30))),
}


def normalized(y):
    return (y - y.mean()) / np.sqrt(y.var() + EPS)


def differences(y):
    """Returns du_t/dy_w, (t, w), by central differences."""
    h = H * y.std()
    columns = [(normalized(y + h * e) - normalized(y - h * e)) / (2 * h) for e in np.eye(len(y))]
    return np.stack(columns, 1)


def diagonal_part(y):
    return (np.eye(len(y)) - 1 / len(y)) / np.sqrt(y.var() + EPS)


def right(y):
    d, sigma = y - y.mean(), np.sqrt(y.var() + EPS)
    return diagonal_part(y) - d[:, None] * d[None] / (len(y) * sigma**3)


def printed(y):
    d, sigma = y - y.mean(), np.sqrt(y.var() + EPS)
    return diagonal_part(y) - d[None] ** 2 / (len(y) * sigma**3)


def closed_form(y, delta):
    return np.asarray(nn.bn_vjp(y[:, None], jnp.ones(1), delta[:, None], eps=EPS)[0])[:, 0]


GRADIENTS = {  # of y, from those of u
    "right": lambda y, delta: delta @ right(y),
    "closed form": closed_form,
    "printed": lambda y, delta: delta @ printed(y),
    "printed, without dL/du": lambda y, delta: printed(y).sum(0),
}


def example(n, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=n), rng.normal(size=n)


def errors(config: Config) -> dict[str, np.ndarray]:
    """Returns the relative error of each gradient, (batch sizes, seeds)."""
    found = {name: np.zeros((len(config.batch_sizes), len(config.seeds))) for name in GRADIENTS}
    for i, n in enumerate(config.batch_sizes):
        for j, seed in enumerate(config.seeds):
            y, delta = example(n, seed)
            by_differences = delta @ differences(y)
            scale = np.linalg.norm(delta) / np.sqrt(y.var() + EPS)
            for name, gradient in GRADIENTS.items():
                error = np.linalg.norm(gradient(y, delta) - by_differences)
                found[name][i, j] = error / scale
    return found


def draw(config: Config, found):
    """Draws the matrices of one batch of six, and the errors of the gradients."""
    figure, (*matrices, last) = panels("Is the printed derivative of BatchNorm right?", 4, width=4)
    y, _ = example(6, 0)
    y = np.sort(y)
    shown = {"By finite differences": differences(y), "Right": right(y), "Printed": printed(y)}
    for axes, (name, matrix) in zip(matrices, shown.items(), strict=True):
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
        for t, w in np.ndindex(matrix.shape):
            color = "white" if abs(matrix[t, w]) > 0.6 else "black"
            text = f"{matrix[t, w]:.2f}".replace("0.", ".")
            axes.text(w, t, text, ha="center", va="center", fontsize=8, color=color)
        axes.grid(False)
        axes.set(xlabel="w", xticks=range(6), yticks=range(6))
        axes.set_title(name, fontsize=11)
    matrices[0].set(ylabel="t")
    figure.colorbar(
        image, ax=matrices, label="du_t / dy_w", shrink=0.5, aspect=50, location="bottom"
    )
    for i, (name, error) in enumerate(found.items()):
        marker = "s--" if name == "closed form" else "o-"
        last.loglog(config.batch_sizes, np.median(error, 1), marker, color=f"C{i}", label=name)
    last.axhline(RIGHT, color="black", lw=1, ls=":")
    last.text(config.batch_sizes[0], 1.5 * RIGHT, "counts as right below", fontsize=9)
    last.set(xlabel="examples of the batch", ylabel="relative error", ylim=(1e-12, 1e2))
    last.set_title("Gradient of y", fontsize=11)
    last.legend(fontsize=8, loc="center", bbox_to_anchor=(0.5, 0.62))
    return figure


def run(config: Config) -> Result:
    """Compares all gradients with finite differences."""
    with _compat.enable_x64(True):
        found = errors(config)
    numbers = {
        f"{name}, batch of {n}: error": np.median(found[name][i])
        for name in found
        for i, n in enumerate(config.batch_sizes)
    }
    y, _ = example(6, 0)
    on_diagonal = np.diag(printed(y) - differences(y))
    return Result(
        claims={
            "The gradient is what the printed derivative gives": truth(found["printed"] < RIGHT),
            "It is what it gives without the factor dL/du": truth(
                found["printed, without dL/du"] < RIGHT
            ),
            "The printed derivative is right for t = w": truth(abs(on_diagonal) < RIGHT),
            "The gradient is what the right derivative gives, and `nn.bn_vjp`": truth(
                [found["right"] < RIGHT, found["closed form"] < RIGHT]
            ),
            f"The printed derivative is more than {WRONG:g} off, whatever the batch": truth(
                found["printed"] > WRONG
            ),
        },
        numbers={what: float(value) for what, value in numbers.items()},
        figure=draw(config, found),
    )
