"""Writes sklearn_data.npz: preprocessing, cleaning and folds (scikit-learn 1.9, scipy 1.17).

Run as `python tests/vectors/make_sklearn_data.py` where scikit-learn is installed.
"""

import pathlib

import numpy as np
from scipy import stats
from sklearn.covariance import EmpiricalCovariance, MinCovDet
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import MinMaxScaler, RobustScaler

HERE = pathlib.Path(__file__).parent


def vectors():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5)) * 10.0 ** np.arange(-2, 3) + 3
    wide = rng.normal(size=(7, 12))
    out = {"x": x, "wide": wide}

    out["min_max"] = MinMaxScaler((-1, 1)).fit_transform(x)
    out["robust"] = RobustScaler().fit_transform(x)
    out["robust, 10 to 80"] = RobustScaler(quantile_range=(10, 80)).fit_transform(x)

    for name, data, k in [("all", x, None), ("3", x, 3), ("0.999", x, 0.999), ("wide", wide, None)]:
        pca = PCA(k, svd_solver="full").fit(data)
        # The last of n components of n centred examples has no variance and any direction.
        k = len(data) - 1 if name == "wide" else None
        out[f"pca {name}"] = pca.transform(data)[:, :k]
        out[f"pca {name}, components"] = pca.components_[:k]
        out[f"pca {name}, variance"] = pca.explained_variance_[:k]
        out[f"pca {name}, share"] = pca.explained_variance_ratio_[:k]
        out[f"pca {name}, inverse"] = pca.inverse_transform(pca.transform(data))
    out["whiten"] = PCA(whiten=True, svd_solver="full").fit_transform(x)

    out["mahalanobis"] = EmpiricalCovariance().fit(x).mahalanobis(x)
    odd = np.concatenate([x, x[:12] * [1, 1, 1, -4, 1] + 30])
    out["odd"] = odd
    out["mahalanobis, robust"] = MinCovDet(random_state=0).fit(odd).mahalanobis(odd)
    out["z"] = abs(stats.zscore(odd)).max(1)
    mad = stats.median_abs_deviation(odd, scale="normal")
    out["mad"] = (abs(odd - np.median(odd, 0)) / mad).max(1)
    q1, q3 = np.percentile(odd, [25, 75], 0)
    fence = 1.5 * stats.iqr(odd, 0)
    out["iqr, flags"] = ((odd < q1 - fence) | (odd > q3 + fence)).any(1)

    label = np.sort(rng.choice(4, 103, p=[0.5, 0.3, 0.15, 0.05]))
    folds = StratifiedKFold(5).split(np.zeros((103, 1)), label)
    out["label"] = label
    out["fold counts"] = [np.bincount(label[test], minlength=4) for _, test in folds]

    other = x[:25] * [1, 1.5, 1, 1, 1] + [0, 0, 0, 0, 90]
    out["other"] = other
    out["ks"] = [stats.ks_2samp(u, v)[:2] for u, v in zip(x.T, other.T, strict=True)]
    counts = np.array([np.bincount(label, minlength=4), [3, 9, 20, 1]])
    out["chi-square"] = stats.chi2_contingency(counts, correction=False)[:2]
    p = np.array(out["ks"])[:, 1]
    out["bh"] = stats.false_discovery_control(p)
    return out


if __name__ == "__main__":
    np.savez_compressed(HERE / "sklearn_data.npz", **vectors())
