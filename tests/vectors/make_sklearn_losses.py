"""Writes sklearn_losses.npz: a hinge loss, class weights, an elastic net (scikit-learn 1.9).

Run as `python tests/vectors/make_sklearn_losses.py` where scikit-learn is installed.
"""

import pathlib

import numpy as np
from sklearn.linear_model import ElasticNet
from sklearn.metrics import hinge_loss
from sklearn.utils.class_weight import compute_class_weight

SCORES = np.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
LABELS = np.repeat([0, 1, 2], [70, 20, 10])

if __name__ == "__main__":
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 6))
    t = x @ np.array([2.0, -1.0, 0.0, 0.0, 0.5, 0.0]) + rng.normal(size=30)
    net = ElasticNet(alpha=0.3, l1_ratio=0.6, fit_intercept=False, tol=1e-12).fit(x, t)
    vectors = {
        "scores": SCORES,
        "hinge": [hinge_loss([y], f[None], labels=[0, 1, 2]) for y, f in enumerate(SCORES)],
        "labels": LABELS,
        "class_weights": compute_class_weight("balanced", classes=np.arange(3), y=LABELS),
        "x": x,
        "t": t,
        "elastic_net": net.coef_,
    }
    np.savez_compressed(pathlib.Path(__file__).parent / "sklearn_losses.npz", **vectors)
