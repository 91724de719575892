"""Is a data set sound? Every problem on disk, and patients on both sides of a split."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
import pandas as pd
from joblib import cpu_count
from sklearn.utils import Bunch

from ..io._images import UnreadableImage, read_image
from ..utils._progress import progress_bar
from ..utils._validation import check_identifiers
from ._samples import as_samples
from ._scan import Problem, find_layout, scan, summarise, unlabelled


def check_mura(root, *, n_jobs=None, verbose=1):
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
    layout = find_layout(root)
    studies, problems = scan(layout, layout.subsets)
    for subset in layout.subsets:
        problems += unlabelled([study for study in studies if study.subset == subset])
    problems += _shared_patients(studies)
    problems += _image_problems(studies, n_jobs, verbose)
    problems.sort(key=lambda problem: problem.problem)
    if verbose:
        print(_summary(layout, studies, problems))
    return pd.DataFrame(problems, columns=["path", "problem", "detail"])


def check_disjoint(a, b, *, groups_a=None, groups_b=None):
    """Raise where two sets of samples share a patient.

    Parameters
    ----------
    a, b : `sklearn.utils.Bunch`, or array-like of shape (n,), dtype str
        What `load_mura` or `load_radiographs` returned, or paths in MURA's layout.
    groups_a, groups_b : array-like of shape (n,), optional
        The patients of `a` and `b`, where paths do not say them.

    Raises
    ------
    ValueError
        Naming the patients on both sides; also where a patient cannot be told.

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


def _image_problems(studies, n_jobs, verbose):
    """Return the images that cannot be read, and those with the pixels of another patient's."""
    images = [os.path.join(study.path, name) for study in studies for name in study.images]
    patients = chain.from_iterable([study.patient] * len(study.images) for study in studies)
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
