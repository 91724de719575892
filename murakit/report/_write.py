"""`write_report`: an evaluation as one HTML file, with tables, pictures, mistakes and limits."""

import base64
import datetime
import io
import os
import platform

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch

from ..estimators._classifier import MuraClassifier
from ..evaluation._compare import as_comparison
from ..evaluation._result import Evaluation
from ..evaluation._shortcuts import ShortcutAudit
from ..inspection._gallery import has_paths, show_mistakes, worst_mistakes
from ..inspection._heat_maps import grad_cam
from ..io._atomic import written_whole
from ..plotting._curves import OperatingPointDisplay, ReliabilityDisplay
from ..plotting._dataset import DatasetDisplay
from ..plotting._history import HistoryDisplay
from ..plotting._regions import RegionConfusionDisplay, RegionDisplay
from ..plotting._style import pyplot
from ..utils._typing import PathLike
from ..utils._versions import installed_versions

NOT_FOR_CLINICAL_USE = (
    "For research only. This is no medical device: no result of it may decide about a patient."
)

# The most that rounding changes a probability by: in half precision, and in batches of other sizes.
_ROUNDING = 0.02

_PACKAGES = ("murakit", "torch", "torchvision", "scikit-learn", "skorch", "numpy", "pillow", "captum")


def write_report(
    evaluation: Evaluation,
    path: PathLike,
    *,
    estimator: BaseEstimator | None = None,
    data: Bunch | dict[str, Bunch] | None = None,
    audit: ShortcutAudit | None = None,
    title: str = "Evaluation of a classifier of radiographs",
    n_mistakes: int = 4,
    heat_maps: bool = True,
) -> str:
    """Write an evaluation as one HTML file that needs no network.

    Parameters
    ----------
    evaluation : Evaluation
        What `murakit.evaluate` returns.
    path : str or path-like
        The file to write; an older one is replaced when the new one is complete.
    estimator : classifier, default=None
        The judged classifier. The page shows its parameters, training curve and heat maps.
    data : Bunch or dict of str to Bunch, default=None
        The data set, as `load_mura` returns it, or several by name, such as train and valid.
    audit : ShortcutAudit, default=None
        What `murakit.audit_shortcuts` returns.
    title : str, default="Evaluation of a classifier of radiographs"
        Heading of the page.
    n_mistakes : int, default=4
        Most confident errors of each kind to show; 0: none.
    heat_maps : bool, default=True
        Whether to lay Grad-CAM over the mistakes; only of a `MuraClassifier`. Where its probabilities
        differ from those that were judged, the page warns.

    Returns
    -------
    path : str
        The absolute path of the file.

    Raises
    ------
    TypeError
        Where `evaluation` is no `Evaluation`.
    ImportError
        Without matplotlib (``murakit[plot]``) or, for heat maps, Captum (``murakit[explain]``).

    References
    ----------
    Mongan, Moy and Kahn, "Checklist for Artificial Intelligence in Medical Imaging (CLAIM)",
    Radiology: Artificial Intelligence 2 (2020): what such a report has to say.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import evaluate_predictions, write_report
    >>> evaluation = evaluate_predictions(
    ...     [0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], patients=list("abcd"), n_resamples=100
    ... )
    >>> path = write_report(evaluation, tempfile.mkdtemp() + "/report.html", n_mistakes=0)
    >>> with open(path, encoding="utf-8") as file:
    ...     "Cohen&#39;s kappa" in file.read()
    True
    """
    if not isinstance(evaluation, Evaluation):
        raise TypeError(
            f"write_report takes an Evaluation, not a {type(evaluation).__name__}: see murakit.evaluate."
        )
    data = {} if data is None else data
    # Of several data sets by name, each value is one; of one data set, the values are arrays.
    parts = data if all(isinstance(part, dict) for part in data.values()) else {"": data}
    sections = [
        _section("Result", "result", _result(evaluation)),
        _section("By region", "regions", _regions(evaluation)),
        _section("Probabilities and threshold", "probabilities", _probabilities(evaluation)),
        _section("Beside published results", "published", _published(evaluation)),
        _section("Data", "data", _data(parts)),
        _section("Shortcuts", "shortcuts", _shortcuts(audit)),
        _section("Model and training", "model", _model(estimator)),
        _section(
            "Most confident mistakes", "mistakes", _mistakes(evaluation, estimator, n_mistakes, heat_maps)
        ),
        _section("Limits", "limits", _limits(evaluation)),
        _section("Versions", "versions", _versions()),
    ]
    page = (
        _templates()
        .get_template("report.html")
        .render(
            title=title,
            warning=NOT_FOR_CLINICAL_USE,
            made=datetime.datetime.now().strftime("%d %B %Y, %H:%M"),
            sections=[section for section in sections if section is not None],
        )
    )
    path = os.path.abspath(os.fspath(path))
    with written_whole(path) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
        file.write(page)
    return path


def _section(heading, template, contents):
    """Return what a section's template is rendered with, or None where there is nothing to say."""
    return None if contents is None else {"heading": heading, "template": template, **contents}


def _templates():
    """Return the environment of the templates: text from data is escaped, a missing value is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("murakit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


# -- sections: what their templates show; None leaves a section out ------------------------


def _result(evaluation):
    frame = evaluation.to_frame().loc["all"]
    counts = (
        f"{frame['n_studies']:,} studies ({frame['n_images']:,} images) of {frame['n_patients']:,} patients"
        + (f", {frame['prevalence']:.1%} abnormal" if not np.isnan(frame["prevalence"]) else "")
    )
    metrics = {
        "Cohen's kappa": "kappa", "AUROC": "auroc", "Sensitivity": "sensitivity", "Specificity": "specificity"
    }  # fmt: skip
    return {
        "counts": counts,
        "cards": [_card(name, evaluation.get(metric)) for name, metric in metrics.items()],
        "notes": [evaluation.caption(), *evaluation.undefined()],
        "table": _table(evaluation.table("all").T),
    }


def _card(name, estimate):
    return {
        "name": name,
        "value": "–" if np.isnan(estimate.value) else f"{estimate.value:.3f}",
        "range": "no interval" if np.isnan(estimate.low) else estimate.bounds(),
    }


def _regions(evaluation):
    if not evaluation.predictions.regions():
        return None
    kappa = RegionDisplay(evaluation).plot()
    auroc = RegionDisplay(evaluation).plot(metric="auroc", published=False)
    matrices = RegionConfusionDisplay(evaluation).plot()
    alone = len(matrices.axes_) == 1
    return {
        "metrics": [
            _image(kappa.figure_, "Cohen's kappa of each region with its interval"),
            _image(auroc.figure_, "AUROC of each region with its interval"),
        ],
        "matrices": _image(
            matrices.figure_, "Confusion matrix" if alone else "Confusion matrices of all and of each region"
        ),
    }


def _probabilities(evaluation):
    if len(evaluation.classes) != 2:
        return None
    if len(set(evaluation.predictions.code)) < 2:
        return {"pictures": []}
    curve = OperatingPointDisplay(evaluation).plot()
    reliability = ReliabilityDisplay(evaluation).plot()
    return {
        "pictures": [
            _image(curve.figure_, "ROC curve with its interval and the threshold"),
            _image(reliability.figure_, "Share of abnormal against predicted probability"),
        ]
    }


def _published(evaluation):
    if len(evaluation.classes) != 2:
        return None  # what is published is of two classes
    table = as_comparison(evaluation).beside_published("kappa")
    return {"table": _table(table, index=False, kind="text")}


def _data(parts):
    return {"parts": [_part(name, part) for name, part in parts.items()]} if parts else None


def _part(name, part):
    display = DatasetDisplay.from_data(part)
    counts = display.counts_.reset_index()
    counts["label"] = counts["label"].astype(str)
    alt = f"Studies per region and label, and sizes, of {name or 'the data set'}"
    return {
        "name": name,
        "picture": _image(display.figure_, alt, wide=True),
        "counts": _table(counts.astype(str), index=False),
    }


def _shortcuts(audit):
    return None if audit is None else {"audit": audit._repr_html_()}


def _model(estimator):
    if estimator is None:
        return None
    defaults = type(estimator)().get_params(deep=False) if isinstance(estimator, MuraClassifier) else {}
    return {
        "name": type(estimator).__name__,
        "training": _training(estimator) if hasattr(estimator, "history_") else None,
        "parameters": [
            {"name": name, "value": repr(value), "changed": not _same(value, defaults.get(name, value))}
            for name, value in sorted(estimator.get_params(deep=False).items())
        ],
    }


def _training(estimator):
    trained, held_out = estimator.train_patients_, estimator.validation_patients_
    display = HistoryDisplay.from_estimator(estimator)
    return {
        "n_epochs": estimator.n_epochs_,
        "best_epoch": estimator.best_epoch_,
        "n_trained": None if trained is None else f"{len(trained):,}",
        "n_held_out": None if held_out is None else f"{len(held_out):,}",
        "picture": _image(display.figure_, "Losses, scores and learning rate of each epoch"),
    }


def _same(value, default):
    try:
        return bool(value == default)
    except (TypeError, ValueError):
        return False


def _mistakes(evaluation, estimator, n_mistakes, heat_maps):
    if not n_mistakes or len(evaluation.classes) != 2:
        return None
    if not has_paths(evaluation):
        return {"has_paths": False}
    found = worst_mistakes(evaluation, n_mistakes=n_mistakes)
    predictions = evaluation.predictions
    explained = heat_maps and isinstance(estimator, MuraClassifier)
    classes = getattr(estimator, "classes_", predictions.classes)
    other_classes = explained and not np.array_equal(classes, predictions.classes)
    maps = []

    def explain(paths):
        maps.append(grad_cam(estimator, paths))
        return maps[-1]

    kinds = []
    for kind, rows in found.items():
        true, predicted = ((1, 0), (0, 1))[kind == "false positives"]
        n_all = int(((predictions.code == true) & (predictions.predicted == predicted)).sum())
        picture = None
        if len(rows):
            figure = show_mistakes(
                evaluation,
                n_mistakes=n_mistakes,
                kind=kind,
                heat_maps=explain if explained and not other_classes else None,
            )
            picture = _image(figure, f"The most confident {kind}, all views of each study", wide=True)
        kinds.append({"name": kind, "n_all": f"{n_all:,}", "picture": picture})
    return {
        "has_paths": True,
        "kinds": kinds,
        "other_classes": other_classes,
        "explained": bool(maps),
        "difference": _difference(predictions.proba[np.concatenate(list(found.values())), 1], maps),
    }


def _difference(judged, maps):
    """Return how far the explained network's probabilities lie from those judged, where rounding is not why."""
    if not maps:
        return None
    difference = np.abs(judged - [heat.proba.mean() for heat in maps]).max()
    return f"{difference:.2f}" if difference > _ROUNDING else None


def _limits(evaluation):
    frame = evaluation.to_frame()
    return {
        "small_regions": list(frame.index[(frame.kind == "region") & (frame.n_studies < 50)]),
        "without_errors": bool((frame["accuracy"] == 1).any()),
        "threshold": None if evaluation.threshold is None else f"{evaluation.threshold:.3g}",
    }


def _versions():
    packages = installed_versions(_PACKAGES)
    return {
        "packages": [
            f"Python {platform.python_version()}",
            *(f"{name} {version}" for name, version in packages.items()),
        ],
        "machine": f"{platform.system()} {platform.machine()}",
    }


# -- tables and pictures --------------------------------------------------------------------


def _table(frame, index=True, kind=None):
    table = frame.rename_axis(index=None, columns=None)
    return table.to_html(border=0, index=index, escape=True, classes=kind)


def _image(figure, alt, *, wide=False):
    """Return a figure as the template shows it, and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    pyplot().close(figure)
    return {
        "png": base64.b64encode(buffer.getvalue()).decode("ascii"),
        "alt": alt,
        "width": round(figure.get_figwidth() * 96 * 1.15),
        "wide": wide,
    }
