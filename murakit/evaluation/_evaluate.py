"""`evaluate`: how good a classifier of radiographs is, per study and region, with intervals."""

from numbers import Integral, Real

import numpy as np

from ..datasets._paths import as_paths
from ..datasets._patients import known_among
from ..datasets._samples import as_rows, as_samples
from ..metrics._labels import positive_label, within
from ..metrics._predictions import as_predictions, as_proba, per_study
from ..metrics._scorer import threshold_of
from ._result import Evaluation


def evaluate_predictions(
    y,
    proba,
    *,
    patients,
    studies=None,
    regions=None,
    images=None,
    classes=None,
    pos_label=None,
    level="study",
    threshold=None,
    n_resamples=2000,
    confidence_level=0.95,
    random_state=0,
):
    """Judge predictions, from whatever they come.

    Parameters
    ----------
    y : array-like of shape (n,)
        True labels.
    proba : array-like of shape (n,) or (n, n_classes)
        Probabilities, of the abnormal class alone or of all.
    patients : array-like of shape (n,)
        Patient of each row: what the intervals resample, because the studies of a patient resemble
        each other.
    studies : array-like of shape (n,), default=None
        Study of each row; the probability of a study is the mean over its rows [1]_. None: each row
        is a study.
    regions : array-like of shape (n,), default=None
        Region of each row, such as ``"wrist"``. None: no table by region.
    images : array-like of shape (n,), default=None
        Name of each row, such as its path.
    classes : array-like of shape (n_classes,), default=None
        The classes that the columns of `proba` stand for. None: the sorted labels of `y`.
    pos_label : label, default=None
        The abnormal one of two classes. None: 1 of 0/1, True, "abnormal" or "positive"; other pairs are
        asked for.
    level : {"study", "image"}, default="study"
        What is counted. Images of one study are no independent cases; papers report studies.
    threshold : float, default=None
        Probability from which on a sample is called abnormal, chosen on *other* patients: see
        `threshold_at`. None: above 0.5, or the most probable class.
    n_resamples : int, default=2000
        Resamples of patients for the intervals; 0: none.
    confidence_level : float, default=0.95
        Share of the resamples between the bounds.
    random_state : int, default=0
        Seed of the resamples.

    Returns
    -------
    evaluation : Evaluation

    Raises
    ------
    ValueError
        For inputs of different lengths, missing values, numbers that are no probabilities, and
        studies of two patients, regions or labels; the row is named.

    Notes
    -----
    Intervals are percentiles over resamples of patients, with as many patients who have an abnormal
    study as there are [2]_, expanded for few patients [3]_. Where a metric is undefined in more
    than a tenth of the resamples (one class in a small region), it has no interval. The calibration
    error (ten equal bins) is too high in every resample; its interval is moved back by that. Where
    no error was made, the resamples do not differ and the interval has no width: few cases, not
    certainty.

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
            "patients=None: without the patients there are no honest intervals, for a patient's studies resemble each "
            "other. Pass the patient of each row."
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
    if not isinstance(confidence_level, Real) or not 0 < confidence_level < 1:
        raise ValueError(
            f"confidence_level={confidence_level!r}: pass a share between 0 and 1, such as 0.95."
        )


def evaluate(
    estimator,
    X,
    y,
    *,
    patients=None,
    studies=None,
    regions=None,
    pos_label=None,
    level="study",
    threshold=None,
    allow_known_patients=False,
    n_resamples=2000,
    confidence_level=0.95,
    random_state=0,
):
    """Judge a fitted classifier on patients that it does not know.

    Parameters
    ----------
    estimator : classifier
        Any fitted classifier of scikit-learn's kind with ``predict_proba``.
    X : array-like of shape (n,) or (n, 1)
        Paths of images or of study folders. With `patients`, `studies` and `regions` given,
        anything that the estimator takes.
    y : array-like of shape (n,)
        True labels.
    patients, studies, regions : array-like of shape (n,), default=None
        Of each sample. None: read from the paths, where they are in MURA's layout.
    pos_label : label, default=None
        The abnormal one of two classes. None: the estimator's own ``pos_label``, or as in
        `evaluate_predictions`.
    level : {"study", "image"}, default="study"
        What is counted.
    threshold : float, default=None
        Probability from which on a sample is called abnormal. None: the estimator's own
        (``decision_threshold``, or that of scikit-learn's threshold classifiers), else above 0.5.
    allow_known_patients : bool, default=False
        Judge on patients that the estimator was trained on, instead of raising.
    n_resamples : int, default=2000
        Resamples of patients for the intervals; 0: none.
    confidence_level : float, default=0.95
        Share of the resamples between the bounds.
    random_state : int, default=0
        Seed of the resamples.

    Returns
    -------
    evaluation : Evaluation

    Raises
    ------
    ValueError
        As `evaluate_predictions` does; for paths that do not say their patient; and for patients
        that the estimator was trained on or that chose its epoch (``train_patients_``,
        ``validation_patients_``).
    TypeError
        For an estimator without ``predict_proba``.

    See Also
    --------
    evaluate_predictions : From arrays, with what the numbers mean.
    compare : Two or more evaluations of the same studies.

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
            f"{type(estimator).__name__} has no predict_proba, which the ranking, the calibration and the mean over a "
            "study's images need. Wrap it in CalibratedClassifierCV."
        )
    _check_options(level, n_resamples, confidence_level)
    columns = {"patients": patients, "studies": studies, "regions": regions}
    samples = _samples_of(X, columns, level)
    rows = samples.by_sample()
    patients = rows.required("patient", "Pass the patients as patients=.")
    if level == "study":
        rows.required("study", "Pass the studies as studies=, or judge images: level='image'.")
    if not allow_known_patients:
        _refuse_known(estimator, patients)
    pos_label = positive_label(estimator) if pos_label is None else pos_label
    predictions = as_predictions(
        y,
        # murakit's own classifiers take the table, so that files are looked at once.
        estimator.predict_proba(samples if getattr(estimator, "takes_sample_tables", False) else X),
        rows,
        n_images=samples.n_images(),
        classes=estimator.classes_,
        threshold=threshold_of(estimator, pos_label) if threshold is None else threshold,
        pos_label=pos_label,
    )
    name = type(estimator).__name__
    return _evaluation(predictions, level, n_resamples, confidence_level, random_state, name)


def _samples_of(X, columns, level):
    """Return the table of an X that holds paths, or of one that holds something else beside its columns."""
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


def _refuse_known(estimator, patients):
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
                "numbers would be too good. Judge on other patients, or pass allow_known_patients=True and say so."
            )


def _listed(estimator, attribute):
    found = getattr(estimator, attribute, None)
    return [] if found is None else found
