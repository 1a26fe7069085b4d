"""Writes torch_losses.npz: values and gradients of torch's losses (torch 2.13, float64).

Run as `python tests/vectors/make_torch_losses.py` where torch is installed. Where torch has no such
loss, it differentiates the formula. All inputs are exact in bfloat16.
"""

import pathlib

import numpy as np
import torch
from torch.nn import functional as F

HUGE, TINY = 9984.0, 2.0**-100


def exact(x):
    return torch.tensor(x, dtype=torch.float64).bfloat16().double()


rng = np.random.default_rng(0)
LOGITS = torch.cat(
    [
        exact(3 * rng.normal(size=(5, 4))),
        exact([[HUGE, -HUGE, 0, 0], [-HUGE, HUGE, TINY, -TINY], [-HUGE, -HUGE, -HUGE, HUGE]]),
        exact([[0, TINY, -TINY, 0], [0, 0, 0, 0], [TINY, TINY, -TINY, 1]]),
    ]
)
CLASSES = torch.tensor([0, 3, 2, 1, 1, 0, 0, 1, 2, 3, 0])
PROBABILITIES = exact(rng.dirichlet(np.ones(4), 11))
BITS = torch.tensor(rng.integers(0, 2, (11, 4)))
TARGETS = exact(np.where(rng.random((11, 4)) < 0.3, LOGITS, rng.normal(size=(11, 4))))
WEIGHTS = exact([0.5, 1.0, 2.0, 4.0])


def sigmoid_focal(z, gamma, alpha):
    """As torchvision.ops.sigmoid_focal_loss."""
    q, p = BITS.double(), torch.sigmoid(z)
    p_t = p * q + (1 - p) * (1 - q)
    loss = F.binary_cross_entropy_with_logits(z, q, reduction="none") * (1 - p_t) ** gamma
    return loss if alpha is None else (alpha * q + (1 - alpha) * (1 - q)) * loss


def softmax_focal(z, gamma):
    log_p = F.log_softmax(z, -1).gather(1, CLASSES[:, None])[:, 0]
    rest = z.scatter(1, CLASSES[:, None], -torch.inf)
    return -torch.exp(gamma * (rest.logsumexp(-1) - z.logsumexp(-1))) * log_p


CASES = {
    "softmax_cross_entropy": lambda z: F.cross_entropy(z, CLASSES, reduction="none"),
    "softmax_cross_entropy, smoothing": lambda z: F.cross_entropy(
        z, CLASSES, reduction="none", label_smoothing=0.125
    ),
    "softmax_cross_entropy, ignore_index": lambda z: F.cross_entropy(
        z, CLASSES, reduction="none", ignore_index=1
    ),
    "softmax_cross_entropy, probabilities": lambda z: F.cross_entropy(
        z, PROBABILITIES, reduction="none"
    ),
    "class_weighted": lambda z: F.cross_entropy(z, CLASSES, WEIGHTS, reduction="none"),
    "hinge, mean": lambda z: F.multi_margin_loss(z, CLASSES, reduction="none"),
    "sigmoid_cross_entropy": lambda z: F.binary_cross_entropy_with_logits(
        z, BITS.double(), reduction="none"
    ),
    "sigmoid_cross_entropy, probabilities": lambda z: F.binary_cross_entropy_with_logits(
        z, PROBABILITIES, reduction="none"
    ),
    "binary_hinge": lambda z: (
        F.multi_margin_loss(
            torch.stack([z.ravel(), -z.ravel()], 1) / 2, 1 - BITS.ravel(), reduction="none"
        ).reshape(z.shape)
        * 2
    ),
    "focal": lambda z: softmax_focal(z, 2.0),
    "focal, 0.5": lambda z: softmax_focal(z, 0.5),
    "sigmoid_focal": lambda z: sigmoid_focal(z, 2.0, 0.25),
    "sigmoid_focal, no alpha": lambda z: sigmoid_focal(z, 1.5, None),
    "squared_error": lambda z: F.mse_loss(z, TARGETS, reduction="none"),
    "absolute_error": lambda z: F.l1_loss(z, TARGETS, reduction="none"),
    "huber": lambda z: F.huber_loss(z, TARGETS, reduction="none"),
    "huber, 2": lambda z: F.huber_loss(z, TARGETS, reduction="none", delta=2.0),
    "smooth_l1, 2": lambda z: F.smooth_l1_loss(z, TARGETS, reduction="none", beta=2.0),
    "minkowski": lambda z: (z - TARGETS).abs() ** 1.5,
}

if __name__ == "__main__":
    vectors = {
        "logits": LOGITS,
        "classes": CLASSES,
        "probabilities": PROBABILITIES,
        "bits": BITS,
        "targets": TARGETS,
        "weights": WEIGHTS,
    }
    for name, f in CASES.items():
        z = LOGITS.clone().requires_grad_()
        loss = f(z)
        loss = loss.mean(1) if loss.ndim == 2 else loss
        loss.sum().backward()
        vectors[name], vectors[f"{name}, gradient"] = loss.detach(), z.grad
    mean = F.cross_entropy(LOGITS[:5], CLASSES[:5], WEIGHTS)
    vectors["class_weighted, torch's mean"] = mean
    vectors = {name: x.numpy() for name, x in vectors.items()}
    np.savez_compressed(pathlib.Path(__file__).parent / "torch_losses.npz", **vectors)
