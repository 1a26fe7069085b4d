"""Writes torch_norm.npz: torch's normalizations and their gradients, in float64, channels last.

Run as `python tests/vectors/make_torch_norm.py` where torch is installed; made with 2.13.
"""

import pathlib

import numpy as np
import torch
from torch.nn import functional as F


def channels_first(f):
    """f(x, scale, bias) of channels first as a function of channels last."""
    return lambda x, scale, bias: f(x.movedim(-1, 1), scale, bias).movedim(1, -1)


def batch_norm(x, scale, bias):
    """Three batches in train mode, then the first in eval mode; and the running statistics."""
    mean, var = torch.zeros(x.shape[-1]), torch.ones(x.shape[-1])

    def apply(
        batch, training
    ):  # changes mean and var; the defaults are those of BatchNorm1d and 2d
        y = F.batch_norm(batch.movedim(-1, 1), mean, var, scale, bias, training)
        return y.movedim(1, -1)

    ys = [*(apply(batch, True) for batch in x), apply(x[0], False)]
    return torch.stack(ys), {"mean": mean, "var": var}


def layer_norm_of_images(x, scale, bias):
    return F.layer_norm(x, x.shape[1:], scale, bias)


def whiten(x, scale, bias, groups=2, eps=1e-5):
    """ZCA by the eigenvectors of the covariance; the eigenvalues differ here."""
    d = (x - x.mean(0)).reshape(len(x), groups, -1)
    eigenvalues, basis = torch.linalg.eigh(torch.einsum("ngi,ngj->gij", d, d) / len(x))
    root = basis @ torch.diag_embed((eigenvalues + eps).rsqrt()) @ basis.mT
    return scale * torch.einsum("ngi,gij->ngj", d, root).reshape(x.shape) + bias


def weight_norm(x, kernel, scale, bias):
    """A convolution; torch has the outputs first."""
    weight = torch._weight_norm(kernel.movedim((-1, -2), (0, 1)), scale[:, None, None, None], 0)
    return F.conv2d(x.movedim(-1, 1), weight, bias, padding=1).movedim(1, -1)


NAMES = {"weight_norm": ("kernel", "scale", "bias"), "rms_norm": ("scale",)}
CASES = {  # name, shape of x, shapes of the params, and the function
    "batch_norm 1d": ((3, 6, 4), [(4,)] * 2, batch_norm),
    "batch_norm 2d": ((3, 4, 3, 2, 5), [(5,)] * 2, batch_norm),
    "layer_norm": ((2, 3, 5), [(5,)] * 2, lambda x, s, b: F.layer_norm(x, (5,), s, b)),
    "layer_norm of images": ((2, 4, 3, 5), [(4, 3, 5)] * 2, layer_norm_of_images),
    "layer_norm, channels": (
        (2, 4, 3, 5), [(5,)] * 2, channels_first(lambda x, s, b: F.group_norm(x, 1, s, b))
    ),
    "instance_norm": (
        (2, 4, 3, 5), [(5,)] * 2,
        channels_first(lambda x, s, b: F.instance_norm(x, weight=s, bias=b)),
    ),
    "group_norm": (
        (2, 4, 3, 6), [(6,)] * 2, channels_first(lambda x, s, b: F.group_norm(x, 2, s, b))
    ),
    "rms_norm": ((2, 3, 5), [(5,)], lambda x, s: F.rms_norm(x, (5,), s)),
    "decorrelated_batch_norm": ((9, 6), [(6,)] * 2, whiten),
    "weight_norm": ((2, 4, 3, 2), [(3, 3, 2, 4), (4,), (4,)], weight_norm),
}  # fmt: skip

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    rng, arrays = np.random.default_rng(0), {}
    for name, (shape, shapes, f) in CASES.items():
        inputs = [torch.tensor(3 + rng.normal(size=shape)) * 2]
        inputs += [torch.tensor(rng.normal(size=s)) for s in shapes]
        for tensor in inputs:
            tensor.requires_grad_()
        y, state = f(*inputs), {}
        if isinstance(y, tuple):
            y, state = y
        dy = torch.tensor(rng.normal(size=y.shape))
        keys = ("x", *NAMES.get(name, ("scale", "bias")))
        gradients = torch.autograd.grad(y, inputs, dy)
        found = dict(zip(keys, inputs, strict=True)) | {"y": y, "dy": dy} | state
        found |= {f"d{key}": g for key, g in zip(keys, gradients, strict=True)}
        arrays |= {f"{name}/{key}": tensor.detach().numpy() for key, tensor in found.items()}
    np.savez_compressed(pathlib.Path(__file__).parent / "torch_norm.npz", **arrays)
