"""Whose radiograph a DICOM file is, as its header says: patient, study and body part."""

from typing import NamedTuple

from ..io._filesystem import isdir
from ..io._images import dicom_tags
from ._paths import images_in, region_name

UNKNOWN_REGION = "unknown"

_KEYWORDS = ("PatientID", "StudyInstanceUID", "BodyPartExamined", "Modality", "Rows")


class Origin(NamedTuple):
    """What a header says of its radiograph."""

    patient: str
    study: str  # "" where it is not stated
    region: str  # "hand", or "unknown" where it is not stated
    has_pixels: bool
    modality: str


def origin_of(path: str) -> Origin | None:
    """Return the `Origin` of a DICOM file or of a study folder of them, or None for other files.

    Raises
    ------
    UnreadableImage
        For a file that is no sound DICOM.
    ValueError
        For a folder with several patients.
    """
    if not isdir(path):
        return _origin_of_file(path)
    origins = [(_origin_of_file(image), image) for image in images_in(path)]
    if not origins or any(origin is None for origin, _ in origins):
        return None
    (first, image), *others = origins
    for origin, other in others:
        if origin.patient != first.patient:
            raise ValueError(
                f"The folder {path!r} holds two patients, {first.patient!r} ({image!r}) and {origin.patient!r} "
                f"({other!r}). A study has one: list the files instead of the folder, or part them."
            )
    return first


def patient_of(origin: Origin, path: str) -> str:
    """Return the patient of a file's `Origin`, which must state one."""
    if not origin.patient:
        raise ValueError(
            f"{path!r} has no PatientID in its DICOM header, so its patient cannot be told. Fill it in, leave "
            "the file out, or pass a table with a column patient=."
        )
    return origin.patient


def _origin_of_file(path: str) -> Origin | None:
    tags = dicom_tags(path, _KEYWORDS)
    if tags is None:
        return None
    patient, study, region, modality = (str(tags.get(keyword) or "").strip() for keyword in _KEYWORDS[:4])
    return Origin(patient, study, region_name(region) or UNKNOWN_REGION, "Rows" in tags, modality)
