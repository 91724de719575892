"""Radiographs as arrays of paths: MURA, and tables of one's own."""

import html
import os
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from ._dicom_folders import folder_columns, folder_of
from ._paths import LABEL_NAMES, SamplePath, objects, region_name
from ._scan import examples, find_layout, regions_in, scan, summarise, unlabelled
from ._tables import check_studies, table_columns

_TARGETS = ("abnormal", "region", "region_abnormal")

_MURA_DESCR = """\
MURA: musculoskeletal radiographs
---------------------------------
{counts} from {root} (subset {subsets}).

A study is what a radiologist read and called normal (0) or abnormal (1); an image is one view of a
study and inherits its label. A patient may have several studies: split by patients, never by images.

{table}

Rajpurkar et al., "MURA: Large dataset for abnormality detection in musculoskeletal radiographs",
2018, arXiv:1712.06957.
"""

_TABLE_DESCR = """\
Radiographs of one's own
------------------------
{counts} from {source}. Split by patients, never by images.

{table}
"""


class RadiographBunch(Bunch):
    """What the loaders return: a Bunch that shows itself in a few lines instead of all its arrays."""

    def __repr__(self):
        return "\n".join([self._summary(), self._head().to_string(index=False)])

    def _repr_html_(self):
        return f"<p>{html.escape(self._summary())}</p>{self._head().to_html(index=False, border=0)}"

    def _head(self):
        shown = self.frame.head(3)
        # The last names of a path say most; all of it would fill the screen.
        return shown.assign(
            path=[f"…{str(path)[-40:]}" if len(path) > 41 else path for path in shown["path"]]
        )

    def _summary(self):
        if self.target is None:
            labels = "unlabelled"
        else:
            values, counts = np.unique(self.target, return_counts=True)
            named = {0: "normal", 1: "abnormal"} if self.target_names == list(LABEL_NAMES) else {}
            shown = [f"{count:,} {named.get(value, value)}" for value, count in zip(values[:8], counts)]
            labels = ", ".join(shown) + (", ..." if len(values) > 8 else "")
        regions, counts = np.unique(self.regions.astype(str), return_counts=True)
        regions = ", ".join(f"{name} {count:,}" for name, count in zip(regions[:8], counts))
        lines = [f"Radiographs: {_counts(self)}", f"  labels: {labels}", f"  regions: {regions}"]
        if len(self.problems):
            lines.append(f"  problems: {len(self.problems):,}, see .problems")
        return "\n".join(lines)


def load_mura(
    root: str | os.PathLike,
    *,
    subset: str = "train",
    regions: str | Sequence[str] | None = None,
    level: str = "image",
    target: str = "abnormal",
    on_error: str = "raise",
    return_X_y: bool = False,
) -> "RadiographBunch | tuple[np.ndarray, np.ndarray | None]":
    """Load the paths and labels of a data set in MURA's layout.

    No image is opened. The folders say what there is, and so do MURA's CSVs
    (``<subset>_image_paths.csv``, ``<subset>_labeled_studies.csv``) where they are present: a
    disagreement between the two is an error. Hidden files, AppleDouble twins and other strangers
    are passed over.

    Parameters
    ----------
    root : str or os.PathLike
        The folder that holds ``train`` and ``valid``, its parent, or a folder that holds the CSVs
        only, whose paths start with the name of a folder in it or beside it. Or a ZIP archive of
        any of these, such as the one that is downloaded: it is read in place, and paths in it are
        ``"MURA-v1.1.zip!MURA-v1.1/train/..."``.
    subset : str
        "train", "valid", "all" for both, or the name of another folder in MURA's layout, such as
        "test".
    regions : str or list of str, optional
        Regions to load, as "wrist" or "XR_WRIST"; those of MURA or any other that has a folder.
        By default, all.
    level : {"image", "study"}
        One sample an image, or one a study folder, which stands for all of its images.
    target : {"abnormal", "region", "region_abnormal"}
        What to predict: 0 (normal) or 1 (abnormal), the region ("wrist"), or both
        ("wrist_abnormal", one of 14 classes on MURA).
    on_error : {"raise", "skip"}
        Raise on problems, or leave out every sample that is not right in both folders and CSVs,
        list the reasons in `problems`, and warn once. A study sample is left out where any of
        its images is concerned.
    return_X_y : bool
        Return ``(data, target)`` only.

    Returns
    -------
    mura : `sklearn.utils.Bunch`
        Samples in natural order of subset, region, patient, study and image, with the attributes

        data : ndarray of shape (n,), dtype object
            Absolute paths, as ``str``.
        target : ndarray of shape (n,), dtype int64 or object (str), or None
            0 or 1 for ``target="abnormal"``, strings otherwise. None where no study says its
            label, as in MURA's test set, and `target` is not "region".
        target_names : list of str
            Names of the classes, sorted; ``["normal", "abnormal"]`` for 0 and 1.
        patients, studies, regions : ndarray of shape (n,), dtype object
            "patient00006", "XR_WRIST/patient00006/study1_positive" and "wrist" of each sample.
        frame : DataFrame of n rows
            Columns path, subset, region, patient, study, abnormal, target, and image (the file
            name) or n_images. `abnormal` is nullable where a study does not say its label.
        problems : DataFrame
            Columns path, problem, detail: what ``on_error="skip"`` allowed; empty otherwise.
        DESCR : str
            Counts by region.
    (data, target) : tuple
        With ``return_X_y=True``.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        Where `root` is no folder.
    ValueError
        Where no data set is found or several are, an asked subset or region is not there, nothing
        is left to load; for an archive that is damaged or has unsafe names; and, unless skipped,
        where folders and CSVs disagree, a study is empty, or only some studies say their labels and
        `target` needs them.

    Warns
    -----
    UserWarning
        Once, with counts, where ``on_error="skip"`` left something out.

    See Also
    --------
    load_radiographs : The same from a table of one's own.
    check_mura : Every problem of a data set, unreadable images included.

    References
    ----------
    .. [1] P. Rajpurkar et al., "MURA: Large dataset for abnormality detection in musculoskeletal
       radiographs", 2018, arXiv:1712.06957.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import load_mura, make_mura
    >>> root = tempfile.mkdtemp()
    >>> _ = make_mura(root, n_patients=20, image_size=64, random_state=0)
    >>> mura = load_mura(root, subset="all")
    >>> mura.data.shape == mura.target.shape == mura.patients.shape
    True
    >>> mura.target_names
    ['normal', 'abnormal']
    """
    _check_option("level", level, ("image", "study"))
    _check_option("target", target, _TARGETS)
    _check_option("on_error", on_error, ("raise", "skip"))
    layout = find_layout(root)
    subsets = _check_subset(subset, layout)
    wanted = _check_regions(regions, layout, subsets)
    studies, problems = scan(layout, subsets, wanted)
    if target != "region":
        problems += unlabelled(studies)
    if problems:
        where = f"{layout.data} ({', '.join(subsets)})"
        if on_error == "raise":
            raise ValueError(
                f"{where} has {summarise(problems)}:{examples(problems)}\nRestore the files or correct the "
                "CSVs (for a part of MURA, pass its regions=), or pass on_error='skip' to leave out what is "
                "concerned; murakit.check_mura(root) lists it all."
            )
        studies = _without(studies, problems, level)
        warnings.warn(
            f"{where}: left out what has {summarise(problems)}; see the Bunch's `problems`.",
            UserWarning,
            stacklevel=2,
        )
    if not studies:
        raise ValueError(
            f"{layout.data}: nothing to load from {', '.join(subsets)}"
            + (f" for the regions {', '.join(sorted(wanted))}" if wanted else "")
            + ". Check that the folders hold images; murakit.check_mura(root) lists what is wrong."
        )
    frame, arrays = _samples(studies, level)
    bunch = _bunch(frame, arrays, target)
    if return_X_y:
        return bunch.data, bunch.target
    bunch.problems = pd.DataFrame(problems, columns=["path", "problem", "detail"])
    bunch.DESCR = _MURA_DESCR.format(
        counts=_counts(bunch),
        root=layout.data,
        subsets=", ".join(subsets),
        table=_by_region(bunch.regions, frame["abnormal"].map({0: "normal", 1: "abnormal"})),
    )
    return bunch


def load_radiographs(
    table: Any,
    *,
    path: str | None = None,
    label: str | Mapping | pd.Series | None = None,
    patient: str | None = None,
    study: str | None = None,
    region: str | None = None,
    root: str | os.PathLike | None = None,
) -> RadiographBunch:
    """Load radiographs that a table of one's own lists, or a folder of DICOM files.

    Parameters
    ----------
    table : str, os.PathLike or DataFrame
        A CSV with a header, or a DataFrame (of pandas, polars or pyarrow); one row an image, or one a
        study folder. Identifiers in a CSV are read as text, so that "007" stays "007". Or a folder, or a
        ZIP archive, of DICOM files at any depth, whose headers say patient, study and body part; other
        files in it are passed over.
    path : str, optional
        Name of the column of paths, which a table must have. A path may lead into a ZIP archive:
        ``"films.zip!1/a.png"``.
    label : str, Mapping or Series, optional
        Name of the column of labels: whole numbers, booleans or strings. For a folder, the label by
        file (its path in the folder, with ``/``) or by StudyInstanceUID. By default, no label is known:
        `target` is None, and the samples are for prediction.
    patient : str, optional
        Name of the column that says whose radiograph it is: what no split may tear apart. By
        default, the PatientID of DICOM files.
    study : str, optional
        Name of the column of studies, unique over all patients. By default, the study that a
        path in MURA's layout says, or the StudyInstanceUID of a DICOM file, and otherwise every
        image is a study of its own.
    region : str, optional
        Name of the column of regions. By default, the region that a path in MURA's layout says,
        or the BodyPartExamined of a DICOM file, and "unknown" otherwise.
    root : str or os.PathLike, optional
        The folder or ZIP archive that paths are relative to. By default, the folder of the CSV,
        or for a DataFrame the working directory.

    Returns
    -------
    radiographs : `sklearn.utils.Bunch`
        Samples in the order of the table, or in natural order of a folder's files, with the
        attributes of `load_mura`'s Bunch:

        data : ndarray of shape (n,), dtype object
            Absolute paths, as ``str``; each carries its patient, study and region, so that rows of it can
            be handed to whatever splits, fits or judges.
        target : ndarray of shape (n,), dtype int64 or object (str), or None
            The labels; booleans as 0 and 1. None without labels.
        target_names : list of str
            The labels that occur, sorted, as text.
        patients, studies, regions : ndarray of shape (n,), dtype object
            As ``str``. Pass `patients` as ``groups=`` where paths have been written to a file and read
            again: then they no longer carry them.
        frame : DataFrame of n rows
            Columns path, region, patient, study, target and image (the file name), and the table's other
            columns as they are (one of the same name with "table_" before it). Of a folder of DICOM
            files, what headers say: sex, age (in years), view_position, laterality, manufacturer,
            station, date; None where they do not.
        problems : DataFrame
            Columns path, problem, detail: DICOM files of a folder that hold no pixels, such as
            reports, or several frames, both left out; and files that repeat an image (the same
            SOPInstanceUID). Empty otherwise.
        DESCR : str
            Counts by region.

    Raises
    ------
    FileNotFoundError
        Where the CSV or a listed file is not there.
    UnreadableImage
        For a DICOM file whose header cannot be read.
    ImportError
        For DICOM, where the extra ``murakit[dicom]`` is not installed.
    ValueError
        For a missing column, a row without path, label or patient, a path that is listed twice, a
        study of two patients or with two labels, or labels that are no classes; for a DICOM file
        without PatientID that is to say its patient, a folder without DICOM, and a label that
        belongs to no file or study of it.
    TypeError
        For a `table` or `label` of another type.

    Warns
    -----
    UserWarning
        Once, with their number, where files of a folder hold no pixels.

    See Also
    --------
    load_mura : The same from folders in MURA's layout.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, pandas as pd
    >>> from PIL import Image
    >>> from murakit import load_radiographs
    >>> root = tempfile.mkdtemp()
    >>> for name in ("a.png", "b.png"):
    ...     Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(os.path.join(root, name))
    >>> table = pd.DataFrame({"file": ["a.png", "b.png"], "fracture": [0, 1], "who": ["p1", "p2"]})
    >>> mine = load_radiographs(table, path="file", label="fracture", patient="who", root=root)
    >>> mine.target, mine.patients
    (array([0, 1]), array(['p1', 'p2'], dtype=object))

    A folder of DICOM files, with labels by file::

        findings = pd.read_csv("findings.csv", index_col="file")["fracture"]
        films = load_radiographs("export", label=findings)
    """
    if (folder := folder_of(table)) is not None:
        named = {"path": path, "patient": patient, "study": study, "region": region, "root": root}
        source, columns, problems = folder_columns(folder, label, named)
    else:
        columns = {"path": path, "label": label, "patient": patient, "study": study, "region": region}
        source, columns = table_columns(table, root=root, **columns)
        problems = []
    check_studies(source, columns)
    target = columns["target"]
    carried = zip(columns["path"], columns["patient"], columns["study"], columns["region"])
    bunch = RadiographBunch(
        data=objects([SamplePath(*row) for row in carried]),
        target=target,
        target_names=[] if target is None else [str(value) for value in np.unique(target)],
        patients=columns["patient"],
        studies=columns["study"],
        regions=columns["region"],
        frame=pd.DataFrame(columns | {"target": pd.NA if target is None else target}),
        problems=pd.DataFrame(problems, columns=["path", "problem", "detail"]),
    )
    bunch.DESCR = _TABLE_DESCR.format(
        counts=_counts(bunch), source=source, table=_by_region(bunch.regions, bunch.frame["target"])
    )
    return bunch


def _check_option(name, value, allowed):
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not known: pass one of {', '.join(map(repr, allowed))}.")


def _check_subset(subset, layout):
    subsets = ("train", "valid") if subset == "all" else (subset,)
    missing = [name for name in subsets if name not in layout.subsets]
    if missing:
        raise ValueError(
            f"subset={subset!r}: {layout.data!r} has no folder {', '.join(map(repr, missing))} with XR_* "
            f"folders in it; there is {', '.join(map(repr, layout.subsets))}. Pass one of these."
        )
    return subsets


def _check_regions(regions, layout, subsets):
    if regions is None:
        return None
    wanted = {region_name(name) for name in ([regions] if isinstance(regions, str) else regions)}
    found = regions_in(layout, subsets)
    if not wanted or not wanted.issubset(found):
        unknown = ", ".join(sorted(wanted.difference(found))) or "an empty list"
        raise ValueError(
            f"regions: {layout.data!r} ({', '.join(subsets)}) has no {unknown}; it has {', '.join(found)}. "
            "Pass some of these, or None for all."
        )
    return wanted


def _without(studies, problems, level):
    bad = {problem.path for problem in problems}
    if level == "study":
        # By folder, because a missing image is none of those that the folder holds.
        bad.update([os.path.dirname(path) for path in bad])
    kept = []
    for study in studies:
        images = tuple(name for name in study.images if os.path.join(study.path, name) not in bad)
        if images and study.path not in bad:
            kept.append(study._replace(images=images))
    return kept


def _samples(studies, level):
    """Return the frame without its target, and its text columns as object arrays."""
    subset, region, patient, study, label, path, images = zip(*studies)
    counts = [len(names) for names in images]
    text = {"subset": subset, "region": region, "patient": patient, "study": study}
    label = np.array(label, dtype=np.int64)
    if level == "study":
        text = {"path": path} | text
    else:
        names = list(chain.from_iterable(images))
        folders = chain.from_iterable(map(repeat, path, counts))
        paths = [f"{folder}{os.sep}{name}" for folder, name in zip(folders, names)]
        text = {key: np.repeat(objects(values), counts) for key, values in text.items()}
        text = {"path": paths} | text | {"image": names}
        label = np.repeat(label, counts)
    arrays = {key: objects(values) for key, values in text.items()}
    columns = {key: arrays[key] for key in ("path", "subset", "region", "patient", "study")}
    columns["abnormal"] = label if (label >= 0).all() else pd.arrays.IntegerArray(label, label < 0)
    columns["image" if level == "image" else "n_images"] = arrays["image"] if level == "image" else counts
    return pd.DataFrame(columns), arrays


def _bunch(frame, arrays, target):
    region, abnormal = arrays["region"], frame["abnormal"]
    labelled = not abnormal.isna().any()
    present = sorted(set(region))
    if target == "region":
        values, names = region.copy(), present
    elif target == "abnormal":
        values, names = abnormal.to_numpy(copy=True) if labelled else None, list(LABEL_NAMES)
    else:
        names = [f"{name}_{label}" for name in present for label in sorted(LABEL_NAMES)]
        values = None
        if labelled:
            ends = objects([f"_{label}" for label in LABEL_NAMES])
            values = region + ends[abnormal.to_numpy()]
    frame.insert(6, "target", values if values is not None else pd.NA)
    return RadiographBunch(
        data=arrays["path"],
        target=values,
        target_names=names,
        patients=arrays["patient"],
        studies=arrays["study"],
        regions=region,
        frame=frame,
    )


def _counts(bunch):
    counted = {"samples": bunch.data, "studies": set(bunch.studies), "patients": set(bunch.patients)}
    return ", ".join(f"{len(values):,} {what}" for what, values in counted.items())


def _by_region(regions, labels):
    table = pd.crosstab(regions, labels.to_numpy(dtype=object, na_value="unlabelled"))
    return table.rename_axis(index="region", columns="samples").to_string()
