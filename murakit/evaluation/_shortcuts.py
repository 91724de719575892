"""`audit_shortcuts`: how well properties of the files predict the label without looking at the bones."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from ..datasets._samples import as_samples
from ..io._filesystem import size
from ..io._images import read_header, read_image
from ..metrics._predictions import as_predictions, per_study
from ..utils._progress import progress_bar
from ..utils._threading import n_threads
from ..utils._typing import Paths
from ..utils._validation import check_labels
from ._result import Evaluation

# Properties that a model could use as a shortcut, and the columns that measure each.
_PROPERTIES = {
    "image size": ("width", "height", "aspect"),
    "mean brightness": ("brightness", "contrast"),
    "border": ("border", "border_spread"),
    "file mode": ("mode",),
    "number of views": ("n_views",),
    "file size": ("n_bytes", "bytes_a_pixel"),
    "all together": (
        *("width", "height", "aspect", "brightness", "contrast", "border", "border_spread"),
        *("mode", "n_views", "n_bytes", "bytes_a_pixel"),
    ),
}

# A property whose AUROC has an upper bound of at most this is reported as no shortcut.
_MAX_NO_SHORTCUT = 0.7

_BORDER = 0.03  # width of the border, as a fraction of the shorter side


class ShortcutAudit:
    """Result of `audit_shortcuts`: how well properties of the files predict the label.

    Parameters
    ----------
    table : DataFrame
        One row per property: cross-validated AUROC per study, with bounds, and ``suspicious``.
    properties : DataFrame
        Properties of each study.
    n_studies : int
        Number of audited studies.
    n_patients : int
        Number of their patients.
    confidence_level : float
        Nominal coverage of the intervals.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import audit_shortcuts, load_mura, make_mura
    >>> root = make_mura(tempfile.mkdtemp() + "/mura", n_patients=40, image_size=64, random_state=0)
    >>> mura = load_mura(root, subset="all")
    >>> audit_shortcuts(mura.data, mura.target, n_resamples=50).table.columns.tolist()
    ['auroc', 'low', 'high', 'suspicious']
    """

    def __init__(
        self,
        table: pd.DataFrame,
        properties: pd.DataFrame,
        n_studies: int,
        n_patients: int,
        confidence_level: float,
    ) -> None:
        self.table = table
        self.properties = properties
        self.n_studies = n_studies
        self.n_patients = n_patients
        self.confidence_level = confidence_level

    def conclusion(self) -> str:
        """Return the conclusion of the audit in words.

        Returns
        -------
        text : str
        """
        found = [name for name in self.table.index[self.table.suspicious] if name != "all together"]
        if not len(found) and not self.table.suspicious.any():
            # There are no bounds if the trees predict a constant: they need some tens of studies to split.
            unsure = self.table.index[~(self.table.high <= _MAX_NO_SHORTCUT)]
            if len(unsure):
                return (
                    "No property was found to tell the labels apart, but these studies are too few to exclude it for "
                    f"{', '.join(unsure)} (upper bound above {_MAX_NO_SHORTCUT}, or none). Audit more patients."
                )
            return (
                "None of these properties predicts the label of unseen patients better than chance: a model that does "
                "uses something else."
            )
        what = ", ".join(found) or "all of them together"
        best = self.table.loc[found, "auroc"].max() if found else self.table.loc["all together", "auroc"]
        return (
            f"The label can be told from {what} (AUROC up to {best:.2f}) without looking at a bone. A model may use "
            "this shortcut. To know how good it is otherwise, evaluate it where the property is the same for both "
            "labels: remove it from the files, or match the studies."
        )

    def __repr__(self) -> str:
        shown = self.table.assign(suspicious=self.table.suspicious.map({True: "yes", False: ""}))
        text = shown.to_string(float_format="{:.3f}".format)
        return (
            f"Shortcuts: AUROC per study, {self.n_studies:,} studies of {self.n_patients:,} patients, predicted across "
            f"patients; {self.confidence_level:.0%} intervals\n{text}\n{self.conclusion()}"
        )

    def _repr_html_(self) -> str:
        table = self.table.assign(suspicious=self.table.suspicious.map({True: "yes", False: ""}))
        table = table.rename_axis(None).rename(columns={"auroc": "AUROC"})
        shown = table.to_html(classes="murakit", border=0, float_format="{:.3f}".format, na_rep="–")
        return f"{shown}<p>{self.conclusion()}</p>"


def audit_shortcuts(
    X: Paths,
    y: ArrayLike,
    *,
    patients: ArrayLike | None = None,
    studies: ArrayLike | None = None,
    n_splits: int = 5,
    n_resamples: int = 1000,
    confidence_level: float = 0.95,
    n_jobs: int | None = None,
    random_state: int = 0,
    verbose: int = 0,
) -> ShortcutAudit:
    """Measure how well properties of the files, such as their size, predict the label.

    If the size of the files tells which studies are abnormal, a network may learn the size instead of the
    bones, and its AUROC shows nothing about bones. For each property, gradient-boosted trees are
    cross-validated by patient, and the AUROC is computed per study.

    Parameters
    ----------
    X : array-like of shape (n,) or (n, 1)
        Paths of images or of study folders.
    y : array-like of shape (n,)
        Labels of two classes.
    patients, studies : array-like of shape (n,), default=None
        Patient and study of each sample. None: read from the paths.
    n_splits : int, default=5
        Number of folds of the cross-validation.
    n_resamples : int, default=1000
        Number of bootstrap resamples of patients for the intervals.
    confidence_level : float, default=0.95
        Nominal coverage of the intervals.
    n_jobs : int or None, default=None
        Number of threads that read images. None: one per CPU.
    random_state : int, default=0
        Seed of the folds, the trees and the resamples.
    verbose : int, default=0
        1: show a progress bar.

    Returns
    -------
    audit : ShortcutAudit
        Its ``table`` has the AUROC with bounds for each property: image size, mean brightness, border, file
        mode, number of views, file size, and all together. A property is ``suspicious`` if its AUROC is
        above 0.6 and significantly above 0.5, with Bonferroni's correction for seven tests.

    Raises
    ------
    ValueError
        If the labels are not of two classes, or a class has fewer patients than there are folds.
    UnreadableImage
        If a file is not a readable image.

    References
    ----------
    Zech et al., "Variable generalization performance of a deep learning model to detect pneumonia in
    chest radiographs", PLOS Medicine 15 (2018); Geirhos et al., "Shortcut learning in deep neural
    networks", Nature Machine Intelligence 2 (2020).

    Examples
    --------
    >>> import tempfile
    >>> from murakit import audit_shortcuts, load_mura, make_mura
    >>> root = make_mura(tempfile.mkdtemp() + "/mura", n_patients=40, image_size=64, random_state=0)
    >>> mura = load_mura(root, subset="all")
    >>> audit = audit_shortcuts(mura.data, mura.target, n_resamples=50)
    >>> audit.n_studies == len(set(mura.studies))
    True
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # slow to import

    samples = as_samples(X, patients=patients, studies=studies)
    samples.required("patient", "Pass the patients as patients=.")
    samples.required("study", "Pass the studies as studies=.")
    labels = np.asarray(check_labels(y, samples.n_rows))
    classes = np.unique(labels)
    if len(classes) != 2:
        raise ValueError(f"y holds {len(classes)} classes: shortcuts are audited for two.")
    measured = _measure(samples.path, n_jobs, verbose)
    # Placeholder probabilities: per_study checks that a study has one label and one patient, and sorts the studies.
    placeholder = np.full(len(samples), 0.5)
    # Which class is the abnormal one does not matter here.
    code = (labels == classes[1]).astype(int)[samples.row]
    images = as_predictions(code, placeholder, samples.by_image(), classes=None, threshold=None)
    predictions = per_study(images)
    by_study = measured.groupby(images.study).mean().loc[predictions.name]
    by_study["n_views"] = predictions.n_images
    fewest = min(len(set(predictions.patient[predictions.code == value])) for value in (0, 1))
    if fewest < n_splits:
        raise ValueError(
            f"There are {fewest} patients of one class, fewer than n_splits={n_splits}: take fewer folds."
        )
    folds = StratifiedGroupKFold(n_splits, shuffle=True, random_state=random_state)
    rows = {}
    for name, columns in _PROPERTIES.items():
        proba = cross_val_predict(
            # Small leaves and few trees: hundreds of studies, not millions.
            HistGradientBoostingClassifier(max_iter=50, min_samples_leaf=10, random_state=random_state),
            by_study[list(columns)],
            predictions.code,
            groups=predictions.patient,
            cv=folds,
            method="predict_proba",
        )
        ranked = _ranks_within_folds(proba[:, 1], predictions, folds)
        found, corrected = (
            Evaluation(
                replace(predictions, proba=np.stack([1 - ranked, ranked], axis=1)),
                n_resamples=n_resamples,
                confidence_level=level,
                random_state=random_state,
            ).get("auroc")
            # Bonferroni's correction: with one test per property, chance alone would make some significant.
            for level in (confidence_level, 1 - (1 - confidence_level) / len(_PROPERTIES))
        )
        suspicious = found.value > 0.6 and not corrected.low <= 0.5
        rows[name] = {"auroc": found.value, "low": found.low, "high": found.high, "suspicious": suspicious}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("property")
    table["suspicious"] = table["suspicious"].astype(bool)
    return ShortcutAudit(table, by_study, len(predictions), len(set(predictions.patient)), confidence_level)


def _ranks_within_folds(score, predictions, folds):
    """Return the rank of each score within its fold, from 0 to 1.

    The scores of different folds come from different models, so they cannot be ranked together. With few
    studies, the prevalence differs between folds. A model that has learnt nothing predicts the prevalence
    of its training folds, which is low where that of the test fold is high: the pooled AUROC would be
    below 0.5.
    """
    ranked = np.empty(len(score))
    for _, rows in folds.split(score, predictions.code, predictions.patient):
        ranked[rows] = pd.Series(score[rows]).rank(pct=True).to_numpy()
    return ranked


def _measure(images, n_jobs, verbose):
    with ThreadPoolExecutor(n_threads(n_jobs)) as pool:
        found = pool.map(_properties, images)
        rows = list(progress_bar(found, total=len(images), desc="Reading", unit="image", disable=not verbose))
    return pd.DataFrame(rows)


def _properties(path):
    pixels = read_image(path)  # raises UnreadableImage, which names the file
    *_, mode = read_header(path)
    height, width = pixels.shape
    edge = max(1, round(_BORDER * min(height, width)))
    inner = np.zeros(pixels.shape, dtype=bool)
    inner[edge:-edge, edge:-edge] = True
    border = pixels[~inner]
    n_bytes = size(path)
    return {
        "width": width,
        "height": height,
        "aspect": width / height,
        "brightness": pixels.mean(),
        "contrast": pixels.std(),
        "border": border.mean(),
        "border_spread": border.std(),
        # A number for each mode; their order does not matter to trees.
        "mode": float(sum(ord(letter) for letter in mode)),
        "n_bytes": n_bytes,
        "bytes_a_pixel": n_bytes / pixels.size,
    }
