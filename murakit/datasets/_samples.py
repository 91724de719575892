"""The table of samples: what each row of an X stands for, found once and handed on from there."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from ..io._filesystem import IMAGE_SUFFIXES, absolute, basename, is_image_name, isdir, isfile
from ..utils._validation import check_identifiers, plain
from ._paths import PATH_FORM, SamplePath, as_paths, images_in, objects, split_path

# The columns that say what an image belongs to.
_COLUMNS = ("patient", "study", "region")


@dataclass(frozen=True)
class SampleTable:
    """Images with the sample, patient, study and region that each belongs to.

    Made by `as_samples`. A sample is one row of an X: an image, or a study folder, which stands for all of
    its images. So the table has one row an image, and `row` says whose.

    Attributes
    ----------
    path : ndarray of shape (m,), dtype object
        What is read: the path of each image.
    row : ndarray of shape (m,), dtype int64
        The sample that each image belongs to, as a row of X.
    patient, study, region : ndarray of shape (m,), dtype object
        None where neither the caller nor the path names it.
    sample : ndarray of shape (n,), dtype object
        The rows of X.
    """

    path: np.ndarray
    row: np.ndarray
    patient: np.ndarray
    study: np.ndarray
    region: np.ndarray
    sample: np.ndarray

    @property
    def n_rows(self) -> int:
        """Number of samples, which may have several images each."""
        return len(self.sample)

    def __len__(self) -> int:
        return len(self.path)

    def take(self, images: np.ndarray) -> Self:
        """Return the table of some images, by mask or by position; the samples stay numbered as they are."""
        columns = {name: getattr(self, name)[images] for name in ("path", "row", *_COLUMNS)}
        return replace(self, **columns)

    def of_samples(self, rows: np.ndarray) -> Self:
        """Return the table of some samples, by mask or by row of X, in that order and numbered anew."""
        rows = np.arange(self.n_rows)[rows]
        number = np.full(self.n_rows, -1)
        number[rows] = np.arange(len(rows))
        images = np.flatnonzero(number[self.row] >= 0)
        part = self.take(images[np.argsort(number[self.row[images]], kind="stable")])
        return replace(part, row=number[part.row], sample=self.sample[rows])

    def by_sample(self) -> Self:
        """Return the table with one row a sample instead of one an image."""
        first = np.unique(self.row, return_index=True)[1]
        return replace(self.take(first), path=self.sample, row=np.arange(self.n_rows))

    def by_image(self) -> Self:
        """Return the table in which each image is a sample of its own."""
        return replace(self, row=np.arange(len(self)), sample=self.path)

    def n_images(self) -> np.ndarray:
        """Return the number of images of each sample, (n,)."""
        return np.bincount(self.row, minlength=self.n_rows)

    def known(self, column: str) -> np.ndarray | None:
        """Return a column, or None where some row lacks its value."""
        values = getattr(self, column)
        return None if any(value is None for value in values) else values

    def required(self, column: str, remedy: str) -> np.ndarray:
        """Return a column; raise where some row lacks its value, and end with the remedy."""
        values = getattr(self, column)
        for at, value in enumerate(values):
            if value is None:
                raise ValueError(
                    f"The {column} of row {self.row[at]} is not known: its path {self.path[at]!r} is not of the "
                    f"form {PATH_FORM}. {remedy}"
                )
        return values


def as_samples(
    X: Any,
    *,
    patients: ArrayLike | None = None,
    studies: ArrayLike | None = None,
    regions: ArrayLike | None = None,
    list_folders: bool = True,
    missing_ok: bool = False,
    name: str = "X",
    patients_name: str = "patients",
) -> SampleTable:
    """Return the `SampleTable` of some samples; each path is parsed once.

    Parameters
    ----------
    X : array-like of shape (n,) or (n, 1), or SampleTable
        Paths of images or study folders. A table is returned as it is.
    patients, studies, regions : array-like of shape (n,), default=None
        Of each sample. None: what `load_radiographs` has put beside its path, or what the path says in MURA's layout.
    list_folders : bool, default=True
        Replace study folders by their images. False: no file is looked at, and each sample is a row.
    missing_ok : bool, default=False
        Let a path that does not exist stand for itself, instead of raising.
    name, patients_name : str
        What errors call X and `patients`.

    Returns
    -------
    samples : SampleTable

    Raises
    ------
    FileNotFoundError
        Naming the first missing paths.
    ValueError
        For what is no array of paths, and for columns of another length or with missing values.
    """
    if isinstance(X, SampleTable):
        return X
    paths = as_paths(X, name)
    parts = [path if isinstance(path, SamplePath) else split_path(path) for path in paths]
    columns = {}
    given = {
        "patient": (patients, patients_name),
        "study": (studies, "studies"),
        "region": (regions, "regions"),
    }
    for column, (values, called) in given.items():
        if values is None:
            columns[column] = objects([None if part is None else getattr(part, column) for part in parts])
        else:
            columns[column] = check_identifiers(values, len(paths), called)
    if list_folders:
        images, row = expand(paths, missing_ok=missing_ok)
        columns = {column: values[row] for column, values in columns.items()}
    else:
        images, row = paths, np.arange(len(paths))
    return SampleTable(images, row, **columns, sample=paths)


def as_rows(
    n_rows: int,
    *,
    names: ArrayLike | None = None,
    patients: ArrayLike | None = None,
    studies: ArrayLike | None = None,
    regions: ArrayLike | None = None,
) -> SampleTable:
    """Return the `SampleTable` of samples that are no paths: rows of an array, named by their number.

    Parameters
    ----------
    n_rows : int
    names, patients, studies, regions : array-like of shape (n_rows,), default=None
        Of each row. None: not known; of names, the number of the row.
    """
    unknown = objects([None] * n_rows)
    given = {"images": names, "patients": patients, "studies": studies, "regions": regions}
    path, patient, study, region = (
        unknown if values is None else check_identifiers(values, n_rows, name)
        for name, values in given.items()
    )
    if names is None:
        path = np.arange(n_rows).astype(str).astype(object)
    return SampleTable(path, np.arange(n_rows), patient, study, region, path)


def expand(paths: np.ndarray, *, missing_ok: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return the images that samples stand for.

    Parameters
    ----------
    paths : ndarray of shape (n,), dtype object
        Paths of images or of study folders.
    missing_ok : bool, default=False
        Let a path that does not exist stand for itself.

    Returns
    -------
    images : ndarray of shape (m,), dtype object
        An image stands for itself, a study folder for all of its images.
    sample : ndarray of shape (m,), dtype int64
        The row of `paths` that each image belongs to.

    Raises
    ------
    FileNotFoundError
        Naming the first missing paths.
    ValueError
        For a study folder without an image.
    """
    images, sample, missing = [], [], []
    for row, path in enumerate(paths):
        if is_image_name(basename(path)) and isfile(path):
            images.append(path)
            sample.append(row)
        elif isdir(path):
            found = images_in(path)
            if not found and missing_ok:
                found = [path]
            elif not found:
                raise ValueError(
                    f"X: row {row} is the folder {path!r}, which holds no image "
                    f"({', '.join(IMAGE_SUFFIXES)}). Leave the study out, or restore its files."
                )
            images.extend(found)
            sample.extend([row] * len(found))
        elif missing_ok or isfile(path):
            # A name without a known suffix: reading it decides.
            images.append(path)
            sample.append(row)
        else:
            missing.append((row, path))
    if missing:
        shown = "; ".join(f"row {row}: {path!r}" for row, path in missing[:3])
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} paths in X do not exist ({shown}). Check the folder that the "
            "paths are relative to, or load them again with load_mura."
        )
    return objects(images), np.asarray(sample, dtype=np.int64)


def check_repeats(samples: SampleTable, label: np.ndarray) -> None:
    """Raise where rows that stand for the same image contradict each other.

    Rows that agree count as often as they stand there: a bootstrap repeats rows.

    Parameters
    ----------
    samples : SampleTable
    label : ndarray of shape (m,)
        Label of each image.
    """
    first: dict[str, int] = {}
    for at, image in enumerate(samples.path):
        other = first.setdefault(absolute(image), at)
        for what, values in (("label", label), ("patient", samples.patient)):
            if values[other] != values[at]:
                raise ValueError(
                    f"X: rows {samples.row[other]} and {samples.row[at]} both stand for the image {image!r}, with the "
                    f"{what}s {plain(values[other])!r} and {plain(values[at])!r}. Correct one of them, or drop it."
                )
