"""The file of a model: tensors in the safetensors format, with a JSON text in the header.

The text describes the tensors. A SHA-256 of both shows whether either was changed. Nothing here is a pickle: reading
a file from a stranger runs no code of theirs.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..utils._validation import plain

FORMAT = "murakit"

# Raised with every change that the present version would misread.
FORMAT_VERSION = 1

# Longest header that is read, in bytes; that of a model of the largest data sets takes a tenth of it.
_MOST_HEADER = 16 * 2**20

# The first bytes of files that joblib, pickle and torch.save write.
_PICKLES = (b"\x80", b"PK\x03\x04", b"\x1f\x8b", b"\x78", b"BZh", b"\xfd7zXZ", b"\x04\x22\x4d\x18")


class ModelFileError(ValueError):
    """A file that cannot be loaded as a model; the message names it, the cause and the remedy."""


class ModelFile:
    """A model's file that is open.

    Parameters
    ----------
    handle : safe_open
    text : str
        The JSON text of the header.
    digest : str
        The SHA-256 in the header.

    Attributes
    ----------
    document : dict
        What the text says.
    version : int
        The version of the format.
    """

    def __init__(self, handle: safe_open, text: str, digest: str) -> None:
        self.handle = handle
        self.text = text
        self.digest = digest
        self.document = _parsed(text)
        if field(self.document, "format", str) != FORMAT:
            raise ModelFileError(_NO_MODEL)
        self.version = field(self.document, "format_version", int)
        if not 1 <= self.version <= FORMAT_VERSION:
            raise ModelFileError(
                f"it has format version {self.version}, and this murakit reads versions up to {FORMAT_VERSION}. "
                "Upgrade: pip install --upgrade murakit."
            )

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all tensors by name; raise for damaged ones.

        These are tensors, or a text, that are not those that were written, and weights that no training leaves:
        see `damage_of`.
        """
        names = self.handle.keys()
        found = {name: self.handle.get_tensor(name) for name in names}
        if _digest(self.text, found) != self.digest:
            raise ModelFileError(
                "its weights or its header have been changed or swapped since murakit wrote it (their SHA-256 is "
                "another). Fetch the file anew from where it was saved."
            )
        if damage := damage_of(found):
            raise ModelFileError(f"{damage}. The training failed, or the file was damaged: train it again.")
        return found


def damage_of(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Return what is wrong with the first damaged one of some weights; None where all are sound.

    Parameters
    ----------
    tensors : dict of str to Tensor
        A state dict.
    """
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
            return f"the tensor {name!r} is quantised, sparse, complex or without values"
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            n_bad = int((~torch.isfinite(tensor)).sum())
            return f"{n_bad} of the {tensor.numel()} values of the tensor {name!r} are NaN or infinite"
        if name.endswith("running_var") and tensor.numel() and tensor.min() < 0:
            return (
                f"the tensor {name!r}, a BatchNorm's variance, has the negative value {float(tensor.min()):g}"
            )
    return None


_NO_MODEL = (
    "it holds no model of murakit. Weights alone go into weights= of a new MuraClassifier; models are written by "
    "murakit.save_model."
)


def is_model(path: str | os.PathLike) -> bool:
    """Tell whether a safetensors file says that it is a model of murakit."""
    try:
        with safe_open(path, framework="pt") as handle:
            return FORMAT in (handle.metadata() or {})
    except (SafetensorError, OSError):
        return False


def prefix_of(at: int) -> str:
    """Return how the names of a file's tensors begin that belong to the model of a position."""
    return f"models.{at}."


def single_model(file: ModelFile) -> dict[str, Any]:
    """Return the record of the one model that a file holds; raise where there are several."""
    records = field(file.document, "models", list)
    if len(records) != 1:
        raise ModelFileError(
            f"it holds {len(records)} models ({field(file.document, 'kind', str)[:40]}), and weights are those of one. "
            "Save one of them alone, for example save_model(clf.estimators_['wrist'], ...)."
        )
    return records[0]


def write_model(
    path: str | os.PathLike, document: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> None:
    """Write a document and tensors, each copied in row-major order, as one file."""
    laid_out = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    text = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **document}, allow_nan=False)
    written = save(laid_out, metadata={FORMAT: text, "sha256": _digest(text, laid_out)})
    # Not save_file, whose files nobody but their owner may read.
    with open(path, "wb") as file:
        file.write(written)


@contextmanager
def opened(path: str | os.PathLike) -> Iterator[ModelFile]:
    """Open the file of a model; errors, also those of the body of the `with`, name the file.

    Parameters
    ----------
    path : str or os.PathLike

    Yields
    ------
    file : ModelFile
    """
    path = os.path.expanduser(os.fspath(path))
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path!r}: there is no such file. Pass what murakit.save_model wrote.")
    try:
        _check_start(path)
        with safe_open(path, framework="pt") as handle:
            header = handle.metadata() or {}
            if FORMAT not in header or "sha256" not in header:
                raise ModelFileError(_NO_MODEL)
            yield ModelFile(handle, header[FORMAT], header["sha256"])
    except ModelFileError as error:
        raise ModelFileError(f"{path!r} cannot be loaded: {error}") from error.__cause__
    except SafetensorError as error:
        raise ModelFileError(
            f"{path!r} cannot be loaded: it is no whole safetensors file ({error}). Was it cut short on the way? "
            "Fetch it anew from where it was saved."
        ) from error
    except RecursionError as error:
        raise ModelFileError(
            f"{path!r} cannot be loaded: its header is nested more deeply than any that murakit writes."
        ) from error


def _check_start(path: str) -> None:
    """Refuse what is no safetensors file before anything large of it is read."""
    with open(path, "rb") as file:
        start = file.read(9)
    n_header, is_header = int.from_bytes(start[:8], "little"), start[8:] == b"{"
    if is_header and n_header <= os.path.getsize(path) - 8:
        if n_header <= _MOST_HEADER:
            return
        raise ModelFileError(
            f"its header takes {n_header:,} bytes, and murakit reads {_MOST_HEADER:,} at the most. Keep less in "
            "metrics= of save_model."
        )
    if len(start) == 9 and not is_header and start.startswith(_PICKLES):
        raise ModelFileError(
            "it is no safetensors file but looks like one of joblib, pickle or torch.save, which can run code while "
            "it is read. Where you trust it, read it with joblib.load, and save it with murakit.save_model."
        )
    raise ModelFileError(
        "it is no whole safetensors file. Pass what murakit.save_model wrote; if it did, the file was damaged: fetch "
        "it anew from where it was saved."
    )


def _parsed(text: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        found = json.loads(text, parse_constant=refuse)
    except ValueError as error:
        raise ModelFileError(f"its header is no JSON text ({error}). Fetch the file anew.") from error
    if not isinstance(found, dict):
        raise ModelFileError(_NO_MODEL)
    return found


def _digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# -- what the text holds --------------------------------------------------------------------


def field(record: Any, name: str, *kinds: type | None) -> Any:
    """Return an entry of a record that was read; raise where it is not there or of another type.

    Parameters
    ----------
    record : dict
    name : str
    *kinds : type or None
        None: the entry may be null.
    """
    types = tuple(type(None) if kind is None else kind for kind in kinds)
    value = record.get(name) if isinstance(record, dict) else None
    fits = isinstance(value, types) and (not isinstance(value, bool) or bool in types)
    if not isinstance(record, dict) or name not in record or not fits:
        raise ModelFileError(
            f"{name!r} in its header is missing or of another type than murakit writes. Save the model anew with "
            "murakit.save_model."
        )
    return value


def known_patients(record: dict[str, Any]) -> dict[str, list | None]:
    """Return the patients of a model's record, ``train_patients`` and ``validation_patients``, each or None."""
    training = field(record, "training", dict)
    known = {name: field(training, name, list, None) for name in ("train_patients", "validation_patients")}
    for name, names in known.items():
        if names is not None and not all(isinstance(patient, bool | int | float | str) for patient in names):
            raise ModelFileError(f"its {name} are no texts or numbers. Save the model anew.")
    return known


def encoded(value: Any, where: str) -> Any:
    """Return a value as JSON holds it; `where` names it in errors.

    Floats keep all their digits. What JSON does not know (tuples, keys that are no text, NaN) becomes an object
    with one key that begins with ``$``.
    """
    value = plain(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, list):
        return [encoded(part, where) for part in value]
    if isinstance(value, tuple):
        return {"$tuple": [encoded(part, where) for part in value]}
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: encoded(part, where) for key, part in value.items()}
        return {"$dict": [[encoded(key, where), encoded(part, where)] for key, part in value.items()]}
    raise ValueError(
        f"{where} holds {value!r}, a {type(value).__name__}: a model's file keeps numbers, texts, lists and dicts of "
        "them. Replace it, or use joblib.dump."
    )


def decoded(value: Any) -> Any:
    """Return what `encoded` was given; arrays come back as lists."""
    if isinstance(value, list):
        return [decoded(part) for part in value]
    if not isinstance(value, dict):
        return value
    if not any(key.startswith("$") for key in value):
        return {key: decoded(part) for key, part in value.items()}
    try:
        ((tag, content),) = value.items()
        if tag == "$float":
            return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[content]
        parts = [decoded(part) for part in content]
        return {"$tuple": tuple, "$dict": dict}[tag](parts)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ModelFileError(
            f"its header holds {list(value)[:3]}, which murakit does not write. Save the model anew with "
            "murakit.save_model."
        ) from error
