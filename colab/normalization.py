# %% [markdown]
# # Normalization, initialization and dropout at play
#
# What initializers, BatchNorm and its relatives, and dropout do to the numbers inside a net. All
# state is data: it is printed here, and can be changed. Change a number in a cell and run it again.
# One CPU is enough.

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

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxtrain import data, losses, models, nn, optim

SMOKE = os.environ.get("JAXTRAIN_SMOKE") == "1"  # short: only to see that all cells run
plt.rcParams.update({"figure.constrained_layout.use": True, "axes.grid": True, "grid.alpha": 0.3})
KEY = jax.random.key(0)
TRAIN = nn.Context(train=True)

# %% [markdown]
# ## Ten layers
#
# A layer is two functions: `init` makes params and state, `apply` uses them. Random inputs go
# through ten layers of 500 units; the histograms are those of what comes out of each. With small
# numbers activations die out, with 1 tanh saturates. `lecun_normal` keeps tanh alive, and
# `he_normal` ReLU. Which of them keeps which?

# %%
activation = nn.tanh  # or nn.relu
RULES = {
    "0.01 randn": nn.initializers.normal(0.01),
    "1.0 randn": nn.initializers.normal(1.0),
    "lecun_normal": nn.initializers.lecun_normal(),
    "he_normal": nn.initializers.he_normal(),
}
x = jax.random.normal(KEY, (200 if SMOKE else 1000, 500))

figure, rows = plt.subplots(len(RULES), 10, figsize=(14, 5), sharex=True)
for row, (name, rule) in zip(rows, RULES.items(), strict=True):
    h = x
    for i, axes in enumerate(row):
        layer = nn.serial(nn.dense(500, bias=False, kernel_init=rule), activation)
        params, state = layer.init(jax.random.fold_in(KEY, i), h)
        h, _ = layer.apply(params, state, h, TRAIN)
        axes.hist(np.ravel(h), bins=30, range=(-1, 1))
        axes.set(yticks=[], title=f"std {h.std():.2g}")
    row[0].set_ylabel(name)
    print(f"{name}: std {h.std():.6f} after ten layers")
plt.show()

# %% [markdown]
# `unit_stats` measures this in any net, with the gradients that come back: is any unit dead, what
# is saturated?

# %%
net = models.mlp([100, 100, 100, 10], activation=nn.relu)
params, state = net.init(KEY, x)
for path, stats in nn.unit_stats(net, params, state, x, loss=lambda y: (y**2).mean()).items():
    print(
        f"{path:8} std {stats.std:.3f}, dead {stats.dead:.2f}, "
        f"gradient's std {stats.gradient.std:.1e}"
    )

# %% [markdown]
# ## BatchNorm is two functions
#
# In training it normalizes by the mean and variance of the batch, and hands back a new state, with
# running averages. In evaluation it uses the state and leaves it alone. Nothing happens behind your
# back: throw the new state away, and nothing has been averaged.

# %%
norm = nn.batch_norm(decay=0.9)
batch = 5 + 2 * jax.random.normal(KEY, (64, 3))
params, state = norm.init(KEY, batch)
print("params", params)
print("state ", state)

y, after = norm.apply(params, state, batch, TRAIN)
print("trained on one batch:", jax.tree.map(lambda s: np.round(s, 2).tolist(), after))
z, same = norm.apply(params, after, batch, nn.EVAL)
print(f"train mode: mean {y.mean():.2f}, std {y.std():.2f}")
print(f"eval mode:  mean {z.mean():.2f}, std {z.std():.2f}, state unchanged: {same is after}")

# %% [markdown]
# The running mean starts at 0 and moves a tenth of the way to each batch's: 1 - 0.9^k of the way
# after k batches. Evaluated too early, a net is evaluated with statistics of what never was. What
# does a decay of 0.99 do?

# %%
decay = 0.9  # @param {type: "slider", min: 0.0, max: 0.999, step: 0.001}

norm = nn.batch_norm(decay=decay)
means = []
for k in range(60):
    means.append(float(state["mean"].mean()))
    batch = 5 + 2 * jax.random.normal(jax.random.fold_in(KEY, k), (64, 3))
    state = norm.apply(params, state, batch, TRAIN)[1]
plt.figure(figsize=(6, 3.4))
plt.plot(means, label="running mean")
plt.plot(5 * (1 - decay ** np.arange(60)), "k:", label="5 (1 - decay^k)")
plt.xlabel("batches"), plt.legend()
plt.show()
print(f"running mean after 20 batches: {means[20]:.2f} of 5")

# %% [markdown]
# ## The bug: evaluation in train mode
#
# A small net learns the digits, and is then evaluated in batches of several sizes, once in the
# right mode and once in train mode. Of a single image nothing is left: every image is its own mean.

# %%
digits, test = data.digits()
stats = data.standardize.fit(digits.image, per="all")
images, test_images = (jnp.asarray(data.standardize.apply(stats, d.image)) for d in (digits, test))
labels, test_labels = jnp.asarray(digits.label), jnp.asarray(test.label)

net = models.mlp([32, 32, 10], norm="batch")
params, state = net.init(KEY, images)
tx = optim.momentum(0.1)
opt_state = tx.init(params)


@jax.jit
def step(params, state, opt_state, batch):
    def loss(params):
        logits, new = net.apply(params, state, images[batch], TRAIN)
        return losses.softmax_cross_entropy(logits, labels[batch]).mean(), new

    grads, state = jax.grad(loss, has_aux=True)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), state, opt_state


rng = np.random.default_rng(0)
for _ in range(100 if SMOKE else 300):
    batch = rng.integers(len(images), size=64)
    params, state, opt_state = step(params, state, opt_state, batch)


def accuracy(ctx, n):
    """In batches of n of the first 256 test images."""
    batches = test_images[:256].reshape(-1, n, *test_images.shape[1:])
    logits = jax.vmap(lambda x: net.apply(params, state, x, ctx)[0])(batches)
    return float((logits.reshape(256, 10).argmax(-1) == test_labels[:256]).mean())


for n in 1, 4, 16, 64, 256:
    right, wrong = 100 * accuracy(nn.EVAL, n), 100 * accuracy(TRAIN, n)
    print(f"batches of {n:3}: eval mode {right:.1f} %, train mode {wrong:.1f} %")

# %% [markdown]
# The other half of the bug is a state that was never updated. `recompute_batch_stats` takes the
# statistics from the data, and so tells whether they are what is wrong.


# %%
def test_accuracy(state):
    logits, _ = net.apply(params, state, test_images, nn.EVAL)
    return 100 * float((logits.argmax(-1) == test_labels).mean())


_, forgotten = net.init(KEY, images)
recomputed = nn.recompute_batch_stats(net, params, forgotten, [images])
print(f"state of init: {test_accuracy(forgotten):.1f} %")
print(f"recomputed: {test_accuracy(recomputed):.1f} %, trained: {test_accuracy(state):.1f} %")

# %% [markdown]
# ## Four normalizations in one picture
#
# Which inputs does one output (red) depend on? The gradient tells. Only BatchNorm looks at other
# examples; that is why only BatchNorm needs running averages.

# %%
groups = 3  # @param [1, 3, 9]

NORMS = {
    "BatchNorm": nn.batch_norm(),
    "layer norm": nn.layer_norm(per="example"),
    "group norm": nn.group_norm(groups),
    "instance norm": nn.instance_norm(),
}
x = jax.random.normal(KEY, (6, 4, 4, 9))  # examples, height, width, channels

figure, row = plt.subplots(1, 4, figsize=(12, 2.8))
for axes, (name, norm) in zip(row, NORMS.items(), strict=True):
    params_, state_ = norm.init(KEY, x)
    one = jax.grad(lambda x: norm.apply(params_, state_, x, TRAIN)[0][2, 0, 0, 4])(x)  # noqa: B023
    depends = np.abs(one).max((1, 2)) > 0
    axes.pcolormesh(depends, cmap="Blues", vmax=1.5, edgecolors="0.85", linewidth=0.5)
    axes.plot(4.5, 2.5, "ro")
    axes.set(title=name, xlabel="channel", ylabel="example", xticks=[], yticks=[])
    print(f"{name}: {depends.sum()} of {depends.size} planes")
plt.show()

# %% [markdown]
# ## Folding
#
# In evaluation BatchNorm is one multiplication and one addition for each feature, which the layer
# before it can do as well. The folded net has no BatchNorm and the same outputs.

# %%
folded, folded_params, folded_state, left = nn.fold_batch_norm(net, params, state)
print("before:", ", ".join(net.children))
print("after: ", ", ".join(folded.children), "- state", folded_state, "- not folded", left)
y, _ = net.apply(params, state, test_images, nn.EVAL)
z, _ = folded.apply(folded_params, folded_state, test_images, nn.EVAL)
print(f"largest difference: {jnp.abs(y - z).max() / jnp.abs(y).max():.1e} of the largest output")

# %% [markdown]
# ## Dropout, by Monte Carlo
#
# At test time dropout's noise is to be averaged away. One pass in eval mode is an approximation;
# `predict_mc` samples. Its mean has an error of std / sqrt(samples), and its std says how much the
# answer depends on the mask: more for images that the net has not seen the like of.

# %%
rate = 0.5  # @param {type: "slider", min: 0.0, max: 0.9, step: 0.1}
samples = 50 if SMOKE else 400

noisy = nn.serial(nn.flatten(), nn.dense(64), nn.relu, nn.dropout(rate), nn.dense(10))
drop_params, _ = noisy.init(KEY, images)
tx = optim.adam(1e-2)
opt_state = tx.init(drop_params)


@jax.jit
def drop_step(params, opt_state, batch, key):
    def loss(params):
        ctx = nn.Context(train=True, key=key)
        logits, _ = noisy.apply(params, {}, images[batch], ctx)
        return losses.softmax_cross_entropy(logits, labels[batch]).mean()

    updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


for k in range(100 if SMOKE else 300):
    batch, key = rng.integers(len(images), size=64), jax.random.fold_in(KEY, k)
    drop_params, opt_state = drop_step(drop_params, opt_state, batch, key)

four = test_images[test_labels == 4][:1]
noise = jax.random.normal(KEY, four.shape)
shown = {"a four": four, "upside down": four[:, ::-1], "noise": noise}
figure, row = plt.subplots(1, 3, figsize=(12, 2.8), sharey=True)
for axes, (name, image) in zip(row, shown.items(), strict=True):
    one = nn.softmax(noisy.apply(drop_params, {}, image, nn.EVAL)[0])[0]
    mean, std = nn.predict_mc(
        noisy, drop_params, {}, image, KEY, samples=samples, transform=nn.softmax
    )
    axes.bar(range(10), mean[0], yerr=std[0], alpha=0.6, label="Monte Carlo")
    axes.plot(one, "k_", markersize=14, label="one pass")
    axes.set(title=name, xlabel="class", xticks=range(10))
    print(f"{name}: largest standard deviation {std.max():.2f}")
row[0].set_ylabel("probability"), row[0].legend()
plt.show()

# %% [markdown]
# The mask of an example depends on the key, the layer's name and the example's number, not on the
# batch that it is in: the same example gets the same mask in any split of the data, on any number
# of devices.

# %%
ctx = nn.Context(train=True, key=KEY)
drop = nn.dropout(0.5)
together, _ = drop.apply({}, {}, jnp.ones((8, 5)), ctx)
index = jnp.arange(4, 8)
halves = [drop.apply({}, {}, jnp.ones((4, 5)), ctx)[0]]
halves += [drop.apply({}, {}, jnp.ones((4, 5)), nn.Context(train=True, key=KEY, index=index))[0]]
print("same masks in two halves:", bool((together == jnp.concatenate(halves)).all()))
