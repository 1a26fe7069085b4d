"""Several views of an image at test time, and the mean of what is predicted for them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxtrain import _check
from jaxtrain.augment import _image
from jaxtrain.augment._geometry import crop as cut
from jaxtrain.augment._geometry import flip, resize


def flips(image: Any) -> jax.Array:
    """Returns an image and its mirror image, left and right exchanged.

    Args:
        image: (height, width, channels).

    Returns:
        (2, height, width, channels).

    Example:
        >>> flips(jnp.array([[[1], [2]]]))[..., 0].tolist()
        [[[1, 2]], [[2, 1]]]
    """
    image = _image.checked("flips", image)
    return jnp.stack([image, flip(image)])


def five_crop(image: Any, size: int) -> jax.Array:
    """Cuts out the four corners and the middle of an image.

    Args:
        image: (height, width, channels).
        size: the height and width of each in pixels, at most those of the image.

    Returns:
        (5, size, size, channels): top left, top right, bottom left, bottom right, and the middle,
        that of `center_crop`.

    Raises:
        ConfigError: If the image is smaller.

    Example:
        >>> five_crop(jnp.arange(9).reshape(3, 3, 1), 1).ravel().tolist()
        [0, 2, 6, 8, 4]
    """
    return _five("five_crop", image, size)


def _five(where, image, size):
    _check.integer(where, "size", size)
    image = _image.checked(where, image)
    bottom, right = (side - size for side in image.shape[:2])
    _check.at_most(where, "size", size, "the shorter side", min(image.shape[:2]))
    middle = bottom // 2, right // 2
    corners = (0, 0), (0, right), (bottom, 0), (bottom, right), middle
    return jnp.stack([cut(image, corner, (size, size)) for corner in corners])


def ten_crop(image: Any, size: int) -> jax.Array:
    """Cuts out the four corners and the middle of an image and of its mirror image.

    Args:
        image: (height, width, channels).
        size: the height and width of each in pixels, at most those of the image.

    Returns:
        (10, size, size, channels): those of `five_crop`, then these mirrored.

    Raises:
        ConfigError: If the image is smaller.

    Example:
        >>> ten_crop(jnp.ones((4, 4, 3)), 2).shape
        (10, 2, 2, 3)

    References:
        A. Krizhevsky, I. Sutskever, G. Hinton, ImageNet Classification with Deep Convolutional
        Neural Networks, 2012.
    """
    five = _five("ten_crop", image, size)
    return jnp.concatenate([five, jax.vmap(flip)(five)])


def multi_scale_crops(
    image: Any, *, sizes: Sequence[int] = (224, 256, 384, 480, 640), crop: int = 224
) -> jax.Array:
    """Resizes an image to several sizes and takes the ten crops of each.

    Args:
        image: (height, width, channels).
        sizes: lengths of the shorter side in pixels, each at least `crop`.
        crop: the height and width of the crops in pixels.

    Returns:
        (10 len(sizes), crop, crop, channels), the ten of the first size first.

    Raises:
        ConfigError: If a size is smaller than the crop.

    Example:
        >>> multi_scale_crops(jnp.ones((6, 8, 1)), sizes=(4, 5), crop=4).shape
        (20, 4, 4, 1)

    References:
        K. He, X. Zhang, S. Ren, J. Sun, Deep Residual Learning for Image Recognition, 2016.
    """
    _check.integer("multi_scale_crops", "crop", crop)
    image = _image.checked("multi_scale_crops", image)
    height, width = image.shape[:2]
    if not isinstance(sizes, Sequence) or not sizes:
        _check.fail("multi_scale_crops", "sizes", "a sequence of ints, at least one", sizes)
    views = []
    for size in sizes:
        _check.integer("multi_scale_crops", "sizes", size, least=crop)
        # Whole numbers: the longer side is cut off as Pillow and torchvision do.
        shape = tuple(size * side // min(height, width) for side in (height, width))
        views.append(ten_crop(resize(image, shape), crop))
    return jnp.concatenate(views)


def predict_views(
    predict: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    views: Callable[[jax.Array], jax.Array],
    *,
    batch_size: int | None = None,
) -> jax.Array:
    """Averages the predictions for several views of each image: (1/V) sum_v p(view_v(x)).

    The probabilities are averaged, not the logits; the class is the argmax of the mean.

    Args:
        predict: p, from images (n, height, width, channels) to probabilities (n, K), a function
            that JAX can trace: `lambda x: jax.nn.softmax(m.net.apply(m.params, m.state, x,
            nn.EVAL)[0])` of a trained `m = train.fit(...).model`.
        images: x, (batch, ...).
        views: from one image to its V views, (V, height, width, channels), such as `flips` or
            `functools.partial(ten_crop, size=224)`.
        batch_size: how many images are seen to at a time, which bounds the memory for views and
            activations to those of V batch_size images; None means all at once.

    Returns:
        The mean probabilities, (batch, K).

    Raises:
        ConfigError: If predict does not return one row for each view.

    Example:
        >>> predict = lambda x: jax.nn.softmax(x.mean((1, 2)))
        >>> predict_views(predict, jnp.ones((4, 8, 8, 10)), flips).shape
        (4, 10)
    """
    _check.function("predict_views", "predict", predict)
    _check.function("predict_views", "views", views)
    images = _check.array("predict_views", "images", images)
    if images.ndim == 0 or len(images) == 0:
        _check.fail("predict_views", "images", "a batch of at least one", images.shape)
    if batch_size is not None:
        _check.integer("predict_views", "batch_size", batch_size)

    def mean(image):
        x = _check.array("predict_views", "what views returns", views(image))
        p = _check.array("predict_views", "what predict returns", predict(x))
        if p.shape[:1] != x.shape[:1]:
            rule = f"one row for each of {len(x)} views"
            _check.fail("predict_views", "what predict returns", rule, p.shape)
        return p.mean(0)

    return jax.lax.map(mean, images, batch_size=batch_size or len(images))
