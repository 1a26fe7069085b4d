"""Finding out where the first number that is not finite came from."""

import jax

from jaxtrain import nn, tree
from jaxtrain.nn._look import walk
from jaxtrain.train._step import Step, TrainState, net_context


def first_nonfinite(step: Step, ts: TrainState, batch) -> str:
    """Runs the forward pass of a step on one device and names what first is not finite in it.

    Args:
        step: from `make_step`.
        ts: the state before the step.
        batch: the step's batch, without augmentation.

    Returns:
        "the input", "layer 'path'", "the loss", or "the gradient or the update".
    """

    def see(layer, params, x, y):
        return y, tree.all_finite(y)

    @jax.jit
    def forward(ts, batch):
        net = nn.tap(step.compute, "*", see)
        outputs, seen = net.apply(ts.params, ts.state, batch["image"], net_context(ts, batch))
        losses = step.loss(outputs, batch["label"])
        return tree.all_finite(batch["image"]), nn.split_taps(seen)[1], tree.all_finite(losses)

    input_ok, layers_ok, loss_ok = jax.device_get(forward(ts, batch))
    if not input_ok:
        return "the input"
    for path, layer in walk(step.net):
        name = "/".join(path)
        if not layer.children and not layers_ok[name].all():
            return f"layer {name!r}, {layer}"
    return "the gradient or the update" if loss_ok else "the loss"
