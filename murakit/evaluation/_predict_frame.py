"""Predictions as tables, one row per image or study, and in the format of the MURA competition."""

import os
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ..datasets._paths import PATH_FORM, split_path
from ..datasets._samples import as_samples
from ..io._csv import write_csv
from ..io._filesystem import components, dirname
from ..metrics._labels import positive_index, positive_label
from ..metrics._predictions import mean_of_groups, predicted_codes
from ..metrics._scorer import threshold_of
from ..utils._typing import PathLike, Paths
from ..utils._validation import plain


def predict_frame(
    estimator: Any,
    X: Paths,
    *,
    level: str = "image",
    threshold: float | None = None,
    patients: ArrayLike | None = None,
    studies: ArrayLike | None = None,
    regions: ArrayLike | None = None,
    pos_label: Any = None,
) -> pd.DataFrame:
    """Predict radiographs and return the predictions as a table.

    Parameters
    ----------
    estimator : classifier
        Fitted classifier with ``predict_proba``.
    X : array-like of shape (n,) or (n, 1)
        Paths of images or of study folders.
    level : {"image", "study"}, default="image"
        What a row is: an image, or a study with the mean probability of its images.
    threshold : float, default=None
        Smallest probability at which a sample is predicted as abnormal. None: the estimator's threshold; if
        it has none, above 0.5.
    patients, studies, regions : array-like of shape (n,), default=None
        Patient, study and region of each sample. None: read from paths in MURA's layout; each folder in X is
        a study.
    pos_label : label, default=None
        The abnormal one of two classes. None: the estimator's ``pos_label``; if it has none, as in
        `evaluate_predictions`.

    Returns
    -------
    table : DataFrame
        One row per image or study. Columns:

        - path: of the image; of a study, its folder or its name in `studies`.
        - patient, region: empty where they are not known.
        - probability: that of the class in the next column.
        - probability_of: of two classes, the abnormal one; of more, the predicted one.
        - prediction: the predicted class.

    Raises
    ------
    ValueError
        If `level` is not known, or studies are neither given nor part of the paths.
    FileNotFoundError
        If a path does not exist.

    See Also
    --------
    write_mura_csv : Write the two columns of the MURA competition.

    References
    ----------
    Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in Musculoskeletal
    Radiographs", arXiv 1712.06957 (2017): a study's probability is the mean over its images.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import MuraClassifier, load_mura, make_mura, predict_frame
    >>> root = make_mura(tempfile.mkdtemp() + "/mura", n_patients=12, image_size=64, random_state=0)
    >>> mura = load_mura(root)
    >>> clf = MuraClassifier(weights=None, image_size=32, max_epochs=1, unfreeze="head", random_state=0)
    >>> predict_frame(clf.fit(mura.data, mura.target), mura.data, level="study").columns.tolist()
    ['path', 'patient', 'region', 'probability', 'probability_of', 'prediction']
    """
    if level not in ("study", "image"):
        raise ValueError(f"level={level!r} is not known: pass 'study' or 'image'.")
    # As images: the mean of a study is taken over its images, whether X contains the study or the images.
    samples = as_samples(X, patients=patients, studies=studies, regions=regions)
    names = samples.path
    if level == "study":
        names = _study_folders(samples) if studies is None else samples.study
    images = samples if getattr(estimator, "takes_sample_tables", False) else samples.path
    proba = np.asarray(estimator.predict_proba(images.by_image() if images is samples else images))
    first = np.arange(len(samples))
    if level == "study":
        _, first, study = np.unique(names.astype(str), return_index=True, return_inverse=True)
        order = np.argsort(first)
        proba, first = mean_of_groups(proba, study, len(first))[order], first[order]
    classes = np.asarray(estimator.classes_)
    positive = 1
    if len(classes) == 2:
        pos_label = positive_label(estimator) if pos_label is None else pos_label
        positive = positive_index(classes, pos_label, name="the estimator")
        pos_label = plain(classes[positive])
    code = predicted_codes(
        proba, threshold_of(estimator, pos_label) if threshold is None else threshold, positive
    )
    shown = np.full(len(proba), positive) if len(classes) == 2 else code
    patient, region = (
        ["" if value is None else value for value in values[first]]
        for values in (samples.patient, samples.region)
    )
    return pd.DataFrame(
        {
            "path": names[first],
            "patient": patient,
            "region": region,
            "probability": proba[np.arange(len(proba)), shown],
            "probability_of": classes[shown],
            "prediction": classes[code],
        }
    )


def _study_folders(samples):
    """Return the study folder of each image: the folder in X, or the image's folder in MURA's layout."""
    folders = np.empty(len(samples), dtype=object)
    for at, (image, row) in enumerate(zip(samples.path, samples.row)):
        if samples.sample[row] == image and samples.study[at] is None:
            raise ValueError(
                f"The study of row {row} is not known: its path {image!r} is not of the form {PATH_FORM}. Pass the "
                "studies as studies=."
            )
        folders[at] = dirname(image)
    return folders


def write_mura_csv(table: pd.DataFrame, path: PathLike, *, root: PathLike | None = None) -> None:
    """Write predictions of studies in the format of the MURA competition: path of the study, and 0 or 1.

    Parameters
    ----------
    table : DataFrame
        Table of studies, from `predict_frame` with ``level="study"``.
    path : str or path-like
        CSV file to write, without a header, as ``valid_labeled_studies.csv``.
    root : str or path-like, default=None
        Folder of the data set. In the file it is replaced by the name MURA-v1.1. None: the folder that
        contains the subset's folder.

    Raises
    ------
    ValueError
        If rows are images instead of studies, predictions are not 0 or 1, or paths are not in MURA's layout
        or not below `root`.

    References
    ----------
    Layout of the data set's own CSV files, and of the submissions of the MURA competition.

    Examples
    --------
    >>> import pandas as pd, tempfile
    >>> from murakit import write_mura_csv
    >>> path = tempfile.mkdtemp() + "/predictions.csv"
    >>> study = "/data/MURA-v1.1/valid/XR_WRIST/patient00006/study1"
    >>> write_mura_csv(pd.DataFrame({"path": [study], "prediction": [1]}), path)
    >>> with open(path) as file:
    ...     file.read()
    'MURA-v1.1/valid/XR_WRIST/patient00006/study1/,1\\n'
    """
    rows = []
    for row, (name, prediction) in enumerate(zip(table["path"], table["prediction"])):
        if prediction not in (0, 1):
            raise ValueError(
                f"Row {row} predicts {prediction!r}; the competition takes 0 (normal) and 1 (abnormal)."
            )
        rows.append((_listed(str(name), row, root), int(prediction)))
    write_csv(path, rows)


def _listed(name, row, root):
    parts = components(name)
    if split_path(name) is None or split_path("/".join([*parts, "image1.png"])) is None:
        raise ValueError(
            f"Row {row}: {name!r} is no study folder in MURA's layout. Predict with predict_frame(..., level='study')."
        )
    if root is None:
        # subset, region, patient, study
        return "/".join(["MURA-v1.1", *parts[-4:], ""])
    below = os.path.relpath(name, root).replace(os.sep, "/")
    if below.startswith(".."):
        raise ValueError(f"Row {row}: {name!r} is not below root={os.fspath(root)!r}.")
    return f"MURA-v1.1/{below}/"
