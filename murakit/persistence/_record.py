"""A fitted `MuraClassifier` as a record of plain values and its tensors, and back."""

import os
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone

from ..datasets._patients import hashed, salt_of
from ..estimators._classifier import MuraClassifier
from ..io._safetensors import ModelFileError, decoded, encoded, field, known_patients
from ..networks._build import count_weights
from ..networks._frozen import unshare_weights
from ..training._net import check_callbacks, name_of_callback
from ..utils._random import seeds_of
from ..utils._validation import plain

# Kinds of NumPy types that labels and columns of a history may have.
_KINDS = "biufUO"

# Largest side of images, in pixels, that a file may ask for: twice that of the largest radiographs' detectors.
_LARGEST_SIDE = 8192

# How many times as many weights as the file holds a network may have that is built to be compared with it.
_MOST_UNUSED = 2


def record_of(clf: MuraClassifier, patients: str | None) -> tuple[dict[str, Any], list[str]]:
    """Return a classifier as plain values for a file, and what of it cannot be kept.

    Parameters
    ----------
    clf : MuraClassifier
        Fitted.
    patients : {"hash", "keep"} or None

    Returns
    -------
    record : dict
    not_kept : list of str
        Sentences, for a warning.
    """
    network = clf._net.module_
    if network.name != clf.backbone:
        raise ValueError(
            f"The network was trained as backbone={network.name!r}, and the parameter was set to {clf.backbone!r} "
            "since. Set it back, or fit again."
        )
    clf._validate_params()
    parameters, not_kept = _parameters(clf)
    known = {"train_patients": clf.train_patients_, "validation_patients": clf.validation_patients_}
    salt = salt_of(*(names for names in known.values() if names is not None))
    return {
        "parameters": parameters,
        "network": {
            "backbone": network.name,
            "stages": list(network.stages),
            # The parameter may have been changed since; stored features are those of the last fit.
            "unfreeze": clf._net.unfreeze,
        },
        "classes": _labels(clf.classes_),
        "preprocessing": _preprocessing(clf, network),
        "training": {
            "n_epochs": int(clf.n_epochs_),
            "best_epoch": int(clf.best_epoch_),
            "validation_score": encoded(clf.validation_score_, "validation_score_"),
            "history": [_column(name, values) for name, values in clf.history_.items()],
            **{name: _patients(names, patients, salt) for name, names in known.items()},
        },
    }, not_kept


def classifier_of(record: dict[str, Any], state: dict[str, torch.Tensor]) -> MuraClassifier:
    """Return the classifier that a record describes; the reverse of `record_of`.

    Parameters
    ----------
    record : dict
        As it was read: nothing of it is trusted.
    state : dict of str to Tensor
        The state dict of its network.

    Returns
    -------
    clf : MuraClassifier
    """
    clf = _with_parameters(field(record, "parameters", dict))
    classes = _classes(field(record, "classes", dict))
    n_outputs = state["head.bias"].numel() if "head.bias" in state else 0
    # A forged header could otherwise ask for a layer that fills the memory. One output may mean two classes.
    if len(classes) > max(2, n_outputs):
        raise ModelFileError(
            f"it has {len(classes)} classes, and a last layer for {n_outputs}. Save the model anew with "
            "murakit.save_model."
        )
    network = field(record, "network", dict)
    backbone = field(network, "backbone", str)
    if clf.backbone != backbone:
        raise ModelFileError(_other_stages(backbone))
    # Building a network takes the memory of its weights, so a header must not name one that the file does not hold.
    n_built, n_found = _n_weights(backbone), sum(tensor.numel() for tensor in state.values())
    if n_built > _MOST_UNUSED * max(n_found, 1):
        raise ModelFileError(
            f"{backbone[:60]} has {n_built:,} weights, and the file holds {n_found:,}: tensors are missing. Save "
            "the model anew with murakit.save_model."
        )
    builder = clone(clf).set_params(
        backbone=backbone,
        unfreeze=field(network, "unfreeze", str),
        weights=None,
        callbacks=None,
        device="cpu",
        verbose=0,
    )
    try:
        built = builder._build_network(len(classes), 0)
    except (ValueError, TypeError) as error:
        raise ModelFileError(f"its network cannot be built: {error}") from error
    if field(network, "stages", list) != list(built.stages):
        raise ModelFileError(_other_stages(backbone))
    if field(record, "preprocessing", dict) != _preprocessing(clf, built):
        raise ModelFileError(
            "it takes images of another size or normalisation than its parameters say. Load it with the version "
            "that saved it (murakit.model_info tells which)."
        )
    _fill(built, state, classes)
    net = builder._make_net(built, classes, seeds_of(0), validated=False, one_epoch=False)
    clf._net = net.initialize().strip()
    clf.classes_ = classes
    clf.n_features_in_ = 1
    _set_training(clf, field(record, "training", dict))
    for name, names in known_patients(record).items():
        setattr(clf, f"{name}_", None if names is None else _typed(names, "object", name))
    return clf


def _other_stages(backbone):
    return (
        f"its network has other stages than this murakit's {backbone}. Load it with the version that saved it "
        "(murakit.model_info tells which)."
    )


def _n_weights(backbone):
    try:
        return count_weights(backbone)
    except (ValueError, TypeError) as error:
        raise ModelFileError(f"its network cannot be built: {error}") from error


# -- parameters -----------------------------------------------------------------------------


def _parameters(clf):
    """Return the parameters as JSON holds them, and sentences on those that are not kept."""
    parameters = clf.get_params(deep=False)
    not_kept = []
    # Folders and devices of this machine, of no use elsewhere, and none that a stranger's file may choose.
    parameters["cache"] = parameters["checkpoint"] = None
    parameters["device"] = _device_of(str(clf.device))
    if clf.weights not in (None, "imagenet"):
        name = os.path.basename(os.fspath(clf.weights))
        not_kept.append(f"the path of weights= ({name}): a new fit of the loaded model would begin with None")
        parameters["weights"] = None
    instances = [callback for callback in clf.callbacks or () if not isinstance(callback, str)]
    if instances:
        names = ", ".join(map(name_of_callback, instances))
        not_kept.append(f"callbacks ({names}), which are code")
        parameters["callbacks"] = [
            callback for callback in clf.callbacks if isinstance(callback, str)
        ] or None
    if isinstance(clf.random_state, np.random.RandomState):
        not_kept.append("random_state, a generator: pass an int to have it kept")
        parameters["random_state"] = None
    return {name: encoded(value, f"{name}=") for name, value in parameters.items()}, not_kept


def _device_of(device):
    """Return the device of a loaded model: a GPU is one of the machine that saved it, and may be missing here."""
    return "cpu" if device == "cpu" else "auto"


def _with_parameters(values):
    unknown = sorted(set(values) - set(MuraClassifier._get_param_names()))
    if unknown:
        raise ModelFileError(
            f"MuraClassifier has no parameters {unknown[:3]}. A newer murakit may have written it: upgrade."
        )
    # A parameter that is younger than the file takes its default, which therefore must mean what was done before.
    values = {name: decoded(value) for name, value in values.items()}
    # save_model never writes them: a file must not choose what is read from, or written to, the reader's disk.
    folders = [values.get(name) for name in ("cache", "checkpoint")]
    if values.get("weights") not in (None, "imagenet") or any(folder is not None for folder in folders):
        raise ModelFileError(
            "its weights=, cache= or checkpoint= names a path, which murakit never writes into a file."
        )
    values["device"] = _device_of(values.get("device"))
    clf = MuraClassifier(**values)
    try:
        clf._validate_params()
        check_callbacks(clf.callbacks, clf.monitor)
    except (ValueError, TypeError) as error:
        raise ModelFileError(f"its parameters are none that a classifier can have: {error}") from error
    if clf.image_size is not None and clf.image_size > _LARGEST_SIDE:
        raise ModelFileError(
            f"image_size={clf.image_size} is more than the {_LARGEST_SIDE:,} px that a model's file may ask for. Save "
            "a model of smaller images."
        )
    return clf


def warn_of(not_kept: Iterable[str]) -> None:
    """Warn of what a file does not hold."""
    if not_kept:
        warnings.warn(f"save_model does not keep {'; nor '.join(not_kept)}.", stacklevel=3)


def _preprocessing(clf, network):
    return {
        "image_size": int(clf._side(network.name)),
        "resize": clf.resize,
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
    }


# -- weights --------------------------------------------------------------------------------


def _fill(network, state, classes):
    """Give a network its weights, every one of them and no other."""
    expected = network.state_dict()
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unknown:
        raise ModelFileError(
            f"{len(missing)} tensors are missing {missing[:3]} and {len(unknown)} are unknown {unknown[:3]} to this "
            f"murakit's {network.name}. Load it with the version that saved it (murakit.model_info tells which)."
        )
    for name, tensor in state.items():
        like = expected[name]
        if (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
            raise ModelFileError(
                f"{name} has shape {tuple(tensor.shape)} and {tensor.dtype}, while {network.name} for {len(classes)} "
                f"classes has {tuple(like.shape)} and {like.dtype}. Save the model anew with murakit.save_model."
            )
    # Frozen layers may be shared with other networks, which must not change.
    unshare_weights(network)
    network.load_state_dict(state)


# -- classes, history and patients ----------------------------------------------------------


def _labels(classes):
    if classes.dtype.kind not in _KINDS:
        raise ValueError(
            f"classes_ are of type {classes.dtype}: a model's file keeps texts, numbers and booleans. Train on one of "
            "these, or use joblib.dump."
        )
    return {"dtype": _type_name(classes.dtype), "values": encoded(classes, "classes_")}


def _classes(record):
    values = decoded(field(record, "values", list))
    if not all(isinstance(value, bool | int | float | str) for value in values):
        raise ModelFileError("its classes are no texts, numbers or booleans. Save the model anew.")
    classes = _typed(values, field(record, "dtype", str), "classes")
    try:
        fits = len(classes) >= 2 and np.array_equal(np.unique(classes), classes)
    except TypeError:
        fits = False
    if not fits or [plain(label) for label in classes] != values:
        raise ModelFileError(
            f"its classes {values[:5]} are not two or more different labels in order. Save the model anew with "
            "murakit.save_model."
        )
    return classes


def _type_name(dtype):
    """Return the name of a NumPy type; text has a length of its own in every array."""
    return "U" if dtype.kind == "U" else dtype.name


def _typed(values, name, what):
    """Return values as an array of a type that was read."""
    try:
        dtype = np.dtype(name)
        if dtype.kind not in _KINDS or name != _type_name(dtype):
            raise TypeError(f"the type {name!r}")
        array = np.empty(len(values), dtype=object)
        # One by one: of lists, NumPy would make further axes.
        for at, value in enumerate(values):
            array[at] = value
        return array if dtype.kind == "O" else array.astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelFileError(
            f"its {what} are not of the type {name[:20]!r}, or that is none murakit writes."
        ) from error


def _column(name, values):
    # pandas' own types, such as that of text, are inferred again by the pandas that loads.
    dtype = values.dtype if isinstance(values.dtype, np.dtype) else None
    return {
        "name": encoded(name, "the columns of history_"),
        "dtype": None if dtype is None else _type_name(dtype),
        "values": encoded(values.tolist(), f"history_[{name!r}]"),
    }


def _history(columns):
    frame = {}
    for column in columns:
        name, values = field(column, "name", str), decoded(field(column, "values", list))
        dtype = field(column, "dtype", str, None)
        frame[name] = values if dtype is None else pd.Series(_typed(values, dtype, "columns"), dtype=dtype)
    if len(frame) != len(columns) or len({len(values) for values in frame.values()}) != 1:
        raise ModelFileError("the columns of its history do not fit each other. Save the model anew.")
    return pd.DataFrame(frame)


def _patients(names, how, salt):
    if names is None or how is None:
        return None
    return hashed(names, salt) if how == "hash" else encoded(names, "patients")


def _set_training(clf, record):
    clf.n_epochs_ = field(record, "n_epochs", int)
    clf.best_epoch_ = field(record, "best_epoch", int)
    clf.history_ = _history(field(record, "history", list))
    if not len(clf.history_) == clf.n_epochs_ >= clf.best_epoch_ >= 1:
        raise ModelFileError("its numbers of epochs do not fit its history. Save the model anew.")
    score = decoded(record.get("validation_score"))
    if not isinstance(score, float | int | None) or isinstance(score, bool):
        raise ModelFileError("its validation score is no number. Save the model anew.")
    clf.validation_score_ = score
