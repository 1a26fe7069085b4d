"""Writes torch_linear.npz: torch's convolutions, embedding and recurrent layers, with gradients.

Run as `python tests/vectors/make_torch_linear.py` where torch is installed; made with 2.13. Of each
case there are the input "x", the params under torch's names, the output "y", and, for the loss
`sum(y * sin(y))`, the gradient "d..." of each. Options are in CASES; the test has the same table
in our words.
"""

import pathlib

import numpy as np
import torch
from torch import nn

CASES = {
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9)),
    "conv2d": (nn.Conv2d(4, 2, (3, 2), stride=(2, 1), padding=(2, 0), bias=False), (2, 4, 7, 5)),
    "conv2d, dilated": (nn.Conv2d(6, 6, 3, padding=(2, 1), dilation=2, groups=3), (2, 6, 6, 7)),
    "conv2d, depthwise": (nn.Conv2d(3, 6, 3, padding=1, groups=3), (2, 3, 5, 5)),
    "conv3d": (nn.Conv3d(2, 4, 2, stride=(1, 2, 1), dilation=(1, 1, 2), groups=2), (2, 2, 3, 4, 5)),
    "transpose1d": (nn.ConvTranspose1d(2, 3, 4, stride=3), (2, 2, 4)),
    "transpose2d": (
        nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1),
        (2, 3, 4, 3),
    ),
    "transpose3d": (nn.ConvTranspose3d(2, 2, 2, stride=(1, 2, 1), bias=False), (1, 2, 2, 2, 3)),
    "embedding": (nn.Embedding(7, 3), (2, 5)),
    "rnn": (nn.RNN(3, 4, batch_first=True), (2, 5, 3)),
    "rnn, relu": (nn.RNN(3, 4, batch_first=True, nonlinearity="relu"), (2, 5, 3)),
    "lstm": (nn.LSTM(3, 4, batch_first=True), (2, 5, 3)),
    "gru": (nn.GRU(3, 4, batch_first=True), (2, 5, 3)),
}

if __name__ == "__main__":
    rng, vectors = np.random.default_rng(0), {}
    for name, (layer, shape) in CASES.items():
        layer = layer.double()
        if name == "embedding":
            x = torch.tensor(rng.integers(0, 7, shape))
        else:
            x = torch.tensor(rng.normal(size=shape), requires_grad=True)
        for p in layer.parameters():
            p.data = torch.tensor(rng.normal(size=p.shape) / 2)
        y = layer(x)
        y = y[0] if isinstance(y, tuple) else y
        (y * y.sin()).sum().backward()
        arrays = {"x": x, "y": y, **dict(layer.named_parameters())}
        for k, a in arrays.items():
            vectors[f"{name}/{k}"] = a.detach().numpy()
            if k != "y" and a.requires_grad:
                vectors[f"{name}/d{k}"] = a.grad.numpy()
    np.savez_compressed(pathlib.Path(__file__).parent / "torch_linear.npz", **vectors)
