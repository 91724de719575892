"""What a data set in MURA's layout holds on disk, and where its CSVs disagree with that.

The one scanner behind `load_mura` and `check_mura`. It lists folders by their known depth: no
file is opened or even looked at, so a scan costs little more than a walk over the tree.
"""

import os
import re
from typing import NamedTuple

from ..io._filesystem import (
    absolute,
    as_folder,
    basename,
    dirname,
    exists,
    folders,
    is_image_name,
    isdir,
    isfile,
    join,
    names,
    read_bytes,
)
from ._paths import (
    images_among,
    is_patient_name,
    is_region_name,
    natural_key,
    region_name,
    study_label,
    study_names,
)

_IMAGES_CSV = "_image_paths.csv"

_LABELS_CSV = "_labeled_studies.csv"

_CSV_ROW = re.compile(r"(?:(?P<name>.+)/)?[^/]+/XR_[^/]+/")

# How many examples an error quotes.
_SHOWN = 3


class Layout(NamedTuple):
    """Where a data set lies."""

    data: str  # the folder that holds the subset folders
    csvs: str  # the folder that holds the CSVs, if there are any
    subsets: tuple  # names of the subset folders on disk


class Study(NamedTuple):
    """One study folder."""

    subset: str
    region: str  # "wrist"
    patient: str  # "patient00006"
    study: str  # "XR_WRIST/patient00006/study1_positive"
    label: int  # 0 normal, 1 abnormal, -1 not said
    path: str
    images: tuple  # file names in natural order


class Problem(NamedTuple):
    """One thing that is wrong with a data set."""

    path: str
    problem: str
    detail: str


def find_layout(root):
    """Find the data set that a user's `root` means.

    Parameters
    ----------
    root : str or os.PathLike
        The data folder, its parent, or a folder with CSVs whose paths start with the name of
        the data folder.

    Returns
    -------
    layout : Layout

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        Where `root` is no folder.
    ValueError
        Where there is no data set, where there are several, and where `root` lies inside one.
    """
    root = as_folder(absolute(os.path.expanduser(os.fspath(root))))
    if not exists(root):
        raise FileNotFoundError(f"There is no folder {root!r}. Pass the folder that holds train/ and valid/.")
    if not isdir(root):
        raise NotADirectoryError(
            f"{root!r} is a file. Pass the folder that holds train/ and valid/, or a ZIP archive of it."
        )
    if subsets := _subsets(root):
        return Layout(root, root, subsets)
    _refuse_inside(root)
    named = _folders_named_in_csvs(root)
    # As a dict, because a folder that the CSVs name may also be a child.
    found = {}
    for folder in named or _folders(root):
        if subsets := _subsets(folder):
            found[folder] = subsets
            if named:
                break
    if len(found) > 1:
        raise ValueError(
            f"{root!r} holds {len(found)} data sets: {', '.join(map(repr, found))}. Pass one of them as root."
        )
    if not found:
        looked = f" Its CSVs name a folder that is neither of {', '.join(map(repr, named))}." if named else ""
        raise ValueError(
            f"{root!r} holds no data set in MURA's layout, <subset>/XR_<REGION>/patientNNNNN/"
            f"studyN_positive/image1.png.{looked} Pass the folder that holds train/ and valid/."
        )
    [(folder, subsets)] = found.items()
    # The CSVs that the user pointed to win over those beside the images.
    return Layout(folder, root if _csvs(root) else folder, subsets)


def scan(layout, subsets, regions=None):
    """List the studies of some subsets, with all that is wrong with them.

    Parameters
    ----------
    layout : Layout
    subsets : iterable of str
        Names of subset folders that exist.
    regions : collection of str, optional
        Regions to look at ("wrist"); folders and CSV rows of others are passed over.

    Returns
    -------
    studies : list of Study
        In natural order of subset, region, patient and study. Where a folder does not say its
        label, the CSV's is filled in.
    problems : list of Problem
        Empty studies, and what the CSVs and the tree disagree on. A problem's path is that of
        the image, study or CSV concerned.
    """
    studies, problems = [], []
    for subset in sorted(subsets):
        found, strange = _studies(layout, subset, regions)
        problems.extend(strange)
        problems.extend(
            Problem(study.path, "empty study", "no image in the folder")
            for study in found
            if not study.images
        )
        problems.extend(_compare_images(layout, subset, regions, found))
        found, disagreements = _compare_labels(layout, subset, regions, found)
        problems.extend(disagreements)
        studies.extend(found)
    return studies, problems


def regions_in(layout, subsets):
    """Return the names of the regions of some subsets, sorted ("wrist")."""
    return sorted({region_name(name) for subset in subsets for name in _regions(join(layout.data, subset))})


def unlabelled(studies):
    """Return a problem for each study without a label, where others have one."""
    if all(study.label >= 0 for study in studies) or all(study.label < 0 for study in studies):
        return []
    return [
        Problem(study.path, "unlabelled study", "neither folder nor CSV says its label, but those of others")
        for study in studies
        if study.label < 0
    ]


def summarise(problems):
    """Return "5 problems (missing image: 3, empty study: 2)"."""
    counts = {}
    for problem in problems:
        counts[problem.problem] = counts.get(problem.problem, 0) + 1
    kinds = ", ".join(f"{kind}: {count:,}" for kind, count in counts.items())
    return f"{len(problems):,} problem{'s' if len(problems) > 1 else ''} ({kinds})"


def examples(problems):
    """Return the first problems as text, a line each."""
    return "".join(f"\n  {p.path}: {p.problem}: {p.detail}" for p in problems[:_SHOWN])


# Folders


def _folders(folder):
    try:
        return sorted(path for path in folders(folder) if not basename(path).startswith("."))
    except OSError:
        # A folder of someone else's, met on the way to the data set.
        return []


def _regions(folder):
    return [basename(child) for child in _folders(folder) if is_region_name(basename(child))]


def _subsets(folder):
    return tuple(basename(child) for child in _folders(folder) if _regions(child))


def _refuse_inside(root):
    name = basename(root)
    if _regions(root):
        levels, what = 1, "a subset folder"
    elif is_region_name(name):
        levels, what = 2, "the folder of a region"
    elif is_patient_name(name):
        levels, what = 3, "the folder of a patient"
    elif study_label(name) is not None:
        levels, what = 4, "the folder of a study"
    else:
        return
    parent = root
    for _ in range(levels):
        parent = dirname(parent)
    remedy = f"root={parent!r}" + (f" and subset={name!r}" if levels == 1 else ", with subset= and regions=")
    raise ValueError(f"{root!r} is {what} of a data set, not the data set. Pass {remedy}.")


def _names(folder):
    try:
        return tuple(names(folder))
    except NotADirectoryError:
        # A stray file that is named like a folder of the layout.
        return None


def _patients(listed):
    names = sorted(filter(is_patient_name, listed))
    if len({len(name) for name in names}) > 1:
        names.sort(key=natural_key)
    # Of one length they are in natural order already: only their digits differ.
    return names


def _studies(layout, subset, regions):
    """Return the studies of a subset, and a problem for each folder or file that holds images and is none."""
    base = join(layout.data, subset)
    studies = []
    listed = [basename(child) for child in _folders(base)]
    problems = _strangers(base, [name for name in listed if not is_region_name(name)], "XR_REGION")
    for folder in sorted(filter(is_region_name, listed), key=region_name):
        region = region_name(folder)
        if regions is not None and region not in regions:
            continue
        patients = _names(join(base, folder)) or ()
        problems += _strangers(
            join(base, folder), [n for n in patients if not is_patient_name(n)], "patientNNNNN"
        )
        for patient in _patients(patients):
            patient_folder = f"{base}{os.sep}{folder}{os.sep}{patient}"
            inside = _names(patient_folder) or ()
            found = study_names(inside)
            if len(found) < len(inside):
                others = [name for name in inside if name not in found]
                problems += _strangers(patient_folder, others, "studyN_positive")
            for study in found:
                path = f"{patient_folder}{os.sep}{study}"
                files = _names(path)
                if files is not None:
                    key = f"{folder}/{patient}/{study}"
                    images = images_among(path, files)
                    studies.append(Study(subset, region, patient, key, study_label(study), path, images))
    return studies, problems


def _strangers(folder, listed, form):
    """Return a problem for each name that is not of the layout but holds images, which would be lost."""
    problems = []
    for name in sorted(listed, key=natural_key):
        path = join(folder, name)
        # Hidden folders, those of macOS and of network drives.
        if name.startswith((".", "_", "@")):
            continue
        if is_image_name(name) and isfile(path):
            detail = "an image that is in no folder of a study"
        elif isdir(path) and _holds_images(path):
            detail = f"holds images, but its name is not of the form {form}"
        else:
            continue
        problems.append(Problem(path, "outside of the layout", detail))
    return problems


def _holds_images(folder, depth=3):
    inside = [name for name in _names(folder) or () if not name.startswith((".", "_", "@"))]
    if any(map(is_image_name, inside)):
        return True
    return depth > 1 and any(
        _holds_images(path, depth - 1) for name in inside if isdir(path := join(folder, name))
    )


# CSVs


def _csvs(folder):
    return sorted(
        name for name in names(folder) if name.endswith((_IMAGES_CSV, _LABELS_CSV)) and name[0] not in "._"
    )


def _folders_named_in_csvs(root):
    """Return the folders that may be meant by the first component of the CSVs' paths."""
    for name in _csvs(root):
        for line in _lines(join(root, name))[:2]:  # the second, because the first may be a header
            row = _CSV_ROW.match(line)
            if row and row["name"]:
                candidates = [join(folder, row["name"]) for folder in (root, dirname(root))]
                # A user may have renamed the folder: then a child is as good as the name.
                return list(dict.fromkeys(candidates)) + _only_data_set_in(root)
    return []


def _only_data_set_in(root):
    found = [folder for folder in _folders(root) if _subsets(folder)]
    return found if len(found) == 1 else []


def _lines(path):
    text = read_bytes(path).decode("utf-8-sig", errors="replace")
    return text.replace('"', "").replace("\\", "/").splitlines()


def _rows(path, subset, regions):
    """Return [(row number, path from the subset on, without a slash at its end)], and problems."""
    rows, problems = [], []
    start = f"{subset}/XR_"
    for number, line in enumerate(_lines(path), 1):
        at = line.find(start)
        if at > 0 and line[at - 1] != "/":
            at = line.find(f"/{start}") + 1 or -1
        if at >= 0:
            rows.append((number, line[at:]))
        elif line.strip() and not (number == 1 and "/" not in line):  # a header is no row
            detail = f"row {number} is {line!r}, not a path below {subset}/"
            problems.append(Problem(path, "unreadable CSV row", detail))
    if regions is not None:
        rows = [(number, row) for number, row in rows if region_name(row.split("/", 2)[1]) in regions]
    return rows, problems


def _compare_images(layout, subset, regions, studies):
    name = subset + _IMAGES_CSV
    csv = join(layout.csvs, name)
    if not isfile(csv):
        return []
    rows, problems = _rows(csv, subset, regions)
    listed = {row.rstrip(): number for number, row in rows}
    present = dict.fromkeys(f"{subset}/{study.study}/{image}" for study in studies for image in study.images)
    if listed.keys() == present.keys():
        return problems
    for row, number in listed.items():
        # AppleDouble twins that found their way into a CSV are no images here either.
        if row not in present and not basename(row).startswith("."):
            problems.append(Problem(_absolute(layout, row), "missing image", f"row {number} of {name}"))
    problems.extend(
        Problem(_absolute(layout, row), "unlisted image", f"on disk, but not in {name}")
        for row in present
        if row not in listed
    )
    return problems


def _compare_labels(layout, subset, regions, studies):
    name = subset + _LABELS_CSV
    csv = join(layout.csvs, name)
    if not isfile(csv):
        return studies, []
    rows, problems = _rows(csv, subset, regions)
    by_row = {f"{subset}/{study.study}": study for study in studies}
    said = {}
    for number, text in rows:
        row, _, value = text.rpartition(",")
        row, value = row.strip().rstrip("/"), value.strip()
        if value not in ("0", "1"):
            detail = f"row {number} is {text!r}; it must end in ,0 (normal) or ,1 (abnormal)"
            problems.append(Problem(csv, "unreadable CSV row", detail))
        elif row not in by_row:
            problems.append(Problem(_absolute(layout, row), "missing study", f"row {number} of {name}"))
        else:
            label = by_row[row].label if by_row[row].label >= 0 else said.get(row, int(value))
            said[row] = label
            if label != int(value):
                detail = f"row {number} of {name} says {value}, the folder or an earlier row {label}"
                problems.append(Problem(by_row[row].path, "label disagrees", detail))
    problems.extend(
        Problem(study.path, "unlisted study", f"on disk, but not in {name}")
        for row, study in by_row.items()
        if row not in said
    )
    if any(study.label < 0 for study in studies):
        studies = [
            study._replace(label=said.get(row, -1)) if study.label < 0 else study
            for row, study in by_row.items()
        ]
    return studies, problems


def _absolute(layout, row):
    return join(layout.data, row.replace("/", os.sep))
