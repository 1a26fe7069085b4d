# %% [markdown]
# # jaxtrain in ten minutes
#
# A network is a pair of pure functions, training is a pure function of a state that you can look
# at, and the same step runs on one device or eight. Written for one TPU chip with the JAX that
# Colab has there; CPU and GPU runtimes work too.

# %%
import importlib.util
import os
import subprocess
import sys

REPOSITORY = "git+https://example.org/jaxtrain.git"  # the address of the repository

if importlib.util.find_spec("jaxtrain") is None:
    # --no-deps: JAX belongs to the image; a newer one would not find its TPU.
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", REPOSITORY]
    subprocess.run(command, check=True)

import jax

print("Python", sys.version.split()[0], "- jax", jax.__version__)
print(len(jax.devices()), jax.devices()[0].platform, "devices:", jax.devices()[0].device_kind)

# %% [markdown]
# ## The network
#
# The data are 1,797 handwritten digits of 8 x 8 pixels, which come with the package. The network
# is a small residual one with BatchNorm and dropout; its first layer standardizes with the
# statistics of the training images.

# %%
import jax.numpy as jnp
import numpy as np
import optax

from jaxtrain import data, losses, models, nn, optim, plot, schedules, train

SMOKE = os.environ.get("JAXTRAIN_SMOKE") == "1"  # small and short: only to see that all cells run
WIDTHS, EPOCHS = ((4, 6), 2) if SMOKE else ((32, 64), 20)

digits, test = data.digits()
net = nn.serial(
    standardize=nn.standardize(*data.standardize.fit(digits.image, per="all")),
    resnet=models.resnet(6, widths=WIDTHS, dropout=0.1),
)
print(nn.summary(net, digits.image[:1]))

# %% [markdown]
# ## Training
#
# `make_step` joins network, loss and optimizer, any optax transformation, to one pure function.
# `fit` compiles it for all devices, keeps the data there and runs it. Interrupt the cell and run
# it again: it goes on from the newest checkpoint in the run folder.

# %%
batch_size = 64
steps_per_epoch = -(-len(digits) // batch_size)
rate = schedules.cosine(4e-3, steps=EPOCHS * steps_per_epoch)
step = train.make_step(net, losses.softmax_cross_entropy, optim.adam(rate))


def fit():
    return train.fit(
        step,
        digits,
        test=test,
        epochs=EPOCHS,
        batch_size=batch_size,
        save_every=steps_per_epoch,
        directory="runs/quickstart",
        resume=True,
    )


result = fit()
print(f"test accuracy {100 * result.last('test_accuracy'):.2f} %, {result.seconds:.0f} s,")
print(f"{result.images_per_second:,.0f} images/s on {result.run.mesh.size} devices")

# %%
from IPython.display import Image

plot.curves(result.history, title="digits").savefig("runs/quickstart/curves.png")
Image("runs/quickstart/curves.png")

# %% [markdown]
# ## Everything is visible
#
# The state is one tuple of plain dicts: the parameters, what the layers remember (here BatchNorm's
# running statistics), the optimizer's state, the random key and the counters. No hidden copy
# exists.

# %%
ts = result.ts
print("step", int(ts.step), "- skipped because not finite:", int(ts.guard.skipped))
print("params of the stem:", jax.tree.map(jnp.shape, ts.params["resnet"]["stem"]))
print("its running mean:", ts.state["resnet"]["stem"]["norm"]["mean"])
print("learning rate of the last step:", float(optim.learning_rate(ts.opt_state)))

# %% [markdown]
# ## Prediction
#
# The run folder holds all that inference needs: the network, rebuilt from its description, the
# params and the state, without the optimizer.

# %%
model = train.load("runs/quickstart")
logits = train.predict(model.net, model, test.image)
wrong = np.flatnonzero(logits.argmax(-1) != test.label)
print(f"{len(wrong)} of {len(test)} test images are wrong:")
for i in wrong[:5]:
    print(f"  image {i} is a {test.label[i]}, predicted {logits[i].argmax()}")

# %% [markdown]
# ## Resume
#
# A run that is killed loses what came after its newest checkpoint. We get there by taking the last
# one away. The resumed run does that part again: the order of the examples, the dropout masks and
# the rates are functions of the seed and the step, so it ends in the same state.

# %%
import pathlib

checkpoints = pathlib.Path("runs/quickstart/checkpoints")
max(checkpoints.glob("*.json"), key=lambda path: int(path.stem)).unlink()
again = fit()
difference = jax.tree.map(lambda a, b: float(abs(a - b).max()), again.ts.params, ts.params)
print("largest difference between the params:", max(jax.tree.leaves(difference)))

# %% [markdown]
# ## One optimizer in your own loop
#
# Optimizers are optax transformations and need nothing else from here. Rosenbrock's valley, whose
# lowest point is (1, 1):

# %%
tx = optim.adam(schedules.cosine(0.3, steps=1000))


def f(w):
    return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2


@jax.jit
def update(w, opt_state):
    updates, opt_state = tx.update(jax.grad(f)(w), opt_state, w)
    return optax.apply_updates(w, updates), opt_state


w = jnp.array([-1.0, 1.0])
opt_state = tx.init(w)
for _ in range(1000):
    w, opt_state = update(w, opt_state)
print("w", w, "f(w)", float(f(w)), "last rate", float(optim.learning_rate(opt_state)))

# %% [markdown]
# ## Eight devices
#
# This notebook may have one device. A process of its own with eight virtual CPU devices shows what
# data parallel means here: the same step, run in four ways, gives the same losses, with BatchNorm's
# statistics and the dropout masks those of the whole batch.

# %%
script = """
from jaxtrain import data, losses, models, optim, train

train.use_cpu_cores(8)
digits, _ = data.digits()
net = models.mlp([32, 10], batch_norm=True, dropout=0.2)
pixels = data.ArrayDataset(digits.image.astype("float32") / 16, digits.label, classes=10)
step = train.make_step(net, losses.softmax_cross_entropy, optim.momentum(0.1))
for how in "single", "jit", "pmap", "shard_map":
    result = train.fit(step, pixels, epochs=1, batch_size=64, how=how, progress=False)
    shown = [f"{row['loss']:.6f}" for row in result.history]
    print(f"{how:>9} on {result.run.mesh.size} devices: loss", *shown)
"""
environment = {name: v for name, v in os.environ.items() if name != "XLA_FLAGS"}
environment["JAX_PLATFORMS"] = "cpu"
done = subprocess.run(
    [sys.executable, "-c", script], env=environment, capture_output=True, text=True
)
print(done.stdout or done.stderr)
