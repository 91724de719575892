"""Which of two classes is the abnormal one: known by its name, or passed as `pos_label`."""

from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from ..utils._validation import as_label, plain

# Pairs of class names, normal first, that everybody understands in the same way. For all others, `pos_label`
# is required: sorting would make "none" the abnormal one of "fracture" and "none", and so swap sensitivity
# and specificity.
_KNOWN = (("0", "1"), ("false", "true"), ("normal", "abnormal"), ("negative", "positive"))


def positive_index(classes: Sequence | NDArray, pos_label: Any = None, *, name: str = "y") -> int:
    """Return the position of the abnormal one of two classes.

    Parameters
    ----------
    classes : sequence of length 2
    pos_label : label or None
        The abnormal class. None: known for 0/1, False/True, normal/abnormal and negative/positive.
    name : str
        What has the classes; used in the error message.

    Raises
    ------
    ValueError
        If the names do not tell which class is the abnormal one, or `pos_label` is not one of the classes.
    """
    labels = [plain(label) for label in classes]
    if pos_label is not None:
        pos_label = as_label(pos_label)
        matches = [at for at, label in enumerate(labels) if label == pos_label]
        if not matches:
            raise ValueError(
                f"pos_label={pos_label!r} is none of the classes of {name}, {labels[0]!r} and {labels[1]!r}. Pass the "
                "one that counts as abnormal."
            )
        return matches[0]
    names = [_name(label) for label in labels]
    stems = {name.rpartition("_")[0] for name in names}
    if len(stems) == 1:
        # "wrist_normal" and "wrist_abnormal" of load_mura(target="region_abnormal")
        names = [name.rpartition("_")[2] for name in names]
    for pair in _KNOWN:
        if set(names) == set(pair):
            return names.index(pair[1])
    raise ValueError(
        f"Which of the classes of {name}, {labels[0]!r} and {labels[1]!r}, is the abnormal one? Pass pos_label="
        f"{labels[0]!r} or pos_label={labels[1]!r}; if neither is abnormal (two regions, for example), pass either. "
        "Known without it are 0/1, False/True, normal/abnormal and negative/positive."
    )


def positive_label(estimator: Any) -> Any:
    """Return the `pos_label` of a fitted classifier or of one inside it; None if there is none."""
    classes = [plain(label) for label in getattr(estimator, "classes_", ())]
    for found in within(estimator):
        label = getattr(found, "pos_label_", None)
        label = getattr(found, "pos_label", None) if label is None else label
        # A meta-estimator may fit inner classifiers on labels encoded as 0 and 1: those are no classes of its own.
        if label is not None and plain(label) in classes:
            return plain(label)
    return None


def within(estimator: Any) -> Iterator[Any]:
    """Yield an estimator and the estimators inside it, outermost first."""
    if estimator is None or isinstance(estimator, str):
        return
    yield estimator
    inner = [getattr(estimator, name, None) for name in ("best_estimator_", "estimator_", "estimator")]
    inner += list(getattr(estimator, "estimators_", None) or [])
    inner += list(getattr(estimator, "calibrated_classifiers_", None) or [])
    inner += [step for _, step in getattr(estimator, "steps", None) or []]
    for part in inner:
        yield from within(part)


def label_name(label: Any) -> str:
    """Return the name of a label to print: "normal" and "abnormal" for MURA's 0 and 1."""
    known = {"0": "normal", "1": "abnormal"}
    return known.get(str(label), str(label))


def _name(label):
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label).strip().casefold()


def abnormal_last(classes: NDArray, proba: NDArray, positive: int) -> tuple[NDArray, NDArray]:
    """Return two classes and their probabilities (n, 2) in the order normal, abnormal."""
    return (classes[::-1], proba[:, ::-1]) if positive == 0 else (classes, proba)
