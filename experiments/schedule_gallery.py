"""What rates do the schedules of the textbooks give, and which fit Robbins and Monro's conditions?

Each panel is a run of T updates at a highest rate of 1, with its formula, t the updates made so
far. The dots are values of the formula worked out by hand: the first, the last, the middle, and
both sides of a drop or restart; that is the closed form which the curve has to meet.

Gradient noise dies away, and no optimum is out of reach, if the rates sum to infinity and their
squares do not. Of a run that goes on for ever, past T, the two marks tell which of the two holds.

References:
    H. Robbins, S. Monro, "A stochastic approximation method", 1951.
    K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2016.
    L. Smith, "Cyclical learning rates for training neural networks", 2017.
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017.
    G. Huang et al., "Snapshot ensembles: train 1, get M for free", 2017.
    P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017.
    A. Vaswani et al., "Attention is all you need", 2017.
    L. Smith, N. Topin, "Super-convergence", 2018.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import numpy as np

from experiments._experiment import Result, truth
from jaxtrain import _compat, schedules

LIMIT = 1e-12  # float64: a few roundings of rates up to 1
COLORS = {"falls for ever": "C0", "falls to an end": "C2", "goes in cycles": "C1", "warms up": "C3"}


@dataclasses.dataclass(frozen=True)
class Config:
    """One run with every schedule.

    Attributes:
        steps: T, a multiple of 200.
    """

    steps: int = 1000


SIZES = {"smoke": Config(steps=200), "default": Config(), "full": Config(steps=1_000_000)}


class Panel(NamedTuple):
    """A schedule, its formula, and values at counts, worked out by hand."""

    kind: str
    formula: str
    schedule: schedules.Schedule
    values: dict[int, float]


def gallery(T: int) -> dict[str, Panel]:
    """Makes the panels, by name, for runs of T updates."""
    s, e = schedules, math.e
    forever, ends, cycles, warms = COLORS
    tenth, fifth, half = T // 10, T // 5, T // 2
    drops = s.multi_step(1.0, boundaries=[fifth, half], factor=0.1)
    return {
        "constant": Panel(forever, "$1$", s.constant(1.0), {0: 1, half: 1, T: 1}),
        "step decay": Panel(
            forever,
            "$0.5^{\\lfloor 5t/T \\rfloor}$",
            s.step_decay(1.0, every=fifth, factor=0.5),
            {0: 1, fifth - 1: 1, fifth: 1 / 2, 2 * fifth: 1 / 4, T - 1: 1 / 16, T: 1 / 32},
        ),
        "ResNet's steps": Panel(
            forever,
            "$\\times\\,0.1$ at $0.3\\,T,\\ 0.6\\,T,\\ 0.9\\,T$",
            s.multi_step(1.0, boundaries=[3 * tenth, 6 * tenth, 9 * tenth], factor=0.1),
            {0: 1, 3 * tenth - 1: 1, 3 * tenth: 0.1, 6 * tenth: 0.01, 9 * tenth: 0.001, T: 0.001},
        ),
        "exponential": Panel(
            forever,
            "$e^{-kt},\\ k = 4/T$",
            s.exponential(1.0, rate=4 / T),
            {0: 1, T // 4: 1 / e, half: 1 / e**2, T: 1 / e**4},
        ),
        "one over t": Panel(
            forever,
            "$1\\,/\\,(1 + kt),\\ k = 9/T$",
            s.inverse_time(1.0, rate=9 / T),
            {0: 1, half: 1 / 5.5, T: 0.1},
        ),
        "inverse power": Panel(
            forever,
            "$1\\,/\\,(1 + kt)^{3/4},\\ k = 15/T$",
            s.inverse_power(1.0, power=0.75, rate=15 / T),
            {0: 1, fifth: 4**-0.75, T: 1 / 8},
        ),
        "one over root t": Panel(
            forever,
            "$1\\,/\\,\\sqrt{1 + kt},\\ k = 15/T$",
            s.inverse_sqrt(1.0, rate=15 / T),
            {0: 1, fifth: 1 / 2, T: 1 / 4},
        ),
        "linear": Panel(
            ends, "$1 - t/T$", s.linear(1.0, steps=T), {0: 1, T // 4: 0.75, half: 0.5, T: 0}
        ),
        "linear to 1 %": Panel(
            ends,
            "$1 - \\alpha + 0.01\\,\\alpha,\\ \\alpha = \\min(2t/T, 1)$",
            s.linear_to(1.0, steps=half, end=0.01),
            {0: 1, T // 4: 0.505, half: 0.01, T: 0.01},
        ),
        "polynomial": Panel(
            ends,
            "$(1 - t/T)^2$",
            s.polynomial(1.0, steps=T, power=2),
            {0: 1, half: 0.25, 9 * tenth: 0.01, T: 0},
        ),
        "cosine": Panel(
            ends,
            "$(1 + \\cos(\\pi t/T))\\,/\\,2$",
            s.cosine(1.0, steps=T),
            {0: 1, half: 0.5, T: 0},
        ),
        "triangular": Panel(
            cycles,
            "up and down in $2T/5$",
            s.triangular(0.1, peak=1.0, steps=fifth),
            {0: 0.1, tenth: 0.55, fifth: 1, 2 * fifth: 0.1, 3 * fifth: 1, T: 1},
        ),
        "triangular, halved": Panel(
            cycles,
            "height halved with each cycle",
            s.cyclic(0.0, peak=1.0, steps=tenth, mode="triangular2"),
            {0: 0, tenth: 1, fifth: 0, 3 * tenth: 1 / 2, half: 1 / 4, 9 * tenth: 1 / 16, T: 0},
        ),
        "triangular, exponential": Panel(
            cycles,
            "height $e^{-2t/T}$",
            s.cyclic(0.0, peak=1.0, steps=tenth, mode="exp_range", rate=2 / T),
            {0: 0, tenth: e**-0.2, half: 1 / e, 9 * tenth: e**-1.8, T: 0},
        ),
        "snapshots": Panel(
            cycles,
            "$(1 + \\cos(\\pi t_i/T_i))\\,/\\,2,\\ T_i = T/5$",
            s.snapshot(1.0, steps=T, cycles=5),
            {0: 1, tenth: 0.5, fifth: 1, fifth + tenth: 0.5, 4 * fifth: 1, T: 1},
        ),
        "warm restarts": Panel(
            cycles,
            "the same, $T_i = 0.2\\,T\\cdot 2^i$, peaks $0.8^i$",
            s.sgdr(1.0, first_cycle=fifth, mult=2, decay=0.8),
            {0: 1, tenth: 0.5, fifth: 0.8, 2 * fifth: 0.4, 3 * fifth: 0.64, T: 0.32},
        ),
        "one cycle": Panel(
            warms,
            "half cosines $0.04 \\to 1 \\to 0$",
            s.one_cycle(1.0, steps=T, rise=0.4, end=0.0, endpoint=False),
            {0: 0.04, fifth: 0.52, 2 * fifth: 1, 7 * tenth: 0.5, T: 0},
        ),
        "warm-up, cosine": Panel(
            warms,
            "$10\\,t/T$, then half a cosine",
            s.warmup(s.cosine(1.0, steps=T - tenth), steps=tenth),
            {0: 0, tenth // 2: 0.5, tenth: 1, 11 * T // 20: 0.5, T: 0},
        ),
        "large batches": Panel(
            warms,
            "$1/8 \\to 1$, then steps: batch $\\times\\,8$",
            s.goyal_warmup(1 / 8, 8, steps=tenth, after=drops),
            {0: 1 / 8, tenth // 2: 9 / 16, tenth: 1, fifth + tenth: 0.1, half + tenth: 0.01},
        ),
        "transformer": Panel(
            warms,
            "$\\min(t/w,\\ \\sqrt{w/t}),\\ w = T/5$, t from 1",
            s.warmup(s.inverse_sqrt(1.0, rate=5 / T), steps=fifth - 1, start=5 / T),
            {0: 5 / T, tenth - 1: 0.5, fifth - 1: 1, 4 * fifth - 1: 0.5},
        ),
    }


def errors(panels: dict[str, Panel]) -> dict[str, float]:
    """Returns the largest difference of each schedule from the values worked out by hand."""
    return {
        name: max(
            abs(float(panel.schedule(count)) - value) for count, value in panel.values.items()
        )
        for name, panel in panels.items()
    }


def draw(panels: dict[str, Panel], reports: dict[str, schedules.RobbinsMonro], T: int):
    """Draws a panel per schedule, with the dots and the two marks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 11.6))
    figure.set_layout_engine("constrained", w_pad=0.12)
    figure.suptitle(
        "Learning-rate schedules: a run of T updates, and their closed forms", fontsize=17
    )
    counts = np.unique(np.linspace(0, T, 1001).astype(np.int32))
    grid = figure.subplots(4, 5, sharex=True, sharey=True)
    for axes, (name, panel) in zip(grid.flat, panels.items(), strict=True):
        color = COLORS[panel.kind]
        values = np.asarray(jax.jit(panel.schedule)(counts))
        axes.fill_between(counts, values, color=color, alpha=0.12, lw=0)
        axes.plot(counts, values, color=color, lw=2)
        axes.plot(
            panel.values.keys(), panel.values.values(), "o", color="black", ms=3.5, clip_on=False
        )
        axes.set_title(name, fontsize=13, color=color, weight="bold", pad=24)
        axes.text(0.5, 1.035, panel.formula, transform=axes.transAxes, ha="center", fontsize=10.5)
        report = reports[name]
        for x, condition, holds in (
            (0.46, "$\\Sigma\\,\\eta = \\infty$", report.sum_diverges),
            (0.92, "$\\Sigma\\,\\eta^2 < \\infty$", report.squares_converge),
        ):
            mark = {"transform": axes.transAxes, "va": "center", "fontsize": 10}
            axes.text(x, 0.92, condition, ha="right", **mark)
            axes.text(x + 0.02, 0.92, "✓" if holds else "✗", color="C2" if holds else "C3", **mark)
        axes.set_xticks([0, T / 2, T], ["0", "T/2", "T"])
        axes.set(yticks=(0, 0.5, 1), xlim=(0, T), ylim=(0, 1.25))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    for kind, color in COLORS.items():
        grid[0, 0].plot([], [], color=color, lw=3, label=kind)
    grid[0, 0].plot([], [], "o", color="black", ms=3.5, label="worked out by hand")
    grid[0, 0].plot([], [], " ", label="✓ ✗  conditions of Robbins and Monro, for ever on")
    figure.legend(loc="outside lower center", ncols=6, fontsize=12, frameon=False)
    return figure


def run(config: Config) -> Result:
    """Compares all schedules with their closed forms, and tests the two conditions."""
    with _compat.enable_x64(True):
        panels = gallery(config.steps)
        off = errors(panels)
        reports = {
            name: schedules.check_robbins_monro(panel.schedule) for name, panel in panels.items()
        }
        figure = draw(panels, reports, config.steps)
    satisfied = {name for name, report in reports.items() if report.satisfied}
    numbers = {f"largest error, {name}": value for name, value in off.items()}
    numbers |= {
        f"growth of sum {power}, {name}": growth
        for name, report in reports.items()
        for power, growth in (("eta", report.sum_growth), ("eta^2", report.squares_growth))
    }
    return Result(
        claims={
            "All schedules have the values that their closed forms give by hand": truth(
                max(off.values()) < LIMIT
            ),
            "Of all these only 1 / (1 + kt)^p, 1/2 < p <= 1, meets both conditions of Robbins"
            " and Monro": truth(satisfied == {"one over t", "inverse power"}),
        },
        numbers=numbers,
        figure=figure,
    )
