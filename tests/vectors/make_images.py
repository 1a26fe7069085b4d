"""Writes images.npz: images resampled, resized, filtered and colored by SciPy, torch and Pillow.

Run as `python tests/vectors/make_images.py` where these are installed; made with SciPy 1.17, torch
2.13 and Pillow 13. Images are (height, width, channels), coordinates (row, column). `bytes` is the
uint8 image that Pillow has, `image` the float64 one of the others.
"""

import math
import pathlib

import numpy as np
import torch
from PIL import Image, ImageEnhance
from scipy import ndimage
from torch.nn import functional

MATRIX, SHIFT = np.array([[0.9, -0.3], [0.4, 1.2]]), np.array([0.7, -1.6])
ENHANCE = {"brightness": "Brightness", "contrast": "Contrast", "saturation": "Color"}


def channels(f, image):
    return np.stack([f(image[..., i]) for i in range(image.shape[2])], -1)


def affine(image, order, mode, fill):
    offset = (np.array(image.shape[:2]) - 1) / 2 + SHIFT
    offset -= MATRIX @ ((np.array(image.shape[:2]) - 1) / 2)
    return channels(
        lambda x: ndimage.affine_transform(x, MATRIX, offset, order=order, mode=mode, cval=fill),
        image,
    )


def torch_rotate(image, degrees):
    """Rotates as torchvision does: in pixels, not in the grid's units, which shear."""
    height, width, _ = image.shape
    a = math.radians(degrees)
    s, c, ratio = math.sin(a), math.cos(a), height / width
    theta = torch.tensor([[[c, -s * ratio, 0], [s / ratio, c, 0]]], dtype=torch.float64)
    x = torch.tensor(image).permute(2, 0, 1)[None]
    grid = functional.affine_grid(theta, x.shape, align_corners=False)
    y = functional.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
    return y[0].permute(1, 2, 0).numpy()


def torch_resize(image, shape, **options):
    x = torch.tensor(image).permute(2, 0, 1)[None]
    return functional.interpolate(x, shape, **options)[0].permute(1, 2, 0).numpy()


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    image, raw = rng.uniform(size=(8, 11, 3)), rng.integers(0, 256, (8, 11, 3), np.uint8)
    vectors = {"image": image, "bytes": raw, "matrix": MATRIX, "shift": SHIFT}
    vectors["affine, linear"] = affine(image, 1, "grid-constant", 0)
    vectors["affine, filled"] = affine(image, 1, "grid-constant", 0.5)
    vectors["affine, nearest"] = affine(image, 0, "grid-constant", 0)
    vectors["rotate, scipy"] = ndimage.rotate(
        image, 30, reshape=False, order=1, mode="grid-constant"
    )
    vectors["rotate, torch"] = torch_rotate(image, 30)
    for shape in ((4, 7), (11, 17)):
        size = "x".join(map(str, shape))
        for name, options in {
            "linear": dict(mode="bilinear", antialias=True),
            "linear, aliased": dict(mode="bilinear"),
            "cubic": dict(mode="bicubic", antialias=True),
            "nearest": dict(mode="nearest-exact"),
        }.items():
            vectors[f"resize, {name}, {size}"] = torch_resize(image, shape, **options)
    vectors["blur"] = channels(lambda x: ndimage.gaussian_filter(x, 0.8, mode="mirror"), image)
    for name, enhancer in {**ENHANCE, "sharpen": "Sharpness"}.items():
        for factor in (0.0, 0.4, 1.7):
            y = getattr(ImageEnhance, enhancer)(Image.fromarray(raw)).enhance(factor)
            vectors[f"{name}, {factor}"] = np.array(y)
    vectors["grayscale"] = np.array(Image.fromarray(raw).convert("L"))
    np.savez_compressed(pathlib.Path(__file__).with_name("images.npz"), **vectors)
