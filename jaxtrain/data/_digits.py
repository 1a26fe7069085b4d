"""The handwritten digits that come with the package."""

import hashlib
import importlib.resources
import io

import numpy as np

from jaxtrain import _check
from jaxtrain.errors import DataError

from ._dataset import ArrayDataset
from ._split import split as split_dataset

SHA256 = "63bd2a94fef641400312231c859eec64289d2b7776976242f1f60d08eab215dd"


def digits(*, split: str = "stratified") -> tuple[ArrayDataset, ArrayDataset]:
    """Loads 1,797 handwritten digits of 8 x 8 pixels; no download.

    They are the test set of the UCI collection, which scikit-learn carries too: 4 x 4 blocks of
    a 32 x 32 bitmap, counted, so that a pixel is an integer in [0, 16].

    Args:
        split: "stratified" tests on 360 images drawn evenly from all classes, with writers in
            common: `split(whole, (1437, 360), seed=0)`, for good. "writers" tests on the last
            360 of the file and trains on the first 1,415: the images come writer by writer, and
            the 22 between are left out because their writer goes on in the test set. The file
            does not name its writers; each begins anew with the digits 0 to 9 in order.

    Returns:
        The training and the test set, images (n, 8, 8, 1) uint8 and labels (n,) int32.

    Raises:
        DataError: If the file is not the one that was released.

    Example:
        >>> train, test = digits()
        >>> len(train), test.image.shape
        (1437, (360, 8, 8, 1))

    References:
        E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
        Repository, 1998, doi 10.24432/C50P49. CC BY 4.0.
    """
    _check.choice("digits", "split", split, ("stratified", "writers"))
    packed = (importlib.resources.files("jaxtrain.data") / "digits.npz").read_bytes()
    sha256 = hashlib.sha256(packed).hexdigest()
    if sha256 != SHA256:
        fix = "reinstall the package"
        _check.fail("digits", "digits.npz", f"of SHA-256 {SHA256}", sha256, fix, DataError)
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        whole = ArrayDataset(arrays["image"][..., None], arrays["label"], classes=10)
    if split == "writers":
        return whole[:1415], whole[-360:]
    train, test = split_dataset(whole, (1437, 360), seed=0)
    return train, test
