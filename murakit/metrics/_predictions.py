"""What is judged: studies or images with their label and probabilities, checked."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..utils._validation import check_labels, plain

# What classes are called that nobody means by "abnormal".
_NORMAL_NAMES = frozenset(
    (
        "normal",
        "negative",
        "healthy",
        "no finding",
        "no findings",
        "no abnormality",
        "control",
        "benign",
        "intact",
    )
)

# How far probabilities may be from a sum of one: those of float32 networks are.
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Units:
    """One row for each study (or image) that is judged.

    Attributes
    ----------
    name : ndarray of shape (n,)
        The study, or the image.
    study : ndarray of shape (n,)
    patient, region : ndarray of shape (n,); region may be None
    code : ndarray of shape (n,), dtype int
        True class, as a position in `classes`.
    proba : ndarray of shape (n, k)
    n_images : ndarray of shape (n,), dtype int
    classes : ndarray of shape (k,)
    threshold : float or None
        Probability of the second of two classes from which on it is predicted. None: the most
        probable class.
    level : {"study", "image"}
    """

    name: np.ndarray
    study: np.ndarray
    patient: np.ndarray
    region: np.ndarray | None
    code: np.ndarray
    proba: np.ndarray
    n_images: np.ndarray
    classes: np.ndarray
    threshold: float | None
    level: str

    def __len__(self):
        return len(self.code)

    @property
    def predicted(self):
        return predicted_codes(self.proba, self.threshold)

    def take(self, rows):
        """Return the units of some rows."""
        parts = {
            name: getattr(self, name)[rows]
            for name in ("name", "study", "patient", "code", "proba", "n_images")
        }
        region = None if self.region is None else self.region[rows]
        return Units(**parts, region=region, classes=self.classes, threshold=self.threshold, level=self.level)

    def regions(self):
        """Return the names of the regions, sorted."""
        return [] if self.region is None else sorted(set(self.region))


def predicted_codes(proba, threshold):
    """Return the position of the predicted class of each row."""
    if threshold is None:
        return proba.argmax(axis=1)
    if proba.shape[1] != 2:
        raise ValueError(
            f"A decision threshold ({threshold!r}) needs two classes, and there are {proba.shape[1]}: set it to None."
        )
    return (proba[:, 1] >= threshold).astype(int)


def as_units(y, proba, *, patients, studies, regions, images, counts, classes, threshold, level):
    """Check predictions and return the `Units` to judge; see `evaluate_predictions`.

    `images` names the rows, `counts` says how many images each stands for (None: one).
    """
    if level not in ("study", "image"):
        raise ValueError(f"level={level!r} is not known: pass 'study' or 'image'.")
    proba = as_proba(proba)
    n_rows = len(proba)
    if y is not None and len(y) != n_rows:
        raise ValueError(f"y has {len(y)} labels and proba {n_rows} rows: pass one of each a sample.")
    y = np.asarray(check_labels(y, n_rows))
    classes = _classes(y, proba, classes)
    code = _codes(y, classes)
    predicted_codes(proba, threshold)
    columns = {
        name: _column(values, n_rows, name)
        for name, values in (
            ("patients", patients),
            ("studies", studies),
            ("regions", regions),
            ("images", images),
        )
    }
    rows = np.arange(n_rows).astype(str).astype(object)
    image = rows if columns["images"] is None else columns["images"]
    study = image if columns["studies"] is None else columns["studies"]
    patient, region = columns["patients"], columns["regions"]
    counts = np.ones(n_rows, dtype=int) if counts is None else np.asarray(counts)
    common = {"classes": classes, "threshold": threshold, "level": level}
    if level == "image":
        return Units(image, study, patient, region, code, proba, counts, **common)
    names, first, at = np.unique(study, return_index=True, return_inverse=True)
    for what, values in (("patient", patient), ("region", region), ("label", y)):
        if values is not None:
            _one_each(study, values, first[at], what)
    n_rows_of = np.bincount(at)
    total = np.zeros((len(names), proba.shape[1]))
    np.add.at(total, at, proba)
    return Units(
        names,
        names,
        patient[first],
        None if region is None else region[first],
        code[first],
        total / n_rows_of[:, None],
        np.bincount(at, weights=counts).astype(int),
        **common,
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
    if len(classes) == 2:
        check_abnormal_is_second(classes)
    return classes


def check_abnormal_is_second(classes):
    """Raise where the second of two classes, which is judged as the abnormal one, is called normal."""
    called = str(classes[1]).lower().replace("_", " ").strip()
    if called in _NORMAL_NAMES or called.endswith(" normal"):
        raise ValueError(
            f"Of two classes, the second in sorted order counts as the abnormal one, and of {classes.tolist()} that is "
            f"{plain(classes[1])!r}. Name the labels 0 (normal) and 1 (abnormal): y = (y == {plain(classes[0])!r})"
            ".astype(int), for fitting as well."
        )


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


def _column(values, n_rows, name):
    if values is None:
        return None
    column = np.empty(n_rows, dtype=object)
    values = list(values)
    if len(values) != n_rows:
        raise ValueError(
            f"{name} has {len(values)} entries and proba {n_rows} rows: pass one of each a sample."
        )
    column[:] = [plain(value) for value in values]
    missing = np.flatnonzero(pd.isna(column))
    if len(missing):
        raise ValueError(f"{name}: row {missing[0]} is missing (NaN or None). Name it, or leave the row out.")
    # Sorting needs one type; 7 and "7" are taken to be the same patient.
    if len({type(value) for value in column}) > 1 or not isinstance(column[0], str):
        column[:] = [str(value) for value in column]
    return column


def _one_each(study, values, first, what):
    wrong = np.flatnonzero(values != values[first])
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"Study {study[row]!r} has two {what}s: {plain(values[first[row]])!r} (row {first[row]}) and "
            f"{plain(values[row])!r} (row {row}). Correct the {what}s, name the studies apart, or judge images "
            "(level='image')."
        )
