"""`audit_shortcuts`: what of the label can be told without looking at a bone."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from ..datasets._samples import as_samples
from ..io._filesystem import size
from ..io._images import read_header, read_image
from ..metrics._predictions import as_predictions, per_study
from ..utils._progress import progress_bar
from ..utils._threading import n_threads
from ..utils._validation import check_labels
from ._result import Evaluation

# What a model could cheat with, and the columns that say it.
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

# Up to which upper bound of an AUROC a property is said not to tell the labels apart.
_MOST_EXCLUDED = 0.7

_BORDER = 0.03  # share of the side


class ShortcutAudit:
    """How well trivial properties predict the label; made by `audit_shortcuts`.

    Parameters
    ----------
    table : DataFrame
        One row a property: AUROC per study on unseen patients, with bounds, and ``suspicious``.
    properties : DataFrame
        The properties of each study.
    n_studies : int
        Studies that were looked at.
    n_patients : int
        Their patients.
    confidence_level : float
        Of the bounds.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import audit_shortcuts, load_mura, make_mura
    >>> root = make_mura(tempfile.mkdtemp() + "/mura", n_patients=40, image_size=64, random_state=0)
    >>> mura = load_mura(root, subset="all")
    >>> audit_shortcuts(mura.data, mura.target, n_resamples=50).table.columns.tolist()
    ['auroc', 'low', 'high', 'suspicious']
    """

    def __init__(self, table, properties, n_studies, n_patients, confidence_level):
        self.table = table
        self.properties = properties
        self.n_studies = n_studies
        self.n_patients = n_patients
        self.confidence_level = confidence_level

    def conclusion(self):
        """Return the sentence that says what to make of it.

        Returns
        -------
        text : str
        """
        found = [name for name in self.table.index[self.table.suspicious] if name != "all together"]
        if not len(found) and not self.table.suspicious.any():
            # Without bounds, the trees learnt nothing that varied: they need some tens of studies.
            unsure = self.table.index[~(self.table.high <= _MOST_EXCLUDED)]
            if len(unsure):
                return (
                    "No property was found to tell the labels apart, but these studies are too few to exclude it for "
                    f"{', '.join(unsure)} (upper bound above {_MOST_EXCLUDED}, or none). Audit more patients."
                )
            return (
                "None of these properties tells normal from abnormal on unseen patients by more than chance: a model "
                "that does looks at something else."
            )
        what = ", ".join(found) or "all of them together"
        best = self.table.loc[found, "auroc"].max() if found else self.table.loc["all together", "auroc"]
        return (
            f"The label can be told from {what} (AUROC up to {best:.2f}) without looking at a bone. A model may take "
            "this shortcut: its scores say little before it is judged where the property is the same for both labels "
            "(remove it from the files, or match the studies)."
        )

    def __repr__(self):
        shown = self.table.assign(suspicious=self.table.suspicious.map({True: "yes", False: ""}))
        text = shown.to_string(float_format="{:.3f}".format)
        return (
            f"Shortcuts: AUROC per study, {self.n_studies:,} studies of {self.n_patients:,} patients, predicted across "
            f"patients; {self.confidence_level:.0%} intervals\n{text}\n{self.conclusion()}"
        )

    def _repr_html_(self):
        table = self.table.assign(suspicious=self.table.suspicious.map({True: "yes", False: ""}))
        table = table.rename_axis(None).rename(columns={"auroc": "AUROC"})
        shown = table.to_html(classes="murakit", border=0, float_format="{:.3f}".format, na_rep="–")
        return f"{shown}<p>{self.conclusion()}</p>"


def audit_shortcuts(
    X,
    y,
    *,
    patients=None,
    studies=None,
    n_splits=5,
    n_resamples=1000,
    confidence_level=0.95,
    n_jobs=None,
    random_state=0,
    verbose=0,
):
    """Ask how well trivial properties predict the label on their own.

    If the size of the file tells which studies are abnormal, a network will find out, and its AUROC
    says nothing of bones. For each property, gradient-boosted trees are trained on some patients and
    judged on others, study by study.

    Parameters
    ----------
    X : array-like of shape (n,) or (n, 1)
        Paths of images or of study folders.
    y : array-like of shape (n,)
        Labels, two classes.
    patients, studies : array-like of shape (n,), default=None
        Of each sample. None: read from the paths.
    n_splits : int, default=5
        Folds of patients.
    n_resamples : int, default=1000
        Resamples of patients for the intervals.
    confidence_level : float, default=0.95
        Share of the resamples between the bounds.
    n_jobs : int, default=None
        Threads that read images. None: as many as there are CPUs.
    random_state : int, default=0
        Decides folds, trees and resamples.
    verbose : int, default=0
        1: a progress bar.

    Returns
    -------
    audit : ShortcutAudit
        Its ``table`` has, for image size, mean brightness, border, file mode, number of views, file
        size and all together, the AUROC with bounds; ``suspicious`` where the AUROC is above 0.6
        and its lower bound above 0.5 at a level that allows for asking seven times (Bonferroni's).

    Raises
    ------
    ValueError
        For labels that are not of two classes, and fewer patients of a class than folds.
    UnreadableImage
        For a file that is no readable image.

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
    y = np.asarray(check_labels(y, samples.n_rows))
    classes = np.unique(y)
    if len(classes) != 2:
        raise ValueError(f"y holds {len(classes)} classes: shortcuts are audited for two.")
    measured = _measure(samples.path, n_jobs, verbose)
    # Checks that a study has one label and one patient, and brings the studies into order.
    guess = np.full(len(samples), 0.5)
    # Which class is the abnormal one does not matter here.
    code = (y == classes[1]).astype(int)[samples.row]
    images = as_predictions(code, guess, samples.by_image(), classes=None, threshold=None)
    units = per_study(images)
    by_study = measured.groupby(images.study).mean().loc[units.name]
    by_study["n_views"] = units.n_images
    fewest = min(len(set(units.patient[units.code == code])) for code in (0, 1))
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
            units.code,
            groups=units.patient,
            cv=folds,
            method="predict_proba",
        )
        ranked = _ranks_within(proba[:, 1], units, folds)
        found, cautious = (
            Evaluation(
                replace(units, proba=np.stack([1 - ranked, ranked], axis=1)),
                n_resamples=n_resamples,
                confidence_level=level,
                random_state=random_state,
            ).get("auroc")
            # So many questions are asked that chance alone would answer one of them now and then.
            for level in (confidence_level, 1 - (1 - confidence_level) / len(_PROPERTIES))
        )
        suspicious = found.value > 0.6 and not cautious.low <= 0.5
        rows[name] = {"auroc": found.value, "low": found.low, "high": found.high, "suspicious": suspicious}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("property")
    table["suspicious"] = table["suspicious"].astype(bool)
    return ShortcutAudit(table, by_study, len(units), len(set(units.patient)), confidence_level)


def _ranks_within(score, units, folds):
    """Return the ranks of scores within their fold, from 0 to 1: models of other folds have other scales.

    With few studies the share of abnormal ones differs between folds, and pooled scores of models
    that learnt nothing would rank them by that, in reverse.
    """
    ranked = np.empty(len(score))
    for _, rows in folds.split(score, units.code, units.patient):
        ranked[rows] = pd.Series(score[rows]).rank(pct=True).to_numpy()
    return ranked


def _measure(images, n_jobs, verbose):
    with ThreadPoolExecutor(n_threads(n_jobs)) as pool:
        found = pool.map(_properties, images)
        rows = list(progress_bar(found, total=len(images), desc="Reading", unit="image", disable=not verbose))
    return pd.DataFrame(rows)


def _properties(path):
    pixels = read_image(path)  # raises for what is no image, naming it
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
        # As a number: the order of modes means nothing, and trees need none.
        "mode": float(sum(ord(letter) for letter in mode)),
        "n_bytes": n_bytes,
        "bytes_a_pixel": n_bytes / pixels.size,
    }
