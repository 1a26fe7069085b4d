"""Writes pil_policy.npz: images after PIL's operations (Pillow 13.0), at the strengths k / 9.

Run as `python tests/vectors/make_pil_policy.py` where Pillow is installed.
"""

import pathlib

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

STRENGTHS = (0, 1, 3, 4, 7, 9)
CUTOFFS = (1, 10, 49)


def enhanced(kind):
    return lambda image, s: kind(image).enhance(1 + 0.9 * s)


def transformed(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


# Functions of an image and a strength in [-1, 1].
OPERATIONS = {
    "shear_x": lambda image, s: transformed(image, 1, 0.3 * s, 0, 0, 1, 0),
    "shear_y": lambda image, s: transformed(image, 1, 0, 0, 0.3 * s, 1, 0),
    "translate_x": lambda i, s: transformed(i, 1, 0, int(s * i.width * 150 / 331), 0, 1, 0),
    "translate_y": lambda i, s: transformed(i, 1, 0, 0, 0, 1, int(s * i.height * 150 / 331)),
    "rotate": lambda image, s: image.rotate(30 * s),
    "brightness": enhanced(ImageEnhance.Brightness),
    "contrast": enhanced(ImageEnhance.Contrast),
    "color": enhanced(ImageEnhance.Color),
    "sharpness": enhanced(ImageEnhance.Sharpness),
    "posterize": lambda image, s: ImageOps.posterize(image, 8 - round(4 * abs(s))),
    "solarize": lambda image, s: ImageOps.solarize(image, 256 - 256 * abs(s)),
    "invert": lambda image, s: ImageOps.invert(image),
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
}


def images():
    random = np.random.default_rng(0)
    row, column = np.mgrid[:17, :14, :1][:2]
    ramp = 60 + 5 * row + 6 * column + random.integers(0, 9, (17, 14, 3))
    color = np.where((row - 8) ** 2 + (column - 6) ** 2 < 20, 255 - ramp, ramp)
    gray = np.minimum(random.exponential(40, (28, 28, 1)), 255)
    return {"color": color.astype(np.uint8), "gray": gray.astype(np.uint8)}


def applied(f, image, *args):
    return np.asarray(f(Image.fromarray(image.squeeze()), *args)).reshape(image.shape)


if __name__ == "__main__":
    vectors = {}
    for kind, image in images().items():
        vectors[kind] = image
        for name, f in OPERATIONS.items():
            strengths = [(k / 9, -k / 9) for k in STRENGTHS]
            pairs = [[applied(f, image, s) for s in pair] for pair in strengths]
            vectors[f"{kind}, {name}"] = np.stack(pairs)
        vectors[f"{kind}, cutoff"] = np.stack(
            [applied(ImageOps.autocontrast, image, cutoff) for cutoff in CUTOFFS]
        )
    ends = np.array([[1, 10], [23, 81], [46, 162], [1, 172], [100, 101], [0, 255], [7, 7]])
    ramps = np.clip(np.arange(256), ends[:, :1], ends[:, 1:]).astype(np.uint8)[:, None, :, None]
    vectors["ramps"] = ramps
    vectors["ramps, autocontrast"] = np.stack([applied(ImageOps.autocontrast, r) for r in ramps])
    np.savez_compressed(pathlib.Path(__file__).parent / "pil_policy.npz", **vectors)
