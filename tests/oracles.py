"""NumPy re-implementations of what the package computes, written from the papers."""

import numpy as np

# First-order optimizers: `gradient(k, w)` at update k, `rates[k]`; each returns all iterates.


def momentum(gradient, w, rates, mu=0.9, form="accumulator", nesterov=False, dampening=0, debias=0):
    iterates, buffer, last_step = [], np.zeros_like(w), np.zeros_like(w)
    for k, lr in enumerate(rates):
        g = gradient(k, w + mu * last_step if nesterov == "lookahead" else w)
        if form == "velocity":
            g = -lr * g
        elif form == "ema":
            g = (1 - mu) * g
        buffer = mu * buffer + (g if k == 0 else (1 - dampening) * g)
        step = mu * buffer + g if nesterov == "shifted" else buffer
        if debias:
            step = step / (1 - mu ** (k + 1))
        last_step = step if form == "velocity" else -lr * step
        w = w + last_step
        iterates.append(w)
    return np.stack(iterates)


def adam(gradient, w, rates, b1=0.9, b2=0.999, eps=1e-8, correct=True, place="outside", ams=None):
    iterates, m, v, largest = [], 0 * w, 0 * w, 0 * w
    for k, lr in enumerate(rates):
        g = gradient(k, w)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        c1, c2 = (1 - b1 ** (k + 1), 1 - b2 ** (k + 1)) if correct else (1, 1)
        largest = np.maximum(largest, v / c2 if ams == "corrected" else v)
        second = {None: v / c2, "corrected": largest, "biased": largest / c2}[ams]
        root = {
            "outside": np.sqrt(second) + eps,
            "inside": np.sqrt(second + eps),
            "uncorrected": (np.sqrt(second * c2) + eps) / np.sqrt(c2),
        }[place]
        w = w - lr * (m / c1) / root
        iterates.append(w)
    return np.stack(iterates)
