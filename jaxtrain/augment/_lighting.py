"""A change of the light: a color along the directions in which a set of images varies."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxtrain import _check
from jaxtrain.augment import _image
from jaxtrain.data.pca import eigen
from jaxtrain.errors import DataError


class Lighting(NamedTuple):
    """The directions in which the colors of a set of images vary, `fit_lighting`'s result."""

    eigenvalues: Any
    eigenvectors: Any


# Of ImageNet's training set, as published with Facebook's ResNet for Torch.
_IMAGENET = Lighting(
    (0.2175, 0.0188, 0.0045),
    ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203)),
)


def fit_lighting(images: Any, *, high: float | None = None) -> Lighting:
    """Computes the principal components of all pixels of a training set, in float64.

        C = (1/n) sum_p (x_p - m) (x_p - m)' = P diag(lam) P'

    x_p are the n pixels of all images, divided by `high`, and m is their mean.

    Args:
        images: (..., channels), of integers or floats.
        high: Largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        lam, largest first, and P, whose columns are the components, with the signs of `data.pca`;
        `pca_lighting` takes them as `**fit_lighting(images)._asdict()`.

    Raises:
        DataError: If there are fewer pixels than channels, or some are not finite.

    Example:
        >>> images = np.array([[0.0, 0.0], [1.0, 1.0]]).reshape(2, 1, 1, 2)
        >>> fit_lighting(images).eigenvalues.round(6) + 0
        array([0.5, 0. ])
    """
    images = _check.array("fit_lighting", "images", images, np.asarray)
    if not _check.is_real(images.dtype):
        _check.fail("fit_lighting", "images", "numbers", str(images.dtype), error=TypeError)
    channels = images.shape[-1] if images.ndim else 0
    if not 0 < channels**2 <= images.size:
        rule = "an array with at least one pixel for each channel"
        _check.fail("fit_lighting", "images", rule, images.shape, error=DataError)
    high = np.float64(_image.white("fit_lighting", high, images.dtype))
    pixels = images.reshape(-1, channels)

    def blocks():
        for i in range(0, len(pixels), 2**20):
            block = pixels[i : i + 2**20] / high
            if not np.isfinite(block).all():
                odd = block[~np.isfinite(block)].item(0)
                _check.fail("fit_lighting", "images", "finite", odd, error=DataError)
            yield block

    _, p, lam, _ = eigen("fit_lighting", blocks, None, ddof=0)
    return Lighting(lam, p.T)


def pca_lighting(
    key: jax.Array,
    image: Any,
    *,
    eigenvalues: Any = _IMAGENET.eigenvalues,
    eigenvectors: Any = _IMAGENET.eigenvectors,
    std: ArrayLike = 0.1,
    high: ArrayLike | None = None,
) -> jax.Array:
    """Adds one color to all pixels, as a change of the light does: y = x + high P (a * lam).

    a_k ~ N(0, std^2) for each component. The color is 0 on average.

    Args:
        key: The random key of this image.
        image: x, (height, width, channels).
        eigenvalues: lam, (channels,), of `fit_lighting`, for values in [0, 1]; the default is
            ImageNet's.
        eigenvectors: P, (channels, channels), its columns the components.
        std: At least 0; 0 leaves the image as it is.
        high: Largest value of the range; None means 255 for integers and 1 for floats.

    Returns:
        y, clipped to [0, high], of the shape and dtype of the image, rounded where that is an
        integer.

    Example:
        >>> pca_lighting(jax.random.key(0), jnp.full((4, 4, 3), 0.5)).shape
        (4, 4, 3)

    References:
        A. Krizhevsky, I. Sutskever, G. Hinton, ImageNet classification with deep convolutional
        neural networks, 2012.
    """
    _check.nonnegative("pca_lighting", "std", std)
    image = _image.checked("pca_lighting", image)
    high = _image.largest("pca_lighting", image, high)
    x = _image.widened(image)
    p = _image.finite("pca_lighting", "eigenvectors", eigenvectors, x.dtype)
    lam = _image.finite("pca_lighting", "eigenvalues", eigenvalues, x.dtype)
    if p.shape != 2 * image.shape[2:] or lam.shape != image.shape[2:]:
        rule = f"those of the {image.shape[2]} channels of the image"
        _check.fail("pca_lighting", "eigenvalues and eigenvectors", rule, (lam.shape, p.shape))
    a = jnp.asarray(std, x.dtype) * jax.random.normal(key, lam.shape, x.dtype)
    color = high * jnp.matmul(p, a * lam, precision="highest")
    return _image.narrowed(x + color[None, None], image.dtype, high)
