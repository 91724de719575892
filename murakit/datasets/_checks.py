"""Is a data set sound? Every problem on disk, and patients on both sides of a split."""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
import pandas as pd
from joblib import cpu_count
from numpy.typing import ArrayLike
from sklearn.utils import Bunch

from ..io._filesystem import absolute, exists, join
from ..io._images import UnreadableImage, read_image
from ..utils._progress import progress_bar
from ..utils._typing import Paths
from ..utils._validation import as_identifier, as_label, check_identifiers, plain
from ._dicom_folders import folder_of, origins_below
from ._paths import split_path
from ._samples import as_samples
from ._scan import Problem, find_layout, scan, summarise, unlabelled
from ._tables import read_table


def check_mura(root: str | os.PathLike, *, n_jobs: int | None = None, verbose: int = 1) -> pd.DataFrame:
    """List every problem of a data set in MURA's layout.

    All subset folders are looked at and every image is decoded. The problems are:

    - "unreadable image": truncated, empty, or not an image;
    - "empty study": a study folder without an image;
    - "unlabelled study": neither folder nor CSV says the label, while others of the subset do;
    - "label disagrees": the folder and ``<subset>_labeled_studies.csv`` say different labels;
    - "missing image", "missing study": in a CSV, not on disk;
    - "unlisted image", "unlisted study": on disk, not in the CSV;
    - "unreadable CSV row": a row that is no path of the subset, or no label;
    - "patient in several subsets": a leak;
    - "duplicate image": pixel for pixel the image of another patient.

    Parameters
    ----------
    root : str or os.PathLike
        As for `load_mura`.
    n_jobs : int, optional
        Number of threads that read; by default, and for -1, one a core.
    verbose : int
        0 is silent; 1 shows a progress bar on stderr and prints a one-line summary.

    Returns
    -------
    problems : DataFrame
        Columns path (absolute; an image's, a study's, a CSV's or a patient folder's), problem and
        detail; sorted by problem, then in natural order. Empty for a sound data set.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, ValueError
        Where `root` leads to no data set.

    See Also
    --------
    load_mura : ``on_error="skip"`` loads what folders and CSVs agree on.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import check_mura, make_mura
    >>> root = tempfile.mkdtemp()
    >>> _ = make_mura(root, n_patients=5, image_size=64, random_state=0)
    >>> len(check_mura(root, verbose=0))
    0
    """
    try:
        layout = find_layout(root)
    except ValueError:
        # Who was told by the error of a radiograph to look here may have a folder of DICOM files.
        if (folder := folder_of(root)) is not None and any(origins_below(folder)):
            return check_radiographs(root, n_jobs=n_jobs, verbose=verbose)
        raise
    studies, problems = scan(layout, layout.subsets)
    for subset in layout.subsets:
        problems += unlabelled([study for study in studies if study.subset == subset])
    problems += _shared_patients(studies)
    images = [os.path.join(study.path, name) for study in studies for name in study.images]
    patients = chain.from_iterable([study.patient] * len(study.images) for study in studies)
    problems += _image_problems(images, list(patients), n_jobs, verbose)
    if verbose:
        print(_summary(layout, studies, problems))
    return _as_frame(problems)


def check_radiographs(
    data: Bunch | pd.DataFrame | str | os.PathLike,
    *,
    path: str | None = None,
    label: str | Mapping | pd.Series | None = None,
    patient: str | None = None,
    study: str | None = None,
    region: str | None = None,
    root: str | os.PathLike | None = None,
    n_jobs: int | None = None,
    verbose: int = 1,
) -> pd.DataFrame:
    """List every problem of radiographs of one's own: a table, a folder of DICOM files, or what was loaded.

    Every image is decoded, and nothing is raised for what is wrong with a row. The problems are:

    - "missing value", "missing file": a row without path, label or patient; a path that is not there;
    - "unreadable image": truncated, damaged, or not an image;
    - "duplicate image": pixel for pixel the image of another patient;
    - "repeated file": one file in two rows; "contradicting rows": with two labels or two patients;
    - "contradicting study": a study of two patients, or with two labels;
    - of DICOM folders, "no pixels", "several frames", "no patient", and "repeated instance": the
      SOPInstanceUID of another file.

    Parameters
    ----------
    data : Bunch, DataFrame, str or os.PathLike
        What `load_radiographs` or `load_mura` returned; a table or the path of a CSV; or a folder or ZIP
        archive of DICOM files.
    path, label, patient, study, region, root : optional
        As for `load_radiographs`.
    n_jobs : int, optional
        Number of threads that read; by default, and for -1, one a core.
    verbose : int, default=1
        0 is silent; 1 shows a progress bar and prints a one-line summary.

    Returns
    -------
    problems : DataFrame
        Columns path, problem and detail, sorted by problem. Empty where all is well.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        Where there is no such table or column.

    See Also
    --------
    check_mura : The same for a data set in MURA's layout.
    load_radiographs : Raises for the first problem of each kind.

    References
    ----------
    Digital Imaging and Communications in Medicine (DICOM), PS3.3: SOPInstanceUID names one image.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import check_radiographs, load_mura, make_mura
    >>> root = make_mura(tempfile.mkdtemp() + "/mura", n_patients=5, image_size=64, random_state=0)
    >>> len(check_radiographs(load_mura(root), verbose=0))
    0
    """
    columns = {"path": path, "label": label, "patient": patient, "study": study, "region": region}
    problems: list[Problem] = []
    if isinstance(data, Bunch):
        rows = pd.DataFrame({"path": data.data, "patient": data.patients, "study": data.studies})
        rows["label"] = None if data.target is None else data.target
        problems += [Problem(*problem) for problem in data.problems.itertuples(index=False)]
    elif (folder := folder_of(data)) is not None:
        rows = _rows_of_folder(folder, problems)
    else:
        rows = _rows_of_table(data, root, columns, problems)
    problems += _contradictions(rows)
    kept = rows.drop_duplicates("path")
    images = as_samples(kept["path"].to_numpy(dtype=object), missing_ok=True)
    owners = kept["patient"].to_numpy(dtype=object)[images.row]
    problems += _image_problems(list(images.path), list(owners), n_jobs, verbose)
    if verbose:
        found = summarise(problems) if problems else "no problems"
        print(f"{len(rows):,} rows, {len(images):,} images: {found}")
    return _as_frame(problems)


def _rows_of_folder(folder, problems):
    found, others = origins_below(folder)
    problems += [Problem(*problem) for problem in others]
    rows = [(path, origin.patient or None, origin.study or path, None) for path, origin in found.items()]
    problems += [
        Problem(path, "no patient", "its header has no PatientID")
        for path, patient, *_ in rows
        if not patient
    ]
    return pd.DataFrame(rows, columns=["path", "patient", "study", "label"], dtype=object)


def _rows_of_table(table, root, columns, problems):
    """Return the rows of a table that have a file; note the others."""
    if columns["path"] is None:
        raise ValueError("path=None: a table needs the name of its column of paths. Pass path=.")
    named = [columns[name] for name in ("path", "patient", "study", "region")]
    _, table, folder = read_table(table, root, columns["label"], named)
    rows = []
    for number, row in table.iterrows():
        where = row[columns["path"]]
        if pd.isna(where):
            problems.append(Problem("", "missing value", f"row {number} (counted from 0) has no path"))
            continue
        file = absolute(join(folder, os.path.expanduser(os.fspath(where))))
        if not exists(file):
            problems.append(Problem(file, "missing file", f"row {number} (counted from 0) lists it"))
            continue
        said = split_path(file)
        values = {"patient": said and said.patient, "study": (said and said.study) or file, "label": None}
        for name in values:
            if (column := columns[name]) is None:
                continue
            if pd.isna(row[column]) or as_identifier(row[column]) == "":
                detail = f"row {number} (counted from 0) has no {name} in {column!r}"
                problems.append(Problem(file, "missing value", detail))
                values[name] = None
            else:
                values[name] = as_label(row[column]) if name == "label" else as_identifier(row[column])
        rows.append((file, values["patient"], values["study"], values["label"]))
    return pd.DataFrame(rows, columns=["path", "patient", "study", "label"], dtype=object)


def _contradictions(rows):
    """Return a problem for each row that repeats a file, and for what is said of one file or study twice over."""
    problems, files, studies = [], {}, {}
    for number, row in enumerate(rows.itertuples(index=False)):
        other = files.setdefault(row.path, (number, row))
        if other[0] != number:
            said = _differences(other[1], row)
            detail = f"in rows {other[0]} and {number}" + (f", with {said}" if said else "")
            problems.append(Problem(row.path, "contradicting rows" if said else "repeated file", detail))
        elif row.study is not None:
            other = studies.setdefault(row.study, (number, row))
            if said := _differences(other[1], row):
                detail = f"study {row.study!r} in rows {other[0]} and {number}, with {said}"
                problems.append(Problem(row.path, "contradicting study", detail))
    return problems


def _differences(one, other):
    pairs = {"labels": (one.label, other.label), "patients": (one.patient, other.patient)}
    return ", ".join(
        f"the {name} {plain(a)!r} and {plain(b)!r}"
        for name, (a, b) in pairs.items()
        if a is not None and b is not None and a != b
    )


def _as_frame(problems):
    problems = sorted(problems, key=lambda problem: problem.problem)
    return pd.DataFrame(problems, columns=["path", "problem", "detail"])


def check_disjoint(
    a: Bunch | Paths,
    b: Bunch | Paths,
    *,
    groups_a: ArrayLike | None = None,
    groups_b: ArrayLike | None = None,
    content: bool = False,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> None:
    """Raise where two sets of samples share a patient, or on request an image.

    Parameters
    ----------
    a, b : `sklearn.utils.Bunch`, or array-like of shape (n,), dtype str
        What `load_mura` or `load_radiographs` returned, or paths in MURA's layout.
    groups_a, groups_b : array-like of shape (n,), optional
        The patients of `a` and `b`, where paths do not say them.
    content : bool, default=False
        Decode all images as well, and raise where two have the same pixels: one patient under two names.
    n_jobs : int, optional
        Number of threads that read, with ``content=True``; by default, and for -1, one a core.
    verbose : int, default=0
        1: a progress bar.

    Raises
    ------
    ValueError
        Naming the patients, or the images, on both sides; also where a patient is not known.
    UnreadableImage
        With ``content=True``, for a file that is no readable image.

    See Also
    --------
    check_mura : Does so for the subsets of a data set on disk.

    Examples
    --------
    >>> from murakit import check_disjoint
    >>> a = ["train/XR_WRIST/patient00001/study1_positive/image1.png"]
    >>> b = ["train/XR_HAND/patient00001/study1_negative/image1.png"]
    >>> check_disjoint(a, b)
    Traceback (most recent call last):
    ...
    ValueError: a and b share 1 patient: patient00001. Split by patient, with PatientKFold or groups=.
    """
    sides = [_patients("a", a, groups_a), _patients("b", b, groups_b)]
    shared = sides[0] & sides[1]
    if shared:
        named = ", ".join(map(str, sorted(shared)[:5])) + (", ..." if len(shared) > 5 else "")
        raise ValueError(
            f"a and b share {len(shared)} patient{'s' if len(shared) > 1 else ''}: {named}. Split by "
            "patient, with PatientKFold or groups=."
        )
    if content:
        _check_content(a, b, n_jobs, verbose)


def _check_content(a, b, n_jobs, verbose):
    images = [as_samples(side.data if isinstance(side, Bunch) else side).path for side in (a, b)]
    first = {}
    for at, (digest, error) in enumerate(_digests(np.concatenate(images), n_jobs, verbose)):
        if error is not None:
            raise UnreadableImage(error)
        if at < len(images[0]):
            first.setdefault(digest, images[0][at])
        elif digest in first:
            raise ValueError(
                f"a and b share an image, pixel for pixel: {first[digest]!r} and {images[1][at - len(images[0])]!r}. "
                "One patient may have two names; leave one of the two out, or give both patients the same name."
            )


def _patients(name, samples, groups):
    if groups is None and isinstance(samples, Bunch):
        groups = samples.patients
    paths = samples.data if isinstance(samples, Bunch) else samples
    if groups is not None:
        return set(check_identifiers(groups, len(paths), f"groups_{name}"))
    table = as_samples(paths, list_folders=False)
    return set(table.required("patient", f"Pass the patients as groups_{name}=."))


def _shared_patients(studies):
    """Return a problem for each patient folder of a patient who was in an earlier subset."""
    first, folders = {}, {}
    for study in studies:
        subset = first.setdefault(study.patient, study.subset)
        if subset != study.subset:
            folders[os.path.dirname(study.path)] = f"{study.patient} is in {subset} and {study.subset}"
    return [Problem(path, "patient in several subsets", detail) for path, detail in folders.items()]


def _image_problems(images, patients, n_jobs, verbose):
    """Return the images that cannot be read, and those with the pixels of another patient's."""
    problems, first = [], {}
    # The digests come first in zip: it asks them for one more at the end, and so completes the bar.
    for (digest, error), path, patient in zip(_digests(images, n_jobs, verbose), images, patients):
        if error is not None:
            problems.append(Problem(path, "unreadable image", error))
            continue
        other, owner = first.setdefault(digest, (path, patient))
        if owner != patient:
            detail = f"{patient} has the same pixels as {owner} in {other}"
            problems.append(Problem(path, "duplicate image", detail))
    return problems


def _digests(paths, n_jobs, verbose):
    threads = cpu_count() if n_jobs is None or n_jobs < 0 else max(1, n_jobs)
    executor = ThreadPoolExecutor(threads)
    try:
        # Threads do, because Pillow and hashlib release the interpreter lock on whole images.
        yield from progress_bar(
            executor.map(_digest, paths),
            total=len(paths),
            desc="Reading",
            unit="image",
            disable=not verbose,
        )
    finally:
        # Otherwise Ctrl-C would wait for the whole queue.
        executor.shutdown(cancel_futures=True)


def _digest(path):
    """Return the digest of an image's pixels and None, or None and why it cannot be read."""
    try:
        image = read_image(path)
    except (UnreadableImage, FileNotFoundError) as error:
        return None, str(error)
    digest = hashlib.blake2b(np.ascontiguousarray(image), digest_size=16)
    digest.update(repr(image.shape).encode())
    return digest.digest(), None


def _summary(layout, studies, problems):
    n_images = sum(len(study.images) for study in studies)
    n_patients = len({study.patient for study in studies})
    return (
        f"{layout.data}: {n_images:,} images, {len(studies):,} studies, {n_patients:,} patients in "
        f"{', '.join(layout.subsets)}: {summarise(problems) if problems else 'no problems'}"
    )
