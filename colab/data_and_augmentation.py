# %% [markdown]
# # Data and augmentation at play
#
# What happens to data between a file and a loss: they are looked at, preprocessed, cleaned,
# augmented, mixed and read on demand. Every step has its picture. Change a number in a cell and run
# it again. One CPU is enough.

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
from IPython.display import display

from jaxtrain import augment, data, losses, nn, optim, penalties, plot, train
from jaxtrain.data import clean

SMOKE = os.environ.get("JAXTRAIN_SMOKE") == "1"  # short: only to see that all cells run
plt.rcParams.update({"figure.constrained_layout.use": True, "image.cmap": "gray"})
KEY = jax.random.key(0)

# %% [markdown]
# ## Look at the data
#
# A data set is two arrays that were checked once: images (n, height, width, channels) and labels.
# These are the digits that come with the package.

# %%
digits, test = data.digits()
print("images", digits.image.shape, digits.image.dtype, "from", digits.image.min(), end=" ")
print("to", digits.image.max(), "- labels", digits.label.shape, digits.label.dtype)

figure, (some, counts) = plt.subplots(1, 2, figsize=(12, 4.6))
rows = np.stack([digits.image[digits.label == c][:14, ..., 0] for c in range(10)])
framed = np.pad(rows, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=6)
some.imshow(framed.transpose(0, 2, 1, 3).reshape(100, -1))
some.set(title="fourteen of each class", xticks=[], yticks=[])
for i, (name, part) in enumerate({"training": digits, "test": test}.items()):
    count = np.bincount(part.label)
    counts.bar(np.arange(10) + 0.4 * i - 0.2, count / len(part), 0.4, label=f"{name}, {len(part)}")
    print(f"{name}: {count.min()} to {count.max()} of each class")
(
    counts.set(title="share of each class", xlabel="class", xticks=range(10)),
    counts.legend(loc="lower center"),
)
plt.show()

# %% [markdown]
# ## Is the test set like the training set?
#
# `clean.compare` tests each pixel (Kolmogorov and Smirnov) and the labels (chi-square), with
# probabilities corrected for 65 tests. Drawn from all writers, the test set has no pixel that
# differs; of other writers, it has one. How pixels go together is more than any single test sees:
# a classifier, here a normal distribution for each class, finds the other writers harder.


# %%
def discriminant(dataset):
    """Fits one mean for each class and one covariance for all: `x -> probabilities`."""
    means = np.stack([dataset.image[dataset.label == c].mean(0) for c in range(10)])
    stats = data.whiten.fit(dataset.image - means[dataset.label], eps=0.1)
    centers = data.whiten.apply(stats, means)

    def probabilities(x):
        d2 = ((data.whiten.apply(stats, x)[:, None] - centers) ** 2).sum(-1)
        p = np.exp((d2.min(1, keepdims=True) - d2) / 2)
        return p / p.sum(1, keepdims=True)

    return probabilities


figure, row = plt.subplots(1, 2, figsize=(7, 3))
for axes, split in zip(row, ("stratified", "writers"), strict=True):
    training, others = data.digits(split=split)
    report = clean.compare(training.image, others.image, labels=(training.label, others.label))
    print(report)
    right = discriminant(training)(others.image).argmax(1) == others.label
    print(f"{split}: test accuracy {100 * right.mean():.1f} %\n")
    shown = axes.imshow(np.log10(report.scores[:64].reshape(8, 8)), vmin=-3, vmax=0)
    axes.set(title=f"{split}: {len(report.indices)} reported", xticks=[], yticks=[])
figure.colorbar(shown, ax=row, label="log10 of the corrected probability")
plt.show()

# %% [markdown]
# ## Preprocessing is two functions
#
# `fit` takes the statistics of the training set, `apply` uses them, and `invert` undoes it, but for
# what is left out of ten components; these are shown inverted. `data.prepare` fits on the training set, applies to all, and refuses a test image that the
# training set has too. From here on pixels are floats in [0, 1].

# %%
to_one = data.pipeline((data.min_max, {"per": "all"}))
stats, digits, test = data.prepare(to_one, digits, test)

try:
    data.prepare(to_one, digits, digits[:3])
except Exception as error:
    print(type(error).__name__, "-", error)

METHODS = {
    "mean image off": data.pipeline((data.standardize, {"scale": False})),
    "standardized": data.standardize,
    "10 components": data.pipeline((data.pca, {"components": 10})),
    "ZCA": data.pipeline((data.whiten, {"form": "zca", "eps": 0.01})),
}
figure, grid = plt.subplots(3, len(METHODS) + 1, figsize=(8, 4.8))
columns = {"as it is": digits.image[:3]}
for name, method in METHODS.items():
    stats = method.fit(digits.image)
    y = method.apply(stats, test.image)
    gap = np.abs(method.invert(stats, y) - test.image).max()
    print(f"{name}: test images become {y.shape[1:]}, inverted to within {gap:.1e}")
    y = method.apply(stats, digits.image[:3])
    columns[name] = method.invert(stats, y) if y.ndim == 2 else y
for axes, (name, images) in zip(grid.T, columns.items(), strict=True):
    axes[0].set_title(name)
    for ax, image in zip(axes, images[..., 0], strict=True):
        ax.imshow(image), ax.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## Eigen-digits
#
# The principal components are the directions in which digits differ most. A few of them make an
# image that can be read: below, one test digit from its first k coordinates.

# %%
number = 7  # @param {type: "slider", min: 0, max: 359}

KEPT = 1, 2, 4, 8, 16, 32, 64
figure, (above, below) = plt.subplots(2, len(KEPT), figsize=(10, 3.2))
stats = data.pca.fit(digits.image)
centered = ((test.image - stats.mean) ** 2).sum()
for i, k in enumerate(KEPT):
    stats_k = stats._replace(components=stats.components[:k])
    again = data.pca.invert(stats_k, data.pca.apply(stats_k, test.image))
    lost = ((again - test.image) ** 2).sum() / centered
    print(
        f"{k:2} components: {100 * stats.share[:k].sum():5.1f} % of the variance, "
        f"{100 * (1 - lost):5.1f} % of the test set's"
    )
    above[i].imshow(stats.components[i, ..., 0], cmap="RdBu", vmin=-0.4, vmax=0.4)
    above[i].set(title=f"component {i + 1}", xticks=[], yticks=[])
    below[i].imshow(again[number, ..., 0], vmin=0, vmax=1)
    below[i].set(title=f"from {k}", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## Cleaning: what is found is reported, never dropped
#
# Three mistakes are put into the training set: a copy of an image, a negative, and a wrong label.

# %%
COPY, NEGATIVE, MISLABELED = 100, 200, 300

image, label = digits.image.copy(), digits.label.copy()
image[COPY], label[COPY] = image[7], label[7]
image[NEGATIVE] = 1 - image[NEGATIVE]
label[MISLABELED] = (label[MISLABELED] + 1) % 10
dirty = data.ArrayDataset(image, label, classes=10)

copies = clean.duplicates(dirty.image, label=dirty.label)
print(copies)
near = clean.near_duplicates(dirty.image, 0.5)
print(near)

# %% [markdown]
# Outliers are looked for in the twenty largest components, by Mahalanobis's distance: pixels that
# are nearly always empty would make an outlier of everyone who fills them.

# %%
stats = data.pca.fit(dirty.image, components=20)
unusual = clean.mahalanobis(data.pca.apply(stats, dirty.image))
print(unusual)
display(unusual.figure())

# %% [markdown]
# Labels are doubted where a model that was not trained on the example is sure of another class. So
# there are five models, each judging the fifth that it has not seen. Some of the writers' own
# digits are doubtful as well.

# %%
numbers = data.ArrayDataset(np.arange(len(dirty)), dirty.label, classes=10)
probabilities = np.empty((len(dirty), 10))
for seen, unseen in data.k_fold(numbers, 5):
    probabilities[unseen.image] = discriminant(dirty[seen.image])(dirty.image[unseen.image])
doubtful = clean.label_noise(probabilities, dirty.label)
print(doubtful)
display(doubtful.figure())

figure, row = plt.subplots(1, 8, figsize=(10, 1.7))
examples, suggested = doubtful.table["example"], doubtful.table["suggested"]
for axes, i, c in zip(row, examples, suggested, strict=False):
    axes.imshow(dirty.image[i, ..., 0])
    axes.set(title=f"{i}: {dirty.label[i]}, {c}?", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# A report has the numbers of what it found. What to do with them is up to you.

# %%
print("copy found:", COPY in copies.indices, "- found as the only one:", len(copies.indices) == 1)
print("negative the furthest out:", int(unusual.scores.argmax()) == NEGATIVE)
print("wrong label doubted:", MISLABELED in doubtful.indices)
kept = dirty[np.setdiff1d(np.arange(len(dirty)), [*copies.indices, NEGATIVE])]
print(len(dirty), "examples after all checks,", len(kept), "after a decision")

# %% [markdown]
# ## Augmentations, seen
#
# An augmentation is a function of a key and one image. It runs inside the training step, for every
# image with a key of its own. `plot.augmentations` shows what the step would see: here geometry,
# a row for each, all of the same digit.

# %%
partial = functools.partial
GEOMETRY = {
    "rotation": partial(augment.random_rotation, degrees=20.0),
    "translation": partial(augment.random_translation, shift=1.5),
    "scale": partial(augment.random_scale, scale=(0.7, 1.3)),
    "stretch": partial(augment.random_stretch, stretch=(0.6, 1.6)),
    "shear": partial(augment.random_shear, shear=0.4),
    "all of these": partial(
        augment.random_affine,
        degrees=15.0,
        scale=(0.85, 1.15),
        stretch=(0.8, 1.2),
        shear=0.2,
        shift=1.0,
    ),
    "lens": partial(augment.random_lens_distortion, strength=0.4),
    "elastic": partial(augment.elastic, alpha=8.0, sigma=2.0),
    "crop": partial(augment.random_crop, padding=1),
    "cutout": partial(augment.cutout, size=3),
    "noise": partial(augment.gaussian_noise, std=0.1),
}


def few_of(rows):
    return dict(list(rows.items())[::4]) if SMOKE else rows


plot.augmentations(digits[3:4], few_of(GEOMETRY))

# %% [markdown]
# Colors need a picture that has some.

# %%
y, x = np.mgrid[:48, :48]
sky = np.stack([90 + 2 * y, 150 + 2 * y, np.full((48, 48), 235)], -1)
SHAPES = {  # where, and in which color
    (250, 220, 80): (y - 10) ** 2 + (x - 37) ** 2 < 30,
    (70, 140, 60): y > 33 + 4 * np.sin(x / 8),
    (200, 60, 50): (y > 20) & (y < 38) & (x > 8) & (x < 26),
    (110, 60, 40): (y <= 20) & (y > 8 + abs(x - 17)),
    (240, 240, 230): (y > 25) & (y < 31) & (x > 12) & (x < 18),
}
for color, where in SHAPES.items():
    sky[where] = color
picture = data.ArrayDataset(sky.astype(np.uint8)[None], np.zeros(1, int), classes=1)

COLORS = {
    "brightness": partial(augment.color_jitter, brightness=0.6),
    "contrast": partial(augment.color_jitter, contrast=0.8),
    "saturation": partial(augment.color_jitter, saturation=1.0),
    "hue": partial(augment.color_jitter, hue=0.5),
    "PCA lighting": partial(
        augment.pca_lighting, std=1.0, **augment.fit_lighting(picture.image)._asdict()
    ),
    "channels": augment.exchange_channels,
    "blur": augment.random_blur,
    "salt, pepper": partial(augment.salt_and_pepper, probability=0.1),
    "solarize": lambda key, image: augment.solarize(image, jax.random.randint(key, (), 0, 256)),
}
plot.augmentations(picture, few_of(COLORS))

# %% [markdown]
# ## Policies
#
# Policies draw from a list of operations: AutoAugment from pairs that a search found, RandAugment
# two at one magnitude, TrivialAugment one at any. Twenty-five pairs or fourteen operations are one
# program: an operation is a row of numbers, not a branch that every image would have to compute.

# %%
POLICIES = {
    "AutoAugment": augment.auto_augment,
    "RandAugment": augment.rand_augment,
    "TrivialAugment": augment.trivial_augment,
}
plot.augmentations(picture, few_of(POLICIES))

# %% [markdown]
# ## Mixtures, and their labels
#
# These are functions of a whole batch. The label of a mixture is the share of each class, and in
# CutMix the share of the pixels that are really replaced.

# %%
MIXTURES = {
    "mixup": partial(augment.mixup, alpha=1.0, per="example"),
    "CutMix": augment.cutmix,
    "same class": augment.mix_same_class,
}
four = digits[np.array([0, 16, 33, 5])]  # a nought, two threes and a seven
for name, mix in few_of(MIXTURES).items():
    figure = plot.augmentations(four, mix=mix, samples=6)
    figure.suptitle(name)
    display(figure)
    _, shares = mix(KEY, four.image, jax.nn.one_hot(four.label, 10))
    print(f"{name}: each label sums to {shares.sum(1).min():.4f} or more")

# %% [markdown]
# ## Training on few digits
#
# 128 training images and a net of one convolution. The augmentation is an argument of the
# step, as is the mixture, and both are part of its program; the time of a step is printed. Digits
# do not mirror: what is right for photographs teaches nothing here. Random affine maps make other
# digits of the same class, and mixup on top of them adds little.

# %%
few, _ = data.split(digits, (128, len(digits) - 128))
net = nn.serial(nn.conv(32, 3), nn.relu, nn.max_pool(2), nn.flatten(), nn.dense(10))
AUGMENTED = {
    "as they are": {},
    "mirrored": {"augment": augment.random_flip},
    "affine": {"augment": GEOMETRY["all of these"]},
    "affine, mixup": {
        "augment": GEOMETRY["all of these"],
        "mix": partial(augment.mixup, alpha=0.4),
    },
}
if SMOKE:
    AUGMENTED = {name: AUGMENTED[name] for name in ("as they are", "affine")}

plt.figure(figsize=(6.4, 3.6))
learned = {}
for name, options in AUGMENTED.items():
    step = train.make_step(net, losses.softmax_cross_entropy, optim.adam(3e-3), **options)
    fitted = train.fit(
        step,
        few,
        test=test,
        epochs=100 if SMOKE else 800,
        batch_size=64,
        eval_every=50,
        progress=False,
    )
    learned[name] = fitted.model.params
    rows = [row for row in fitted.history if "test_accuracy" in row]
    plt.plot([row["step"] for row in rows], [row["test_accuracy"] for row in rows], label=name)
    print(
        f"{name}: test accuracy {100 * fitted.last('test_accuracy'):.1f} %, "
        f"{1e6 * 64 / fitted.images_per_second:.0f} microseconds a step"
    )
plt.xlabel("steps"), plt.ylabel("test accuracy"), plt.ylim(0.75, 1), plt.grid(alpha=0.3)
plt.legend()
plt.show()

# %% [markdown]
# ## Several views at test time
#
# The probabilities of several views of one image can be averaged: here of the image and of two that
# are moved by half a pixel, or of the image and its mirror image. Views should be as likely as the
# image itself. Moved digits are, and change the answer for some, for better or worse; mirrored ones
# are not, and do harm to a net that has never seen any.


# %%
def shifts(image):
    moves = [(0, -0.5), (0, 0), (0, 0.5)]
    return jnp.stack([augment.affine(image, jnp.eye(2), shift) for shift in moves])


VIEWS = {
    "one view": lambda image: image[None],
    "shifts": shifts,
    "mirror images": augment.flips,
}


@partial(jax.jit, static_argnums=1)
def averaged(params, views):
    def predict(x):
        return nn.softmax(net.apply(params, {}, x, nn.EVAL)[0])

    return augment.predict_views(predict, test.image, views)


for trained, params in learned.items():
    for name, views in VIEWS.items():
        p = averaged(params, views)
        right = p.argmax(1) == test.label
        nll = -jnp.log(p[np.arange(len(test)), test.label]).mean()
        print(f"{trained} - {name}: accuracy {100 * right.mean():.1f} %, loss {nll:.3f}")

# %% [markdown]
# ## Penalties
#
# A penalty is a function of the params. Thirty examples of twenty features, of which three matter:
# L2 makes all weights small, L1 makes most of them zero. The gradient of |w| jumps across zero for
# ever; the proximal step ends there. The best strength is where the error on other examples is
# lowest, for L1 lower than for L2.

# %%
strengths = np.geomspace(1e-3, 3, 30, dtype=np.float32)
x, other_x = jax.random.normal(KEY, (2, 30, 20))
w = jnp.zeros(20).at[np.array([2, 7, 11])].set(np.array([2.0, -1.5, 1.0]))
noise, other_noise = 0.5 * jax.random.normal(jax.random.fold_in(KEY, 1), (2, 30))
y, other_y = x @ w + noise, other_x @ w + other_noise


def descend(tx, penalty):
    """The weights after 1,000 steps on the mean squared error and a penalty."""

    def loss(params):
        return losses.squared_error(x @ params["kernel"], y).mean() / 2 + penalty(params)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    start = {"kernel": jnp.zeros(20)}
    return jax.lax.scan(step, (start, tx.init(start)), length=1000)[0][0]["kernel"]


sgd = optim.sgd(0.1)
PENALTIES = {
    "l2": lambda s: descend(sgd, penalties.l2(s)),
    "l1, by its gradient": lambda s: descend(sgd, penalties.l1(s)),
    "l1, proximal": lambda s: descend(optim.proximal_l1(sgd, s), lambda params: 0.0),
}
figure, row = plt.subplots(1, 3, figsize=(12, 3.4), sharey=True)
for axes, (name, fit) in zip(row, PENALTIES.items(), strict=True):
    weights = jax.jit(jax.vmap(fit))(strengths)  # all strengths in one program
    errors = ((weights @ other_x.T - other_y) ** 2).mean(1)
    best = int(errors.argmin())
    zeros = int((weights[best] == 0).sum())
    print(f"{name}: error {errors[best]:.3f} at {strengths[best]:.3f}, {zeros} weights are zero")
    axes.semilogx(strengths, weights[:, w == 0], color="0.7")
    axes.semilogx(strengths, weights[:, w != 0])
    axes.axvline(strengths[best], color="k", linestyle=":")
    axes.set(title=name, xlabel="strength")
row[0].set_ylabel("weights; gray: should be 0")
plt.show()

# %% [markdown]
# ## Data that do not fit
#
# Examples in files are read when a batch wants them: `data.Source` takes anything with a length
# that gives (image, label) by number. Which examples form a batch is arithmetic on the step: a run
# that has lost its last checkpoint goes on from the one before, reads the same files again, and
# ends in the same params. Some more are read for shapes, and to know the data again.

# %%
import pathlib
import tempfile

home = pathlib.Path(tempfile.mkdtemp())
folder = home / "digits"
folder.mkdir()
for i in range(len(few)):
    np.savez(folder / f"{i:03}.npz", image=few.image[i], label=few.label[i])


class Files:
    """The examples of a folder, which are read one by one."""

    def __init__(self, folder):
        self.paths, self.reads = sorted(folder.glob("*.npz")), 0

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        self.reads += 1
        with np.load(self.paths[i]) as arrays:
            return arrays["image"], arrays["label"]


files = Files(folder)
source = data.Source(files, classes=10)
step = train.make_step(
    nn.serial(nn.flatten(), nn.dense(10)),
    losses.softmax_cross_entropy,
    optim.adam(1e-2),
    augment=partial(augment.random_crop, padding=1),
)


def fit():
    return train.fit(
        step,
        source,
        epochs=5,
        batch_size=32,
        save_every=5,
        directory=home / "run",
        resume=True,
        progress=False,
    )


result = fit()
print(f"20 batches of 32: {files.reads} files read")

checkpoints = home / "run" / "checkpoints"
max(checkpoints.glob("*.json"), key=lambda path: int(path.stem)).unlink()  # the run loses its end
files.reads = 0
again = fit()
print(f"resumed, 5 batches of 32: {files.reads} files read")
difference = jax.tree.map(lambda a, b: float(abs(a - b).max()), again.ts.params, result.ts.params)
print("largest difference between the params:", max(jax.tree.leaves(difference)))
