"""Weights of the images in the loss, by class and region."""

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight


def class_table(
    class_weight: str | dict | None,
    code: NDArray[np.int64],
    classes: NDArray,
    sample_weight: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Return the weight of each class.

    Parameters
    ----------
    class_weight : "balanced", dict or None
    code : ndarray of shape (n,), dtype int64
        Class of each training image, as an index into `classes`.
    classes : ndarray of shape (k,)
    sample_weight : ndarray of shape (n,)
        Weight of each image: an image of weight 2 counts as two images.

    Returns
    -------
    table : ndarray of shape (k,), dtype float64

    Raises
    ------
    ValueError
        If a dict has no weight for a class.
    """
    if isinstance(class_weight, dict):
        missing = [label for label in classes.tolist() if label not in class_weight]
        if missing:
            raise ValueError(f"class_weight has no weight for the classes {missing}; name every class of y.")
    seen = np.unique(code)
    table = np.ones(len(classes))
    table[seen] = compute_class_weight(
        class_weight, classes=classes[seen], y=classes[code], sample_weight=sample_weight
    )
    return table


def region_table(code: NDArray[np.int64], regions: NDArray | None, n_classes: int) -> pd.DataFrame:
    """Return the weight of each class in each region: the fraction of the other classes in that region.

    For two classes this is the weighting of the MURA paper (Rajpurkar et al., arXiv 1712.06957).

    Parameters
    ----------
    code : ndarray of shape (n,), dtype int64
    regions : ndarray of shape (n,) or None
    n_classes : int

    Returns
    -------
    table : DataFrame of shape (n_regions, n_classes)

    Raises
    ------
    ValueError
        If the regions are not known.
    """
    regions = _required(regions)
    counts = pd.crosstab(pd.Series(regions, dtype=object), pd.Series(code))
    counts = counts.reindex(columns=range(n_classes), fill_value=0)
    return 1 - counts.div(counts.sum(axis=1), axis=0)


def region_weights(
    table: pd.DataFrame, code: NDArray[np.int64], regions: NDArray | None
) -> NDArray[np.float64]:
    """Return the weight of each image, by its class and region."""
    regions = _required(regions)
    unseen = sorted(set(regions) - set(table.index))
    if unseen:
        warnings.warn(
            f"class_weight='region': the validation images have regions that no training image has "
            f"({', '.join(unseen)}); there, all classes have the same weight.",
            UserWarning,
            stacklevel=2,
        )
    rows = table.reindex(regions).fillna(0.5).to_numpy()
    return rows[np.arange(len(code)), code]


def _required(regions: NDArray | None) -> NDArray:
    """Return the regions; raise if they are not known."""
    if regions is None:
        raise ValueError(
            "class_weight='region' needs the region of every image of X and X_val, and some paths do not contain it. "
            "Use class_weight='balanced', or paths in MURA's layout."
        )
    return regions
