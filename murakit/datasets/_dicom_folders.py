"""A folder of DICOM files as the columns of a data set; what it lacks are labels."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping

import pandas as pd
from numpy.typing import NDArray

from ..io._filesystem import DICOM_SUFFIXES, absolute, as_folder, basename, isdir, join, names
from ._dicom_headers import Origin, origin_of, patient_of
from ._paths import natural_key, objects
from ._tables import labels

# Modalities whose files are radiographs, and nothing without pixels.
_RADIOGRAPHY = {"CR", "DX", "RG"}


def folder_of(table: object) -> str | None:
    """Return the absolute path of the folder or archive that is meant, or None for anything else."""
    if not isinstance(table, (str, os.PathLike)):
        return None
    folder = as_folder(absolute(os.path.expanduser(os.fspath(table))))
    return folder if isdir(folder) else None


def folder_columns(
    folder: str, label: Mapping | pd.Series | None, named: Mapping[str, object]
) -> tuple[str, dict, list]:
    """Return what to call a folder, the columns that `load_radiographs` makes of it, and problems.

    Parameters
    ----------
    folder : str
    label : Mapping, Series or None
        Labels by file or study.
    named : dict
        Arguments that only a table can have.
    """
    if given := [name for name, value in named.items() if value is not None]:
        raise ValueError(
            f"{', '.join(f'{name}=' for name in given)}: for a table, but {folder!r} is a folder, whose DICOM headers "
            "say patient, study and region. Leave it out, or pass a table that lists the files."
        )
    found, problems = origins_below(folder)
    if problems:
        warnings.warn(
            f"{folder!r}: {_summary(problems)}; see the Bunch's `problems`.",
            UserWarning,
            stacklevel=3,
        )
    if not found:
        raise ValueError(
            f"The folder {folder!r} holds no DICOM radiograph. Pass the folder of the .dcm files, or for other "
            "images a table that says their patients."
        )
    columns = {
        "path": objects(list(found)),
        "region": objects([origin.region for origin in found.values()]),
        "patient": objects([patient_of(origin, path) for path, origin in found.items()]),
        "study": objects([origin.study or path for path, origin in found.items()]),
        "target": None if label is None else _labels(folder, found, label),
        "image": objects([basename(path) for path in found]),
    }
    columns |= {
        name: [origin.about[name] for origin in found.values()] for name in next(iter(found.values())).about
    }
    return f"the folder {folder!r}", columns, problems


def origins_below(folder: str) -> tuple[dict[str, Origin], list[tuple[str, str, str]]]:
    """Return the `Origin` of each radiograph below a folder by its path, and the problems."""
    found, problems = {}, []
    for path in _files_below(folder, set()):
        # The index of a medium is DICOM as well, and no radiograph.
        origin = None if basename(path) == "DICOMDIR" else _origin(path)
        if origin is None:
            continue
        if origin.has_pixels and origin.n_frames > 1:
            detail = f"{origin.n_frames} frames: a radiograph has one; left out. Export the frames one by one"
            problems.append((path, "several frames", detail))
        elif origin.has_pixels:
            found[path] = origin
        else:
            damaged = ": the file is damaged, fetch it anew" if origin.modality in _RADIOGRAPHY else ""
            problems.append((path, "no pixels", f"modality {origin.modality or 'not stated'}{damaged}"))
    return found, problems + _repeated_instances(found)


def _repeated_instances(found: dict[str, Origin]) -> list[tuple[str, str, str]]:
    """Return a problem for each file with the SOPInstanceUID of another one: the same image, exported twice."""
    first, problems = {}, []
    for path, origin in found.items():
        other = first.setdefault(origin.instance, path) if origin.instance else path
        if other == path:
            continue
        if found[other].patient == origin.patient:
            whose = "of the same patient"
        else:
            whose = f"there of patient {found[other].patient!r}, here of {origin.patient!r}: a split would part them"
        problems.append((path, "repeated instance", f"has the SOPInstanceUID of {other!r}, {whose}"))
    return problems


def _summary(problems: list[tuple[str, str, str]]) -> str:
    what = {
        "no pixels": "passed over {} DICOM files without pixels",
        "several frames": "passed over {} DICOM files of several frames",
        "repeated instance": "{} DICOM files repeat an image",
    }
    counts = Counter(problem for _, problem, _ in problems)
    return ", ".join(what[problem].format(count) for problem, count in counts.items())


def _origin(path: str) -> Origin | None:
    try:
        return origin_of(path)
    except (OSError, ValueError):
        # Whatever cannot be read and is not called a DICOM file is one of the others in the folder.
        if path.lower().endswith(DICOM_SUFFIXES):
            raise
        return None


def _files_below(folder: str, seen: set[str]) -> Iterator[str]:
    # A link to a folder above would be followed for ever.
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for name in sorted(names(folder), key=natural_key):
        if name.startswith("."):
            continue
        path = join(folder, name)
        if isdir(path):
            yield from _files_below(path, seen)
        else:
            yield path


def _labels(folder: str, found: dict[str, Origin], label: Mapping | pd.Series) -> NDArray:
    by_key = _by_key(label)
    values, used = [], set()
    for path, origin in found.items():
        within = path[len(folder) :].lstrip("/" + os.sep).replace(os.sep, "/")
        key = next((key for key in (within, path, origin.study) if key in by_key), None)
        if key is None:
            raise ValueError(
                f"label= has neither the file {within!r} nor its study {origin.study!r}. Add its label, or take the "
                f"file out of {folder!r}."
            )
        used.add(key)
        values.append(by_key[key])
    if strange := [key for key in by_key if key not in used]:
        raise ValueError(
            f"label= has {len(strange)} keys that are neither a file in {folder!r} nor a study of one: "
            f"{', '.join(map(repr, strange[:3]))}. Correct or drop them; a file is named by its path in the folder."
        )
    rows = pd.DataFrame({"label": objects(values)}, index=range(len(values)))
    return labels(f"the folder {folder!r}", rows, "label")


def _by_key(label: Mapping | pd.Series) -> dict[str, object]:
    if isinstance(label, pd.Series):
        if not label.index.is_unique:
            twice = label.index[label.index.duplicated()][0]
            raise ValueError(
                f"label= has {twice!r} twice in its index. Keep one label for each file or study."
            )
    elif not isinstance(label, Mapping):
        raise TypeError(
            f"label= of a folder must be a mapping or Series from file or study to label, got {type(label).__name__}. "
            "Of a table, pass table.set_index('file')['label']."
        )
    return {
        str(os.fspath(key) if isinstance(key, os.PathLike) else key): value for key, value in label.items()
    }
