"""`save_model` and `load_model`: a model as one file that is no pickle."""

import json
import os
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from ..estimators._classifier import MuraClassifier
from ..estimators._per_region import PerRegionClassifier
from ..evaluation._result import Evaluation
from ..io._atomic import written_whole
from ..io._images import PIXELS
from ..io._safetensors import ModelFileError, decoded, encoded, field, opened, prefix_of, write_model
from ..utils._typing import PathLike
from ..utils._versions import __version__, installed_versions
from ._record import classifier_of, record_of, warn_of

_SUFFIX = ".safetensors"

_PACKAGES = ("torch", "torchvision", "scikit-learn", "skorch", "numpy", "pandas", "pillow")


def save_model(
    clf: MuraClassifier | PerRegionClassifier,
    path: PathLike,
    *,
    metrics: Mapping[str, Any] | Evaluation | None = None,
    patients: str | None = "hash",
    overwrite: bool = False,
) -> None:
    """Save a fitted classifier as one file that `load_model` reads without running code.

    The file is in the safetensors format [1]_: the weights, and beside them one JSON text with the
    parameters, classes, preprocessing, history, patients, versions and metrics. A SHA-256 over both
    shows whether either was changed. The file is read back before it takes its name: what is there
    can be loaded.

    Parameters
    ----------
    clf : MuraClassifier or PerRegionClassifier
        Fitted. Other estimators, such as a search or a calibrated classifier, are for
        ``joblib.dump``.
    path : str or os.PathLike
        The file to write, ``*.safetensors``.
    metrics : dict or Evaluation, default=None
        How good the model is, for those who get it: numbers and texts, or what `evaluate` returned.
        `model_info` shows them.
    patients : {"hash", "keep"} or None, default="hash"
        How to keep the patients that the model knows (``train_patients_``,
        ``validation_patients_``). ``"hash"``: as salted SHA-256 hashes, with which `evaluate` and
        warm starts still recognise these patients. ``"keep"``: by name, where the names may
        be seen by all who get the file. None: not at all, and `evaluate` cannot refuse them.
    overwrite : bool, default=False
        Whether to take the place of a file.

    Raises
    ------
    TypeError
        For another estimator.
    sklearn.exceptions.NotFittedError
        For a classifier that is not fitted.
    ValueError
        For values that JSON cannot hold, and where the backbone was changed after the fit.
    FileExistsError
        Where the file is there already and `overwrite` is False.

    Warns
    -----
    UserWarning
        Where a parameter cannot be kept: callbacks that are objects, a random state that is a
        generator, and the path of `weights`.

    See Also
    --------
    load_model : Read the file.
    model_info : Look at what it says without loading it.
    to_onnx : A model for programs without murakit.

    Notes
    -----
    Hashes hide names from readers, not from somebody who tries all names: where patients are
    numbered, pass None, or give `fit` groups that only you can translate.

    As ``weights=`` of another `MuraClassifier`, the file is where a training on other radiographs starts.

    `cache`, `checkpoint` and a GPU as `device` are not kept, for they are of this machine; nor are metadata requests
    (``set_fit_request``) and the momenta of `partial_fit`.

    References
    ----------
    .. [1] https://huggingface.co/docs/safetensors

    Examples
    --------
    >>> import tempfile
    >>> from murakit import MuraClassifier, load_model, load_mura, make_mura, save_model
    >>> folder = tempfile.mkdtemp()
    >>> mura = load_mura(make_mura(folder + "/mura", n_patients=12, image_size=64, random_state=0))
    >>> clf = MuraClassifier(weights=None, image_size=32, max_epochs=1, unfreeze="head", random_state=0)
    >>> clf = clf.fit(mura.data, mura.target)
    >>> save_model(clf, folder + "/model.safetensors")
    >>> loaded = load_model(folder + "/model.safetensors")
    >>> bool((loaded.predict_proba(mura.data) == clf.predict_proba(mura.data)).all())
    True
    """
    kind, parts, about = _parts_of(clf)
    path = os.path.expanduser(os.fspath(path))
    if not path.endswith(_SUFFIX):
        raise ValueError(f"{path!r} is no name for a file of safetensors: let it end with {_SUFFIX!r}.")
    if patients not in ("hash", "keep", None):
        raise ValueError(f"patients={patients!r} is not known: pass 'hash', 'keep' or None.")
    if isinstance(metrics, Evaluation):
        metrics = json.loads(metrics.to_json())
    records: list[dict[str, Any]] = []
    not_kept: dict[str, None] = {}
    tensors: dict[str, torch.Tensor] = {}
    for at, part in enumerate(parts):
        record, lacking = record_of(part, patients)
        records.append(record)
        not_kept |= dict.fromkeys(lacking)
        tensors |= {prefix_of(at) + name: tensor for name, tensor in part._net.module_.state_dict().items()}
    document = {
        "kind": kind,
        "about": about,
        "versions": _versions(),
        "metrics": encoded(metrics, "metrics"),
        "not_kept": list(not_kept),
        "models": records,
    }
    with written_whole(path, overwrite=overwrite) as unfinished:
        write_model(unfinished, document, tensors)
        try:
            load_model(unfinished)
        except ModelFileError as error:
            raise ValueError(
                f"{path!r} was not written, for it could not be loaded again ({error}). Where the network was changed "
                "by hand, use joblib.dump."
            ) from error
    warn_of(not_kept)


def load_model(path: PathLike) -> MuraClassifier | PerRegionClassifier:
    """Load a classifier that `save_model` wrote.

    It predicts as the saved one did, bit for bit on the same kind of machine, and can be trained
    further. Nothing in the file is run, and nothing in it makes murakit read or write another file.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    Returns
    -------
    clf : MuraClassifier or PerRegionClassifier
        Fitted, on the CPU.

    Raises
    ------
    ModelFileError
        For a pickle, a damaged file, one without a model of murakit, weights or a header that were
        changed since, weights that are NaN or infinite, values that no classifier has, and a file of a
        newer murakit.
    FileNotFoundError
        Where there is no such file.

    See Also
    --------
    save_model : Write the file, and what is not kept in it.

    Notes
    -----
    The SHA-256 shows damage, not forgery: whoever can change a file can also give it a new hash. A
    forged file may predict nonsense, but it cannot run code.

    ``net_.history`` is empty; ``history_`` is as it was.

    References
    ----------
    https://huggingface.co/docs/safetensors

    Examples
    --------
    >>> from murakit import load_model
    >>> load_model("model.joblib")
    Traceback (most recent call last):
    FileNotFoundError: 'model.joblib': there is no such file. Pass what murakit.save_model wrote.
    """
    with opened(path) as file:
        return _READERS[file.version](file)


def model_info(path: PathLike) -> dict[str, Any]:
    """Return what the file of a model says about it, without reading its weights.

    Parameters
    ----------
    path : str or os.PathLike
        A file that `save_model` wrote.

    Returns
    -------
    info : dict
        ``"format_version"``, ``"kind"``, ``"about"``, ``"versions"``, ``"metrics"``, ``"not_kept"``, and
        ``"models"``: of each network its parameters, classes, preprocessing and training.

    Raises
    ------
    ModelFileError
        As `load_model` does, but for weights, which are not looked at: whether the file was changed
        is not known.

    See Also
    --------
    load_model : Load it, and check all of it.

    References
    ----------
    https://huggingface.co/docs/safetensors

    Examples
    --------
    >>> import tempfile
    >>> from murakit import MuraClassifier, load_mura, make_mura, model_info, save_model
    >>> folder = tempfile.mkdtemp()
    >>> mura = load_mura(make_mura(folder + "/mura", n_patients=12, image_size=64, random_state=0))
    >>> clf = MuraClassifier(weights=None, image_size=32, max_epochs=1, unfreeze="head", random_state=0)
    >>> save_model(
    ...     clf.fit(mura.data, mura.target), folder + "/model.safetensors", metrics={"kappa": 0.1}
    ... )
    >>> model_info(folder + "/model.safetensors")["metrics"]
    {'kappa': 0.1}
    """
    with opened(path) as file:
        return decoded({name: value for name, value in file.document.items() if name != "format"})


def _parts_of(estimator):
    """Return the kind of an estimator, its classifiers, and its own attributes."""
    for kind, (cls, parts, about, _) in _KINDS.items():
        if type(estimator) is cls:
            check_is_fitted(estimator)
            return kind, parts(estimator), about(estimator)
    raise TypeError(
        f"save_model keeps a fitted {' or '.join(_KINDS)}, not a {type(estimator).__name__}: use joblib.dump for it, "
        "or save the MuraClassifier inside of it (a search has it as best_estimator_)."
    )


def _only(parts, about):
    if len(parts) != 1:
        raise ModelFileError(f"it holds {len(parts)} models where one is meant. Save the model anew.")
    return parts[0]


def _parts_by_region(estimator):
    if others := [part for part in estimator.estimators_ if type(part) is not MuraClassifier]:
        raise TypeError(
            f"save_model keeps a PerRegionClassifier of MuraClassifiers, not of {type(others[0]).__name__}: use "
            "joblib.dump."
        )
    return estimator.estimators_


def _about_regions(estimator):
    return {"regions": [str(region) for region in estimator.regions_]} | {
        name: encoded(getattr(estimator, name), name) for name in _OF_REGIONS
    }


def _by_region(parts, about):
    regions = field(about, "regions", list)
    fits = all(isinstance(region, str) for region in regions) and sorted(set(regions)) == regions
    if not parts or not fits or len(regions) != len(parts):
        raise ModelFileError(
            "its regions do not fit its models. Save the model anew with murakit.save_model."
        )
    params = {name: decoded(about.get(name)) for name in _OF_REGIONS}
    if not isinstance(params["start_from_all"], bool) or not isinstance(params["n_jobs"], int | None):
        raise ModelFileError("its parameters are none that a PerRegionClassifier can have.")
    try:
        classes = np.unique(np.concatenate([part.classes_ for part in parts]))
    except TypeError as error:
        raise ModelFileError(
            "the classes of its regions are of different types. Save the model anew."
        ) from error
    estimator = PerRegionClassifier(clone(parts[0]), **params)
    estimator.regions_ = np.array(regions, dtype=object)
    estimator.estimators_, estimator.classes_, estimator.n_features_in_ = parts, classes, 1
    return estimator


# Parameters of a PerRegionClassifier, beside the estimator.
_OF_REGIONS = ("start_from_all", "n_jobs")

# Of each kind of estimator: its type, a function that returns its classifiers, one that returns its own
# attributes, and one that makes it of both.
_KINDS = {
    "MuraClassifier": (MuraClassifier, lambda clf: [clf], lambda clf: {}, _only),
    "PerRegionClassifier": (PerRegionClassifier, _parts_by_region, _about_regions, _by_region),
}


def _versions():
    return {
        "murakit": __version__,
        "python": platform.python_version(),
        **installed_versions(_PACKAGES),
        # Of the pixels that murakit makes of a file.
        "pixels": PIXELS,
    }


def _read_1(file):
    kind, records = field(file.document, "kind", str), field(file.document, "models", list)
    if kind not in _KINDS:
        raise ModelFileError(
            f"it holds a {kind[:40]!r}, which this murakit does not know ({', '.join(_KINDS)}). A newer murakit may "
            "have written it: upgrade."
        )
    *_, assemble = _KINDS[kind]
    tensors = file.tensors()
    parts = []
    for at, record in enumerate(records):
        prefix = prefix_of(at)
        own = [name for name in tensors if name.startswith(prefix)]
        state = {name.removeprefix(prefix): tensors.pop(name) for name in own}
        parts.append(classifier_of(record, state))
    if tensors:
        raise ModelFileError(
            f"its header describes {len(parts)} models, and {len(tensors)} tensors belong to none of them "
            f"{sorted(tensors)[:3]}. Save the model anew with murakit.save_model."
        )
    return assemble(parts, field(file.document, "about", dict) if "about" in file.document else {})


# One reader for each version of the format that was ever written.
_READERS = {1: _read_1}
