"""Writes torch_resnet.npz: residual networks of torch with the structure and names of torchvision.

Run as `python tests/vectors/make_torch_resnet.py` where torch is installed; made with 2.13. Of each
depth there are the images "x", the logits "y" of eval mode in float64, and the state_dict: all its
"numbers" in a row, which float16 holds, and its "shapes" by name, as JSON. The networks are narrow.
"""

import json
import pathlib

import numpy as np
import torch
from torch import nn


class Block(nn.Module):
    """BasicBlock (expansion 1) and Bottleneck (4), with the stride in the 3x3 convolution."""

    def __init__(self, before, width, stride, expansion):
        super().__init__()
        windows = [3, 3] if expansion == 1 else [1, 3, 1]
        strides = [stride, 1] if expansion == 1 else [1, stride, 1]
        self.depth, out = len(windows), width * expansion
        ins, outs = [before, *[width] * (self.depth - 1)], [*[width] * (self.depth - 1), out]
        for i, (c, d, w, s) in enumerate(zip(ins, outs, windows, strides, strict=True), 1):
            setattr(self, f"conv{i}", nn.Conv2d(c, d, w, s, w // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(d))
        self.downsample = None
        if stride != 1 or before != out:
            conv = nn.Conv2d(before, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(out))

    def forward(self, x):
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = torch.relu(y) if i < self.depth else y
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, blocks, expansion, width, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        before = width
        for i, n in enumerate(blocks, 1):
            stage = []
            for j in range(n):
                stage.append(Block(before, width, 2 if i > 1 and j == 0 else 1, expansion))
                before = width * expansion
            setattr(self, f"layer{i}", nn.Sequential(*stage))
            width *= 2
        self.fc = nn.Linear(before, classes)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


NETS = {18: ([2, 2, 2, 2], 1, 3), 50: ([3, 4, 6, 3], 4, 2)}

if __name__ == "__main__":
    rng, vectors = np.random.default_rng(0), {}
    for depth, (blocks, expansion, width) in NETS.items():
        net = ResNet(blocks, expansion, width, classes=5).double().eval()
        state = {}
        for name, value in net.state_dict().items():
            shape = tuple(value.shape)
            if "num_batches" in name:
                number = np.array(3)
            elif value.ndim > 1:
                number = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
            elif name.endswith(("running_var", "weight")):
                number = rng.uniform(0.5, 1.5, size=shape)
            else:
                number = 0.2 + 0.3 * rng.normal(size=shape)
            state[name] = number.astype(np.float16)
        net.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
        x = rng.normal(size=(2, 3, 45, 38)).astype(np.float16)
        with torch.no_grad():
            y = net(torch.tensor(x).double()).numpy()
        assert np.ptp(y, axis=0).min() > 1e-3, y
        numbers = np.concatenate([value.ravel() for value in state.values()])
        shapes = json.dumps({name: value.shape for name, value in state.items()})
        found = {"x": x, "y": y, "numbers": numbers, "shapes": np.array(shapes)}
        vectors |= {f"{depth}/{name}": value for name, value in found.items()}
    np.savez_compressed(pathlib.Path(__file__).with_name("torch_resnet.npz"), **vectors)
