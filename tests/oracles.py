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


def adam(gradient, w, rates, b1=0.9, b2=0.999, eps=1e-8, correct=True, place="outside", ams=None,
         decay=0.0):  # fmt: skip
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
        w = w - lr * ((m / c1) / root + decay * w)
        iterates.append(w)
    return np.stack(iterates)


def adagrad(gradient, w, rates, eps=1e-7, inside=False, start=0.0, lr_decay=0.0):
    iterates, r = [], np.full_like(w, start)
    for k, lr in enumerate(rates):
        g = gradient(k, w)
        r = r + g * g
        root = np.sqrt(r + eps) if inside else np.sqrt(r) + eps
        w = w - lr / (1 + k * lr_decay) * g / root
        iterates.append(w)
    return np.stack(iterates)


def rmsprop(gradient, w, rates, decay=0.9, eps=1e-8, inside=False, start=0.0, centered=False,
            correct=False, **then):  # fmt: skip
    r, mean = np.full_like(w, start), 0 * w

    def divided(k, w):
        nonlocal r, mean
        g = gradient(k, w)
        r, mean = decay * r + (1 - decay) * g * g, decay * mean + (1 - decay) * g
        second = (r - mean * mean if centered else r) / (1 - decay ** (k + 1) if correct else 1)
        return g / (np.sqrt(second + eps) if inside else np.sqrt(second) + eps)

    return momentum(divided, w, rates, **{"mu": 0.0, **then})


def adadelta(gradient, w, rates, decay=0.9, eps=1e-6):
    iterates, squares, steps = [], 0 * w, 0 * w
    for k, lr in enumerate(rates):
        g = gradient(k, w)
        squares = decay * squares + (1 - decay) * g * g
        step = -np.sqrt(steps + eps) / np.sqrt(squares + eps) * g
        steps = decay * steps + (1 - decay) * step * step
        w = w + lr * step
        iterates.append(w)
    return np.stack(iterates)


def adamax(gradient, w, rates, b1=0.9, b2=0.999, eps=1e-8, place="maximum"):
    iterates, m, u = [], 0 * w, 0 * w
    for k, lr in enumerate(rates):
        g = gradient(k, w)
        m = b1 * m + (1 - b1) * g
        u = np.maximum(b2 * u, np.abs(g) + (eps if place == "maximum" else 0))
        w = w - lr / (1 - b1 ** (k + 1)) * m / (u + (eps if place == "outside" else 0))
        iterates.append(w)
    return np.stack(iterates)


def nadam(gradient, w, rates, b1=0.9, b2=0.999, eps=1e-8, psi=4e-3):
    fall = [0 if psi is None else 0.96 ** (t * psi) for t in range(1, len(rates) + 2)]
    mus = b1 * (1 - 0.5 * np.array(fall))
    iterates, m, v = [], 0 * w, 0 * w
    for k, lr in enumerate(rates):
        g = gradient(k, w)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        m_bar = mus[k + 1] * m / (1 - np.prod(mus[: k + 2]))
        m_bar = m_bar + (1 - mus[k]) * g / (1 - np.prod(mus[: k + 1]))
        w = w - lr * m_bar / (np.sqrt(v / (1 - b2 ** (k + 1))) + eps)
        iterates.append(w)
    return np.stack(iterates)


def radam(gradient, w, rates, b1=0.9, b2=0.999, eps=1e-8, place="uncorrected", threshold=5):
    iterates, m, v, longest = [], 0 * w, 0 * w, 2 / (1 - b2) - 1
    for k, lr in enumerate(rates):
        g, t = gradient(k, w), k + 1
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        step, c2 = m / (1 - b1**t), 1 - b2**t
        rho = longest - 2 * t * b2**t / c2
        if rho > threshold:
            r = (rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho)
            e = eps / np.sqrt(c2) if place == "uncorrected" else eps
            step = np.sqrt(r) * step / (np.sqrt(v / c2) + e)
        w = w - lr * step
        iterates.append(w)
    return np.stack(iterates)


def rprop(gradient, w, first, steps, variant="rprop-", loss=None, limits=(1e-6, 50.0)):
    iterates, size, previous, moved, lowest = [], np.full_like(w, first), 0 * w, 0 * w, np.inf
    for k in range(steps):
        g, value = gradient(k, w), loss(w) if loss else 0.0
        turned, on = g * previous < 0, g * previous > 0
        size = np.where(on, np.minimum(1.2 * size, limits[1]), size)
        size = np.where(turned, np.maximum(0.5 * size, limits[0]), size)
        if variant != "rprop-":
            g = np.where(turned, 0, g)
        step = -np.sign(g) * size
        if variant == "rprop+" or (variant == "irprop+" and value > lowest):
            step = np.where(turned, -moved, step)
        w, previous, moved, lowest = w + step, g, step, value
        iterates.append(w)
    return np.stack(iterates)


def penalized_adam(gradient, w, rates, l2=0.0, decays=None, l1=0.0, chosen=1.0, b1=0.9, b2=0.999):
    """With b1 = b2 = None plain gradient descent."""
    iterates, m, v = [], 0 * w, 0 * w
    for k, lr in enumerate(rates):
        step = gradient(k, w) + l2 * chosen * w
        if b1 is not None:
            m, v = b1 * m + (1 - b1) * step, b2 * v + (1 - b2) * step * step
            step = m / (1 - b1 ** (k + 1)) / (np.sqrt(v / (1 - b2 ** (k + 1))) + 1e-8)
        z = w - lr * step - lr * (decays[k] if decays else 0) * chosen * w
        w = np.sign(z) * np.maximum(np.abs(z) - lr * l1 * chosen, 0)
        iterates.append(w)
    return np.stack(iterates)


def clipped(g, max_norm, eps=0.0):
    norm = np.sqrt((g * g).sum())
    return g * np.minimum(1, max_norm / (norm + eps))


def plateau(values, mode, factor, patience, threshold, threshold_mode, cooldown, min_scale):
    """The scale after each of the values."""
    sign, scale, best, bad, wait, scales = {"min": 1, "max": -1}[mode], 1.0, np.inf, 0, 0, []
    for value in sign * np.asarray(values):
        margin = threshold * {"rel": abs(best), "torch_rel": sign * best, "abs": 1}[threshold_mode]
        better = np.isfinite(value) and (np.isinf(best) or value < best - margin)
        best, bad = (value, 0) if better else (best, bad + 1)
        wait, bad = (wait - 1, 0) if wait > 0 else (0, bad)
        if bad > patience:
            scale, wait, bad = max(scale * factor, min_scale), cooldown, 0
        scales.append(scale)
    return np.array(scales)


# Averages of iterates: what to evaluate with after each update.


def ema(iterates, decays, start=None):
    """From `start`, or from zero and divided by the sum of the weights."""
    averages, mean, weights = [], *((0, 0) if start is None else (start, 1))
    for w, d in zip(iterates, decays, strict=True):
        mean, weights = d * mean + (1 - d) * w, d * weights + (1 - d)
        averages.append(mean / weights)
    return np.stack(averages)


def swa(iterates, start, every=1):
    """The mean of every `every`-th iterate from `start` on; the last one before there is any."""
    chosen = [iterates[start + every - 1 : t : every] for t in range(1, len(iterates) + 1)]
    return np.stack([c.mean(0) if len(c) else iterates[t] for t, c in enumerate(chosen)])


# Second order: the direction from all params so far and their gradients.


def pairs(params, gradients):
    steps = zip(np.diff(params, axis=0), np.diff(gradients, axis=0), strict=True)
    norm, eps = np.linalg.norm, np.finfo(float).eps
    return [(s, y) for s, y in steps if s @ y > eps * norm(s) * norm(y)]


def lbfgs(params, gradients, memory=10, scale_initial=True):
    q, kept, alphas = gradients[-1], pairs(params, gradients)[-memory:], []
    gamma = min(1, 1 / np.linalg.norm(q))
    for s, y in reversed(kept):
        alphas.append(s @ q / (s @ y))
        q = q - alphas[-1] * y
    if kept:
        s, y = kept[-1]
        gamma = s @ y / (y @ y)
    q = gamma * q if scale_initial else q
    for (s, y), alpha in zip(kept, reversed(alphas), strict=True):
        q = q + (alpha - y @ q / (s @ y)) * s
    return q


def bfgs(params, gradients, scale_initial=False):
    g, kept, identity = gradients[-1], pairs(params, gradients), np.eye(len(params[0]))
    if not kept:
        return g * (min(1, 1 / np.linalg.norm(g)) if scale_initial else 1)
    s, y = kept[0]
    H = identity * (s @ y / (y @ y) if scale_initial else 1)
    for s, y in kept:
        V = identity - np.outer(y, s) / (s @ y)
        H = V.T @ H @ V + np.outer(s, s) / (s @ y)
    return H @ g


def newton(hessian, g, damping=0.0, saddle_free=False):
    if saddle_free:  # |H| is the root of H'H, by Newton's iteration for matrix signs
        sign = hessian / np.linalg.norm(hessian)
        for _ in range(100):
            sign = (sign + np.linalg.inv(sign)) / 2
        hessian = sign @ hessian
    return np.linalg.solve(hessian + damping * np.eye(len(g)), g)


# K-FAC for a tanh network of matrices W whose last row is the bias.


def kfac_factors(weights, x, output_gradient):
    """A and G of each layer and its gradient, from every example's own gradient."""
    rows, factors = [], []
    for W in weights:
        rows.append(np.column_stack([x, np.ones(len(x))]))
        s = rows[-1] @ W
        x = np.tanh(s)
    g = output_gradient(s)
    for a, W in zip(reversed(rows), reversed(weights), strict=True):
        AGV = (a, a), (g, g), (a, g)
        factors.insert(0, [np.mean([*map(np.outer, p, q)], 0) for p, q in AGV])
        g = (1 - a[:, :-1] ** 2) * (g @ W[:-1].T)
    return factors


def kfac(factors, gradients, rates, mu=0.9, damping=1e-3, decay=0.95, every=1, c=None):
    """The updates of one layer, the curvature written out as a Kronecker product."""
    A, G, weights, v, updates = 0, 0, 0, 0, []
    for k, ((A_k, G_k), V, lr) in enumerate(zip(factors, gradients, rates, strict=True)):
        A, G = decay * A + (1 - decay) * A_k, decay * G + (1 - decay) * G_k
        weights = decay * weights + 1 - decay
        if k % every == 0:
            n, m = len(A), len(G)
            pi = np.sqrt(np.trace(A) / n / (np.trace(G) / m))
            left = A / weights + pi * damping**0.5 * np.eye(n)
            F = np.kron(left, G / weights + damping**0.5 / pi * np.eye(m))
        u = np.linalg.solve(F, lr * V.ravel())
        nu = min(1, np.sqrt(c / (u @ V.ravel() * lr))) if c else 1
        v = mu * v - nu * u.reshape(V.shape)
        updates.append(v)
    return np.stack(updates)
