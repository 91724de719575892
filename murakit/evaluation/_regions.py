"""Region and abnormality from one model that was trained on both (``target="region_abnormal"``)."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..datasets._paths import LABEL_NAMES
from ..datasets._samples import as_samples
from ..metrics._labels import positive_index, positive_label
from ..utils._typing import Paths
from ..utils._validation import plain


def predict_abnormal(estimator: Any, X: Paths, *, pos_label: Any = None) -> NDArray[np.float64]:
    """Return the probability that each sample is abnormal; of a model of regions, summed over the regions.

    Parameters
    ----------
    estimator : classifier
        Classifier fitted on ``target="region_abnormal"`` (14 classes on MURA), or on two classes.
    X : array-like of shape (n,) or (n, 1)
        Paths of images or of study folders.
    pos_label : label, default=None
        The abnormal one of two classes. None: the estimator's ``pos_label``; if it has none, as in
        `evaluate_predictions`.

    Returns
    -------
    abnormal : ndarray of shape (n,), dtype float64
        Probabilities, for example for `evaluate_predictions`.

    Raises
    ------
    ValueError
        If the names of the classes do not tell which are abnormal.

    References
    ----------
    The project cnn_mura (https://github.com/aandrovitsanea/cnn_mura) trains a model of 14 classes.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import MuraClassifier, load_mura, make_mura, predict_abnormal
    >>> root = make_mura(
    ...     tempfile.mkdtemp(), n_patients=24, regions=["hand", "wrist"], image_size=64, random_state=0
    ... )
    >>> mura = load_mura(root, target="region_abnormal")
    >>> clf = MuraClassifier(
    ...     weights=None, image_size=32, max_epochs=1, unfreeze="head", early_stopping=False, random_state=0
    ... )
    >>> predict_abnormal(clf.fit(mura.data, mura.target), mura.data[:3]).shape
    (3,)
    """
    normal, abnormal = LABEL_NAMES
    ends = np.array([str(label).rpartition("_")[2] for label in estimator.classes_])
    if np.isin(ends, LABEL_NAMES).all():
        columns = ends == abnormal
    elif len(estimator.classes_) == 2:
        pos_label = positive_label(estimator) if pos_label is None else pos_label
        columns = np.arange(2) == positive_index(estimator.classes_, pos_label, name="the estimator")
    else:
        raise ValueError(
            f"The classes {[plain(label) for label in estimator.classes_]} do not say what is abnormal: fit on "
            f"load_mura(root, target='region_abnormal').target, whose labels end in '_{normal}' or '_{abnormal}'."
        )
    return estimator.predict_proba(X)[:, columns].sum(axis=1)


def predict_region(estimator: Any, X: Paths) -> NDArray:
    """Return the most probable region of each sample.

    Parameters
    ----------
    estimator : classifier
        Classifier fitted on ``target="region"`` or ``target="region_abnormal"``. Of the latter, the
        probabilities of normal and abnormal are summed.
    X : array-like of shape (n,) or (n, 1)
        Paths of images or of study folders.

    Returns
    -------
    regions : ndarray of shape (n,), dtype object

    Raises
    ------
    ValueError
        If the classes are not regions.

    References
    ----------
    The project cnn_mura (https://github.com/aandrovitsanea/cnn_mura) trains a model of 14 classes.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import MuraClassifier, load_mura, make_mura, predict_region
    >>> root = make_mura(
    ...     tempfile.mkdtemp(), n_patients=24, regions=["elbow", "hand", "wrist"], image_size=64, random_state=0
    ... )
    >>> mura = load_mura(root, target="region")
    >>> clf = MuraClassifier(
    ...     weights=None, image_size=32, max_epochs=1, unfreeze="head", early_stopping=False, random_state=0
    ... )
    >>> predict_region(clf.fit(mura.data, mura.target), mura.data[:3]).shape
    (3,)
    """
    if not all(isinstance(label, str) for label in estimator.classes_):
        raise ValueError(
            f"The classes {[plain(label) for label in estimator.classes_]} are no regions: fit on "
            "load_mura(root, target='region').target, or target='region_abnormal'."
        )
    ends = tuple(f"_{name}" for name in LABEL_NAMES)
    region_of = pd.Series(
        [label.rpartition("_")[0] if label.endswith(ends) else label for label in estimator.classes_]
    )
    proba = pd.DataFrame(estimator.predict_proba(X)).T.groupby(region_of).sum().T
    return proba.columns.to_numpy(dtype=object)[proba.to_numpy().argmax(axis=1)]


def region_confusion(estimator: Any, X: Paths, *, regions: ArrayLike | None = None) -> pd.DataFrame:
    """Return the confusion matrix of the regions.

    Parameters
    ----------
    estimator : classifier
        Classifier fitted on ``target="region"`` or ``target="region_abnormal"``.
    X : array-like of shape (n,) or (n, 1)
        Paths of images or of study folders.
    regions : array-like of shape (n,), default=None
        True region of each sample. None: read from the paths.

    Returns
    -------
    counts : DataFrame
        Number of samples for each true region (rows) and predicted region (columns). Rows and columns
        contain every region that occurs.

    Raises
    ------
    ValueError
        If the classes are not regions, or the region of a sample is not known.

    References
    ----------
    The project cnn_mura (https://github.com/aandrovitsanea/cnn_mura) trains a model of 14 classes.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import MuraClassifier, load_mura, make_mura, region_confusion
    >>> root = make_mura(
    ...     tempfile.mkdtemp(), n_patients=24, regions=["elbow", "hand", "wrist"], image_size=64, random_state=0
    ... )
    >>> mura = load_mura(root, target="region")
    >>> clf = MuraClassifier(
    ...     weights=None, image_size=32, max_epochs=1, unfreeze="head", early_stopping=False, random_state=0
    ... )
    >>> region_confusion(clf.fit(mura.data, mura.target), mura.data).shape
    (3, 3)
    """
    samples = as_samples(X, regions=regions, list_folders=False)
    true = samples.required("region", "Pass the regions as regions=.")
    predicted = predict_region(estimator, X)
    names = sorted({*true, *predicted})
    counts = pd.crosstab(pd.Series(true, name="true"), pd.Series(predicted, name="predicted"))
    return counts.reindex(index=names, columns=names, fill_value=0)
