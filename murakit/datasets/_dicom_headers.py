"""Whose radiograph a DICOM file is, as its header says: patient, study and body part."""

import datetime
from typing import NamedTuple

from ..io._filesystem import isdir
from ..io._images import dicom_tags
from ..utils._validation import as_identifier
from ._paths import images_in, region_name

UNKNOWN_REGION = "unknown"

_KEYWORDS = (
    "PatientID",
    "StudyInstanceUID",
    "BodyPartExamined",
    "Modality",
    "Rows",
    "SOPInstanceUID",
    "NumberOfFrames",
    "PatientSex",
    "PatientAge",
    "PatientBirthDate",
    "ViewPosition",
    "ImageLaterality",
    "Laterality",
    "Manufacturer",
    "StationName",
    "AcquisitionDate",
    "StudyDate",
)

# Years in the units of an Age String (PS3.5 6.2).
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


class Origin(NamedTuple):
    """What a header says of its radiograph."""

    patient: str
    study: str  # "" where it is not stated
    region: str  # "hand", or "unknown" where it is not stated
    has_pixels: bool
    modality: str
    instance: str  # SOPInstanceUID, "" where it is not stated
    n_frames: int
    about: dict  # sex, age and the like, as `metadata_of` names them; None where they are not stated


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
    origins = []
    for image in images_in(path):
        if (origin := _origin_of_file(image)) is None:
            return None
        origins.append((origin, image))
    if not origins:
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
    text = {keyword: str(tags.get(keyword) or "").strip() for keyword in _KEYWORDS}
    return Origin(
        as_identifier(text["PatientID"]),
        text["StudyInstanceUID"],
        region_name(text["BodyPartExamined"]) or UNKNOWN_REGION,
        "Rows" in tags,
        text["Modality"],
        text["SOPInstanceUID"],
        int(text["NumberOfFrames"]) if text["NumberOfFrames"].isdecimal() else 1,
        metadata_of(text),
    )


def metadata_of(text: dict[str, str]) -> dict:
    """Return what the tags of a header, as text, say beside patient, study and body part."""
    date = _date(text["AcquisitionDate"]) or _date(text["StudyDate"])
    return {
        "sex": text["PatientSex"] or None,
        "age": _age(text["PatientAge"], text["PatientBirthDate"], date),
        "view_position": text["ViewPosition"] or None,
        "laterality": text["ImageLaterality"] or text["Laterality"] or None,
        "manufacturer": text["Manufacturer"] or None,
        "station": text["StationName"] or None,
        "date": date,
    }


def _date(text):
    try:
        return datetime.datetime.strptime(text, "%Y%m%d") if text else None
    except ValueError:
        return None


def _age(age, born, date):
    """Return the age in years, or None where it is not stated."""
    if len(age) > 1 and age[:-1].isdecimal() and age[-1] in _YEARS:
        return int(age[:-1]) * _YEARS[age[-1]]
    born = _date(born)
    return None if born is None or date is None or date < born else (date - born).days / 365.25
