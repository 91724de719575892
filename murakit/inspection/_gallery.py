"""Pictures of studies: all views of a study together, and those that a model gets most wrong."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..datasets._paths import as_paths
from ..datasets._samples import as_samples
from ..evaluation._result import Evaluation
from ..io._images import read_image
from ..metrics._labels import label_name
from ..plotting._style import GREY, paper
from ..utils._typing import Paths
from ._heat_maps import HeatMaps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_VIEWS = 4

_CELL = 1.6  # inches


def show_studies(
    X: Paths,
    y: ArrayLike | None = None,
    *,
    studies: ArrayLike,
    regions: ArrayLike | None = None,
    n_studies: int = 8,
    random_state: int = 0,
) -> "Figure":
    """Draw studies, all views of each in a row.

    Parameters
    ----------
    X : array-like of shape (n,)
        Paths of images or of study folders.
    y : array-like of shape (n,), default=None
        Labels; 0 is written "normal" and 1 "abnormal".
    studies : array-like of shape (n,)
        Study of each.
    regions : array-like of shape (n,), default=None
        Region of each.
    n_studies : int, default=8
        How many to draw; drawn at random where there are more.
    random_state : int, default=0
        Which.

    Returns
    -------
    figure : matplotlib Figure

    Raises
    ------
    ValueError
        For inputs of different lengths.
    UnreadableImage
        For a file that is no readable image.

    References
    ----------
    Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in Musculoskeletal
    Radiographs", arXiv 1712.06957 (2017): studies of several views.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import load_mura, make_mura
    >>> from murakit.inspection import show_studies
    >>> root = make_mura(tempfile.mkdtemp() + "/mura", n_patients=12, image_size=64, random_state=0)
    >>> mura = load_mura(root)
    >>> figure = show_studies(mura.data, mura.target, studies=mura.studies, n_studies=2)
    """
    paths = as_paths(X)
    given = {"studies": studies, "y": y, "regions": regions}
    columns = {name: np.asarray(values, dtype=object) for name, values in given.items() if values is not None}
    for name, values in columns.items():
        if len(values) != len(paths):
            raise ValueError(
                f"X has {len(paths)} paths and {name} {len(values)} entries: pass one of each a path."
            )
    names, first = np.unique(columns["studies"].astype(str), return_index=True)
    if len(names) > n_studies:
        chosen = np.sort(np.random.default_rng(random_state).choice(len(names), n_studies, replace=False))
        names, first = names[chosen], first[chosen]
    rows = []
    for name, at in zip(names, first):
        images = as_samples(paths[columns["studies"].astype(str) == name]).path
        title = [name]
        if "regions" in columns:
            title.append(str(columns["regions"][at]))
        if "y" in columns:
            title.append(label_name(columns["y"][at]))
        rows.append((" · ".join(title), images, None))
    return _draw(rows)


def worst_mistakes(evaluation: Evaluation, *, n_mistakes: int = 4) -> dict[str, NDArray[np.intp]]:
    """Return the most confident errors, apart by kind.

    Parameters
    ----------
    evaluation : Evaluation
        Of two classes.
    n_mistakes : int, default=4
        Of each kind, at the most.

    Returns
    -------
    mistakes : dict of str to ndarray
        ``"false negatives"`` and ``"false positives"``: rows of ``evaluation.predictions``, the most
        confident first.

    Raises
    ------
    ValueError
        For more than two classes.

    References
    ----------
    Oakden-Rayner et al., "Hidden Stratification Causes Clinically Meaningful Failures in Machine
    Learning for Medical Imaging", CHIL (2020): why to look at errors one by one.

    Examples
    --------
    >>> from murakit import evaluate_predictions
    >>> from murakit.inspection import worst_mistakes
    >>> evaluation = evaluate_predictions([0, 1, 1], [0.9, 0.2, 0.1], patients=list("abc"), n_resamples=0)
    >>> {kind: rows.tolist() for kind, rows in worst_mistakes(evaluation).items()}
    {'false negatives': [2, 1], 'false positives': [0]}
    """
    predictions = evaluation.predictions
    if len(predictions.classes) != 2:
        raise ValueError(
            f"False negatives and positives need two classes, and there are {len(predictions.classes)}."
        )
    score, predicted = predictions.proba[:, 1], predictions.predicted
    found = {}
    for kind, true, sign in (("false negatives", 1, 1), ("false positives", 0, -1)):
        rows = np.flatnonzero((predictions.code == true) & (predicted != true))
        found[kind] = rows[np.argsort(sign * score[rows], kind="stable")][:n_mistakes]
    return found


def show_mistakes(
    evaluation: Evaluation,
    *,
    n_mistakes: int = 4,
    kind: str = "both",
    heat_maps: Callable[[NDArray[np.object_]], HeatMaps] | None = None,
) -> "Figure":
    """Draw the most confident errors, with all views of each study.

    Parameters
    ----------
    evaluation : Evaluation
        Of two classes, made from paths.
    n_mistakes : int, default=4
        Of each kind, at the most.
    kind : {"both", "false negatives", "false positives"}, default="both"
    heat_maps : callable, default=None
        Given the paths of some images, returns their `HeatMaps`, which are laid over them, such as
        ``lambda paths: grad_cam(clf, paths)``.

    Returns
    -------
    figure : matplotlib Figure

    Raises
    ------
    ValueError
        For more than two classes, for predictions without paths, and where there is no such error.

    References
    ----------
    Oakden-Rayner et al., "Hidden Stratification Causes Clinically Meaningful Failures in Machine
    Learning for Medical Imaging", CHIL (2020): why to look at errors one by one.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from murakit import evaluate_predictions, load_mura, make_mura
    >>> from murakit.inspection import show_mistakes
    >>> root = make_mura(tempfile.mkdtemp() + "/mura", n_patients=12, image_size=64, random_state=0)
    >>> mura = load_mura(root)
    >>> ids = {"patients": mura.patients, "studies": mura.studies, "images": mura.data}
    >>> wrong = np.where(mura.target == 1, 0.1, 0.8)
    >>> figure = show_mistakes(evaluate_predictions(mura.target, wrong, n_resamples=0, **ids), n_mistakes=1)
    """
    if not isinstance(evaluation, Evaluation):
        raise TypeError(
            f"show_mistakes draws an Evaluation, not a {type(evaluation).__name__}: see murakit.evaluate."
        )
    if heat_maps is not None and not callable(heat_maps):
        raise TypeError(
            f"heat_maps is a {type(heat_maps).__name__}: pass what makes maps of paths, such as lambda paths: "
            "grad_cam(clf, paths)."
        )
    found = worst_mistakes(evaluation, n_mistakes=n_mistakes)
    if kind != "both" and kind not in found:
        raise ValueError(f"kind={kind!r} is not known: pass 'both', {', '.join(map(repr, found))}.")
    predictions = evaluation.predictions
    rows = []
    for name, mistakes in found.items():
        if kind not in ("both", name):
            continue
        for row in mistakes:
            images = images_of(evaluation, row)
            region = "" if predictions.region is None else f" · {predictions.region[row]}"
            true, abnormal = predictions.classes[predictions.code[row]], predictions.classes[1]
            title = (
                f"{name[:-1].capitalize()}: is {label_name(true)}, P({label_name(abnormal)}) = "
                f"{predictions.proba[row, 1]:.2f}{region} · {predictions.patient[row]}"
            )
            rows.append((title, images, None if heat_maps is None else heat_maps(images)))
    if not rows:
        raise ValueError("There is no such error among these samples.")
    return _draw(rows)


def has_paths(evaluation: Evaluation) -> bool:
    """Return whether an evaluation knows the paths of its images, and not only the numbers of rows."""
    return not any(str(name).isdigit() for name in evaluation.images.name)


def images_of(evaluation: Evaluation, row: int) -> NDArray[np.object_]:
    """Return the paths of the images of one prediction (a study or an image) of an evaluation."""
    named = evaluation.images.study == evaluation.predictions.study[row]
    if evaluation.level == "image":
        named = evaluation.images.name == evaluation.predictions.name[row]
    names = evaluation.images.name[named]
    if not has_paths(evaluation):
        raise ValueError(
            "The evaluation holds no paths of images: make it by evaluate(estimator, X, y), or pass images= to "
            "evaluate_predictions."
        )
    return as_samples(names).path


def _draw(rows):
    """Draw titled rows of images; of a study with many views, the first."""
    with paper() as plt:
        n_columns = max(min(max(len(images) for _, images, _ in rows), _MOST_VIEWS), 3)
        figure = plt.figure(figsize=(_CELL * n_columns, (_CELL + 0.28) * len(rows)), layout="constrained")
        for part, (title, images, heat) in zip(np.ravel(figure.subfigures(len(rows), 1)), rows):
            left_out = len(images) - _MOST_VIEWS
            more = f" (+ {left_out} views)" if left_out > 0 else ""
            part.suptitle(title + more, fontsize=7, x=0.01, ha="left")
            for number, ax in enumerate(np.ravel(part.subplots(1, n_columns))):
                ax.axis("off")
                if number >= len(images):
                    continue
                if heat is None:
                    ax.imshow(read_image(images[number]), cmap="gray", vmin=0, vmax=255)
                else:
                    heat.draw(ax, number)
                ax.add_patch(_frame(ax))
    return figure


def _frame(ax):
    from matplotlib.patches import Rectangle

    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    return Rectangle((left, bottom), right - left, top - bottom, fill=False, color=GREY, linewidth=0.4)
