"""The same networks in flax linen + optax and in torch, by the idioms of their documentation.

A peer is `f(net, params, stats, batch, learning_rate, precision) -> step, ts`, with step(ts, batch)
-> (ts, {"loss": ...}), from given weights. Neither masks padding nor guards against NaN, and flax's
documented step does not donate its state.
"""

import collections
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen
from flax.training import train_state

from benchmarks import _raw as raw
from jaxtrain import tree

WIDTHS = (32, 64, 128)
CLASSES = 10


class MLP(linen.Module):
    """784-512-512-10."""

    dtype: Any

    @linen.compact
    def __call__(self, x):
        """Returns the logits."""
        dense = functools.partial(linen.Dense, dtype=self.dtype)
        x = x.reshape(len(x), -1)
        for i in range(2):
            x = linen.relu(dense(512, name=f"dense{i}")(x))
        return dense(CLASSES, name="dense2")(x)


class CNN(linen.Module):
    """Three blocks of convolution, BatchNorm and ReLU."""

    dtype: Any

    @linen.compact
    def __call__(self, x):
        """Returns the logits."""
        for i, width in enumerate(WIDTHS):
            x = linen.max_pool(x, (2, 2), (2, 2)) if i else x
            x = linen.Conv(width, (3, 3), use_bias=False, dtype=self.dtype, name=f"conv{i}")(x)
            norm = linen.BatchNorm(
                False, momentum=raw.DECAY, dtype=self.dtype, name=f"batch_norm{i}"
            )
            x = linen.relu(norm(x))
        return linen.Dense(CLASSES, dtype=self.dtype, name="dense0")(x.mean((1, 2)))


class ConvNorm(linen.Module):
    """Convolution and BatchNorm."""

    features: int
    window: int
    strides: int
    dtype: Any

    @linen.compact
    def __call__(self, x):
        """Returns the normalized convolution."""
        window, strides = (self.window, self.window), (self.strides, self.strides)
        conv = linen.Conv(
            self.features, window, strides, use_bias=False, dtype=self.dtype, name="conv"
        )
        return linen.BatchNorm(False, momentum=raw.DECAY, dtype=self.dtype, name="norm")(conv(x))


class Body(linen.Module):
    """The two convolutions of a block."""

    features: int
    strides: int
    dtype: Any

    @linen.compact
    def __call__(self, x):
        """Returns the residual."""
        x = ConvNorm(self.features, 3, self.strides, self.dtype, name="first")(x)
        return ConvNorm(self.features, 3, 1, self.dtype, name="second")(linen.relu(x))


class Residual(linen.Module):
    """The sum of the body and the input, which is projected where its shape changes."""

    features: int
    strides: int
    dtype: Any

    @linen.compact
    def __call__(self, x):
        """Returns the sum."""
        y = Body(self.features, self.strides, self.dtype, name="body")(x)
        if self.strides > 1:
            x = ConvNorm(self.features, 1, self.strides, self.dtype, name="shortcut")(x)
        return x + y


class Block(linen.Module):
    """A residual block; its one child gives the params the path that ours have."""

    features: int
    strides: int
    dtype: Any

    @linen.compact
    def __call__(self, x):
        """Returns the rectified sum."""
        return linen.relu(Residual(self.features, self.strides, self.dtype, name="residual")(x))


class ResNet(linen.Module):
    """ResNet-20 for small images, or another number of blocks in each of the three stages."""

    dtype: Any
    blocks: int = 3

    @linen.compact
    def __call__(self, x):
        """Returns the logits."""
        x = linen.relu(ConvNorm(16, 3, 1, self.dtype, name="stem")(x))
        for i, width in enumerate((16, 32, 64)):
            for j in range(self.blocks):
                strides = 2 if i > 0 and j == 0 else 1
                x = Block(width, strides, self.dtype, name=f"block{i}_{j}")(x)
        return linen.Dense(CLASSES, dtype=self.dtype, name="head")(x.mean((1, 2)))


class LinenState(train_state.TrainState):
    """flax's state with the running statistics."""

    batch_stats: Any


def by_linen(net, params, stats, batch, learning_rate, precision):
    net = net(jnp.dtype(precision))
    tx = optax.sgd(learning_rate, raw.MOMENTUM, nesterov=True)
    ts = LinenState.create(apply_fn=net.apply, params=params, tx=tx, batch_stats=stats)

    @jax.jit
    def step(ts, batch):
        def mean_loss(params):
            variables = {"params": params, "batch_stats": ts.batch_stats}
            logits, new = ts.apply_fn(variables, batch["image"], mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(
                logits.astype(jnp.float32), batch["label"]
            )
            return losses.mean(), (logits, new)

        value_and_grad = jax.value_and_grad(mean_loss, has_aux=True)
        (loss, (logits, new)), grads = value_and_grad(ts.params)
        ts = ts.apply_gradients(grads=grads, batch_stats=new.get("batch_stats", {}))
        return ts, {"loss": loss, "accuracy": (logits.argmax(-1) == batch["label"]).mean()}

    return step, ts


def torch_serial(**layers):
    import torch

    return torch.nn.Sequential(collections.OrderedDict(layers))


def torch_mlp():
    from torch import nn

    return torch_serial(
        flatten=nn.Flatten(),
        dense0=nn.Linear(784, 512),
        relu0=nn.ReLU(),
        dense1=nn.Linear(512, 512),
        relu1=nn.ReLU(),
        dense2=nn.Linear(512, CLASSES),
    )


def torch_cnn():
    from torch import nn

    layers: dict[str, nn.Module] = {}
    for i, (m, n) in enumerate(zip((1, *WIDTHS), WIDTHS, strict=False)):
        layers |= {f"pool{i}": nn.MaxPool2d(2)} if i else {}
        layers[f"conv{i}"] = nn.Conv2d(m, n, 3, padding=1, bias=False)
        layers |= {f"batch_norm{i}": nn.BatchNorm2d(n), f"relu{i}": nn.ReLU()}
    head = {"mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "dense0": nn.Linear(n, 10)}
    return torch_serial(**layers, **head)


def torch_resnet(blocks: int = 3):
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, body, shortcut):
            super().__init__()
            self.body, self.shortcut = body, shortcut

        def forward(self, x):
            return self.body(x) + self.shortcut(x)

    def conv_norm(m, n, window, strides):
        # "SAME" pads an even image at its end only, where a window of 3 halves it.
        pad = {"pad": nn.ZeroPad2d((0, 1, 0, 1))} if window > strides > 1 else {}
        conv = nn.Conv2d(m, n, window, strides, window // 2 if strides == 1 else 0, bias=False)
        return torch_serial(**pad, conv=conv, norm=nn.BatchNorm2d(n))

    def block(m, n, strides):
        body = torch_serial(
            first=conv_norm(m, n, 3, strides), relu=nn.ReLU(), second=conv_norm(n, n, 3, 1)
        )
        shortcut = conv_norm(m, n, 1, strides) if strides > 1 else nn.Identity()
        return torch_serial(residual=Residual(body, shortcut), relu=nn.ReLU())

    layers, m = {"stem": conv_norm(3, 16, 3, 1), "relu": nn.ReLU()}, 16
    for i, n in enumerate((16, 32, 64)):
        for j in range(blocks):
            layers[f"block{i}_{j}"] = block(m, n, 2 if i > 0 and j == 0 else 1)
            m = n
    head = {"mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(m, CLASSES)}
    return torch_serial(**layers, **head)


def torch_paths(net):
    """Returns torch's params by our paths: a weight is a kernel, or a normalization's scale."""
    return {
        name.replace(".", "/").replace("weight", "kernel" if p.ndim > 1 else "scale"): p
        for name, p in net.named_parameters()
    }


def from_torch(p):
    """Puts the two axes of channels, first in torch's kernels, last."""
    return np.moveaxis(p, (0, 1), (-1, -2)) if p.ndim > 1 else p


def torch_load(net, params):
    """Copies our params into torch's."""
    import torch

    ours = {tree.path_name(path): p for path, p in jax.tree_util.tree_leaves_with_path(params)}
    with torch.no_grad():
        for name, p in torch_paths(net).items():
            from_torch(p.numpy())[...] = ours[name]
    return net


def by_torch(net, params, stats, batch, learning_rate, precision):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = torch_load(net(), params).to(device, memory_format=torch.channels_last)
    tx = torch.optim.SGD(
        net.parameters(), learning_rate, momentum=raw.MOMENTUM, nesterov=True, fused=True
    )
    image = torch.from_numpy(np.array(batch["image"])).permute(0, 3, 1, 2).to(device)
    label = torch.from_numpy(np.array(batch["label"], np.int64)).to(device)
    cast = torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")

    def step(ts, batch):
        tx.zero_grad()
        with cast:
            loss = torch.nn.functional.cross_entropy(net(image), label)
        loss.backward()
        tx.step()
        return ts, {"loss": loss.item()}

    return step, None
