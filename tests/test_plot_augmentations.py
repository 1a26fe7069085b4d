"""The grid of augmented images: which image stands where, and what the titles say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from jaxtrain import augment, plot  # noqa: E402
from jaxtrain.data import ArrayDataset  # noqa: E402
from jaxtrain.errors import ConfigError  # noqa: E402

IMAGES = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.full((1, 4, 4, 1), 50, np.uint8)
DATASET = ArrayDataset(IMAGES, np.arange(5) % 3, classes=3)


def pixels(axes):
    return np.asarray(axes.get_images()[0].get_array())


def test_each_image_stands_beside_its_augmentations():
    def add(key, image):
        return image + jax.random.randint(key, (), 1, 6, jnp.uint8)

    figure = plot.augmentations(DATASET, add, examples=3, samples=4, high=250)
    grid = np.array(figure.axes).reshape(3, 5)
    levels = np.array([[pixels(axes).mean() * 250 for axes in row] for row in grid])
    np.testing.assert_allclose(levels[:, 0], [0, 100, 200], atol=1e-4)
    added = levels[:, 1:] - levels[:, :1]
    assert added.min() > 0.9 and added.max() < 5.1 and len(np.unique(added.round())) > 2
    assert [axes.get_title() for axes in grid[:, 2]] == ["0", "2", "1"]


def test_titles_say_the_shares_of_a_mixture():
    def mix(key, images, labels):
        return images, 0.75 * labels + 0.25 * labels[::-1]

    names = ["cat", "dog", "cow"]
    three = DATASET[:3]
    figure = plot.augmentations(three, mix=mix, names=names, samples=1)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["cat", "0.75 cat\n0.25 cow", "dog", "dog", "cow", "0.75 cow\n0.25 cat"]
    figure = plot.augmentations(three, mix=mix, samples=1)
    assert figure.axes[1].get_title() == "0.75 0 + 0.25 2"


def test_what_is_cut_off_is_said():
    images = np.stack([np.full((4, 4, 1), -1.0), np.full((4, 4, 1), 2.0)])
    message = r"images must be in \[0, 1\], got \[-1, 2\]; .* nn.standardize"
    with pytest.warns(UserWarning, match=message):
        plot.augmentations(ArrayDataset(images, np.arange(2)), samples=1)


def test_several_augmentations_are_rows_by_name():
    by_name = {"none": lambda key, x: x, "shift": functools.partial(augment.random_crop, padding=1)}
    color = ArrayDataset(np.ones((2, 4, 4, 3), np.float32), np.array([0.5, 1.5]))
    figure = plot.augmentations(color, by_name, samples=2)
    assert [figure.axes[i].get_ylabel() for i in (0, 3)] == ["none", "shift"]
    assert {axes.get_title() for axes in figure.axes} == {""}


def test_an_augmentation_is_compiled_once():
    calls = []
    plot.augmentations(DATASET, lambda key, x: calls.append(x) or x, examples=3, samples=4)
    assert len(calls) == 1


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ConfigError, match=r"dataset must be images .*got \(4, 2\)"):
        plot.augmentations(ArrayDataset(np.ones((5, 2)), np.ones(5)))
    with pytest.raises(ConfigError, match="one with classes, to mix"):
        plot.augmentations(ArrayDataset(IMAGES, np.ones(5)), mix=lambda key, x, y: (x, y))
    with pytest.raises(ConfigError, match="samples must be an int >= 1"):
        plot.augmentations(DATASET, samples=0)
    with pytest.raises(ConfigError, match="names must be a name for each of the 3 classes"):
        plot.augmentations(DATASET, names=["cat"])
    with pytest.raises(ConfigError, match="names must be a name for each of the 3 classes, got 3"):
        plot.augmentations(DATASET, names=3)
    with pytest.raises(ConfigError, match="augment must be a function, or at least one by name"):
        plot.augmentations(DATASET, {})
    with pytest.raises(TypeError, match="dataset must be a data set, got 'ndarray'"):
        plot.augmentations(IMAGES)
    with pytest.raises(TypeError, match="augment or mix must be a function, got 'flip'"):
        plot.augmentations(DATASET, "flip")
    with pytest.raises(ConfigError, match="high must be"):
        plot.augmentations(DATASET, high=float("nan"))
