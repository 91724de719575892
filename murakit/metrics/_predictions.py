"""Predictions with the true labels: samples, labels and probabilities, checked against each other."""

from collections.abc import Sized
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..datasets._samples import SampleTable
from ..utils._validation import check_labels, plain
from ._labels import abnormal_last, positive_index

# Largest deviation of a sum of probabilities from one: float32 networks round.
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Predictions:
    """True classes and predicted probabilities of samples: the input of all metrics.

    Attributes
    ----------
    samples : SampleTable
        One row per study or per image.
    code : ndarray of shape (n,), dtype int
        True class, as an index into `classes`.
    proba : ndarray of shape (n, k), dtype float64
        Predicted probabilities, one column per class.
    n_images : ndarray of shape (n,), dtype int
        Number of images that a row's probabilities are the mean over.
    classes : ndarray of shape (k,)
        The classes; of two, the second is the abnormal one.
    threshold : float or None
        Smallest probability of the second of two classes at which it is predicted. None: the most probable
        class is predicted.
    level : {"study", "image"}
        What a row is.
    """

    samples: SampleTable
    code: NDArray[np.integer]
    proba: NDArray[np.float64]
    n_images: NDArray[np.integer]
    classes: NDArray
    threshold: float | None
    level: str

    def __len__(self) -> int:
        return len(self.code)

    @property
    def name(self) -> NDArray:
        """Name of each row's study or image."""
        return self.samples.path

    @property
    def study(self) -> NDArray:
        """Study of each row."""
        return self.samples.study

    @property
    def patient(self) -> NDArray:
        """Patient of each row."""
        return self.samples.patient

    @property
    def region(self) -> NDArray | None:
        """Region of each row; None if that of any row is not known."""
        return self.samples.known("region")

    @property
    def predicted(self) -> NDArray[np.integer]:
        """Predicted class of each row, as an index into `classes`."""
        return predicted_codes(self.proba, self.threshold)

    def take(self, rows: NDArray) -> Self:
        """Return the predictions of some rows, selected by index or by mask."""
        parts = {name: getattr(self, name)[rows] for name in ("code", "proba", "n_images")}
        return replace(self, samples=self.samples.of_samples(rows), **parts)

    def regions(self) -> list[str]:
        """Return the names of the regions, sorted; none if that of any row is not known."""
        return [] if self.region is None else sorted(set(self.region))


def predicted_codes(
    proba: NDArray[np.floating], threshold: float | None, positive: int = 1
) -> NDArray[np.integer]:
    """Return the index of the predicted class of each row.

    Parameters
    ----------
    proba : ndarray of shape (n, k)
    threshold : float or None
        Smallest probability of class `positive` at which it is predicted, for two classes. None: the most
        probable class is predicted.
    positive : int
        Index of the class that the threshold applies to.
    """
    if threshold is None:
        return proba.argmax(axis=1)
    if proba.shape[1] != 2:
        raise ValueError(
            f"A decision threshold ({threshold!r}) needs two classes, and there are {proba.shape[1]}: set it to None."
        )
    return np.where(proba[:, positive] >= threshold, positive, 1 - positive)


def mean_of_groups(
    values: NDArray[np.floating], group: NDArray[np.integer], n_groups: int
) -> NDArray[np.float64]:
    """Return the mean (n_groups, k) over the rows of each group.

    Parameters
    ----------
    values : ndarray of shape (n, k)
    group : ndarray of shape (n,), dtype int
        Group of each row, numbered from 0; no group is empty.
    n_groups : int
    """
    total = np.zeros((n_groups, values.shape[1]))
    np.add.at(total, group, values)
    return total / np.bincount(group, minlength=n_groups)[:, None]


def as_predictions(
    y: ArrayLike,
    proba: ArrayLike,
    samples: SampleTable,
    *,
    n_images: NDArray[np.integer] | None = None,
    classes: ArrayLike | None,
    threshold: float | None,
    pos_label: Any = None,
) -> Predictions:
    """Check labels and probabilities against each other, and return them as `Predictions` of images.

    Parameters
    ----------
    y : array-like of shape (n,)
    proba : array-like of shape (n,) or (n, n_classes)
    samples : SampleTable of n samples
        If the study of any row is not known, each row counts as a study.
    n_images : ndarray of shape (n,) or None
        Number of images that each row stands for. None: one.
    classes : array-like of shape (n_classes,) or None
        Class of each column of `proba`. None: the sorted labels of `y`.
    threshold : float or None
    pos_label : label or None
        The abnormal one of two classes. None: known by its name, see `positive_index`.
    """
    of_abnormal = np.ndim(proba) == 1 or np.shape(proba)[1:] == (1,)
    proba = as_proba(proba)
    n_rows = len(proba)
    # ArrayLike includes plain numbers, but labels come as a sequence.
    n_labels = n_rows if y is None else len(cast(Sized, y))
    if n_labels != n_rows:
        raise ValueError(f"y has {n_labels} labels and proba {n_rows} rows: pass one of each a sample.")
    labels = np.asarray(check_labels(y, n_rows))
    ordered = _classes(labels, proba, classes)
    if len(ordered) == 2:
        # From here on, the second of two classes is the abnormal one.
        positive = positive_index(ordered, pos_label)
        ordered, swapped = abnormal_last(ordered, proba, positive)
        # Probabilities of the abnormal class alone have been put into the second column by as_proba.
        proba = proba if of_abnormal else swapped
    code = _codes(labels, ordered)
    predicted_codes(proba, threshold)
    study = samples.path if samples.known("study") is None else samples.study
    counts = np.ones(n_rows, dtype=int) if n_images is None else np.asarray(n_images)
    return Predictions(replace(samples, study=study), code, proba, counts, ordered, threshold, "image")


def per_study(images: Predictions) -> Predictions:
    """Return the predictions per study: the mean of the probabilities over the rows of each study.

    Raises
    ------
    ValueError
        If a study has rows of two patients, regions or labels.
    """
    study = images.study
    names, first, at = np.unique(study, return_index=True, return_inverse=True)
    labels = images.classes[images.code]
    for what, values in (("patient", images.patient), ("region", images.region), ("label", labels)):
        if values is not None:
            _check_one_each(study, values, first[at], what)
    return replace(
        images,
        samples=replace(
            images.samples.take(first), path=names, study=names, row=np.arange(len(names)), sample=names
        ),
        code=images.code[first],
        proba=mean_of_groups(images.proba, at, len(names)),
        n_images=np.bincount(at, weights=images.n_images).astype(int),
        level="study",
    )


def as_proba(proba: ArrayLike) -> NDArray[np.float64]:
    """Return probabilities as an array (n, k) of float64; a column for the first of two classes is added.

    Raises
    ------
    ValueError
        If a value is not in [0, 1], or a row does not sum to 1.
    """
    proba = np.asarray(proba, dtype=np.float64)
    if proba.ndim == 2 and proba.shape[1] == 1:
        proba = proba[:, 0]
    if proba.ndim not in (1, 2) or not proba.size:
        raise ValueError(
            f"proba has shape {proba.shape}: pass the probabilities of all classes, (n, n_classes), or those of the "
            "abnormal class alone, (n,)."
        )
    bad = ~((proba >= 0) & (proba <= 1))
    if bad.any():
        row = int(np.flatnonzero(bad if bad.ndim == 1 else bad.any(axis=1))[0])
        raise ValueError(
            f"proba: row {row} is {proba[row].tolist()}, no probability between 0 and 1. Pass what predict_proba "
            "returns; scores of a decision_function have to be calibrated first (CalibratedClassifierCV)."
        )
    if proba.ndim == 1:
        return np.stack([1 - proba, proba], axis=1)
    off = np.abs(proba.sum(axis=1) - 1) > _SUM_TOLERANCE
    if off.any():
        row = int(np.flatnonzero(off)[0])
        raise ValueError(
            f"proba: row {row} sums to {proba[row].sum():.4g}, not to 1. Pass one column for each class; each sample "
            "has one of them."
        )
    return proba


def _classes(y, proba, classes):
    if classes is None:
        classes = np.unique(y)
        if proba.shape[1] == 2 and len(classes) < 2 and np.isin(classes, [0, 1]).all():
            classes = np.array([0, 1])
    classes = np.asarray(classes)
    if len(classes) != proba.shape[1]:
        raise ValueError(
            f"proba has {proba.shape[1]} columns, and there are {len(classes)} classes ({_listed(classes)}): pass the "
            "classes in the order of the columns, as classes=estimator.classes_."
        )
    return classes


def _codes(y, classes):
    position = {plain(label): code for code, label in enumerate(classes)}
    codes = np.array([position.get(plain(label), -1) for label in y])
    unknown = np.flatnonzero(codes < 0)
    if len(unknown):
        raise ValueError(
            f"y: row {unknown[0]} is {plain(y[unknown[0]])!r}, which is none of the classes ({_listed(classes)}). "
            "Leave such samples out, or pass the classes that the columns of proba stand for."
        )
    return codes


def _listed(classes):
    return ", ".join(repr(plain(label)) for label in classes[:14])


def _check_one_each(study, values, first, what):
    wrong = np.flatnonzero(values != values[first])
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"Study {study[row]!r} has two {what}s: {plain(values[first[row]])!r} (row {first[row]}) and "
            f"{plain(values[row])!r} (row {row}). Correct the {what}s, give the studies different names, or "
            "evaluate images (level='image')."
        )
