"""`evaluate`: metrics of a classifier per study and region, with confidence intervals."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..datasets._paths import as_paths
from ..datasets._patients import known_among
from ..datasets._samples import SampleTable, as_rows, as_samples
from ..metrics._labels import positive_label, within
from ..metrics._predictions import as_predictions, as_proba, per_study
from ..metrics._scorer import threshold_of
from ..utils._typing import Paths
from ._result import Evaluation


def evaluate_predictions(
    y: ArrayLike,
    proba: ArrayLike,
    *,
    patients: ArrayLike,
    studies: ArrayLike | None = None,
    regions: ArrayLike | None = None,
    images: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    pos_label: Any = None,
    level: str = "study",
    threshold: float | None = None,
    n_resamples: int = 2000,
    confidence_level: float = 0.95,
    random_state: int = 0,
) -> Evaluation:
    """Evaluate predicted probabilities, of any model.

    Parameters
    ----------
    y : array-like of shape (n,)
        True labels.
    proba : array-like of shape (n,) or (n, n_classes)
        Probabilities of the abnormal class alone, or of all classes.
    patients : array-like of shape (n,)
        Patient of each row. The bootstrap resamples patients, not rows, because the studies of one patient
        are correlated.
    studies : array-like of shape (n,), default=None
        Study of each row. The probability of a study is the mean over its rows [1]_. None: each row is a
        study.
    regions : array-like of shape (n,), default=None
        Region of each row, such as ``"wrist"``. None: no metrics by region.
    images : array-like of shape (n,), default=None
        Name of each row, such as its path.
    classes : array-like of shape (n_classes,), default=None
        Class of each column of `proba`. None: the sorted labels of `y`.
    pos_label : label, default=None
        The abnormal one of two classes. None: 1 of 0/1, True, "abnormal" or "positive"; for any other pair
        of labels it is required.
    level : {"study", "image"}, default="study"
        What the metrics count. Papers report studies: the images of one study are not independent.
    threshold : float, default=None
        Smallest probability at which a sample is predicted as abnormal. Choose it on *other* patients, see
        `threshold_at`. None: above 0.5; of more than two classes, the most probable is predicted.
    n_resamples : int, default=2000
        Number of bootstrap resamples of patients for the intervals. 0: no intervals.
    confidence_level : float, default=0.95
        Nominal coverage of the intervals.
    random_state : int, default=0
        Seed of the resamples.

    Returns
    -------
    evaluation : Evaluation

    Raises
    ------
    ValueError
        If the inputs have different lengths, values are missing, probabilities are not in [0, 1] or do not
        sum to 1, or a study has two patients, regions or labels. The message names the row.

    Notes
    -----
    Intervals are bootstrap percentile intervals [2]_ with Hesterberg's expansion for small samples [3]_.
    Patients are resampled in two strata, those with an abnormal study and those without. A metric that is
    undefined in more than a tenth of the resamples has no interval; in a small region, for example, many
    resamples may lack a class. The calibration error (ten bins of equal width) is biased upwards in the
    resamples, so the bootstrap estimate of this bias is subtracted from its bounds. If all predictions
    are right, all resamples agree and the interval has no width: this shows that there are few cases, not
    that the metric is known exactly.

    References
    ----------
    .. [1] Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in Musculoskeletal
       Radiographs", arXiv 1712.06957 (2017).
    .. [2] Efron and Tibshirani, "An Introduction to the Bootstrap", Chapman & Hall (1993).
    .. [3] Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69
       (2015).

    Examples
    --------
    >>> from murakit import evaluate_predictions
    >>> evaluation = evaluate_predictions(
    ...     [0, 0, 1, 1, 1], [0.2, 0.4, 0.3, 0.8, 0.9], patients=list("abccd"), n_resamples=200
    ... )
    >>> evaluation.get("sensitivity").value.__round__(3), evaluation.get("specificity").value
    (0.667, 1.0)
    """
    _check_options(level, n_resamples, confidence_level)
    if patients is None:
        raise ValueError(
            "patients=None: without the patients there are no honest intervals, because the studies of one patient "
            "are correlated. Pass the patient of each row."
        )
    samples = as_rows(len(as_proba(proba)), names=images, patients=patients, studies=studies, regions=regions)
    predictions = as_predictions(y, proba, samples, classes=classes, threshold=threshold, pos_label=pos_label)
    return _evaluation(predictions, level, n_resamples, confidence_level, random_state, name="")


def _evaluation(images, level, n_resamples, confidence_level, random_state, name):
    return Evaluation(
        per_study(images) if level == "study" else images,
        images,
        n_resamples=int(n_resamples),
        confidence_level=confidence_level,
        random_state=random_state,
        name=name,
    )


def _check_options(level, n_resamples, confidence_level):
    if level not in ("study", "image"):
        raise ValueError(f"level={level!r} is not known: pass 'study' or 'image'.")
    if not isinstance(n_resamples, Integral) or n_resamples < 0:
        raise ValueError(
            f"n_resamples={n_resamples!r}: pass a whole number, such as 2000, or 0 for no intervals."
        )
    if not isinstance(confidence_level, Real) or not 0 < float(confidence_level) < 1:
        raise ValueError(
            f"confidence_level={confidence_level!r}: pass a number between 0 and 1, such as 0.95."
        )


def evaluate(
    estimator: Any,
    X: Paths,
    y: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    studies: ArrayLike | None = None,
    regions: ArrayLike | None = None,
    pos_label: Any = None,
    level: str = "study",
    threshold: float | None = None,
    allow_known_patients: bool = False,
    n_resamples: int = 2000,
    confidence_level: float = 0.95,
    random_state: int = 0,
) -> Evaluation:
    """Evaluate a fitted classifier on patients that it was not trained on.

    Parameters
    ----------
    estimator : classifier
        Any fitted scikit-learn classifier with ``predict_proba``.
    X : array-like of shape (n,) or (n, 1)
        Paths of images or of study folders. If `patients` and `studies` are given, anything that the
        estimator takes.
    y : array-like of shape (n,)
        True labels.
    patients, studies, regions : array-like of shape (n,), default=None
        Patient, study and region of each sample. None: read from paths in MURA's layout.
    pos_label : label, default=None
        The abnormal one of two classes. None: the estimator's ``pos_label``; if it has none, as in
        `evaluate_predictions`.
    level : {"study", "image"}, default="study"
        What the metrics count. Papers report studies: the images of one study are not independent.
    threshold : float, default=None
        Smallest probability at which a sample is predicted as abnormal. None: the estimator's threshold
        (``decision_threshold``, or that of scikit-learn's threshold classifiers); if it has none, above 0.5.
    allow_known_patients : bool, default=False
        Whether to evaluate on patients that the estimator was trained on, instead of raising an error.
    n_resamples : int, default=2000
        Number of bootstrap resamples of patients for the intervals. 0: no intervals.
    confidence_level : float, default=0.95
        Nominal coverage of the intervals.
    random_state : int, default=0
        Seed of the resamples.

    Returns
    -------
    evaluation : Evaluation

    Raises
    ------
    ValueError
        In the cases of `evaluate_predictions`; if the patient of a sample is not known; and if the estimator
        was trained or validated on any of the patients (``train_patients_``, ``validation_patients_``).
    TypeError
        If the estimator has no ``predict_proba``.

    See Also
    --------
    evaluate_predictions : Evaluate probabilities in an array; explains how the intervals are computed.
    compare : Compare two or more evaluations of the same studies.

    References
    ----------
    Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in Musculoskeletal
    Radiographs", arXiv 1712.06957 (2017).

    Examples
    --------
    >>> import tempfile
    >>> from murakit import MuraClassifier, evaluate, load_mura, make_mura
    >>> root = make_mura(tempfile.mkdtemp() + "/mura", n_patients=12, image_size=64, random_state=0)
    >>> train, valid = load_mura(root, subset="train"), load_mura(root, subset="valid")
    >>> clf = MuraClassifier(weights=None, image_size=32, max_epochs=1, unfreeze="head", random_state=0)
    >>> clf.fit(train.data, train.target)  # doctest: +ELLIPSIS
    MuraClassifier(...)
    >>> evaluation = evaluate(clf, valid.data, valid.target, n_resamples=100)
    >>> int(evaluation.to_frame().n_studies["all"]) == len(set(valid.studies))
    True
    """
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"{type(estimator).__name__} has no predict_proba, which AUROC, calibration and the mean over the images "
            "of a study need. Wrap it in CalibratedClassifierCV."
        )
    _check_options(level, n_resamples, confidence_level)
    columns = {"patients": patients, "studies": studies, "regions": regions}
    samples = _samples_of(X, columns, level)
    rows = samples.by_sample()
    patients_of_rows = rows.required("patient", "Pass the patients as patients=.")
    if level == "study":
        rows.required("study", "Pass the studies as studies=, or evaluate images with level='image'.")
    if not allow_known_patients:
        _check_unknown(estimator, patients_of_rows)
    pos_label = positive_label(estimator) if pos_label is None else pos_label
    predictions = as_predictions(
        y,
        # murakit's own classifiers take the table, so folders are listed only once.
        estimator.predict_proba(samples if getattr(estimator, "takes_sample_tables", False) else X),
        rows,
        n_images=samples.n_images(),
        classes=estimator.classes_,
        threshold=threshold_of(estimator, pos_label) if threshold is None else threshold,
        pos_label=pos_label,
    )
    name = type(estimator).__name__
    return _evaluation(predictions, level, n_resamples, confidence_level, random_state, name)


def _samples_of(X: Any, columns: dict[str, Any], level: str) -> SampleTable:
    """Return the samples of an X; if it does not contain paths, with the given patients, studies and regions."""
    try:
        paths = as_paths(X)
    except (TypeError, ValueError):
        needed = ("patients", "studies") if level == "study" else ("patients",)
        missing = next((name for name in needed if columns[name] is None), None)
        if missing is not None:
            raise ValueError(
                f"X holds no paths, so the {missing} cannot be read from them: pass {missing}=."
            ) from None
        return as_rows(X.shape[0] if hasattr(X, "shape") else len(X), **columns)
    return as_samples(paths, **columns, missing_ok=True)


def _check_unknown(estimator, patients):
    """Raise if the estimator, or one inside it, was trained or validated on any of the patients."""
    patients = np.unique([str(patient) for patient in patients])
    for attribute, did in (
        ("train_patients_", "were trained on"),
        ("validation_patients_", "chose the epoch that is kept"),
    ):
        known = [patient for found in within(estimator) for patient in _listed(found, attribute)]
        shared = patients[known_among(patients, known)]
        if len(shared):
            raise ValueError(
                f"{len(shared)} of the {len(patients)} patients to judge on {did} ({', '.join(shared[:3])}): the "
                "metrics would be too good. Evaluate on other patients, or pass allow_known_patients=True and say so."
            )


def _listed(estimator, attribute):
    found = getattr(estimator, attribute, None)
    return [] if found is None else found
