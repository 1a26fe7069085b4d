# %% [markdown]
# # Optimizers at play
#
# What optimizers and learning-rate schedules do, on surfaces small enough to see everything. Change
# a number in a cell and run it again. One CPU is enough.

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
import functools

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from jaxtrain import data, optim, plot, schedules

SMOKE = os.environ.get("JAXTRAIN_SMOKE") == "1"  # short: only to see that all cells run
plt.rcParams.update({"figure.constrained_layout.use": True, "axes.grid": True, "grid.alpha": 0.3})

# %% [markdown]
# ## An optimizer is two functions
#
# `init` makes a state from the params; `update` makes updates and the next state from gradients.
# Nothing else is hidden anywhere, so that a whole run is one `lax.scan`. Two details make it fit
# for every method: Nesterov's asks for gradients at a point ahead (`grad_params`), and line
# searches ask for the function itself.


# %%
@functools.partial(jax.jit, static_argnums=(0, 1, 3))
def run(tx, f, start, steps):
    """The params before each update and after the last, and the size of each step."""
    tx = optax.with_extra_args_support(tx)

    def step(carry, _):
        w, state = carry
        value, grad = jax.value_and_grad(f)(optim.grad_params(w, state))
        updates, state = tx.update(grad, state, w, value=value, grad=grad, value_fn=f)
        return (optax.apply_updates(w, updates), state), w

    (last, _), path = jax.lax.scan(step, (start, tx.init(start)), length=steps)
    return jnp.concatenate([path, last[None]])


# %% [markdown]
# ## Paths on a surface
#
# Choose a surface and give each optimizer a rate. On the right: how far each is above the lowest
# value. Which of them go straight down the steep side, which turn early? Which leave the saddle?


# %%
def valley(w):
    return (w[0] ** 2 + 20 * w[1] ** 2) / 2


def banana(w):
    return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2


def saddle(w):
    return w[0] ** 2 / 2 - w[1] ** 2 / 2 + w[1] ** 4 / 4


# By name: the function, the start, the lowest value, and the part of the plane to show.
SURFACES = {
    "valley": (valley, [-5.0, 2.0], 0.0, (-6, 2.5, -3, 3)),
    "banana": (banana, [-1.2, 1.0], 0.0, (-1.7, 1.7, -0.8, 2.2)),
    "saddle": (saddle, [1.5, 0.01], -0.25, (-1, 1.8, -0.6, 1.6)),
}


def show(surface, optimizers, steps):
    f, start, lowest, (left, right, bottom, top) = SURFACES[surface]
    figure, (plane, curve) = plt.subplots(1, 2, figsize=(11, 4.4), width_ratios=(1.3, 1))
    x, y = np.meshgrid(np.linspace(left, right, 200), np.linspace(bottom, top, 200))
    gap = f(np.stack([x, y])) - lowest
    plane.contourf(x, y, np.log10(gap + 1e-2), 25, cmap="Blues_r", alpha=0.7)
    for name, tx in optimizers.items():
        w = run(tx, f, jnp.array(start), steps)
        plane.plot(*w.T, ".-", markersize=3, linewidth=1.2, label=name)
        curve.semilogy(np.maximum(jax.vmap(f)(w) - lowest, 1e-12), label=name)
    plane.plot(*start, "ko")
    plane.set(xlim=(left, right), ylim=(bottom, top), title=surface)
    curve.set(xlabel="updates", ylabel="f(w) above the lowest value", ylim=(1e-12, None))
    curve.legend()


surface = "valley"  # @param ["valley", "banana", "saddle"]
show(
    surface,
    {
        "gradient descent": optim.sgd(0.08),
        "momentum": optim.momentum(0.03),
        "Nesterov": optim.momentum(0.03, nesterov="lookahead"),
        "AdaGrad": optim.adagrad(1.0),
        "RMSProp": optim.rmsprop(0.1),
        "Adam": optim.adam(0.3),
    },
    steps=60,
)

# %% [markdown]
# ## Second order
#
# Newton's method knows the curvature, BFGS learns it. On the valley Newton needs one step. At the
# saddle it goes to where the gradient is zero, which is the saddle itself; with the magnitudes of
# the curvatures (`saddle_free`) it does not.

# %%
surface = "saddle"  # @param ["valley", "banana", "saddle"]
show(
    surface,
    {
        "gradient descent": optim.sgd(0.2),
        "Newton": optim.newton(),
        "Newton, saddle-free": optim.newton(saddle_free=True),
        "L-BFGS": optim.lbfgs(),
    },
    steps=25,
)

# %% [markdown]
# ## The condition number
#
# Curvatures 1 and kappa. Both methods have the rate, and momentum the weight of the past, that are
# best for kappa. Gradient descent needs steps in proportion to kappa, momentum to its root.

# %%
kappa = 100  # @param {type: "slider", min: 2, max: 1000}

root = np.sqrt(kappa)
best = {
    "gradient descent": optim.sgd(2 / (1 + kappa)),
    "momentum": optim.momentum((2 / (1 + root)) ** 2, momentum=((root - 1) / (root + 1)) ** 2),
}
steps = 200 if SMOKE else int(8 * kappa)


def bowl(w):
    return (w**2 * jnp.array([1.0, kappa])).sum() / 2


plt.figure(figsize=(6, 3.4))
for name, tx in best.items():
    distance = np.linalg.norm(run(tx, bowl, jnp.ones(2), steps), axis=1)
    near = np.flatnonzero(distance < 1e-6 * distance[0])
    print(f"{name}: {near[0] if len(near) else f'more than {steps}'} updates to a millionth")
    plt.semilogy(np.maximum(distance, 1e-9), label=name)
plt.xlabel("updates"), plt.ylabel("distance"), plt.title(f"kappa = {kappa}"), plt.legend()
plt.show()

# %% [markdown]
# ## One name, three momenta
#
# Under a constant gradient, with the rate cut to a tenth halfway. The accumulator (torch's and
# optax's) multiplies the whole buffer by the rate of the moment, so that steps shrink at once. The
# velocity of most textbooks keeps what the old rate put in and glides on. The mean makes steps that
# are 1 - mu times as long: it needs a higher rate.

# %%
mu = 0.9  # @param {type: "slider", min: 0.0, max: 0.99, step: 0.01}

rate = schedules.step_decay(0.1, every=30, factor=0.1)
plt.figure(figsize=(6, 3.4))
for form in "accumulator", "velocity", "ema":
    w = run(optim.momentum(rate, momentum=mu, form=form), jnp.sum, jnp.zeros(1), 60)
    plt.plot(-np.diff(w[:, 0]), label=form)
plt.axhline(0.1 / (1 - mu), color="gray", linestyle=":", label="terminal speed, lr g / (1 - mu)")
plt.xlabel("update"), plt.ylabel("length of the step"), plt.legend()
plt.show()

# %% [markdown]
# ## The first steps of Adam
#
# Adam divides a mean of gradients by the root of a mean of their squares. Both means begin at zero,
# and without correction not equally so: the first step is (1 - b1) / sqrt(1 - b2) rates long, and
# more follow. With the correction a constant gradient makes steps of exactly one rate.

# %%
b2 = 0.999  # @param {type: "slider", min: 0.9, max: 0.999, step: 0.001}

plt.figure(figsize=(6, 3.4))
for name, corrected in {"corrected": True, "not corrected": False}.items():
    w = run(optim.adam(1.0, b2=b2, bias_correction=corrected), jnp.sum, jnp.zeros(1), 100)
    length = -np.diff(w[:, 0])
    print(
        f"{name}: first step {length[0]:.3f}, longest {length.max():.3f} at {length.argmax() + 1}"
    )
    plt.plot(np.arange(1, 101), length, label=name)
plt.xlabel("update"), plt.ylabel("step / learning rate"), plt.legend()
plt.show()

# %% [markdown]
# ## Rprop and mini-batches
#
# Rprop looks only at signs. Nine mini-batches have the gradient 0.1 and the tenth -0.9: the sum is
# zero and the weight should stay. Nine small steps one way and one the other do not cancel, and
# the steps grow. RMSProp divides by sizes that hardly change from batch to batch, and stays near.

# %%
gradients = jnp.tile(jnp.array([0.1] * 9 + [-0.9]), 30)


@functools.partial(jax.jit, static_argnums=0)
def walk(tx, gradients):
    def step(carry, g):
        w, state = carry
        updates, state = tx.update(g, state, w)
        return (w + updates, state), w

    return jax.lax.scan(step, (jnp.zeros(()), tx.init(jnp.zeros(()))), gradients)[1]


plt.figure(figsize=(6, 3.4))
walkers = {
    "Rprop": optim.rprop(0.01),
    "RMSProp": optim.rmsprop(0.01, decay=0.99),
    "gradient descent": optim.sgd(0.01),
}
for name, tx in walkers.items():
    plt.plot(walk(tx, gradients), label=name)
plt.xlabel("mini-batches"), plt.ylabel("w"), plt.legend()
plt.show()

# %% [markdown]
# ## Schedules
#
# A schedule is a function of the number of updates made so far, and wherever a rate is asked for, a
# schedule may stand.

# %%
T = 1000
plot.schedule(
    {
        "step decay": schedules.step_decay(0.1, every=300, factor=0.1),
        "exponential": schedules.exponential(0.1, rate=0.003),
        "1 / t": schedules.inverse_time(0.1, rate=0.01),
        "linear": schedules.linear(0.1, steps=T),
        "cosine": schedules.cosine(0.1, steps=T),
        "warm restarts": schedules.sgdr(0.1, first_cycle=150, mult=2),
        "one cycle": schedules.one_cycle(0.1, steps=T),
    },
    T,
    title="schedules",
)

# %% [markdown]
# They compose: `warmup` before any, `join` one after another, `stretch` from epochs to updates; and
# a function of your own is one too.

# %%
plot.schedule(
    {
        "cosine": schedules.cosine(0.1, steps=T),
        "warm-up, then cosine": schedules.warmup(schedules.cosine(0.1, steps=800), steps=200),
        "from 0.02 to 5 times that": schedules.goyal_warmup(0.02, 5, steps=200),
        "three parts": schedules.join([0.1, 0.05, schedules.linear(0.05, steps=400)], [300, 600]),
        "my own": lambda count: 0.05 + 0.02 * jnp.sin(count / 50),
    },
    T,
    title="composed",
)

# %% [markdown]
# ## What warm-up is for
#
# Rosenbrock's banana is steep at this start. Momentum at this rate is thrown out of the valley at
# once; with a warm-up it is down on the floor, where the same rate is fine, before the rate is
# there. Try other rates and lengths.

# %%
peak = 0.0015  # @param {type: "slider", min: 0.0005, max: 0.004, step: 0.0005}
length = 60  # @param {type: "slider", min: 1, max: 200}

plt.figure(figsize=(6, 3.4))
steep = jnp.array([-2.0, 2.0])
for name, rate in {"none": peak, "linear": schedules.warmup(peak, steps=length)}.items():
    w = run(optim.momentum(rate), banana, steep, 300)
    value = np.asarray(jax.vmap(banana)(w))
    print(f"warm-up {name}: {value[-1]:.3g} after {len(value) - 1} updates")
    plt.semilogy(np.where(value < 1e6, value, np.nan), label=f"warm-up: {name}")
plt.xlabel("updates"), plt.ylabel("f(w)"), plt.legend()
plt.show()

# %% [markdown]
# ## Look into the state
#
# A chain of transformations has a tuple of their states, NamedTuples with the letters of the
# equations. The last member here averages the params.

# %%
tx = optax.chain(
    optim.clip_by_global_norm(1.0),
    optim.adamw(schedules.cosine(0.1, steps=100)),
    optim.ema(0.9),
)
params = {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)}
state = tx.init(params)
for _ in range(10):
    grads = jax.grad(lambda p: ((p["kernel"] @ jnp.ones(2) + p["bias"]) ** 2).sum())(params)
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    print(jax.tree_util.keystr(path), np.round(leaf, 4).tolist())
print("learning rate of the last update:", float(optim.learning_rate(state)))
print("trained bias", params["bias"], "- averaged", optim.eval_params(params, state)["bias"])

# %% [markdown]
# ## Find a wrong gradient
#
# A hand-written backward pass of the softplus function with a bug in it, and `check_gradients`,
# which compares with finite differences in float64. Repair it and run the cell again.


# %%
@jax.custom_vjp
def softplus(x):
    return jnp.logaddexp(x, 0.0)


softplus.defvjp(
    lambda x: (softplus(x), x),
    lambda x, g: (g * jnp.tanh(x),),  # the bug: the derivative is jax.nn.sigmoid(x)
)


def loss(params):
    return softplus(params["x"] * params["scale"]).sum()


planted = optim.check_gradients(loss, {"x": jnp.array([-1.0, 0.5, 2.0]), "scale": jnp.array(1.5)})
print(planted)

# %% [markdown]
# ## One optimizer in a flax loop
#
# The optimizers do not know whose params they update. Here flax's TrainState and module, on 8 x 8
# pixel digits; only the optimizer and the schedule are ours.

# %%
from flax import linen
from flax.training.train_state import TrainState

digits, test = data.digits()
images, test_images = (
    part.image.reshape(len(part), -1) / np.float32(16) for part in (digits, test)
)
labels = digits.label
updates = 20 if SMOKE else 300

net = linen.Sequential([linen.Dense(64), linen.relu, linen.Dense(10)])
rate = schedules.warmup(schedules.cosine(3e-3, steps=updates - 10), steps=10)
tx = optax.chain(optim.clip_by_global_norm(1.0), optim.adamw(rate))
variables = net.init(jax.random.key(0), images)
ts = TrainState.create(apply_fn=net.apply, params=variables["params"], tx=tx)


@jax.jit
def step(ts):
    def loss(params):
        logits = ts.apply_fn({"params": params}, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    value, grads = jax.value_and_grad(loss)(ts.params)
    return ts.apply_gradients(grads=grads), value


for k in range(updates):
    ts, value = step(ts)
    if k % (updates // 5) == 0 or k == updates - 1:
        print(f"update {k}: loss {value:.3f}, rate {optim.learning_rate(ts.opt_state):.5f}")
right = net.apply({"params": ts.params}, test_images).argmax(-1) == test.label
print(f"test accuracy {100 * right.mean():.1f} %")

# %% [markdown]
# ## The whole loss at once
#
# `minimize` drives an optimizer until the gradient is small and says why it stopped. A logistic
# regression on the same digits, with L2: L-BFGS needs far fewer evaluations than momentum for the
# same gradient.


# %%
def regression(params):
    logits = images @ params["kernel"] + params["bias"]
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return nll + 1e-3 * (params["kernel"] ** 2).sum()


start = {"kernel": jnp.zeros((64, 10)), "bias": jnp.zeros(10)}
plt.figure(figsize=(6, 3.4))
for name, tx in {"L-BFGS": optim.lbfgs(), "momentum": optim.momentum(0.5)}.items():
    found = optim.minimize(
        regression, start, tx, steps=50 if SMOKE else 1000, tolerance=1e-3, progress=False
    )
    print(f"{name}: {found.reason}; {found.evaluations} evaluations, value {found.value:.5f}")
    plt.semilogy(found.history["grad_norm"], label=name)
plt.xlabel("steps"), plt.ylabel("norm of the gradient"), plt.legend()
plt.show()
