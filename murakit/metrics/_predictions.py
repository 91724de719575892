"""Predictions beside the truth: samples with their label and probabilities, checked."""

from dataclasses import dataclass, replace

import numpy as np

from ..datasets._samples import SampleTable
from ..utils._validation import check_labels, plain
from ._labels import abnormal_last, positive_index

# How far probabilities may be from a sum of one: those of float32 networks are.
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Predictions:
    """Samples with their true class and predicted probabilities: what metrics are computed from.

    Attributes
    ----------
    samples : SampleTable
        One row for each study, or for each image, that is judged.
    code : ndarray of shape (n,), dtype int
        True class, as a position in `classes`.
    proba : ndarray of shape (n, k)
    n_images : ndarray of shape (n,), dtype int
        Images that each row is the mean of.
    classes : ndarray of shape (k,)
        Of two, the second is the abnormal one.
    threshold : float or None
        Probability of the second of two classes from which on it is predicted. None: the most
        probable class.
    level : {"study", "image"}
    """

    samples: SampleTable
    code: np.ndarray
    proba: np.ndarray
    n_images: np.ndarray
    classes: np.ndarray
    threshold: float | None
    level: str

    def __len__(self):
        return len(self.code)

    @property
    def name(self):
        """The study, or the image."""
        return self.samples.path

    @property
    def study(self):
        return self.samples.study

    @property
    def patient(self):
        return self.samples.patient

    @property
    def region(self):
        """The regions; None where some row has none."""
        return self.samples.known("region")

    @property
    def predicted(self):
        return predicted_codes(self.proba, self.threshold)

    def take(self, rows):
        """Return the predictions of some rows."""
        parts = {name: getattr(self, name)[rows] for name in ("code", "proba", "n_images")}
        return replace(self, samples=self.samples.of_samples(rows), **parts)

    def regions(self):
        """Return the names of the regions, sorted."""
        return [] if self.region is None else sorted(set(self.region))


def predicted_codes(proba, threshold, positive=1):
    """Return the position of the predicted class of each row; a threshold is one on the class `positive` of two."""
    if threshold is None:
        return proba.argmax(axis=1)
    if proba.shape[1] != 2:
        raise ValueError(
            f"A decision threshold ({threshold!r}) needs two classes, and there are {proba.shape[1]}: set it to None."
        )
    return np.where(proba[:, positive] >= threshold, positive, 1 - positive)


def mean_of_groups(values, group, n_groups):
    """Return the mean (n_groups, k) over the rows of each group.

    Parameters
    ----------
    values : ndarray of shape (n, k)
    group : ndarray of shape (n,), dtype int
        Number of the group that each row belongs to; each group has a row.
    n_groups : int
    """
    total = np.zeros((n_groups, values.shape[1]))
    np.add.at(total, group, values)
    return total / np.bincount(group, minlength=n_groups)[:, None]


def as_predictions(y, proba, samples, *, n_images=None, classes, threshold, pos_label=None):
    """Check labels and probabilities against each other, and return the `Predictions` of images.

    Parameters
    ----------
    y : array-like of shape (n,)
    proba : array-like of shape (n,) or (n, n_classes)
    samples : SampleTable of n samples
        Rows without a study are studies of their own.
    n_images : ndarray of shape (n,) or None
        Images that each row stands for. None: one.
    classes : array-like of shape (n_classes,) or None
    threshold : float or None
    pos_label : label or None
        The abnormal one of two classes, where their names do not say it.
    """
    of_abnormal = np.ndim(proba) == 1 or np.shape(proba)[1:] == (1,)
    proba = as_proba(proba)
    n_rows = len(proba)
    if y is not None and len(y) != n_rows:
        raise ValueError(f"y has {len(y)} labels and proba {n_rows} rows: pass one of each a sample.")
    y = np.asarray(check_labels(y, n_rows))
    classes = _classes(y, proba, classes)
    if len(classes) == 2:
        # From here on, the second of two classes is the abnormal one.
        positive = positive_index(classes, pos_label)
        ordered, swapped = abnormal_last(classes, proba, positive)
        classes, proba = ordered, proba if of_abnormal else swapped
    code = _codes(y, classes)
    predicted_codes(proba, threshold)
    study = samples.path if samples.known("study") is None else samples.study
    counts = np.ones(n_rows, dtype=int) if n_images is None else np.asarray(n_images)
    return Predictions(replace(samples, study=study), code, proba, counts, classes, threshold, "image")


def per_study(images):
    """Return the `Predictions` of studies: the mean probability over the rows of each.

    Raises
    ------
    ValueError
        For a study of two patients, regions or labels.
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


def as_proba(proba):
    """Return probabilities as float64 of shape (n, k), those of the second class alone with the first's."""
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
            f"{plain(values[row])!r} (row {row}). Correct the {what}s, name the studies apart, or judge images "
            "(level='image')."
        )
